"""Daemons: a task on every device that matches, from the moment it matches until it no longer does."""

from __future__ import annotations

import random

import pytest

from controller.core.conditions import Constraint
from controller.core.daemons import Match
from controller.core.effects import Reply
from controller.core.events import DeviceDecision
from controller.core.fleet import Fleet
from controller.core.jobs import new_job
from controller.core.records import JobRow, JobState, TaskSpec
from controller.core.requests import Requests
from controller.core.sessions import new_device
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState

RUNNING, ENDED = RunState.RUNNING, RunState.ENDED
ZONE_A = (Constraint("label.zone", "=", "a"),)
LIVE = (TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING)


def daemon(desk, job="mon", **more):
    return desk.submit(job=job, kind=JobKind.DAEMON, count=0, max_attempts=0, **more)


def where(desk, job="mon", states=LIVE):
    return sorted((t.pin, t.state.value) for t in desk.store.tasks(job, limit=1000) if t.state in states)


def taint(desk, device, text, verb="taint"):
    return desk.feed(DeviceDecision(8, device, verb, "tester", text))


def show(desk, device, number, count, task, attempt=1, state=RUNNING, *rest):
    desk.heartbeat(device, number, count, runs=count - 1)
    desk.runs(device, number, count, (task, attempt, state, *rest))
    desk.heartbeat(device, number, count + 1, runs=count)


def test_every_device_that_matches_gets_one_now_and_later(desk):
    desk.join("d1", labels={"zone": "a"})
    desk.join("d2", labels={"zone": "b"})
    [reply] = [e.body for e in daemon(desk, constraints=ZONE_A) if isinstance(e, Reply)]
    assert reply.tasks == 1
    desk.after(200)
    assert where(desk) == [("d1", "assigned")]
    desk.join("d3", labels={"zone": "a"})
    desk.after(200)
    assert where(desk) == [("d1", "assigned"), ("d3", "assigned")] and desk.store.job("mon").row.count == 2


def test_a_device_of_which_nothing_is_known_yet_waits_for_its_inventory(desk):
    daemon(desk)
    desk.decide("d1", "add")
    assert where(desk) == []
    desk.join("d1")
    desk.after(200)
    assert where(desk) == [("d1", "assigned")]


def test_one_that_changes_its_labels_gets_one_or_loses_it(desk):
    number = desk.join("d1", labels={"zone": "b"})
    daemon(desk, constraints=ZONE_A)
    desk.inventory("d1", number, 2, labels={"zone": "a"})
    desk.after(200)
    assert where(desk) == [("d1", "assigned")]
    desk.heartbeat("d1", number, 4, inventory=2)
    show(desk, "d1", number, 5, "mon.0")
    desk.inventory("d1", number, 3, labels={"zone": "b"})
    row = desk.task("mon.0")
    assert (row.desired, row.state) == ("cancelled", TaskState.RUNNING)
    desk.runs("d1", number, 9, ("mon.0", 1, RunState.STOPPED))
    row = desk.task("mon.0")
    assert (row.state, row.reason) == (TaskState.CANCELLED, "device no longer matches: label.zone = a")
    assert desk.store.job("mon").row.state.value == "open", "others may come"


def test_matching_again_while_the_old_run_still_stops_makes_no_second_one_beside_it(desk):
    number = desk.join("d1", labels={"zone": "a"})
    daemon(desk, constraints=ZONE_A)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.inventory("d1", number, 2, labels={})
    desk.inventory("d1", number, 3, labels={"zone": "a"})
    desk.after(500)
    assert where(desk) == [("d1", "running")]
    desk.runs("d1", number, 9, ("mon.0", 1, RunState.STOPPED))
    desk.after(200)
    assert where(desk) == [("d1", "assigned")] and desk.task("mon.1").pin == "d1"


def test_none_waits_behind_another(desk):
    """The first device is full; the others get theirs all the same."""
    desk.join("d1", room=Resources(100, 100, 0, 0))
    desk.join("d2")
    desk.join("d3")
    daemon(desk)
    desk.after(200)
    assert where(desk) == [("d1", "pending"), ("d2", "assigned"), ("d3", "assigned")]


def test_its_failure_restarts_it_on_the_same_device_for_ever(desk):
    number = desk.join("d1")
    desk.join("d2")
    daemon(desk)
    desk.after(200)
    count = 4
    for attempt in range(1, 6):
        show(desk, "d1", number, count, "mon.0", attempt)
        desk.runs("d1", number, count + 1, ("mon.0", attempt, ENDED, 1))
        for _ in range(10):
            desk.after(8_000)
            count += 4
            desk.heartbeat("d1", number, count, runs=count)
            desk.runs("d1", number, count)
        row = desk.task("mon.0")
        assert (row.state, row.device, row.attempt) == (TaskState.ASSIGNED, "d1", attempt + 1)
        count += 4


def test_a_cordon_keeps_it_and_a_drain_ends_its_run_until_the_device_is_open_again(desk):
    number = desk.join("d1")
    daemon(desk)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.decide("d1", "cordon")
    assert where(desk) == [("d1", "running")]
    desk.decide("d1", "drain")
    desk.runs("d1", number, 9, ("mon.0", 1, RunState.STOPPED))
    desk.after(1_000)
    assert where(desk) == [("d1", "pending")] and not desk.core.ledger.fleet.draining[0]
    desk.decide("d1", "uncordon")
    desk.after(200)
    assert where(desk) == [("d1", "assigned")] and desk.task("mon.0").attempt == 2


def test_one_that_joins_cordoned_gets_its_task_when_it_is_opened(desk):
    desk.decide("d1", "add")
    desk.decide("d1", "cordon")
    desk.join("d1")
    daemon(desk)
    desk.after(200)
    assert where(desk) == [("d1", "pending")]
    desk.decide("d1", "uncordon")
    desk.after(200)
    assert where(desk) == [("d1", "assigned")]


def test_a_removed_devices_task_ends_and_one_that_is_added_again_gets_a_new_one(desk):
    number = desk.join("d1")
    daemon(desk, guarantee=Guarantee.AT_LEAST_ONE)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.decide("d1", "remove")
    assert (desk.task("mon.0").state, desk.task("mon.0").reason) == (TaskState.CANCELLED, "device removed")
    desk.decide("d1", "add")
    assert where(desk) == [("d1", "pending")] and desk.task("mon.1").pin == "d1"


def test_an_at_most_one_run_on_a_removed_device_is_waited_for(desk):
    number = desk.join("d1")
    daemon(desk)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.decide("d1", "remove")
    assert (desk.task("mon.0").state, desk.task("mon.0").desired) == (TaskState.RUNNING, "cancelled")
    desk.after(40_000)
    assert desk.task("mon.0").state is TaskState.CANCELLED


@pytest.mark.parametrize("effect", ["no_place", "evict"])
def test_taints_keep_new_ones_away_and_only_an_evicting_one_ends_what_runs(desk, effect):
    desk.join("d1")
    desk.join("d2")
    taint(desk, "d2", f"gpu:{effect}")
    daemon(desk)
    desk.after(200)
    assert where(desk) == [("d1", "assigned")]
    taint(desk, "d1", f"gpu:{effect}")
    desk.after(1_000)
    assert where(desk) == ([("d1", "assigned")] if effect == "no_place" else [])
    taint(desk, "d1", f"gpu:{effect}", "untaint")
    taint(desk, "d2", f"gpu:{effect}", "untaint")
    desk.after(1_000)
    assert where(desk) == [("d1", "assigned"), ("d2", "assigned")]


def test_a_lost_device_keeps_its_at_least_one_daemon_and_its_count(desk):
    number = desk.join("d1")
    daemon(desk, guarantee=Guarantee.AT_LEAST_ONE)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.after(120_000)
    assert where(desk) == [("d1", "running")], "it has nowhere else to go, and may still run"
    desk.status("d1", number, online=True)
    desk.heartbeat("d1", number, 20, runs=5)
    desk.after(500)
    assert (desk.task("mon.0").state, desk.task("mon.0").attempt) == (TaskState.RUNNING, 1)


def test_cancel_ends_all_of_them_even_when_there_are_none(desk):
    daemon(desk, "none", constraints=ZONE_A)
    desk.join("d1")
    daemon(desk)
    desk.after(200)
    desk.cancel("none")
    desk.cancel("mon")
    assert desk.store.job("none").row.state.value == "cancelled"
    desk.join("d2", labels={"zone": "a"})
    desk.runs("d1", 1 << 24, 5)
    desk.after(40_000)
    assert desk.store.job("mon").row.state.value == "cancelled" and where(desk) == []


def test_a_cancel_of_what_had_to_go_anyway_is_told_once(desk):
    number = desk.join("d1", labels={"zone": "a"})
    daemon(desk, constraints=ZONE_A)
    desk.after(200)
    show(desk, "d1", number, 5, "mon.0")
    desk.inventory("d1", number, 2, labels={})
    desk.cancel("mon")
    rows = [entry.row for entry in desk.store.audit(limit=1_000)]
    told = [(row.old, row.new) for row in rows if row.object == "mon.0"]
    assert told.count(("run", "cancelled")) == 1


def test_a_restart_makes_neither_more_nor_fewer(desk):
    numbers = [desk.join(f"d{i}", labels={"zone": "a" if i % 2 else "b"}) for i in range(4)]
    daemon(desk, constraints=ZONE_A)
    desk.after(200)
    before = where(desk)
    for _ in range(3):
        desk.take_over()
        desk.after(100)
        assert where(desk) == before and desk.store.job("mon").row.count == 2
    for i, number in enumerate(numbers):
        desk.heartbeat(f"d{i}", number, 9)
    desk.inventory("d2", numbers[2], 2, labels={"zone": "a"})
    assert [pin for pin, _ in where(desk)] == ["d1", "d2", "d3"]


def test_a_crash_between_a_change_and_its_commit_is_caught_up_with(desk):
    """The inventory was committed with what follows, or neither was; a fresh core looks at both."""
    desk.join("d1", labels={"zone": "a"})
    daemon(desk, constraints=ZONE_A)
    desk.after(200)
    record = desk.core.ledger.fleet.records[0]
    record.labels = {"zone": "b"}
    desk.store.save([record], desk.epoch)  # as a version without daemons might have left it
    desk.take_over()
    desk.after(100)
    assert desk.task("mon.0").desired == "cancelled"


def test_one_device_at_a_time_or_all_at_once_says_the_same():
    """`Match` against the columns that placement asks."""
    rng = random.Random(4)
    for _ in range(60):
        desk_like = _random_fleet(rng)
        spec = TaskSpec(
            constraints=tuple(rng.sample(_CONDITIONS, rng.randrange(4))),
            tolerations=tuple(rng.sample(["gpu", "x=1", "*:no_place"], rng.randrange(3))),
        )
        job = _job(spec)
        columns = Requests(desk_like).demand(job).eligible.values()
        at_once = [all(bool(c[row]) for c in columns) for row in range(desk_like.count)]
        match = Match(job.row)
        assert [match.admits(r) for r in desk_like.records] == at_once


_CONDITIONS = [
    Constraint("label.zone", "=", "a"),
    Constraint("label.zone", "!=", "b"),
    Constraint("label.n", ">", "3"),
    Constraint("profile", "exists", ""),
    Constraint("capacity.memory_mib", ">=", "2000"),
    Constraint("", "distinct_device", ""),
]


def _random_fleet(rng):
    fleet = Fleet()
    for i in range(30):
        record = new_device(f"d{i}", 0)
        record.labels = {k: rng.choice(["a", "b", "5"]) for k in ("zone", "n") if rng.random() < 0.7}
        record.profile = rng.choice(["", "pi"])
        record.capacity = Resources(1_000, rng.choice([1_000, 4_000]))
        record.runtimes = rng.choice([(), ("process",), ("python", "process"), ("python",)])
        record.taints = tuple(rng.sample(["gpu:evict", "x=1:no_place", "y:prefer_not"], rng.randrange(3)))
        fleet.admit(record, None)
    return fleet


def _job(spec):
    return new_job(
        JobRow(
            "j",
            "j",
            JobKind.DAEMON,
            0,
            0,
            Guarantee.AT_MOST_ONE,
            0,
            0,
            30_000,
            spec,
            JobState.OPEN,
            "run",
            0,
            0,
            "",
        )
    )
