"""Failover: the forced move of tasks after a loss, and when it must not happen.

An `at_most_one` attempt moves when its hold has passed and its device is not online; an
`at_least_one` attempt as soon as its device is offline. When a whole site falls silent
at once the cause is more likely the network than the devices: failover freezes (C4).
A freeze extends no deadline on any device, and cancels still free by hold.
"""

from __future__ import annotations

import numpy as np

from controller.core.fleet import NEVER, OFFLINE, ONLINE
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Ledger
from controller.core.records import AttemptState
from protocol.limits import LEASE_MS, hold_ms
from protocol.pace import Pace
from protocol.tasks import AttemptId

STORM_DEVICES = 10
STORM_SHARE = 0.2
STORM_WINDOW_MS = LEASE_MS
FREEZE_MS = 2 * hold_ms(LEASE_MS)
FAILOVERS_AT_ONCE = 1_000
FAILOVER_MS = 1
"""A controller that moves faster than devices can start only piles up documents."""
RETRY_MS = 500
HEARING_MS = LEASE_MS
"""After our own deafness devices have so long to be heard again before their silence counts."""
FROZEN = "frozen:"
"""Fleet fact of a site whose failover is frozen: a restart in a storm must not end the freeze."""


class Failover:
    """Watches attempts on devices that are not online."""

    def __init__(self, ledger: Ledger, holds: Holds) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.frozen: dict[int, int] = {}
        """Site -> until when its failover is frozen."""
        self.deaf = False
        """The canary did not return: we cannot tell silence from our own deafness."""
        self._listening_until_ms = 0
        self.pace = Pace(FAILOVERS_AT_ONCE, FAILOVER_MS)

    def hear_again(self, now_ms: int) -> None:
        """The canary is back: what was silent until now was us, and nobody is moved for it."""
        if self.deaf:
            self.deaf, self._listening_until_ms = False, now_ms + HEARING_MS

    # ------------------------------------------------------------- losses

    def on_change(self, row: int, now_ms: int) -> None:
        """A device changed its state; when it is not online its attempts get a deadline."""
        self._watch_storm(row, now_ms)
        if self.fleet.state[row] == ONLINE:
            return
        for attempt in self.ledger.by_device[row].values():
            # One that was on its way out anyway has nobody left to confirm it, if no hold does.
            if attempt.row.state is not AttemptState.REMOVED or self._stranded(attempt):
                self._plan(attempt, now_ms)

    def resume(self, now_ms: int) -> None:
        """After a take-over devices are suspect by our own silence: only what may run has a hold to watch.

        What no revision listed stays where it was put, until its device is found to be gone.
        """
        for attempt in self.ledger.attempts.values():
            if not attempt.before and self.fleet.state[attempt.device] != OFFLINE:
                continue
            if attempt.row.state is not AttemptState.REMOVED or self._stranded(attempt):
                self._plan(attempt, now_ms)

    def _stranded(self, attempt: Attempt) -> bool:
        """Whether only a report, and no hold, would let the task of this removed attempt go on."""
        return not attempt.job.at_most_one and self.holds.awaited(attempt)

    def _plan(self, attempt: Attempt, now_ms: int) -> None:
        if attempt.job.at_most_one:
            due_ms = max(now_ms, self.holds.documents.hold_until_ms(attempt))
            self.ledger.deadlines.set("hold", attempt.id, due_ms)
        elif self.fleet.state[attempt.device] == OFFLINE and (
            not attempt.job.daemon or self._leaving(attempt)
        ):
            # A daemon's run has nowhere else to go: it waits there for its device's return.
            self.ledger.deadlines.set("hold", attempt.id, now_ms)

    def _leaving(self, attempt: Attempt) -> bool:
        return attempt.row.state is AttemptState.REMOVED

    def _unheard(self, attempt: Attempt) -> bool:
        """Whether its device's reports free nothing: removed in a quarantine (S4)."""
        return attempt.row.state is AttemptState.REMOVED and bool(self.fleet.quarantined[attempt.device])

    def on_due(self, key: AttemptId, now_ms: int) -> None:
        """The hold of an attempt has perhaps passed."""
        attempt = self.ledger.attempts.get(key)
        if attempt is None:
            return
        if attempt.row.state is AttemptState.REMOVED and not self._stranded(attempt):
            self.holds.on_hold_due(attempt, now_ms)
        elif self.fleet.state[attempt.device] == ONLINE and not self._unheard(attempt):
            return
        elif self._must_wait(attempt, now_ms):
            self.ledger.deadlines.set("hold", key, now_ms + RETRY_MS)
        else:
            self._lose(attempt, now_ms)

    def _must_wait(self, attempt: Attempt, now_ms: int) -> bool:
        site = int(self.fleet.site[attempt.device])
        if self.deaf or now_ms < self._listening_until_ms or site in self.frozen:
            return True
        return not self.pace.admits(now_ms)

    def _lose(self, attempt: Attempt, now_ms: int) -> None:
        if attempt.job.at_most_one:
            if now_ms < (until := self.holds.documents.hold_until_ms(attempt)):
                self.ledger.deadlines.set("hold", attempt.id, until)
                return
        elif self.fleet.state[attempt.device] != OFFLINE and not self._unheard(attempt):
            return
        self.pace.take(now_ms)
        self.ledger.count("failovers")
        self.holds.remove([attempt], "device lost", now_ms)
        if not attempt.job.at_most_one:
            self.holds.abandon(attempt, now_ms)

    # ------------------------------------------------------------- storms

    def _watch_storm(self, row: int, now_ms: int) -> None:
        site = int(self.fleet.site[row])
        if site in self.frozen:
            if not self._storm(site, now_ms, NEVER + 1):
                self._thaw(site)
        elif self._storm(site, now_ms, now_ms - STORM_WINDOW_MS):
            self._freeze(site, now_ms)

    def _freeze(self, site: int, now_ms: int) -> None:
        self.frozen[site] = now_ms + FREEZE_MS
        self.ledger.deadlines.set("freeze", site, now_ms + FREEZE_MS)
        name = self._name(site)
        self.ledger.fact(FROZEN + name, "1")
        self.ledger.alarm(
            f"storm:{name}",
            f"failover of site '{name or 'default'}' is frozen: more than {STORM_SHARE:.0%} of it fell "
            "silent at once, likely its network; `fm fleet unfreeze` ends it",
        )

    def recall(self, facts: dict[str, str], now_ms: int) -> None:
        """After a take-over: a site that was frozen still is, until its devices speak or two holds pass."""
        for name, site in self.fleet.sites.items():
            if facts.get(FROZEN + name):
                self.fleet.mourn(self.fleet.site[: self.fleet.count] == site, now_ms)
                self._freeze(site, now_ms)

    def _name(self, site: int) -> str:
        return next(n for n, i in self.fleet.sites.items() if i == site)

    def _storm(self, site: int, now_ms: int, since_ms: int) -> bool:
        """Whether too many devices of the site are silent that were lost after `since_ms`."""
        f, n = self.fleet, self.fleet.count
        here = (f.site[:n] == site) & ~f.removed[:n]
        lost = here & (f.state[:n] != ONLINE) & (f.lost_ms[:n] >= since_ms)
        living = here & ((f.state[:n] == ONLINE) | (f.lost_ms[:n] > NEVER))
        count = int(np.count_nonzero(lost))
        return count >= STORM_DEVICES and count > STORM_SHARE * int(np.count_nonzero(living))

    def _thaw(self, site: int) -> None:
        del self.frozen[site]
        self.ledger.deadlines.clear("freeze", site)
        f, n = self.fleet, self.fleet.count
        f.forgive((f.site[:n] == site) & (f.state[:n] != ONLINE))
        self.ledger.fact(FROZEN + self._name(site), "")
        self.ledger.calm(f"storm:{self._name(site)}")

    def on_freeze_due(self, site: int) -> None:
        """Two holds have passed: whatever is gone is gone."""
        if site in self.frozen:
            self._thaw(site)

    def unfreeze(self) -> int:
        """An operator ends every freeze; returns how many there were."""
        sites = list(self.frozen)
        for site in sites:
            self._thaw(site)
        return len(sites)
