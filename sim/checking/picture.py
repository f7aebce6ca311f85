"""The picture: what kernel and database have shown so far, kept once for all checkers.

Rule of this file: it takes observations in and judges nothing. A commit becomes a list of
changes, each row beside the one that it replaced, so that no checker needs a history of its
own. What must outlive a restored backup (which numbers were handed out, what started) is
never forgotten; the rest is replaced by what the copy holds.
It knows no core: a core's memory is exactly what is under suspicion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from controller.core.records import (
    AttemptRow,
    AttemptState,
    AuditRow,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    OutputRow,
    Row,
    TaskRow,
    clone,
)
from protocol.tasks import FINAL_TASK, AttemptId
from sim.checking.room import Reserved, Taken, taken_by
from sim.observations import DatabaseRestored, RunBegan

R = TypeVar("R")
Live = tuple[str, RunBegan]
"""A live run and its device."""
Change = tuple[R | None, R]
"""What it was (None: new) and what it is."""


RESTORED_EPOCH = "restored_epoch"
"""The fact that is committed when an old copy was found out (D1)."""


def job_of(task: str) -> str:
    """A task is `<job>.<index>`."""
    return task.rpartition(".")[0]


@dataclass(slots=True)
class Commit:
    """One transaction as changes; the last row of each key counts."""

    at_ms: int
    epoch: int
    jobs: list[Change[JobRow]] = field(default_factory=list)
    tasks: list[Change[TaskRow]] = field(default_factory=list)
    attempts: list[Change[AttemptRow]] = field(default_factory=list)
    handed_out: list[tuple[AttemptRow, int]] = field(default_factory=list)
    """New attempts, each with the highest number that its task had before."""
    devices: list[Change[DeviceRow]] = field(default_factory=list)
    audits: list[AuditRow] = field(default_factory=list)
    outputs: list[OutputRow] = field(default_factory=list)
    facts: list[FleetRow] = field(default_factory=list)
    """Facts of the fleet that changed."""


class Picture:
    """Runs as they live, rows as they were committed."""

    def __init__(self) -> None:
        self.live: dict[str, list[tuple[str, RunBegan]]] = {}
        """Task -> its live runs: (device, run), oldest first."""
        self.frozen: list[tuple[str, RunBegan]] = []
        """Runs of suspended machines: they execute nothing, so they are not in `live`."""
        self.starts: dict[AttemptId, int] = {}
        self.start_times: list[tuple[int, str, AttemptId]] = []
        """(when, device, attempt) of every start."""
        self.forgetful: dict[str, None] = {}
        """Devices that lost a journal."""
        self.accepted: dict[str, int] = {}
        """Jobs whose acceptance was answered, and how many tasks each has."""
        self.given: dict[AttemptId, str] = {}
        """To which device each attempt was given last, lost ones of a restored database included."""
        self.given_also: dict[AttemptId, dict[str, None]] = {}
        """To which others before: a number may come again while nobody knows that the database is old."""
        self.last: dict[str, int] = {}
        """Highest attempt number ever committed, by task."""
        self.dark = False
        """An unmarked old copy was put back and nobody has found out yet."""
        self.obscure: dict[AttemptId, None] = {}
        """Attempts that were committed in the dark: §11 promises nothing of them."""
        self.copied: dict[AttemptId, None] = {}
        """Attempts that the copy which was put back last lists as not free."""
        self.retold: dict[AttemptId, None] = {}
        """Attempts of an unmarked copy that may stand in a document which was stamped in the dark: who
        hears that one late starts what he has ended and forgotten."""
        self.forget_rows()

    def forget_rows(self) -> None:
        self.jobs: dict[str, JobRow] = {}
        self.tasks: dict[str, TaskRow] = {}
        self.attempts: dict[AttemptId, AttemptRow] = {}
        self.devices: dict[str, DeviceRow] = {}
        self.documents: dict[str, tuple[int, int]] = {}
        """Device -> (epoch, number) of its document."""
        self.facts: dict[str, str] = {}
        self.reserved: dict[str, Reserved] = {}
        """Device -> what its attempts that are not free reserve together."""
        self.held: dict[str, dict[AttemptId, str]] = {}
        """Job -> its attempts that are not free, and their devices."""
        self.held_by: dict[str, int] = {}
        """Device -> how many attempts it has that are not free."""
        self.tasks_of: dict[str, int] = {}
        """Job -> how many tasks were ever stored for it."""
        self.open_of: dict[str, int] = {}
        """Job -> how many of them are not final."""
        self.open: dict[str, None] = {}
        """Tasks that are not final."""

    # ------------------------------------------------------------- runs

    def began(self, run: RunBegan) -> None:
        key = AttemptId(run.task, run.attempt)
        self.live.setdefault(run.task, []).append((run.device, run))
        self.starts[key] = self.starts.get(key, 0) + 1
        self.start_times.append((run.at_ms, run.device, key))

    def ended(self, device: str, task: str, attempt: int) -> RunBegan:
        """Raises `LookupError` for a run that never began: the observer is wrong."""
        found = _take(self.live.get(task, []), device, task, attempt)
        found = found or _take(self.frozen, device, task, attempt)
        if found is None:
            raise LookupError(f"{task} {attempt} ends on {device}, where it never began")
        return found[1]

    def froze(self, device: str, task: str, attempt: int) -> None:
        if (found := _take(self.live.get(task, []), device, task, attempt)) is not None:
            self.frozen.append(found)

    def thawed(self, device: str, task: str, attempt: int) -> RunBegan | None:
        """The run that executes again; None if it was not frozen."""
        found = _take(self.frozen, device, task, attempt)
        if found is None:
            return None
        self.live.setdefault(task, []).append(found)
        return found[1]

    def began_anew(self, run: RunBegan) -> bool:
        """An `at_least_one` attempt needs no grant, so on a device that lost its journal it may start again.

        What its device told of the first run may come only now, and ends the attempt all the same (L3).
        """
        again = self.starts[AttemptId(run.task, run.attempt)] > 1
        return again and not run.at_most_one and run.device in self.forgetful

    # ------------------------------------------------------------- rows

    def commit(self, at_ms: int, epoch: int, rows: Iterable[Row]) -> Commit:
        """Takes a transaction in; returns what it changed."""
        done = Commit(at_ms, epoch)
        latest: dict[tuple[type, Any], Row] = {}
        for row in rows:
            kind = type(row)
            if kind is AuditRow:
                done.audits.append(row)  # type: ignore[arg-type]
            elif kind is OutputRow:
                done.outputs.append(row)  # type: ignore[arg-type]
            elif (key_of := _KEYS.get(kind)) is not None:
                latest[kind, key_of(row)] = row
        for (kind, _), row in sorted(latest.items(), key=lambda item: _ORDER[item[0][0]]):
            self._put[kind](self, clone(row), done)
        return done

    def _put_job(self, row: JobRow, done: Commit) -> None:
        done.jobs.append((self.jobs.get(row.id), row))
        self.jobs[row.id] = row

    def _put_task(self, row: TaskRow, done: Commit) -> None:
        old = self.tasks.get(row.id)
        done.tasks.append((old, row))
        self.tasks[row.id] = row
        if old is None:
            self.tasks_of[row.job] = self.tasks_of.get(row.job, 0) + 1
        was_open, is_open = row.id in self.open, row.state not in FINAL_TASK
        if is_open != was_open:
            self.open_of[row.job] = self.open_of.get(row.job, 0) + (1 if is_open else -1)
            if is_open:
                self.open[row.id] = None
            else:
                del self.open[row.id]

    def _put_attempt(self, row: AttemptRow, done: Commit) -> None:
        key = AttemptId(row.task, row.attempt)
        old = self.attempts.get(key)
        done.attempts.append((old, row))
        self.attempts[key] = row
        held_before = old is not None and old.state is not AttemptState.FREE
        held = row.state is not AttemptState.FREE
        if held and not held_before:
            self.reserved.setdefault(row.device, Reserved()).add(self.taken(row))
            self.held.setdefault(job_of(row.task), {})[key] = row.device
            self.held_by[row.device] = self.held_by.get(row.device, 0) + 1
        elif held_before and not held:
            self.reserved[row.device].take_off(self.taken(row))
            del self.held[job_of(row.task)][key]
            self.held_by[row.device] -= 1
        if old is None:
            before = self.last.get(row.task, 0)
            done.handed_out.append((row, before))
            self.last[row.task] = max(before, row.attempt)
            if (other := self.given.get(key, row.device)) != row.device:
                self.given_also.setdefault(key, {})[other] = None
            self.given[key] = row.device
            if self.dark:
                self.obscure[key] = None

    def _put_device(self, row: DeviceRow, done: Commit) -> None:
        done.devices.append((self.devices.get(row.device), row))
        self.devices[row.device] = row

    def _put_document(self, row: DocumentRow, done: Commit) -> None:
        self.documents[row.device] = (row.epoch, row.number)
        if self.dark:
            rows = [self.attempts[key] for key in self.copied if key in self.attempts]
            held = [a for a in rows if a.device == row.device and a.state is not AttemptState.FREE]
            self.retold |= {AttemptId(a.task, a.attempt): None for a in held}

    def _put_fact(self, row: FleetRow, done: Commit) -> None:
        if row.value != self.facts.get(row.name):
            done.facts.append(row)
            self.dark = self.dark and row.name != RESTORED_EPOCH
        self.facts[row.name] = row.value

    _put: dict[type, Callable[[Picture, Any, Commit], None]] = {
        JobRow: _put_job,
        TaskRow: _put_task,
        AttemptRow: _put_attempt,
        DeviceRow: _put_device,
        DocumentRow: _put_document,
        FleetRow: _put_fact,
    }

    def taken(self, row: AttemptRow) -> Taken:
        """What the attempt reserves; nothing where the job was never stored."""
        return taken_by(row, self.jobs.get(job_of(row.task)))

    def restored(self, copy_put_back: DatabaseRestored) -> Commit:
        """An older copy counts from now on. What was answered since is lost; what runs, runs."""
        self.forget_rows()
        self.accepted.clear()
        self.obscure.clear()
        self.dark = False
        done = self.commit(copy_put_back.at_ms, 0, copy_put_back.rows)
        self.dark = not copy_put_back.marked
        held = [row for _, row in done.attempts if row.state is not AttemptState.FREE]
        self.copied = {AttemptId(row.task, row.attempt): None for row in held}
        return done

    def withdrawn(self, row: AttemptRow) -> bool:
        """Taken out of a copy that had never listed it: free, though it may have been told after the copy.

        Its task waits a full hold (L6); that it waits long enough is asked by I1.
        """
        return AttemptId(row.task, row.attempt) in self.copied and 0 < row.until <= row.since


def _take(runs: list[Live], device: str, task: str, attempt: int) -> Live | None:
    for at, (where, run) in enumerate(runs):
        if where == device and run.task == task and run.attempt == attempt:
            return runs.pop(at)
    return None


_KEYS: dict[type, Callable[[Any], Any]] = {
    JobRow: lambda row: row.id,
    TaskRow: lambda row: row.id,
    AttemptRow: lambda row: (row.task, row.attempt),
    DeviceRow: lambda row: row.device,
    DocumentRow: lambda row: row.device,
    FleetRow: lambda row: row.name,
}
_ORDER: dict[type, int] = {
    FleetRow: 0,
    JobRow: 1,
    TaskRow: 2,
    DeviceRow: 3,
    DocumentRow: 4,
    AttemptRow: 5,
}
"""Jobs before what needs their demand; the floor that ends the dark before what is above it."""
