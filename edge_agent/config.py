"""What an agent is told by its file, environment and flags: one field with default, unit, reason each.

Rule of this file: whatever is wrong with the configuration is known before anything is
started, as one line. Sections: `[device]` who it is, `[capacity]` what it offers where the
measured values shall not count, `[mqtt]` where it speaks, `[agent]` how it behaves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.core.outbox import BYTES_MAX
from live.link import LinkOptions, TlsSettings, WillMessage
from live.logs import LEVELS
from live.settings import Loaded, SettingsError, load_settings, section, setting
from protocol import limits as lim
from protocol.resources import Resources
from protocol.topics import down_filters, valid_id


class OnStop(StrEnum):
    """What becomes of the runs when the agent is stopped in good order."""

    KILL = "kill"
    LEAVE = "leave"


@dataclass(slots=True)
class DeviceSection:
    """Who this device is."""

    id: str = setting("", "its name in the fleet; also its MQTT client id and user name")
    fleet: str = setting("default", "the fleet it belongs to: the third level of every topic")
    profile: str = setting("generic-linux", "its device class, as the controller knows it")
    data_dir: Path = setting(Path("fm-agent"), "journal, output and the guard's socket; survives restarts")
    labels: dict[str, str] = setting({}, "free facts that placement may ask for")


@dataclass(slots=True)
class CapacitySection:
    """What it offers; 0 is what was measured."""

    cpu_milli: int = setting(0, "processor", unit="cpu_milli", minimum=0, maximum=lim.MILLI_MAX)
    memory_mib: int = setting(0, "memory", unit="MiB", minimum=0, maximum=lim.MIB_MAX)
    disk_mib: int = setting(0, "disk", unit="MiB", minimum=0, maximum=lim.MIB_MAX)
    gpu_milli: int = setting(0, "graphics processor; never measured", unit="gpu_milli", minimum=0)


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


def capacity_of(config: AgentConfig, measured: Resources) -> Resources:
    """What the device offers: what it was told, else what was measured."""
    told = config.capacity
    return Resources(
        told.cpu_milli or measured.cpu_milli,
        told.memory_mib or measured.memory_mib,
        told.disk_mib or measured.disk_mib,
        told.gpu_milli,
    )


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
    if any(len(key) > 100 for key in labels) or len(device.profile) > 100:
        raise SettingsError(f"{loaded.origin('device.labels')}: names of at most 100 characters, please")
