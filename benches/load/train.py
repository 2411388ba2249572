"""The load that a profile-guided build learns from: `train.py BINARY SECONDS`.

It must resemble what gateways do all day, or the compiler favours what is rare: mostly keep-alive requests through a
few routes, some new connections, some large bodies, some hits of the cache,
some replies of the gateway's own; with the log on.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import servers

SITES = """sites:
  - hosts: ["*.example.test"]
    filters:
      - ip_rules: { deny: [192.0.2.0/24] }
    headers:
      request: { set: { X-Client: "${client.ip}" } }
      response: { set: { X-Edge: bench }, remove: [X-Powered-By] }
    routes:
      - { name: item, match: "/items/{id}/*rest", proxy: origin, rewrite: { path: "/v2/${id}" } }
      - { name: api, match: { path: /api/*, method: [GET, POST] }, proxy: origin, rewrite: { strip_prefix: /api } }
      - { name: old, match: { path_regex: '^/blog/(?<slug>[a-z0-9-]+)$' }, redirect: "https://blog.example.test/${slug}" }
      - { name: fixed, match: /robots.txt, respond: "User-agent: *\\n" }
      - { name: stored, match: /1k/*, proxy: origin, cache: true }
      - { name: rest, match: /*, proxy: origin }
  - proxy: origin
"""

BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark",
]


def main():
    binary, seconds = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix="edgeway-pgo-"))
    cores = sorted(os.sched_getaffinity(0))
    proxy_core, load_core = cores[0], cores[-1]
    origin = servers.origin(folder, load_core)
    gateway = None
    try:
        port = origin.start().port
        gateway = servers.edgeway("edgeway", folder, proxy_core, port, True, binary, SITES).start()
        host = "Host: www.example.test"
        for path, connections, headers, part in [
            ("/", 48, [], 1.0),
            ("/some/page?x=1", 48, [host, *BROWSER], 1.0),
            ("/api/orders", 32, [host], 0.5),
            ("/items/42/parts/7", 32, [host], 0.5),
            ("/", 32, ["Connection: close"], 0.5),
            ("/10m", 4, [], 0.3),
            ("/1k/stored", 48, [host, *BROWSER], 0.7),
            ("/robots.txt", 32, [host], 0.2),
            ("/blog/some-post", 32, [host], 0.2),
        ]:
            run = measure.load(gateway, load_core, path, connections, max(1, round(seconds * part)), headers)
            print(f"  {path}: {run.requests} requests", flush=True)
            if run.errors:
                raise SystemExit(f"scripts/pgo: {run.errors} errors while serving {path}")
        # The profile is written when the process ends by itself: asked to stop, not killed.
        gateway.process.main.terminate()
        gateway.process.main.wait(timeout=60)
    except subprocess.TimeoutExpired:
        raise SystemExit("scripts/pgo: the instrumented gateway did not stop when asked to") from None
    finally:
        if gateway:
            gateway.stop()
        origin.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
