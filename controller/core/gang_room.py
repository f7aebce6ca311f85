"""Room for a gang that starves: devices that are kept for all of it, until it can be placed at once.

A gang that got nothing for five minutes has room set aside for each of its tasks, on devices
that could hold it whole if what ends by itself had ended there. What is free already counts
first, then the emptiest devices; its groups are kept as the devices are chosen. As runs end
there, nobody else gets the room; when the last of it is free, the gang is placed in one commit.

Only one gang at a time has room kept, the first in the queue that asks: two of them would
hold each other's halves. After ten minutes in vain it is another's turn, for five at least.

Rule of this file: it chooses devices; what is promised, and to whom it yields, is judged
by `nominations`. It ends nothing.
Rejected: search for the best choice where several labels bound a gang across each other (a
greedy choice that fails keeps nothing, and the gang waits for luck as before).
"""

from __future__ import annotations

import numpy as np

from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.nominations import STARVING_HELD_MS, STARVING_MS, Nominations, starved_ms
from controller.core.records import AttemptState
from controller.scheduler.groups import Grouping
from controller.scheduler.prospects import DEVICES_TOLD, prospects
from controller.scheduler.view import Demand, Share, View
from protocol.tasks import TaskState

ROUNDS_KNOWN = 1_024
"""When a gang had its turn is remembered for so many."""


class GangRoom:
    """Keeps room for one gang at a time."""

    def __init__(self, ledger: Ledger, nominations: Nominations) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.nominations = nominations
        self._since_ms: dict[str, int] = {}
        """Gang -> when its turn began."""

    def wanted(self, job: Job, now_ms: int) -> bool:
        """Whether it is this gang's turn to have room kept."""
        if starved_ms(job, now_ms) < STARVING_MS or len(self._ready(job)) < job.left:
            return False
        since_ms = self._since_ms.get(job.row.id)
        if since_ms is not None and STARVING_HELD_MS <= now_ms - since_ms < STARVING_HELD_MS + STARVING_MS:
            return False
        return not self.nominations.kept_together()

    def keep(self, job: Job, demand: Demand, grouping: Grouping | None, now_ms: int) -> bool:
        """Sets room aside for each of its tasks, or for none."""
        since_ms = self._since_ms.pop(job.row.id, now_ms)
        if now_ms - since_ms >= STARVING_HELD_MS:
            since_ms = now_ms
        places = self._places(demand, grouping, job.left)
        if len(places) < job.left:
            since_ms = now_ms - STARVING_HELD_MS  # it is looked for again, but not at every change
        if len(self._since_ms) >= ROUNDS_KNOWN:
            del self._since_ms[next(iter(self._since_ms))]  # the oldest
        self._since_ms[job.row.id] = since_ms
        if len(places) < job.left:
            return False
        until_ms = since_ms + STARVING_HELD_MS
        for task, (row, share) in zip(self._ready(job), places, strict=True):
            self.nominations.nominate(task, row, share, until_ms, starving=True, together=True)
        return True

    def _ready(self, job: Job) -> list[Task]:
        found = {id: self.ledger.tasks[id] for id in job.ready if id in self.ledger.tasks}
        return [task for task in found.values() if task.row.state is TaskState.PENDING]

    def _places(self, demand: Demand, grouping: Grouping | None, count: int) -> list[tuple[int, Share]]:
        """Where so many of them would stand, and on what; fewer where no more fit."""
        view = self.fleet.view
        allowed = self.nominations.bar(view.ready.copy())
        for column in demand.eligible.values():
            allowed &= column
        rows = prospects(view, demand, allowed, max(DEVICES_TOLD, 2 * count))
        now, emptied = view.copy(), view.copy()
        for row in rows:
            for attempt in self.ledger.by_device[row].values():
                if _ends(attempt):
                    emptied.give(row, attempt.share, attempt.job.demand.entry_bytes)
        found: list[tuple[int, Share]] = []
        for trial in (now, emptied):  # what is free already, then what will be
            for row in rows:
                most = int(trial.copies(demand, np.array([row]))[0])
                while most > 0 and len(found) < count and (grouping is None or grouping.allows()[row]):
                    share = trial.share(row, demand)
                    _take(row, share, demand, now, emptied)
                    found.append((row, share))
                    most -= 1
                    if grouping is not None:
                        grouping.placed(row)
        return found


def _ends(attempt: Attempt) -> bool:
    """Whether it leaves some day without being sent away."""
    return attempt.row.state is AttemptState.REMOVED or not attempt.job.service


def _take(row: int, share: Share, demand: Demand, *views: View) -> None:
    for view in views:
        view.take(row, share, demand.entry_bytes)
