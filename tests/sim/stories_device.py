"""Stories about a device: its sessions, and late or lost letters to it and from it."""

from __future__ import annotations

from storyboard import HOLD, Stage

from protocol.messages import NO_REVISION, Settings
from protocol.tasks import RunState
from sim.world import Wish


def granted(message) -> bool:
    return message.granted != NO_REVISION


def says_ended(message) -> bool:
    return any(entry.state is RunState.ENDED for entry in message.entries)


def lists(task: str):
    """Documents and reports that list the task."""
    return lambda message: any(
        e.task == task for e in getattr(message, "attempts", None) or getattr(message, "entries", ())
    )


# ------------------------------------------------------------- sessions


def old_grant_after_lost_journal() -> set[str]:
    """A grant of the session before comes when the device has lost its journal and runs nothing."""
    stage = Stage()
    task = stage.run_on("d0")
    stage.world.advance(15_000)
    ear, device = stage.ear("d0"), stage.world.devices["d0"]
    old = [letter for letter in ear.heard if letter.topic.endswith("/lease") and granted(letter.message)]
    device.power_off()
    device.wipe_journal()
    ear.hold("lease")
    stage.controller_ear.hold("heartbeat", "runs", "status", device="d0")
    device.boot()
    stage.world.until(lambda: device.agent.memory.assignments.attempts, 20_000, "the retained document")
    for _ in range(5):
        stage.world.advance(2_000)
        for letter in old:
            ear.say(letter)
    ear.clear()
    stage.controller_ear.clear()
    stage.world.advance(20_000)
    stage.expect(1 in stage.starts(task), "nothing")
    return stage.broken()


def journal_fails_for_a_while() -> set[str]:
    """J1: an unsaved session starts nothing, but once a save succeeds it does."""
    stage = Stage(devices=1)
    device = stage.world.devices["d0"]
    device.kill_agent()
    device.journal_fails = True
    device.start_agent()
    stage.world.until(lambda: stage.world.state("d0") == "online", 30_000)
    task = f"{stage.world.submit()}.0"
    stage.world.advance(20_000)
    stage.expect(not stage.starts(task), "S1")
    device.journal_fails = False
    stage.within(3 * HOLD, lambda: stage.alive(task), "I11")
    return stage.broken()


def impossible_floor() -> set[str]:
    """Somebody's `Settings` leave no number above them."""
    stage = Stage(devices=1)
    epoch = stage.world.core.ledger.epoch
    stage.ear("d0").tell("d0", Settings((epoch, 1_000), 2**64 - 1))
    stage.world.advance(5_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def journal_of_long_ago() -> set[str]:
    """A device below the floor; the first `Settings` that tell it so is lost."""
    stage = Stage(devices=1)
    device, ear = stage.world.devices["d0"], stage.ear("d0")
    image = device.journal
    for _ in range(4):
        device.kill_agent()
        device.start_agent()
        stage.world.advance(3_000)
    device.kill_agent()
    device.journal = image
    ear.drop("settings", times=1)
    device.start_agent()
    stage.world.advance(15_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


def broker_blip() -> set[str]:
    """The broker is away for five seconds: no healthy run may end."""
    stage = Stage(devices=6)
    stage.world.submit(Wish(count=12))
    stage.world.until(lambda: len(stage.world.checkers.start_times) == 12)
    for wait_ms in (40_000, 43_000, 47_000):
        stage.world.advance(wait_ms)
        stage.world.restart_broker(down_ms=5_000)
    stage.world.advance(60_000)
    stage.expect(len(stage.world.checkers.start_times) == 12, "lease_lost")
    return stage.broken()


def reconnect() -> set[str]:
    stage = Stage(devices=1, begin=False)
    stage.world.controller.start()
    stage.world.devices["d0"].boot()
    stage.world.advance(10_000)
    task = f"{stage.world.submit()}.0"
    stage.within(60_000, lambda: stage.alive(task), "I11")
    return stage.broken()


# ------------------------------------------------------------- documents and grants


def old_document_and_its_grant() -> set[str]:
    """A copy of the document before, and after it the grant that was on its way then."""
    stage = Stage()
    ear = stage.ear("d0")
    task = stage.run_on("d0")
    ear.hold("lease")
    stage.world.until(lambda: ear.held and granted(ear.held[-1].message), 20_000)
    document, grant = ear.last("assignments", when=lists(task)), ear.held[-1]
    ear.clear()
    stage.world.decide("d0", "drain")
    stage.world.until(lambda: stage.world.running(task) == [("d1", 2)], 20_000)
    stage.world.until(lambda: not stage.world.devices["d0"].agent.memory.entries, 20_000)
    ear.say(document)
    ear.say(grant)
    stage.world.advance(20_000)
    return stage.broken()


def old_document() -> set[str]:
    """A broker that was rolled back retains a document of before: this week's work goes on."""
    stage = Stage(devices=1)
    stage.run_on("d0", Wish(runs_ms=1_000))
    stage.world.advance(5_000)
    empty = stage.ear("d0").last("assignments")
    task = stage.run_on("d0")
    stage.ear("d0").say(empty)
    stage.world.advance(60_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


def document_comes_late() -> set[str]:
    """The document waits in the broker; meanwhile its task was given to somebody else."""
    stage = Stage()
    ear = stage.ear("d0")
    ear.hold("assignments", when=lambda m: m.attempts)
    task = stage.run_on("d0", wait=False)
    stage.world.advance(1_000)
    ear.hold("assignments")
    stage.world.decide("d0", "cordon")
    stage.world.until(lambda: stage.world.running(task) == [("d1", 2)], 2 * HOLD)
    ear.say(ear.held.pop(0))
    stage.world.advance(200)
    ear.release()
    stage.world.advance(20_000)
    return stage.broken()


def grant_of_the_revision_before() -> set[str]:
    """The grant of R1 comes when the device holds R2; no grant for R2 was ever given."""
    stage = Stage()
    ear = stage.ear("d0")
    stage.run_on("d0")
    stage.world.advance(3_000)
    ear.hold("lease")
    stage.world.until(lambda: ear.held and granted(ear.held[-1].message), 20_000)
    grant = ear.held[-1]
    stage.controller_ear.hold("heartbeat", device="d0")
    task = stage.run_on("d0", wait=False)
    agent = stage.world.devices["d0"].agent
    stage.world.until(lambda: lists(task)(agent.memory.assignments), 20_000)
    ear.clear()
    ear.say(grant)
    stage.world.advance(200)
    stage.world.decide("d0", "cordon")
    stage.world.until(lambda: ("d1", 2) in stage.world.running(task), HOLD)
    stage.controller_ear.clear()
    stage.world.advance(20_000)
    return stage.broken()


def slow_start() -> set[str]:
    """H2: the grant is taken, then unpacking takes longer than the hold."""
    stage = Stage()
    guard = stage.world.devices["d0"].guard
    guard.slow_ms = 50_000
    task = stage.run_on("d0", wait=False)
    stage.world.advance(2_000)
    guard.slow_ms = 0
    stage.world.network.cut("d0")
    stage.world.until(lambda: stage.world.running(task) == [("d1", 2)], 60_000)
    stage.world.advance(60_000)
    return stage.broken()


def cordon_while_it_is_prepared() -> set[str]:
    """The host is asked after a start that takes a minute; then the device is shut."""
    stage = Stage(devices=1)
    stage.world.devices["d0"].guard.slow_ms = 60_000
    stage.run_on("d0", wait=False)
    stage.world.advance(40_000)
    stage.world.decide("d0", "cordon")
    stage.world.advance(60_000)
    return stage.broken()


def runs_lost() -> set[str]:
    """H6: the report of an end reaches the broker and not the controller."""
    stage = Stage(devices=1)
    stage.controller_ear.drop("runs", when=says_ended, times=1)
    job = stage.world.submit(Wish(runs_ms=2_000))
    stage.within(30_000, lambda: stage.world.done(job), "I11")
    return stage.broken()


def runs_held() -> set[str]:
    """The report of an end lies in the broker while its document is granted again."""
    stage = Stage(devices=1)
    stage.controller_ear.hold("runs", when=says_ended)
    job = stage.world.submit(Wish(runs_ms=2_000))
    stage.world.advance(25_000)
    stage.controller_ear.release()
    stage.within(30_000, lambda: stage.world.done(job), "I11")
    return stage.broken()


def inventory_lost() -> set[str]:
    stage = Stage(devices=1, begin=False)
    stage.controller_ear.drop("inventory", times=1)
    stage.world.controller.start()
    stage.world.devices["d0"].boot()
    stage.within(30_000, lambda: stage.world.ready("d0"), "I11")
    return stage.broken()


def quick_start() -> set[str]:
    stage = Stage(devices=1)
    stage.world.advance(12_000)
    for _ in range(3):
        stage.within(1_000, lambda t=f"{stage.world.submit()}.0": stage.alive(t), "slow")
        stage.world.advance(3_000)
    return stage.broken()


def grant_lay_in_the_broker() -> set[str]:
    """A grant comes 17 s after its heartbeat, and the device is cut off behind it."""
    stage = Stage()
    ear = stage.ear("d0")
    task = stage.run_on("d0")
    ear.hold("lease")
    stage.world.until(lambda: ear.held and granted(ear.held[-1].message), 20_000)
    grant = ear.held[-1]
    stage.world.network.cut("d0", up=True, down=False)
    stage.world.advance(14_000)
    ear.say(grant)
    stage.world.advance(30_000)
    stage.world.network.heal("d0")
    stage.world.advance(10_000)
    stage.expect(2 in stage.starts(task), "I11")
    return stage.broken()


def grant_for_a_forgotten_heartbeat() -> set[str]:
    """A grant comes after more than a lease, while the device beats on into a cut."""
    stage = Stage()
    ear = stage.ear("d0")
    ear.hold("lease", when=granted)
    task = stage.run_on("d0", wait=False)
    stage.world.until(lambda: ear.held, 20_000)
    grant = ear.held[0]
    stage.controller_ear.hold("heartbeat", device="d0")
    ear.hold("assignments")
    stage.world.advance(42_000)
    ear.say(grant)
    stage.world.advance(30_000)
    stage.expect(stage.starts(task), "I11")
    return stage.broken()


def grants_out_of_order() -> set[str]:
    """Old grants come again after newer ones, just when their deadline is near."""
    stage = Stage(devices=1)
    ear = stage.ear("d0")
    task = stage.run_on("d0")
    stage.world.advance(1_000)
    for _ in range(4):
        stage.beat("d0")
        grant = ear.last("lease", when=granted)
        stage.world.advance(24_000)
        ear.say(grant)
        stage.world.advance(5_000)
    stage.expect(stage.starts(task) == [1], "I12")
    return stage.broken()


def long_run() -> set[str]:
    stage = Stage(devices=1)
    task = stage.run_on("d0")
    stage.world.advance(90_000)
    stage.expect(stage.starts(task) == [1], "lease_lost")
    return stage.broken()


def pongs(stage: Stage) -> int:
    return sum(1 for letter in stage.controller_ear.heard if letter.topic.endswith("/answer"))


def late_command() -> set[str]:
    """A ping of the session before is kept by the broker and comes after the reconnect."""
    stage = Stage(devices=1)
    ear = stage.ear("d0")
    ear.hold("command")
    stage.world.ping("d0")
    stage.world.advance(500)
    stage.world.restart_broker()
    stage.world.advance(10_000)
    ear.release()
    stage.world.advance(1_000)
    stage.expect(pongs(stage) == 0, "C1")
    return stage.broken()


def doubled_command() -> set[str]:
    stage = Stage(devices=1)
    stage.world.ping("d0")
    stage.world.advance(500)
    stage.ear("d0").say(stage.ear("d0").last("command"))
    stage.world.advance(1_000)
    stage.expect(pongs(stage) == 1, "C1")
    return stage.broken()


def output_chunk_lost() -> set[str]:
    """The broker acknowledged a piece of output and forgot it."""
    stage = Stage(devices=1)
    stage.controller_ear.drop("output", when=lambda m: m.stream == 1, times=1)
    job = stage.world.submit(Wish(runs_ms=2_000, runtime="process"))
    output = stage.world.storage.store.output
    stage.within(60_000, lambda: output(f"{job}.0", 1, 1, 0, 1_000).complete, "I8")
    stage.expect(not output(f"{job}.0", 1, 1, 0, 1_000).gap, "I8")
    return stage.broken()
