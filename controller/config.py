"""Settings of the controller: one dataclass per section, each value with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from live.settings import section, setting


@dataclass(frozen=True, slots=True)
class ControllerSection:
    """The controller itself."""

    id: str = setting("main", "names this controller; two on one broker must differ")
    fleet: str = setting("fleet", "second level of every topic: `fm/1/<fleet>/…`")
    data_dir: Path = setting(Path("fm-data"), "holds the database; must survive a restart")
    policy: str = setting("spread", "how a device is picked: `spread` or `best_fit`")
    keep_days: int = setting(7, "finished jobs are deleted after that", unit="days", minimum=0)
    keep_tasks: int = setting(200_000, "or when more finished tasks than that are kept", minimum=0)
    keep_output_bytes: int = setting(
        1_073_741_824, "or when their output takes more", unit="bytes", minimum=0
    )
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log lines as JSON")


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
    http: HttpSection = section(HttpSection)
    mqtt: BrokerSection = section(BrokerSection)
