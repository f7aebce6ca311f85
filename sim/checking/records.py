"""Checkers of what was committed: I2, I3, I4 and I5.

Rule of this file: a commit is judged by its changes alone, so a day of commits costs what is
in them. Attempts that were handed out by a restored copy before anybody could know that it is
one are excused where section 11 excuses them; nothing else is.
"""

from __future__ import annotations

from controller.core.records import AttemptRow, AttemptState, JobState, TaskRow
from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.messages import Assignments
from protocol.resources import ZERO
from protocol.tasks import FINAL_TASK, TASK_MOVES, AttemptId, TaskState
from sim.checking.base import Checker, Heard
from sim.checking.picture import Change, Commit
from sim.ears import understand
from sim.observations import DatabaseRead, Delivered, JobAccepted, Observation

_STATES = {state.value: state for state in TaskState}


class Accounts(Checker):
    """I2: every accepted task is in exactly one state, and none vanishes."""

    invariant = "I2"

    def hears(self) -> dict[type[Observation], Heard]:
        return {JobAccepted: self._accepted, DatabaseRead: self._read}

    def _accepted(self, accepted: JobAccepted) -> None:
        """Who was told so finds it stored, whole."""
        stored = self.seen.tasks_of.get(accepted.job, 0)
        if stored != accepted.count or accepted.job not in self.seen.jobs:
            self.breach(f"{accepted.job} was accepted with {accepted.count} tasks and has {stored}")

    def on_commit(self, commit: Commit) -> None:
        touched: dict[str, None] = {}
        for _, job in commit.jobs:
            touched[job.id] = None
        for old, task in commit.tasks:
            if old is None or (old.state not in FINAL_TASK) != (task.state not in FINAL_TASK):
                touched[task.job] = None
        for name in touched:
            self._balance(name)
        for old_attempt, attempt in commit.attempts:
            if old_attempt is None and attempt.task not in self.seen.tasks:
                self.breach(f"{attempt.task} {attempt.attempt} is an attempt of no task", attempt.device)

    def _balance(self, name: str) -> None:
        job, stored = self.seen.jobs.get(name), self.seen.tasks_of.get(name, 0)
        if job is None:
            self.breach(f"tasks of {name} are stored and the job is not")
        elif stored != job.count:
            self.breach(f"{name} has {job.count} tasks and {stored} are stored")
        elif (job.state is JobState.OPEN) != bool(self.seen.open_of.get(name, 0)):
            self.breach(f"{name} is {job.state} with {self.seen.open_of.get(name, 0)} open tasks")

    def _read(self, read: DatabaseRead) -> None:
        """A stranger finds in the database the open tasks that were committed, as they were."""
        found = {row.id: row for row in read.rows if isinstance(row, TaskRow)}
        for task in self.seen.open:
            row, known = found.pop(task, None), self.seen.tasks[task]
            if row is None:
                self.breach(f"{task} is {known.state} and not in the database")
            elif (row.state, row.attempt) != (known.state, known.attempt):
                what = f"{row.state} {row.attempt}"
                self.breach(f"{task} is committed as {known.state} {known.attempt} and stored as {what}")
        for task, row in found.items():
            if row.state not in FINAL_TASK:
                self.breach(f"{task} is {row.state} in the database, and nobody committed that")

    def finish(self, now_ms: int) -> None:
        for job, count in self.seen.accepted.items():
            stored = self.seen.tasks_of.get(job, 0)
            if stored != count:
                self.breach(f"{job} was accepted with {count} tasks and has {stored}")


class OneResult(Checker):
    """I3: at most one accepted result per task, of the then current attempt, by legal changes only."""

    invariant = "I3"

    def hears(self) -> dict[type[Observation], Heard]:
        self._ranks = {state: rank for rank, state in enumerate(AttemptState)}
        return {}

    def on_commit(self, commit: Commit) -> None:
        for change in commit.tasks:
            self._judge_task(change)
        for old, row in commit.attempts:
            if old is not None:
                self._judge_attempt(old, row)
            if row.state is AttemptState.FREE and (old is None or old.state is not row.state):
                self._judge_free(row)
        for audit in commit.audits:
            if audit.what == "task" and audit.old in _STATES and audit.new in _STATES:
                self._judge_move(audit.object, _STATES[audit.old], _STATES[audit.new], audit.device)

    def _judge_move(self, task: str, old: TaskState, new: TaskState, device: str) -> None:
        if new not in TASK_MOVES[old]:
            self.breach(f"{task}: {old} -> {new} is no legal move", device)

    def _judge_task(self, change: Change[TaskRow]) -> None:
        old, row = change
        if old is not None and old.state in FINAL_TASK:
            if (old.state, old.attempt, old.exit_code) != (row.state, row.attempt, row.exit_code):
                self.breach(f"{row.id} was {old.state} and becomes {row.state}", old.device, row.device)
        elif row.state in FINAL_TASK:
            self._judge_result(row)

    def _judge_result(self, row: TaskRow) -> None:
        """The end of a task is that of its last attempt."""
        current = self.seen.last.get(row.id, 0)
        last = AttemptId(row.id, current)
        told = last in self.seen.attempts and last not in self.seen.obscure
        if row.attempt != current and told:  # else a restore lost it: nobody here knows of it any more
            self.breach(f"{row.id} is {row.state} by attempt {row.attempt} of {current}", row.device)
        held = self.seen.attempts.get(AttemptId(row.id, row.attempt))
        by_run = row.state is TaskState.SUCCEEDED or bool(row.device)
        if by_run and held is not None and held.state is not AttemptState.FREE:
            self.breach(f"{row.id} is {row.state} while attempt {row.attempt} is {held.state}", held.device)

    def _judge_free(self, row: AttemptRow) -> None:
        """What is free lives no more (L3), but on a removed device, or where it was forgotten and begun."""
        task, known = self.seen.tasks.get(row.task), self.seen.devices.get(row.device)
        if (task is not None and task.desired != "run") or (known is not None and known.removed):
            return  # of what was cancelled I7 asks the same
        if self.seen.withdrawn(row):
            return
        live = [
            run
            for device, run in self.seen.live.get(row.task, ())
            if run.attempt == row.attempt and device == row.device and not self.seen.began_anew(run)
        ]
        if live:
            what = f"{row.task} {row.attempt} is free and lives on {row.device}"
            self.breach(what, row.device, excused=self.judge.outside("I1", row.device))

    def _judge_attempt(self, old: AttemptRow, row: AttemptRow) -> None:
        if self._ranks[row.state] < self._ranks[old.state]:
            self.breach(f"{row.task} {row.attempt} was {old.state} and is {row.state}", old.device)
        elif old.state is AttemptState.FREE and (old.exit_code, old.signal) != (row.exit_code, row.signal):
            self.breach(
                f"{row.task} {row.attempt} ended with {old.exit_code}, then {row.exit_code}", old.device
            )


class NumbersRise(Checker):
    """I4: attempt numbers rise in commit order, belong to one device, are committed before they are told."""

    invariant = "I4"
    channels = (Assignments.channel,)

    def hears(self) -> dict[type[Observation], Heard]:
        self._read: dict[str, bytes] = {}
        """Device -> the document of it that was judged last."""
        return {Delivered: self._delivered}

    def on_commit(self, commit: Commit) -> None:
        for row, last in commit.handed_out:
            if row.attempt <= last and AttemptId(row.task, row.attempt) not in self.seen.obscure:
                self.breach(f"{row.task} {row.attempt} is committed after {last}", row.device)
        for old_row, row in commit.attempts:
            if old_row is not None and old_row.device != row.device:
                devices = (old_row.device, row.device)
                self.breach(
                    f"{row.task} {row.attempt} was given to {devices[0]} and to {devices[1]}", *devices
                )
        for _, task in commit.tasks:
            handed_out = self.seen.last.get(task.id, 0)
            if task.attempt > handed_out:
                self.breach(
                    f"{task.id} names attempt {task.attempt}, handed out up to {handed_out}", task.device
                )

    def _delivered(self, delivery: Delivered) -> None:
        """A document that travels names only what is committed."""
        if not delivery.topic.endswith("/assignments") or not delivery.payload:
            return
        device = delivery.topic.split("/")[3]
        if self._read.get(device) == delivery.payload:
            return
        if not delivery.received and not delivery.client.startswith(topics.CONTROLLER):
            return  # somebody's forgery; whether it gets anywhere is I13's question
        self._read[device] = delivery.payload
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        assert isinstance(message, Assignments)
        for entry in message.attempts:
            key = AttemptId(entry.task, entry.attempt)
            given = self.seen.given.get(key)
            if given != device and key not in self.seen.obscure:
                whose = f"that of {given}" if given else "not committed"
                self.breach(f"{device} is told of {entry.task} {entry.attempt}, which is {whose}", device)


class RoomIsKept(Checker):
    """I5: each new reservation keeps reserved ≤ capacity; a device that shrank gets none until it fits."""

    invariant = "I5"

    def on_commit(self, commit: Commit) -> None:
        added = {row.device: None for old, row in commit.attempts if old is None and _held(row)}
        for device in added:
            known, reserved = self.seen.devices.get(device), self.seen.reserved.get(device, ZERO)
            if known is None:
                self.breach(f"{device} is given work and was never registered", device)
            elif not reserved.fits(known.capacity):
                self.breach(f"{device} has {known.capacity}, reserved {reserved}", device)


def _held(row: AttemptRow) -> bool:
    return row.state is not AttemptState.FREE
