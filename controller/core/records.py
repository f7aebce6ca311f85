"""What the controller keeps: one slotted dataclass per table, plain data only.

These rows are what `Save` carries and what a store loads; a row replaces the row of the
same key (its fields named first, see `KEYS`), `AuditRow` and `OutputRow` are appended.
The file knows no SQL and no clock. `*_at` are wall-clock milliseconds: data for people,
never compared by the core (but for a job's `ttl_ms` across a restart, told in DESIGN.md,
and `fired_at`, since schedules are times for people).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, TypeVar

from protocol.resources import ZERO, Resources
from protocol.tasks import Guarantee, JobKind, TaskState

KEYS_MAX = 50_000
"""Idempotency keys that are remembered: the newest, however old they are."""


@dataclass(slots=True)
class Constraint:
    """One demand on a device: `attribute operator value`, as `label.zone = a`."""

    attribute: str
    operator: str
    value: str


@dataclass(slots=True)
class Affinity:
    """A wish: devices where the condition holds are better (weight > 0) or worse. -100…100."""

    attribute: str
    operator: str
    value: str
    weight: int


@dataclass(slots=True)
class Spread:
    """A wish: the job's tasks in these shares over the values of an attribute; even without targets."""

    attribute: str
    weight: int = 50
    targets: tuple[tuple[str, int], ...] = ()
    """(value, percent); what they leave of 100 goes to all other values together."""


@dataclass(slots=True)
class TaskSpec:
    """What each task of a job runs and needs. Durations in ms, 0 = none."""

    runtime: str = "process"
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    resources: Resources = ZERO
    constraints: tuple[Constraint, ...] = ()
    timeout_ms: int = 0
    stop_grace_ms: int = 5_000
    extras: dict[str, int] = field(default_factory=dict)
    """Amounts of site-defined resources."""
    models: tuple[str, ...] = ()
    """Accelerator models that will do; empty: any."""
    reference_cpu: bool = False
    """`cpu_milli` counts thousandths of the reference core: a faster device gives fewer of its own."""
    affinities: tuple[Affinity, ...] = ()
    spreads: tuple[Spread, ...] = ()
    tolerations: tuple[str, ...] = ()


@dataclass(slots=True)
class Dependency:
    """Tasks wait until another job is over: `succeeded`, or `ended` however."""

    job: str
    until: str = "succeeded"


GANG_MAX = 1_000
"""A gang is placed, and taken back, in one commit."""


@dataclass(slots=True)
class JobRules:
    """How a job is treated, beside what its tasks need."""

    policy: str = ""
    """Name of a placement policy; empty: the fleet's."""
    owner: str = ""
    """Whose share of the fleet it counts to; empty: its actor's."""
    gang: bool = False
    """All of its tasks are placed together, or none."""
    parallel_max: int = 0
    """So many of its tasks at most are out at a time; 0: no bound."""
    depends_on: tuple[Dependency, ...] = ()
    on_return: str = "newest"
    """Which run of an `at_least_one` task stays when a lost device comes back."""
    schedule: str = ""
    zone: str = "UTC"
    overlap: bool = False
    missed: str = "skip"
    """Fires that passed unseen: `skip`, `once`, `all`."""
    parent: str = ""
    """The cron job that made it."""

    @property
    def out_max(self) -> int:
        """`parallel_max` as it counts: all of a gang are out at a time, lost ones beside their successors."""
        return 0 if self.gang else self.parallel_max


class JobState(StrEnum):
    """`open` until every task is final; then the worst of what its tasks became."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class JobRow:
    """A declared job. `max_attempts` 0 = unlimited; `ttl_ms` 0 = none."""

    id: str
    name: str
    kind: JobKind
    count: int
    priority: int
    guarantee: Guarantee
    max_attempts: int
    ttl_ms: int
    lease_ms: int
    spec: TaskSpec
    state: JobState
    desired: str
    """`run` or `cancelled`."""
    created_at: int
    changed_at: int
    actor: str
    idempotency_key: str = ""
    fingerprint: str = ""
    rules: JobRules = field(default_factory=JobRules)
    fired_at: int = 0
    """Of a cron job: the times of its schedule are decided up to this one, by the wall clock."""
    runs: int = 0
    """Of a cron job: how many runs it made."""


@dataclass(slots=True)
class TaskRow:
    """One unit of a job. `device` is empty while pending; `attempt` is the present or last attempt."""

    id: str
    job: str
    index: int
    state: TaskState
    desired: str
    device: str
    attempt: int
    exit_code: int | None
    reason: str
    failures: int
    created_at: int
    changed_at: int
    pin: str = ""
    """The one device that it may be placed on: a daemon's task."""
    handed_out: int = 0
    """The highest number handed out, where that is above `attempt`: an older run was kept (C6)."""


class AttemptState(StrEnum):
    """Where the reservation of an attempt stands."""

    ASSIGNED = "assigned"
    """Reserved, in the document or about to be."""
    RUNNING = "running"
    """The device showed it as started."""
    REMOVED = "removed"
    """Taken out of the document by `removed`; reserved until it is free."""
    FREE = "free"


@dataclass(slots=True)
class AttemptRow:
    """The n-th try of a task.

    `since` is the number of the first document revision that lists it, `until` of the
    first that does not (0: still listed); `removed_epoch` goes with `until` (rule L3).
    """

    task: str
    attempt: int
    device: str
    state: AttemptState
    since: int
    removed_epoch: int
    until: int
    exit_code: int | None
    signal: int
    reason: str
    created_at: int
    started_at: int
    ended_at: int
    given: str = ""
    """What of its device is its own, where the job's demand alone doesn't tell: see `shares`."""


@dataclass(slots=True)
class DeviceRow:
    """A registered device: what it said of itself and what operators decided."""

    device: str
    session: int
    """Highest session known; committed before its first grant (S1)."""
    boot_id: str
    instance_id: str
    previous_identity: str
    """`boot/instance` before this one, for noticing two devices under one id (S4)."""
    inventory: int
    profile: str
    capacity: Resources
    labels: dict[str, str]
    runtimes: tuple[str, ...]
    containment: str
    heartbeat_ms: int
    version: str
    cordoned: bool
    draining: bool
    quarantined: bool
    removed: bool
    settings_epoch: int
    settings_number: int
    created_at: int
    limits: str = ""
    accelerators: tuple[tuple[str, str, int], ...] = ()
    """(name, model, milli)."""
    extras: dict[str, int] = field(default_factory=dict)
    core_speed_milli: int = 1_000
    taints: tuple[str, ...] = ()
    """`key=value:effect`, set by operators."""
    doubt: str = ""
    """Why it is in quarantine, when not for a second identity."""


@dataclass(slots=True)
class DocumentRow:
    """The present revision of a device's `Assignments`; its content is the attempts listed by it."""

    device: str
    epoch: int
    number: int


@dataclass(slots=True)
class AuditRow:
    """One state change: who did what to which object, and why. Appended."""

    at: int
    actor: str
    what: str
    """`task`, `job`, `device`, `fleet`."""
    object: str
    old: str
    new: str
    device: str = ""
    attempt: int = 0
    reason: str = ""


@dataclass(slots=True)
class OutputRow:
    """A piece of an attempt's output. Appended; the same (task, attempt, stream, offset) is kept once."""

    task: str
    attempt: int
    stream: int
    offset: int
    data: bytes
    last: bool


@dataclass(slots=True)
class FleetRow:
    """Facts of the whole fleet by name: `wait_until`, `attempt_floor`, `clean_stop`, …; text values."""

    name: str
    value: str


@dataclass(slots=True)
class LeaderRow:
    """Leadership: rule L6. `renewed_at` is the database server's wall clock in ms."""

    epoch: int
    holder: str
    renewed_at: int


Row = JobRow | TaskRow | AttemptRow | DeviceRow | DocumentRow | AuditRow | OutputRow | FleetRow | LeaderRow

KEYS: dict[type, tuple[str, ...]] = {
    JobRow: ("id",),
    TaskRow: ("id",),
    AttemptRow: ("task", "attempt"),
    DeviceRow: ("device",),
    DocumentRow: ("device",),
    FleetRow: ("name",),
}
"""Key fields of the tables that replace; the others are appended."""

AnyRow = TypeVar("AnyRow")
_FIELDS: dict[type, Callable[[Any], tuple[Any, ...]]] = {}


def clone(row: AnyRow) -> AnyRow:
    """A copy of a row; a third of what `copy.copy` takes. What is inside is never changed by anybody."""
    cls = type(row)
    read = _FIELDS.get(cls)
    if read is None:
        read = _FIELDS[cls] = attrgetter(*[f.name for f in fields(cls)])  # type: ignore[arg-type]
    return cls(*read(row))


@dataclass(slots=True)
class Snapshot:
    """All that a core is built from: open work, every device, recent attempts.

    `jobs` are the open ones; `tasks` those of open jobs that are not final; `attempts`
    those not free, or free but still listed (`until` > the document's number).
    `recent` maps (task, attempt) to the device of attempts that ended lately, newest
    last, so that their late output still finds its owner.
    """

    leader: LeaderRow
    jobs: list[JobRow] = field(default_factory=list)
    tasks: list[TaskRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    devices: list[DeviceRow] = field(default_factory=list)
    documents: list[DocumentRow] = field(default_factory=list)
    fleet: dict[str, str] = field(default_factory=dict)
    recent: list[tuple[str, int, str]] = field(default_factory=list)
    keys: list[tuple[str, str, str]] = field(default_factory=list)
    """(idempotency key, job, fingerprint) of the newest `KEYS_MAX` jobs that have one, oldest first."""
    final_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each open job: how many of its tasks are in each final state."""
    closed: list[JobRow] = field(default_factory=list)
    """Jobs that are over while an attempt of theirs is still held: it keeps its room."""
