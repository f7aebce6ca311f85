"""One real device: core, driver, link, guard and journal put together, and taken apart in good order.

Rules of this file. The data directory is locked before anything in it is read. A signal
becomes a `StopRequested`, the core says when everything is said (`Quit`), and then, unless
runs are to be left, the guard is ended too: a stopped agent leaves nothing behind.
Effects become calls here, answers become events; nothing is decided.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.config import (
    AgentConfig,
    OnStop,
    accelerators_of,
    capacity_of,
    link_options,
    metered_of,
    profile_of,
)
from edge_agent.core import effects
from edge_agent.core.agent import Agent
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.events import (
    Booted,
    HostListed,
    OutputRead,
    RunRefused,
    SaveConfirmed,
    SensorsRead,
    StopRequested,
)
from edge_agent.core.memory import ImageError, Memory, restore
from edge_agent.guard_client import GuardClient, GuardError, GuardFacts
from edge_agent.health import HealthSensors
from edge_agent.journal import Journal, JournalError, lock_directory
from edge_agent.runtimes.host import HostAnswer, HostLost
from edge_agent.runtimes.process import ProcessRuntime
from edge_agent.sensors import Sensors
from edge_agent.translation import event_of, spec_of
from edge_agent.uplink import Uplink
from live.driver import Driver, Performers, SaveError
from live.links import make_link
from live.logs import log, note_to_log, setup_logs
from live.parent import die_with_parent
from protocol.core import Connect, Disconnect, Event, Note, Publish
from protocol.resources import Resources

PID_FILE = "agent.pid"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
INBOX_MAX = 2_000
"""Events; a device hears a few a second, and its memory is small."""
EXIT_OK, EXIT_FAILED = 0, 1
KILL_GRACE_MS = 0
"""Runs that outlived their own grace at an orderly stop get no second one."""


def run_agent(config: AgentConfig) -> int:
    """Run until stopped; answers the exit code. What is wrong with the machine is one line on stderr."""
    die_with_parent()
    setup_logs(level=config.agent.log_level, as_json=config.agent.log_json)
    data_dir = config.device.data_dir.absolute()
    try:
        lock = _prepare(data_dir)
        try:
            journal = Journal.open(data_dir)
            memory = _remember(journal)
            return asyncio.run(_serve(config, data_dir, journal, memory))
        finally:
            (data_dir / PID_FILE).unlink(missing_ok=True)
            os.close(lock)
    except (JournalError, ImageError, GuardError, OSError) as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return EXIT_FAILED


def boot_id() -> str:
    """This boot of the kernel; a device without one counts every start of its agent as a boot."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(8)


def software_version() -> str:
    """The version of the installed distribution, or `dev` in a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fleetmuster")
    except PackageNotFoundError:
        return "dev"


def equipment_of(config: AgentConfig, measured: Resources, runtimes: tuple[str, ...]) -> Equipment:
    """What this device offers."""
    profile = profile_of(config)
    return Equipment(
        config.device.profile,
        capacity_of(config, measured, profile),
        dict(config.device.labels),
        runtimes,
        config.agent.heartbeat_ms,
        # Until the guard has told: who said strong too early would be waited for too short (L4).
        containment="weak",
        accelerators=accelerators_of(config, profile),
        extras=dict(config.capacity.extras),
        core_speed_milli=config.capacity.core_speed_milli or profile.capacity.core_speed_milli,
    )


class JournalSaver:
    """The driver's saver: of a batch's saves only the last row matters, it holds all of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def save(self, rows: Sequence[object]) -> None:
        memory = rows[-1]
        assert isinstance(memory, Memory)
        try:
            self._journal.save(memory.image())
        except JournalError as error:
            raise SaveError(str(error)) from None


class Device:
    """Performs one real agent's effects and feeds their answers."""

    def __init__(self, config: AgentConfig, data_dir: Path, journal: Journal, memory: Memory) -> None:
        device, uid = config.device, config.agent.run_uid
        self.runtime = ProcessRuntime(data_dir, device.id, uid, uid)
        self.sensors = Sensors(data_dir)
        self.health = HealthSensors(metered_of(config, profile_of(config)), config.health.wear_percent)
        self.agent = Agent(
            memory,
            Identity(device.id, boot_id(), software_version()),
            equipment_of(config, self.sensors.capacity(), (self.runtime.name,)),
            random.Random(secrets.randbits(64)),
            config.agent.outbox_bytes_max,
        )
        self.uplink = Uplink(
            device.fleet, device.id, make_link, lambda will: link_options(config, will), self._arrived
        )
        self.guard = GuardClient(self.runtime, self._answered)
        self.superseded = False
        self.driver = Driver(
            self.agent,
            JournalSaver(journal),
            self._performers(),
            inbox_max=INBOX_MAX,
            on_inbox_full=self.uplink.pause,
            on_inbox_drained=self.uplink.resume,
        )
        self._swept = False
        self._removals: list[tuple[str, int]] = []
        self._removing: asyncio.Future[None] | None = None

    # ------------------------------------------------------------ effects

    def _performers(self) -> Performers:
        return {
            Connect: self.uplink.connect,
            Disconnect: self.uplink.disconnect,
            Publish: self.uplink.publish,
            Note: note_to_log,
            effects.ConfirmSave: lambda effect: self.driver.post(SaveConfirmed(effect.session)),
            effects.ListRuns: lambda effect: self.guard.list(effect.ask),
            effects.StartRun: self._start,
            effects.ExtendRun: lambda e: self.guard.extend(e.task, e.attempt, e.deadline_ms),
            effects.StopRun: lambda e: self.guard.stop(e.task, e.attempt, e.grace_ms),
            effects.ForgetRun: lambda e: self.guard.forget(e.task, e.attempt),
            effects.ReadOutput: self._read_output,
            effects.DropOutput: lambda e: self._remove([(e.task, e.attempt)]),
            effects.ReadSensors: lambda effect: self.driver.post(
                SensorsRead(self.sensors.used(), self.health.read())
            ),
            effects.Quit: lambda effect: self.driver.stop(),
        }

    def _start(self, effect: effects.StartRun) -> None:
        attempt = effect.attempt
        if attempt.runtime == self.runtime.name:
            self.guard.start(spec_of(attempt), effect.deadline_ms)
        else:
            reason = f"no runtime {attempt.runtime} here"
            self.driver.post(RunRefused(attempt.task, attempt.attempt, reason))

    def _read_output(self, effect: effects.ReadOutput) -> None:
        """What cannot be read is not there: the run host says how a run ended, not its files."""
        question = (effect.task, effect.attempt, effect.stream)
        data, size = b"", 0
        try:
            size = self.runtime.output_bytes(*question)
            data = self.runtime.read_output(*question, effect.offset, effect.bytes_max)
        except (OSError, ValueError) as error:
            log("warning", "cannot read output", task=effect.task, attempt=effect.attempt, error=str(error))
        self.driver.post(OutputRead(*question, effect.offset, data, max(size, effect.offset + len(data))))

    def _remove(self, runs: list[tuple[str, int]]) -> None:
        """Run directories are trees of unknown size: one thread at a time takes them away."""
        self._removals += runs
        if self._removing is None and self._removals:
            todo, self._removals = self._removals, []
            self._removing = asyncio.get_running_loop().run_in_executor(None, self._remove_all, todo)
            self._removing.add_done_callback(self._removed)

    def _removed(self, done: asyncio.Future[None]) -> None:
        self._removing = None
        self._remove([])

    def _remove_all(self, runs: list[tuple[str, int]]) -> None:
        for task, attempt in runs:
            try:
                gone = self.runtime.remove_run_directory(task, attempt)
            except (OSError, ValueError):
                gone = False
            if not gone:
                log("warning", "cannot remove a run's directory", task=task, attempt=attempt)

    # ------------------------------------------------------------ answers

    def _arrived(self, event: Event) -> None:
        """From the link. A full inbox pauses it; the one message that found it full is still taken."""
        if not self.driver.offer(event):
            self.driver.post(event)

    def _answered(self, answer: HostAnswer) -> None:
        """From the guard."""
        event = event_of(answer)
        self.driver.post(event)
        if isinstance(event, HostListed) and not self._swept:
            self._swept = True
            self._sweep(event)
        if isinstance(answer, HostLost) and answer.reason == "superseded":
            self.superseded = True
            self.driver.stop()

    def _sweep(self, listed: HostListed) -> None:
        """Directories that neither the journal nor the guard knows: a journal was lost."""
        memory = self.agent.memory
        known = {*memory.entries, *memory.outputs, *listed.live, *((e.task, e.attempt) for e in listed.exits)}
        orphans = [run for run in self.runtime.run_directories() if run not in known]
        if orphans:
            self._remove(orphans)

    # ------------------------------------------------------------ life

    def stop(self, stop_runs: bool) -> None:
        self.driver.post(StopRequested("stopped", stop_runs))


async def _serve(config: AgentConfig, data_dir: Path, journal: Journal, memory: Memory) -> int:
    """From boot to the end; the guard is there before the first message is read."""
    device = Device(config, data_dir, journal, memory)
    stop_runs = config.agent.on_stop is OnStop.KILL
    _on_signals(lambda: device.stop(stop_runs))
    opened = asyncio.create_task(device.guard.open())
    opened.add_done_callback(lambda task: device.driver.stop() if _failed(task) else None)
    log("info", "agent started", device=config.device.id, fleet=config.device.fleet, data=str(data_dir))
    device.driver.post(Booted())
    try:
        await device.driver.run()
    finally:
        device.uplink.cut()
        opened.cancel()
        await asyncio.gather(opened, return_exceptions=True)
        await device.guard.close(stop_runs=stop_runs and not device.superseded, grace_ms=KILL_GRACE_MS)
        journal.close()
    if _failed(opened):
        opened.result()
    if device.superseded:
        raise GuardError("another agent has taken over this device's runs")
    log("info", "agent stopped", device=config.device.id)
    return EXIT_OK


def _failed(task: asyncio.Task[GuardFacts]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _prepare(data_dir: Path) -> int:
    """The data directory, locked; answers what holds the lock."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise JournalError(f"cannot use the data directory {data_dir}: {error.strerror}") from None
    lock = lock_directory(data_dir)
    try:
        (data_dir / PID_FILE).write_text(f"{os.getpid()}\n")
    except OSError as error:  # a full disk: people miss the file, the agent does not
        log("warning", "cannot write the pid file", error=error.strerror)
    return lock


def _remember(journal: Journal) -> Memory:
    """What the journal holds; a fresh memory, with a new instance id, if that is nothing."""
    image = journal.load()
    if image is not None:
        return restore(image)
    if journal.damaged:
        log("error", "the journal is damaged; starting without a memory")
    return Memory(secrets.token_hex(8))
