"""The two clocks of a live process, in integer milliseconds.

Rule: durations and deadlines are `boottime_ms` (CLOCK_BOOTTIME, which counts suspend and
never jumps); `wall_ms` is data to show to people and is never compared. Rejected:
`time.monotonic()` (stands still while the machine sleeps, so a lease would outlive its
hold) and `time.time()` (a Pi has no clock of its own and jumps years when NTP arrives).
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
NS_PER_MS = 1_000_000


def boottime_ms() -> int:
    """Milliseconds since the machine booted, suspend included. Never goes back."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // NS_PER_MS


def wall_ms() -> int:
    """Milliseconds since 1970 as this machine believes; may jump either way."""
    return time.time_ns() // NS_PER_MS
