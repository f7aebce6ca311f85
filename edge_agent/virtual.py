"""Thousands of virtual devices in one process: the real agent, a real connection each, simulated runs.

Rules of this file. A virtual device is the same `Agent`, `Driver` and `Uplink` as a real
one; only what lies behind the run words differs (timers instead of a guard), so it offers the
runtime `simulated` and no other. Journals are rows of one small database, committed
together once per turn of the event loop: they survive the process, not the machine (a lost
one is a lost journal, for which the protocol has rules).
Devices connect a few at a time; one that fails is a bug and ends the process.

Rejected: a process per device (30 MB each); a special core for many devices (then nothing
that runs here would say anything about real ones).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import resource
import secrets
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.app import boot_id, software_version
from edge_agent.core import effects
from edge_agent.core.agent import Agent
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.events import Booted, OutputRead, RunRefused, SaveConfirmed, SensorsRead, StopRequested
from edge_agent.core.memory import ImageError, Memory, restore
from edge_agent.journal import JournalError, lock_directory
from edge_agent.runtimes.simulated import SimulatedHost
from edge_agent.translation import event_of, spec_of
from edge_agent.uplink import Uplink
from edge_agent.virtual_config import VirtualConfig, VirtualDeviceConfig, load_virtual
from live.clock import boottime_ms
from live.driver import Driver, Performers, SaveError
from live.link import LinkOptions, WillMessage
from live.links import make_link
from live.logs import log, setup_logs
from live.parent import die_with_parent
from protocol.core import Connect, Disconnect, Event, Note, Publish
from protocol.messages import Health, Used
from protocol.topics import down_filters

RUNTIME = "simulated"
DATABASE = "virtual.db"
INBOX_MAX = 500
OUTBOX_BYTES_MAX = 65_536
LEAVE_S = 10.0
SPARE_FILES = 200


def run_virtual(path: Path) -> int:
    """Run the devices of this file until stopped; answers the exit code. Raises `SettingsError`."""
    config = load_virtual(path)
    die_with_parent()
    setup_logs(level=config.log_level)
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_directory(config.data_dir)
        _allow_files(len(config.devices) + SPARE_FILES)
        store = VirtualStore(config.data_dir / DATABASE)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(_serve(config, store))
        store.close()
        os.close(lock)
        return code
    except (JournalError, ImageError, OSError, sqlite3.Error) as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return 1


class VirtualStore:
    """The images of all devices. Saves of one turn of the event loop are one transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        # WAL and NORMAL: a killed process loses nothing, a power cut perhaps the last seconds.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS images (device TEXT PRIMARY KEY, image BLOB)")
        self._waiting: dict[str, Memory] = {}
        self._done: asyncio.Future[None] | None = None

    def load(self) -> dict[str, bytes]:
        """Image by device id."""
        return dict(self._connection.execute("SELECT device, image FROM images"))

    async def save(self, device: str, memory: Memory) -> None:
        """Returns when it is committed. Raises `SaveError`."""
        self._waiting[device] = memory
        if self._done is None:
            loop = asyncio.get_running_loop()
            self._done = loop.create_future()
            loop.call_soon(self._commit, self._done)
        await asyncio.shield(self._done)

    def close(self) -> None:
        self._connection.close()

    def _commit(self, done: asyncio.Future[None]) -> None:
        rows = [(device, memory.image()) for device, memory in self._waiting.items()]
        self._waiting, self._done = {}, None
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            done.set_exception(SaveError(str(error)))
        else:
            done.set_result(None)


class VirtualDevice:
    """One virtual device: performs its effects and feeds their answers."""

    def __init__(
        self, config: VirtualConfig, device: VirtualDeviceConfig, store: VirtualStore, image: bytes | None
    ) -> None:
        rng = random.Random(secrets.randbits(64))
        memory = restore(image) if image else Memory(secrets.token_hex(8))
        equipment = Equipment(
            device.profile,
            device.capacity,
            dict(device.labels),
            (RUNTIME,),
            config.heartbeat_ms,
            limits=RUNTIME,
            accelerators=device.accelerators,
            extras=dict(device.extras),
            core_speed_milli=device.core_speed_milli,
        )
        identity = Identity(device.id, f"{boot_id()}-{os.getpid()}", software_version())
        self.id = device.id
        self.awake = False
        self.health = device.health
        self.agent = Agent(memory, identity, equipment, rng, OUTBOX_BYTES_MAX)
        self.host = SimulatedHost(rng)
        self.uplink = Uplink(config.fleet, device.id, make_link, self._options, self._arrived)
        self._config, self._device, self._store = config, device, store
        self._timer: asyncio.TimerHandle | None = None
        self.driver = Driver(
            self.agent,
            self,
            self._performers(),
            inbox_max=INBOX_MAX,
            on_inbox_full=self.uplink.pause,
            on_inbox_drained=self.uplink.resume,
        )

    async def save(self, rows: Sequence[object]) -> None:
        """The driver's saver."""
        memory = rows[-1]
        assert isinstance(memory, Memory)
        await self._store.save(self.id, memory)

    async def run(self, after_s: float) -> None:
        """Live, beginning a little later."""
        await asyncio.sleep(after_s)
        self.awake = True
        self.driver.post(Booted())
        try:
            await self.driver.run()
        finally:
            self.uplink.cut()
            if self._timer is not None:
                self._timer.cancel()

    def stop(self) -> None:
        self.driver.post(StopRequested("stopped", stop_runs=True))

    def set_health(self, health: Health) -> None:
        """What its sensors say from now on. Who was known stays known: `NO_HEALTH` only ends the telling."""
        self.health = health
        self._read_sensors()

    # ------------------------------------------------------------ effects

    def _performers(self) -> Performers:
        return {
            Connect: self.uplink.connect,
            Disconnect: self.uplink.disconnect,
            Publish: self.uplink.publish,
            Note: self._note,
            effects.ConfirmSave: lambda effect: self.driver.post(SaveConfirmed(effect.session)),
            effects.ListRuns: self._list,
            effects.StartRun: self._start,
            effects.ExtendRun: self._extend,
            effects.StopRun: self._stop_run,
            effects.ForgetRun: lambda effect: self.host.forget(effect.task, effect.attempt),
            effects.ReadOutput: self._read_output,
            effects.DropOutput: lambda effect: None,
            effects.ReadSensors: lambda effect: self._read_sensors(),
            effects.Quit: lambda effect: self.driver.stop(),
        }

    def _list(self, effect: effects.ListRuns) -> None:
        self.host.list(effect.ask)
        self._advance()

    def _start(self, effect: effects.StartRun) -> None:
        attempt = effect.attempt
        if attempt.runtime != RUNTIME:
            reason = f"no runtime {attempt.runtime} here"
            self.driver.post(RunRefused(attempt.task, attempt.attempt, reason))
            return
        self.host.start(spec_of(attempt), effect.deadline_ms, boottime_ms())
        self._advance()

    def _extend(self, effect: effects.ExtendRun) -> None:
        self.host.extend(effect.task, effect.attempt, effect.deadline_ms, boottime_ms())
        self._advance()

    def _stop_run(self, effect: effects.StopRun) -> None:
        self.host.stop(effect.task, effect.attempt, effect.grace_ms, boottime_ms())
        self._advance()

    def _read_output(self, effect: effects.ReadOutput) -> None:
        """A timer writes nothing."""
        self.driver.post(OutputRead(effect.task, effect.attempt, effect.stream, effect.offset, b"", 0))

    def _read_sensors(self) -> None:
        used = self.host.used()
        self.driver.post(SensorsRead(Used(used.cpu_milli, used.memory_mib, used.disk_mib), self.health))

    def _note(self, note: Note) -> None:
        log(note.level, note.text, device=self.id, **note.fields)

    # ------------------------------------------------------------ answers

    def _advance(self) -> None:
        """Hand out what the host has to say, and come back when it has more."""
        for answer in self.host.advance(boottime_ms()):
            self.driver.post(event_of(answer))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self.host.due_ms()
        if due_ms is not None:
            wait_s = max(0, due_ms - boottime_ms()) / 1_000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._advance)

    def _arrived(self, event: Event) -> None:
        if not self.driver.offer(event):
            self.driver.post(event)

    def _options(self, will: WillMessage | None) -> LinkOptions:
        config, device = self._config, self._device
        return LinkOptions(
            host=config.host,
            port=config.port,
            client_id=device.id,
            username=device.username if device.password else None,
            password=device.password or None,
            keepalive_s=config.keepalive_s,
            will=will,
            subscriptions=tuple((topic, 1) for topic in down_filters(config.fleet, device.id)),
        )


async def _serve(config: VirtualConfig, store: VirtualStore) -> int:
    """All devices, until a signal; a device that fails fails all."""
    images = store.load()
    devices = [VirtualDevice(config, device, store, images.get(device.id)) for device in config.devices]
    lives = [
        asyncio.create_task(device.run(number / config.connects_per_s))
        for number, device in enumerate(devices)
    ]
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    log("info", "virtual devices started", devices=len(devices), broker=f"{config.host}:{config.port}")
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([*lives, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await _stop_all(devices, lives)
    return 0


async def _stop_all(devices: list[VirtualDevice], lives: list[asyncio.Task[None]]) -> None:
    """Every device in good order, within a bound. Raises what a device died of."""
    for device, life in zip(devices, lives, strict=True):
        if device.awake:
            device.stop()
        else:
            life.cancel()
    if not lives:
        return
    _, late = await asyncio.wait(lives, timeout=LEAVE_S)
    for life in late:
        life.cancel()
    for end in await asyncio.gather(*lives, return_exceptions=True):
        if isinstance(end, Exception):
            raise end


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _allow_files(wanted: int) -> None:
    """A connection is a file; raise our own bound as far as we may. Raises OSError with advice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise OSError(f"{wanted} open files are needed, {hard} allowed: raise `ulimit -n`")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: thousands of sockets are its strength."""
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = module.new_event_loop
    return factory
