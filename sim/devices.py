"""A device: an agent's core, its journal, its guard, its clock, and what can befall them.

Rule of this file: it does what the live world does for an agent, in the same order: effects
one after another, `Save` a barrier, answers later and only to the process that asked. The
machine and the agent die separately: an agent's end leaves the guard and its runs alive.
It knows no controller; what the agent says goes through the codec as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from broker.events import Publication
from edge_agent.core.agent import Agent, Equipment, Identity
from edge_agent.core.effects import (
    ConfirmSave,
    DropOutput,
    ExtendRun,
    ForgetRun,
    ListRuns,
    Quit,
    ReadOutput,
    ReadSensors,
    StartRun,
    StopRun,
)
from edge_agent.core.events import Booted, HostLost, OutputRead, SaveConfirmed, SensorsRead
from edge_agent.core.memory import Memory, restore
from protocol import topics
from protocol.codec import decode, encode
from protocol.core import (
    Connect,
    Disconnect,
    Effect,
    Event,
    GarbageArrived,
    LinkDown,
    LinkUp,
    MessageArrived,
    Note,
    Publish,
    Save,
    SaveFailed,
    TimerElapsed,
)
from protocol.errors import RemoteGarbage
from protocol.limits import HEARTBEAT_MS
from protocol.messages import Message, Used
from protocol.resources import Resources
from protocol.tasks import AttemptId
from sim.clockwork import Clockwork
from sim.network import Network
from sim.runhost import RunWatcher, VirtualGuard

UPTIME_MS = 10_000
"""What a device's clock shows when its agent starts after a boot."""
GUARD_RESTART_MS = 700
PPM = 1_000_000


class SimulatedDevice:
    """One device; `name` is also its client id."""

    def __init__(
        self,
        name: str,
        fleet: str,
        capacity: Resources,
        clock: Clockwork,
        network: Network,
        watcher: RunWatcher,
    ) -> None:
        self.name = name
        self.fleet = fleet
        self.capacity = capacity
        self.labels: dict[str, str] = {}
        self.clock = clock
        self.network = network
        self.rng = clock.stream(f"device {name}")
        self.rate_ppm = self.rng.randint(-10_000, 10_000)
        self.guard = VirtualGuard(name, clock, self, watcher)
        self.agent: Agent | None = None
        self.journal: bytes | None = None
        self.journal_fails = False
        self.frozen = False
        self.on = False
        self.boots = 0
        self.notes: list[Note] = []
        self._instance = f"{name}-data"
        self._booted_ms = 0
        self._life = 0
        """Which agent process this is; answers to its predecessor are dropped."""
        self._waiting: list[Event] = []
        self._connection = 0
        self._session = 0
        self._armed_ms: int | None = None
        self._perform = self._performers()

    # ------------------------------------------------------------- its own time

    def local_ms(self) -> int:
        """CLOCK_BOOTTIME: fast or slow by `rate_ppm`, from anew with each boot."""
        passed = self.clock.now_ms - self._booted_ms
        return UPTIME_MS + passed * (PPM + self.rate_ppm) // PPM

    def world_ms(self, local_ms: int) -> int:
        """The first moment of the world at which the device's clock shows `local_ms`."""
        passed = max(0, local_ms - UPTIME_MS)
        return self._booted_ms + -(-passed * PPM // (PPM + self.rate_ppm))

    # ------------------------------------------------------------- what can befall it

    def boot(self) -> None:
        """Power on: a guard with nothing in it, and an agent."""
        self.on = True
        self.boots += 1
        self._booted_ms = self.clock.now_ms
        self.start_agent()

    def start_agent(self) -> None:
        """A new agent process on the journal as it is."""
        if self.agent is not None or not self.on:
            return
        self.clock.trace(self.name, "agent starts")
        self._life += 1
        self.frozen, self._waiting, self._armed_ms = False, [], None
        memory = restore(self.journal) if self.journal else Memory(self._instance)
        identity = Identity(self.name, f"{self.name}-boot-{self.boots}", "sim")
        equipment = Equipment(
            "generic-linux", self.capacity, self.labels, ("process", "simulated"), HEARTBEAT_MS
        )
        self.agent = Agent(memory, identity, equipment, Random(self.rng.getrandbits(64)))
        life = self._life
        self.guard.tell = lambda event: self._later(event, life)
        self.feed(Booted())

    def kill_agent(self) -> None:
        """SIGKILL; guard and runs live on, the kernel closes the socket."""
        if self.agent is not None:
            self.clock.trace(self.name, "agent killed")
            self._end_agent()
            self.network.abandon(self._connection)

    def _end_agent(self) -> None:
        self.agent, self.frozen = None, False
        self._life += 1
        self.guard.tell = lambda event: None
        self.network.frozen.pop(self.name, None)

    def kill(self) -> None:
        """SIGKILL of agent and guard: every run ends with them, a will follows."""
        self.kill_agent()
        self.guard.die()
        self.on = False

    def power_off(self) -> None:
        """The plug is pulled: nobody closes anything."""
        self.clock.trace(self.name, "power off")
        self.network.vanish(self._connection)
        self._end_agent()
        self.guard.die()
        self.on = False

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def kill_guard(self) -> None:
        """Its runs end with it; a new one answers a little later."""
        self.guard.die()
        self.guard.up = False
        self.clock.after(GUARD_RESTART_MS, self._guard_back)

    def _guard_back(self) -> None:
        self.guard.up = True
        self.feed(HostLost("killed"))

    def wipe_journal(self) -> None:
        """The data directory is gone, and with it who this agent was."""
        self.journal = None
        self.guard.watcher.journal_lost(self.name)
        self._instance = f"{self.name}-data-{self.rng.getrandbits(32):08x}"

    def freeze(self) -> None:
        """SIGSTOP of the agent: nothing is read, nothing sent; the guard goes on."""
        if self.agent is not None:
            self.frozen = True
            self.network.frozen[self.name] = None
            self.clock.trace(self.name, "agent frozen")

    def thaw(self) -> None:
        """What came meanwhile is read now. The guard's news are read before the network's."""
        if not self.frozen:
            return
        self.frozen = False
        self.network.frozen.pop(self.name, None)
        self.clock.trace(self.name, "agent thaws")
        waiting, self._waiting = self._waiting, []
        waiting.sort(key=lambda event: isinstance(event, MessageArrived))
        for event in waiting:
            self.feed(event)
        self._arm()

    # ------------------------------------------------------------- driving the core

    def feed(self, event: Event) -> None:
        """One event into the core and its effects out, in order, saves first."""
        if self.agent is None:
            return
        if self.frozen:
            self._waiting.append(event)
            return
        for effect in self.agent.handle(event, self.local_ms()):
            if isinstance(effect, Save):
                if self.journal_fails:
                    self.feed(SaveFailed("no space left"))
                    return
                self._save(effect)
            else:
                self._perform[type(effect)](effect)
        self._arm()

    def _save(self, effect: Save) -> None:
        memory = effect.rows[-1]
        assert isinstance(memory, Memory)
        self.journal = memory.image()

    def _later(self, event: Event, life: int) -> None:
        """The answer of an effect comes back through the world, to the process that asked."""
        self.clock.after(1, lambda: self.feed(event) if life == self._life else None)

    def _arm(self) -> None:
        due_ms = self.agent.next_due_ms() if self.agent is not None else None
        if due_ms is None or self.frozen:
            return
        world_ms = max(self.world_ms(due_ms), self.clock.now_ms + 1)
        if self._armed_ms is None or world_ms < self._armed_ms:
            self._armed_ms = world_ms
            life = self._life
            self.clock.at(world_ms, lambda: self._wake(life, world_ms))

    def _wake(self, life: int, armed_ms: int) -> None:
        if life != self._life or self._armed_ms != armed_ms:
            return
        self._armed_ms = None
        if self.agent is not None and not self.frozen:
            due_ms = self.agent.next_due_ms()
            if due_ms is not None and self.local_ms() >= due_ms:
                self.feed(TimerElapsed())
            else:
                self._arm()

    # ------------------------------------------------------------- effects

    def _performers(self) -> dict[type[Effect], Callable[[Any], None]]:
        guard = self.guard
        return {
            Publish: self._publish,
            Connect: self._connect,
            Disconnect: lambda e: self.network.disconnect(self._connection),
            ConfirmSave: lambda e: self._later(SaveConfirmed(e.session), self._life),
            ListRuns: lambda e: self._later(guard.listing(e.ask), self._life) if guard.up else None,
            StartRun: lambda e: guard.start(e.attempt, e.deadline_ms),
            ExtendRun: lambda e: guard.extend(AttemptId(e.task, e.attempt), e.deadline_ms),
            StopRun: lambda e: guard.stop(AttemptId(e.task, e.attempt)),
            ForgetRun: lambda e: guard.forget(AttemptId(e.task, e.attempt)),
            ReadOutput: self._read_output,
            DropOutput: lambda e: guard.drop_output(AttemptId(e.task, e.attempt)),
            ReadSensors: lambda e: self._later(SensorsRead(self._used()), self._life),
            Quit: lambda e: self._end_agent(),
            Note: self.notes.append,
        }

    def _connect(self, effect: Connect) -> None:
        self.network.abandon(self._connection)
        will = None
        if effect.will is not None:
            will = Publication(self._topic(effect.will), encode(effect.will), 1, True)
        filters = tuple(
            (f, 0 if f.endswith("/lease") else 1) for f in topics.down_filters(self.fleet, self.name)
        )
        self._session = effect.session
        self._connection = self.network.connect(self.name, self, filters, will)

    def _publish(self, effect: Publish) -> None:
        message = effect.message
        self.network.publish(
            self._connection, self._topic(message), encode(message), message.qos, message.retain
        )

    def _topic(self, message: Message) -> str:
        return topics.build(self.fleet, self.name, message.channel)

    def _read_output(self, effect: ReadOutput) -> None:
        """Only the first stream ever holds anything."""
        key = AttemptId(effect.task, effect.attempt)
        stored = self.guard.outputs.get(key, b"") if effect.stream == 1 else b""
        data = stored[effect.offset : effect.offset + effect.bytes_max]
        read = OutputRead(effect.task, effect.attempt, effect.stream, effect.offset, data, len(stored))
        self._later(read, self._life)

    def _used(self) -> Used:
        runs = [run.attempt.resources for run in self.guard.runs.values()]
        return Used(sum(r.cpu_milli for r in runs), sum(r.memory_mib for r in runs), 0)

    # ------------------------------------------------------------- the connection's news

    def on_link_up(self, connection: int) -> None:
        if connection == self._connection:
            self.feed(LinkUp(self._session))

    def on_link_down(self, connection: int, reason: str) -> None:
        if connection == self._connection:
            session, self._connection = self._session, 0
            self._later(LinkDown(session, reason), self._life)

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if connection != self._connection:
            return
        self.clock.trace(self.name, f"hears {topic.rpartition('/')[2]}", payload)
        parsed = topics.parse(topic)
        try:
            message = decode(parsed, payload)
        except RemoteGarbage as garbage:
            self.feed(GarbageArrived(self.name, parsed.channel, garbage.reason, garbage.detail))
            return
        self.feed(MessageArrived(parsed.device, message, retain))
