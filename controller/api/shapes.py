"""Shapes: what the API answers, as types; OpenAPI is made from them.

Rule: a field, once published, keeps its name, type and meaning; fields are only added.
Units stand last in a name; moments are RFC 3339 in UTC with milliseconds, or null.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class ResourcesShape(TypedDict):
    cpu_milli: int
    memory_mib: int
    disk_mib: int
    gpu_milli: int
    up_kbit_s: int
    down_kbit_s: int
    slots: int


class UsedShape(TypedDict):
    """What a device measures of itself; null until its first heartbeat. Nothing else is measured."""

    cpu_milli: int | None
    memory_mib: int | None
    disk_mib: int | None


class ConstraintShape(TypedDict):
    attribute: str
    operator: str
    value: str


class AffinityShape(ConstraintShape):
    weight: int


class SpreadShape(TypedDict):
    attribute: str
    weight: int
    targets: dict[str, int]


class TaskSpecShape(TypedDict):
    runtime: str
    command: list[str]
    env: dict[str, str]
    resources: ResourcesShape
    constraints: list[ConstraintShape]
    timeout_ms: int
    stop_grace_ms: int
    accelerator_models: list[str]
    extras: dict[str, int]
    reference_cpu: bool
    affinities: list[AffinityShape]
    spreads: list[SpreadShape]
    tolerations: list[str]


class DependencyShape(TypedDict):
    job: str
    until: str


class TaskCountsShape(TypedDict):
    """How many tasks are in each state."""

    pending: int
    assigned: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class JobShape(TypedDict):
    id: str
    name: str
    kind: str
    count: int
    priority: int
    guarantee: str
    max_attempts: int
    ttl_ms: int
    lease_ms: int
    task: TaskSpecShape
    state: str
    desired: str
    created: str
    changed: str
    actor: str
    tasks: TaskCountsShape
    policy: str
    owner: str
    gang: bool
    parallel_max: int
    depends_on: list[DependencyShape]
    on_return: str
    schedule: str
    zone: str
    overlap: bool
    missed: str
    parent: str


class TaskShape(TypedDict):
    id: str
    job: str
    state: str
    desired: str
    device: str
    attempt: int
    exit_code: int | None
    reason: str
    created: str
    changed: str


class AttemptShape(TypedDict):
    attempt: int
    device: str
    state: str
    exit_code: int | None
    signal: int | None
    reason: str
    created: str
    started: str | None
    ended: str | None


StoryShape = TypedDict(
    "StoryShape",
    {
        "at": str,
        "actor": str,
        "what": str,
        "from": str,
        "to": str,
        "device": str,
        "attempt": int,
        "reason": str,
    },
)


class TaskDetailShape(TaskShape):
    attempts: list[AttemptShape]
    story: list[StoryShape]


class FilterShape(TypedDict):
    filter: str
    removed: int
    reason: str


class ScoreShape(TypedDict):
    device: str
    score: float
    parts: dict[str, float]


class ChosenShape(TypedDict):
    """A device and its score when the task was placed."""

    device: str
    score: float


class RemedyShape(TypedDict):
    """One change after which a pending task would be placed."""

    kind: str
    name: str
    device: str
    amount: int
    cost: float
    devices: int
    words: str


class ExplainShape(TypedDict):
    task: str
    state: str
    device: str
    placed: bool
    summary: str
    filters: list[FilterShape]
    scores: list[ScoreShape]
    reason: str
    policy: str
    remedies: list[RemedyShape]
    chosen: list[ChosenShape]


class DocumentShape(TypedDict):
    """The present revision of a device's assignments."""

    epoch: int
    number: int


class AcceleratorShape(TypedDict):
    name: str
    model: str
    milli: int


class FitnessShape(TypedDict):
    """How a device fares, as it told last; 0 is unknown for wear."""

    throttled: bool
    undervoltage: bool
    on_battery: bool
    metered: bool
    temperature_c: int
    battery_percent: int
    wear_percent: int
    latency_ms: int


class DeviceShape(TypedDict):
    id: str
    state: str
    cordoned: bool
    draining: bool
    quarantined: bool
    profile: str
    labels: dict[str, str]
    capacity: ResourcesShape
    reserved: ResourcesShape
    free: ResourcesShape
    used: UsedShape
    session: int
    runtimes: list[str]
    containment: str
    limits: str
    version: str
    tasks: int
    last_heartbeat_ms_ago: int | None
    document: DocumentShape
    granted: bool
    heartbeat_ms: int
    accelerators: list[AcceleratorShape]
    extras: dict[str, int]
    core_speed_milli: int
    taints: list[str]
    doubt: str
    health: FitnessShape | None


class AddedDeviceShape(TypedDict):
    """`agent_toml` holds the device's credential; it is shown this once."""

    id: str
    agent_toml: str


class PingShape(TypedDict):
    rtt_us: int


class FleetShape(TypedDict):
    devices: dict[str, int]
    tasks: dict[str, int]
    jobs: dict[str, int]
    capacity: ResourcesShape
    reserved: ResourcesShape
    free: ResourcesShape
    frozen: str
    waiting_ms: int
    alarms: list[str]
    garbage: dict[str, int]
    epoch: int
    leader: str
    uptime_ms: int
    version: str


class JobPage(TypedDict):
    items: list[JobShape]
    next: str | None


class TaskPage(TypedDict):
    items: list[TaskShape]
    next: str | None


class DevicePage(TypedDict):
    items: list[DeviceShape]
    next: str | None


class HealthShape(TypedDict):
    status: str


class ReadinessShape(TypedDict):
    ready: bool
    checks: dict[str, bool]
    standby_of: NotRequired[str]


class VersionShape(TypedDict):
    version: str
    api: str
    protocol: int
