"""Pressing: relieves the most loaded device by the one best move, again and again.

For what the stages leave: where no device stays below the goal, the worst one may still hand a
task to one that ends less loaded than it was. Exact and slow (every task of the device against
every device), so it is bounded by tries, the same on every machine.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.arriving import NOWHERE, Allowed
from controller.scheduler.shifts import Needs, Shifts
from controller.scheduler.view import Flags, Floats, Ints

_TRIES_MAX = 40
"""Devices looked at: about a millisecond each in a fleet of 5,000."""
_SAME = 1e-9


def press(shifts: Shifts, allowed: Allowed, goal: float, moves_max: int, gain_min: float) -> None:
    """Until all are at the goal, or nothing more can be gained from the worst, or the tries are over."""
    givers = shifts.devices.gives.copy()
    stuck = np.zeros(givers.size, np.bool_)
    for _ in range(_TRIES_MAX):
        load = np.where(givers & ~stuck, shifts.loads(), -1.0)
        worst = int(load.argmax()) if load.size else NOWHERE
        if (
            worst == NOWHERE
            or load[worst] <= goal * shifts.mean * (1 + 1e-6)
            or len(shifts.moves) >= moves_max
        ):
            return
        if _relieve(shifts, allowed, worst, gain_min):
            stuck[:] = False
        else:
            stuck[worst] = True


def _relieve(shifts: Shifts, allowed: Allowed, worst: int, gain_min: float) -> bool:
    """Makes the move of one of its tasks after which the larger of both loads is smallest."""
    tasks, now = shifts.tasks, {r: shifts.column(r) for r in shifts.reserved}
    mine = np.flatnonzero((tasks.row == worst) & tasks.movable & shifts.unmoved())
    options = []
    for task, needs in zip(mine.tolist(), shifts.needs(mine), strict=True):
        able = shifts.devices.receives & allowed(int(tasks.group[task]))
        after = _after(shifts, now, needs)
        after[~_fits(shifts, now, needs, able)] = np.inf
        target = int(after.argmin())
        left = shifts.load_with(worst, dict(needs), -1)
        larger = max(float(after[target]), left)
        if larger < shifts.load[worst] - _SAME:
            options.append((larger, float(tasks.cost[task]), task, target, needs))
    for _, cost, task, target, needs in sorted(options):
        if shifts.move(task, worst, target, needs, gain_min * (1.0 + cost)):
            return True
    return False


def _fits(shifts: Shifts, now: dict[int, Ints], needs: Needs, able: Flags) -> Flags:
    for r, amount in needs:
        able = able & (shifts.devices.capacity[r] - now[r] >= amount)
    return able


def _after(shifts: Shifts, now: dict[int, Ints], needs: Needs) -> Floats:
    """The load that each device would have with the task as well."""
    wants, result = dict(needs), np.zeros(shifts.part.size)
    for r in shifts.counted:
        share = (now[r] + wants.get(r, 0)) / np.maximum(shifts.devices.capacity[r], 1)
        np.maximum(result, share, out=result)
    return result
