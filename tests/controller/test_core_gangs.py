"""Gangs: all tasks of a job are placed in one commit, or none is."""

from __future__ import annotations

import pytest

from controller.core.records import AttemptRow, Constraint, JobRules
from protocol.core import Save
from protocol.resources import Resources
from protocol.tasks import RunState, TaskState
from tests.controller.stages import FULL, Stage

GANG = JobRules(gang=True)
HALF = Resources(2_000, 100)


def states(desk, job, count):
    return [desk.task(f"{job}.{i}").state for i in range(count)]


def free(desk):
    return [int(c) for c in desk.core.ledger.fleet.view.free[0]]


def test_all_of_them_in_one_commit(desk):
    Stage(desk, 3)
    desk.submit(job="g", count=3, needs=FULL, rules=GANG)
    effects = desk.after(200)
    commits = [[r for r in e.rows if isinstance(r, AttemptRow)] for e in effects if isinstance(e, Save)]
    assert [len(rows) for rows in commits if rows] == [3]


@pytest.mark.parametrize("missing", [1, 2])
def test_none_while_one_would_be_left_out_and_what_was_tried_leaves_no_trace(desk, missing):
    Stage(desk, 3 - missing)
    desk.placed(job="g", count=3, needs=FULL, rules=GANG)
    assert states(desk, "g", 3) == [TaskState.PENDING] * 3 and free(desk) == [4_000] * (3 - missing)
    desk.placed(job="other", needs=HALF)
    assert desk.task("other.0").state is TaskState.ASSIGNED, "it keeps nothing from others"


def test_the_last_device_lets_all_begin(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=3, needs=FULL, rules=GANG)
    stage.join("d3")
    desk.after(200)
    assert states(desk, "g", 3) == [TaskState.ASSIGNED] * 3


def test_limits_of_the_group_count_while_it_is_tried(desk):
    for i in range(3):
        desk.join(f"d{i}", labels={"zone": "ab"[i % 2]})
    distinct = (Constraint("label.zone", "distinct", "1"),)
    desk.placed(job="three", count=3, needs=HALF, rules=GANG, constraints=distinct)
    assert states(desk, "three", 3) == [TaskState.PENDING] * 3
    desk.placed(job="two", count=2, needs=HALF, rules=GANG, constraints=distinct)
    assert states(desk, "two", 2) == [TaskState.ASSIGNED] * 2


def test_accelerators_are_counted_while_it_is_tried(desk):
    Stage(desk, 1, room=Resources(4_000, 4_096, 0, 2_000))
    whole = Resources(100, 10, 0, 1_000)
    desk.placed(job="three", count=3, needs=whole, rules=GANG)
    assert states(desk, "three", 3) == [TaskState.PENDING] * 3
    desk.placed(job="two", count=2, needs=whole, rules=GANG)
    assert states(desk, "two", 2) == [TaskState.ASSIGNED] * 2
    given = sorted(desk.attempt(1, f"two.{i}").given for i in range(2))
    assert given == ["gpu0=1000", "gpu1=1000"]


def test_a_member_lost_later_is_replaced_by_itself(desk):
    stage = Stage(desk, 3)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG)
    stage.run_all()
    where = desk.task("g.1").device
    stage.counts[where] += 1
    desk.runs(where, stage.numbers[where], stage.counts[where], ("g.1", 1, RunState.INTERRUPTED))
    desk.after(200)
    assert (desk.task("g.1").state, desk.task("g.1").attempt) == (TaskState.ASSIGNED, 2)
    assert (desk.task("g.0").state, desk.task("g.0").attempt) == (TaskState.RUNNING, 1)


def test_when_all_were_lost_they_wait_for_each_other_again(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG, max_attempts=5)
    stage.run_all()
    for i, device in enumerate(sorted(stage.numbers)):
        task = stage.listed(device)[0].row.task
        stage.counts[device] += 1
        desk.runs(device, stage.numbers[device], stage.counts[device], (task, 1, RunState.ENDED, 1))
        if not i:
            desk.after(500)  # the second fails half a second after the first
    desk.after(600)
    assert states(desk, "g", 2) == [TaskState.PENDING] * 2, (
        "the first one's pause is over, but not the other's"
    )
    desk.after(500)
    assert states(desk, "g", 2) == [TaskState.ASSIGNED] * 2


def test_one_that_is_done_is_not_waited_for(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG, max_attempts=5)
    stage.run_all()
    for device, code in zip(sorted(stage.numbers), (0, 1), strict=True):
        task = stage.listed(device)[0].row.task
        stage.counts[device] += 1
        desk.runs(device, stage.numbers[device], stage.counts[device], (task, 1, RunState.ENDED, code))
    desk.after(1_500)
    found = {desk.task(f"g.{i}").state for i in range(2)}
    assert found == {TaskState.SUCCEEDED, TaskState.ASSIGNED}


def test_a_restart_before_the_last_device_comes_changes_nothing(desk):
    stage = Stage(desk, 1)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG)
    desk.take_over()
    stage.beat("d1")
    desk.after(500)
    assert states(desk, "g", 2) == [TaskState.PENDING] * 2
    stage.join("d2")
    stage.report("d1")
    desk.after(500)
    assert states(desk, "g", 2) == [TaskState.ASSIGNED] * 2


def test_a_gang_larger_than_a_turn_is_placed_whole_though_others_wait(desk):
    desk.join("d1", room=Resources(400_000, 400_000, 0, 0))
    desk.submit(job="other", count=50, needs=Resources(10, 1), rules=JobRules(owner="b"))
    desk.submit(job="g", count=150, needs=Resources(10, 1), rules=JobRules(gang=True, owner="a"))
    desk.after(200)
    assert set(states(desk, "g", 150)) == {TaskState.ASSIGNED}
