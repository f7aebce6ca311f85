"""Command round trip controller → agent → controller at QoS 1 through mosquitto, three ways.

`fleet`: the whole of it, as `POST /devices/{id}/ping` measures it in the controller (driver,
core, wire, broker, agent and back); pings one after another to one idle device, without the
time of HTTP. `agent`: the same agent, but the asking side is only a link and the codec, so
the difference is the controller's. `links`: two links and no agent: what the broker takes.
Probe: bare sockets with a relay between, the shape of a broker without any work.
Run: `python -m benchmarks.bench_roundtrip [--rounds N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from benchmarks.bench_link import OurLink, command_and_answer, private_mosquitto
from benchmarks.fleet import Fleet, fleet, spent_ms, until
from benchmarks.probe import Spread, round_trip, spread
from benchmarks.report import Result, say, show
from benchmarks.watch import watching
from live.link import LinkHandlers, LinkOptions
from live.links import make_link
from protocol import topics
from protocol.codec import decode, encode
from protocol.messages import Answer, Command

TARGET_US = 500.0
FLEET, DEVICE = "bench", "pi-0001"
WARM_UP = 50


def through_fleet(running: Fleet, rounds: int) -> tuple[list[float], str]:
    """(Microseconds per ping, processor time per ping with its HTTP request)."""
    for _ in range(WARM_UP):
        running.api.ping("agent-1")
    before = running.cpu_s()
    times = [float(running.api.ping("agent-1")) for _ in range(rounds)]
    return times, spent_ms(before, running.cpu_s(), rounds)


@contextmanager
def agent_process(
    port: int, folder: Path, device: str = DEVICE, fleet_name: str = FLEET
) -> Iterator[psutil.Popen]:
    """A real agent on the broker at `port`."""
    config = folder / "agent.toml"
    config.write_text(
        f'[device]\nid = "{device}"\nfleet = "{fleet_name}"\ndata_dir = "{folder / "agent"}"\n'
        f'[mqtt]\nport = {port}\n[agent]\nlog_level = "warning"\n'
    )
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)]
    agent = psutil.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield agent
    finally:
        agent.terminate()
        agent.wait(15)


async def to_agent(port: int, session: int, rounds: int) -> list[int]:
    """Nanoseconds from the publish of a command to its decoded answer."""
    loop = asyncio.get_running_loop()
    up, answered = loop.create_future(), asyncio.Event()

    def hear(topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if isinstance(decode(topics.parse(topic), payload), Answer):
            answered.set()

    filters = ((topics.build(FLEET, DEVICE, "answer"), 1),)
    options = LinkOptions("127.0.0.1", port, "_controller-bench", subscriptions=filters)
    link = make_link(options, LinkHandlers(lambda: up.set_result(None), lambda reason: None, hear))
    link.open()
    await up
    times, topic = [], topics.build(FLEET, DEVICE, "command")
    for number in range(WARM_UP + rounds):
        answered.clear()
        begin = time.perf_counter_ns()
        link.publish(topic, encode(Command(f"b-{number}", session, 1, number, 10_000, "ping")), 1, False)
        await asyncio.wait_for(answered.wait(), 10)
        times.append(time.perf_counter_ns() - begin)
    link.close(True)
    return times[WARM_UP:]


def without_controller(rounds: int) -> tuple[Spread, Spread, float]:
    """(Link and agent, two links, processor microseconds of the agent per command)."""
    with private_mosquitto() as port, tempfile.TemporaryDirectory() as name, watching(port) as watch:
        with agent_process(port, Path(name)) as agent:
            session = until(lambda: watch.session_of(DEVICE), 20, "the agent's birth")
            time.sleep(1)
            before = agent.cpu_times()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                times = runner.run(to_agent(port, session, rounds))
            after = agent.cpu_times()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            links = runner.run(command_and_answer(OurLink, port, rounds))
    cpu_us = (after.user + after.system - before.user - before.system) / (rounds + WARM_UP) * 1e6
    return spread(times), links, cpu_us


def main() -> None:
    parser = argparse.ArgumentParser(description="command round trip")
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    medians: list[float] = []
    with fleet("--agents", "1", "--devices", "0") as running:
        for _ in range(arguments.repeats):
            probe = round_trip(hops=2)
            times, cpu = through_fleet(running, arguments.rounds)
            whole = spread([round(t * 1_000) for t in times])
            medians.append(whole.p50_us)
            say(f"{whole}; probe {probe.p50_us:.0f} us; cpu {cpu}")
    show(
        Result("round trip: p50, median of the passes", statistics.median(medians), "us", TARGET_US,
               probe=probe.p50_us, cpu=f"{cpu} a ping, its HTTP request included"),
        Result("round trip: p50, best of the passes", min(medians), "us", TARGET_US, probe=probe.p50_us),
    )  # fmt: skip
    agent, links, cpu_us = without_controller(arguments.rounds)
    probe = round_trip(hops=2)
    say("parts of it")
    show(
        Result("bare link to agent and back: p50", agent.p50_us, "us", probe=probe.p50_us,
               cpu=f"agent {cpu_us:.0f} us a command"),
        Result("bare link to bare link and back: p50", links.p50_us, "us", probe=probe.p50_us),
    )  # fmt: skip


if __name__ == "__main__":
    main()
