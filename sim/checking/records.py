"""Checkers of what was committed: I2, I3, I4 and I5.

Rule of this file: a commit is judged by its changes alone, so a day of commits costs what is
in them. Attempts that were handed out by a restored copy before anybody could know that it is
one are excused where section 11 excuses them; nothing else is.
"""

from __future__ import annotations

from controller.core.records import AttemptRow, AttemptState, DeviceRow, JobRow, JobState, TaskRow
from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.messages import Assignments
from protocol.resources import Resources
from protocol.tasks import FINAL_TASK, TASK_MOVES, AttemptId, Guarantee, JobKind, TaskState
from sim.checking.base import Checker, Heard
from sim.checking.picture import Change, Commit, job_of
from sim.checking.room import faults
from sim.ears import understand
from sim.observations import DatabaseRead, Delivered, JobAccepted, Observation, OutOfBounds

_STATES = {state.value: state for state in TaskState}


class Accounts(Checker):
    """I2: every accepted task is in exactly one state, and none vanishes."""

    invariant = "I2"

    def hears(self) -> dict[type[Observation], Heard]:
        return {JobAccepted: self._accepted, DatabaseRead: self._read}

    def _accepted(self, accepted: JobAccepted) -> None:
        """Who was told so finds it stored, whole."""
        stored = self.seen.tasks_of.get(accepted.job, 0)
        if not self._kept(accepted.job, accepted.count):
            self.breach(f"{accepted.job} was accepted with {accepted.count} tasks and has {stored}")

    def _kept(self, name: str, count: int) -> bool:
        """A daemon gains tasks with devices; a cron job has none, its runs do."""
        job, stored = self.seen.jobs.get(name), self.seen.tasks_of.get(name, 0)
        if job is None:
            return False
        if job.kind is JobKind.DAEMON:
            return stored >= count
        return stored == _stored(job) and job.count == count

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
        elif stored != _stored(job):
            self.breach(f"{name} has {job.count} tasks and {stored} are stored")
        elif (job.state is JobState.OPEN) != (_stands(job) or bool(self.seen.open_of.get(name, 0))):
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
            if not self._kept(job, count):
                self.breach(f"{job} was accepted with {count} tasks and has {stored}")


def _stored(job: JobRow) -> int:
    """How many tasks of it must be stored; those of a cron job are its runs'."""
    return 0 if job.kind is JobKind.CRON else job.count


def _stands(job: JobRow) -> bool:
    """Open without an open task: others may come, with a device or a time."""
    return job.kind in (JobKind.DAEMON, JobKind.CRON) and job.desired == "run" and job.state is JobState.OPEN


class OneResult(Checker):
    """I3: at most one accepted result per task, of the then current attempt, by legal changes only."""

    invariant = "I3"

    def hears(self) -> dict[type[Observation], Heard]:
        self._ranks = {state: rank for rank, state in enumerate(AttemptState)}
        self._copied: dict[AttemptId, None] = {}
        """Attempts that a second machine of the same identity may have known, and may yet speak of."""
        return {OutOfBounds: self._bound}

    def _bound(self, fault: OutOfBounds) -> None:
        if self.invariant in fault.invariants:
            there = (key for keys in self.seen.held.values() for key in keys if keys[key] == fault.device)
            self._copied |= dict.fromkeys(there)

    def on_commit(self, commit: Commit) -> None:
        for change in commit.tasks:
            self._judge_task(change)
        for old, row in commit.attempts:
            if old is not None:
                self._judge_attempt(old, row)
            elif self.judge.outside(self.invariant, row.device):
                self._copied[AttemptId(row.task, row.attempt)] = None
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
        elif old is not None and row.attempt < self.seen.last.get(row.id, 0):
            self._judge_present(row)

    def _judge_present(self, row: TaskRow) -> None:
        """What goes on is the last attempt, or an older one that was kept while the last one leaves (C6)."""
        last = AttemptId(row.id, self.seen.last[row.id])
        told = self.seen.attempts.get(last)
        if told is None or last in self.seen.obscure:
            return  # a restore lost it: nobody here knows of it any more
        if not self._goes_back(row):
            self.breach(f"{row.id} goes back to attempt {row.attempt} of {last.attempt}", row.device)
        elif told.state in (AttemptState.ASSIGNED, AttemptState.RUNNING):
            self.breach(f"{row.id} keeps {row.attempt} and {told.attempt} is {told.state}", told.device)

    def _goes_back(self, row: TaskRow) -> bool:
        """Whether its job may choose an older attempt."""
        job = self.seen.jobs.get(row.job)
        lax = job is not None and job.guarantee is Guarantee.AT_LEAST_ONE
        return job is not None and lax and job.rules.on_return != "newest"

    def _judge_result(self, row: TaskRow) -> None:
        """The end of a task is that of its last attempt, or of an older one that was kept instead."""
        current = self.seen.last.get(row.id, 0)
        last = AttemptId(row.id, current)
        told = last in self.seen.attempts and last not in self.seen.obscure
        chosen = row.attempt < current and self._goes_back(row)
        if row.attempt != current and told and not chosen:  # else a restore lost it: nobody knows of it here
            self.breach(f"{row.id} is {row.state} by attempt {row.attempt} of {current}", row.device)
        held = self.seen.attempts.get(AttemptId(row.id, row.attempt))
        by_run = row.state is TaskState.SUCCEEDED or bool(row.device)
        if by_run and held is not None and held.state is not AttemptState.FREE:
            self.breach(f"{row.id} is {row.state} while attempt {row.attempt} is {held.state}", held.device)

    def _judge_free(self, row: AttemptRow) -> None:
        """What is free lives no more (L3), but on a removed device, or where it was forgotten and begun.

        A second machine of the same identity has copied `at_least_one` attempts, which it doesn't run: that
        word of it comes as late as the weather delays it.
        """
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
            copied = not live[0].at_most_one and AttemptId(row.task, row.attempt) in self._copied
            self.breach(what, row.device, excused=copied or self.judge.outside("I1", row.device))

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
            given, also = self.seen.given.get(key), self.seen.given_also.get(key, {})
            if given != device and device not in also and key not in self.seen.obscure:
                whose = f"that of {given}" if given else "not committed"
                self.breach(f"{device} is told of {entry.task} {entry.attempt}, which is {whose}", device)


class RoomIsKept(Checker):
    """I5: each new reservation keeps reserved ≤ what is offered, of everything that it takes: resources,
    slots, things of the site, the very accelerators that it was given. What stood before a device
    shrank may stay; of what is short it gets no more until that fits."""

    invariant = "I5"

    def on_commit(self, commit: Commit) -> None:
        before = {row.device: old for old, row in commit.devices if old is not None}
        for old, row in commit.attempts:
            if old is None and _held(row):
                self._judge(row, before.get(row.device))

    def _judge(self, attempt: AttemptRow, before: DeviceRow | None) -> None:
        """A device that described itself anew in this very commit is judged by both descriptions."""
        device = attempt.device
        known, reserved = self.seen.devices.get(device), self.seen.reserved[device]
        job, taken = self.seen.jobs.get(job_of(attempt.task)), self.seen.taken(attempt)
        if known is None:
            self.breach(f"{device} is given work and was never registered", device)
        elif job is not None:
            rows = (known,) if before is None else (known, before)
            found = [list(faults(taken, job, reserved, row, self._offer(row))) for row in rows]
            if all(found):
                self.breach(f"{attempt.task} {attempt.attempt} on {device}: it {'; '.join(found[0])}", device)

    def _offer(self, row: DeviceRow) -> Resources:
        return self.judge.offer(row.profile, row.capacity)


def _held(row: AttemptRow) -> bool:
    return row.state is not AttemptState.FREE
