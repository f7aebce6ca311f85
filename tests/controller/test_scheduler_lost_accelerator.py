"""An accelerator that its device no longer has is still reserved by who was given it: under every policy."""

from __future__ import annotations

import pytest

from controller.scheduler.filters import passing
from controller.scheduler.fragmenting import picker_of
from controller.scheduler.pick import Bases
from controller.scheduler.policies import POLICIES
from controller.scheduler.view import Demand, View
from protocol.resources import Resources

HAS = Resources(4_000, 4_096, 10_000, 400, slots=10)
TAKEN = Resources(100, 100, 0, 250, slots=1)
"""250 milli of an accelerator that is gone; the one of 400 that is there is free."""


def fleet(devices: int) -> View:
    view = View()
    for row in range(devices):
        view.add()
        view.online[row] = view.open[row] = view.fit[row] = True
        view.document_bytes_free[row] = 100_000
        view.offer(row, HAS, TAKEN, [("t4", 400)])
    return view


@pytest.mark.parametrize("devices", [1, 300])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("milli", "fits"), [(150, True), (151, False), (300, False)])
def test_what_is_reserved_on_one_that_is_gone_counts(policy, devices, milli, fits):
    view = fleet(devices)
    demand = Demand(Resources(100, 100, 0, milli, slots=1))
    picker = picker_of(view, demand, Bases(view), policy)
    assert picker.able().tolist() == [fits] * devices == passing(view, demand).tolist()
    assert [picker.fits(0), bool(picker.many(1)) if not picker.policy.in_turn else fits] == [fits, fits]
