"""Liveness: online, suspect, offline, from wills, heartbeats and a sweep over columns.

The estimator is a night watchman with one list: he notes when he last heard each door,
and once in a while runs his finger down the column. A will is somebody calling "I think
that door fell shut": he looks sooner, but frees nothing by it (S2). A door that flaps
gets double the patience each time.
Refused: an accrual detector (phi): with ten-second heartbeats it has three samples a
lease, and its threshold is a number nobody can explain to an operator.
While our own link is down nobody is judged: silence would be ours, not theirs.
"""

from __future__ import annotations

import numpy as np

from controller.core.fleet import NEVER, OFFLINE, ONLINE, STATE_WORDS, SUSPECT
from controller.core.ledger import Ledger
from protocol.limits import OFFLINE_HEARTBEATS, SUSPECT_HEARTBEATS, WILL_GRACE_MS

SWEEP_MS_MIN = 50
SWEEP_MS_MAX = 5_000
"""The plan knows when silence may begin to matter; whoever shortens a patience hastens it. This is
for what nobody thought of."""
HASTE_MS = 1_000
"""A grant of a short lease makes a device beat faster; the plan of before does not know it."""
FLAP_DOUBLINGS_MAX = 6
WILL_DOUBTED_MS = 1_000
"""A heartbeat of the same session this long after its will: the will was wrong."""


class Liveness:
    """Keeps `Fleet.state`; whoever cares reads `changed` after a sweep."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.watching = False
        self.due_ms = 0
        self.changed: list[int] = []
        """Rows whose state changed since the caller last emptied it."""

    def watch(self, now_ms: int) -> None:
        """Our link is up: from now on silence is theirs."""
        self.watching = True
        self.fleet.hear_all(now_ms)
        self.due_ms = now_ms + SWEEP_MS_MIN

    def look_away(self) -> None:
        """Our link is down."""
        self.watching = False

    def willed(self, row: int, now_ms: int) -> None:
        """The will, or an orderly goodbye, of the present session."""
        self.fleet.note_will(row, now_ms)
        self.due_ms = min(self.due_ms, now_ms)

    def heard(self, row: int, now_ms: int) -> None:
        """A heartbeat of the present session, outside the regular stream."""
        willed_ms = int(self.fleet.willed_ms[row])
        if willed_ms > NEVER and now_ms - willed_ms < WILL_DOUBTED_MS:
            return
        self.fleet.clear_will(row)
        if self.fleet.state[row] != ONLINE:
            self._turn(row, ONLINE, now_ms)

    def hasten(self, now_ms: int) -> None:
        """A device may have begun to beat faster, or just begun."""
        self.due_ms = min(self.due_ms, now_ms + HASTE_MS)

    def sweep(self, now_ms: int) -> None:
        """One comparison over all columns; few rows change."""
        if not self.watching or now_ms < self.due_ms:
            return
        f, n = self.fleet, self.fleet.count
        silent, period = now_ms - f.heard_ms[:n], f.periods_ms()
        willed = f.willed_ms[:n] > NEVER
        grace = WILL_GRACE_MS << np.minimum(f.flaps[:n], FLAP_DOUBLINGS_MAX)
        offline = (silent > period * OFFLINE_HEARTBEATS) | (willed & (now_ms - f.willed_ms[:n] >= grace))
        doubted = willed | (silent > period * SUSPECT_HEARTBEATS)
        # Nobody becomes online by a sweep: that takes a heartbeat.
        state = np.where(offline, OFFLINE, np.where(doubted, SUSPECT, f.state[:n]))
        for row in np.flatnonzero(state != f.state[:n]):
            # An offline device does not improve to suspect for being merely doubted.
            if state[row] < f.state[row]:
                self._turn(int(row), int(state[row]), now_ms)
        self._plan(now_ms)

    def _turn(self, row: int, state: int, now_ms: int) -> None:
        f = self.fleet
        old = STATE_WORDS[f.state[row]]
        f.note_state(row, state, now_ms)
        self.hasten(now_ms)
        self.ledger.audit(now_ms, "device", f.names[row], old, STATE_WORDS[state])
        self.changed.append(row)

    def _plan(self, now_ms: int) -> None:
        """When the next row can change by mere passing of time."""
        f, n = self.fleet, self.fleet.count
        alive = f.state[:n] != OFFLINE
        if not alive.any():
            self.due_ms = now_ms + 1_000
            return
        heard, period = f.heard_ms[:n][alive], f.periods_ms()[alive]
        online = f.state[:n][alive] == ONLINE
        patience = period * np.where(online, SUSPECT_HEARTBEATS, OFFLINE_HEARTBEATS)
        due = int((heard + patience).min()) + 1
        willed = f.willed_ms[:n] > NEVER
        if (waiting := alive & willed).any():
            grace = WILL_GRACE_MS << np.minimum(f.flaps[:n][waiting], FLAP_DOUBLINGS_MAX)
            due = min(due, int((f.willed_ms[:n][waiting] + grace).min()))
        self.due_ms = min(max(due, now_ms + SWEEP_MS_MIN), now_ms + SWEEP_MS_MAX)
