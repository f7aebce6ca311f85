"""Quality of placement on a trace of a GPU cluster: `python -m benchmarks.openb --nodes FILE --tasks FILE`.

Protocol of the paper whose trace it is ("Beware of Fragmentation", USENIX ATC'23): tasks are
resampled until they ask for 130 % of the accelerators, shuffled by seed, arrive one by one
and never leave; one that doesn't fit is dropped. What counts is the share of accelerator
milli that is allocated in the end. Tasks go through the scheduler as any do: a view, a
demand, the remembered pickers of the core, `take`. Beside it, on the same arrivals: best fit and random.
Times are processor time, of deciding and reserving.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.openb_files import BadFile, Node, Task, nodes_of, resampled, tasks_of
from controller.scheduler.filters import passing
from controller.scheduler.fragmenting import FRAGMENTATION, FragmentationPicker
from controller.scheduler.gainful import Holding, gainful_room
from controller.scheduler.pick import NO_DEVICE, Bases
from controller.scheduler.pickers import Pickers
from controller.scheduler.popularity import DemandKind, kind_of
from controller.scheduler.view import CPU, GPU, WHOLE_MILLI, Demand, View
from protocol.resources import Resources

ARRIVED = 1.3
SLOTS = 10_000
"""On each device: the trace knows no limit of tasks."""
ENTRY_BYTES = 256
MOVES_PER_PLAN = 4
GAPS_TOLD = 8


@dataclass(slots=True)
class Outcome:
    """Of one seed. `allocated`: share of all milli, in per cent; `moves` of tasks that had been placed."""

    seed: int
    allocated: float
    placed: int
    arrived: int
    moves: int
    cpu_s: float
    gaps: dict[int, int]
    """What is left on accelerators, milli: on how many; the `GAPS_TOLD` that add up to most."""


class Fleet:
    """The nodes as the scheduler sees them, and what is placed on them."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.view = View(len(nodes))
        for node in nodes:
            row = self.view.add()
            self.view.online[row] = self.view.open[row] = self.view.fit[row] = True
            self.view.document_bytes_free[row] = ENTRY_BYTES * SLOTS
            self.view.core_speed_milli[row] = 1_000
            gpu_milli = WHOLE_MILLI * node.accelerators
            offered = Resources(node.cpu_milli, node.memory_mib, gpu_milli=gpu_milli, slots=SLOTS)
            self.view.offer(row, offered, Resources(), [(node.model, WHOLE_MILLI)] * node.accelerators)
        self.view.touch_all()

    def gaps(self) -> dict[int, int]:
        """What is left on accelerators: milli, and on how many; those first that add up to most."""
        there = self.view.accel_free[self.view.accel_model >= 0]
        found = Counter(there[there > 0].tolist())
        return dict(sorted(found.items(), key=lambda gap: -gap[0] * gap[1])[:GAPS_TOLD])

    def check(self) -> None:
        """No capacity was exceeded; a benchmark of a scheduler that does is worth nothing."""
        if min(int(free.min()) for free in self.view.free) < 0 or int(self.view.accel_free.min()) < 0:
            raise AssertionError("a device holds more than it has")


def demand_of(task: Task) -> Demand:
    """The task, as the scheduler is asked for it."""
    resources = Resources(task.cpu_milli, task.memory_mib, gpu_milli=task.total_milli, slots=1)
    return Demand(resources, ENTRY_BYTES, models=task.models)


# ----------------------------------------------------------------- the policy


class Fragmented:
    """The `fragmentation` policy, with a budget of moves."""

    def __init__(self, nodes: Sequence[Node], max_moves: float) -> None:
        self.fleet, self.max_moves = Fleet(nodes), max_moves
        self.bases = Bases(self.fleet.view)
        self.pickers = Pickers(self.bases)
        self.demands: dict[Task, tuple[Demand, DemandKind]] = {}
        self.held: dict[int, dict[int, Holding]] = {}
        self.placed = self.moves = 0
        self._hopeless: dict[Task, int] = {}
        """By kind, how much had been logged when no plan was found: until more is, there is none."""

    def arrive(self, number: int, task: Task) -> bool:
        """Places the task, or drops it."""
        asked = self.demands.get(task)
        if asked is None:
            demand = demand_of(task)
            asked = self.demands[task] = demand, kind_of(demand)
        self.bases.popularity.note(asked[1])
        picker = self.pickers.of(task, asked[0], FRAGMENTATION)
        assert isinstance(picker, FragmentationPicker)
        row = picker.pick()
        if row == NO_DEVICE and self.max_moves and task.total_milli:
            row = self._made(picker, task)
        if row == NO_DEVICE:
            return False
        share = picker.share(row)
        self.fleet.view.take(row, share, ENTRY_BYTES)
        self.placed += 1
        if self.max_moves:
            self.held.setdefault(row, {})[number] = Holding(number, row, share, picker)
        return True

    def _made(self, picker: FragmentationPicker, task: Task) -> int:
        """Moves others to make room, while the budget lasts; where that is."""
        view, left = self.fleet.view, int(self.max_moves * self.placed) - self.moves
        if left <= 0 or self._hopeless.get(task) == len(view.log):
            return NO_DEVICE
        plan = gainful_room(view, picker, self._held_on, min(MOVES_PER_PLAN, left))
        if plan is None:
            self._hopeless[task] = len(view.log)
            return NO_DEVICE
        for move in plan.moves:
            held = self.held[move.source].pop(move.task)
            view.give(move.source, held.share, ENTRY_BYTES)
            view.take(move.target, move.share, ENTRY_BYTES)
            there = self.held.setdefault(move.target, {})
            there[move.task] = held._replace(row=move.target, share=move.share)
            self.moves += 1
        if not picker.fits(plan.row):
            raise AssertionError("a plan that makes no room")
        return plan.row

    def _held_on(self, row: int) -> list[Holding]:
        return list(self.held.get(row, {}).values())


# ----------------------------------------------------------------- what others do

Choice = Callable[[View, np.ndarray, Demand], int]


class Simple:
    """Any device that fits, by `choice`; a share on the accelerator with least free that fits."""

    def __init__(self, nodes: Sequence[Node], choice: Choice) -> None:
        self.fleet, self.choice = Fleet(nodes), choice
        self.placed = self.moves = 0

    def arrive(self, _: int, task: Task) -> bool:
        view, demand = self.fleet.view, demand_of(task)
        rows = np.flatnonzero(passing(view, demand))
        if not len(rows):
            return False
        row = self.choice(view, rows, demand)
        view.take(row, view.share(row, demand), ENTRY_BYTES)
        self.placed += 1
        return True


def best_fit(view: View, rows: np.ndarray, demand: Demand) -> int:
    """The device with least left of processor and accelerators, each by the largest there is."""
    left = view.free[CPU][rows] / view.offered[CPU].max() + view.free[GPU][rows] / view.offered[GPU].max()
    return int(rows[left.argmin()])


def randomly(seed: int) -> Choice:
    dice = random.Random(seed)
    return lambda view, rows, demand: int(rows[dice.randrange(len(rows))])


# ----------------------------------------------------------------- runs


def run(policy: Fragmented | Simple, nodes: Sequence[Node], arrivals: Sequence[Task], seed: int) -> Outcome:
    """All arrivals through one policy."""
    total = WHOLE_MILLI * sum(node.accelerators for node in nodes)
    begin, milli = time.process_time(), 0
    for number, task in enumerate(arrivals):
        if policy.arrive(number, task):
            milli += task.total_milli
    seconds = time.process_time() - begin
    policy.fleet.check()
    return Outcome(
        seed, 100 * milli / total, policy.placed, len(arrivals), policy.moves, seconds, policy.fleet.gaps()
    )


def compare(
    nodes: Sequence[Node], tasks: Sequence[Task], seeds: Sequence[int], max_moves: float
) -> dict[str, list[Outcome]]:
    """Every policy on the same arrivals, seed by seed."""
    target = round(ARRIVED * WHOLE_MILLI * sum(node.accelerators for node in nodes))
    found: dict[str, list[Outcome]] = {}
    for seed in seeds:
        arrivals = resampled(tasks, target, seed)
        policies: dict[str, Fragmented | Simple] = {FRAGMENTATION: Fragmented(nodes, 0.0)}
        if max_moves:
            policies[f"{FRAGMENTATION}, moves"] = Fragmented(nodes, max_moves)
        policies |= {"best fit": Simple(nodes, best_fit), "random": Simple(nodes, randomly(seed))}
        for name, policy in policies.items():
            found.setdefault(name, []).append(run(policy, nodes, arrivals, seed))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def as_data(found: dict[str, list[Outcome]]) -> dict[str, object]:
    """What `--json` prints."""
    return {
        name: {
            "mean_allocated_percent": round(fmean(o.allocated for o in outcomes), 3),
            "placements_per_s": round(sum(o.placed for o in outcomes) / sum(o.cpu_s for o in outcomes)),
            "decisions_per_s": round(sum(o.arrived for o in outcomes) / sum(o.cpu_s for o in outcomes)),
            "moves": sum(o.moves for o in outcomes),
            "moves_percent_of_placed": round(
                100 * sum(o.moves for o in outcomes) / sum(o.placed for o in outcomes), 3
            ),
            "seeds": [asdict(o) for o in outcomes],
        }
        for name, outcomes in found.items()
    }


def show(found: dict[str, list[Outcome]]) -> None:
    print(f"{'policy':<22}{'allocated %':>12}{'least':>8}{'most':>8}{'placed/s':>10}{'moves %':>9}")
    for name, outcomes in found.items():
        shares = [o.allocated for o in outcomes]
        speed = sum(o.placed for o in outcomes) / sum(o.cpu_s for o in outcomes)
        moved = 100 * sum(o.moves for o in outcomes) / sum(o.placed for o in outcomes)
        print(
            f"{name:<22}{fmean(shares):>12.2f}{min(shares):>8.2f}{max(shares):>8.2f}{speed:>10,.0f}{moved:>9.2f}"
        )


def seeds_of(text: str) -> list[int]:
    """`42-51` or `42,45`."""
    try:
        first, dash, last = text.partition("-")
        seeds = list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seeds as 42-51 or 42,45")
    return seeds


def part_of(text: str) -> float:
    try:
        part = float(text)
    except ValueError:
        part = -1.0
    if not 0.0 <= part <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a part from 0 to 1; 0.02 is 2 %")
    return part


def main(argv: Sequence[str]) -> int:
    """Exit code: 0; 2 for files or arguments that can't be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openb", description=__doc__)
    parser.add_argument(
        "--nodes", type=Path, required=True, help="CSV: sn, cpu_milli, memory_mib, gpu, model"
    )
    parser.add_argument(
        "--tasks", type=Path, required=True, help="CSV: name, cpu_milli, memory_mib, num_gpu, …"
    )
    parser.add_argument(
        "--seeds", type=seeds_of, default=list(range(42, 52)), help="42-51 (default) or 42,45"
    )
    parser.add_argument(
        "--max-moves", type=part_of, default=0.0, help="part of placed tasks that may be moved"
    )
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    args = parser.parse_args(argv)
    try:
        nodes, tasks = nodes_of(args.nodes), tasks_of(args.tasks)
    except BadFile as bad:
        print(f"error: {bad}", file=sys.stderr)
        return 2
    found = compare(nodes, tasks, args.seeds, args.max_moves)
    if args.json:
        print(json.dumps(as_data(found), indent=1))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
