"""Clauses that say which of two runs stays. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.loading as loading_module
from controller.core.holds import Holds
from controller.core.ledger import Ledger
from controller.core.returns import Returns
from controller.core.tasks import Tasks


def _counts_from_its_own(original):
    def keep(self, task, attempt, reason, now_ms):
        original(self, task, attempt, reason, now_ms)
        task.row.handed_out = 0

    return keep


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
)
