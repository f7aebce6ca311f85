"""Room that is kept: for a whole gang that starves, and for daemons on their own devices."""

from __future__ import annotations

import pytest

from controller.core.events import TaskExplained
from controller.core.gang_room import GangRoom
from controller.core.nominations import STARVING_HELD_MS, STARVING_MS
from controller.core.placement import Placement
from controller.core.preemption import SEARCHES_OF_GANG, SEARCHES_PER_ROUND
from controller.core.queue import height
from controller.core.records import Constraint, JobRules
from protocol.resources import Resources
from protocol.tasks import JobKind, RunState, TaskState
from tests.controller.stages import FULL, Stage

GANG = JobRules(gang=True)
SMALL = Resources(1_000, 10)
HALF = Resources(2_000, 10)
PENDING = TaskState.PENDING


class Trickle:
    """Devices kept busy by small tasks that come as fast as others end."""

    def __init__(self, desk, devices=2, **facts):
        self.desk, self.stage, self.made = desk, Stage(desk, devices, **facts), 0
        self.submit(4 * devices)
        desk.after(100)
        self.stage.run_all()

    def submit(self, count):
        for _ in range(count):
            self.desk.submit(job=f"s{self.made}", needs=SMALL)
            self.made += 1

    def turn(self):
        """On each device the oldest small task ends, and as many new ones are submitted."""
        self.submit(len(self.stage.numbers))
        for device in self.stage.numbers:
            small = [a for a in self.stage.listed(device) if a.row.task.startswith("s")]
            if small:
                self.end(device, small[0].row)
            self.desk.after(50)
        self.stage.run_all()
        self.check()

    def end(self, device, oldest):
        stage, desk = self.stage, self.desk
        stage.counts[device] += 1
        left = [a.row for a in stage.listed(device) if a.row.task != oldest.task]
        entries = [(row.task, row.attempt, RunState.RUNNING) for row in left]
        ended = (oldest.task, oldest.attempt, RunState.ENDED, 0)
        desk.runs(device, stage.numbers[device], stage.counts[device], *entries, ended)
        stage.beat(device)

    def check(self):
        """What is promised never exceeds what a device offers; a gang is there whole, or not at all."""
        core = self.desk.core
        fleet, promised = core.ledger.fleet, {}
        for n in core.nominations.by_task.values():
            promised[n.row] = promised.get(n.row, 0) + n.share.resources.cpu_milli
        assert all(cpu <= int(fleet.view.offered[0][row]) for row, cpu in promised.items())
        kept = {n.task.row.job for n in core.nominations.kept_together()}
        assert len(kept) <= 1, "one gang at a time"
        for job in core.ledger.jobs.values():
            if job.row.rules.gang:
                states = [task.row.state is PENDING for task in core.ledger.tasks_of(job)]
                assert all(states) or not any(states)

    def until(self, done, ms):
        began = self.desk.now
        while not done() and self.desk.now < began + ms:
            self.turn()
        return self.desk.now - began

    def placed(self, job):
        return self.desk.task(f"{job}.0").state is not PENDING


def kept(desk):
    core = desk.core
    return {n.task.row.id: core.ledger.fleet.names[n.row] for n in core.nominations.kept_together()}


@pytest.mark.parametrize(("needs", "count"), [(FULL, 2), (HALF, 2), (HALF, 4), (FULL, 1)])
def test_small_tasks_cannot_starve_a_gang_for_ever(desk, needs, count):
    trickle = Trickle(desk)
    desk.submit(job="g", count=count, needs=needs, rules=GANG)
    waited = trickle.until(lambda: trickle.placed("g"), 4 * STARVING_MS)
    assert trickle.placed("g") and waited >= STARVING_MS
    assert desk.core.nominations.by_task == {} and desk.core.ledger.fleet.aside == {}
    assert "preempted" not in desk.core.ledger.counters and "gangs_broken" not in desk.core.ledger.counters


def test_without_the_wait_nothing_is_kept(desk):
    trickle = Trickle(desk)
    desk.submit(job="g", count=2, needs=FULL, rules=GANG)
    trickle.until(lambda: False, STARVING_MS - 20_000)
    assert kept(desk) == {} and not trickle.placed("g")


def starving(desk, devices=2, **more):
    """A gang that has room kept, none of it free yet."""
    trickle = Trickle(desk, devices)
    desk.submit(job="g", **{"count": 2, "needs": FULL, "rules": GANG} | more)
    trickle.until(lambda: kept(desk), 2 * STARVING_MS)
    return trickle


def test_explain_says_what_it_waits_for(desk, desk_kit):
    starving(desk)
    view = desk_kit.reply(desk.feed(TaskExplained(5, "g.0")))
    assert view.reason == "nominated"
    assert view.summary.startswith("room for all of its gang is kept, its own on d")
    assert sorted(kept(desk).values()) == ["d1", "d2"]


def test_a_cancel_gives_it_back(desk):
    trickle = starving(desk)
    desk.cancel("g")
    trickle.turn()
    assert desk.core.nominations.by_task == {} and desk.core.ledger.fleet.aside == {}


@pytest.mark.parametrize("how", ["cordon", "drain", "lost"])
def test_a_device_that_is_gone_has_all_of_it_chosen_anew(desk, how):
    trickle = starving(desk, 3)
    gone = sorted(kept(desk).values())[0]
    if how == "lost":
        del trickle.stage.numbers[gone]
        trickle.until(lambda: gone not in kept(desk).values(), 60_000)
    else:
        desk.decide(gone, how)
    trickle.turn()
    if not trickle.placed("g"):
        assert gone not in kept(desk).values() and len(kept(desk)) == 2
    trickle.until(lambda: trickle.placed("g"), STARVING_HELD_MS)
    assert trickle.placed("g")


def test_of_two_that_starve_one_has_its_turn_and_then_the_other(desk):
    trickle = Trickle(desk)
    for gang in "gh":
        desk.submit(job=gang, count=2, needs=FULL, rules=GANG)
    trickle.until(lambda: kept(desk), 2 * STARVING_MS)
    assert set(kept(desk)) == {"g.0", "g.1"}, "the older one"
    trickle.until(lambda: trickle.placed("g"), STARVING_HELD_MS)
    assert trickle.placed("g") and not trickle.placed("h")
    desk.cancel("g")
    trickle.until(lambda: trickle.placed("h"), 3 * STARVING_MS)
    assert trickle.placed("h")


def endless(desk, devices=2):
    """Devices whose work is no service, yet does not end, and a gang that starves there."""
    stage = Stage(desk, devices)
    for i in range(devices):
        desk.placed(job=f"b{i}", needs=FULL)
    stage.run_all()
    return stage


def waits(desk, stage, ms):
    until = desk.now + ms
    while desk.now < until:
        desk.after(9_000)
        for device in stage.numbers:
            stage.report(device)
        desk.core.ledger.fleet.note_room()  # something changes somewhere: the queue is looked through
        desk.core.placement.notice_room(desk.now)


def test_after_ten_minutes_in_vain_it_is_anothers_turn(desk):
    stage = endless(desk)
    for gang in "gh":
        desk.submit(job=gang, count=2, needs=FULL, rules=GANG)
    waits(desk, stage, STARVING_MS + 20_000)
    assert set(kept(desk)) == {"g.0", "g.1"}
    waits(desk, stage, STARVING_HELD_MS)
    assert set(kept(desk)) == {"h.0", "h.1"}
    waits(desk, stage, STARVING_HELD_MS)
    assert set(kept(desk)) == {"g.0", "g.1"}


def test_devices_full_of_services_are_not_kept_in_vain(desk):
    stage = Stage(desk, 2)
    stage.filled(job="web", needs=HALF, kind=JobKind.SERVICE, count=2)
    desk.submit(job="g", count=2, needs=FULL, rules=GANG)
    waits(desk, stage, STARVING_MS + 20_000)
    assert kept(desk) == {}


def test_its_groups_are_kept_as_devices_are_chosen(desk):
    stage = Stage(desk)
    for i in range(2, 5):
        stage.join(f"d{i}", labels={"zone": "ab"[i % 2]})
    for i in range(4):
        desk.placed(job=f"b{i}", needs=FULL)
    stage.run_all()
    zones = (Constraint("label.zone", "distinct", "1"),)
    desk.submit(job="g", count=2, needs=HALF, rules=GANG, constraints=zones)
    waits(desk, stage, STARVING_MS + 20_000)
    places = sorted(kept(desk).values())
    assert len(places) == 2 and "d3" in places and "d1" not in places


def test_who_is_far_above_sends_others_away_there_and_the_gang_is_kept_other_room(desk):
    stage = endless(desk)
    desk.submit(job="g", count=2, needs=FULL, rules=GANG)
    waits(desk, stage, STARVING_MS + 20_000)
    assert len(kept(desk)) == 2
    desk.placed(job="high", needs=FULL, priority=90)
    assert len(stage.leaving()) == 1 and desk.core.nominations.nominated_for("high.0")
    assert kept(desk) == {}, "one device is left, which is too few for two"
    stage.run_all()
    desk.after(500)
    assert desk.task("high.0").state is not PENDING


def test_a_restart_forgets_it_and_finds_it_anew(desk):
    stage = endless(desk)
    desk.submit(job="g", count=2, needs=FULL, rules=GANG)
    waits(desk, stage, STARVING_MS + 20_000)
    desk.take_over()
    assert desk.core.nominations.by_task == {} and desk.core.ledger.fleet.aside == {}
    waits(desk, stage, STARVING_MS + 20_000)
    assert len(kept(desk)) == 2


# ------------------------------------------------------------- daemons


def test_small_tasks_cannot_starve_a_daemon_on_its_device_for_ever(desk):
    trickle = Trickle(desk)
    desk.submit(job="d", needs=FULL, kind=JobKind.DAEMON, count=0)

    def both():
        return all(desk.task(f"d.{i}").state is not PENDING for i in range(2))

    waited = trickle.until(both, 6 * STARVING_MS)
    assert both() and waited >= STARVING_MS
    assert sorted(desk.task(f"d.{i}").device for i in range(2)) == ["d1", "d2"]
    assert desk.core.nominations.by_task == {}


def test_a_daemons_task_keeps_room_on_its_own_device_alone_and_by_its_own_time(desk):
    stage = Stage(desk, 3)
    for i in range(3):
        desk.placed(job=f"b{i}", needs=FULL if i < 2 else SMALL)
    stage.run_all()
    desk.submit(job="d", needs=FULL, kind=JobKind.DAEMON, count=0)
    waits(desk, stage, STARVING_MS - 30_000)
    assert desk.core.nominations.by_task == {}
    waits(desk, stage, 60_000)
    promises = desk.core.nominations.by_task.values()
    assert promises and all(n.task.row.pin == desk.core.ledger.fleet.names[n.row] for n in promises)
    stage.join("d4")
    desk.placed(job="b4", needs=FULL)
    new = [t for t in desk.core.ledger.tasks.values() if t.row.pin == "d4"]
    assert [desk.core.nominations.nominated_for(t.row.id) for t in new] == [None]


def still(desk, stage, ms):
    until = desk.now + ms
    while desk.now < until:
        desk.after(min(2_000, until - desk.now))
        for device in stage.numbers:
            stage.report(device)


def test_many_that_fit_nowhere_are_looked_for_a_few_in_a_round(desk, monkeypatch):
    looks, stage = [0], Stage(desk, 2)
    stage.filled("low")
    for number in range(60):
        desk.submit(job=f"g{number:02}", count=5, needs=FULL, rules=GANG)
    places = GangRoom._places

    def counted(self, *given):
        looks[-1] += 1
        return places(self, *given)

    def run(self, now_ms):
        looks.append(0)
        once(self, now_ms)

    once = Placement.run
    monkeypatch.setattr(GangRoom, "_places", counted)
    monkeypatch.setattr(Placement, "run", run)
    still(desk, stage, STARVING_MS + 10_000)
    desk.decide("d2", "cordon")
    desk.decide("d2", "uncordon")
    still(desk, stage, 4_000)
    assert sum(looks) == 60, "each was looked for once, and no turn came again yet"
    assert max(looks) == SEARCHES_PER_ROUND // SEARCHES_OF_GANG


def test_room_that_a_gang_did_not_need_is_told_to_who_waits_for_it(desk):
    stage = Stage(desk, 0)
    for device in ("d1", "d2"):
        stage.join(device, labels={"k": device})
    on = {d: (Constraint("label.k", "=", d),) for d in ("d1", "d2")}
    owner = {"d1": "up", "d2": "z"}  # so that z holds more than a, whose turn is before the gang's
    for device in on:
        desk.placed(
            job=f"busy-{device}", needs=FULL, constraints=on[device], rules=JobRules(owner=owner[device])
        )
    stage.run_all()
    desk.placed(job="g", count=2, needs=FULL, rules=JobRules(gang=True, owner="z"))
    still(desk, stage, STARVING_MS + 5_000)
    desk.decide("d2", "cordon")
    desk.decide("d2", "uncordon")
    still(desk, stage, 2_000)
    core = desk.core
    assert len(core.nominations.kept_together()) == 2
    desk.cancel("busy-d1")
    still(desk, stage, 3_000)
    high = height(core.ledger.jobs["g"], desk.now)
    desk.placed(job="x", needs=FULL, priority=high, constraints=on["d1"], rules=JobRules(owner="a"))
    assert stage.where("x.0") != "d1", "it is kept for the gang"
    stage.join("d3", room=Resources(80_000, 80_000, 80_000, 0))
    for _ in range(3):  # heartbeats alone: what runs report frees room, and would have told it
        for device in stage.numbers:
            stage.beat(device)
        desk.after(2_000)
    assert [stage.where("g.0"), stage.where("g.1"), stage.where("x.0")] == ["d3", "d3", "d1"]
