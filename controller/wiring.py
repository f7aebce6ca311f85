"""The controller's MQTT side: bytes in as events, effects out as bytes.

Rule of this file: it decodes, batches heartbeats into columns and encodes; it decides
nothing. Garbage becomes an event with its reason. One link at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.core.effects import ClearRetained, PublishFleet, PublishLeases
from controller.core.events import CanaryReturned, heartbeat_batch
from live.link import Link, LinkHandlers, LinkOptions, TlsSettings, WillMessage
from live.links import make_link
from protocol import topics
from protocol.codec import decode, encode
from protocol.core import (
    Connect,
    Disconnect,
    Event,
    GarbageArrived,
    LinkDown,
    LinkUp,
    MessageArrived,
    Publish,
)
from protocol.errors import LocalMistake, RemoteGarbage
from protocol.messages import Canary, ControllerStatus, Heartbeat, LeaseAnswer, Message, Revision

INFLIGHT_MAX = 5_000
QUEUE_MAX = 50_000
"""One document for each device of a large fleet may leave in one moment."""


class Wire:
    """Everything between the core and the broker."""

    def __init__(
        self,
        fleet: str,
        client_id: str,
        make_options: Callable[[], tuple[str, int, str, str, TlsSettings | None]],
        offer: Callable[[Event], bool],
        post: Callable[[Event], None],
    ) -> None:
        """`offer` may refuse (then reading is paused by the inbox), `post` never does."""
        self.fleet, self.client_id = fleet, client_id
        self.up = False
        self.received = self.sent = self.dropped = 0
        self._make_options = make_options
        self._offer, self._post = offer, post
        self._link: Link | None = None
        self._session = 0
        self._heartbeats: list[tuple[str, Heartbeat]] = []
        self._canary = topics.build(fleet, topics.CONTROLLER, "canary")

    # ------------------------------------------------------------- connection

    def connect(self, effect: Connect) -> None:
        self.drop()
        session = self._session = effect.session
        host, port, username, password, tls = self._make_options()
        will = self._will(effect.will)
        filters = (*topics.up_filters(self.fleet), self._canary)
        options = LinkOptions(
            host,
            port,
            self.client_id,
            username,
            password,
            will=will,
            subscriptions=tuple((f, 0 if f.endswith("/heartbeat") else 1) for f in filters),
            tls=tls,
            inflight_max=INFLIGHT_MAX,
            queue_max=QUEUE_MAX,
        )
        handlers = LinkHandlers(
            lambda: self._on_up(session), lambda reason: self._on_down(session, reason), self._on_message
        )
        self._link = make_link(options, handlers)
        self._link.open()

    def _will(self, message: Message | None) -> WillMessage | None:
        if not isinstance(message, ControllerStatus):
            return None
        return WillMessage(topics.build(self.fleet, topics.CONTROLLER, "status"), encode(message))

    def disconnect(self, effect: Disconnect) -> None:
        self.drop(orderly=True)

    def drop(self, orderly: bool = False) -> None:
        """Forgets the present link; whatever it still says belongs to a session of the past."""
        link, self._link, self._session, self.up = self._link, None, 0, False
        if link is not None:
            link.close(orderly)

    def _on_up(self, session: int) -> None:
        if session == self._session:
            self.up = True
            self._post(LinkUp(session))

    def _on_down(self, session: int, reason: str) -> None:
        if session == self._session:
            self._link, self.up = None, False
            self._post(LinkDown(session, reason))

    def pause(self) -> None:
        if self._link is not None:
            self._link.pause_reading()

    def resume(self) -> None:
        if self._link is not None:
            self._link.resume_reading()

    # ------------------------------------------------------------- in

    def _on_message(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.received += 1
        try:
            parsed = topics.parse(topic)
            if parsed.fleet != self.fleet:
                return
            message = decode(parsed, payload)
        except RemoteGarbage as garbage:
            self._on_garbage(topic, garbage)
            return
        if isinstance(message, Heartbeat):
            self._gather(parsed.device, message)
        elif isinstance(message, Canary):
            self._offer(CanaryReturned(message.epoch, message.number))
        elif parsed.device != topics.CONTROLLER:
            # `+/status` also matches the controllers' own: that one is for people.
            self._offer(MessageArrived(parsed.device, message, retain))

    def _on_garbage(self, topic: str, garbage: RemoteGarbage) -> None:
        parts = topic.split("/")
        device, channel = (parts[3][:64], parts[4][:64]) if len(parts) == 5 else ("", "")
        self._offer(GarbageArrived(device, channel, garbage.reason, garbage.detail))

    def _gather(self, device: str, message: Heartbeat) -> None:
        if not self._heartbeats:
            asyncio.get_running_loop().call_soon(self._flush)
        self._heartbeats.append((device, message))

    def _flush(self) -> None:
        gathered, self._heartbeats = self._heartbeats, []
        self._offer(heartbeat_batch(gathered))

    # ------------------------------------------------------------- out

    def publish(self, effect: Publish) -> None:
        message = effect.message
        self._send(topics.build(self.fleet, effect.device, message.channel), message)

    def publish_fleet(self, effect: PublishFleet) -> None:
        message = effect.message
        if not isinstance(message, Message):
            raise LocalMistake(f"not a message: {type(message).__name__}")
        self._send(topics.build(self.fleet, topics.CONTROLLER, message.channel), message)

    def publish_leases(self, effect: PublishLeases) -> None:
        columns = zip(
            effect.devices, effect.sessions.tolist(), effect.seqs.tolist(), effect.epochs.tolist(),
            effect.numbers.tolist(), effect.runs.tolist(), effect.inventories.tolist(),
            effect.outboxes.tolist(), effect.stored.tolist(), strict=True,
        )  # fmt: skip
        for device, session, seq, epoch, number, runs, inventory, outbox, stored in columns:
            granted = Revision(epoch, number)
            answer = LeaseAnswer(effect.epoch, session, seq, granted, runs, inventory, outbox, stored)
            self._send(topics.build(self.fleet, device, "lease"), answer)

    def clear_retained(self, effect: ClearRetained) -> None:
        for topic in topics.retained_topics(self.fleet, effect.device):
            self._put(topic, b"", 1, True)

    def _send(self, topic: str, message: Message) -> None:
        self._put(topic, encode(message), message.qos, message.retain)

    def _put(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        # What is dropped here is healed by the next heartbeat: every document is level-triggered.
        if self._link is not None and self._link.publish(topic, payload, qos, retain):
            self.sent += 1
        else:
            self.dropped += 1
