"""A fleet at its ordinary work for days: what scale costs when nothing goes wrong.

Rule of this file: everybody here is real, controller and agents; only devices at rest go as
columns. The fleet is switched on within ten seconds, is given services for the whole time
and a batch job each hour, and at the end it is counted what lives, what ended and what was
told. No faults, and no shown states: I9 has nobody to ask, the other checkers watch.
It measures no time and reads no clock: whoever calls it does.
Rejected: all devices switched on in one moment (their heartbeats would come in one burst
every ten seconds for hours, which flatters batches).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.tasks import JobKind, TaskState
from sim.columns import IdleFleet
from sim.controllers import Storage
from sim.world import ROOM, Wish, World

BOOT_MS = 10_000
READY_MS = 30_000
HOUR_MS = 3_600_000
STEP_MS = 600_000
"""How often whoever watches is told."""
BATCH_MS = (20_000, 900_000)


@dataclass(slots=True)
class Work:
    """What the fleet is given: services at its start, batch tasks each hour."""

    services: int = 1_000
    batch_per_hour: int = 100


@dataclass(slots=True)
class ScaleResult:
    """What was counted in the end."""

    devices: int
    virtual_ms: int
    heartbeats: int
    """That reached the controller; of these `columns` did not go over the network."""
    columns: int
    rests: int
    """How often a device was put to rest."""
    starts: int
    live: int
    succeeded: int
    lost: int
    """Attempts of services beyond the first: somebody's lease or process ended."""
    breaches: list[str]
    trace_hash: str


def run_scale(
    devices: int,
    hours: float,
    storage: Storage,
    seed: int = 0,
    work: Work | None = None,
    watch: Callable[[float], None] | None = None,
    columns: bool = True,
) -> ScaleResult:
    """`watch` is told the share that is done, every ten virtual minutes. Without `columns` every
    heartbeat is an event of its own."""
    work = Work() if work is None else work
    world = World(seed, storage, (ROOM,) * devices)
    idle = IdleFleet(world)
    began_ms, length_ms = world.now_ms, int(hours * HOUR_MS)
    _switch_on(world)
    if columns:
        idle.begin()
    world.advance(min(READY_MS, length_ms))
    _plan_work(world, work, began_ms + length_ms)
    while (passed_ms := world.now_ms - began_ms) < length_ms:
        world.advance(min(STEP_MS, length_ms - passed_ms))
        if watch is not None:
            watch((world.now_ms - began_ms) / length_ms)
    idle.end()
    return _count(world, idle, devices, length_ms)


def _switch_on(world: World) -> None:
    rng = world.clock.stream("scale")
    world.controller.start()
    for device in world.devices.values():
        world.clock.after(rng.randint(100, BOOT_MS), device.boot)


def _plan_work(world: World, work: Work, until_ms: int) -> None:
    rng = world.clock.stream("work")
    if work.services:
        world.submit(Wish(count=work.services, kind=JobKind.SERVICE, max_attempts=0))

    def batch() -> None:
        if work.batch_per_hour:
            world.submit(Wish(count=work.batch_per_hour, runs_ms=rng.randint(*BATCH_MS)))
        if world.now_ms + HOUR_MS < until_ms:
            world.clock.after(HOUR_MS, batch)

    batch()


def _count(world: World, idle: IdleFleet, devices: int, virtual_ms: int) -> ScaleResult:
    checkers = world.checkers
    checkers.finish()
    tasks = checkers.tasks.values()
    service = [t for t in tasks if world.checkers.jobs[t.job].kind is JobKind.SERVICE]
    return ScaleResult(
        devices=devices,
        virtual_ms=virtual_ms,
        heartbeats=world.controller.wire.heartbeats,
        columns=idle.heartbeats,
        rests=idle.rests,
        starts=len(checkers.start_times),
        live=sum(map(len, checkers.live.values())),
        succeeded=sum(1 for task in tasks if task.state is TaskState.SUCCEEDED),
        lost=sum(task.attempt - 1 for task in service),
        breaches=[str(breach) for breach in checkers.breaches],
        trace_hash=world.clock.digest(),
    )
