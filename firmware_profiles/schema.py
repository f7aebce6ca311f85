"""The shape of a profile, and the strict reader from a parsed table to it.

Rule of this file: every key is required, an unknown key or a wrong type is an error that
names the file and the key, and every number has its bounds beside it. It knows nothing of
files; `loader` does.
Rejected: defaults (a board whose clock is unknown must say so, not inherit a guess).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar, cast

from protocol.limits import HEARTBEAT_MS_MIN, INT_MAX, MIB_MAX
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

    @property
    def measured(self) -> bool:
        """Whether the machine itself must be asked."""
        return not (self.cores and self.memory_mib and self.disk_mib)

    def resources(self) -> Resources:
        """What tasks may be given; zero where it must be measured."""
        memory_mib = max(0, self.memory_mib - self.system_memory_mib)
        return Resources(self.cores * 1_000, memory_mib, self.disk_mib, self.gpu_milli)


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
    firmware: Firmware
    presence: Presence
    link: LinkQuality
    power: Power
    clock: ClockQuality
    behaviour: Behaviour


_PARTS: dict[str, type] = {
    "capacity": Capacity,
    "firmware": Firmware,
    "presence": Presence,
    "link": LinkQuality,
    "power": Power,
    "clock": ClockQuality,
    "behaviour": Behaviour,
}
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
) -> int | float | str | bool | tuple[str, ...]:
    """One field, by the name of its type; TOML's own types are exact, so nothing is converted."""
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
    wanted = {"tuple[str, ...]": "a list of strings", "str": "a string", "bool": "true or false"}
    raise ProfileError(source, path, f"expected {wanted.get(kind, 'a number')}, got {value!r:.60}")


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
    if link.latency_p99_ms < link.latency_p50_ms:
        raise ProfileError(source, "link.latency_p99_ms", "is below the median")
    if power.busy_mw < power.idle_mw:
        raise ProfileError(source, "power.busy_mw", "is below idle")
