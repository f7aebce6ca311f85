"""Preemption: who gives way to whom, how much of it, and what becomes of both."""

from __future__ import annotations

import pytest

from controller.core.preemption import VICTIMS_AT_ONCE
from controller.core.records import Constraint, JobRules
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState
from tests.controller.stages import Stage

RUNNING, STOPPED = RunState.RUNNING, RunState.STOPPED
LIVE = (TaskState.ASSIGNED, TaskState.RUNNING)
FULL = Resources(4_000, 100)
HALF = Resources(2_000, 100)


@pytest.fixture
def stage(desk):
    return Stage(desk)


def test_a_more_important_task_takes_the_place_of_another_which_waits_again(stage, desk):
    stage.filled()
    desk.placed(job="high", needs=FULL, priority=10)
    assert stage.leaving() == ["low.0"] and desk.task("high.0").state is TaskState.PENDING
    assert desk.core.nominations.nominated_for("high.0") == "d1"
    stage.report("d1")
    desk.after(200)
    assert stage.where("high.0") == "d1" and stage.where("low.0") == "pending"
    assert desk.attempt(1, "low.0").reason == "preempted by high"
    assert desk.task("low.0").failures == 0 and desk.task("low.0").reason == "preempted by high"
    assert desk.core.nominations.by_task == {}


def test_a_device_that_says_stopped_does_not_hide_why(stage, desk):
    stage.filled()
    desk.placed(job="high", needs=FULL, priority=10)
    stage.report("d1", also=[("low.0", 1, RunState.STOPPED, -1, 15, "stopped")])
    desk.after(200)
    assert stage.where("high.0") == "d1"
    ended = desk.attempt(1, "low.0")
    assert (ended.signal, ended.reason) == (15, "preempted by high")
    assert desk.task("low.0").reason == "preempted by high"


def test_what_was_never_told_is_free_and_replaced_in_the_next_round(stage, desk):
    desk.placed(job="low", needs=FULL)
    stage.run_all()
    desk.cancel("low")
    stage.report("d1")
    desk.submit(job="other", needs=FULL)
    desk.after(3)
    desk.submit(job="high", needs=FULL, priority=50)
    desk.after(20)
    assert stage.where("high.0") == "d1" and stage.where("other.0") == "pending"


@pytest.mark.parametrize(
    ("low", "high", "gives_way"),
    [(0, 9, False), (0, 10, True), (41, 50, False), (40, 50, True), (60, 50, False)],
)
def test_a_small_difference_is_not_worth_it(stage, desk, low, high, gives_way):
    stage.filled(priority=low)
    desk.placed(job="high", needs=FULL, priority=high)
    assert bool(stage.leaving()) is gives_way


def test_nobody_is_preempted_while_there_is_room(stage, desk):
    stage.filled()
    stage.join("d2")
    desk.placed(job="high", needs=FULL, priority=90)
    assert stage.where("high.0") == "d2" and not stage.leaving()


def test_daemons_stay(stage, desk):
    desk.submit(job="mon", kind=JobKind.DAEMON, count=0, needs=HALF, max_attempts=0)
    stage.filled(needs=HALF)
    desk.placed(job="high", needs=FULL, priority=100)
    assert not stage.leaving() and stage.where("mon.0") == "d1"
    desk.placed(job="less", needs=HALF, priority=100)
    assert stage.leaving() == ["low.0"]


def test_a_daemon_that_does_not_fit_makes_room_on_its_own_devices_only(desk):
    stage = Stage(desk, 2)
    stage.join("d3")
    stage.filled(count=2, needs=FULL)
    desk.submit(job="mon", kind=JobKind.DAEMON, count=0, needs=HALF, max_attempts=0, priority=50)
    desk.after(200)
    assert stage.leaving() == ["low.0", "low.1"] and stage.where("mon.2") == "d3"
    for device in stage.numbers:
        stage.report(device)
    desk.after(500)
    assert sorted(stage.where(f"mon.{i}") for i in range(3)) == ["d1", "d2", "d3"]


def test_only_those_that_are_needed_go_and_the_least_important_first(desk):
    stage = Stage(desk, 1)
    for job, priority in (("a", 20), ("b", 5), ("c", 5), ("d", 0)):
        desk.placed(job=job, needs=Resources(1_000, 10), priority=priority)
    stage.run_all()
    desk.placed(job="high", needs=HALF, priority=60)
    assert len(stage.leaving()) == 2 and "a.0" not in stage.leaving()


def test_of_equals_the_one_goes_that_has_run_the_shortest(desk):
    stage = Stage(desk, 2)
    desk.placed(job="old", needs=FULL)
    stage.run_all()
    desk.after(8_000)
    desk.placed(job="young", needs=FULL)
    stage.run_all()
    desk.placed(job="high", needs=FULL, priority=10)
    assert stage.leaving() == ["young.0"]


def test_constraints_of_the_task_choose_where_others_must_give_way(desk):
    stage = Stage(desk, 1, labels={"zone": "a"})
    stage.join("d2", labels={"zone": "b"})
    stage.filled(count=2)
    zone = (Constraint("label.zone", "=", "b"),)
    desk.placed(job="high", needs=FULL, priority=10, constraints=zone)
    [task] = stage.leaving()
    assert stage.desk.task(task).device == "d2"


def test_a_gang_waits_and_its_members_lost_later_may_preempt(desk):
    stage = Stage(desk, 2)
    stage.filled(count=2)
    desk.placed(job="gang", needs=FULL, priority=90, count=2, rules=JobRules(gang=True))
    desk.after(1_000)
    assert not stage.leaving()
    desk.cancel("low")
    for device in stage.numbers:
        stage.report(device)
    desk.after(500)
    assert {stage.where("gang.0"), stage.where("gang.1")} == {"d1", "d2"}


def test_so_many_are_on_their_way_out_at_a_time_and_no_more(desk):
    stage = Stage(desk, VICTIMS_AT_ONCE + 3)
    stage.filled(count=VICTIMS_AT_ONCE + 3)
    desk.placed(job="high", needs=FULL, priority=10, count=VICTIMS_AT_ONCE + 3)
    desk.after(2_000)
    assert len(stage.leaving()) == VICTIMS_AT_ONCE
    for device in stage.numbers:
        stage.report(device)
    desk.after(500)
    assert len(stage.leaving()) == 3
    for device in stage.numbers:
        stage.report(device)
    desk.after(500)
    assert all(desk.task(f"high.{i}").state in LIVE for i in range(VICTIMS_AT_ONCE + 3))


def test_one_task_may_need_more_than_that(desk):
    count = VICTIMS_AT_ONCE + 6
    stage = Stage(desk, 1)
    stage.filled(count=count, needs=Resources(4_000 // count, 10))
    desk.placed(job="high", needs=FULL, priority=10)
    assert len(stage.leaving()) == count


def test_a_preemptor_waits_for_its_victims_and_takes_no_second_set(desk):
    stage = Stage(desk, 3)
    stage.filled(count=3, guarantee=Guarantee.AT_LEAST_ONE)
    desk.placed(job="high", needs=FULL, priority=10)
    first = stage.leaving()
    for _ in range(5):
        desk.submit(job=f"tiny{desk.now}", needs=Resources(1, 1))
        desk.after(500)
    assert stage.leaving() == first and len(first) == 1


def test_restarts_ask_for_no_second_set_of_victims(desk):
    stage = Stage(desk, 3)
    stage.filled(count=3)
    desk.placed(job="high", needs=FULL, priority=10)
    first = stage.leaving()
    desk.take_over()
    assert desk.core.nominations.by_task == {}
    [gone] = first
    held = [(gone, 1, RUNNING)]
    victim = desk.attempt(1, gone).device
    for device in stage.numbers:
        stage.report(device, also=held if device == victim else ())
    desk.after(500)
    assert stage.leaving() == first and desk.core.nominations.nominated_for("high.0") == victim
    stage.report(victim)
    desk.after(500)
    assert stage.where("high.0") == victim
    states = sorted(desk.task(f"low.{i}").state.value for i in range(3))
    assert states == ["pending", "running", "running"] and desk.task(gone).failures == 0


def test_a_cancelled_preemptor_gives_back_what_was_promised(stage, desk):
    stage.filled()
    desk.placed(job="high", needs=FULL, priority=10)
    desk.cancel("high")
    stage.report("d1")
    desk.after(200)
    assert desk.core.nominations.by_task == {} and desk.core.ledger.fleet.aside == {}
    assert stage.where("low.0") == "d1" and desk.task("low.0").attempt == 2


def test_accelerators_are_made_free_too(desk):
    stage = Stage(desk, 1, room=Resources(4_000, 4_096, 10_000, 2_000))
    stage.filled(job="a", needs=Resources(100, 10, 0, 1_000))
    stage.filled(job="b", needs=Resources(100, 10, 0, 500))
    desk.placed(job="high", needs=Resources(100, 10, 0, 1_000), priority=30)
    assert stage.leaving() == ["b.0"], (
        "half an accelerator is in use, and it is the one that ran the shortest"
    )
    stage.report("d1")
    desk.after(200)
    assert stage.where("high.0") == "d1" and stage.where("b.0") == "pending"


def test_the_aged_do_not_take_back_what_a_preemptor_was_promised(stage, desk):
    """A victim that has waited for an hour stands higher in the queue, not in importance."""
    stage.filled()
    desk.placed(job="aged", needs=HALF, priority=0)
    for _ in range(130):
        desk.after(10_000)
        stage.beat("d1")
    desk.placed(job="high", needs=FULL, priority=10)
    assert stage.leaving() == ["low.0"]
    stage.report("d1")
    desk.after(200)
    assert stage.where("high.0") == "d1" and stage.where("aged.0") == "pending"
