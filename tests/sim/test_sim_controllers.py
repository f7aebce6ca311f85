"""Two controllers share one database: who leads, who waits, and that nothing runs twice meanwhile."""

from __future__ import annotations

import pytest

from controller.core.leadership import SPEAK_MS
from controller.core.views import RefusalView, SubmittedView
from protocol.limits import LEADER_MS, hold_ms
from protocol.messages import LeaseAnswer
from protocol.tasks import Guarantee, TaskState
from sim.world import Wish

HOLD = hold_ms(30_000)
TAKE_OVER_MS = LEADER_MS + 4_000
"""The silence that a standby waits for, its second of watching, and a moment to look around."""


def runs(world):
    return sorted((task, live) for task in world.checkers.tasks for live in world.running(task))


@pytest.fixture
def pair(make_world):
    """Two controllers and three devices with six tasks that run for ever; c1 leads."""

    def make(seed=1, **more):
        world = make_world(seed=seed, controllers=2, **more)
        world.submit(Wish(count=6))
        world.until(lambda: len(world.checkers.start_times) == 6)
        world.advance(15_000)
        assert world.leader is world.controllers[0]
        return world

    return make


def follow(world, follower, within_ms=TAKE_OVER_MS):
    """How long until this one leads."""
    return world.until(lambda: world.leader is follower, within_ms, f"{follower.holder} leads")


# ------------------------------------------------------------- who leads


def test_a_standby_watches_and_says_nothing(pair):
    world = pair()
    c1, c2 = world.controllers
    world.advance(120_000)
    assert world.leader is c1 and c1.takeovers == 1
    assert c2.on and c2.core is None and c2.takeovers == 0
    assert c2.client not in [line.client for line in world.network.lines.values()]


@pytest.mark.parametrize("seed", range(4))
def test_after_a_death_the_other_leads_within_a_lease_and_no_run_moves(pair, seed):
    """Failover of the controller costs no run: 12 s of silence, and a lease is 30."""
    world = pair(seed)
    c1, c2 = world.controllers
    before = runs(world)
    c1.kill()
    took_ms = follow(world, c2)
    assert LEADER_MS - 3_000 <= took_ms <= LEADER_MS + 1_500
    world.advance(60_000)
    assert runs(world) == before
    c1.start()
    world.advance(30_000)
    assert world.leader is c2 and c1.core is None, "who comes back waits"
    assert runs(world) == before


def test_the_same_holder_leads_again_at_once(pair):
    world = pair()
    c1 = world.controllers[0]
    c1.kill()
    c1.start()
    assert world.leader is c1 and c1.takeovers == 2


def test_after_an_orderly_stop_the_other_leads_at_its_next_look(pair):
    world = pair()
    c1, c2 = world.controllers
    before = runs(world)
    c1.stop()
    assert not c1.on
    assert follow(world, c2) <= 1_000
    world.advance(60_000)
    assert runs(world) == before


def test_people_are_answered_by_who_leads_now(pair):
    world = pair()
    c1, c2 = world.controllers
    c1.kill()
    follow(world, c2)
    job = world.submit(Wish(count=2, runs_ms=500))
    assert isinstance(world.replies[world._requests], SubmittedView)
    world.until(lambda: world.done(job), 60_000)
    assert all(task.state is TaskState.SUCCEEDED for task in world.tasks(job))


# ------------------------------------------------------------- cut, stopped, slow


def test_a_leader_cut_from_the_database_falls_silent_before_the_other_speaks(pair):
    world = pair()
    c1, c2 = world.controllers
    before = runs(world)
    said = []
    world.network.on_travel = lambda sent_ms, got_ms, sender, receiver, topic, payload: said.append(
        (sent_ms, sender)
    )
    c1.cut_database()
    follow(world, c2)
    began_ms = world.now_ms
    world.advance(20_000)
    c1.heal_database()
    world.advance(40_000)
    last_ms = max((ms for ms, sender in said if sender == c1.client), default=0)
    assert last_ms < began_ms, "it spoke after another had begun"
    assert world.leader is c2 and c1.standby.row is not None
    assert runs(world) == before


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pause_ms", [SPEAK_MS + 500, 14_000, 31_000, 70_000])
def test_a_paused_leader_that_wakes_reads_old_heartbeats_and_grants_nothing(pair, seed, pause_ms):
    world = pair(seed)
    c1, c2 = world.controllers
    c1.pause()
    world.advance(pause_ms)
    woke_ms, granted = world.now_ms, []
    world.network.on_travel = lambda sent_ms, got_ms, sender, receiver, topic, payload: granted.append(
        (sender, sent_ms, topic)
    )
    c1.resume()
    world.advance(3_000)
    late = [
        g
        for g in granted
        if g[0] == c1.client and g[1] >= woke_ms and g[2].endswith(f"/{LeaseAnswer.channel}")
    ]
    if world.leader is c2:
        assert not late, "a leader of the past answered a heartbeat"
        assert c1.core is None
    world.advance(60_000)
    assert all(len(world.running(task)) == 1 for task in world.checkers.tasks)


def test_a_leader_that_only_the_broker_cannot_reach_still_leads(pair):
    """Leadership is a row: nobody takes it from a leader that is deaf. Its runs stop at their deadlines."""
    world = pair()
    c1, c2 = world.controllers
    world.network.cut(c1.client)
    world.advance(60_000)
    assert world.leader is c1 and c2.core is None
    assert not runs(world)
    world.network.heal(c1.client)
    world.until(lambda: len(runs(world)) == 6, 3 * HOLD)


@pytest.mark.parametrize("seed", range(4))
def test_a_slow_database_delays_and_breaks_nothing(make_world, seed):
    world = make_world(seed=seed, controllers=2, begin=False)
    world.database.slow_ms = 800
    world.begin()
    jobs = [world.submit(Wish(count=3)), world.submit(Wish(count=2, runs_ms=4_000))]
    world.until(lambda: all(job in world.checkers.accepted for job in jobs), 10_000)
    world.until(lambda: world.done(jobs[1]), 60_000)
    world.advance(60_000)
    assert all(len(world.running(task.id)) == 1 for task in world.tasks(jobs[0]))
    assert world.controllers[0].takeovers == 1


@pytest.mark.parametrize("instant", range(0, 900, 60))
def test_a_leader_that_dies_inside_a_commit_leaves_it_done_or_not_done(pair, instant):
    """Its job is there as a whole, or not at all; an answer was given only if it is there."""
    world = pair(seed=instant)
    c1, c2 = world.controllers
    world.database.slow_ms = 900
    job = world.submit(Wish(count=3, runs_ms=1_000))
    world.advance(instant)
    c1.kill()
    world.database.slow_ms = 0
    follow(world, c2)
    stored = world.tasks(job)
    assert len(stored) in (0, 3)
    assert stored or job not in world.checkers.accepted
    if stored:
        world.until(lambda: world.done(job), 60_000)


@pytest.mark.parametrize("seed", range(4))
def test_a_commit_whose_answer_is_lost_is_found_when_the_core_is_built_anew(pair, seed):
    world = pair(seed)
    c1 = world.controllers[0]
    world.database.slow_ms = 400
    job = world.submit(Wish(count=2, runs_ms=1_000))
    world.until(lambda: world.tasks(job) or world.now_ms % 1_000 == 999, 1_000)
    c1.cut_database()
    world.advance(200)
    world.database.slow_ms = 0
    c1.heal_database()
    world.until(lambda: world.leader is not None, TAKE_OVER_MS)
    if world.tasks(job):
        world.until(lambda: world.done(job), 90_000)
    assert world.leader is c1, "the row is its own: it leads again at once"


# ------------------------------------------------------------- clocks


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000, 315_360_000_000, -315_360_000_000])
@pytest.mark.parametrize("late_ms", [0, 1_400, 2_900])
def test_a_wall_clock_that_jumps_ends_no_leadership(pair, jump_ms, late_ms):
    world = pair()
    c1 = world.controllers[0]
    before = runs(world)
    world.advance(late_ms)
    world.database.jump_wall(jump_ms)
    for controller in world.controllers:
        controller.jump_wall(jump_ms)
    world.advance(60_000)
    assert world.leader is c1 and c1.takeovers == 1
    assert runs(world) == before


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000, -315_360_000_000])
def test_a_wall_clock_that_jumps_after_a_death_locks_nobody_out(pair, jump_ms):
    world = pair()
    c1, c2 = world.controllers
    before = runs(world)
    c1.kill()
    world.database.jump_wall(jump_ms)
    assert follow(world, c2) <= LEADER_MS + 1_500
    world.advance(60_000)
    assert runs(world) == before
    job = world.submit(Wish(runs_ms=500))
    world.until(lambda: world.done(job), 2 * HOLD)


@pytest.mark.parametrize(("leader_ppm", "other_ppm"), [(-10_000, 10_000), (10_000, -10_000)])
def test_clocks_at_the_ends_of_their_bounds_never_let_two_speak(pair, leader_ppm, other_ppm):
    """The leader stops and its voice ends by its slow clock, before the other's fast one is done."""
    world = pair()
    c1, c2 = world.controllers
    c1.set_rate(leader_ppm)
    c2.set_rate(other_ppm)
    world.advance(30_000)
    c1.pause()
    core = c1.core
    follow(world, c2)
    assert core.speak_until_ms <= c1.local_ms()
    c1.resume()
    world.advance(60_000)
    assert all(len(world.running(task)) == 1 for task in world.checkers.tasks)


# ------------------------------------------------------------- later revisions, older databases


def test_who_hears_of_its_successors_documents_takes_no_epoch_above_it(pair):
    """The leader of the past wakes to heartbeats that name a later epoch: it is old, not the database."""
    world = pair()
    c1, c2 = world.controllers
    c1.pause()
    follow(world, c2)
    world.devices["d0"].reboot()
    world.submit(Wish(count=2))
    world.advance(40_000)
    c1.resume()
    world.advance(30_000)
    assert world.leader is c2 and c2.takeovers == 1
    c2.kill()
    follow(world, c1)
    assert not world.core.ledger.alarms.get("old_database")
    world.until(lambda: len(runs(world)) == 8, 3 * HOLD)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_restored_backup_numbers_are_new_and_nothing_starts_for_a_hold(pair, marked, seed):
    world = pair(seed)
    world.backup()
    later = world.submit(Wish(count=2))
    for device in ("d0", "d1"):
        world.devices[device].reboot()
    world.until(lambda: len(world.checkers.start_times) >= 10)
    world.advance(5_000)
    world.restore_backup(marked)
    assert world.leader is world.controllers[0]
    world.until(lambda: world.core.ledger.alarms.get("old_database"), 30_000, "an alarm")
    starts, restored_ms = len(world.checkers.start_times), world.now_ms
    world.until(lambda: len(world.checkers.start_times) > starts, 3 * HOLD)
    assert world.now_ms >= restored_ms + HOLD
    assert all(key.attempt >= 1_700_000_000 for _, _, key in world.checkers.start_times[starts:])
    world.advance(2 * HOLD)
    assert not any(world.running(task.id) for task in world.tasks(later)) and len(runs(world)) == 6


def test_the_wait_after_a_restore_is_kept_by_who_takes_over_within_it(pair):
    world = pair()
    c1, c2 = world.controllers
    world.backup()
    world.restore_backup()
    job = world.submit(Wish(runs_ms=500))
    world.advance(10_000)
    c1.kill()
    follow(world, c2)
    began_ms = world.now_ms
    world.until(lambda: world.done(job), 3 * HOLD)
    assert world.now_ms >= began_ms + HOLD


# ------------------------------------------------------------- all of it


@pytest.mark.parametrize("seed", range(8))
def test_leaders_come_and_go_and_work_goes_on(make_world, seed):
    """Ten minutes of kills, pauses, cuts and slow commits, drawn from the seed; then all is well."""
    world = make_world(seed=seed, controllers=2, devices=4)
    rng = world.clock.stream("story")
    for number in range(4):
        world.submit(Wish(count=2, runs_ms=number % 2 * 5_000, guarantee=rng.choice(list(Guarantee))))
    for _ in range(20):
        victim = rng.choice(world.controllers)
        begin, end = rng.choice(
            [
                (victim.kill, victim.start), (victim.stop, victim.start), (victim.pause, victim.resume),
                (victim.cut_database, victim.heal_database),
                (lambda c=victim: world.network.cut(c.client), lambda c=victim: world.network.heal(c.client)),
            ]
        )  # fmt: skip
        world.database.slow_ms = rng.choice((0, 0, 300, 3_000))
        begin()
        world.advance(rng.randint(200, 40_000))
        end()
        world.advance(rng.randint(200, 5_000))
    world.database.slow_ms = 0
    world.advance(TAKE_OVER_MS)
    assert not isinstance(world.fleet_view(), RefusalView)
    want = {t.id for t in world.checkers.tasks.values() if t.state in ("pending", "assigned", "running")}
    world.until(lambda: all(len(world.running(task)) == 1 for task in want), 4 * HOLD)


def test_two_worlds_with_one_seed_are_one(make_world):
    def story():
        world = make_world(seed=5, controllers=2)
        world.submit(Wish(count=3))
        world.database.slow_ms = 500
        world.advance(10_000)
        world.controllers[0].pause()
        world.advance(20_000)
        world.controllers[0].resume()
        world.advance(20_000)
        return world.clock.digest()

    assert story() == story()
