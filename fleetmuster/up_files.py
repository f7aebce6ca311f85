"""Where the files of `fm up` lie, and what its options are.

`<data>/` holds `credentials.json` (0600: every broker password), `controller/`,
`agents/<id>/`, `virtual/`, `broker/` and `logs/`. A second `up` on the same directory finds
all of it and goes on. Directories are 0711, so that tasks that run under another uid reach
their own; secrets are files of their own, 0600.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fleetmuster.exits import CommandError, Exit

FLEET = "fleet"
CONTROLLER = "_controller-main"
DEFAULT_HTTP_PORT = 8080
DEFAULT_MQTT_PORT = 1883


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line said; an address of None is the default one, which may give way."""

    agents: int
    devices: int
    data: Path
    http: Address | None
    mqtt: Address | None
    broker: str
    policy: str
    json: bool
    insecure_lan: bool
    log_level: str


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port` or just `port`. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    host = (host if colon else "127.0.0.1").strip("[]") or "0.0.0.0"
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    return Address(host, int(port))


class DataDirectory:
    """The data directory, locked for this `up`. Raises `CommandError` where it can't be used."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.credentials: dict[str, str] = {}
        self._lock_fd = -1

    def open(self) -> None:
        """Makes what is missing, takes the lock, reads the credentials."""
        try:
            for name in ("", "controller", "agents", "virtual", "logs"):
                (self.root / name).mkdir(mode=0o711, parents=True, exist_ok=True)
            self._lock_fd = os.open(self.root / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read_credentials()
        except BlockingIOError:
            raise CommandError(
                Exit.CONFLICT,
                f"another `fm up` runs on {self.root}; stop it, or give this one its own --data",
            ) from None
        except (FileExistsError, NotADirectoryError) as error:
            raise CommandError(
                Exit.FAILED, f"can't use the data directory {self.root}: {error.filename} is no directory"
            ) from error
        except (OSError, ValueError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise CommandError(Exit.FAILED, f"can't use the data directory {self.root}: {reason}") from error

    def close(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # ------------------------------------------------------------- credentials

    def _read_credentials(self) -> None:
        path = self.root / "credentials.json"
        if path.exists():
            try:
                read = json.loads(path.read_text())
            except ValueError:
                read = None
            if not isinstance(read, dict) or not all(isinstance(v, str) for v in read.values()):
                raise ValueError(f"{path} is damaged")
            self.credentials = read

    def mint(self, users: list[str]) -> dict[str, str]:
        """Passwords for users that have none yet; the new ones, already kept."""
        new = {user: secrets.token_urlsafe(32) for user in users if user not in self.credentials}
        if new:
            self.credentials |= new
            self.keep_credentials()
        return new

    def revoke(self, user: str) -> None:
        if self.credentials.pop(user, None) is not None:
            self.keep_credentials()

    def keep_credentials(self) -> None:
        self.write_secret(self.root / "credentials.json", json.dumps(self.credentials, indent=0))

    def write_secret(self, path: Path, text: str) -> None:
        """Atomically, 0600, durable."""
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".new")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    # ------------------------------------------------------------- places

    def log_path(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def agent_directory(self, device: str) -> Path:
        return self.root / "agents" / device
