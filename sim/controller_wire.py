"""A controller's connection to the broker: bytes in as events, effects out as bytes.

Rule of this file: the twin of `controller/wiring.py` on a virtual network. Heartbeats of one
moment become one batch; garbage becomes an event with its reason; news of a connection that
was dropped reach nobody. It decides nothing, and does nothing while its process can't.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.events import Publication
from controller.core.effects import ClearRetained, PublishFleet, PublishLeases
from controller.core.events import CanaryReturned, HeartbeatBatch, heartbeat_batch
from protocol import topics
from protocol.codec import encode
from protocol.core import Connect, Event, GarbageArrived, LinkDown, LinkUp, MessageArrived, Publish
from protocol.errors import RemoteGarbage
from protocol.messages import Canary, Heartbeat, LeaseAnswer, Message, Revision
from sim.clockwork import Clockwork, Work
from sim.ears import parse, understand
from sim.network import Network


class SimulatedWire:
    """Implements `sim.network.NetworkClient` for one controller process after another.

    `when_free` does work as soon as the process can; `later` offers an event in its next turn.
    """

    def __init__(
        self,
        fleet: str,
        client: str,
        clock: Clockwork,
        network: Network,
        when_free: Callable[[Work], None],
        offer: Callable[[Event], None],
        later: Callable[[Event], None],
    ) -> None:
        self.fleet, self.client = fleet, client
        self.clock = clock
        self.network = network
        self._when_free, self._offer, self._later = when_free, offer, later
        self.take_leases: Callable[[PublishLeases], PublishLeases | None] | None = None
        """Who takes answers as columns; what it returns goes to the network."""
        self.heartbeats = 0
        """How many came, by the network or as columns."""
        self._connection = self._session = 0
        self._heartbeats: list[tuple[str, Heartbeat]] = []

    # ------------------------------------------------------------- connection

    def connect(self, effect: Connect) -> None:
        self.drop()
        will = None
        if effect.will is not None:
            topic = topics.build(self.fleet, topics.CONTROLLER, effect.will.channel)
            will = Publication(topic, encode(effect.will), 1, True)
        own = topics.build(self.fleet, topics.CONTROLLER, Canary.channel)
        filters = tuple(
            (f, 0 if f.endswith("/heartbeat") else 1) for f in (*topics.up_filters(self.fleet), own)
        )
        self._session = effect.session
        self._connection = self.network.connect(self.client, self, filters, will)

    def drop(self, orderly: bool = False) -> None:
        """Forgets the present connection; whatever it still says belongs to the past."""
        connection, self._connection, self._heartbeats = self._connection, 0, []
        if orderly:
            self.network.disconnect(connection)
        else:
            self.network.abandon(connection)

    # ------------------------------------------------------------- out

    def publish(self, effect: Publish) -> None:
        self._send(effect.device, effect.message)

    def publish_fleet(self, effect: PublishFleet) -> None:
        assert isinstance(effect.message, Message)
        self._send(topics.CONTROLLER, effect.message)

    def publish_leases(self, effect: PublishLeases) -> None:
        left = effect if self.take_leases is None else self.take_leases(effect)
        if left is not None:
            self._send_leases(left)

    def _send_leases(self, effect: PublishLeases) -> None:
        columns = zip(
            effect.devices, effect.sessions.tolist(), effect.seqs.tolist(), effect.epochs.tolist(),
            effect.numbers.tolist(), effect.runs.tolist(), effect.inventories.tolist(),
            effect.outboxes.tolist(), effect.stored.tolist(), strict=True,
        )  # fmt: skip
        for device, session, seq, epoch, number, *rest in columns:
            self._send(device, LeaseAnswer(effect.epoch, session, seq, Revision(epoch, number), *rest))

    def clear_retained(self, effect: ClearRetained) -> None:
        for topic in topics.retained_topics(self.fleet, effect.device):
            self.network.publish(self._connection, topic, b"", 1, True)

    def _send(self, device: str, message: Message) -> None:
        topic = topics.build(self.fleet, device, message.channel)
        self.network.publish(self._connection, topic, encode(message), message.qos, message.retain)

    # ------------------------------------------------------------- in

    def on_link_up(self, connection: int) -> None:
        if connection == self._connection:
            self._when_free(lambda: self._up(connection))

    def _up(self, connection: int) -> None:
        if connection == self._connection:
            self._offer(LinkUp(self._session))

    def on_link_down(self, connection: int, reason: str) -> None:
        if connection == self._connection:
            self._when_free(lambda: self._down(connection, reason))

    def _down(self, connection: int, reason: str) -> None:
        if connection == self._connection:
            self._connection = 0
            self._later(LinkDown(self._session, reason))

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if connection == self._connection:
            self._when_free(lambda: self._hear(connection, topic, payload, retain))

    def _hear(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if connection != self._connection:
            return
        parsed = parse(topic)
        self.clock.trace(self.client, f"hears {parsed.device} {parsed.channel}", payload)
        try:
            message = understand(topic, payload)
        except RemoteGarbage as garbage:
            self._offer(GarbageArrived(parsed.device, parsed.channel, garbage.reason, garbage.detail))
            return
        if isinstance(message, Heartbeat):
            self._gather(parsed.device, message)
        elif isinstance(message, Canary):
            self._offer(CanaryReturned(message.epoch, message.number))
        elif parsed.device != topics.CONTROLLER:
            self._offer(MessageArrived(parsed.device, message, retain))

    def _gather(self, device: str, message: Heartbeat) -> None:
        if not self._heartbeats:
            connection = self._connection
            self.clock.after(0, lambda: self._when_free(lambda: self._flush(connection)))
        self.heartbeats += 1
        self._heartbeats.append((device, message))

    def hear_columns(self, batch: HeartbeatBatch) -> None:
        """Heartbeats that somebody else carried here."""
        connection = self._connection
        self.heartbeats += len(batch.devices)
        self._when_free(lambda: self._offer(batch) if connection == self._connection else None)

    def _flush(self, connection: int) -> None:
        if connection == self._connection and self._heartbeats:
            gathered, self._heartbeats = self._heartbeats, []
            self._offer(heartbeat_batch(gathered))
