"""An MQTT 3.1.1 broker as a pure machine: packets in, packets out, no socket and no clock.

Rule of this file: everything a broker promises within 3.1.1 at QoS 0 and 1 happens here:
sessions and take-over, wills, keep-alive, retained messages, redelivery, bounds and
access; everything it gets wrong in the field is in `BrokerQuirks`. Due timers are always
worked off before the event that comes with a later time, so no order of calls can hide
a silence. Effects come in the order in which a client would see them.
It refuses to know payloads, the fleet's topics, and who may connect: a world that wants
passwords checks them before it feeds `ConnectReceived`.
Rejected: the real broker in a simulation (not deterministic, and a simulated day would
last a day); one timer per connection (a heap entry that is looked at again when due).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from broker import events as ev
from broker.filters import is_wild, valid_filter, valid_topic
from broker.sessions import PACKET_ID_MAX, ClientSession
from broker.subscriptions import Subscriptions, TopicIndex
from protocol.core import Effect, Event
from protocol.errors import LocalMistake

KEEP_ALIVE_NUMERATOR, KEEP_ALIVE_DENOMINATOR = 3, 2
"""One and a half times the keep-alive (3.1.2-24)."""


class _Kept(NamedTuple):
    """A copy of what survives a restart: retained messages, then kept sessions."""

    retained: dict[str, ev.Publication]
    sessions: tuple[ClientSession, ...]


_Timer = tuple[int, int, "Callable[[int, list[Effect]], None]"]


class BrokerModel:
    """The machine. One `handle` per packet; `restart` and `snapshot` are for its world."""

    def __init__(
        self,
        limits: ev.BrokerLimits | None = None,
        quirks: ev.BrokerQuirks | None = None,
        acl: ev.AclHook | None = None,
    ) -> None:
        self.limits = limits if limits is not None else ev.BrokerLimits()
        self.quirks = quirks if quirks is not None else ev.BrokerQuirks()
        self.counts = ev.BrokerCounts()
        if not 0 < self.limits.inflight_max < PACKET_ID_MAX:
            raise LocalMistake("inflight_max must leave packet ids free")
        self._acl = acl
        self.on_taken: Callable[[str, ev.Publication], None] | None = None
        """Set by who observes: told whose publication or will was let in, when it is handed out."""
        self._saved: _Kept | None = None
        self._sequence = 0
        self._named = 0
        self._start_empty()
        self._handlers: dict[type[Event], Callable[..., None]] = {
            ev.PublishReceived: self._on_publish,
            ev.PubackReceived: self._on_puback,
            ev.PingReceived: self._on_ping,
            ev.ConnectReceived: self._on_connect,
            ev.ConnectionLost: self._on_lost,
            ev.DisconnectReceived: self._on_disconnect,
            ev.SubscribeReceived: self._on_subscribe,
            ev.UnsubscribeReceived: self._on_unsubscribe,
            ev.PublicationRelayed: self._on_relayed,
        }

    def _start_empty(self) -> None:
        self._sessions: dict[str, ClientSession] = {}
        self._connected: dict[int, ClientSession] = {}
        self._subscriptions = Subscriptions()
        self._retained: dict[str, ev.Publication] = {}
        self._retained_index = TopicIndex()
        self._timers: list[_Timer] = []

    # ------------------------------------------------------------------ the contract

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Feed one packet, one loss or `TimerElapsed`; time must not go back."""
        out: list[Effect] = []
        if self._timers and self._timers[0][0] <= now_ms:
            self._work_off(now_ms, out)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now_ms, out)
        return out

    def next_due_ms(self) -> int | None:
        """When time alone may change something. May be early, never late."""
        return self._timers[0][0] if self._timers else None

    def snapshot(self) -> None:
        """What a real broker's autosave does: remember this state for `Survival.ROLLED_BACK`."""
        self._saved = self._copy()

    def restart(self, survival: ev.Survival) -> list[Effect]:
        """Die and come back: every connection is gone, and no will was sent for any of them."""
        out: list[Effect] = [
            ev.CloseConnection(number, session.client, "broker restarted")
            for number, session in self._connected.items()
        ]
        state = self._saved if survival is ev.Survival.ROLLED_BACK else None
        if survival is ev.Survival.KEPT:
            state = self._copy()
        self._start_empty()
        if state is not None:
            self._restore(state)
        return out

    def retained(self) -> Iterator[ev.Publication]:
        """Every retained message, for checkers."""
        return iter(self._retained.values())

    def connected(self, client: str) -> bool:
        """Whether this client id has a connection."""
        session = self._sessions.get(client)
        return session is not None and session.connection is not None

    def rest(self, connection: int) -> None:
        """Its world vouches for this client: until `rouse` its silence means nothing."""
        session = self._connected.get(connection)
        if session is not None:
            session.resting = True

    def rouse(self, connection: int, now_ms: int) -> None:
        """Heard just now; silence counts again."""
        session = self._connected.get(connection)
        if session is not None and session.resting:
            session.resting, session.heard_ms = False, now_ms
            if session.unwatched:
                session.unwatched = False
                self._watch_silence(session, connection, now_ms + session.silence_ms)

    # -------------------------------------------------------------------- restarting

    def _copy(self) -> _Kept:
        kept = tuple(s.copy() for s in self._sessions.values() if not s.clean)
        return _Kept(dict(self._retained), kept)

    def _restore(self, state: _Kept) -> None:
        for publication in state.retained.values():
            self._set_retained(publication)
        for saved in state.sessions:
            session = saved.copy()
            self._sessions[session.client] = session
            for topic_filter, qos in session.filters.items():
                self._subscriptions.add(topic_filter, session.client, qos)

    # ------------------------------------------------------------------------ timers

    def _at(self, due_ms: int, work: Callable[[int, list[Effect]], None]) -> None:
        self._sequence += 1
        heappush(self._timers, (due_ms, self._sequence, work))

    def _work_off(self, now_ms: int, out: list[Effect]) -> None:
        while self._timers and self._timers[0][0] <= now_ms:
            heappop(self._timers)[2](now_ms, out)

    def _watch_silence(self, session: ClientSession, connection: int, due_ms: int) -> None:
        def look(now_ms: int, out: list[Effect]) -> None:
            if self._connected.get(connection) is not session:
                return
            if session.resting:
                session.unwatched = True
                return
            silent_at = session.heard_ms + session.silence_ms
            if self.quirks.silence_unnoticed:
                self._watch_silence(session, connection, now_ms + session.silence_ms)
            elif silent_at > now_ms:
                self._watch_silence(session, connection, silent_at)
            else:
                self._fail(session, "keep-alive elapsed", now_ms, out)

        self._at(due_ms, look)

    def _watch_unacknowledged(self, session: ClientSession, now_ms: int) -> None:
        connection = session.connection
        if session.watched or not session.sent or connection is None:
            return
        session.watched = True

        def look(at_ms: int, out: list[Effect]) -> None:
            if self._connected.get(connection) is not session:
                return
            session.watched = False
            if self.quirks.redeliver_live_ms:
                session.redeliver(at_ms - self.quirks.redeliver_live_ms, at_ms, out)
                self._watch_unacknowledged(session, at_ms)

        oldest_ms = min(message.sent_ms for message in session.sent.values())
        self._at(max(now_ms + 1, oldest_ms + self.quirks.redeliver_live_ms), look)

    # ------------------------------------------------------------------- connections

    def _live(self, connection: int, now_ms: int, out: list[Effect]) -> ClientSession | None:
        """Whose packet this is. A packet before CONNECT costs the connection (3.1.0-1)."""
        session = self._connected.get(connection)
        if session is None:
            self.counts.stale += 1
            out.append(ev.CloseConnection(connection, "", "not connected"))
            return None
        session.heard_ms = now_ms
        return session

    def _on_connect(self, event: ev.ConnectReceived, now_ms: int, out: list[Effect]) -> None:
        present = self._connected.get(event.connection)
        if present is not None:  # a second CONNECT (3.1.0-2)
            self._fail(present, "second CONNECT", now_ms, out)
            return
        refusal = self._refuse(event)
        if refusal is not None:
            out.append(ev.SendConnack(event.connection, event.client, refusal))
            out.append(ev.CloseConnection(event.connection, event.client, refusal.name.lower()))
            return
        client = event.client or self._make_name()
        old = self._sessions.get(client)
        if old is not None and old.connection is not None:  # take-over (3.1.4-2)
            self._fail(old, "taken over", now_ms, out)
            old = self._sessions.get(client)
        if old is not None and (event.clean_session or old.clean):
            self._forget(old)  # 3.1.2-6
            old = None
        session = old if old is not None else self._make_session(client, event)
        self._attach(session, event, now_ms)
        out.append(ev.SendConnack(event.connection, client, ev.ConnackCode.ACCEPTED, old is not None))
        session.resume(now_ms, out)
        if self.quirks.redeliver_live_ms:
            self._watch_unacknowledged(session, now_ms)

    def _refuse(self, event: ev.ConnectReceived) -> ev.ConnackCode | None:
        if not event.client and not event.clean_session:  # 3.1.3-8
            return ev.ConnackCode.IDENTIFIER_REJECTED
        full = len(self._sessions) >= self.limits.sessions_max
        if full and event.client not in self._sessions:
            return ev.ConnackCode.SERVER_UNAVAILABLE
        return None

    def _make_name(self) -> str:
        """A client id for a client that sent none (3.1.3-6)."""
        while True:
            self._named += 1
            name = f"auto-{self._named}"
            if name not in self._sessions:
                return name

    def _make_session(self, client: str, event: ev.ConnectReceived) -> ClientSession:
        return ClientSession(client, event.username, event.clean_session, self.limits, self.counts)

    def _attach(self, session: ClientSession, event: ev.ConnectReceived, now_ms: int) -> None:
        session.connection = event.connection
        session.username = event.username
        session.will = event.will
        session.watched = session.resting = session.unwatched = False
        session.heard_ms = now_ms
        session.silence_ms = event.keep_alive_ms * KEEP_ALIVE_NUMERATOR // KEEP_ALIVE_DENOMINATOR
        self._sessions[session.client] = session
        self._connected[event.connection] = session
        if session.silence_ms:
            self._watch_silence(session, event.connection, now_ms + session.silence_ms)

    def _on_disconnect(self, event: ev.DisconnectReceived, now_ms: int, out: list[Effect]) -> None:
        session = self._connected.get(event.connection)
        if session is None:
            self.counts.stale += 1
            return
        session.will = None  # 3.14.4-3
        out.append(ev.CloseConnection(event.connection, session.client, "disconnected"))
        self._detach(session)

    def _on_lost(self, event: ev.ConnectionLost, now_ms: int, out: list[Effect]) -> None:
        session = self._connected.get(event.connection)
        if session is None:
            self.counts.stale += 1
            return
        self._detach(session)
        self._send_will(session, now_ms, out)

    def _fail(self, session: ClientSession, reason: str, now_ms: int, out: list[Effect]) -> None:
        """The broker ends the connection; the will is due (3.1.2-8)."""
        assert session.connection is not None
        out.append(ev.CloseConnection(session.connection, session.client, reason))
        self._detach(session)
        self._send_will(session, now_ms, out)

    def _detach(self, session: ClientSession) -> None:
        assert session.connection is not None
        del self._connected[session.connection]
        session.connection = None
        if session.clean:
            self._forget(session)

    def _forget(self, session: ClientSession) -> None:
        for topic_filter in session.filters:
            self._subscriptions.remove(topic_filter, session.client)
        if self._sessions.get(session.client) is session:
            del self._sessions[session.client]

    def _send_will(self, session: ClientSession, now_ms: int, out: list[Effect]) -> None:
        will, session.will = session.will, None
        if will is None:
            return
        client, username = session.client, session.username

        def publish(at_ms: int, effects: list[Effect]) -> None:
            self.counts.wills += 1
            if valid_topic(will.topic) and len(will.payload) <= self.limits.payload_bytes_max:
                self._publish(client, username, will, at_ms, effects)

        if self.quirks.will_late_ms:
            self._at(now_ms + self.quirks.will_late_ms, publish)
        else:
            publish(now_ms, out)

    def _on_ping(self, event: ev.PingReceived, now_ms: int, out: list[Effect]) -> None:
        if self._live(event.connection, now_ms, out) is not None:
            out.append(ev.SendPingresp(event.connection))

    # -------------------------------------------------------------------- publishing

    def _on_publish(self, event: ev.PublishReceived, now_ms: int, out: list[Effect]) -> None:
        session = self._live(event.connection, now_ms, out)
        if session is None:
            return
        if event.qos > 1 or event.qos < 0 or not valid_topic(event.topic):  # 3.3.1-4, 3.3.2-2
            self._fail(session, "bad publish", now_ms, out)
            return
        size = len(event.payload)
        if size + len(event.topic) > self.limits.packet_bytes_max:
            self.counts.oversize += 1
            self._fail(session, "packet too large", now_ms, out)
            return
        if size > self.limits.payload_bytes_max:
            self.counts.oversize += 1
        else:
            publication = ev.Publication(event.topic, event.payload, event.qos, event.retain)
            self._publish(session.client, session.username, publication, now_ms, out)
        if event.qos:
            out.append(ev.SendPuback(event.connection, event.packet_id))

    def _on_relayed(self, event: ev.PublicationRelayed, now_ms: int, out: list[Effect]) -> None:
        self._publish(event.client, event.username, event.publication, now_ms, out)

    def _publish(
        self, client: str, username: str, publication: ev.Publication, now_ms: int, out: list[Effect]
    ) -> None:
        """Check, retain, hand out. What is denied is acknowledged all the same (3.3.5-2)."""
        topic = publication.topic
        if self._acl is not None and not self._acl(client, username, ev.AclAction.PUBLISH, topic):
            self.counts.denied += 1
            return
        self.counts.published += 1
        if self.on_taken is not None:
            self.on_taken(client, publication)
        if publication.retain:
            self._set_retained(publication)
        receivers: Iterable[tuple[str, int]] = (
            self._subscriptions.copies(topic)
            if self.quirks.copies_for_overlaps
            else self._subscriptions.receivers(topic).items()
        )
        for name, granted in receivers:
            self._offer(self._sessions[name], publication, granted, False, now_ms, out)

    def _set_retained(self, publication: ev.Publication) -> None:
        """Set, replace, or delete by an empty payload (3.3.1-5, 3.3.1-10, 3.3.1-11)."""
        topic = publication.topic
        known = topic in self._retained
        if not publication.payload:
            if known:
                del self._retained[topic]
                self._retained_index.remove(topic)
        elif known or len(self._retained) < self.limits.retained_max:
            self._retained[topic] = publication
            if not known:
                self._retained_index.add(topic)
        else:
            self.counts.retained_full += 1

    def _offer(
        self,
        session: ClientSession,
        publication: ev.Publication,
        granted: int,
        retain: bool,
        now_ms: int,
        out: list[Effect],
    ) -> None:
        if self._acl is not None and not self._acl(
            session.client, session.username, ev.AclAction.RECEIVE, publication.topic
        ):
            self.counts.denied += 1
            return
        session.offer(publication, granted, retain, now_ms, out)
        if self.quirks.redeliver_live_ms:
            self._watch_unacknowledged(session, now_ms)

    def _on_puback(self, event: ev.PubackReceived, now_ms: int, out: list[Effect]) -> None:
        session = self._live(event.connection, now_ms, out)
        if session is not None:
            session.acknowledge(event.packet_id, now_ms, out)

    # ------------------------------------------------------------------- subscribing

    def _on_subscribe(self, event: ev.SubscribeReceived, now_ms: int, out: list[Effect]) -> None:
        session = self._live(event.connection, now_ms, out)
        if session is None:
            return
        if not event.filters or not all(valid_filter(f) and 0 <= q <= 2 for f, q in event.filters):
            self._fail(session, "bad subscribe", now_ms, out)  # 3.8.3-3, 3.8.3-4, 4.7.1
            return
        codes = tuple(self._subscribe(session, f, min(qos, 1)) for f, qos in event.filters)
        out.append(ev.SendSuback(event.connection, event.packet_id, codes))
        for (topic_filter, _), code in zip(event.filters, codes, strict=True):
            if code != ev.SUBSCRIBE_FAILED:
                self._offer_retained(session, topic_filter, code, now_ms, out)

    def _subscribe(self, session: ClientSession, topic_filter: str, qos: int) -> int:
        acl = self._acl
        if acl is not None and not acl(
            session.client, session.username, ev.AclAction.SUBSCRIBE, topic_filter
        ):
            self.counts.denied += 1
            return ev.SUBSCRIBE_FAILED
        if topic_filter not in session.filters and len(session.filters) >= self.limits.subscriptions_max:
            return ev.SUBSCRIBE_FAILED
        session.filters[topic_filter] = qos
        self._subscriptions.add(topic_filter, session.client, qos)
        return qos

    def _offer_retained(
        self, session: ClientSession, topic_filter: str, qos: int, now_ms: int, out: list[Effect]
    ) -> None:
        """A new or repeated subscription brings what is retained, flagged so (3.3.1-6, 3.3.1-8)."""
        if not is_wild(topic_filter):
            found = self._retained.get(topic_filter)
            if found is not None:
                self._offer(session, found, qos, True, now_ms, out)
        elif not self.quirks.no_retained_for_wildcards:
            for topic in self._retained_index.select(topic_filter):
                self._offer(session, self._retained[topic], qos, True, now_ms, out)

    def _on_unsubscribe(self, event: ev.UnsubscribeReceived, now_ms: int, out: list[Effect]) -> None:
        session = self._live(event.connection, now_ms, out)
        if session is None:
            return
        if not event.filters or not all(valid_filter(f) for f in event.filters):
            self._fail(session, "bad unsubscribe", now_ms, out)  # 3.10.3-2
            return
        for topic_filter in event.filters:
            if session.filters.pop(topic_filter, None) is not None:
                self._subscriptions.remove(topic_filter, session.client)
        out.append(ev.SendUnsuback(event.connection, event.packet_id))  # even for none (3.10.4-5)
