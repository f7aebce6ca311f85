"""Rebalance and drain: columns in, a plan that a person can read out.

A plan is data; whoever asked decides what becomes of it. Moves are in an order in which capacity
is never exceeded, if each task leaves its source before it enters its target. The same columns
give the same plan: no dice, ties go to the lower row.
Rebalancing: who is above `goal` x mean gives tasks away (leaving) to the least loaded devices that
stay below it (arriving), in stages because the mean may fall meanwhile; then the worst that
remain are relieved as far as it goes, though not below the goal (pressing).
It knows no names, clocks or task states; cool-down and windows are in `movable`, and rules between
tasks (apart, gangs, one accelerator) are checked by whoever carries the plan out.
Rejected: one integer programme for all (seconds, where this takes milliseconds); annealing
(a plan nobody can follow); moving a task twice in one plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler import leaving
from controller.scheduler.arriving import NOWHERE, Allowed, Receivers
from controller.scheduler.imbalance import COUNTED, Devices, Imbalance, Placed, ceilings, imbalance
from controller.scheduler.levelling import settled
from controller.scheduler.pressing import press
from controller.scheduler.shifts import Move, Shifts
from controller.scheduler.view import Ints

_STAGES = 6
"""The mean falls less with each stage; what the last one leaves is pressed."""
_TASKS_TRIED = 30_000
"""Fleets with fewer tasks are planned from several beginnings, and the best plan is taken: where loads
come in steps (equal tasks), a ceiling a hair above a step saves a whole layer of moves."""
_GAIN_LEAST = 1e-12
"""What makes nothing worse, but nothing better either, is no reason to move."""
_FAILURES_MAX = 500
"""Tasks without a place after which a stage ends: a fleet so full is not worth more of our time."""


@dataclass(frozen=True, slots=True)
class Aims:
    """What a rebalance is for. Hysteresis: it begins above `trigger` and then goes down to `goal`."""

    goal: float = 1.10
    """Largest load, in mean loads, that a plan brings about."""
    trigger: float = 1.25
    """Below it nothing moves: a fleet that hovers around the goal would never come to rest."""
    moves_max: int = 1_000
    gain_min: float = 1e-4
    """For each plain restart that a move is worth (1 + cost). 2 % of load from 0.60 to 0.55 gain 12e-4."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.goal <= self.trigger or self.moves_max < 0 or self.gain_min < 0:
            raise ValueError(f"{self}: needs 1 <= goal <= trigger, moves_max >= 0 and gain_min >= 0")


@dataclass(frozen=True, slots=True)
class BalancePlan:
    """`moves` in the order to carry them out; what the fleet is before the first and after the last."""

    moves: list[Move]
    before: Imbalance
    after: Imbalance
    reached: bool
    """Whether every device that gives is at most at the goal afterwards, or nothing needed to move."""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """`homeless`: tasks that fit nowhere; `staying`: tasks that are not movable. Indices of tasks."""

    moves: list[Move]
    homeless: list[int]
    staying: list[int]
    before: Imbalance
    after: Imbalance


def rebalance(
    devices: Devices,
    tasks: Placed,
    allowed: Allowed,
    aims: Aims | None = None,
    counted: tuple[int, ...] = COUNTED,
) -> BalancePlan:
    """The moves that bring the largest load down to the goal, as few and as cheap as it finds."""
    aims = aims or Aims()
    shifts = Shifts(devices, tasks, counted)
    before = imbalance(shifts.loads()[shifts.part])
    if _most(shifts) <= aims.trigger * before.mean:
        return BalancePlan([], before, before, True)
    start, found = settled(shifts, aims.goal), []
    starts = [start, aims.goal * shifts.mean, start * 0.97]
    for ceiling in starts[: max(1, _TASKS_TRIED // max(1, tasks.row.size))]:
        shifts = Shifts(devices, tasks, counted)
        _level(shifts, allowed, aims, ceiling)
        after = imbalance(shifts.loads()[shifts.part])
        found.append(BalancePlan(shifts.moves, before, after, _reached(shifts, aims)))
    return min(found, key=_worth)


def _worth(plan: BalancePlan) -> tuple[bool, float, float]:
    """Smaller is better: a plan that reaches the goal, the cheapest of them; else the lowest peak."""
    cost = sum(1.0 + move.cost for move in plan.moves)
    return not plan.reached, 0.0 if plan.reached else plan.after.most, cost


def _level(shifts: Shifts, allowed: Allowed, aims: Aims, ceiling: float) -> None:
    """The whole way, beginning with this ceiling."""
    for _ in range(_STAGES):
        if _reached(shifts, aims) or not _stage(shifts, allowed, aims, ceiling):
            break
        if len(shifts.moves) >= aims.moves_max:
            return
        ceiling = settled(shifts, aims.goal)
    press(shifts, allowed, aims.goal, aims.moves_max, max(aims.gain_min, _GAIN_LEAST))


def drain(
    devices: Devices,
    tasks: Placed,
    allowed: Allowed,
    rows: Ints,
    counted: tuple[int, ...] = COUNTED,
) -> DrainPlan:
    """Moves every movable task of these devices to where it fits, the largest first; nothing else moves."""
    shifts = Shifts(devices, tasks, counted)
    before = imbalance(shifts.loads()[shifts.part])
    gone = np.zeros(devices.gives.size, np.bool_)
    gone[rows] = True
    receivers = Receivers(shifts, devices.receives & ~gone, devices.capacity, allowed)
    held = gone[tasks.row]
    moving = _largest_first(shifts, np.flatnonzero(held & tasks.movable))
    homeless = _carry(shifts, receivers, moving, -np.inf)
    staying = np.flatnonzero(held & ~tasks.movable).tolist()
    after = imbalance(shifts.loads()[shifts.part & ~gone])
    return DrainPlan(shifts.moves, sorted(homeless), staying, before, after)


def _most(shifts: Shifts) -> float:
    """The largest load of a device that gives."""
    return float(shifts.loads()[shifts.devices.gives].max(initial=0.0))


def _reached(shifts: Shifts, aims: Aims) -> bool:
    return _most(shifts) <= aims.goal * shifts.mean * (1 + 1e-6)


def _stage(shifts: Shifts, allowed: Allowed, aims: Aims, ceiling: float) -> bool:
    """Moves from devices above this load to devices that stay below it. Whether anything moved."""
    devices, tasks, begin = shifts.devices, shifts.tasks, len(shifts.moves)
    limits = ceilings(devices.capacity, min(1.0, ceiling), shifts.counted)
    over = np.zeros(devices.gives.size, np.bool_)
    for r in shifts.counted:
        over |= shifts.column(r) > limits[r]
    receivers = Receivers(shifts, devices.receives & ~over, limits, allowed)
    free = tasks.movable & shifts.unmoved() & (over & devices.gives)[tasks.row]
    failures = 0
    while failures < _FAILURES_MAX:
        for r, most in receivers.most().items():
            free &= tasks.amounts[r] <= most
        chosen = _choose(shifts, limits, np.flatnonzero(free))[: aims.moves_max - len(shifts.moves)]
        if not chosen.size:
            break
        free[chosen] = False
        failures += len(
            _carry(shifts, receivers, _largest_first(shifts, chosen), max(aims.gain_min, _GAIN_LEAST))
        )
    return len(shifts.moves) > begin


def _choose(shifts: Shifts, limits: list[Ints], candidates: Ints) -> Ints:
    """Who should leave, those of the most loaded devices first."""
    tasks = shifts.tasks
    candidates = candidates[np.argsort(tasks.row[candidates], kind="stable")]
    excess = {r: shifts.column(r) - limits[r] for r in shifts.counted}
    size = {r: np.maximum(shifts.devices.capacity[r], 1) for r in shifts.counted}
    chosen, rounds = leaving.choose(tasks, candidates, excess, size)
    row = tasks.row[chosen]
    return chosen[np.lexsort((rounds, row, -shifts.loads()[row]))]


def _largest_first(shifts: Shifts, moving: Ints) -> Ints:
    """Large tasks find a place only while there is much room: they go first."""
    whole = np.zeros(moving.size)
    for column, amounts in zip(shifts.devices.capacity, shifts.tasks.amounts, strict=True):
        np.maximum(whole, amounts[moving] / max(1.0, float(column.mean())), out=whole)
    return moving[np.argsort(-whole, kind="stable")]


def _carry(shifts: Shifts, receivers: Receivers, moving: Ints, gain_min: float) -> list[int]:
    """Moves what finds a place that is worth it; the others are returned."""
    failed, tasks = [], shifts.tasks
    least = gain_min * (1.0 + tasks.cost[moving])
    columns = (moving, tasks.row[moving], tasks.group[moving], least)
    facts = zip(*[column.tolist() for column in columns], shifts.needs(moving), strict=True)
    for task, source, group, worth, needs in facts:
        target = receivers.find(group, needs)
        if target != NOWHERE and shifts.move(task, source, target, needs, worth):
            receivers.took(target)
        else:
            failed.append(task)
    return failed
