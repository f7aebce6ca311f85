"""Vitals: how the device fares, and when a heartbeat is worth telling it.

Rule of this file: health is a level, and telling it costs a dozen bytes of a heartbeat that is
otherwise the same for hours. So it is told when it differs *enough* from what was told in this
session: flags always, the rest by steps, so that a sensor between two degrees tells neither
again and again. Heartbeats may be lost: what was told stays doubtful until that heartbeat is
answered, and is repeated once a minute for a controller that has forgotten.

The round trip of heartbeats is measured here: the median of the last few, because one answer
that waited behind a reconnecting link says nothing of the link. It knows no sensor and no file.
Rejected: a mean (a single trip of a minute spoils the next twenty); telling every heartbeat
(a third more bytes on a metered link, for nothing).
"""

from __future__ import annotations

from collections import deque

from protocol.limits import HEALTH_MAX
from protocol.messages import HEALTH_KNOWN, NO_HEALTH, Health

REPEAT_MS = 60_000
"""A controller that lost what it heard knows again within a minute."""
TEMPERATURE_STEP_C = 2
"""Sensors flicker by one."""
BATTERY_STEP_PERCENT = 5
LATENCY_FACTOR = 2
LATENCY_STEP_MS = 5
"""Twice 1 ms is no news."""
TRIPS = 7
"""Round trips of which the median counts: a minute of heartbeats."""


class Vitals:
    """What the sensors and the link say, against what the controller was told."""

    def __init__(self) -> None:
        self.measured = NO_HEALTH
        self._told: Health | None = None
        self._told_ms = 0
        self._told_seq = 0
        self._sure = False
        """Whether the heartbeat that told it was answered."""
        self._answered = 0
        self._trips: deque[int] = deque(maxlen=TRIPS)

    @property
    def known(self) -> bool:
        """Whether there is anything to tell, so that heartbeats differ from one another."""
        return bool(self.measured.flags & HEALTH_KNOWN)

    @property
    def health(self) -> Health:
        """What would be told now. A latency that the world measured itself counts."""
        if not self.known:
            return NO_HEALTH
        measured = self.measured
        return measured._replace(latency_ms=measured.latency_ms or self._trip_ms())

    def begin(self) -> None:
        """A new session: nothing was told in it, and its link is perhaps another one."""
        self._told, self._told_seq, self._answered = None, 0, 0
        self._trips.clear()

    def read(self, measured: Health) -> bool:
        """Takes what sensors say; whether it should not wait for the next heartbeat."""
        self.measured = measured
        return self.known and self._told is not None and measured.flags != self._told.flags

    def answered(self, seq: int, trip_ms: int) -> None:
        """Heartbeat `seq` of this session was answered. Who has nothing to tell measures nothing."""
        self._sure = self._sure or seq == self._told_seq
        if seq > self._answered:
            self._answered = seq
            if self.known:
                self._trips.append(max(1, min(trip_ms, HEALTH_MAX)))

    def tell(self, seq: int, now_ms: int) -> Health:
        """For heartbeat `seq`, which leaves now: the health, or nothing."""
        health, told = self.health, self._told
        if health == NO_HEALTH:
            return NO_HEALTH
        fresh = self._sure and now_ms - self._told_ms < REPEAT_MS
        if told is not None and fresh and not _differs(health, told):
            return NO_HEALTH
        self._told, self._told_ms, self._told_seq, self._sure = health, now_ms, seq, False
        return health

    def _trip_ms(self) -> int:
        """The median round trip, the lower of two; 0 before the first."""
        return sorted(self._trips)[(len(self._trips) - 1) // 2] if self._trips else 0


def _differs(health: Health, told: Health) -> bool:
    """Whether it is news."""
    if health.flags != told.flags or health.wear_percent != told.wear_percent:
        return True
    return (
        abs(health.temperature_c - told.temperature_c) >= TEMPERATURE_STEP_C
        or abs(health.battery_percent - told.battery_percent) >= BATTERY_STEP_PERCENT
        or _latency_differs(health.latency_ms, told.latency_ms)
    )


def _latency_differs(now_ms: int, told_ms: int) -> bool:
    """The first measurement is always news."""
    low_ms, high_ms = sorted((now_ms, told_ms))
    if not low_ms:
        return high_ms > 0
    return high_ms >= LATENCY_FACTOR * low_ms and high_ms - low_ms >= LATENCY_STEP_MS
