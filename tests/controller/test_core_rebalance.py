"""Plans of voluntary moves: what is proposed, what begins when, and that nothing is broken on the way."""

from __future__ import annotations

import pytest

from controller.core.events import (
    DeviceDecision,
    FleetQueried,
    FleetUnfrozen,
    JobCancelled,
    RebalanceAsked,
    RebalanceDecided,
    RebalancesQueried,
)
from controller.core.records import Constraint, JobRules, Spread
from controller.core.rules import Rules
from controller.core.views import RefusalView
from controller.core.windows import Window, read_window
from controller.scheduler.balance import Aims
from protocol.messages import RunEntry, Runs
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState

LEASE_MS = 30_000
COOL_MS = 3 * LEASE_MS
ROOM = Resources(4_000, 4_096, 10_000, 0)


class Yard:
    """A desk with devices that do as they are told: they beat, run what is listed, drop what is not."""

    def __init__(self, kit, rules=None, devices=3, labels=None):
        self.kit, self.desk = kit, kit.Desk(rules=rules or Rules("spread"))
        self.seq, self.number, self.session = 10, {}, {}
        self.silent, self.deaf_to = set(), set()
        self.moving_most = 0
        for i in range(devices):
            self.join(f"d{i}", (labels or {}).get(i))

    @property
    def core(self):
        return self.desk.core

    def join(self, name, labels=None):
        self.session[name] = self.desk.join(name, labels=labels or {})
        self.number[name] = 1

    def live(self, ms, step=1_000):
        """Time in which every device beats, and reports what it was told."""
        until = self.desk.now + ms
        while self.desk.now < until:
            self.desk.after(min(step, until - self.desk.now))
            self.beat()
        return self

    def beat(self):
        self.seq += 1
        for name, session in self.session.items():
            if name not in self.silent:
                self.desk.heartbeat(name, session, self.seq, runs=self.number[name])
        for name in self.session:
            if name not in self.silent and name not in self.deaf_to:
                self.report(name)
        self.check()

    def report(self, name):
        row = self.core.ledger.fleet.index[name]
        told = self.core.documents.current.get(row)
        entries = tuple(
            RunEntry(a.task, a.attempt, RunState.RUNNING) for a in (told.attempts if told else ())
        )
        self.number[name] += 1
        runs = Runs(self.session[name], self.number[name], self.desk.document(name), entries)
        self.desk.message(name, runs)

    def check(self):
        """Nothing is ever reserved beyond what is offered, and the budget of C4 holds."""
        fleet, ledger = self.core.ledger.fleet, self.core.ledger
        for row in range(fleet.count):
            held = [a.share.resources for a in ledger.by_device[row].values()]
            total = [sum(amounts) for amounts in zip(*held, strict=True)] or [0] * len(ROOM)
            offered = fleet.offered_of(row)
            assert all(h <= o for h, o in zip(total, offered, strict=True)), (row, total, offered)
        moving = len(self.core.rebalance.carrying.under_way) + self.core.operators.moving()
        assert moving <= self.core.operators.budget()
        self.moving_most = max(self.moving_most, moving)

    # ------------------------------------------------------------- people

    def ask(self, **how):
        return self.kit.reply(self.desk.feed(RebalanceAsked(7, "ada", **how)))

    def approve(self, plan, approve=True):
        return self.kit.reply(self.desk.feed(RebalanceDecided(8, plan, approve, "ada")))

    def plan(self, plan):
        return self.kit.reply(self.desk.feed(RebalancesQueried(9, plan)))

    def plans(self):
        return self.kit.reply(self.desk.feed(RebalancesQueried(9)))

    def crowd(self, count=8, onto="d0", cpu=500, job="j1", **more):
        """Tasks that all run on one device, the others being empty; past their cool-down."""
        for name in self.session:
            if name != onto:
                self.desk.decide(name, "cordon")
        self.desk.submit(job=job, count=count, needs=Resources(cpu, 64), **more)
        self.live(3_000)
        for name in self.session:
            self.desk.decide(name, "uncordon")
        assert self.count()[onto] >= count
        return self.live(COOL_MS)

    def count(self):
        """How many tasks run where."""
        ledger = self.core.ledger
        return {n: len(ledger.by_device[ledger.fleet.index[n]]) for n in self.session}

    def running(self):
        return [t.row.device for t in self.core.ledger.tasks.values() if t.row.state == "running"]


@pytest.fixture
def yard(desk_kit):
    return lambda rules=None, devices=3, labels=None: Yard(desk_kit, rules, devices, labels)


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
    assert (again.moves, again.state, again.reason) == ([], "stale", "nothing to do")


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


# ------------------------------------------------------------------------- the world moves on


def test_moves_that_make_no_sense_any_more_are_skipped_and_say_why(yard):
    y = yard(devices=3).crowd(8)
    plan = y.ask()
    gone, shut = plan.moves[0], next(m for m in plan.moves if m.target == "d2")
    y.desk.feed(DeviceDecision(3, "d2", "cordon", "ada"))
    task = y.core.ledger.tasks[gone.task]
    row = y.core.ledger.fleet.index["d0"]
    told = y.core.documents.current[row]
    y.number["d0"] += 1
    entries = tuple(
        RunEntry(a.task, a.attempt, RunState.ENDED, 0)
        if a.task == gone.task
        else RunEntry(a.task, a.attempt, RunState.RUNNING)
        for a in told.attempts
    )
    y.desk.message("d0", Runs(y.session["d0"], y.number["d0"], y.desk.document("d0"), entries))
    assert task.row.state == "succeeded"
    y.approve(plan.id)
    y.live(5_000)
    found = {m.task: m for m in y.plan(plan.id).moves}
    assert found[gone.task].reason == "its attempt is over"
    if shut.task != gone.task:
        assert found[shut.task].reason == "d2 takes nothing at the moment"
    states = {m.state for m in found.values()}
    assert states == {"moved", "skipped"} and y.plan(plan.id).state == "done"
    assert y.count()["d2"] == 0


def test_a_plan_of_which_nothing_is_left_is_stale(yard):
    y = yard(devices=2).crowd(8)
    plan = y.ask()
    y.desk.decide("d1", "cordon")
    refused = y.approve(plan.id)
    assert refused.code == "conflict" and "makes sense any more" in refused.detail
    assert y.plan(plan.id).state == "stale"


def test_room_on_the_target_is_kept_while_the_task_is_on_its_way(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.submit(job="thief", count=10, needs=Resources(500, 64))
    y.live(2_000)
    assert y.count() == {"d0": 8, "d1": 4}  # only what the plan leaves
    y.deaf_to = set()
    y.live(5_000)
    assert [m.landed for m in y.plan(plan.id).moves] == ["d1"] * 4


def test_a_target_that_is_lost_lets_the_task_go_wherever_there_is_room(yard):
    y = yard(devices=3).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.silent = {"d2"}
    y.live(28_000)
    assert not y.core.ledger.fleet.view.ready[2] and {m.state for m in y.plan(plan.id).moves} == {"moving"}
    y.deaf_to = set()
    y.live(20_000)
    assert {m.landed for m in y.plan(plan.id).moves if m.target == "d2"} <= {"d0", "d1"}
    assert y.plan(plan.id).state == "done" and len(y.running()) == 8 and not y.core.nominations.by_task


def test_a_cancel_on_the_way_ends_the_task_and_frees_what_was_kept(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.feed(JobCancelled(2, "j1", "ada"))
    y.deaf_to = set()
    y.live(5_000)
    found = y.plan(plan.id)
    assert found.state == "done" and found.counts["over"] == 4 and y.count() == {"d0": 0, "d1": 0}
    assert not y.core.nominations.by_task and y.core.ledger.fleet.free_of(1) == ROOM._replace(
        slots=y.core.ledger.fleet.offered_of(1).slots
    )


def test_nothing_moves_while_failover_is_frozen(yard):
    y = yard(Rules("spread", rebalance="auto"), devices=30)
    y.crowd(8)
    y.silent = {f"d{i}" for i in range(12, 30)}
    y.live(40_000)
    assert y.core.failover.frozen
    plan = y.ask(approve=True)
    y.live(10_000)
    assert (y.plan(plan.id).state, y.plan(plan.id).reason) == ("approved", "failover is frozen")
    assert y.count()["d0"] == 8 and y.plans().waits == "failover is frozen"
    y.desk.feed(FleetUnfrozen(4, "ada"))
    y.live(10_000)
    assert y.plan(plan.id).state == "done"


def test_nothing_moves_while_the_controller_is_deaf(yard):
    y = yard().crowd(8)
    y.desk.broker_answers = False
    y.live(12_000)
    plan = y.ask(approve=True)
    y.live(6_000)
    assert y.plan(plan.id).state == "approved" and "own messages" in y.plan(plan.id).reason
    y.desk.broker_answers = True
    y.live(15_000)
    assert y.plan(plan.id).state == "done"


def test_moves_begin_only_in_a_maintenance_window(yard, desk_kit):
    wall_minute = (1_700_000_000_000 + 1_000_000) // 60_000 % 1_440  # a Tuesday evening, as the desk has it
    window = Window(127, wall_minute + 5, wall_minute + 8)
    y = yard(Rules("spread", windows=(window,))).crowd(8)
    plan = y.ask(approve=True)
    assert plan.state == "approved" and y.plans().waits == "no maintenance window is open"
    y.live(60_000)
    assert y.count()["d0"] == 8 and y.plan(plan.id).reason == "no maintenance window is open"
    y.live(180_000)
    assert y.plan(plan.id).state == "done" and sorted(y.count().values()) == [2, 3, 3]


def test_a_take_over_in_the_middle_forgets_the_plan_and_loses_nothing(yard):
    y = yard(devices=3).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.take_over()
    y.deaf_to = set()
    assert y.plan(plan.id).code == "not_found"
    y.live(60_000)
    assert len(y.running()) == 8 and sum(y.count().values()) == 8
    assert y.count()["d0"] < 8  # what had begun to move has moved


def test_a_take_over_lets_everything_cool_down_anew(yard):
    y = yard().crowd(8)
    y.desk.take_over()
    y.live(COOL_MS - 10_000)
    assert y.ask(dry_run=True).moves == []  # it does not know when anybody came
    y.live(20_000)
    assert y.ask(dry_run=True).moves


# ------------------------------------------------------------------------- drains


def test_a_drain_is_a_plan_that_tells_where_its_tasks_go(yard):
    y = yard(devices=3).crowd(6)
    y.desk.submit(job="only", needs=Resources(100, 64), constraints=(Constraint("device", "=", "d0"),))
    y.live(2_000)
    y.desk.decide("d0", "drain")
    [plan] = y.plans().items
    assert (plan.kind, plan.device, plan.state) == ("drain", "d0", "running")
    whole = y.plan(plan.id)
    assert len(whole.moves) == 6 and whole.homeless == ["only.0"] and not whole.reached
    foreseen = {m.task: m.target for m in whole.moves}
    y.live(10_000)
    done = y.plan(plan.id)
    assert done.state == "done" and {m.task: m.landed for m in done.moves} == foreseen
    assert y.approve(plan.id).code == "conflict"


def test_a_drain_that_is_taken_back_says_so(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    y.desk.decide("d0", "drain")
    y.live(1_000)
    y.desk.decide("d0", "uncordon")
    y.live(2_000)
    [plan] = y.plans().items
    assert plan.state == "rejected" and "opened again" in plan.reason


def test_figures_are_in_the_overview(yard, desk_kit):
    y = yard().crowd(8)
    y.approve(y.ask().id)
    y.live(5_000)
    view = desk_kit.reply(y.desk.feed(FleetQueried(4)))
    assert view.balance["most_load"] == 0.375 and view.counters["rebalance_moves"] == 5


def test_windows_read_and_open():
    monday_0 = 4 * 86_400_000  # 1970-01-05
    at = lambda day, hour, minute=0: monday_0 + ((day * 24 + hour) * 60 + minute) * 60_000  # noqa: E731
    night = read_window("mon-fri 22:00-06:00")
    assert night.open_at(at(0, 22)) and night.open_at(at(1, 5, 59)) and not night.open_at(at(1, 6))
    assert not night.open_at(at(0, 3)) and night.open_at(at(5, 3)) and not night.open_at(at(5, 22))
    assert read_window("sat+sun 00:00-24:00").open_at(at(6, 23, 59))
    assert str(read_window("SAT-MON 01:30-02:00")) == "mon+sat+sun 01:30-02:00"
    assert Aims().goal == 1.10
