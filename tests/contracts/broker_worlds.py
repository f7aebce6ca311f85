"""Two worlds in which a conversation with a broker can be held: the model, and a real mosquitto.

Names are connections; a client id is a name unless told otherwise, and so is a user name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import paho.mqtt.client as paho

from broker import events as ev
from broker.model import BrokerModel
from broker.probe import connect_packet
from protocol.core import Effect, Event, TimerElapsed

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
    def violate(self, name: str) -> None: ...
    def violate_size(self, name: str, payload_bytes: int) -> None: ...
    def save(self) -> None: ...
    def restart(self, survival: ev.Survival) -> None: ...


# --------------------------------------------------------------------- the two worlds


class ModelWorld:
    """Names are connections; effects are sorted into mailboxes at once."""

    def __init__(self, limits: ev.BrokerLimits | None = None, acl: ev.AclHook | None = None) -> None:
        self._model = BrokerModel(limits, acl=acl)
        self._now_ms = 0
        self._numbers: dict[str, int] = {}
        self._acks: dict[int, bool] = {}
        self._mail: dict[int, list[Got]] = {}
        self._closed: set[int] = set()
        self._connack: ev.SendConnack | None = None

    def _feed(self, event: Event) -> None:
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
        self._feed(
            ev.ConnectReceived(number, client or name, client or name, clean, keep_alive_s * 1000, last)
        )
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

    def violate(self, name: str) -> None:
        self._feed(ev.PublishReceived(self._numbers[name], "not/#/a/topic", b""))

    def violate_size(self, name: str, payload_bytes: int) -> None:
        self.publish(name, "t", "x" * payload_bytes)

    def save(self) -> None:
        self._model.snapshot()

    def restart(self, survival: ev.Survival) -> None:
        for effect in self._model.restart(survival):
            self._perform(effect)


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
        self._mqtt.username_pw_set(client)
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

    def send_raw(self, packet: bytes) -> None:
        """Past paho, which would refuse to say such a thing."""
        endpoint = self._mqtt.socket()
        assert isinstance(endpoint, socket.socket)
        endpoint.sendall(packet)

    def lose(self) -> None:
        endpoint = self._mqtt.socket()
        assert isinstance(endpoint, socket.socket)
        endpoint.shutdown(socket.SHUT_RDWR)
        self.wait(lambda: not self.up)
        self._mqtt.loop_stop()


class MosquittoWorld:
    def __init__(self, mosquitto: Mosquitto) -> None:
        self._mosquitto = mosquitto
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
        found = _Client(self._mosquitto.port, client or name, clean, will, keep_alive_s, acks)
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

    def violate(self, name: str) -> None:
        topic = b"not/#/a/topic"
        self._clients[name].send_raw(bytes((0x30, 2 + len(topic), 0, len(topic))) + topic)

    def violate_size(self, name: str, payload_bytes: int) -> None:
        size = payload_bytes + 3
        head = bytes((0x30, 0x80 | size % 128, size // 128, 0, 1))
        self._clients[name].send_raw(head + b"t" + b"x" * payload_bytes)

    def save(self) -> None:
        self._mosquitto.save()

    def restart(self, survival: ev.Survival) -> None:
        self._mosquitto.restart(survival)

    def close(self) -> None:
        for client in self._clients.values():
            client.leave()


class Mosquitto:
    """A real one with `lines` of configuration, on a port of its own and with a database."""

    def __init__(self, directory: Path, *lines: str) -> None:
        assert MOSQUITTO is not None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self._database = directory / "mosquitto.db"
        self._config = directory / "mosquitto.conf"
        base = (
            f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true",
            "log_dest none", "persistence true", f"persistence_location {directory}/",
            "autosave_interval 0", "user root",
        )  # fmt: skip
        self._config.write_text("\n".join((*base, *lines)) + "\n")
        self._start()

    def _start(self) -> None:
        assert MOSQUITTO is not None
        self._child = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdin=subprocess.DEVNULL)
        until_listening(self.port)

    def save(self) -> None:
        """Its autosave, now: the file is replaced."""
        before = self._database.stat().st_mtime_ns if self._database.exists() else 0
        os.kill(self._child.pid, signal.SIGUSR1)
        deadline = time.monotonic() + DEADLINE_S
        while not self._database.exists() or self._database.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def restart(self, survival: ev.Survival) -> None:
        """Always a SIGKILL: an orderly end would send wills before it saves (as found in 2.0.11)."""
        if survival is ev.Survival.KEPT:
            self.save()
        self._child.kill()
        self._child.wait()
        if survival is ev.Survival.LOST:
            self._database.unlink(missing_ok=True)
        self._start()

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()


def until_listening(port: int) -> None:
    """Returns when it lets clients in."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as endpoint:
                endpoint.sendall(connect_packet("ready"))
                assert endpoint.recv(4)[3:] == b"\0"
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
