"""Stories about devices that return while a successor runs: which of two runs stays (C6)."""

from __future__ import annotations

from storyboard import EAGER, Stage

from controller.core.records import AttemptState, JobRules
from protocol.resources import Resources
from protocol.tasks import AttemptId, TaskState
from sim.world import ROOM, Wish


def lost(
    rule: str = "keep_original", runs_ms: int = 0, exit_code: int = 0, stage: Stage | None = None
) -> tuple[Stage, str]:
    """Attempt 1 goes on on d0, which is cut off; attempt 2 runs on d1."""
    stage = stage or Stage()
    wish = Wish(guarantee=EAGER, runs_ms=runs_ms, exit_code=exit_code, rules=JobRules(on_return=rule))
    task = stage.run_on("d0", wish)
    stage.world.advance(5_000)
    stage.world.network.cut("d0")
    stage.world.until(lambda: ("d1", 2) in stage.world.running(task), 90_000)
    stage.world.advance(2_000)
    return stage, task


def stays(stage: Stage, task: str, device: str, attempt: int) -> None:
    """This run alone lives, and is what the task is said to be; also half a minute later."""
    world = stage.world

    def so() -> bool:
        row = world.task(task)
        said = (row.state, row.device, row.attempt) == (TaskState.RUNNING, device, attempt)
        return said and world.running(task) == [(device, attempt)]

    if stage.within(90_000, so, "C6"):
        world.advance(30_000)
        stage.expect(so(), "C6")


def original_returns() -> set[str]:
    stage, task = lost()
    stage.expect(sorted(stage.world.running(task)) == [("d0", 1), ("d1", 2)], "C6")
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    return stage.broken()


def original_returns_after_a_restart() -> set[str]:
    stage, task = lost()
    stage.restart_controller()
    stage.world.until(lambda: stage.world.ready("d1"), 60_000)
    stage.world.advance(5_000)
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    return stage.broken()


def original_returns_and_is_lost_again() -> set[str]:
    stage, task = lost()
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    stage.world.network.cut("d0")
    stage.within(120_000, lambda: ("d1", 3) in stage.world.running(task), "C6")
    return stage.broken()


def newest_stays() -> set[str]:
    stage, task = lost("newest")
    stage.world.network.heal("d0")
    stays(stage, task, "d1", 2)
    return stage.broken()


def done_while_away() -> set[str]:
    """The elder ends well where nobody hears it: that is the result, and the successor ends."""
    stage, task = lost(runs_ms=90_000)
    stage.world.until(lambda: ("d0", 1) not in stage.world.running(task), 120_000)
    stage.expect(stage.world.running(task) == [("d1", 2)], "C6")
    stage.world.network.heal("d0")
    stage.within(30_000, lambda: stage.world.task(task).state is TaskState.SUCCEEDED, "C6")
    stage.expect(stage.world.task(task).attempt == 1, "C6")
    stage.within(60_000, lambda: not stage.world.running(task), "I11")
    return stage.broken()


def report_of_the_dead() -> set[str]:
    """What a dead device said of a run comes late: the run that lives stays."""
    stage = Stage()
    wish = Wish(guarantee=EAGER, rules=JobRules(on_return="keep_original"))
    stage.controller_ear.hold("runs", device="d0", when=lambda runs: runs.entries)
    task = stage.run_on("d0", wish)
    stage.world.advance(5_000)
    stage.world.devices["d0"].power_off()
    stage.world.until(lambda: ("d1", 2) in stage.world.running(task), 90_000)
    stage.world.advance(2_000)
    stage.controller_ear.release()
    stays(stage, task, "d1", 2)
    return stage.broken()


def cancelled_while_two_live() -> set[str]:
    stage, task = lost()
    stage.world.cancel(task.partition(".")[0])
    stage.world.network.heal("d0")
    stage.within(60_000, lambda: not stage.world.running(task), "I7")
    stage.expect(stage.world.task(task).state is TaskState.CANCELLED, "I7")
    return stage.broken()


# ------------------------------------------------------------- what may not be chosen


def forgotten_while_away() -> set[str]:
    """The device is back without its journal, and lists nothing, as its document comes late: what runs
    elsewhere stays."""
    stage, task = lost()
    device = stage.world.devices["d0"]
    device.power_off()
    device.wipe_journal()
    stage.ear("d0").drop("assignments", times=1)
    stage.world.network.heal("d0")
    device.boot()
    stays(stage, task, "d1", 2)
    return stage.broken()


def drained_while_away() -> set[str]:
    stage, task = lost()
    stage.world.decide("d0", "drain")
    stage.world.network.heal("d0")
    stays(stage, task, "d1", 2)
    return stage.broken()


def lost_and_lost_again() -> set[str]:
    """Of a second loss the newer leaves: the task has one elder, and it is the first."""
    stage, task = lost(stage=Stage(devices=3))
    stage.world.network.cut("d1")
    stage.world.until(lambda: ("d2", 3) in stage.world.running(task), 90_000)
    stage.world.network.heal("d1")
    stage.within(60_000, lambda: sorted(stage.world.running(task)) == [("d0", 1), ("d2", 3)], "C6")
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    return stage.broken()


def quarantined_while_away() -> set[str]:
    """While two are suspected behind one name neither is chosen; the operator's word ends that."""
    stage, task = lost()
    core = stage.world.core
    core.operators.quarantine(core.ledger.fleet.index["d0"], stage.world.now_ms)
    stage.world.network.heal("d0")
    stage.world.advance(40_000)
    row = stage.world.task(task)
    stage.expect((row.state, row.device, row.attempt) == (TaskState.RUNNING, "d1", 2), "C6")
    stage.world.decide("d0", "uncordon")
    stays(stage, task, "d0", 1)
    return stage.broken()


def failed_while_away() -> set[str]:
    """The elder fails where nobody hears it: that is no result, and its successor goes on."""
    stage, task = lost(runs_ms=60_000, exit_code=1)
    stage.world.until(lambda: ("d0", 1) not in stage.world.running(task), 120_000)
    stage.expect(stage.world.running(task) == [("d1", 2)], "C6")
    stage.world.network.heal("d0")
    key = AttemptId(task, 1)
    stage.within(30_000, lambda: stage.world.checkers.attempts[key].state is AttemptState.FREE, "C6")
    row = stage.world.task(task)
    stage.expect((row.state, row.device, row.attempt) == (TaskState.RUNNING, "d1", 2), "C6")
    return stage.broken()


# ------------------------------------------------------------- how each rule chooses


def successor_not_seen_to_start() -> set[str]:
    """Its job prefers the successor; but a start that nobody saw is saved."""
    stage = Stage()
    stage.controller_ear.hold("runs", device="d1", when=lambda runs: runs.entries)
    stage, task = lost("best_score", stage=stage)
    stage.world.network.heal("d0")
    stage.within(60_000, lambda: stage.world.task(task).attempt == 1, "C6")
    stage.controller_ear.release()
    stays(stage, task, "d0", 1)
    return stage.broken()


def longest_returns() -> set[str]:
    stage, task = lost("longest_running")
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    return stage.broken()


def longest_returns_after_a_restart() -> set[str]:
    """Of two that were seen to start before a take-over nothing is known but their order."""
    stage, task = lost("longest_running")
    stage.restart_controller()
    stage.world.until(lambda: stage.world.ready("d1"), 60_000)
    stage.world.advance(5_000)
    stage.world.network.heal("d0")
    stays(stage, task, "d0", 1)
    return stage.broken()


def elder_not_seen_to_start() -> set[str]:
    stage = Stage()
    stage.controller_ear.hold("runs", device="d0", when=lambda runs: runs.entries)
    stage, task = lost("longest_running", stage=stage)
    stage.controller_ear.clear()
    stage.world.network.heal("d0")
    stays(stage, task, "d1", 2)
    return stage.broken()


def of_different_rooms(first: int, second: int, taken: int = 0) -> tuple[Stage, str]:
    """Of so many thousandths of a processor, some of d0 taken; the higher score is to stay."""
    stage = Stage(rooms=tuple(ROOM._replace(cpu_milli=cpu) for cpu in (first, second)))
    if taken:
        stage.run_on("d0", Wish(needs=Resources(taken, 10)))
    stage, task = lost("best_score", stage=stage)
    stage.world.network.heal("d0")
    return stage, task


def better_place_returns() -> set[str]:
    stage, task = of_different_rooms(8_000, 2_000)
    stays(stage, task, "d0", 1)
    return stage.broken()


def worse_place_returns() -> set[str]:
    stage, task = of_different_rooms(2_000, 8_000)
    stays(stage, task, "d1", 2)
    return stage.broken()


def fuller_place_returns() -> set[str]:
    """Without the two d0 is fuller; with them it would be d1, which the successor fills by half."""
    stage, task = of_different_rooms(4_000, 2_000, taken=1_500)
    stays(stage, task, "d1", 2)
    return stage.broken()
