"""Clauses of voluntary moves. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.carrying as carrying_module
import controller.core.rebalance as rebalance_module
from controller.core.carrying import Carrying
from controller.core.rebalance import Rebalance
from controller.core.room_plan import RoomPlans


def _not_since_the_take_over(original):
    def rested(self, attempt, task, now_ms):
        began_ms, self.began_ms = self.began_ms, -1_000_000_000
        found = original(self, attempt, task, now_ms)
        self.began_ms = began_ms
        return found

    return rested


MOVES = (
    Mutation(
        "C4 moves without a cap",
        "that so many attempts are on the move at a time",
        "crowd_is_spread",
        "P9",
        (instead(Carrying, "room", lambda self: 1_000),),
    ),
    Mutation(
        "C4 nothing rests",
        "that an attempt stays three leases where it was put",
        "crowd_is_spread",
        "P9",
        (instead(carrying_module, "COOL_LEASES", 0),),
    ),
    Mutation(
        "C4 nothing rests after a take-over",
        "that who takes over lets everything rest anew",
        "crowd_and_a_take_over",
        "P9",
        (Swap(Carrying, "rested", _not_since_the_take_over),),
    ),
    Mutation(
        "C4 a take-over forgets who is on his way",
        "that moves of an earlier leadership use up the budget",
        "crowds_and_a_successor",
        "P9",
        (does_nothing(Carrying, "recall"),),
    ),
    Mutation(
        "C4 nobody looks",
        "that the controller levels by itself",
        "crowd_is_spread",
        "C4",
        (does_nothing(Rebalance, "_look"),),
    ),
    Mutation(
        "C4 gangs are moved",
        "that gangs and daemons are never moved",
        "crowd_of_a_gang",
        "P9",
        (
            does_nothing(carrying_module, "may_move", True),
            does_nothing(rebalance_module, "may_move", True),
        ),
    ),
    Mutation(
        "C4 no room is made",
        "moves that make room for who waits",
        "room_is_made",
        "C4",
        (does_nothing(RoomPlans, "begin", 0),),
    ),
)
