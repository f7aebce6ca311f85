"""Plans of voluntary moves while the world moves on: losses, freezes, windows, take-overs; and drains."""

from __future__ import annotations

from controller.core.events import DeviceDecision, FleetQueried, FleetUnfrozen, JobCancelled
from controller.core.records import Constraint, JobRules
from controller.core.rules import Rules
from controller.core.windows import Window, read_window
from controller.scheduler.balance import Aims
from protocol.resources import Resources
from tests.controller.yard import COOL_MS, ROOM

# ------------------------------------------------------------------------- the world moves on


def test_moves_that_make_no_sense_any_more_are_skipped_and_say_why(yard):
    y = yard(devices=3).crowd(8)
    plan = y.ask()
    gone, shut = plan.moves[0], next(m for m in plan.moves if m.target == "d2")
    y.desk.feed(DeviceDecision(3, "d2", "cordon", "ada"))
    task = y.core.ledger.tasks[gone.task]
    y.listen()
    y.report("d0", **{gone.task: 0})
    assert task.row.state == "succeeded"
    y.approve(plan.id)
    y.live(5_000)
    found = {m.task: m for m in y.plan(plan.id).moves}
    assert found[gone.task].reason == "its attempt is over"
    if shut.task != gone.task:
        assert found[shut.task].reason == "d2 takes nothing at the moment"
    states = {m.state for m in found.values()}
    assert states == {"moved", "skipped"} and y.plan(plan.id).state == "done"
    assert y.count()["d2"] == 0


def test_a_plan_of_which_nothing_is_left_is_stale(yard):
    y = yard(devices=2).crowd(8)
    plan = y.ask()
    y.desk.decide("d1", "cordon")
    refused = y.approve(plan.id)
    assert refused.code == "conflict" and "makes sense any more" in refused.detail
    assert y.plan(plan.id).state == "stale"


def test_room_on_the_target_is_kept_while_the_task_is_on_its_way(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.submit(job="thief", count=10, needs=Resources(500, 64))
    y.live(2_000)
    assert y.count() == {"d0": 8, "d1": 4}  # only what the plan leaves
    y.deaf_to = set()
    y.live(5_000)
    assert [m.landed for m in y.plan(plan.id).moves] == ["d1"] * 4


def test_a_target_that_is_lost_lets_the_task_go_wherever_there_is_room(yard):
    y = yard(devices=3).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.silent = {"d2"}
    y.live(28_000)
    assert not y.core.ledger.fleet.view.ready[2] and {m.state for m in y.plan(plan.id).moves} == {"moving"}
    y.deaf_to = set()
    y.live(20_000)
    assert {m.landed for m in y.plan(plan.id).moves if m.target == "d2"} <= {"d0", "d1"}
    assert y.plan(plan.id).state == "done" and len(y.running()) == 8 and not y.core.nominations.by_task


def test_a_cancel_on_the_way_ends_the_task_and_frees_what_was_kept(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.feed(JobCancelled(2, "j1", "ada"))
    y.deaf_to = set()
    y.live(5_000)
    found = y.plan(plan.id)
    assert found.state == "done" and found.counts["over"] == 4 and y.count() == {"d0": 0, "d1": 0}
    assert not y.core.nominations.by_task and y.core.ledger.fleet.free_of(1) == ROOM._replace(
        slots=y.core.ledger.fleet.offered_of(1).slots
    )


def test_nothing_moves_while_failover_is_frozen(yard):
    y = yard(Rules("spread", rebalance="auto"), devices=30)
    y.crowd(8)
    y.silent = {f"d{i}" for i in range(12, 30)}
    y.live(40_000)
    assert y.core.failover.frozen
    plan = y.ask(approve=True)
    y.live(10_000)
    assert (y.plan(plan.id).state, y.plan(plan.id).reason) == ("approved", "failover is frozen")
    assert y.count()["d0"] == 8 and y.plans().waits == "failover is frozen"
    y.desk.feed(FleetUnfrozen(4, "ada"))
    y.live(10_000)
    assert y.plan(plan.id).state == "done"


def test_nothing_moves_while_the_controller_is_deaf(yard):
    y = yard().crowd(8)
    y.desk.broker_answers = False
    y.live(12_000)
    plan = y.ask(approve=True)
    y.live(6_000)
    assert y.plan(plan.id).state == "approved" and "own messages" in y.plan(plan.id).reason
    y.desk.broker_answers = True
    y.live(15_000)
    assert y.plan(plan.id).state == "done"


def test_moves_begin_only_in_a_maintenance_window(yard, desk_kit):
    wall_minute = (1_700_000_000_000 + 1_000_000) // 60_000 % 1_440  # a Tuesday evening, as the desk has it
    window = Window(127, wall_minute + 5, wall_minute + 8)
    y = yard(Rules("spread", windows=(window,))).crowd(8)
    plan = y.ask(approve=True)
    assert plan.state == "approved" and y.plans().waits == "no maintenance window is open"
    y.live(60_000)
    assert y.count()["d0"] == 8 and y.plan(plan.id).reason == "no maintenance window is open"
    y.live(180_000)
    assert y.plan(plan.id).state == "done" and sorted(y.count().values()) == [2, 3, 3]


def test_a_take_over_in_the_middle_forgets_the_plan_and_loses_nothing(yard):
    y = yard(devices=3).crowd(8)
    y.deaf_to = {"d0"}
    plan = y.ask()
    y.approve(plan.id)
    y.live(1_000)
    y.desk.take_over()
    y.deaf_to = set()
    assert y.plan(plan.id).code == "not_found"
    y.live(60_000)
    assert len(y.running()) == 8 and sum(y.count().values()) == 8
    assert y.count()["d0"] == 3  # what had begun to move has moved


def test_what_an_earlier_leader_began_to_move_still_uses_up_the_budget(yard):
    y = yard(devices=3).crowd(8)
    y.deaf_to = {"d0"}
    begun = len(y.ask(approve=True).moves)
    y.desk.take_over()
    carrying, budget = y.core.rebalance.carrying, y.core.operators.budget()
    assert begun == 5 and carrying.room() == budget - begun
    y.deaf_to = set()
    y.live(60_000)
    assert carrying.room() == budget


def test_a_take_over_lets_everything_cool_down_anew(yard):
    y = yard().crowd(8)
    y.desk.take_over()
    y.live(COOL_MS - 10_000)
    assert y.ask(dry_run=True).moves == []  # it does not know when anybody came
    y.live(20_000)
    assert y.ask(dry_run=True).moves


# ------------------------------------------------------------------------- drains


def test_a_drain_is_a_plan_that_tells_where_its_tasks_go(yard):
    y = yard(devices=3).crowd(6)
    y.desk.submit(job="only", needs=Resources(100, 64), constraints=(Constraint("device", "=", "d0"),))
    y.live(2_000)
    y.desk.decide("d0", "drain")
    [plan] = y.plans().items
    assert (plan.kind, plan.device, plan.state) == ("drain", "d0", "running")
    whole = y.plan(plan.id)
    assert len(whole.moves) == 6 and whole.homeless == ["only.0"] and not whole.reached
    foreseen = {m.task: m.target for m in whole.moves}
    y.live(10_000)
    done = y.plan(plan.id)
    assert done.state == "done" and {m.task: m.landed for m in done.moves} == foreseen
    assert y.approve(plan.id).code == "conflict"


def test_a_drain_that_is_taken_back_says_so(yard):
    y = yard(devices=2).crowd(8)
    y.deaf_to = {"d0"}
    y.desk.decide("d0", "drain")
    y.live(1_000)
    y.desk.decide("d0", "uncordon")
    y.live(2_000)
    [plan] = y.plans().items
    assert plan.state == "rejected" and "opened again" in plan.reason


def test_figures_are_in_the_overview(yard, desk_kit):
    y = yard().crowd(8)
    y.approve(y.ask().id)
    y.live(5_000)
    view = desk_kit.reply(y.desk.feed(FleetQueried(4)))
    assert view.balance["most_load"] == 0.375 and view.counters["rebalance_moves"] == 5


def test_windows_read_and_open():
    monday_0 = 4 * 86_400_000  # 1970-01-05
    at = lambda day, hour, minute=0: monday_0 + ((day * 24 + hour) * 60 + minute) * 60_000  # noqa: E731
    night = read_window("mon-fri 22:00-06:00")
    assert night.open_at(at(0, 22)) and night.open_at(at(1, 5, 59)) and not night.open_at(at(1, 6))
    assert not night.open_at(at(0, 3)) and night.open_at(at(5, 3)) and not night.open_at(at(5, 22))
    assert read_window("sat+sun 00:00-24:00").open_at(at(6, 23, 59))
    assert str(read_window("SAT-MON 01:30-02:00")) == "mon+sat+sun 01:30-02:00"
    assert Aims().goal == 1.10


def test_a_move_whose_turn_another_of_its_job_took_waits_like_any_other(yard):
    """It fails by itself on its way out; in its pause the job's last task goes: the job is at its bound."""
    y = yard(devices=2)
    y.desk.decide("d1", "cordon")
    y.desk.submit(count=5, needs=Resources(500, 64), rules=JobRules(parallel_max=4))
    y.live(3_000)
    y.desk.decide("d1", "uncordon")
    y.live(COOL_MS)
    job, moved = y.core.ledger.jobs["j1"], y.ask(approve=True).moves[0].task
    y.report("d0", **{moved: 1})
    for _ in range(30):
        y.desk.after(100)
        assert len(job.placed) <= 4
    assert y.core.ledger.tasks["j1.4"].row.attempt == 1
    assert y.core.nominations.nominated_for(moved) is None
