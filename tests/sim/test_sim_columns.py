"""Devices at rest as columns: the same fleet, the same work, told both ways, is the same history."""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from enum import Enum
from random import Random

import pytest

from controller.core.records import AttemptRow, AuditRow, DeviceRow, DocumentRow, JobRow, OutputRow, TaskRow
from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState
from sim.columns import WINDOW_MS, IdleFleet
from sim.controllers import Storage
from sim.observations import Committed, RunBegan, RunEnded
from sim.scale import HOUR_MS, Work, run_scale
from sim.weather import Weather
from sim.world import ROOM, Wish, World

SECOND, MINUTE = 1_000, 60_000
TIMES = {"created_at", "changed_at", "started_at", "ended_at", "at"}
LEFT_OUT = ("memory", "_moved_ms")
"""The memory is looked at by itself; the other is set anew before a full outbox asks for it."""
NAME = {
    DocumentRow: "device",
    DeviceRow: "device",
    TaskRow: "id",
    JobRow: "id",
    AttemptRow: "task",
    OutputRow: "task",
}


def store():
    return Storage(MemoryStore(), (Fenced, StoreError))


class Story:
    """A fleet of `devices`, and what was seen of it. `columns`: devices at rest are put aside."""

    def __init__(self, columns, devices=12, seed=1):
        self.world = World(seed, store(), (ROOM,) * devices)
        # One latency for all: else the two histories throw dice for different messages.
        self.world.network.weather = Weather((2, 2))
        self.runs, self.rows = [], {}
        self.idle = IdleFleet(self.world)
        self._saw = self.world.checkers.saw
        self.world.checkers.saw = self.saw
        self.world.controller.start()
        for number, device in enumerate(self.world.devices.values()):
            self.world.clock.after(100 + 811 * number, device.boot)
        if columns:
            self.idle.begin()
        self.world.advance(30 * SECOND)

    def saw(self, observation):
        self._saw(observation)
        if isinstance(observation, RunBegan | RunEnded):
            about = (type(observation), observation.task, observation.attempt, observation.device)
            self.runs.append((observation.at_ms, *about))
        if isinstance(observation, Committed):
            for row in observation.rows:
                self._note(row)

    def _note(self, row):
        """Rows of one thing in the order of their commits, but for when."""
        name = row.object if isinstance(row, AuditRow) else getattr(row, NAME.get(type(row), ""), "")
        said = [copy(getattr(row, f.name)) for f in fields(row) if f.name not in TIMES]
        self.rows.setdefault((type(row).__name__, name), []).append(said)

    def at(self, seconds, work):
        self.world.clock.after(int(seconds * SECOND), work)

    def finish(self, ms):
        self.world.advance(ms)
        self.idle.end()
        self.world.check()

    @property
    def heartbeats(self):
        return self.world.controller.wire.heartbeats


def both(play, ms, **more):
    """The history told by events, and told in columns."""
    stories = []
    for columns in (False, True):
        story = Story(columns, **more)
        play(story)
        story.finish(ms)
        stories.append(story)
    events, columns = stories
    assert not events.idle.heartbeats and columns.idle.heartbeats
    return events, columns


def assert_same(events, columns, apart_ms=WINDOW_MS):
    assert {k: v for k, v in columns.rows.items() if v != events.rows.get(k)} == {}
    assert columns.rows.keys() == events.rows.keys()
    was, now = sorted(events.runs, key=about), sorted(columns.runs, key=about)
    assert [about(run) for run in now] == [about(run) for run in was]
    assert all(abs(a[0] - b[0]) <= apart_ms for a, b in zip(was, now, strict=True))
    assert columns.heartbeats == events.heartbeats
    for one, other in zip(events.world.devices.values(), columns.world.devices.values(), strict=True):
        assert agent_state(other) == agent_state(one), other.name
    said, counted = (dict(story.world.core.ledger.counters) for story in (events, columns))
    # One that left just before a new revision may come after it, and is then not granted.
    assert abs(said.pop("grants") - counted.pop("grants")) <= said.get("revisions", 0) // 10
    assert said == counted


def about(run):
    return str(run[1]), *run[2:]


def agent_state(device):
    """All that an agent has in memory, and its guard of its runs."""
    if device.agent is None:
        return None
    a = device.agent
    machines = (
        a.memory,
        a.connection,
        a.heartbeats,
        a.leases,
        a.runs,
        a.outbox,
        a.promises,
        a.used,
        a.counts,
    )
    guarded = [(r.key, r.alive, r.rule.deadline_ms) for r in device.guard.runs.values()]
    return [plain(machine) for machine in machines], guarded, sorted(device.guard.exits)


def plain(value):
    """An object as what is in it; the memory that machines share is looked at once."""
    if isinstance(value, Random):
        return value.getstate()
    if type(value).__module__.startswith("edge_agent.core") and not isinstance(value, Enum | tuple):
        slots = (
            vars(value)
            if hasattr(value, "__dict__")
            else {f.name: getattr(value, f.name) for f in fields(value)}
        )
        return {name: plain(v) for name, v in slots.items() if name not in LEFT_OUT}
    return value


# ------------------------------------------------------------- the same history


def test_a_fleet_with_nothing_to_do_beats_as_often_and_remembers_the_same():
    events, columns = both(lambda story: None, 20 * MINUTE)
    assert_same(events, columns, apart_ms=0)
    assert columns.idle.rests == 12, "each was put aside once"
    assert columns.idle.heartbeats > 12 * 110


def ordinary_hours(story):
    """Services, batches, a cancel, a drain, a reboot, an agent that is restarted, a guard that dies."""
    world, devices = story.world, story.world.devices
    service = Wish(count=9, kind=JobKind.SERVICE, max_attempts=0)
    story.at(1, lambda: world.submit(service))
    story.at(2, lambda: world.submit(Wish(count=3, guarantee=Guarantee.AT_LEAST_ONE)))
    story.at(303, lambda: world.submit(Wish(count=20, runs_ms=77_300)))
    story.at(907, lambda: world.submit(Wish(count=6, runs_ms=400_100, lease_ms=12_000)))
    story.at(1_000, lambda: world.submit(Wish(count=2, runs_ms=2_000, exit_code=1)))
    story.at(1_500, lambda: world.submit(Wish(count=4)))
    story.at(2_204, lambda: world.cancel("j6"))
    story.at(2_500, lambda: world.decide("d3", "drain"))
    story.at(2_900, lambda: world.decide("d3", "uncordon"))
    story.at(3_600, devices["d5"].reboot)
    story.at(4_000, devices["d7"].kill_agent)
    story.at(4_003, devices["d7"].start_agent)
    story.at(4_500, devices["d8"].kill_guard)
    story.at(5_000, lambda: world.submit(Wish(count=30, runs_ms=61_000, needs=Resources(100, 100))))
    story.at(6_000, lambda: world.submit(Wish(count=2, runs_ms=600_000, timeout_ms=90_000)))


def test_two_hours_of_ordinary_work_are_the_same_history_told_both_ways():
    events, columns = both(ordinary_hours, 2 * HOUR_MS)
    assert_same(events, columns)
    ended = [t.state for t in events.world.checkers.tasks.values()]
    assert ended.count(TaskState.SUCCEEDED) == 56 and TaskState.FAILED in ended
    kept = sum(1 for t in ended if t is TaskState.RUNNING)
    assert kept == 12 == sum(map(len, columns.world.checkers.live.values()))


def random_work(seed):
    """Jobs, cancels and decisions at random times, some seconds apart."""

    def play(story):
        rng, world = Random(seed), story.world
        for _ in range(rng.randint(2, 6)):
            wish = Wish(
                count=rng.randint(1, 12),
                runs_ms=rng.choice((0, 1_700, 33_100, 211_000)),
                exit_code=rng.choice((0, 0, 1)),
                guarantee=rng.choice((Guarantee.AT_MOST_ONE, Guarantee.AT_LEAST_ONE)),
                lease_ms=rng.choice((9_000, 30_000, 30_000, 120_000)),
                runtime=rng.choice(("simulated", "simulated", "process")),
            )
            story.at(rng.uniform(1, 500), lambda wish=wish: world.submit(wish))
        for _ in range(rng.randint(0, 3)):
            job, device = f"j{rng.randint(1, 3)}", f"d{rng.randint(0, 5)}"
            when = rng.uniform(500, 700)
            story.at(when, lambda job=job: world.cancel(job))
            story.at(when + 7, lambda device=device: world.decide(device, "drain"))
            story.at(when + 90, lambda device=device: world.decide(device, "uncordon"))
        if rng.random() < 0.5:
            story.at(rng.uniform(100, 700), world.devices["d1"].reboot)

    return play


@pytest.mark.parametrize("seed", range(8))
def test_whatever_work_there_is_both_ways_agree(seed):
    events, columns = both(random_work(seed), 15 * MINUTE, devices=6, seed=seed)
    assert_same(events, columns)


# ------------------------------------------------------------- what ends the rest


@pytest.fixture
def resting():
    """A fleet of four, each with one service, all at rest."""
    story = Story(columns=True, devices=4)
    story.world.submit(Wish(count=4, kind=JobKind.SERVICE, max_attempts=0))
    story.world.advance(40 * SECOND)
    assert story.idle.resting() == 4
    return story


def test_no_timer_of_a_device_at_rest_is_left(resting):
    resting.world.advance(MINUTE)
    assert resting.world.clock.pending() < 12, "controller, broker and windows"


@pytest.mark.parametrize("what", ["power_off", "kill", "kill_agent", "freeze", "suspend", "cut"])
def test_a_fault_wakes_the_device_it_befalls_and_its_leases_end_when_they_should(resting, what):
    world, device = resting.world, resting.world.devices["d2"]
    world.advance(17 * MINUTE)
    [(task, _)] = [(t, a) for t, runs in world.checkers.live.items() for d, a in runs if d == "d2"]
    assert "d2" not in resting.idle.awake
    if what == "cut":
        world.network.cut("d2")
    else:
        getattr(device, what)()
    assert "d2" in resting.idle.awake and resting.idle.resting() == 3
    took_ms = world.until(lambda: world.checkers.tasks[task].attempt == 2, 60 * SECOND, "it is placed again")
    assert 20 * SECOND < took_ms < 40 * SECOND, "one hold after the last granted heartbeat"
    resting.finish(MINUTE)
    assert [d for d, _ in world.running(task)] not in ([], ["d2"])


def test_a_guard_that_dies_wakes_its_device(resting):
    resting.world.advance(17 * MINUTE)
    resting.world.devices["d2"].kill_guard()
    resting.world.until(lambda: len(resting.world.checkers.starts) == 5, 20 * SECOND, "its service again")
    resting.finish(MINUTE)


def test_a_dead_broker_and_bad_weather_wake_everybody(resting):
    world = resting.world
    world.advance(10 * MINUTE)
    world.restart_broker(1_000)
    assert resting.idle.resting() == 0
    world.advance(2 * MINUTE)
    assert resting.idle.resting() == 4, "and all is quiet again"
    world.network.weather = Weather(lost=0.02)
    world.advance(10 * SECOND)
    assert resting.idle.resting() == 0
    world.advance(MINUTE)
    assert resting.idle.resting() == 0
    resting.finish(SECOND)
    assert len(world.checkers.starts) == 4, "no lease was lost by it"


def test_a_controller_that_does_not_answer_wakes_who_asked(resting):
    world = resting.world
    world.advance(10 * MINUTE)
    world.controller.kill()
    world.advance(11 * SECOND)
    assert resting.idle.resting() == 0, "each asked once in vain"
    world.controller.start()
    world.advance(MINUTE)
    assert resting.idle.resting() == 4
    resting.finish(SECOND)
    assert len(world.checkers.starts) == 4 and world.controller.takeovers == 2


def test_a_database_that_refuses_once_costs_no_lease(resting):
    world = resting.world
    world.advance(5 * MINUTE)
    world.storage.fails = True
    world.advance(4 * SECOND)
    world.storage.fails = False
    world.advance(MINUTE)
    assert resting.idle.resting() == 4 and len(world.checkers.starts) == 4
    resting.finish(SECOND)


# ------------------------------------------------------------- scale


def test_a_fleet_at_scale_is_counted_and_the_same_with_the_same_seed():
    runs = [run_scale(15, 2, store(), seed=5, work=Work(10, 10)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].trace_hash != run_scale(15, 0.1, store(), seed=6, work=Work(10, 10)).trace_hash
    [result, _] = runs
    assert not result.breaches and result.live == 10 and result.lost == 0
    assert result.succeeded == 20 and result.starts == 30
    assert 0.98 < result.heartbeats / (15 * 2 * 360) < 1.03
    assert result.columns > 0.8 * result.heartbeats


def test_without_columns_scale_counts_the_same():
    with_columns = run_scale(10, 0.5, store(), seed=2, work=Work(5, 5))
    without = run_scale(10, 0.5, store(), seed=2, work=Work(5, 5), columns=False)
    assert without.columns == 0
    for name in ("starts", "live", "succeeded", "lost", "breaches"):
        assert getattr(with_columns, name) == getattr(without, name), name
    assert abs(with_columns.heartbeats - without.heartbeats) <= 20
