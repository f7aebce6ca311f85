"""Starts that take their time or would come twice: shut devices, lost tombstones (I6, I15)."""

from __future__ import annotations

import pytest

from protocol.limits import LEASE_MS, hold_ms
from protocol.tasks import Guarantee, RunState
from sim.world import Wish

HOLD = hold_ms(LEASE_MS)


def lives(world, task):
    return lambda: world.running(task)


@pytest.mark.parametrize("verb", ["cordon", "drain"])
@pytest.mark.parametrize("late_ms", [500, 2_000, 3_500])
def test_a_slow_start_does_not_begin_after_its_device_was_shut(make_world, verb, late_ms):
    """1. A start takes seconds, and `Runs` shows it as starting. 2. The device is shut, and a heartbeat
    names that revision. 3. A run that counted as started would begin now."""
    world = make_world(devices=1)
    device = world.devices["d0"]
    first = f"{world.submit(Wish(runs_ms=500))}.0"
    world.until(lives(world, first))
    device.guard.slow_ms = 4_000
    task = f"{world.submit()}.0"
    world.until(lambda: task in device.guard.runs)
    world.advance(late_ms)
    world.decide("d0", verb)
    world.advance(60_000)
    assert [key.task for _, _, key in world.checkers.start_times] == [first]


@pytest.mark.parametrize("fault", [None, "restart", "lost journal"])
def test_a_start_so_slow_that_the_host_is_asked_is_not_called_running(make_world, fault):
    """1. A start takes a minute; after 30 s, or because it died, the agent asks its guard, which lists
    what it prepares. 2. The device is shut, and a heartbeat names that revision. 3. A run that was
    called running was left where it is, and would begin now."""
    world = make_world(devices=1)
    device = world.devices["d0"]
    first = f"{world.submit(Wish(runs_ms=500))}.0"
    world.until(lives(world, first))
    device.guard.slow_ms = 60_000
    task = f"{world.submit()}.0"
    world.until(lambda: task in device.guard.runs)
    if fault:
        device.kill_agent()
        if fault == "lost journal":
            device.wipe_journal()
        device.start_agent()
    world.advance(40_000)
    assert task in device.guard.runs
    world.decide("d0", "cordon")
    world.advance(60_000)
    assert [key.task for _, _, key in world.checkers.start_times] == [first]


@pytest.mark.parametrize("late_ms", [100, 300, 500, 700, 900, 1_100, 1_400])
def test_a_tombstone_lost_before_its_acknowledgement_starts_nothing_twice(make_world, late_ms):
    """1. A guard dies with its run; `Runs` says so, the controller frees the attempt and starts its
    successor elsewhere. 2. The acknowledgement waits a second for company. 3. The card goes bad and
    the machine boots: no tombstone. 4. The retained document still names the attempt and is the
    present one; its grant would start the attempt again, beside its successor."""
    world = make_world(devices=2)
    task = f"{world.submit()}.0"
    world.until(lives(world, task))
    device = world.devices[world.running(task)[0][0]]
    device.kill_guard()
    world.advance(700 + late_ms)
    device.power_off()
    device.corrupt_journal()
    device.boot()
    world.until(lives(world, task), 3 * HOLD)
    world.advance(60_000)
    attempts = [key.attempt for _, _, key in world.checkers.start_times]
    assert len(set(attempts)) == len(attempts) and len(world.running(task)) == 1


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_a_start_behind_a_slow_save_is_not_called_interrupted_by_a_new_guards_first_word(
    make_world, guarantee
):
    """1. The intent to start is being saved on a slow card. 2. The guard dies; its successor stands and
    says that it holds nothing. 3. The save is done: the successor is told to start. 4. Its first word,
    read only now, would make the attempt interrupted, and free while it begins."""
    world = make_world(devices=1)
    device = world.devices["d0"]
    first = f"{world.submit(Wish(runs_ms=500))}.0"
    world.until(lives(world, first))
    world.advance(3_000)
    device.disk.slow_ms = 4_000
    world.submit(Wish(guarantee=guarantee))
    memory = device.process.core.memory
    world.until(lambda: any(e.state is RunState.STARTING for e in memory.entries.values()))
    device.kill_guard()
    world.advance(3_500)
    device.disk.slow_ms = 0
    world.advance(60_000)
    assert world.checkers.breaches == []
    assert [key.attempt for _, _, key in world.checkers.start_times] == [1, 1]
