"""Checker of moves that nobody needs: P9, what is moved for balance may be, has rested, and is not too much.

Rule of this file: a move is an attempt that is removed as `rebalanced`; each is judged in the
commit that removes it, from rows alone. On their way out are those that their tasks still wait
for, for balance or off a device that is drained, whoever led when they began: a successor
inherits them. That is a lower bound of what the controller counts, so it never cries wolf.
Whether a move was worth it is nothing that rows tell; `tests/controller` asks that.
"""

from __future__ import annotations

from controller.core.records import AttemptRow, AttemptState, JobRow
from protocol.tasks import AttemptId, JobKind, TaskState
from sim.checking.base import Checker, Heard
from sim.checking.picture import Commit, job_of
from sim.observations import DatabaseRestored, Observation

REBALANCED, DRAINED = "rebalanced", "drained"
PACKING = ("binpack", "fragmentation")
COOL_LEASES = 3
CLOCK_SHARE, COMMIT_MS = 0.97, 5_000
"""The fastest clock of a controller, and how late a commit may show what was decided before it."""
AT_ONCE, SHARE = 10, 0.05
ACTIVE = (TaskState.ASSIGNED, TaskState.RUNNING)


class MovesWithMeasure(Checker):
    """P9: for balance only what may be moved is moved, three leases after it was placed or somebody began to
    lead, and no more than ten attempts, or 5 % of all, are on such ways at a time."""

    invariant = "P9"

    def hears(self) -> dict[type[Observation], Heard]:
        self._since: dict[AttemptId, int] = {}
        """When each attempt that is not free was committed."""
        self._epoch = self._last_ms = 0
        """Of the newest commit."""
        self._led_ms = 0
        """Of the last one under another epoch: who leads now began later, however long he says nothing."""
        self._leaving: dict[AttemptId, AttemptRow] = {}
        return {}

    def on_commit(self, commit: Commit) -> None:
        if commit.epoch != self._epoch:
            self._epoch, self._led_ms = commit.epoch, self._last_ms
        self._last_ms = commit.at_ms
        moved = 0
        for old, row in commit.attempts:
            key, old_state = AttemptId(row.task, row.attempt), old.state if old is not None else None
            if row.state is not AttemptState.REMOVED:
                self._leaving.pop(key, None)
            elif row.reason in (REBALANCED, DRAINED):
                self._leaving[key] = row
                moved += old_state is not AttemptState.REMOVED
            if row.state is AttemptState.FREE:
                self._since.pop(key, None)
            else:
                self._since.setdefault(key, commit.at_ms)
            if row.reason == REBALANCED and old_state in (AttemptState.ASSIGNED, AttemptState.RUNNING):
                self._judge(row, commit.at_ms, max(self._led_ms, self._since.get(key, 0)))
        if moved:
            self._count(commit)

    def _judge(self, row: AttemptRow, at_ms: int, since_ms: int) -> None:
        job = self.seen.jobs.get(job_of(row.task))
        if job is None:
            return
        rest_ms = COOL_LEASES * job.lease_ms * CLOCK_SHARE - COMMIT_MS
        if not movable(job):
            self.breach(f"{row.task} {row.attempt} is moved for balance, which its job forbids", row.device)
        elif at_ms - since_ms < rest_ms:
            what = f"is moved for balance after {at_ms - since_ms} ms, its lease is {job.lease_ms} ms"
            self.breach(f"{row.task} {row.attempt} {what}", row.device)

    def _count(self, commit: Commit) -> None:
        out = [row for row in self._leaving.values() if self._is_awaited(row)]
        freed = sum(row.state is AttemptState.FREE for _, row in commit.attempts)
        most = max(AT_ONCE, int(SHARE * (sum(self.seen.held_by.values()) + freed)))
        if len(out) > most:
            self.breach(f"{len(out)} attempts are moved at once, at most {most} may be", out[-1].device)

    def _is_awaited(self, row: AttemptRow) -> bool:
        task, device = self.seen.tasks.get(row.task), self.seen.devices.get(row.device)
        if task is None or (task.attempt, task.desired) != (row.attempt, "run") or task.state not in ACTIVE:
            return False
        return row.reason == REBALANCED or (device is not None and device.draining)

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._leaving = {
            AttemptId(row.task, row.attempt): row
            for row in self.seen.attempts.values()
            if row.state is AttemptState.REMOVED and row.reason in (REBALANCED, DRAINED)
        }
        held = (row for row in self.seen.attempts.values() if row.state is not AttemptState.FREE)
        self._since = {AttemptId(row.task, row.attempt): copy.at_ms for row in held}


def movable(job: JobRow) -> bool:
    """Whether its tasks are ever moved for balance."""
    return not (job.kind is JobKind.DAEMON or job.rules.gang or job.rules.policy in PACKING)
