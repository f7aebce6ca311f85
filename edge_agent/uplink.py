"""The uplink: one device's connections, between effects of its core and MQTT links.

Rules of this file. Every `Connect` is answered by exactly one `LinkUp` or `LinkDown` of its
session, every `Disconnect` by a `LinkDown`; a new connection ends the one before. What
arrives becomes a message or a `GarbageArrived`, whatever it is. It knows topics and bytes,
and nothing of what a message asks.

Rejected: a queue of its own for what a full link refuses: heartbeats are worthless late,
documents are level-triggered, and chunks stay in the outbox until they are stored.
"""

from __future__ import annotations

from collections.abc import Callable

from live.link import Link, LinkFactory, LinkHandlers, LinkOptions, WillMessage
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
from protocol.errors import GarbageReason, RemoteGarbage

OptionsFor = Callable[[WillMessage | None], LinkOptions]


class Uplink:
    """All connections of one device, one at a time. `post` takes every event it makes."""

    def __init__(
        self,
        fleet: str,
        device: str,
        factory: LinkFactory,
        options: OptionsFor,
        post: Callable[[Event], None],
    ) -> None:
        self.fleet = fleet
        self.device = device
        self.refused = 0
        """Messages that the link had no room for, since the start."""
        self._factory = factory
        self._options = options
        self._post = post
        self._link: Link | None = None
        self._session = 0
        self._paused = False
        self._topics: dict[str, str] = {}

    # ------------------------------------------------------------ effects

    def connect(self, effect: Connect) -> None:
        """A new link under this session; the one before, if any, just dies."""
        if self._link is not None:
            self._link.close(orderly=False)
        session, will = effect.session, None
        if effect.will is not None:
            message = effect.will
            topic = topics.build(self.fleet, self.device, message.channel)
            will = WillMessage(topic, encode(message), message.qos, message.retain)
        handlers = LinkHandlers(
            on_up=lambda: self._post(LinkUp(session)),
            on_down=lambda reason: self._fell(session, reason),
            on_message=self._arrived,
        )
        self._link, self._session = self._factory(self._options(will), handlers), session
        self._link.open()
        if self._paused:
            self._link.pause_reading()

    def disconnect(self, effect: Disconnect) -> None:
        """End that connection in good order; one that is not there has ended already."""
        if self._link is not None and effect.session == self._session:
            self._link.close(orderly=True)
        else:
            self._post(LinkDown(effect.session, "no such connection"))

    def publish(self, effect: Publish) -> None:
        """Send, or drop and count: whoever needs it says it again."""
        message = effect.message
        topic = self._topics.get(message.channel)
        if topic is None:
            topic = topics.build(self.fleet, effect.device, message.channel)
            self._topics[message.channel] = topic
        link = self._link
        if link is None or not link.publish(topic, encode(message), message.qos, message.retain):
            self.refused += 1

    # ------------------------------------------------------------ back-pressure

    def pause(self) -> None:
        """The core is behind: let the broker feel it."""
        self._paused = True
        if self._link is not None:
            self._link.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._link is not None:
            self._link.resume_reading()

    def cut(self) -> None:
        """The process ends: no goodbye."""
        if self._link is not None:
            self._link.close(orderly=False)

    # ------------------------------------------------------------ what arrives

    def _fell(self, session: int, reason: str) -> None:
        if session == self._session:
            self._link = None
        self._post(LinkDown(session, reason))

    def _arrived(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        channel = topic.rsplit("/", 1)[-1][:32]
        try:
            parsed = topics.parse(topic)
            if parsed.device != self.device or parsed.channel not in topics.DOWN:
                raise RemoteGarbage(GarbageReason.WRONG_CHANNEL, topic[:80])
            event: Event = MessageArrived(self.device, decode(parsed, payload), retain)
        except RemoteGarbage as garbage:
            event = GarbageArrived(self.device, channel, garbage.reason.value, garbage.detail)
        self._post(event)
