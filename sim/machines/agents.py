"""An agent's process on a device: its core, driven as the live world drives it.

Rules of this file: effects one after another, `Save` a barrier, answers later and only to
the process that asked. One object is one process; its successor is another. What waits
while it stands still is read afterwards in one round, saves merged in front, as the live
driver does. It may end between any two effects (`dies_after`) and inside a save.
It knows no controller; what the agent says goes through the codec as bytes. It knows no
wall time: the core has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from broker.events import Publication
from edge_agent.core.agent import Agent
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
from edge_agent.core.events import OutputRead, SaveConfirmed, SensorsRead
from edge_agent.core.memory import Memory
from protocol import topics
from protocol.codec import encode
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
from protocol.messages import Health, Message, Used
from protocol.tasks import AttemptId
from sim.clockwork import Clockwork
from sim.disk import SimulatedDisk
from sim.ears import parse, understand
from sim.machines.localclock import LocalClock
from sim.machines.runhost import VirtualGuard
from sim.network import Network


class Machine(Protocol):
    """What an agent's process stands on."""

    name: str
    place: str
    fleet: str
    clock: Clockwork
    own: LocalClock
    network: Network
    disk: SimulatedDisk
    guard: VirtualGuard
    health: Health
    notes: list[Note]

    def kill_agent(self) -> None: ...

    def agent_ended(self) -> None: ...

    def power_off(self) -> None: ...


class AgentProcess:
    """One process from its start to its end; `alive` until then."""

    def __init__(self, machine: Machine, core: Agent) -> None:
        self.machine = machine
        self.core = core
        self.clock, self.own, self.network = machine.clock, machine.own, machine.network
        self.alive = True
        self.frozen = False
        """SIGSTOP."""
        self.asleep = False
        """The whole machine is suspended."""
        self.dies_after: int | None = None
        """So many saves and effects from now the process is killed; None: never."""
        self.connection = 0
        self.roused: Callable[[], None] | None = None
        """While others count its heartbeats: brings it to the present."""
        self._saving = False
        self._stalled = False
        self._behind: list[Effect] = []
        """What follows a save that is not done yet."""
        self._waiting: list[Event] = []
        self._session = 0
        self._armed_ms: int | None = None
        self._due_ms: int | None = None
        """Its next deadline by its own clock, as the core named it after the last event."""
        self._perform = self._performers()

    # ------------------------------------------------------------- its life

    def end(self) -> None:
        """Nothing of it happens any more; the caller knows what becomes of its connection."""
        self.rouse()
        self.alive = False
        self._stalled = True
        self._waiting.clear()

    def freeze(self, frozen: bool | None = None, asleep: bool | None = None) -> None:
        """It stands still, or does so no more, for one reason or the other."""
        self.rouse()
        self.frozen = self.frozen if frozen is None else frozen
        self.asleep = self.asleep if asleep is None else asleep
        place = self.machine.place
        if self.frozen or self.asleep:
            self._stalled = True
            self.network.freeze(place)
        else:
            self.network.thaw(place)
            self._go_on()

    def _go_on(self) -> None:
        """What a finished save held back, then what came meanwhile: the guard's news first."""
        if not self.alive or self._saving or self.frozen or self.asleep:
            return
        self._stalled = False
        behind, self._behind = self._behind, []
        self._carry_out(behind)
        if self._waiting and not self._stalled:
            waiting, self._waiting = self._waiting, []
            waiting.sort(key=lambda event: isinstance(event, MessageArrived))
            self._round(waiting)
        if not self._stalled:
            self._arm()

    # ------------------------------------------------------------- rest

    def at_rest(self) -> bool:
        """Whether nothing goes on here but heartbeats, and nothing else will by itself."""
        doomed = self.dies_after is not None or self._stalled or not self.alive
        unread = self.core.used != self._used() or self.core.vitals.measured != self.machine.health
        return not doomed and not unread and self.core.at_rest()

    def rest(self, roused: Callable[[], None]) -> None:
        """From now on others count its heartbeats; `roused` is called before anything happens here."""
        self.roused, self._armed_ms = roused, None

    def rouse(self) -> None:
        if self.roused is not None:
            self.roused()

    def relive(self, event: Event, local_ms: int) -> list[Message]:
        """What happened meanwhile, as the core would have seen it then; returns what it says."""
        said: list[Message] = []
        for effect in self.core.handle(event, local_ms):
            if isinstance(effect, Publish):
                said.append(effect.message)
            elif isinstance(effect, ExtendRun):
                key = AttemptId(effect.task, effect.attempt)
                self.machine.guard.extend(key, effect.deadline_ms, local_ms)
            elif not isinstance(effect, ReadSensors):
                self._carry_out([effect])
        return said

    def go_on(self) -> None:
        """It is in the present."""
        self.roused = None
        self._arm()

    # ------------------------------------------------------------- driving the core

    def feed(self, event: Event) -> None:
        """One event into the core and its effects out, in order, saves first."""
        if self.roused is not None:
            self.roused()
        if self._stalled:
            if self.alive:
                self._waiting.append(event)
            return
        self._carry_out(self.core.handle(event, self.own.local_ms()))
        # Sensors move no deadline, but for those of health, which may raise an alarm.
        if not self._stalled and (type(event) is not SensorsRead or event.health.flags):
            self._arm()

    def _round(self, events: list[Event]) -> None:
        """Many events at once: one save for all of them, then all their effects."""
        saves: list[Effect] = []
        effects: list[Effect] = []
        for event in events:
            for effect in self.core.handle(event, self.own.local_ms()):
                (saves if isinstance(effect, Save) else effects).append(effect)
        self._carry_out(saves[-1:] + effects)

    def _carry_out(self, effects: list[Effect]) -> None:
        for number, effect in enumerate(effects):
            if self.dies_after is not None and self._dies_here():
                return
            if isinstance(effect, Save):
                if not self._save(effect, effects[number + 1 :]):
                    return
            else:
                self._perform[type(effect)](effect)

    def _dies_here(self) -> bool:
        assert self.dies_after is not None
        self.dies_after -= 1
        if self.dies_after < 0:
            self.machine.kill_agent()
        return not self.alive

    def _save(self, effect: Save, behind: list[Effect]) -> bool:
        """Whether what stands behind it may happen now."""
        memory, disk = effect.rows[-1], self.machine.disk
        assert isinstance(memory, Memory)
        image = memory.image()
        if disk.torn is not None:
            disk.tear(image, disk.torn)
            disk.torn = None
            self.machine.power_off()
        elif disk.fails:
            disk.refuse(image)
            self.feed(SaveFailed("no space left"))
        elif disk.slow_ms:
            disk.write(image)
            self._saving = self._stalled = True
            self._behind = behind
            self.clock.after(disk.slow_ms, self._saved)
        else:
            disk.save(image)
            return True
        return False

    def _saved(self) -> None:
        """A slow save is done, also that of a process which was killed meanwhile."""
        self.machine.disk.sync()
        if self.alive:
            self._saving = False
            self._go_on()

    def later(self, event: Event) -> None:
        """The answer of an effect comes back through the world, to the process that asked."""
        self.clock.after(1, lambda: self.feed(event))

    def _arm(self) -> None:
        due_ms = self._due_ms = self.core.next_due_ms()
        if due_ms is None:
            return
        world_ms = max(self.own.world_ms(due_ms), self.clock.now_ms + 1)
        if self._armed_ms is None or world_ms < self._armed_ms:
            self._armed_ms = world_ms
            self.clock.at(world_ms, lambda: self._wake(world_ms))

    def rearm(self) -> None:
        """The clock runs at another rate."""
        self.rouse()
        self._armed_ms = None
        if not self._stalled:
            self._arm()

    def _wake(self, armed_ms: int) -> None:
        if self._armed_ms != armed_ms:
            return
        self._armed_ms = None
        if not self._stalled:
            due_ms = self._due_ms
            if due_ms is not None and self.own.local_ms() >= due_ms:
                self.feed(TimerElapsed())
            else:
                self._arm()

    # ------------------------------------------------------------- effects

    def _performers(self) -> dict[type[Effect], Callable[[Any], None]]:
        guard = self.machine.guard
        return {
            Publish: self._publish,
            Connect: self._connect,
            Disconnect: lambda e: self.network.disconnect(self.connection),
            ConfirmSave: lambda e: self.later(SaveConfirmed(e.session)),
            ListRuns: lambda e: self.later(guard.listing(e.ask)) if guard.up else None,
            StartRun: lambda e: guard.start(e.attempt, e.deadline_ms),
            ExtendRun: lambda e: guard.extend(AttemptId(e.task, e.attempt), e.deadline_ms),
            StopRun: lambda e: guard.stop(AttemptId(e.task, e.attempt), e.grace_ms),
            ForgetRun: lambda e: guard.forget(AttemptId(e.task, e.attempt)),
            ReadOutput: self._read_output,
            DropOutput: lambda e: guard.drop_output(AttemptId(e.task, e.attempt)),
            ReadSensors: lambda e: self.later(SensorsRead(self._used(), self.machine.health)),
            Quit: lambda e: self.machine.agent_ended(),
            Note: self.machine.notes.append,
        }

    def _connect(self, effect: Connect) -> None:
        self.network.abandon(self.connection)
        will = None
        if effect.will is not None:
            will = Publication(self._topic(effect.will), encode(effect.will), 1, True)
        machine = self.machine
        filters = tuple(
            (f, 0 if f.endswith("/lease") else 1) for f in topics.down_filters(machine.fleet, machine.name)
        )
        self._session = effect.session
        self.connection = self.network.connect(machine.name, self, filters, will, machine.place)

    def _publish(self, effect: Publish) -> None:
        message = effect.message
        self.network.publish(
            self.connection, self._topic(message), encode(message), message.qos, message.retain
        )

    def _topic(self, message: Message) -> str:
        return topics.build(self.machine.fleet, self.machine.name, message.channel)

    def _read_output(self, effect: ReadOutput) -> None:
        key = AttemptId(effect.task, effect.attempt)
        data, size = self.machine.guard.read_output(key, effect.stream, effect.offset, effect.bytes_max)
        size = max(size, effect.offset + len(data))
        self.later(OutputRead(effect.task, effect.attempt, effect.stream, effect.offset, data, size))

    def _used(self) -> Used:
        runs = [run.attempt.resources for run in self.machine.guard.runs.values()]
        return Used(sum(r.cpu_milli for r in runs), sum(r.memory_mib for r in runs), 0)

    # ------------------------------------------------------------- the connection's news

    def on_link_up(self, connection: int) -> None:
        if connection == self.connection:
            self.feed(LinkUp(self._session))

    def on_link_down(self, connection: int, reason: str) -> None:
        if connection == self.connection:
            session, self.connection = self._session, 0
            self.later(LinkDown(session, reason))

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if connection != self.connection or not self.alive:
            return
        self.clock.trace(self.machine.place, f"hears {topic.rpartition('/')[2]}", payload)
        parsed = parse(topic)
        try:
            message = understand(topic, payload)
        except RemoteGarbage as garbage:
            self.feed(GarbageArrived(self.machine.name, parsed.channel, garbage.reason, garbage.detail))
            return
        self.feed(MessageArrived(parsed.device, message, retain))
