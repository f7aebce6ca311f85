"""The contract of a broker that runs, and what its implementations share.

Rule of this file: whoever assembles a fleet needs only `Broker`, and an implementation
needs only this file. It refuses to know any of them; `broker.serve` chooses.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from broker.acl import PROBE, role_of


class BrokerError(Exception):
    """A broker could not be started, reached or changed; the text is one line for a person."""


class Login(NamedTuple):
    """What a client sends in CONNECT. The client id is the caller's own."""

    username: str
    password: str


class Broker(Protocol):
    """What the rest of the fleet may ask of any broker. All calls belong to one event loop."""

    kind: str
    host: str
    port: int
    """0 before `start` means any; afterwards the real one, the same over every restart."""
    warning: str | None
    """What a person must know before relying on this broker."""
    manages_credentials: bool
    """Whether users are ours to add and remove; if not, those calls do nothing."""

    async def start(self) -> None:
        """Returns when clients are let in. Raises `BrokerError`."""

    async def stop(self) -> None:
        """End it in good order; nothing of it is left behind. May be called twice."""

    async def restart(self, lose_state: bool = False) -> None:
        """Kill it at once (no goodbye, no last save) and start it on the same port.

        `lose_state` also throws away retained messages and sessions. Raises `BrokerError`.
        """

    async def exited(self) -> str:
        """Returns, with the reason, when it no longer runs, whether asked to or not."""

    async def add_users(self, passwords: Mapping[str, str]) -> None:
        """User name -> password; names say the role (`broker.acl.role_of`). In force on return."""

    async def remove_users(self, users: tuple[str, ...]) -> None:
        """Their credentials are void and their connections closed on return."""

    def login(self, user: str, password: str) -> Login:
        """What that user sends to be let in."""


@dataclass(slots=True)
class BrokerSetup:
    """What a broker of our own needs to know."""

    directory: Path
    """Ours to fill, made if missing (0700); holds the log and, unless we are root, the state."""
    fleet: str
    users: Mapping[str, str] = field(default_factory=dict)
    """The first users and their passwords; controllers too."""
    host: str = "127.0.0.1"
    port: int = 0


def checked_user(user: str) -> str:
    """The name itself, if it has a role and is not ours. Raises `BrokerError`."""
    if role_of(user) is None or user == PROBE:
        raise BrokerError(f"not a user name: {user!r}")
    return user


def free_port(host: str) -> int:
    """A port that was free a moment ago; who needs it must expect to lose the race."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
