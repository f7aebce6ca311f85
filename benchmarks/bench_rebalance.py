"""Rebalance: moves to bring the largest load to 1.10 x mean against the counting bound, and a plan's cost.

5,000 devices, 10 tasks each on average, all drawn from one seed; processor time of this
process on one core, whole plan included, median of some passes over the same columns. Fleets:
`even` (10 tasks on each device), `uneven` (any number), `20 rules` (each allows 30 % of the
devices), `unequal` (small, middle and large devices, all with as many tasks: the small ones are
hot, and the mean falls by a quarter while they cool down). Probe: summing up the tasks'
amounts per device and sorting the devices by load, which is the least that any plan must know.
Run: `python -m benchmarks.bench_rebalance [--devices N] [--seed S] [--passes P]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import numpy as np

from benchmarks.report import Result, say, show
from controller.scheduler.arriving import Allowed
from controller.scheduler.balance import Aims, BalancePlan, drain, rebalance
from controller.scheduler.imbalance import Devices, Placed, loads, moves_at_least
from controller.scheduler.view import Flags
from protocol.resources import NAMES, Resources

DEVICES, TASKS_EACH, PASSES, SEED = 5_000, 10, 5, 1
PLAN_MS, OF_BOUND, GOAL = 50.0, 1.25, 1.10
AIMS = Aims(goal=GOAL, moves_max=1_000_000)
ROOM = Resources(4_000, 4_096, 64_000, 0, 100_000, 100_000, 64)
Fleet = tuple[Devices, Placed, Allowed]
T = TypeVar("T")


def fleet(count: int, seed: int, even: bool = True, rules: int = 0, unequal: bool = False) -> Fleet:
    """Columns of a fleet; tasks that don't fit where they were drawn are left out."""
    rng = np.random.default_rng(seed)
    size = rng.choice([1, 2, 4], count) if unequal else np.ones(count, np.int64)
    total = count * TASKS_EACH
    row = np.repeat(np.arange(count), TASKS_EACH) if even else np.sort(rng.integers(0, count, total))
    drawn = {"cpu_milli": (20, 380), "memory_mib": (20, 390), "disk_mib": (0, 500), "slots": (1, 2)}
    amounts = [rng.integers(*drawn.get(name, (0, 1)), total) for name in NAMES]
    capacity = [(each * size).astype(np.int64) for each in ROOM]
    fits = np.ones(total, np.bool_)
    begins = np.searchsorted(row, row)
    for column, room in zip(amounts, capacity, strict=True):
        before = np.concatenate(([0], np.cumsum(column)))
        fits &= before[1:] - before[begins] <= room[row]
    row, amounts = row[fits], [column[fits] for column in amounts]
    reserved = [np.bincount(row, column, count).astype(np.int64) for column in amounts]
    group = rng.integers(0, max(1, rules), row.size)
    able: list[Flags] = [rng.random(count) < 0.3 for _ in range(rules)] or [np.ones(count, np.bool_)]
    tasks = Placed(row, amounts, np.ones(row.size, np.bool_), np.zeros(row.size), group)
    yes = np.ones(count, np.bool_)
    return Devices(capacity, reserved, yes, yes), tasks, able.__getitem__


def timed(work: Callable[[], T], passes: int) -> tuple[float, float, T]:
    """(Median, best) milliseconds of processor time, and what the work gave."""
    spent, result = [], work()
    for _ in range(passes):
        begin = time.process_time()
        result = work()
        spent.append((time.process_time() - begin) * 1e3)
    return median(spent), min(spent), result


def probe(devices: Devices, tasks: Placed) -> None:
    """What is reserved on each device, and the devices by load."""
    count = devices.gives.size
    held = [np.bincount(tasks.row, column, count).astype(np.int64) for column in tasks.amounts]
    np.argsort(loads(devices.capacity, held), kind="stable")


def report(name: str, made: Fleet, passes: int) -> None:
    """One fleet: what its plan costs, and how many moves it has against the bound."""
    devices, tasks, allowed = made
    bare, _, _ = timed(lambda: probe(devices, tasks), passes)
    spent, best, plan = timed(lambda: rebalance(devices, tasks, allowed, AIMS), passes)
    at_first, _ = moves_at_least(devices, tasks, GOAL * plan.before.mean)
    at_last, _ = moves_at_least(devices, tasks, GOAL * plan.after.mean)
    count, word = len(plan.moves), f"{name}: moves / bound at the goal of the mean"
    show(
        Result(f"{name}: plan of {count:,} moves", spent, "ms", PLAN_MS, probe=bare, cpu=f"best {best:.1f}"),
        Result(f"{word} reached", count / max(1, at_last), "x", OF_BOUND),
        Result(f"{word} before", count / max(1, at_first), "x"),
        Result(f"{name}: largest load / mean load afterwards", plan.after.ratio, "x", GOAL * (1 + 1e-6)),
    )
    say(figures(plan))


def figures(plan: BalancePlan) -> str:
    """Before and after, in one line."""
    old, new = plan.before, plan.after
    return (
        f"max/mean {old.ratio:.2f} -> {new.ratio:.4f}, mean {old.mean:.3f} -> {new.mean:.3f}, "
        f"B {old.b:.3f} -> {new.b:.3f}, response {old.response:.2f} -> {new.response:.2f}"
    )


def report_drain(made: Fleet, share: float, passes: int) -> None:
    """A drain of so many devices."""
    devices, tasks, allowed = made
    rows = np.arange(max(1, int(devices.gives.size * share)))
    spent, best, plan = timed(lambda: drain(devices, tasks, allowed, rows), passes)
    name = f"drain of {rows.size:,} devices with {len(plan.moves) + len(plan.homeless):,} tasks"
    show(Result(name, spent, "ms", cpu=f"best {best:.1f}"))
    old, new = plan.before.response, plan.after.response
    say(f"{len(plan.homeless)} of them fit nowhere; response {old:.2f} -> {new:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_rebalance", description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--passes", type=int, default=PASSES)
    asked = parser.parse_args()
    report("even", fleet(asked.devices, asked.seed), asked.passes)
    report("uneven", fleet(asked.devices, asked.seed, even=False), asked.passes)
    report("20 rules", fleet(asked.devices, asked.seed, rules=20), asked.passes)
    report("unequal", fleet(asked.devices, asked.seed, unequal=True), asked.passes)
    for share in (0.0, 0.3):
        report_drain(fleet(asked.devices, asked.seed), share, asked.passes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
