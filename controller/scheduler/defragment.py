"""Defragment: room for a demand that fits nowhere, by moving few tasks of one device elsewhere.

Rule of this file: it proposes and changes nothing; whoever asked carries a plan out or not.
Moves take tasks of the device where room is made to others, where each scores best; none is
target and source, and no target is promised more than fits in whatever order it comes, so
that the moves hold whatever their order. Devices that lack least are looked at first.
`make_room` asks for no gain: of those devices the one where the fewest tasks, then the
cheapest, have to go. `gainful_room` asks whether it is worth it: a plan's gain is what it
places, in milli of accelerators, and what all devices in it are worth afterwards less what
they were worth before: so room that usual demands would have used anyway is no gain.
Rejected: chains of moves (a task moved so that another can move): each step costs a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations
from typing import NamedTuple

import numpy as np

from controller.scheduler.fragmenting import FragmentationPicker
from controller.scheduler.pick import NO_DEVICE, OUT
from controller.scheduler.victims import Endable, on_device
from controller.scheduler.view import (
    DOCUMENT_BYTES_LEAST,
    GPU,
    SLOTS,
    Demand,
    Flags,
    Floats,
    Share,
    View,
)

DEVICES_TRIED = 24
DEVICES_SEEN = 512
"""Where too little may move on the first ones, so many are asked what may."""
SETS_TRIED = 200
"""Per device: beyond that its sets are not cheap."""
CHOICES_TRIED = 16
"""Per device: sets of tasks of which one had nowhere to go."""
COST_MILLI = 50.0
"""What a move of cost 0 must gain at least: below that it is not worth a restart."""


class Movable(NamedTuple):
    """A task that may be moved, and what it reserves where it is.

    `kind`: equal for tasks that may go to the same devices. `group`: at most one of a group is
    moved in a plan, because where it may stand depends on where the others do; empty: of none.
    """

    task: int
    share: Share
    demand: Demand
    kind: str
    cost: float = 0.0
    group: str = ""


class Holding(NamedTuple):
    """A task that may be moved for gain: what it is, where it is, what it reserves there, who places its
    kind."""

    task: int
    row: int
    share: Share
    picker: FragmentationPicker
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Shift:
    """One move of a plan. `gain`: the target's worth after it less before, in milli; mostly below 0."""

    task: int
    source: int
    target: int
    share: Share
    cost: float
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """`moves`, then the demand on `row`. `gain` in milli, of all together; 0 where nobody asked for it."""

    row: int
    moves: list[Shift]
    gain: float = 0.0

    @property
    def price(self) -> tuple[int, float]:
        """Smaller is better."""
        return len(self.moves), sum([move.cost for move in self.moves])


# ----------------------------------------------------------------- the fewest moves


def make_room(
    view: View,
    demand: Demand,
    allowed: Flags,
    held: Callable[[int], Sequence[Movable]],
    scores: Callable[[Movable], Floats],
    moves_max: int,
) -> RoomPlan | None:
    """The plan of fewest moves, `moves_max` at most, then of least cost; None: there is none nearby.

    `allowed`: devices where the demand may be placed, as far as anything but room is concerned.
    `held`: what of a device may be moved; `scores`: how well each device suits it, `OUT` where it
    does not fit as things are.
    """
    best: RoomPlan | None = None
    tried = 0
    for row in _nearest(view, demand, allowed)[:DEVICES_SEEN]:
        here = held(row)
        if len(_fewest(view, demand, row, here)) == 0:
            continue
        plan = _emptied(view, demand, row, here, scores, moves_max)
        if plan is not None and (best is None or plan.price < best.price):
            best, moves_max = plan, len(plan.moves)
        tried += 1
        if tried == DEVICES_TRIED:
            break
    return best


def _fewest(view: View, demand: Demand, row: int, here: Sequence[Movable]) -> tuple[int, ...]:
    """Which of these would have to go, by their places; none where all of them would not do."""
    held = [Endable(0, m.share, m.demand.entry_bytes, int(1_000 * m.cost)) for m in here]
    return on_device(view, demand, row, held, 0) or ()


def _emptied(
    view: View,
    demand: Demand,
    row: int,
    here: Sequence[Movable],
    scores: Callable[[Movable], Floats],
    moves_max: int,
) -> RoomPlan | None:
    """The plan of this device: the cheapest set that has somewhere to go. Of one that has not each task
    in turn stays, and others are chosen for it."""
    kinds = {m.kind: m for m in here}
    fixed = {kind for kind, m in kinds.items() if _best(view, m, scores(m), row, {}) == NO_DEVICE}
    choices: list[_Choice] = []
    _choose(choices, view, demand, row, [m for m in here if m.kind not in fixed])
    for _ in range(CHOICES_TRIED):
        if not choices or choices[0].moves > moves_max:
            return None
        choice = heappop(choices)
        moves = _sent(view, row, choice.chosen, scores)
        if moves is not None:
            return RoomPlan(row, moves)
        for m in choice.chosen:
            _choose(choices, view, demand, row, [other for other in choice.among if other is not m])
    return None


class _Choice(NamedTuple):
    """A set that would do, as the heap orders them; `order` tells those of one price apart."""

    moves: int
    cost: float
    order: tuple[list[int], list[int]]
    chosen: list[Movable]
    among: list[Movable]


def _choose(choices: list[_Choice], view: View, demand: Demand, row: int, among: list[Movable]) -> None:
    """Enters the cheapest set among these, if there is one that is not known yet."""
    chosen = [among[i] for i in _fewest(view, demand, row, among)]
    order = [m.task for m in chosen], [m.task for m in among]
    if chosen and all(order != known.order for known in choices):
        heappush(choices, _Choice(len(chosen), sum([m.cost for m in chosen]), order, chosen, among))


def _sent(
    view: View, row: int, chosen: Sequence[Movable], scores: Callable[[Movable], Floats]
) -> list[Shift] | None:
    """A target for each of them; None where one finds none."""
    groups = [m.group for m in chosen if m.group]
    if len(set(groups)) < len(groups):
        return None
    taken, moves = dict[int, list[Demand]](), list[Shift]()
    targets = {m.kind: int((scores(m) > OUT).sum()) for m in chosen}
    for m in sorted(chosen, key=lambda m: targets[m.kind]):  # who has the least choice goes first
        target = _best(view, m, scores(m), row, taken)
        if target == NO_DEVICE:
            return None
        taken.setdefault(target, []).append(m.demand)
        moves.append(Shift(m.task, row, target, view.share(target, m.demand), m.cost))
    return moves


def _best(view: View, m: Movable, scores: Floats, source: int, taken: dict[int, list[Demand]]) -> int:
    """The device that suits it best, beside what others of the plan take there."""
    total = scores.copy()
    total[source] = OUT
    for _ in range(len(taken) + 1):  # a device that takes nothing else of the plan will do
        row = int(total.argmax())
        if total[row] > OUT and (row not in taken or _hold_together(view, row, [*taken[row], m.demand])):
            return row
        total[row] = OUT
    return NO_DEVICE


def _hold_together(view: View, row: int, demands: Sequence[Demand]) -> bool:
    """Whether all of these fit there in any order: two on accelerators may be packed otherwise in another."""
    if sum([demand.accelerators[0] > 0 for demand in demands]) > 1:
        return False
    shares = [view.share(row, demand) for demand in demands]
    for i, column in enumerate(view.free):
        least = 1 if i == SLOTS else 0
        if not _in_turn(int(column[row]), [share.resources[i] for share in shares], least):
            return False
    extras: dict[str, int] = {}
    for name, amount in [extra for share in shares for extra in share.extras]:
        extras[name] = extras.get(name, 0) + amount
    if any(amount > int(view.extras_free[name][row]) for name, amount in extras.items()):
        return False
    spare = int(view.document_bytes_free[row])
    return _in_turn(spare, [demand.entry_bytes for demand in demands], DOCUMENT_BYTES_LEAST)


def _in_turn(free: int, amounts: Sequence[int], least: int) -> bool:
    """Whether enough is left for each, were it the last: `least` must be there though it take less."""
    rest = free - sum(amounts)
    return all(rest + amount >= max(least, amount) for amount in amounts)


def _nearest(view: View, demand: Demand, allowed: Flags) -> list[int]:
    """Devices that could take the demand were they empty, those first that lack least for it."""
    able: Flags = allowed.copy()
    lack: Floats = np.zeros(view.count)
    for i, amount in enumerate(demand.resources):
        needed = max(1, amount) if i == SLOTS else view.amount(demand, i, slice(None))
        if i != GPU and (amount or i == SLOTS):
            able &= view.offered[i] >= needed
            lack += np.maximum(0.0, (needed - view.free[i]) / np.maximum(1, needed))
    for name, amount in demand.extras.items():
        if name not in view.extras_free:
            return []
        able &= view.extras_offered[name] >= amount
        lack += np.maximum(0.0, (amount - view.extras_free[name]) / max(1, amount))
    entry_bytes = max(DOCUMENT_BYTES_LEAST, demand.entry_bytes)
    lack += np.maximum(0.0, (entry_bytes - view.document_bytes_free) / entry_bytes)
    count, milli = demand.accelerators
    if count:
        if view.accel_free.shape[1] < count:
            return []
        right = _right_model(view, demand)
        able &= (right.sum(axis=1) >= count) & (view.offered[GPU] >= demand.resources[GPU])
        lacks = np.where(right, np.maximum(0, milli - view.accel_free), 1_000_000)
        lack += np.partition(lacks, count - 1, axis=1)[:, :count].sum(axis=1) / milli
    rows = np.flatnonzero(able)
    found: list[int] = rows[np.argsort(lack[rows], kind="stable")].tolist()
    return found


def _right_model(view: View, demand: Demand) -> Flags:
    if not demand.models:
        there: Flags = view.accel_model >= 0
        return there
    return np.isin(view.accel_model, view.allowed_models(demand))


# ----------------------------------------------------------------- what is worth it


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
    for row in _nearest(view, picker.demand, able)[:DEVICES_TRIED]:
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
            if _fits_without(view, demand, row, gone):
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


def _fits_without(view: View, demand: Demand, row: int, gone: Sequence[Holding]) -> bool:
    for i, amount in enumerate(demand.resources):
        if amount and i != GPU:
            free = int(view.free[i][row]) + sum([h.share.resources[i] for h in gone])
            if free < int(np.max(view.amount(demand, i, np.array([row])))):
                return False
    count, milli = demand.accelerators
    if not count:
        return True
    free_of = view.accel_free[row].tolist()
    for h in gone:
        for place, taken in h.share.accelerators:
            free_of[place] += taken
    models, allowed = view.accel_model[row].tolist(), view.allowed_models(demand)
    able = [
        free
        for free, model in zip(free_of, models, strict=True)
        if free >= milli and (not demand.models or model in allowed)
    ]
    return len(able) >= count


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
