"""The scenarios: each says what it runs, runs it in interleaved rounds, and gives rows for the report."""

import contextlib
import resource
import socket
import statistics
import time
from dataclasses import dataclass

import measure
import servers

ROUTES = 10_000
OBJECTS = (1_000, 100_000)


@dataclass
class Setting:
    """What the command line asked for."""

    folder: object
    names: list  # `edgeway`, `nginx`, `haproxy`, `varnish`, and labels of further binaries
    binaries: dict  # label -> path
    rounds: int
    seconds: int
    proxy_core: int
    load_core: int
    origin: object = None

    def proxies(self):
        """Those that are compared as proxies: Varnish is here for its cache."""
        return [name for name in self.names if name != "varnish"]


def build(setting, name, label, logging=False, **more):
    """The server `name`, under a label that is unique in this run."""
    folder, core, port = setting.folder, setting.proxy_core, setting.origin.port
    if name in setting.binaries:
        return servers.edgeway(label, folder, core, port, logging, setting.binaries[name], **more)
    return getattr(servers, name)(label, folder, core, port, logging, **more)


def rounds(setting, scenario, targets, path, connections, headers=(), script=None, prepare=None):
    """Runs all targets in turn, round after round, so that whatever else the machine does meets all of them alike.

    `prepare` is done with each of them once it runs.
    """
    runs = {target.name: [] for target in targets}

    def one(target, seconds):
        return measure.load(target, setting.load_core, path, connections, seconds, headers, script)

    try:
        for target in targets:
            target.start()
            if not script:  # a script has paths of its own; what is refused there is counted as an error
                servers.expect(target, path, servers.SIZES.get(path, len(servers.BODY_1K)))
            if prepare:
                prepare(target)
            one(target, 1)  # warm: pools filled, memory taken
        for number in range(setting.rounds):
            for target in targets:
                run = one(target, setting.seconds)
                runs[target.name].append(run)
                print(
                    f"  {scenario} {number + 1}/{setting.rounds} {target.name:<24} {run.cpu_us:9.2f} us/request"
                    f" {run.per_second:9.0f}/s" + (f"  {run.errors} ERRORS" if run.errors else ""),
                    flush=True,
                )
    finally:
        for target in targets:
            target.stop()
    return [row(scenario, target, runs[target.name]) for target in targets]


def row(scenario, target, runs):
    def middle(what):
        return statistics.median(getattr(run, what) for run in runs)

    return {
        "scenario": scenario,
        "server": target.name,
        "cpu_us": round(middle("cpu_us"), 2),
        "cpu_us_rounds": [round(run.cpu_us, 2) for run in runs],
        "per_second": round(middle("per_second"), 1),
        "p50_ms": round(middle("p50_ms"), 3),
        "p99_ms": round(middle("p99_ms"), 3),
        "errors": sum(run.errors for run in runs),
    }


def keepalive_1k(setting):
    plain = [build(setting, name, name) for name in setting.proxies()]
    logged = [build(setting, name, f"{name}+log", logging=True) for name in setting.proxies()]
    return rounds(setting, "keepalive-1k", plain + logged, "/", 48)


def connection_per_request(setting):
    targets = [build(setting, name, name) for name in setting.proxies()]
    return rounds(setting, "connection-per-request", targets, "/", 32, ["Connection: close"])


def body_10m(setting):
    targets = [build(setting, name, name) for name in setting.proxies()]
    if "nginx" in setting.names:
        # Its default buffers are small, and cost it most of its time here: the comparison shows both.
        targets.append(servers.nginx(
            "nginx+buffers", setting.folder, setting.proxy_core, setting.origin.port, logging=False, large_buffers=True
        ))
    return rounds(setting, "body-10m", targets, "/10m", 4)


def idle_memory(setting, connections=5000, before=200):
    """What one keep-alive connection holds after its first request: resident memory over the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + before + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        connections = min(connections, min(wanted, hard) - before - 256)
    rows = []
    for name in setting.proxies():
        target, opened = build(setting, name, f"{name}.idle"), []
        try:
            target.start()
            # The first ones fill what is taken once, whatever comes: pools, arenas, buffers of the process.
            opened += [connect_and_ask(target.port) for _ in range(before)]
            first = settled(target.process)
            opened += [connect_and_ask(target.port) for _ in range(connections)]
            last = settled(target.process)
        finally:
            for connection in opened:
                connection.close()
            target.stop()
        each = (last - first) / connections
        print(f"  idle-memory {name:<10} {each:6.2f} KiB a connection ({first} -> {last} KiB)", flush=True)
        rows.append({
            "scenario": "idle-memory",
            "server": name,
            "connections": connections,
            "kib_per_connection": round(each, 2),
            "rss_kib_before": first,
            "rss_kib_after": last,
        })
    return rows


def connect_and_ask(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer) < answer.index(b"\r\n\r\n") + 4 + len(servers.BODY_1K):
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"scripts/bench: a connection was closed early after {answer[:200]!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"scripts/bench: an unexpected answer: {answer[:200]!r}")
    return connection


def settled(process):
    """Resident memory once it has stopped changing; 3 s at most."""
    last = measure.resident_kib(process)
    for _ in range(15):
        time.sleep(0.2)
        now = measure.resident_kib(process)
        if now == last:
            break
        last = now
    return last


def many_routes(setting):
    """The same requests through one route, through 10,000 hosts, and through 10,000 paths on one host."""
    own = [name for name in setting.names if name in setting.binaries]
    if not own:
        print("  many-routes: only edgeway has this scenario", flush=True)
        return []
    documents = {
        "1-route": "sites:\n  - routes:\n      - { name: only, match: /*, proxy: origin }\n",
        "10000-hosts": "sites:\n" + "".join(
            f"  - {{ hosts: [h{number}.bench.test], routes: [{{ match: /*, proxy: origin }}] }}\n"
            for number in range(ROUTES)
        ),
        "10000-paths": "sites:\n  - routes:\n" + "".join(
            f"      - {{ match: /p{number}/*, proxy: origin }}\n" for number in range(ROUTES)
        ),
    }
    script = setting.folder / "many.lua"
    script.write_text(
        # Made once, before the load: host and path run through all routes in a scattered order.
        f"""local made, at = {{}}, 0
init = function()
    for i = 1, {ROUTES} do
        local n = (i * 7919) % {ROUTES}
        made[i] = wrk.format("GET", "/p" .. n .. "/x", {{ Host = "h" .. n .. ".bench.test" }})
    end
end
request = function()
    at = at % {ROUTES} + 1
    return made[at]
end
"""
    )
    rows = []
    for name in own:
        prefix = "" if name == "edgeway" else f"{name}:"
        starts = [start_cost(setting, name, prefix + kind, sites) for kind, sites in documents.items()]
        targets = [build(setting, name, prefix + kind, sites=sites) for kind, sites in documents.items()]
        measured = rounds(setting, "many-routes", targets, "/", 48, script=script)
        rows += [{**row, **start} for row, start in zip(measured, starts)]
    return rows


def start_cost(setting, name, label, sites):
    """The median of three starts, until /readyz answers; the memory then, and once it has settled."""
    times, first, settled = [], [], []
    for attempt in range(3):
        target = build(setting, name, f"{label}.start{attempt}", sites=sites)
        try:
            target.start()
            times.append(target.start_ms)
            first.append(measure.resident_kib(target.process))
            # What compiling took goes back to the system after a moment.
            time.sleep(3)
            settled.append(measure.resident_kib(target.process))
        finally:
            target.stop()
    mib = [round(statistics.median(memory) / 1024, 1) for memory in (first, settled)]
    cost = {"start_ms": round(statistics.median(times), 1), "first_rss_mib": mib[0], "rss_mib": mib[1]}
    print(f"  many-routes {label}: ready after {cost['start_ms']} ms, {mib[0]} MiB, then {mib[1]} MiB", flush=True)
    return cost


def hits(setting, scenario, path, connections):
    """What is stored in memory (nginx: on disk), asked for again and again."""
    targets = [build(setting, name, name, cache="memory") for name in setting.names]
    if "nginx" in setting.names:
        targets.append(build(setting, "nginx", "nginx+files", cache="memory", open_files=True))
    # Each asks once or twice while it starts and warms up.
    with from_cache(setting, scenario, len(targets) * (connections + 20)):
        return rounds(setting, scenario, targets, path, connections)


def disk_hits(setting, scenario, path, connections, count):
    """So many stored responses, of which hardly any lie in edgeway's memory, in a scattered order."""
    names = [name for name in setting.names if name not in ("haproxy", "varnish")]
    targets = [build(setting, name, name, cache="disk") for name in names]
    script = setting.folder / f"{scenario}.lua"
    script.write_text(many_objects(count, path))

    def fill(target):
        paths = (f"{path}/{number}" for number in range(count))
        measure.fetch_each(target, paths, count, servers.SIZES.get(path, len(servers.BODY_1K)))

    with from_cache(setting, scenario, len(targets) * (count + 50)):
        return rounds(setting, scenario, targets, "/", connections, script=script, prepare=fill)


@contextlib.contextmanager
def from_cache(setting, scenario, most):
    """Ends the run when the origin is asked for more: whoever asks it is no cache, and is not compared."""
    before = servers.asked(setting.origin)
    yield
    asked = servers.asked(setting.origin) - before
    if asked > most:
        raise SystemExit(f"scripts/bench: {scenario}: the origin was asked {asked} times for what should be stored")


def hit_1k(setting):
    return hits(setting, "hit-1k", "/1k", 48)


def hit_100k(setting):
    return hits(setting, "hit-100k", "/100k", 16)


def hit_disk_1k(setting):
    return disk_hits(setting, "hit-disk-1k", "/1k", 48, 20_000)


def hit_disk_100k(setting):
    return disk_hits(setting, "hit-disk-100k", "/100k", 16, 1_000)


def hit_many(setting):
    """One of 1,000 and one of 100,000 stored responses of 1 KiB, in a scattered order; and what filling costs."""
    rows = []
    for count in OBJECTS:
        targets = [build(setting, name, f"{name}:{count}", cache="memory") for name in setting.names]
        script = setting.folder / f"{count}.lua"
        script.write_text(many_objects(count, "/1k"))
        filled = {}

        def prepare(target, count=count, filled=filled):
            before = measure.resident_kib(target.process)
            seconds, cpu_us = measure.fetch_each(target, (f"/1k/{number}" for number in range(count)), count, 1024)
            filled[target.name] = {
                "fill_s": round(seconds, 2),
                "fill_cpu_us": round(cpu_us, 2),
                "bytes_an_object": round((settled(target.process) - before) * 1024 / count),
            }
            print(f"  hit-many {target.name}: filled in {seconds:.1f} s", flush=True)

        with from_cache(setting, "hit-many", len(targets) * (count + 50)):
            measured = rounds(setting, "hit-many", targets, "/", 48, script=script, prepare=prepare)
        rows += [{**row, "objects": count, **filled[row["server"]]} for row in measured]
    return rows


def many_objects(count, path):
    """A script for wrk: all URLs in turn, in a scattered order, again and again."""
    return f"""local made, at = {{}}, 0
init = function()
    for i = 1, {count} do
        made[i] = wrk.format("GET", "{path}/" .. (i * 7919) % {count})
    end
end
request = function()
    at = at % {count} + 1
    return made[at]
end
"""


ALL = {
    "keepalive-1k": keepalive_1k,
    "connection-per-request": connection_per_request,
    "body-10m": body_10m,
    "idle-memory": idle_memory,
    "many-routes": many_routes,
    "hit-1k": hit_1k,
    "hit-100k": hit_100k,
    "hit-disk-1k": hit_disk_1k,
    "hit-disk-100k": hit_disk_100k,
    "hit-many": hit_many,
}
