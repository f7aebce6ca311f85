"""The queue: priority, age, fair shares between owners, turns; against sorting by the same words."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.queue import AGE_MS, Queue, height
from controller.core.records import JobRules
from protocol.resources import Resources
from protocol.tasks import TaskState
from tests.controller.stages import FULL, Stage

ONE = Resources(1_000, 10)


def owned(owner):
    return JobRules(owner=owner)


def placed(desk, *jobs):
    return [j for j in jobs if desk.task(f"{j}.0").state in (TaskState.ASSIGNED, TaskState.RUNNING)]


def test_a_minute_of_waiting_is_worth_a_step_of_priority(desk):
    stage = Stage(desk)
    stage.filled()
    desk.submit(job="patient", needs=FULL, priority=0)
    for _ in range(13):
        desk.after(AGE_MS // 10)
        stage.beat("d1")
    desk.submit(job="pushing", needs=FULL, priority=1)
    desk.submit(job="urgent", needs=FULL, priority=2)
    jobs = desk.core.ledger.jobs
    assert [height(jobs[j], desk.now) for j in ("patient", "pushing", "urgent")] == [1, 1, 2]
    desk.cancel("low")
    stage.report("d1")
    desk.after(200)
    assert placed(desk, "patient", "pushing", "urgent") == ["urgent"]
    desk.cancel("urgent")
    stage.report("d1")
    desk.after(200)
    assert placed(desk, "patient", "pushing") == ["patient"]


@pytest.mark.parametrize("held", ["cpu", "memory"])
def test_among_equals_the_owner_with_the_smaller_dominant_share_comes_first(desk, held):
    """`a` has much of one resource, `b` a little of each."""
    desk.join("d1", room=Resources(10_000, 10_000, 0, 0))
    much = Resources(6_000, 10) if held == "cpu" else Resources(10, 6_000)
    desk.placed(job="a1", needs=much, rules=owned("a"))
    desk.placed(job="b1", needs=Resources(2_000, 2_000), rules=owned("b"))
    left = Resources(*(10_000 - m - 2_000 for m in much[:2]))
    desk.submit(job="a2", needs=left, rules=owned("a"))
    desk.submit(job="b2", needs=left, rules=owned("b"))
    desk.after(200)
    assert placed(desk, "a2", "b2") == ["b2"]


def test_owners_share_a_full_fleet_though_one_of_them_asks_first_and_for_more(desk):
    desk.join("d1", room=Resources(300_000, 300_000, 0, 0))
    desk.submit(job="flood", needs=ONE, count=1_000, rules=owned("a"))
    desk.submit(job="few", needs=ONE, count=300, rules=owned("b"))
    desk.after(500)
    out = Counter(a.job.row.id for a in desk.core.ledger.attempts.values())
    assert out == {"flood": 150, "few": 150}


def test_without_a_named_owner_it_is_the_actor(desk):
    desk.join()
    desk.placed(job="x", needs=ONE)
    assert list(desk.core.ledger.owned) == ["tester"]


def test_what_is_over_no_longer_counts(desk):
    stage = Stage(desk)
    stage.filled(job="x", needs=ONE, rules=owned("a"))
    assert list(desk.core.ledger.owned) == ["a"]
    desk.cancel("x")
    stage.report("d1")
    assert desk.core.ledger.owned == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=12)
)
def test_the_order_is_that_of_a_plain_sort(desk_kit, jobs):
    desk = desk_kit.Desk()
    desk.join("d1", room=Resources(100, 100, 0, 0))
    for at, (priority, owner, minutes) in enumerate(jobs):
        # Each asks for something of its own, so that none stands beside another for being like it.
        desk.submit(job=f"j{at:02}", needs=Resources(5_000 + at, 1), priority=priority, rules=owned(owner))
        desk.core.ledger.jobs[f"j{at:02}"].ready_ms = desk.now - minutes * AGE_MS
    desk.core.ledger.owned = {"b": Resources(10), "c": Resources(1)}
    waiting = list(desk.core.ledger.waiting.values())
    queue = Queue(desk.core.ledger, waiting, desk.now)
    share = {"a": 0, "b": 10, "c": 1}
    expected = sorted(range(len(jobs)), key=lambda at: (-(jobs[at][0] + jobs[at][2]), share[jobs[at][1]], at))
    found = []
    while (job := queue.next()) is not None:
        found.append(int(job.row.id[1:]))
    assert found == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=24, max_size=24),
)
def test_each_turn_goes_by_the_shares_of_its_moment(desk_kit, jobs, turns):
    """Against a look at all that wait before each turn; `turns`: what is given, whether more is wanted."""
    desk = desk_kit.Desk()
    desk.join("d1", room=Resources(100, 100, 0, 0))
    for at, (priority, owner) in enumerate(jobs):
        desk.submit(job=f"j{at:02}", needs=Resources(5_000 + at, 1), priority=priority, rules=owned(owner))
    ledger, held = desk.core.ledger, Counter()
    left = {at: 2 for at in range(len(jobs))}
    queue = Queue(ledger, list(ledger.waiting.values()), desk.now)
    for given_, more in turns:
        found = queue.next()
        if found is None:
            break
        assert int(found.row.id[1:]) == min(left, key=lambda at: (-jobs[at][0], held[jobs[at][1]], at))
        at = int(found.row.id[1:])
        left[at] -= 1
        held[found.owner] += given_
        ledger.owned[found.owner] = Resources(held[found.owner])
        if more and left[at]:
            queue.again(found)
        else:
            del left[at]
    assert bool(left) == bool(queue)
