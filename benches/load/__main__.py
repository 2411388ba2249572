"""The load comparison: edgeway beside nginx, HAProxy and (as caches) Varnish, in one run on one machine.

Each proxy has one worker pinned to one core; wrk and the origin (an nginx) have another. All do the same work: upstream
keep-alive, forwarded headers, a request id, a header set and one removed, a network denied. Rounds are interleaved and
the median is told. The measure is CPU time per request, because throughput tells only which core was full first.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import report
import scenarios
import servers

OTHERS = ["nginx", "haproxy", "varnish"]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--edgeway", action="append", metavar="[LABEL=]PATH",
                        help="a binary of ours (default: target/release/edgeway); several may be given, labelled")
    parser.add_argument("--only", metavar="NAMES", help="those to run, by comma: edgeway, nginx, haproxy, varnish, labels")
    parser.add_argument("--scenario", metavar="NAMES", help="by comma: " + ", ".join(scenarios.ALL))
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--seconds", type=int, default=4, help="how long a measurement takes (default: 4)")
    parser.add_argument("--cores", default="0,1", help="the proxy's core and the load's (default: 0,1)")
    parser.add_argument("--out", type=Path, default=Path("target/bench"), metavar="FOLDER",
                        help="where results.json and results.md go (default: target/bench)")
    parser.add_argument("--keep", action="store_true", help="keep the folder of configurations and logs")
    parser.add_argument("--perf", action="store_true", help="show where CPU time goes during keepalive-1k, no comparison")
    return parser.parse_args()


def main():
    chosen = arguments()
    proxy_core, load_core = cores(chosen.cores)
    binaries = {}
    built = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "edgeway")
    for text in chosen.edgeway or [built]:
        label, _, path = text.rpartition("=")
        binaries[label or "edgeway"] = Path(path)
    names = chosen.only.split(",") if chosen.only else [*binaries, *OTHERS]
    for name in names:
        if name not in binaries and name not in OTHERS:
            raise SystemExit(f"scripts/bench: nothing is named `{name}`; there are: {', '.join([*binaries, *OTHERS])}")
    binaries = {label: path for label, path in binaries.items() if label in names}
    for path in binaries.values():
        if not os.access(path, os.X_OK):
            raise SystemExit(f"scripts/bench: {path} is not there; `make build` makes it")
    wanted = chosen.scenario.split(",") if chosen.scenario else list(scenarios.ALL)
    for name in wanted:
        if name not in scenarios.ALL:
            raise SystemExit(f"scripts/bench: no scenario is named `{name}`; there are: {', '.join(scenarios.ALL)}")

    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"note: this machine is busy (load {busy:.1f}); ratios still tell something, throughput does not", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="edgeway-bench-"))
    setting = scenarios.Setting(folder, names, binaries, chosen.rounds, chosen.seconds, proxy_core, load_core)
    origin = servers.origin(folder, load_core)
    try:
        setting.origin = origin.start()
        if chosen.perf:
            return [perf(setting, name) for name in setting.proxies()]
        rows = []
        for name in wanted:
            print(name, flush=True)
            rows += scenarios.ALL[name](setting)
    finally:
        origin.stop()
        if chosen.keep:
            print(f"configurations and logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    about = report.machine(binaries)
    text = report.markdown(rows, about, setting)
    chosen.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": about, "rounds": chosen.rounds, "seconds": chosen.seconds, "rows": rows}
    (chosen.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (chosen.out / "results.md").write_text(text)
    print(f"\n{text}\n(written to {chosen.out}/results.md and results.json)")
    if any(row.get("errors") for row in rows):
        raise SystemExit("scripts/bench: there were errors under load")


def cores(text):
    proxy, load = (int(part) for part in text.split(","))
    usable = os.sched_getaffinity(0)
    if not {proxy, load} <= usable:
        raise SystemExit(f"scripts/bench: cores {text} are not among those usable here: {sorted(usable)}")
    return proxy, load


def perf(setting, name):
    """Samples one server by the CPU clock (no hardware counters needed) while it serves 1 KiB responses."""
    program = servers.find_program("perf")
    target = scenarios.build(setting, name, name)
    data = setting.folder / f"{name}.perf"
    try:
        target.start()
        measure.load(target, setting.load_core, "/", 48, 1)
        pids = ",".join(map(str, target.process.pids()))
        sampler = subprocess.Popen(
            [program, "record", "-q", "-e", "cpu-clock", "-F", "2000", "-p", pids, "-o", str(data),
             "--", "sleep", str(setting.seconds)],
            stderr=subprocess.PIPE, text=True, preexec_fn=servers.prepare_child(setting.load_core),
        )
        try:
            run = measure.load(target, setting.load_core, "/", 48, setting.seconds + 1)
            _, complaint = sampler.communicate(timeout=setting.seconds + 15)
        finally:
            sampler.kill()
            sampler.wait()
    finally:
        target.stop()
    print(f"{name}: {run.cpu_us:.2f} us/request, {run.per_second:.0f}/s (with the sampler on)")
    for title, order, count in [("by program and kernel", "dso", 12), ("by function", "dso,symbol", 60)]:
        done = subprocess.run(
            [program, "report", "-i", str(data), "--stdio", "--sort", order, "--percent-limit", "0.3", "-q"],
            capture_output=True, text=True, timeout=120, check=False,
        )
        lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        print(f"\n{title}:\n" + "\n".join(lines[:count] or [complaint, done.stderr]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
