"""C6: which of two runs of an `at_least_one` task stays when a lost device comes back."""

from __future__ import annotations

import pytest

from controller.core.fleet import OFFLINE
from controller.core.records import JobRules
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState

EAGER = Guarantee.AT_LEAST_ONE
RUNNING, ENDED, STOPPED = RunState.RUNNING, RunState.ENDED, RunState.STOPPED
CHOOSING = ["keep_original", "longest_running", "best_score"]
BIG = Resources(16_000, 16_384, 10_000, 0)


class Loss:
    """`j1.0` ran as attempt 1 on d1, which was lost; d2 takes the successor, if there is a d2."""

    def __init__(self, desk, kit, rule, second=True, seen=True, kind=JobKind.BATCH, room=BIG):
        self.desk, self.kit = desk, kit
        self.number = desk.join("d1")
        desk.placed(guarantee=EAGER, kind=kind, rules=JobRules(on_return=rule))
        desk.heartbeat("d1", self.number, 10)
        if seen:
            desk.runs("d1", self.number, 2, ("j1.0", 1, RUNNING))
            desk.heartbeat("d1", self.number, 11, runs=2)
        if second:
            desk.join("d2", room=room)
        desk.after(1_000)
        desk.status("d1", self.number, online=False)
        desk.after(1_000)

    def run_on_d2(self, number=2):
        self.desk.heartbeat("d2", self.kit.session(1), 20)
        self.desk.runs("d2", self.kit.session(1), number, ("j1.0", 2, RUNNING))
        self.desk.heartbeat("d2", self.kit.session(1), 21, runs=number)

    def back(self, *entries):
        """d1 connects again, with these runs."""
        session = self.kit.session(2)
        self.desk.status("d1", session)
        self.desk.inventory("d1", session)
        self.desk.runs("d1", session, 1, *entries)
        return self.desk.heartbeat("d1", session, 1)

    def listed(self, device):
        held = self.desk.core.ledger.by_device[self.desk.core.ledger.fleet.index[device]]
        return [(k.task, k.attempt) for k, a in held.items() if a.row.state in ("assigned", "running")]

    @property
    def now(self):
        row = self.desk.task()
        return row.state.value, row.device, row.attempt


@pytest.fixture
def lose(desk, desk_kit):
    return lambda rule, **facts: Loss(desk, desk_kit, rule, **facts)


# ------------------------------------------------------------- the loss


@pytest.mark.parametrize("rule", CHOOSING)
def test_the_lost_attempt_stays_listed_and_has_a_successor(lose, rule):
    loss = lose(rule)
    assert loss.now == ("assigned", "d2", 2)
    assert loss.listed("d1") == [("j1.0", 1)] and loss.desk.attempt(1).state == "running"


def test_newest_takes_it_out_as_ever(lose):
    loss = lose("newest")
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d2", 2) and loss.desk.attempt(1).state == "removed"


def test_what_was_never_told_to_its_device_is_not_kept(desk):
    """No revision lists it, so nothing can run there: it is free at once."""
    number = desk.join()
    desk.placed(guarantee=EAGER)
    desk.placed(job="j2", guarantee=EAGER, rules=JobRules(on_return="keep_original"))
    assert desk.attempt(1, "j2.0").since > desk.document("d1").number, "it still waits to be told"
    desk.status("d1", number, online=False)
    desk.after(2_000)
    assert desk.attempt(1, "j2.0").state == "free" and not desk.core.ledger.elders


# ------------------------------------------------------------- the return


@pytest.mark.parametrize(("rule", "kept"), [("keep_original", 1), ("longest_running", 1), ("best_score", 2)])
def test_one_of_two_runs_stays(lose, rule, kept):
    """d2 has four times the room of d1, so it scores better."""
    loss = lose(rule)
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", f"d{kept}", kept)
    assert loss.desk.attempt(3 - kept).state == "removed" and loss.desk.attempt(kept).state == "running"
    assert loss.listed(f"d{3 - kept}") == []


def test_the_better_device_wins_also_when_it_is_the_older(desk, desk_kit, lose):
    loss = lose("best_score", room=Resources(1_200, 200, 10_000, 0))
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d1", 1)


def test_scoring_leaves_the_room_as_it_was(desk, lose):
    loss = lose("best_score")
    loss.run_on_d2()
    view = desk.core.ledger.fleet.view
    before = [column.copy() for column in view.free], view.turn.copy()
    loss.back(("j1.0", 1, RUNNING))
    assert all((a == b).all() for a, b in zip(before[0], view.free, strict=True))
    assert (before[1] == view.turn).all()


def test_a_run_that_nobody_saw_start_is_not_the_longest(lose):
    loss = lose("longest_running", seen=False)
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d2", 2)


def test_a_run_that_nobody_saw_start_is_the_original_all_the_same(lose):
    loss = lose("keep_original", seen=False)
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d1", 1) and loss.desk.attempt(1).state == "running"


@pytest.mark.parametrize("rule", CHOOSING)
@pytest.mark.parametrize("second", [True, False])
def test_a_successor_that_did_not_start_is_dropped(lose, rule, second):
    """Whether it is placed already or still waits for room."""
    loss = lose(rule, second=second)
    assert loss.now == (("assigned", "d2", 2) if second else ("pending", "", 1))
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d1", 1)
    loss.desk.after(5_000)
    assert loss.now == ("running", "d1", 1) and not loss.desk.core.ledger.elders


@pytest.mark.parametrize("rule", CHOOSING)
def test_a_device_that_lost_it_keeps_nothing(lose, rule):
    loss = lose(rule)
    loss.run_on_d2()
    loss.back()
    assert loss.now == ("running", "d2", 2) and loss.desk.attempt(1).state == "removed"


def test_nothing_is_chosen_before_the_device_is_heard(lose, desk, desk_kit):
    """A report that lay in the broker says that it ran, not that its device lives."""
    loss = lose("keep_original")
    loss.run_on_d2()
    desk.runs("d1", loss.number, 3, ("j1.0", 1, RUNNING))
    fleet = desk.core.ledger.fleet
    assert fleet.state[fleet.index["d1"]] == OFFLINE and loss.now == ("running", "d2", 2)


def test_a_drained_device_gets_nothing_back(lose, desk):
    loss = lose("keep_original")
    loss.run_on_d2()
    desk.decide("d1", "drain")
    desk.after(1_000)
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d2", 2) and desk.attempt(1).state == "removed"


def test_numbers_go_on_from_the_highest(lose, desk, desk_kit):
    loss = lose("keep_original")
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    assert desk.task().handed_out == 2
    desk.runs("d1", desk_kit.session(2), 2, ("j1.0", 1, STOPPED))
    desk.after(1_000)
    assert desk.task().attempt == 3 and desk.task().handed_out == 0


def test_the_one_that_was_kept_may_be_lost_again(lose, desk, desk_kit):
    loss = lose("keep_original")
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    desk.runs("d2", desk_kit.session(1), 3)
    desk.status("d1", desk_kit.session(2), online=False)
    desk.after(5_000)
    assert loss.now == ("assigned", "d2", 3) and loss.listed("d1") == [("j1.0", 1)]


def test_two_losses_keep_the_first(lose, desk, desk_kit):
    """One elder at a time: the second lost attempt leaves the usual way."""
    loss = lose("keep_original")
    loss.run_on_d2()
    desk.join("d3")
    desk.status("d2", desk_kit.session(1), online=False)
    desk.after(1_000)
    assert desk.task().attempt == 3 and desk.attempt(2).state == "removed"
    assert desk.core.ledger.elders["j1.0"].row.attempt == 1


# ------------------------------------------------------------- results


@pytest.mark.parametrize("rule", CHOOSING)
@pytest.mark.parametrize("second", [True, False])
def test_an_elder_that_succeeded_meanwhile_is_the_result(lose, desk, rule, second):
    """Nothing is gained by doing again what is done."""
    loss = lose(rule, second=second)
    if second:
        loss.run_on_d2()
    loss.back(("j1.0", 1, ENDED, 0))
    assert loss.now == ("succeeded", "d1", 1) and desk.store.job("j1").row.state == "succeeded"
    if second:
        assert desk.attempt(2).state == "removed"
        desk.runs("d2", loss.kit.session(1), 3, ("j1.0", 2, ENDED, 1))
        assert loss.now == ("succeeded", "d1", 1) and desk.core.ledger.counters["stale_results"] == 1


def test_an_elder_that_failed_counts_for_nothing(lose, desk):
    loss = lose("keep_original")
    loss.run_on_d2()
    loss.back(("j1.0", 1, ENDED, 1))
    assert loss.now == ("running", "d2", 2) and desk.task().failures == 0
    assert desk.attempt(1).state == "free" and not desk.core.ledger.elders


def test_a_service_has_no_result(lose, desk):
    loss = lose("keep_original", kind=JobKind.SERVICE)
    loss.run_on_d2()
    loss.back(("j1.0", 1, ENDED, 0))
    assert loss.now == ("running", "d2", 2)


def test_the_successor_that_ends_first_is_the_result(lose, desk, desk_kit):
    loss = lose("keep_original")
    loss.run_on_d2()
    effects = desk.runs("d2", desk_kit.session(1), 3, ("j1.0", 2, ENDED, 0))
    assert loss.now == ("succeeded", "d2", 2)
    assert [desk_kit.listed(d) for d in desk_kit.documents(effects, "d1")] == [[]], "in the same commit"
    loss.back(("j1.0", 1, ENDED, 0))
    assert loss.now == ("succeeded", "d2", 2) and desk.core.ledger.counters["stale_results"] == 1


# ------------------------------------------------------------- ends by people and time


@pytest.mark.parametrize("second", [True, False])
def test_a_cancel_takes_both_out(lose, desk, desk_kit, second):
    loss = lose("keep_original", second=second)
    effects = desk.cancel()
    assert [desk_kit.listed(d) for d in desk_kit.documents(effects, "d1")] == [[]]
    assert loss.listed("d1") == [] and desk.attempt(1).state == "removed"
    if second:
        desk.runs("d2", desk_kit.session(1), 2)
    assert desk.task().state is TaskState.CANCELLED


def test_time_to_live_takes_both_out(desk, desk_kit):
    number = desk.running(guarantee=EAGER, ttl_ms=20_000, rules=JobRules(on_return="keep_original"))
    desk.join("d2")
    desk.status("d1", number, online=False)
    desk.after(1_000)
    assert desk.core.ledger.elders
    for beat in range(20):
        desk.after(1_000)
        desk.heartbeat("d2", desk_kit.session(1), 30 + beat)
    assert desk.attempt(1).state == "removed" and desk.attempt(2).state in ("removed", "free")


def test_an_elder_on_a_removed_device_is_over(lose, desk):
    loss = lose("keep_original")
    loss.run_on_d2()
    desk.decide("d1", "remove")
    assert desk.attempt(1).state == "free" and loss.now == ("running", "d2", 2)
    assert not desk.core.ledger.elders


def test_a_quarantined_device_gets_nothing_back_until_somebody_looked(lose, desk, desk_kit):
    loss = lose("keep_original")
    loss.run_on_d2()
    row = desk.core.ledger.fleet.index["d1"]
    desk.core.operators.quarantine(row, desk.now)
    loss.back(("j1.0", 1, RUNNING))
    assert loss.now == ("running", "d2", 2)
    desk.decide("d1", "uncordon")
    desk.runs("d1", desk_kit.session(2), 2, ("j1.0", 1, RUNNING))
    desk.heartbeat("d1", desk_kit.session(2), 2, runs=2)
    assert loss.now == ("running", "d1", 1)


# ------------------------------------------------------------- restarts


@pytest.mark.parametrize("rule", CHOOSING)
@pytest.mark.parametrize("second", [True, False])
def test_a_restart_with_two_of_them_forgets_neither(lose, desk, desk_kit, rule, second):
    loss = lose(rule, second=second)
    if second:
        loss.run_on_d2()
    before = loss.now
    desk.take_over()
    assert [a.row.attempt for a in desk.core.ledger.elders.values()] == [1]
    desk.after(1_000)
    if second:
        desk.runs("d2", desk_kit.session(1), 3, ("j1.0", 2, RUNNING))
        desk.heartbeat("d2", desk_kit.session(1), 40, runs=3)
    desk.after(3_000)
    assert loss.now == before and loss.listed("d1") == [("j1.0", 1)]
    loss.back(("j1.0", 1, RUNNING))
    kept = 2 if rule == "best_score" and second else 1
    assert loss.now == ("running", f"d{kept}", kept) and not desk.core.ledger.elders


def test_a_lost_device_stays_lost_over_a_restart(lose, desk, desk_kit):
    """Offline again, its elder is neither lost a second time nor taken out."""
    loss = lose("keep_original", second=False)
    desk.take_over()
    desk.join("d2", room=BIG)
    for beat in range(90):
        desk.after(1_000)
        desk.heartbeat("d2", desk_kit.session(1), 40 + beat)
    fleet = desk.core.ledger.fleet
    assert fleet.state[fleet.index["d1"]] == OFFLINE
    assert loss.now == ("assigned", "d2", 2) and loss.listed("d1") == [("j1.0", 1)]
    assert desk.core.ledger.counters.get("failovers", 0) == 0


def test_after_a_restart_a_kept_one_is_the_present_attempt(lose, desk, desk_kit):
    loss = lose("keep_original")
    loss.run_on_d2()
    loss.back(("j1.0", 1, RUNNING))
    desk.take_over()
    assert not desk.core.ledger.elders and loss.now == ("running", "d1", 1)
    desk.runs("d1", desk_kit.session(2), 2, ("j1.0", 1, ENDED, 0))
    assert loss.now == ("succeeded", "d1", 1)
