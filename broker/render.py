"""Mosquitto's three files, made from the fleet's users: configuration, passwords, access.

Rule of this file: text out of data; only `write_atomically` touches a disk. Everything is
closed unless granted: no anonymous client, an access file that lists every grant of every
user by name, and the user name in force as client id, so that no device can evict or
imitate another. A user without a line in both files can do nothing.
Rejected: `%u` patterns (see `broker.acl`); mosquitto's dynamic security plugin (state that
lives in the broker; ours is made anew from the database at each start); bcrypt-like cost
for passwords that are 256 random bits (mosquitto hashes on its only thread, for every
client at every reload).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.acl import role_of, rules_for
from broker.events import BrokerLimits
from protocol.errors import LocalMistake
from protocol.limits import PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX

PASSWORD_ITERATIONS = 101
"""Mosquitto's own default. The secret's 256 bits, not the iterations, stop guessing."""
SALT_BYTES = 12
PACKET_BYTES_MAX = PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX + 1_024
"""Slightly more than a legal packet, so that a payload just too large reaches the controller
and is counted there; what is larger costs the connection. (`message_size_limit` would drop
silently, and mosquitto advises against it.)"""
AUTOSAVE_S = 60
"""At most a minute of retained messages is lost to a power cut; they are a cache."""


@dataclass(slots=True, frozen=True)
class MosquittoPlan:
    """Where one mosquitto listens and keeps its files; `directory` must be readable by it alone."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 1883
    persistence: bool = True
    autosave_s: int = AUTOSAVE_S
    limits: BrokerLimits = field(default_factory=BrokerLimits)

    @property
    def config_path(self) -> Path:
        return self.directory / "mosquitto.conf"

    @property
    def password_path(self) -> Path:
        return self.directory / "passwords"

    @property
    def acl_path(self) -> Path:
        return self.directory / "acl"

    @property
    def database_path(self) -> Path:
        return self.directory / "mosquitto.db"

    def config(self) -> str:
        """The text of mosquitto.conf. Raises `LocalMistake` for a path or host that can't stand in it."""
        if any(ord(char) < 32 for char in f"{self.directory}{self.host}") or " " in self.host:
            raise LocalMistake(f"not usable in mosquitto.conf: {self.directory!s}, {self.host!r}")
        lines = [*self._access_lines(), *self._bound_lines(), *self._state_lines()]
        return "# Made by fleetmuster at each start; changes are lost.\n" + "\n".join(lines) + "\n"

    def _access_lines(self) -> list[str]:
        return [
            f"listener {self.port} {self.host}",
            "max_qos 1",
            "use_username_as_clientid true",
            "allow_anonymous false",
            "allow_zero_length_clientid false",
            f"password_file {self.password_path}",
            f"acl_file {self.acl_path}",
        ]

    def _bound_lines(self) -> list[str]:
        return [
            "set_tcp_nodelay true",
            f"max_packet_size {PACKET_BYTES_MAX}",
            f"max_inflight_messages {self.limits.inflight_max}",
            f"max_queued_messages {self.limits.queued_max}",
            f"max_queued_bytes {self.limits.queued_bytes_max}",
        ]

    def _state_lines(self) -> list[str]:
        stored = [
            "persistence true",
            f"persistence_location {self.directory}/",
            f"autosave_interval {self.autosave_s}",
            "persistent_client_expiration 1d",
        ]
        # stderr is a file that the keeper opened: mosquitto needs no right to write there.
        logged = ["log_dest stderr", "log_type error", "log_type warning", "log_type notice"]
        quiet = ["connection_messages false", "sys_interval 0"]  # nobody here may read $SYS
        return [*(stored if self.persistence else ["persistence false"]), *logged, *quiet]


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Mosquitto's `$7$`: PBKDF2-HMAC-SHA512, 64 bytes, iterations, salt and hash in base64."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PASSWORD_ITERATIONS)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"$7${PASSWORD_ITERATIONS}${'$'.join(encoded)}"


def password_text(hashes: Mapping[str, str]) -> str:
    """The password file: user -> `password_hash`. Raises `LocalMistake` for a name without a role."""
    for user in hashes:
        if role_of(user) is None:
            raise LocalMistake(f"not a user name: {user!r}")
    return "".join(f"{user}:{hashed}\n" for user, hashed in sorted(hashes.items()))


def acl_text(fleet: str, users: Iterable[str]) -> str:
    """The access file: for each user its literal grants, nothing for anybody else."""
    parts: list[str] = []
    for user in sorted(users):
        lines = [f"topic {rule.access} {rule.topic_filter}" for rule in rules_for(fleet, user)]
        parts.append("\n".join([f"user {user}", *lines]))
    return "\n\n".join(parts) + "\n"


def write_atomically(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Replace a file so that a reader sees the old or the new one; mode 0600, `owner` uid and gid.

    The directory may belong to the broker's user while we are root, so nothing that lies
    there is followed: the new file is made exclusively under a random name, given away by
    descriptor, then renamed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if owner is not None:
                os.fchown(descriptor, *owner)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
