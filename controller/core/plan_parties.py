"""Rosters: who stands where in a plan, and which tasks ask for a place together.

A `Cohort` is a job as a plan sees it: a shadow with columns of its own, so that what is
imagined for it (another demand, more devices) is never seen by the job itself. Who
stands on a device is kept per device, so that losing one looks at nobody else.
Rule of this file: nothing of the ledger is written; tasks and shares are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from controller.core.changes import JobChange
from controller.core.conditions import of_group
from controller.core.daemons import Match
from controller.core.jobs import new_job
from controller.core.ledger import Attempt, Job, Ledger
from controller.core.outlook import Outlook
from controller.core.queue import height
from controller.core.records import JobRow
from controller.core.requests import Requests
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE
from controller.scheduler.view import Demand, Flags
from controller.scheduler.whatif import Party, Trial, Unit
from protocol.tasks import AttemptId, JobKind, TaskState

WAITING_JOBS_MAX = 1_000
WAITING_TASKS_MAX = 100_000
"""Of what waits already; what comes after it in the queue is counted as left out."""


@dataclass(slots=True)
class Cohort:
    """One job in a plan. `asked`: the plan is about it; then what finds no place breaks."""

    job: Job
    order: tuple[int, int, str]
    standing: dict[str, Unit] = field(default_factory=dict)
    """By task, where it stands; only kept where the job's tasks depend on each other."""
    waiting: list[Unit] = field(default_factory=list)
    asked: bool = False
    singly: bool = False
    """Whether its tasks are placed one by one."""
    bound: bool = False
    """Whether the places of its tasks depend on each other."""

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """What the job asks for has changed, or is seen for the first time."""
        spec, rules = self.job.row.spec, self.job.row.rules
        self.singly = bool(self.daemon or spec.spreads or any(map(of_group, spec.constraints)))
        self.bound = bool(rules.gang or rules.parallel_max or self.singly)

    def step_on(self, units: Iterable[Unit]) -> None:
        """They stand where they say."""
        if self.bound:
            self.standing |= {unit.name: unit for unit in units}

    def step_off(self, units: Iterable[Unit]) -> None:
        """They stand nowhere."""
        for unit in units if self.bound else ():
            self.standing.pop(unit.name, None)

    @property
    def name(self) -> str:
        return self.job.row.id

    @property
    def daemon(self) -> bool:
        return self.job.row.kind is JobKind.DAEMON


@dataclass(slots=True)
class Wave:
    """Tasks that are placed at once. `owners`: whose each of them is; all are of the kind of `first`."""

    first: Cohort
    owners: list[Cohort]
    units: list[Unit]

    def takes(self, cohort: Cohort) -> bool:
        """Whether nothing tells its tasks from these, and nobody else stands between them."""
        mine = self.first
        return not mine.bound and (mine.order[0], mine.job.signature) == (
            cohort.order[0],
            cohort.job.signature,
        )


@dataclass(slots=True)
class Upheaval:
    """What becomes of a changed job's tasks: `leaving` were taken off where they stood, `ended` are no
    part of it any more, `kept` are where they were."""

    cohort: Cohort
    leaving: list[Unit]
    ended: int
    kept: int


class Roster:
    """Everybody in a plan."""

    def __init__(
        self, ledger: Ledger, outlook: Outlook, policy: str, now_ms: int, rows: Iterable[int]
    ) -> None:
        """`rows`: devices that somebody may have to leave; who stands elsewhere is not looked at."""
        self.ledger = ledger
        self.outlook = outlook
        self.policy = policy
        self.now_ms = now_ms
        self.requests = Requests(outlook)
        self.cohorts: dict[str, Cohort] = {}
        self.asked: list[Cohort] = []
        self.left_out = 0
        self._on: dict[int, dict[str, tuple[Job, Unit]]] = {}
        self._known = dict.fromkeys(rows)
        for row in self._known:
            for attempt in ledger.by_device[row].values():
                self._settle(row, attempt)
        self._queue()

    # ------------------------------------------------------------- who there is

    def _queue(self) -> None:
        """Who waits already: the first of the queue, whole; the others are only counted."""
        jobs = sorted(self.ledger.waiting.values(), key=self._order)
        room = WAITING_TASKS_MAX
        for place, job in enumerate(jobs):
            if place < WAITING_JOBS_MAX and room > 0:
                cohort = self.cohort(job)
                cohort.waiting = self._ready(job, room)
                room -= len(cohort.waiting)
                self.left_out += len(job.ready) - len(cohort.waiting)
            else:
                self.left_out += len(job.ready)

    def _order(self, job: Job) -> tuple[int, int, str]:
        return -height(job, self.now_ms), job.row.created_at, job.row.id

    def _ready(self, job: Job, most: int) -> list[Unit]:
        tasks = self.ledger.tasks
        found = (tasks[name].row for name in islice(job.ready, most) if name in tasks)
        return [Unit(row.id, pin=self._pin(row.pin)) for row in found if row.state is TaskState.PENDING]

    def cohort(self, job: Job) -> Cohort:
        """The job's shadow; who of it stands where is read when it first appears."""
        cohort = self.cohorts.get(job.row.id)
        if cohort is None:
            cohort = self.cohorts[job.row.id] = Cohort(new_job(replace(job.row)), self._order(job))
            if cohort.bound:
                rows = ((id.task, row) for id, row in job.placed.items() if row < self.outlook.known)
                cohort.standing = {task: Unit(task, row) for task, row in rows}
        return cohort

    def _pin(self, device: str) -> int:
        return self.outlook.fleet.index.get(device, NO_DEVICE) if device else NO_DEVICE

    def _settle(self, row: int, attempt: Attempt) -> None:
        """One that is on its way out for good needs no other place."""
        task = self.ledger.tasks.get(attempt.row.task)
        if task is None or task.row.attempt != attempt.row.attempt:
            return
        if task.row.desired == "run" and not task.expired:
            unit = Unit(task.row.id, row, attempt.share, self._pin(task.row.pin))
            self._on.setdefault(row, {})[unit.name] = (task.job, unit)

    def stand(self, cohort: Cohort, unit: Unit) -> None:
        """It is there from now on."""
        self._on.setdefault(unit.row, {})[unit.name] = (cohort.job, unit)
        cohort.step_on([unit])

    def knows(self, row: int) -> bool:
        """Whether all who stood there were looked at."""
        return row in self._known

    def here(self, row: int) -> list[tuple[Job, Unit]]:
        """Who stands there now, as far as it was looked at."""
        return list(self._on.get(row, {}).values())

    def kin(self, cohort: Cohort) -> list[Unit]:
        """Those of a changed gang that stay where they are: they are as much part of it as those that look
        for a place, and it is there whole or not at all."""
        if not (cohort.asked and cohort.job.row.rules.gang):
            return []
        on = (self._on.get(unit.row, {}).get(name) for name, unit in cohort.standing.items())
        return [each[1] for each in on if each is not None]

    def fall(self, cohort: Cohort, unit: Unit) -> None:
        """One of the kin: it stands there no more."""
        self._on[unit.row].pop(unit.name)
        cohort.step_off([unit])

    def leave(self, rows: Iterable[int]) -> list[tuple[Cohort, list[Unit]]]:
        """Takes everybody off these devices who can be elsewhere; the tasks of daemons stay with theirs."""
        gone: dict[str, tuple[Cohort, list[Unit]]] = {}
        for row in rows:
            here = self._on.get(row, {})
            for name, (job, unit) in list(here.items()):
                if unit.pin == NO_DEVICE:
                    del here[name]
                    cohort = self.cohort(job)
                    cohort.standing.pop(name, None)
                    gone.setdefault(cohort.name, (cohort, []))[1].append(unit)
        return list(gone.values())

    # ------------------------------------------------------------- what is asked for

    def submit(self, row: JobRow) -> None:
        """A job that is not there yet."""
        cohort = Cohort(new_job(row), (-row.priority, self.ledger.wall(self.now_ms), row.id), asked=True)
        if cohort.daemon:
            cohort.waiting = self._daemon_units(row, range(self.outlook.count))
        else:
            cohort.waiting = [Unit(f"{row.id}.{i}") for i in range(row.count)]
        self.cohorts[row.id] = cohort
        self.asked.append(cohort)

    def add_daemons_on_added(self) -> None:
        """Devices that were added get their tasks of the daemons that there are."""
        added = range(self.outlook.known, self.outlook.count)
        for job in self.ledger.jobs.values() if added else ():
            if job.daemon and job.standing:
                cohort = self.cohort(job)
                cohort.waiting += self._daemon_units(cohort.job.row, added)

    def _daemon_units(self, row: JobRow, rows: Iterable[int]) -> list[Unit]:
        match, record = Match(row), self.outlook.record
        return [Unit(f"{row.id}.{r}", pin=r) for r in rows if match.admits(record(r))]

    def change_job(self, change: JobChange, trial: Trial) -> Upheaval:
        """The job as another one. What its tasks ask for is the same: they stay; else all are taken off
        where they stand, because a changed task starts anew."""
        job = self.ledger.jobs[change.job]
        cohort = self.cohort(job)
        if not cohort.waiting and not cohort.asked:
            cohort.waiting = self._ready(job, WAITING_TASKS_MAX)
            self.left_out -= len(cohort.waiting)
        before, bytes_before = cohort.job.row, cohort.job.demand.entry_bytes
        after = change.of(before)
        standing = self._standing(job)
        ends = self._ends(job, before, after)
        upheaval = Upheaval(cohort, [], 0, 0)
        for unit in standing:
            if ends(unit) or after.spec != before.spec:
                del self._on[unit.row][unit.name]
                trial.vacate(unit, bytes_before)
                cohort.standing.pop(unit.name, None)
                if not ends(unit):
                    upheaval.leaving.append(unit)
        upheaval.ended = sum(map(ends, standing)) + sum(map(ends, cohort.waiting))
        upheaval.kept = len(standing) - len(upheaval.leaving) - sum(map(ends, standing))
        cohort.waiting = [unit for unit in cohort.waiting if not ends(unit)]
        cohort.waiting += self._added(job, before, after)
        cohort.job = new_job(after)
        cohort.look()
        if not cohort.asked:
            cohort.asked = True
            self.asked.append(cohort)
        return upheaval

    def _standing(self, job: Job) -> list[Unit]:
        found = ((row, attempt.task) for attempt, row in job.placed.items())
        return [self._on[row][name][1] for row, name in found if name in self._on.get(row, {})]

    def _ends(self, job: Job, before: JobRow, after: JobRow) -> Callable[[Unit], bool]:
        """Whether a task of the job has no part in what the job would be."""
        if job.daemon:
            match, record = Match(after), self.outlook.record
            return lambda unit: bool(match.lacks(record(unit.pin)))
        if after.count >= before.count:
            return lambda unit: False
        return lambda unit: int(unit.name.rpartition(".")[2]) >= after.count

    def _added(self, job: Job, before: JobRow, after: JobRow) -> list[Unit]:
        """Tasks that it would have, and has not."""
        if not job.daemon:
            return [Unit(f"{after.id}.{i}") for i in range(before.count, after.count)]
        have = {task.row.pin for task in self.ledger.tasks_of(job)}
        rows = [row for row in range(self.outlook.known) if self.outlook.name(row) not in have]
        units = self._daemon_units(after, rows) if after.spec != before.spec else []
        return [unit._replace(name=f"{after.id}.{after.count + i}") for i, unit in enumerate(units)]

    # ------------------------------------------------------------- who looks for a place

    def waiting(self) -> list[tuple[Cohort, list[Unit]]]:
        """Tasks that stand nowhere yet."""
        return [(cohort, cohort.waiting) for cohort in self.cohorts.values() if cohort.waiting]

    def in_order(self, some: Iterable[tuple[Cohort, list[Unit]]]) -> list[Wave]:
        """As placement's queue has it: by priority; then those that ask for the same together, the kind
        whose job is oldest first; then by age. Jobs are one wave where only their demand counts."""
        merged: dict[str, tuple[Cohort, list[Unit]]] = {}
        for cohort, units in some:
            merged.setdefault(cohort.name, (cohort, []))[1].extend(units)
        aged = sorted(merged.values(), key=lambda each: each[0].order)
        kinds: dict[tuple[int, str], int] = {}
        for cohort, _ in aged:
            kinds.setdefault((cohort.order[0], cohort.job.signature), len(kinds))
        aged.sort(key=lambda each: kinds[each[0].order[0], each[0].job.signature])
        waves: list[Wave] = []
        for cohort, units in aged:
            if waves and not cohort.bound and waves[-1].takes(cohort):
                waves[-1].owners += [cohort] * len(units)
                waves[-1].units += units
            else:
                waves.append(Wave(cohort, [cohort] * len(units), list(units)))
        return waves

    def on(self, rows: Iterable[int]) -> list[tuple[Cohort, list[Unit]]]:
        """Who would have to leave these devices; nobody does."""
        found: dict[str, tuple[Cohort, list[Unit]]] = {}
        for row in rows:
            for job, unit in self._on.get(row, {}).values():
                if unit.pin == NO_DEVICE:
                    cohort = self.cohort(job)
                    found.setdefault(cohort.name, (cohort, []))[1].append(unit)
        return list(found.values())

    def party(self, cohort: Cohort, units: list[Unit]) -> Party:
        """As the scheduler wants it."""
        row, shadow = cohort.job.row, cohort.job

        def demand() -> Demand:
            return self.requests.demand(shadow)

        def grouping(able: Flags) -> Grouping | None:
            shadow.placed = {AttemptId(u.name, 0): u.row for u in cohort.standing.values()}
            return self.requests.grouping(shadow, able)

        return Party(
            units, shadow.signature, row.rules.policy or self.policy, demand, grouping,
            row.rules.gang, row.rules.out_max, len(cohort.standing),
        )  # fmt: skip

    def forget_columns(self) -> None:
        """Devices were added: what was made of the fewer is of no use."""
        for cohort in self.cohorts.values():
            cohort.job.demand_era = (-1, -1)
