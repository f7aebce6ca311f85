"""Counterexamples that a review of the controller's core found, each as its story was told."""

from __future__ import annotations

import pytest

from controller.core.effects import Confirm
from controller.core.records import AttemptState, FleetRow
from protocol.core import TimerElapsed
from protocol.limits import SESSION_LEAP_MAX, SESSION_MAX, hold_ms
from protocol.messages import Assignments, Revision, Settings
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState

LONG_MS = 60_000


def assign_without_telling(desk, job="j1", guarantee=Guarantee.AT_MOST_ONE):
    """A task that was assigned and committed in a moment in which its device's revision still waits."""
    desk.core.documents.pace.tat_ms = desk.now + 10**9  # nothing is told for now
    desk.submit(job=job, guarantee=guarantee)
    desk.after(50)
    desk.core.documents.pace.tat_ms = 0
    attempt = desk.attempt(task=f"{job}.0")
    assert attempt.state is AttemptState.ASSIGNED
    assert attempt.since > desk.document("d1").number
    return attempt


# ------------------------------------------------------------------ L3 after a take-over


def test_l3_after_a_take_over_too_the_session_of_the_last_grant_counts(desk, desk_kit):
    """1 Granted in session 1. 2 Take-over. 3 Session 2 lists it and is granted. 4 Cancel.
    5 A `Runs` of session 1 that was on its way says that it has stopped: of before the grant."""
    old = desk.running()
    desk.take_over()
    new = desk_kit.session(2)
    desk.status("d1", new)
    desk.inventory("d1", new)
    desk.runs("d1", new, 1, ("j1.0", 1, RunState.RUNNING))
    assert desk_kit.granted(desk.heartbeat("d1", new)) == desk.document("d1")
    desk.cancel()
    desk.runs("d1", old, 9, ("j1.0", 1, RunState.STOPPED))
    assert desk.attempt().state is AttemptState.REMOVED
    desk.runs("d1", new, 2, ("j1.0", 1, RunState.STOPPED))
    assert desk.attempt().state is AttemptState.FREE


# ------------------------------------------------------------------ an older database


@pytest.mark.parametrize("found", ["restored", "stale"])
@pytest.mark.parametrize("frozen", [True, False])
def test_l6_what_an_older_database_never_listed_may_have_run_all_the_same(desk, desk_kit, found, frozen):
    """1 Attempt 1 is committed, its revision is not yet. 2 Backup. 3 The revision is published, the run
    moves: attempt 2 runs elsewhere. 4 Restore: attempt 1 must not be told to its device now."""
    number = desk.join()
    assign_without_telling(desk)
    effects = len(desk.said)
    if frozen:  # then failover does not take it away by chance
        for other in range(2, 14):
            desk.join(f"d{other}")
        desk.store.save([FleetRow("frozen:", "1")], desk.epoch)
    desk.take_over(above=desk.epoch if found == "restored" else 0, wait=found == "stale")
    began = desk.now
    desk.join(number=number)
    desk.heartbeat("d1", number, 2)
    desk.at(began + hold_ms(30_000) - 1_000)
    told = [key for d in desk_kit.documents(desk.said[effects:], "d1") for key in desk_kit.listed(d)]
    assert told == []
    assert desk.store.attempts("j1.0")[-1].attempt == 1
    desk.at(began + hold_ms(30_000) + 2_000)
    desk.heartbeat("d1", number, 3)
    desk.after(30_000)
    assert desk.store.attempts("j1.0")[-1].attempt >= 2


def test_a_stale_mark_over_an_empty_fleet_is_not_kept_for_later(desk):
    """1 Killed, away for a minute, no device yet: nothing to wait for. 2 Devices join. 3 A quick restart
    waits for nothing and raises no alarm: what was stale then says nothing about now."""
    desk.now += 60_000
    _, found = desk.store.lead("c1", 0, 1_700_000_000_000 + desk.now)
    assert found.stale
    desk.take_over()
    desk.join()
    _, found = desk.store.lead("c1", 0, 1_700_000_000_000 + desk.now)
    assert not found.marked


def test_settings_of_a_later_database_are_replaced(desk, desk_kit):
    """1 Quarantined at (E, 9), told and saved by the device. 2 Restore of a copy without it. 3 The device
    holds later settings than ours and would refuse to start anything for ever."""
    number = desk.join()
    later = Revision(desk.epoch, 9)
    desk.take_over(above=desk.epoch)
    effects = desk.heartbeat("d1", number, settings=later)
    [settings] = desk_kit.settings(effects)
    assert settings.revision > later and not settings.quarantined
    assert desk_kit.published(desk.heartbeat("d1", number, 2), Settings) == []


# ------------------------------------------------------------------ at_least_one on devices that vanish


def removed_then_lost(desk, verb):
    number = desk.join("d1")
    desk.placed(guarantee=Guarantee.AT_LEAST_ONE, kind=JobKind.SERVICE)
    if verb == "drain":
        desk.runs("d1", number, 2, ("j1.0", 1, RunState.RUNNING))
    desk.decide("d1", verb)
    assert desk.attempt().state is AttemptState.REMOVED
    desk.join("d2")
    return number


@pytest.mark.parametrize("verb", ["cordon", "drain"])
def test_an_at_least_one_attempt_under_way_out_moves_when_its_device_is_lost(desk, verb):
    """1 Drain: out of the document, to be confirmed. 2 The device dies before that."""
    number = removed_then_lost(desk, verb)
    desk.status("d1", number, online=False)
    desk.after(2_000)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


def test_so_it_does_after_a_restart_of_the_controller(desk, desk_kit):
    removed_then_lost(desk, "drain")
    desk.take_over()
    desk.join("d2", desk_kit.session(2))
    for seq in range(2, 8):
        desk.after(9_000)
        desk.heartbeat("d2", desk_kit.session(2), seq)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


def test_a_cancelled_at_least_one_attempt_still_waits_for_its_lost_device(desk):
    number = desk.join("d1")
    desk.placed(guarantee=Guarantee.AT_LEAST_ONE)
    desk.runs("d1", number, 2, ("j1.0", 1, RunState.RUNNING))
    desk.cancel()
    desk.status("d1", number, online=False)
    desk.after(LONG_MS)
    assert desk.task().state is TaskState.RUNNING


def test_attempts_stuck_on_a_lost_device_do_not_use_up_the_budget_of_drains(desk):
    """1 A dead device is drained; its many attempts wait for its return. 2 Another drain goes on."""
    dead = desk.join("d1", room=Resources(64_000, 64_000, 64_000, 0))
    desk.placed(count=12, guarantee=Guarantee.AT_LEAST_ONE, kind=JobKind.SERVICE)
    desk.runs("d1", dead, 2, *[(f"j1.{i}", 1, RunState.RUNNING) for i in range(12)])
    desk.decide("d1", "drain")
    desk.status("d1", dead, online=False)
    desk.after(2_000)
    number = desk.join("d2")
    desk.placed(job="j2", constraints=())
    desk.after(2_000)
    mine = [a for a in desk.core.ledger.by_device[desk.core.ledger.fleet.index["d2"]].values()]
    assert mine
    desk.heartbeat("d2", number, 2)
    desk.runs("d2", number, 2, *[(a.row.task, a.row.attempt, RunState.RUNNING) for a in mine])
    desk.decide("d2", "drain")
    desk.after(2_000)
    assert any(a.row.state is AttemptState.REMOVED for a in mine)


def test_a_quarantined_device_that_was_removed_and_added_again_may_work(desk, desk_kit):
    """1 Quarantine. 2 Removed: its alarm ends. 3 Added again, and quarantined still."""
    for count, boot in enumerate(("a", "b", "a"), 1):
        desk.status("d1", desk_kit.session(count), boot=boot)
    desk.decide("d1", "remove")
    told = desk_kit.settings(desk.decide("d1", "add"))
    assert told and not told[-1].quarantined
    number = desk.join("d1", desk_kit.session(9))
    desk.placed()
    assert (desk.task().device, desk.core.ledger.fleet.session[0]) == ("d1", number)


def test_s4_what_a_quarantine_takes_back_goes_on_after_a_hold(desk, desk_kit):
    """1 Quarantine removes what was not shown as started. 2 No report frees in it, and no hold did so for
    at_least_one: the task waited for an operator."""
    desk.join("d1")
    desk.placed(guarantee=Guarantee.AT_LEAST_ONE)
    for count, boot in enumerate(("a", "b", "a"), 2):
        desk.status("d1", desk_kit.session(count), boot=boot)
    assert desk.attempt().state is AttemptState.REMOVED
    other = desk.join("d2")
    for seq in range(2, 6):
        assert desk.task().attempt == 1
        desk.after(8_000)
        desk.heartbeat("d1", desk_kit.session(4), seq)
        desk.heartbeat("d2", other, seq)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


# ------------------------------------------------------------------ our own silence


def test_c4_nobody_is_blamed_for_what_we_did_not_hear_while_we_did_not_lead(desk):
    """1 A commit hangs for 50 s: the leadership lapses, heartbeats are dropped. 2 It is renewed. 3 The sweep
    would find every device silent for longer than four periods and run all at_least_one tasks twice."""
    number = desk.join("d1")
    desk.join("d2")
    desk.placed(guarantee=Guarantee.AT_LEAST_ONE)
    device = desk.task().device
    desk.now += 50_000
    renewals = [e for e in desk.core.handle(TimerElapsed(), desk.now) if isinstance(e, Confirm)]
    desk.heartbeat("d1", number, 7)
    desk.heartbeat("d2", number, 7)
    for renewal in renewals:
        desk.feed(renewal.event)
    desk.after(3_000)
    assert (desk.task().device, desk.task().attempt) == (device, 1)


def test_i12_a_restart_moves_nothing_that_was_assigned_and_not_yet_told(desk, desk_kit):
    """1 Assigned and committed. 2 The controller dies before it tells. 3 The next one lost no device yet."""
    number = desk.join()
    attempt = assign_without_telling(desk)
    desk.take_over()
    desk.after(5_000)
    assert (desk.task().device, desk.task().attempt) == ("d1", 1)
    desk.heartbeat("d1", number, 2)
    desk.after(2_000)
    listed = desk_kit.published(desk.said, Assignments, "d1")[-1].attempts
    assert [a.attempt for a in listed] == [attempt.attempt] == [1]


def test_what_was_not_told_before_a_restart_moves_once_its_device_is_gone(desk):
    desk.join()
    assign_without_telling(desk)
    desk.take_over()
    desk.join("d2")
    began = desk.now
    while desk.now < began + 45_000 and desk.task().attempt == 1:
        desk.heartbeat("d2", 1 << 24, 10 + (desk.now - began) // 1_000)
        desk.after(1_000)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


# ------------------------------------------------------------------ sessions


def test_a_session_of_nought_is_no_session(desk, desk_kit):
    """It would be the session of a row that has none, and so be granted without a `Runs`."""
    desk.decide("d1", "add")
    effects = desk.heartbeat("d1", 0, runs=0, inventory=0)
    assert desk_kit.answers(effects) == []
    assert desk.core.pictures.device(0, desk.now).state == "offline"


def test_s4_a_quarantine_that_was_looked_into_is_not_begun_anew_by_the_right_machine(desk, desk_kit):
    """1 A, B, A, B: quarantine. 2 B is stopped, the device uncordoned. 3 A speaks: that is no alternation."""
    for count, boot in enumerate(("a", "b", "a", "b"), 1):
        desk.status("d1", desk_kit.session(count), boot=boot)
    desk.decide("d1", "uncordon")
    desk.status("d1", desk_kit.session(5), boot="a")
    assert not desk.core.ledger.fleet.quarantined[0]
    desk.status("d1", desk_kit.session(6), boot="b")
    desk.status("d1", desk_kit.session(7), boot="a")
    assert desk.core.ledger.fleet.quarantined[0]


@pytest.mark.parametrize("channel", ["status", "inventory", "runs", "heartbeat"])
def test_s1_one_false_message_does_not_use_up_a_device_s_sessions(desk, desk_kit, channel):
    """1 Somebody says the highest session in a device's name. 2 No number is left above it."""
    number = desk.join()
    facts = {"count": 1} if channel == "runs" else {}
    getattr(desk, channel)("d1", SESSION_MAX, **facts)
    assert desk.core.ledger.garbage["implausible_session"] == 1
    assert desk_kit.answers(desk.heartbeat("d1", number, 7))
    assert desk.core.ledger.fleet.runs_session[0] == number


def test_s1_a_device_that_is_added_again_joins_without_a_floor(desk, desk_kit):
    """Its numbers were used up, leap by leap; an operator gives it a fresh start."""
    desk.join(number=SESSION_LEAP_MAX)
    desk.decide("d1", "remove")
    desk.decide("d1", "add")
    desk.join(number=desk_kit.session(1))
    desk.after(1_000)
    assert desk.core.pictures.device(0, desk.now).state == "online"
    desk.take_over()
    assert desk.core.ledger.fleet.session[0] == desk_kit.session(1)
