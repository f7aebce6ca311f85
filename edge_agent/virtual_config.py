"""Who the virtual devices of one process are: a TOML or JSON file, read strictly.

Rule of this file: a word it does not know, or a value of another kind, is an error of one
line that says where. Capacity that is not given is that of the device's profile.
Rejected: the layers of `live.settings`: this file is written by a program for a program.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from live.settings import SettingsError
from protocol import limits as lim
from protocol.resources import NAMES, Resources
from protocol.topics import valid_id

CONNECTS_PER_S = 100
"""A broker on a small machine answers so many CONNECTs while it also works."""
KEEPALIVE_S = 30
"""Thousands of timers in one process; what matters of presence are the heartbeats."""
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
        table = self.table(value, where, ("id", "username", "password", "profile", "labels", "capacity"))
        profile = self.text(table, f"{where}.profile", "generic-linux")
        labels = table.get("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise self.wrong(f"{where}.labels", "must be a table of text")
        device = self.id(table, f"{where}.id", "")
        return VirtualDeviceConfig(
            id=device,
            username=self.text(table, f"{where}.username", device),
            password=self.text(table, f"{where}.password", ""),
            profile=profile,
            labels={str(key): str(text) for key, text in labels.items()},
            capacity=self.capacity(table.get("capacity"), f"{where}.capacity", profile),
        )

    def capacity(self, value: object, where: str, profile: str) -> Resources:
        if value is None:
            return _capacity_of_profile(profile)
        table = self.table(value, where, NAMES)
        return Resources(*[self.number(table, f"{where}.{name}", 0, 0, lim.MIB_MAX) for name in NAMES])


def _capacity_of_profile(name: str) -> Resources:
    """What the class of the device has; where it says "measure", something small."""
    from firmware_profiles import ProfileError, load

    try:
        has = load(name).resources()
    except ProfileError as error:
        raise SettingsError(str(error)) from None
    small = (has.cpu_milli or 1_000, has.memory_mib or 512, has.disk_mib or 4_096)
    return Resources(*small, *has[3:])
