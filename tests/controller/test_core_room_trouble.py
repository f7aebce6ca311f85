"""Plans of room while the world moves on, and those that nobody asked for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from controller.core.events import JobCancelled
from controller.core.records import Constraint
from controller.core.rules import Rules
from controller.core.views import RefusalView
from controller.core.windows import Window
from protocol.resources import Resources
from tests.controller.crumbs import fragmented, six_small, where
from tests.controller.yard import COOL_MS, ROOM

ON = {n: (Constraint("device", "=", n),) for n in ("d0", "d1", "d2", "d3")}


# ------------------------------------------------------------------------- the world moves on


def waiting_plan(y):
    """A plan that was approved and may not begin: no window is open."""
    plan = y.ask(task="big.0", approve=True)
    assert (plan.state, y.plans().waits) == ("approved", "no maintenance window is open")
    return plan


@pytest.fixture
def shut():
    """Rules with a window that opens in half an hour."""
    minute = (1_700_000_000_000 + 1_000_000) // 60_000 % 1_440
    return Rules("spread", windows=(Window(127, minute + 30, minute + 40),))


def stale(y, plan, words):
    found = y.plan(plan.id)
    assert found.state == "stale" and words in found.reason, found.reason
    assert {m.state for m in found.moves} == {"skipped"} and not y.core.rebalance.carrying.under_way
    assert not y.core.nominations.by_task
    return found


def test_a_plan_whose_task_was_cancelled_is_stale(yard, shut):
    y = fragmented(yard(shut))
    plan = waiting_plan(y)
    y.desk.feed(JobCancelled(2, "big", "ada"))
    y.live(6_000)
    stale(y, plan, "no open task big.0")


def test_a_plan_whose_task_found_another_place_is_stale(yard, shut):
    y = fragmented(yard(shut))
    plan = waiting_plan(y)
    y.join("d9")
    y.live(6_000)
    assert where(y, "big.0") == "d9"
    stale(y, plan, "task big.0 is running on d9")


def test_a_proposal_is_looked_at_before_it_is_approved(yard):
    y = fragmented(yard())
    plan = y.ask(task="big.0")
    y.desk.feed(JobCancelled(2, "big", "ada"))
    answer = y.approve(plan.id)
    assert answer.code == "conflict" and "no open task big.0" in answer.detail
    stale(y, plan, "no open task big.0")


def test_a_plan_whose_task_fits_without_it_is_stale(yard):
    y = fragmented(yard())
    plan = y.ask(task="big.0")
    y.listen()
    y.report("d1", **{"on-d1.0": 0})  # what it leaves is big enough; the next round is milliseconds away
    assert y.core.ledger.tasks["big.0"].row.state == "pending"
    assert y.approve(plan.id).code == "conflict"
    stale(y, plan, "fits on 1 device without moving anything")


def test_a_plan_that_would_make_no_room_any_more_moves_nothing(yard):
    y = fragmented(yard(devices=2))
    plan = y.ask(task="big.0")
    y.desk.submit(job="more", needs=Resources(1_500, 64), constraints=ON[plan.moves[0].target])
    y.live(1_000)
    assert y.approve(plan.id).code == "conflict"
    found = stale(y, plan, "it would make no room for big.0 any more")
    assert f"{plan.moves[0].target} has no room for it any more" in found.reason
    assert len(y.running()) == 3


def test_two_moves_that_no_longer_fit_together_do_not_begin_one_by_one(yard):
    y = six_small(yard)
    plan = y.ask(task="big.0")
    y.desk.submit(job="thief", needs=Resources(1_000, 64), constraints=ON["d1"])
    y.live(1_000)  # each of the three would fit beside it, all three don't
    y.approve(plan.id)
    stale(y, plan, "it would make no room for big.0 any more")
    assert y.count() == {"d0": 6, "d1": 1}


def test_nothing_moves_while_failover_is_frozen(yard):
    y = fragmented(yard(devices=30))
    y.silent = {f"d{i}" for i in range(12, 30)}
    y.live(40_000)
    assert y.core.failover.frozen
    plan = y.ask(task="big.0", approve=True)
    y.live(3_000)
    assert (y.plan(plan.id).state, y.plan(plan.id).reason) == ("approved", "failover is frozen")
    assert not y.core.nominations.by_task


def test_its_moves_begin_together_once_the_budget_has_room(yard):
    y = yard(devices=4, rooms={1: ROOM._replace(cpu_milli=2_000)})
    for name in ("d1", "d2", "d3"):
        y.desk.decide(name, "cordon")
    y.desk.submit(job="small", count=6, needs=Resources(500, 64))
    y.live(2_000)
    y.desk.decide("d1", "uncordon")
    y.desk.submit(job="other", count=30, needs=Resources(10, 10), constraints=ON["d2"])
    y.desk.decide("d2", "uncordon")
    y.live(COOL_MS)
    y.desk.decide("d2", "drain")
    y.desk.submit(job="big", needs=Resources(2_500, 64), constraints=ON["d0"])
    y.deaf_to = set(y.session)
    y.live(3_000)
    plan = y.ask(task="big.0", approve=True)
    assert plan.state == "approved" and "its own begin together" in plan.reason
    y.deaf_to = set()
    y.live(20_000)
    assert y.plan(plan.id).state == "done" and where(y, "big.0") == "d0" and y.moving_most <= 10


def test_a_take_over_in_the_middle_loses_nothing(yard):
    y = fragmented(yard(devices=2))
    y.deaf_to = {"d0", "d1"}
    plan = y.ask(task="big.0", approve=True)
    y.live(1_000)
    y.desk.take_over()
    y.deaf_to = set()
    assert y.plan(plan.id).code == "not_found"
    y.live(60_000)
    assert len(y.running()) == 3 and not y.core.nominations.by_task


def test_a_starving_task_gets_its_room_by_moves(yard):
    """What waits long has a device kept for it that empties by itself; moves need not wait for that."""
    y = fragmented(yard())
    y.live(320_000, step=5_000)
    y.desk.submit(job="brief", needs=Resources(10, 10))
    y.live(1_000)
    y.report(where(y, "brief.0"), **{"brief.0": 0})  # some room is free, and so the queue is looked at
    y.live(1_000)
    kept = y.core.nominations.by_task["big.0"]
    assert kept.starving
    plan = y.ask(task="big.0", approve=True)
    y.live(5_000)
    assert y.plan(plan.id).state == "done" and where(y, "big.0") == plan.device
    assert not y.core.nominations.by_task


def test_one_plan_at_a_time(yard):
    y = fragmented(yard(devices=2))
    first = y.ask(task="big.0")
    y.deaf_to = {"d0", "d1"}
    second = y.ask(task="big.0", approve=True)
    assert y.plan(first.id).reason == f"{second.id} took its place"
    refusal = y.ask()
    assert refusal.code == "conflict" and second.id in refusal.detail
    assert y.approve(second.id, approve=False).object == second.id
    y.deaf_to = set()
    y.live(5_000)
    assert y.plan(second.id).state == "rejected" and where(y, "big.0") == second.device  # what began goes on


# ------------------------------------------------------------------------- by itself


@pytest.mark.parametrize("policy", ["binpack", "fragmentation"])
def test_where_the_policy_packs_a_look_makes_room_for_who_waits_longest(yard, policy):
    y = fragmented(yard(Rules(policy, rebalance="auto")))
    y.desk.submit(job="later", needs=Resources(3_100, 64))
    y.live(50_000)
    assert y.plans().items == []  # nobody waits for a minute yet
    y.live(75_000)
    plan = y.plans().items[-1]
    assert (plan.kind, plan.task, plan.state, plan.actor) == ("room", "big.0", "done", "controller")
    assert where(y, "big.0") == plan.device and len(y.running()) == 4


def test_what_moves_more_than_runs_by_itself_waits_for_approval(yard):
    rules = Rules("binpack", rebalance="auto", auto_moves_max=1, auto_moves_percent=0)
    y = fragmented(yard(rules), each=500, count=4).live(130_000)  # two have to go
    [plan] = y.plans().items
    assert (plan.state, plan.counts["waiting"]) == ("proposed", 2) and where(y, "big.0") == ""
    y.approve(plan.id, approve=False)
    y.live(600_000, step=5_000)
    assert len(y.plans().items) == 1  # who said no is not asked again for an hour


@pytest.mark.parametrize(
    ("policy", "mode", "plans"), [("spread", "auto", 0), ("binpack", "off", 0), ("binpack", "propose", 1)]
)
def test_other_fleets_make_room_only_when_asked(yard, policy, mode, plans):
    y = fragmented(yard(Rules(policy, rebalance=mode))).live(130_000)
    assert [p.state for p in y.plans().items] == ["proposed"] * plans and where(y, "big.0") == ""


def test_looks_in_vain_become_fewer(yard):
    y = fragmented(yard(Rules("binpack", rebalance="auto")), each=2_500)
    looks, look = [], y.core.rebalance.rooms.propose
    y.core.rebalance.rooms.propose = lambda *of: looks.append(y.desk.now) or look(*of)
    y.live(1_000_000, step=9_000)
    gaps = [b - a for a, b in pairwise(looks)]
    assert len(looks) >= 3 and all(b >= 1.9 * a for a, b in pairwise(gaps)), gaps


@pytest.mark.parametrize("worth_it", [True, False])
def test_accelerators_are_emptied_by_itself_only_for_what_is_gained(yard, worth_it):
    """Two halves on two accelerators: together they leave a whole one, which is worth more than a restart."""
    room = Resources(4_000, 4_096, 10_000, 1_000)
    y = yard(Rules("fragmentation", rebalance="auto"), devices=2, rooms={0: room, 1: room})
    for name, other in (("d0", "d1"), ("d1", "d0")):
        y.desk.decide(other, "cordon")
        y.desk.submit(
            job=f"on-{name}", needs=Resources(10, 10, gpu_milli=400), priority=0 if worth_it else 100
        )
        y.live(1_000)
        y.desk.decide(other, "uncordon")
    y.live(COOL_MS)
    if not worth_it:  # a move that costs more than it could gain
        for task in y.core.ledger.tasks.values():
            task.job.row.priority = 1_000
    y.desk.submit(job="big", needs=Resources(10, 10, gpu_milli=1_000))
    y.live(130_000)
    assert bool(where(y, "big.0")) is worth_it
    assert (
        y.ask(task="big.0", dry_run=True).__class__ is RefusalView if worth_it else y.ask(task="big.0").moves
    )


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_gained_counts_only_where_the_task_may_be_placed(yard, apart):
    """An accelerator could be emptied, but in a rack where a sister of the task is."""
    room = Resources(4_000, 4_096, 10_000, 1_000)
    racks, rooms = {i: {"rack": "a"} for i in range(3)}, dict.fromkeys(range(3), room)
    y = yard(Rules("fragmentation", rebalance="propose"), labels=racks, rooms=rooms)
    y.desk.decide("d2", "cordon")
    for name, other in (("d0", "d1"), ("d1", "d0")):
        y.desk.decide(other, "cordon")
        y.desk.submit(job=f"on-{name}", needs=Resources(10, 10, gpu_milli=400))
        y.live(1_000)
        y.desk.decide(other, "uncordon")
    y.desk.decide("d2", "uncordon")
    distinct = (Constraint("label.rack", "distinct", ""),) if apart else ()
    y.live(COOL_MS)
    y.desk.submit(job="big", count=2, needs=Resources(10, 10, gpu_milli=1_000), constraints=distinct)
    y.live(130_000)
    assert [p.kind for p in y.plans().items] == ([] if apart else ["room"])
