"""The scheduler's columns against a loop that anybody can read, on random small fleets."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controller.scheduler.filters import passing
from controller.scheduler.pick import NO_DEVICE, OUT, Bases, Picker
from controller.scheduler.policies import ADAPTIVE, NAMES, POLICIES, resolve, weigh
from tests.controller.scheduler_fleets import (
    demand_of,
    demands,
    describe,
    devices,
    fits,
    fleets,
    free_of,
    policies,
    take,
    view_of,
)


def picker_of(fleet, asked, policy, view=None):
    view = view or view_of(fleet)
    return Picker(view, demand_of(fleet, asked), Bases(view), policy)


def total_of(picker, row):
    """The score of one device, summed from its parts as people are shown them."""
    weights = {n: w for n, (_, w) in (*picker.policy.fits.items(), *picker.policy.traits.items())}
    total = sum(weights[name] * part for name, part in picker.parts(row).items())
    wish = picker.demand.wish
    return total + (picker.demand.wish_weight * wish[row] if wish is not None else 0.0)


@settings(max_examples=150, deadline=None)
@given(fleets, demands)
def test_the_filters_pass_exactly_the_devices_that_fit(fleet, asked):
    assert passing(view_of(fleet), demand_of(fleet, asked)).tolist() == [
        fits(device, asked) and (not asked["models"] or _has_model(device, asked)) for device in fleet
    ]


def _has_model(device, asked):
    return any(model in asked["models"] for model, _ in device["accelerators"])


@settings(max_examples=150, deadline=None)
@given(fleets, demands, policies)
def test_the_picker_can_place_exactly_where_the_filters_let_it(fleet, asked, policy):
    assume(asked["amounts"][3] or not asked["models"])
    picker = picker_of(fleet, asked, policy)
    assert (picker.total > OUT).tolist() == passing(picker.view, picker.demand).tolist()


@settings(max_examples=150, deadline=None)
@given(fleets, demands, policies, st.integers(-1, 8), st.integers(-1, 8))
def test_the_picker_picks_what_a_loop_over_devices_would(fleet, asked, policy, avoid, prefer):
    assume(asked["amounts"][3] or not asked["models"])
    picker = picker_of(fleet, asked, policy)
    avoid, prefer = (-1 if at >= len(fleet) else at for at in (avoid, prefer))
    row = picker.pick((avoid,) if avoid >= 0 else (), prefer)
    able = [i for i, device in enumerate(fleet) if fits(device, asked)]
    if prefer in able:
        assert row == prefer
        return
    wanted = [i for i in able if i != avoid] or able
    assert row in wanted if wanted else row == NO_DEVICE
    if wanted:
        best = max(total_of(picker, i) for i in wanted)
        assert total_of(picker, row) == pytest.approx(best, abs=1e-3)  # parts are rounded for people


@settings(max_examples=100, deadline=None)
@given(fleets, demands, policies, st.data())
def test_a_picker_that_follows_knows_what_a_fresh_one_knows(fleet, asked, policy, data):
    assume(fleet)
    view = view_of(fleet)
    bases = Bases(view)
    picker = Picker(view, demand_of(fleet, asked), bases, policy)
    for _ in range(data.draw(st.integers(1, 6))):
        row = data.draw(st.integers(0, len(fleet) - 1))
        if data.draw(st.booleans()) and picker.fits(row):
            view.take(row, picker.share(row), asked["bytes"])
        else:
            fleet[row] = data.draw(devices) | {"able": fleet[row]["able"]}
            turn = int(view.turn[row])
            describe(view, row, fleet[row] | {"turn": turn, "heat": fleet[row]["heat"]})
            view.touch_all()
        picker.follow()
        fresh = Picker(view, demand_of(fleet, asked), Bases(view), policy)
        assert np.array_equal(picker.total, fresh.total)


@settings(max_examples=150, deadline=None)
@given(fleets, demands, policies, st.integers(1, 60))
def test_many_are_the_same_as_one_after_the_other(fleet, asked, policy, count):
    assume(not POLICIES[policy].in_turn)
    together = picker_of(fleet, asked, policy).many(count)
    view = view_of(fleet)
    picker = picker_of(fleet, asked, policy, view)
    singly = []
    while len(singly) < count and (row := picker.pick()) != NO_DEVICE:
        view.take(row, picker.share(row), asked["bytes"])
        singly.append(row)
    assert together == singly


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([(8, 8), (16, 4), (3, 30)]), min_size=1, max_size=40), st.integers(1, 300))
def test_many_among_equal_devices_keep_the_order_of_ties(shapes, count):
    fleet = [
        {
            "online": True, "open": True, "fit": True, "able": True, "offered": (cpu, memory, 0, 0, 0, 0, 99),
            "reserved": (0,) * 7, "accelerators": [], "cameras": 0, "bytes": 60_000, "speed": 1_000,
            "heat": 40, "flaky": 0.0, "turn": 0,
        }
        for cpu, memory in shapes
    ]  # fmt: skip
    asked = {"amounts": (1, 1, 0, 0, 0, 0, 1), "bytes": 200, "cameras": 0, "models": (), "reference": False}
    for policy in ("balanced", "binpack", "spread"):
        test_many_are_the_same_as_one_after_the_other.hypothesis.inner_test(
            fleet, asked | {"wish": False}, policy, count
        )


@settings(max_examples=80, deadline=None)
@given(fleets, st.lists(demands, min_size=1, max_size=3), policies)
def test_picks_that_reserve_never_exceed_any_room(fleet, asked, policy):
    view, kept = view_of(fleet), copy.deepcopy(fleet)
    pickers = [picker_of(fleet, a, policy, view) for a in asked]
    for turn in range(40):
        picker, want = pickers[turn % len(pickers)], asked[turn % len(pickers)]
        row = picker.pick()
        if row == NO_DEVICE:
            continue
        assert fits(kept[row], want)
        take(kept[row], want)
        view.take(row, picker.share(row), want["bytes"])
    for row, device in enumerate(kept):
        assert [int(f[row]) for f in view.free] == [free_of(device, r) for r in range(7)]
        assert view.accel_free[row].tolist()[: len(device["accelerators"])] == [
            free for _, free in device["accelerators"]
        ]


@settings(max_examples=60, deadline=None)
@given(fleets, demands, policies)
def test_what_is_given_back_is_there_again(fleet, asked, policy):
    view = view_of(fleet)
    before = view.copy()
    picker = picker_of(fleet, asked, policy, view)
    taken = []
    while len(taken) < 5 and (row := picker.pick()) != NO_DEVICE:
        taken.append((row, picker.share(row)))
        view.take(row, taken[-1][1], asked["bytes"])
    for row, share in taken:
        view.give(row, share, asked["bytes"])
    for now, then in zip(view.free, before.free, strict=True):
        assert np.array_equal(now, then)
    assert np.array_equal(view.accel_free, before.accel_free)
    assert np.array_equal(view.document_bytes_free, before.document_bytes_free)
    assert np.array_equal(view.extras_free.get("camera", 0), before.extras_free.get("camera", 0))


@settings(max_examples=60, deadline=None)
@given(fleets, demands, policies)
def test_every_part_of_a_score_is_between_0_and_1(fleet, asked, policy):
    picker = picker_of(fleet, asked, policy)
    for row in np.flatnonzero(picker.total > OUT):
        assert all(0.0 <= part <= 1.0 for part in picker.parts(int(row)).values()), picker.parts(int(row))


def test_adaptive_means_another_policy_at_another_load():
    device = {
        "online": True, "open": True, "fit": True, "able": True, "offered": (100, 100, 0, 0, 0, 0, 9),
        "reserved": (0,) * 7, "accelerators": [], "cameras": 0, "bytes": 60_000, "speed": 1_000, "heat": 40,
        "flaky": 0.0, "turn": 0,
    }  # fmt: skip
    meant = [
        resolve(ADAPTIVE, view_of([device | {"reserved": (used, 0, 0, 0, 0, 0, 0)}])) for used in (0, 50, 90)
    ]
    assert meant == ["spread", "balanced", "fragmentation"]
    assert all(resolve(name, view_of([])) == name for name in POLICIES) and ADAPTIVE in NAMES


def test_round_robin_gives_each_device_its_turn():
    device = {
        "online": True, "open": True, "fit": True, "able": True, "offered": (9, 9, 0, 0, 0, 0, 9),
        "reserved": (0,) * 7, "accelerators": [], "cameras": 0, "bytes": 60_000, "speed": 1_000, "heat": 40,
        "flaky": 0.0, "turn": 0,
    }  # fmt: skip
    asked = {"amounts": (1, 1, 0, 0, 0, 0, 1), "bytes": 0, "cameras": 0, "models": (), "reference": False}
    view = view_of([dict(device) for _ in range(3)])
    picker = picker_of([device] * 3, asked | {"wish": False}, "round_robin", view)
    rows = []
    for _ in range(7):
        rows.append(picker.pick())
        view.take(rows[-1], picker.share(rows[-1]), 0)
    assert rows == [0, 1, 2, 0, 1, 2, 0]


def test_an_operator_weighs_the_criteria_of_weighted():
    table = weigh({"room": 3, "near": 1})
    assert {n: w for n, (_, w) in table["weighted"].fits.items()} == {"room": 0.75}
    assert {n: w for n, (_, w) in table["weighted"].traits.items()} == {"near": 0.25}
    assert weigh({}) is POLICIES and table["balanced"] is POLICIES["balanced"]
    fleet = [
        {
            "online": True, "open": True, "fit": True, "able": True, "offered": (100, 100, 0, 0, 0, 0, 9),
            "reserved": (used, 0, 0, 0, 0, 0, 0), "accelerators": [], "cameras": 0, "bytes": 60_000,
            "speed": 1_000, "heat": 40, "flaky": flaky, "turn": 0,
        }
        for used, flaky in ((0, 2.0), (40, 0.0))
    ]  # fmt: skip
    asked = {"amounts": (1, 0, 0, 0, 0, 0, 1), "bytes": 0, "cameras": 0, "models": (), "reference": False}
    for weights, row in (({"room": 1}, 0), ({"steady": 1}, 1)):
        view = view_of(fleet)
        demand = demand_of(fleet, asked | {"wish": False})
        assert Picker(view, demand, Bases(view, None, weigh(weights)), "weighted").pick() == row


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"rooms": 1}, "did you mean 'room'?"),
        ({"room": 0}, "at least one"),
        ({"room": -1, "near": 3}, "0 or more"),
    ],
)
def test_weights_that_say_nothing_are_refused(weights, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        weigh(weights)
