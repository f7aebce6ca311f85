"""Settings of the controller: one dataclass per section, each value with its reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.core.rules import REBALANCE_MODES, Rules
from controller.core.windows import WindowFault, read_windows
from controller.scheduler.balance import Aims
from controller.scheduler.policies import weigh
from firmware_profiles import Catalogue, ProfileError, load_directory
from live.logs import LEVELS
from live.settings import Loaded, SettingsError, load_settings, section, setting
from protocol.resources import Resources
from protocol.topics import valid_id


@dataclass(frozen=True, slots=True)
class ControllerSection:
    """The controller itself."""

    id: str = setting("main", "names this controller; two on one broker must differ")
    fleet: str = setting("fleet", "second level of every topic: `fm/1/<fleet>/…`")
    data_dir: Path = setting(Path("fm-data"), "holds the database; must survive a restart")
    policy: str = setting("balanced", "how a device is picked; a job may name another")
    policy_weights: dict[str, int] = setting(
        {}, "what `weighted` makes of criteria, as room = 3, near = 1; relative to each other"
    )
    profiles_dir: Path | None = setting(
        None, "device classes of the site, one TOML file each, beside those that are built in"
    )
    keep_days: int = setting(7, "finished jobs are deleted after that", unit="days", minimum=0)
    keep_tasks: int = setting(200_000, "or when more finished tasks than that are kept", minimum=0)
    keep_output_bytes: int = setting(
        1_073_741_824, "or when their output takes more", unit="bytes", minimum=0
    )
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log lines as JSON")


@dataclass(frozen=True, slots=True)
class RebalanceSection:
    """Voluntary moves: to load devices evenly or, where the policy packs, to make room for who waits."""

    mode: str = setting(
        "propose", "off: nobody looks; propose: plans wait for approval; auto: small ones run by themselves"
    )
    goal: float = setting(1.10, "a plan ends when the busiest device has this many mean loads", minimum=1)
    trigger: float = setting(1.25, "and none is proposed below this: a fleet must come to rest", minimum=1)
    load_percent: int = setting(
        50, "nor while the busiest device is below this load: nobody waits there", minimum=0, maximum=100
    )
    moves_max: int = setting(1_000, "of one plan: more can't be read", minimum=1, maximum=100_000)
    auto_moves_max: int = setting(10, "a plan of so few moves is small", minimum=0)
    auto_moves_percent: int = setting(
        2, "so is one that moves this part of all placed tasks", unit="%", minimum=0, maximum=100
    )
    look_ms: int = setting(60_000, "between two looks", unit="ms", minimum=1_000)
    windows: tuple[str, ...] = setting(
        (), "when moves may begin, as 'mon-fri 22:00-06:00' in UTC; empty: always. Drains do not wait"
    )


@dataclass(frozen=True, slots=True)
class HttpSection:
    """The REST API."""

    host: str = setting("127.0.0.1", "loopback: there is no TLS here; put a proxy in front for more")
    port: int = setting(8080, "0 means any free one", minimum=0, maximum=65_535)
    fd: int = setting(-1, "a listening socket handed over by a supervisor, instead of host and port")
    token: str = setting("", "a bearer token to accept, beside those in the database", secret=True)


@dataclass(frozen=True, slots=True)
class BrokerSection:
    """The broker."""

    host: str = setting("127.0.0.1", "where the broker listens")
    port: int = setting(1883, "where the broker listens", minimum=1, maximum=65_535)
    username: str = setting("", "empty: the controller's own client id")
    password: str = setting("", "of that user", secret=True)
    tls: bool = setting(False, "speak TLS")
    ca_file: str = setting("", "PEM file of authorities; empty: the system's")
    advertise: str = setting("", "host:port that devices elsewhere are told; empty: host and port above")
    control_fd: int = setting(-1, "a socket to whoever owns the broker, for devices' credentials")


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """All sections."""

    controller: ControllerSection = section(ControllerSection)
    rebalance: RebalanceSection = section(RebalanceSection)
    http: HttpSection = section(HttpSection)
    mqtt: BrokerSection = section(BrokerSection)


def load_config(
    file: Path | None, flags: Mapping[str, str | None], env: Mapping[str, str] | None = None
) -> Loaded[ControllerSettings]:
    """The checked settings. Raises `SettingsError`, one line."""
    loaded = load_settings(ControllerSettings, file=file, env=os.environ if env is None else env, flags=flags)
    _check(loaded)
    return loaded


def _check(loaded: Loaded[ControllerSettings]) -> None:
    """What a type and a range cannot say."""
    own, mqtt = loaded.value.controller, loaded.value.mqtt
    wanted = "letters, digits and dashes, at most 64, beginning with a letter or digit"
    for name, good, must, value in (
        ("controller.id", valid_id(own.id), wanted, own.id),
        ("controller.fleet", valid_id(own.fleet), wanted, own.fleet),
        ("controller.log_level", own.log_level in LEVELS, f"one of {', '.join(LEVELS)}", own.log_level),
        ("mqtt.host", bool(mqtt.host), "a name or an address", mqtt.host),
    ):
        if not good:
            raise SettingsError(f"{loaded.origin(name)}: {name} must be {must}, not {value!r}")
    try:
        weigh(own.policy_weights)
    except ValueError as error:
        where = loaded.origin("controller.policy_weights")
        raise SettingsError(f"{where}: controller.policy_weights: {error}") from None
    try:
        load_directory(own.profiles_dir)
    except (ProfileError, OSError) as error:
        where = loaded.origin("controller.profiles_dir")
        raise SettingsError(f"{where}: controller.profiles_dir: {error}") from None
    _check_rebalance(loaded)


def _check_rebalance(loaded: Loaded[ControllerSettings]) -> None:
    own = loaded.value.rebalance
    try:
        read_windows(own.windows)
    except WindowFault as fault:
        raise SettingsError(f"{loaded.origin('rebalance.windows')}: rebalance.windows: {fault}") from None
    for name, good, must, value in (
        ("mode", own.mode in REBALANCE_MODES, f"one of {', '.join(REBALANCE_MODES)}", own.mode),
        ("trigger", own.trigger >= own.goal, f"at least rebalance.goal, which is {own.goal:g}", own.trigger),
    ):
        if not good:
            raise SettingsError(
                f"{loaded.origin(f'rebalance.{name}')}: rebalance.{name} must be {must}, not {value!r}"
            )


def rules_of(settings: ControllerSettings, profiles: Catalogue) -> Rules:
    """What the settings say, in the core's words; they were checked when they were loaded."""
    own = settings.rebalance

    def offer(name: str, capacity: Resources) -> Resources:
        """What of a capacity may be reserved: by the device's profile, all of it where that is not known."""
        profile = profiles.find(name)
        return profile.offered(capacity) if profile is not None else capacity

    return Rules(
        settings.controller.policy,
        offer,
        own.mode,
        Aims(own.goal, own.trigger, own.moves_max),
        own.auto_moves_max,
        own.auto_moves_percent,
        own.load_percent,
        own.look_ms,
        read_windows(own.windows),
        weigh(settings.controller.policy_weights),
        profiles.names,
    )
