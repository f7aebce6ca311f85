"""Explanations against the pick, and remedies by doing what they say: then the task is placed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from controller.scheduler.explain import CODES, FITS, explain
from controller.scheduler.filters import passing
from controller.scheduler.groups import Distinct, Grouping, codes
from controller.scheduler.pick import NO_DEVICE, OUT, TOPS, Bases, Picker
from controller.scheduler.remedies import ANY_DEVICE, REMEDIES_MAX, obstacles, remedies
from controller.scheduler.view import NO_MODEL, View
from protocol.resources import NAMES
from tests.controller.scheduler_fleets import demand_of, demands, devices, fleets, policies, view_of

scarce = st.fixed_dictionaries(
    {
        "amounts": st.tuples(
            st.integers(2, 9), st.integers(2, 9), st.integers(0, 2),
            st.sampled_from([0, 0, 700, 1_000, 2_000]),
            st.integers(0, 1), st.just(0), st.integers(0, 3),
        ),
        "bytes": st.sampled_from([0, 200, 2_000]),
        "cameras": st.integers(0, 2),
        "models": st.sampled_from([(), (), ("A",), ("B", "C")]),
        "reference": st.booleans(),
        "wish": st.booleans(),
    }
)  # fmt: skip
_FAULTS = st.sampled_from(
    [
        {"online": False},
        {"open": False},
        {"fit": False},
        {"able": False},
        {"reserved": (0, 7, 0, 0, 0, 0, 0)},
        {"reserved": (7, 0, 0, 0, 0, 0, 0)},
        {"reserved": (0, 0, 2, 0, 1, 0, 8)},
        {"offered": (8, 1, 2, 0, 1, 0, 9)},
        {"accelerators": [("B", 1_000), ("A", 600)]},
        {"accelerators": [("B", 1_000), ("C", 1_000)]},
        {"accelerators": []},
        {"cameras": 1},
        {"bytes": 1_100},
        {"bytes": 100},
    ]
)


@st.composite
def nearly(draw):
    """Devices that would do but for a fault or two."""
    good = device(
        offered=(8, 8, 2, 0, 1, 0, 9),
        accelerators=[("A", 1_000), ("A", 1_000)],
        cameras=2,
        speed=draw(st.sampled_from([500, 1_000, 3_000])),
    )
    for fault in draw(st.lists(_FAULTS, min_size=1, max_size=2)):
        good |= fault
    return good


def device(**changes):
    plain = {
        "online": True, "open": True, "fit": True, "able": True, "offered": (8, 8, 0, 0, 0, 0, 9),
        "reserved": (0,) * 7, "accelerators": [], "cameras": 0, "bytes": 60_000, "speed": 1_000, "heat": 40,
        "flaky": 0.0, "turn": 0,
    }  # fmt: skip
    return plain | changes


placed = st.lists(st.integers(0, 8), max_size=4)
some_fleet = st.lists(nearly() | devices, min_size=1, max_size=6)


def grouping_of(count, rows, limits):
    """Limits of 1 per device, or per zone of three; `rows` hold tasks of the job already."""
    zones, _ = codes([("a", "b", None)[i % 3] for i in range(count)])
    distincts = [Distinct(w, zones if w == "zone" else None, 1) for w in limits]
    return Grouping(count, distincts, [], [r for r in rows if r < count])


def picked(view, demand, grouping=None, only=ANY_DEVICE):
    """What placement would do: the row, or none."""
    picker = Picker(view, demand, Bases(view), "balanced")
    if only != ANY_DEVICE:
        fits = picker.fits(only) and (grouping is None or grouping.allows()[only])
        return only if fits else NO_DEVICE
    return picker.pick(grouping=grouping)


def applied(view, demand, remedy, limits):
    """The world after the one change: (view, demand, limits that are left)."""
    view, row, name = view.copy(), remedy.device, remedy.name
    if remedy.kind in ("room", "capacity"):
        _give(view, row, demand, name, remedy.amount, remedy.kind == "capacity")
    elif remedy.kind == "demand" and name in demand.extras:
        demand = replace(demand, extras={name: remedy.amount})
    elif remedy.kind == "demand":
        demand = replace(demand, resources=demand.resources._replace(**{name: remedy.amount}))
    elif remedy.kind == "model":
        demand = replace(demand, models=())
    elif remedy.kind == "distinct":
        limits = [w for w in limits if w != name]
    elif remedy.kind == "runtime":  # of that device, not of all that lack it
        column = demand.eligible[name].copy()
        column[row] = True
        demand = replace(demand, eligible=demand.eligible | {name: column})
    elif remedy.kind in ("constraint", "toleration"):
        demand = replace(demand, eligible={w: c for w, c in demand.eligible.items() if w != name})
    else:
        getattr(view, {"online": "online", "open": "open", "healthy": "fit"}[remedy.kind])[row] = True
    view.touch_all()
    return view, demand, limits


def _give(view, row, demand, name, amount, larger):
    if name == "document_bytes":
        view.document_bytes_free[row] += amount
    elif name == "accelerators":
        count, milli = demand.accelerators
        allowed = view.accel_model[row] != NO_MODEL
        if demand.models:
            allowed &= np.isin(view.accel_model[row], view.allowed_models(demand))
        fullest = np.argsort(np.where(allowed, -view.accel_free[row], 1))[:count]
        view.accel_free[row, fullest] = np.maximum(view.accel_free[row, fullest], milli)
        view.free[NAMES.index("gpu_milli")][row] += amount
        view.share_free[NAMES.index("gpu_milli")][row] = 1.0
    elif name in demand.extras:
        if name not in view.extras_free:
            view.offer(row, *_now(view, row), (), {name: 0})
        view.extras_free[name][row] += amount
    else:
        i = NAMES.index(name)
        view.free[i][row] += amount
        if larger:
            view.offered[i][row] = max(view.offered[i][row], view.free[i][row])
            view.scale[i][row] = 1.0 / view.offered[i][row]
        view.share_free[i][row] = view.free[i][row] * view.scale[i][row]


def _now(view, row):
    from protocol.resources import Resources

    offered = Resources(*[int(c[row]) for c in view.offered])
    return offered, offered.minus(Resources(*[int(c[row]) for c in view.free]))


@settings(max_examples=400, deadline=None)
@given(
    some_fleet,
    scarce,
    placed,
    st.lists(st.sampled_from(["device", "zone"]), max_size=2, unique=True),
    st.booleans(),
)
def test_the_single_change_really_places_the_task(fleet, asked, rows, limits, pinned):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    grouping = grouping_of(len(fleet), rows, limits)
    only = 0 if pinned else ANY_DEVICE
    if picked(view, demand, grouping, only) != NO_DEVICE:
        return
    found = remedies(view, demand, grouping, only)
    event(f"{len(found)} remedies")
    assert len(found) <= REMEDIES_MAX and [r.cost for r in found] == sorted(r.cost for r in found)
    for remedy in found:
        event(remedy.kind)
        after, smaller, left = applied(view, demand, remedy, limits)
        row = picked(after, smaller, grouping_of(len(fleet), rows, left), only)
        assert row != NO_DEVICE, remedy
        if remedy.device != ANY_DEVICE:
            assert row == remedy.device


@settings(max_examples=200, deadline=None)
@given(some_fleet, scarce)
def test_a_little_less_of_the_change_would_not_do(fleet, asked):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    if picked(view, demand) != NO_DEVICE:
        return
    for remedy in remedies(view, demand):
        whole = remedy.name == "gpu_milli" and remedy.amount >= 1_000  # the next amount is one more
        amount = remedy.amount + ((1_000 if whole else 1) if remedy.kind == "demand" else -1)
        if remedy.kind in ("room", "capacity", "demand") and remedy.name != "accelerators" and amount > 0:
            after, smaller, _ = applied(view, demand, replace(remedy, amount=amount), [])
            assert picked(after, smaller) == NO_DEVICE, remedy


@settings(max_examples=300, deadline=None)
@given(some_fleet, scarce)
def test_whoever_has_one_obstacle_is_told_of(fleet, asked):
    """The reference counts obstacles device by device."""
    view, demand = view_of(fleet), demand_of(fleet, asked)
    found = list(obstacles(view, demand))
    counts = [sum(not o.passes[row] for o in found) for row in range(view.count)]
    assert [c == 0 for c in counts] == (Picker(view, demand, Bases(view), "spread").total > OUT).tolist()
    told = remedies(view, demand)
    helped = 1 in counts
    # An accelerator that isn't there can't be given, and an amount of which nothing is free not asked less.
    assert told or not helped or all(o.name == "accelerators" for o in found if 1 in _rows_of(o, counts))
    assert helped or not told


@settings(max_examples=400, deadline=None)
@given(
    st.lists(nearly(), min_size=1, max_size=6), scarce, st.lists(st.integers(0, 2), min_size=6, max_size=6)
)
def test_whatever_freeing_one_thing_on_one_device_would_do_is_told_as_room(fleet, asked, filmed):
    """The reference empties each device of each thing in turn, and places."""
    view, demand = view_of(fleet), demand_of(fleet, asked)
    _film(view, filmed)
    if picked(view, demand) != NO_DEVICE:
        return
    expected = {}
    for name in (*NAMES, "accelerators", "camera"):
        rows = [row for row in range(len(fleet)) if _after_freeing(view, demand, row, name)]
        if rows and name != "gpu_milli":  # a part of "accelerators"
            expected[name] = rows
    told = {r.name: r for r in remedies(view, demand) if r.kind == "room" and r.name != "document_bytes"}
    dear = remedies(view, demand)[-1].cost if len(remedies(view, demand)) == REMEDIES_MAX else None
    event(f"{len(expected)} things to free")
    assert set(told) <= set(expected)
    for name, rows in expected.items():
        if name in told:
            assert told[name].device in rows and told[name].devices == len(rows)
        else:
            assert dear is not None


def _film(view, filmed):
    """Others hold some of the cameras."""
    for row, held in zip(range(view.count), filmed, strict=False):
        held = min(held, int(view.extras_offered["camera"][row]))
        view.extras_free["camera"][row] -= held
    view.touch_all()


def _after_freeing(view, demand, row, name):
    """Whether the task stands on the device once nobody else uses any of this there."""
    view, i = view.copy(), NAMES.index("gpu_milli" if name in ("accelerators", "camera") else name)
    if name == "camera":
        view.extras_free[name][row] = view.extras_offered[name][row]
    else:
        view.free[i][row] = view.offered[i][row]
        view.share_free[i][row] = view.free[i][row] * view.scale[i][row]
    if name == "accelerators":
        view.accel_free[row] = np.where(view.accel_model[row] != NO_MODEL, 1_000, 0)
    view.touch_all()
    return picked(view, demand, only=row) == row


def _rows_of(obstacle, counts):
    return [c for c, passes in zip(counts, obstacle.passes, strict=True) if not passes]


@settings(max_examples=300, deadline=None)
@given(
    fleets, demands, policies, placed, st.lists(st.sampled_from(["device", "zone"]), max_size=2, unique=True)
)
def test_an_explanation_tells_the_same_as_the_pick(fleet, asked, policy, rows, limits):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    picker, grouping = Picker(view, demand, Bases(view), policy), grouping_of(len(fleet), rows, limits)
    row = picker.pick(grouping=grouping)
    before = picker.total.tolist()
    tops = list(picker.tops(row)) if row != NO_DEVICE else []
    assert picker.total.tolist() == before
    told = explain(picker, grouping)
    assert tops == [(at, score) for at, score, _ in told.candidates[:TOPS]]
    assert told.code in CODES and (told.code == FITS) == (row != NO_DEVICE)
    assert bool(told.candidates) == (row != NO_DEVICE)
    if row != NO_DEVICE:
        assert told.candidates[0][0] == row and not told.remedies
        scores = [score for _, score, _ in told.candidates]
        assert scores == sorted(scores, reverse=True)
    fitting = int((passing(view, demand) & grouping.allows()).sum())
    assert sum(gone for _, gone in told.removed) == len(fleet) - fitting


ASKED = {
    "amounts": (2, 6, 0, 0, 0, 0, 1), "bytes": 0, "cameras": 0, "models": (), "reference": False,
    "wish": False,
}  # fmt: skip


def told(fleet, **changes):
    asked = ASKED | changes
    view = view_of(fleet)
    return explain(Picker(view, demand_of(fleet, asked), Bases(view), "balanced"))


def test_the_cheapest_change_comes_first():
    fleet = [
        device(reserved=(0, 3, 0, 0, 0, 0, 0)),
        device(reserved=(0, 5, 0, 0, 0, 0, 0)),
        device(open=False),
        device(able=False),
        device(online=False),
        device(open=False, online=False),
    ]
    found = told(fleet)
    assert found.code == "memory" and found.summary == "waits for room: needs 6 MiB; most free now is 5"
    assert [(r.kind, r.name, r.device, r.amount, r.devices) for r in found.remedies] == [
        ("room", "memory_mib", 0, 1, 2),
        ("demand", "memory_mib", ANY_DEVICE, 5, 2),
        ("open", "", 2, 0, 1),
        ("online", "", 4, 0, 1),
        ("runtime", "runtime process", 3, 0, 1),
    ]


def test_what_never_fits_asks_for_a_larger_device():
    found = told([device()], amounts=(2, 9, 0, 0, 0, 0, 1))
    assert found.code == "memory" and "largest device has 8" in found.summary
    assert [(r.kind, r.amount) for r in found.remedies] == [("capacity", 1), ("demand", 8)]


def test_a_reference_core_is_told_of_in_its_own_unit():
    asked = {"amounts": (17, 6, 0, 0, 0, 0, 1), "reference": True}
    found = told([device(speed=2_000), device(speed=1_000)], **asked)
    assert found.summary == (
        "can never fit as things are: needs 17 mCPU of the reference core; largest device has 16"
    )
    assert found.removed == [("cpu_milli capacity >= 17 of the reference core", 2)]
    assert [(r.kind, r.device, r.amount) for r in found.remedies] == [
        ("demand", ANY_DEVICE, 16), ("capacity", 0, 1),
    ]  # fmt: skip
    busy = told(
        [device(speed=2_000, reserved=(1, 0, 0, 0, 0, 0, 0))], **(asked | {"amounts": (16, 6, *[0] * 5)})
    )
    assert busy.summary == "waits for room: needs 16 mCPU of the reference core; most free now is 14"


def test_accelerators_are_asked_for_less_or_of_another_model():
    asked = {"amounts": (2, 6, 0, 700, 0, 0, 1), "models": ("A",)}
    found = told([device(accelerators=[("A", 600), ("B", 1_000)])], **asked)
    assert [(r.kind, r.name, r.amount) for r in found.remedies] == [
        ("room", "accelerators", 100),
        ("demand", "gpu_milli", 600),
        ("model", "A", 0),
    ]
    whole = {"amounts": (2, 6, 0, 2_000, 0, 0, 1)}
    found = told([device(accelerators=[("A", 1_000), ("B", 900)])], **whole)
    assert [(r.kind, r.amount) for r in found.remedies] == [("room", 100), ("demand", 1_000)]


def test_devices_without_the_thing_do_not_hide_the_one_that_has_it():
    """What is lacking is the same on all of them: nothing is there, or nothing is free."""
    none, taken = device(), device(accelerators=[("A", 0)])
    for fleet, at in (([none] * 6 + [taken], 6), ([taken] + [none] * 6, 0)):
        found = told(fleet, amounts=(2, 6, 0, 500, 0, 0, 1))
        assert [(r.kind, r.device, r.amount, r.devices) for r in found.remedies] == [("room", at, 500, 1)]


def test_an_extra_in_use_is_room_and_one_that_is_missing_capacity():
    asked = ASKED | {"cameras": 1}
    fleet = [device(), device(), device(cameras=1)]
    view = view_of(fleet)
    view.extras_free["camera"][2] = 0
    found = remedies(view, demand_of(fleet, asked))
    assert [(r.kind, r.name, r.device, r.amount, r.devices) for r in found] == [
        ("room", "camera", 2, 1, 1), ("capacity", "camera", 0, 1, 2),
    ]  # fmt: skip


def test_an_amount_in_use_and_one_that_is_too_small_are_both_told():
    fleet = [device(offered=(8, 5, 0, 0, 0, 0, 9)), device(reserved=(0, 4, 0, 0, 0, 0, 0))] * 2
    found = told(fleet)
    assert [(r.kind, r.device, r.amount, r.devices) for r in found.remedies] == [
        ("capacity", 0, 1, 2), ("demand", ANY_DEVICE, 5, 4), ("room", 1, 2, 2),
    ]  # fmt: skip


def test_every_kind_of_reason_is_found_by_its_code():
    amounts = ASKED["amounts"]
    cases = {
        "no_devices": told([]),
        "closed": told([device(open=False)]),
        "runtime": told([device(able=False)]),
        "offline": told([device(online=False)]),
        "guarded": told([device(fit=False)]),
        "cpu": told([device(offered=(1, 8, 0, 0, 0, 0, 9))]),
        "memory": told([device(reserved=(0, 4, 0, 0, 0, 0, 0))]),
        "slots": told([device(offered=(8, 8, 0, 0, 0, 0, 0))]),
        "document": told([device(bytes=500)]),
        "extra": told([device(cameras=1)], cameras=2),
        "accelerator": told([device(accelerators=[("A", 100)])], amounts=(*amounts[:3], 300, *amounts[4:])),
        "room": told([device(reserved=(7, 0, 0, 0, 0, 0, 0)), device(reserved=(0, 4, 0, 0, 0, 0, 0))]),
    }
    assert {code: e.code for code, e in cases.items()} == {code: code for code in cases}


def test_a_device_that_was_removed_is_no_remedy():
    view = view_of([device(open=False), device(open=False)])
    demand = demand_of([device()] * 2, ASKED)
    present = np.array([False, True])
    found = explain(Picker(view, demand, Bases(view), "balanced"), present=present)
    assert [(r.kind, r.device, r.devices) for r in found.remedies] == [("open", 1, 1)]
    assert found.removed == [("not cordoned, draining or quarantined", 1)]


def test_an_empty_fleet_has_no_remedy():
    assert remedies(View(1), demand_of([], ASKED)) == []
