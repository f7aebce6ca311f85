"""Stories of fleets that level themselves: who moves, when, how many at a time, and that it ends."""

from __future__ import annotations

from storyboard import Stage

from controller.core.records import JobRules
from controller.core.rules import Rules
from protocol.resources import Resources
from sim.world import Wish

ROOM = Resources(20_000, 20_000, 10_000)
TASK = Resources(500, 100)
LEASE_MS = 10_000
LOOK_MS = 5_000
LEVELS = Rules(rebalance="auto", look_ms=LOOK_MS, load_percent_least=0, auto_moves_max=1_000)


def crowded(count: int, rules: JobRules | None = None) -> tuple[Stage, str]:
    """So many tasks run on d0; d1 stands empty and has just been opened."""
    stage = Stage(rooms=(ROOM, ROOM), begin=False)
    stage.world.rule(LEVELS)
    stage.world.begin()
    stage.shut_others("d0")
    job = stage.world.submit(Wish(count, needs=TASK, lease_ms=LEASE_MS, rules=rules or JobRules()))
    stage.world.until(lambda: len(on(stage, job, "d0")) == count, 60_000)
    stage.world.decide("d1", "uncordon")
    return stage, job


def on(stage: Stage, job: str, device: str) -> list[str]:
    """Tasks of the job that really run there, and nowhere else."""
    running = {task.id: stage.world.running(task.id) for task in stage.world.tasks(job)}
    return [task for task, places in running.items() if [place for place, _ in places] == [device]]


def level(stage: Stage, job: str, count: int) -> bool:
    """As far as a plan goes: neither has a tenth more than half."""
    return min(len(on(stage, job, name)) for name in ("d0", "d1")) >= 0.45 * count


def crowd_is_spread() -> set[str]:
    """And then nothing moves any more."""
    stage, job = crowded(30)
    stage.within(180_000, lambda: level(stage, job, 30), "C4")
    stage.world.advance(10_000)
    before = [task.attempt for task in stage.world.tasks(job)]
    stage.world.advance(300_000)
    stage.expect(before == [task.attempt for task in stage.world.tasks(job)], "I11")
    return stage.broken()


def crowd_of_a_gang() -> set[str]:
    stage, job = crowded(8, JobRules(gang=True))
    stage.world.advance(120_000)
    stage.expect(len(on(stage, job, "d0")) == 8, "P9")
    return stage.broken()


def crowd_and_a_take_over() -> set[str]:
    """Who comes to lead knows of nobody when he was placed, so all rest anew."""
    stage, job = crowded(30)
    stage.world.advance(2 * LEASE_MS)
    stage.world.decide("d0", "cordon")
    stage.world.decide("d0", "uncordon")
    stage.restart_controller()
    stage.within(180_000, lambda: level(stage, job, 30), "C4")
    return stage.broken()


def crowd_and_a_silent_source() -> set[str]:
    """What is to leave a device that is cut off holds up what else may move."""
    stage, job = crowded(20)
    stage.world.until(
        lambda: any(a.reason == "rebalanced" for a in stage.world.checkers.attempts.values()), 60_000
    )
    stage.world.network.cut("d0")
    stage.world.advance(60_000)
    stage.world.network.heal("d0")
    stage.within(180_000, lambda: level(stage, job, 20), "C4")
    return stage.broken()


def crowds_and_a_successor() -> set[str]:
    """Ten are leaving a device that is cut off when another comes to lead: he moves none beside them."""
    stage = Stage(rooms=(ROOM,) * 4, begin=False)
    world = stage.world
    world.rule(LEVELS)
    world.begin()
    for device, lease_ms in (("d0", 60_000), ("d1", 6_000)):
        stage.shut_others(device)
        world.decide(device, "uncordon")
        job = world.submit(Wish(20, needs=TASK, lease_ms=lease_ms))
        world.until(lambda job=job, device=device: len(on(stage, job, device)) == 20, 60_000)
        world.advance(5_000)
    world.decide("d0", "uncordon")
    world.advance(200_000)
    world.network.cut("d0")
    world.decide("d2", "uncordon")
    world.decide("d3", "uncordon")
    world.request_rebalance()
    world.until(lambda: len(leaving(stage, "d0")) >= 5, 30_000)
    world.advance(1_000)
    stage.restart_controller()
    stage.within(180_000, lambda: len(on(stage, job, "d1")) <= 12, "C4")
    return stage.broken()


def leaving(stage: Stage, device: str) -> list[str]:
    """Tasks on their way off the device for balance."""
    rows = stage.world.checkers.attempts.values()
    return [a.task for a in rows if (a.device, a.state, a.reason) == (device, "removed", "rebalanced")]


def room_is_made() -> set[str]:
    """Two devices are half full; a task of three quarters waits, until one of the small ones moves."""
    stage = Stage()
    for device in ("d0", "d0", "d1", "d1"):
        stage.run_on(device, Wish(lease_ms=LEASE_MS))
        stage.world.advance(2_000)
    big = f"{stage.world.submit(Wish(needs=Resources(3_000, 100)))}.0"
    stage.world.advance(4 * LEASE_MS)
    stage.expect(not stage.alive(big), "I5")
    stage.world.request_room(0)
    stage.within(30_000, lambda: stage.alive(big), "C4")
    stage.expect(len(leaving(stage, "d0") + leaving(stage, "d1")) == 0, "C4")
    return stage.broken()
