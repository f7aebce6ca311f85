"""Leases: until when an attempt may run without news from the controller.

Rule of this file: a grant is for exactly one revision, in one session, for a heartbeat
this process sent (D2). It counts from the moment that heartbeat left, and leaves the
guard the time it needs to kill: deadline = sent + lease - K (L1).
It knows neither topics nor processes, and compares nothing with the clock: who starts a
run, and the guard behind it, do that.
Rejected: wall-clock expiry (a board without RTC); remembering grants of other revisions
(a stale one started what the controller had already moved).
"""

from __future__ import annotations

from protocol.limits import KILL_MS
from protocol.messages import AssignedAttempt
from protocol.tasks import Guarantee

NO_DEADLINE = 0


class LeaseBook:
    """The best grant of the present document in the present session."""

    def __init__(self) -> None:
        self.sent_ms: int | None = None

    def forget(self) -> None:
        """A new document or a new session: earlier grants say nothing of it."""
        self.sent_ms = None

    def grant(self, sent_ms: int) -> bool:
        """Take a grant for the heartbeat sent then; whether it says more than we knew."""
        if self.sent_ms is not None and sent_ms <= self.sent_ms:
            return False
        self.sent_ms = sent_ms
        return True

    def deadline_ms(self, attempt: AssignedAttempt) -> int | None:
        """The deadline of an attempt of the document; `None`: no grant covers it. 0: needs none."""
        if attempt.guarantee is Guarantee.AT_LEAST_ONE:
            return NO_DEADLINE
        return None if self.sent_ms is None else self.sent_ms + attempt.lease_ms - KILL_MS
