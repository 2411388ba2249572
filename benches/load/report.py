"""The rows of all scenarios as Markdown, each beside what it is compared with."""

import os
import platform
import subprocess

import servers


def machine(binaries):
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    about = {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load average": f"{os.getloadavg()[2]:.1f} over 15 minutes",
        "nginx": first_line("nginx", "-v"),
        "haproxy": first_line("haproxy", "-v"),
        "varnish": first_line("varnishd", "-V"),
    }
    for label, path in binaries.items():
        about[label] = f"{first_line(path, '--version')} ({os.path.getsize(path) / 1e6:.1f} MB)"
    return about


def first_line(program, option):
    path = program if os.path.sep in str(program) else servers.find_program(program)
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]


def reference(row, rows):
    """The row that this one is compared with: nginx with the same log, or the same server with one route, or few objects."""
    wanted = "nginx+log" if row["server"].endswith("+log") else "nginx"
    if row["scenario"] == "many-routes":
        prefix = row["server"].rpartition(":")
        wanted = f"{prefix[0]}{prefix[1]}1-route"
    if row["scenario"] == "hit-many":
        wanted = f"{row['server'].rpartition(':')[0]}:1000"
    return next((other for other in rows if other["scenario"] == row["scenario"] and other["server"] == wanted), None)


def ratio(row, rows, key):
    other = reference(row, rows)
    return f"{row[key] / other[key]:.2f}" if other and other.get(key) else "-"


def markdown(rows, about, setting):
    lines = [
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; proxy on core {setting.proxy_core},"
        f" load and origin on core {setting.load_core}; median of {setting.rounds} interleaved rounds of"
        f" {setting.seconds} s.",
        "",
    ]
    loads = [row for row in rows if "cpu_us" in row and row["scenario"] not in ("many-routes", "hit-many")]
    if loads:
        lines += table(
            ["scenario", "server", "CPU µs/request", "to nginx", "requests/s", "p50 ms", "p99 ms", "errors"],
            [
                [row["scenario"], row["server"], f"{row['cpu_us']:.2f}", ratio(row, rows, "cpu_us"),
                 f"{row['per_second']:.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", row["errors"]]
                for row in loads
            ],
        )
    idle = [row for row in rows if row["scenario"] == "idle-memory"]
    if idle:
        lines += table(
            ["idle keep-alive connections", "server", "KiB a connection", "to nginx"],
            [
                [row["connections"], row["server"], f"{row['kib_per_connection']:.2f}",
                 ratio(row, rows, "kib_per_connection")]
                for row in idle
            ],
        )
    many = [row for row in rows if row["scenario"] == "many-routes"]
    if many:
        lines += table(
            ["routes", "CPU µs/request", "to one route", "requests/s", "ready after ms", "MiB then", "MiB settled", "errors"],
            [
                [row["server"], f"{row['cpu_us']:.2f}", ratio(row, rows, "cpu_us"), f"{row['per_second']:.0f}",
                 row["start_ms"], row["first_rss_mib"], row["rss_mib"], row["errors"]]
                for row in many
            ],
        )
    stored = [row for row in rows if row["scenario"] == "hit-many"]
    if stored:
        lines += table(
            ["stored responses of 1 KiB", "CPU µs/hit", "to 1,000", "requests/s", "filled in s", "CPU µs/miss",
             "bytes of memory each", "errors"],
            [
                [row["server"], f"{row['cpu_us']:.2f}", ratio(row, rows, "cpu_us"), f"{row['per_second']:.0f}",
                 row["fill_s"], row["fill_cpu_us"], row["bytes_an_object"], row["errors"]]
                for row in stored
            ],
        )
    lines += [f"- {name}: {text}" for name, text in about.items() if name not in ("cpu", "cores", "kernel")]
    return "\n".join(lines) + "\n"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]
