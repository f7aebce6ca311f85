"""The ledger: open jobs, tasks and attempts, and what must be saved and said next.

Every machine of the controller works on this one object: it changes records here, and
what changed is queued as rows (to be saved) and effects (to follow the save). The
controller empties both after each event.
It decides nothing: rules live in the machines that use it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.core.deadlines import Deadlines
from controller.core.fleet import Fleet
from controller.core.records import AttemptRow, AuditRow, DeviceRow, FleetRow, JobRow, JobState, Row, TaskRow
from controller.core.shares import read_share
from controller.scheduler.pick import Tops
from controller.scheduler.view import NOTHING, Demand, Share
from protocol.core import Effect, Note, Publish
from protocol.messages import Message
from protocol.resources import ZERO, Resources
from protocol.tasks import AttemptId, Guarantee, JobKind

RECENT_ATTEMPTS = 20_000
"""Ended attempts whose late output still finds its owner."""


@dataclass(slots=True)
class Job:
    """An open job in memory."""

    row: JobRow
    demand: Demand
    """What each of its tasks needs; placement keeps its `eligible` up to date."""
    left: int = 0
    """Tasks that are not final."""
    ready: deque[str] = field(default_factory=deque)
    """Pending tasks whose wait is over, first come first."""
    failed: int = 0
    cancelled: int = 0
    blocked: int = -1
    """The fleet's room generation at which nothing fitted."""
    placed: dict[AttemptId, int] = field(default_factory=dict)
    """Row of each of its attempts that is not free."""
    ready_ms: int | None = None
    """Since when something of it waits for room."""
    assigned_ms: int = 0
    """When one of its tasks was placed last."""
    demand_era: tuple[int, int] = (-1, -1)
    signature: str = ""
    """Equal for jobs whose tasks ask for the same of a device."""
    waits: dict[str, str] = field(default_factory=dict)
    """Open jobs that must be over before its tasks are ready -> `succeeded` or `ended`."""

    @property
    def at_most_one(self) -> bool:
        return self.row.guarantee is Guarantee.AT_MOST_ONE

    @property
    def daemon(self) -> bool:
        """One task on every matching device, never moved, never preempted."""
        return self.row.kind is JobKind.DAEMON

    @property
    def spoilt(self) -> bool:
        """Whether not all of its tasks can succeed any more."""
        return bool(self.failed or self.cancelled or self.row.state in (JobState.FAILED, JobState.CANCELLED))

    @property
    def standing(self) -> bool:
        """Stays open without an open task: others may come, with a device or a time."""
        return self.row.kind in (JobKind.DAEMON, JobKind.CRON) and self.row.desired == "run"

    @property
    def service(self) -> bool:
        """Kept running: its every exit restarts it."""
        return self.row.kind in (JobKind.SERVICE, JobKind.DAEMON)

    @property
    def owner(self) -> str:
        """Whose share of the fleet it counts to."""
        return self.row.rules.owner or self.row.actor


@dataclass(slots=True)
class Task:
    """An open task in memory."""

    row: TaskRow
    job: Job
    avoid: str = ""
    """The device where it was last; another one is preferred."""
    prefer: str = ""
    """The device where it is tried once more, or where it is foreseen to go."""
    failures_here: int = 0
    """Own failures in a row on one device."""
    expired: bool = False
    ready_ms: int = 0
    """Since when it may be placed, if it may."""
    assigned_ms: int = 0
    started_ms: int = 0
    quick_losses: int = 0
    """Attempts in a row that were lost as soon as they were assigned."""


@dataclass(slots=True)
class Attempt:
    """A reservation: an attempt that is not yet free."""

    row: AttemptRow
    job: Job
    device: int
    before: bool = False
    """It was there when this leadership began: perhaps granted by an earlier one."""
    floor_ms: int = 0
    """Held at least until then (L5)."""
    hold_until_ms: int = 0
    """Of a removed attempt: until when the last grant that covered it holds."""
    holder: int = 0
    """Session of the last grant that covered it; 0 when none did."""
    share: Share = NOTHING
    """What of its device is reserved for it."""
    started_ms: int = 0
    """When it was first shown as started; for one of before a take-over, when that was."""
    tops: Tops = field(default=(), compare=False)
    """The best devices and their scores when it was placed; empty where nobody asked then."""

    @property
    def id(self) -> AttemptId:
        return AttemptId(self.row.task, self.row.attempt)


class Ledger:
    """Records by their ids, and the rows and effects of the event at hand."""

    def __init__(self, fleet: Fleet, epoch: int, leader: str) -> None:
        self.fleet = fleet
        self.epoch = epoch
        self.leader = leader
        self.wall_offset_ms = 0
        self.jobs: dict[str, Job] = {}
        self.waiting: dict[str, Job] = {}
        """Jobs with ready tasks."""
        self.newly_ready = False
        """A task became ready in the event at hand, for whatever reason: placement must look."""
        self.tasks: dict[str, Task] = {}
        self.attempts: dict[AttemptId, Attempt] = {}
        self.by_device: list[dict[AttemptId, Attempt]] = []
        self.priorities: dict[int, int] = {}
        """How many attempts are of a job of each priority, daemons' left out: they never give way."""
        self.moved: dict[int, None] = {}
        """Devices that hold other attempts, or in another state; `preemption` empties it."""
        self.elders: dict[str, Attempt] = {}
        """Task -> an older attempt of it that is still listed by a lost device, and may be kept (C6)."""
        self.outlived: list[Attempt] = []
        """Listed attempts that their tasks need no more; `returns` takes them out in the same commit."""
        self.owned: dict[str, Resources] = {}
        """What each owner has reserved."""
        self.turned: list[Job] = []
        """Jobs that ended, or can't succeed any more, in the event at hand: others may wait for them."""
        self.unpinned: list[Task] = []
        """Tasks of daemons that ended in the event at hand."""
        self.recent: OrderedDict[AttemptId, str] = OrderedDict()
        self.deadlines = Deadlines()
        self.counters: dict[str, int] = {}
        self.garbage: dict[str, int] = {}
        self.alarms: dict[str, str] = {}
        self.rows: list[Row] = []
        self.effects: list[Effect] = []

    # ------------------------------------------------------------- what follows

    def save(self, row: Row) -> None:
        self.rows.append(row)

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def publish(self, row: int, message: Message) -> None:
        self.effects.append(Publish(self.fleet.names[row], message))

    def note(self, level: str, text: str, **fields: str | int) -> None:
        self.effects.append(Note(level, text, fields))

    def audit(
        self, now_ms: int, what: str, of: str, old: str, new: str,
        actor: str = "controller", device: str = "", attempt: int = 0, reason: str = "",
    ) -> None:  # fmt: skip
        """One row per state change, with who wanted it (I10)."""
        self.rows.append(AuditRow(self.wall(now_ms), actor, what, of, old, new, device, attempt, reason))

    def fact(self, name: str, value: str) -> None:
        self.rows.append(FleetRow(name, value))

    def wall(self, now_ms: int) -> int:
        return now_ms + self.wall_offset_ms

    # ------------------------------------------------------------- counting

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def count_garbage(self, reason: str) -> None:
        self.garbage[reason] = self.garbage.get(reason, 0) + 1

    def alarm(self, name: str, text: str) -> None:
        """Raises an alarm once; it stands until `calm`."""
        if name not in self.alarms:
            self.alarms[name] = text
            self.note("error", text, alarm=name)

    def calm(self, name: str) -> None:
        if self.alarms.pop(name, None) is not None:
            self.note("info", "alarm ended", alarm=name)

    # ------------------------------------------------------------- jobs

    def tasks_of(self, job: Job) -> list[Task]:
        """The open tasks of a job, in their order."""
        ids = (f"{job.row.id}.{i}" for i in range(job.row.count))
        return [self.tasks[i] for i in ids if i in self.tasks]

    # ------------------------------------------------------------- attempts

    def hold(self, attempt: Attempt, now_ms: int) -> None:
        """Enters a new reservation."""
        self.attempts[attempt.id] = attempt
        self.by_device[attempt.device][attempt.id] = attempt
        attempt.job.placed[attempt.id] = attempt.device
        self._count_priority(attempt, 1)
        owner = attempt.job.owner
        self.owned[owner] = self.owned.get(owner, ZERO).plus(attempt.share.resources)
        self.fleet.reserve(attempt.device, attempt.share, attempt.job.demand.entry_bytes)

    def let_go(self, attempt: Attempt) -> None:
        """Ends a reservation; late output still finds the device."""
        del self.attempts[attempt.id]
        if self.is_elder(attempt):
            del self.elders[attempt.row.task]
        del self.by_device[attempt.device][attempt.id]
        del attempt.job.placed[attempt.id]
        self._count_priority(attempt, -1)
        owner = attempt.job.owner
        left = self.owned[owner] = self.owned[owner].minus(attempt.share.resources)
        if left == ZERO:
            del self.owned[owner]
        self.fleet.release(attempt.device, attempt.share, attempt.job.demand.entry_bytes)
        self.remember(attempt.id, self.fleet.names[attempt.device])

    def _count_priority(self, attempt: Attempt, by: int) -> None:
        self.moved[attempt.device] = None
        if not attempt.job.daemon:
            priority = attempt.job.row.priority
            left = self.priorities[priority] = self.priorities.get(priority, 0) + by
            if not left:
                del self.priorities[priority]

    def is_elder(self, attempt: Attempt) -> bool:
        return self.elders.get(attempt.row.task) is attempt

    def outlive(self, task: str) -> None:
        """The task needs its elder no more, if it has one."""
        if (elder := self.elders.pop(task, None)) is not None:
            self.outlived.append(elder)

    def shares(self, row: int) -> Iterator[Share]:
        """What is reserved on a device, as its record tells its accelerators at the moment of looking."""
        for attempt in self.by_device[row].values():
            attempt.share = read_share(attempt.row.given, attempt.job.demand, self.fleet.records[row])
            yield attempt.share

    def remember(self, attempt: AttemptId, device: str) -> None:
        self.recent[attempt] = device
        if len(self.recent) > RECENT_ATTEMPTS:
            self.recent.popitem(last=False)

    def admit(self, record: DeviceRow) -> int:
        self.by_device.append({})
        return self.fleet.admit(record, None)
