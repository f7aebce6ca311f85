"""A device: a machine with its clock, its journal, its guard and an agent, and what can befall it.

Rule of this file: the machine, the guard and the agent die separately. An agent's end leaves
the guard and its runs alive; a suspended machine keeps everything and executes nothing; only
a boot ends all. Where a fault leaves the protocol's assumptions it says so to the watcher,
with the invariants that don't hold meanwhile: a clock beyond 1 %, a suspend without the
hook, a guard that nobody replaces in time, two machines with one identity.
Wall-clock jumps are no fault of a device: neither agent nor guard compares wall time.
It knows no controller. Rejected: one object for machine and agent (what an agent's
predecessor asked for must not be answered to its successor).
"""

from __future__ import annotations

from random import Random

from edge_agent.core.agent import Agent
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.events import Booted, HostLost
from edge_agent.core.memory import Memory, restore
from protocol.core import Event, Note
from protocol.limits import (
    CLOCK_RATE_PPM,
    GUARD_RESTART_MS,
    HEARTBEAT_MS,
    INT_MAX,
    KILL_MS,
    LEASE_MS,
    hold_ms,
)
from protocol.messages import NO_HEALTH, Accelerator, Health
from protocol.resources import Resources
from sim.clockwork import Clockwork
from sim.disk import SimulatedDisk
from sim.machines.agents import AgentProcess
from sim.machines.localclock import LocalClock
from sim.machines.runhost import RunWatcher, VirtualGuard
from sim.network import Network
from sim.observations import JournalLost, OutOfBounds

UPTIME_MS = 10_000
"""What a device's clock shows when its agent starts after a boot."""
SUCCESSOR_MS = 700
"""From a guard's death to the answer of the next, when nothing is left to sweep."""
WAKE_MS = (1, 500)
"""Without a hook: how late after a resume the guard looks at its deadlines."""
CLOCK_INVARIANTS = ("I1", "I6", "I7")
SUSPEND_INVARIANTS = ("I1", "I7")
SWEEP_INVARIANTS = ("I1", "I6", "I7")
CLONE_INVARIANTS = ("I1", "I3", "I6", "I7", "I8", "I9", "I12", "I15")


class SimulatedDevice:
    """One device; `name` is also its client id, `place` where it stands in the network."""

    def __init__(
        self,
        name: str,
        fleet: str,
        capacity: Resources,
        clock: Clockwork,
        network: Network,
        watcher: RunWatcher,
        place: str = "",
    ) -> None:
        self.name = name
        self.place = place or name
        self.fleet = fleet
        self.capacity = capacity
        self.labels: dict[str, str] = {}
        self.profile = "generic-linux"
        self.accelerators: tuple[Accelerator, ...] = ()
        self.extras: dict[str, int] = {}
        self.core_speed_milli = 1_000
        self.health = NO_HEALTH
        """What its sensors say; see `set_health`."""
        self.heartbeat_ms = HEARTBEAT_MS
        self.containment = "strong"
        """`weak`: runs may outlive a dead guard. Told at each boot."""
        self.clock = clock
        self.network = network
        self.watcher = watcher
        self.rng = clock.stream(f"device {self.place}")
        self.own = LocalClock(clock, self.rng.randint(-CLOCK_RATE_PPM, CLOCK_RATE_PPM))
        self.disk = SimulatedDisk(clock.stream(f"disk {self.place}"))
        self.guard = VirtualGuard(name, self.place, clock, self.own, watcher)
        self.process: AgentProcess | None = None
        self.on = False
        self.boots = 0
        self.notes: list[Note] = []
        self.twins = [self]
        """All machines with this identity: itself and its clones."""
        self.in_use = self.place
        """Of the first of them: which was booted last. Its journal is the one that goes on."""
        self._suspended = self._hook = False
        self._instance = f"{self.place}-data"
        self._guards = 0
        """Which guard this is; the return of an older one is dropped."""
        self._guard_missing = False
        self._outside: dict[str, None] = {}
        """Why this device is outside the assumptions now."""

    @property
    def boot_id(self) -> str:
        return f"{self.place}-boot-{self.boots}"

    @property
    def agent(self) -> Agent | None:
        """The core, while its process lives."""
        return self.process.core if self.process is not None else None

    def feed(self, event: Event) -> None:
        """Something happens to the agent, if there is one."""
        if self.process is not None:
            self.process.feed(event)

    # ------------------------------------------------------------- power

    def boot(self) -> None:
        """Power on: a guard with nothing in it, and an agent."""
        self.on, self._suspended, self._guard_missing = True, False, False
        self.boots += 1
        self._guards += 1
        self.own.begin(UPTIME_MS)
        self.guard.containment = self.containment
        self.guard.boot()
        self._count_twins()
        if self.twins[0].in_use != self.place:
            self._follow_twin()
        self.start_agent()

    def power_off(self) -> None:
        """The plug is pulled: nobody closes anything."""
        self.clock.trace(self.place, "power off")
        if self.process is not None:
            self.network.vanish(self.process.connection)
        self._end()
        self.guard.lose_power()
        self.disk.lose_power()

    def kill(self) -> None:
        """Shut down hard: agent and guard are killed, every run ends with them, a will follows."""
        self.kill_agent()
        self._end()
        self.guard.die()
        self.guard.sweep()

    def _end(self) -> None:
        self.agent_ended()
        self.on = self._suspended = False
        self._guards += 1
        self._count_twins()

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    # ------------------------------------------------------------- the agent

    def start_agent(self) -> None:
        """A new agent process on the journal as it is."""
        if self.process is not None or not self.on or self._suspended:
            return
        self.clock.trace(self.place, "agent starts")
        identity = Identity(self.name, self.boot_id, "sim")
        equipment = Equipment(
            self.profile,
            self.capacity,
            self.labels,
            ("process", "simulated"),
            self.heartbeat_ms,
            containment="weak",  # until the guard has told, as the real agent has it
            accelerators=self.accelerators,
            extras=dict(self.extras),
            core_speed_milli=self.core_speed_milli,
        )
        core = Agent(self._remember(), identity, equipment, Random(self.rng.getrandbits(64)))
        self.process = AgentProcess(self, core)
        self.guard.tell = self.process.later
        self._call_guard()
        self.feed(Booted())

    def _remember(self) -> Memory:
        """What the journal holds; a new instance if that is nothing, or nothing that can be read."""
        image = self.disk.load()
        if image is not None:
            return restore(image)
        if self.disk.damaged:
            self.forget_identity()
        return Memory(self._instance)

    def kill_agent(self) -> None:
        """SIGKILL; guard and runs live on, the kernel closes the socket."""
        if self.process is not None:
            self.clock.trace(self.place, "agent killed")
            self.agent_ended()

    def agent_ended(self) -> None:
        """By its own will or another's."""
        if self.process is not None:
            process, self.process = self.process, None
            process.end()
            self.network.abandon(process.connection)
            self.network.thaw(self.place)
        self.guard.tell = lambda event: None

    def agent_dies_after(self, effects: int) -> None:
        """SIGKILL after so many more saves and effects of this process."""
        if self.process is not None:
            self.process.rouse()
            self.process.dies_after = effects

    def freeze(self) -> None:
        """SIGSTOP of the agent: nothing is read, nothing sent; the guard goes on."""
        if self.process is not None:
            self.clock.trace(self.place, "agent frozen")
            self.process.freeze(frozen=True)

    def thaw(self) -> None:
        """What came meanwhile is read now. The guard's news are read before the network's."""
        if self.process is not None and self.process.frozen:
            self.clock.trace(self.place, "agent thaws")
            self.process.freeze(frozen=False)
            self._call_guard()

    @property
    def frozen(self) -> bool:
        return self.process is not None and self.process.frozen

    def set_health(self, health: Health) -> None:
        """What its sensors say from now on; the agent reads them with its next heartbeat.

        Without `HEALTH_KNOWN` there are none, and a device that told of health before falls
        silent. A `latency_ms` stands in for the round trips that the agent measures.
        """
        self.clock.trace(self.place, f"health {' '.join(map(str, health))}")
        if self.process is not None:
            self.process.rouse()
        self.health = health

    # ------------------------------------------------------------- the guard

    def kill_guard(self, survivors: bool = False) -> None:
        """Its runs end with it, unless `survivors` and they can't be contained; a new one answers
        when it has swept them. It is the agent that starts a new guard."""
        if not self.on:
            return
        survivors = survivors and self.guard.containment == "weak"
        self.clock.trace(self.place, f"guard killed {survivors}")
        self.guard.die(survivors)
        self.feed(HostLost("connection closed"))
        self._guards += 1
        number, delay_ms = self._guards, SUCCESSOR_MS
        if self.guard.orphans:
            delay_ms = self.rng.randint(SUCCESSOR_MS, GUARD_RESTART_MS)
            self.clock.after(GUARD_RESTART_MS, lambda: self._miss_guard(number))
        self.clock.after(delay_ms, lambda: self._guard_back(number))

    def _guard_back(self, number: int) -> None:
        if number != self._guards:
            return
        if self._suspended or (self.guard.orphans and (self.process is None or self.process.frozen)):
            self._guard_missing = True
            return
        self.guard.sweep()
        self._bounds_end(SWEEP_INVARIANTS, "swept late")
        self.guard.stand()

    def _call_guard(self) -> None:
        """There is an agent again that misses its guard."""
        if self._guard_missing:
            self._guard_missing, number = False, self._guards
            self.clock.after(SUCCESSOR_MS, lambda: self._guard_back(number))

    def _miss_guard(self, number: int) -> None:
        """Nobody swept in time: the claim for weak containment rests on it."""
        if number == self._guards and self.guard.orphans:
            self._bounds_begin(SWEEP_INVARIANTS, "swept late")

    # ------------------------------------------------------------- the journal

    @property
    def journal(self) -> bytes | None:
        """The image that a process which starts now would find."""
        return self.disk.image()

    @journal.setter
    def journal(self, image: bytes | None) -> None:
        self.disk.put(image)

    @property
    def journal_fails(self) -> bool:
        return self.disk.fails

    @journal_fails.setter
    def journal_fails(self, fails: bool) -> None:
        self.disk.fails = fails

    def tear_next_save(self, lost: bool) -> None:
        """Power fails inside the next save: the image is lost, or there; nothing behind it happens."""
        self.disk.torn = lost

    def wipe_journal(self) -> None:
        """The journal is gone, and with it who this agent was."""
        self.disk.wipe()
        self.forget_identity()

    def corrupt_journal(self, only_newest: bool = False) -> None:
        """The card returns garbage: for all that was saved, or for the last save alone."""
        self.disk.corrupt(only_newest)
        self._lose_journal()

    def _lose_journal(self) -> None:
        self.watcher.saw(JournalLost(self.clock.now_ms, self.name))

    def forget_identity(self) -> None:
        """The next process that finds no journal is another instance."""
        self._lose_journal()
        self._instance = f"{self.place}-data-{self.rng.getrandbits(32):08x}"

    # ------------------------------------------------------------- time

    @property
    def rate_ppm(self) -> int:
        return self.own.rate_ppm

    @rate_ppm.setter
    def rate_ppm(self, rate_ppm: int) -> None:
        self.set_rate(rate_ppm)

    def set_rate(self, rate_ppm: int) -> None:
        """The clock runs at another rate from now on, without a jump."""
        was_ppm = self.own.rate_ppm
        if self.process is not None:
            self.process.rouse()
        self.own.set_rate(rate_ppm)
        self.guard.rearm()
        if self.process is not None:
            self.process.rearm()
        if abs(rate_ppm) > CLOCK_RATE_PPM:
            self._bounds_begin(CLOCK_INVARIANTS, "clock rate")
        elif abs(was_ppm) > CLOCK_RATE_PPM:
            self._bounds_end(CLOCK_INVARIANTS, "clock rate", self._hold_ms())

    def local_ms(self) -> int:
        return self.own.local_ms()

    def suspend(self, hook: bool = True) -> None:
        """The machine sleeps: nothing of it executes, its clock goes on. With the hook its runs are
        frozen first and thaw only after the guard has looked at their deadlines."""
        if not self.on or self._suspended:
            return
        self.clock.trace(self.place, f"suspended {hook}")
        self._suspended, self._hook = True, hook
        self.guard.suspend()
        if self.process is not None:
            self.process.freeze(asleep=True)

    def resume(self) -> None:
        if not self._suspended:
            return
        self.clock.trace(self.place, "resumes")
        self._suspended = False
        look_ms = 0 if self._hook else self.rng.randint(*WAKE_MS)
        if not self._hook:
            self._bounds_end(SUSPEND_INVARIANTS, "suspended without the hook", look_ms + KILL_MS + 1)
        self.guard.resume(self._hook, look_ms)
        if self.process is not None:
            self.process.freeze(asleep=False)
            self._call_guard()

    # ------------------------------------------------------------- one identity twice

    def clone(self) -> SimulatedDevice:
        """A second machine made of a copy of this one's card, still switched off."""
        place = f"{self.name}~{len(self.twins) + 1}"
        twin = SimulatedDevice(
            self.name, self.fleet, self.capacity, self.clock, self.network, self.watcher, place
        )
        twin.labels, twin.profile, twin.heartbeat_ms = dict(self.labels), self.profile, self.heartbeat_ms
        twin.accelerators, twin.extras = self.accelerators, dict(self.extras)
        twin.core_speed_milli, twin.health = self.core_speed_milli, self.health
        twin.containment = self.containment
        twin.disk.copy_from(self.disk)
        twin.twins = self.twins
        self.twins.append(twin)
        return twin

    def _count_twins(self) -> None:
        if len(self.twins) == 1:
            return
        if sum(1 for twin in self.twins if twin.on) > 1:
            self._bounds_begin(CLONE_INVARIANTS, "one identity twice")
        else:
            hold = max(twin._hold_ms() for twin in self.twins)
            for twin in self.twins:
                if "one identity twice" in twin._outside:
                    twin._bounds_end(CLONE_INVARIANTS, "one identity twice", hold)

    def _follow_twin(self) -> None:
        """Another machine was this device meanwhile; what it promised this journal does not know."""
        self.twins[0].in_use = self.place
        self._lose_journal()
        if "one identity twice" not in self._outside:
            self._bounds_end(CLONE_INVARIANTS, "one identity twice", self._hold_ms())

    # ------------------------------------------------------------- bounds

    def _hold_ms(self) -> int:
        """For how long what was granted here may live on."""
        leases = [run.attempt.lease_ms for run in [*self.guard.runs.values(), *self.guard.orphans]]
        return hold_ms(max(leases, default=LEASE_MS), self.guard.containment == "weak")

    def _bounds_begin(self, invariants: tuple[str, ...], why: str) -> None:
        self._outside[why] = None
        self.watcher.saw(OutOfBounds(self.clock.now_ms, self.name, invariants, INT_MAX, why))

    def _bounds_end(self, invariants: tuple[str, ...], why: str, after_ms: int = 0) -> None:
        """Tells the end of what had begun, or of what begins and ends in one."""
        if why not in self._outside and not after_ms:
            return
        self._outside.pop(why, None)
        until_ms = self.clock.now_ms + after_ms
        self.watcher.saw(OutOfBounds(self.clock.now_ms, self.name, invariants, until_ms, why))
