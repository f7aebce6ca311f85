"""The embedded broker: amqtt 0.12.1 in this process, with its holes closed.

Rule of this file: it is the only one that imports amqtt. What is overridden here was read
in that one version, so any other is refused rather than trusted. Closed: a client is let
in, and its will checked, *before* anything of another client is touched (amqtt evicts by
client id first and asks for the password later); retained messages go only to who may
read them and subscribed (amqtt sends every connecting client what anybody's filter
selects); wills obey the access rules; a packet's length is bounded; a silent device loses
its connection, and its will is sent. Not closed: see `WARNING` and `DESIGN.md`.
Rejected: amqtt's plugins (asked too late and not for retained messages or wills); kept
sessions (every client of ours connects clean, and amqtt loses them under load).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
from collections.abc import Mapping
from importlib.metadata import version

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker as AmqttServer
from amqtt.contexts import Action
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from broker.acl import FleetAcl
from broker.contract import BrokerError, BrokerSetup, Login, checked_user, free_port
from broker.events import AclAction
from broker.filters import matches
from broker.render import PACKET_BYTES_MAX

AMQTT_VERSION = "0.12.1"
WARNING = (
    "the embedded broker (amqtt) is for trials: it forgets everything when it stops, delivers "
    "QoS 0 as QoS 1 where that was subscribed, gives up a message that is not acknowledged within "
    "5 s, and shares the controller's processor; install mosquitto for a fleet that matters"
)
CONNECT_MS = 10_000
STOP_MS = 5_000
TAKE_OVER_MS = 2_000
MONITOR_MS = 1_000
_ACTIONS = {
    Action.PUBLISH: AclAction.PUBLISH,
    Action.SUBSCRIBE: AclAction.SUBSCRIBE,
    Action.RECEIVE: AclAction.RECEIVE,
}


class _BoundedReader(StreamReaderAdapter):  # type: ignore[misc]
    """Ends the stream at the first packet that claims to be too long."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        if n > PACKET_BYTES_MAX:
            self._ended = True
        if self._ended:
            return b""
        data: bytes = await super().read(n)
        return data

    def feed_eof(self) -> None:
        self._ended = True
        super().feed_eof()


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]
    """amqtt notices a client's silence and does nothing; this ends the connection (3.1.2-24)."""

    def handle_read_timeout(self) -> None:
        if self.reader is not None:
            self.reader.feed_eof()


class _FleetServer(AmqttServer):  # type: ignore[misc]
    """amqtt's broker with our credentials and rules; fails closed."""

    def __init__(self, acl: FleetAcl, digests: Mapping[str, bytes], host: str, port: int) -> None:
        bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__({"listeners": {"default": {"type": "tcp", "bind": bind}}, "plugins": {}})
        self._fleet_acl = acl
        self._digests = digests
        """Live: the keeper's own dictionary."""

    # ------------------------------------------------------------------- letting in

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        endpoint = writer.get_extra_info("socket")
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._client_connected(listener_name, _BoundedReader(reader), StreamWriterAdapter(writer))
        finally:
            writer.close()

    async def _initialize_client_session(
        self, reader: _BoundedReader, writer: StreamWriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[_Handler, Session]:
        try:
            async with asyncio.timeout(CONNECT_MS / 1000):
                handler, session = await _Handler.init_from_connect(reader, writer, self.plugins_manager)
        except (AMQTTError, MQTTError, NoDataError):
            raise
        except Exception as error:  # a stranger's bytes: amqtt's decoders raise whatever they meet
            raise MQTTError(f"not a CONNECT: {error!r}") from error
        if not self._admits(session):
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            raise MQTTError(f"refused {session.username!r}")
        session.clean_session = True
        session.parent = 0
        session.keep_alive = -(-session.keep_alive * 3 // 2)
        await self._take_over(session.client_id)
        return handler, session

    def _admits(self, session: Session) -> bool:
        """Right password, client id = user name, and a will that it may publish."""
        name, known = session.username, self._digests.get(session.username or "")
        if known is None or session.client_id != name:
            return False
        if not hmac.compare_digest(known, _digest(session.password or "")):
            return False
        if not session.will_flag:
            return True
        return self._fleet_acl(name, name, AclAction.PUBLISH, session.will_topic)

    async def _authenticate(self, session: Session, _: object) -> bool:
        return self._admits(session)

    async def _take_over(self, client: str) -> None:
        """End the present connection of a client (3.1.4-2), its will before the newcomer's birth."""
        session, handler = self._sessions.get(client, (None, None))
        if handler is None or session is None:
            return
        await handler.handle_connection_closed()
        deadline = self._loop.time() + TAKE_OVER_MS / 1000
        while session.transitions.state == "connected" and self._loop.time() < deadline:
            await asyncio.sleep(0)
        await self._drop(client, session)

    async def evict(self, client: str) -> None:
        """Close a client's connection; its will is sent."""
        await self._take_over(client)

    async def _drop(self, client: str, session: Session) -> None:
        present, _ = self._sessions.get(client, (None, None))
        if present is session:
            await self._cleanup_session(client)

    async def _session_monitor(self) -> None:
        """amqtt collects names, awaits, then removes whoever bears the name by then."""
        while True:
            for client, (session, _) in list(self._sessions.items()):
                if session.transitions.state == "disconnected":
                    await self._drop(client, session)
            await asyncio.sleep(MONITOR_MS / 1000)

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        """By session, not by client id: a name's next session may have subscribed already."""
        entries = self._subscriptions.get(a_filter, [])
        for index, (owner, _) in enumerate(entries):
            if owner is session:
                del entries[index]
                return 1
        return 0

    # -------------------------------------------------------------------- messages

    def _may(self, session: Session, action: AclAction, topic: str) -> bool:
        user = session.username or ""
        return user in self._digests and self._fleet_acl(session.client_id, user, action, topic)

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        return self._may(session, _ACTIONS[action], topic)

    async def _run_broadcast(self, running_tasks: object) -> None:
        """Hand out one message. Never awaits while it goes through the subscriptions."""
        broadcast = await self._broadcast_queue.get()
        topic, data, forced = broadcast["topic"], broadcast["data"], broadcast.get("qos")
        for topic_filter, entries in self._subscriptions.items():
            if not entries or not matches(topic_filter, topic):
                continue
            for session, granted in entries:
                if self._may(session, AclAction.RECEIVE, topic):
                    qos = granted if forced is None else min(granted, forced)
                    self._send(session, topic, data, qos, retain=False)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        topic_filter, wanted = subscription
        if not any(owner is session for owner, _ in self._subscriptions.get(topic_filter, ())):
            return
        for topic, retained in self._retained_messages.items():
            if matches(topic_filter, topic) and self._may(session, AclAction.RECEIVE, topic):
                qos = min(wanted, 1, retained.qos or 0)
                self._send(session, topic, retained.data, qos, retain=True)

    def _send(self, session: Session, topic: str, data: bytes, qos: int, retain: bool) -> None:
        handler = self._get_handler(session)
        if handler is None or handler.session is not session or session.transitions.state != "connected":
            return
        self._tasks_queue.append(asyncio.ensure_future(handler.mqtt_publish(topic, data, qos, retain=retain)))


_OVERRIDDEN = (
    "stream_connected",
    "_initialize_client_session",
    "_authenticate",
    "_session_monitor",
    "_del_subscription",
    "_topic_filtering",
    "_run_broadcast",
    "_publish_retained_messages_for_subscription",
)


class AmqttBroker:
    """`Broker` by amqtt in this event loop; state lives in memory only."""

    kind = "amqtt"
    manages_credentials = True

    def __init__(self, setup: BrokerSetup, reason: str = "") -> None:
        installed = version("amqtt")
        missing = [name for name in _OVERRIDDEN if not hasattr(AmqttServer, name)]
        if installed != AMQTT_VERSION or missing:
            raise BrokerError(f"amqtt {installed} is not the known {AMQTT_VERSION}")
        self.host = setup.host
        self.port = setup.port
        self.warning: str | None = f"{reason}: {WARNING}" if reason else WARNING
        self._acl = FleetAcl(setup.fleet)
        self._digests = {checked_user(user): _digest(word) for user, word in setup.users.items()}
        self._server: _FleetServer | None = None
        self._gone: asyncio.Event | None = None
        for name in ("amqtt", "transitions"):  # they log every packet and every state
            logging.getLogger(name).setLevel(logging.ERROR)

    async def start(self) -> None:
        if self._server is not None:
            raise BrokerError("the embedded broker runs already")
        port = self.port or free_port(self.host)
        server = _FleetServer(self._acl, self._digests, self.host, port)
        try:
            await server.start()
        except Exception as error:  # amqtt wraps all it meets in an exception of its own
            raise BrokerError(f"the embedded broker can't listen on {self.host}:{port}: {error}") from error
        self.port, self._server, self._gone = port, server, asyncio.Event()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        try:
            await asyncio.wait_for(server.shutdown(), STOP_MS / 1000)
        except TimeoutError as error:
            raise BrokerError(f"the embedded broker did not stop within {STOP_MS} ms") from error
        finally:
            assert self._gone is not None
            self._gone.set()

    async def restart(self, lose_state: bool = False) -> None:
        """State is lost either way."""
        await self.stop()
        await self.start()

    async def exited(self) -> str:
        if self._gone is not None:
            await self._gone.wait()
        return "stopped"

    async def add_users(self, passwords: Mapping[str, str]) -> None:
        self._digests |= {checked_user(user): _digest(word) for user, word in passwords.items()}

    async def remove_users(self, users: tuple[str, ...]) -> None:
        for user in users:
            self._digests.pop(user, None)
            if self._server is not None:
                await self._server.evict(user)

    def login(self, user: str, password: str) -> Login:
        return Login(user, password)


def _digest(password: str) -> bytes:
    """Passwords are 256 random bits, so one hash is enough to keep them out of a core dump."""
    return hashlib.sha256(password.encode()).digest()
