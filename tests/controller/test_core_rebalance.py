"""Plans of voluntary moves: what is proposed, who decides, what may move."""

from __future__ import annotations

import pytest

from controller.core.records import Constraint, JobRules, Spread
from controller.core.rules import Rules
from controller.core.views import RefusalView
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind
from tests.controller.yard import COOL_MS, Yard

# ------------------------------------------------------------------------- the whole story


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_an_uneven_fleet_is_planned_approved_and_levelled(yard, guarantee):
    y = yard().crowd(8, guarantee=guarantee)
    plan = y.ask()
    assert (plan.state, plan.kind, plan.actor) == ("proposed", "rebalance", "ada")
    assert plan.before.most_load == 1.0 and plan.after.most_load == 0.375
    assert not plan.reached  # lumps: 3 of 8 tasks are 1.125 of a third; better there is not
    assert plan.after.imbalance < plan.before.imbalance and plan.after.response < plan.before.response
    assert {m.source for m in plan.moves} == {"d0"} and {m.target for m in plan.moves} == {"d1", "d2"}
    assert all(m.gain > 0 for m in plan.moves) and y.count() == {"d0": 8, "d1": 0, "d2": 0}
    y.approve(plan.id)
    y.live(5_000)
    done = y.plan(plan.id)
    assert done.state == "done" and done.counts["moved"] == len(plan.moves) and done.decided_by == "ada"
    assert all(m.landed == m.target for m in done.moves)
    assert sorted(y.count().values()) == [2, 3, 3] and len(y.running()) == 8
    now = y.plans().now
    assert (now.most_load, now.imbalance) == (done.after.most_load, done.after.imbalance)


def test_each_task_stops_before_it_starts_elsewhere(yard):
    y = yard(devices=2).crowd(4)
    y.deaf_to = {"d0"}  # it beats, but says nothing of its runs: only time frees what was granted
    y.approve(y.ask().id)
    y.live(3_000)
    moving = [m.task for m in y.plan(y.plans().items[0].id).moves if m.state == "moving"]
    assert len(moving) == 2 and y.count() == {"d0": 4, "d1": 0}
    y.deaf_to = set()
    y.live(3_000)
    assert y.count() == {"d0": 2, "d1": 2} and len(y.running()) == 4


def test_a_second_look_finds_nothing_to_do(yard):
    y = yard(Rules("spread", rebalance="auto")).crowd(8)
    y.live(70_000)
    assert sorted(y.count().values()) == [2, 3, 3]
    before = len(y.plans().items)
    y.live(COOL_MS + 300_000)
    assert len(y.plans().items) == before == 1
    again = y.ask()
    assert (again.moves, again.state, again.reason) == ([], "stale", "nothing to do: no move would help")


def test_what_was_just_moved_stays_for_three_leases(yard):
    y = yard().crowd(8)
    y.approve(y.ask().id)
    y.live(5_000)
    moved = {t.row.id for t in y.core.ledger.tasks.values() if t.row.device == "d1"}
    y.desk.submit(
        job="j2", count=2, needs=Resources(1_000, 64), constraints=(Constraint("device", "=", "d1"),)
    )
    y.live(COOL_MS - 20_000)
    assert not moved & {m.task for m in y.ask(dry_run=True).moves}
    y.live(25_000)
    assert moved & {m.task for m in y.ask(dry_run=True).moves}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_plan_that_may_move_nothing_yet_says_so(yard, dry_run):
    y = yard(devices=1)
    y.desk.submit(job="j1", count=3, needs=Resources(1_000, 64))
    y.live(5_000)
    y.join("d1")
    y.live(2_000)
    idle = y.ask(dry_run=dry_run)
    assert (idle.moves, idle.state, idle.reached) == ([], "stale", False)
    assert idle.reason.endswith("; 3 tasks came to their devices too lately to be moved again")
    y.live(COOL_MS)
    assert y.ask(dry_run=dry_run).moves


def test_the_budget_is_one_for_plans_and_drains(yard):
    y = yard(devices=5)
    y.crowd(40, cpu=100)
    y.desk.submit(job="j2", count=30, needs=Resources(10, 10), constraints=(Constraint("device", "=", "d4"),))
    y.live(COOL_MS)
    y.deaf_to = set(y.session)  # nothing is freed, so what is in flight stays so
    y.approve(y.ask().id)
    y.live(3_000)
    assert len(y.core.rebalance.carrying.under_way) == 10
    y.desk.decide("d4", "drain")
    y.live(3_000)
    assert y.core.operators.moving() == 0 and y.moving_most == 10
    y.deaf_to = set()
    y.live(60_000)
    assert y.moving_most == 10 and y.count()["d0"] < 40


# ------------------------------------------------------------------------- who decides


def test_large_plans_wait_for_approval_small_ones_do_not(yard):
    small = yard(Rules("spread", rebalance="auto", auto_moves_max=5)).crowd(8).live(65_000)
    assert small.plans().items[0].state == "done" and small.plans().items[0].decided_by == "controller"
    large = yard(Rules("spread", rebalance="auto", auto_moves_max=4)).crowd(8).live(65_000)
    assert large.plans().items[0].state == "proposed" and large.count()["d0"] == 8
    only = yard(Rules("spread", rebalance="propose")).crowd(8).live(65_000)
    assert only.plans().items[0].state == "proposed" and only.plans().items[0].actor == "controller"
    off = yard().crowd(8).live(65_000)
    assert off.plans().items == [] and off.plans().mode == "off"


@pytest.mark.parametrize("policy", ["binpack", "fragmentation"])
def test_nobody_looks_where_the_policy_packs(yard, policy):
    y = yard(Rules(policy, rebalance="auto")).crowd(8).live(120_000)
    assert y.plans().items == [] and y.count()["d0"] == 8
    assert len(y.ask().moves) == 5  # who asks, gets


def test_a_fleet_with_much_room_everywhere_is_left_alone(yard):
    y = yard(Rules("spread", rebalance="auto")).crowd(3, cpu=500).live(120_000)
    assert y.plans().items == [] and y.plans().now.ratio == 3.0


def test_a_rejected_proposal_is_not_made_again_for_an_hour(yard):
    y = yard(Rules("spread", rebalance="propose")).crowd(8).live(65_000)
    [plan] = y.plans().items
    y.approve(plan.id, approve=False)
    y.live(600_000, step=5_000)
    assert [p.state for p in y.plans().items] == ["rejected"]
    assert y.ask().state == "proposed"
    y.approve(y.plans().items[0].id, approve=False)
    y.live(3_700_000, step=9_000)
    assert y.plans().items[0].state == "proposed"


def test_a_proposal_that_nobody_approves_goes_stale(yard):
    y = yard().crowd(8)
    plan = y.ask()
    y.live(600_000, step=5_000)
    found = y.plan(plan.id)
    assert (found.state, found.reason) == ("stale", "nobody approved it within 10 minutes")
    refused = y.approve(plan.id)
    assert (
        isinstance(refused, RefusalView)
        and refused.code == "conflict"
        and "ask for a new one" in refused.detail
    )


def test_a_dry_run_is_answered_and_forgotten(yard):
    y = yard().crowd(8)
    assert len(y.ask(dry_run=True).moves) == 5 and y.plans().items == []


def test_a_newer_plan_takes_the_place_of_a_proposal_but_not_of_one_that_runs(yard):
    y = yard().crowd(8)
    first, second = y.ask(), y.ask(moves_max=2)
    assert len(second.moves) == 2 and not second.reached
    assert y.plan(first.id).reason == f"{second.id} took its place"
    y.deaf_to = {"d0"}
    y.approve(second.id)
    y.live(1_000)
    refused = y.ask()
    assert isinstance(refused, RefusalView) and refused.code == "conflict" and second.id in refused.detail
    assert y.ask(dry_run=True).state == "proposed"


def test_rejecting_a_plan_that_runs_ends_it_after_what_began(yard):
    y = yard(devices=5).crowd(40, cpu=100)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(2_000)
    y.approve(plan.id, approve=False)
    y.deaf_to = set()
    y.live(10_000)
    found = y.plan(plan.id)
    assert found.state == "rejected" and len(plan.moves) > 10
    assert y.count()["d0"] == 30 and found.counts["skipped"] == len(plan.moves) - 10
    assert len(y.running()) == 40 and not y.core.nominations.by_task


def test_unknown_plans_are_told_why(yard):
    y = yard()
    for answer in (y.plan("r1-1"), y.approve("r1-1")):
        assert isinstance(answer, RefusalView) and answer.code == "not_found" and "forgets" in answer.detail


# ------------------------------------------------------------------------- what may move


@pytest.mark.parametrize(
    "more",
    [
        {"rules": JobRules(gang=True)},
        {"rules": JobRules(policy="binpack")},
        {"constraints": (Constraint("device", "=", "d0"),)},
        {"needs": Resources(500, 1_500), "count": 2},
    ],
)
def test_these_stay_where_they_are(yard, more):
    y = yard(devices=2)
    for name in ("d1",):
        y.desk.decide(name, "cordon")
    if "needs" in more:  # too large for what is left elsewhere
        y.desk.decide("d1", "uncordon")
        y.desk.submit(job="big", needs=Resources(100, 3_000), constraints=(Constraint("device", "=", "d1"),))
        y.live(2_000)
        y.desk.decide("d1", "cordon")
    y.desk.submit(**{"count": 4, "needs": Resources(500, 64), **more})
    y.live(3_000)
    y.desk.decide("d1", "uncordon")
    y.live(COOL_MS)
    assert [m.task for m in y.ask().moves if m.task.startswith("j1")] == []


def test_daemons_stay(yard):
    y = yard(devices=2)
    y.desk.submit(job="dm", kind=JobKind.DAEMON, count=0, needs=Resources(2_000, 64))
    y.live(COOL_MS + 5_000)
    y.crowd(2)
    assert {m.task for m in y.ask().moves} == {"j1.0"}


def test_tasks_that_must_stand_apart_do_so_after_a_plan(yard):
    labels = {i: {"rack": f"r{i // 2}"} for i in range(6)}
    y = yard(devices=6, labels=labels)
    apart = (Constraint("label.rack", "distinct", ""),)
    y.desk.submit(job="apart", count=3, needs=Resources(1_000, 64), constraints=apart)
    y.live(2_000)
    y.crowd(6)
    y.approve(y.ask().id)
    y.live(10_000)
    racks = [
        labels[int(t.row.device[1:])]["rack"] for t in y.core.ledger.tasks.values() if t.row.job == "apart"
    ]
    assert sorted(racks) == ["r0", "r1", "r2"] and y.plans().now.ratio < 1.5


def test_two_tasks_that_must_stand_apart_are_not_sent_to_one_place(desk_kit):
    racks = {i: {"rack": f"r{i}"} for i in range(3)}
    y = Yard(desk_kit, labels=racks, rooms={2: Resources(16_000, 16_000, 10_000, 0)})
    y.desk.decide("d2", "cordon")
    for i in (0, 1):
        there = (Constraint("device", "=", f"d{i}"),)
        y.desk.submit(job=f"fixed{i}", needs=Resources(2_000, 64), constraints=there)
    apart = (Constraint("label.rack", "distinct", ""),)
    y.desk.submit(job="apart", count=2, needs=Resources(2_000, 64), constraints=apart)
    y.live(3_000)
    y.desk.decide("d2", "uncordon")
    y.live(COOL_MS)
    plan = y.ask()
    assert [(m.task[:5], m.target) for m in plan.moves] == [("apart", "d2")] and not plan.reached


def test_a_spread_keeps_its_shares(yard):
    labels = {i: {"zone": "ab"[i % 2]} for i in range(4)}
    y = yard(devices=4, labels=labels)
    for name in ("d2", "d3"):
        y.desk.decide(name, "cordon")
    wish = (Spread("label.zone"),)
    y.desk.submit(job="j1", count=8, needs=Resources(500, 64))
    y.core.ledger.jobs["j1"].row.spec.spreads = wish
    y.live(3_000)
    for name in ("d2", "d3"):
        y.desk.decide(name, "uncordon")
    y.live(COOL_MS)
    before = sorted(labels[int(d[1:])]["zone"] for d in y.running())
    plan = y.ask()
    assert plan.moves and all(labels[int(m.source[1:])] == labels[int(m.target[1:])] for m in plan.moves)
    y.approve(plan.id)
    y.live(10_000)
    assert sorted(labels[int(d[1:])]["zone"] for d in y.running()) == before
