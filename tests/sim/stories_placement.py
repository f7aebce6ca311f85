"""Stories about where work goes: accelerators, gangs, groups, daemons, chains, priorities, guards, times."""

from __future__ import annotations

from dataclasses import replace

from storyboard import Stage

from controller.core.broken_gangs import PATIENCE_MS
from controller.core.records import Constraint, Dependency, JobRules
from protocol.messages import HEALTH_KNOWN, Accelerator, Health
from protocol.resources import Resources
from protocol.tasks import JobKind, TaskState
from sim.settling import unsettled
from sim.world import Wish

SMALL_ROOM = Resources(2_000, 1_000, 10_000)
CARDS = (Accelerator("gpu0", "t4"), Accelerator("gpu1", "t4"))
HALF = Resources(100, 50, gpu_milli=600)
HALF_ROOM = Resources(1_000, 100)


def placed(stage: Stage, job: str) -> list[str]:
    """The devices of a job's tasks that are somewhere."""
    return [task.device for task in stage.world.tasks(job) if task.device]


def settled(stage: Stage, ms: int = 15_000) -> set[str]:
    """After a while everything is as it should be."""
    stage.world.advance(ms)
    stage.expect(not unsettled(stage.world), "I11")
    return stage.broken()


def reread(stage: Stage, device: str = "d0") -> None:
    """Its agent starts again and says what it is now."""
    stage.world.devices[device].kill_agent()
    stage.world.devices[device].start_agent()
    stage.world.advance(15_000)


def accelerators_shared() -> set[str]:
    """Two of the four shares fit: each lies on one accelerator."""
    stage = Stage(devices=1, begin=False)
    device = stage.world.devices["d0"]
    device.accelerators, device.capacity = CARDS, device.capacity._replace(gpu_milli=2_000)
    stage.world.begin()
    job = stage.world.submit(Wish(count=3, needs=HALF))
    stage.world.advance(5_000)
    stage.expect(len(placed(stage, job)) == 2, "I11")
    return settled(stage)


def accelerator_renamed() -> set[str]:
    """What was given by name is not free under another one until it ends."""
    stage = Stage(devices=1, begin=False)
    device = stage.world.devices["d0"]
    device.accelerators, device.capacity = CARDS[:1], device.capacity._replace(gpu_milli=1_000)
    stage.world.begin()
    stage.run_on("d0", Wish(needs=HALF))
    device.accelerators = (CARDS[1],)
    reread(stage)
    device.accelerators = (CARDS[0],)
    reread(stage)
    job = stage.world.submit(Wish(needs=HALF))
    stage.world.advance(5_000)
    stage.expect(not placed(stage, job), "I11")
    return settled(stage)


def device_that_shrinks() -> set[str]:
    stage = Stage(devices=1)
    stage.run_on("d0", Wish(needs=HALF_ROOM))
    device = stage.world.devices["d0"]
    device.capacity = device.capacity._replace(cpu_milli=1_500)
    reread(stage)
    job = stage.world.submit(Wish(needs=HALF_ROOM))
    stage.world.advance(5_000)
    stage.expect(not placed(stage, job), "I11")
    return settled(stage)


def device_of_nonsense() -> set[str]:
    """A billion cores: nothing is placed there until somebody has looked."""
    stage = Stage(devices=1)
    device = stage.world.devices["d0"]
    device.capacity, right = device.capacity._replace(cpu_milli=2**40), device.capacity
    reread(stage)
    job = stage.world.submit(Wish())
    stage.world.advance(5_000)
    stage.expect(not placed(stage, job), "P7")
    device.capacity = right
    reread(stage)
    stage.expect(not placed(stage, job), "P7")
    stage.world.decide("d0", "uncordon")
    return settled(stage)


def gang_that_fits_in_part() -> set[str]:
    """Room for four of five: none is placed, until one device more is there."""
    stage = Stage(rooms=(SMALL_ROOM, SMALL_ROOM, SMALL_ROOM))
    stage.world.decide("d2", "cordon")
    job = stage.world.submit(Wish(count=5, rules=JobRules(gang=True)))
    stage.world.advance(5_000)
    stage.expect(not placed(stage, job), "I11")
    stage.world.decide("d2", "uncordon")
    stage.world.advance(5_000)
    stage.expect(len(placed(stage, job)) == 5, "I11")
    return settled(stage)


def halves_of_two_gangs() -> set[str]:
    """Each lost one of two, and both lost ones would fit where one half runs: one half gives way, and the
    controller is killed while it leaves. When all devices are back, both run whole."""
    stage = Stage(rooms=(SMALL_ROOM,) * 4)
    world = stage.world
    whole = Wish(2, 0, kind=JobKind.SERVICE, needs=SMALL_ROOM._replace(disk_mib=0), max_attempts=0)
    jobs = [world.submit(replace(whole, rules=JobRules(gang=True))) for _ in range(2)]
    every = [f"{job}.{n}" for job in jobs for n in (0, 1)]
    world.until(lambda: all(map(world.running, every)), 20_000)
    lost = [world.tasks(job)[1].device for job in jobs]
    for device in lost:
        world.network.cut(device)
    world.until(lambda: all(len(placed(stage, job)) == 1 for job in jobs), 60_000)
    stage.expect(all(len(placed(stage, job)) == 1 for job in jobs), "I11")
    world.until(lambda: world.core.ledger.counters.get("gangs_broken"), 90_000)
    stage.restart_controller()
    stage.within(90_000, lambda: sorted(len(placed(stage, job)) for job in jobs) == [0, 2], "I11")
    for device in lost:
        world.network.heal(device)
    stage.within(90_000, lambda: all(map(world.running, every)), "I11")
    return stage.broken()


def room_for_a_part_while_the_rest_leaves() -> set[str]:
    """One of two is lost; the other gives way on a device that has just fallen silent, and the first one's
    is back before that is over: one alone must not begin there."""
    stage = Stage(rooms=(SMALL_ROOM,) * 2)
    world = stage.world
    rules = JobRules(gang=True)
    needs = SMALL_ROOM._replace(disk_mib=0)
    job = world.submit(Wish(2, 0, kind=JobKind.SERVICE, needs=needs, max_attempts=0, rules=rules))
    both = [f"{job}.0", f"{job}.1"]
    world.until(lambda: all(map(world.running, both)), 20_000)
    first, second = placed(stage, job)
    world.network.cut(second)
    world.until(lambda: len(placed(stage, job)) == 1, 60_000)
    world.advance(PATIENCE_MS - 4_000)
    world.network.cut(first)
    world.until(lambda: world.core.ledger.counters.get("gangs_broken"), 10_000)
    world.network.heal(second)
    world.advance(5_000)
    stage.expect(placed(stage, job) == [first], "I11")
    world.network.heal(first)
    stage.within(60_000, lambda: all(map(world.running, both)), "I11")
    return stage.broken()


def each_on_a_device_of_its_own() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(count=3, constraints=(Constraint("", "distinct_device", ""),)))
    stage.world.advance(5_000)
    stage.expect(sorted(placed(stage, job)) == ["d0", "d1"], "I11")
    return settled(stage)


def daemon_on_each() -> set[str]:
    """On those that are there, and on one that comes; a cordon keeps the second one waiting."""
    stage = Stage(devices=3)
    stage.world.decide("d1", "cordon")
    daemon = Wish(count=0, kind=JobKind.DAEMON, max_attempts=0)
    job = stage.world.submit(daemon)
    stage.world.advance(5_000)
    stage.expect(sorted(placed(stage, job)) == ["d0", "d2"], "I11")
    stage.world.decide("d1", "uncordon")
    stage.world.add_device("d3").boot()
    stage.world.advance(15_000)
    stage.expect(sorted(placed(stage, job)) == ["d0", "d1", "d2", "d3"], "I11")
    return settled(stage)


def one_after_the_other() -> set[str]:
    stage = Stage()
    first = stage.world.submit(Wish(runs_ms=20_000))
    second = stage.world.submit(Wish(runs_ms=1_000, rules=JobRules(depends_on=(Dependency(first),))))
    stage.world.advance(10_000)
    stage.expect(not placed(stage, second), "I11")
    stage.within(40_000, lambda: stage.world.done(second), "I11")
    return settled(stage)


def two_at_a_time() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(count=4, runs_ms=8_000, rules=JobRules(parallel_max=2)))
    stage.world.advance(4_000)
    stage.expect(len(placed(stage, job)) == 2, "I11")
    stage.within(60_000, lambda: stage.world.done(job), "I11")
    return settled(stage)


def full(stage: Stage, priority: int, kind: JobKind = JobKind.SERVICE) -> str:
    """The one device is full of work of this priority."""
    count = 0 if kind is JobKind.DAEMON else 1
    wish = Wish(
        count=count, kind=kind, priority=priority, needs=SMALL_ROOM._replace(disk_mib=0), max_attempts=0
    )
    job = stage.world.submit(wish)
    stage.world.until(lambda: stage.world.running(f"{job}.0"), 20_000)
    return job


def nearly_as_urgent() -> set[str]:
    stage = Stage(rooms=(SMALL_ROOM,))
    full(stage, 41)
    job = stage.world.submit(Wish(priority=50))
    stage.world.advance(20_000)
    stage.expect(not placed(stage, job), "I11")
    return settled(stage)


def urgent_beside_a_daemon() -> set[str]:
    stage = Stage(rooms=(SMALL_ROOM,))
    full(stage, 0, JobKind.DAEMON)
    job = stage.world.submit(Wish(priority=90))
    stage.world.advance(20_000)
    stage.expect(not placed(stage, job), "I11")
    return settled(stage)


def more_urgent() -> set[str]:
    """What is less important by ten gives way."""
    stage = Stage(rooms=(SMALL_ROOM,))
    low = full(stage, 40)
    job = stage.world.submit(Wish(priority=50))
    stage.within(40_000, lambda: stage.world.running(f"{job}.0"), "I11")
    stage.expect(stage.world.task(f"{low}.0").state is TaskState.PENDING, "I11")
    return settled(stage)


def tainted_device() -> set[str]:
    stage = Stage(devices=1)
    stage.world.request_taint("d0", "taint", "night:no_place")
    job = stage.world.submit(Wish())
    other = stage.world.submit(Wish(tolerations=("night",)))
    stage.world.advance(5_000)
    stage.expect((placed(stage, job), placed(stage, other)) == ([], ["d0"]), "I11")
    stage.world.request_taint("d0", "untaint", "night:no_place")
    stage.within(5_000, lambda: placed(stage, job), "I11")
    return settled(stage)


def hot_device() -> set[str]:
    """Too hot for what is new; when it has cooled down, what waits is placed."""
    stage = Stage(devices=1)
    stage.world.devices["d0"].set_health(Health(HEALTH_KNOWN, 92, 100, 0, 0))
    stage.world.advance(60_000)
    job = stage.world.submit(Wish())
    stage.world.advance(30_000)
    stage.expect(not placed(stage, job), "I11")
    stage.world.devices["d0"].set_health(Health(HEALTH_KNOWN, 50, 100, 0, 0))
    stage.within(40_000, lambda: placed(stage, job), "I11")
    return settled(stage)


def every_minute() -> set[str]:
    """A run that lasts longer than the time between two."""
    stage = Stage()
    rules = JobRules(schedule="* * * * *")
    stage.world.submit(Wish(kind=JobKind.CRON, runs_ms=90_000, rules=rules))
    stage.world.advance(200_000)
    runs = [job for job in stage.world.checkers.jobs.values() if job.rules.parent]
    stage.expect(runs, "I11")
    return stage.broken()


def room_that_comes_back() -> set[str]:
    stage = Stage(rooms=(SMALL_ROOM,))
    stage.run_on("d0", Wish(needs=SMALL_ROOM._replace(disk_mib=0), runs_ms=30_000))
    stage.world.submit(Wish())
    return settled(stage, 60_000)


def gang_that_was_promised_room() -> set[str]:
    """One of two has to move, and others give way for it; meanwhile the other one ends too. What was
    promised to the first is no reason to place it alone."""
    stage = Stage(rooms=(SMALL_ROOM, SMALL_ROOM, SMALL_ROOM))
    world, whole = stage.world, SMALL_ROOM._replace(disk_mib=0)
    stage.run_on("d2", Wish(kind=JobKind.SERVICE, needs=whole, max_attempts=0))
    gang = Wish(2, 25_000, 1, needs=whole, priority=50, rules=JobRules(gang=True), max_attempts=9)
    job = world.submit(gang)
    world.until(lambda: all(world.running(f"{job}.{n}") for n in (0, 1)), 20_000)
    world.network.cut("d2")
    world.decide("d1", "drain")
    world.until(lambda: world.core.nominations.by_task, 10_000)
    world.until(lambda: not placed(stage, job), 60_000)
    world.decide("d0", "cordon")
    world.network.heal("d2")
    world.advance(60_000)
    stage.expect(not placed(stage, job), "I11")
    for device in ("d0", "d1"):
        world.decide(device, "uncordon")
    stage.within(60_000, lambda: len(placed(stage, job)) == 2, "I11")
    return stage.broken()
