"""Scores: how good a device would be, each a column in 0…1 with a meaning.

Two kinds. A *fit* looks at what would be left of the asked resources after the task was
placed: `left`, one column per asked resource, the share of the offer that stays free, and
`worst`, the smallest of them; never below 0 where the task fits; `out` is a column that it
may answer in. A *trait* looks at the
device alone. What a device does not say of itself (no battery, no thermometer) counts as
good: silence is no fault.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller.scheduler.view import Floats, Rows, View

Fit = Callable[[list[Floats], Floats, Floats], Floats]
Trait = Callable[[View, Rows], Floats]

COOL_C, HOT_C = 50, 80
"""A Pi begins to throttle at 80 °C; at 50 °C heat says nothing."""
NEAR_MS = 50
FLAKY_HALF = 1.0
"""So many recent losses halve the score."""
MEMORY_HALF_MIB = 65_536

# ------------------------------------------------------------- fits


def room(left: list[Floats], worst: Floats, out: Floats) -> Floats:
    """1: all of its scarcest asked resource stays free; 0: it would be full."""
    return worst


def packed(left: list[Floats], worst: Floats, out: Floats) -> Floats:
    """1: the asked resources would be used up; 0: the task would be alone on an endless device."""
    np.copyto(out, left[0])
    for column in left[1:]:
        out += column
    out *= -1.0 / len(left)
    out += 1.0
    return out


def even(left: list[Floats], worst: Floats, out: Floats) -> Floats:
    """1: the asked resources would be equally full; 0: one full, another empty, which strands it."""
    highest = left[0]
    for column in left[1:]:
        highest = np.maximum(highest, column, out=out)
    np.subtract(worst, highest, out=out)
    out += 1.0
    return out


# ------------------------------------------------------------- traits


def cool(view: View, rows: Rows) -> Floats:
    """1 up to 50 °C, falling to 0 at 80 °C; half of that while it throttles itself."""
    score: Floats = np.clip((HOT_C - view.temperature_c[rows]) / (HOT_C - COOL_C), 0.0, 1.0)
    return score * np.where(view.throttled[rows], 0.5, 1.0)


def powered(view: View, rows: Rows) -> Floats:
    """1 on mains; on battery its charge."""
    return np.where(view.on_battery[rows], np.clip(view.battery_percent[rows] / 100.0, 0.0, 1.0), 1.0)


def unmetered(view: View, rows: Rows) -> Floats:
    """1: traffic costs nothing; 0: a metered link."""
    score: Floats = 1.0 - view.metered[rows].astype(np.float64)
    return score


def unworn(view: View, rows: Rows) -> Floats:
    """1: new storage; 0: its rated writes are used up."""
    return 1.0 - np.clip(view.wear_percent[rows] / 100.0, 0.0, 1.0)


def near(view: View, rows: Rows) -> Floats:
    """1: no delay to the broker; 0.5 at 50 ms; towards 0."""
    score: Floats = NEAR_MS / (NEAR_MS + np.maximum(view.latency_ms[rows], 0.0))
    return score


def steady(view: View, rows: Rows) -> Floats:
    """1: no loss and no failed attempt of late; 0.5 at one."""
    return FLAKY_HALF / (FLAKY_HALF + view.flakiness[rows])


def idle(view: View, rows: Rows) -> Floats:
    """1: nothing measured in use; 0: its scarcest resource is."""
    return 1.0 - np.clip(view.busy[rows], 0.0, 1.0)


def rested(view: View, rows: Rows) -> Floats:
    """Highest for who was given something longest ago; the order of turns is what counts."""
    return 1.0 - np.minimum(view.turn[rows], 2**40) * 2.0**-40


def large(view: View, rows: Rows) -> Floats:
    """Grows with memory, below 1."""
    memory = np.maximum(view.offered[1][rows], 0)
    return memory / (memory + float(MEMORY_HALF_MIB))
