"""Notes of a plan: who would give way, and what a change takes away; and then it happens so."""

from __future__ import annotations

from controller.core.changes import DrainChange, JobChange, SubmitChange
from controller.core.records import Constraint, JobRules
from protocol.resources import Resources
from protocol.tasks import JobKind
from tests.controller.test_core_plans import ask, frozen, job_row, where

WHOLE = Resources(4_000, 100)
HALF = Resources(2_000, 100)


def crowded(desk, high=90, low=10):
    """`hi` on one device, `lo` on the other; each fills its own. Where `hi` stands."""
    desk.join("d1")
    desk.join("d2")
    desk.placed(job="hi", needs=WHOLE, priority=high)
    desk.placed(job="lo", needs=WHOLE, priority=low)
    return where(desk)["hi.0"], where(desk)["lo.0"]


def test_a_drain_names_who_would_really_give_way(desk, desk_kit):
    here, there = crowded(desk)
    before = frozen(desk)
    plan = ask(desk, desk_kit, DrainChange((here,)))
    assert plan.breaks and [b.task for b in plan.broken] == ["hi.0"]
    assert plan.notes == [f"hi would make others of lower priority give way on {there}: lo"]
    assert frozen(desk) == before
    # The lower one may as well be the one that has to leave: then nobody gives way.
    assert ask(desk, desk_kit, DrainChange((there,))).notes == []


def test_what_is_asked_for_says_whom_it_would_displace(desk, desk_kit):
    _, there = crowded(desk, high=50)
    plan = ask(desk, desk_kit, SubmitChange(job_row("new", needs=WHOLE, priority=59)))
    assert plan.notes == [f"new would make others of lower priority give way on {there}: lo"]
    desk.submit(job="new", needs=WHOLE, priority=59)
    desk.after(200)
    assert where(desk)["lo.0"] == "" and where(desk)["new.0"] == there, "it had not begun: free at once"


def test_smaller_differences_of_priority_are_no_reason(desk, desk_kit):
    here, _ = crowded(desk, high=19, low=10)
    plan = ask(desk, desk_kit, DrainChange((here,)))
    assert plan.breaks and plan.notes == []


def test_daemons_and_where_it_may_not_go_are_left_alone(desk, desk_kit):
    desk.join("d1", labels={"site": "a"})
    desk.placed(job="every", kind=JobKind.DAEMON, count=0, needs=HALF, priority=0)
    desk.placed(job="lo", needs=HALF, priority=0)
    whole = SubmitChange(job_row("new", needs=WHOLE, priority=90))
    assert ask(desk, desk_kit, whole).notes == []
    elsewhere = (Constraint("site", "=", "b"),)
    assert ask(desk, desk_kit, SubmitChange(job_row("new", needs=HALF, constraints=elsewhere))).notes == []
    assert ask(desk, desk_kit, SubmitChange(job_row("new", needs=HALF))).notes == [
        "new would make others of lower priority give way on d1: lo"
    ]
    gang = SubmitChange(job_row("new", 2, HALF, rules=JobRules(gang=True)))
    assert ask(desk, desk_kit, gang).breaks and ask(desk, desk_kit, gang).notes == []


def test_the_search_is_of_the_fleet_as_it_would_be(desk, desk_kit):
    """Who moved in the plan gives way where it would be, not where it is."""
    desk.join("d1")
    desk.placed(job="hi", needs=WHOLE, priority=90)
    desk.join("d2")
    desk.placed(job="keeper", needs=HALF, priority=10)
    apart = (Constraint("device", "!=", "d2"),)
    desk.join("d3")
    desk.placed(job="lo", needs=HALF, priority=10, constraints=apart)
    assert where(desk) == {"hi.0": "d1", "keeper.0": "d2", "lo.0": "d3"}
    plan = ask(desk, desk_kit, DrainChange(("d1",)), JobChange("lo", constraints=()), DrainChange(("d3",)))
    assert {m.task: m.to for m in plan.moved} == {"lo.0": "d2"} and plan.notes == [
        "lo would have other constraints, and no longer: device != d2",
        "hi would make others of lower priority give way on d2: keeper, lo",
    ]


def test_a_change_says_what_is_there_no_longer(desk, desk_kit):
    desk.join("d1")
    apart = (Constraint("", "distinct_device", "2"), Constraint("profile", "exists", ""))
    desk.placed(job="j1", constraints=apart)
    other = (Constraint("site", "=", "a"),)
    told = "j1 would have other constraints, and no longer: distinct_device 2, profile exists"
    assert ask(desk, desk_kit, JobChange("j1", constraints=other)).notes == [told]
    assert ask(desk, desk_kit, JobChange("j1", constraints=(*other, *apart))).notes == []
    assert ask(desk, desk_kit, JobChange("j1", count=2)).notes == []
    twice = ask(desk, desk_kit, JobChange("j1", constraints=other), JobChange("j1", constraints=()))
    assert twice.notes == [told, "j1 would have other constraints, and no longer: site = a"]
