"""Nominations: room that is promised to one task before it is free.

While victims of a preemption stop, and where a task has waited long for a device to become
empty enough, the room it will need there is set aside: in the scheduler's view it is taken,
so nobody of the same or a lower priority gets it; it is no reservation, and no view for
people counts it as one. Who stands above the nominee may have it: by priority against a
nominee that preempts, and by priority and waiting time, as in the queue, against one that
starved, because that is how it came to be first.

A gang that starved has room for each of its tasks (`gang_room`), and they share one fate.

Rule of this file: it alone sets room aside, and every promise ends: when its task is
placed or over, when its device is shut, or when its time is up. A restart forgets them
all; what is leaving then still leaves, and who needs it asks again.
Rejected: shutting the device for all others (its remaining room would lie idle).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controller.core.ledger import Job, Ledger, Task
from controller.core.queue import height
from controller.scheduler.view import Flags, Share
from protocol.tasks import AttemptId, TaskState

DUE = "nomination"
"""Kind of deadline, by task."""
STARVING_MS = 300_000
STARVING_HELD_MS = 600_000
"""A device that did not become empty enough in ten minutes is given back, and another one tried."""


@dataclass(slots=True)
class Nomination:
    """`victims`: whose end it waits for; none where it waits for whatever ends there."""

    task: Task
    row: int
    share: Share
    victims: tuple[AttemptId, ...]
    starving: bool
    together: bool = False
    """Whether it is one of those of a whole gang."""
    aside: bool = False
    """Whether its room is set aside at the moment."""

    @property
    def of_move(self) -> bool:
        """Whether the task is on its way there, and what it waits for is the end of its own attempt."""
        return AttemptId(self.task.row.id, self.task.row.attempt) in self.victims

    def yields_to(self, job: Job, now_ms: int) -> bool:
        """Whether this job may take the room."""
        if self.starving:
            return height(job, now_ms) > height(self.task.job, now_ms)
        return job.row.priority > self.task.job.row.priority


class Nominations:
    """All promises, by task."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.by_task: dict[str, Nomination] = {}
        self._by_job: dict[str, dict[str, Nomination]] = {}
        self._priorities: dict[int, int] = {}
        """How many nominees that don't starve are of each priority: most jobs stand above none of them."""

    def nominated_for(self, task: str) -> str | None:
        """The device whose room is promised to this task."""
        found = self.by_task.get(task)
        return self.fleet.names[found.row] if found else None

    def of(self, job: Job) -> list[Nomination]:
        return list(self._by_job.get(job.row.id, {}).values())

    def victims_left(self) -> int:
        """Victims that are still on their way out."""
        left = self.ledger.attempts
        return sum(v in left for n in self.by_task.values() for v in n.victims)

    def starving(self) -> int:
        return len(self.by_task) - sum(self._priorities.values())

    def kept_together(self) -> list[Nomination]:
        """What is kept for a whole gang; there is one at a time."""
        return [n for n in self.by_task.values() if n.together]

    def kept_singly(self) -> int:
        """For how many single tasks a device is kept because they starve."""
        return sum(n.starving and not n.together for n in self.by_task.values())

    def bars(self, row: int) -> bool:
        return any(n.row == row and (n.aside or not n.together) for n in self.by_task.values())

    def bar(self, rows: Flags) -> Flags:
        """These devices but for those with a promise: one at a time is enough. A gang's that is lifted
        at the moment bars nobody."""
        for nomination in self.by_task.values():
            if nomination.aside or not nomination.together:
                rows[nomination.row] = False
        return rows

    # ------------------------------------------------------------- begin and end

    def nominate(
        self, task: Task, row: int, share: Share, until_ms: int,
        victims: tuple[AttemptId, ...] = (), starving: bool = False, together: bool = False,
    ) -> None:  # fmt: skip
        """Sets room aside for a task that has no promise yet."""
        nomination = Nomination(task, row, share, victims, starving, together)
        self._enter(nomination, 1)
        self._set_aside(nomination)
        self.ledger.deadlines.set(DUE, task.row.id, until_ms)
        self.ledger.count("nominations")

    def end(self, task: str) -> None:
        """The promise is over; what was set aside is anybody's."""
        nomination = self.by_task.get(task)
        if nomination is None:
            return
        self._enter(nomination, -1)
        self.ledger.deadlines.clear(DUE, task)
        if nomination.aside:
            self._give_back(nomination)
            self.fleet.note_room()

    def _enter(self, nomination: Nomination, by: int) -> None:
        """Puts it where it is looked for, or takes it out."""
        id, job = nomination.task.row.id, nomination.task.job.row
        if by > 0:
            self.by_task[id] = self._by_job.setdefault(job.id, {})[id] = nomination
        else:
            del self.by_task[id], self._by_job[job.id][id]
            if not self._by_job[job.id]:
                del self._by_job[job.id]
        if not nomination.starving:
            left = self._priorities[job.priority] = self._priorities.get(job.priority, 0) + by
            if not left:
                del self._priorities[job.priority]

    def on_due(self, task: str) -> None:
        """Its time is up: what it waited for did not come."""
        if task in self.by_task:
            self.ledger.count("nominations_expired")
            self.end(task)

    def tidy(self, some: Iterable[Nomination] | None = None) -> None:
        """Ends the promises (of these, or all) whose task is placed or over, or whose device is shut."""
        for nomination in list(self.by_task.values()) if some is None else some:
            id = nomination.task.row.id
            known = self.ledger.tasks.get(id) is nomination.task
            if (
                not known
                or not (nomination.task.row.state is TaskState.PENDING or nomination.of_move)
                or not self.fleet.view.open[nomination.row]
                or (nomination.together and not self.fleet.view.online[nomination.row])
            ):
                self.end(id)

    # ------------------------------------------------------------- for a moment

    def lifted_for(self, job: Job, now_ms: int) -> list[Nomination]:
        """Gives back what this job may take, until `restore`."""
        if not self.starving() and min(self._priorities, default=job.row.priority) >= job.row.priority:
            return []
        found = [n for n in self.by_task.values() if n.aside and n.yields_to(job, now_ms)]
        for nomination in found:
            self._give_back(nomination)
        return found

    def lifted_on(self, row: int) -> list[Nomination]:
        """Gives back what is set aside on a device, whose room is about to be told anew."""
        found = [n for n in self.by_task.values() if n.aside and n.row == row]
        for nomination in found:
            self._give_back(nomination)
        return found

    def lifted_of(self, task: str) -> list[Nomination]:
        """Gives back what is set aside for this task, until `restore`."""
        found = [n for n in (self.by_task.get(task),) if n is not None and n.aside]
        return self.lift(found)

    def lift(self, some: list[Nomination]) -> list[Nomination]:
        """Gives back what is set aside by these, until `restore`."""
        for nomination in some:
            self._give_back(nomination)
        return some

    def restore(self, lifted: list[Nomination]) -> None:
        """Sets aside again what still counts."""
        for nomination in lifted:
            if self.by_task.get(nomination.task.row.id) is nomination:
                self._set_aside(nomination)

    def offers(self, job: Job) -> Iterator[Nomination]:
        """Each promise to a task of the job, its own room given back while it is looked at."""
        for nomination in self.of(job):
            self._give_back(nomination)
            yield nomination
            if self.by_task.get(nomination.task.row.id) is nomination:
                self._set_aside(nomination)

    def _set_aside(self, nomination: Nomination) -> None:
        if not nomination.aside:
            nomination.aside = True
            self.fleet.set_aside(nomination.row, nomination.share, nomination.task.job.demand.entry_bytes)

    def _give_back(self, nomination: Nomination) -> None:
        if nomination.aside:
            nomination.aside = False
            self.fleet.give_back(nomination.row, nomination.share, nomination.task.job.demand.entry_bytes)


def starved_ms(job: Job, now_ms: int) -> int:
    """How long it has waited for room since it got something."""
    return 0 if job.ready_ms is None else now_ms - max(job.ready_ms, job.assigned_ms)
