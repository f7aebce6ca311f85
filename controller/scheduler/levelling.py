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
from controller.scheduler.view import Floats

_STEPS_CEILING, _STEPS_LEVEL = 9, 9
_LUMP = 0.2
"""Of its mean task, how far a device falls below the ceiling: no set of tasks is exactly the excess."""
_MARGIN = 0.002
"""Too low costs a few moves more; too high costs one more for nearly every device that was relieved."""


def settled(shifts: Shifts, goal: float) -> float:
    """The estimated goal (a load) of the fleet that is at its goal; at most that of the present one."""
    liquid, present = _Liquid(shifts), goal * shifts.mean
    high, low = present, present / 2
    if liquid.mean_below(high) * goal >= high * (1 - 1e-4):
        return present
    for _ in range(_STEPS_CEILING):
        middle = (high + low) / 2
        if liquid.mean_below(middle) * goal < middle:
            high = middle
        else:
            low = middle
    return high * (1 - _MARGIN)


class _Liquid:
    """The devices that take part, one array per fact."""

    def __init__(self, shifts: Shifts) -> None:
        part = shifts.part
        self.gives, self.receives = shifts.devices.gives[part], shifts.devices.receives[part]
        self.load = shifts.loads()[part]
        held = np.bincount(shifts.tasks.row, minlength=part.size)[part]
        self.lump = _LUMP * self.load / np.maximum(held, 1)
        self.reserved = [shifts.column(r)[part] for r in shifts.counted]
        self.capacity = [shifts.devices.capacity[r][part] for r in shifts.counted]

    def mean_below(self, ceiling: float) -> float:
        """The mean load after everything above the ceiling was poured over the others."""
        over = self.gives & (self.load > ceiling)
        left = np.maximum(ceiling - self.lump, 0.0)
        cut = np.where(over, 1.0 - left / np.maximum(self.load, 1e-12), 0.0)
        takes = self.receives & ~over
        after, poured = np.where(over, left, self.load), []
        for reserved, capacity in zip(self.reserved, self.capacity, strict=True):
            amount = float(cut @ reserved)
            if amount > 0:
                poured.append((reserved[takes] / amount, capacity[takes] / amount))
        if poured:
            after[takes] = np.maximum(after[takes], _level(poured, ceiling))
        return float(after.mean())


def _level(poured: list[tuple[Floats, Floats]], ceiling: float) -> float:
    """The load that the emptiest devices are lifted to: together they then hold all that was cut off."""
    low, high = 0.0, ceiling
    for _ in range(_STEPS_LEVEL):
        level = (low + high) / 2
        share = np.minimum.reduce([level * capacity - reserved for reserved, capacity in poured])
        if np.maximum(share, 0.0).sum() < 1.0:
            low = level
        else:
            high = level
    return high
