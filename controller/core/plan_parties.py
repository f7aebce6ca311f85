"""Rosters: who stands where in a plan, and which tasks ask for a place together.

A `Crew` is a job as a plan sees it: a shadow with columns of its own, so that what is
imagined for it (another demand, more devices) is never seen by the job itself. Who
stands on a device is kept per device, so that losing one looks at nobody else.
Rule of this file: nothing of the ledger is written; tasks and shares are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from controller.core.changes import DemandChange
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
from protocol.resources import NAMES
from protocol.tasks import AttemptId, JobKind, TaskState

WAITING_JOBS_MAX = 1_000
WAITING_TASKS_MAX = 100_000
"""Of what waits already; what comes after it in the queue is counted as left out."""


@dataclass(slots=True)
class Crew:
    """One job in a plan. `asked`: the plan is about it; then what finds no place breaks."""

    job: Job
    order: tuple[int, int, str]
    standing: dict[str, Unit] = field(default_factory=dict)
    """By task, where it stands; only kept where the job's tasks depend on each other."""
    waiting: list[Unit] = field(default_factory=list)
    asked: bool = False

    @property
    def name(self) -> str:
        return self.job.row.id

    @property
    def daemon(self) -> bool:
        return self.job.row.kind is JobKind.DAEMON

    @property
    def bound(self) -> bool:
        """Whether the places of its tasks depend on each other."""
        return bool(self.job.row.rules.gang or self.job.row.rules.parallel_max or self.singly)

    @property
    def singly(self) -> bool:
        """Whether its tasks are placed one by one."""
        spec = self.job.row.spec
        return bool(self.daemon or spec.spreads or any(map(of_group, spec.constraints)))


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
        self.crews: dict[str, Crew] = {}
        self.asked: list[Crew] = []
        self.left_out = 0
        self._on: dict[int, dict[str, tuple[Job, Unit]]] = {}
        for row in rows:
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
                crew = self.crew(job)
                crew.waiting = self._ready(job, room)
                room -= len(crew.waiting)
                self.left_out += len(job.ready) - len(crew.waiting)
            else:
                self.left_out += len(job.ready)

    def _order(self, job: Job) -> tuple[int, int, str]:
        return -height(job, self.now_ms), job.row.created_at, job.row.id

    def _ready(self, job: Job, most: int) -> list[Unit]:
        tasks = self.ledger.tasks
        found = (tasks[name].row for name in islice(job.ready, most) if name in tasks)
        return [Unit(row.id, pin=self._pin(row.pin)) for row in found if row.state is TaskState.PENDING]

    def crew(self, job: Job) -> Crew:
        """The job's shadow; who of it stands where is read when it first appears."""
        crew = self.crews.get(job.row.id)
        if crew is None:
            crew = self.crews[job.row.id] = Crew(new_job(replace(job.row)), self._order(job))
            if crew.bound:
                rows = ((id.task, row) for id, row in job.placed.items() if row < self.outlook.known)
                crew.standing = {task: Unit(task, row) for task, row in rows}
        return crew

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

    def stand(self, crew: Crew, unit: Unit) -> None:
        """It is there from now on."""
        self._on.setdefault(unit.row, {})[unit.name] = (crew.job, unit)
        if crew.bound:
            crew.standing[unit.name] = unit

    def leave(self, rows: Iterable[int]) -> list[tuple[Crew, list[Unit]]]:
        """Takes everybody off these devices who can be elsewhere; the tasks of daemons stay with theirs."""
        gone: dict[str, tuple[Crew, list[Unit]]] = {}
        for row in rows:
            here = self._on.get(row, {})
            for name, (job, unit) in list(here.items()):
                if unit.pin == NO_DEVICE:
                    del here[name]
                    crew = self.crew(job)
                    crew.standing.pop(name, None)
                    gone.setdefault(crew.name, (crew, []))[1].append(unit)
        return list(gone.values())

    def held(self, rows: Iterable[int]) -> int:
        """How many tasks stand on these devices."""
        return sum(len(self._on.get(row, ())) for row in rows)

    # ------------------------------------------------------------- what is asked for

    def submit(self, row: JobRow) -> None:
        """A job that is not there yet."""
        crew = Crew(new_job(row), (-row.priority, self.ledger.wall(self.now_ms), row.id), asked=True)
        if crew.daemon:
            crew.waiting = self._daemon_units(row, range(self.outlook.count))
        else:
            crew.waiting = [Unit(f"{row.id}.{i}") for i in range(row.count)]
        self.crews[row.id] = crew
        self.asked.append(crew)

    def add_daemons_on_added(self) -> None:
        """Devices that were added get their tasks of the daemons that there are."""
        added = range(self.outlook.known, self.outlook.count)
        for job in self.ledger.jobs.values() if added else ():
            if job.daemon and job.standing:
                self.crew(job).waiting += self._daemon_units(job.row, added)

    def _daemon_units(self, row: JobRow, rows: Iterable[int]) -> list[Unit]:
        match, record = Match(row), self.outlook.record
        return [Unit(f"{row.id}.{r}", pin=r) for r in rows if match.admits(record(r))]

    def change_demand(self, change: DemandChange, trial: Trial) -> tuple[Crew, list[Unit]]:
        """The job with another demand, and all of its tasks, taken off where they stand."""
        job = self.ledger.jobs[change.job]
        crew, units = self.crew(job), []
        for attempt, row in job.placed.items():
            if (found := self._on.get(row, {}).pop(attempt.task, None)) is not None:
                units.append(found[1])
                trial.vacate(found[1], crew.job.demand.entry_bytes)
        if not crew.waiting:
            crew.waiting = self._ready(job, WAITING_TASKS_MAX)
            self.left_out -= len(crew.waiting)
        crew.standing.clear()
        spec, amounts = crew.job.row.spec, dict(change.amounts)
        common = {name: amount for name, amount in amounts.items() if name in NAMES}
        extras = spec.extras | {name: amount for name, amount in amounts.items() if name not in NAMES}
        spec = replace(spec, resources=spec.resources._replace(**common), extras=extras)
        if change.constraints is not None:
            spec = replace(spec, constraints=change.constraints)
        crew.job = new_job(replace(crew.job.row, spec=spec))
        crew.asked = True
        self.asked.append(crew)
        return crew, units

    # ------------------------------------------------------------- who looks for a place

    def waiting(self) -> list[tuple[Crew, list[Unit]]]:
        """Tasks that stand nowhere yet."""
        return [(crew, crew.waiting) for crew in self.crews.values() if crew.waiting]

    def in_order(self, some: Sequence[tuple[Crew, list[Unit]]]) -> list[tuple[Crew, list[Unit]]]:
        """By priority, then by age; tasks of one job together, those that stood somewhere first."""
        merged: dict[str, tuple[Crew, list[Unit]]] = {}
        for crew, units in some:
            merged.setdefault(crew.name, (crew, []))[1].extend(units)
        return sorted(merged.values(), key=lambda each: each[0].order)

    def party(self, crew: Crew, units: list[Unit]) -> Party:
        """As the scheduler wants it."""
        row, shadow = crew.job.row, crew.job

        def demand() -> Demand:
            return self.requests.demand(shadow)

        def grouping(able: Flags) -> Grouping | None:
            shadow.placed = {AttemptId(u.name, 0): u.row for u in crew.standing.values()}
            return self.requests.grouping(shadow, able)

        return Party(
            units, shadow.signature, row.rules.policy or self.policy, demand, grouping,
            row.rules.gang, row.rules.parallel_max, len(crew.standing),
        )  # fmt: skip

    def forget_columns(self) -> None:
        """Devices were added: what was made of the fewer is of no use."""
        for crew in self.crews.values():
            crew.job.demand_era = (-1, -1)
