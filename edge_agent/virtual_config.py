"""Who the virtual devices of one process are: a TOML or JSON file, read strictly.

Rule of this file: a word it does not know, or a value of another kind, is an error of one
line that says where. Capacity and accelerators that are not given are those of the device's
profile. A device without `health` says nothing of it, as one without sensors.
Rejected: the layers of `live.settings`: this file is written by a program for a program.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.offers import check_extras, find_profile, read_accelerators
from firmware_profiles import Profile
from live.settings import SettingsError
from protocol import limits as lim
from protocol import messages as wire
from protocol.messages import NO_HEALTH, Accelerator, Health
from protocol.resources import NAMES, Resources
from protocol.topics import valid_id

CONNECTS_PER_S = 100
"""A broker on a small machine answers so many CONNECTs while it also works."""
KEEPALIVE_S = 30
"""Thousands of timers in one process; what matters of presence are the heartbeats."""
DEVICE_WORDS = (
    *("id", "username", "password", "profile", "labels", "capacity"),
    *("accelerators", "extras", "health"),
)
HEALTH_FLAGS = {
    "throttled": wire.THROTTLED,
    "undervoltage": wire.UNDERVOLTAGE,
    "on_battery": wire.ON_BATTERY,
    "metered": wire.METERED,
}
Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class VirtualDeviceConfig:
    """One virtual device."""

    id: str
    username: str
    password: str
    profile: str
    labels: dict[str, str]
    capacity: Resources
    accelerators: tuple[Accelerator, ...] = ()
    extras: dict[str, int] = field(default_factory=dict)
    core_speed_milli: int = 1_000
    health: Health = NO_HEALTH


@dataclass(frozen=True, slots=True)
class VirtualConfig:
    """All virtual devices of one process."""

    host: str
    port: int
    fleet: str
    data_dir: Path
    heartbeat_ms: int
    connects_per_s: int
    keepalive_s: int
    log_level: str
    devices: tuple[VirtualDeviceConfig, ...]


def load_virtual(path: Path) -> VirtualConfig:
    """The checked file. Raises `SettingsError`."""
    try:
        text = path.read_text("utf-8")
        whole: object = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        detail = (error.strerror or "") if isinstance(error, OSError) else " ".join(str(error).split())
        raise SettingsError(f"{path}: {detail}") from None
    reader = _Reader(path)
    top = reader.table(whole, "", ("mqtt", "fleet", "devices"))
    mqtt = reader.table(top.get("mqtt", {}), "mqtt", ("host", "port"))
    words = ("name", "data_dir", "heartbeat_ms", "connects_per_s", "keepalive_s", "log_level")
    fleet = reader.table(top.get("fleet", {}), "fleet", words)
    return VirtualConfig(
        host=reader.text(mqtt, "mqtt.host", "127.0.0.1"),
        port=reader.number(mqtt, "mqtt.port", 1883, 1, 65_535),
        fleet=reader.id(fleet, "fleet.name", "default"),
        data_dir=Path(reader.text(fleet, "fleet.data_dir", "fm-virtual")),
        heartbeat_ms=reader.number(
            fleet, "fleet.heartbeat_ms", lim.HEARTBEAT_MS, lim.HEARTBEAT_MS_MIN, lim.LEASE_MS_MAX
        ),
        connects_per_s=reader.number(fleet, "fleet.connects_per_s", CONNECTS_PER_S, 1, 100_000),
        keepalive_s=reader.number(fleet, "fleet.keepalive_s", KEEPALIVE_S, 1, 3_600),
        log_level=reader.text(fleet, "fleet.log_level", "warning"),
        devices=reader.devices(top.get("devices", [])),
    )


class _Reader:
    """Reads values and says where one is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, where: str, what: str) -> SettingsError:
        return SettingsError(f"{self.path}: {where} {what}")

    def table(self, value: object, where: str, words: tuple[str, ...]) -> Table:
        if not isinstance(value, dict):
            raise self.wrong(where or "the file", "must be a table")
        for key in value:
            if key not in words:
                raise self.wrong(f"{where}.{key}".lstrip("."), f"is unknown; known are {', '.join(words)}")
        return value

    def text(self, table: Table, where: str, default: str) -> str:
        value = table.get(where.rsplit(".", 1)[-1], default)
        if not isinstance(value, str):
            raise self.wrong(where, f"must be text, not {value!r}")
        return value

    def number(self, table: Table, where: str, default: int, low: int, high: int) -> int:
        value = table.get(where.rsplit(".", 1)[-1], default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(where, f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    def id(self, table: Table, where: str, default: str) -> str:
        value = self.text(table, where, default)
        if not valid_id(value):
            raise self.wrong(where, f"must be letters, digits and dashes, not {value!r}")
        return value

    def devices(self, value: object) -> tuple[VirtualDeviceConfig, ...]:
        if not isinstance(value, list):
            raise self.wrong("devices", "must be a list")
        devices = tuple(self.device(item, f"devices[{n}]") for n, item in enumerate(value))
        if len({device.id for device in devices}) != len(devices):
            raise self.wrong("devices", "name one id twice")
        return devices

    def device(self, value: object, where: str) -> VirtualDeviceConfig:
        table = self.table(value, where, DEVICE_WORDS)
        profile = self.profile(table, f"{where}.profile")
        labels = table.get("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise self.wrong(f"{where}.labels", "must be a table of text")
        device = self.id(table, f"{where}.id", "")
        capacity, accelerators = self.offer(table, where, profile)
        return VirtualDeviceConfig(
            id=device,
            username=self.text(table, f"{where}.username", device),
            password=self.text(table, f"{where}.password", ""),
            profile=profile.name,
            labels={str(key): str(text) for key, text in labels.items()},
            capacity=capacity,
            accelerators=accelerators,
            extras=self.extras(table.get("extras", {}), f"{where}.extras"),
            core_speed_milli=profile.capacity.core_speed_milli,
            health=self.health(table.get("health"), f"{where}.health"),
        )

    def profile(self, table: Table, where: str) -> Profile:
        try:
            return find_profile(self.text(table, where, "generic-linux"))
        except ValueError as error:
            raise self.wrong(where, str(error)) from None

    def offer(self, table: Table, where: str, profile: Profile) -> tuple[Resources, tuple[Accelerator, ...]]:
        """Capacity and accelerators, which agree: what is told of one beats the profile in both."""
        told = table.get("capacity")
        capacity = self.capacity(told, f"{where}.capacity") if told is not None else _capacity_of(profile)
        words = table.get("accelerators")
        if words is None:
            return capacity, profile.capacity.accelerators if told is None else ()
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self.wrong(f"{where}.accelerators", "must be a list of text")
        try:
            named = read_accelerators(words)
        except ValueError as error:
            raise self.wrong(f"{where}.accelerators", str(error)) from None
        return capacity._replace(gpu_milli=sum(one.milli for one in named)), named

    def capacity(self, value: object, where: str) -> Resources:
        table = self.table(value, where, NAMES)
        return Resources(*[self.number(table, f"{where}.{name}", 0, 0, lim.MIB_MAX) for name in NAMES])

    def extras(self, value: object, where: str) -> dict[str, int]:
        if not isinstance(value, dict) or not all(type(amount) is int for amount in value.values()):
            raise self.wrong(where, "must be a table of whole numbers")
        extras = {str(name): int(amount) for name, amount in value.items()}
        try:
            check_extras(extras)
        except ValueError as error:
            raise self.wrong(where, str(error)) from None
        return extras

    def health(self, value: object, where: str) -> Health:
        """Flags by name, numbers as on the wire; a table, even an empty one, makes it known."""
        if value is None:
            return NO_HEALTH
        numbers = Health._fields[1:]
        table = self.table(value, where, (*HEALTH_FLAGS, *numbers))
        flags = wire.HEALTH_KNOWN
        for name, bit in HEALTH_FLAGS.items():
            said = table.get(name, False)
            if not isinstance(said, bool):
                raise self.wrong(f"{where}.{name}", f"must be true or false, not {said!r}")
            flags |= bit if said else 0
        return Health(flags, *[self.number(table, f"{where}.{n}", 0, 0, lim.HEALTH_MAX) for n in numbers])


def _capacity_of(profile: Profile) -> Resources:
    """What its class has; where that says "measure", something small."""
    has = profile.resources()
    small = (has.cpu_milli or 1_000, has.memory_mib or 512, has.disk_mib or 4_096)
    return Resources(*small, *has[3:])
