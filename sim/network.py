"""The network between the cores: connections as TCP knows them, around a broker as a machine.

Rules of this file. A connection delivers each way in order, later or not at all; what is
sent while it is cut waits, and arrives when the cut ends, unless one end has given up by
then. On top of that `Weather` loses QoS 0, doubles QoS 1 and lets a message straggle inside
the broker past its successors and past a reconnect, because the protocol promises to bear
all three from any broker. A QoS 1 packet that TCP can't deliver costs its connection.
Each end gives up a silent connection: the broker by its keep-alive, the client by its own.
Cuts and standstills hold for a place, so that two clones of one client are told apart.
It refuses to know what a message means. Rejected: loss of QoS 1 on a living
connection (TCP does not do that; a lost connection, a restarted broker and a dead receiver do).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from broker import events as ev
from broker.model import BrokerModel
from protocol.core import Effect, Event, TimerElapsed
from protocol.limits import KEEPALIVE_S
from sim.clockwork import Clockwork
from sim.observations import Delivered
from sim.rogue import Rogue
from sim.weather import Weather as Weather

KEEPALIVE_MS = KEEPALIVE_S * 1_000
TICK_MS = KEEPALIVE_MS // 2
"""How often a client looks whether it must ping, as the production link does."""
SILENT_TICKS_MAX = 3
"""A client that heard nothing for so many ticks closes its connection."""
REFUSED_MS = 20
"""Until a client learns that nobody listens."""
SNAP_MS_MAX = 5_000
"""Until an end learns that its connection broke; a retransmission's patience."""
ROGUE_STAYS_MS = 1_000
UP, DOWN = 0, 1
_OPEN = (False, False)
NOBODY = ("", 0)
"""Source of what the broker sends of its own accord: retained, queued, a timer's will."""


TravelHook = Callable[[int, int, str, str, str, bytes], None]
"""(sent_ms, received_ms, sender, receiver, topic, payload). The sender is "" where a message was
retained or waited, or where the broker's own timer made it: its way began at the broker."""


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
    place: str
    holder: NetworkClient
    pipes: tuple[Pipe, Pipe] = field(default_factory=lambda: (Pipe(), Pipe()))
    heard: bool = False
    spoke: bool = False
    """Since the last tick, as the client's wire saw it."""
    silent_ticks: int = 0
    near_open: bool = True
    far_open: bool = True
    up: bool = False
    """Whether the client was told so."""
    rogue: Rogue | None = None
    """The holder, where that is one."""
    resting: bool = False
    ticks: bool = True
    snapped: bool = False
    """A packet could not be delivered: nothing passes any more, both ends will find out."""


class Network:
    """Connections, the broker they lead to, and what is wrong between."""

    def __init__(self, clock: Clockwork, broker: BrokerModel) -> None:
        self.clock = clock
        self.broker = broker
        broker.on_taken = self._note_taken
        self.weather = Weather()
        self.broker_up = True
        self.rng = clock.stream("network")
        self.lines: dict[int, Line] = {}
        self.cuts: dict[str, tuple[bool, bool]] = {}
        """Place -> whether its way (up, down) is cut."""
        self.frozen: dict[str, None] = {}
        """Places whose process stands still: it sends nothing and gives nothing up."""
        self.on_travel: TravelHook | None = None
        """Set by who makes a report: told of every message that a client received."""
        self.on_delivered: Callable[[Delivered], None] | None = None
        """Set by who checks access: told what the broker took and what it handed over."""
        self.rogues: list[Rogue] = []
        self.rousers: dict[str, Callable[[], None]] = {}
        self._numbers = 0
        self._armed_ms: int | None = None
        self._source = NOBODY
        """(Client, ms of sending) of what the broker works on."""
        self._broker_life = 0
        """Its restarts; what straggles inside it dies with it."""
        self._performers: dict[type[Effect], Callable[[Any], None]] = {
            ev.SendPublish: self._deliver,
            ev.CloseConnection: self._close,
            ev.SendSuback: self._on_suback,
            ev.SendPingresp: self._on_pingresp,
        }

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
        line = Line(self._numbers, client, place or client, holder)
        line.rogue = holder if isinstance(holder, Rogue) else None
        self.lines[line.number] = line
        if not self.broker_up:
            self.clock.after(REFUSED_MS, lambda: self._near_down(line, "refused"))
            return line.number
        self._send(line, UP, lambda: self._arrive(line, filters, will))
        self.clock.after(TICK_MS, lambda: self._on_tick(line))
        return line.number

    def publish(self, connection: int, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Hands a message to a connection; nothing happens if that is gone."""
        line = self.lines.get(connection)
        if line is None or not line.near_open:
            return
        line.spoke = True
        weather, rng = self.weather, self.rng
        if qos:
            if weather.drops(rng):
                self._snap(line)
                return
        elif weather.loses(rng):
            return
        sent_ms, life = self.clock.now_ms, self._broker_life
        event = ev.PublishReceived(connection, topic, payload, qos, retain, 1 if qos else 0)
        for _ in range(weather.copies(rng) if qos else 1):
            if weather.strays(rng):
                self._detour(line, UP, lambda: self._relay(line, event, sent_ms, life))
            else:
                self._send(line, UP, lambda: self._take(line, event, sent_ms))

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

    def rest(self, connection: int, rouse: Callable[[], None]) -> None:
        """Somebody else accounts for this line: no end misses a ping. Before a fault `rouse` is called."""
        line = self.lines[connection]
        line.resting, self.rousers[line.place] = True, rouse
        self.broker.rest(connection)

    def rouse(self, place: str, connection: int) -> None:
        """Both ends have heard each other just now."""
        self.rousers.pop(place, None)
        line = self.lines.get(connection)
        if line is None:
            return
        line.resting, line.heard, line.spoke, line.silent_ticks = False, True, True, 0
        self.broker.rouse(connection, self.clock.now_ms)
        self._arm()
        if not line.ticks:
            line.ticks = True
            self.clock.after(TICK_MS, lambda: self._on_tick(line))

    # ------------------------------------------------------------- faults

    def cut(self, place: str, up: bool = True, down: bool = True) -> None:
        """Nothing gets through; connections live on until one end gives up."""
        if place in self.rousers:
            self.rousers[place]()
        self.cuts[place] = (up, down)
        self.clock.trace("network", f"cut {place} {up} {down}")

    def heal(self, place: str) -> None:
        """What a cut held back arrives now, in order."""
        if self.cuts.pop(place, None) is None:
            return
        self.clock.trace("network", f"heal {place}")
        for line in list(self.lines.values()):
            if line.place == place:
                for way in (UP, DOWN):
                    held, line.pipes[way].held = line.pipes[way].held, deque()
                    for work in held:
                        self._send(line, way, work)

    def freeze(self, place: str) -> None:
        """The process there stands still; its kernel goes on taking what comes."""
        self.frozen[place] = None

    def thaw(self, place: str) -> None:
        self.frozen.pop(place, None)

    def quirks(self, quirks: ev.BrokerQuirks) -> None:
        """Another broker's manners from now on."""
        self.clock.trace("broker", f"quirks {quirks}")
        self.broker.quirks = quirks

    def rogue(
        self,
        client: str,
        says: tuple[ev.Publication, ...] = (),
        wants: tuple[str, ...] = ("#",),
        will: ev.Publication | None = None,
    ) -> Rogue:
        """Somebody has `client`'s password: he connects with it from a place of his own, which takes
        the client's connection over, subscribes to `wants`, publishes `says`, and breaks off a
        little later, so that `will` is due. Nothing of it may come through (`Rogue.leaks`)."""
        self.clock.trace("network", f"rogue {client} {len(says)}")
        found = Rogue(client, says, wants)
        self.rogues.append(found)
        found.publish, found.leave = self.publish, self._rogue_leaves
        filters = tuple((wanted, 1) for wanted in wants)
        self.connect(client, found, filters, will, f"rogue {len(self.rogues)}")
        return found

    def leaks(self) -> list[str]:
        """What came through to or from any rogue, in words; must stay empty (I13)."""
        return [leak for rogue in self.rogues for leak in rogue.leaks]

    def restart_broker(self, down_ms: int = 0, survival: ev.Survival = ev.Survival.LOST) -> None:
        """Kills the broker; it is back after `down_ms`."""
        for rouse in list(self.rousers.values()):
            rouse()
        self.clock.trace("broker", f"restart {survival} {down_ms}")
        self._broker_life += 1
        self._perform(self.broker.restart(survival))
        if down_ms:
            self.broker_up = False
            self.clock.after(down_ms, self.broker_back)

    def broker_back(self) -> None:
        """The end of its outage."""
        self.broker_up = True
        self.clock.trace("broker", "up")

    # ------------------------------------------------------------- the two ways

    def _send(self, line: Line, way: int, work: Callable[[], None]) -> None:
        """Lets `work` happen at the other end after the way there, in order."""
        if line.snapped:
            return
        pipe = line.pipes[way]
        if self.cuts and self.cuts.get(line.place, _OPEN)[way]:
            pipe.held.append(work)
            return
        due_ms = self.clock.now_ms + self.weather.latency(self.rng)
        if due_ms < pipe.last_ms:
            due_ms = pipe.last_ms
        else:
            pipe.last_ms = due_ms
        self.clock.at(due_ms, work)

    def _detour(self, line: Line, way: int, work: Callable[[], None]) -> None:
        """A straggler: on its own way from now on, whatever becomes of its connection."""
        if line.snapped:
            return
        if self.cuts and self.cuts.get(line.place, _OPEN)[way]:
            line.pipes[way].held.append(work)
            return
        late_ms = self.weather.lateness(self.rng)
        self.clock.after(self.weather.latency(self.rng) + late_ms, work)

    def _rogue_leaves(self, connection: int) -> None:
        self.clock.after(ROGUE_STAYS_MS, lambda: self.abandon(connection))

    def _snap(self, line: Line) -> None:
        """Nothing passes any more; each end finds out after a while of its own."""
        if line.snapped:
            return
        line.snapped = True
        self.clock.trace("network", f"snaps {line.place}")
        for learns in (lambda: self._near_down(line, "reset"), lambda: self._lose(line)):
            self.clock.after(int(self.rng.random() * SNAP_MS_MAX), learns)

    def _on_tick(self, line: Line) -> None:
        """As in the production link: a ping unless both ways were in use; silence ends it."""
        line.ticks = not line.resting
        if not (line.near_open and line.ticks):
            return
        if line.place not in self.frozen:
            line.silent_ticks = 0 if line.heard else line.silent_ticks + 1
            if line.silent_ticks >= SILENT_TICKS_MAX:
                self._near_down(line, "keep-alive elapsed")
                return
            if not (line.heard and line.spoke):
                self._send(line, UP, lambda: self._feed(line, ev.PingReceived(line.number)))
            line.heard = line.spoke = False
        self.clock.after(TICK_MS, lambda: self._on_tick(line))

    def _near_down(self, line: Line, reason: str) -> None:
        """The client's end is over; the broker learns it by the socket, if anything gets there."""
        if line.near_open:
            line.near_open = False
            self._send(line, UP, lambda: self._lose(line))
            line.holder.on_link_down(line.number, reason)

    # ------------------------------------------------------------- at the broker

    def _arrive(self, line: Line, filters: tuple[tuple[str, int], ...], will: ev.Publication | None) -> None:
        """CONNECT and SUBSCRIBE in one go; the answer to the second is `on_link_up`."""
        if not self.broker_up:
            self.clock.after(REFUSED_MS, lambda: self._refused(line))
            return
        connect = ev.ConnectReceived(line.number, line.client, line.client, True, KEEPALIVE_MS, will)
        self._feed(line, connect, (line.client, self.clock.now_ms))
        self._feed(line, ev.SubscribeReceived(line.number, filters, 1))

    def _refused(self, line: Line) -> None:
        self._near_down(line, "refused")
        self.lines.pop(line.number, None)

    def _lose(self, line: Line) -> None:
        self._feed(line, ev.ConnectionLost(line.number), (line.client, self.clock.now_ms))
        line.far_open = False
        self.lines.pop(line.number, None)

    def _take(self, line: Line, event: ev.PublishReceived, sent_ms: int) -> None:
        """A publication reached the broker on the connection that it was sent on."""
        self._feed(line, event, (line.client, sent_ms))

    def _note_taken(self, client: str, publication: ev.Publication) -> None:
        """The broker let in what `client` published now, long ago or as its will: it alone knows which."""
        if (rogue := next((r for r in self.rogues if r.client == client), None)) is not None:
            rogue.came_through(publication.topic)
        if self.on_delivered is not None:
            what = (publication.topic, publication.payload)
            self.on_delivered(Delivered(self.clock.now_ms, client, False, *what, client))

    def _relay(self, line: Line, event: ev.PublishReceived, sent_ms: int, life: int) -> None:
        """A straggler: the broker took it long ago, so the end of its connection doesn't stop it."""
        if line.far_open:
            self._take(line, event, sent_ms)
        elif life == self._broker_life:
            publication = ev.Publication(event.topic, event.payload, event.qos, event.retain)
            self._work(ev.PublicationRelayed(line.client, line.client, publication), (line.client, sent_ms))

    def _feed(self, line: Line, event: Event, source: tuple[str, int] = NOBODY) -> None:
        if line.far_open and self.broker_up:
            self._work(event, source)

    def _work(self, event: Event, source: tuple[str, int]) -> None:
        """What time alone made due is nobody's: the broker does it first, and as an event of its own."""
        due_ms = self.broker.next_due_ms()
        if due_ms is not None and due_ms <= self.clock.now_ms:
            self._source = NOBODY
            self._perform(self.broker.handle(TimerElapsed(), self.clock.now_ms))
        self._source = source
        self._perform(self.broker.handle(event, self.clock.now_ms))
        self._arm()

    def _arm(self) -> None:
        due_ms = self.broker.next_due_ms()
        if due_ms is not None and (self._armed_ms is None or due_ms < self._armed_ms):
            self._armed_ms = due_ms
            self.clock.at(due_ms, self._tick)

    def _tick(self) -> None:
        self._armed_ms = None
        self._source = NOBODY
        self._perform(self.broker.handle(TimerElapsed(), self.clock.now_ms))
        self._arm()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            perform = self._performers.get(type(effect))
            if perform is not None:
                perform(effect)

    # ------------------------------------------------------------- at the client

    def _deliver(self, effect: ev.SendPublish) -> None:
        line = self.lines.get(effect.connection)
        if line is None:
            return
        weather, rng = self.weather, self.rng
        if effect.qos:
            if weather.drops(rng):
                self._snap(line)
                return
        elif weather.loses(rng) or weather.loses_answer(rng, effect.topic):
            return
        source, life = self._source, self._broker_life
        for _ in range(weather.copies(rng) if effect.qos else 1):
            if weather.strays(rng):
                self._detour(line, DOWN, lambda: self._receive_late(line, effect, source, life))
            else:
                self._send(line, DOWN, lambda: self._receive(line, effect, source))

    def _receive(self, line: Line, effect: ev.SendPublish, source: tuple[str, int]) -> None:
        if not line.near_open:
            return
        line.heard = True
        if effect.qos and not (self.frozen and line.place in self.frozen):
            line.spoke = True
            puback = ev.PubackReceived(line.number, effect.packet_id)
            self._send(line, UP, lambda: self._feed(line, puback))
        if self.on_travel is not None or self.on_delivered is not None:
            self._note_received(line, effect, source)
        line.holder.on_publication(line.number, effect.topic, effect.payload, effect.retain)

    def _receive_late(self, line: Line, effect: ev.SendPublish, source: tuple[str, int], life: int) -> None:
        """A straggler finds its client's present connection, if the old one is over."""
        if line.near_open:
            self._receive(line, effect, source)
        elif life == self._broker_life:
            for other in list(self.lines.values()):
                if other.up and other.near_open and other.far_open and other.place == line.place:
                    self._receive(other, replace(effect, connection=other.number, qos=0), source)

    def _note_received(self, line: Line, effect: ev.SendPublish, source: tuple[str, int]) -> None:
        now_ms, client, topic, payload = self.clock.now_ms, line.client, effect.topic, effect.payload
        sender, sent_ms = source
        if self.on_travel is not None:
            self.on_travel(sent_ms or now_ms, now_ms, sender, client, topic, payload)
        if self.on_delivered is not None:
            self.on_delivered(Delivered(now_ms, client, True, topic, payload, sender))

    def _on_suback(self, effect: ev.SendSuback) -> None:
        line = self.lines.get(effect.connection)
        if line is not None:
            refused = line.rogue is None and ev.SUBSCRIBE_FAILED in effect.codes
            self._send(line, DOWN, lambda: self._subscribed(line, refused, effect.codes))

    def _subscribed(self, line: Line, refused: bool, codes: tuple[int, ...]) -> None:
        if not line.near_open:
            return
        line.heard = True
        if refused:
            self._near_down(line, "subscription refused")
            return
        line.up = True
        if line.rogue is not None:
            line.rogue.granted(codes)
        line.holder.on_link_up(line.number)

    def _on_pingresp(self, effect: ev.SendPingresp) -> None:
        line = self.lines.get(effect.connection)
        if line is not None:
            self._send(line, DOWN, lambda: self._ponged(line))

    def _ponged(self, line: Line) -> None:
        if line.near_open:
            line.heard = True

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
