"""What the core answers to people: plain frozen pictures of its state.

Built on request, behind the same barrier as everything else, so no answer shows what
is not yet saved. The API turns them into JSON; nothing here knows HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.messages import NO_HEALTH, Health
from protocol.resources import Resources


@dataclass(slots=True)
class RefusalView:
    """A legal "no": `code` is stable (`not_found`, `conflict`, …)."""

    code: str
    detail: str


@dataclass(slots=True)
class SubmittedView:
    """The job that a submit made, or made before (`replayed`)."""

    job: str
    replayed: bool = False
    tasks: int = 0
    """How many it has from the start: of a daemon, one per device that matches."""


@dataclass(slots=True)
class DoneView:
    """A decision was taken and saved."""

    object: str


@dataclass(slots=True)
class PingView:
    """A device answered; `sent_us` is the asker's own stamp."""

    device: str
    sent_us: int
    detail: str


@dataclass(slots=True)
class DeviceView:
    """One device; `state` is `online`, `suspect` or `offline`."""

    id: str
    state: str
    cordoned: bool
    draining: bool
    quarantined: bool
    profile: str
    labels: dict[str, str]
    runtimes: tuple[str, ...]
    containment: str
    limits: str
    version: str
    capacity: Resources
    reserved: Resources
    free: Resources
    used: Resources
    session: int
    tasks: int
    last_heartbeat_ms_ago: int | None
    document: tuple[int, int]
    granted: bool
    heartbeat_ms: int = 0
    accelerators: tuple[tuple[str, str, int], ...] = ()
    """(name, model, milli)."""
    extras: dict[str, int] = field(default_factory=dict)
    core_speed_milli: int = 1_000
    taints: tuple[str, ...] = ()
    doubt: str = ""
    """Why it is in quarantine, when not for a second identity."""
    health: Health = NO_HEALTH


@dataclass(slots=True)
class DevicesView:
    """A page of devices; `next` is the last id when more follow."""

    items: list[DeviceView]
    next: str = ""


@dataclass(slots=True)
class FleetView:
    """The overview: counts by word, sums by resource, what is wrong."""

    devices: dict[str, int]
    tasks: dict[str, int]
    jobs_open: int
    capacity: Resources
    reserved: Resources
    free: Resources
    frozen: str
    """Why failover is frozen; empty when it is not."""
    waiting_ms: int
    """How long until placement begins after a take-over; 0 when it has."""
    alarms: list[str]
    garbage: dict[str, int]
    counters: dict[str, int]
    epoch: int
    leader: str
    uptime_ms: int
    pending: dict[str, int] = field(default_factory=dict)
    """Tasks that wait, by reason."""
    balance: dict[str, float] = field(default_factory=dict)
    """How evenly devices are loaded: the figures of `balance_views.BalanceView` by name."""


@dataclass(slots=True)
class WaitsView:
    """Why tasks wait; those that no longer do are left out."""

    reasons: dict[str, str]


@dataclass(slots=True)
class ScoreView:
    """One candidate: the total and its parts, each 0…1."""

    device: str
    score: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class FilterView:
    """One filter: how many devices it removed, and what would have passed."""

    filter: str
    removed: int
    reason: str = ""


@dataclass(slots=True)
class RemedyView:
    """One change after which a pending task would be placed; see `scheduler.remedies` for kinds.

    `name` says of what, `device` where (empty: the job changes), `amount` by or to how much;
    `devices`: how many devices the same kind of change would open; `words`: the change, to be read.
    """

    kind: str
    name: str
    device: str
    amount: int
    cost: float
    devices: int
    words: str


@dataclass(slots=True)
class ExplainView:
    """Why a task is where it is, or nowhere. `reason`: a code out of a bounded set, empty when placed."""

    task: str
    state: str
    device: str
    summary: str
    filters: list[FilterView] = field(default_factory=list)
    scores: list[ScoreView] = field(default_factory=list)
    reason: str = ""
    policy: str = ""
    """The policy that chooses, and what it is good for."""
    remedies: list[RemedyView] = field(default_factory=list)
    chosen: list[ScoreView] = field(default_factory=list)
    """Of a placed one: its device and the best others when it was placed, totals alone; empty if not kept."""
