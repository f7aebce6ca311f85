"""What befalls machines: suspend, torn saves, bad cards, dying guards, odd clocks, clones."""

from __future__ import annotations

from random import Random

import pytest

from protocol.limits import GUARD_RESTART_MS, KILL_MS, LEASE_MS, hold_ms
from protocol.tasks import Guarantee, TaskState
from sim.disk import SimulatedDisk
from sim.observations import OutOfBounds, OutputWritten, RunFrozen, RunThawed
from sim.world import Wish

HOLD = hold_ms(LEASE_MS)
WEAK_HOLD = hold_ms(LEASE_MS, weak=True)


def lives(world, task):
    return lambda: world.running(task)


def attempts(world):
    return [key.attempt for _, _, key in world.checkers.start_times]


def place_of(world, task):
    """The one device on which the task runs."""
    [(name, _)] = world.running(task)
    return world.devices[name]


def spy(world, kind):
    """All observations of this kind from now on."""
    seen, saw = [], world.checkers.saw

    def note(observation):
        if isinstance(observation, kind):
            seen.append(observation)
        saw(observation)

    world.checkers.saw = note
    return seen


def started(world, wish=None, after_ms=12_000):
    """(task, device) of a job of one task that has run for a while."""
    task = f"{world.submit(wish or Wish())}.0"
    world.until(lives(world, task))
    world.advance(after_ms)
    return task, place_of(world, task)


def weak_world(make_world, **how):
    world = make_world(begin=False, **how)
    for device in world.devices.values():
        device.containment = "weak"
    world.begin()
    world.until(lambda: all(row.containment == "weak" for row in world.checkers.devices.values()))
    return world


# ------------------------------------------------------------- suspend


def test_a_suspended_run_never_executes_beside_its_successor(world):
    task, device = started(world)
    thawed = spy(world, RunThawed)
    device.suspend(hook=True)
    assert not world.running(task), "it lives, but it executes nothing"
    world.until(lives(world, task), 2 * HOLD, "a successor")
    assert world.running(task)[0][0] != device.name
    device.resume()
    world.advance(60_000)
    assert attempts(world) == [1, 2] and not thawed
    assert not device.guard.runs


def test_a_nap_shorter_than_the_lease_disturbs_nothing_and_the_run_ends_so_much_later(world):
    task, device = started(world, Wish(runs_ms=30_000))
    frozen, thawed = spy(world, RunFrozen), spy(world, RunThawed)
    began_ms = world.checkers.start_times[0][0]
    device.suspend(hook=True)
    world.advance(7_000)
    device.resume()
    world.until(lambda: not world.running(task))
    assert world.now_ms == began_ms + 37_000
    world.until(lambda: world.task(task).state is TaskState.SUCCEEDED)
    assert attempts(world) == [1] and len(frozen) == len(thawed) == 1


def test_without_the_hook_a_late_run_executes_until_the_guard_looks_and_that_is_told(world):
    task, device = started(world)
    outside, thawed = spy(world, OutOfBounds), spy(world, RunThawed)
    device.suspend(hook=False)
    world.advance(2 * HOLD)
    device.resume()
    assert len(thawed) == 1 and [d for d, _ in world.running(task)].count(device.name) == 1
    [told] = outside
    assert (told.device, told.invariants) == (device.name, ("I1", "I7"))
    world.until(lambda: device.name not in [d for d, _ in world.running(task)], 500 + KILL_MS)
    assert world.now_ms <= told.until_ms
    world.advance(60_000)
    assert attempts(world) == [1, 2]


def test_a_suspended_machine_says_nothing_and_its_broker_gives_it_up(world):
    task, device = started(world)
    said = []
    receive = world.network.publish
    world.network.publish = lambda connection, *words: said.append(connection) or receive(connection, *words)
    device.suspend()
    connection = device.process.connection
    said.clear()
    world.until(lambda: world.state(device.name) == "offline", 60_000)
    assert connection not in said
    device.resume()
    world.until(lambda: world.ready(device.name), 60_000)
    world.until(lives(world, task), HOLD)


def test_a_start_in_progress_at_the_suspend_is_not_made_up_for(world):
    """The order was given, the machine sleeps over its deadline: the guard looks at it first."""
    for device in world.devices.values():
        device.guard.slow_ms = 3_000
    task = f"{world.submit()}.0"
    world.until(lambda: any(device.guard.runs for device in world.devices.values()))
    [device] = [d for d in world.devices.values() if d.guard.runs]
    device.suspend()
    world.advance(2 * HOLD)
    device.resume()
    world.advance(60_000)
    assert attempts(world) == [2]
    assert place_of(world, task) is not device


# ------------------------------------------------------------- saves and power


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("skip", range(3))
def test_power_that_fails_inside_a_save_starts_nothing_twice(make_world, lost, skip):
    """Inside the saves of a document, of an intent, of what follows: whole or not there at all."""
    world = make_world(devices=1, seed=7 + skip)
    device, saves = world.devices["d0"], []
    save = device.disk.save
    device.disk.save = lambda image: (save(image), saves.append(1), ready())

    def ready():
        if len(saves) == skip:
            device.tear_next_save(lost)

    task = f"{world.submit(Wish(runs_ms=40_000))}.0"
    if skip == 0:
        device.tear_next_save(lost)
    world.until(lambda: not device.on, 30_000, "a torn save")
    world.advance(5_000)
    assert not world.running(task)
    device.boot()
    world.until(lambda: world.task(task).state is TaskState.SUCCEEDED, 4 * HOLD)
    assert len(set(attempts(world))) == len(attempts(world))


@pytest.mark.parametrize("effects", range(0, 14))
def test_an_agent_that_dies_between_two_effects_starts_nothing_twice(make_world, effects):
    world = make_world(devices=1, seed=effects)
    device = world.devices["d0"]
    task = f"{world.submit(Wish(runs_ms=20_000))}.0"
    device.agent_dies_after(effects)
    world.until(lambda: device.agent is None, 60_000)
    world.advance(500)
    device.start_agent()
    world.until(lambda: world.task(task).state is TaskState.SUCCEEDED, 4 * HOLD)
    assert len(set(attempts(world))) == len(attempts(world))


@pytest.mark.parametrize("seed", range(6))
def test_power_that_fails_while_a_save_is_on_its_way_loses_it_or_not(make_world, seed):
    """What stands behind the save has not happened either way."""
    world = make_world(devices=2, seed=seed)
    task = f"{world.submit()}.0"
    for device in world.devices.values():
        device.disk.slow_ms = 400
    world.until(lambda: any(d.process._saving for d in world.devices.values()))
    world.advance(200)
    for device in world.devices.values():
        device.power_off()
        device.disk.slow_ms = 0
    assert not world.running(task)
    world.advance(1_000)
    for device in world.devices.values():
        device.boot()
    world.until(lives(world, task), 3 * HOLD)
    assert len(set(attempts(world))) == len(attempts(world))


def test_a_slow_card_slows_everything_and_breaks_nothing(world):
    for device in world.devices.values():
        device.disk.slow_ms = 700
    job = world.submit(Wish(count=6, runs_ms=5_000, runtime="process"))
    world.until(lambda: world.done(job), 60_000)
    assert attempts(world) == [1] * 6


@pytest.mark.parametrize("death", ["kill_agent", "power_off"])
def test_a_journal_that_turned_to_garbage_is_a_lost_one(world, death):
    """Another instance, which adopts what its guard still holds, and starts nothing twice."""
    task, device = started(world)
    instance = device.agent.memory.instance_id
    getattr(device, death)()
    device.corrupt_journal()
    device.boot() if death == "power_off" else device.start_agent()
    assert device.agent.memory.instance_id != instance and not device.agent.memory.entries
    world.advance(3 * HOLD)
    survived = death == "kill_agent"
    assert attempts(world) == ([1] if survived else [1, 2])
    assert world.running(task)


def test_a_card_that_loses_only_the_last_save_goes_back_one_image(world):
    task, device = started(world, Wish(runs_ms=200_000))
    device.power_off()
    device.corrupt_journal(only_newest=True)
    device.boot()
    assert device.agent.memory.instance_id == f"{device.name}-data"
    world.until(lives(world, task), 3 * HOLD)
    world.advance(60_000)
    assert attempts(world) == [1, 2]


def test_a_disk_keeps_the_last_image_or_the_new_one_whatever_happens_inside_a_save():
    for seed in range(200):
        rng = Random(seed)
        disk = SimulatedDisk(Random(seed))
        last = None
        for number in range(6):
            image = b"%d" % number
            fate = rng.choice(("saved", "torn", "kept", "unsynced", "refused"))
            if fate == "saved":
                disk.save(image)
            elif fate == "refused":
                disk.refuse(image)
            elif fate == "unsynced":
                disk.write(image)
                disk.lose_power()
            else:
                disk.tear(image, lost=fate == "torn")
            found = disk.load()
            assert found in (last, image), (seed, number, fate)
            assert fate != "saved" or found == image
            assert fate != "torn" or found == last
            last = found


def test_what_was_not_synced_is_mostly_lost_with_the_power():
    lost = 0
    for seed in range(300):
        disk = SimulatedDisk(Random(seed))
        disk.save(b"old")
        disk.write(b"new")
        assert disk.image() == b"new", "every process sees it"
        disk.lose_power()
        lost += disk.load() == b"old"
    assert 0.8 * 300 <= lost < 300


# ------------------------------------------------------------- guards and containment


def test_where_runs_cannot_be_contained_a_successor_waits_thirty_seconds_more(make_world):
    world = weak_world(make_world)
    task, device = started(world)
    gone_ms = world.now_ms
    device.power_off()
    world.until(lives(world, task), WEAK_HOLD + 15_000)
    assert world.now_ms - gone_ms > WEAK_HOLD - 15_000
    assert world.running(task)[0][0] != device.name


@pytest.mark.parametrize("seed", range(5))
def test_survivors_of_a_weak_guard_live_until_its_successor_has_swept(make_world, seed):
    """Cut off too: the deadline passes and nobody enforces it, but the longer hold covers that."""
    world = weak_world(make_world, seed=seed)
    task, device = started(world, after_ms=12_000 + 1_700 * seed)
    world.network.cut(device.place)
    world.advance(15_000)
    assert world.running(task) == [(device.name, 1)]
    died_ms = world.now_ms
    device.kill_guard(survivors=True)
    assert world.running(task) == [(device.name, 1)] and not device.guard.up
    world.until(lambda: device.guard.up, GUARD_RESTART_MS)
    assert not world.running(task), "swept before it answers"
    assert world.now_ms <= died_ms + GUARD_RESTART_MS
    world.until(lives(world, task), WEAK_HOLD)
    assert attempts(world) == [1, 2]


def test_a_guard_that_nobody_replaces_in_time_is_told_as_outside_the_claim(make_world):
    world = weak_world(make_world)
    task, device = started(world)
    outside = spy(world, OutOfBounds)
    device.kill_agent()
    device.kill_guard(survivors=True)
    world.advance(GUARD_RESTART_MS + 60_000)
    assert (device.name, 1) in world.running(task)
    assert [(o.device, "I1" in o.invariants) for o in outside] == [(device.name, True)]
    device.start_agent()
    world.until(lambda: device.guard.up, 5_000)
    assert outside[-1].until_ms == world.now_ms
    world.advance(60_000)
    assert len(world.running(task)) == 1


def test_a_strong_guard_has_no_survivors(world):
    task, device = started(world)
    device.kill_guard(survivors=True)
    assert not world.running(task)
    world.until(lives(world, task), 5_000)
    assert attempts(world) == [1, 2]


def test_a_starved_guard_is_still_done_within_its_bound(world):
    task, device = started(world)
    device.guard.starved = True
    world.network.cut(device.name)
    device.freeze()
    deadline_ms = device.own.world_ms(device.guard.runs[task].rule.deadline_ms)
    world.until(lambda: (device.name, 1) not in world.running(task), 40_000)
    assert world.now_ms <= deadline_ms + KILL_MS


def test_a_guard_knows_an_attempt_that_it_has_seen_end(world):
    task, device = started(world)
    attempt = device.guard.runs[task].attempt
    told = []
    world.cancel(task.split(".")[0])
    world.until(lambda: device.guard.exits)
    device.guard.tell = told.append
    device.guard.start(attempt, 0)
    assert told[0].reason == "attempt is known"


# ------------------------------------------------------------- clocks


def test_a_rate_changes_without_a_jump(world):
    device = world.devices["d0"]
    for rate_ppm in (100_000, -100_000, 9_000, 0):
        before = device.local_ms()
        device.set_rate(rate_ppm)
        assert device.local_ms() == before
        world.advance(10_000)
        assert abs(device.local_ms() - before - 10_000 - rate_ppm // 100) <= 1


def test_a_clock_out_of_bounds_is_told_until_a_hold_after_it_is_right_again(world):
    outside = spy(world, OutOfBounds)
    device = world.devices["d0"]
    device.set_rate(9_999)
    assert not outside
    device.set_rate(-100_000)
    world.advance(1_000)
    device.set_rate(0)
    begun, over = outside
    assert begun.invariants == over.invariants == ("I1", "I6", "I7") and begun.why == over.why
    assert begun.until_ms > world.now_ms + 10**9 and over.until_ms == world.now_ms + HOLD


@pytest.mark.parametrize("rate_ppm", [100_000, -100_000])
def test_the_guard_enforces_by_its_own_clock_whatever_its_rate(world, rate_ppm):
    task, device = started(world)
    world.network.cut(device.name)
    left_ms = device.guard.runs[task].rule.deadline_ms - device.local_ms()
    device.set_rate(rate_ppm)
    cut_ms = world.now_ms
    world.until(lambda: device.name not in [d for d, _ in world.running(task)], 60_000)
    share = 1 + rate_ppm / 1e6
    assert (left_ms * 11 / 12 - KILL_MS) / share <= world.now_ms - cut_ms <= left_ms / share + KILL_MS


# ------------------------------------------------------------- one identity twice


def test_a_clone_is_found_out_and_nothing_of_the_identity_is_freed_but_by_time(world):
    task, device = started(world)
    outside = spy(world, OutOfBounds)
    clone = device.clone()
    assert (clone.name, clone.place) == (device.name, f"{device.name}~2")
    clone.boot()
    assert clone.agent.memory.instance_id == device.agent.memory.instance_id
    assert clone.agent.identity.boot_id != device.agent.identity.boot_id
    world.until(lambda: world.checkers.devices[device.name].quarantined, 120_000, "a quarantine")
    clone.power_off()
    assert outside[0].invariants == outside[-1].invariants and "I1" in outside[0].invariants
    assert outside[-1].until_ms >= world.now_ms + HOLD
    world.until(lives(world, task), 2 * HOLD)
    world.decide(device.name, "uncordon")
    world.until(lambda: world.ready(device.name), 120_000)
    world.advance(HOLD)
    assert len(world.running(task)) == 1


def test_a_clone_is_cut_off_by_its_own_place(world):
    device = world.devices["d0"]
    clone = device.clone()
    world.network.cut(clone.place)
    clone.boot()
    world.advance(60_000)
    assert world.ready("d0") and not world.checkers.devices["d0"].quarantined


# ------------------------------------------------------------- output


def written(outputs, task, attempt, stream):
    return b"".join(o.data for o in outputs if (o.task, o.attempt, o.stream) == (task, attempt, stream))


def test_a_run_writes_as_it_grows_older_and_all_of_it_is_stored(world):
    outputs = spy(world, OutputWritten)
    job = world.submit(Wish(runs_ms=25_000, exit_code=3, max_attempts=1, runtime="process"))
    world.until(lambda: world.done(job), 60_000)
    read = world.storage.store.output
    task = f"{job}.0"
    for stream in (1, 2):
        world.until(lambda stream=stream: read(task, 1, stream, 0, 1_000).complete, what="its whole output")
        assert read(task, 1, stream, 0, 1_000).data == written(outputs, task, 1, stream)
    assert written(outputs, task, 1, 1).count(b"\n") == 3 and written(outputs, task, 1, 2) == b"exit 3\n"


def test_a_full_disk_costs_output_and_not_the_run(world):
    outputs = spy(world, OutputWritten)
    for device in world.devices.values():
        device.guard.disk_full = True
    job = world.submit(Wish(runs_ms=9_000, runtime="process"))
    world.until(lambda: world.done(job), 60_000)
    assert world.task(f"{job}.0").state is TaskState.SUCCEEDED and not outputs


def test_a_power_cut_takes_the_end_of_what_was_written_and_the_rest_is_stored(world):
    outputs = spy(world, OutputWritten)
    wish = Wish(runtime="process", guarantee=Guarantee.AT_LEAST_ONE)
    task, device = started(world, wish, after_ms=4_000)
    world.network.cut(device.name)
    world.advance(40_000)
    device.power_off()
    world.network.heal(device.name)
    device.boot()
    world.advance(120_000)
    stored = world.storage.store.output(task, 1, 1, 0, 1_000).data
    assert stored and written(outputs, task, 1, 1).startswith(stored)
