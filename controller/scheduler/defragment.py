"""Defragment: room for a demand that fits nowhere, by moving few tasks of one device elsewhere.

Rule of this file: it proposes and changes nothing; whoever asked carries a plan out or not.
Moves take tasks of the device where room is made to others, where each scores best; none is
target and source, and no target is promised more than fits in whatever order it comes, so
that the moves hold whatever their order. Devices that lack least are looked at first; the one
wins where the fewest tasks, then the cheapest, have to go. On one device no plan of fewer is
missed, as long as few sets have to be tried for it.
What a plan gains beside the room is not asked here; `gainful` does.
Rejected: chains of moves (a task moved so that another can move): each step costs a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from controller.scheduler.pick import NO_DEVICE, OUT
from controller.scheduler.victims import LEAVES, Endable, on_device
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
CHOICES_TRIED, CHOICES_OF_DEVICE = 40, 16
"""Sets of tasks that can't go together, in all and of one device: up to 10 ms each where there are many."""
ALL_IN_TURN = 3
"""Of a larger set only who found no target stays: to leave out each in turn would cost as many looks."""


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
    search = _Search(view, demand, scores)
    for row in nearest(view, demand, allowed)[:DEVICES_SEEN]:
        here = held(row)
        if not suffices(view, demand, row, [(m.share, m.demand.entry_bytes) for m in here]):
            continue
        plan = search.on(row, here, moves_max)
        if plan is not None and (best is None or plan.price < best.price):
            best, moves_max = plan, len(plan.moves)
        if search.over():
            break
    return best


def suffices(view: View, demand: Demand, row: int, going: Sequence[tuple[Share, int]]) -> bool:
    """Whether the demand fits there once these are gone: (share, bytes in the document)."""
    leaving = [Endable(LEAVES, share, entry_bytes) for share, entry_bytes in going]
    return on_device(view, demand, row, leaving, LEAVES) is not None


# ----------------------------------------------------------------- one device after the other


class _Choice(NamedTuple):
    """A set that would do, as the heap orders them; `order` tells those of one price apart."""

    moves: int
    cost: float
    order: tuple[list[int], list[int]]
    chosen: list[Movable]
    among: list[Movable]


class _Search:
    """Looks for sets of tasks that would do, and that have somewhere to go."""

    def __init__(self, view: View, demand: Demand, scores: Callable[[Movable], Floats]) -> None:
        self.view, self.demand, self.scores = view, demand, scores
        self.devices = self.choices = 0

    def over(self) -> bool:
        return self.devices >= DEVICES_TRIED or self.choices >= CHOICES_TRIED

    def on(self, row: int, here: Sequence[Movable], moves_max: int) -> RoomPlan | None:
        """The plan of this device: the cheapest set that has somewhere to go. Of one that has not some
        task stays, each in turn, and others are chosen for it."""
        self.devices += 1
        kinds = {m.kind: m for m in here}
        fixed = {kind for kind, m in kinds.items() if self._target(m, row, {}) == NO_DEVICE}
        heap: list[_Choice] = []
        self._choose(heap, row, [m for m in here if m.kind not in fixed], moves_max)
        for _ in range(CHOICES_OF_DEVICE):
            if not heap:
                return None
            choice = heappop(heap)
            moves, stuck = self._sent(row, choice.chosen)
            if stuck is None:
                return RoomPlan(row, moves)
            self.choices += 1
            for m in choice.chosen if choice.moves <= ALL_IN_TURN else [stuck]:
                self._choose(heap, row, [other for other in choice.among if other is not m], moves_max)
        return None

    def _choose(self, heap: list[_Choice], row: int, among: list[Movable], moves_max: int) -> None:
        """Enters the cheapest set among these, if there is one that is not known yet."""
        held = [Endable(0, m.share, m.demand.entry_bytes, int(1_000 * m.cost)) for m in among]
        chosen = [among[i] for i in on_device(self.view, self.demand, row, held, 0, moves_max) or ()]
        order = [m.task for m in chosen], [m.task for m in among]
        if chosen and all(order != known.order for known in heap):
            heappush(heap, _Choice(len(chosen), sum([m.cost for m in chosen]), order, chosen, among))

    def _sent(self, row: int, chosen: Sequence[Movable]) -> tuple[list[Shift], Movable | None]:
        """A target for each of them; or who finds none."""
        taken, groups, moves = dict[int, list[Demand]](), set[str](), list[Shift]()
        targets = {m.kind: int((self.scores(m) > OUT).sum()) for m in chosen}
        for m in sorted(chosen, key=lambda m: targets[m.kind]):  # who has the least choice goes first
            target = self._target(m, row, taken)
            if target == NO_DEVICE or (m.group and m.group in groups):
                return moves, m
            groups.add(m.group)
            taken.setdefault(target, []).append(m.demand)
            moves.append(Shift(m.task, row, target, self.view.share(target, m.demand), m.cost))
        return moves, None

    def _target(self, m: Movable, source: int, taken: dict[int, list[Demand]]) -> int:
        """The device that suits it best, beside what others of the plan take there."""
        total = self.scores(m).copy()
        total[source] = OUT
        for _ in range(len(taken) + 1):  # a device that takes nothing else of the plan will do
            row = int(total.argmax())
            alone = row not in taken
            if total[row] > OUT and (alone or _hold_together(self.view, row, [*taken[row], m.demand])):
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


# ----------------------------------------------------------------- where to look


def nearest(view: View, demand: Demand, allowed: Flags) -> list[int]:
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
