"""What it costs to choose a device: the production picker beside a bare numpy scan of the same columns.

The scan is what any scheduler in numpy has to do at least: filter by room, score, argmax. It
knows no slots, no documents, no health, no policy. Counted is processor time; both run in
the same process on the same fleet, one after the other, several times; the median counts.
Run: `python -m benchmarks.bench_placement [--devices N]`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.report import Result, percentile, say, show
from controller.scheduler.pick import NO_DEVICE, Bases, Picker
from controller.scheduler.policies import DEFAULT
from controller.scheduler.view import Demand, View
from protocol.resources import Resources

DEVICES, PASSES, REQUESTS, CLASSES, ROUND = 10_000, 7, 300, 50, 10_000
ENTRY_BYTES = 200
SHAPES = ((1_000, 512), (4_000, 1_024), (4_000, 4_096), (4_000, 8_192), (8_000, 8_192))


def fleet(devices: int, rng: random.Random) -> View:
    """Boards of five shapes, empty, online, well."""
    view = View(devices)
    for _ in range(devices):
        row = view.add()
        cpu, memory = rng.choice(SHAPES)
        view.offer(row, Resources(cpu, memory, 50_000, slots=512), Resources())
        view.online[row] = view.open[row] = view.fit[row] = True
        view.document_bytes_free[row] = 65_000
        view.temperature_c[row], view.latency_ms[row] = rng.randrange(30, 75), rng.randrange(1, 60)
    view.touch_all()
    return view


def demand(rng: random.Random) -> Demand:
    return Demand(Resources(rng.randrange(10, 300), rng.randrange(8, 96), slots=1), ENTRY_BYTES)


def scan(view: View, asked: Demand) -> int:
    """The bare scan: two filters, a score of two columns, the best."""
    cpu, memory = asked.resources.cpu_milli, asked.resources.memory_mib
    able = view.online & (view.free[0] >= cpu) & (view.free[1] >= memory)
    left = (view.share_free[0] - cpu * view.scale[0]) + (view.share_free[1] - memory * view.scale[1])
    return int(np.where(able, left, -np.inf).argmax())


def timed_us(work: Callable[[], object], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times * 1e6


def each_different(view: View, rng: random.Random) -> float:
    """Microseconds per placement when no two requests are alike; reserved as they are placed."""
    bases = Bases(view)

    def place() -> None:
        asked = demand(rng)
        picker = Picker(view, asked, bases, DEFAULT)
        if (row := picker.pick()) != NO_DEVICE:
            view.take(row, picker.share(row), ENTRY_BYTES)

    place()
    return timed_us(place, REQUESTS)


def of_classes(view: View, rng: random.Random) -> float:
    """Microseconds per placement of a round of 10,000 requests of 50 kinds, gathered by kind."""
    bases = Bases(view)
    pickers = [Picker(view, demand(rng), bases, DEFAULT) for _ in range(CLASSES)]
    begin, placed = time.process_time(), 0
    for picker in pickers:
        rows = np.array(picker.many(ROUND // CLASSES))
        view.take_many(rows, picker.demand)
        placed += len(rows)
    return (time.process_time() - begin) / placed * 1e6


def identical_ms(view: View) -> float:
    """10,000 equal tasks: scored, chosen, reserved."""
    begin = time.process_time()
    picker = Picker(view, Demand(Resources(100, 32, slots=1), ENTRY_BYTES), Bases(view), DEFAULT)
    rows = np.array(picker.many(10_000))
    view.take_many(rows, picker.demand)
    assert len(rows) == 10_000
    return (time.process_time() - begin) * 1e3


def filling_us(devices: int, rng: random.Random) -> tuple[list[float], float, float]:
    """Times of single placements while the fleet fills up to 95 %, the scan's, and how full it got."""
    view = fleet(devices, rng)
    bases, spent = Bases(view), []
    scan_us = timed_us(lambda: scan(view, demand(rng)), REQUESTS)
    total = int(view.offered[1].sum())
    while int(np.maximum(view.free[1], 0).sum()) > 0.05 * total:
        bulk = Picker(
            view, Demand(Resources(20, rng.randrange(16, 128), slots=1), ENTRY_BYTES), bases, DEFAULT
        )
        rows = np.array(bulk.many(devices // 4), np.int64)
        if not len(rows):
            break
        view.take_many(rows, bulk.demand)
        for _ in range(20):
            asked = demand(rng)
            begin = time.process_time_ns()
            picker = Picker(view, asked, bases, DEFAULT)
            if (row := picker.pick()) != NO_DEVICE:
                view.take(row, picker.share(row), ENTRY_BYTES)
            spent.append((time.process_time_ns() - begin) / 1e3)
    return spent, scan_us, 1 - int(view.free[1].sum()) / total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_placement", description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES)
    devices = parser.parse_args().devices
    rng = random.Random(1)
    scans, different, classes, same = [], [], [], []
    for _ in range(PASSES):
        view = fleet(devices, rng)
        scans.append(timed_us(lambda view=view: scan(view, demand(rng)), REQUESTS))  # type: ignore[misc]
        different.append(each_different(view, rng))
        classes.append(of_classes(view, rng))
        if devices * 10 >= 10_000:
            same.append(identical_ms(fleet(devices, rng)))
    bare = median(scans)
    show(
        Result("bare scan: two filters, a score, argmax", bare, "us"),
        Result("one placement, no two requests alike", median(different), "us", 2 * bare, probe=bare),
        Result("... speed of the scan", 100 * bare / median(different), "%", 50, at_least=True),
        Result("one placement of 10,000 of 50 kinds", median(classes), "us", bare / 10, probe=bare),
    )
    if same:
        show(Result("10,000 identical tasks", median(same), "ms", 20))
    spent, scan_us, full = filling_us(devices, rng)
    show(Result("p99 of a placement, empty to full", percentile(spent, 99), "us", 5 * scan_us, probe=scan_us))
    say(f"{devices:,} devices, policy {DEFAULT}; filled to {full:.0%}, {len(spent)} placements timed")
    for size in (1_000, 10_000, 100_000):
        view = fleet(size, rng)
        one = timed_us(lambda view=view: scan(view, demand(rng)), 50)  # type: ignore[misc]
        say(f"{size:>7,} devices: scan {one:.0f} us, different {each_different(view, rng):.0f} us, "
            f"of 50 kinds {of_classes(view, rng):.1f} us a placement")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
