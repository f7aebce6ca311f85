"""Clauses that say which of two runs stays. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.loading as loading_module
from controller.core.fleet import ONLINE
from controller.core.holds import Holds
from controller.core.ledger import Ledger
from controller.core.operators import Operators
from controller.core.records import AttemptState
from controller.core.returns import Returns
from controller.core.tasks import Tasks


def _counts_from_its_own(original):
    def keep(self, task, attempt, reason, now_ms):
        original(self, task, attempt, reason, now_ms)
        task.row.handed_out = 0

    return keep


def _unlisted_too(original):
    def look(self, row, now_ms):
        real = self.holds.reported
        self.holds.reported = real | {row: frozenset(self.ledger.by_device[row])}
        original(self, row, now_ms)
        self.holds.reported = real

    return look


def _of_drained_too(original):
    def kept(self, elder):
        draining = self.fleet.draining
        before, draining[elder.device] = bool(draining[elder.device]), False
        found = original(self, elder)
        draining[elder.device] = before
        return found

    return kept


def _but_elders(original):
    return lambda self, row: [a for a in original(self, row) if not self.ledger.is_elder(a)]


def _of_each_loss(original):
    def may_be_kept(self, attempt):
        elder = self.ledger.elders.pop(attempt.row.task, None)
        found = original(self, attempt)
        if elder is not None:
            self.ledger.elders[attempt.row.task] = elder
        return found

    return may_be_kept


def _also_in_quarantine(self, row):
    f = self.fleet
    return bool(f.state[row] == ONLINE and f.runs_session[row] == f.session[row])


def _however_it_ended(original):
    def conclude(self, attempt, entry, now_ms):
        if self.ledger.is_elder(attempt):
            self.keep(attempt, now_ms)
        original(self, attempt, entry, now_ms)

    return conclude


def _as_its_job_chooses(self, elder):
    other = self.holds.tasks.attempt_of(self.ledger.tasks[elder.row.task])
    return other is None or self._stays[elder.job.row.rules.on_return](elder, other)


def _scores_as_it_is(self, elder, other):
    picker = self.placement.picker(elder.job)
    picker.follow()
    return picker.total[elder.device] > picker.total[other.device]


def _only_if_earlier(self, elder, other):
    return elder.row.state is AttemptState.RUNNING and elder.started_ms < other.started_ms


RETURNS = (
    Mutation(
        "C6 the newest stays",
        "that a lost attempt stays listed where its job chooses",
        "original_returns",
        "C6",
        (does_nothing(Holds, "may_be_kept", False),),
    ),
    Mutation(
        "C6 both stay",
        "the removal of the other one in the same commit",
        "original_returns",
        "I3 C6",
        (does_nothing(Returns, "follow"),),
    ),
    Mutation(
        "C6 the dead are chosen",
        "the wait until the device is heard",
        "report_of_the_dead",
        "C6",
        (instead(Returns, "_is_back", lambda self, row: True),),
    ),
    Mutation(
        "C6 a restart forgets",
        "that the listed attempt which is not current is the elder",
        "original_returns_after_a_restart",
        "C6",
        (does_nothing(loading_module, "_is_elder", False),),
    ),
    Mutation(
        "C6 numbers go back",
        "that numbers go on from the highest",
        "original_returns_and_is_lost_again",
        "I15",
        (Swap(Tasks, "keep", _counts_from_its_own),),
    ),
    Mutation(
        "C6 done is done again",
        "that an elder's success is the result",
        "done_while_away",
        "C6",
        (instead(Holds, "keep", lambda self, attempt, now_ms: None),),
    ),
    Mutation(
        "C6 a cancel leaves the elder",
        "that an elder is removed with the end of its task",
        "cancelled_while_two_live",
        "I7",
        (does_nothing(Ledger, "outlive"),),
    ),
    Mutation(
        "C6 the unlisted are chosen",
        "that what the device does not list is removed",
        "forgotten_while_away",
        "C6",
        (Swap(Returns, "look", _unlisted_too),),
    ),
    Mutation(
        "C6 on a drained device too",
        "that a drain removes the elder",
        "drained_while_away",
        "C6",
        (Swap(Returns, "_kept", _of_drained_too), Swap(Operators, "_of", _but_elders)),
        also="the drain itself, which takes elders out like any other",
    ),
    Mutation(
        "C6 an elder of each loss",
        "that a task has one elder",
        "lost_and_lost_again",
        "C6",
        (Swap(Holds, "may_be_kept", _of_each_loss),),
    ),
    Mutation(
        "C6 a quarantine chooses",
        "that a quarantine chooses nothing",
        "quarantined_while_away",
        "C6",
        (instead(Returns, "_is_back", _also_in_quarantine),),
    ),
    Mutation(
        "C6 any end is the result",
        "that any other end of an elder means nothing",
        "failed_while_away",
        "C6",
        (Swap(Holds, "_conclude", _however_it_ended),),
    ),
    Mutation(
        "C6 a start that nobody saw counts",
        "that an elder stays whose successor was not seen to start",
        "successor_not_seen_to_start",
        "C6",
        (instead(Returns, "_kept", _as_its_job_chooses),),
    ),
    Mutation(
        "C6 the longest leaves",
        "that `longest_running` keeps who was seen to start first",
        "longest_returns",
        "C6",
        (does_nothing(Returns, "_ran_longer", False),),
    ),
    Mutation(
        "C6 the longest leaves after a take-over",
        "that of two that were seen before a take-over the elder stays",
        "longest_returns_after_a_restart",
        "C6",
        (instead(Returns, "_ran_longer", _only_if_earlier),),
    ),
    Mutation(
        "C6 who was never seen ran longest",
        "that of an elder that was never seen to start the successor stays",
        "elder_not_seen_to_start",
        "C6",
        (does_nothing(Returns, "_ran_longer", True),),
    ),
    Mutation(
        "C6 the better place leaves",
        "that `best_score` keeps an elder whose device scores higher",
        "better_place_returns",
        "C6",
        (does_nothing(Returns, "_scores_better", False),),
    ),
    Mutation(
        "C6 the worse place stays",
        "that `best_score` keeps an elder only then",
        "worse_place_returns",
        "C6",
        (does_nothing(Returns, "_scores_better", True),),
    ),
    Mutation(
        "C6 places are scored as they are",
        "that `best_score` looks as if neither were there",
        "fuller_place_returns",
        "C6",
        (instead(Returns, "_scores_better", _scores_as_it_is),),
    ),
)
