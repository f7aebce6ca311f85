"""The fragmentation policy against a loop over demands, devices and accelerators, on small fleets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from controller.scheduler import fragmenting, parts, shapes, standing
from controller.scheduler.closely import Closely
from controller.scheduler.filters import passing
from controller.scheduler.fragmentation import Fragmentation
from controller.scheduler.fragmenting import FRAGMENTATION, FragmentationPicker, picker_of
from controller.scheduler.gainful import Holding, gainful_room
from controller.scheduler.parts import Asked
from controller.scheduler.pick import NO_DEVICE, OUT, Bases, Picker
from controller.scheduler.popularity import KINDS_MAX, WINDOW, DemandKind, Popularity, kind_of
from controller.scheduler.usable import PARTS
from controller.scheduler.view import Demand, Share, View
from protocol.resources import Resources

MODELS = ("A", "B")
_free = st.sampled_from([0, 0, 190, 230, 500, 530, 810, 1_000, 1_000, 1_000])
_accelerators = st.one_of(
    st.tuples(st.sampled_from(MODELS), st.lists(_free, max_size=5)).map(lambda d: [(d[0], f) for f in d[1]]),
    st.lists(st.tuples(st.sampled_from(MODELS), _free), max_size=5),
)
fleets = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), _accelerators), min_size=1, max_size=6)
_gpu_milli = st.sampled_from([0, 0, 50, 190, 230, 470, 500, 810, 1_000, 1_000, 2_000, 3_000])
demands = st.tuples(
    st.integers(0, 12), st.integers(0, 12), _gpu_milli, st.sampled_from([(), (), (), ("A",), ("A", "B")])
)
works = st.lists(st.tuples(demands, st.integers(1, 40)), min_size=1, max_size=12)


def view_of(fleet):
    view = View(1)
    for cpu, memory, accelerators in fleet:
        row = view.add()
        view.online[row] = view.open[row] = view.fit[row] = True
        view.document_bytes_free[row], view.core_speed_milli[row] = 1 << 30, 1_000
        total = 1_000 * len(accelerators)
        used = total - sum(free for _, free in accelerators)
        view.offer(
            row, Resources(cpu, memory, gpu_milli=total, slots=50), Resources(gpu_milli=used), accelerators
        )
    view.touch_all()
    return view


def demand_of(asked):
    cpu, memory, milli, models = asked
    return Demand(Resources(cpu, memory, gpu_milli=milli, slots=1), 10, models=models if milli else ())


def bases_of(view, work):
    bases = Bases(view)
    for asked, tasks in work:
        bases.fragmentation.note(demand_of(asked), tasks)
    bases.fragmentation._learn()
    return bases


# ------------------------------------------------------------- the dumb reference


def usable_to(kind, cpu, memory, accelerators):
    """Milli of a device that this kind could use, as the paper says it: all of what it fits into."""
    if cpu < kind.amounts[0] or memory < kind.amounts[1]:
        return 0
    good = [free for model, free in accelerators if not kind.models or model in kind.models]
    if kind.accelerators == 1:
        return sum(free for free in good if free >= kind.milli)
    whole = sum(free >= 1_000 for _, free in accelerators)
    return sum(free for free in good if free >= 1_000) if whole >= kind.accelerators else 0


def idle_of(shares, cpu, memory, accelerators):
    """Milli that processor or memory can't feed, over the kinds; demands without accelerators eat too."""
    milli = sum(free for _, free in accelerators)
    all_milli = sum(share * kind.total_milli for kind, share in shares.items())
    worst = 0.0
    for place, room in ((0, cpu), (1, memory)):
        fed = sum(s * k.amounts[place] for k, s in shares.items() if k.accelerators)
        if not fed:
            continue
        beside = sum(s * k.amounts[place] for k, s in shares.items() if not k.accelerators)
        idle = 0.0
        for kind, share in shares.items():
            if kind.accelerators and kind.amounts[place]:
                need = kind.amounts[place] / kind.total_milli * (1 + beside / fed)
                idle += share * kind.total_milli / all_milli * max(0.0, milli - room / need)
        worst = max(worst, idle)
    return worst


def worth_of(shares, device):
    usable = sum(
        round(s * PARTS) / PARTS * usable_to(k, *device) for k, s in shares.items() if k.accelerators
    )
    return usable - idle_of(shares, *device)


def placements(device, asked):
    """Every way to place the demand there: (accelerators taken, what the device would then be)."""
    cpu, memory, accelerators = device
    need_cpu, need_memory, milli, models = asked
    if need_cpu > cpu or need_memory > memory:
        return
    left = (cpu - need_cpu, memory - need_memory)
    able = [
        at
        for at, (model, free) in enumerate(accelerators)
        if free >= min(milli, 1_000) and (not models or model in models)
    ]
    if not milli:
        yield (), (*left, accelerators)
    elif milli < 1_000:
        for at in able:
            yield (at,), (*left, taken_from(accelerators, [at], milli))
    elif len(able) >= milli // 1_000:
        for taken in [[at] for at in able] if milli == 1_000 else [able[: milli // 1_000]]:
            yield tuple(taken), (*left, taken_from(accelerators, taken, 1_000))


def taken_from(accelerators, places, milli):
    return [(m, free - milli * (at in places)) for at, (m, free) in enumerate(accelerators)]


# ------------------------------------------------------------- the measure


@settings(max_examples=120, deadline=None)
@given(fleets, works, demands)
def test_the_gain_is_what_a_loop_over_usual_demands_finds_and_the_accelerator_the_best(fleet, work, asked):
    view = view_of(fleet)
    measure = bases_of(view, work).fragmentation
    shares = measure.popularity.shares()
    for row, device in enumerate(fleet):
        ways = {taken: worth_of(shares, then) for taken, then in placements(device, asked)}
        if not ways:
            continue
        gains, places = measure.gains(Asked(view, demand_of(asked)), np.array([row]))
        assert gains[0] == pytest.approx(max(ways.values()) - worth_of(shares, device), abs=0.01)
        if places[0] >= 0:
            assert ways[(int(places[0]),)] == pytest.approx(max(ways.values()), abs=0.01)


@settings(max_examples=120, deadline=None)
@given(fleets, works, demands)
def test_one_device_in_plain_numbers_is_the_same_to_the_last_bit(fleet, work, asked):
    view = view_of(fleet)
    bases, demand = bases_of(view, work), demand_of(asked)
    closely = Closely(view, bases.fragmentation)
    able = passing(view, demand)
    for row in range(len(fleet)):
        found = closely.gain(Asked(view, demand), row)
        assert (found is not None) == bool(able[row])
        if found is not None:
            gains, places = bases.fragmentation.gains(Asked(view, demand), np.array([row]))
            assert found == (gains[0], places[0])


@settings(max_examples=120, deadline=None)
@given(fleets, works, demands)
def test_what_is_left_to_use_is_the_same_in_columns_and_in_plain_numbers(fleet, work, asked):
    view = view_of(fleet)
    measured = bases_of(view, work).fragmentation.standing
    wanted, rows = Asked(view, demand_of(asked)).wanted, np.arange(len(fleet))
    cells = measured.usable.cell(view.free[0], view.free[1])
    shapes_there = [measured.shapes.numbered(int(number)) for number in measured.shapes.number]
    each = [
        measured.answers.reckon(0, wanted, shape, int(cells[at])) for at, shape in enumerate(shapes_there)
    ]
    assert measured.answers._made(wanted, rows, cells) == each


@settings(max_examples=40, deadline=None)
@given(fleets, works, demands, st.integers(43, 60))
def test_many_devices_at_once_are_the_same_as_each_alone(fleet, work, asked, times):
    view = view_of(fleet * times)
    demand, bases = demand_of(asked), bases_of(view, work)
    rows = np.flatnonzero(passing(view, demand))
    assume(len(rows))
    together, places = bases.fragmentation.gains(Asked(view, demand), rows)
    alone = bases_of(view, work).fragmentation
    each = [alone.gains(Asked(view, demand), rows[i : i + 1]) for i in range(len(rows))]
    assert together.tolist() == [float(gains[0]) for gains, _ in each]
    assert places.tolist() == [int(place[0]) for _, place in each]


# ------------------------------------------------------------- the picker


TIGHT = {
    "closely": {fragmenting: {"_CLOSELY": 99}, parts: {"KNOWN_MAX": 2}},
    "in columns": {fragmenting: {"_CLOSELY": 0}, standing: {"_FEW": 0}, parts: {"_FEW": 0, "_SLOTS_BITS": 1}},
    "little remembered": {
        shapes: {"SHAPES_LEAST": 1, "SHAPES_PER_DEVICE": 0},
        parts: {"KNOWN_MAX": 2, "_SLOTS_BITS": 1},
    },
}


@pytest.mark.parametrize("bounds", TIGHT)
def test_a_picker_that_follows_knows_what_a_fresh_one_knows(bounds, monkeypatch):
    for module, changed in TIGHT[bounds].items():
        for name, value in changed.items():
            monkeypatch.setattr(module, name, value)
    follows()


@settings(max_examples=100, deadline=None)
@given(fleets, works, st.lists(demands, min_size=1, max_size=4), st.data())
def follows(fleet, work, asked, data):
    view = view_of(fleet)
    bases = bases_of(view, work)
    pickers = [picker_of(view, demand_of(a), bases, FRAGMENTATION) for a in asked]
    taken = []
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(pickers) - 1))
        row = pickers[at].pick()
        if taken and data.draw(st.booleans()):
            view.give(*taken.pop(), 10)
        elif row != NO_DEVICE:
            taken.append((row, pickers[at].share(row)))
            view.take(*taken[-1], 10)
        if data.draw(st.booleans()):
            bases.fragmentation.note(pickers[at].demand, data.draw(st.integers(1, 300)))
        fresh_bases = Bases(view, bases.popularity)
        for picker in pickers:
            picker.follow()
            fresh_bases.fragmentation.standing.learn(bases.fragmentation.usable)
            fresh_bases.fragmentation.usable = bases.fragmentation.usable
            fresh = FragmentationPicker(view, picker.demand, fresh_bases, FRAGMENTATION)
            assert np.array_equal(picker.total, fresh.total)
            assert np.array_equal(picker.places[fresh.total > OUT], fresh.places[fresh.total > OUT])


@settings(max_examples=120, deadline=None)
@given(fleets, works)
def test_no_room_is_exceeded_and_nothing_that_fits_is_refused(fleet, work):
    view = view_of(fleet)
    bases = Bases(view)
    pickers = [picker_of(view, demand_of(asked), bases, FRAGMENTATION) for asked, _ in work]
    for turn in range(60):
        picker = pickers[turn % len(pickers)]
        bases.fragmentation.note(picker.demand)
        row = picker.pick()
        assert (row == NO_DEVICE) == (not passing(view, picker.demand).any())
        if row == NO_DEVICE:
            continue
        assert passing(view, picker.demand)[row]
        view.take(row, picker.share(row), 10)
        assert min(int(free.min()) for free in view.free) >= 0
        assert int(view.accel_free.min()) >= 0
        assert view.free[3].tolist() == view.accel_free.sum(axis=1).tolist()


@settings(max_examples=60, deadline=None)
@given(fleets, works)
def test_the_same_arrivals_are_placed_the_same(fleet, work):
    assert _places(fleet, work) == _places(fleet, work)


def _places(fleet, work):
    view = view_of(fleet)
    bases, found = Bases(view), []
    for asked, _ in work * 3:
        picker = picker_of(view, demand_of(asked), bases, FRAGMENTATION)
        bases.fragmentation.note(picker.demand)
        row = picker.pick()
        if row != NO_DEVICE:
            found.append((row, picker.share(row)))
            view.take(*found[-1], 10)
    return found


def test_only_the_fragmentation_policy_has_its_picker():
    view = view_of([(8, 8, [("A", 1_000)])])
    bases, demand = Bases(view), demand_of((1, 1, 500, ()))
    assert type(picker_of(view, demand, bases, "balanced")) is Picker
    picker = picker_of(view, demand, bases, FRAGMENTATION)
    assert type(picker) is FragmentationPicker
    assert 0.0 <= picker.parts(0)["usable"] <= 1.0


def test_a_share_goes_where_usual_demands_lose_least():
    view = view_of([(99, 99, [("A", 1_000), ("A", 530), ("A", 500)])])
    bases = bases_of(view, [((1, 1, 1_000, ()), 60), ((1, 1, 500, ()), 40)])
    share = picker_of(view, demand_of((1, 1, 500, ())), bases, FRAGMENTATION).share(0)
    assert share.accelerators == ((2, 500),)  # 530 would lose 30 more; 1,000 its use to most


def test_a_device_whose_processor_would_starve_its_accelerators_is_not_chosen():
    view = view_of([(24, 99, [("A", 1_000)] * 2), (90, 99, [("A", 1_000)] * 2)])
    bases = bases_of(view, [((12, 1, 1_000, ()), 90), ((20, 1, 0, ()), 10)])
    assert picker_of(view, demand_of((20, 1, 0, ())), bases, FRAGMENTATION).pick() == 1


def test_a_rare_model_is_kept_for_who_needs_it():
    view = view_of([(99, 99, [("B", 1_000)]), (99, 99, [("A", 1_000)])])
    bases = bases_of(view, [((1, 1, 1_000, ()), 50), ((1, 1, 1_000, ("B",)), 50)])
    assert picker_of(view, demand_of((1, 1, 1_000, ())), bases, FRAGMENTATION).pick() == 1


# ------------------------------------------------------------- popularity


def test_old_arrivals_weigh_less_and_the_table_follows_new_work():
    popularity = Popularity()
    old, new = (DemandKind((1, 1, 0, 0, 0), 1, milli) for milli in (300, 700))
    popularity.note(old, WINDOW - 1)
    for _ in range(3 * WINDOW):
        popularity.note(new)
    shares = popularity.shares()
    assert shares[new] > 4 * shares[old]
    assert 3 <= popularity.tables <= 9
    assert sum(shares.values()) == pytest.approx(1.0)


def test_kinds_beyond_number_forget_the_rarest():
    popularity = Popularity()
    usual = DemandKind((1, 1, 0, 0, 0), 1, 1_000)
    popularity.note(usual, 100)
    for cpu in range(3 * KINDS_MAX):
        popularity.note(DemandKind((cpu, 2, 0, 0, 0), 1, 500))
    assert len(popularity.shares()) <= KINDS_MAX
    assert usual in popularity.shares()


def test_a_kind_does_not_tell_models_in_another_order_apart():
    asked = [Demand(Resources(1, gpu_milli=500), models=models) for models in (("B", "A"), ("A", "B"))]
    assert kind_of(asked[0]) == kind_of(asked[1])


# ------------------------------------------------------------- making room


@settings(max_examples=100, deadline=None)
@example([(0, 11, []), (3, 1, [("B", 0)]), (1, 10, [])], [((1, 0, 0, ()), 1)], (1, 0, 190, ()), 2)
@given(fleets, works, demands, st.integers(1, 3))
def test_a_plan_makes_room_exceeds_nothing_and_gains_what_it_says(fleet, work, asked, moves_max):
    view = view_of([(cpu, memory, [(m, 1_000) for m, _ in accs]) for cpu, memory, accs in fleet])
    bases, held = bases_of(view, work), {}
    pickers = [FragmentationPicker(view, demand_of(a), bases, FRAGMENTATION) for a, _ in work]
    for number in range(40):
        picker = pickers[number % len(pickers)]
        if (row := picker.pick()) != NO_DEVICE:
            share = picker.share(row)
            view.take(row, share, 10)
            held.setdefault(row, {})[number] = Holding(number, row, share, picker)
    picker = FragmentationPicker(view, demand_of(asked), bases, FRAGMENTATION)
    assume(picker.pick() == NO_DEVICE)
    before, logged = fleet_worth(view, bases), len(view.log)
    plan = gainful_room(view, picker, lambda row: list(held.get(row, {}).values()), moves_max)
    assert len(view.log) == logged
    if plan is None:
        return
    assert 1 <= len(plan.moves) <= moves_max
    for move in plan.moves:
        assert move.source == plan.row != move.target
        view.give(move.source, held[move.source].pop(move.task).share, 10)
        view.take(move.target, move.share, 10)
    assert picker.fits(plan.row)
    view.take(plan.row, picker.share(plan.row), 10)
    assert min(int(free.min()) for free in view.free) >= 0
    assert int(view.accel_free.min()) >= 0
    assert plan.gain == pytest.approx(fleet_worth(view, bases) - before + asked[2], abs=0.1)


def fleet_worth(view, bases):
    closely = Closely(view, bases.fragmentation)
    closely.follow()
    return sum(closely.worth(closely.seen(row)) for row in range(view.count))


def test_one_small_task_moves_so_that_a_whole_accelerator_is_free():
    view = view_of([(9, 9, [("A", 1_000)]), (9, 9, [("A", 1_000)])])
    bases = bases_of(view, [((1, 1, 1_000, ()), 50), ((1, 1, 400, ()), 50)])
    small = FragmentationPicker(view, demand_of((1, 1, 400, ())), bases, FRAGMENTATION)
    for row in (0, 1):
        view.take(row, Share(small.demand.resources, ((0, 400),)), 10)
    held = {row: [Holding(row, row, Share(small.demand.resources, ((0, 400),)), small)] for row in (0, 1)}
    whole = FragmentationPicker(view, demand_of((1, 1, 1_000, ())), bases, FRAGMENTATION)
    assert whole.pick() == NO_DEVICE
    plan = gainful_room(view, whole, lambda row: held[row], 1)
    assert [(m.source, m.target) for m in plan.moves] == [(0, 1)]
    assert gainful_room(view, whole, lambda _: [], 1) is None


def test_a_new_model_makes_a_new_table():
    view = view_of([(9, 9, [("A", 1_000)])])
    measure = Fragmentation(view)
    generation = measure.current()
    row = view.add()
    view.offer(row, Resources(9, 9, gpu_milli=1_000, slots=9), Resources(), [("B", 1_000)])
    assert measure.current() == generation + 1
    assert measure.current() == generation + 1


def test_what_is_freed_after_a_look_that_found_nobody_able_is_seen():
    """Such a look asks nothing of what each device is worth, so that was last known in another era."""
    view = view_of([(4, 4, [("A", 1_000)])] * 2 * fragmenting._CLOSELY)
    bases, asked = bases_of(view, [((2, 2, 500, ()), 1)]), demand_of((4, 4, 500, ()))
    shares = [view.share(row, asked) for row in range(view.count)]
    picker = picker_of(view, asked, bases, FRAGMENTATION)
    for row, share in enumerate(shares):
        view.take(row, share, 0)
    view.touch_all()
    assert not picker.able().any()
    for row, share in enumerate(shares):
        view.give(row, share, 0)
    assert picker.able().all()
    assert picker.total.tolist() == picker_of(view, asked, bases, FRAGMENTATION).total.tolist()
