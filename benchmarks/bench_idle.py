"""A day of a fleet without faults in virtual time: 5,000 devices, a heartbeat each every ten seconds.

Everybody is real, controller and agents; devices at rest go as columns (`sim/columns.py`). The
fleet also works: services for the whole day, batch jobs every hour. Measured is processor time
of this one process, the start of all agents included. Beside it, in the same run, the least
that one Python event per heartbeat would cost: a heap, a dataclass and a dispatch that does
nothing, for a million, extrapolated. Run: `python -m benchmarks.bench_idle [--devices N]`.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.report import Result, say, show
from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from sim.controllers import Storage
from sim.scale import ScaleResult, Work, run_scale

PROBE_EVENTS = 1_000_000
TARGET_S = 60
"""For 5,000 devices and 24 hours."""
PERIOD_MS = 10_000


@dataclass(slots=True)
class Beat:
    """What an event of its own would be at least."""

    device: int
    seq: int


def probe_us(devices: int) -> float:
    """Microseconds of processor per event of a simulation that does nothing with it."""
    heap = [(PERIOD_MS * n // devices, n, Beat(n, 0)) for n in range(devices)]
    heapq.heapify(heap)
    done = 0

    def on_beat(beat: Beat) -> None:
        nonlocal done
        done += 1

    handlers: dict[type, Callable[[Beat], None]] = {Beat: on_beat}
    number, begin = devices, time.process_time()
    while done < PROBE_EVENTS:
        due_ms, _, beat = heapq.heappop(heap)
        handlers[type(beat)](beat)
        number += 1
        heapq.heappush(heap, (due_ms + PERIOD_MS, number, Beat(beat.device, beat.seq + 1)))
    return (time.process_time() - begin) / PROBE_EVENTS * 1e6


def day(devices: int, hours: float, seed: int) -> tuple[ScaleResult, float, float]:
    """The result, processor seconds of all of it, and of its first ten virtual minutes."""
    marks: list[float] = []
    begin = time.process_time()
    storage = Storage(MemoryStore(), (Fenced, StoreError))
    work = Work(services=devices // 5, batch_per_hour=devices // 50)
    result = run_scale(
        devices, hours, storage, seed, work, lambda share: marks.append(time.process_time() - begin)
    )
    return result, time.process_time() - begin, marks[0]


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    before_us = probe_us(args.devices)
    result, all_s, first_s = day(args.devices, args.hours, args.seed)
    event_us = (before_us + probe_us(args.devices)) / 2
    beats, whole = result.heartbeats, (args.devices, args.hours) == (5_000, 24)
    show(
        Result(
            f"{args.devices:,} devices, {args.hours:g} virtual hours", all_s, "s",
            target=TARGET_S if whole else None, probe=event_us * beats / 1e6,
        ),
        Result("processor per heartbeat", all_s / beats * 1e6, "µs", probe=event_us),
        Result("of it the first ten virtual minutes: all agents start", first_s, "s"),
        Result("device-seconds per core-second", args.devices * args.hours * 3_600 / all_s, "/s"),
    )  # fmt: skip
    say(f"{beats:,} heartbeats, {result.columns / beats:.2%} of them as columns; {result.rests:,} rests")
    say(f"{result.starts:,} starts, {result.live:,} live at the end, {result.succeeded:,} tasks succeeded")
    say(f"{result.lost} leases lost, {len(result.breaches)} breaches, trace {result.trace_hash}")


if __name__ == "__main__":
    main()
