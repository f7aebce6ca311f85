"""Stories about a controller: what it believes, grants, frees and moves."""

from __future__ import annotations

from storyboard import EAGER, HOLD, Stage

from protocol.messages import Heartbeat, Held, Revision, Runs, Status
from protocol.resources import Resources
from protocol.tasks import TaskState
from sim.network import Weather
from sim.world import Wish

STEP = 1 << 24
"""From one session to the next."""


def session_of(stage: Stage, device: str) -> int:
    fleet = stage.world.core.ledger.fleet
    return int(fleet.session[fleet.index[device]])


def identity_of(stage: Stage, device: str) -> tuple[str, str]:
    record = stage.world.core.ledger.fleet.records[stage.world.core.ledger.fleet.index[device]]
    return record.boot_id, record.instance_id


def ended(message) -> bool:
    return any(e.state.value >= 4 for e in message.entries)


# ------------------------------------------------------------- sessions and liveness


def old_heartbeats_of_a_dead_device() -> set[str]:
    """Heartbeats of the session before come late, when the device is long dead."""
    stage = Stage()
    ear, world = stage.controller_ear, stage.world
    world.advance(12_000)
    old = [letter for letter in ear.heard if letter.topic.endswith("d0/heartbeat")]
    world.devices["d0"].kill_agent()
    world.devices["d0"].start_agent()
    world.until(lambda: world.ready("d0"), 20_000)
    world.advance(5_000)
    world.devices["d0"].kill()
    for _ in range(14):
        world.advance(5_000)
        ear.say(old[-1])
    stage.expect(world.state("d0") == "offline", "I9")
    return stage.broken()


def impossible_session() -> set[str]:
    """One false message must not use up the numbers of a device."""
    stage = Stage(devices=1)
    stage.controller_ear.tell("d0", Status(True, 2**64 - 1, "boot", "instance"))
    stage.world.advance(5_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def interrupted_report(stage: Stage, task: str):
    """The guard dies; the report of it stays in the broker; then the device loses its journal."""
    ear, device = stage.controller_ear, stage.world.devices["d0"]
    ear.hold("runs", device="d0", when=ended)
    device.kill_guard()
    stage.world.until(lambda: ear.held, 10_000)
    letter = ear.held[0]
    device.power_off()
    device.wipe_journal()
    ear.clear()
    device.boot()
    return letter


def old_runs_without_restart() -> set[str]:
    """What the session before said of an attempt's end is heard when it perhaps runs again."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    letter = interrupted_report(stage, task)
    stage.world.advance(5_000)
    stage.controller_ear.say(letter)
    stage.world.advance(5_000)
    stage.within(2 * HOLD, lambda: stage.alive(task), "I11")
    return stage.broken()


def old_runs_after_a_restart() -> set[str]:
    """H4b: as before, and the controller restarts in between."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    letter = interrupted_report(stage, task)
    stage.world.advance(5_000)
    stage.controller_ear.hold("runs", "status", "heartbeat", "inventory", device="d0")
    stage.ear("d0").hold("assignments")
    stage.restart_controller()
    stage.world.until(lambda: stage.world.ready("d1"), 15_000)
    stage.controller_ear.say(letter)
    stage.world.advance(10_000)
    stage.controller_ear.release()
    stage.ear("d0").release()
    stage.within(2 * HOLD, lambda: stage.alive(task), "I11")
    return stage.broken()


def silent_death() -> set[str]:
    """A device dies, and no will tells of it."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.controller_ear.drop("status", device="d0")
    stage.world.devices["d0"].power_off()
    stage.world.advance(60_000)
    stage.expect(stage.world.state("d0") == "offline", "I9")
    stage.within(30_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def wrong_will() -> set[str]:
    """A broker says the will of a session that lives."""
    stage = Stage(devices=1)
    boot, instance = identity_of(stage, "d0")
    stage.controller_ear.tell("d0", Status(False, session_of(stage, "d0"), boot, instance, "will"))
    stage.world.advance(20_000)
    task = f"{stage.world.submit()}.0"
    stage.within(30_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def eager_successor() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0", Wish(guarantee=EAGER))
    stage.world.advance(10_000)
    stage.world.devices["d0"].kill()
    stage.within(1_500, lambda: stage.world.running(task) == [("d1", 2)], "slow")
    return stage.broken()


# ------------------------------------------------------------- one identity twice


def clone_speaks() -> set[str]:
    """The device is cut off while it runs; a copy of its card speaks in its name, and lists nothing."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    ear, ledger = stage.controller_ear, stage.world.core.ledger
    own, clone, session = identity_of(stage, "d0"), ("boot", "clone"), session_of(stage, "d0")
    for number, who in enumerate((clone, own, clone), 1):
        ear.tell("d0", Status(True, session + number * STEP, *who))
    session += 3 * STEP
    ear.tell("d0", Runs(session, 1, Revision(ledger.epoch, 0)))
    row = ledger.fleet.index["d0"]
    for beat in range(2, 5):
        held = ledger.fleet.document(row)
        ear.tell("d0", Heartbeat(session, beat, Held(*held, beat - 1, 0, 0, 0)))
        stage.world.advance(300)
        ear.tell("d0", Runs(session, beat, ledger.fleet.document(row)))
        stage.world.advance(300)
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def quarantined(stage: Stage, device: str) -> None:
    own, session = identity_of(stage, device), session_of(stage, device)
    for number, who in enumerate((("boot", "clone"), own, ("boot", "clone")), 1):
        stage.controller_ear.tell(device, Status(True, session + number * STEP, *who))
    row = stage.world.core.ledger.fleet.index[device]
    assert stage.world.core.ledger.fleet.quarantined[row]


def work_after_quarantine() -> set[str]:
    stage = Stage()
    quarantined(stage, "d0")
    stage.world.advance(HOLD + 10_000)
    stage.world.decide("d1", "cordon")
    stage.world.submit(Wish(count=2))
    stage.world.advance(20_000)
    return stage.broken()


def reboot_and_return() -> set[str]:
    stage = Stage(devices=1)
    for _ in range(3):
        stage.world.advance(5_000)
        stage.world.devices["d0"].reboot()
    stage.world.advance(20_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def will_of_a_lost_life() -> set[str]:
    """A life that was never heard of, and after it the journal is lost: its will comes late, with a
    session above that of the life that followed."""
    stage = Stage(devices=1)
    device, session = stage.world.devices["d0"], session_of(stage, "d0")
    boot, instance = identity_of(stage, "d0")
    device.power_off()
    device.wipe_journal()
    device.boot()
    stage.world.advance(10_000)
    stage.controller_ear.tell("d0", Status(False, session + 40 * STEP, boot, instance, "will"))
    stage.world.advance(20_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def ends_in_quarantine() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0", Wish(runs_ms=30_000, guarantee=EAGER))
    stage.world.advance(5_000)
    core = stage.world.core
    core.operators.quarantine(core.ledger.fleet.index["d0"], stage.world.now_ms)
    stage.world.advance(40_000)
    stage.world.decide("d0", "uncordon")
    stage.within(30_000, lambda: stage.world.task(task).state is TaskState.SUCCEEDED, "I11")
    return stage.broken()


# ------------------------------------------------------------- documents and grants


def document_lost() -> set[str]:
    stage = Stage(devices=1)
    stage.ear("d0").drop("assignments", times=1)
    task = f"{stage.world.submit()}.0"
    stage.within(30_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def churn() -> set[str]:
    """Something changes each half second, and every way takes two."""
    stage = Stage(devices=1, rooms=(Resources(200_000, 90_000, 100, 0),))
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.world.network.weather = Weather((1_900, 2_000))
    for _ in range(100):
        stage.world.submit(Wish(runs_ms=300))
        stage.world.advance(500)
    stage.expect(stage.world.running(task) == [("d0", 1)], "lease_lost")
    return stage.broken()


def removal_lost() -> set[str]:
    """The document that takes a task away does not arrive; the device beats on."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    stage.ear("d0").hold("assignments")
    stage.world.decide("d0", "drain")
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    stage.world.advance(10_000)
    stage.ear("d0").release()
    stage.world.advance(10_000)
    return stage.broken()


def removed_while_cut() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.world.decide("d0", "drain")
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def lost_journal_and_power() -> set[str]:
    """H4: a device forgets that it ran the attempt which its retained document still names."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    device = stage.world.devices["d0"]
    device.power_off()
    device.wipe_journal()
    stage.controller_ear.hold("runs", device="d0")
    device.boot()
    stage.world.advance(8_000)
    stage.controller_ear.release()
    stage.within(2 * HOLD, lambda: 2 in stage.starts(task), "I11")
    return stage.broken()


def lost_journal_and_take_over() -> set[str]:
    """As before; the controller restarts after it has heard of the new session, and before its report."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    device = stage.world.devices["d0"]
    device.power_off()
    device.wipe_journal()
    stage.controller_ear.hold("runs", device="d0")
    device.boot()
    stage.world.advance(3_000)
    stage.restart_controller()
    stage.world.advance(2_000)
    stage.controller_ear.release()
    stage.within(3 * HOLD, lambda: 2 in stage.starts(task), "I11")
    return stage.broken()


def old_runs_of_this_session() -> set[str]:
    """After a take-over the first report that comes is a copy from before the attempt was assigned."""
    stage = Stage()
    stage.world.advance(3_000)
    copy = stage.controller_ear.last("runs", "d0")
    task = stage.run_on("d0")
    stage.world.advance(5_000)
    ear = stage.controller_ear
    stage.beat("d0")
    ear.hold("runs", device="d0")
    stage.restart_controller()
    stage.world.advance(500)
    ear.say(copy)
    stage.world.advance(12_000)
    ear.release()
    stage.world.advance(60_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


# ------------------------------------------------------------- holds


def old_runs_after_removal() -> set[str]:
    """A report from before the attempt was assigned comes after its removal, while it is being stopped."""
    stage = Stage()
    stage.run_on("d0", Wish(runs_ms=1_000))
    stage.world.advance(5_000)
    copy = stage.controller_ear.last("runs", "d0", when=lambda m: not m.entries)
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.world.decide("d0", "drain")
    stage.controller_ear.say(copy)
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def old_runs() -> set[str]:
    stage = Stage()
    stage.run_on("d0", Wish(runs_ms=1_000))
    stage.world.advance(5_000)
    copy = stage.controller_ear.last("runs", "d0", when=lambda m: not m.entries)
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.controller_ear.say(copy)
    stage.within(2 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def eager_cancel() -> set[str]:
    """Cancelled while its device is cut off: it counts as stopping until that device says so."""
    stage = Stage()
    task = stage.run_on("d0", Wish(guarantee=EAGER))
    stage.world.advance(5_000)
    stage.world.network.cut("d0")
    stage.world.cancel(task.partition(".")[0])
    stage.world.advance(2 * HOLD)
    over = stage.world.task(task).state is TaskState.CANCELLED
    stage.expect(not (over and stage.alive(task)), "I7")
    return stage.broken()


def cut_and_take_over() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.restart_controller()
    stage.within(3 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def removed_and_take_over() -> set[str]:
    stage = Stage()
    task = stage.run_on("d0")
    stage.beat("d0")
    stage.world.network.cut("d0")
    stage.world.decide("d0", "drain")
    stage.world.advance(500)
    stage.restart_controller()
    stage.within(3 * HOLD, lambda: ("d1", 2) in stage.world.running(task), "I11")
    return stage.broken()


def cordon_before_the_document() -> set[str]:
    """H8: the document is on its way when the cordon is committed, and takes longer than a hold."""
    stage = Stage()
    stage.ear("d0").hold("assignments", when=lambda m: m.attempts)
    task = stage.run_on("d0", wait=False)
    stage.world.decide("d0", "cordon")
    stage.world.advance(HOLD + 5_000)
    stage.ear("d0").release()
    stage.within(2 * HOLD, lambda: stage.alive(task), "I11")
    stage.world.advance(5_000)
    return stage.broken()
