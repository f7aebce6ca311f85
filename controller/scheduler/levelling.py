"""Levelling: where the goal will be once everybody is at it, before anything has moved.

The goal is a multiple of the mean load, and the mean falls when work goes from small devices to
large ones, or next to what other work leaves idle. Chasing it would move a second time from each
device. So: as if work were a liquid. What is above the ceiling is cut off, its mixture of
resources is poured over the least loaded devices, and the mean is read; bisection finds the
ceiling that is the goal of its own outcome. Tasks are lumps, so this is an estimate, no promise.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.shifts import Shifts
from controller.scheduler.view import Flags, Floats

_STEPS_CEILING, _STEPS_LEVEL = 9, 9
_MARGIN = 0.998
"""Too low costs a few moves more; too high costs one more for nearly every device that was relieved."""


def settled(shifts: Shifts, goal: float) -> float:
    """The estimated goal (a load) of the fleet that is at its goal; at most that of the present one."""
    load, present = shifts.loads()[shifts.part], goal * shifts.mean
    high, low = present, present / 2
    if _outcome(shifts, load, high) * goal >= high * _MARGIN:
        return present
    for _ in range(_STEPS_CEILING):
        middle = (high + low) / 2
        if _outcome(shifts, load, middle) * goal < middle:
            high = middle
        else:
            low = middle
    return high * _MARGIN


def _outcome(shifts: Shifts, load: Floats, ceiling: float) -> float:
    """The mean load after everything above the ceiling was poured over the others."""
    part, gives, receives = shifts.part, shifts.devices.gives, shifts.devices.receives
    over = gives[part] & (load > ceiling)
    cut = np.where(over, 1.0 - ceiling / np.maximum(load, 1e-12), 0.0)
    takes: Flags = receives[part] & ~over
    room = []
    for r in shifts.counted:
        reserved, capacity = np.array(shifts.reserved[r])[part], shifts.devices.capacity[r][part]
        amount = float(cut @ reserved)
        if amount > 0:
            room.append((reserved[takes] / amount, capacity[takes] / amount))
    left = np.where(over, ceiling, load)
    if not room:
        return float(left.mean())
    low, high = 0.0, ceiling
    for _ in range(_STEPS_LEVEL):
        level = (low + high) / 2
        share = np.minimum.reduce([level * capacity - reserved for reserved, capacity in room])
        if np.maximum(share, 0.0).sum() < 1.0:
            low = level
        else:
            high = level
    left[takes] = np.maximum(left[takes], high)
    return float(left.mean())
