"""What one MQTT message costs: our paho link beside gmqtt, on asyncio and uvloop, through mosquitto.

Per contestant: processor time and rate of small messages published and received by the same
process (QoS 0 and 1, at most 200 on their way), and the time of a command and its answer
between two connections at QoS 1, one at a time. Beside it, in the same run, bare sockets
with a relay between; ratios are to that. Run: `python -m benchmarks.bench_link [--messages N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

from benchmarks.probe import Spread, round_trip, spread
from live.link import LinkHandlers, LinkOptions
from live.links import make_link

PAYLOAD = b"x" * 44
"""Bytes of a full heartbeat."""
ON_THEIR_WAY = 200
TOPIC, BACK = "fm/1/bench/pi-0001/heartbeat", "fm/1/bench/pi-0001/lease"
START_MS = 10_000
OnMessage = Callable[[], None]
T = TypeVar("T")


class Contestant(Protocol):
    """One connection, reduced to what is measured."""

    async def open(self, port: int, name: str, topic: str, qos: int, on_message: OnMessage) -> None: ...

    def publish(self, topic: str, qos: int) -> None: ...

    async def close(self) -> None: ...


class OurLink:
    """`live.link` on paho."""

    async def open(self, port: int, name: str, topic: str, qos: int, on_message: OnMessage) -> None:
        self._up = asyncio.get_running_loop().create_future()
        self._down = asyncio.Event()
        options = LinkOptions("127.0.0.1", port, name, subscriptions=((topic, qos),), inflight_max=1_000)
        handlers = LinkHandlers(self._is_up, self._is_down, lambda *_: on_message())
        self._link = make_link(options, handlers)
        self._link.open()
        await self._up

    def publish(self, topic: str, qos: int) -> None:
        assert self._link.publish(topic, PAYLOAD, qos, False), "the queue is full"

    async def close(self) -> None:
        self._link.close(True)
        await self._down.wait()

    def _is_up(self) -> None:
        self._up.set_result(None)

    def _is_down(self, reason: str) -> None:
        self._down.set()
        if not self._up.done():
            self._up.set_exception(ConnectionError(reason))


class Gmqtt:
    """The other asyncio client, by its documented interface, MQTT 3.1.1."""

    async def open(self, port: int, name: str, topic: str, qos: int, on_message: OnMessage) -> None:
        from gmqtt import Client
        from gmqtt.mqtt.constants import MQTTv311

        subscribed = asyncio.Event()
        self._client = Client(name, clean_session=True)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda *_: _answered(on_message)
        await self._client.connect("127.0.0.1", port, keepalive=60, version=MQTTv311)
        self._client.subscribe(topic, qos=qos)
        await subscribed.wait()

    def publish(self, topic: str, qos: int) -> None:
        self._client.publish(topic, PAYLOAD, qos=qos)

    async def close(self) -> None:
        await self._client.disconnect()


CONTESTANTS: dict[str, Callable[[], Contestant]] = {"paho link": OurLink, "gmqtt": Gmqtt}


def _answered(on_message: OnMessage) -> int:
    on_message()
    return 0


async def throughput(
    make: Callable[[], Contestant], port: int, qos: int, messages: int
) -> tuple[float, float]:
    """(messages a second, processor microseconds per message published *and* received)."""
    arrived, more = 0, asyncio.Event()

    def count() -> None:
        nonlocal arrived
        arrived += 1
        if arrived % 50 == 0:
            more.set()

    hears, says = make(), make()
    await hears.open(port, f"hears{qos}", TOPIC, qos, count)
    await says.open(port, f"says{qos}", BACK, qos, lambda: None)
    cpu, begin = time.process_time(), time.perf_counter()
    for sent in range(messages):
        while sent - arrived >= ON_THEIR_WAY:
            more.clear()
            await more.wait()
        says.publish(TOPIC, qos)
    while arrived < messages:
        more.clear()
        await more.wait()
    took, worked = time.perf_counter() - begin, time.process_time() - cpu
    await says.close()
    await hears.close()
    return messages / took, worked / messages * 1e6


async def command_and_answer(make: Callable[[], Contestant], port: int, rounds: int) -> Spread:
    """One at a time: publish at QoS 1, the other connection answers at QoS 1."""
    back = asyncio.Event()
    asks, answers = make(), make()
    await answers.open(port, "answers", TOPIC, 1, lambda: answers.publish(BACK, 1))
    await asks.open(port, "asks", BACK, 1, back.set)
    times = []
    for _ in range(rounds):
        back.clear()
        begin = time.perf_counter_ns()
        asks.publish(TOPIC, 1)
        await back.wait()
        times.append(time.perf_counter_ns() - begin)
    await asks.close()
    await answers.close()
    return spread(times[rounds // 10 :])


@contextmanager
def private_mosquitto() -> Iterator[int]:
    """A mosquitto of our own on a free port, without limits on its queues; gives the port."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise SystemExit("mosquitto isn't installed: sudo apt-get install -y mosquitto")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_inflight_messages 0\nmax_queued_messages 0\npersistence false\n"
        )
        Path(folder).chmod(0o755)
        broker = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield port
        finally:
            broker.kill()
            broker.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_MS / 1_000
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("mosquitto doesn't start")


def _loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return loops
    return loops | {"uvloop": cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)}


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of one MQTT message")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cases = [(loop, name) for loop in _loops() for name in CONTESTANTS]
    figures: dict[tuple[str, str], list[Figures]] = {case: [] for case in cases}
    probes = []
    with private_mosquitto() as port:
        for repeat in range(arguments.repeats + 1):
            probes.append(round_trip(hops=2))
            for loop, name in cases:
                measured = _measure(loop, CONTESTANTS[name], port, arguments.messages, arguments.rounds)
                if repeat:  # the first round warms up
                    figures[loop, name].append(measured)
    _report(figures, probes)


@dataclass(frozen=True, slots=True)
class Figures:
    """One pass of one contestant: rates in messages a second, processor time in us per message."""

    qos0_rate: float
    qos0_cpu_us: float
    qos1_rate: float
    qos1_cpu_us: float
    p50_us: float
    p99_us: float


def _measure(loop: str, make: Callable[[], Contestant], port: int, messages: int, rounds: int) -> Figures:
    with asyncio.Runner(loop_factory=_loops()[loop]) as runner:
        qos0 = runner.run(_bounded(throughput(make, port, 0, messages)))
        qos1 = runner.run(_bounded(throughput(make, port, 1, messages)))
        times = runner.run(_bounded(command_and_answer(make, port, rounds)))
    return Figures(*qos0, *qos1, times.p50_us, times.p99_us)


def _report(figures: dict[tuple[str, str], list[Figures]], probes: list[Spread]) -> None:
    probe_us = statistics.median(probe.p50_us for probe in probes)
    print(f"probe: bare sockets, one relay between: p50 {probe_us:.0f} us, the median of {len(probes)}")
    print("medians of the passes; cpu is for one message published and received")
    print(f"{'':21}{'QoS 0':>22}{'QoS 1':>22}{'command and answer, QoS 1':>38}")
    for (loop, name), passes in figures.items():
        middle = [statistics.median(column) for column in zip(*map(astuple, passes), strict=True)]
        rate0, cpu0, rate1, cpu1, p50, p99 = middle
        print(
            f"{name + ', ' + loop:21}{rate0:9,.0f}/s {cpu0:5.1f} us cpu{rate1:9,.0f}/s {cpu1:5.1f} us cpu"
            f"   p50 {p50:5.0f} us  p99 {p99:5.0f} us {p50 / probe_us:6.1f} x probe"
        )


async def _bounded(measurement: Awaitable[T]) -> T:
    return await asyncio.wait_for(measurement, 300)


if __name__ == "__main__":
    main()
