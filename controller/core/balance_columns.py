"""The fleet and its work as the columns that the optimiser of balance reads, and its plan held to the rules.

Loads are of now: what is reserved of what devices offer. The optimiser knows amounts only;
rules between tasks (apart, spread), single accelerators and slower cores are checked here,
move by move on a copy of the room, so that a plan promises nothing that placement would refuse.
It moves nothing, and knows no clock but the `now_ms` it is told.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from controller.core.fleet import DOCUMENT_BYTES_MAX, Fleet
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.requests import Requests
from controller.scheduler.groups import Grouping
from controller.scheduler.imbalance import COUNTED, Devices, Imbalance, Placed, imbalance, loads
from controller.scheduler.shifts import Move
from controller.scheduler.view import CPU, DOCUMENT_BYTES_LEAST, Demand, Flags, Floats, Ints, Share, View
from protocol.resources import NAMES
from protocol.tasks import JobKind, TaskState

LOST_WORK_MS = 600_000
"""A batch task that ran so long loses one plain restart's worth of work when it is moved."""
LOST_WORK_MAX = 20.0
PRIORITY_STEP = 25.0
"""So many steps of priority make a move as dear as one restart more."""
Key = tuple[str, ...]


def gives(fleet: Fleet) -> Flags:
    """Devices whose work may be moved away of our own will: heard, and nothing else decided about them."""
    n = fleet.count
    decided = fleet.draining[:n] | fleet.quarantined[:n] | fleet.removed[:n]
    return fleet.view.online & ~decided


def device_columns(fleet: Fleet, view: View) -> Devices:
    """What the devices offer and what is reserved; document bytes and extras bind beside the resources."""
    bytes_held = DOCUMENT_BYTES_MAX - view.document_bytes_free
    room_for_bytes = np.full(view.count, DOCUMENT_BYTES_MAX - DOCUMENT_BYTES_LEAST, np.int64)
    capacity = [*view.offered, room_for_bytes, *view.extras_offered.values()]
    reserved = [a - f for a, f in zip(view.offered, view.free, strict=True)]
    extras = [view.extras_offered[name] - free for name, free in view.extras_free.items()]
    return Devices(capacity, [*reserved, bytes_held, *extras], view.ready, gives(fleet))


def load_of(view: View) -> Floats:
    """The load of each device, as `scheduler.imbalance` tells it."""
    return loads(view.offered, [a - f for a, f in zip(view.offered, view.free, strict=True)])


def figures(fleet: Fleet, view: View | None = None) -> Imbalance:
    """How evenly the devices that take part are loaded: now, or as this view has it."""
    return imbalance(load_of(view or fleet.view)[fleet.view.ready | gives(fleet)])


def cost_of(task: Task, now_ms: int) -> float:
    """How much worse than a plain restart its move is, in plain restarts."""
    job, lost = task.job, 0.0
    if job.row.kind is JobKind.BATCH and task.row.state is TaskState.RUNNING:
        lost = min(LOST_WORK_MAX, max(0, now_ms - task.started_ms) / LOST_WORK_MS)
    return lost + job.row.priority / PRIORITY_STEP


class Cargo:
    """Attempts as columns: what they hold, whether they may move, which devices their jobs allow."""

    def __init__(self, ledger: Ledger, requests: Requests) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.requests = requests
        self.attempts: list[Attempt] = []
        self._amounts: list[tuple[int, ...]] = []
        self._keys: dict[Key, int] = {}
        self._sample: list[Attempt] = []
        """One attempt of each group: what is true of it is true of all."""
        self._groupings: dict[str, Grouping | None] = {}
        self._grouped: dict[str, bool] = {}

    def placed(self, attempts: Iterable[tuple[Attempt, Task, bool]], now_ms: int) -> Placed:
        """The columns of these attempts: (attempt, its task, whether it may move)."""
        rows: list[int] = []
        kinds: list[int] = []
        movable: list[bool] = []
        costs: list[float] = []
        groups: list[int] = []
        of_job: dict[str, tuple[int, int]] = {}
        for attempt, task, may in attempts:
            known = of_job.get(attempt.job.row.id)
            if known is None:
                known = self._kind(attempt), self._group(attempt) if may else 0
                if may and self._plain(attempt):
                    of_job[attempt.job.row.id] = known
            self.attempts.append(attempt)
            rows.append(attempt.device)
            kinds.append(known[0])
            movable.append(may)
            costs.append(cost_of(task, now_ms) if may else 0.0)
            groups.append(known[1])
        width = len(NAMES) + 1 + len(self.fleet.view.extras_free)
        table = np.array(self._amounts, np.int64).reshape(len(self._amounts), width)
        return Placed(
            np.array(rows, np.int64), [column[np.array(kinds, np.int64)] for column in table.T],
            np.array(movable, np.bool_), np.array(costs, np.float64), np.array(groups, np.int64),
        )  # fmt: skip

    def _kind(self, attempt: Attempt) -> int:
        """A line of amounts: what the attempt holds, in the order of the devices' columns."""
        extras = dict(attempt.share.extras)
        more = [extras.get(name, 0) for name in self.fleet.view.extras_free]
        self._amounts.append((*attempt.share.resources, attempt.job.demand.entry_bytes, *more))
        return len(self._amounts) - 1

    def _plain(self, attempt: Attempt) -> bool:
        """Whether every attempt of its job holds the same and may go to the same devices."""
        return not (
            attempt.row.given or attempt.job.demand.reference_cpu or self._grouped[attempt.job.row.id]
        )

    def _group(self, attempt: Attempt) -> int:
        job = attempt.job
        if job.row.id not in self._grouped:
            self._grouped[job.row.id] = self.grouping(job) is not None
        if self._grouped[job.row.id]:
            key: Key = (job.row.id, *self._codes(job, attempt.device))
        else:
            # A slower core needs more of it, so only as fast a one will do as the present.
            key = (job.signature, str(attempt.share.resources[CPU]) if job.demand.reference_cpu else "")
        number = self._keys.setdefault(key, len(self._keys))
        if number == len(self._sample):
            self._sample.append(attempt)
        return number

    def grouping(self, job: Job) -> Grouping | None:
        """The counts of a job's tasks, as they stand while this plan is made."""
        if job.row.id not in self._groupings:
            self._groupings[job.row.id] = self.requests.grouping(job)
        return self._groupings[job.row.id]

    def _codes(self, job: Job, row: int) -> list[str]:
        """The device's value of each attribute that the job counts its tasks by."""
        spec, facts = job.row.spec, self.fleet.facts
        named = [s.attribute for s in spec.spreads]
        named += [c.attribute for c in spec.constraints if c.operator == "distinct"]
        return [str(int(facts.codes(name)[0][row])) for name in named]

    # ------------------------------------------------------------- where

    def allowed(self, group: int) -> Flags:
        """Devices that pass the constraints of a group's tasks."""
        attempt, view = self._sample[group], self.fleet.view
        job, n = attempt.job, self.fleet.count
        demand = self.requests.demand(job)
        able = np.ones(n, np.bool_)
        for column in demand.eligible.values():
            able &= column
        if demand.models:
            able &= np.isin(view.accel_model, view.allowed_models(demand)).any(axis=1)
        if demand.reference_cpu:
            able &= view.amount(demand, CPU, slice(None)) <= attempt.share.resources[CPU]
        return able & self.together(attempt) if self.grouping(job) is not None else able

    def together(self, attempt: Attempt) -> Flags:
        """Where the job's other tasks let this one stand. A spread keeps its shares: same value."""
        grouping, row = self.grouping(attempt.job), attempt.device
        assert grouping is not None
        grouping.unplaced(row)
        able = grouping.allows().copy()
        grouping.placed(row)
        for spread in attempt.job.row.spec.spreads:
            codes = self.fleet.facts.codes(spread.attribute)[0]
            able &= codes == codes[row]
        return able

    # ------------------------------------------------------------- a plan held to the rules

    def kept(self, moves: list[Move]) -> tuple[list[Move], Imbalance]:
        """The moves that every rule allows, in their order; and the fleet after them."""
        view, kept = self.fleet.view.copy(), list[Move]()
        for move in moves:
            attempt = self.attempts[move.task]
            demand, grouping = self.requests.demand(attempt.job), self.grouping(attempt.job)
            view.give(move.source, attempt.share, demand.entry_bytes)
            if grouping is not None:
                grouping.unplaced(move.source)
            good = fits(view, demand, move.target) and (
                grouping is None or bool(grouping.allows()[move.target])
            )
            row = move.target if good else move.source
            share = view.share(row, demand) if good else attempt.share
            view.take(row, share, demand.entry_bytes)
            if grouping is not None:
                grouping.placed(row)
            if good:
                kept.append(move)
        return kept, figures(self.fleet, view)


def fits(view: View, demand: Demand, row: int) -> bool:
    """Whether the device has room for it now, whatever its constraints say."""
    rows: Ints = np.array([row])
    return bool(view.takes(row)) and int(view.copies(demand, rows)[0]) >= 1


def load_with(view: View, row: int, share: Share) -> float:
    """The load of one device with this much more."""
    most = 0.0
    for r in COUNTED:
        offered = int(view.offered[r][row])
        most = max(most, (offered - int(view.free[r][row]) + share.resources[r]) / max(1, offered))
    return most
