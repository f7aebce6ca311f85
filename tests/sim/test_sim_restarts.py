"""The controller dies at any instant, its store refuses, or comes back older than the fleet."""

from __future__ import annotations

import pytest

from protocol.limits import LEADER_GAP_MS, hold_ms
from protocol.tasks import AttemptId, Guarantee, TaskState
from sim.world import Wish

HOLD = hold_ms(30_000)


def placed(world, job):
    return {task.id: world.running(task.id) for task in world.tasks(job)}


# ------------------------------------------------------------- restarts


@pytest.mark.parametrize("instant", range(0, 120, 3))
def test_a_controller_killed_between_any_two_effects_loses_nothing_that_was_answered(make_world, instant):
    """From the submit on, the process dies after so many saves and effects, and comes back."""
    world = make_world(seed=instant)
    world.controller.die_after = instant
    jobs = [world.submit(Wish(count=2, runs_ms=runs_ms)) for runs_ms in (1_500, 20_000, 0)]
    world.advance(4_000)
    world.controller.die_after = None
    world.controller.kill()
    world.advance(3_000)
    world.controller.start()
    accepted = world.checkers.accepted
    for job in (j for j in jobs if j in accepted):
        ends = job != jobs[2]
        world.until(
            lambda job=job, ends=ends: world.done(job) if ends else all(placed(world, job).values()), 120_000
        )
    assert all(
        task.state is TaskState.SUCCEEDED for job in jobs[:2] if job in accepted for task in world.tasks(job)
    )


@pytest.mark.parametrize("instant", range(24))
def test_a_restart_at_any_instant_changes_no_assignment(make_world, instant):
    """I12: what runs goes on where it is, under its number (it has been reported as running)."""
    world = make_world(seed=100 + instant, devices=4)
    jobs = [world.submit(Wish(count=6)), world.submit(Wish(count=3, guarantee=Guarantee.AT_LEAST_ONE))]
    world.until(lambda: len(world.checkers.start_times) == 9)
    world.advance(10_000 + instant * 431)
    before = [placed(world, job) for job in jobs]
    for _ in range(3):
        world.controller.kill()
        world.advance(instant * 317 % 9_000)
        world.controller.start()
        world.advance(13_000 + instant * 97)
    world.advance(60_000)
    assert [placed(world, job) for job in jobs] == before
    assert len(world.checkers.start_times) == 9


@pytest.mark.parametrize("instant", range(0, 60, 4))
def test_a_restart_while_tasks_are_being_placed_starts_each_exactly_once_more_at_most(make_world, instant):
    """An attempt that nobody showed as started may get a new number (L2), and none is lost."""
    world = make_world(seed=instant, devices=4)
    job = world.submit(Wish(count=8))
    world.controller.die_after = instant
    world.advance(2_000)
    world.controller.kill()
    world.advance(500)
    world.controller.start()
    world.until(lambda: all(placed(world, job).values()), 2 * HOLD)
    world.advance(60_000)
    assert all(len(runs) == 1 and runs[0][1] <= 2 for runs in placed(world, job).values())


def test_a_controller_that_is_away_longer_than_a_lease_finds_its_fleet_again(world):
    job = world.submit(Wish(count=6))
    world.until(lambda: len(world.checkers.start_times) == 6)
    world.advance(10_000)
    world.controller.kill()
    world.advance(12_000)
    world.controller.start()
    world.advance(60_000)
    assert all(runs == [(runs[0][0], 1)] for runs in placed(world, job).values())
    world.controller.kill()
    world.until(lambda: not any(placed(world, job).values()), 31_000)
    world.advance(60_000)
    world.controller.start()
    world.until(lambda: all(placed(world, job).values()), 3 * HOLD)
    assert all(task.failures == 0 for task in world.tasks(job))


def test_a_result_that_came_while_the_controller_was_away_is_not_lost(world):
    job = world.submit(Wish(count=4, runs_ms=8_000))
    world.until(lambda: len(world.checkers.start_times) == 4)
    world.advance(2_000)
    world.controller.kill()
    world.restart_broker()
    world.advance(15_000)
    world.controller.start()
    world.until(lambda: world.done(job), 60_000)
    assert len(world.checkers.start_times) == 4
    assert all(task.state is TaskState.SUCCEEDED for task in world.tasks(job))


def test_a_store_that_refuses_answers_nobody_and_loses_nothing(world):
    kept = world.submit(Wish(count=3))
    world.until(lambda: len(world.checkers.start_times) == 3)
    world.storage.fails = True
    answered = len(world.replies)
    lost = world.submit(Wish())
    assert len(world.replies) == answered and not world.tasks(lost)
    world.advance(6_000)
    world.storage.fails = False
    world.advance(60_000)
    assert len(world.checkers.start_times) == 3
    assert all(runs[0][1] == 1 for runs in placed(world, kept).values())
    again = world.submit(Wish(runs_ms=100))
    world.until(lambda: world.done(again))


# ------------------------------------------------------------- an older database


def put_back(world, tables, marked):
    """The store as it was: its later epochs and rows are gone."""
    store = world.storage.store
    world.controller.kill()
    store.restore(tables)
    if marked:
        store.mark_restored()
    t = store.tables
    rows = [*t.jobs.values(), *t.tasks.values(), *t.devices.values(), *t.attempts.values()]
    world.checkers.restored(rows)
    world.controller.start()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("wait_ms", [5_000, 40_000])
def test_an_old_database_under_a_running_fleet_waits_a_hold_and_raises_the_numbers(
    make_world, marked, wait_ms
):
    world = make_world(seed=wait_ms)
    job = world.submit(Wish(count=2))
    world.until(lambda: len(world.checkers.start_times) == 2)
    world.advance(5_000)
    tables, epoch = world.storage.store.snapshot(), world.core.ledger.epoch
    later = world.submit(Wish(count=3))
    for device in ("d0", "d1"):
        world.devices[device].reboot()
    world.until(lambda: len(world.checkers.start_times) >= 5)
    world.advance(wait_ms)
    starts = len(world.checkers.start_times)
    put_back(world, tables, marked)
    restored_ms = world.now_ms
    fresh = world.submit(Wish(count=2))
    world.until(lambda: world.core.ledger.alarms.get("old_database"), 30_000, "an alarm")
    assert world.core.ledger.epoch > epoch
    world.until(lambda: len(world.checkers.start_times) > starts, 2 * HOLD)
    assert world.now_ms >= restored_ms + HOLD, "something was placed before one hold had passed"
    world.until(lambda: all(placed(world, fresh).values()) and all(placed(world, job).values()), 3 * HOLD)
    new = [key for _, _, key in world.checkers.start_times[starts:]]
    assert all(key.attempt >= 1_700_000_000 for key in new), "numbers are above every one handed out before"
    world.advance(60_000)
    assert not any(placed(world, later).values()), "what was accepted after the backup is lost, and stopped"


@pytest.mark.parametrize("guarantee", list(Guarantee))
@pytest.mark.parametrize("cancels", [False, True])
def test_what_ended_after_a_backup_is_not_told_to_its_device_once_more(make_world, guarantee, cancels):
    """The device has dropped its tombstone, so the backup's document would start the same attempt again."""
    world = make_world(devices=1)
    stays = world.submit(Wish(guarantee=Guarantee.AT_LEAST_ONE))
    ends = world.submit(Wish(runs_ms=6_000, guarantee=guarantee))
    world.until(lambda: len(world.checkers.start_times) == 2)
    world.advance(2_000)
    tables = world.storage.store.snapshot()
    world.until(lambda: world.done(ends))
    world.advance(3_000)
    world.devices["d0"].kill_agent()
    world.devices["d0"].start_agent()  # or its retained report would still tell the end
    world.advance(3_000)
    put_back(world, tables, True)
    if cancels:  # a removal on the same device, before it was heard
        world.cancel(stays)
    world.advance(20_000)
    assert world.checkers.starts[AttemptId(f"{ends}.0", 1)] == 1
    assert bool(world.running(f"{stays}.0")) is not cancels, "what runs goes on, what is cancelled ends"
    world.until(lambda: world.done(ends), 3 * HOLD)
    assert world.task(f"{ends}.0").attempt > 1


def test_what_a_copy_was_about_to_tell_is_not_told_before_its_device_was_heard(make_world):
    """Told at once it would replace the later revision, which alone proves that the copy is old."""
    world = make_world(devices=1)
    world.advance(15_000)
    world.until(lambda first=world.submit(Wish(runs_ms=500)): world.done(first))
    world.advance(3_000)
    store, jobs = world.storage.store, [world.submit(Wish(runs_ms=500)) for _ in range(8)]

    def untold():
        told = getattr(store.tables.documents.get("d0"), "number", 0)
        return [AttemptId(a.task, a.attempt) for a in store.tables.attempts.values() if a.since > told]

    world.until(lambda: bool(untold()), 5_000, "what comes fast waits for a revision of its own")
    tables, waited = store.snapshot(), untold()
    world.until(lambda: all(world.done(job) for job in jobs))
    world.advance(6_000)
    put_back(world, tables, False)
    world.until(lambda: world.core.ledger.alarms.get("old_database"), 30_000, "an alarm")
    world.advance(60_000)
    assert all(world.checkers.starts[attempt] == 1 for attempt in waited)


def test_a_removal_that_a_doubted_device_was_not_told_is_told_by_the_next_leader(make_world):
    """The first leader after a restore takes an attempt out and dies before the device is heard."""
    world = make_world(devices=1)
    job = world.submit(Wish(guarantee=Guarantee.AT_LEAST_ONE))
    world.until(lambda: len(world.checkers.start_times) == 1)
    world.advance(12_000)
    tables = world.storage.store.snapshot()
    world.network.cut("d0")
    put_back(world, tables, True)
    world.cancel(job)
    world.advance(3_000)
    world.controller.kill()
    world.controller.start()
    world.advance(20_000)
    assert world.running(f"{job}.0")
    world.network.heal("d0")
    world.until(lambda: not world.running(f"{job}.0"), HOLD, "the cancelled run ends")
    world.until(lambda: world.done(job), HOLD)


def test_a_leader_who_takes_over_within_the_wait_waits_anew(world):
    world.submit(Wish(count=2))
    world.advance(5_000)
    tables = world.storage.store.snapshot()
    world.advance(1_000)
    put_back(world, tables, True)
    world.advance(20_000)
    world.controller.kill()
    world.controller.start()
    began_ms = world.now_ms
    world.submit()
    starts = len(world.checkers.start_times)
    world.until(lambda: len(world.checkers.start_times) > starts, 2 * HOLD)
    assert world.now_ms >= began_ms + HOLD


def test_a_leader_row_of_yesterday_makes_the_next_leader_wait(world):
    world.advance(5_000)
    world.controller.kill()
    world.advance(LEADER_GAP_MS + 1_000)
    world.controller.start()
    began_ms = world.now_ms
    job = world.submit()
    world.until(lambda: placed(world, job)[f"{job}.0"], 2 * HOLD)
    assert world.now_ms >= began_ms + HOLD


def test_a_hold_without_placements_explains_itself(world):
    world.advance(5_000)
    tables = world.storage.store.snapshot()
    put_back(world, tables, True)
    job = world.submit()
    assert "nothing is placed for" in world.explain(f"{job}.0").summary
    assert world.fleet_view().waiting_ms > 0
