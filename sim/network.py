"""The network between the cores: connections as TCP knows them, around a broker as a machine.

Rules of this file. A connection delivers each way in order, later or not at all; what is
sent while it is cut waits, and arrives when the cut ends, unless one end has given up by
then. On top of that `Weather` loses QoS 0, doubles QoS 1 and lets a message straggle past
its successors, because the protocol promises to bear all three from any broker.
Each end gives up a silent connection: the broker by its keep-alive, the client by its own.
It refuses to know what a message means.
Rejected: loss of QoS 1 on a living connection (TCP does not do that; a lost connection,
a restarted broker and a dead receiver lose it here as they do outside).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from broker import events as ev
from broker.model import BrokerModel
from protocol.core import Effect, Event, TimerElapsed
from protocol.limits import KEEPALIVE_S
from sim.clockwork import Clockwork

KEEPALIVE_MS = KEEPALIVE_S * 1_000
REFUSED_MS = 20
"""Until a client learns that nobody listens."""
GIVE_UP_MS = KEEPALIVE_MS * 3 // 2
"""A client that heard nothing for so long closes its connection."""
UP, DOWN = 0, 1


@dataclass(slots=True)
class Weather:
    """How bad the network is at the moment. Shares are 0…1, durations ms."""

    latency_ms: tuple[int, int] = (1, 5)
    lost: float = 0.0
    doubled: float = 0.0
    straggling: float = 0.0
    straggle_ms: int = 15_000


class NetworkClient(Protocol):
    """Who holds a connection; told by its number, so late news of an old one die there."""

    def on_link_up(self, connection: int) -> None: ...

    def on_link_down(self, connection: int, reason: str) -> None: ...

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None: ...


@dataclass(slots=True)
class Pipe:
    """One way of a connection: when its last packet arrives, and what a cut holds back."""

    last_ms: int = 0
    held: deque[Callable[[], None]] = field(default_factory=deque)


@dataclass(slots=True)
class Line:
    """A connection with its two ends; an end that gave up hears and says nothing more."""

    number: int
    client: str
    holder: NetworkClient
    place: str
    """Where the client stands: the key of cuts and frozen processes; two clones have two."""
    pipes: tuple[Pipe, Pipe] = field(default_factory=lambda: (Pipe(), Pipe()))
    heard_ms: int = 0
    near_open: bool = True
    far_open: bool = True


class Network:
    """Connections, the broker they lead to, and what is wrong between."""

    def __init__(self, clock: Clockwork, broker: BrokerModel) -> None:
        self.clock = clock
        self.broker = broker
        self.weather = Weather()
        self.broker_up = True
        self.rng = clock.stream("network")
        self.lines: dict[int, Line] = {}
        self.cuts: dict[str, tuple[bool, bool]] = {}
        """Place (the client's id, but for clones) -> whether its way (up, down) is cut."""
        self.frozen: dict[str, None] = {}
        """Places whose process stands still: they send no pings and give nothing up."""
        self._numbers = 0
        self._armed_ms: int | None = None

    # ------------------------------------------------------------- what clients do

    def connect(
        self,
        client: str,
        holder: NetworkClient,
        filters: tuple[tuple[str, int], ...],
        will: ev.Publication | None = None,
        place: str = "",
    ) -> int:
        """Opens a connection; `holder` hears `on_link_up` or `on_link_down` of its number."""
        self._numbers += 1
        line = Line(self._numbers, client, holder, place or client, heard_ms=self.clock.now_ms)
        self.lines[line.number] = line
        if not self.broker_up:
            self.clock.after(REFUSED_MS, lambda: self._near_down(line, "refused"))
            return line.number
        self._send(line, UP, lambda: self._arrive(line, filters, will))
        self.clock.after(KEEPALIVE_MS // 2, lambda: self._keep_alive(line))
        return line.number

    def publish(self, connection: int, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Hands a message to a connection; nothing happens if that is gone."""
        line = self.lines.get(connection)
        if line is None or not line.near_open or self._loses(qos):
            return
        packet = 1 if qos else 0
        event = ev.PublishReceived(connection, topic, payload, qos, retain, packet)
        self._send(line, UP, lambda: self._feed(line, event), stray=True)
        if self._doubles(qos):
            self._send(line, UP, lambda: self._feed(line, event), stray=True)

    def disconnect(self, connection: int) -> None:
        """Closes in good order: no will."""
        line = self.lines.get(connection)
        if line is not None and line.near_open:
            self._send(line, UP, lambda: self._feed(line, ev.DisconnectReceived(connection)))
            self.clock.after(1, lambda: self._near_down(line, "closed"))

    def abandon(self, connection: int) -> None:
        """The client's process is gone; its kernel closes the socket, so a will follows."""
        line = self.lines.get(connection)
        if line is not None and line.near_open:
            line.near_open = False
            self._send(line, UP, lambda: self._lose(line))

    def vanish(self, connection: int) -> None:
        """The client's machine is gone: nobody closes anything, the broker's keep-alive will."""
        line = self.lines.get(connection)
        if line is not None:
            line.near_open = False

    # ------------------------------------------------------------- faults

    def cut(self, client: str, up: bool = True, down: bool = True) -> None:
        """Nothing gets through; connections live on until one end gives up."""
        self.cuts[client] = (up, down)
        self.clock.trace("network", f"cut {client} {up} {down}")

    def heal(self, client: str) -> None:
        """What a cut held back arrives now, in order."""
        if self.cuts.pop(client, None) is None:
            return
        self.clock.trace("network", f"heal {client}")
        for line in list(self.lines.values()):
            if line.place == client:
                for way in (UP, DOWN):
                    held, line.pipes[way].held = line.pipes[way].held, deque()
                    for work in held:
                        self._send(line, way, work)

    def restart_broker(self, down_ms: int = 0, survival: ev.Survival = ev.Survival.LOST) -> None:
        """Kills the broker; it is back after `down_ms`."""
        self.clock.trace("broker", f"restart {survival} {down_ms}")
        self._perform(self.broker.restart(survival))
        if down_ms:
            self.broker_up = False
            self.clock.after(down_ms, self._broker_back)

    def _broker_back(self) -> None:
        self.broker_up = True
        self.clock.trace("broker", "up")

    # ------------------------------------------------------------- the two ways

    def _send(self, line: Line, way: int, work: Callable[[], None], stray: bool = False) -> None:
        """Lets `work` happen at the other end after the way there, in order unless it strays."""
        pipe = line.pipes[way]
        if self.cuts.get(line.place, (False, False))[way]:
            pipe.held.append(work)
            return
        low, high = self.weather.latency_ms
        due_ms = self.clock.now_ms + self.rng.randint(low, high)
        if stray and self.weather.straggling and self.rng.random() < self.weather.straggling:
            self.clock.at(due_ms + self.rng.randint(0, self.weather.straggle_ms), work)
            return
        pipe.last_ms = max(pipe.last_ms, due_ms)
        self.clock.at(pipe.last_ms, work)

    def _loses(self, qos: int) -> bool:
        return not qos and self.weather.lost > 0 and self.rng.random() < self.weather.lost

    def _doubles(self, qos: int) -> bool:
        return bool(qos) and self.weather.doubled > 0 and self.rng.random() < self.weather.doubled

    def _keep_alive(self, line: Line) -> None:
        if not line.near_open:
            return
        if line.place not in self.frozen:
            if self.clock.now_ms - line.heard_ms >= GIVE_UP_MS:
                self._near_down(line, "keep-alive elapsed")
                return
            self._send(line, UP, lambda: self._feed(line, ev.PingReceived(line.number)))
        self.clock.after(KEEPALIVE_MS // 2, lambda: self._keep_alive(line))

    def _near_down(self, line: Line, reason: str) -> None:
        """The client's end is over; the broker learns it by the socket, if anything gets there."""
        if line.near_open:
            line.near_open = False
            self._send(line, UP, lambda: self._lose(line))
            line.holder.on_link_down(line.number, reason)

    # ------------------------------------------------------------- at the broker

    def _arrive(self, line: Line, filters: tuple[tuple[str, int], ...], will: ev.Publication | None) -> None:
        """CONNECT and SUBSCRIBE in one go; the answer to the second is `on_link_up`."""
        if not self.broker_up or not line.near_open:
            self.clock.after(REFUSED_MS, lambda: self._near_down(line, "refused"))
            return
        connect = ev.ConnectReceived(line.number, line.client, line.client, True, KEEPALIVE_MS, will)
        self._feed(line, connect)
        self._feed(line, ev.SubscribeReceived(line.number, filters, 1))

    def _lose(self, line: Line) -> None:
        self._feed(line, ev.ConnectionLost(line.number))
        line.far_open = False
        self.lines.pop(line.number, None)

    def _feed(self, line: Line, event: Event) -> None:
        if line.far_open and self.broker_up:
            self._perform(self.broker.handle(event, self.clock.now_ms))
            self._arm()

    def _arm(self) -> None:
        due_ms = self.broker.next_due_ms()
        if due_ms is not None and (self._armed_ms is None or due_ms < self._armed_ms):
            self._armed_ms = due_ms
            self.clock.at(due_ms, self._tick)

    def _tick(self) -> None:
        self._armed_ms = None
        self._perform(self.broker.handle(TimerElapsed(), self.clock.now_ms))
        self._arm()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.SendPublish):
                self._deliver(effect)
            elif isinstance(effect, ev.CloseConnection):
                self._close(effect)
            elif isinstance(effect, ev.SendSuback | ev.SendPingresp):
                self._answer(effect)

    def _deliver(self, effect: ev.SendPublish) -> None:
        line = self.lines.get(effect.connection)
        if line is None or self._loses(effect.qos):
            return
        copies = 2 if self._doubles(effect.qos) else 1
        for _ in range(copies):
            self._send(line, DOWN, lambda: self._receive(line, effect), stray=True)

    def _receive(self, line: Line, effect: ev.SendPublish) -> None:
        if not line.near_open:
            return
        line.heard_ms = self.clock.now_ms
        if effect.qos:
            puback = ev.PubackReceived(line.number, effect.packet_id)
            self._send(line, UP, lambda: self._feed(line, puback))
        line.holder.on_publication(line.number, effect.topic, effect.payload, effect.retain)

    def _answer(self, effect: ev.SendSuback | ev.SendPingresp) -> None:
        line = self.lines.get(effect.connection)
        if line is not None:
            up = isinstance(effect, ev.SendSuback)
            self._send(line, DOWN, lambda: self._hear(line, up))

    def _hear(self, line: Line, up: bool) -> None:
        if line.near_open:
            line.heard_ms = self.clock.now_ms
            if up:
                line.holder.on_link_up(line.number)

    def _close(self, effect: ev.CloseConnection) -> None:
        line = self.lines.get(effect.connection)
        if line is not None:
            line.far_open = False
            self._send(line, DOWN, lambda: self._closed(line, effect.reason))

    def _closed(self, line: Line, reason: str) -> None:
        self.lines.pop(line.number, None)
        if line.near_open:
            line.near_open = False
            line.holder.on_link_down(line.number, reason)
