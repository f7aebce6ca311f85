"""Condition: heat, voltage, battery, wear, distance and flakiness of devices.

What devices say in heartbeats is written into columns at once; scores and guards look at
it every ten seconds, because a whole-fleet look costs more than the news is worth. A hard
guard keeps new work away; nothing that runs is stopped for it. Flakiness counts losses
and failed attempts and halves each hour, so that a device can earn its name back. It is
not stored: after a take-over every device begins with a clean sheet.
"""

from __future__ import annotations

import numpy as np

from controller.core.fleet import Flags, Fleet, Ints
from protocol.messages import (
    HEALTH_KNOWN,
    METERED,
    NO_HEALTH,
    ON_BATTERY,
    THROTTLED,
    UNDERVOLTAGE,
    Health,
)

REFRESH_MS = 10_000
HALF_MS = 3_600_000
FLAKY_MAX = 6.0
"""So many losses within the hour: nothing new until it has been quiet for a while."""
GUARD_C = 85
"""Where a Pi's firmware throttles hard."""
GUARD_BATTERY_PERCENT = 15
LOST, FAILED = 1.0, 0.25
"""What a lost device, and what a failed attempt on it, adds: a task may fail by its own fault."""
FAILED_MAX = FLAKY_MAX / 2
"""So much at most by failed attempts: a hundred tasks of one bad job must not shut a fleet to all others."""


class Condition:
    """Writes the condition columns of a fleet's view."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.due_ms = 0
        self._decayed_ms: int | None = None

    def note_health(self, rows: Ints, health: Ints) -> None:
        """Health rows (n, 5) of these devices, as their heartbeats told them; flags 0: nothing was said."""
        told = health[:, 0] > 0
        if not told.any():
            return
        rows, health = rows[told], health[told]
        view, flags = self.fleet.view, health[:, 0]
        view.told[rows] = True
        view.throttled[rows] = (flags & THROTTLED) > 0
        view.undervoltage[rows] = (flags & UNDERVOLTAGE) > 0
        view.on_battery[rows] = (flags & ON_BATTERY) > 0
        view.metered[rows] = (flags & METERED) > 0
        view.temperature_c[rows], view.battery_percent[rows] = health[:, 1], health[:, 2]
        view.wear_percent[rows], view.latency_ms[rows] = health[:, 3], health[:, 4]

    def blame(self, row: int, weight: float, now_ms: int) -> None:
        """A loss, or an attempt that failed there; the guard sees it when it looks next."""
        self._decay(now_ms)
        before = float(self.fleet.view.flakiness[row])
        most = np.inf if weight >= LOST else max(before, FAILED_MAX)
        self.fleet.view.flakiness[row] = min(before + weight, most)

    def _decay(self, now_ms: int) -> None:
        """What was noted until now is worth less; what is noted from now on must not be aged with it."""
        if self._decayed_ms is not None and now_ms > self._decayed_ms:
            self.fleet.view.flakiness *= 0.5 ** ((now_ms - self._decayed_ms) / HALF_MS)
        self._decayed_ms = now_ms

    def refresh(self, now_ms: int) -> None:
        """Lets scores and guards see what was noted since, at most every ten seconds."""
        if now_ms < self.due_ms:
            return
        view = self.fleet.view
        self._decay(now_ms)
        self.due_ms = now_ms + REFRESH_MS
        busy = np.zeros(view.count)
        for i, used in enumerate(self.fleet.used):
            np.maximum(busy, used[: view.count] * view.scale[i], out=busy)
        view.busy[:] = busy
        before, view.fit[:] = view.fit.copy(), self.guarded()
        if (view.fit & ~before).any():
            self.fleet.room_generation += 1
        view.touch_all()

    def guarded(self) -> Flags:
        """Devices that no guard keeps from new work."""
        view = self.fleet.view
        bad: Flags = (view.temperature_c >= GUARD_C) | view.undervoltage
        bad |= view.on_battery & (view.battery_percent < GUARD_BATTERY_PERCENT)
        bad |= view.flakiness >= FLAKY_MAX
        return ~bad


def health_of(fleet: Fleet, row: int) -> Health:
    """What a device said of itself last; `NO_HEALTH` when it never did."""
    view = fleet.view
    if not view.told[row]:
        return NO_HEALTH
    bits = (
        (True, HEALTH_KNOWN), (view.throttled[row], THROTTLED), (view.undervoltage[row], UNDERVOLTAGE),
        (view.on_battery[row], ON_BATTERY), (view.metered[row], METERED),
    )  # fmt: skip
    rest = (view.temperature_c, view.battery_percent, view.wear_percent, view.latency_ms)
    return Health(sum(bit for said, bit in bits if said), *[int(column[row]) for column in rest])
