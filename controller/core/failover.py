"""Failover: the forced move of tasks after a loss, and when it must not happen.

An `at_most_one` attempt moves when its hold has passed and its device is not online; an
`at_least_one` attempt as soon as its device is offline. When a whole site falls silent
at once the cause is more likely the network than the devices: failover freezes (C4).
A freeze extends no deadline on any device, and cancels still free by hold.
"""

from __future__ import annotations

import numpy as np

from controller.core.condition import LOST, Condition
from controller.core.fleet import NEVER, OFFLINE, ONLINE, Flags
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
FAILOVERS_AT_ONCE = 2_000
FAILOVER_US = 200
"""Then 5,000 a second: what one core decides and one SQLite commits in about half of the time, so
that heartbeats are answered beside it. What devices are told has a pace of its own (`documents`)."""
STEP_MS = 100
"""Between two lots of a long queue, so that a lot is worth its commit."""
RETRY_MS = 500
HEARING_MS = LEASE_MS
"""After our own deafness devices have so long to be heard again before their silence counts."""
DEVICE_LOST = "device lost"
FROZEN = "frozen:"
"""Fleet fact of a site whose failover is frozen: a restart in a storm must not end the freeze."""


class Failover:
    """Watches attempts on devices that are not online."""

    def __init__(self, ledger: Ledger, holds: Holds, condition: Condition) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.condition = condition
        self.frozen: dict[int, int] = {}
        """Site -> until when its failover is frozen."""
        self.deaf = False
        """The canary did not return: we cannot tell silence from our own deafness."""
        self.queue: dict[int, dict[AttemptId, None]] = {}
        """Row -> attempts that may be taken off it as soon as nothing holds that back; each once, however
        often the device was lost meanwhile."""
        self._listening_until_ms = 0
        self.pace = Pace(FAILOVERS_AT_ONCE, FAILOVER_US)
        """Counts microseconds."""

    def hear_again(self, now_ms: int) -> None:
        """The canary is back: what was silent until now was us, and nobody is moved for it."""
        if self.deaf:
            self.deaf, self._listening_until_ms = False, now_ms + HEARING_MS

    # ------------------------------------------------------------- losses

    def on_changes(self, rows: list[int], now_ms: int) -> None:
        """Devices changed their states, all at once as far as anybody can tell."""
        for row in {int(self.fleet.site[row]): row for row in rows}.values():
            self._watch_storm(row, now_ms)
        for row in rows:
            self.on_change(row, now_ms)

    def on_change(self, row: int, now_ms: int) -> None:
        """A device changed its state; when it is not online its attempts get a deadline."""
        if self.fleet.state[row] == ONLINE:
            return
        if self.fleet.state[row] == OFFLINE and not self._held_back(row, now_ms):
            self.condition.blame(row, LOST, now_ms)  # of a silent site no device is to blame
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
        elif self._lost(attempt):
            self.queue.setdefault(attempt.device, {})[key] = None
            self._look(now_ms)

    # ------------------------------------------------------------- the queue

    def _look(self, due_ms: int) -> None:
        """The queue is worth a look then, if not before."""
        planned = self.ledger.deadlines.due_of("lost", 0)
        if planned is None or due_ms < planned:
            self.ledger.deadlines.set("lost", 0, due_ms)

    def step(self, now_ms: int) -> None:
        """Takes as much off lost devices as the pace admits and no freeze holds back."""
        full = False
        for row in list(self.queue):
            if self._held_back(row, now_ms):
                continue
            if full := not self.pace.admits(now_ms * 1_000):
                break
            found = [self.ledger.attempts.get(key) for key in self.queue.pop(row)]
            attempts = [a for a in found if a is not None and self._lost(a)]
            for _ in attempts:
                self.pace.take(now_ms * 1_000)
            self._lose(attempts, now_ms)
        if self.queue:
            self._look(now_ms + (STEP_MS if full else RETRY_MS))

    def _lost(self, attempt: Attempt) -> bool:
        """Whether nothing of it can be heard."""
        if self._unheard(attempt):
            return True
        if self.ledger.is_elder(attempt):
            return False  # it was lost before, and has its successor
        state = self.fleet.state[attempt.device]
        return bool(state != ONLINE if attempt.job.at_most_one else state == OFFLINE)

    def _held_back(self, row: int, now_ms: int) -> bool:
        """Whether its device's silence is perhaps not its own."""
        return self.deaf or now_ms < self._listening_until_ms or int(self.fleet.site[row]) in self.frozen

    def _lose(self, attempts: list[Attempt], now_ms: int) -> None:
        """Attempts of one device: they leave its document together."""
        gone: list[Attempt] = []
        for attempt in attempts:
            until_ms = self.holds.documents.hold_until_ms(attempt) if attempt.job.at_most_one else now_ms
            if now_ms < until_ms:
                self.ledger.deadlines.set("hold", attempt.id, until_ms)
                continue
            self.ledger.count("failovers")
            if self.holds.may_be_kept(attempt):
                self.holds.leave(attempt, DEVICE_LOST, now_ms)
            else:
                gone.append(attempt)
        self.holds.remove(gone, DEVICE_LOST, now_ms)
        for attempt in gone:
            if not attempt.job.at_most_one:
                self.holds.abandon(attempt, now_ms)

    # ------------------------------------------------------------- storms

    def _watch_storm(self, row: int, now_ms: int) -> None:
        site = int(self.fleet.site[row])
        if site in self.frozen:
            if self._storm(site, now_ms, NEVER + 1):
                self._tell(site, NEVER + 1)
            else:
                self._thaw(site, now_ms)
        elif self._storm(site, now_ms, now_ms - STORM_WINDOW_MS):
            self._freeze(site, now_ms)

    def _freeze(self, site: int, now_ms: int) -> None:
        self.frozen[site] = now_ms + FREEZE_MS
        self.ledger.deadlines.set("freeze", site, now_ms + FREEZE_MS)
        self.ledger.fact(FROZEN + self._name(site), "1")
        self._tell(site, now_ms - STORM_WINDOW_MS)

    def _tell(self, site: int, since_ms: int) -> None:
        """The alarm, with how many it is about by now."""
        lost, living = self._silent(site, since_ms)
        name, held = self._name(site), int(self.fleet.held[: self.fleet.count][lost].sum())
        text = (
            f"failover of site '{name or 'default'}' is frozen: {np.count_nonzero(lost)} of its "
            f"{np.count_nonzero(living)} devices fell silent at once, likely its network; their {held} "
            "attempts stay where they are; `fm fleet unfreeze` ends it"
        )
        self.ledger.alarm(f"storm:{name}", text)
        self.ledger.alarms[f"storm:{name}"] = text

    def recall(self, facts: dict[str, str], now_ms: int) -> None:
        """After a take-over: a site that was frozen still is, until its devices speak or two holds pass."""
        for name, site in self.fleet.sites.items():
            if facts.get(FROZEN + name):
                self.fleet.mourn(self.fleet.site[: self.fleet.count] == site, now_ms)
                self._freeze(site, now_ms)

    def _name(self, site: int) -> str:
        return next(n for n, i in self.fleet.sites.items() if i == site)

    def blind(self) -> bool:
        """Whether some silence is taken for the network's, or our own."""
        return self.deaf or bool(self.frozen)

    def _storm(self, site: int, now_ms: int, since_ms: int) -> bool:
        """Whether too many devices of the site are silent that were lost after `since_ms`."""
        lost, living = self._silent(site, since_ms)
        count = int(np.count_nonzero(lost))
        return count >= STORM_DEVICES and count > STORM_SHARE * int(np.count_nonzero(living))

    def _silent(self, site: int, since_ms: int) -> tuple[Flags, Flags]:
        """Devices of the site that are silent and were lost since then; all that count as its own."""
        f, n = self.fleet, self.fleet.count
        here = (f.site[:n] == site) & ~f.removed[:n]
        lost: Flags = here & (f.state[:n] != ONLINE) & (f.lost_ms[:n] >= since_ms)
        living: Flags = here & ((f.state[:n] == ONLINE) | (f.lost_ms[:n] > NEVER))
        return lost, living

    def _thaw(self, site: int, now_ms: int) -> None:
        del self.frozen[site]
        self.ledger.deadlines.clear("freeze", site)
        f, n = self.fleet, self.fleet.count
        f.forgive((f.site[:n] == site) & (f.state[:n] != ONLINE))
        self.ledger.fact(FROZEN + self._name(site), "")
        self.ledger.calm(f"storm:{self._name(site)}")
        if self.queue:
            self._look(now_ms)

    def on_freeze_due(self, site: int, now_ms: int) -> None:
        """Two holds have passed: whatever is gone is gone."""
        if site in self.frozen:
            self._thaw(site, now_ms)

    def unfreeze(self, now_ms: int) -> int:
        """An operator ends every freeze; returns how many there were."""
        sites = list(self.frozen)
        for site in sites:
            self._thaw(site, now_ms)
        return len(sites)
