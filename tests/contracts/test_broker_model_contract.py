"""Conversations that the model and a real mosquitto 2 must both understand the same way.

A conversation is a function of a `World`; every line of it is a packet or a look at what
came. Where a real broker is free to choose (3.3.5: copies for overlaps), or does not keep to
it, the conversation asks only what a fleet relies on.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import paho.mqtt.client as paho
import pytest

from broker import events as ev
from broker.model import BrokerModel
from broker.probe import connect_packet
from protocol.core import Effect, TimerElapsed

DEADLINE_S = 10.0
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Got(NamedTuple):
    topic: str
    payload: str
    qos: int
    retain: bool
    dup: bool = False


class World(Protocol):
    def connect(
        self,
        name: str,
        client: str = "",
        clean: bool = True,
        will: Got | None = None,
        keep_alive_s: int = 0,
        acks: bool = True,
    ) -> bool: ...
    def publish(
        self, name: str, topic: str, payload: str = "x", qos: int = 0, retain: bool = False
    ) -> None: ...
    def subscribe(self, name: str, topic_filter: str, qos: int = 1) -> None: ...
    def unsubscribe(self, name: str, topic_filter: str) -> None: ...
    def leave(self, name: str) -> None: ...
    def lose(self, name: str) -> None: ...
    def silence(self, name: str) -> None: ...
    def got(self, name: str, at_least: int = 0) -> list[Got]: ...
    def connected(self, name: str) -> bool: ...


# --------------------------------------------------------------------- the two worlds


class ModelWorld:
    """Names are connections; effects are sorted into mailboxes at once."""

    def __init__(self) -> None:
        self._model = BrokerModel()
        self._now_ms = 0
        self._numbers: dict[str, int] = {}
        self._acks: dict[int, bool] = {}
        self._mail: dict[int, list[Got]] = {}
        self._closed: set[int] = set()
        self._connack: ev.SendConnack | None = None

    def _feed(self, event: ev.Event) -> None:
        todo = self._model.handle(event, self._now_ms)
        for effect in todo:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, ev.SendPublish):
            text = effect.payload.decode()
            self._mail[effect.connection].append(
                Got(effect.topic, text, effect.qos, effect.retain, effect.dup)
            )
            if effect.qos and self._acks[effect.connection]:
                self._feed(ev.PubackReceived(effect.connection, effect.packet_id))
        elif isinstance(effect, ev.CloseConnection):
            self._closed.add(effect.connection)
        elif isinstance(effect, ev.SendConnack):
            self._connack = effect

    def connect(
        self,
        name: str,
        client: str = "",
        clean: bool = True,
        will: Got | None = None,
        keep_alive_s: int = 0,
        acks: bool = True,
    ) -> bool:
        number = self._numbers[name] = len(self._mail) + 1
        self._acks[number], self._mail[number] = acks, []
        last = ev.Publication(will.topic, will.payload.encode(), will.qos, will.retain) if will else None
        self._feed(ev.ConnectReceived(number, client or name, "", clean, keep_alive_s * 1000, last))
        assert self._connack is not None and self._connack.code is ev.ConnackCode.ACCEPTED
        return self._connack.session_present

    def publish(self, name: str, topic: str, payload: str = "x", qos: int = 0, retain: bool = False) -> None:
        self._feed(
            ev.PublishReceived(self._numbers[name], topic, payload.encode(), qos, retain, 1 if qos else 0)
        )

    def subscribe(self, name: str, topic_filter: str, qos: int = 1) -> None:
        self._feed(ev.SubscribeReceived(self._numbers[name], ((topic_filter, qos),), 1))

    def unsubscribe(self, name: str, topic_filter: str) -> None:
        self._feed(ev.UnsubscribeReceived(self._numbers[name], (topic_filter,), 1))

    def leave(self, name: str) -> None:
        self._feed(ev.DisconnectReceived(self._numbers[name]))

    def lose(self, name: str) -> None:
        self._feed(ev.ConnectionLost(self._numbers[name]))

    def silence(self, name: str) -> None:
        due_ms = self._model.next_due_ms()
        assert due_ms is not None
        self._now_ms = due_ms
        self._feed(TimerElapsed())

    def got(self, name: str, at_least: int = 0) -> list[Got]:
        mail = self._mail[self._numbers[name]]
        found, mail[:] = list(mail), []
        return found

    def connected(self, name: str) -> bool:
        return self._numbers[name] not in self._closed


class _Client:
    """One paho connection. A subscription to a topic of its own is the fence behind which all has come."""

    def __init__(
        self, port: int, client: str, clean: bool, will: Got | None, keep_alive_s: int, acks: bool
    ) -> None:
        self._mail: list[Got] = []
        self._news = threading.Condition()
        self._answered: set[int] = set()
        self.present = False
        self.up = False
        self._mqtt = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client, clean, manual_ack=not acks, reconnect_on_failure=False
        )
        self._mqtt.on_connect = self._on_connect
        self._mqtt.on_disconnect = self._on_disconnect
        self._mqtt.on_message = self._on_message
        self._mqtt.on_subscribe = lambda c, u, mid, codes, p: self._note(mid)
        self._mqtt.on_unsubscribe = lambda c, u, mid, codes, p: self._note(mid)
        self._mqtt.on_publish = lambda c, u, mid, code, p: self._note(mid)
        if will is not None:
            self._mqtt.will_set(will.topic, will.payload, will.qos, will.retain)
        self._mqtt.connect("127.0.0.1", port, keepalive=keep_alive_s)
        self._mqtt.loop_start()
        self.wait(lambda: self.up)

    def _note(self, mid: int) -> None:
        with self._news:
            self._answered.add(mid)
            self._news.notify_all()

    def _on_connect(self, client: object, userdata: object, flags: paho.ConnectFlags, *_: object) -> None:
        with self._news:
            self.present, self.up = flags.session_present, True
            self._news.notify_all()

    def _on_disconnect(self, *_: object) -> None:
        with self._news:
            self.up = False
            self._news.notify_all()

    def _on_message(self, client: object, userdata: object, m: paho.MQTTMessage) -> None:
        with self._news:
            self._mail.append(Got(m.topic, m.payload.decode(), m.qos, m.retain, m.dup))
            self._news.notify_all()

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(ready, DEADLINE_S)

    def answered(self, mid: int | None) -> None:
        assert mid is not None
        self.wait(lambda: mid in self._answered)

    def publish(self, topic: str, payload: str, qos: int, retain: bool) -> None:
        info = self._mqtt.publish(topic, payload, qos, retain)
        self.answered(info.mid)

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.answered(self._mqtt.subscribe(topic_filter, qos)[1])

    def unsubscribe(self, topic_filter: str) -> None:
        self.answered(self._mqtt.unsubscribe(topic_filter)[1])

    def take(self, at_least: int) -> list[Got]:
        with self._news:
            assert self._news.wait_for(lambda: len(self._mail) >= at_least, DEADLINE_S), self._mail
        if self.up:
            self.subscribe("fence", 0)
            self.unsubscribe("fence")
        found, self._mail = self._mail, []
        return found

    def leave(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def lose(self) -> None:
        endpoint = self._mqtt.socket()
        assert isinstance(endpoint, socket.socket)
        endpoint.shutdown(socket.SHUT_RDWR)
        self.wait(lambda: not self.up)
        self._mqtt.loop_stop()


class MosquittoWorld:
    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: dict[str, _Client] = {}
        self._silent: dict[str, socket.socket] = {}

    def connect(
        self,
        name: str,
        client: str = "",
        clean: bool = True,
        will: Got | None = None,
        keep_alive_s: int = 0,
        acks: bool = True,
    ) -> bool:
        found = _Client(self._port, client or name, clean, will, keep_alive_s, acks)
        self._clients[name] = found
        return found.present

    def publish(self, name: str, topic: str, payload: str = "x", qos: int = 0, retain: bool = False) -> None:
        self._clients[name].publish(topic, payload, qos, retain)
        if not qos:
            self._clients[name].take(0)  # until the broker has read it; mail of a publisher isn't looked at

    def subscribe(self, name: str, topic_filter: str, qos: int = 1) -> None:
        self._clients[name].subscribe(topic_filter, qos)

    def unsubscribe(self, name: str, topic_filter: str) -> None:
        self._clients[name].unsubscribe(topic_filter)

    def leave(self, name: str) -> None:
        self._clients[name].leave()

    def lose(self, name: str) -> None:
        self._clients[name].lose()

    def silence(self, name: str) -> None:
        self._clients[name]._mqtt.loop_stop()  # the socket stays open, nothing is sent

    def got(self, name: str, at_least: int = 0) -> list[Got]:
        return self._clients[name].take(at_least)

    def connected(self, name: str) -> bool:
        client = self._clients[name]
        client.wait(lambda: not client.up)  # asked only where it should end
        return client.up

    def close(self) -> None:
        for client in self._clients.values():
            client.leave()


@pytest.fixture(scope="module")
def mosquitto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if MOSQUITTO is None:
        pytest.skip(
            "MOSQUITTO IS MISSING: the model is not compared with a real broker (apt install mosquitto)"
        )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    path = Path(tmp_path_factory.mktemp("mosquitto")) / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest none\n")
    child = subprocess.Popen([MOSQUITTO, "-c", str(path)], stdin=subprocess.DEVNULL)
    try:
        _until_listening(port)
        yield port
    finally:
        child.kill()
        child.wait()


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as endpoint:
                endpoint.sendall(connect_packet("ready"))
                assert endpoint.recv(4)[3:] == b"\0"
                return
        except OSError:
            assert time.monotonic() < deadline


@pytest.fixture(params=["model", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "model":
        yield ModelWorld()
        return
    real = MosquittoWorld(request.getfixturevalue("mosquitto_port"))
    try:
        yield real
    finally:
        real.close()


# ------------------------------------------------------------------ the conversations

CONVERSATIONS: list[Callable[[World], None]] = []


def conversation(tell: Callable[[World], None]) -> Callable[[World], None]:
    CONVERSATIONS.append(tell)
    return tell


@conversation
def retained_set_replaced_deleted(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.publish("pub", "ret/a", "1", 1, retain=True)
    w.publish("pub", "ret/a", "2", 1, retain=True)
    w.publish("pub", "ret/b", "3", 0, retain=True)
    w.subscribe("sub", "ret/+")
    assert sorted(w.got("sub", 2)) == [Got("ret/a", "2", 1, True), Got("ret/b", "3", 0, True)]
    w.publish("pub", "ret/a", "", 1, retain=True)
    w.publish("pub", "ret/b", "4", 1, retain=True)
    assert w.got("sub", 2) == [Got("ret/a", "", 1, False), Got("ret/b", "4", 1, False)]
    w.subscribe("sub", "ret/+")
    assert w.got("sub", 1) == [Got("ret/b", "4", 1, True)]
    w.publish("pub", "ret/b", "", 1, retain=True)


@conversation
def qos_is_the_lower_of_the_two(w: World) -> None:
    w.connect("pub")
    w.connect("low")
    w.connect("high")
    w.subscribe("low", "q/t", 0)
    w.subscribe("high", "q/t", 1)
    w.publish("pub", "q/t", "0", 0)
    w.publish("pub", "q/t", "1", 1)
    assert [g.qos for g in w.got("low", 2)] == [0, 0]
    assert [g.qos for g in w.got("high", 2)] == [0, 1]


@conversation
def overlapping_subscriptions_bring_every_message(w: World) -> None:
    """Not its QoS: 3.3.5-1 asks for the highest, mosquitto 2.0.11 sends one copy at the first match's."""
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "over/+", 0)
    w.subscribe("sub", "over/#", 1)
    w.publish("pub", "over/x", "x", 1)
    copies = w.got("sub", 1)
    assert len(copies) in (1, 2) and {g.payload for g in copies} == {"x"}


@conversation
def wildcards_and_parents(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "wild/+/z")
    w.subscribe("sub", "tree/#")
    for topic in ("wild/a/z", "wild/a/b/z", "wild//z", "tree", "tree/x/y", "trees"):
        w.publish("pub", topic, "x", 1)
    assert [g.topic for g in w.got("sub", 4)] == ["wild/a/z", "wild//z", "tree", "tree/x/y"]


@conversation
def unsubscribed_is_silent(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "un/t")
    w.unsubscribe("sub", "un/t")
    w.publish("pub", "un/t", "x", 1)
    assert w.got("sub") == []


@conversation
def a_lost_connection_sends_its_will(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wl/#")
    w.connect("dev", will=Got("wl/lost", "gone", 1, True))
    w.lose("dev")
    assert w.got("sub", 1) == [Got("wl/lost", "gone", 1, False)]
    w.subscribe("sub", "wl/lost")
    assert w.got("sub", 1) == [Got("wl/lost", "gone", 1, True)]
    w.publish("sub", "wl/lost", "", 1, retain=True)


@conversation
def an_orderly_goodbye_sends_none(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wg/#")
    w.connect("dev", will=Got("wg/bye", "gone", 1, False))
    w.leave("dev")
    w.connect("dev", will=Got("wg/bye", "never", 1, False))
    w.publish("dev", "wg/mark", "x", 1)
    assert [g.topic for g in w.got("sub", 1)] == ["wg/mark"]
    w.leave("dev")


@conversation
def a_take_over_closes_the_old_and_sends_its_will_first(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wt/#")
    w.connect("old", "twin", will=Got("wt/s", "old gone", 1, True))
    assert w.connect("new", "twin") is False
    w.publish("new", "wt/s", "birth", 1, retain=True)
    assert [g.payload for g in w.got("sub", 2)] == ["old gone", "birth"]
    assert not w.connected("old")
    w.subscribe("sub", "wt/s")
    assert w.got("sub", 1) == [Got("wt/s", "birth", 1, True)]
    w.publish("sub", "wt/s", "", 1, retain=True)


@conversation
def silence_closes_and_sends_the_will(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "ws/#")
    w.connect("dev", will=Got("ws/silent", "gone", 1, False), keep_alive_s=1)
    w.silence("dev")
    assert w.got("sub", 1) == [Got("ws/silent", "gone", 1, False)]


@conversation
def a_kept_session_gets_what_it_missed_in_order(w: World) -> None:
    assert w.connect("a", "keeper", clean=False) is False
    w.subscribe("a", "kept/t")
    w.lose("a")
    w.connect("pub")
    for number in range(5):
        w.publish("pub", "kept/t", str(number), 1)
    w.publish("pub", "kept/t", "qos 0", 0)
    assert w.connect("b", "keeper", clean=False) is True
    assert [(g.payload, g.dup) for g in w.got("b", 5) if g.qos] == [(str(n), False) for n in range(5)]
    w.leave("b")
    assert w.connect("c", "keeper", clean=True) is False
    w.publish("pub", "kept/t", "nobody", 1)
    assert w.got("c") == []


@conversation
def the_unacknowledged_come_again_with_dup(w: World) -> None:
    w.connect("a", "slow", clean=False, acks=False)
    w.subscribe("a", "again/t")
    w.connect("pub")
    for number in range(3):
        w.publish("pub", "again/t", str(number), 1)
    assert [g.dup for g in w.got("a", 3)] == [False] * 3
    w.lose("a")
    w.connect("b", "slow", clean=False)
    assert [(g.payload, g.dup) for g in w.got("b", 3)] == [("0", True), ("1", True), ("2", True)]
    w.leave("b")
    w.connect("c", "slow", clean=True)


@conversation
def a_wildcard_hides_dollar_topics(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "+/dollar")
    w.subscribe("sub", "$mine/#")
    w.publish("pub", "$mine/dollar", "x", 1)
    w.publish("pub", "its/dollar", "y", 1)
    assert [g.topic for g in w.got("sub", 1) if g.topic != "$mine/dollar"] == ["its/dollar"]


@pytest.mark.parametrize("tell", CONVERSATIONS, ids=lambda tell: tell.__name__)
def test_a_conversation_goes_the_same_way(tell: Callable[[World], None], world: World) -> None:
    tell(world)
