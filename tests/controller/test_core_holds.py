"""The controller's half of the protocol: holds, leadership, decisions and results, rule by rule."""

from __future__ import annotations

import pytest

from controller.core.failover import STORM_DEVICES
from protocol.core import Note
from protocol.limits import hold_ms
from protocol.tasks import Guarantee, JobKind, RunState, TaskState

HOLD = hold_ms(30_000)
RUNNING, STOPPING, ENDED, STOPPED = RunState.RUNNING, RunState.STOPPING, RunState.ENDED, RunState.STOPPED


# ------------------------------------------------------------- L3 when an attempt is free, H3 H7 H13


def test_h3_an_attempt_that_is_stopping_is_not_free(desk, desk_kit):
    number = desk.running()
    desk.cancel()
    desk.runs("d1", number, 3, ("j1.0", 1, STOPPING))
    assert desk.task().state is TaskState.RUNNING
    desk.runs("d1", number, 4, ("j1.0", 1, STOPPED))
    assert desk.task().state is TaskState.CANCELLED


def test_l3_absence_counts_only_with_the_revision_that_removed_it(desk, desk_kit):
    number = desk.running()
    before = desk.document("d1")
    desk.cancel()
    desk.runs("d1", number, 3, answers=before)
    assert desk.task().state is TaskState.RUNNING
    desk.runs("d1", number, 4, answers=desk.document("d1"))
    assert desk.task().state is TaskState.CANCELLED


def test_l3_absence_of_an_attempt_that_was_not_removed_frees_nothing(desk):
    number = desk.running()
    desk.runs("d1", number, 3)
    assert desk.task().state is TaskState.RUNNING and desk.attempt().state == "running"


def test_h7_a_tombstone_that_is_told_frees_and_the_next_number_is_tried(desk):
    number = desk.join()
    desk.placed()
    desk.runs("d1", number, 2, ("j1.0", 1, STOPPED))
    desk.after(200)
    assert desk.task().attempt == 2 and desk.task().failures == 0


def test_h13_a_result_from_before_the_last_grant_frees_nothing(desk, desk_kit):
    """Granted again in session 2: what session 1 says of its end is not the end of it."""
    old = desk.running()
    newer = desk_kit.session(2)
    desk.status("d1", newer)
    desk.runs("d1", newer, 1, ("j1.0", 1, RUNNING))
    desk.heartbeat("d1", newer, 1)
    desk.runs("d1", old, 9, ("j1.0", 1, ENDED, 0))
    assert desk.task().state is TaskState.RUNNING
    desk.runs("d1", newer, 2, ("j1.0", 1, ENDED, 0))
    assert desk.task().state is TaskState.SUCCEEDED


def test_an_attempt_that_no_grant_covered_is_free_with_the_commit_that_removes_it(desk, desk_kit):
    desk.join()
    desk.placed()
    effects = desk.cancel()
    assert desk.task().state is TaskState.CANCELLED and desk.attempt().state == "free"
    assert effects[0].rows and desk_kit.documents(effects)[0].attempts == ()


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_an_attempt_that_no_revision_listed_is_free_with_its_cancel(desk, desk_kit, guarantee):
    """Placed while an addition must still wait: the device never hears of it, so it can say nothing."""
    desk.join()
    desk.placed()
    desk.placed(job="j2", guarantee=guarantee)
    assert desk.task("j2.0").state is TaskState.ASSIGNED
    [document] = desk_kit.documents(desk.cancel("j2"))
    assert desk_kit.listed(document) == [("j1.0", 1)]
    assert desk.task("j2.0").state is TaskState.CANCELLED and desk.attempt(task="j2.0").state == "free"


def test_l2_every_attempt_of_a_granted_revision_is_held_from_that_grant(desk, desk_kit):
    number = desk.join()
    desk.placed(count=3)
    desk.heartbeat("d1", number, 2)
    granted_ms = desk.now
    desk.after(7_000)
    desk.cancel()
    desk.at(granted_ms + HOLD - 1)
    assert all(desk.task(f"j1.{i}").state is TaskState.ASSIGNED for i in range(3))
    desk.at(granted_ms + HOLD)
    assert all(desk.task(f"j1.{i}").state is TaskState.CANCELLED for i in range(3))


def test_l4_weak_containment_is_held_longer(desk):
    number = desk.join(containment="weak")
    desk.placed()
    desk.heartbeat("d1", number, 2)
    granted_ms = desk.now
    desk.cancel()
    desk.at(granted_ms + hold_ms(30_000, weak=True) - 1)
    assert desk.task().state is TaskState.ASSIGNED
    desk.after(1)
    assert desk.task().state is TaskState.CANCELLED


# ------------------------------------------------------------- L5 after a take-over


@pytest.mark.parametrize("removed", [False, True])
def test_l5_whatever_is_not_free_is_held_for_one_hold_from_the_take_over(desk, removed):
    desk.running()
    desk.after(20_000)
    if removed:
        desk.cancel()
    desk.take_over()
    began_ms = desk.now
    if not removed:
        desk.cancel()
    desk.at(began_ms + HOLD - 1)
    assert desk.task().state is TaskState.RUNNING
    desk.after(1)
    assert desk.task().state is TaskState.CANCELLED


# ------------------------------------------------------------- L6 leadership


def test_l6_a_leader_that_cannot_renew_says_nothing(desk, desk_kit):
    number = desk.running()
    later = desk.core.speak_until_ms
    desk.core.renew_due_ms = later + 60_000
    desk.at(later)
    for effects in (
        desk.heartbeat("d1", number, 30, runs=2),
        desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 0)),
        desk.status("d1", desk_kit.session(9)),
        desk.after(5_000),
    ):
        assert effects == []
    assert desk_kit.reply(desk.cancel()).code == "not_ready"


def test_l6_every_message_down_carries_the_epoch(desk, desk_kit):
    number = desk.running()
    desk.take_over()
    desk.runs("d1", number, 2, ("j1.0", 1, RUNNING))
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, 20, runs=2))
    assert answer.epoch == desk.epoch
    [document] = desk_kit.documents(desk.cancel())
    assert document.revision.epoch == desk.epoch


def test_l6_a_wait_is_committed_and_a_successor_within_it_waits_anew(desk):
    desk.join()
    desk.take_over(wait=True)
    desk.submit()
    desk.after(20_000)
    desk.take_over()
    began_ms = desk.now
    desk.join()
    for beat in range(40):
        desk.after(1_000)
        desk.heartbeat("d1", 1 << 24, 50 + beat)
        if desk.now < began_ms + HOLD:
            assert desk.task().state is TaskState.PENDING
    assert desk.task().state is TaskState.ASSIGNED


def test_attempts_rise_above_the_epoch_of_a_found_restore(desk):
    desk.join()
    desk.take_over(above=desk.epoch + 100)
    desk.join(number=2 << 24)
    desk.submit()
    for beat in range(36):
        desk.after(1_000)
        desk.heartbeat("d1", 2 << 24, 50 + beat)
    assert desk.task().attempt == desk.epoch


# ------------------------------------------------------------- L7 cordon


@pytest.mark.parametrize("verb", ["cordon", "drain", "remove"])
def test_l7_a_decision_removes_in_its_commit_what_nobody_showed_as_started(desk, desk_kit, verb):
    number = desk.running()
    desk.placed(job="j2")
    effects = desk.decide("d1", verb)
    documents = desk_kit.documents(effects)
    assert ("j2.0", 1) not in desk_kit.listed(documents[0])
    if verb == "cordon":
        assert desk_kit.listed(documents[0]) == [("j1.0", 1)]
    assert desk.task("j2.0").state is TaskState.PENDING, "no grant covered it, so it is free at once"
    assert number


@pytest.mark.parametrize("verb", ["cordon", "drain", "remove"])
def test_l7_a_run_that_is_only_starting_is_taken_out_too(desk, desk_kit, verb):
    """Its start may take long; it would begin after the decision has become effective (I6)."""
    number = desk.join()
    desk.placed()
    desk.heartbeat("d1", number, 10)
    desk.runs("d1", number, 2, ("j1.0", 1, RunState.STARTING))
    assert desk.task().state is TaskState.RUNNING
    desk.decide("d1", verb)
    assert desk.attempt().state == "removed"


def test_l7_what_an_earlier_session_showed_does_not_count(desk, desk_kit):
    desk.running()
    desk.status("d1", desk_kit.session(2))
    [document] = desk_kit.documents(desk.decide("d1", "cordon"))
    assert document.attempts == ()


# ------------------------------------------------------------- C2 results, C5 attempts


def test_c2_a_result_is_accepted_once(desk):
    number = desk.running(kind=JobKind.BATCH, max_attempts=0)
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 1))
    assert desk.task().failures == 1
    for count in (4, 5):
        desk.runs("d1", number, count, ("j1.0", 1, ENDED, 0))
    assert desk.task().failures == 1 and desk.task().state is TaskState.PENDING


def test_c2_a_result_of_a_superseded_attempt_is_counted_and_dropped(desk):
    """At least one: the device was lost, its successor runs, then it returns with a result."""
    number = desk.running(guarantee=Guarantee.AT_LEAST_ONE)
    desk.join("d2")
    desk.status("d1", number, online=False)
    desk.after(1_000)
    assert desk.task().attempt == 2
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 0))
    assert desk.task().state is not TaskState.SUCCEEDED
    assert desk.core.ledger.counters["stale_results"] == 1


@pytest.mark.parametrize("state", [STOPPED, RunState.INTERRUPTED])
def test_c5_a_lost_run_is_no_failure_of_the_task(desk, state):
    number = desk.running(max_attempts=1)
    desk.runs("d1", number, 3, ("j1.0", 1, state))
    desk.after(200)
    assert (desk.task().attempt, desk.task().failures, desk.task().state) == (2, 0, TaskState.ASSIGNED)


def test_c5_the_last_own_failure_is_final(desk):
    number = desk.running(max_attempts=1)
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 7))
    assert (desk.task().state, desk.task().exit_code) == (TaskState.FAILED, 7)
    assert desk.store.job("j1").row.state == "failed"


def test_c5_a_service_that_ran_for_a_minute_starts_its_pauses_anew(desk):
    number = desk.running(kind=JobKind.SERVICE, max_attempts=0)
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 0))
    assert desk.task().failures == 1 and desk.task().state is TaskState.PENDING
    for beat in range(75):
        desk.after(1_000)
        desk.heartbeat("d1", number, 30 + beat, runs=3)
        if beat == 3:
            desk.runs("d1", number, 4, ("j1.0", 2, RUNNING))
    desk.runs("d1", number, 5, ("j1.0", 2, ENDED, 0))
    assert desk.task().failures == 1


# ------------------------------------------------------------- C4 storms


@pytest.mark.parametrize(("lost", "frozen"), [(STORM_DEVICES, True), (STORM_DEVICES - 1, False)])
def test_c4_a_storm_is_ten_devices_and_a_fifth_of_their_site(desk, lost, frozen):
    names = [f"d{i}" for i in range(40)]
    for name in names:
        desk.join(name)
    for name in names[:lost]:
        desk.status(name, 1 << 24, online=False)
    desk.after(100)
    assert bool(desk.core.failover.frozen) == frozen
    assert bool([a for a in desk.core.ledger.alarms if a.startswith("storm")]) == frozen
    assert bool([e for e in desk.said if isinstance(e, Note) and "frozen" in e.text]) == frozen


def test_c4_sites_freeze_apart(desk):
    for i in range(30):
        desk.join(f"a{i}", labels={"site": "a"})
        desk.join(f"b{i}", labels={"site": "b"})
    for i in range(12):
        desk.status(f"a{i}", 1 << 24, online=False)
    desk.after(100)
    sites = desk.core.ledger.fleet.sites
    assert list(desk.core.failover.frozen) == [sites["a"]]
