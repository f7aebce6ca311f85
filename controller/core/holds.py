"""Holds: when an attempt is free, and what its end means (L3, L7, C2).

Rule of this file: it is the only place that ends a reservation. A device's word counts
when it is at least as new as the session of the last grant that covered the attempt; in
its absence only time frees, when the hold of that grant has passed. A result frees or
retries nothing unless that holds, so a late or doubled `Runs` is harmless.
"""

from __future__ import annotations

from controller.core.documents import Documents
from controller.core.ledger import Attempt, Ledger, Task
from controller.core.records import AttemptState
from controller.core.tasks import CANCELLED, Tasks
from protocol.messages import Revision, RunEntry, Runs
from protocol.tasks import FINAL_RUN, AttemptId, RunState, TaskState

SUPERSEDED = "superseded"
"""Why an attempt leaves whose task has another one that goes on, or is over."""
NEWEST = "newest"
_ACTIVE = (TaskState.ASSIGNED, TaskState.RUNNING)


class Holds:
    """Weighs reports against grants, and frees."""

    def __init__(self, ledger: Ledger, documents: Documents, tasks: Tasks) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.documents = documents
        self.tasks = tasks
        self.reported: dict[int, frozenset[AttemptId]] = {}
        """Per device, what its newest processed `Runs` listed."""
        self.begun: dict[int, frozenset[AttemptId]] = {}
        """Of that, what it did not list as `starting`: such a run may still be kept from beginning."""

    # ------------------------------------------------------------- reports

    def on_runs(self, row: int, runs: Runs, now_ms: int) -> None:
        """Takes in a reported document, newest or late: a late one may free, never overwrite."""
        seen = (int(self.fleet.runs_session[row]), int(self.fleet.runs_number[row]))
        if (runs.session, runs.number) == seen:
            return
        entries = {AttemptId(e.task, e.attempt): e for e in runs.entries}
        if (runs.session, runs.number) > seen:
            self.fleet.note_runs(row, runs.session, runs.number)
            self.reported[row] = frozenset(entries)
            self.begun[row] = frozenset(k for k, e in entries.items() if e.state is not RunState.STARTING)
        if self.fleet.quarantined[row]:
            return
        for attempt in list(self.ledger.by_device[row].values()):
            if runs.session >= self.documents.holder(attempt):
                self._weigh(attempt, entries.get(attempt.id), runs.answers, now_ms)

    def listen_again(self, row: int) -> None:
        """A quarantine is over: what was reported in it freed nothing, so it must be told once more.

        The next answer names no processed `Runs`; the device publishes again (D3).
        """
        self.fleet.note_runs(row, 0, 0)

    def _weigh(self, attempt: Attempt, entry: RunEntry | None, answers: Revision, now_ms: int) -> None:
        if entry is None:
            removed = attempt.row.state is AttemptState.REMOVED
            if removed and answers >= (attempt.row.removed_epoch, attempt.row.until):
                self._release(attempt, attempt.row.reason or "stopped", now_ms)
        elif entry.state in FINAL_RUN:
            self._conclude(attempt, entry, now_ms)
        elif attempt.row.state is AttemptState.ASSIGNED and (task := self._task_of(attempt)) is not None:
            self.tasks.started(task, attempt, now_ms)

    def _conclude(self, attempt: Attempt, entry: RunEntry, now_ms: int) -> None:
        """The device says how the attempt ended."""
        row = attempt.row
        removed = row.state is AttemptState.REMOVED
        row.exit_code = entry.exit_code if entry.exit_code >= 0 else None
        row.signal = entry.signal
        # A run that was stopped for us ended for our reason; the device only knows that it was stopped.
        told = row.reason if removed and entry.state is RunState.STOPPED else entry.reason
        row.reason = told or entry.reason or row.reason
        well = entry.state is RunState.ENDED and entry.exit_code == 0 and not attempt.job.service
        if well and self.ledger.is_elder(attempt):
            self.keep(attempt, now_ms)  # done is done: nothing is gained by doing it again
        task = self._task_of(attempt)
        self._free(attempt, now_ms)
        if task is None:
            self.ledger.count("stale_results")
        elif entry.state is not RunState.ENDED:
            self.tasks.lost(task, row.reason or entry.state.name.lower(), now_ms)
        elif well:
            self.tasks.succeeded(task, now_ms)
        else:
            self.tasks.own_failure(task, row.exit_code, entry.reason or "exited", now_ms)

    def _task_of(self, attempt: Attempt) -> Task | None:
        """The task, if this is still its present attempt (compare-and-set of C2)."""
        task = self.ledger.tasks.get(attempt.row.task)
        if task is None or task.row.attempt != attempt.row.attempt or task.row.state not in _ACTIVE:
            return None
        return task

    # ------------------------------------------------------------- ends

    def _free(self, attempt: Attempt, now_ms: int) -> None:
        row = attempt.row
        if row.state is not AttemptState.REMOVED:
            row.until = self.documents.acknowledge(attempt.device, now_ms)
        row.state, row.ended_at = AttemptState.FREE, self.ledger.wall(now_ms)
        self.ledger.deadlines.clear("hold", attempt.id)
        self.ledger.let_go(attempt)
        self.ledger.save(row)

    def _release(self, attempt: Attempt, reason: str, now_ms: int) -> None:
        """Free without a result."""
        task = self._task_of(attempt)
        attempt.row.reason = reason
        self._free(attempt, now_ms)
        if task is not None:
            self.tasks.lost(task, reason, now_ms)

    def remove(self, attempts: list[Attempt], reason: str, now_ms: int) -> None:
        """Stops or moves attempts of one device: out of its document now, free when L3 says so.

        An `at_most_one` attempt that no grant covered, and none of an earlier leadership
        could have, was never able to start: it is free with the same commit. So is any that
        no revision ever listed: its device sees no change and would have nothing to report.
        """
        held = [a for a in attempts if a.row.state is not AttemptState.REMOVED]
        if not held:
            return
        for attempt in held:
            attempt.row.reason = reason
            if self.ledger.is_elder(attempt):
                del self.ledger.elders[attempt.row.task]
        unheard = {a.id for a in held if not self.documents.published(a)}
        self.documents.remove(held, now_ms)
        for attempt in held:
            if attempt.id in unheard:
                self._release(attempt, reason, now_ms)
            elif attempt.job.at_most_one:
                self.on_hold_due(attempt, now_ms)
            elif self.fleet.quarantined[attempt.device]:  # no report will do, so time must (S4)
                hold = self.fleet.hold_ms(attempt.device, attempt.job.row.lease_ms)
                self.ledger.deadlines.set("hold", attempt.id, now_ms + hold)

    def withdraw_unlisted(self, now_ms: int) -> None:
        """In a database that may be older than the fleet: what it never listed may have been listed since.

        Telling it now could start it beside its successor; its task waits until placing begins (L6).
        """
        for attempts in self.ledger.by_device:
            unlisted = [a for a in attempts.values() if not self.documents.published(a)]
            self.remove(unlisted, "the database may be older than the fleet", now_ms)

    def on_hold_due(self, attempt: Attempt, now_ms: int) -> None:
        """Frees a removed `at_most_one` attempt whose hold has passed, or comes back when it has."""
        if attempt.row.state is not AttemptState.REMOVED or not attempt.job.at_most_one:
            return
        if now_ms >= attempt.hold_until_ms:
            self._release(attempt, attempt.row.reason or "hold passed", now_ms)
        else:
            self.ledger.deadlines.set("hold", attempt.id, attempt.hold_until_ms)

    def abandon(self, attempt: Attempt, now_ms: int) -> None:
        """An operator or a lost device: an `at_least_one` task gets its successor now.

        The old attempt stays out of its document; when its device returns, it stops it.
        """
        task = self._task_of(attempt)
        if task is not None and self.awaited(attempt):
            self.tasks.lost(task, attempt.row.reason, now_ms)

    # ------------------------------------------------------------- elders (C6)

    def may_be_kept(self, attempt: Attempt) -> bool:
        """Whether a lost attempt stays listed, because its job chooses when its device is back."""
        f, row = self.fleet, attempt.device
        shut = bool(f.quarantined[row] or f.removed[row] or f.draining[row])
        chooses = not attempt.job.at_most_one and attempt.job.row.rules.on_return != NEWEST
        listed = attempt.row.state is not AttemptState.REMOVED and self.documents.published(attempt)
        alone = attempt.row.task not in self.ledger.elders
        return chooses and listed and alone and not shut and self.awaited(attempt)

    def leave(self, attempt: Attempt, reason: str, now_ms: int) -> None:
        """It may go on where nobody hears it; its task gets a successor beside it."""
        task = self.ledger.tasks[attempt.row.task]
        self.ledger.elders[attempt.row.task] = attempt
        self.tasks.lost(task, reason, now_ms)

    def keep(self, attempt: Attempt, now_ms: int) -> None:
        """An elder is chosen: it is its task's present attempt again, and the successor leaves."""
        task = self.ledger.tasks[attempt.row.task]
        other = self.tasks.attempt_of(task)
        del self.ledger.elders[attempt.row.task]
        self.tasks.keep(task, attempt, f"its device is back, {attempt.job.row.rules.on_return}", now_ms)
        self.ledger.count("elders_kept")
        if other is not None:
            self.ledger.outlived.append(other)

    def awaited(self, attempt: Attempt) -> bool:
        """Whether a task that is to go on waits for the end of this attempt."""
        task = self._task_of(attempt)
        return task is not None and task.row.desired != CANCELLED and not task.expired

    def force(self, attempt: Attempt, reason: str, now_ms: int) -> None:
        """An operator says that an attempt is over, whatever its device would say (I7)."""
        self._release(attempt, reason, now_ms)

    # ------------------------------------------------------------- forgotten attempts

    def forgotten(self, row: int) -> list[Attempt]:
        """Attempts that were perhaps granted before and that the device does not list now (L2).

        They are never granted again: the device may have lost its journal.
        """
        session, listed = int(self.fleet.session[row]), self.reported.get(row, frozenset())
        return [
            a
            for a in self.ledger.by_device[row].values()
            if a.row.state is not AttemptState.REMOVED
            and self.documents.published(a)
            and a.id not in listed
            and (a.before or 0 < self.documents.holder(a) < session)
        ]

    def unstarted(self, row: int) -> list[Attempt]:
        """Attempts that no `Runs` of this session showed as started (L7)."""
        fresh = int(self.fleet.runs_session[row]) == int(self.fleet.session[row])
        begun = self.begun.get(row, frozenset()) if fresh else frozenset()
        return [a for a in self.ledger.by_device[row].values() if a.id not in begun]
