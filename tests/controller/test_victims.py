"""The cheapest victims, against trying every set on every device."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.scheduler import victims as v
from controller.scheduler.victims import (
    LEAVES,
    Cost,
    Endable,
    Holdings,
    cheapest,
    cost_of,
    on_device,
    share_after,
)
from controller.scheduler.view import Demand, Share, View
from protocol.resources import Resources

SPEEDS = (1_000, 2_000)
MODELS = ("", "orin")


def fleet(devices):
    """`devices`: (room, accelerators, extras, speed, reservations); reserved as they come."""
    view = View()
    for room, accelerators, extras, speed, held in devices:
        row = view.add()
        view.online[row] = view.open[row] = view.fit[row] = True
        view.document_bytes_free[row] = 60_000
        view.core_speed_milli[row] = speed
        view.offer(row, room, Resources(), accelerators, extras)
        for each in held:
            view.take(row, each.share, each.entry_bytes)
    return view


def fits(view, row, demand):
    return bool(view.copies(demand, np.array([row]))[0] >= 1)


def by_trying(view, demand, row, held, at_most):
    """Every set, in order of its cost."""
    going = [i for i, h in enumerate(held) if h.priority == LEAVES]
    may = [i for i, h in enumerate(held) if LEAVES < h.priority <= at_most]
    sets = chain.from_iterable(combinations(may, n) for n in range(len(may) + 1))
    good = []
    for chosen in sets:
        for i in (*going, *chosen):
            view.give(row, held[i].share, held[i].entry_bytes)
        if fits(view, row, demand):
            good.append(cost_of(held, chosen))
        for i in (*going, *chosen):
            view.take(row, held[i].share, held[i].entry_bytes)
    return min(good, default=None)


amounts = st.integers(0, 6).map(lambda n: n * 250)


@st.composite
def reservation(draw, places):
    milli = draw(st.sampled_from([0, 0, 250, 500, 1_000])) if places else 0
    resources = Resources(draw(amounts), draw(amounts), 0, milli, 0, 0, draw(st.integers(1, 2)))
    where = ((draw(st.integers(0, places - 1)), milli),) if milli else ()
    extras = (("port", draw(st.integers(1, 2))),) if draw(st.booleans()) else ()
    share = Share(resources, where, extras)
    return Endable(draw(st.sampled_from([LEAVES, 0, 5, 5, 20])), share, 500, draw(st.integers(0, 3)))


@st.composite
def device(draw, most=6):
    places = draw(st.integers(0, 2))
    room = Resources(draw(amounts) * 2, draw(amounts) * 2, 0, 1_000 * places, 0, 0, draw(st.integers(1, 8)))
    accelerators = [(draw(st.sampled_from(MODELS)), 1_000) for _ in range(places)]
    held = draw(st.lists(reservation(places), max_size=most))
    return room, accelerators, {"port": draw(st.integers(0, 4))}, draw(st.sampled_from(SPEEDS)), held


@st.composite
def demands(draw):
    milli = draw(st.sampled_from([0, 0, 300, 500, 1_000, 2_000]))
    resources = Resources(draw(amounts), draw(amounts), 0, milli, 0, 0, draw(st.integers(1, 2)))
    extras = {"port": draw(st.integers(1, 3))} if draw(st.booleans()) else {}
    models = ("orin",) if milli and draw(st.booleans()) else ()
    return Demand(resources, draw(st.sampled_from([100, 3_000])), {}, extras, models, draw(st.booleans()))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(device(), demands(), st.sampled_from([0, 5, 10, 20]))
def test_on_one_device_nothing_cheaper_would_do(made, demand, at_most):
    view, held = fleet([made]), made[-1]
    found = on_device(view, demand, 0, held, at_most)
    expected = by_trying(view, demand, 0, held, at_most)
    assert (None if found is None else cost_of(held, found)) == expected


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(device(4), min_size=1, max_size=6), demands(), st.data())
def test_over_the_fleet_the_cheapest_device_is_found(made, demand, data):
    view, held = fleet(made), [d[-1] for d in made]
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(made), max_size=len(made))))
    holdings = Holdings(view)
    for row, each in enumerate(held):
        holdings.note(row, [Endable(LEAVES, each.share) for each in held[0]])  # stale: must leave no trace
        holdings.note(row, each)
    found = cheapest(view, demand, allowed, holdings, 10, held.__getitem__)
    costs = [by_trying(view, demand, r, held[r], 10) if allowed[r] else None for r in range(len(made))]
    known = [c for c in costs if c is not None]
    assert (found is None) == (not known)
    if found is not None:
        assert cost_of(held[found.row], found.victims) == min(known)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(device(14), demands())
def test_with_too_many_sets_to_try_still_nobody_is_taken_in_vain(made, demand):
    view, held = fleet([made]), made[-1]
    before, v.SETS_TRIED = v.SETS_TRIED, 3
    try:
        found = on_device(view, demand, 0, held, 20)
    finally:
        v.SETS_TRIED = before
    expected = by_trying(view, demand, 0, held, 20) if len(held) <= 10 else None
    if found is None:
        assert expected is None
        return
    going = [i for i, h in enumerate(held) if h.priority == LEAVES]
    for spared in (None, *found):
        chosen = [i for i in (*going, *found) if i != spared]
        for i in chosen:
            view.give(0, held[i].share, held[i].entry_bytes)
        assert fits(view, 0, demand) == (spared is None)
        for i in chosen:
            view.take(0, held[i].share, held[i].entry_bytes)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(device(), demands())
def test_the_room_set_aside_is_room_that_will_be_there(made, demand):
    view, held = fleet([made]), made[-1]
    found = on_device(view, demand, 0, held, 20)
    if found is None:
        return
    going = [*found, *(i for i, h in enumerate(held) if h.priority == LEAVES)]
    share = share_after(view, demand, 0, [held[i].share for i in going])
    for i in going:
        view.give(0, held[i].share, held[i].entry_bytes)
    free = view.accel_free[0].tolist()
    assert all(free[place] >= milli for place, milli in share.accelerators)
    assert len({place for place, _ in share.accelerators}) == demand.accelerators[0]


def test_the_order_of_what_is_cheap():
    """A lower priority before fewer victims, fewer before less lost."""
    one = Share(Resources(1_000, 0, 0, 0, 0, 0, 1))
    half = Share(Resources(500, 0, 0, 0, 0, 0, 1))
    room = Resources(2_000, 1_000, 0, 0, 0, 0, 10)
    view = fleet([(room, (), {}, 1_000, [h]) for h in [Endable(5, one)] * 2])
    demand = Demand(Resources(1_000, 10, 0, 0, 0, 0, 1), 100)
    held = [Endable(9, one, 0, 1), Endable(5, half, 0, 5), Endable(5, half, 0, 5), Endable(5, one, 0, 900)]
    view.free[0][0] = 0
    assert on_device(view, demand, 0, held, 20) == (3,)
    assert cost_of(held, (3,)) == Cost(5, 1, 900)
    assert on_device(view, demand, 0, held[:3], 20) == (1, 2), "two of 5 are less than one of 9"


@pytest.mark.parametrize("devices", [200])
def test_the_devices_that_lack_least_are_looked_at(devices):
    """Beyond the 32 nearest nothing is: here the one victim that is enough is found among 200 devices."""
    big, small = Share(Resources(800, 0, 0, 0, 0, 0, 1)), Share(Resources(200, 0, 0, 0, 0, 0, 1))
    room = Resources(1_000, 1_000, 0, 0, 0, 0, 10)
    crowded = (room, (), {}, 1_000, [Endable(5, small)] * 5)
    lone = (room, (), {}, 1_000, [Endable(5, big)])
    made = [crowded] * (devices - 1) + [lone]
    view, holdings = fleet(made), None
    holdings = Holdings(view)
    for row, each in enumerate(made):
        holdings.note(row, each[-1])
    demand = Demand(Resources(900, 1, 0, 0, 0, 0, 1), 100)
    allowed = np.ones(devices, np.bool_)
    found = cheapest(view, demand, allowed, holdings, 5, lambda row: made[row][-1])
    assert found == (devices - 1, (0,))
