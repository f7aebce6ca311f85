"""Submit over REST → process running on an idle device, guarantee `at_most_one`.

From before the request is sent until the task's own clock: the task is `date +%s%N`, whose
output is fetched through the API afterwards, so nothing on the way is asked whether it is
done. The path: HTTP, commit, placement, commit, document, heartbeat, grant, journal, guard,
exec. Each device rests between two of its tasks until the first has left its document.
Probe: this process starts the same program itself.
Run: `python -m benchmarks.bench_latency [--samples N]`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time

from benchmarks.fleet import Fleet, fleet, spent_ms, until
from benchmarks.report import Result, percentile, say, show

PROGRAM = ("date", "+%s%N")
DEVICES = 3
REST_S = 1.5
"""The controller takes an ended run out of a document a second after its end."""
P50_MS, P99_MS = 60.0, 200.0


def one(running: Fleet, device: str, guarantee: str) -> tuple[float, str]:
    """(Milliseconds from the submit to the program's clock, the task)."""
    here = {"constraints": [{"attribute": "device", "operator": "=", "value": device}]}
    begin = time.time_ns()
    task = running.submit(*PROGRAM, task=here, guarantee=guarantee)
    return until(lambda: _stamp(running, task), 20, f"the output of {task}", 0.05) / 1e6 - begin / 1e6, task


def _stamp(running: Fleet, task: str) -> int:
    if running.api.task(task).get("state") not in ("succeeded", "failed"):
        return 0
    part = running.api.output(task)
    return int(part.data) if part.data.endswith(b"\n") else 0


def probe_ms(rounds: int = 50) -> float:
    """Median of starting the program directly, to its own clock."""
    times = []
    for _ in range(rounds):
        begin = time.time_ns()
        done = subprocess.run(PROGRAM, capture_output=True, check=True)
        times.append((int(done.stdout) - begin) / 1e6)
    return statistics.median(times)


def sample(running: Fleet, samples: int, guarantee: str) -> tuple[list[float], str]:
    """(Milliseconds, one by one over the devices; processor time per task)."""
    times: list[float] = []
    before = running.cpu_s()
    for number in range(samples):
        begin = time.monotonic()
        times.append(one(running, f"agent-{number % DEVICES + 1}", guarantee)[0])
        time.sleep(max(0.0, REST_S / DEVICES - (time.monotonic() - begin)))
    return times, spent_ms(before, running.cpu_s(), samples)


def main() -> None:
    parser = argparse.ArgumentParser(description="submit to running")
    parser.add_argument("--samples", type=int, default=150)
    samples = parser.parse_args().samples
    with fleet("--agents", str(DEVICES), "--devices", "0") as running:
        for device in range(DEVICES):
            one(running, f"agent-{device + 1}", "at_most_one")
        time.sleep(REST_S)
        for guarantee, number in (("at_most_one", samples), ("at_least_one", samples // 3)):
            probe = probe_ms()
            times, cpu = sample(running, number, guarantee)
            aims = (P50_MS, P99_MS) if guarantee == "at_most_one" else (None, None)
            show(
                Result(f"submit to running, {guarantee}: p50", percentile(times, 50), "ms", aims[0],
                       probe=probe, cpu=f"{cpu} a task, its polling included"),
                Result(f"submit to running, {guarantee}: p99", percentile(times, 99), "ms", aims[1]),
            )  # fmt: skip
            say(f"{number} tasks, one after another on {DEVICES} devices; slowest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
