"""An agent at rest: memory, processor, bytes on the wire, at one heartbeat per 10 s.

A real agent with its guard, granted by a real controller, speaks through a relay that counts
bytes; an onlooker at the broker sees the heartbeats' payloads. Processor time is the
scheduler's, over the whole measurement. Probe: a bare interpreter, and one that imported
what the agent needs and does nothing. Run: `python -m benchmarks.bench_footprint [--seconds N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.bench_link import private_mosquitto
from benchmarks.bench_roundtrip import agent_process
from benchmarks.fleet import Fleet, fleet, until
from benchmarks.report import Result, say, show
from benchmarks.watch import watching

AGENT_MIB, GUARD_MIB, CORE_PERCENT, PAYLOAD_BYTES = 35.0, 12.0, 0.2, 48.0
DEVICE = "pi-0001"
SETTLE_S = 5
HEADER_BYTES = 52
"""IPv4 and TCP with time stamps; each segment has one, and about each second one is answered."""
IMPORTS = "import asyncio, paho.mqtt.client, cbor2, psutil, sqlite3, tomllib"
MIB = 1_048_576


class Relay:
    """Passes one port on to another and counts."""

    def __init__(self, target: int) -> None:
        self.target, self.port, self.bytes, self.pieces = target, 0, 0, 0
        self.ready, self.stop = threading.Event(), threading.Event()

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        while not self.stop.is_set():
            await asyncio.sleep(0.1)
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self._copy(reader, back_writer), self._copy(back_reader, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            self.bytes += len(data)
            self.pieces += 1
            sink.write(data)
        sink.close()


@contextlib.contextmanager
def relaying(target: int) -> Iterator[Relay]:
    relay = Relay(target)
    thread = threading.Thread(target=lambda: asyncio.run(relay.run()), daemon=True)
    thread.start()
    relay.ready.wait(5)
    try:
        yield relay
    finally:
        relay.stop.set()
        thread.join(5)


def rss_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / MIB


def bare_rss_mib(*arguments: str, imports: str = "") -> float:
    """What an interpreter takes that does nothing."""
    code = f"{imports}\nimport time\nprint(flush=True)\ntime.sleep(60)"
    with psutil.Popen([sys.executable, *arguments, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        taken = rss_mib(process)
        process.kill()
    return taken


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds of all its threads, in nanosecond steps where the kernel keeps them."""
    try:
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        times = process.cpu_times()
        return float(times.user + times.system)


def measure(agent: psutil.Process, guard: psutil.Process, relay: Relay, seconds: int) -> None:
    before, sent, pieces = (cpu_s(agent), cpu_s(guard)), relay.bytes, relay.pieces
    begin = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begin
    shares = [(cpu_s(p) - b) / took * 100 for p, b in zip((agent, guard), before, strict=True)]
    bare, loaded = bare_rss_mib("-I", "-S"), bare_rss_mib(imports=IMPORTS)
    an_hour = 3_600 / took
    moved, segments = (relay.bytes - sent) * an_hour, (relay.pieces - pieces) * an_hour
    show(
        Result("agent at rest: resident memory", rss_mib(agent), "MiB", AGENT_MIB, probe=loaded),
        Result("guard: resident memory", rss_mib(guard), "MiB", GUARD_MIB, probe=bare),
        Result("agent and guard at rest: share of a core", sum(shares), "%", CORE_PERCENT,
               cpu=f"agent {shares[0]:.3f} %, guard {shares[1]:.3f} %"),
        Result("MQTT bytes per hour, both ways, pings included", moved, "B/h"),
        Result("with TCP/IP headers, about", moved + segments * 1.5 * HEADER_BYTES, "B/h"),
    )  # fmt: skip


def guard_of(data_dir: Path) -> psutil.Process | None:
    """The guard of an agent, once it has said who it is."""
    path = data_dir / "guard.pid"
    words = path.read_text().split() if path.exists() else []
    return psutil.Process(int(words[0])) if words else None


def is_online(running: Fleet) -> bool:
    return running.online() == 1


def main() -> None:
    parser = argparse.ArgumentParser(description="an agent at rest")
    parser.add_argument("--seconds", type=int, default=120)
    seconds = parser.parse_args().seconds
    with private_mosquitto() as port, watching(port) as watch, relaying(port) as relay:
        broker = f"mqtt://127.0.0.1:{port}"
        with fleet("--agents", "0", "--devices", "0", "--broker", broker) as running:
            with tempfile.TemporaryDirectory() as name:
                with agent_process(relay.port, Path(name), DEVICE, "fleet") as agent:
                    until(lambda: is_online(running), 20, "the agent online")
                    guard = until(lambda: guard_of(Path(name) / "agent"), 20, "the guard")
                    time.sleep(SETTLE_S)
                    heard = len(watch.beats(DEVICE))
                    measure(agent, guard, relay, seconds)
                    beats = watch.beats(DEVICE)[heard:]
                    largest = max(beat.payload_bytes for beat in beats)
                    show(Result("heartbeat: payload, the largest", largest, "B", PAYLOAD_BYTES))
                    say(f"{len(beats)} heartbeats in {seconds} s")


if __name__ == "__main__":
    main()
