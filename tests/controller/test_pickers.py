"""Remembered pickers: as many as memory allows, and none of them scored anew without need."""

from __future__ import annotations

import numpy as np
import pytest

from controller.scheduler import pick, pickers
from controller.scheduler.fragmenting import picker_of
from controller.scheduler.pick import Bases
from controller.scheduler.pickers import PICKERS_LEAST, Pickers
from controller.scheduler.view import Demand, View
from protocol.resources import Resources


def pickers_of(devices, **more):
    view = View(devices)
    for _ in range(devices):
        view.offer(view.add(), Resources(1_000, 1_000, slots=9), Resources())
    return Pickers(Bases(view), **more)


def demand(cpu=1):
    return Demand(Resources(cpu, 1, slots=1), 10)


def counted(monkeypatch):
    made = []
    usual = pickers.picker_of

    def picker_of(view, asked, bases, policy):
        made.append((asked.resources.cpu_milli, policy))
        return usual(view, asked, bases, policy)

    monkeypatch.setattr(pickers, "picker_of", picker_of)
    return made


def test_who_was_asked_for_longest_ago_is_forgotten_first(monkeypatch):
    kept, made = pickers_of(3, bytes_max=1), counted(monkeypatch)
    assert kept.most == PICKERS_LEAST
    for cpu in range(PICKERS_LEAST):
        kept.of(cpu, demand(cpu), "spread")
    kept.of(0, demand(0), "spread")
    kept.of("more", demand(99), "spread")
    assert len(kept) == PICKERS_LEAST
    made.clear()
    kept.of(0, demand(0), "spread")
    kept.of(1, demand(1), "spread")
    assert made == [(1, "spread")]


def test_a_policy_has_a_picker_of_its_own():
    kept = pickers_of(3)
    assert kept.of("k", demand(), "spread") is not kept.of("k", demand(), "fragmentation")
    assert kept.of("k", demand(), "spread") is kept.of("k", demand(), "spread")


def test_small_fleets_remember_many_large_ones_no_more_than_their_bytes():
    assert pickers_of(1_200).most >= 1_500
    assert PICKERS_LEAST < pickers_of(10_000).most < 300
    assert pickers_of(10).most * 4_096 <= pickers.PICKERS_BYTES


def test_what_is_counted_for_a_picker_is_what_its_columns_take():
    kept, devices = pickers_of(2_000), 2_000
    asked = Demand(Resources(1, 1, slots=1), 10, eligible={"zone = a": np.ones(devices, np.bool_)})
    asked.wish = np.zeros(devices)
    picker = kept.of("k", asked, "fragmentation")
    columns = [picker.total, picker.places, picker.eligible, asked.wish]
    assert sum(column.nbytes for column in columns) <= pickers._DEVICE_BYTES * devices


def test_a_round_of_more_kinds_than_a_large_fleet_remembers_scores_each_once(desk, monkeypatch):
    """As many kinds as a busy site has come again and again; the fleet is scored once for each."""
    for at in range(5):
        desk.join(f"d{at}", room=Resources(1_000_000, 1_000_000, slots=200))
    made = counted(monkeypatch)
    for turn in range(3):
        for cpu in range(1, 151):
            desk.submit(job=f"j{turn}-{cpu}", needs=Resources(cpu, 1))
        desk.after(100)
    assert len(desk.core.ledger.attempts) == 450
    assert len(made) == 150


@pytest.mark.parametrize("policy", ["balanced", "fragmentation", "round_robin"])
def test_a_large_fleet_is_scored_block_by_block_as_it_would_be_at_once(policy, monkeypatch):
    view = View(7)
    for row in range(7):
        view.offer(
            view.add(), Resources(100 + row, 900 - row, gpu_milli=1_000, slots=9), Resources(), [("A", 1_000)]
        )
        view.online[row] = view.open[row] = view.fit[row] = True
        view.document_bytes_free[row] = 9_000
    asked = Demand(Resources(3, 4, gpu_milli=300, slots=2), 10, {"odd": np.arange(7) % 2 == 1}, extras={})
    asked.wish, asked.wish_weight = np.arange(7) / 7, 0.5
    at_once = picker_of(view, asked, Bases(view), policy).total
    monkeypatch.setattr(pick, "_BLOCK", 3)
    assert picker_of(view, asked, Bases(view), policy).total.tolist() == at_once.tolist()
    assert (at_once > pick.OUT).sum() == 3
