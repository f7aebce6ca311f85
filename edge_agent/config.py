"""What an agent is told by its file, environment and flags: one field with default, unit, reason each.

Rule of this file: whatever is wrong with the configuration is known before anything is
started, as one line. Sections: `[device]` who it is, `[capacity]` what it offers where the
measured values or its class shall not count, `[health]` what no sensor tells, `[mqtt]` where
it speaks, `[agent]` how it behaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.core.outbox import BYTES_MAX
from edge_agent.offers import check_extras, find_profile, read_accelerators
from firmware_profiles import Profile
from live.link import LinkOptions, TlsSettings, WillMessage
from live.logs import LEVELS
from live.settings import DEFAULT_ORIGIN, Loaded, SettingsError, load_settings, section, setting
from protocol import limits as lim
from protocol.messages import Accelerator
from protocol.resources import Resources
from protocol.topics import down_filters, valid_id

DEFAULT_PROFILE = "generic-linux"


class OnStop(StrEnum):
    """What becomes of the runs when the agent is stopped in good order."""

    KILL = "kill"
    LEAVE = "leave"


class Metered(StrEnum):
    """Whether the link costs money by volume."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@dataclass(slots=True)
class DeviceSection:
    """Who this device is."""

    id: str = setting("", "its name in the fleet; also its MQTT client id and user name")
    fleet: str = setting("default", "the fleet it belongs to: the third level of every topic")
    profile: str = setting(DEFAULT_PROFILE, "its device class, as the controller knows it")
    profile_file: Path | None = setting(None, "a class that is not built in: its TOML file")
    data_dir: Path = setting(Path("fm-agent"), "journal, output and the guard's socket; survives restarts")
    labels: dict[str, str] = setting({}, "free facts that placement may ask for")


@dataclass(slots=True)
class CapacitySection:
    """What it offers; 0, or nothing, is what was measured or what its profile says."""

    cpu_milli: int = setting(0, "processor", unit="cpu_milli", minimum=0, maximum=lim.MILLI_MAX)
    memory_mib: int = setting(0, "memory", unit="MiB", minimum=0, maximum=lim.MIB_MAX)
    disk_mib: int = setting(0, "disk", unit="MiB", minimum=0, maximum=lim.MIB_MAX)
    gpu_milli: int = setting(
        0,
        "accelerators without names; 0: the sum of those with",
        unit="gpu_milli",
        minimum=0,
        maximum=lim.MILLI_MAX,
    )
    up_kbit_s: int = setting(0, "uplink; 0: the profile's", unit="kbit/s", minimum=0, maximum=lim.MIB_MAX)
    down_kbit_s: int = setting(0, "downlink; 0: the profile's", unit="kbit/s", minimum=0, maximum=lim.MIB_MAX)
    slots: int = setting(0, "tasks at once; 0: the profile's", minimum=0, maximum=lim.DOCUMENT_ATTEMPTS_MAX)
    core_speed_milli: int = setting(
        0, "speed of one core, 1,000 is a Pi 4's; 0: the profile's", minimum=0, maximum=1_000_000
    )
    accelerators: tuple[str, ...] = setting((), "NAME[:MODEL[:MILLI]] each; none: the profile's")
    extras: dict[str, int] = setting({}, "countable things of this site: cameras, licences, ports")


@dataclass(slots=True)
class HealthSection:
    """What no sensor tells."""

    metered: Metered = setting(Metered.AUTO, "link paid by volume; `auto`: if the profile gives it a price")
    wear_percent: int = setting(
        0,
        "used life of storage that doesn't tell (an SD card, by its writes); 0: unknown",
        unit="%",
        minimum=0,
        maximum=100,
    )


@dataclass(slots=True)
class MqttSection:
    """Where it speaks."""

    host: str = setting("127.0.0.1", "the broker")
    port: int = setting(1883, "the broker's port", minimum=1, maximum=65_535)
    username: str = setting("", "empty: the device id")
    password: str = setting("", "of that user; empty: none", secret=True)
    tls: bool = setting(False, "speak TLS; implied by ca_file and cert_file")
    ca_file: str = setting("", "authorities the broker's certificate is checked against; empty: the system's")
    cert_file: str = setting("", "the device's own certificate")
    key_file: str = setting("", "the key of that certificate")


@dataclass(slots=True)
class AgentSection:
    """How it behaves."""

    heartbeat_ms: int = setting(
        lim.HEARTBEAT_MS,
        "period of heartbeats; leases and the controller may shorten it",
        unit="ms",
        minimum=lim.HEARTBEAT_MS_MIN,
        maximum=lim.LEASE_MS_MAX,
    )
    run_uid: int = setting(
        -1, "user that runs execute as, where the agent is root; -1: its own", minimum=-1, maximum=2**32 - 2
    )
    on_stop: OnStop = setting(OnStop.KILL, "runs when the agent is stopped: `kill` or `leave` to the guard")
    outbox_bytes_max: int = setting(
        BYTES_MAX, "captured output kept on disk until it is stored", unit="bytes", minimum=65_536
    )
    log_level: str = setting("info", "least that is logged: debug, info, warning, error")
    log_json: bool = setting(False, "one JSON object a line instead of key=value")


@dataclass(slots=True)
class AgentConfig:
    """Everything."""

    device: DeviceSection = section(DeviceSection)
    capacity: CapacitySection = section(CapacitySection)
    health: HealthSection = section(HealthSection)
    mqtt: MqttSection = section(MqttSection)
    agent: AgentSection = section(AgentSection)


def load_config(
    file: Path | None, flags: Mapping[str, str | None], env: Mapping[str, str] | None = None
) -> Loaded[AgentConfig]:
    """The checked configuration. Raises `SettingsError`, one line."""
    conf_dir = file.parent / "conf.d" if file is not None else None
    seen = os.environ if env is None else env
    loaded = load_settings(AgentConfig, file=file, conf_dir=conf_dir, env=seen, flags=flags)
    _check(loaded)
    return loaded


def link_options(config: AgentConfig, will: WillMessage | None) -> LinkOptions:
    """How this device connects."""
    mqtt, device = config.mqtt, config.device
    secure = mqtt.tls or bool(mqtt.ca_file or mqtt.cert_file)
    return LinkOptions(
        host=mqtt.host,
        port=mqtt.port,
        client_id=device.id,
        username=mqtt.username or device.id,
        password=mqtt.password or None,
        keepalive_s=lim.KEEPALIVE_S,
        will=will,
        subscriptions=tuple((topic, 1) for topic in down_filters(device.fleet, device.id)),
        tls=TlsSettings(mqtt.ca_file, mqtt.cert_file, mqtt.key_file) if secure else None,
    )


def profile_of(config: AgentConfig) -> Profile:
    """The class of this device. Raises ValueError, but not for a configuration that was loaded."""
    return find_profile(config.device.profile, config.device.profile_file)


def accelerators_of(config: AgentConfig, profile: Profile) -> tuple[Accelerator, ...]:
    """Those it was told; else, unless it was told a mere sum, those of its class."""
    told = config.capacity
    if told.accelerators or told.gpu_milli:
        return read_accelerators(told.accelerators)
    return profile.capacity.accelerators


def capacity_of(config: AgentConfig, measured: Resources, profile: Profile) -> Resources:
    """What the device offers: what it was told, else what was measured less what its system needs,
    else what its class says."""
    told, usual = config.capacity, profile.resources()
    named_milli = sum(one.milli for one in accelerators_of(config, profile))
    return Resources(
        told.cpu_milli or measured.cpu_milli,
        told.memory_mib or profile.capacity.for_tasks(measured.memory_mib),
        told.disk_mib or measured.disk_mib,
        told.gpu_milli or named_milli or usual.gpu_milli,
        told.up_kbit_s or usual.up_kbit_s,
        told.down_kbit_s or usual.down_kbit_s,
        told.slots or usual.slots,
    )


def metered_of(config: AgentConfig, profile: Profile) -> bool:
    """Whether its link is paid by volume."""
    told = config.health.metered
    return profile.link.cost_micro_per_mib > 0 if told is Metered.AUTO else told is Metered.YES


def _check(loaded: Loaded[AgentConfig]) -> None:
    """What a type and a range cannot say."""
    device, agent = loaded.value.device, loaded.value.agent
    for name, text in (("device.id", device.id), ("device.fleet", device.fleet)):
        if not valid_id(text):
            wanted = "letters, digits and dashes, at most 64, beginning with a letter or digit"
            raise SettingsError(f"{loaded.origin(name)}: {name} must be {wanted}, not {text!r}")
    if agent.log_level not in LEVELS:
        where = loaded.origin("agent.log_level")
        raise SettingsError(
            f"{where}: agent.log_level must be one of {', '.join(LEVELS)}, not {agent.log_level!r}"
        )
    if not loaded.value.mqtt.host:
        raise SettingsError(f"{loaded.origin('mqtt.host')}: mqtt.host must be a name or an address, not ''")
    labels = device.labels
    if len(labels) > lim.LABELS_MAX or any(len(v) > lim.LABEL_CHARS_MAX for v in labels.values()):
        where = loaded.origin("device.labels")
        raise SettingsError(
            f"{where}: device.labels must be at most {lim.LABELS_MAX} of {lim.LABEL_CHARS_MAX} characters"
        )
    if any(len(key) > 100 for key in labels):
        raise SettingsError(f"{loaded.origin('device.labels')}: names of at most 100 characters, please")
    _check_offers(loaded)


def _check_offers(loaded: Loaded[AgentConfig]) -> None:
    """Its class, and what it has beside what is measured."""
    device, capacity = loaded.value.device, loaded.value.capacity

    def asked(name: str, reading: Callable[[], object]) -> None:
        try:
            reading()
        except ValueError as error:
            raise SettingsError(f"{loaded.origin(name)}: {name} {error}") from None

    if device.profile_file is None:
        asked("device.profile", lambda: profile_of(loaded.value))
    else:
        asked("device.profile_file", lambda: profile_of(loaded.value))
        name = profile_of(loaded.value).name
        if loaded.origin("device.profile") != DEFAULT_ORIGIN and device.profile != name:
            where = loaded.origin("device.profile")
            raise SettingsError(f"{where}: device.profile is {device.profile!r}, its file says {name!r}")
        device.profile = name
    asked("capacity.accelerators", lambda: read_accelerators(capacity.accelerators))
    asked("capacity.extras", lambda: check_extras(capacity.extras))
    named_milli = sum(one.milli for one in read_accelerators(capacity.accelerators))
    if capacity.accelerators and capacity.gpu_milli not in (0, named_milli):
        where = loaded.origin("capacity.gpu_milli")
        raise SettingsError(
            f"{where}: capacity.gpu_milli is {capacity.gpu_milli}, its accelerators add up to {named_milli};"
            " leave it out"
        )
