"""The shape of a profile, and the strict reader from a parsed table to it.

Rule of this file: every key is required, an unknown key or a wrong type is an error that
names the file and the key, and every number has its bounds beside it. It knows nothing of
files; `loader` does.
Rejected: defaults (a board whose clock is unknown must say so, not inherit a guess).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar, cast

from protocol.errors import RemoteGarbage
from protocol.fields import Record
from protocol.limits import (
    ACCELERATORS_MAX,
    DOCUMENT_ATTEMPTS_MAX,
    HEARTBEAT_MS_MIN,
    INT_MAX,
    MIB_MAX,
    MILLI_MAX,
)
from protocol.messages import Accelerator
from protocol.resources import Resources
from protocol.topics import valid_id

RUNTIMES = ("process", "python", "container", "simulated")
UPDATE_METHODS = ("none", "package", "image", "a-b")
_DAY_MS = 86_400_000


class ProfileError(ValueError):
    """A profile that can't be used: `source` is the file, `key` the dotted path of the field."""

    def __init__(self, source: str, key: str, problem: str) -> None:
        super().__init__(f"{source}: {key}: {problem}" if key else f"{source}: {problem}")
        self.source = source
        self.key = key
        self.problem = problem


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ACCELERATOR_NAME = "expected letters, digits, dots, dashes and underscores, at most 100"


def is_accelerator_name(name: str) -> bool:
    """Whether a run can be told it, in a list with commas."""
    return _NAME.fullmatch(name) is not None


def _bounded(low: float, high: float) -> dict[str, object]:
    return {"low": low, "high": high}


def _among(*words: str) -> dict[str, object]:
    return {"words": words}


@dataclass(slots=True, frozen=True)
class Capacity:
    """What the board has. 0 for cores, memory or disk: the agent measures the machine."""

    cores: int = field(metadata=_bounded(0, 1_024))
    core_speed_milli: int = field(metadata=_bounded(1, 100_000))
    """Speed of one core at one thread; 1,000 is one core of a Raspberry Pi 4B."""
    memory_mib: int = field(metadata=_bounded(0, MIB_MAX))
    """As Linux sees it (MemTotal), which is less than what is printed on the chip."""
    system_memory_mib: int = field(metadata=_bounded(0, MIB_MAX))
    """Of it, what the system and the agent need: never offered to tasks."""
    disk_mib: int = field(metadata=_bounded(0, MIB_MAX))
    gpu_milli: int = field(metadata=_bounded(0, 1_000_000))
    """The sum over its accelerators; without names it counts as accelerators of 1,000 each."""
    accelerators: tuple[Accelerator, ...]
    slots: int = field(metadata=_bounded(0, DOCUMENT_ATTEMPTS_MAX))
    """Tasks at once; 0: as many as its document holds."""

    @property
    def measured(self) -> bool:
        """Whether the machine itself must be asked."""
        return not (self.cores and self.memory_mib and self.disk_mib)

    def for_tasks(self, memory_mib: int) -> int:
        """Of so much memory, what the system and the agent leave; of a small machine at least half."""
        return max(memory_mib - self.system_memory_mib, memory_mib // 2)


@dataclass(slots=True, frozen=True)
class Room:
    """What of its capacity may be promised: capacity x overcommit - headroom."""

    cpu_overcommit_milli: int = field(metadata=_bounded(1_000, 100_000))
    """1,000 is none. What tasks reserve and don't use may be promised again."""
    memory_overcommit_milli: int = field(metadata=_bounded(1_000, 10_000))
    """Memory can't be slowed down: who overcommits it lets the kernel choose whom to kill."""
    disk_overcommit_milli: int = field(metadata=_bounded(1_000, 10_000))
    headroom_cpu_milli: int = field(metadata=_bounded(0, MILLI_MAX))
    """Kept back, beside what the system takes: for whoever logs in, for bursts."""
    headroom_memory_mib: int = field(metadata=_bounded(0, MIB_MAX))
    headroom_disk_mib: int = field(metadata=_bounded(0, MIB_MAX))


@dataclass(slots=True, frozen=True)
class Firmware:
    """What runs on it."""

    system: str
    update_method: str = field(metadata=_among(*UPDATE_METHODS))
    runtimes: tuple[str, ...] = field(metadata=_among(*RUNTIMES))
    sensors: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Presence:
    """How often it speaks."""

    heartbeat_ms: int = field(metadata=_bounded(HEARTBEAT_MS_MIN, _DAY_MS))
    keep_alive_ms: int = field(metadata=_bounded(1_000, 65_535_000))


@dataclass(slots=True, frozen=True)
class LinkQuality:
    """Its network as a simulator draws it: one way, device to broker."""

    kind: str = field(metadata=_among("ethernet", "wifi", "cellular", "any"))
    latency_p50_ms: int = field(metadata=_bounded(0, _DAY_MS))
    latency_p99_ms: int = field(metadata=_bounded(0, _DAY_MS))
    loss_permille: int = field(metadata=_bounded(0, 1_000))
    """QoS 0 messages that never arrive, retransmission included."""
    uplink_kbit_s: int = field(metadata=_bounded(1, 10**9))
    downlink_kbit_s: int = field(metadata=_bounded(1, 10**9))
    """These two are also what tasks may reserve of it."""
    cost_micro_per_mib: int = field(metadata=_bounded(0, INT_MAX))
    """Millionths of the operator's currency for one MiB; 0: not metered."""


@dataclass(slots=True, frozen=True)
class Power:
    """The whole board at its supply; 0: unknown."""

    idle_mw: int = field(metadata=_bounded(0, 10**9))
    busy_mw: int = field(metadata=_bounded(0, 10**9))
    """All cores at work."""


@dataclass(slots=True, frozen=True)
class ClockQuality:
    """Whether it knows the time after power loss, and how fast its crystal strays."""

    rtc: bool
    drift_ppm: int = field(metadata=_bounded(0, 10_000))


@dataclass(slots=True, frozen=True)
class Behaviour:
    """What a simulator needs to play one."""

    boot_ms: int = field(metadata=_bounded(0, _DAY_MS))
    """Power on until the agent connects."""
    failures_per_day: float = field(metadata=_bounded(0, 1_000))
    """Unplanned reboots and power losses, in the mean."""


@dataclass(slots=True, frozen=True)
class Profile:
    """One device class."""

    name: str
    title: str
    capacity: Capacity
    room: Room
    firmware: Firmware
    presence: Presence
    link: LinkQuality
    power: Power
    clock: ClockQuality
    behaviour: Behaviour

    def resources(self) -> Resources:
        """The capacity of a device of this class; zero where it must be measured."""
        has, link = self.capacity, self.link
        memory_mib = has.for_tasks(has.memory_mib) if has.memory_mib else 0
        board = (has.cores * 1_000, memory_mib, has.disk_mib, has.gpu_milli)
        return Resources(*board, link.uplink_kbit_s, link.downlink_kbit_s, has.slots)

    def offered(self, capacity: Resources) -> Resources:
        """What may be promised in all on a device of this class that has so much; never negative."""
        room = self.room
        return capacity._replace(
            cpu_milli=_offer(capacity.cpu_milli, room.cpu_overcommit_milli, room.headroom_cpu_milli),
            memory_mib=_offer(capacity.memory_mib, room.memory_overcommit_milli, room.headroom_memory_mib),
            disk_mib=_offer(capacity.disk_mib, room.disk_overcommit_milli, room.headroom_disk_mib),
            slots=min(capacity.slots or DOCUMENT_ATTEMPTS_MAX, DOCUMENT_ATTEMPTS_MAX),
        )


def _offer(has: int, overcommit_milli: int, headroom: int) -> int:
    return max(0, has * overcommit_milli // 1_000 - headroom)


_PARTS: dict[str, type] = {
    "capacity": Capacity,
    "room": Room,
    "firmware": Firmware,
    "presence": Presence,
    "link": LinkQuality,
    "power": Power,
    "clock": ClockQuality,
    "behaviour": Behaviour,
}
_ACCELERATOR = Record(Accelerator)
_T = TypeVar("_T")


def read_profile(table: Mapping[str, object], source: str) -> Profile:
    """A parsed TOML document -> profile. Raises `ProfileError`."""
    _same_keys(table, tuple(item.name for item in fields(Profile)), source, "")
    for key in _PARTS:
        if not isinstance(table[key], dict):
            raise ProfileError(source, key, "expected a table")
    words = {key: str(_value(table[key], "str", {}, source, key)) for key in ("name", "title")}
    if not valid_id(words["name"]):
        raise ProfileError(source, "name", "expected letters, digits and hyphens")
    parts: dict[str, object] = {key: _part(part, table[key], source, key) for key, part in _PARTS.items()}
    profile = Profile(**words, **parts)  # type: ignore[arg-type]
    _check(profile, source)
    return profile


def _part(kind: type[_T], table: object, source: str, path: str) -> _T:
    values = cast(Mapping[str, object], table)
    wanted = fields(kind)  # type: ignore[arg-type]
    _same_keys(values, tuple(item.name for item in wanted), source, path)
    found = {
        item.name: _value(values[item.name], str(item.type), item.metadata, source, f"{path}.{item.name}")
        for item in wanted
    }
    return kind(**found)


def _same_keys(table: Mapping[str, object], wanted: tuple[str, ...], source: str, path: str) -> None:
    prefix = f"{path}." if path else ""
    for key in table:
        if key not in wanted:
            raise ProfileError(source, f"{prefix}{key}", "unknown key")
    for key in wanted:
        if key not in table:
            raise ProfileError(source, f"{prefix}{key}", "missing")


def _value(
    value: object, kind: str, rules: Mapping[str, object], source: str, path: str
) -> int | float | str | bool | tuple[str, ...] | tuple[Accelerator, ...]:
    """One field, by the name of its type; TOML's own types are exact, so nothing is converted."""
    if kind == "tuple[Accelerator, ...]" and isinstance(value, list):
        return tuple(_accelerator(item, source, f"{path}[{at}]") for at, item in enumerate(value))
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) or kind == "float":
            return _in_bounds(value, rules, source, path)
    if kind == "str" and isinstance(value, str):
        _known((value,), rules, source, path)
        return value
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(v, str) for v in value):
        words = tuple(str(v) for v in value)
        _known(words, rules, source, path)
        return words
    wanted = {
        "tuple[str, ...]": "a list of strings",
        "tuple[Accelerator, ...]": "a list of tables",
        "str": "a string",
        "bool": "true or false",
    }
    raise ProfileError(source, path, f"expected {wanted.get(kind, 'a number')}, got {value!r:.60}")


def _accelerator(value: object, source: str, path: str) -> Accelerator:
    """One table { name, model, milli }, in the bounds of the wire."""
    if not isinstance(value, dict):
        raise ProfileError(source, path, f"expected a table, got {value!r:.60}")
    _same_keys(value, ("name", "model", "milli"), source, path)
    try:
        return cast(Accelerator, _ACCELERATOR.read(value))
    except RemoteGarbage as error:
        raise ProfileError(source, path, error.detail) from None


def _in_bounds(value: float, rules: Mapping[str, object], source: str, path: str) -> float:
    low, high = cast(float, rules["low"]), cast(float, rules["high"])
    if not low <= value <= high:  # not-a-number fails too
        raise ProfileError(source, path, f"expected {low} to {high}, got {value}")
    return value


def _known(words: tuple[str, ...], rules: Mapping[str, object], source: str, path: str) -> None:
    allowed = cast("tuple[str, ...]", rules.get("words", ()))
    for word in words:
        if not word or (allowed and word not in allowed):
            raise ProfileError(source, path, f"unknown {word!r}; known: {', '.join(allowed) or 'any word'}")
    if len(words) != len(dict.fromkeys(words)):
        raise ProfileError(source, path, "something stands there twice")


def _check(profile: Profile, source: str) -> None:
    """What no single field can know."""
    capacity, link, power = profile.capacity, profile.link, profile.power
    if not profile.firmware.runtimes:
        raise ProfileError(source, "firmware.runtimes", "a device that can run nothing")
    if capacity.memory_mib and capacity.system_memory_mib >= capacity.memory_mib:
        raise ProfileError(source, "capacity.system_memory_mib", "leaves nothing for tasks")
    _check_accelerators(capacity, source)
    has, offered = profile.resources(), profile.offered(profile.resources())
    for name in ("cpu_milli", "memory_mib", "disk_mib"):
        if getattr(has, name) and not getattr(offered, name):
            raise ProfileError(source, f"room.headroom_{name}", "leaves nothing for tasks")
    if link.latency_p99_ms < link.latency_p50_ms:
        raise ProfileError(source, "link.latency_p99_ms", "is below the median")
    if power.busy_mw < power.idle_mw:
        raise ProfileError(source, "power.busy_mw", "is below idle")


def _check_accelerators(capacity: Capacity, source: str) -> None:
    """Names are what tasks are given and told, joined by commas; the sum must be their sum."""
    path, given = "capacity.accelerators", capacity.accelerators
    if len(given) > ACCELERATORS_MAX:
        raise ProfileError(source, path, f"more than {ACCELERATORS_MAX}")
    for at, one in enumerate(given):
        if not is_accelerator_name(one.name):
            raise ProfileError(source, f"{path}[{at}].name", ACCELERATOR_NAME)
    if len(dict.fromkeys(one.name for one in given)) != len(given):
        raise ProfileError(source, path, "one name stands there twice")
    total = sum(one.milli for one in given)
    if given and capacity.gpu_milli != total:
        raise ProfileError(source, "capacity.gpu_milli", f"must be the sum of its accelerators, {total}")
