"""Pace: a burst, then a steady rate, in one integer.

The generic cell rate algorithm (ITU-T I.371): `tat` is when the next one would be due if
all came evenly spaced; up to `burst - 1` may come before that. Pure: time is an argument.
Rejected: a bucket with a fill level (a float and a time where one integer does).
"""

from __future__ import annotations


class Pace:
    """Admits `burst` at once and then one every `interval_ms`."""

    __slots__ = ("interval_ms", "slack_ms", "tat_ms")

    def __init__(self, burst: int, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.slack_ms = (burst - 1) * interval_ms
        self.tat_ms = 0

    def due_ms(self) -> int:
        """From when on the next one is admitted."""
        return self.tat_ms - self.slack_ms

    def admits(self, now_ms: int) -> bool:
        return now_ms >= self.due_ms()

    def take(self, now_ms: int) -> None:
        """One was let through."""
        self.tat_ms = max(now_ms, self.tat_ms) + self.interval_ms
