"""Brokers that really run: who is let in, who hears what, what a death leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest

from broker import serve
from broker.contract import Broker, BrokerError, BrokerSetup
from broker.probe import connect_packet, probe
from broker.serve import choose
from broker.serve_mosquitto import MosquittoBroker, find_binary

pytestmark = pytest.mark.live

DEADLINE_S = 15.0
CTL = "_controller-1"
USERS = {"dev-a": "pa", "dev-b": "pb", CTL: "pc", "_observer": "po"}
mosquitto_only = [pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)]
KINDS = [*mosquitto_only, "amqtt"]


def need(kind: str) -> None:
    if kind == "mosquitto":
        try:
            find_binary()
        except BrokerError as error:
            pytest.skip(f"MOSQUITTO IS MISSING: {error}")


async def until(ready: Callable[[], bool], what: str = "") -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not ready():
            await asyncio.sleep(0.01)


class Client:
    """A paho client on a thread of its own; all waiting is done in the event loop."""

    def __init__(self, broker: Broker, user: str, password: str, **options: object) -> None:
        client_id = str(options.pop("client_id", user))
        self.heard: list[tuple[str, str, bool]] = []
        self.code: int | None = None
        self.up = False
        self._answered: set[int] = set()
        self.mqtt = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
        self.mqtt.username_pw_set(user, password)
        if "will" in options:
            topic, payload = options["will"]  # type: ignore[misc]
            self.mqtt.will_set(topic, payload, 1, True)
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_disconnect = self._on_disconnect
        self.mqtt.on_message = lambda c, u, m: self.heard.append(
            (m.topic, m.payload.decode(), bool(m.retain))
        )
        self.mqtt.on_subscribe = lambda c, u, mid, codes, p: self._answered.add(mid)
        self.mqtt.on_publish = lambda c, u, mid, code, p: self._answered.add(mid)
        self._broker, self._keep_alive_s = broker, int(str(options.get("keep_alive_s", 60)))

    def _on_connect(self, c: object, u: object, flags: object, code: paho.ReasonCode, p: object) -> None:
        self.code, self.up = code.value, not code.is_failure

    def _on_disconnect(self, *_: object) -> None:
        self.up = False

    async def connect(self) -> Client:
        await asyncio.to_thread(self.mqtt.connect, self._broker.host, self._broker.port, self._keep_alive_s)
        self.mqtt.loop_start()
        await until(lambda: self.code is not None)
        return self

    async def subscribe(self, *filters: str) -> None:
        _, mid = self.mqtt.subscribe([(f, 1) for f in filters])
        await until(lambda: mid in self._answered)

    async def publish(self, topic: str, payload: str, retain: bool = False) -> None:
        info = self.mqtt.publish(topic, payload, 1, retain)
        await until(lambda: info.mid in self._answered)

    def lose(self) -> None:
        endpoint = self.mqtt.socket()
        assert isinstance(endpoint, socket.socket)
        endpoint.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


class Fleet:
    """A started broker and the clients of one test; everything ends with it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.clients: list[Client] = []

    async def client(self, user: str, **options: object) -> Client:
        client = Client(self.broker, user, USERS.get(user, "new"), **options)
        self.clients.append(client)
        return await client.connect()


def run(kind: str, tmp_path: Path, tell: Callable[[Fleet], Awaitable[None]], **setup: object) -> None:
    need(kind)

    async def main() -> None:
        broker = choose(BrokerSetup(tmp_path / "private" / "broker", "f", dict(USERS), **setup), kind)  # type: ignore[arg-type]
        (tmp_path / "private").mkdir(mode=0o700)
        await broker.start()
        fleet = Fleet(broker)
        try:
            await tell(fleet)
        finally:
            for client in fleet.clients:
                await asyncio.to_thread(client.close)
            await broker.stop()

    asyncio.run(main())


def topic(device: str, channel: str) -> str:
    return f"fm/1/f/{device}/{channel}"


# ------------------------------------------------------------------------- letting in


@pytest.mark.parametrize("kind", KINDS)
def test_only_known_users_are_let_in(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        ask = (fleet.broker.host, fleet.broker.port)
        assert await probe(*ask, "dev-a", "dev-a", "pa") == 0
        assert await probe(*ask, "dev-a", "dev-a", "pb") == 5
        assert await probe(*ask, "dev-a", "dev-a", "") == 5
        assert await probe(*ask, "dev-a") == 5
        assert await probe(*ask, "dev-z", "dev-z", "pa") == 5
        assert await probe(*ask, "_probe", "_probe", "") == 5

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_client_id_evicts_nobody(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        victim = await fleet.client("dev-a")
        await victim.subscribe(topic("dev-a", "command"))
        ask = (fleet.broker.host, fleet.broker.port)
        await probe(*ask, "dev-a", "dev-b", "pb")
        assert await probe(*ask, "dev-a", "dev-a", "wrong") == 5
        controller = await fleet.client(CTL)
        await controller.publish(topic("dev-a", "command"), "still there")
        await until(lambda: [h[1] for h in victim.heard] == ["still there"])
        assert victim.up

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_added_and_removed_while_it_runs(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        bystander = await fleet.client("dev-a")
        await fleet.broker.add_users({"dev-new": "new", "dev-other": "new"})
        new = await fleet.client("dev-new", will=(topic("dev-new", "status"), "gone"))
        controller = await fleet.client(CTL)
        await controller.subscribe(topic("+", "status"), topic("+", "runs"))
        await new.publish(topic("dev-new", "runs"), "hello")
        await until(lambda: len(controller.heard) == 1)
        await fleet.broker.remove_users(("dev-new",))
        await until(lambda: not new.up)
        assert await probe(fleet.broker.host, fleet.broker.port, "dev-new", "dev-new", "new") == 5
        assert bystander.up and controller.up

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_could_break_the_files_is_refused(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        for name in ("a:b", "a\nuser dev-a", "+", "#", "", "_probe", "_controller-", "a/b"):
            with pytest.raises(BrokerError):
                await fleet.broker.add_users({name: "x"})

    run(kind, tmp_path, tell)


# ----------------------------------------------------------------------------- access


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_reads_and_writes_nothing_of_another(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        controller, a, b = [await fleet.client(user) for user in (CTL, "dev-a", "dev-b")]
        await controller.subscribe(*(topic("+", channel) for channel in ("status", "runs", "answer")))
        await controller.publish(topic("dev-b", "assignments"), "secret", retain=True)
        await b.publish(topic("dev-b", "runs"), "of b", retain=True)
        await a.subscribe("#", "fm/1/f/#", topic("dev-b", "assignments"), topic("+", "runs"))
        await a.subscribe(topic("dev-a", "command"))
        await a.publish(topic("dev-b", "runs"), "forged", retain=True)
        await a.publish(topic("dev-a", "assignments"), "forged", retain=True)
        await a.publish("fm/1/f/_controller/status", "forged", retain=True)
        await a.publish("elsewhere", "forged", retain=True)
        await b.publish(topic("dev-b", "answer"), "private")
        await controller.publish(topic("dev-a", "command"), "mine")
        await a.publish(topic("dev-a", "status"), "birth")
        await until(lambda: ("mine" in [h[1] for h in a.heard]) and len(controller.heard) == 3)
        assert [h[1] for h in a.heard] == ["mine"]
        assert [h[:2] for h in controller.heard] == [
            (topic("dev-b", "runs"), "of b"),
            (topic("dev-b", "answer"), "private"),
            (topic("dev-a", "status"), "birth"),
        ]
        again = await fleet.client("dev-a")  # a new connection is told nothing that it didn't ask for
        await again.subscribe(topic("dev-a", "command"))
        await controller.publish(topic("dev-a", "command"), "fence")
        await until(lambda: bool(again.heard))
        assert again.heard == [(topic("dev-a", "command"), "fence", False)]

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_an_observer_hears_all_and_says_nothing(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        observer, controller, a = [await fleet.client(user) for user in ("_observer", CTL, "dev-a")]
        await controller.subscribe(topic("+", "status"))
        await observer.subscribe("fm/1/f/#")
        await observer.publish(topic("dev-a", "status"), "forged", retain=True)
        await a.publish(topic("dev-a", "status"), "birth")
        await controller.publish(topic("dev-a", "lease"), "granted")
        await until(lambda: len(observer.heard) == 2 and len(controller.heard) == 1)
        assert [h[1] for h in controller.heard] == ["birth"]

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_controller_clears_what_a_removed_device_retained(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        a, controller = await fleet.client("dev-a"), await fleet.client(CTL)
        await a.publish(topic("dev-a", "runs"), "old", retain=True)
        await controller.subscribe(topic("+", "runs"))
        await until(lambda: controller.heard == [(topic("dev-a", "runs"), "old", True)])
        await controller.publish(topic("dev-a", "runs"), "", retain=True)
        second = await fleet.client("_observer")
        await second.subscribe("fm/1/f/#")
        await a.publish(topic("dev-a", "status"), "fence")
        await until(lambda: bool(second.heard))
        assert [h[1] for h in second.heard] == ["fence"]

    run(kind, tmp_path, tell)


# ------------------------------------------------------------------------------ wills


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_device_leaves_its_will_and_a_forged_one_is_not_sent(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        controller = await fleet.client(CTL)
        await controller.subscribe(topic("+", "status"))
        forger = await fleet.client("dev-b", will=(topic("dev-a", "status"), "forged"))
        a = await fleet.client("dev-a", will=(topic("dev-a", "status"), "gone"))
        if forger.up:  # mosquitto lets it in and drops the will; the embedded broker refuses it
            forger.lose()
            await until(lambda: not forger.up)
        a.lose()
        await until(lambda: bool(controller.heard))
        assert controller.heard == [(topic("dev-a", "status"), "gone", False)]

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_device_leaves_its_will(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        controller = await fleet.client(CTL)
        await controller.subscribe(topic("+", "status"))
        a = await fleet.client("dev-a", will=(topic("dev-a", "status"), "gone"), keep_alive_s=1)
        a.mqtt.loop_stop()
        await until(lambda: [h[1] for h in controller.heard] == ["gone"])

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_take_over_lets_the_birth_win_over_the_will(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        controller = await fleet.client(CTL)
        await controller.subscribe(topic("+", "status"))
        status = topic("dev-a", "status")
        for number in range(5):
            a = await fleet.client("dev-a", will=(status, f"gone {number}"))
            await a.publish(status, f"birth {number}", retain=True)
        await until(lambda: len(controller.heard) == 9)
        expected = [f"{word} {n}" for n in range(5) for word in ("birth", "gone")][:-1]
        assert [h[1] for h in controller.heard] == expected
        await controller.subscribe(status)
        await until(lambda: controller.heard[-1] == (status, "birth 4", True))

    run(kind, tmp_path, tell)


# ------------------------------------------------------------------ floods, bad bytes


@pytest.mark.parametrize("kind", KINDS)
def test_many_devices_at_once_all_get_their_message(kind: str, tmp_path: Path) -> None:
    names = [f"dev-{number}" for number in range(60)]

    async def tell(fleet: Fleet) -> None:
        await fleet.broker.add_users({name: "new" for name in names})
        controller = await fleet.client(CTL)
        await controller.subscribe(topic("+", "status"))
        devices = await asyncio.gather(*(fleet.client(name) for name in names))
        await asyncio.gather(*(d.subscribe(topic(n, "command")) for n, d in zip(names, devices, strict=True)))
        await asyncio.gather(*(d.publish(topic(n, "status"), n) for n, d in zip(names, devices, strict=True)))
        await asyncio.gather(*(controller.publish(topic(n, "command"), n) for n in names))
        await until(lambda: sorted(h[1] for h in controller.heard) == sorted(names))
        for name, device in zip(names, devices, strict=True):
            await until(lambda: [h[1] for h in device.heard] == [name])  # noqa: B023

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_and_oversize_cost_only_their_own_connection(kind: str, tmp_path: Path) -> None:
    async def spit(broker: Broker, data: bytes) -> None:
        reader, writer = await asyncio.open_connection(broker.host, broker.port)
        try:
            writer.write(data)
            async with asyncio.timeout(DEADLINE_S):
                while await reader.read(4096):
                    pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def tell(fleet: Fleet) -> None:
        a = await fleet.client("dev-a")
        login = connect_packet("dev-b", "dev-b", "pb")
        flood = b"\x30" + b"\xff\xff\xff\x7f" + b"\x00\x13fm/1/f/dev-b/status" + b"x" * 200_000
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\x10\xff\xff\xff\xff\x01", login + flood):
            await spit(fleet.broker, data)
        await a.subscribe(topic("dev-a", "command"))
        assert a.up

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_legal_payload_arrives(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        a, controller = await fleet.client("dev-a"), await fleet.client(CTL)
        await controller.subscribe(topic("+", "runs"))
        await a.publish(topic("dev-a", "runs"), "x" * 65_536)
        await until(lambda: [len(h[1]) for h in controller.heard] == [65_536])

    run(kind, tmp_path, tell)


# ------------------------------------------------------------------ dying and coming back


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_that_loses_everything_keeps_port_and_users(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        a = await fleet.client("dev-a")
        await a.publish(topic("dev-a", "runs"), "old", retain=True)
        await fleet.broker.add_users({"dev-late": "new"})
        port = fleet.broker.port
        await fleet.broker.restart(lose_state=True)
        await until(lambda: not a.up)
        assert fleet.broker.port == port
        late, observer = await fleet.client("dev-late"), await fleet.client("_observer")
        await observer.subscribe("fm/1/f/#")
        await late.publish(topic("dev-late", "status"), "fence")
        await until(lambda: bool(observer.heard))
        assert [h[1] for h in observer.heard] == ["fence"]

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", mosquitto_only)
def test_an_orderly_stop_and_start_keeps_retained_messages(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        broker = fleet.broker
        assert isinstance(broker, MosquittoBroker)
        a = await fleet.client("dev-a")
        await a.publish(topic("dev-a", "runs"), "kept", retain=True)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGTERM)
        assert await broker.exited() == "exit code 0"
        await broker.start()
        observer = await fleet.client("_observer")
        await observer.subscribe("fm/1/f/#")
        await until(lambda: observer.heard == [(topic("dev-a", "runs"), "kept", True)])

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", mosquitto_only)
def test_a_killed_broker_is_noticed_and_started_again(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        broker = fleet.broker
        assert isinstance(broker, MosquittoBroker)
        watching = asyncio.create_task(broker.exited())
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        assert await asyncio.wait_for(watching, DEADLINE_S) == "killed by SIGKILL"
        await broker.add_users({"dev-late": "new"})  # while it is dead
        await broker.start()
        assert (await fleet.client("dev-late")).up

    run(kind, tmp_path, tell)


@pytest.mark.parametrize("kind", mosquitto_only)
def test_its_files_are_private_and_it_is_never_root(kind: str, tmp_path: Path) -> None:
    async def tell(fleet: Fleet) -> None:
        broker = fleet.broker
        assert isinstance(broker, MosquittoBroker) and broker._plan is not None and broker.pid is not None
        uids = psutil.Process(broker.pid).uids()
        assert 0 not in uids
        directory = broker._plan.directory
        assert directory.stat().st_mode & 0o777 == 0o700 and directory.stat().st_uid == uids.real
        for path in (*directory.iterdir(), broker.log_path):
            assert path.stat().st_mode & 0o077 == 0, path
        assert broker.log_path.parent.stat().st_mode & 0o077 == 0
        if os.geteuid() == 0:
            await broker.stop()
            assert not directory.exists()

    run(kind, tmp_path, tell)


CHILD = """
import asyncio, sys, pathlib
from broker.contract import BrokerSetup
from broker.serve_mosquitto import MosquittoBroker, find_binary
async def main():
    broker = MosquittoBroker(BrokerSetup(pathlib.Path(sys.argv[1]), "f"), find_binary())
    await broker.start()
    print(broker.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.needs_mosquitto
def test_mosquitto_dies_with_its_parent(tmp_path: Path) -> None:
    need("mosquitto")
    root = Path(serve.__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "b")], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = psutil.Process(pid)
        assert child.is_running()
        parent.kill()
        assert psutil.wait_procs([child], timeout=DEADLINE_S)[1] == []
    finally:
        parent.kill()
        parent.wait()
        asyncio.run(_start_and_stop(tmp_path / "b"))  # the next one finds its way through what was left


async def _start_and_stop(directory: Path) -> None:
    broker = MosquittoBroker(BrokerSetup(directory, "f"), find_binary())
    await broker.start()
    await broker.stop()
    assert broker._plan is not None and (os.geteuid() != 0 or not broker._plan.directory.exists())


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_that_is_taken_is_an_error(kind: str, tmp_path: Path) -> None:
    need(kind)

    async def main() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            broker = choose(BrokerSetup(tmp_path / "b", "f", port=other.getsockname()[1]), kind)
            with pytest.raises(BrokerError, match="in use"):
                await broker.start()
            await broker.stop()

    asyncio.run(main())
