"""Heartbeats: when the next is due, and when each was sent.

Rule of this file: it is the only place that numbers heartbeats and remembers when they
left; a grant counts from there (L1), so a late or doubled one is harmless.
The period is the shortest wish among: own setting, the controller's, a third of the
shortest lease held. Unanswered for 2 s: again, with a new seq, for as long as a lease may
still be saved. Repeats keep 1 s distance; only a new document is worth one at once.
It knows nothing of what an answer grants. Rejected: counting a lease from the receipt of
its answer (a broker may hold it for half a minute).
"""

from __future__ import annotations

from collections import OrderedDict

from protocol import limits as lim
from protocol.messages import NO_HEALTH, Health, Heartbeat, Held, Used

SENT_MAX = 256
"""Heartbeats remembered; older ones were overtaken by answers, or their leases are over."""


class Heartbeats:
    """The pulse of one session."""

    def __init__(self, own_ms: int) -> None:
        self.own_ms = own_ms
        self.period_ms = own_ms
        self.longest_ms = lim.LEASE_MS
        self.session = 0
        self.sent: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """seq -> (when sent, number of the `Runs` it named)."""
        self._seq = 0
        self._answered = 0
        self._silent_ms: int | None = None
        """When the oldest heartbeat since the last answer left."""
        self._last_ms = -lim.HEARTBEAT_SPACING_MS
        self._asked_ms: int | None = None
        self._wish_ms = lim.HEARTBEAT_SPACING_MS
        self._hurry_ms: int | None = None

    def begin(self, session: int, now_ms: int) -> None:
        """A new connection: nothing sent in it yet, the first one is due now."""
        self.session, self._seq, self._answered = session, 0, 0
        self._silent_ms = None
        self.sent.clear()
        self.now(now_ms)
        self.granted()

    def end(self) -> None:
        self.session = 0
        self.sent.clear()

    def tune(self, wanted_ms: int, leases_ms: list[int]) -> None:
        """The controller's wish (0: none) and the leases held decide the period."""
        shortest = min(leases_ms, default=lim.LEASE_MS_MAX)
        self.period_ms = lim.heartbeat_for(shortest, wanted_ms or self.own_ms)
        self.longest_ms = max(leases_ms, default=lim.LEASE_MS)

    def now(self, now_ms: int) -> None:
        """Send one at once: there is news."""
        self._asked_ms = now_ms

    def soon(self, now_ms: int) -> None:
        """Send one as soon as the distance between repeats allows."""
        due_ms = max(now_ms, self._last_ms + lim.HEARTBEAT_SPACING_MS)
        self._asked_ms = due_ms if self._asked_ms is None else min(self._asked_ms, due_ms)

    def refused(self, now_ms: int) -> None:
        """Answered without the grant we wait for: ask again, ever more slowly, up to the period."""
        self._hurry_ms = max(now_ms, self._last_ms + self._wish_ms)
        self._wish_ms = min(2 * self._wish_ms, self.period_ms)

    def granted(self) -> None:
        self._wish_ms, self._hurry_ms = lim.HEARTBEAT_SPACING_MS, None

    def is_latest(self, seq: int) -> bool:
        return seq == self._seq

    @property
    def latest(self) -> tuple[int, int]:
        """(seq, when sent) of the last one."""
        return self._seq, self._last_ms

    @property
    def steady(self) -> bool:
        """The last one was answered and none is wished out of turn: the next comes after a period."""
        answered = bool(self.session) and self._answered == self._seq > 0
        return answered and self._hurry_ms is None and self._asked_ms is None

    def skip(self, count: int, last_ms: int) -> None:
        """As if so many more had been sent and answered, the last one then.

        For a world that carries steady pulses as columns. What is skipped is forgotten, so it
        must be older than the longest lease: nothing may count from it any more.
        """
        self._seq += count
        self._answered, self._last_ms = self._seq, last_ms

    @property
    def next_seq(self) -> int:
        """Of the heartbeat that `beat` will make."""
        return self._seq + 1

    def beat(self, held: Held, used: Used, now_ms: int, health: Health = NO_HEALTH) -> Heartbeat:
        """The next heartbeat, remembered as sent now."""
        self._seq += 1
        self._last_ms, self._asked_ms, self._hurry_ms = now_ms, None, None
        if self._silent_ms is None:
            self._silent_ms = now_ms
        self.sent[self._seq] = (now_ms, held.runs)
        while len(self.sent) > SENT_MAX or next(iter(self.sent.values()))[0] < now_ms - self.longest_ms:
            self.sent.popitem(last=False)
        return Heartbeat(self.session, self._seq, held, used, health)

    def answered(self, session: int, seq: int) -> tuple[int, int] | None:
        """When that heartbeat was sent and which `Runs` it named; `None` if not by this process
        in this session, or too long ago."""
        if session != self.session or seq not in self.sent:
            return None
        if seq > self._answered:
            self._answered = seq
            self._silent_ms = None if seq == self._seq else self._last_ms
        return self.sent[seq]

    def due_ms(self) -> int | None:
        """When the next one is due; `None` without a connection."""
        if not self.session:
            return None
        due_ms = self._last_ms + self.period_ms
        silent_ms = self._silent_ms
        if silent_ms is not None and self._last_ms - silent_ms < self.longest_ms:
            due_ms = min(due_ms, self._last_ms + lim.HEARTBEAT_RETRY_MS)
        if self._hurry_ms is not None:
            due_ms = min(due_ms, self._hurry_ms)
        return due_ms if self._asked_ms is None else min(due_ms, self._asked_ms)
