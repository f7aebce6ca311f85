"""What happens to the controller, beside the words shared with the agent.

Requests carry a number that their `Reply` repeats, and the actor for the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt

from controller.core.changes import Change
from controller.core.records import JobRules, TaskSpec
from protocol.core import Event
from protocol.messages import Heartbeat
from protocol.tasks import Guarantee, JobKind


@dataclass(slots=True)
class HeartbeatBatch(Event):
    """Heartbeats as columns, one row each, in order of arrival.

    `devices`: names from the topics. `held` is (n, 6): epoch, number, runs, inventory,
    settings epoch, settings number. `used` is (n, 3): cpu_milli, memory_mib, disk_mib.
    `rows`: of these devices, all known, as `Controller.rows` told them to who asks for the
    same ones again and again; they hold for the life of a core.
    """

    devices: Sequence[str]
    sessions: npt.NDArray[np.uint64]
    seqs: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None = None
    health: npt.NDArray[np.int64] | None = None
    """(n, 5) as in `protocol.messages.Health`; None: nobody says anything."""

    def of(self, which: npt.NDArray[np.bool_]) -> HeartbeatBatch:
        """Only those rows."""
        devices = list(compress(self.devices, which))
        rows = None if self.rows is None else self.rows[which]
        health = None if self.health is None else self.health[which]
        return HeartbeatBatch(
            devices, self.sessions[which], self.seqs[which], self.held[which], self.used[which], rows, health
        )


def heartbeat_batch(gathered: list[tuple[str, Heartbeat]]) -> HeartbeatBatch:
    """The columns of (device, heartbeat) pairs, at least one."""
    messages = [message for _, message in gathered]
    return HeartbeatBatch(
        [device for device, _ in gathered],
        np.array([m.session for m in messages], np.uint64),
        np.array([m.seq for m in messages], np.int64),
        np.array([m.held for m in messages], np.int64),
        np.array([m.used for m in messages], np.int64),
        health=np.array([m.health for m in messages], np.int64)
        if any(m.health.flags for m in messages)
        else None,
    )


@dataclass(slots=True)
class CanaryReturned(Event):
    """A controller's letter to itself came back; one of another leadership is not ours."""

    epoch: int
    number: int


@dataclass(slots=True)
class LeaderRenewed(Event):
    """The leader row was renewed; `asked_ms` is the core's time before it was asked."""

    asked_ms: int


@dataclass(slots=True)
class WallClockRead(Event):
    """`wall_ms` minus the core's time, for stamps on records."""

    offset_ms: int


@dataclass(slots=True)
class JobSubmitted(Event):
    """A validated job. `job` is the id chosen for it; `fingerprint` of the request body."""

    request: int
    job: str
    name: str
    kind: JobKind
    count: int
    priority: int
    guarantee: Guarantee
    max_attempts: int
    ttl_ms: int
    lease_ms: int
    spec: TaskSpec
    actor: str
    idempotency_key: str = ""
    fingerprint: str = ""
    rules: JobRules = field(default_factory=JobRules)
    closed: dict[str, str] = field(default_factory=dict)
    """State of jobs that are over, of those it depends on: the core knows only open ones."""


@dataclass(slots=True)
class JobCancelled(Event):
    """Somebody wants the job to end."""

    request: int
    job: str
    actor: str


@dataclass(slots=True)
class DeviceDecision(Event):
    """An operator's decision on a device: `cordon`, `uncordon`, `drain`, `add`, `remove`; `taint` and
    `untaint` with the taint as `value`."""

    request: int
    device: str
    verb: str
    actor: str
    value: str = ""


@dataclass(slots=True)
class DevicePinged(Event):
    """Somebody wants a command round trip; `sent_us` is repeated in the reply."""

    request: int
    device: str
    sent_us: int


@dataclass(slots=True)
class FleetUnfrozen(Event):
    """An operator ends the freeze of failover."""

    request: int
    actor: str


@dataclass(slots=True)
class DevicesQueried(Event):
    """Views of devices in the order of their ids: those after `after`, at most `limit`; or just one."""

    request: int
    device: str = ""
    after: str = ""
    limit: int = 100


@dataclass(slots=True)
class FleetQueried(Event):
    """The overview."""

    request: int


@dataclass(slots=True)
class WaitsQueried(Event):
    """Why these pending tasks wait, one sentence each."""

    request: int
    tasks: tuple[str, ...]


@dataclass(slots=True)
class TaskExplained(Event):
    """Why a task is where it is, or nowhere."""

    request: int
    task: str


@dataclass(slots=True)
class PlanAsked(Event):
    """What would happen if all of `changes` came, one after the other; nothing is changed.

    `survive`: also, what would break if any one site (1) or any two (2) were lost after that.
    """

    request: int
    changes: tuple[Change, ...]
    survive: int = 0


@dataclass(slots=True)
class RebalanceAsked(Event):
    """Somebody wants a plan of voluntary moves. `dry_run`: only to look at; `approve`: begin it at once.

    `moves_max`: at most so many moves; 0: as the fleet's rules say. `task`: a pending one that room is to
    be made for; empty: the fleet is to be levelled.
    """

    request: int
    actor: str
    dry_run: bool = False
    approve: bool = False
    moves_max: int = 0
    task: str = ""


@dataclass(slots=True)
class RebalanceDecided(Event):
    """A plan is approved or, where `approve` is false, rejected; what is on its way then goes on."""

    request: int
    plan: str
    approve: bool
    actor: str


@dataclass(slots=True)
class RebalancesQueried(Event):
    """All plans of voluntary moves that are remembered, or one with its moves."""

    request: int
    plan: str = ""
