"""Broken gangs: some tasks of a gang stand, others found no room, and the part waits for the rest.

What is lost is replaced one by one, at once, where there is room. Where there is none for a
minute, the part that stands gives its room up, and the gang waits whole as at its start:
otherwise two halves would hold for ever what either needs. That the whole would fit nowhere
at the moment is no reason to stay: a part is of no use to its job, and its room is to others.

Of several whose patience is over at once only the lower half in the queue gives up, at least
one; the others wait anew for what that frees. So no two break up and retry in lockstep.
What waits for something else than room (a pause, another job, victims that stop) breaks
nothing, and neither does a task that has ended. While the controller hears nobody, or a
site's failover is frozen, nobody gives up: the room may well be there.

Rule of this file: patience is memory; a restart begins it anew.
Rejected: one at a time (a hundred parts after the loss of a site would take an hour).
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.holds import Holds
from controller.core.ledger import Attempt, Job, Ledger
from controller.core.nominations import Nominations
from controller.core.queue import height
from controller.core.records import AttemptState
from protocol.tasks import TaskState

DUE = "broken_gang"
"""Kind of deadline, by job."""
PATIENCE_MS = 60_000
SETTLE_MS = 40_000
"""Until what was given up is free, also where only time frees it (a hold), and was offered to others."""
BROKEN = "gang broken"
"""Why its attempts leave."""


def standing(ledger: Ledger, job: Job) -> list[Attempt]:
    """The attempts with which a job's tasks are placed: what leaves, or may run on unheard, is none."""
    found = []
    for id in job.placed:
        attempt, task = ledger.attempts[id], ledger.tasks.get(id.task)
        if attempt.row.state is AttemptState.REMOVED or task is None or task.row.attempt != id.attempt:
            continue
        if task.row.state is not TaskState.PENDING:
            found.append(attempt)
    return found


def together(ledger: Ledger, job: Job) -> bool:
    """Whether its tasks are placed all at once, or not at all: a gang of which none stands."""
    return job.row.rules.gang and not standing(ledger, job)


class BrokenGangs:
    """Notices them, and ends what is left of them."""

    def __init__(self, ledger: Ledger, holds: Holds, nominations: Nominations) -> None:
        self.ledger = ledger
        self.holds = holds
        self.nominations = nominations
        self._known: dict[str, Job] = {}
        """Those whose patience runs."""
        self.blind: Callable[[], bool] = lambda: False
        """Whether room may be there that can't be seen: our link is down, or a site's failover is frozen."""

    def look(self, job: Job, now_ms: int) -> None:
        """Its turn in a round is over: what is still ready found no room."""
        id = job.row.id
        if job.row.rules.gang and self._broken(job):
            if id not in self._known:
                self._wait(job, now_ms + PATIENCE_MS)
        elif self._known.pop(id, None) is not None:
            self.ledger.deadlines.clear(DUE, id)

    def _wait(self, job: Job, due_ms: int) -> None:
        self._known[job.row.id] = job
        self.ledger.deadlines.set(DUE, job.row.id, due_ms)

    def _broken(self, job: Job) -> bool:
        if self.ledger.jobs.get(job.row.id) is not job:
            return False
        promised = {n.task.row.id for n in self.nominations.of(job) if n.victims}
        ready = (self.ledger.tasks.get(id) for id in job.ready if id not in promised)
        lacks = any(task is not None and task.row.state is TaskState.PENDING for task in ready)
        return lacks and bool(standing(self.ledger, job))

    def on_due(self, id: str, now_ms: int) -> None:
        """The patience of at least this one is over."""
        over = []
        for job in list(self._known.values()):
            due_ms = self.ledger.deadlines.due_of(DUE, job.row.id)
            if job.row.id == id or due_ms is None or due_ms <= now_ms:
                del self._known[job.row.id]
                self.ledger.deadlines.clear(DUE, job.row.id)
                over += [job] if self._broken(job) else []
        if self.blind():
            for job in over:
                self._wait(job, now_ms + PATIENCE_MS)
            return
        over.sort(key=lambda job: (height(job, now_ms), -job.row.created_at, job.row.id))
        giving = (len(over) + 1) // 2
        for job in over[:giving]:
            self._give_up(job, now_ms)
        for job in over[giving:]:
            self._wait(job, now_ms + PATIENCE_MS)
        for job in self._known.values() if giving else ():
            due_ms = self.ledger.deadlines.due_of(DUE, job.row.id) or 0
            self._wait(job, max(due_ms, now_ms + SETTLE_MS))

    def _give_up(self, job: Job, now_ms: int) -> None:
        by_device: dict[int, list[Attempt]] = {}
        for attempt in standing(self.ledger, job):
            by_device.setdefault(attempt.device, []).append(attempt)
        self.ledger.count("gangs_broken")
        for attempts in by_device.values():
            self.holds.remove(attempts, BROKEN, now_ms)

    def words(self, job: Job, now_ms: int) -> str:
        """What is to be told of one whose patience runs; empty of any other."""
        due_ms = self.ledger.deadlines.due_of(DUE, job.row.id)
        if due_ms is None:
            return ""
        part, seconds = len(standing(self.ledger, job)), max(0, due_ms - now_ms) / 1000
        runs = "runs" if part == 1 else "run"
        said = f"its gang is broken: {part} of {job.left} {runs}"
        return f"{said}; in {seconds:.0f} s the rest gives its room up"
