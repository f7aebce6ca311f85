"""The MQTT link on paho-mqtt: paho's protocol code, asyncio's socket, no thread, no select().

paho keeps what it is good at: the greeting, subscriptions, encoding what leaves. Taken from
it is what doesn't fit thousands of links in one event loop, each by an override or two in
`_PahoClient`:
1. its blocking connect: `_create_socket` takes a stand-in for our wire;
2. its output queue with a wake-up per packet: `_packet_queue` writes to the wire;
3. its reading of single bytes from the socket: `feed` gives it whole packets;
4. its window of unacknowledged messages (a search that is quadratic, numbers handed out
   while still in use, locks per message): `send_message`, `_mid_generate`, `_handle_pubackcomp`;
5. its way of a message that arrives (20 us, half of it for a log nobody reads; callbacks by topic,
   under a lock that makes closing from a handler a deadlock): `_handle_publish`.
Its keep-alive isn't used either: at a granularity that thousands of links can afford it
pings up to half a period too late for the broker.

Rejected: paho's `loop()` (select(), silently dead at descriptor 1024) and `loop_start()`
(a thread per link). The overrides touch private names, hence the range in pyproject.toml
and the contract suite, which is what says whether a new paho still fits.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from live.link import LinkHandlers, LinkOptions, TlsSettings
from live.wire import PacketWire

PUBLISH, CONNACK = 0x30, 0x20
TYPE_BITS, QOS_HIGH_BIT, QOS_BITS, RETAIN_BIT = 0xF0, 0x04, 0x06, 0x01
PUBACK_HEAD = b"\x40\x02"
HELD_BYTES_MAX = 64 * 1_048_576
"""Retained messages that overtake the SUBACK: 10,000 devices' documents, some KiB each."""
SILENT_TICKS_MAX = 3
"""A tick is half a keep-alive: given up after 1.5 to 2 periods, about the rule the broker has for us."""

Waiting = tuple[str, bytes, bool]
Arrived = tuple[str, bytes, int, bool]


class PahoStage(Enum):
    """Life of one link: NEW → DIALLING → GREETING → SUBSCRIBING → UP → CLOSING → ENDED, or ENDED from any."""

    NEW = "new"
    DIALLING = "dialling"
    GREETING = "greeting"
    SUBSCRIBING = "subscribing"
    UP = "up"
    CLOSING = "closing"
    ENDED = "ended"


class PahoLink:
    """One connection attempt with paho. Contract: `live.link.Link`."""

    def __init__(self, options: LinkOptions, handlers: LinkHandlers) -> None:
        self._options = options
        self._handlers = handlers
        self._state = PahoStage.NEW
        self._reason = ""
        self._pausing = False
        self._held: deque[Arrived] = deque()
        self._held_bytes = 0
        self._waiting_qos0: deque[Waiting] = deque()
        self._waiting_qos1: deque[Waiting] = deque()
        self._silent_ticks = 0
        self._suback_mid: int | None = None

    # ---------------------------------------------------------------- contract

    def open(self) -> None:
        """See `Link.open`."""
        if self._state is not PahoStage.NEW:
            raise ValueError("a link is opened once")
        self._state = PahoStage.DIALLING
        self._loop = asyncio.get_running_loop()
        self._wire = PacketWire(self, self._loop)
        self._client = _PahoClient(self._options, self._wire, self._on_acknowledged)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        timeout_ms = self._options.connect_timeout_ms
        self._deadline = self._loop.call_later(timeout_ms / 1_000, self._on_deadline)
        self._tick: asyncio.TimerHandle | None = None
        self._dialling = self._loop.create_task(self._dial())

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        """See `Link.publish`."""
        if qos not in (0, 1) or not topic or "+" in topic or "#" in topic:
            raise ValueError(f"cannot publish to {topic!r} with QoS {qos}")
        if self._state is not PahoStage.UP:
            return False
        blocked = self._wire.congested or (qos == 1 and self._window_full())
        waiting = self._waiting_qos1 if qos else self._waiting_qos0
        if not blocked and not waiting:
            self._client.send_message(topic, payload, qos, retain)
            return True
        if self.queued >= self._options.queue_max:
            return False
        waiting.append((topic, payload, retain))
        return True

    def close(self, orderly: bool) -> None:
        """See `Link.close`."""
        if self._state in (PahoStage.NEW, PahoStage.CLOSING, PahoStage.ENDED):
            return
        if self._state is PahoStage.DIALLING:
            self._fail("closed")
            return
        self._state = PahoStage.CLOSING
        if orderly:
            self._send_waiting(everything=True)
            self._client.disconnect()
            self._wire.finish("closed")
        else:
            self._wire.abort("closed")

    def pause_reading(self) -> None:
        """See `Link.pause_reading`."""
        self._pausing = True
        if self._state is PahoStage.UP:  # before that, the SUBACK must still be read
            self._wire.pause()

    def resume_reading(self) -> None:
        """See `Link.resume_reading`."""
        if self._pausing:
            self._pausing = False
            if self._state is PahoStage.UP:
                self._loop.call_soon(self._release)

    @property
    def queued(self) -> int:
        """See `Link.queued`."""
        return len(self._waiting_qos0) + len(self._waiting_qos1)

    @property
    def inflight(self) -> int:
        """See `Link.inflight`."""
        return 0 if self._state in (PahoStage.NEW, PahoStage.ENDED) else len(self._client.unacknowledged)

    # ---------------------------------------------------------------- coming up

    async def _dial(self) -> None:
        options = self._options
        try:
            context = tls_context(options.tls) if options.tls else None
            await self._loop.create_connection(lambda: self._wire, options.host, options.port, ssl=context)
        except (OSError, ValueError, OverflowError) as error:  # no such host name, no such port
            self._fail(f"cannot connect: {error}")
            return
        if self._state is not PahoStage.DIALLING:
            self._wire.abort(self._reason)
            return
        self._state = PahoStage.GREETING
        self._client.reconnect()
        if options.keepalive_s:
            self._wire.set_silence_limit(options.keepalive_s * 1_500)
            self._tick = self._loop.call_later(options.keepalive_s / 2, self._on_tick)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._cut(f"refused: {code}")
        else:
            self._state = PahoStage.SUBSCRIBING if self._options.subscriptions else PahoStage.UP

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: object,
        mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        if self._state is not PahoStage.SUBSCRIBING or mid != self._suback_mid:
            return
        wanted = self._options.subscriptions
        refused = [topic for (topic, _), code in zip(wanted, codes, strict=False) if code.is_failure]
        if len(codes) != len(wanted):
            self._cut("unreadable: SUBACK of another length")
        elif refused:
            self._cut(f"subscription refused: {refused[0]}")
        else:
            self._state = PahoStage.UP

    def _advance(self) -> None:
        if self._state is PahoStage.SUBSCRIBING:
            self._suback_mid = self._client.subscribe(list(self._options.subscriptions))[1]
        elif self._state is PahoStage.UP:
            self._announce()

    def _announce(self) -> None:
        self._deadline.cancel()
        self._handlers.on_up()
        if self._held:  # what overtook the SUBACK comes before anything read later
            self._wire.pause()
            self._release()
        elif self._pausing:
            self._wire.pause()

    # ---------------------------------------------------------------- going down

    def _on_deadline(self) -> None:
        reason = f"no answer within {self._options.connect_timeout_ms} ms"
        if self._state is PahoStage.DIALLING:
            self._fail(reason)
        else:
            self._cut(reason)

    def _cut(self, reason: str) -> None:
        """End a connection whose wire exists; `on_wire_lost` follows."""
        if self._state not in (PahoStage.CLOSING, PahoStage.ENDED):
            self._state = PahoStage.CLOSING
            self._wire.abort(reason)

    def _fail(self, reason: str) -> None:
        """End an attempt whose wire doesn't exist yet."""
        if self._state is not PahoStage.DIALLING:
            return
        self._state, self._reason = PahoStage.CLOSING, reason
        self._dialling.cancel()
        self._wire.abort(reason)
        self._loop.call_soon(self._finish, reason)

    def on_wire_lost(self, reason: str) -> None:
        """The wire is gone, whoever ended it."""
        self._finish(self._reason or reason)

    def _finish(self, reason: str) -> None:
        if self._state is PahoStage.ENDED:
            return
        self._state = PahoStage.ENDED
        self._deadline.cancel()
        if self._tick is not None:
            self._tick.cancel()
        self._held.clear()
        self._waiting_qos0.clear()
        self._waiting_qos1.clear()
        self._client.forget()
        self._handlers.on_down(reason)

    # ---------------------------------------------------------------- receiving

    def on_packet(self, command: int, body: bytes) -> None:
        """One packet from the wire. Whatever is wrong with it ends the connection, nothing else."""
        state = self._state
        kind = command & TYPE_BITS
        if state is PahoStage.DIALLING or (kind == CONNACK) is not (state is PahoStage.GREETING):
            self._cut(f"unreadable: packet type {kind >> 4} while {state.value}")
            return
        if kind == PUBLISH and command & QOS_HIGH_BIT:
            self._cut("unreadable: a message of QoS 2 that nobody subscribed")
            return
        error = self._client.feed(command, body)
        if error:
            self._cut(f"unreadable: {error}")
            return
        if self._client.arrived is not None:
            self._deliver()
        elif self._state is not state:
            self._advance()

    def _deliver(self) -> None:
        arrived, self._client.arrived = self._client.arrived, None
        if arrived is None:
            return
        if self._state is PahoStage.UP:
            self._handlers.on_message(*arrived)
            return
        self._held.append(arrived)
        self._held_bytes += len(arrived[1])
        if self._held_bytes > HELD_BYTES_MAX:
            self._cut("too many messages before the subscription was acknowledged")

    def _release(self) -> None:
        while self._held and not self._pausing and self._state is PahoStage.UP:
            self._handlers.on_message(*self._held.popleft())
        if not self._pausing and self._state is PahoStage.UP:
            self._held_bytes = 0
            self._wire.resume()

    # ---------------------------------------------------------------- sending

    def _window_full(self) -> bool:
        return len(self._client.unacknowledged) >= self._options.inflight_max

    def _on_acknowledged(self) -> None:
        if self._waiting_qos1:
            self._send_waiting()

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        self._send_waiting()

    def _send_waiting(self, everything: bool = False) -> None:
        """QoS 0 first: it is fresh or it is nothing. `everything`: the last chance, bounds or not."""
        for qos, waiting in ((0, self._waiting_qos0), (1, self._waiting_qos1)):
            while waiting and (everything or not self._wire.congested):
                if qos and not everything and self._window_full():
                    return
                topic, payload, retain = waiting.popleft()
                self._client.send_message(topic, payload, qos, retain)

    # ---------------------------------------------------------------- silence

    def _on_tick(self) -> None:
        """Every half keep-alive. While reading is paused, silence is ours, not the peer's."""
        wire = self._wire
        self._silent_ticks = 0 if wire.heard or wire.paused else self._silent_ticks + 1
        if self._silent_ticks >= SILENT_TICKS_MAX:
            self._cut(f"silent for {self._options.keepalive_s * 1_500} ms")
            return
        if self._state in (PahoStage.SUBSCRIBING, PahoStage.UP) and not (wire.heard and wire.spoke):
            self._client.ping()
        wire.heard = wire.spoke = False
        self._tick = self._loop.call_later(self._options.keepalive_s / 2, self._on_tick)


class _PahoClient(paho.Client):
    """paho without its socket, queue and timers. Everything it sends goes to the wire at once."""

    def __init__(self, options: LinkOptions, wire: PacketWire, acknowledged: Callable[[], None]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            options.client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._wire = wire
        self._acknowledged = acknowledged
        self.unacknowledged: set[int] = set()
        self.arrived: Arrived | None = None
        if options.username is not None:
            self.username_pw_set(options.username, options.password)
        if options.will is not None:
            will = options.will
            self.will_set(will.topic, will.payload, will.qos, will.retain)
        self.connect_async(options.host, options.port, options.keepalive_s)

    def send_message(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """paho's `publish` without its window and its two locks and a condition per message."""
        mid = 0
        if qos:
            mid = self._mid_generate()
            self.unacknowledged.add(mid)
        self._send_publish(mid, topic.encode(), payload, qos, retain)

    def feed(self, command: int, body: bytes) -> str:
        """Let paho handle one packet. Answers what was wrong with it, or nothing."""
        packet = self._in_packet
        packet["command"], packet["packet"] = command, body  # type: ignore[typeddict-item]
        packet["remaining_length"] = len(body)
        try:
            code = self._packet_handle()
        except Exception as error:  # the peer's bytes in a third party's parser: any error is garbage
            return f"{type(error).__name__}: {error}"
        return "" if code == MQTTErrorCode.MQTT_ERR_SUCCESS else str(paho.error_string(code))

    def ping(self) -> None:
        self._send_pingreq()

    def forget(self) -> None:
        """Drop the wire and our callbacks: a dead link must not be kept alive by its own circle."""
        self._sock = None
        self.on_connect = self.on_subscribe = None
        self._acknowledged = _nothing
        self.unacknowledged.clear()

    def _mid_generate(self) -> int:
        """paho's own hands out a number that is still in use, and then drops the message."""
        mid = self._last_mid
        while True:
            mid = mid % 65_535 + 1
            if mid not in self.unacknowledged:
                self._last_mid = mid
                return mid

    def _create_socket(self) -> paho.SocketLike:
        return _WireSocket()

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: paho.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        self._wire.write(bytes(packet))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_publish(self) -> MQTTErrorCode:
        """A message; paho's own makes four objects and a line of log that nobody reads of it (15 us).

        It is only remembered here: a handler's bug must not be taken for the peer's garbage.
        """
        header, body = self._in_packet["command"], bytes(self._in_packet["packet"])
        qos = (header & QOS_BITS) >> 1
        topic_end = 2 + int.from_bytes(body[:2], "big")
        payload_at = topic_end + 2 if qos else topic_end
        if topic_end == 2 or payload_at > len(body):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        topic = body[2:topic_end].decode("utf-8", "replace")
        self.arrived = (topic, body[payload_at:], qos, bool(header & RETAIN_BIT))
        if qos:
            self._wire.write(PUBACK_HEAD + body[topic_end:payload_at], patient=True)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: str) -> MQTTErrorCode:
        """The acknowledgement of QoS 1; paho's own builds three objects of MQTT 5 for it (10 us)."""
        body = self._in_packet["packet"]
        if len(body) != 2:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        mid = int.from_bytes(body, "big")
        if mid in self.unacknowledged:
            self.unacknowledged.remove(mid)
            self._acknowledged()
        return MQTTErrorCode.MQTT_ERR_SUCCESS


class _WireSocket:
    """What paho holds in place of a socket: it only asks whether there is one, and closes it."""

    def recv(self, buffer_size: int) -> bytes:
        raise BlockingIOError

    def send(self, buffer: bytes | bytearray) -> int:
        raise BlockingIOError

    def close(self) -> None:
        """The wire is closed by the link, which also says why."""

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """Verifies the broker's name and chain, TLS 1.2 or later. Raises `OSError` (ssl's errors are)."""
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    return context


def _nothing() -> None:
    return None
