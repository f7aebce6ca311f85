"""C4 and losses: what a lost device moves, what a freeze holds, whom it is blamed on, how fast many go."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.condition import FAILED, FLAKY_MAX, HALF_MS, LOST, REFRESH_MS
from controller.core.events import FleetUnfrozen, TaskExplained
from controller.core.failover import FAILOVER_US, FAILOVERS_AT_ONCE, FREEZE_MS, STORM_WINDOW_MS
from controller.core.records import AttemptState, Constraint, JobRules
from protocol.resources import Resources
from protocol.tasks import Guarantee, RunState

EAGER = Guarantee.AT_LEAST_ONE
ONE = 1 << 24
ROOMY = Resources(100_000, 100_000, 10_000, 0)
SMALL = Resources(10, 10)


def where(desk):
    """Task -> (device, attempt) of all that are placed."""
    tasks = desk.core.ledger.tasks.values()
    return {t.row.id: (t.row.device, t.row.attempt) for t in tasks if t.row.device}


def fleet_of(desk, count, site="", room=ROOMY):
    names = [f"{site or 'd'}{i}" for i in range(count)]
    for name in names:
        desk.join(name, labels={"site": site} if site else {}, room=room)
    return names


def beat(desk, names, seq):
    desk.heartbeats(*[(name, ONE, seq, None, 1, 1, None) for name in names])


def pass_ms(desk, names, ms, seq):
    """Time passes and these devices beat every five seconds."""
    for step in range(ms // 5_000):
        desk.after(5_000)
        beat(desk, names, seq + step)


def die(desk, names):
    for name in names:
        desk.status(name, ONE, online=False)


# ------------------------------------------------------------- exactly what it held


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32), st.integers(3, 9), st.integers(1, 30), st.sampled_from(["newest", "keep_original"])
)
def test_losing_a_device_moves_exactly_what_it_held(desk_kit, seed, devices, tasks, rule):
    """Whatever the fleet: each task of the lost device has one new attempt, no other has any."""
    rng, desk = random.Random(seed), desk_kit.Desk()
    names = fleet_of(desk, devices)
    for job in range(3):
        needs = Resources(rng.randint(1, 50), rng.randint(1, 50))
        desk.submit(job=f"j{job}", count=tasks, guarantee=EAGER, needs=needs, rules=JobRules(on_return=rule))
    desk.after(2_000)
    beat(desk, names, 5)
    before, lost = where(desk), rng.choice(names)
    assert len(before) == 3 * tasks
    die(desk, [lost])
    desk.after(3_000)
    after = where(desk)
    held = {task for task, (device, _) in before.items() if device == lost}
    assert {task for task in before if after[task] != before[task]} == held
    for task in held:
        device, attempt = after[task]
        assert device != lost and attempt == 2
    assert desk.core.ledger.counters.get("failovers", 0) == len(held)


def test_a_lost_device_makes_one_revision_not_one_per_attempt(desk, desk_kit):
    [name, *_] = fleet_of(desk, 1)
    desk.placed(count=40, guarantee=EAGER, needs=SMALL)
    beat(desk, [name], 5)
    fleet_of(desk, 3, "x")
    before = desk.document(name).number
    die(desk, [name])
    desk.after(2_000)
    assert desk.document(name).number == before + 1
    assert all(device.startswith("x") for device, _ in where(desk).values())


# ------------------------------------------------------------- freezes


def storm(desk, count=20, lost=12, site=""):
    """Devices with two tasks each; some of them fall silent at once."""
    names = fleet_of(desk, count, site)
    desk.placed(job=f"j{site}", count=2 * count, guarantee=EAGER, needs=SMALL)
    desk.after(500)
    beat(desk, names, 5)
    die(desk, names[:lost])
    desk.after(1_000)
    return names[:lost], names[lost:]


def test_a_freeze_says_how_many_and_moves_nothing(desk):
    _, alive = storm(desk)
    before = where(desk)
    [alarm] = desk.core.ledger.alarms.values()
    assert "12 of its 20 devices" in alarm and "24 attempts" in alarm and "unfreeze" in alarm
    pass_ms(desk, alive, 40_000, 10)
    assert where(desk) == before
    die(desk, alive[:2])
    desk.after(1_000)
    [alarm] = desk.core.ledger.alarms.values()
    assert "14 of its 20 devices" in alarm


def test_an_operator_ends_it_and_everything_moves_once(desk):
    lost, alive = storm(desk)
    held = {task for task, (device, _) in where(desk).items() if device in lost}
    desk.feed(FleetUnfrozen(9, "alice"))
    desk.after(1_000)
    after = where(desk)
    assert {after[t][1] for t in held} == {2} and {after[t][0] for t in held} <= set(alive)
    assert {n for t, (_, n) in after.items() if t not in held} == {1}
    assert not desk.core.failover.queue and not desk.core.ledger.alarms


def test_it_ends_by_itself_after_two_holds(desk):
    _, alive = storm(desk)
    began_ms = desk.now
    pass_ms(desk, alive, FREEZE_MS - 10_000, 10)
    assert {n for _, n in where(desk).values()} == {1}
    pass_ms(desk, alive, 15_000, 100)
    assert desk.now > began_ms + FREEZE_MS and not desk.core.failover.frozen
    assert all(device in alive for device, _ in where(desk).values())


def test_it_ends_when_they_return_and_nothing_moves(desk, desk_kit):
    lost, _ = storm(desk)
    before = where(desk)
    for name in lost:
        session = desk_kit.session(2)
        desk.status(name, session)
        desk.runs(name, session, 1)
        desk.heartbeat(name, session)
    desk.after(1_000)
    assert not desk.core.failover.frozen and not desk.core.ledger.alarms
    assert {task: device for task, (device, _) in where(desk).items()} == {
        t: d for t, (d, _) in before.items()
    }


def test_a_device_that_is_lost_twice_in_a_freeze_is_moved_once(desk, desk_kit):
    lost, alive = storm(desk)
    again, session = lost[0], desk_kit.session(2)
    held = [(task, number) for task, (device, number) in where(desk).items() if device == again]
    desk.status(again, session)
    desk.runs(again, session, 1, *[(task, number, RunState.RUNNING) for task, number in held])
    desk.heartbeat(again, session)
    desk.after(1_000)
    desk.status(again, session, online=False)
    desk.after(3_000)
    assert desk.core.failover.frozen
    desk.feed(FleetUnfrozen(9, "alice"))
    desk.after(1_000)
    assert desk.core.ledger.counters["failovers"] == 2 * len(lost)
    assert all(device in alive for device, _ in where(desk).values())


def test_one_site_freezes_and_another_goes_on(desk):
    storm(desk, site="a")
    fleet_of(desk, 4, "b")
    desk.placed(job="jb", guarantee=EAGER, needs=SMALL, constraints=(Constraint("site", "=", "b"),))
    [lost, _] = where(desk)["jb.0"]
    die(desk, [lost])
    desk.after(2_000)
    [device, attempt] = where(desk)["jb.0"]
    assert device.startswith("b") and device != lost and attempt == 2
    assert len(desk.core.failover.frozen) == 1


def test_losses_that_are_far_apart_are_no_storm(desk):
    names = fleet_of(desk, 30)
    for i in range(12):
        die(desk, [names[i]])
        pass_ms(desk, names[i + 1 :], 2 * (STORM_WINDOW_MS // 10), 100 * (i + 1))
    assert not desk.core.failover.frozen


def test_the_pace_is_a_burst_and_then_five_in_a_millisecond(desk):
    """More than the burst: the rest goes on step by step, each attempt once."""
    names = fleet_of(desk, 12)
    desk.submit(count=4_000, guarantee=EAGER, needs=Resources(1, 1))
    desk.after(5_000)
    placed, lost = where(desk), names[:9]
    held = sum(device in lost for device, _ in placed.values())
    assert len(placed) == 4_000 and held > FAILOVERS_AT_ONCE + 512
    began_ms, took_ms = desk.now, 0
    die(desk, lost)
    while desk.core.ledger.counters.get("failovers", 0) < held:
        desk.after(50)
        took_ms = desk.now - began_ms
        assert took_ms < 10_000
    assert took_ms - 400 >= (held - FAILOVERS_AT_ONCE - 512) * FAILOVER_US // 1_000
    desk.after(2_000)
    attempts = [a for t in placed for a in desk.store.attempts(t)]
    assert desk.core.ledger.counters["failovers"] == held
    assert max(a.attempt for a in attempts) <= 2


def test_at_most_one_work_waits_for_its_hold_in_a_storm_and_leaves_together(desk):
    names = fleet_of(desk, 20)
    desk.placed(count=40, needs=SMALL)
    desk.after(500)
    beat(desk, names, 5)
    desk.after(500)
    die(desk, names[:3])
    desk.after(5_000)
    assert {n for _, n in where(desk).values()} == {1}
    pass_ms(desk, names[3:], 40_000, 10)
    assert all(device in names[3:] for device, _ in where(desk).values())


# ------------------------------------------------------------- whose fault


def flakiness(desk, name):
    return float(desk.core.ledger.fleet.view.flakiness[desk.core.ledger.fleet.index[name]])


def flap(desk, desk_kit, name, count):
    """Lost and back again; each life is a session."""
    desk.status(name, desk_kit.session(count), online=False)
    desk.after(40_000)
    again = desk_kit.session(count + 1)
    desk.status(name, again)
    desk.inventory(name, again)
    desk.runs(name, again, 1)
    desk.heartbeat(name, again)


def test_a_loss_is_blamed_once(desk):
    desk.join()
    desk.status("d1", ONE, online=False)
    desk.after(60_000)
    assert flakiness(desk, "d1") == LOST


def test_blame_halves_in_an_hour_whoever_looks_when(desk):
    """Also without anybody looking between: what is noted late must not age with what is old."""
    condition, row = desk.core.condition, desk.core.ledger.fleet.index
    desk.join()
    now = desk.now
    condition.blame(row["d1"], 4.0, now)
    condition.blame(row["d1"], 1.0, now + HALF_MS)
    assert flakiness(desk, "d1") == pytest.approx(3.0)
    condition.refresh(now + 2 * HALF_MS)
    assert flakiness(desk, "d1") == pytest.approx(1.5)


def test_a_silent_site_is_no_devices_fault(desk):
    lost, _ = storm(desk)
    assert [flakiness(desk, name) for name in lost] == [0.0] * len(lost)


def test_who_is_lost_too_often_gets_nothing_new_and_explain_says_so(desk, desk_kit):
    desk.join()
    for count in range(1, int(FLAKY_MAX) + 2):
        flap(desk, desk_kit, "d1", count)
    desk.placed()
    desk.after(REFRESH_MS)
    assert desk.task().state == "pending"
    view = desk_kit.reply(desk.feed(TaskExplained(5, "j1.0")))
    assert any("healthy enough" in f.filter and f.removed == 1 for f in view.filters), view


def test_and_gets_it_when_it_was_quiet_for_long_enough_with_nobody_asking(desk, desk_kit):
    """No event tells that a device has cooled down: the controller looks by itself while something waits."""
    desk.join()
    row = desk.core.ledger.fleet.index["d1"]
    desk.core.condition.blame(row, FLAKY_MAX * 1.1, desk.now)
    desk.placed()
    assert desk.task().state == "pending"
    pass_ms(desk, ["d1"], HALF_MS // 4, 10)
    assert desk.task().state == "assigned"


def test_first_on_the_spot_then_elsewhere_then_not_there(desk, desk_kit):
    """Restart, move, avoid: each failure is also blamed on the device."""
    number = desk.running()
    desk.join("d2")
    desk.runs("d1", number, 3, ("j1.0", 1, RunState.ENDED, 1))
    desk.after(3_000)
    assert where(desk)["j1.0"] == ("d1", 2)
    assert flakiness(desk, "d1") == pytest.approx(FAILED, rel=0.01)
    desk.heartbeat("d1", number, 20, runs=3)
    desk.runs("d1", number, 4, ("j1.0", 2, RunState.ENDED, 1))
    desk.after(5_000)
    assert where(desk)["j1.0"] == ("d2", 3)


def test_an_attempt_that_is_already_leaving_is_lost_once(desk):
    """A drain before the loss: it is abandoned, and nothing is counted twice."""
    number = desk.running(guarantee=EAGER)
    desk.join("d2")
    desk.decide("d1", "drain")
    assert desk.attempt().state == AttemptState.REMOVED
    desk.status("d1", number, online=False)
    desk.after(2_000)
    assert where(desk)["j1.0"] == ("d2", 2) and desk.core.ledger.counters["failovers"] == 1
