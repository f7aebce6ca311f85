"""Leaving: which tasks should leave the devices that are above their ceiling.

A cover problem per device: the cheapest set of tasks whose sum is at least the excess of every
resource. Greedy: the task that takes away most of what is still too much, per weight; between
equals the smallest, because it finds a place most easily. With one resource and equal weights
that is the fewest possible (the largest ones, then the smallest that finishes). All devices at
once: one round of whole-column expressions takes one task from each.
It doesn't know where the tasks go.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.imbalance import Placed
from controller.scheduler.view import Flags, Floats, Ints


def choose(
    tasks: Placed, candidates: Ints, excess: dict[int, Ints], size: dict[int, Floats]
) -> tuple[Ints, Ints]:
    """Tasks that should leave, and in which round each was chosen.

    `candidates`: tasks that may leave, ordered by device. `excess` and `size` per resource that
    counts: how much too much is reserved on each device (positive: over), and how much is 1 of load.
    """
    row = tasks.row[candidates]
    begins = np.flatnonzero(np.diff(row, prepend=-1))
    if not begins.size:
        return candidates[:0], candidates[:0]
    device, place = row[begins], np.repeat(np.arange(begins.size), np.diff(begins, append=row.size))
    over = {
        r: column[device].astype(np.float64) for r, column in excess.items() if (column[device] > 0).any()
    }
    amount = {r: tasks.amounts[r][candidates].astype(np.float64) for r in over}
    scale = {r: 1.0 / size[r][device] for r in over}
    whole = np.sum([amount[r] * scale[r][place] for r in over], axis=0) if over else np.zeros(row.size)
    weight, free = 1.0 + tasks.cost[candidates], np.ones(row.size, np.bool_)
    rounds: list[Ints] = []
    while over:
        relief = np.zeros(row.size)
        for r, still in over.items():
            relief += np.minimum(amount[r], np.maximum(still, 0.0)[place]) * scale[r][place]
        taken = _best(np.where(free, relief / weight, 0.0), whole, place, begins)
        if not taken.size:
            break
        free[taken] = False
        for r, still in over.items():
            still[place[taken]] -= amount[r][taken]
        rounds.append(taken)
    return _without_the_needless(rounds, over, amount, place, candidates)


def _best(value: Floats, whole: Floats, place: Ints, begins: Ints) -> Ints:
    """Per device the position of the largest value above 0; then the smallest task, then the first."""
    best = np.maximum.reduceat(value, begins)
    among = (value >= best[place] * (1 - 1e-12)) & (value > 0)
    smallest = np.minimum.reduceat(np.where(among, whole, np.inf), begins)
    found = np.flatnonzero(among & (whole <= smallest[place]))
    return found[np.diff(place[found], prepend=-1) > 0]


def _without_the_needless(
    rounds: list[Ints], over: dict[int, Floats], amount: dict[int, Floats], place: Ints, candidates: Ints
) -> tuple[Ints, Ints]:
    """What was chosen early may have become needless by what was chosen after: drops it again."""
    tasks, numbers = [candidates[:0]], [candidates[:0]]
    for number, taken in enumerate(rounds):
        needless: Flags = np.ones(taken.size, np.bool_)
        for r, still in over.items():
            needless &= still[place[taken]] + amount[r][taken] <= 0
        for r, still in over.items():
            still[place[taken[needless]]] += amount[r][taken[needless]]
        kept = taken[~needless]
        tasks.append(candidates[kept])
        numbers.append(np.full(kept.size, number, np.int64))
    return np.concatenate(tasks), np.concatenate(numbers)
