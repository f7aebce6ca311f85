"""Gainful: room for a demand that fits nowhere, where that is worth the restarts it costs.

Rule of this file: it proposes and changes nothing, like `defragment`, whose plans it makes. A
plan's gain is what it places, in milli of accelerators, and what all devices in it are worth
afterwards less what they were worth before: so room that usual demands would have used anyway
is no gain. On each device its smallest sets of tasks are tried first; no device is a target
twice in one plan and none is target and source, so that the moves hold whatever their order.
It is for moves that nobody asked for, and for demands of accelerators: only their worth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from controller.scheduler.defragment import DEVICES_TRIED, RoomPlan, Shift, nearest, suffices
from controller.scheduler.fragmenting import FragmentationPicker
from controller.scheduler.pick import NO_DEVICE, OUT
from controller.scheduler.view import GPU, Demand, Flags, Share, View

SETS_TRIED = 200
"""Per device: beyond that its sets are not cheap."""
COST_MILLI = 50.0
"""What a move of cost 0 must gain at least: below that it is not worth a restart."""


class Holding(NamedTuple):
    """A task that may be moved: what it is, where it is, what it reserves there, who places its kind."""

    task: int
    row: int
    share: Share
    picker: FragmentationPicker
    cost: float = 0.0


def gainful_room(
    view: View,
    picker: FragmentationPicker,
    held: Callable[[int], Sequence[Holding]],
    moves_max: int,
) -> RoomPlan | None:
    """The plan that gains most per move, of those that move at most `moves_max` tasks; None: none gains."""
    best: RoomPlan | None = None
    movable: dict[FragmentationPicker, bool] = {}
    able: Flags = view.takes(slice(None))
    if picker.eligible is not None:
        able = able & picker.eligible
    for row in nearest(view, picker.demand, able)[:DEVICES_TRIED]:
        tasks = [h for h in held(row) if _can_move(h.picker, movable)]
        plan = _on(view, picker, row, tasks, moves_max) if tasks else None
        if plan is not None and (best is None or _per_move(plan) > _per_move(best)):
            best = plan
    return best


def _can_move(picker: FragmentationPicker, known: dict[FragmentationPicker, bool]) -> bool:
    """Whether tasks of this kind fit anywhere at all; in a full fleet most kinds don't."""
    if picker not in known:
        known[picker] = _elsewhere(picker, []) != NO_DEVICE
    return known[picker]


def _per_move(plan: RoomPlan) -> float:
    return plan.gain / len(plan.moves)


def _on(
    view: View, picker: FragmentationPicker, row: int, held: Sequence[Holding], moves_max: int
) -> RoomPlan | None:
    """The plan of this device: its smallest sets first, of equal size the one that gains most."""
    demand, tried = picker.demand, 0
    useful = [h for h in held if _helps(view, demand, row, h.share)]
    for size in range(1, min(moves_max, len(useful)) + 1):
        best: RoomPlan | None = None
        for gone in combinations(useful, size):
            tried += 1
            if tried > SETS_TRIED:
                return best
            if suffices(view, demand, row, [(h.share, h.picker.demand.entry_bytes) for h in gone]):
                plan = _moved(view, picker, row, gone)
                if plan is not None and (best is None or plan.gain > best.gain):
                    best = plan
        if best is not None:
            return best
    return None


def _helps(view: View, demand: Demand, row: int, share: Share) -> bool:
    """Whether it holds any of what is lacking."""
    for i, amount in enumerate(demand.resources):
        if i != GPU and amount > view.free[i][row] and share.resources[i]:
            return True
    _, milli = demand.accelerators
    return any(int(view.accel_free[row, place]) < milli for place, _ in share.accelerators)


def _moved(view: View, picker: FragmentationPicker, row: int, gone: Sequence[Holding]) -> RoomPlan | None:
    """The plan that moves these, or None where one of them fits nowhere else or nothing is gained."""
    used, moves, cost = [row], [], 0.0
    for h in gone:
        target = _elsewhere(h.picker, used)
        if target == NO_DEVICE:
            return None
        used.append(target)
        gain = h.picker.gain_of(target)
        moves.append(Shift(h.task, row, target, h.picker.share(target), h.cost, gain))
        cost += COST_MILLI * (1.0 + h.cost)
    gain = sum(move.gain for move in moves) + _exchanged(view, picker, row, gone)
    gain += picker.demand.resources[GPU]
    return RoomPlan(row, moves, gain) if gain > cost else None


def _elsewhere(picker: FragmentationPicker, used: list[int]) -> int:
    picker.follow()
    total = picker.total
    row = int(total.argmax())
    if row in used:
        total = total.copy()
        total[used] = OUT
        row = int(total.argmax())
    return row if total[row] > OUT else NO_DEVICE


def _exchanged(view: View, picker: FragmentationPicker, row: int, gone: Sequence[Holding]) -> float:
    """What the device itself is worth with the demand instead of these, less what it is worth now."""
    room = [int(column[row]) for column in view.free]
    free = view.accel_free[row].tolist()
    for h in gone:
        room = [left + amount for left, amount in zip(room, h.share.resources, strict=True)]
        for place, milli in h.share.accelerators:
            free[place] += milli
    closely = picker.closely
    closely.follow()
    models = view.accel_model[row].tolist()
    emptied = closely.look(tuple(room), free, models)
    found = closely.gain_in(picker.asked_closely, emptied)
    now = closely.seen(row)
    if found is None:
        return -np.inf
    return found[0] + closely.worth(emptied) - closely.worth(now)
