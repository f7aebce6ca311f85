"""Shrinking: a failing plan loses everything that its failure doesn't need."""

from __future__ import annotations

from dataclasses import replace

from controller.core.fleet import Fleet
from sim.command.workers import memory_storage
from sim.drawing import draw_plan
from sim.safety import run_plan
from sim.shrink import shrink


def test_two_faults_that_fail_together_are_what_is_left():
    plan = replace(draw_plan(3, devices=12, families=("loss", "cuts", "agents", "broker")), controllers=2)
    needed = {plan.faults[4], plan.faults[-3]}
    asked = []

    def fails(candidate):
        asked.append(candidate)
        return needed <= set(candidate.faults)

    smaller = shrink(plan, fails)
    assert set(smaller.faults) == needed
    assert smaller.orders == () and smaller.controllers == 1 and smaller.quirks == ()
    assert len(smaller.devices) <= len({fault.device for fault in needed if fault.device}) + 1
    assert smaller.faults_ms <= max(fault.at_ms + fault.for_ms for fault in needed) + 1_000
    assert len(asked) < 300


def test_a_plan_of_which_nothing_can_go_stays_and_the_runs_are_bounded():
    plan = draw_plan(3, devices=5)
    asked = []
    assert shrink(plan, lambda candidate: bool(asked.append(candidate)), runs_max=17) == plan
    assert len(asked) == 17


def test_a_broken_rule_is_shown_by_a_few_faults(monkeypatch):
    """L2/L5: the controller forgets the hold; what frees a task too early is found and made small."""
    monkeypatch.setattr(Fleet, "hold_ms", lambda self, row, lease_ms: lease_ms // 4)

    def overlaps(plan):
        return any(breach.invariant == "I1" for breach in run_plan(plan, memory_storage).breaches)

    drawn = (
        draw_plan(seed, 5, 90_000, families=("cuts", "freezes", "loss", "agents")) for seed in range(100)
    )
    plain = (plan for plan in drawn if not any(order.kind == "declare" for order in plan.orders))
    plan = next(plan for plan in plain if overlaps(plan))
    smaller = shrink(plan, overlaps)
    assert overlaps(smaller)
    assert len(smaller.faults) <= 3
    assert len(smaller.devices) <= 3
    assert len(smaller.orders) <= 2
