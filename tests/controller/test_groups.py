"""Groups of tasks against a loop that counts anew each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.scheduler.groups import Distinct, Grouping, Shares, affinity, codes, shares_of

zones = st.lists(st.sampled_from(("a", "b", "c", None)), min_size=1, max_size=8)
targets = st.sampled_from(
    ((), (("a", 70), ("b", 30)), (("a", 50),), (("a", 100), ("z", 0)), (("z", 60), ("b", 10)))
)


def dumb_allows(zone_of, tasks, limits):
    """The reference: each limit is (per device?, most)."""
    result = []
    for row, zone in enumerate(zone_of):
        fine = True
        for per_device, most in limits:
            beside = [t for t in tasks if (t == row if per_device else zone_of[t] == zone)]
            fine = fine and (per_device or zone is not None) and len(beside) < most
        result.append(fine)
    return result


def dumb_score(zone_of, tasks, wanted, candidates):
    """The reference: shares in percent, then by how many tasks each zone is ahead of the neediest."""
    said = dict(wanted)
    there = {zone_of[row] for row in candidates} - {None}
    others = there - set(said)
    share = {z: said.get(z, (100 - sum(said.values())) / max(1, len(others))) for z in there}
    reached = {z for z in there if share[z] > 0}
    total = sum(share[z] for z in reached)
    count = {z: sum(zone_of[t] == z for t in tasks) for z in reached}
    short = {z: share[z] / total * (sum(count.values()) + 1) - count[z] for z in reached}
    return [1 / (1 + max(short.values()) - short[z]) if z in reached else 0.0 for z in zone_of]


@settings(max_examples=300, deadline=None)
@given(st.data(), zones, targets, st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=3))
def test_columns_follow_each_placement_as_if_counted_anew(data, zone_of, wanted, limits):
    found, names = codes(zone_of)
    n = len(zone_of)
    rows = st.integers(0, n - 1)
    tasks = data.draw(st.lists(rows, max_size=4))
    group = Grouping(
        n,
        [Distinct("", None if per_device else found, most) for per_device, most in limits],
        [Shares("", found, shares_of(names, wanted), 50)],
        tasks,
    )
    candidates = list(range(n))
    for _ in range(data.draw(st.integers(0, 8))):
        what = data.draw(st.sampled_from(("place", "place", "unplace", "narrow")))
        before = group.allows().copy()
        changed = None
        if what == "place":
            tasks.append(data.draw(rows))
            changed = group.placed(tasks[-1])
        elif what == "unplace" and tasks:
            changed = group.unplaced(tasks.pop(data.draw(st.integers(0, len(tasks) - 1))))
        elif what == "narrow":
            candidates = data.draw(st.lists(rows, unique=True))
            group.narrow(np.isin(np.arange(n), candidates))
        if changed is False:
            assert (group.allows() == before).all()
        assert group.allows().tolist() == dumb_allows(zone_of, tasks, limits)
        assert group.score() == pytest.approx(dumb_score(zone_of, tasks, wanted, candidates))
    # Removing devices one limit at a time, as an explanation does, leaves the same ones.
    left = np.ones(n, np.bool_)
    for _, column in group.filters():
        left &= column
    assert (left == group.allows()).all()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=6),
    st.integers(0, 60),
    st.integers(1, 4),
)
def test_whoever_follows_the_score_ends_near_the_shares(percents, tasks, devices_each):
    """No value stands a whole task above its share, wherever one stops."""
    k = len(percents)
    found = np.repeat(np.arange(k), devices_each)
    shares = np.array(percents, np.float64)
    group = Grouping(len(found), [], [Shares("", found, shares, 10)])
    counts = np.zeros(k)
    for n in range(1, tasks + 1):
        row = int(group.score().argmax())
        assert group.score()[row] == 1.0
        group.placed(row)
        counts[found[row]] += 1
        assert (counts < shares / shares.sum() * n + 1 - 1e-9).all()
    if len(set(percents)) == 1:
        assert counts.max() - counts.min() <= 1


def test_an_even_spread_goes_round_and_a_full_zone_makes_no_gap():
    found, names = codes(["a", "a", "b", "b", "c", None])
    group = Grouping(6, [], [Shares("zone", found, shares_of(names, ()), 50)])
    assert group.score().tolist() == [1, 1, 1, 1, 1, 0]
    group.placed(4)
    assert group.score() == pytest.approx([1, 1, 1, 1, 1 / 2, 0])
    group.narrow(np.array([True, True, False, False, True, True]))
    assert group.score() == pytest.approx([1, 1, 0, 0, 1 / 2, 0])


def test_spreads_are_weighed_and_told_apart():
    zone, zones_ = codes(["a", "b", "a", "b"])
    rack, racks = codes(["1", "1", "2", "2"])
    group = Grouping(
        4,
        [],
        [Shares("zone", zone, shares_of(zones_, ()), 75), Shares("rack", rack, shares_of(racks, ()), 25)],
        [0],
    )
    assert group.score() == pytest.approx([0.5, 0.75 + 0.125, 0.375 + 0.25, 1.0])
    assert [(words, column.tolist()) for words, column in group.parts()] == [
        ("zone", [0.5, 1.0, 0.5, 1.0]),
        ("rack", [0.5, 0.5, 1.0, 1.0]),
    ]


def test_without_any_wish_everything_is_allowed_and_equal():
    group = Grouping(3, [], [])
    assert not group.placed(1)
    assert group.allows().tolist() == [True] * 3
    assert group.score().tolist() == [1.0] * 3
    assert affinity([], [], 3).tolist() == [0.5] * 3


def test_an_empty_fleet_has_empty_columns():
    found, names = codes([])
    group = Grouping(
        0, [Distinct("", found, 1), Distinct("", None, 1)], [Shares("", found, shares_of(names, ()), 1)]
    )
    assert group.allows().tolist() == [] and group.score().tolist() == []


@given(
    st.lists(st.tuples(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(-100, 100)), max_size=5)
)
def test_affinities_sum_up_between_0_and_1(wishes):
    found = affinity([np.array(column) for column, _ in wishes], [w for _, w in wishes], 4)
    for row in range(4):
        total = sum(abs(weight) for _, weight in wishes)
        holding = sum(weight for column, weight in wishes if column[row])
        assert found[row] == pytest.approx(0.5 + 0.5 * (holding / total if total else 0))
        assert 0 <= found[row] <= 1


@given(st.lists(st.one_of(st.none(), st.sampled_from("xyz"))))
def test_codes_are_numbered_by_their_first_device(values):
    found, names = codes(values)
    assert [None if c < 0 else names[c] for c in found] == values
    assert names == list(dict.fromkeys(v for v in values if v is not None))


def test_what_targets_leave_is_shared_by_the_others_that_can_be_reached():
    found, names = codes(["a", "b", "c", "d"])
    targets = (("a", 50), ("gone", 20))
    group = Grouping(4, [], [Shares("", found, shares_of(names, targets), 1)], [0, 1, 2], np.arange(4) < 3)
    # Due of four: a 50/80, b and c 15/80 each. Nobody reaches d, and `gone` is nowhere.
    short = np.array([50, 15, 15]) / 80 * 4 - 1
    assert group.score() == pytest.approx([*(1 / (1 + short.max() - short)), 0])
