"""Gangs that don't fit: how many of them would, and changes after which really all of them stand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from controller.core.events import JobSubmitted, TaskExplained
from controller.core.records import Constraint, JobRules, TaskSpec
from controller.scheduler.fragmenting import picker_of
from controller.scheduler.gangs import Gang, gang_remedies
from controller.scheduler.groups import Distinct, Grouping, Shares, codes
from controller.scheduler.pick import NO_DEVICE, Bases
from controller.scheduler.remedies import ANY_DEVICE, REMEDIES_MAX
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind
from tests.controller.scheduler_fleets import demand_of, devices, policies, view_of
from tests.controller.test_remedies import applied, device, nearly

LIMITS = ("device", "zone", "rack", "spread")
room = st.builds(
    lambda cpu, memory, reserved, slots, text, gpus, able, fault: device(
        offered=(cpu, memory, 2, 0, 1, 0, slots), reserved=reserved, bytes=text, accelerators=gpus,
        cameras=2, able=able, **fault,
    ),
    st.integers(2, 9), st.integers(2, 9),
    st.sampled_from([(0,) * 7, (0,) * 7, (1, 2, 0, 0, 0, 0, 1), (2, 1, 0, 0, 0, 0, 0)]),
    st.integers(1, 6), st.sampled_from([1_500, 60_000, 60_000]),
    st.sampled_from([[], [("A", 1_000)], [("B", 1_000), ("A", 600)]]),
    st.sampled_from([True, True, False]),
    st.sampled_from([{}, {}, {"online": False}, {"open": False}, {"fit": False}]),
)  # fmt: skip
gangs = st.fixed_dictionaries(
    {
        "amounts": st.tuples(
            st.integers(1, 4), st.integers(1, 4), st.sampled_from([0, 0, 1]),
            st.sampled_from([0, 0, 0, 0, 300, 1_000, 2_000]), st.sampled_from([0, 0, 0, 1]), st.just(0),
            st.integers(1, 2),
        ),
        "bytes": st.sampled_from([0, 200, 2_000]),
        "cameras": st.integers(0, 2),
        "models": st.sampled_from([(), (), ("A",)]),
        "reference": st.booleans(),
        "wish": st.just(False),
    }
)  # fmt: skip
fleets = st.lists(room | room | room | nearly() | devices, min_size=1, max_size=7)


def grouping_of(count, limits):
    """At most one per device, two per zone, two per rack, and a spread over racks."""
    zones, _ = codes([("a", "b", None)[i % 3] for i in range(count)])
    racks, _ = codes(["rs"[i // 2 % 2] for i in range(count)])
    found = {"device": (None, 1), "zone": (zones, 2), "rack": (racks, 2)}
    distincts = [Distinct(w, *found[w]) for w in limits if w in found]
    shares = [Shares("spread", racks, np.array([50.0, 50.0]), 1)] if "spread" in limits else []
    return Grouping(count, distincts, shares)


def stand(view, demand, count, limits, policy):
    """How many placement would place at once: one pick after the other, by the same rules."""
    view = view.copy()
    picker = picker_of(view, demand, Bases(view), policy)
    grouping = grouping_of(view.count, limits)
    for done in range(count):
        row = picker.pick(grouping=grouping)
        if row == NO_DEVICE:
            return done
        view.take(row, picker.share(row), demand.entry_bytes)
        grouping.placed(row)
    return count


def gang_of(view, demand, count, limits, policy):
    def tries(other, without):
        return stand(view, other, count, [w for w in limits if w != without], policy)

    return Gang(view, demand, count, grouping_of(view.count, limits), None, tries)


def after(view, demand, count, remedy, limits):
    """The world after the one change."""
    if remedy.kind == "tasks":
        return view, demand, remedy.amount, limits
    if remedy.kind in ("distinct", "spread"):
        return view, demand, count, [w for w in limits if w != remedy.name]
    if remedy.kind in ("runtime", "toleration"):
        column = demand.eligible[remedy.name].copy()
        column[list(remedy.rows)] = True
        return view, replace(demand, eligible=demand.eligible | {remedy.name: column}), count, limits
    changed, smaller, _ = applied(view, demand, remedy, limits)
    return changed, smaller, count, limits


def words_of(demand, words):
    """The same, its attribute demand going by these words: it decides which change lifts it."""
    [column] = demand.eligible.values()
    return replace(demand, eligible={words: column})


some_limits = st.lists(st.sampled_from(LIMITS), max_size=3, unique=True)
attribute = st.sampled_from(["runtime process", "label.zone = a", "taints tolerated"])


@settings(max_examples=500, deadline=None)
@given(fleets, gangs, st.integers(2, 9), some_limits, attribute, policies)
def test_what_is_counted_is_what_picks_place(fleet, asked, count, limits, words, policy):
    view, demand = view_of(fleet), words_of(demand_of(fleet, asked), words)
    gang = gang_of(view, demand, count, limits, policy)
    event("counted" if gang.nests else "tried")
    fit, placed = min(gang.fit(), count), stand(view, demand, count, limits, policy)
    assert fit == placed or (fit == 0 and placed < count and not gang.nests)
    for limit in limits:
        left = [w for w in limits if w != limit]
        placed = stand(view, demand, count, left, policy)
        assert (gang.fit(without=limit) >= count) == (placed == count)


@settings(max_examples=800, deadline=None)
@given(fleets, gangs, st.integers(2, 9), some_limits, attribute, policies)
def test_each_change_places_the_whole_gang(fleet, asked, count, limits, words, policy):
    view, demand = view_of(fleet), words_of(demand_of(fleet, asked), words)
    fit = stand(view, demand, count, limits, policy)
    if fit == count:
        return
    found = gang_remedies(gang_of(view, demand, count, limits, policy), fit)
    event(f"{len(found)} remedies")
    assert len(found) <= REMEDIES_MAX and [r.cost for r in found] == sorted(r.cost for r in found)
    for remedy in found:
        event(remedy.kind)
        changed, other, number, left = after(view, demand, count, remedy, limits)
        assert stand(changed, other, number, left, policy) == number, remedy
        assert remedy.devices > 0


@settings(max_examples=300, deadline=None)
@given(st.lists(room, min_size=1, max_size=5), gangs, st.integers(2, 7))
def test_the_largest_smaller_demand_and_the_largest_smaller_gang_are_told(fleet, asked, count):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    fit = stand(view, demand, count, [], "balanced")
    if fit == count:
        return
    for remedy in gang_remedies(gang_of(view, demand, count, [], "balanced"), fit):
        if remedy.kind in ("demand", "tasks"):
            step = 1_000 if remedy.name == "gpu_milli" and demand.resources.gpu_milli > 1_000 else 1
            more = replace(remedy, amount=remedy.amount + step)
            changed, other, number, _ = after(view, demand, count, more, [])
            assert stand(changed, other, number, [], "balanced") < number, remedy
        elif remedy.kind in ("room", "capacity"):
            changed, other, *_ = after(view, demand, count, replace(remedy, amount=remedy.amount - 1), [])
            assert stand(changed, other, count, [], "balanced") < count, remedy


ASKED = {
    "amounts": (2, 3, 0, 0, 0, 0, 1), "bytes": 0, "cameras": 0, "models": (), "reference": False,
    "wish": False,
}  # fmt: skip


def told(fleet, count, limits=(), words="runtime process"):
    view, demand = view_of(fleet), words_of(demand_of(fleet, ASKED), words)
    fit = stand(view, demand, count, limits, "balanced")
    found = gang_remedies(gang_of(view, demand, count, list(limits), "balanced"), fit)
    return [(r.kind, r.name, r.device, r.amount) for r in found]


def test_what_is_missing_of_a_gang_is_asked_of_one_device():
    """Tasks of 2 and 3: by memory two stand on the first device, one on the second."""
    fleet = [device(offered=(8, 8, 0, 0, 0, 0, 9)), device(offered=(8, 5, 0, 0, 0, 0, 9)), device(open=False)]
    assert told(fleet, 4) == [
        ("capacity", "memory_mib", 0, 1),
        ("open", "", 2, 0),
        ("tasks", "", ANY_DEVICE, 3),
        ("demand", "memory_mib", ANY_DEVICE, 2),
    ]


def test_a_device_too_small_for_all_that_is_missing_is_no_remedy():
    fleet = [device(), device(online=False)]
    assert ("online", "", 1, 0) in told(fleet, 4) and ("online", "", 1, 0) not in told(fleet, 5)


def test_taints_of_as_few_devices_as_will_do():
    fleet = [device(able=False), device(able=False, offered=(2, 3, 0, 0, 0, 0, 9)), device(able=False)]
    view, demand = view_of(fleet), words_of(demand_of(fleet, ASKED), "taints tolerated")
    [taints, *_] = gang_remedies(gang_of(view, demand, 4, [], "balanced"), 0)
    assert (taints.kind, taints.rows, taints.together) == ("toleration", (0, 2), True)


def test_where_two_labels_limit_it_only_what_was_tried_is_told():
    fleet = [device() for _ in range(4)]
    found = told(fleet, 5, ("zone", "rack"))
    assert found and {kind for kind, *_ in found} <= {"tasks", "distinct", "demand", "spread", "constraint"}


def test_trying_has_an_end(monkeypatch):
    monkeypatch.setattr("controller.scheduler.gangs.LOOKS_MAX", 0)
    assert [kind for kind, *_ in told([device() for _ in range(4)], 5, ("zone", "rack"))] == ["tasks"]


# ------------------------------------------------------------- from what people are told

TAINTS = ("", "", "gpu:no_place", "old=x:no_place")
machines = st.lists(
    st.tuples(
        st.sampled_from([Resources(1_000, 900), Resources(2_000, 500), Resources(4_000, 4_000)]),
        st.sampled_from("ab"), st.booleans(), st.sampled_from(TAINTS),
    ),
    min_size=1, max_size=6,
)  # fmt: skip
teams = st.fixed_dictionaries(
    {
        "count": st.integers(2, 6),
        "needs": st.sampled_from([Resources(500, 300), Resources(1_500, 400), Resources(3_000, 100)]),
        "constraints": st.sampled_from(
            [(), (Constraint("site", "=", "a"),), (Constraint("site", "distinct", "2"),)]
        ),
    }
)


def placed_whole(desk_kit, fleet, team, opened=(), tolerations=()):
    """How many of the team stand, and the answer to why."""
    desk = desk_kit.Desk()
    for i, (room, site, cordoned, taint) in enumerate(fleet):
        desk.join(f"d{i}", room=room, labels={"site": site})
        desk.core.ledger.fleet.taint(i, (taint,) if taint else ())
        if cordoned and f"d{i}" not in opened:
            desk.decide(f"d{i}", "cordon")
    spec = TaskSpec("process", ("true",), {}, team["needs"], team["constraints"], tolerations=tolerations)
    desk.feed(
        JobSubmitted(
            1, "j1", "j1", JobKind.BATCH, team["count"], 0, Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec,
            "tester", rules=JobRules(gang=True),
        )
    )  # fmt: skip
    desk.after(200)
    stand = sum(task.row.device != "" for task in desk.core.ledger.tasks.values())
    return stand, desk_kit.reply(desk.feed(TaskExplained(9, "j1.0")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machines, teams)
def test_whoever_does_what_was_told_has_the_whole_gang_placed(desk_kit, fleet, team):
    stand, told = placed_whole(desk_kit, fleet, team)
    if stand:
        assert stand == team["count"]
        return
    assert told.reason == "gang"
    for remedy in told.remedies:
        event(remedy.kind)
        now, other, opened, tolerations = list(fleet), dict(team), (), ()
        if remedy.kind == "tasks":
            other["count"] = remedy.amount
            assert f"only {remedy.amount} of its gang of {team['count']} fit" in told.summary
        elif remedy.kind == "demand":
            other["needs"] = team["needs"]._replace(**{remedy.name: remedy.amount})
        elif remedy.kind in ("constraint", "distinct"):
            other["constraints"] = ()
        elif remedy.kind == "open":
            opened = (remedy.device,)
        elif remedy.kind == "toleration":
            words = remedy.words.removeprefix("tolerate ").partition(", as ")[0]
            tolerations = tuple(words.split(" and "))
        else:
            assert remedy.kind in ("room", "capacity")
            at = int(remedy.device[1:])
            room, *rest = now[at]
            now[at] = (room._replace(**{remedy.name: room._asdict()[remedy.name] + remedy.amount}), *rest)
        found, _ = placed_whole(desk_kit, now, other, opened, tolerations)
        assert found == other["count"], remedy
