"""Taints on devices with work: what may not stay leaves like at a drain, a few at a time."""

from __future__ import annotations

from controller.core.events import DeviceDecision
from controller.core.operators import MOVES_AT_ONCE
from controller.core.records import AttemptState
from protocol.resources import Resources
from protocol.tasks import RunState, TaskState

SMALL = Resources(10, 10)
RUNNING = RunState.RUNNING


def taint(desk, device, text, verb="taint"):
    return desk.feed(DeviceDecision(8, device, verb, "tester", text))


def tolerant(desk, job, *tolerations, count=1):
    """`desk.submit` says nothing of tolerations: they are put on before the job is placed."""
    desk.submit(job=job, count=count, needs=SMALL)
    desk.core.ledger.jobs[job].row.spec.tolerations = tolerations
    desk.core.ledger.jobs[job].demand_era = (-1, -1)
    desk.core.ledger.jobs[job].signature += str(tolerations)
    desk.after(200)


def all_running(desk, number, count=5, device="d1"):
    for seq in (1, 2, 3):  # so that every assignment is told and granted
        desk.heartbeat(device, number, 100 * count + seq)
        desk.after(1_000)
    row = desk.core.ledger.fleet.index[device]
    entries = [(a.row.task, a.row.attempt, RUNNING) for a in desk.core.ledger.by_device[row].values()]
    desk.runs(device, number, count, *entries)
    desk.heartbeat(device, number, count + 1, runs=count)


def removed(desk):
    return [a for a in desk.core.ledger.attempts.values() if a.row.state is AttemptState.REMOVED]


def test_no_place_and_prefer_not_send_nobody_away(desk):
    number = desk.join()
    desk.placed()
    all_running(desk, number)
    for text in ("gpu:no_place", "slow:prefer_not"):
        taint(desk, "d1", text)
    desk.after(5_000)
    assert desk.task().state is TaskState.RUNNING and not removed(desk)


def test_evict_sends_away_who_does_not_tolerate_it(desk):
    number = desk.join()
    tolerant(desk, "j1")
    tolerant(desk, "j2", "gpu")
    tolerant(desk, "j3", "*:no_place")
    all_running(desk, number)
    desk.join("d2")
    taint(desk, "d1", "gpu:evict")
    assert sorted(a.row.task for a in removed(desk)) == ["j1.0", "j3.0"]
    desk.runs("d1", number, 9, ("j2.0", 1, RUNNING))
    desk.after(1_000)
    assert desk.task("j1.0").device == "d2" and desk.task("j3.0").device == "d2"
    assert desk.task("j2.0").state is TaskState.RUNNING
    assert desk.attempt(1, "j1.0").reason == "evicted by a taint" and desk.task("j1.0").failures == 0


def test_it_is_a_voluntary_move_within_the_budget_of_all_of_them(desk):
    number = desk.join()
    desk.placed(count=MOVES_AT_ONCE + 5, needs=SMALL)
    all_running(desk, number)
    taint(desk, "d1", "gpu:evict")
    assert len(removed(desk)) == MOVES_AT_ONCE
    desk.after(2_000)
    assert len(removed(desk)) == MOVES_AT_ONCE, "the others wait until these are gone"
    gone = {a.row.task for a in removed(desk)}
    attempts = list(desk.core.ledger.attempts.values())
    left = [(a.row.task, 1, RUNNING) for a in attempts if a.row.task not in gone]
    desk.runs("d1", number, 9, *left)
    desk.heartbeat("d1", number, 10, runs=9)
    desk.after(1_000)
    assert len(removed(desk)) == 5


def test_taking_the_taint_off_ends_the_eviction(desk):
    number = desk.join()
    desk.placed(count=MOVES_AT_ONCE + 5, needs=SMALL)
    all_running(desk, number)
    taint(desk, "d1", "gpu:evict")
    taint(desk, "d1", "gpu:evict", "untaint")
    assert desk.core.operators.evicting == {}
    going = {a.row.task for a in removed(desk)}
    left = [(f"j1.{i}", 1, RUNNING) for i in range(MOVES_AT_ONCE + 5) if f"j1.{i}" not in going]
    desk.runs("d1", number, 9, *left)
    desk.heartbeat("d1", number, 10, runs=9)
    desk.after(5_000)
    assert sum(desk.task(f"j1.{i}").attempt == 1 for i in range(MOVES_AT_ONCE + 5)) == 5


def test_an_eviction_goes_on_after_a_restart(desk):
    number = desk.join()
    desk.placed(count=MOVES_AT_ONCE + 5, needs=SMALL)
    all_running(desk, number)
    taint(desk, "d1", "gpu:evict")
    desk.take_over()
    gone = {a.row.task for a in removed(desk)}
    left = [(f"j1.{i}", 1, RUNNING) for i in range(MOVES_AT_ONCE + 5) if f"j1.{i}" not in gone]
    assert len(gone) == MOVES_AT_ONCE and len(left) == 5
    desk.heartbeat("d1", number, 20, runs=5)
    desk.runs("d1", number, 21, *left)
    desk.heartbeat("d1", number, 22, runs=21)
    desk.after(1_000)
    assert {a.row.task for a in removed(desk)} == {t for t, _, _ in left}


def test_a_drained_device_with_such_a_taint_is_drained_once(desk):
    number = desk.join()
    desk.placed(needs=SMALL)
    all_running(desk, number)
    taint(desk, "d1", "gpu:evict")
    desk.decide("d1", "drain")
    desk.runs("d1", number, 9)
    desk.after(1_000)
    assert desk.core.operators.draining == {} == desk.core.operators.evicting
    assert not desk.core.ledger.fleet.draining[0] and desk.core.ledger.fleet.cordoned[0]
