"""How fast a fleet is simulated: device-seconds per core-second, with faults and all checkers on.

Whole seeds as `fm sim safety` plays them: the production cores, the broker's model, faults
drawn by swarm, then calm, then peace. Counted is the processor time of this process, one
seed after another. Probe: the same heap with as many pieces of work that do nothing.
Run: `python -m benchmarks.bench_sim [--seeds N] [--devices D] [--minutes M]`.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.report import Result, say, show
from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from sim.clockwork import Clockwork
from sim.controllers import Storage
from sim.drawing import draw_plan
from sim.plan import Verdict
from sim.safety import run_plan
from sim.world import World

SEEDS, DEVICES, MINUTES = 20, 20, 5
AT_LEAST, GOAL = 5_000.0, 20_000.0
"""Device-seconds per core-second: what is promised, and what we would like."""
WAITING = 60
"""Pieces of work that wait in the heap at a time, as in a fleet of twenty."""


def seed_of(number: int, devices: int, minutes: int) -> tuple[float, int, int, Verdict]:
    """(Processor seconds, virtual ms, events, verdict) of one seed."""
    worlds: list[World] = []
    plan = draw_plan(number, devices, minutes * 60_000)
    begin = time.process_time()
    outcome = run_plan(plan, lambda: Storage(MemoryStore(), (Fenced, StoreError)), worlds.append)
    spent = time.process_time() - begin
    return spent, outcome.virtual_ms, worlds[0].clock.asked, outcome.verdict


def probe(events: int) -> float:
    """Processor seconds of a heap with so many pieces of work and nothing in them."""
    clock = Clockwork(0)

    def again() -> None:
        clock.after(10, again)

    for _ in range(WAITING):
        again()
    begin = time.process_time()
    clock.run(clock.now_ms + 10 * events // WAITING)
    return time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--minutes", type=int, default=MINUTES, help="of faults; quiet comes on top")
    options = parser.parse_args()
    seed_of(0, options.devices, options.minutes)  # imports and caches
    done = [seed_of(n, options.devices, options.minutes) for n in range(options.seeds)]
    spent, virtual_s = sum(d[0] for d in done), sum(d[1] for d in done) / 1_000
    events = sum(d[2] for d in done)
    bare = probe(events)
    rate, event_us, bare_us = options.devices * virtual_s / spent, spent / events * 1e6, bare / events * 1e6
    slowest = max(d[0] for d in done)
    show(
        Result("device-seconds per core-second", rate, "/s", AT_LEAST, at_least=True),
        Result("... against our own wish", rate, "/s", GOAL, at_least=True),
        Result("one event, with everything it sets off", event_us, "us", probe=bare_us),
        Result("one seed", spent / options.seeds * 1e3, "ms", cpu=f"{slowest * 1e3:.0f} ms the slowest"),
    )
    verdicts = sorted(str(d[3]) for d in done)
    say(f"{options.seeds} seeds, {virtual_s:,.0f} virtual s, {events:,} events: " + ", ".join(
        f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts))
    ))  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
