"""A search for room: what of the fleet's work may be moved for one pending task, and where to.

Rule of this file: it shows records to the scheduler and takes its plan; the live view stays as it
is. What may move is `carrying`'s judgement. A look costs some 10 ms in a fleet of 10,000 devices,
100 ms where the policy is `fragmentation`; both are bounded by what the scheduler looks at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.core.balance_columns import Cargo, cost_of
from controller.core.carrying import Carrying, may_leave
from controller.core.ledger import Attempt, Ledger, Task
from controller.core.placement import Placement
from controller.scheduler.defragment import Movable, RoomPlan, make_room, suffices
from controller.scheduler.fragmenting import FragmentationPicker
from controller.scheduler.gainful import Holding, gainful_room
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE, OUT
from controller.scheduler.view import GPU, Flags, Floats


def allowed(placement: Placement, task: Task) -> Flags:
    """Devices that could take the task, as far as anything but room is concerned."""
    fleet, requests = placement.fleet, placement.requests
    rows: Flags = fleet.view.ready.copy()
    for column in requests.demand(task.job).eligible.values():
        rows &= column
    if (grouping := requests.grouping(task.job)) is not None:
        rows &= grouping.allows()
    if task.row.pin:
        rows &= np.arange(len(rows)) == fleet.index.get(task.row.pin, NO_DEVICE)
    return rows


class _Kind(NamedTuple):
    """How well devices suit tasks that may go to the same ones."""

    attempt: Attempt
    grouping: Grouping | None


class RoomSearch:
    """One look for a plan."""

    def __init__(
        self, ledger: Ledger, placement: Placement, carrying: Carrying, task: Task, now_ms: int
    ) -> None:
        self.ledger, self.placement, self.carrying = ledger, placement, carrying
        self.task, self.now_ms = task, now_ms
        self.demand = placement.requests.demand(task.job)
        self.allowed = allowed(placement, task)
        self.attempts: list[Attempt] = []
        """By the number that plans call them by."""
        self.fresh = 0
        """Tasks that would be movable had they rested."""
        self._cargo = Cargo(ledger, placement.requests)
        self._samples: dict[str, _Kind] = {}
        self._scores: dict[str, Floats] = {}

    def fewest(self, moves_max: int) -> RoomPlan | None:
        """The plan of the fewest moves."""
        view = self.placement.fleet.view
        return make_room(view, self.demand, self.allowed, self._held, self._score, moves_max)

    def worthwhile(self, moves_max: int) -> RoomPlan | None:
        """The plan that nobody has to ask for: where usual work is known, it must gain more than it costs."""
        view, picker = self.placement.fleet.view, self.placement.picker(self.task.job)
        if not (isinstance(picker, FragmentationPicker) and self.demand.resources[GPU]):
            return self.fewest(moves_max)
        found = gainful_room(view, picker, self._holdings, moves_max)
        if found is None or not self.allowed[found.row]:
            return None
        going = [self.attempts[move.task] for move in found.moves]
        shares = [(attempt.share, attempt.job.demand.entry_bytes) for attempt in going]
        return found if suffices(view, self.demand, found.row, shares) else None

    def _holdings(self, row: int) -> list[Holding]:
        found = []
        for movable in self._held(row):
            picker = self.placement.picker(self.attempts[movable.task].job)
            if not movable.group and isinstance(picker, FragmentationPicker):
                found.append(Holding(movable.task, row, movable.share, picker, movable.cost))
        return found

    def _held(self, row: int) -> list[Movable]:
        """What may be moved off a device."""
        found = list[Movable]()
        for attempt in self.ledger.by_device[row].values():
            task, job = self.ledger.tasks.get(attempt.row.task), attempt.job
            grouping = self._cargo.grouping(job)
            if task is None or not may_leave(attempt):
                continue
            if not self.carrying.rested(attempt, task, self.now_ms):
                self.fresh += 1
                continue
            group = job.row.id if grouping is not None else ""
            kind = f"{row} {group}" if group else f"{job.row.rules.policy}|{job.signature}"
            self._samples.setdefault(kind, _Kind(attempt, grouping))
            demand, cost = self.placement.requests.demand(job), cost_of(task, self.now_ms)
            found.append(Movable(len(self.attempts), attempt.share, demand, kind, cost, group))
            self.attempts.append(attempt)
        return found

    def _score(self, movable: Movable) -> Floats:
        scores = self._scores.get(movable.kind)
        if scores is None:
            attempt, grouping = self._samples[movable.kind]
            picker = self.placement.picker(attempt.job)
            picker.follow()
            scores = picker.total
            if grouping is not None:
                scores = np.where(self._cargo.together(attempt), scores, OUT)
            self._scores[movable.kind] = scores
        return scores
