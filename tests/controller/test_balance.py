"""Plans of rebalance and drain: what they may never do, on random fleets; what they are for, as stories."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.scheduler import leaving
from controller.scheduler.arriving import NOWHERE, Receivers
from controller.scheduler.balance import Aims, drain, rebalance
from controller.scheduler.imbalance import (
    COUNTED,
    Devices,
    Placed,
    ceilings,
    imbalance,
    loads,
    moves_at_least,
)
from controller.scheduler.shifts import Shifts
from protocol.resources import NAMES

CPU, MEMORY, DISK = (NAMES.index(name) for name in ("cpu_milli", "memory_mib", "disk_mib"))
PLAIN = Aims(goal=1.1, trigger=1.1, gain_min=0.0, moves_max=10_000)


def columns(rows, width=len(NAMES)):
    """One array per resource, of rows of (cpu, memory, disk)."""
    table = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        table[index, [CPU, MEMORY, DISK][: len(row)]] = row
    return [table[:, r].copy() for r in range(width)]


def fleet_of(capacities, tasks, receives=None, gives=None, extra=None):
    """Tasks are (device, amounts, movable, cost, group); what they hold is what is reserved, and `extra`."""
    n, m = len(capacities), len(tasks)
    amounts = columns([t[1] for t in tasks])
    row = np.array([t[0] for t in tasks], np.int64).reshape(m)
    reserved = extra if extra is not None else columns([()] * n)
    for held, amount in zip(reserved, amounts, strict=True):
        np.add.at(held, row, amount)
    yes = np.ones(n, np.bool_)
    devices = Devices(
        columns(capacities), reserved, yes if receives is None else receives, yes if gives is None else gives
    )
    return devices, Placed(
        row,
        amounts,
        np.array([t[2] for t in tasks], np.bool_).reshape(m),
        np.array([t[3] for t in tasks], np.float64).reshape(m),
        np.array([t[4] for t in tasks], np.int64).reshape(m),
    )


def even_fleet(devices, rng, low, high, per_device=10):
    """As many tasks on every device, of random CPU; everybody may take everything."""
    amounts = rng.integers(low, high, (devices, per_device)).tolist()
    tasks = [(d, (a, 10), True, 0.0, 0) for d, row in enumerate(amounts) for a in row]
    return fleet_of([(4_000, 4_096)] * devices, tasks)


def everywhere(group):
    raise AssertionError(f"nothing moves, yet somebody asked where group {group} may go")


def anywhere(devices):
    column = np.ones(devices.gives.size, np.bool_)
    return lambda group: column


def carried_out(devices, tasks, allowed, plan):
    """Carries the moves out one by one, as the simplest world would; returns what is then reserved."""
    reserved, moved = [column.copy() for column in devices.reserved], []
    for move in plan.moves:
        task, source, target = move.task, move.source, move.target
        assert tasks.row[task] == source and source != target
        assert tasks.movable[task] and devices.receives[target] and allowed(int(tasks.group[task]))[target]
        for r, amounts in enumerate(tasks.amounts):
            reserved[r][source] -= amounts[task]  # stop
            reserved[r][target] += amounts[task]  # before start
            assert not amounts[task] or reserved[r][target] <= devices.capacity[r][target]
        moved.append(task)
    assert len(moved) == len(set(moved))
    return reserved


def plain_loads(devices, reserved):
    """The load of each device that takes part, by a loop."""
    result = []
    for row in range(devices.gives.size):
        if devices.gives[row] or devices.receives[row]:
            shares = [reserved[r][row] / max(1, devices.capacity[r][row]) for r in COUNTED]
            result.append(max(shares))
    return result


def unevenness(load):
    """Sum of (load - mean)², by hand."""
    mean = sum(load) / len(load) if load else 0.0
    return sum((x - mean) ** 2 for x in load)


SIZES = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40)) | st.sampled_from(
    [(60, 60, 40), (40, 60, 40), (120, 90, 80)]
)
YES_MOSTLY = st.sampled_from([True, True, True, False])


@st.composite
def fleets(draw):
    """Small fleets of any kind: shrunk and empty devices, cordoned and offline ones, odd constraints."""
    n = draw(st.sampled_from([4, 3, 6, 2, 1]))
    capacities = draw(st.lists(SIZES, min_size=n, max_size=n))
    task = st.tuples(
        st.integers(0, n - 1) | st.just(0),
        st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 9)),
        YES_MOSTLY,
        st.sampled_from([0.0, 0.0, 0.5, 3.0]),
        st.integers(0, 2),
    )
    flags = st.lists(YES_MOSTLY, min_size=n, max_size=n).map(lambda f: np.array(f, np.bool_))
    extra = columns(draw(st.lists(st.tuples(st.integers(0, 5)), min_size=n, max_size=n)))
    held = draw(st.lists(task, min_size=draw(st.sampled_from([5, 10, 0])), max_size=16))
    devices, tasks = fleet_of(capacities, held, draw(flags), draw(flags), extra=extra)
    able = draw(st.lists(flags, min_size=3, max_size=3))
    return devices, tasks, lambda group: able[group]


aims = st.builds(
    lambda goal, more, gain, most: Aims(goal, goal + more, most, gain),
    st.floats(1.0, 1.6),
    st.sampled_from([0.0, 0.15, 0.5]),
    st.sampled_from([0.0, 1e-4, 0.02]),
    st.sampled_from([0, 1, 3, 1_000]),
)


@settings(max_examples=400, deadline=None)
@given(fleets(), aims)
def test_a_plan_keeps_capacity_and_rules_and_never_makes_it_worse(fleet, aims):
    devices, tasks, allowed = fleet
    plan = rebalance(devices, tasks, allowed, aims)
    before = plain_loads(devices, devices.reserved)
    after = plain_loads(devices, carried_out(devices, tasks, allowed, plan))
    assert len(plan.moves) <= aims.moves_max
    assert all(devices.gives[move.source] for move in plan.moves)
    assert all(move.gain > 0 and move.gain >= aims.gain_min * (1 + move.cost) for move in plan.moves)
    assert all(move.cost == tasks.cost[move.task] for move in plan.moves)
    assert sum(m.gain for m in plan.moves) == pytest.approx(unevenness(before) - unevenness(after), abs=1e-6)
    assert plan.after.b <= plan.before.b + 1e-9
    if before:
        assert plan.before.most == pytest.approx(max(before))
        assert plan.after.most == pytest.approx(max(after)) and max(after) <= max(before) + 1e-9
        assert plan.after.mean == pytest.approx(sum(after) / len(after))


@settings(max_examples=150, deadline=None)
@given(fleets(), aims)
def test_the_same_columns_give_the_same_plan_and_stay_as_they_were(fleet, aims):
    devices, tasks, allowed = fleet
    kept = [column.copy() for column in (*devices.reserved, *devices.capacity, *tasks.amounts, tasks.row)]
    first, second = rebalance(devices, tasks, allowed, aims), rebalance(devices, tasks, allowed, aims)
    assert first == second
    now = (*devices.reserved, *devices.capacity, *tasks.amounts, tasks.row)
    assert all((a == b).all() for a, b in zip(kept, now, strict=True))


@settings(max_examples=300, deadline=None)
@given(fleets(), st.data())
def test_a_drain_moves_what_the_devices_held_and_tells_what_fits_nowhere(fleet, data):
    devices, tasks, allowed = fleet
    n = devices.gives.size
    rows = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    plan = drain(devices, tasks, allowed, np.array(rows, np.int64))
    reserved = carried_out(devices, tasks, allowed, plan)
    held = [t for t in range(tasks.row.size) if tasks.row[t] in rows]
    assert sorted([m.task for m in plan.moves] + plan.homeless + plan.staying) == held
    assert all(m.target not in rows for m in plan.moves)
    assert not any(tasks.movable[t] for t in plan.staying)
    before, after = plain_loads(devices, devices.reserved), plain_loads(devices, reserved)
    assert sum(m.gain for m in plan.moves) == pytest.approx(unevenness(before) - unevenness(after), abs=1e-6)
    for task in plan.homeless:
        for row in range(n):
            open_ = devices.receives[row] and row not in rows and allowed(int(tasks.group[task]))[row]
            fits = all(
                not amounts[task] or reserved[r][row] + amounts[task] <= devices.capacity[r][row]
                for r, amounts in enumerate(tasks.amounts)
            )
            assert not (open_ and fits)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 70), st.integers(1, 4), st.integers(20, 60))
def test_a_task_goes_to_the_least_loaded_device_that_takes_it(seed, n, rules, largest):
    """Whichever way it is found: by a queue, or all devices at once when the queue takes too long."""
    rng = np.random.default_rng(seed)
    tasks = [
        (0, (int(c), int(m)), True, 0.0, int(g))
        for c, m, g in zip(
            rng.integers(1, largest, 60),
            rng.integers(0, largest, 60),
            rng.integers(0, rules, 60),
            strict=True,
        )
    ]
    held = columns([(int(c), int(m)) for c, m in rng.integers(0, 90, (n, 2))])
    able, takes = rng.random((rules, n)) < 0.8, rng.random(n) < 0.9
    devices, placed = fleet_of([(100, 100)] * n, tasks, extra=held)
    takes[0] = False
    shifts = Shifts(devices, placed, COUNTED)
    receivers = Receivers(shifts, takes, devices.capacity, lambda group: able[group])
    for task, needs in enumerate(shifts.needs(np.arange(60))):
        group = tasks[task][4]
        fitting = [
            (shifts.load[row], row)
            for row in range(n)
            if takes[row]
            and able[group][row]
            and all(shifts.reserved[r][row] + amount <= 100 for r, amount in needs)
        ]
        found = receivers.find(group, needs)
        assert found == (min(fitting)[1] if fitting else NOWHERE)
        if fitting:
            assert shifts.move(task, 0, found, needs, -np.inf)
            receivers.took(found)
    most = receivers.most()
    for r in shifts.asked:
        assert most[r] == max([0, *(100 - shifts.reserved[r][row] for row in range(n) if takes[row])])


def test_losing_a_device_moves_exactly_the_tasks_it_held():
    devices, tasks = even_fleet(300, np.random.default_rng(5), 20, 380)
    devices.receives[17] = devices.gives[17] = (
        False  # lost: it neither takes nor gives, its tasks go all the same
    )
    held = np.flatnonzero(tasks.row == 17).tolist()
    plan = drain(devices, tasks, anywhere(devices), np.array([17]))
    assert sorted(m.task for m in plan.moves) == held and not plan.homeless and not plan.staying
    tasks.movable[held[0]] = False
    plan = drain(devices, tasks, anywhere(devices), np.array([17]))
    assert sorted(m.task for m in plan.moves) == held[1:] and plan.staying == held[:1]
    # A device that takes no part weighs nothing, however much it still holds.
    before, after = (x.b**2 * 299 for x in (plan.before, plan.after))
    assert sum(m.gain for m in plan.moves) == pytest.approx(before - after)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_goal_is_reached_with_hardly_more_moves_than_anybody_needs(seed):
    devices, tasks = even_fleet(400, np.random.default_rng(seed), 20, 380)
    plan = rebalance(devices, tasks, anywhere(devices), PLAIN)
    least, unreachable = moves_at_least(devices, tasks, 1.1 * plan.before.mean)
    assert plan.before.ratio > 1.3 and plan.reached and plan.after.ratio <= 1.1 * (1 + 1e-6)
    assert not unreachable and least <= len(plan.moves) <= 1.25 * least
    assert plan.after.response < plan.before.response


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unequal_devices_are_levelled_without_chasing_a_mean_that_falls(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 2, 4], 300)
    # As much work on each: the small ones are hot. The mean falls by a quarter as they cool down.
    tasks = [
        (d, (int(c), int(m)), True, 0.0, 0)
        for d in range(300)
        for c, m in zip(rng.integers(20, 380, 10), rng.integers(20, 380, 10), strict=True)
    ]
    devices, placed = fleet_of([(4_000 * s, 4_096 * s) for s in sizes.tolist()], tasks)
    plan = rebalance(devices, placed, anywhere(devices), PLAIN)
    least, _ = moves_at_least(devices, placed, 1.1 * plan.after.mean)
    assert plan.after.mean < 0.9 * plan.before.mean
    assert plan.after.ratio <= 1.15 and least <= len(plan.moves) <= 1.25 * least


def test_a_fleet_comes_to_rest():
    devices, tasks = even_fleet(200, np.random.default_rng(9), 20, 380)
    plan = rebalance(devices, tasks, anywhere(devices), Aims())
    assert plan.moves
    devices.reserved = carried_out(devices, tasks, anywhere(devices), plan)
    for move in plan.moves:
        tasks.row[move.task] = move.target
    again = rebalance(devices, tasks, anywhere(devices), Aims())
    assert again.moves == [] and again.reached and again.before == again.after
    assert again.before == plan.after


def test_between_goal_and_trigger_nothing_moves():
    tasks = [(d, (100,), True, 0.0, 0) for d in range(10) for _ in range(5)] + [(0, (100,), True, 0.0, 0)]
    devices, placed = fleet_of([(1_000,)] * 10, tasks)
    plan = rebalance(devices, placed, anywhere(devices), Aims(goal=1.1, trigger=1.2))
    assert 1.1 < plan.before.ratio < 1.2 and plan.moves == [] and plan.reached
    devices, placed = fleet_of([(1_000,)] * 10, [*tasks, (0, (50,), True, 0.0, 0)])
    plan = rebalance(devices, placed, anywhere(devices), Aims(goal=1.1, trigger=1.2))
    assert plan.before.ratio > 1.2 and [m.source for m in plan.moves] == [0]


def test_a_small_budget_goes_to_the_most_loaded_device():
    tasks = [(0, (90,), True, 0.0, 0)] + [(0, (300,), True, 0.0, 0)] * 3 + [(1, (300,), True, 0.0, 0)] * 2
    devices, placed = fleet_of([(1_000,)] * 5, tasks)
    plan = rebalance(devices, placed, anywhere(devices), Aims(moves_max=1))
    assert [(m.source, m.target) for m in plan.moves] == [(0, 2)]
    move = plan.moves[0]
    assert (move.source_load, move.target_load) == (0.99, 0.0) and not plan.reached


def test_of_two_tasks_that_help_alike_the_cheaper_one_moves():
    tasks = [(0, (200,), True, 5.0, 0), (0, (200,), True, 0.0, 0), (0, (200,), True, 2.0, 0)]
    devices, placed = fleet_of([(1_000,)] * 3, tasks)
    plan = rebalance(devices, placed, anywhere(devices), Aims(goal=1.1, moves_max=1))
    assert [m.task for m in plan.moves] == [1]


def test_where_no_device_stays_below_the_goal_the_worst_is_relieved_as_far_as_it_goes():
    # 0.9 and 0.5 on two devices of three, in lumps: the 0.9 can only become 0.5 and 0.4.
    tasks = [(0, (500,), True, 0.0, 0), (0, (400,), True, 0.0, 0), (1, (500,), True, 0.0, 0)]
    devices, placed = fleet_of([(1_000,)] * 3, tasks)
    plan = rebalance(devices, placed, anywhere(devices), Aims(goal=1.0, trigger=1.0))
    assert not plan.reached and plan.after.most == 0.5
    assert [(m.source, m.target) for m in plan.moves] == [(0, 2)]


def test_disk_and_slots_limit_but_are_no_load():
    devices, _ = fleet_of([(100, 100, 100)], [(0, (10, 20, 90), True, 0.0, 0)])
    assert loads(devices.capacity, devices.reserved).tolist() == [0.2]


def test_a_fleet_of_nobody_and_a_fleet_at_rest_have_figures():
    devices, tasks = fleet_of([], [])
    plan = rebalance(devices, tasks, everywhere)
    assert plan.moves == [] and plan.before == plan.after == imbalance(np.zeros(0))
    devices, tasks = fleet_of([(10, 10)] * 3, [])
    plan = rebalance(devices, tasks, everywhere)
    assert plan.reached and plan.before.ratio == 1.0 and plan.before.response == 1.0


def test_tasks_that_ask_for_nothing_are_drained_too():
    devices, tasks = fleet_of([(0,), (0,)], [(0, (), True, 0.0, 0)] * 2)
    plan = drain(devices, tasks, anywhere(devices), np.array([0]))
    assert [(m.task, m.target) for m in plan.moves] == [(0, 1), (1, 1)]


def test_the_figures_are_what_the_formulas_say():
    found = imbalance(np.array([0.8, 0.4, 0.0]))
    assert (found.mean, found.most, found.ratio) == (pytest.approx(0.4), 0.8, pytest.approx(2.0))
    assert found.b == pytest.approx((0.32 / 3) ** 0.5)
    # 0.8 of load waits 1/0.2, 0.4 waits 1/0.6: weighted by load.
    assert found.response == pytest.approx((0.8 * 5 + 0.4 / 0.6) / 1.2)
    assert imbalance(np.array([1.0, 3.0])).response == pytest.approx(100)


@pytest.mark.parametrize("wrong", [{"goal": 0.9}, {"goal": 1.5}, {"moves_max": -1}, {"gain_min": -1.0}])
def test_aims_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="needs 1 <= goal <= trigger"):
        Aims(**wrong)


TASKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7)


def fewest(amounts, excess):
    """The smallest number of tasks whose sum is at least the excess, by trying all; None when none is."""
    for count in range(len(amounts) + 1):
        for chosen in combinations(amounts, count):
            if all(sum(a[r] for a in chosen) >= e for r, e in enumerate(excess)):
                return count
    return None


@settings(max_examples=200, deadline=None)
@given(st.lists(TASKS, min_size=1, max_size=3), st.integers(1, 30), st.floats(0.3, 1.0))
def test_the_counting_bound_is_one(held, capacity, cap):
    tasks = [(d, amounts, True, 0.0, 0) for d, row in enumerate(held) for amounts in row]
    devices, placed = fleet_of([(capacity, capacity)] * len(held), tasks)
    limit = ceilings(devices.capacity, cap)
    least = [
        fewest(row, [devices.reserved[r][d] - limit[r][d] for r in (CPU, MEMORY)])
        for d, row in enumerate(held)
    ]
    alone = [
        fewest([(a[0],) for a in row], [devices.reserved[CPU][d] - limit[CPU][d]])
        for d, row in enumerate(held)
    ]
    bound, unreachable = moves_at_least(devices, placed, cap)
    assert unreachable == least.count(None) == 0
    assert bound <= sum(least)
    assert moves_at_least(devices, placed, cap, (CPU,))[0] == sum(alone)  # exact where one resource counts


@settings(max_examples=200, deadline=None)
@given(st.lists(TASKS, min_size=1, max_size=4), st.integers(1, 30))
def test_as_few_leave_as_possible_where_one_resource_counts_and_none_needlessly(held, limit):
    tasks = [(d, amounts, True, 0.0, 0) for d, row in enumerate(held) for amounts in row]
    devices, placed = fleet_of([(100, 100)] * len(held), tasks)
    for resources in ((CPU,), (CPU, MEMORY)):
        excess = {r: devices.reserved[r] - limit for r in resources}
        chosen, _ = leaving.choose(
            placed, np.arange(len(tasks)), excess, {r: np.full(len(held), 100) for r in resources}
        )
        assert len(chosen) == len(set(chosen.tolist()))
        for device, row in enumerate(held):
            mine = [tasks[t][1] for t in chosen.tolist() if tasks[t][0] == device]
            over = [int(excess[r][device]) for r in resources]
            assert all(sum(a[i] for a in mine) >= e for i, e in enumerate(over))
            if len(resources) == 1:
                assert len(mine) == fewest([(a[0],) for a in row], over)
            for index in range(len(mine)):
                rest = mine[:index] + mine[index + 1 :]
                assert any(sum(a[i] for a in rest) < e for i, e in enumerate(over))
