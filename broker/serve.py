"""The choice of a broker, and the one that somebody else runs.

Rule of this file: whoever assembles a fleet sees only `broker.contract.Broker`. Mosquitto as a child is
what we recommend, amqtt inside this process is what still works where nothing may be
installed, `ExternalBroker` is somebody else's. A broker that dies is not restarted here:
its owner awaits `exited`, decides, and calls `restart`.
It refuses to know devices' documents, the database, and TLS certificates.
Rejected: starting a system service (needs root, and one fleet would change another's).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from broker.contract import Broker, BrokerError, BrokerSetup, Login, is_loopback
from broker.probe import ACCEPTED, probe
from broker.serve_mosquitto import MosquittoBroker, find_binary

EXTERNAL_WATCH_MS = 2_000
"""How often an external broker is asked whether it still listens; matches a controller's retry."""
_REFUSALS = {
    1: "protocol version",
    2: "client id",
    3: "unavailable",
    4: "bad credentials",
    5: "not authorised",
}


class ExternalBroker:
    """A broker that somebody else runs, at `mqtt://host:port` or `mqtts://host:port`.

    One login serves every client unless the operator gives each its own; who may do what
    is the operator's to say, so `add_users` and `remove_users` change nothing.
    """

    kind = "external"
    manages_credentials = False

    def __init__(self, url: str, username: str = "", password: str = "") -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise BrokerError(f"not a broker's address: {parts.hostname}: {error}") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
            raise BrokerError(f"expected mqtt://host:port or mqtts://host:port, got {_redact(url)}")
        self.host = parts.hostname
        self.port = port or (8883 if parts.scheme == "mqtts" else 1883)
        self.tls = ssl.create_default_context() if parts.scheme == "mqtts" else None
        named, secret = unquote(parts.username or ""), unquote(parts.password or "")
        self._login = Login(username or named, password or secret)
        self._stopped: asyncio.Event | None = None
        self.warning: str | None = "its users and access rules are its operator's"
        if self.tls is None and self._login.password and not is_loopback(self.host):
            self.warning += "; passwords travel without TLS"

    async def start(self) -> None:
        self._stopped = asyncio.Event()
        try:
            code = await self._ask()
        except OSError as error:
            raise BrokerError(f"no broker at {self.host}:{self.port}: {_say(error)}") from error
        if code != ACCEPTED:
            raise BrokerError(f"{self.host}:{self.port} refused us: {_REFUSALS.get(code, code)}")

    async def _ask(self) -> int:
        # No other client bears this name: a broker that maps user to client id would drop it.
        return await probe(self.host, self.port, "fm-probe", *self._login, tls=self.tls)

    async def stop(self) -> None:
        if self._stopped is not None:
            self._stopped.set()

    async def restart(self, lose_state: bool = False) -> None:
        raise BrokerError("an external broker is not ours to restart")

    async def exited(self) -> str:
        assert self._stopped is not None
        while True:
            try:
                await asyncio.wait_for(self._stopped.wait(), EXTERNAL_WATCH_MS / 1000)
                return "stopped"
            except TimeoutError:
                try:
                    await self._touch()
                except OSError as error:
                    return f"no broker at {self.host}:{self.port}: {_say(error)}"

    async def _touch(self) -> None:
        async with asyncio.timeout(EXTERNAL_WATCH_MS / 1000):
            _, writer = await asyncio.open_connection(self.host, self.port)
            writer.close()

    async def add_users(self, passwords: Mapping[str, str]) -> None:
        """Nothing: the operator adds users."""

    async def remove_users(self, users: tuple[str, ...]) -> None:
        """Nothing: the operator removes users."""

    def login(self, user: str, password: str) -> Login:
        return self._login if self._login.username else Login(user, password)


def choose(setup: BrokerSetup, wanted: str = "auto") -> Broker:
    """The broker for `auto`, `mosquitto`, `amqtt` or a URL; not started yet.

    `auto` is mosquitto 2 or newer where there is one, else amqtt with a warning.
    Raises `BrokerError` where what is wanted can't be had.
    """
    if "://" in wanted:
        return ExternalBroker(wanted)
    if wanted not in ("auto", "mosquitto", "amqtt"):
        raise BrokerError(f"unknown broker {wanted!r}: auto, mosquitto, amqtt or mqtt://host:port")
    if wanted != "amqtt":
        try:
            return MosquittoBroker(setup, find_binary())
        except BrokerError as error:
            if wanted == "mosquitto":
                raise
            return _embedded(setup, str(error))
    return _embedded(setup, "amqtt was asked for")


def _embedded(setup: BrokerSetup, reason: str) -> Broker:
    try:
        from broker.serve_amqtt import AmqttBroker
    except ImportError as error:
        advice = "amqtt is not installed (pip install 'fleetmuster[broker]')"
        raise BrokerError(f"{reason}; and {advice}") from error
    return AmqttBroker(setup, reason)


def _redact(url: str) -> str:
    """The address without a password that may stand in it."""
    return url.rpartition("@")[2]


def _say(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
