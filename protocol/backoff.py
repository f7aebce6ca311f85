"""Waits that grow: reconnects of a device, restarts of a task.

Pure: the die comes in as an argument. Full jitter (uniform from zero) because a fleet
that loses its broker must not come back in one instant; the first eight tries stay short
because a five-second blip must not outlast a lease.
Rejected: decorrelated jitter (its first waits are not bounded by anything a lease knows).
"""

from __future__ import annotations

import random

RECONNECT_BASE_MS = 2_000
RECONNECT_FAST_TRIES = 8
RECONNECT_FAST_CAP_MS = 8_000
RECONNECT_CAP_MS = 60_000
RECONNECT_STABLE_MS = 60_000
"""Only a connection that lasted this long resets the count."""
CONTROLLER_RECONNECT_MS = 2_000

RETRY_BASE_MS = 1_000
RETRY_CAP_MS = 300_000


def reconnect_ms(tries: int, rng: random.Random, base_ms: int = RECONNECT_BASE_MS) -> int:
    """Wait before reconnect number `tries` (from 0): uniform(0, min(cap, base x 2^tries))."""
    cap = RECONNECT_FAST_CAP_MS if tries < RECONNECT_FAST_TRIES else RECONNECT_CAP_MS
    cap = max(cap, base_ms)
    return rng.randrange(0, min(cap, base_ms << min(tries, 16)) + 1)


def retry_ms(failures: int, base_ms: int = RETRY_BASE_MS, cap_ms: int = RETRY_CAP_MS) -> int:
    """Wait before a task's next attempt after `failures` failures in a row (from 1): base x 2^(n-1)."""
    return min(cap_ms, base_ms << min(max(failures, 1) - 1, 20))
