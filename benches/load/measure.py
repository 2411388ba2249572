"""What is measured: CPU time and memory of a server, and what wrk says of the load it made."""

import os
import re
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass

from servers import find_program, prepare_child

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process):
    """User and system time of all threads, those that have ended too, of the server and its workers."""
    total = 0
    for pid in process.pids():
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])  # utime and stime; the name in parentheses may hold blanks
    return total / TICK


def resident_kib(process):
    total = 0
    for pid in process.pids():
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            total += int(re.search(r"^VmRSS:\s+(\d+) kB", status.read(), re.M).group(1))
    return total


@dataclass
class Run:
    """One round of load on one server."""

    requests: int
    seconds: float
    cpu_us: float  # per request
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self):
        return self.requests / self.seconds


def load(server, core, path, connections, seconds, headers=(), script=None):
    """Lets wrk load `server` from `core`, and says what that cost the server."""
    argv = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    for header in headers:
        argv += ["-H", header]
    if script:
        argv += ["-s", str(script)]
    argv.append(f"http://127.0.0.1:{server.port}{path}")
    before = cpu_seconds(server.process)
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=prepare_child(core), check=False
    )
    used = cpu_seconds(server.process) - before
    server.process.check_alive()
    if done.returncode != 0:
        raise SystemExit(f"scripts/bench: wrk failed on {server.name}:\n{done.stdout}{done.stderr}")
    return parse(done.stdout, used, server.name)


def fetch_each(server, paths, count, size, connections=32):
    """GETs each of `count` paths with a body of this size once: how many seconds that took, and what each cost the server in CPU."""
    before, begun = cpu_seconds(server.process), time.monotonic()
    waiting = selectors.DefaultSelector()

    def ask(link):
        path = next(paths, None)
        if path is None:
            waiting.unregister(link)
            link.close()
        else:
            # As wrk asks: it is one of the parts of the key.
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())

    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        waiting.register(link, selectors.EVENT_READ)
        ask(link)
    answers = dict.fromkeys((key.fileobj for key in waiting.get_map().values()), b"")
    while waiting.get_map():
        ready = waiting.select(timeout=30)
        if not ready:
            raise SystemExit(f"scripts/bench: {server.name} answers no more")
        for key, _ in ready:
            link = key.fileobj
            answer = answers[link] + (piece := link.recv(1 << 18))
            head, end, body = answer.partition(b"\r\n\r\n")
            if not piece or (end and not head.startswith(b"HTTP/1.1 200")):
                raise SystemExit(f"scripts/bench: {server.name} answers {answer[:200]!r}")
            done = end and len(body) >= size
            answers[link] = b"" if done else answer
            if done:
                ask(link)
    server.process.check_alive()
    return time.monotonic() - begun, (cpu_seconds(server.process) - before) * 1e6 / count


def parse(text, cpu_used, name):
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    if not total or int(total.group(1)) == 0:
        raise SystemExit(f"scripts/bench: {name} answered nothing:\n{text}")
    requests = int(total.group(1))
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, broken.groups())) if broken else 0
    errors += int(refused.group(1)) if refused else 0
    return Run(
        requests=requests,
        seconds=milliseconds(total.group(2), total.group(3)) / 1000,
        cpu_us=cpu_used * 1e6 / requests,
        p50_ms=percentile(text, 50),
        p99_ms=percentile(text, 99),
        errors=errors,
    )


def percentile(text, which):
    found = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    return milliseconds(*found.groups()) if found else float("nan")


def milliseconds(number, unit):
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]
