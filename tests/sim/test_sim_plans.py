"""Plans: what a seed draws, that every kind of fault is drawn, begins and ends, and what fails a run."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from sim.command.workers import memory_storage
from sim.drawing import draw_plan
from sim.fault_families.kinds import Cast
from sim.faults import FAMILIES, FAULTS
from sim.plan import Fault, Verdict
from sim.safety import describe, run_plan

# ------------------------------------------------------------- drawing


def test_a_seed_draws_the_same_plan_again_and_another_seed_another():
    assert draw_plan(7) == draw_plan(7)
    assert draw_plan(7) != draw_plan(8)


def test_families_draw_from_dice_of_their_own():
    plan = next(p for p in map(draw_plan, range(50)) if {"loss", "agents", "broker"} <= set(p.families))
    fewer = draw_plan(plan.seed, families=("agents",))
    assert fewer.faults == tuple(f for f in plan.faults if FAULTS[f.kind].family == "agents")
    assert fewer.faults
    assert (fewer.devices, fewer.orders) == (plan.devices, plan.orders)


def test_every_kind_is_drawn_by_some_seed():
    plans = [draw_plan(seed) for seed in range(300)]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(FAULTS)
    assert {family for plan in plans for family in plan.families} == {*FAMILIES, "quirks"}
    assert {name for plan in plans for name, _ in plan.quirks} == {
        "no_retained_for_wildcards", "redeliver_live_ms", "will_late_ms", "silence_unnoticed",
        "copies_for_overlaps",
    }  # fmt: skip
    two = sum(plan.controllers == 2 for plan in plans)
    assert 60 < two < 140, f"a third of all seeds have two controllers, not {two} of 300"
    assert {plan.devices[0].containment for plan in plans} == {"strong", "weak"}


def test_profiles_can_be_chosen():
    plan = draw_plan(3, devices=6, profiles=("pi-zero-2w",))
    assert {device.profile for device in plan.devices} == {"pi-zero-2w"}


def test_a_description_tells_everything():
    plan = draw_plan(11, devices=4)
    told = describe(plan)
    assert told.startswith("seed 11: 4 devices")
    for fault in plan.faults:
        assert f"{fault.at_ms} ms  fault   {fault.kind}" in told
    assert told.count("people") == len(plan.orders)


# ------------------------------------------------------------- playing


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_every_kind_begins_and_is_over_at_the_end(kind):
    """Begun once in time to end by itself, and once so late that the calm must end it."""
    plan = draw_plan(5, devices=4, faults_ms=60_000, families=("nobody",))
    drawn = FAULTS[kind].draw(Random(f"3 {kind}"), Cast(plan.devices))
    words = (drawn.device, min(drawn.for_ms, 20_000), tuple(sorted(drawn.args)))
    late = (drawn.device, drawn.for_ms and 3_600_000, tuple(sorted(drawn.args)))
    faults = (Fault(20_000, kind, *words), Fault(55_000, kind, *late))
    seen = {}
    if kind == "backup_restored":
        faults = (Fault(10_000, "backup_taken"), *faults)
    outcome = run_plan(replace(plan, faults=faults), memory_storage, lambda world: seen.update(world=world))
    assert outcome.verdict is Verdict.HELD, (outcome.breaches, outcome.detail)
    assert outcome.faults[kind] == 2
    world = seen["world"]
    assert not world.network.cuts and not world.database.cuts and not world.storage.fails
    assert all(device.agent is not None and not device.frozen for device in world.devices.values())
    assert all(controller.on and not controller.paused for controller in world.controllers)


def test_the_same_seed_leaves_the_same_trace():
    plan = draw_plan(21, devices=6, faults_ms=90_000)
    first, second = (run_plan(plan, memory_storage) for _ in range(2))
    assert first.trace_hash == second.trace_hash
    assert (first.starts, first.faults, first.virtual_ms) == (second.starts, second.faults, second.virtual_ms)


def test_a_run_in_which_nothing_starts_proves_nothing():
    plan = draw_plan(1, devices=2, faults_ms=5_000, families=("nobody",))
    outcome = run_plan(replace(plan, orders=()), memory_storage)
    assert (outcome.verdict, outcome.detail) == (
        Verdict.CRASHED, "the plan orders no work, so nothing was shown",
    )  # fmt: skip
    pings = tuple(replace(order, kind="ping", args=(("device", "d0"),)) for order in plan.orders)
    outcome = run_plan(replace(plan, orders=pings), memory_storage)
    assert (outcome.verdict, outcome.detail) == (
        Verdict.CRASHED, "no task ever started, so nothing was shown",
    )  # fmt: skip


def test_a_checker_that_throws_is_a_crash_and_no_pass():
    def break_it(world):
        def throw(observation):
            raise ZeroDivisionError("in a checker")

        world.checkers.saw = throw

    outcome = run_plan(draw_plan(1, devices=2, faults_ms=5_000), memory_storage, break_it)
    assert outcome.verdict is Verdict.CRASHED
    assert "ZeroDivisionError: in a checker" in outcome.detail


def test_a_fleet_that_does_not_settle_is_told():
    def lame(world):
        """One device never gets its agent back."""
        device = world.devices["d0"]
        start = device.start_agent
        device.start_agent = lambda: start() if world.now_ms < 1_010_000 else None

    plan = draw_plan(4, devices=3, faults_ms=20_000, families=("nobody",))
    plan = replace(plan, faults=(Fault(15_000, "agent_killed", "d0", 1_000),))
    outcome = run_plan(plan, memory_storage, lame)
    assert outcome.verdict is Verdict.NOT_CONVERGED
    assert "d0 is not back" in outcome.detail
