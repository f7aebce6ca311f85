"""Daemons: one task on every device that matches, present and future.

A device matches by what it says of itself (runtime, constraints) and by its taints; not by
whether it is online, open or full: its task waits for that. So a cordon keeps a daemon's
run, and a drain ends it, since the device is to be emptied; the task stays and runs again
when the device is opened. A `no_place` taint keeps new ones away and leaves those that are
there; where a device stops matching, is removed, or has an `evict` taint that the job does
not tolerate, its task is cancelled, with the reason. If it matches again later, that is a
new task, once the old one is over: never two of a daemon on one device.

Rule of this file: it looks at a device when the device (or what was decided about it)
changed, and at a job when it is declared or loaded; never at all of both.
Which of its tasks run is placement's business, by `pin`; they are never moved or preempted.
Rejected: asking the fleet's columns (each inventory makes all of them again).
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.conditions import of_group, test_of
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.records import DeviceRow, JobRow
from controller.core.taints import tolerated
from controller.core.tasks import CANCELLED, Tasks


class Match:
    """What a daemon asks of a device, one device at a time."""

    def __init__(self, row: JobRow) -> None:
        spec = row.spec
        self.runtime, self.tolerations = spec.runtime, spec.tolerations
        self._tests: list[tuple[str, Callable[[DeviceRow], bool]]] = [
            (f"{c.attribute} {c.operator} {c.value}".strip(), test_of(c))
            for c in spec.constraints
            if not of_group(c)
        ]

    def admits(self, record: DeviceRow) -> bool:
        """Whether a device without a task of it gets one."""
        return not self.lacks(record) and tolerated(record.taints, self.tolerations).allowed

    def lacks(self, record: DeviceRow) -> str:
        """Why one that is there must end; empty when it may stay."""
        if record.removed:
            return "device removed"
        if self.runtime not in record.runtimes:
            return f"device no longer matches: runtime {self.runtime}"
        for words, holds in self._tests:
            if not holds(record):
                return f"device no longer matches: {words}"
        if record.taints and tolerated(record.taints, self.tolerations).evicts:
            return "evicted by a taint"
        return ""


class Daemons:
    """Keeps the tasks of daemons in step with the devices that match."""

    def __init__(self, ledger: Ledger, tasks: Tasks, holds: Holds) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.tasks = tasks
        self.holds = holds
        self.at: dict[str, dict[int, Task]] = {}
        """Of each open daemon: its task on each device, by row, until that is over."""
        self.matches: dict[str, Match] = {}

    # ------------------------------------------------------------- jobs

    def enter(self, job: Job, now_ms: int) -> None:
        """A new or loaded job: every device is looked at once."""
        self.matches[job.row.id] = Match(job.row)
        there = self.at[job.row.id] = {}
        for task in self.ledger.tasks_of(job):
            there[self.fleet.index[task.row.pin]] = task
        before = job.row.count
        for row in range(self.fleet.count):
            self._add(job, row, now_ms)
        if job.row.count != before:
            self.ledger.save(job.row)
        # A device that changed while no core knew of it: what follows is not for a constructor to say.
        self.fleet.retold += [row for row, task in there.items() if self._misplaced(task)]

    def _misplaced(self, task: Task) -> bool:
        record = self.fleet.records[self.fleet.index[task.row.pin]]
        return bool(self.matches[task.row.job].lacks(record))

    def _add(self, job: Job, row: int, now_ms: int) -> None:
        there = self.at[job.row.id]
        if row in there or not job.standing or not self.matches[job.row.id].admits(self.fleet.records[row]):
            return
        there[row] = self.tasks.add(job, job.row.count, now_ms, self.fleet.names[row])
        job.row.count += 1

    # ------------------------------------------------------------- devices

    def follow(self, now_ms: int) -> None:
        """Looks at the devices that changed, and at those where a task of a daemon is over."""
        retold, unpinned = self.fleet.retold, self.ledger.unpinned
        while retold or unpinned:
            rows = dict.fromkeys(retold)
            retold.clear()
            for task in unpinned:
                self._over(task, rows)
            unpinned.clear()
            for id in list(self.at):
                self._look(id, rows, now_ms)

    def _over(self, task: Task, rows: dict[int, None]) -> None:
        """Its place is free again; one that gave up of itself is not tried again until its device changes."""
        row = self.fleet.index[task.row.pin]
        there = self.at.get(task.row.job, {})
        if there.get(row) is task:
            del there[row]
        if task.row.desired == CANCELLED:
            rows[row] = None

    def _look(self, id: str, rows: dict[int, None], now_ms: int) -> None:
        job = self.ledger.jobs.get(id)
        if job is None:
            del self.at[id], self.matches[id]
            return
        before = job.row.count
        for row in rows:
            task = self.at[id].get(row)
            if task is None:
                self._add(job, row, now_ms)
            elif task.row.desired != CANCELLED and (why := self.matches[id].lacks(self.fleet.records[row])):
                self._end(task, why, now_ms)
        if job.row.count != before:
            self.ledger.save(job.row)

    def _end(self, task: Task, why: str, now_ms: int) -> None:
        attempt: Attempt | None = self.tasks.cancel(task, "controller", now_ms, why)
        if attempt is not None:
            self.holds.remove([attempt], why, now_ms)
