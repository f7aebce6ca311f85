"""Runnable: whether a pending task has a reason to wait, found out the slow and obvious way.

Rule of this file: rows and machines are asked, one device after the other; the scheduler's
columns never are, since they are what is judged. Only what no record holds is asked of the
core: a pause before a retry, the wait after a restore, room that is promised to another
task, and how often a device was lost lately. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.condition import FLAKY_MAX
from controller.core.ledger import Task
from controller.core.records import AttemptRow, AttemptState, DeviceRow, JobRow, JobState
from protocol.resources import ZERO, Resources
from protocol.tasks import JobKind, TaskState
from sim.checking.picture import Picture
from sim.checking.placement import DELTA, unfit
from sim.checking.room import WHOLE_MILLI, Reserved, cards_of, offered
from sim.checking.welcome import most_of, tainted, together, turned_away, unlike, value_of
from sim.world import World

There = dict[str, list[tuple[JobRow, AttemptRow]]]
"""Device -> its attempts that are not free, with their jobs."""


class Waits:
    """One look at a world: who may wait. Tasks of a job are alike, but for pins and promises."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.there = reserving(world.checkers.seen)
        self._found: dict[tuple[str, str], bool] = {}

    def rightly(self, task: str) -> bool:
        """Whether this task may be pending now."""
        world, seen = self.world, self.world.checkers.seen
        held = world.core.ledger.tasks.get(task)
        if held is None or held.row.state is not TaskState.PENDING:
            return False
        job = seen.jobs[held.row.job]
        return bool(
            _pauses(world, task)
            or world.now_ms < world.core.placement.not_before_ms
            or any(_unfinished(seen, d.job) for d in job.rules.depends_on)
            or (job.rules.parallel_max and len(seen.held.get(job.id, ())) >= job.rules.parallel_max)
            or not self._finds(held, job)
        )

    def _finds(self, task: Task, job: JobRow) -> bool:
        promised = task.row.id if task.row.id in self.world.core.nominations.by_task else ""
        key = (job.id, task.row.pin or promised)
        if key not in self._found:
            self._found[key] = Search(self.world, self.there, task, job).finds()
        return self._found[key]


def _pauses(world: World, task: str) -> bool:
    return world.core.ledger.deadlines.due_of("ready", task) is not None


def _unfinished(seen: Picture, job: str) -> bool:
    row = seen.jobs.get(job)
    return row is not None and row.state is JobState.OPEN


def reserving(seen: Picture) -> There:
    """What of a device's room is taken."""
    found: There = {}
    for job, attempts in seen.held.items():
        for key, device in attempts.items():
            found.setdefault(device, []).append((seen.jobs[job], seen.attempts[key]))
    return found


def tasks_of(seen: Picture, job: JobRow) -> list[str]:
    """The open tasks of a job."""
    ids = (f"{job.id}.{index}" for index in range(job.count))
    return [id for id in ids if id in seen.open]


class Search:
    """Looks for a device for one task, or for as many as a gang needs."""

    def __init__(self, world: World, there: There, task: Task, job: JobRow) -> None:
        self.world = world
        self.seen = world.checkers.seen
        self.there = there
        self.task = task
        self.job = job

    def finds(self) -> bool:
        """Whether the task could be placed now, with all its gang; if need be in place of lower ones."""
        open_tasks = tasks_of(self.seen, self.job)
        gang = self.job.rules.gang and not self._stands()
        if gang and not all(map(self._ready, open_tasks)):
            return False
        needed = len(open_tasks) if gang else 1
        if self._together(lambda row: self._fitting(row, preempting=False)) >= needed:
            return True
        return not gang and self._together(lambda row: self._fitting(row, preempting=True)) > 0

    def _stands(self) -> bool:
        """Whether some task of the job is placed by an attempt that isn't on its way out."""
        for key in self.seen.held.get(self.job.id, ()):
            task = self.seen.tasks[key.task]
            placed = task.attempt == key.attempt and task.state is not TaskState.PENDING
            if placed and self.seen.attempts[key].state is not AttemptState.REMOVED:
                return True
        return False

    def _ready(self, task: str) -> bool:
        return self.seen.tasks[task].state is TaskState.PENDING and not _pauses(self.world, task)

    def _together(self, fitting: Callable[[DeviceRow], int]) -> int:
        """How many of the job fit on all devices that take it, within what it demands of them together."""
        rows = [row for row in self.seen.devices.values() if self._takes(row)]
        demands = together(self.job)
        if not demands:
            return sum(map(fitting, rows))
        places = self.seen.held.get(self.job.id, {}).values()
        left: dict[tuple[int, str], int] = {}
        for which, demand in enumerate(demands):
            for row in self.seen.devices.values():
                if (value := value_of(demand, row)) is not None:
                    left.setdefault((which, value), most_of(demand))
            for place in places:
                if (value := value_of(demand, self.seen.devices[place])) is not None:
                    left[which, value] -= 1
        return self._counted(rows, fitting, left)

    def _counted(
        self, rows: list[DeviceRow], fitting: Callable[[DeviceRow], int], left: dict[tuple[int, str], int]
    ) -> int:
        """One device after the other: with one demand that is the most there is, with several never more."""
        found, demands = 0, together(self.job)
        for row in rows:
            values = [value_of(demand, row) for demand in demands]
            keys = [(which, value) for which, value in enumerate(values) if value is not None]
            if len(keys) < len(demands):
                continue
            here = max(0, min(fitting(row), *(left[key] for key in keys)))
            for key in keys:
                left[key] -= here
            found += here
        return found

    def _takes(self, row: DeviceRow) -> bool:
        """Whether it is open for the job and in good condition."""
        device, pin = self.world.devices.get(row.device), self.task.row.pin
        if device is None or unfit(device.health) or (pin and pin != row.device):
            return False
        fleet = self.world.core.ledger.fleet
        return not turned_away(self.job, row) and fleet.view.flakiness[fleet.index[row.device]] < FLAKY_MAX

    # ------------------------------------------------------------- room

    def _fitting(self, row: DeviceRow, preempting: bool) -> int:
        """How many tasks of the job fit there; `preempting`: if all that may be sent away were gone."""
        reserved, aside = Reserved(), ZERO
        for job, attempt in self.there.get(row.device, ()):
            leaves = attempt.state is AttemptState.REMOVED or self._below(job)
            if not (preempting and leaves):
                reserved.add(self.seen.taken(attempt))
        core = self.world.core
        for promise in core.nominations.by_task.values():
            own = promise.task.job is self.task.job if self.job.rules.gang else promise.task is self.task
            if own or core.ledger.fleet.names[promise.row] != row.device:
                continue
            if promise.share.accelerators or preempting:
                return 0
            aside = aside.plus(promise.share.resources)
        return self._copies(row, reserved, aside)

    def _below(self, other: JobRow) -> bool:
        return other.kind is not JobKind.DAEMON and other.priority <= self.job.priority - DELTA

    def _copies(self, row: DeviceRow, reserved: Reserved, aside: Resources) -> int:
        spec, needs = self.job.spec, self.job.spec.resources
        needs = needs._replace(slots=max(1, needs.slots))
        if spec.reference_cpu:
            needs = needs._replace(cpu_milli=-(-needs.cpu_milli * 1_000 // row.core_speed_milli))
        offer = offered(self.world.checkers.offer(row.profile, row.capacity))
        left = offer.minus(reserved.resources).minus(aside)
        most = [room // need for need, room in zip(needs, left, strict=True) if need]
        for name, need in spec.extras.items():
            most.append((row.extras.get(name, 0) - reserved.extras.get(name, 0)) // need)
        if each := min(needs.gpu_milli, WHOLE_MILLI):
            cards = [
                max(0, milli - reserved.cards.get(name, 0)) // each
                for name, (model, milli) in cards_of(row).items()
                if not spec.models or model in spec.models
            ]
            most.append(sum(cards) // -(-needs.gpu_milli // WHOLE_MILLI))
        return max(0, min(most))


# ------------------------------------------------------------- daemons


def missing_daemons(seen: Picture) -> str:
    """The first daemon that has not one open task on each device that it belongs to, and none elsewhere."""
    pinned: dict[tuple[str, str], int] = {}
    for id in seen.open:
        task = seen.tasks[id]
        if task.pin:
            pinned[task.job, task.pin] = pinned.get((task.job, task.pin), 0) + 1
    for job in seen.jobs.values():
        if job.kind is not JobKind.DAEMON or job.desired != "run" or job.state is not JobState.OPEN:
            continue
        if any(_unfinished(seen, d.job) for d in job.rules.depends_on):
            continue
        for row in seen.devices.values():
            count = pinned.get((job.id, row.device), 0)
            stays = not row.removed and not unlike(job, row)
            wanted = stays and not tainted(job, row)
            if count > 1 or (wanted and not count) or (count and not stays):
                return f"daemon {job.id} has {count} tasks for {row.device}"
    return ""


# ------------------------------------------------------------- who may still be sent away


def threats(seen: Picture) -> int:
    """The highest priority of a job that may yet need room: it waits, it will run again, or it is a cron
    job's. Below -1 there is none."""
    restless = [job for job in seen.jobs.values() if job.state is JobState.OPEN and _restless(seen, job)]
    return max((job.priority for job in restless), default=-1)


def in_part(seen: Picture, job: JobRow) -> bool:
    """Whether it is a gang of which a task is nowhere."""
    return job.rules.gang and any(seen.tasks[t].state is TaskState.PENDING for t in tasks_of(seen, job))


def _restless(seen: Picture, job: JobRow) -> bool:
    if job.kind is JobKind.CRON:
        return True
    tasks = [seen.tasks[t] for t in tasks_of(seen, job)]
    ends = "--ms" in job.spec.command
    again = ends and (job.kind is not JobKind.BATCH or job.spec.command[-1] != "0")
    return again or any(task.state is not TaskState.RUNNING for task in tasks)
