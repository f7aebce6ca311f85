"""The scheduler's columns against a loop that anybody can read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.scheduler.explain import UNITS, explain
from controller.scheduler.filters import columns, passing
from controller.scheduler.pick import NO_DEVICE, Picker, reserve
from controller.scheduler.policies import POLICIES
from controller.scheduler.view import Demand, View
from protocol.resources import NAMES, Resources

AMOUNTS = (st.integers(0, 8), st.integers(0, 8), st.integers(0, 3), st.integers(0, 2))

devices = st.fixed_dictionaries(
    {
        "online": st.booleans(),
        "open": st.booleans(),
        "able": st.booleans(),
        "capacity": st.tuples(*AMOUNTS),
        "reserved": st.tuples(*AMOUNTS),
        "bytes": st.integers(0, 50),
        "slots": st.integers(0, 3),
    }
)
fleets = st.lists(devices, max_size=9)
demands = st.tuples(st.tuples(*AMOUNTS), st.integers(0, 30))


def view_of(fleet):
    """The fleet as columns; free may be negative, where a device has shrunk."""
    n = len(fleet)
    capacity = [np.array([d["capacity"][r] for d in fleet], np.int64).reshape(n) for r in range(4)]
    free = [
        np.array([d["capacity"][r] - d["reserved"][r] for d in fleet], np.int64).reshape(n) for r in range(4)
    ]
    flags = [np.array([d[key] for d in fleet], np.bool_).reshape(n) for key in ("online", "open")]
    bounds = [np.array([d[key] for d in fleet], np.int64).reshape(n) for key in ("bytes", "slots")]
    return View(n, *flags, capacity, free, *bounds)


def demand_of(fleet, asked):
    able = np.array([d["able"] for d in fleet], np.bool_).reshape(len(fleet))
    return Demand(Resources(*asked[0]), asked[1], {"runtime process": able})


def fits(device, asked):
    """The reference: one device, one question."""
    resources, size = asked
    if not (device["online"] and device["open"] and device["able"]):
        return False
    if device["bytes"] < size or device["slots"] < 1:
        return False
    return all(
        not amount or amount <= capacity - reserved
        for amount, capacity, reserved in zip(resources, device["capacity"], device["reserved"], strict=True)
    )


def score(device, asked, policy):
    """The reference of both policies."""
    resources, _ = asked
    shares = [
        (reserved + amount) / max(capacity, 1)
        for amount, capacity, reserved in zip(resources, device["capacity"], device["reserved"], strict=True)
        if amount
    ]
    size = device["capacity"][1] / (device["capacity"][1] + 65_536.0)
    if policy == "spread":
        return size if not shares else min(1.0, max(0.0, 1 - max(shares))) * 0.99 + 0.01 * size
    return 1 - size if not shares else min(1.0, max(0.0, sum(shares) / len(shares)))


def dumb_pick(fleet, asked, policy, avoid):
    best = NO_DEVICE
    for allowed in (lambda i: i != avoid, lambda i: True):
        for i, device in enumerate(fleet):
            if not allowed(i) or not fits(device, asked):
                continue
            if best == NO_DEVICE or score(device, asked, policy) > score(fleet[best], asked, policy) + 1e-12:
                best = i
        if best != NO_DEVICE:
            return best
    return NO_DEVICE


@settings(max_examples=100, deadline=None)
@given(fleets, demands)
def test_the_filters_pass_exactly_the_devices_that_fit(fleet, asked):
    passed = passing(view_of(fleet), demand_of(fleet, asked))
    # A negative room of a resource that nobody asks for takes nothing away.
    assert passed.tolist() == [fits(device, asked) for device in fleet]


@settings(max_examples=100, deadline=None)
@given(fleets, demands, st.sampled_from(sorted(POLICIES)), st.integers(-1, 8))
def test_the_picker_picks_what_a_loop_over_devices_would(fleet, asked, policy, avoid):
    row = Picker(view_of(fleet), demand_of(fleet, asked), policy).pick(avoid)
    expected = dumb_pick(fleet, asked, policy, avoid)
    if row != expected:
        # Equal scores may differ in the last bit; anything else is a wrong pick.
        assert NO_DEVICE not in (row, expected)
        assert score(fleet[row], asked, policy) == pytest.approx(
            score(fleet[expected], asked, policy), abs=1e-9
        )
        assert (row == avoid) == (expected == avoid)


@settings(max_examples=80, deadline=None)
@given(fleets, st.lists(demands, min_size=1, max_size=3), st.sampled_from(sorted(POLICIES)))
def test_picks_that_reserve_never_exceed_any_room(fleet, asked, policy):
    view = view_of(fleet)
    before = [f.copy() for f in view.free]
    pickers = [Picker(view, demand_of(fleet, a), policy) for a in asked]
    for turn in range(40):
        picker = pickers[turn % len(pickers)]
        row = picker.pick()
        if row == NO_DEVICE:
            continue
        reserve(view, row, picker.demand)
        for other in pickers:
            other.refresh(row)
        for free, amount in zip(view.free, picker.demand.resources, strict=True):
            assert not amount or free[row] >= 0, "more than fits was promised"
        assert view.document_bytes_free[row] >= 0 and view.slots_free[row] >= 0
    assert all((now <= then).all() for now, then in zip(view.free, before, strict=True))


@settings(max_examples=80, deadline=None)
@given(fleets, demands, st.sampled_from(sorted(POLICIES)))
def test_a_refreshed_picker_equals_a_new_one(fleet, asked, policy):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    picker = Picker(view, demand, policy)
    for _ in range(5):
        row = picker.pick()
        if row == NO_DEVICE:
            break
        reserve(view, row, demand)
        picker.refresh(row)
        assert np.allclose(picker.total, Picker(view, demand, policy).total)


@settings(max_examples=100, deadline=None)
@given(fleets, demands, st.sampled_from(sorted(POLICIES)))
def test_an_explanation_tells_the_same_as_the_pick(fleet, asked, policy):
    view, demand = view_of(fleet), demand_of(fleet, asked)
    found = explain(view, demand, policy)
    fitting = sum(fits(device, asked) for device in fleet)
    assert sum(gone for _, gone in found.removed) == len(fleet) - fitting
    names = [name for name, _ in columns(view, demand)]
    assert [name for name, _ in found.removed] == [n for n in names if n in dict(found.removed)]
    if fitting:
        assert found.summary == f"{fitting} of {len(fleet)} devices fit"
        best = found.candidates[0]
        assert best[0] == Picker(view, demand, policy).pick()
        assert all(0.0 <= part <= 1.0 for _, _, parts in found.candidates for part in parts.values())
        assert [c[1] for c in found.candidates] == sorted((c[1] for c in found.candidates), reverse=True)
    else:
        assert not found.candidates and found.summary and "devices fit" not in found.summary


@settings(max_examples=100, deadline=None)
@given(fleets, demands)
def test_what_can_never_fit_is_said_only_of_what_can_never_fit(fleet, asked):
    """With everybody online and everything free it still would not fit: then, and only then."""
    summary = explain(view_of(fleet), demand_of(fleet, asked), "spread").summary
    able = [d for d in fleet if d["open"] and d["able"]]
    if "can never fit" in summary:
        assert able
        assert any(amount > max(d["capacity"][r] for d in able) for r, amount in enumerate(asked[0]))
        assert any(UNITS[name] in summary for name in NAMES)


def fleet_of(*rooms, **facts):
    plain = {"online": True, "open": True, "able": True, "bytes": 9_999, "slots": 9, "reserved": (0, 0, 0, 0)}
    return [{**plain, "capacity": room, **facts} for room in rooms]


@pytest.mark.parametrize(
    ("fleet", "asked", "words"),
    [
        ([], (1, 1, 0, 0), "no device is known yet"),
        (fleet_of((4, 4, 0, 0), able=False), (1, 1, 0, 0), "no open device has runtime process"),
        (
            fleet_of((4000, 3790, 0, 0)),
            (1, 8000, 0, 0),
            "can never fit as things are: needs 8,000 MiB; largest device has 3,790",
        ),
        (fleet_of((4, 4, 0, 0), online=False), (1, 1, 0, 0), "every device that could take it is offline"),
        (
            fleet_of((4, 4, 0, 0), reserved=(3, 0, 0, 0)),
            (2, 1, 0, 0),
            "waits for room: needs 2 mCPU; most free now is 1",
        ),
    ],
)
def test_a_task_without_a_place_is_told_why(fleet, asked, words):
    assert words in explain(view_of(fleet), demand_of(fleet, (asked, 1)), "spread").summary
