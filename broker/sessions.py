"""One client of the model: what was sent to it, what waits, what is sent again.

Rule of this file: it is the only place that gives out packet ids, and the only one that
bounds what a slow or absent client may cost. A message is either in flight (sent, not
acknowledged) or queued behind those; both survive a connection when the session is kept.
It refuses to know topics' matching, wills, access, other clients, and timers.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from broker.events import BrokerCounts, BrokerLimits, Publication, SendPublish
from protocol.core import Effect

PACKET_ID_MAX = 65_535


class Outgoing(NamedTuple):
    """A QoS 1 message for one client; `retain` is the flag it is delivered with."""

    publication: Publication
    retain: bool
    sent_ms: int


class ClientSession:
    """The session state of MQTT 3.1.2.4, QoS 0 and 1."""

    __slots__ = (
        "_counts",
        "_limits",
        "_next_id",
        "_queue",
        "_queued_bytes",
        "clean",
        "client",
        "connection",
        "filters",
        "heard_ms",
        "resting",
        "sent",
        "silence_ms",
        "unwatched",
        "username",
        "watched",
        "will",
    )

    def __init__(
        self, client: str, username: str, clean: bool, limits: BrokerLimits, counts: BrokerCounts
    ) -> None:
        self.client = client
        self.username = username
        self.clean = clean
        self._limits = limits
        self._counts = counts
        self.connection: int | None = None
        self.filters: dict[str, int] = {}
        self.will: Publication | None = None
        self.heard_ms = 0
        self.silence_ms = 0
        """How long the client may be silent; 0: for ever."""
        self.resting = self.unwatched = False
        """Its world vouches for the client; and whether a timer found it so and went."""
        self.watched = False
        """Whether a timer looks after unacknowledged messages of this connection."""
        self.sent: dict[int, Outgoing] = {}
        """In flight, by packet id, in the order of sending."""
        self._queue: deque[Outgoing] = deque()
        self._queued_bytes = 0
        self._next_id = 0

    def copy(self) -> ClientSession:
        """What is kept of it without a connection; shares nothing that changes."""
        twin = ClientSession(self.client, self.username, self.clean, self._limits, self._counts)
        twin.filters = dict(self.filters)
        twin.sent = dict(self.sent)
        twin._queue = deque(self._queue)
        twin._queued_bytes = self._queued_bytes
        twin._next_id = self._next_id
        return twin

    def offer(
        self, publication: Publication, granted: int, retain: bool, now_ms: int, out: list[Effect]
    ) -> None:
        """Deliver or queue, at the lower of the two QoS (3.8.4-6); QoS 0 never waits."""
        connection = self.connection
        if granted and publication.qos:
            message = Outgoing(publication, retain, now_ms)
            if connection is None or self._queue or len(self.sent) >= self._limits.inflight_max:
                self._enqueue(message)
            else:
                self._send(connection, message, out)
        elif connection is not None:
            self._counts.delivered += 1
            topic, payload = publication.topic, publication.payload
            out.append(SendPublish(connection, self.client, topic, payload, 0, retain, False, 0))

    def acknowledge(self, packet_id: int, now_ms: int, out: list[Effect]) -> None:
        """A PUBACK came; an unknown id is ignored (a late one, or a client's mistake)."""
        if self.sent.pop(packet_id, None) is not None and self._queue:
            self._pump(now_ms, out)

    def resume(self, now_ms: int, out: list[Effect]) -> None:
        """On a new connection: the unacknowledged in their order, then what waited (4.4.0-1, 4.6.0-1)."""
        self.redeliver(now_ms, now_ms, out)
        self._pump(now_ms, out)

    def redeliver(self, sent_until_ms: int, now_ms: int, out: list[Effect]) -> None:
        """Send again, with the same packet id and DUP (3.3.1-1), what was sent until then."""
        assert self.connection is not None
        for packet_id, message in list(self.sent.items()):
            if message.sent_ms > sent_until_ms:
                continue
            self.sent[packet_id] = message._replace(sent_ms=now_ms)
            self._counts.redelivered += 1
            out.append(self._packet(self.connection, message, True, packet_id))

    def _pump(self, now_ms: int, out: list[Effect]) -> None:
        assert self.connection is not None
        while self._queue and len(self.sent) < self._limits.inflight_max:
            message = self._queue.popleft()
            self._queued_bytes -= _size(message.publication)
            self._send(self.connection, message._replace(sent_ms=now_ms), out)

    def _send(self, connection: int, message: Outgoing, out: list[Effect]) -> None:
        packet_id = self._take_id()
        self.sent[packet_id] = message
        self._counts.delivered += 1
        out.append(self._packet(connection, message, False, packet_id))

    def _packet(self, connection: int, message: Outgoing, dup: bool, packet_id: int) -> SendPublish:
        topic, payload = message.publication.topic, message.publication.payload
        return SendPublish(connection, self.client, topic, payload, 1, message.retain, dup, packet_id)

    def _enqueue(self, message: Outgoing) -> None:
        size = _size(message.publication)
        full = len(self._queue) >= self._limits.queued_max
        if full or self._queued_bytes + size > self._limits.queued_bytes_max:
            self._counts.queue_full += 1
            return
        self._queued_bytes += size
        self._queue.append(message)

    def _take_id(self) -> int:
        """A packet id that is not in flight (2.3.1-2); `inflight_max` leaves some free."""
        while True:
            self._next_id = self._next_id % PACKET_ID_MAX + 1
            if self._next_id not in self.sent:
                return self._next_id


def _size(publication: Publication) -> int:
    return len(publication.payload) + len(publication.topic)
