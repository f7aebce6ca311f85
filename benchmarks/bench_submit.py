"""Durable single-task submits per second while the tasks run, and one large job.

Part 1: 100 virtual devices, 64 HTTP clients in a closed loop; each submit is answered after
its commit; the tasks (`simulated`, 200 ms) are placed, granted, run and acknowledged
meanwhile. Told as well: how many tasks ended within the load, how long the rest took, and
that none was lost. Probe: the same load on a server that does nothing (`bare_server`).
Part 2: one job of 10,000 tasks on 1,000 virtual devices: when its answer comes, and when the
last of its tasks is placed.
The load generator, the devices and the broker share the machine with the controller.
Run: `python -m benchmarks.bench_submit [--seconds N] [--part 1|2]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from benchmarks.bench_store import probe_fsync
from benchmarks.fleet import Fleet, fleet, spent_ms, until
from benchmarks.load import post, run_clients
from benchmarks.report import Result, percentile, say, show
from live.parent import ASKED

CLIENTS, DEVICES, MANY_DEVICES, MANY_TASKS = 64, 100, 1_000, 10_000
RUN_MS = 200
RATE, MEAN_MS, ACCEPT_S, PLACE_S = 1_300.0, 50.0, 1.0, 5.0
PROBE_S, WARM_S, DRAIN_S = 5.0, 3.0, 180.0


@dataclass(slots=True)
class Load:
    """What a load saw."""

    seconds: float
    latencies_s: list[float]
    statuses: dict[int, int]

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.seconds


def body(name: str, count: int = 1) -> bytes:
    task = {"runtime": "simulated", "command": ["run", "--ms", str(RUN_MS)],
            "resources": {"cpu_milli": 50, "memory_mib": 8}}  # fmt: skip
    return json.dumps({"name": name, "count": count, "task": task}).encode()


def load(host: str, port: int, token: str, seconds: float) -> Load:
    """Sends until the time is over; every request begun is awaited."""
    request = post(f"{host}:{port}", "/api/v1/jobs", token, body("load"))
    end = time.perf_counter() + seconds

    def make() -> bytes | None:
        return request if time.perf_counter() < end else None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return Load(*runner.run(run_clients(host, port, CLIENTS, make)))


def probe() -> tuple[Load, float]:
    """(The same load on a server that does nothing, its processor microseconds per request)."""
    command = [sys.executable, "-m", "benchmarks.bare_server"]
    environment = os.environ | {ASKED: str(os.getpid())}
    with psutil.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            port = int(server.stdout.readline())
            load("127.0.0.1", port, "x", 1.0)
            before = server.cpu_times()
            seen = load("127.0.0.1", port, "x", PROBE_S)
            after = server.cpu_times()
        finally:
            server.terminate()
    used = after.user + after.system - before.user - before.system
    return seen, used / len(seen.latencies_s) * 1e6


def disk_fsyncs() -> float:
    """Calls per second where the fleet's database lies: a commit can't be faster."""
    with tempfile.TemporaryDirectory() as folder:
        return probe_fsync(Path(folder))


def busy_s() -> float:
    """Processor seconds that anybody used so far, on all cores."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def ended(running: Fleet) -> dict[str, int]:
    """Tasks by state."""
    return {state: int(number) for state, number in (running.api.fleet().get("tasks") or {}).items()}


def open_tasks(tasks: dict[str, int]) -> int:
    return sum(tasks.get(state, 0) for state in ("pending", "assigned", "running"))


def sustained(running: Fleet, seconds: float) -> None:
    """Part 1."""
    bare, bare_us = probe()
    load(running.host, running.port, running.token, WARM_S)
    until(lambda: not open_tasks(ended(running)), DRAIN_S, "the end of the warm-up's tasks", 0.5)
    fsyncs = disk_fsyncs()
    cpu, done = running.cpu_s(), ended(running)["succeeded"]
    busy, own = busy_s(), time.process_time()
    seen = load(running.host, running.port, running.token, seconds)
    cpu_after, now = running.cpu_s(), ended(running)
    generator = time.process_time() - own
    others = busy_s() - busy - generator - (sum(cpu_after.values()) - sum(cpu.values()))
    begin, submits = time.monotonic(), len(seen.latencies_s)
    mean_ms = statistics.mean(seen.latencies_s) * 1e3
    show(
        Result(f"submits/s, {CLIENTS} clients, {DEVICES} devices at work", seen.rate, "/s", RATE, True,
               probe=bare.rate, cpu=f"{spent_ms(cpu, cpu_after, submits)} a submit"),
        Result("submit latency: mean", mean_ms, "ms", MEAN_MS, probe=statistics.mean(bare.latencies_s) * 1e3),
        Result("submit latency: p99", percentile(seen.latencies_s, 99) * 1e3, "ms"),
    )  # fmt: skip
    say(f"probe: {bare.rate:,.0f} requests/s at {bare_us:.0f} us of processor each; answers {seen.statuses}")
    say(f"disk: {fsyncs:,.0f} fsync/s before it; load generator {generator / seen.seconds:.2f} cores, "
        f"strangers {max(0.0, others) / seen.seconds:.2f} of {os.cpu_count()} cores")  # fmt: skip
    succeeded = now["succeeded"] - done
    say(f"during {seen.seconds:.0f} s: {submits:,} accepted, {succeeded:,} succeeded "
        f"({succeeded / seen.seconds:,.0f}/s), {open_tasks(now):,} open at the end")  # fmt: skip
    until(lambda: not open_tasks(ended(running)), DRAIN_S, "the end of all tasks", 0.2)
    final, took = ended(running), time.monotonic() - begin
    say(f"the rest took {took:.1f} s more ({open_tasks(now) / took:,.0f}/s); "
        f"lost: {submits - (final['succeeded'] - done)}; states now: "
        f"{ {state: n for state, n in final.items() if n} }; processor for a task's whole life: "
        f"{spent_ms(cpu, running.cpu_s(), submits)}")  # fmt: skip


def large(running: Fleet) -> None:
    """Part 2."""
    import http.client

    connection = http.client.HTTPConnection(running.host, running.port, timeout=60)
    headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}
    connection.request("POST", "/api/v1/jobs", body("first"), headers)
    connection.getresponse().read()
    time.sleep(2)
    cpu, begin = running.cpu_s(), time.monotonic()
    connection.request("POST", "/api/v1/jobs", body("large", MANY_TASKS), headers)
    answer = connection.getresponse()
    job = json.loads(answer.read())["id"]
    accepted = time.monotonic() - begin

    def count(*states: str) -> int:
        tasks = running.api.job(job).get("tasks") or {}
        return sum(int(tasks.get(state) or 0) for state in states)

    until(lambda: count("pending") == 0, 60, "all placed", 0.05)
    placed, cpu_placed = time.monotonic() - begin, running.cpu_s()
    until(lambda: count("succeeded") == MANY_TASKS, 120, "all succeeded", 0.05)
    all_done = time.monotonic() - begin
    show(
        Result(f"one job of {MANY_TASKS:,} tasks: accepted durably", accepted, "s", ACCEPT_S),
        Result(f"... placed on {MANY_DEVICES:,} devices", placed, "s", PLACE_S,
               cpu=f"{spent_ms(cpu, cpu_placed, MANY_TASKS)} a task"),
        Result("... all succeeded", all_done, "s",
               cpu=f"{spent_ms(cpu, running.cpu_s(), MANY_TASKS)} a task"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="submits under load")
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--part", type=int, choices=(1, 2))
    arguments = parser.parse_args()
    if arguments.part != 2:
        with fleet("--agents", "0", "--devices", str(DEVICES)) as running:
            sustained(running, arguments.seconds)
    if arguments.part != 1:
        with fleet("--agents", "0", "--devices", str(MANY_DEVICES)) as running:
            large(running)


if __name__ == "__main__":
    main()
