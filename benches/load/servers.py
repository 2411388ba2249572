"""The servers that are compared, each on free loopback ports, and their processes."""

import ctypes
import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BODY_1K = "x" * 1024
BODY_100K = 100 * 1024
BODY_10M = 10 * 1024 * 1024
# What the origin lets be stored: whatever begins with /1k or /100k.
SIZES = {"/100k": BODY_100K, "/10m": BODY_10M}
# As good as no limit: what is compared is the work of a request, not who closes connections when.
MANY = 1_000_000_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if not found:
        raise SystemExit(f"scripts/bench: `{name}` is not here; `scripts/setup bench perf` installs it")
    return found


def prepare_child(core):
    """Run in the child before exec: on its core, and never outliving us, whatever ends us."""
    libc = ctypes.CDLL(None)

    def prepare():
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.sched_setaffinity(0, {core})

    return prepare


@dataclass
class Process:
    """A running server: a main process and perhaps workers of its own."""

    name: str
    main: subprocess.Popen
    log: Path

    @classmethod
    def start(cls, name, argv, core, folder, env=None):
        log = folder / f"{name}.out"
        with log.open("wb") as out:
            main = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare_child(core),
                env={**os.environ, **(env or {})},
            )
        return cls(name, main, log)

    def pids(self):
        """The main process and its children, for CPU and memory."""
        pids, todo = [], [self.main.pid]
        while todo:
            pid = todo.pop()
            pids.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    todo += [int(child) for child in children.read_text().split()]
                except OSError:
                    pass
        return pids

    def stop(self):
        """Ends the processes that this object started, and no other."""
        if self.main.poll() is None:
            self.main.terminate()
            try:
                self.main.wait(timeout=3)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.main.pid, signal.SIGKILL)  # its own session: whatever it left behind
        except ProcessLookupError:
            pass
        self.main.wait()

    def check_alive(self):
        if self.main.poll() is not None:
            text = self.log.read_text(errors="replace").strip()
            raise SystemExit(f"scripts/bench: {self.name} ended by itself (status {self.main.returncode}):\n{text}")


@dataclass
class Server:
    """One of those compared: where it listens, and how it is started."""

    name: str
    kind: str
    folder: Path
    core: int
    argv: list
    port: int
    ready: tuple  # port and path that answer 200 once it serves
    env: dict = field(default_factory=dict)
    process: Process = None
    start_ms: float = 0.0

    def start(self):
        begun = time.monotonic()
        self.process = Process.start(self.name, self.argv, self.core, self.folder, self.env)
        deadline = begun + 30
        while not answers(*self.ready):
            self.process.check_alive()
            if time.monotonic() > deadline:
                raise SystemExit(f"scripts/bench: {self.name} did not answer within 30 s; see {self.process.log}")
            time.sleep(0.001)
        self.start_ms = (time.monotonic() - begun) * 1000
        return self

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None


def answers(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def expect(server, path, size):
    """A fast wrong answer must not win: the body has to come through whole."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200 or len(body) != size:
        raise SystemExit(
            f"scripts/bench: {server.name} answers {path} with {response.status} and {len(body)} bytes, not {size}"
        )


def asked(origin):
    """How many requests the origin has had."""
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)
    try:
        connection.request("GET", "/status")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return int(text.split("requests")[1].split()[2])


def origin(folder, core):
    """The origin: nginx, which answers 1 KiB from memory, and 100 KiB and 10 MiB from files."""
    port = free_port()
    (folder / "www").mkdir(exist_ok=True)
    for path, size in SIZES.items():
        (folder / "www" / path[1:]).write_bytes(os.urandom(size))
    text = f"""
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests {MANY};
        default_type text/plain;
        location / {{ return 200 "{BODY_1K}"; }}
        location = /10m {{ root {folder}/www; }}
        location /100k {{ rewrite ^ /100k break; root {folder}/www; add_header Cache-Control max-age=86400; }}
        location /1k {{ add_header Cache-Control max-age=86400; return 200 "{BODY_1K}"; }}
        location = /status {{ stub_status; }}
    }}"""
    return Server("origin", "nginx", folder, core, nginx_argv(folder, "origin", text), port, (port, "/"))


def nginx_argv(folder, name, http_block):
    home = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
    temporary = "\n".join(
        f"    {kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = home / "nginx.conf"
    config.write_text(
        f"""{user}
worker_processes 1;
daemon off;
pid {home}/pid;
error_log {home}/error.log warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    server_tokens off;
{temporary}
{http_block}
}}
"""
    )
    return [find_program("nginx"), "-p", str(home), "-e", f"{home}/error.log", "-c", str(config)]


def nginx(name, folder, core, origin_port, logging, large_buffers=False, cache="", open_files=False):
    """With the buffers it has by default (8 of a page, then a file), or with such as large bodies are better served by.

    Its cache lies on disk always; `open_files` keeps the files of what is stored open.
    """
    port = free_port()
    store = ""
    if cache:
        home = folder / f"{name}.cache"
        store = f"proxy_cache_path {home} levels=1:2 keys_zone=main:64m max_size=4g inactive=1d use_temp_path=off;"
        cache = "proxy_cache main;"
    if open_files:
        cache += " open_file_cache max=10000 inactive=60s;"
    buffers = ""
    if large_buffers:
        buffers = "proxy_buffer_size 16k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;"
    log = "access_log off;"
    if logging:
        log = f"access_log {folder}/{name}.access.log all buffer=64k flush=1s;"
    text = f"""
    {store}
    log_format all escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
        '"host":"$host","uri":"$request_uri","protocol":"$server_protocol","status":$status,'
        '"size":$body_bytes_sent,"duration":$request_time,"id":"$request_id","upstream":"$upstream_addr",'
        '"first_byte":"$upstream_header_time","user_agent":"$http_user_agent","referer":"$http_referer"}}';
    upstream origin {{
        server 127.0.0.1:{origin_port};
        keepalive 128;
        keepalive_requests {MANY};
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests {MANY};
        {log}
        deny 192.0.2.0/24;
        allow all;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Request-Id $request_id;
            {buffers} {cache}
            proxy_hide_header X-Powered-By;
            add_header X-Edge bench;
        }}
    }}"""
    return Server(name, "nginx", folder, core, nginx_argv(folder, name, text), port, (port, "/"))


def haproxy(name, folder, core, origin_port, logging, cache=""):
    port = free_port()
    log = section = use = store = ""
    if cache:
        section = "cache main\n    total-max-size 1024\n    max-object-size 200000\n    max-age 86400\n"
        use, store = "http-request cache-use main", "http-response cache-store main"
    if logging:
        log = """log stdout format raw local0
    log-format '{"time":"%[date,ltime(%FT%T)]","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0)]","uri":"%HU","protocol":"%HV","status":%ST,"size":%B,"duration":%Ta,"id":"%ID","upstream":"%si:%sp","first_byte":%Tr,"user_agent":"%[capture.req.hdr(1)]"}'
    capture request header Host len 128
    capture request header User-Agent len 128"""
    # HAProxy refuses to start when two descriptors for each connection are more than it may have.
    most = min(20000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // 2)
    config = folder / f"{name}.cfg"
    config.write_text(
        f"""global
    nbthread 1
    maxconn {most}

defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    option http-keep-alive
    http-reuse always

{section}
frontend front
    bind 127.0.0.1:{port} backlog 4096
    {log}
    option forwardfor
    unique-id-format %[uuid]
    unique-id-header X-Request-Id
    http-request deny if {{ src 192.0.2.0/24 }}
    {use}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-response del-header X-Powered-By
    http-response set-header X-Edge bench
    {store}
    default_backend origin

backend origin
    server one 127.0.0.1:{origin_port} pool-max-conn 128
"""
    )
    return Server(name, "haproxy", folder, core, [find_program("haproxy"), "-db", "-f", str(config)], port, (port, "/"))


def varnish(name, folder, core, origin_port, logging, cache="memory"):
    """Only as a cache, in memory. What it shares with readers of its log is written always, as it is by default."""
    assert cache == "memory" and not logging
    port = free_port()
    config = folder / f"{name}.vcl"
    config.write_text(
        f"""vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{origin_port}"; }}
acl denied {{ "192.0.2.0"/24; }}
sub vcl_recv {{ if (client.ip ~ denied) {{ return (synth(403)); }} }}
sub vcl_backend_fetch {{
    set bereq.http.X-Forwarded-Proto = "http";
    set bereq.http.X-Forwarded-Host = bereq.http.Host;
    set bereq.http.X-Request-Id = bereq.xid;
}}
sub vcl_deliver {{ unset resp.http.X-Powered-By; set resp.http.X-Edge = "bench"; }}
"""
    )
    argv = [find_program("varnishd"), "-F", "-j", "none", "-n", str(folder / f"{name}.home"), "-T", "none",
            "-a", f"127.0.0.1:{port}", "-f", str(config), "-s", "malloc,1g", "-p", "thread_pools=1",
            "-p", "listen_depth=4096"]
    return Server(name, "varnish", folder, core, argv, port, (port, "/"))


def edgeway_head(port, admin, access):
    return f"""runtime:
  threads: 1
  limits: {{ connections: 50000, per_client: 50000, requests_per_connection: {MANY} }}
admin: 127.0.0.1:{admin}
log: {{ level: warn, access: {access} }}
listeners: ["127.0.0.1:{port}"]
"""


def edgeway(name, folder, core, origin_port, logging, binary, sites=None, cache=""):
    """`sites`: the text of that block, when it is not the one that is compared with the others."""
    # Before the disk lies the least memory that may be.
    zones = {
        "": "",
        "memory": "caches: { main: 1GiB }\n",
        "disk": f'caches: {{ main: {{ memory: 1MiB, disk: {{ path: "{folder}/{name}.cache", size: 4GiB }} }} }}\n',
    }
    port, admin = free_port(), free_port()
    access = f'[{{ to: "{folder}/{name}.access.log", format: json }}]' if logging else "none"
    sites = sites or """sites:
  - filters:
      - ip_rules: { deny: [192.0.2.0/24] }
    headers: { response: { set: { X-Edge: bench }, remove: [X-Powered-By] } }
    routes:
      - name: load
        match: /*
        proxy: origin
""" + ("        cache: main\n" if cache else "")
    config = folder / f"{name}.yaml"
    config.write_text(
        edgeway_head(port, admin, access) + f'upstreams:\n  origin: ["127.0.0.1:{origin_port}"]\n' + zones[cache] + sites
    )
    argv = [str(binary), "run", str(config)]
    return Server(name, "edgeway", folder, core, argv, port, (admin, "/readyz"), {"RUST_LOG": "warn"})
