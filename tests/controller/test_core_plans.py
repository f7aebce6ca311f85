"""Plans: what they foretell comes true, and asking changes nothing."""

from __future__ import annotations

import pickle
from dataclasses import replace
from math import comb

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.changes import DrainChange, GrowthChange, JobChange, LossChange, SubmitChange
from controller.core.events import DeviceDecision, PlanAsked
from controller.core.plan_views import PlanFaultView, PlanView
from controller.core.records import Constraint, JobRow, JobRules, JobState, TaskSpec
from controller.core.sessions import new_device
from controller.core.views import RefusalView
from protocol.core import Save
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState

NEEDS = Resources(1_000, 100)
SMALL = Resources(2_000, 4_096, 10_000, 0)


def ask(desk, desk_kit, *changes, survive=0):
    """The answer, however many slices it takes."""
    effects = desk.feed(PlanAsked(9, changes, survive))
    for _ in range(1_000):
        found = [e.body for e in effects if type(e).__name__ == "Reply" and e.request == 9]
        if found:
            return found[0]
        effects = desk.after(1)
    raise AssertionError("no answer")


def job_row(
    name="new", count=1, needs=NEEDS, kind=JobKind.BATCH, constraints=(), rules=JobRules(), priority=50
):
    spec = TaskSpec("process", ("true",), {}, needs, constraints)
    return JobRow(
        name, name, kind, count, priority, Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec, JobState.OPEN, "run",
        0, 0, "tester", rules=rules,
    )  # fmt: skip


def device(room=SMALL, labels=None):
    return replace(
        new_device("template", 0),
        profile="generic-linux",
        capacity=room,
        labels=labels or {},
        runtimes=("process",),
    )


@pytest.fixture
def sites(desk):
    """Two sites of two devices with room for two tasks each, and a job of four tasks on them."""
    for name in ("a1", "a2", "b1", "b2"):
        desk.join(name, room=SMALL, labels={"site": name[0]})
    desk.placed(job="j1", count=4)
    return desk


def where(desk):
    return {t.row.id: t.row.device for t in desk.core.ledger.tasks.values()}


def frozen(desk):
    """Everything that a plan must not change, as bytes."""
    core = desk.core
    view, fleet, ledger = core.ledger.fleet.view, core.ledger.fleet, core.ledger
    columns = {k: c[: view.count].tobytes() for k, c in view._columns.items()}
    extras = {k: (a.tobytes(), b.tobytes()) for k, (a, b) in view._extras.items()}
    return pickle.dumps(
        (
            columns, extras, view.count, view.log, view.era, view.turns, view.accel_free.tobytes(),
            [getattr(fleet, n)[: fleet.count].tobytes() for n in ("cordoned", "draining", "removed")],
            fleet.room_generation, fleet.facts_generation, fleet.count, fleet.names, fleet.sites,
            [(j.row, j.left, list(j.ready), j.blocked, j.placed, j.signature) for j in ledger.jobs.values()],
            [(t.row, t.avoid, t.prefer) for t in ledger.tasks.values()],
            [(a.row, a.device, a.share) for a in ledger.attempts.values()],
            list(ledger.waiting), ledger.rows, ledger.counters, core.placement.due_ms,
        )
    )  # fmt: skip


def test_a_drain_tells_who_moves_and_then_it_happens(sites, desk_kit):
    before = where(sites)
    plan = ask(sites, desk_kit, DrainChange(("a1",)))
    on_it = sorted(t for t, d in before.items() if d == "a1")
    assert isinstance(plan, PlanView) and not plan.breaks
    assert [(m.task, m.device) for m in plan.moved] == [(t, "a1") for t in on_it]
    assert all(m.to in ("a2", "b1", "b2") for m in plan.moved)
    assert (plan.before.devices, plan.after.devices) == (4, 3)
    assert plan.after.free.cpu_milli == plan.before.free.cpu_milli - SMALL.cpu_milli


def test_what_breaks_is_told_with_its_reason(sites, desk_kit):
    plan = ask(sites, desk_kit, LossChange(("a1",), ("b",)))
    assert plan.breaks and plan.counts["broken"] == 2 and plan.counts["moved"] == 1
    assert plan.reasons == {"cpu": 2} and {b.reason for b in plan.broken} == {"cpu"}
    assert all("needs 1,000 mCPU" in b.words and not b.to for b in plan.broken)
    assert plan.after.utilisation == 1.0


def test_more_devices_take_what_waits(sites, desk_kit):
    sites.placed(job="big", needs=Resources(3_000, 100))
    plan = ask(sites, desk_kit, GrowthChange(2, device(Resources(4_000, 4_096, 1_000))))
    assert [(p.task, p.device, p.to) for p in plan.placed] == [("big.0", "", "new-1")] and not plan.breaks
    assert (plan.before.devices, plan.after.devices) == (4, 6)
    without = ask(sites, desk_kit, GrowthChange(2, device(SMALL)))
    assert not without.placed and without.counts["waiting"] == 1 and not without.breaks


def test_a_job_that_is_asked_for_breaks_where_it_does_not_fit(sites, desk_kit):
    plan = ask(sites, desk_kit, SubmitChange(job_row(count=6)))
    assert (plan.counts["placed"], plan.counts["broken"]) == (4, 2) and plan.breaks
    assert [(m.job, m.copies) for m in plan.more] == [("new", 0)]
    plan = ask(sites, desk_kit, SubmitChange(job_row(count=1)))
    assert not plan.breaks and plan.more[0].copies == 3


def test_an_urgent_job_is_considered_first(sites, desk_kit):
    plan = ask(sites, desk_kit, LossChange(sites=("b",)), SubmitChange(job_row(count=2, priority=100)))
    assert {p.job for p in plan.placed} == {"new"} and {b.job for b in plan.broken} == {"j1"}
    plan = ask(sites, desk_kit, LossChange(sites=("b",)), SubmitChange(job_row(count=2, priority=0)))
    assert {m.job for m in plan.moved} == {"j1"} and {b.job for b in plan.broken} == {"new"}


def test_a_larger_demand_stays_where_it_can(sites, desk_kit):
    plan = ask(sites, desk_kit, JobChange("j1", (("cpu_milli", 1_500),)))
    assert not plan.breaks and plan.counts["stayed"] + plan.counts["moved"] == 4
    plan = ask(sites, desk_kit, JobChange("j1", (("memory_mib", 5_000),)))
    assert plan.counts["broken"] == 4 and plan.reasons == {"memory": 4}
    plan = ask(sites, desk_kit, JobChange("j1", (), (Constraint("site", "=", "a"),)))
    assert plan.counts["broken"] == 0 and {m.to[0] for m in plan.moved} <= {"a"}


def test_more_or_fewer_tasks_and_another_policy(sites, desk_kit):
    more = ask(sites, desk_kit, JobChange("j1", count=9))
    assert {p.task for p in more.placed} == {f"j1.{i}" for i in range(4, 8)} and more.breaks
    assert [b.task for b in more.broken] == ["j1.8"] and more.counts["stayed"] == 4 and not more.moved
    fewer = ask(sites, desk_kit, JobChange("j1", count=1))
    assert (fewer.counts["ended"], fewer.counts["stayed"], fewer.breaks) == (3, 1, False)
    assert fewer.after.free.cpu_milli == fewer.before.free.cpu_milli + 3_000
    gone = ask(sites, desk_kit, LossChange((), ("a", "b")), JobChange("j1", count=1))
    assert (gone.counts["ended"], gone.counts["broken"]) == (3, 1)
    half = (("cpu_milli", 500),)
    for policy, used in (("spread", 2), ("binpack", 1)):
        plan = ask(sites, desk_kit, JobChange("j1", half, policy=policy, count=6))
        assert plan.counts["stayed"] == 4 and len({p.to for p in plan.placed}) == used


def test_who_asks_for_the_same_stays_where_nothing_new_may_start(sites, desk_kit):
    used = where(sites)["j1.0"]
    fleet = sites.core.ledger.fleet
    fleet.view.open[fleet.index[used]] = False  # as a cordon leaves what runs there
    fleet.view.touch_all()
    assert ask(sites, desk_kit, JobChange("j1", count=5)).counts["moved"] == 0
    anew = ask(sites, desk_kit, JobChange("j1", (("memory_mib", 99),)))
    assert [m.device for m in anew.moved] == [used], "a changed task starts anew"


def test_a_daemon_follows_what_it_would_ask_for(desk, desk_kit):
    for name in ("a1", "a2", "b1"):
        desk.join(name, room=SMALL, labels={"site": name[0]})
    desk.placed(job="every", kind=JobKind.DAEMON, count=0, constraints=(Constraint("site", "=", "a"),))
    plan = ask(desk, desk_kit, JobChange("every", constraints=(Constraint("site", "=", "b"),)))
    assert (plan.counts["ended"], plan.counts["broken"]) == (2, 0)
    assert [(p.task, p.to) for p in plan.placed] == [("every.2", "b1")]
    grown = ask(
        desk, desk_kit, JobChange("every", constraints=()), GrowthChange(1, device(labels={"site": "c"}))
    )
    assert sorted(p.to for p in grown.placed) == ["b1", "new-1"] and grown.counts["stayed"] == 2


def test_a_job_may_change_twice_in_a_plan(sites, desk_kit):
    one = ask(sites, desk_kit, JobChange("j1", (("cpu_milli", 1_500),), count=2))
    two = ask(sites, desk_kit, JobChange("j1", (("cpu_milli", 1_500),)), JobChange("j1", count=2))
    assert (one.after, one.more) == (two.after, two.more) and not two.breaks
    assert len(two.more) == 1


def test_which_site_can_be_lost(sites, desk_kit):
    plan = ask(sites, desk_kit, survive=1)
    assert not plan.breaks and plan.losses_looked_at == 2
    assert [(x.devices, x.moved, x.broken, x.utilisation) for x in plan.losses] == [(2, 2, 0, 1.0)] * 2
    plan = ask(sites, desk_kit, survive=2)
    assert plan.breaks and [(x.sites, x.broken) for x in plan.losses] == [(("a", "b"), 4)]
    plan = ask(sites, desk_kit, DrainChange(("a1",)), survive=1)
    assert plan.counts["broken"] == 0 and plan.breaks and plan.losses_breaking == 1
    assert [(x.sites, x.moved, x.broken) for x in plan.losses] == [(("b",), 0, 2), (("a",), 2, 0)]


def test_tasks_keep_apart_in_a_plan_too(desk, desk_kit):
    for name in ("a1", "a2", "b1"):
        desk.join(name, labels={"site": name[0]})
    apart = (Constraint("", "distinct_device", ""),)
    desk.placed(job="j1", count=2, constraints=apart)
    used = sorted(where(desk).values())
    plan = ask(desk, desk_kit, LossChange((used[0],)))
    [spare] = {"a1", "a2", "b1"} - set(used)
    assert [(m.device, m.to) for m in plan.moved] == [(used[0], spare)]
    plan = ask(desk, desk_kit, LossChange((used[0], spare)))
    assert plan.reasons == {"distinct": 1}
    plan = ask(desk, desk_kit, LossChange((used[0], spare)), GrowthChange(1, device()))
    assert [m.to for m in plan.moved] == ["new-1"]


def test_gangs_daemons_and_bounds_are_kept(desk, desk_kit):
    for name in ("d1", "d2"):
        desk.join(name, room=SMALL)
    gang = ask(desk, desk_kit, SubmitChange(job_row(count=5, rules=JobRules(gang=True))))
    assert gang.counts["broken"] == 5 and gang.reasons == {"gang": 5} and not gang.placed
    assert "only 4 of its gang of 5 fit" in gang.broken[0].words
    bound = ask(desk, desk_kit, SubmitChange(job_row(count=9, rules=JobRules(parallel_max=2))))
    assert bound.counts["placed"] == 2 and bound.counts["waiting"] == 7 and not bound.breaks
    desk.placed(job="every", kind=JobKind.DAEMON, count=0)
    assert where(desk) == {"every.0": "d1", "every.1": "d2"}
    lost = ask(desk, desk_kit, LossChange(("d1",)))
    assert not lost.breaks and not lost.moved, "a daemon's task ends with its device"
    more = ask(desk, desk_kit, GrowthChange(1, device()))
    assert [(p.job, p.to) for p in more.placed] == [("every", "new-1")]
    another = ask(desk, desk_kit, SubmitChange(job_row("two", kind=JobKind.DAEMON, count=0)))
    assert sorted(p.to for p in another.placed) == ["d1", "d2"]


def test_asking_changes_nothing_at_all(sites, desk_kit):
    sites.placed(job="big", needs=Resources(3_000, 100))
    sites.placed(job="apart", count=2, constraints=(Constraint("site", "distinct", ""),))
    sites.placed(job="every", kind=JobKind.DAEMON, count=0)
    changes = (
        DrainChange(("a1",)),
        LossChange(("b1",), ("b",)),
        GrowthChange(3, device(labels={"site": "c"})),
        SubmitChange(job_row(count=3, constraints=(Constraint("site", "distinct", "2"),))),
        JobChange("j1", (("cpu_milli", 500),), count=3, policy="binpack"),
        JobChange("every", tolerations=("*",)),
    )
    sites.after(1_000)
    before = frozen(sites)
    effects = sites.feed(PlanAsked(9, changes, 2))
    assert frozen(sites) == before
    assert not [e for e in effects if isinstance(e, Save)] and len(effects) == 1


@pytest.mark.parametrize(
    ("change", "field", "place", "words"),
    [
        (DrainChange(("a1", "a11")), "devices", 1, "no device a11; did you mean a1?"),
        (LossChange(("zz",)), "devices", 0, "no device zz"),
        (LossChange((), ("a", "x")), "sites", 1, "no device has the site 'x'"),
        (JobChange("j9"), "job", 0, "no open job j9"),
        (JobChange("everything"), "job", 0, "no open job everything; everything is the name of job all"),
        (JobChange("every", count=2), "count", 0, "a daemon and runs on every device"),
        (JobChange("all", count=1_001), "count", 0, "a gang, which has at most 1,000 tasks"),
        (SubmitChange(job_row("j1")), "job", 0, "already"),
    ],
)
def test_what_is_not_there_is_pointed_at(sites, desk_kit, change, field, place, words):
    sites.placed(job="every", kind=JobKind.DAEMON, count=0)
    sites.placed(job="all", count=2, rules=JobRules(gang=True))
    sites.core.ledger.jobs["all"].row.name = "everything"
    fault = ask(sites, desk_kit, GrowthChange(1, device()), change)
    assert isinstance(fault, PlanFaultView)
    assert (fault.change, fault.field, fault.place) == (1, field, place) and words in fault.detail


def test_a_site_that_the_plan_adds_can_be_lost_again(sites, desk_kit):
    plan = ask(sites, desk_kit, GrowthChange(2, device(labels={"site": "c"})), LossChange((), ("c",)))
    assert plan.after == plan.before and not plan.breaks


def test_who_does_not_lead_makes_no_plans(sites, desk_kit):
    sites.core.speak_until_ms = 0
    assert isinstance(ask(sites, desk_kit, survive=1), RefusalView)


def test_a_large_plan_lets_others_speak_between_its_slices(desk, desk_kit, monkeypatch):
    monkeypatch.setattr("controller.core.foresight.SLICE_US", 1)
    for name in ("a1", "a2", "b1", "b2"):
        desk.join(name, room=SMALL, labels={"site": name[0]})
    desk.placed(job="j1", count=4)
    begun = desk.feed(PlanAsked(9, (DrainChange(("a1",)),), 1))
    assert begun == []
    desk.feed(DeviceDecision(3, "b1", "cordon", "tester"))
    answer = [e.body for e in desk.after(200) if type(e).__name__ == "Reply"]
    assert len(answer) == 1 and isinstance(answer[0], PlanView)
    assert answer[0].before.devices == 4, "what happened meanwhile is not in it"
    assert all(t.row.state is TaskState.PENDING or t.row.device for t in desk.core.ledger.tasks.values())


# ------------------------------------------------------------- against what then happens

rooms = st.sampled_from([Resources(1_000, 900), Resources(2_000, 500), Resources(4_000, 4_000)])
machines = st.lists(st.tuples(rooms, st.sampled_from(["a", "b", "c"])), min_size=1, max_size=5)
demands = st.sampled_from([Resources(500, 100), Resources(1_000, 400), Resources(300, 900)])
limits = st.sampled_from([(), (Constraint("site", "distinct", "2"),), (Constraint("site", "=", "a"),)])
rules = st.builds(
    JobRules,
    policy=st.sampled_from(["", "binpack", "round_robin", "fragmentation"]),
    gang=st.booleans(),
    parallel_max=st.sampled_from([0, 0, 2]),
)
jobs = st.tuples(st.integers(1, 6), demands, limits, rules)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, jobs, jobs)
def test_a_job_goes_where_the_plan_said(desk_kit, fleet, first, second):
    desk = desk_kit.Desk()
    for i, (room, site) in enumerate(fleet):
        desk.join(f"d{i}", room=room, labels={"site": site})
    count, needs, constraints, rule = first
    desk.placed(job="j1", count=count, needs=needs, constraints=constraints, rules=rule, priority=50)
    count, needs, constraints, rule = second
    plan = ask(desk, desk_kit, SubmitChange(job_row("j2", count, needs, JobKind.BATCH, constraints, rule)))
    desk.placed(job="j2", count=count, needs=needs, constraints=constraints, rules=rule, priority=50)
    happened = {t: d for t, d in where(desk).items() if t.startswith("j2") and d}
    assert {p.task: p.to for p in plan.placed if p.job == "j2"} == happened
    waits = plan.counts["broken"] + plan.counts["waiting"]
    assert waits >= count - len(happened)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, st.integers(1, 6), st.integers(1, 9), demands, demands, limits)
def test_a_changed_job_has_room_as_one_submitted_so(desk_kit, fleet, count, other, needs, changed, limit):
    """Equal tasks, alone in the fleet: after the change as many stand as of a job that was always so."""
    desk, fresh = desk_kit.Desk(), desk_kit.Desk()
    for each in (desk, fresh):
        for i, (room, site) in enumerate(fleet):
            each.join(f"d{i}", room=room, labels={"site": site})
    desk.placed(job="j1", count=count, needs=needs)
    amounts = tuple((name, amount) for name, amount in changed._asdict().items() if amount)
    plan = ask(desk, desk_kit, JobChange("j1", amounts, limit, count=other))
    fresh.placed(job="j1", count=other, needs=changed, constraints=limit)
    stand = sum(bool(device) for device in where(fresh).values())
    assert plan.counts["stayed"] + plan.counts["moved"] + plan.counts["placed"] == stand
    assert plan.breaks == (stand < other)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, st.integers(1, 9), st.sets(st.integers(0, 4), max_size=3))
def test_equal_tasks_break_by_counting(desk_kit, fleet, count, gone):
    """The reference counts what fits: equal tasks, no bounds, so the order doesn't matter."""
    desk = desk_kit.Desk()
    for i, (room, site) in enumerate(fleet):
        desk.join(f"d{i}", room=room, labels={"site": site})
    needs = Resources(500, 100)
    desk.placed(count=count, needs=needs)
    names = tuple(f"d{i}" for i in sorted(gone) if i < len(fleet))
    held = sum(d in names for d in where(desk).values())
    capacity = sum(
        min(r.cpu_milli // 500, r.memory_mib // 100) for i, (r, _) in enumerate(fleet) if i not in gone
    )
    spare = capacity - sum(bool(d) and d not in names for d in where(desk).values())
    for change in (LossChange(names), DrainChange(names)):
        if names:
            plan = ask(desk, desk_kit, change)
            assert plan.counts["moved"] + plan.counts["broken"] == held
            assert plan.counts["broken"] == max(0, held - spare)
            assert all(move.device in names and move.to not in names for move in plan.moved)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, st.integers(1, 9), st.sampled_from([1, 2]))
def test_losing_sites_in_turn_is_losing_each(desk_kit, fleet, count, at_once):
    desk = desk_kit.Desk()
    for i, (room, site) in enumerate(fleet):
        desk.join(f"d{i}", room=room, labels={"site": site})
    desk.placed(count=count, needs=Resources(500, 100), constraints=(Constraint("site", "distinct", "4"),))
    plan = ask(desk, desk_kit, survive=at_once)
    for loss in plan.losses:
        alone = ask(desk, desk_kit, LossChange((), loss.sites))
        assert (loss.moved, loss.broken) == (alone.counts["moved"], alone.counts["broken"])
        assert loss.utilisation == alone.after.utilisation
    sites = len({site for _, site in fleet})
    assert len(plan.losses) == comb(sites, min(at_once, sites))


def test_a_site_that_is_lost_is_not_lost_again(desk, desk_kit):
    for name in ("a1", "a2", "b1", "c1"):
        desk.join(name, room=SMALL, labels={"site": name[0]})
    plan = ask(desk, desk_kit, LossChange((), ("a",)), survive=1)
    assert sorted(x.sites for x in plan.losses) == [("b",), ("c",)] and plan.losses_looked_at == 2
    plan = ask(desk, desk_kit, LossChange(("b1",), ("a",)), survive=2)
    assert [x.sites for x in plan.losses] == [("c",)]
    plan = ask(desk, desk_kit, LossChange(("a1",)), survive=1)
    assert {x.sites: x.devices for x in plan.losses} == {("a",): 1, ("b",): 1, ("c",): 1}
    desk.decide("c1", "remove")
    plan = ask(desk, desk_kit, LossChange((), ("a",)), survive=1)
    assert [x.sites for x in plan.losses] == [("b",)]


def test_there_is_room_for_no_more_where_some_find_no_place(desk, desk_kit):
    for i in range(7):
        desk.join(f"d{i}")
    apart = (Constraint("", "distinct_device", ""),)
    desk.placed(job="j1", count=5, constraints=apart)
    plan = ask(desk, desk_kit, JobChange("j1", count=9))
    assert plan.reasons == {"distinct": 2} and [m.copies for m in plan.more] == [0]
    assert [m.copies for m in ask(desk, desk_kit, JobChange("j1", count=6)).more] == [1]
    plan = ask(desk, desk_kit, SubmitChange(job_row(count=2, needs=Resources(9_000, 1))))
    assert [m.copies for m in plan.more] == [0]
    bound = SubmitChange(job_row(count=2, rules=JobRules(parallel_max=3)))
    assert [m.copies for m in ask(desk, desk_kit, bound).more] == [1]
    assert ask(desk, desk_kit, SubmitChange(job_row(kind=JobKind.DAEMON, count=0))).more == []


bounds = st.sampled_from(
    [
        (),
        (Constraint("", "distinct_device", "2"),),
        (Constraint("site", "distinct", "3"),),
        (Constraint("", "distinct_device", ""), Constraint("site", "distinct", "2")),
        (Constraint("label.rack", "distinct", "2"), Constraint("site", "distinct", "2")),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, st.integers(1, 5), demands, bounds, st.sampled_from(["binpack", "round_robin"]))
def test_there_is_room_for_as_many_more_as_are_told(desk_kit, fleet, count, needs, constraints, policy):
    desk = desk_kit.Desk()
    for i, (room, site) in enumerate(fleet):
        desk.join(f"d{i}", room=room, labels={"site": site, "rack": "xy"[i % 2]})

    def with_(count):
        row = job_row("j", count, needs, constraints=constraints, rules=JobRules(policy=policy))
        return ask(desk, desk_kit, SubmitChange(row))

    plan = with_(count)
    [more] = [m.copies for m in plan.more]
    if plan.breaks:
        assert more == 0
    else:
        assert with_(count + more).more[0].copies == 0 and not with_(count + more).breaks
        assert with_(count + more + 1).counts["broken"] == 1


@pytest.mark.parametrize("amounts", [(), (("cpu_milli", 999),)])
def test_a_changed_gang_is_there_whole_or_not_at_all(desk, desk_kit, amounts):
    for i in range(7):
        desk.join(f"d{i}", room=Resources(1_500, 4_096, 10_000))
    desk.placed(job="g", count=2, priority=50, rules=JobRules(gang=True))
    low = SubmitChange(job_row("low", 1, Resources(1_500, 1), priority=1))
    fits = ask(desk, desk_kit, JobChange("g", amounts, count=7))
    assert (fits.counts["stayed"], fits.counts["placed"], fits.counts["broken"]) == (2, 5, 0)
    plan = ask(desk, desk_kit, JobChange("g", amounts, count=8), low)
    assert (plan.counts["stayed"], plan.counts["broken"]) == (0, 8) and plan.reasons == {"gang": 8}
    assert [p.job for p in plan.placed] == ["low"] and plan.after.free.cpu_milli == 6 * 1_500
    assert all("only 7 of its gang of 8 fit" in b.words for b in plan.broken)
    at = {b.task: b.device for b in plan.broken}
    assert {t: d for t, d in at.items() if d} == where(desk)
    assert [(m.job, m.copies) for m in plan.more] == [("g", 0), ("low", 6)]
    lost = ask(desk, desk_kit, LossChange((where(desk)["g.0"],)))
    assert lost.counts["moved"] == 1, "who is lost of a gang that is not changed is replaced alone"
