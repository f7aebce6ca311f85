"""Stories about work: its results, its output, storms that move it, and its own faults."""

from __future__ import annotations

from storyboard import EAGER, HOLD, Stage

from protocol.resources import Resources
from protocol.tasks import Guarantee, TaskState
from sim.rogue import forgeries
from sim.world import FLEET, Wish


def ping_to_the_dead() -> set[str]:
    stage = Stage()
    stage.world.devices["d0"].power_off()
    request = stage.world.ping("d0")
    stage.within(15_000, lambda: request in stage.world.replies, "C1")
    return stage.broken()


def late_result() -> set[str]:
    """At least one: the lost device comes back with a result, while the successor runs."""
    stage = Stage()
    task = stage.run_on("d0", Wish(guarantee=EAGER, runs_ms=40_000))
    stage.world.advance(5_000)
    stage.world.network.cut("d0")
    stage.world.until(lambda: ("d1", 2) in stage.world.running(task), 60_000)
    stage.world.until(lambda: ("d0", 1) not in stage.world.running(task), 60_000)
    stage.world.network.heal("d0")
    stage.world.advance(10_000)
    row = stage.world.task(task)
    stage.expect(stage.world.running(task) == [("d1", 2)] and row.state is TaskState.RUNNING, "I3")
    return stage.broken()


def output_after_a_restart() -> set[str]:
    """A new controller meets an outbox that was trimmed long ago."""
    stage = Stage(devices=1)
    stage.run_on("d0", Wish(runs_ms=1_000, runtime="process"))
    stage.world.advance(15_000)
    stage.restart_controller()
    stage.world.until(lambda: stage.world.ready("d0"), 30_000)
    job = stage.world.submit(Wish(runs_ms=1_000, runtime="process"))
    output = stage.world.storage.store.output
    stage.within(60_000, lambda: output(f"{job}.0", 1, 1, 0, 1_000).complete, "I8")
    return stage.broken()


def storm(guarantee: Guarantee = EAGER) -> tuple[Stage, str, int]:
    """Ten of sixteen devices are cut off at once."""
    stage = Stage(devices=16)
    job = stage.world.submit(Wish(count=16, guarantee=guarantee))
    stage.world.until(lambda: len(stage.world.checkers.start_times) == 16)
    stage.world.advance(5_000)
    for number in range(10):
        stage.world.network.cut(f"d{number}")
    return stage, job, 16


def silent_site() -> set[str]:
    stage, _, before = storm()
    stage.world.advance(50_000)
    stage.expect(len(stage.world.checkers.start_times) == before, "C4")
    return stage.broken()


def silent_site_and_restart() -> set[str]:
    stage, _, before = storm()
    stage.world.advance(30_000)
    stage.restart_controller()
    stage.world.advance(55_000)
    stage.expect(len(stage.world.checkers.start_times) == before, "C4")
    return stage.broken()


def dead_site() -> set[str]:
    stage, _, before = storm()
    stage.within(5 * HOLD, lambda: len(stage.world.checkers.start_times) >= before + 10, "I11")
    return stage.broken()


def cancel_in_a_freeze() -> set[str]:
    stage, job, _ = storm(Guarantee.AT_MOST_ONE)
    stage.world.advance(25_000)
    stage.world.cancel(job)
    stage.within(HOLD + 2_000, lambda: stage.world.done(job), "I7")
    return stage.broken()


def deaf_controller() -> set[str]:
    """The broker returns nothing to the controller: the silence is ours, nothing moves."""
    stage = Stage()
    task = stage.run_on("d0", Wish(guarantee=EAGER))
    stage.world.advance(5_000)
    for channel in ("heartbeat", "canary", "runs"):
        stage.controller_ear.drop(channel)
    stage.world.advance(60_000)
    stage.controller_ear.clear()
    stage.world.advance(10_000)
    stage.expect(stage.starts(task) == [1], "C4")
    return stage.broken()


def great_drain() -> set[str]:
    room = Resources(40_000, 20_000, 100, 0)
    stage = Stage(rooms=(room, room))
    stage.shut_others("d0")
    job = stage.world.submit(Wish(count=30))
    stage.world.until(lambda: len(stage.world.checkers.start_times) == 30)
    stage.world.advance(3_000)
    stage.world.decide("d1", "uncordon")
    stage.world.decide("d0", "drain")
    stage.world.advance(100)
    ledger = stage.world.core.ledger
    moving = sum(1 for a in ledger.attempts.values() if a.row.state == "removed")
    stage.expect(moving <= 10, "C4")
    stage.within(60_000, lambda: all(t.device == "d1" for t in stage.world.tasks(job)), "I11")
    return stage.broken()


def unlucky_task() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0", Wish(max_attempts=1))
    stage.world.advance(3_000)
    stage.world.devices["d0"].reboot()
    stage.within(60_000, lambda: 2 in stage.starts(task), "C5")
    return stage.broken()


def failing_task() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(runs_ms=100, exit_code=3, max_attempts=3))
    stage.within(60_000, lambda: stage.world.task(f"{job}.0").state is TaskState.FAILED, "C5")
    stage.expect(len(stage.starts(f"{job}.0")) == 3, "C5")
    return stage.broken()


def failing_service() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(runs_ms=100, exit_code=1, max_attempts=0))
    stage.world.advance(20_000)
    stage.expect(3 <= len(stage.starts(f"{job}.0")) <= 6, "C5")
    return stage.broken()


def expiring_task() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(ttl_ms=10_000))
    stage.within(20_000, lambda: stage.world.done(job), "C5")
    return stage.broken()


def audited() -> set[str]:
    stage = Stage()
    job = stage.world.submit(Wish(runs_ms=1_000))
    stage.world.until(lambda: stage.world.done(job), 20_000)
    told = [row.new for row in stage.world.storage.store.story(f"{job}.0")]
    stage.expect(told == ["assigned", "running", "succeeded"], "I10")
    return stage.broken()


def rogue() -> set[str]:
    """Somebody has d1's password and speaks and listens in the name of d0."""
    stage = Stage()
    wants = (f"fm/1/{FLEET}/d0/+", "#")
    stage.world.network.rogue("d1", says=tuple(forgeries(FLEET, "d0")), wants=wants)
    stage.world.advance(10_000)
    stage.expect(not stage.world.network.leaks(), "I13")
    return stage.broken()


def lost_twice_in_deafness() -> set[str]:
    """A device is lost, returns and is lost again while nothing may move: its work is moved once."""
    stage = Stage()
    task = stage.run_on("d0", Wish(guarantee=EAGER))
    stage.controller_ear.drop("canary")
    for _ in range(2):
        stage.world.advance(30_000)
        stage.world.network.cut("d0")
        stage.world.until(lambda: stage.world.state("d0") == "offline", 120_000)
        stage.world.advance(5_000)
        if not stage.starts(task)[1:]:
            stage.world.network.heal("d0")
            stage.world.until(lambda: stage.world.state("d0") == "online", 60_000)
    stage.world.network.cut("d0")
    stage.world.until(lambda: stage.world.state("d0") == "offline", 120_000)
    stage.controller_ear.clear()
    stage.within(90_000, lambda: stage.starts(task) == [1, 2], "C4")
    stage.expect(stage.world.core.ledger.counters["failovers"] == 1, "C4")
    return stage.broken()
