"""Faults: what a bad day brings, drawn from the world's seed.

Rule of this file: chaos first, then quiet. Each seed draws which families of faults it has
(a swarm: a seed with every fault at once hides what a few of them do together). `calm` ends
everything that is still wrong, so that what is not well afterwards never will be.
It knows no invariant.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.events import Survival
from protocol.tasks import Guarantee, JobKind
from sim.devices import SimulatedDevice
from sim.network import Weather
from sim.world import Wish, World

MEAN_MS = 4_000
FAMILIES = "weather cut agent device guard freeze controller storage broker journal slow people".split()
FAMILIES_MIN = 3
PEOPLE_SHARE = 0.25
"""Cancels, cordons and drains are where a stop and a start meet: they come on every day."""


class BadDay:
    """Faults and work for one world, until `calm`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.clock.stream("faults")
        self.families = self.rng.sample(FAMILIES, self.rng.randint(FAMILIES_MIN, len(FAMILIES)))
        self.over = False
        self._moves: dict[str, Callable[[SimulatedDevice], None]] = {
            "weather": self._weather,
            "cut": self._cut,
            "agent": self._agent,
            "device": self._device,
            "guard": lambda device: device.kill_guard() if device.on else None,
            "freeze": self._freeze,
            "controller": self._controller,
            "storage": self._storage,
            "broker": self._broker,
            "journal": self._journal,
            "slow": self._slow,
            "people": self._people,
        }
        world.clock.trace("faults", " ".join(self.families))

    def begin(self) -> None:
        """Work first, then trouble."""
        for _ in range(6):
            self._submit()
        self._next()

    def calm(self) -> None:
        """The end of all faults: everybody is up, nothing is cut."""
        self.over = True
        world = self.world
        world.network.weather = Weather()
        world.storage.fails = False
        for device in world.devices.values():
            world.network.heal(device.name)
            device.journal_fails = False
            device.guard.slow_ms = 0
            self._raise(device)
            if world.controller.core is not None and device.name in world.core.ledger.fleet.index:
                world.request_decision(device.name, "uncordon")
        world.controller.die_after = None
        world.controller.start()

    def _next(self) -> None:
        if self.over:
            return
        name = "people" if self.rng.random() < PEOPLE_SHARE else self.rng.choice(self.families)
        device = self.rng.choice(list(self.world.devices.values()))
        self.world.clock.trace("faults", f"{name} {device.name}")
        self._moves[name](device)
        if self.rng.random() < 0.3:
            self._submit()
        self._soon(int(self.rng.expovariate(1 / MEAN_MS)), self._next)

    def _soon(self, delay_ms: int, work: Callable[[], None]) -> None:
        self.world.clock.after(delay_ms, lambda: None if self.over else work())

    # ------------------------------------------------------------- work

    def _submit(self) -> None:
        rng, world = self.rng, self.world
        if world.controller.core is None or len(world.core.ledger.tasks) > 14:
            return
        service = rng.random() < 0.4
        world.submit(
            Wish(
                count=rng.randint(1, 3),
                runs_ms=0 if service else rng.choice((500, 8_000, 40_000, 90_000)),
                exit_code=rng.choice((0, 0, 0, 1)),
                kind=JobKind.SERVICE if service else JobKind.BATCH,
                guarantee=rng.choice((Guarantee.AT_MOST_ONE, Guarantee.AT_MOST_ONE, Guarantee.AT_LEAST_ONE)),
                max_attempts=0 if service else 3,
                runtime=rng.choice(("simulated", "process")),
            )
        )

    def _people(self, device: SimulatedDevice) -> None:
        """Operators are a fault family of their own."""
        world = self.world
        if world.controller.core is None:
            return
        jobs = list(world.core.ledger.jobs)
        if jobs and self.rng.random() < 0.4:
            world.request_cancel(self.rng.choice(jobs))
        elif device.name in world.core.ledger.fleet.index:
            world.request_decision(device.name, self.rng.choice(("cordon", "drain")))
            self._soon(self.rng.randint(1_000, 30_000), lambda: self._uncordon(device))

    def _uncordon(self, device: SimulatedDevice) -> None:
        if self.world.controller.core is not None and device.name in self.world.core.ledger.fleet.index:
            self.world.request_decision(device.name, "uncordon")

    # ------------------------------------------------------------- trouble

    def _weather(self, device: SimulatedDevice) -> None:
        rng = self.rng
        low = rng.randint(1, 200)
        self.world.network.weather = Weather(
            (low, low + rng.randint(1, 800)),
            rng.choice((0, 0.05, 0.2)),
            rng.choice((0, 0.1)),
            rng.choice((0, 0.1)),
        )

    def _cut(self, device: SimulatedDevice) -> None:
        up, down = self.rng.choice(((True, True), (True, True), (True, False), (False, True)))
        self.world.network.cut(device.name, up, down)
        self._soon(self.rng.randint(500, 60_000), lambda: self.world.network.heal(device.name))

    def _agent(self, device: SimulatedDevice) -> None:
        device.kill_agent()
        if self.rng.random() < 0.15:
            device.wipe_journal()
        self._soon(self.rng.randint(100, 10_000), lambda: self._raise(device))

    def _device(self, device: SimulatedDevice) -> None:
        (device.kill if self.rng.random() < 0.5 else device.power_off)()
        if self.rng.random() < 0.15:
            device.wipe_journal()
        self._soon(self.rng.randint(100, 60_000), lambda: self._raise(device))

    def _raise(self, device: SimulatedDevice) -> None:
        """Whatever it lacks: power, an agent, or a thaw."""
        if not device.on:
            device.boot()
        device.start_agent()
        device.thaw()

    def _freeze(self, device: SimulatedDevice) -> None:
        device.freeze()
        self._soon(self.rng.randint(500, 60_000), device.thaw)

    def _controller(self, device: SimulatedDevice) -> None:
        controller = self.world.controller
        if self.rng.random() < 0.5:
            controller.kill()
        elif controller.core is not None:
            controller.die_after = self.rng.randint(0, 40)
        for delay_ms in (self.rng.randint(100, 15_000), 20_000):
            self._soon(delay_ms, controller.start)

    def _storage(self, device: SimulatedDevice) -> None:
        self.world.storage.fails = True

        def mend() -> None:
            self.world.storage.fails = False

        self._soon(self.rng.randint(100, 8_000), mend)

    def _broker(self, device: SimulatedDevice) -> None:
        if self.rng.random() < 0.3:
            self.world.broker.snapshot()
        survival = self.rng.choice((Survival.LOST, Survival.LOST, Survival.ROLLED_BACK, Survival.KEPT))
        self.world.restart_broker(self.rng.choice((0, 1_000, 5_000)), survival)

    def _slow(self, device: SimulatedDevice) -> None:
        """Starts take as long as a lease: unpacking, a worn card."""
        device.guard.slow_ms = self.rng.choice((500, 5_000, 27_000, 40_000))

        def mend() -> None:
            device.guard.slow_ms = 0

        self._soon(self.rng.randint(5_000, 60_000), mend)

    def _journal(self, device: SimulatedDevice) -> None:
        device.journal_fails = True

        def mend() -> None:
            device.journal_fails = False

        self._soon(self.rng.randint(100, 30_000), mend)


def settle(world: World) -> str:
    """What is not as it should be, now that nothing disturbs (I11); empty when all is well."""
    checkers = world.checkers
    for task in checkers.tasks.values():
        live = world.running(task.id)
        if task.state in ("succeeded", "failed", "cancelled"):
            if live:
                return f"{task.id} is {task.state} and lives: {live}"
        elif task.state == "running":
            if live != [(task.device, task.attempt)]:
                return f"{task.id} is said to run as {task.device} {task.attempt}, lives: {live}"
        elif not _waits(world, task.id):
            return f"{task.id} is {task.state}, lives: {live}"
    return ""


def _waits(world: World, task: str) -> bool:
    """Whether a pending task has a reason to be so: a retry's pause, or no room."""
    core = world.core
    held = core.ledger.tasks.get(task)
    if held is None or held.row.state != "pending":
        return False
    return (
        core.ledger.deadlines.due_of("ready", task) is not None
        or "room" in core.placement.explain(held, world.now_ms).summary
    )
