"""Stories about leaders and their database: backups, take-overs, two who think they lead."""

from __future__ import annotations

from stories_controller import session_of
from storyboard import HOLD, Stage

from protocol.limits import LEADER_GAP_MS
from protocol.messages import NO_REVISION, Heartbeat, Held, Revision, Settings
from protocol.tasks import Guarantee
from sim.clockwork import START_MS
from sim.world import Wish

DAY_S = 86_400


# ------------------------------------------------------------- an older database


def task_that_moved(marked: bool) -> tuple[Stage, str]:
    """Since the backup the task has moved: what is put back knows attempt 1 of it, number 2 runs."""
    stage = Stage(devices=3)
    task = stage.run_on("d0")
    stage.world.advance(3_000)
    stage.world.backup()
    stage.world.devices["d0"].reboot()
    stage.world.until(lambda: stage.alive(task), 30_000)
    stage.world.advance(3_000)
    stage.world.restore_backup(marked=marked)
    return stage, task


def backup_unmarked() -> set[str]:
    """Nobody says that it is a copy: the revisions that devices hold do."""
    stage, task = task_that_moved(marked=False)
    epoch = stage.world.core.ledger.epoch
    stage.within(30_000, lambda: stage.world.core.ledger.alarms.get("old_database"), "D1")
    stage.expect(stage.world.core.ledger.epoch > epoch, "D1")
    stage.within(3 * HOLD, lambda: len(stage.world.running(task)) == 1, "I11")
    return stage.broken()


def backup_of_a_task_that_moved() -> set[str]:
    """R3: the numbers of then must not be handed out again."""
    stage, task = task_that_moved(marked=True)
    stage.within(4 * HOLD, lambda: len(stage.starts(task)) > 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def report_of_before_a_restore() -> set[str]:
    """What was said while a run of the backup still lived comes after the restore; it has ended since."""
    stage = Stage(devices=3)
    world, ear = stage.world, stage.controller_ear
    device = world.devices["d0"]
    stage.run_on("d0", Wish(runs_ms=20_000, guarantee=Guarantee.AT_LEAST_ONE))
    world.advance(2_000)
    world.backup()
    device.kill_agent()
    device.start_agent()
    world.advance(5_000)
    report, beat = ear.last("runs", "d0"), ear.last("heartbeat", "d0")
    stage.expect(report.message.entries, "the report shows the run")
    world.advance(30_000)
    world.network.cut("d0")
    world.restart_broker()
    world.restore_backup(marked=True)
    world.advance(3_000)
    ear.say(report)
    ear.say(beat)
    world.network.heal("d0")
    world.advance(3 * HOLD)
    stage.expect(world.ready("d0"), "I11")
    return stage.broken()


def cancelled_while_nobody_could_be_told() -> set[str]:
    """Its device holds an invitation without a grant, and stays away.

    One leader takes the attempt out, the next one frees it after its hold; neither could tell the device.
    """
    stage = Stage(devices=3)
    world = stage.world
    stage.shut_others("d0")
    stage.ear("d0").drop("lease")
    job = world.submit()
    world.advance(8_000)
    told = stage.controller_ear.last("heartbeat", "d0").message.held.assignments
    fleet = world.core.ledger.fleet
    stage.expect(told == fleet.document(fleet.index["d0"]) != NO_REVISION, "it holds the invitation")
    stage.expect(not stage.starts(f"{job}.0"), "nothing was granted")
    world.backup()
    world.network.cut("d0")
    world.restore_backup(marked=True)
    world.cancel(job)
    world.advance(3_000)
    stage.restart_controller()
    stage.within(2 * HOLD, lambda: world.done(job), "I11")
    stage.ear("d0").clear()
    world.network.heal("d0")
    stage.within(HOLD, lambda: world.ready("d0"), "I11")
    world.advance(HOLD)
    return stage.broken()


def backup_of_a_pending_task(marked: bool, older_ms: int = 0) -> tuple[Stage, str]:
    """R1: in the backup nothing holds the task; when it is put back, it runs on a device that is cut off."""
    stage = Stage(devices=3)
    for device in ("d0", "d1", "d2"):
        stage.world.decide(device, "cordon")
    task = f"{stage.world.submit()}.0"
    stage.world.advance(2_000)
    stage.world.backup()
    stage.world.advance(older_ms)
    stage.world.decide("d1", "uncordon")
    stage.world.until(lambda: stage.alive(task), 20_000)
    stage.beat("d1")
    stage.world.network.cut("d1")
    stage.world.restore_backup(marked=marked)
    for device in ("d0", "d2"):
        stage.world.decide(device, "uncordon")
    return stage, task


def backup_marked() -> set[str]:
    stage, task = backup_of_a_pending_task(marked=True)
    stage.within(3 * HOLD, lambda: len(stage.starts(task)) == 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def backup_with_a_stale_row() -> set[str]:
    """Nobody marked it; but its leader's row is older than any leader's."""
    stage, task = backup_of_a_pending_task(marked=False, older_ms=LEADER_GAP_MS + 1_000)
    stage.world.advance(25_000)
    stage.expect(len(stage.starts(task)) == 1, "L6")
    stage.within(2 * HOLD, lambda: len(stage.starts(task)) == 2, "I11")
    return stage.broken()


def backup_marked_and_take_over() -> set[str]:
    """R2: another leader comes five seconds into the wait."""
    stage, task = backup_of_a_pending_task(marked=True)
    stage.world.advance(5_000)
    stage.restart_controller()
    stage.within(3 * HOLD, lambda: len(stage.starts(task)) == 2, "I11")
    stage.world.advance(5_000)
    return stage.broken()


def epoch_used_twice() -> set[str]:
    """The leadership after the backup had the epoch that the next one would count."""
    stage = Stage()
    stage.run_on("d0", Wish(runs_ms=1_000))
    stage.world.advance(3_000)
    stage.world.backup()
    stage.restart_controller()
    stage.world.until(lambda: stage.world.ready("d0"), 60_000)
    for _ in range(4):
        stage.run_on("d0", Wish(runs_ms=1_000))
        stage.world.advance(3_000)
    stage.world.restore_backup(marked=False)
    stage.world.advance(2 * HOLD)
    stage.shut_others("d0")
    task = f"{stage.world.submit()}.0"
    stage.within(2 * HOLD, lambda: stage.alive(task), "I11")
    return stage.broken()


# ------------------------------------------------------------- devices that invent revisions


def invent(stage: Stage, ahead_s: int) -> None:
    """d0 names a document of an epoch that nobody led."""
    session, epoch = session_of(stage, "d0"), stage.world.core.ledger.epoch
    held = Held(epoch + ahead_s, 1, 1, 1, 0, 0)
    stage.controller_ear.tell("d0", Heartbeat(session, 1_000_000, held))
    stage.world.advance(10_000)


def invented_revision() -> set[str]:
    stage = Stage()
    was = stage.world.core.ledger.epoch
    invent(stage, 2**60)
    stage.expect(stage.world.core.ledger.epoch < was + DAY_S, "epoch")
    return stage.broken()


def invented_twice() -> set[str]:
    stage = Stage()
    before = stage.world.controller.takeovers
    invent(stage, 1_000)
    invent(stage, 1_000)
    stage.expect(stage.world.controller.takeovers <= before + 1, "waits")
    return stage.broken()


# ------------------------------------------------------------- two leaders


def heartbeats(stage: Stage, controller: str) -> int:
    return sum(1 for x in stage.ear(controller).heard if x.topic.endswith("d0/heartbeat"))


def speaks_late(heard: bool) -> set[str]:
    """The first leader stands still until a second has taken over; waking, just before the broker
    gives its connection up, it reads a heartbeat of d0 before it looks at the clock. The second
    hears d0's heartbeats and no report of it, so it grants nothing; what it says to d0 is lost on
    the way, unless `heard`. Then d0 is cut off.
    """
    stage = Stage(controllers=2)
    first, second = stage.world.controllers
    second.start()
    for device in stage.world.devices.values():
        device.set_rate(0)
    task = stage.run_on("d0", Wish(stop_grace_ms=0))
    # Just before it renews, and just after it spoke: so the broker keeps its connection for long.
    stage.world.advance(START_MS + 20_950 - stage.world.now_ms)
    first.pause()
    stage.ear(second.client).drop("runs", device="d0")
    stage.world.until(lambda: second.leads, 30_000, "a second leader")
    epoch = second.epoch
    stage.ear("d0").drop("lease", when=lambda m: m.epoch == epoch)
    stage.ear("d0").drop("assignments", "settings")
    if heard:
        stage.ear("d0").tell("d0", Settings(Revision(second.epoch, 1)))
    stage.world.advance(START_MS + 33_500 - stage.world.now_ms)
    before = heartbeats(stage, second.client)
    stage.world.until(lambda: heartbeats(stage, second.client) > before, 5_000, "a heartbeat")
    stage.world.advance(6)
    first._rng.random = lambda: 1.0  # the socket is read before the clock
    first.resume()
    stage.world.advance(100)
    first.kill()
    stage.world.network.cut("d0")
    stage.within(3 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    stage.world.advance(5_000)
    return stage.broken()


def two_leaders() -> set[str]:
    return speaks_late(False)


def two_leaders_heard() -> set[str]:
    return speaks_late(True)


def two_leaders_place() -> set[str]:
    """H11: the first leader wakes and hands out the number that the second has handed out."""
    stage = Stage(devices=3, controllers=2)
    first, second = stage.world.controllers
    for device in stage.world.devices:
        stage.world.decide(device, "cordon")
    task = f"{stage.world.submit()}.0"
    stage.world.advance(2_000)
    first.pause()
    second.start()
    stage.world.until(lambda: second.leads, 30_000)
    stage.world.decide("d1", "uncordon")
    stage.world.until(lambda: stage.alive(task), 60_000)
    core = first.core
    assert core is not None
    for name in ("d0", "d2"):
        core.ledger.fleet.records[core.ledger.fleet.index[name]].cordoned = False
        core.ledger.fleet.decide(core.ledger.fleet.index[name])
    core.ledger.fleet.hear_all(first.local_ms())
    core.placement.due_ms = first.local_ms()
    first.resume()
    stage.world.advance(5_000)
    return stage.broken()


def refused_save() -> set[str]:
    """A job is submitted while nothing can be saved: nobody may be told that it is accepted."""
    stage = Stage()
    stage.world.advance(3_000)
    stage.world.storage.fails = True
    job = stage.world.submit()
    stage.world.advance(2_000)
    stage.world.storage.fails = False
    stage.world.advance(10_000)
    stage.expect(job not in stage.world.checkers.accepted or stage.world.tasks(job), "I2")
    return stage.broken()
