"""Operators, sessions and storms: cordon, drain, removal, clones, lost journals, silent sites."""

from __future__ import annotations

import pytest

from controller.core.fleet import DOCUMENT_BYTES_MAX
from protocol.limits import hold_ms
from protocol.resources import ZERO, Resources
from protocol.tasks import Guarantee, TaskState
from sim.network import Weather
from sim.world import ROOM, Wish

HOLD = hold_ms(30_000)


def lives(world, task):
    return lambda: world.running(task)


# ------------------------------------------------------------- cordon, drain, remove


def test_a_cordoned_device_keeps_what_runs_and_gets_nothing_new(world):
    task = f"{world.submit()}.0"
    world.until(lives(world, task))
    world.advance(2_000)
    [(device, _)] = world.running(task)
    world.decide(device, "cordon")
    job = world.submit(Wish(count=8))
    world.until(lambda: len(world.checkers.start_times) == 9)
    world.advance(60_000)
    assert world.running(task) == [(device, 1)]
    assert all(d != device for _, d, k in world.checkers.start_times if k.task.startswith(job))
    world.decide(device, "uncordon")
    more = world.submit(Wish(count=3))
    world.until(lambda: all(world.running(t.id) for t in world.tasks(more)))


def test_a_cordon_takes_back_what_has_not_started(make_world):
    """L7: the grant is still on its way when the cordon is committed."""
    world = make_world(devices=2)
    world.network.weather = Weather((300, 300))
    job = world.submit()
    world.until(lambda: world.tasks(job) and world.task(f"{job}.0").state is TaskState.ASSIGNED)
    device = world.task(f"{job}.0").device
    world.decide(device, "cordon")
    shut_ms = world.now_ms
    world.until(lambda: any(d != device for d, _ in world.running(f"{job}.0")), 2 * HOLD)
    started = [when for when, d, _ in world.checkers.start_times if d == device]
    assert all(when <= shut_ms + 1_500 for when in started)
    assert world.running(f"{job}.0")[0][1] == 2


def test_a_drain_moves_everything_stop_before_start(make_world):
    world = make_world(devices=3, rooms=((20_000, 9_000, 100, 0),) * 3)
    world.decide("d1", "cordon")
    world.decide("d2", "cordon")
    job = world.submit(Wish(count=18))
    world.until(lambda: len(world.checkers.start_times) == 18)
    world.advance(3_000)
    for device in ("d1", "d2"):
        world.decide(device, "uncordon")
    world.decide("d0", "drain")
    world.advance(400)
    assert sum(1 for t in world.tasks(job) if t.device == "d0") >= 8, "at most ten move at once"
    world.until(
        lambda: all(r and r[0][0] != "d0" for r in (world.running(t.id) for t in world.tasks(job))), 60_000
    )
    world.advance(20_000)
    row = world.core.ledger.fleet.records[world.core.ledger.fleet.index["d0"]]
    assert not row.draining and row.cordoned
    assert all(t.attempt == 2 and t.failures == 0 for t in world.tasks(job))


def test_a_removed_device_gives_up_its_work_and_is_forgotten(world):
    jobs = [world.submit(Wish(guarantee=g)) for g in Guarantee]
    world.until(lambda: all(world.running(f"{j}.0") for j in jobs))
    world.advance(3_000)
    for device in {world.running(f"{j}.0")[0][0] for j in jobs}:
        world.decide(device, "remove")
        assert world.ask_refused(device) == "not_found"
        topics = [p.topic for p in world.broker.retained()]
    world.advance(100)
    for job in jobs:
        world.until(
            lambda job=job: world.task(f"{job}.0").attempt == 2 and world.running(f"{job}.0"), 2 * HOLD
        )
    topics = [p.topic for p in world.broker.retained()]
    assert not any("/assignments" in t and f"/{d}/" in t for t in topics for d in removed(world))


def removed(world):
    return [r.device for r in world.core.ledger.fleet.records if r.removed]


def test_a_removed_device_may_be_added_again(world):
    world.decide("d1", "remove")
    world.advance(5_000)
    world.decide("d1", "add")
    world.devices["d1"].kill_agent()
    world.devices["d1"].start_agent()
    world.until(lambda: world.ready("d1"))


# ------------------------------------------------------------- sessions


def test_a_lost_journal_runs_nothing_twice(world):
    """The retained document still lists the attempt; the device knows nothing of it."""
    task = f"{world.submit()}.0"
    world.until(lives(world, task))
    world.advance(20_000)
    [(device, _)] = world.running(task)
    world.devices[device].kill()
    world.devices[device].wipe_journal()
    world.devices[device].boot()
    world.until(lives(world, task), 2 * HOLD)
    world.advance(60_000)
    assert [k.attempt for _, _, k in world.checkers.start_times] == [1, 2]


def test_a_lost_journal_stops_no_healthy_run(world):
    """Only the agent dies: the guard still holds the run, and the new agent adopts it (D6, H7)."""
    task = f"{world.submit()}.0"
    world.until(lives(world, task))
    world.advance(20_000)
    [(device, _)] = world.running(task)
    world.devices[device].kill_agent()
    world.devices[device].wipe_journal()
    world.devices[device].start_agent()
    world.advance(120_000)
    assert world.running(task) == [(device, 1)] and len(world.checkers.start_times) == 1


def test_a_device_below_the_session_floor_comes_back_above_it(world):
    """A journal of long ago: its sessions are low, and it is told how high to begin."""
    device = world.devices["d0"]
    old = device.journal
    for _ in range(4):
        device.kill_agent()
        device.start_agent()
        world.advance(3_000)
    row = world.core.ledger.fleet.index["d0"]
    known = int(world.core.ledger.fleet.session[row])
    device.kill_agent()
    device.journal = old
    device.start_agent()
    world.until(lambda: world.ready("d0") and int(world.core.ledger.fleet.session[row]) > known, 30_000)
    task = f"{world.submit(Wish(count=12))}.0"
    world.until(lives(world, task))
    world.until(lambda: len(world.checkers.start_times) == 12)


def test_an_unsaved_session_starts_nothing_until_a_save_succeeds(world):
    for device in world.devices.values():
        device.kill_agent()
        device.journal_fails = True
        device.start_agent()
    world.until(lambda: all(world.state(d) == "online" for d in world.devices), 30_000)
    task = f"{world.submit()}.0"
    world.advance(25_000)
    assert not world.running(task)
    for device in world.devices.values():
        device.journal_fails = False
    world.until(lives(world, task), 3 * HOLD)


def clone_of(world, name):
    """Another machine with the same id and the same journal, but a data directory of its own."""
    twin = world.add_device(f"{name}-twin")
    twin.name = name
    twin.journal = None
    twin._instance = "another-machine"
    return twin


def test_two_machines_under_one_id_are_quarantined(world):
    """That identities are unique is an assumption of I1, so nothing runs here until it is noticed."""
    twin = clone_of(world, "d0")
    twin.boot()
    row = world.core.ledger.fleet.index["d0"]
    world.until(lambda: world.core.ledger.fleet.quarantined[row], 120_000, "quarantine")
    assert any("two machines" in text for text in world.fleet_view().alarms)
    job = world.submit(Wish(count=12))
    world.advance(20_000)
    assert {d for _, d, _ in world.checkers.start_times} == {"d1", "d2"}
    twin.kill()
    world.decide("d0", "uncordon")
    assert not world.fleet_view().alarms
    world.until(lambda: all(world.running(t.id) for t in world.tasks(job)), 90_000)


def test_what_ended_during_a_quarantine_is_heard_after_it(world):
    """In quarantine nothing is freed by `Runs`; once it is over the last word of the device counts."""
    job = world.submit(Wish(runs_ms=30_000, guarantee=Guarantee.AT_LEAST_ONE))
    world.until(lives(world, f"{job}.0"))
    world.advance(5_000)
    [(device, _)] = world.running(f"{job}.0")
    row = world.core.ledger.fleet.index[device]
    world.core.operators.quarantine(row, world.now_ms)
    world.advance(60_000)
    assert not world.done(job)
    world.decide(device, "uncordon")
    world.until(lambda: world.done(job), 30_000)
    assert world.task(f"{job}.0").state is TaskState.SUCCEEDED


# ------------------------------------------------------------- storms


def storm_of(make_world, silent=12, devices=40):
    world = make_world(devices=devices, rooms=(ROOM,) * devices)
    jobs = [world.submit(Wish(count=devices, guarantee=g)) for g in Guarantee]
    world.until(lambda: len(world.checkers.start_times) == 2 * devices)
    world.advance(15_000)
    lost = [f"d{i}" for i in range(silent)]
    for device in lost:
        world.network.cut(device)
    return world, jobs, lost


def starts(world):
    return len(world.checkers.start_times)


def test_many_silent_devices_freeze_failover_and_their_return_ends_it(make_world):
    world, jobs, lost = storm_of(make_world)
    world.until(lambda: world.core.failover.frozen, 40_000)
    before = starts(world)
    world.advance(25_000)
    assert "silent at once" in world.fleet_view().frozen and starts(world) == before
    for device in lost:
        world.network.heal(device)
    world.until(lambda: not world.fleet_view().frozen, 70_000)
    world.until(lambda: all(len(world.running(t.id)) == 1 for j in jobs for t in world.tasks(j)), 90_000)


def test_an_operator_ends_the_freeze(make_world):
    world, _, _ = storm_of(make_world)
    calm = starts(world)
    world.advance(45_000)
    world.unfreeze()
    assert not world.fleet_view().frozen and not world.fleet_view().alarms
    world.until(lambda: starts(world) >= calm + 24, 10_000)


def test_a_freeze_ends_by_itself_after_two_holds(make_world):
    world, _, _ = storm_of(make_world)
    world.until(lambda: world.core.failover.frozen, 40_000)
    before = starts(world)
    assert 2 * HOLD <= world.until(lambda: starts(world) > before, 3 * HOLD) <= 2 * HOLD + 2_000


def test_a_restart_in_a_storm_does_not_end_the_freeze(make_world):
    world, _, lost = storm_of(make_world)
    world.until(lambda: world.core.failover.frozen, 40_000)
    before = starts(world)
    world.controller.kill()
    world.controller.start()
    world.advance(HOLD + 15_000)
    assert starts(world) == before and "silent at once" in world.fleet_view().frozen
    for device in lost:
        world.network.heal(device)
    world.until(lambda: not world.fleet_view().frozen, 70_000)
    world.controller.kill()
    world.controller.start()
    assert not world.fleet_view().frozen


def test_few_silent_devices_freeze_nothing(make_world):
    world, _, _ = storm_of(make_world, silent=7)
    world.advance(60_000)
    assert not world.fleet_view().frozen and starts(world) >= 80 + 14


def test_a_cancel_is_free_by_hold_also_while_failover_is_frozen(make_world):
    world, jobs, _ = storm_of(make_world)
    world.until(lambda: world.core.failover.frozen, 40_000)
    world.cancel(jobs[0])
    world.until(lambda: world.done(jobs[0]), HOLD + 2_000)


def test_a_deaf_broker_moves_nothing(world):
    """The canary does not come back: silence is ours."""
    task = f"{world.submit(Wish(guarantee=Guarantee.AT_LEAST_ONE))}.0"
    world.until(lives(world, task))
    world.advance(5_000)
    world.network.cut("_controller-c1", up=False, down=True)
    world.advance(12_000)
    assert len(world.checkers.start_times) == 1
    world.network.heal("_controller-c1")
    world.advance(60_000)
    assert len(world.running(task)) == 1 and len(world.checkers.start_times) == 1


# ------------------------------------------------------------- churn


def test_steady_churn_of_short_tasks_starves_no_lease(make_world):
    world = make_world(devices=2, rooms=((8_000, 8_000, 100, 0),) * 2)
    world.network.weather = Weather((200, 500))
    long = world.submit(Wish(count=4))
    world.until(lambda: len(world.checkers.start_times) == 4)
    for _ in range(120):
        world.submit(Wish(runs_ms=300))
        world.advance(1_000)
    assert all(world.running(t.id) and t.attempt == 1 for t in world.tasks(long))
    world.until(lambda: not [t for t in world.checkers.tasks.values() if t.state is TaskState.PENDING])


def test_nothing_grows_while_the_fleet_is_busy_and_at_the_end_it_is_empty(make_world):
    world = make_world(devices=3)
    for _ in range(40):
        world.submit(Wish(count=3, runs_ms=400, runtime="process"))
        world.advance(2_000)
    world.until(lambda: all(world.done(job) for job in list(world.checkers.jobs)))
    world.advance(60_000)
    ledger = world.core.ledger
    assert not ledger.jobs and not ledger.tasks and not ledger.attempts and not ledger.waiting
    fleet = ledger.fleet
    assert all(fleet.reserved_of(row) == ZERO for row in range(fleet.count)) and not int(fleet.held.sum())
    assert set(fleet.view.document_bytes_free.tolist()) == {DOCUMENT_BYTES_MAX}
    for device in world.devices.values():
        agent = device.agent
        assert not agent.memory.entries and not agent.memory.outputs and not device.guard.exits
        assert not agent.memory.assignments.attempts and not agent.outbox.window


@pytest.mark.parametrize("shrunk", [500, 1])
def test_a_device_that_shrinks_keeps_what_runs_and_gets_nothing_more(world, shrunk):
    task = f"{world.submit()}.0"
    world.until(lives(world, task))
    world.advance(2_000)
    [(name, _)] = world.running(task)
    device = world.devices[name]
    device.kill_agent()
    device.capacity = Resources(shrunk, 4_096, 100, 0)
    device.start_agent()
    world.until(lambda: world.ready(name))
    world.submit(Wish(count=9))
    world.advance(60_000)
    assert world.running(task) == [(name, 1)]
    assert [d for _, d, _ in world.checkers.start_times].count(name) == 1
