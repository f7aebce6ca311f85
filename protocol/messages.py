"""Every wire message: one dataclass each, declaring its channel, QoS and retain.

Integer keys are never reused. Who reads a message ignores keys it does not know.
Identity is not in here: the device comes from the topic, which the broker's ACL guards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from protocol import limits as lim
from protocol.fields import Blob, Choice, Flag, Int, Ints, Many, Record, Table, Text, wire
from protocol.resources import NAMES, ZERO, Resources
from protocol.tasks import Guarantee, RunState

TASK_PATTERN = r"[a-z0-9][a-z0-9._-]*"
_TASK = Text(100, TASK_PATTERN)
_WORD = Text(100)
_REASON = Text(lim.REASON_CHARS_MAX)
_SESSION = Int(0, lim.SESSION_MAX)
_RESOURCES = Ints(Resources, len(NAMES), lim.MIB_MAX, least=4)


class Revision(NamedTuple):
    """Of what comes down: compared in this order, numbers never go back."""

    epoch: int
    number: int


NO_REVISION = Revision(0, 0)
_REVISION = Ints(Revision, 2)


class Held(NamedTuple):
    """What a device holds, as its heartbeat names it; one row because a heartbeat is small."""

    epoch: int
    number: int
    runs: int
    inventory: int
    settings_epoch: int
    settings_number: int

    @property
    def assignments(self) -> Revision:
        return Revision(self.epoch, self.number)

    @property
    def settings(self) -> Revision:
        return Revision(self.settings_epoch, self.settings_number)


class Used(NamedTuple):
    """What a device measures of itself."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int


class Health(NamedTuple):
    """How a device fares; `flags` 0: it says nothing. A level, told again when it changes."""

    flags: int = 0
    """Bits: 1 known, 2 throttled, 4 undervoltage, 8 on battery, 16 metered link."""
    temperature_c: int = 0
    battery_percent: int = 0
    wear_percent: int = 0
    """Of its storage's rated life that is used up; 0 unknown."""
    latency_ms: int = 0
    """Measured round trip of its last answered heartbeats."""


HEALTH_KNOWN, THROTTLED, UNDERVOLTAGE, ON_BATTERY, METERED = 1, 2, 4, 8, 16
NO_HEALTH = Health()


class Message:
    """Base of all messages. `channel` names the topic level; `qos` and `retain` are the sender's."""

    __slots__ = ()
    channel: ClassVar[str]
    qos: ClassVar[int] = 1
    retain: ClassVar[bool] = False


# ------------------------------------------------------------------------- up


@dataclass(slots=True)
class Status(Message):
    """Birth, orderly goodbye and last will of a session."""

    channel: ClassVar[str] = "status"
    retain: ClassVar[bool] = True
    online: bool = wire(1, Flag())
    session: int = wire(2, _SESSION)
    boot_id: str = wire(3, _WORD)
    instance_id: str = wire(4, _WORD)
    reason: str = wire(5, _REASON, "")


@dataclass(slots=True)
class Heartbeat(Message):
    """Sign of life, measured use, and the request for the lease."""

    channel: ClassVar[str] = "heartbeat"
    qos: ClassVar[int] = 0
    session: int = wire(1, _SESSION)
    seq: int = wire(2, Int())
    held: Held = wire(4, Ints(Held, 6))
    used: Used = wire(3, Ints(Used, 3, lim.MIB_MAX), Used(0, 0, 0))
    health: Health = wire(5, Ints(Health, 5, lim.HEALTH_MAX), NO_HEALTH)
    """Left out while it is as it was told in this session, and once a minute repeated."""


@dataclass(slots=True)
class RunEntry:
    """One attempt that a device holds, or held and has not been told to forget."""

    task: str = wire(1, _TASK)
    attempt: int = wire(2, Int(1))
    state: RunState = wire(3, Choice(RunState))
    exit_code: int = wire(4, Int(-1, 255), -1)
    """-1: none (not ended, or ended by a signal)."""
    signal: int = wire(5, Int(0, 255), 0)
    reason: str = wire(6, _REASON, "")


@dataclass(slots=True)
class Runs(Message):
    """The reported document: every attempt the device holds. Revision (session, number)."""

    channel: ClassVar[str] = "runs"
    retain: ClassVar[bool] = True
    session: int = wire(1, _SESSION)
    number: int = wire(2, Int())
    answers: Revision = wire(3, _REVISION)
    """The assignments revision it was made under."""
    entries: tuple[RunEntry, ...] = wire(4, Many(Record(RunEntry), 2 * lim.DOCUMENT_ATTEMPTS_MAX), ())


@dataclass(slots=True)
class Accelerator:
    """One accelerator of a device, by the name that its runs get; shares are thousandths of it."""

    name: str = wire(1, _WORD)
    model: str = wire(2, _WORD, "")
    milli: int = wire(3, Int(1, 1_000), 1_000)


@dataclass(slots=True)
class Inventory(Message):
    """What a device is: profile, capacity, labels, runtimes, versions."""

    channel: ClassVar[str] = "inventory"
    retain: ClassVar[bool] = True
    number: int = wire(1, Int())
    session: int = wire(2, _SESSION)
    profile: str = wire(3, _WORD)
    capacity: Resources = wire(4, _RESOURCES)
    labels: dict[str, str] = wire(5, Table(_WORD, Text(lim.LABEL_CHARS_MAX), lim.LABELS_MAX), {})
    runtimes: tuple[str, ...] = wire(6, Many(_WORD, 16), ())
    version: str = wire(7, _WORD, "")
    boot_id: str = wire(8, _WORD, "")
    containment: str = wire(9, Text(10, "strong|weak"), "strong")
    heartbeat_ms: int = wire(10, Int(lim.HEARTBEAT_MS_MIN, lim.LEASE_MS_MAX), lim.HEARTBEAT_MS)
    limits: str = wire(11, _WORD, "")
    """How task limits are enforced here: `cgroup2`, `cgroup1`, `rlimit`, or empty."""
    accelerators: tuple[Accelerator, ...] = wire(12, Many(Record(Accelerator), lim.ACCELERATORS_MAX), ())
    """Without names, `gpu_milli` of the capacity counts as accelerators of 1,000 each."""
    extras: dict[str, int] = wire(13, Table(_WORD, Int(0, lim.MIB_MAX), lim.EXTRAS_MAX), {})
    """Countable things that only this site knows: cameras, licences, serial ports."""
    core_speed_milli: int = wire(14, Int(1, 1_000_000), 1_000)
    """Speed of one core; 1,000 is one core of a Raspberry Pi 4B."""


@dataclass(slots=True)
class OutputChunk(Message):
    """A piece of an attempt's captured output, out of the device's bounded outbox."""

    channel: ClassVar[str] = "output"
    outbox: int = wire(1, _SESSION)
    """Which outbox numbers this: the first session of the agent process."""
    base: int = wire(2, Int(1))
    """Everything below this seq was trimmed; a controller without memory starts here."""
    seq: int = wire(3, Int(1))
    task: str = wire(4, _TASK)
    attempt: int = wire(5, Int(1))
    stream: int = wire(6, Int(1, 2))
    """1 standard output, 2 standard error."""
    offset: int = wire(7, Int())
    data: bytes = wire(8, Blob(lim.OUTPUT_CHUNK_BYTES_MAX), b"")
    last: bool = wire(9, Flag(), False)
    """Nothing of this stream follows."""


@dataclass(slots=True)
class Answer(Message):
    """Answer to a command, by its id."""

    channel: ClassVar[str] = "answer"
    id: str = wire(1, _WORD)
    ok: bool = wire(2, Flag())
    detail: str = wire(3, Text(1_000), "")


# ------------------------------------------------------------------------- down


@dataclass(slots=True)
class AssignedAttempt:
    """One attempt that a device should hold, with all that is needed to start it."""

    task: str = wire(1, _TASK)
    attempt: int = wire(2, Int(1))
    runtime: str = wire(3, _WORD)
    command: tuple[str, ...] = wire(4, Many(Text(lim.ARGV_ITEM_CHARS_MAX), lim.ARGV_ITEMS_MAX))
    env: dict[str, str] = wire(5, Table(_WORD, Text(lim.ARGV_ITEM_CHARS_MAX), lim.ENV_ITEMS_MAX), {})
    resources: Resources = wire(6, _RESOURCES, ZERO)
    guarantee: Guarantee = wire(7, Choice(Guarantee), Guarantee.AT_MOST_ONE)
    lease_ms: int = wire(8, Int(lim.LEASE_MS_MIN, lim.LEASE_MS_MAX), lim.LEASE_MS)
    timeout_ms: int = wire(9, Int(0, lim.DURATION_MS_MAX), 0)
    stop_grace_ms: int = wire(10, Int(0, lim.STOP_GRACE_MS_MAX), lim.STOP_GRACE_MS)
    output_bytes_max: int = wire(11, Int(0, lim.OUTPUT_BYTES_CEILING), lim.OUTPUT_BYTES_MAX)
    accelerators: tuple[str, ...] = wire(12, Many(_WORD, lim.ACCELERATORS_MAX), ())
    """Names of the accelerators that are its own, or that it has a share of."""


@dataclass(slots=True)
class Assignments(Message):
    """The desired document: every attempt the device should hold, in full. An invitation (D2)."""

    channel: ClassVar[str] = "assignments"
    retain: ClassVar[bool] = True
    revision: Revision = wire(1, _REVISION)
    attempts: tuple[AssignedAttempt, ...] = wire(
        2, Many(Record(AssignedAttempt), lim.DOCUMENT_ATTEMPTS_MAX), ()
    )


@dataclass(slots=True)
class LeaseAnswer(Message):
    """Answer to every heartbeat; a grant when `granted` names a revision."""

    channel: ClassVar[str] = "lease"
    qos: ClassVar[int] = 0
    epoch: int = wire(1, Int())
    session: int = wire(2, _SESSION)
    seq: int = wire(3, Int())
    granted: Revision = wire(4, _REVISION, NO_REVISION)
    runs: int = wire(5, Int(), 0)
    """Number of the `Runs` of this session that is processed and saved; 0 none."""
    inventory: int = wire(6, Int(), 0)
    outbox: int = wire(7, _SESSION, 0)
    stored: int = wire(8, Int(), 0)
    """Everything of `outbox` up to this seq is stored."""


@dataclass(slots=True)
class Settings(Message):
    """What the controller asks of a device's manner of speaking; carries the session floor."""

    channel: ClassVar[str] = "settings"
    retain: ClassVar[bool] = True
    revision: Revision = wire(1, _REVISION)
    session_floor: int = wire(2, _SESSION, 0)
    heartbeat_ms: int = wire(3, Int(0, lim.LEASE_MS_MAX), 0)
    """0: the device's own period."""
    quarantined: bool = wire(4, Flag(), False)
    reconnect_base_ms: int = wire(5, Int(0, 600_000), 0)


@dataclass(slots=True)
class Command(Message):
    """One-off, safe to receive late, twice and out of order; never retained."""

    channel: ClassVar[str] = "command"
    id: str = wire(1, _WORD)
    session: int = wire(2, _SESSION)
    epoch: int = wire(3, Int())
    issue: int = wire(4, Int())
    ttl_ms: int = wire(5, Int(0, lim.DURATION_MS_MAX))
    verb: str = wire(6, _WORD)


# ------------------------------------------------------------------------- fleet-wide


@dataclass(slots=True)
class ControllerStatus(Message):
    """Who leads, for people and tools; nothing decides by it. Also the canary's payload."""

    channel: ClassVar[str] = "status"
    retain: ClassVar[bool] = True
    online: bool = wire(1, Flag())
    leader: str = wire(2, _WORD)
    epoch: int = wire(3, Int())


@dataclass(slots=True)
class Canary(Message):
    """The controller's letter to itself: proof that the broker still carries messages."""

    channel: ClassVar[str] = "canary"
    epoch: int = wire(1, Int())
    number: int = wire(2, Int())


MessageClass = type[Any]
DEVICE_MESSAGES: dict[str, MessageClass] = {
    cls.channel: cls
    for cls in (
        Status,
        Heartbeat,
        Runs,
        Inventory,
        OutputChunk,
        Answer,
        Assignments,
        LeaseAnswer,
        Settings,
        Command,
    )
}
"""Message class by channel of a device topic."""
FLEET_MESSAGES: dict[str, MessageClass] = {cls.channel: cls for cls in (ControllerStatus, Canary)}
"""Message class by channel of the `_controller` topic."""
