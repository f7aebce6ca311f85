"""The world: a fleet of devices and a controller on one network, one clock and one seed.

Rule of this file: it only puts things together and gives a test its hands: submit, cancel,
cordon, cut, kill, and the passing of time until something is so. What is true is read from
the guards (`running`) and from what was committed (`task`), never from a core's memory.
Rejected: faults drawn in here (they are `faults.py`; a story wants none but its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker import events as ev
from broker.acl import FleetAcl
from broker.model import BrokerModel
from controller.core.controller import Controller
from controller.core.events import (
    DeviceDecision,
    DevicePinged,
    DevicesQueried,
    FleetQueried,
    FleetUnfrozen,
    JobCancelled,
    JobSubmitted,
    RebalanceAsked,
    TaskExplained,
)
from controller.core.records import Affinity, Constraint, JobRules, JobState, Spread, TaskRow, TaskSpec
from controller.core.rules import Rules
from controller.core.views import RefusalView, SubmittedView
from protocol.core import Event
from protocol.limits import LEASE_MS, STOP_GRACE_MS
from protocol.resources import Resources
from protocol.tasks import FINAL_TASK, Guarantee, JobKind, TaskState
from sim.checkers import Checkers
from sim.clockwork import Clockwork
from sim.controllers import ControllerProcess
from sim.database import Database, Storage
from sim.devices import SimulatedDevice
from sim.network import Network
from sim.observations import JobAccepted
from sim.sampling import Sampler

FLEET = "sim"
SMALL = Resources(1_000, 100)
ROOM = Resources(4_000, 4_096, 10_000, 0)
ACCESS = FleetAcl(FLEET)
"""One for all worlds: what it remembers depends on names only."""
READY_MS = 60_000
"""A world that is not ready by then never will be."""


@dataclass(slots=True)
class Wish:
    """A job as a test wishes it: `runs_ms` 0 is for ever; the rest as in the job."""

    count: int = 1
    runs_ms: int = 0
    exit_code: int = 0
    kind: JobKind = JobKind.BATCH
    guarantee: Guarantee = Guarantee.AT_MOST_ONE
    needs: Resources = SMALL
    runtime: str = "simulated"
    constraints: tuple[Constraint, ...] = ()
    priority: int = 0
    max_attempts: int = 3
    ttl_ms: int = 0
    lease_ms: int = LEASE_MS
    timeout_ms: int = 0
    stop_grace_ms: int = STOP_GRACE_MS
    key: str = ""
    env: dict[str, str] = field(default_factory=dict)
    extras: dict[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    reference_cpu: bool = False
    affinities: tuple[Affinity, ...] = ()
    spreads: tuple[Spread, ...] = ()
    tolerations: tuple[str, ...] = ()
    rules: JobRules = field(default_factory=JobRules)

    def spec(self) -> TaskSpec:
        lasts = ("--ms", str(self.runs_ms)) if self.runs_ms else ()
        command = ("run", *lasts, "--exit", str(self.exit_code))
        return TaskSpec(
            self.runtime, command, self.env, self.needs, self.constraints, self.timeout_ms,
            self.stop_grace_ms, self.extras, self.models, self.reference_cpu, self.affinities, self.spreads,
            self.tolerations,
        )  # fmt: skip


class World:
    """A fleet under test. `rooms`: the capacity of each device, named `d0`, `d1`, …"""

    def __init__(
        self,
        seed: int,
        storage: Storage,
        rooms: tuple[Resources, ...] = (ROOM, ROOM, ROOM),
        controllers: int = 1,
    ) -> None:
        """`controllers`: how many share the database; all of them start with the world."""
        self.seed = seed
        self.storage = storage
        self.clock = Clockwork(seed)
        self.broker = BrokerModel(acl=ACCESS)
        self.network = Network(self.clock, self.broker)
        self.checkers = Checkers(self.clock)
        self.network.on_delivered = self.checkers.saw
        self.sampler = Sampler(self)
        self.database = Database(self.clock, storage, self.checkers)
        self.rules = Rules()
        self.replies: dict[int, object] = {}
        """By the number of the request, whoever answered it."""
        self.controllers = [self._make_controller(f"c{number + 1}") for number in range(controllers)]
        self.controller = self.controllers[0]
        self.devices: dict[str, SimulatedDevice] = {}
        for number, room in enumerate(rooms):
            self.add_device(f"d{number}", room)
        self._requests = self._jobs = 0
        self._counts: dict[str, int] = {}
        """Tasks of each job that was ever submitted."""
        self._backup = self.database.backup()

    def _make_controller(self, holder: str) -> ControllerProcess:
        return ControllerProcess(FLEET, holder, self.clock, self.network, self.database, self._on_reply)

    def rule(self, rules: Rules) -> None:
        """What the fleet's operator decided for all jobs and devices; also who judges knows."""
        for controller in self.controllers:
            controller.rules = rules
        self.rules, self.checkers.offer = rules, rules.offer

    def add_device(self, name: str, room: Resources = ROOM) -> SimulatedDevice:
        """Another device, still switched off."""
        device = SimulatedDevice(name, FLEET, room, self.clock, self.network, self.checkers)
        self.devices[name] = device
        return device

    # ------------------------------------------------------------- time

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms

    def advance(self, ms: int) -> None:
        """Lets so much time pass."""
        self.clock.run(self.clock.now_ms + ms)

    def until(self, condition: Callable[[], object], within_ms: int = READY_MS, what: str = "") -> int:
        """Steps until `condition` holds; returns how long that took. Raises `AssertionError`."""
        began_ms = self.clock.now_ms
        while not condition():
            if not self.clock.step(began_ms + within_ms):
                tail = "\n".join(self.clock.lines[-30:])
                raise AssertionError(f"seed {self.seed}: not within {within_ms} ms: {what}\n{tail}")
        return self.clock.now_ms - began_ms

    def begin(self) -> None:
        """Controllers and devices on; returns when every device may take work."""
        self.sampler.begin()
        for controller in self.controllers:
            controller.start()
        for device in self.devices.values():
            device.boot()
        self.until(lambda: all(self.ready(name) for name in self.devices), what="a fleet that is ready")

    # ------------------------------------------------------------- questions

    @property
    def leader(self) -> ControllerProcess | None:
        """Who leads, and would answer; of two who think so the later one."""
        able = [c for c in self.controllers if c.core is not None and not c.paused]
        return max(able, key=lambda c: c.epoch, default=None)

    @property
    def core(self) -> Controller:
        leader = self.leader
        assert leader is not None and leader.core is not None, "nobody leads"
        return leader.core

    def ready(self, device: str) -> bool:
        """Whether the controller would place something there that fits and is not afraid of its condition."""
        core = self.leader.core if self.leader is not None else None
        row = core.ledger.fleet.index.get(device) if core is not None else None
        if core is None or row is None:
            return False
        view = core.ledger.fleet.view
        return bool(view.online[row] & view.open[row])

    def state(self, device: str) -> str:
        """`online`, `suspect` or `offline`, as people are shown."""
        shown: Any = self.ask(lambda request: DevicesQueried(request, device))
        return str(shown.items[0].state)

    def ask_refused(self, device: str) -> str:
        """The code of the refusal when somebody asks for this device; empty if it is shown."""
        shown = self.ask(lambda request: DevicesQueried(request, device))
        return shown.code if isinstance(shown, RefusalView) else ""

    def task(self, task: str) -> TaskRow:
        """As committed."""
        return self.checkers.tasks[task]

    def running(self, task: str) -> list[tuple[str, int]]:
        """(device, attempt) of every run of the task that really lives."""
        return [(device, a.attempt) for device, a in self.checkers.live.get(task, [])]

    def tasks(self, job: str) -> list[TaskRow]:
        return [task for task in self.checkers.tasks.values() if task.job == job]

    def done(self, job: str) -> bool:
        return all(task.state in FINAL_TASK for task in self.tasks(job))

    # ------------------------------------------------------------- wishes

    def ask(self, make: Callable[[int], Event]) -> object:
        """Feeds a question and returns its answer; for those that are answered at once."""
        request = self.request(make)
        assert request in self.replies, "nobody answered"
        return self.replies[request]

    def request(self, make: Callable[[int], Event], of: ControllerProcess | None = None) -> int:
        """Asks who leads, or whom the caller takes for it; the number finds the answer in `replies`."""
        self._requests += 1
        asked = of or self.leader or self.controller
        asked.feed(make(self._requests))
        return self._requests

    def submit(self, wish: Wish | None = None) -> str:
        """The id of the job. Whether it was accepted is what the reply says."""
        self._jobs += 1
        job = f"j{self._jobs}"
        self.submit_named(job, wish or Wish())
        return job

    def submit_named(self, job: str, wish: Wish) -> int:
        """Submits it under an id of the caller's; the number of the request."""
        w = wish
        self._counts[job] = w.count
        closed = {d.job: self._end_of(d.job) for d in w.rules.depends_on}
        return self.request(
            lambda request: JobSubmitted(
                request, job, job, w.kind, w.count, w.priority, w.guarantee, w.max_attempts, w.ttl_ms,
                w.lease_ms, w.spec(), "tester", w.key, w.key, w.rules, closed,
            )
        )  # fmt: skip

    def _end_of(self, job: str) -> str:
        """What became of a job that is over, as the API reads it in the database; empty of any other."""
        row = self.checkers.jobs.get(job)
        return "" if row is None or row.state is JobState.OPEN else str(row.state)

    def _on_reply(self, request: int, body: object) -> None:
        self.replies[request] = body
        if isinstance(body, SubmittedView):
            self.checkers.saw(JobAccepted(self.now_ms, body.job, self._count_of(body)))

    def _count_of(self, told: SubmittedView) -> int:
        """A replayed submit is told no number; that of a daemon only the fleet knows."""
        if not told.replayed:
            return told.tasks
        return self._counts[told.job] or self.checkers.seen.tasks_of.get(told.job, 0)

    def cancel(self, job: str) -> object:
        return self.ask(lambda request: JobCancelled(request, job, "tester"))

    def decide(self, device: str, verb: str) -> object:
        return self.ask(lambda request: DeviceDecision(request, device, verb, "tester"))

    def request_cancel(self, job: str) -> int:
        """As `cancel`, for who can bear to get no answer."""
        return self.request(lambda request: JobCancelled(request, job, "tester"))

    def request_decision(self, device: str, verb: str) -> int:
        """As `decide`, for who can bear to get no answer."""
        return self.request(lambda request: DeviceDecision(request, device, verb, "tester"))

    def request_taint(self, device: str, verb: str, taint: str) -> int:
        """`taint` or `untaint`."""
        return self.request(lambda request: DeviceDecision(request, device, verb, "tester", taint))

    def request_rebalance(self) -> int:
        """A plan of voluntary moves, begun at once."""
        return self.request(lambda request: RebalanceAsked(request, "tester", approve=True))

    def request_room(self, nth: int) -> int:
        """Moves that make room for one of the tasks that wait, begun at once."""
        tasks = self.checkers.tasks
        waiting = [task for task in self.checkers.seen.open if tasks[task].state is TaskState.PENDING]
        task = waiting[nth % len(waiting)] if waiting else "nobody.0"
        return self.request(lambda request: RebalanceAsked(request, "tester", approve=True, task=task))

    def request_unfreeze(self) -> int:
        """As `unfreeze`, for who can bear to get no answer."""
        return self.request(lambda request: FleetUnfrozen(request, "tester"))

    def ping(self, device: str) -> int:
        return self.request(lambda request: DevicePinged(request, device, 7))

    def fleet_view(self) -> Any:
        return self.ask(FleetQueried)

    def explain(self, task: str) -> Any:
        return self.ask(lambda request: TaskExplained(request, task))

    def unfreeze(self) -> object:
        return self.ask(lambda request: FleetUnfrozen(request, "tester"))

    # ------------------------------------------------------------- backups

    def backup(self) -> None:
        """Takes a copy of the database; the newest is what `restore_backup` puts back."""
        self._backup = self.database.backup()

    def restore_backup(self, marked: bool = True) -> None:
        """All controllers die, the copy is put back (or the first state of all), and they start again."""
        for controller in self.controllers:
            controller.kill()
        self.database.restore(self._backup, marked)
        for controller in self.controllers:
            controller.start()

    # ------------------------------------------------------------- the end

    def restart_broker(self, down_ms: int = 0, survival: ev.Survival = ev.Survival.LOST) -> None:
        self.network.restart_broker(down_ms, survival)

    def check(self) -> None:
        """Raises `AssertionError` with the seed when an invariant was broken."""
        self.checkers.finish()
        if self.checkers.breaches:
            told = "\n".join(map(str, self.checkers.breaches[:5]))
            tail = "\n".join(self.clock.lines[-25:])
            raise AssertionError(f"seed {self.seed}:\n{told}\n--- the last of the trace\n{tail}")
