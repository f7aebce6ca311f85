"""Broken gangs: what is lost is replaced while there is room; else the rest gives way and all waits again."""

from __future__ import annotations

import pytest

from controller.core.broken_gangs import BROKEN, PATIENCE_MS
from controller.core.events import TaskExplained, WaitsQueried
from controller.core.records import AttemptState, Constraint, JobRules
from protocol.core import Connect, LinkDown
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState
from tests.controller.stages import FULL, Stage

GANG = JobRules(gang=True)
PENDING, RUNNING = TaskState.PENDING, TaskState.RUNNING


def states(desk, job, count=2):
    return [desk.task(f"{job}.{i}").state for i in range(count)]


def waits(desk, stage, ms):
    """Time passes; every device speaks, and runs what it is told."""
    until = desk.now + ms
    while desk.now < until:
        desk.after(min(2_000, until - desk.now))
        for device in stage.numbers:
            stage.report(device)


def interrupted(desk, stage, task):
    """The run of a task is lost, through no fault of its own."""
    row = desk.task(task)
    left = [a for a in stage.listed(row.device) if a.row.task != task]
    stage.counts[row.device] += 1
    entries = [(a.row.task, a.row.attempt, RunState.RUNNING) for a in left]
    ended = (task, row.attempt, RunState.INTERRUPTED)
    desk.runs(row.device, stage.numbers[row.device], stage.counts[row.device], *entries, ended)


def broken(desk, how="cordon", devices=2, **more):
    """A gang of two of whom one finds no room any more; the stage, and the device that was shut."""
    stage = Stage(desk, devices)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG, **more)
    stage.run_all()
    gone = desk.task("g.1").device
    desk.decide(gone, how)
    if how == "cordon":
        interrupted(desk, stage, "g.1")
    waits(desk, stage, 4_000)
    return stage, gone


def explained(desk, desk_kit, task):
    return desk_kit.reply(desk.feed(TaskExplained(5, task)))


def test_while_there_is_room_the_lost_one_alone_is_replaced(desk):
    stage, gone = broken(desk, devices=3)
    waits(desk, stage, 2 * PATIENCE_MS)
    assert states(desk, "g") == [RUNNING] * 2 and gone not in (
        desk.task("g.0").device,
        desk.task("g.1").device,
    )
    assert desk.task("g.0").attempt == 1


@pytest.mark.parametrize("how", ["cordon", "drain"])
@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_without_room_the_rest_gives_way_and_all_begins_anew_together(desk, how, guarantee):
    stage, gone = broken(desk, how, guarantee=guarantee)
    assert states(desk, "g") == [RUNNING, PENDING]
    waits(desk, stage, PATIENCE_MS - 10_000)
    assert states(desk, "g") == [RUNNING, PENDING], "patience"
    waits(desk, stage, 20_000)
    assert states(desk, "g") == [PENDING, PENDING] and desk.task("g.0").reason == BROKEN
    assert (desk.task("g.0").failures, desk.task("g.1").failures) == (0, 0)
    desk.placed(job="other", needs=FULL)
    assert desk.task("other.0").state is not PENDING, "its room is anybody's"
    desk.cancel("other")
    desk.decide(gone, "uncordon")
    waits(desk, stage, 4_000)
    assert states(desk, "g") == [RUNNING] * 2


def test_room_that_comes_in_time_ends_the_waiting(desk):
    stage, _ = broken(desk)
    waits(desk, stage, PATIENCE_MS - 10_000)
    stage.join("d3")
    waits(desk, stage, PATIENCE_MS)
    assert states(desk, "g") == [RUNNING] * 2 and desk.task("g.0").attempt == 1
    interrupted(desk, stage, "g.1")  # its room stays, so it is back at once
    waits(desk, stage, 4_000)
    desk.decide("d3", "cordon")
    interrupted(desk, stage, "g.1")
    waits(desk, stage, PATIENCE_MS - 10_000)
    assert states(desk, "g") == [RUNNING, PENDING], "patience begins anew with each break"


def test_a_device_that_is_lost(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG)
    stage.run_all()
    lost = desk.task("g.1").device
    del stage.numbers[lost]
    waits(desk, stage, 50_000)
    assert states(desk, "g") == [RUNNING, PENDING]
    waits(desk, stage, PATIENCE_MS)
    assert states(desk, "g") == [PENDING, PENDING]
    stage.join("d3")
    waits(desk, stage, 4_000)
    assert states(desk, "g") == [RUNNING] * 2


def test_two_halves_that_hold_what_either_needs_come_apart_and_both_run_in_the_end(desk):
    stage = Stage(desk, 4)
    for gang in "gh":
        desk.placed(job=gang, count=2, needs=FULL, rules=GANG)
    stage.run_all()
    shut = [desk.task("g.1").device, desk.task("h.1").device]
    for gang, device in zip("gh", shut, strict=True):
        desk.decide(device, "cordon")
        interrupted(desk, stage, f"{gang}.1")
    waits(desk, stage, 4_000)
    assert states(desk, "g") == states(desk, "h") == [RUNNING, PENDING]
    waits(desk, stage, PATIENCE_MS + 10_000)
    assert states(desk, "g") == [RUNNING] * 2, "the older one has what the other gave up"
    assert states(desk, "h") == [PENDING] * 2
    waits(desk, stage, 4 * PATIENCE_MS)
    assert desk.core.ledger.counters["gangs_broken"] == 1 and desk.task("g.0").attempt == 1
    for device in shut:
        desk.decide(device, "uncordon")
    waits(desk, stage, 4_000)
    assert states(desk, "g") == states(desk, "h") == [RUNNING] * 2


def test_many_halves_settle_and_none_is_left_in_part(desk):
    stage = Stage(desk, 14)
    names = [f"g{i}" for i in range(7)]
    for name in names:
        desk.placed(job=name, count=2, needs=FULL, rules=GANG)
    stage.run_all()
    for device in [desk.task(f"{name}.1").device for name in names]:
        desk.decide(device, "cordon")
    for name in names:
        interrupted(desk, stage, f"{name}.1")
    waits(desk, stage, 6 * PATIENCE_MS)
    whole = [name for name in names if states(desk, name) == [RUNNING] * 2]
    none = [name for name in names if states(desk, name) == [PENDING] * 2]
    assert (len(whole), len(none)) == (3, 4) and desk.core.ledger.counters["gangs_broken"] <= 7


def test_a_member_that_gave_way_to_somebody_more_important(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG)
    stage.run_all()
    desk.placed(job="high", needs=FULL, priority=50)
    waits(desk, stage, 6_000)
    assert sorted(states(desk, "g")) == [PENDING, RUNNING] and desk.task("high.0").state is RUNNING
    waits(desk, stage, PATIENCE_MS + 10_000)
    assert states(desk, "g") == [PENDING, PENDING]
    desk.cancel("high")
    waits(desk, stage, 6_000)
    assert states(desk, "g") == [RUNNING] * 2


def test_a_member_for_whom_others_give_way_has_not_found_no_room(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG, priority=50)
    stage.run_all()
    shut = desk.task("g.1").device
    stage.join("d3")
    desk.placed(job="low", needs=FULL)
    stage.run_all()
    desk.decide(shut, "cordon")
    interrupted(desk, stage, "g.1")
    desk.after(200)
    assert desk.core.nominations.nominated_for("g.1") == "d3"
    assert desk.core.placement.gangs.words(desk.core.ledger.jobs["g"], desk.now) == ""
    waits(desk, stage, 6_000)
    assert states(desk, "g") == [RUNNING] * 2 and desk.task("g.0").attempt == 1


def test_who_is_done_or_paused_breaks_nothing(desk):
    stage = Stage(desk, 2)
    desk.placed(job="g", count=2, needs=FULL, rules=GANG)
    stage.run_all()
    row = desk.task("g.1")
    stage.counts[row.device] += 1
    desk.runs(row.device, stage.numbers[row.device], stage.counts[row.device], ("g.1", 1, RunState.ENDED, 0))
    desk.decide(row.device, "cordon")
    waits(desk, stage, 3 * PATIENCE_MS)
    assert states(desk, "g") == [RUNNING, TaskState.SUCCEEDED]
    row = desk.task("g.0")
    stage.counts[row.device] += 1
    desk.runs(row.device, stage.numbers[row.device], stage.counts[row.device], ("g.0", 1, RunState.ENDED, 1))
    assert desk.core.placement.gangs.words(desk.core.ledger.jobs["g"], desk.now) == ""


def test_what_gave_up_is_not_placed_in_part_while_it_leaves(desk):
    """Room comes up in the seconds in which the rest still stops: one alone must not take it."""
    stage, gone = broken(desk)
    waits(desk, stage, PATIENCE_MS - 6_000)
    del stage.numbers[desk.task("g.0").device]  # it doesn't report: only time frees what runs there
    desk.after(6_000)
    assert [a.row.state for a in desk.core.ledger.attempts.values()] == [AttemptState.REMOVED]
    stage.join("d3")
    desk.after(500)
    assert desk.task("g.1").state is PENDING
    desk.decide(gone, "uncordon")
    waits(desk, stage, 45_000)
    assert states(desk, "g") == [RUNNING] * 2


@pytest.mark.parametrize("moment", [0, 70_000])
def test_a_restart_begins_patience_anew_and_never_places_a_part(desk, moment):
    stage, gone = broken(desk)
    waits(desk, stage, moment)
    desk.take_over()
    waits(desk, stage, PATIENCE_MS - 10_000)
    assert states(desk, "g") == ([PENDING, PENDING] if moment else [RUNNING, PENDING])
    waits(desk, stage, 2 * PATIENCE_MS)
    assert states(desk, "g") == [PENDING, PENDING]
    desk.decide(gone, "uncordon")
    waits(desk, stage, 4_000)
    assert states(desk, "g") == [RUNNING] * 2


def test_a_restart_while_the_rest_leaves_places_no_part_of_it(desk):
    stage, gone = broken(desk)
    waits(desk, stage, PATIENCE_MS - 6_000)
    silent = desk.task("g.0").device
    del stage.numbers[silent]
    desk.after(6_000)
    assert stage.leaving() == ["g.0"]
    desk.take_over()
    stage.join("d3")
    waits(desk, stage, 2_000)
    assert desk.task("g.1").state is PENDING
    desk.decide(gone, "uncordon")
    waits(desk, stage, PATIENCE_MS)
    assert states(desk, "g") == [RUNNING] * 2


@pytest.mark.parametrize("why", ["link", "freeze"])
def test_while_room_can_not_be_seen_nobody_gives_up(desk, why):
    stage, _ = broken(desk)
    core = desk.core
    if why == "link":
        session = next(e.session for e in reversed(desk.said) if isinstance(e, Connect))
        desk.feed(LinkDown(session, "gone"))
        desk.after(2 * PATIENCE_MS)
    else:
        core.failover.frozen[99] = 0
        waits(desk, stage, 2 * PATIENCE_MS)
    assert states(desk, "g") == [RUNNING, PENDING]
    assert core.placement.gangs.words(core.ledger.jobs["g"], desk.now)
    if why == "freeze":
        del core.failover.frozen[99]
        waits(desk, stage, PATIENCE_MS + 10_000)
        assert states(desk, "g") == [PENDING, PENDING]


def test_what_could_fit_nowhere_at_all_gives_way_too(desk):
    stage, gone = broken(desk, "remove")
    del stage.numbers[gone]
    waits(desk, stage, PATIENCE_MS + 50_000)
    assert states(desk, "g") == [PENDING, PENDING]


def test_a_cancel_ends_it(desk):
    stage, _ = broken(desk)
    desk.cancel("g")
    waits(desk, stage, 2 * PATIENCE_MS)
    assert set(states(desk, "g")) == {TaskState.CANCELLED} and "gangs_broken" not in desk.core.ledger.counters


@pytest.mark.parametrize("kind", [JobKind.BATCH, JobKind.SERVICE])
def test_explain_says_so(desk, desk_kit, kind):
    stage, _ = broken(desk, kind=kind, max_attempts=0)
    waits(desk, stage, 11_000)
    view = explained(desk, desk_kit, "g.1")
    assert view.reason == "gang"
    assert view.summary.startswith("its gang is broken: 1 of 2 runs; in 4")
    assert " s the rest gives its room up; " in view.summary
    waiting = desk_kit.reply(desk.feed(WaitsQueried(6, ("g.1",)))).reasons["g.1"]
    assert waiting.startswith("its gang is broken: 1 of 2 runs; in ")
    assert desk.core.explaining.pending(1, desk.now) == {"gang": 1}


def test_one_whose_gang_is_whole_again_is_told_of_as_before(desk, desk_kit):
    stage, _ = broken(desk)
    waits(desk, stage, PATIENCE_MS + 10_000)
    assert explained(desk, desk_kit, "g.1").summary.startswith("only 1 of its gang of 2 fit at once")


def test_grouping_holds_for_the_replacement_and_for_the_whole(desk):
    stage = Stage(desk)
    for i in (2, 3):
        stage.join(f"d{i}")
    apart = (Constraint("device", "distinct_device", ""),)
    desk.placed(job="g", count=2, needs=Resources(1_000, 100), rules=GANG, constraints=apart)
    stage.run_all()
    for device in sorted(stage.numbers):
        if device != desk.task("g.0").device:
            desk.decide(device, "drain")
    waits(desk, stage, PATIENCE_MS + 20_000)
    assert states(desk, "g") == [PENDING, PENDING]


def test_a_bound_of_as_many_as_it_has_keeps_no_lost_one_from_its_place(desk):
    """Its old run, which nobody hears, stands beside its successor for a while."""
    stage = Stage(desk, 4)
    rules = JobRules(gang=True, parallel_max=2)
    desk.placed(job="g", count=2, needs=FULL, guarantee=Guarantee.AT_LEAST_ONE, rules=rules)
    stage.run_all()
    del stage.numbers[desk.task("g.1").device]
    waits(desk, stage, 2 * PATIENCE_MS)
    assert states(desk, "g") == [RUNNING] * 2
    assert (desk.task("g.0").attempt, desk.task("g.1").attempt) == (1, 2)
