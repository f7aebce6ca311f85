"""Stories about a device's runs: its journal, its guard, and how both may be lost."""

from __future__ import annotations

from stories_device import granted, says_ended
from storyboard import EAGER, HOLD, Stage

from edge_agent.core.events import HostListed, HostLost
from protocol.resources import Resources
from protocol.tasks import TaskState
from sim.world import Wish


def power_fails_at_the_start() -> set[str]:
    """The disk is slow; the power fails while the intent is being saved."""
    stage = Stage()
    device, ear = stage.world.devices["d0"], stage.ear("d0")
    ear.hold("lease")
    task = stage.run_on("d0", wait=False)
    stage.world.until(lambda: ear.held and granted(ear.held[-1].message), 20_000)
    device.disk.slow_ms, saved = 5_000, device.journal
    ear.release()
    stage.world.advance(1_000)
    device.power_off()
    device.disk.slow_ms, device.journal = 0, saved
    device.boot()
    stage.world.advance(2 * HOLD)
    stage.expect(stage.starts(task), "I11")
    return stage.broken()


def guard_dies_unnoticed() -> set[str]:
    """H12: the guard's death is read only after grants that lay in the socket."""
    stage = Stage()
    device = stage.world.devices["d0"]
    task = stage.run_on("d0")
    stage.world.advance(3_000)
    late: list[HostLost] = []
    device.feed = late.append
    device.kill_guard()
    stage.world.advance(12_000)
    del device.feed
    for event in late:
        device.feed(event)
    stage.world.advance(30_000)
    stage.expect(stage.alive(task), "I11")
    return stage.broken()


def agent_restarts() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    for _ in range(2):
        stage.world.advance(12_000)
        stage.world.devices["d0"].kill_agent()
        stage.world.devices["d0"].start_agent()
    stage.world.advance(20_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


def reboot() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.world.devices["d0"].reboot()
    stage.within(2 * HOLD, lambda: stage.alive(task), "I11")
    return stage.broken()


def without_journal(guarantee, slow_ms: int) -> set[str]:
    """The agent alone dies and its journal is lost; the guard is slow to tell what it runs."""
    stage = Stage()
    device = stage.world.devices["d0"]
    task = stage.run_on("d0", Wish(guarantee=guarantee) if guarantee else Wish())
    stage.world.advance(10_000)
    device.kill_agent()
    device.wipe_journal()
    device.start_agent()
    if slow_ms:
        hear, clock = device.process.feed, stage.world.clock

        def later(event):
            clock.after(slow_ms if isinstance(event, HostListed) else 0, lambda: hear(event))

        device.process.feed = later
    stage.world.advance(60_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


def slow_guard_and_no_journal() -> set[str]:
    return without_journal(EAGER, 3_000)


def slow_guard_and_no_journal_leased() -> set[str]:
    return without_journal(None, 3_000)


def lost_journal_alone() -> set[str]:
    return without_journal(None, 0)


def drain() -> set[str]:
    """Everything moves: no successor before its predecessor is dead."""
    stage = Stage(rooms=(Resources(20_000, 9_000, 100, 0),) * 2)
    stage.shut_others("d0")
    job = stage.world.submit(Wish(count=8))
    stage.world.until(lambda: len(stage.world.checkers.start_times) == 8)
    stage.world.decide("d1", "uncordon")
    stage.world.decide("d0", "drain")
    tasks = [task.id for task in stage.world.tasks(job)]
    stage.within(2 * HOLD, lambda: all(r and r[0][0] == "d1" for r in map(stage.world.running, tasks)), "I11")
    return stage.broken()


def old_copy(wish: Wish) -> tuple[Stage, str]:
    """Without a journal the agent meets an old copy of the document, from before the task came."""
    stage = Stage()
    device, ear = stage.world.devices["d0"], stage.ear("d0")
    stage.run_on("d0", Wish(runs_ms=1_000))
    stage.world.advance(5_000)
    copy = ear.last("assignments")
    task = stage.run_on("d0", wish)
    stage.world.advance(3_000)
    device.kill_agent()
    device.wipe_journal()
    ear.hold("assignments")
    device.start_agent()
    stage.world.advance(500)
    ear.say(copy)
    return stage, task


def old_copy_after_lost_journal() -> set[str]:
    stage, task = old_copy(Wish())
    stage.world.advance(5_000)
    stage.ear("d0").release()
    stage.world.advance(60_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


def ends_under_an_old_copy() -> set[str]:
    """H7: it ends while the device holds a document that does not name it."""
    stage, task = old_copy(Wish(runs_ms=9_000))
    stage.controller_ear.drop("runs", device="d0", when=says_ended)
    stage.world.advance(9_000)
    stage.expect(not stage.alive(task), "still alive")
    stage.controller_ear.clear()
    stage.ear("d0").release()
    stage.within(60_000, lambda: stage.world.task(task).state is TaskState.SUCCEEDED, "I11")
    stage.expect(stage.starts(task) == [1], "rerun")
    return stage.broken()


def steady_work() -> set[str]:
    stage = Stage(devices=1)
    for _ in range(12):
        stage.world.submit(Wish(runs_ms=400))
        stage.world.advance(2_500)
    stage.world.advance(20_000)
    stage.expect(not stage.world.devices["d0"].agent.memory.entries, "I14")
    return stage.broken()


def end_while_the_journal_fails() -> set[str]:
    stage = Stage(devices=1)
    job = stage.world.submit(Wish(runs_ms=5_000))
    stage.world.until(lambda: stage.alive(f"{job}.0"))
    stage.world.advance(2_000)
    stage.world.devices["d0"].journal_fails = True
    stage.within(30_000, lambda: stage.world.done(job), "I11")
    return stage.broken()


def cut() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(10_000)
    stage.world.network.cut("d0")
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def guard_dies() -> set[str]:
    """H14a: its runs end with it."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.world.devices["d0"].kill_guard()
    stage.within(60_000, lambda: len(stage.starts(task)) == 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def weak_guard_dies() -> set[str]:
    """G2: what it could not contain is swept before its successor says a word."""
    stage = Stage(begin=False)
    stage.world.devices["d0"].containment = "weak"
    stage.world.begin()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.world.devices["d0"].kill_guard(survivors=True)
    stage.within(2 * HOLD, lambda: len(stage.starts(task)) == 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def weak_guard_dies_cut_off() -> set[str]:
    """G1: nobody enforces the deadline until the next guard has swept, half a minute later."""
    stage = Stage(begin=False)
    device = stage.world.devices["d0"]
    device.containment = "weak"
    stage.world.begin()
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.world.advance(5_000)
    device.freeze()
    device.kill_guard(survivors=True)
    stage.world.advance(28_500)
    device.thaw()
    stage.within(2 * HOLD, lambda: len(stage.starts(task)) == 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def suspend() -> set[str]:
    """H9: a device sleeps longer than its hold, with its runs frozen."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    device = stage.world.devices["d0"]
    device.suspend(hook=True)
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    stage.world.advance(5_000)
    device.resume()
    stage.world.advance(10_000)
    return stage.broken()
