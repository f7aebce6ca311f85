"""Stories about devices that return while a successor runs: which of two runs stays (C6)."""

from __future__ import annotations

from storyboard import EAGER, Stage

from controller.core.records import JobRules
from protocol.tasks import TaskState
from sim.world import Wish


def lost(rule: str = "keep_original", runs_ms: int = 0) -> tuple[Stage, str]:
    """Attempt 1 goes on on d0, which is cut off; attempt 2 runs on d1."""
    stage = Stage()
    wish = Wish(guarantee=EAGER, runs_ms=runs_ms, rules=JobRules(on_return=rule))
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
