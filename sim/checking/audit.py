"""Checker of I10: each committed change of state has its audit rows, in the same commit, with an actor.

Rule of this file: the audit rows of one object in one commit must lead, step by step, from
the state that was stored before to the one that is stored now. So a missing row, a doubled
one, one that tells a change that never was, and one that tells it wrongly are all seen, also
where a commit gathers many changes. Whether a device is online is not stored; its audit rows
only have to tell a change and an actor.
"""

from __future__ import annotations

from controller.core.records import AuditRow, DeviceRow, JobRow, TaskRow
from protocol.tasks import TaskState
from sim.checking.base import Checker
from sim.checking.picture import Change, Commit

RUN, CANCELLED = "run", "cancelled"
LIVENESS = ("online", "suspect", "offline")
KNOWN = "known"


def standing(row: DeviceRow | None) -> str:
    """What was decided about a device, in the words of its audit rows."""
    if row is None:
        return ""
    if row.removed:
        return "removed"
    words = ["quarantined"] * row.quarantined + ["draining" if row.draining else "cordoned"] * row.cordoned
    return ", ".join(words) or "open"


class EveryChangeIsAudited(Checker):
    """I10: each state change has one audit row with an actor, and no row tells of a change that was none."""

    invariant = "I10"

    def on_commit(self, commit: Commit) -> None:
        told: dict[tuple[str, str], list[AuditRow]] = {}
        for audit in commit.audits:
            if not audit.actor or audit.old == audit.new:
                self.breach(f"{audit.what} {audit.object}: {audit.old!r} -> {audit.new!r} by {audit.actor!r}")
            elif not (audit.what == "device" and audit.new in LIVENESS):
                told.setdefault((audit.what, audit.object), []).append(audit)
        for change in commit.tasks:
            self._judge_task(change, told.pop(("task", change[1].id), []))
        for job in commit.jobs:
            self._judge_job(job, told.pop(("job", job[1].id), []))
        for device in commit.devices:
            self._judge_device(device, told.pop(("device", device[1].device), []))
        for (what, name), audits in told.items():
            if what in ("task", "job", "device"):
                self.breach(f"{what} {name}: {_words(audits)} was told and nothing was changed")

    def _judge_task(self, change: Change[TaskRow], audits: list[AuditRow]) -> None:
        """A task comes into being with its job's row; a wish to end it is told unless it ends at once."""
        old, row = change
        before = TaskState.PENDING if old is None else old.state
        wishes = [a for a in audits if (a.old, a.new) == (RUN, CANCELLED)]
        moves = [a for a in audits if (a.old, a.new) != (RUN, CANCELLED)]
        self._follow(f"task {row.id}", before.value, row.state.value, moves)
        wished = row.desired == CANCELLED and (old is None or old.desired != CANCELLED)
        ends = row.state is TaskState.CANCELLED
        if len(wishes) > wished or (wished and not wishes and not ends):
            self.breach(f"task {row.id}: {len(wishes)} rows tell its cancel, wished {wished}", row.device)

    def _judge_job(self, change: Change[JobRow], audits: list[AuditRow]) -> None:
        old, row = change
        wishes = [a for a in audits if (a.old, a.new) == (RUN, CANCELLED)]
        moves = [a for a in audits if (a.old, a.new) != (RUN, CANCELLED)]
        self._follow(f"job {row.id}", "" if old is None else old.state.value, row.state.value, moves)
        wished = row.desired == CANCELLED and (old is None or old.desired != CANCELLED)
        if len(wishes) != wished:
            self.breach(f"job {row.id}: {len(wishes)} rows tell its cancel, wished {wished}")

    def _judge_device(self, change: Change[DeviceRow], audits: list[AuditRow]) -> None:
        """What was decided, and beside it what was marked: a row tells either."""
        old, row = change
        marks = [audit for audit in audits if _of_marks(audit)]
        self._follow(f"taints of {row.device}", _taints(old), _taints(row), marks, row.device)
        others = [audit for audit in audits if not _of_marks(audit)]
        self._follow(f"device {row.device}", standing(old), standing(row), others, row.device)

    def _follow(self, what: str, before: str, after: str, audits: list[AuditRow], *devices: str) -> None:
        """`known` is how a device that is open comes into being."""
        at = before
        for audit in audits:
            if audit.old != at:
                self.breach(f"{what} is {at!r}, and {_words(audits)} was told", *devices)
                return
            at = "open" if audit.new == KNOWN else audit.new
        if at != after:
            self.breach(f"{what} was {before!r} and is {after!r}, told: {_words(audits)}", *devices)


def _taints(row: DeviceRow | None) -> str:
    return "" if row is None else " ".join(row.taints)


def _of_marks(audit: AuditRow) -> bool:
    """No decision has a colon in its name, every taint has."""
    return ":" in audit.old or ":" in audit.new


def _words(audits: list[AuditRow]) -> str:
    return ", ".join(f"{a.old!r} -> {a.new!r}" for a in audits) or "nothing"
