"""Checkers of what holds where an invariant is suspended: X1 to X4.

Rule of this file: a fault outside the assumptions takes promises away and leaves others, and
those are observed like invariants, in every run: the wait after an old copy of the database,
the quarantine of one identity twice and what it may free, the freeze when a site falls silent.
They are never excused. Only what was committed or delivered counts, so a bound is as exact as
that is, and the tolerance is told where there is one.
Rejected: counting births as they are delivered. What a controller heard and could not commit
is nothing to its successor, and nobody outside sees which of the two it was.
"""

from __future__ import annotations

from collections import deque

from controller.core.failover import FROZEN, STORM_DEVICES, STORM_SHARE, STORM_WINDOW_MS
from controller.core.records import AttemptRow, AttemptState
from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.limits import LEASE_MS, hold_ms
from protocol.messages import NO_REVISION, Assignments, Heartbeat, LeaseAnswer, Revision
from protocol.tasks import AttemptId, Guarantee
from sim.checking.base import Checker, Heard
from sim.checking.picture import RESTORED_EPOCH, Commit, job_of
from sim.ears import understand
from sim.observations import DatabaseRestored, Delivered, Observation

COMMIT_MS = 10_000
"""A slow database makes a commit so much later than the moment that its controller counts from."""
FAST_PERCENT = 1
"""The clock of who waits may be fast by this (section 11)."""
BEATS_KEPT = 8
"""Heartbeats of a device whose answers may still come."""
REVISIONS_KEPT = 8
RESTORED_MARK, WAITING = "restored", "waiting"
"""Facts of a database whose next leader waits for one hold: it was put back, or such a wait was not over."""
ONLINE, LOST = "online", ("suspect", "offline")


def surely_ms(wait_ms: int) -> int:
    """How long a controller surely waited that waited so long by its own clock."""
    return wait_ms * (100 - FAST_PERCENT) // 100


class WaitsAfterRestore(Checker):
    """X1: for one hold after an old copy was put back, or found out, nothing is placed (L6, D1).

    From a marked copy's return, or from the commit that says that one was found out: that
    commit may be late by as much as the database is slow. An unmarked copy that is put back within
    the wait takes it away, as it takes all that was committed; unless it was itself taken within one,
    nobody waits before it is found out (section 11).
    """

    invariant = "X1"

    def hears(self) -> dict[type[Observation], Heard]:
        self._until_ms = 0
        return {}

    def on_restored(self, copy: DatabaseRestored) -> None:
        waits = copy.marked or self.seen.facts.get(RESTORED_MARK) or self.seen.facts.get(WAITING) == "1"
        self._until_ms = copy.at_ms + surely_ms(hold_ms(LEASE_MS)) if waits else 0

    def on_commit(self, commit: Commit) -> None:
        if any(fact.name == RESTORED_EPOCH for fact in commit.facts):
            self._wait(commit.at_ms + surely_ms(hold_ms(LEASE_MS)) - COMMIT_MS)
        if commit.at_ms < self._until_ms:
            for row, _ in commit.handed_out:
                early = self._until_ms - commit.at_ms
                what = f"{row.task} {row.attempt} is placed {early} ms too early after a restore"
                self.breach(what, row.device)

    def _wait(self, until_ms: int) -> None:
        self._until_ms = max(self._until_ms, until_ms)


Identity = tuple[str, str]


class TwoAreQuarantined(Checker):
    """X2: identities that were committed as A, B and A again quarantine their device in that commit (S4)."""

    invariant = "X2"

    def hears(self) -> dict[type[Observation], Heard]:
        self._spoke: dict[str, tuple[Identity | None, Identity]] = {}
        """Device -> who was known before the present identity, and the present one."""
        return {}

    def on_commit(self, commit: Commit) -> None:
        for old, row in commit.devices:
            if old is not None and (old.removed or (old.quarantined and not row.quarantined)):
                self._spoke.pop(row.device, None)  # an operator looked: who speaks next is who was let stay
            if not row.instance_id:
                continue
            now = (row.boot_id, row.instance_id)
            before, present = self._spoke.get(row.device, (None, now))
            if now == present:
                self._spoke.setdefault(row.device, (None, now))
                continue
            self._spoke[row.device] = (present, now)
            if now == before and not row.quarantined:
                what = f"{row.device} speaks as {now}, {present} and {now} again, not quarantined"
                self.breach(what, row.device)

    def on_restored(self, copy: DatabaseRestored) -> None:
        """The copy's own memory counts; who came before its present identities is not known here."""
        self._spoke = {
            row.device: (None, (row.boot_id, row.instance_id))
            for row in self.seen.devices.values()
            if row.instance_id
        }


class OnlyTimeFrees(Checker):
    """X3: while a device is quarantined no granted `at_most_one` attempt of it is free before its hold (S4).

    A hold counts from the heartbeat that was granted, when it first reached a controller; so the
    bound is never later than the controller's own. What no granted document listed may be free at once.
    """

    invariant = "X3"
    channels = (Heartbeat.channel, LeaseAnswer.channel, Assignments.channel)

    def hears(self) -> dict[type[Observation], Heard]:
        self._beats: dict[str, deque[tuple[int, int, int]]] = {}
        """Device -> (session, seq, when it reached a controller)."""
        self._listed: dict[str, dict[Revision, tuple[AttemptId, ...]]] = {}
        self._granted_ms: dict[AttemptId, int] = {}
        return {Delivered: self._delivered}

    def _delivered(self, delivery: Delivered) -> None:
        device, channel = delivery.topic.split("/")[3:5]
        up = channel == Heartbeat.channel
        if up != delivery.received or not (
            delivery.payload and delivery.client.startswith(topics.CONTROLLER)
        ):
            return  # the controller's end alone: what reached it, and what it said
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        if isinstance(message, Heartbeat):
            beats = self._beats.setdefault(device, deque(maxlen=BEATS_KEPT))
            if all(beat[:2] != (message.session, message.seq) for beat in beats):
                beats.append((message.session, message.seq, delivery.at_ms))
        elif isinstance(message, Assignments):
            listed = self._listed.setdefault(device, {})
            listed[message.revision] = tuple(AttemptId(a.task, a.attempt) for a in message.attempts)
            while len(listed) > REVISIONS_KEPT:
                del listed[next(iter(listed))]
        elif isinstance(message, LeaseAnswer) and message.granted != NO_REVISION:
            self._grant(device, message)

    def _grant(self, device: str, answer: LeaseAnswer) -> None:
        for session, seq, at_ms in self._beats.get(device, ()):
            if (session, seq) == (answer.session, answer.seq):
                for key in self._listed.get(device, {}).get(answer.granted, ()):
                    self._granted_ms[key] = max(at_ms, self._granted_ms.get(key, 0))

    def on_commit(self, commit: Commit) -> None:
        decided = {row.device for _, row in commit.devices}
        for old, row in commit.attempts:
            if row.state is not AttemptState.FREE or (old is not None and old.state is row.state):
                continue
            granted_ms = self._granted_ms.pop(AttemptId(row.task, row.attempt), None)
            known = self.seen.devices.get(row.device)
            if granted_ms is None or known is None or not known.quarantined or row.device in decided:
                continue
            self._judge(row, granted_ms, commit.at_ms)

    def _judge(self, row: AttemptRow, granted_ms: int, now_ms: int) -> None:
        job = self.seen.jobs.get(job_of(row.task))
        if job is None or job.guarantee is not Guarantee.AT_MOST_ONE:
            return
        early_ms = granted_ms + surely_ms(hold_ms(job.lease_ms)) - now_ms
        if early_ms > 0:
            what = f"{row.task} {row.attempt} of quarantined {row.device} is free {early_ms} ms too early"
            self.breach(what, row.device)

    def on_restored(self, copy: DatabaseRestored) -> None:
        """What the lost time granted, the copy does not know: every hold begins anew, or never was."""
        self._granted_ms.clear()


class MassSilenceFreezes(Checker):
    """X4: devices of a site that are committed as lost at once freeze its failover in that commit (C4).

    Lost: no more online, by the audit rows of one leadership; that who is silent is found out is I9's
    question. At once: within the controller's window less what a slow database may add.
    """

    invariant = "X4"

    def hears(self) -> dict[type[Observation], Heard]:
        self._epoch = 0
        self._lost: dict[str, int] = {}
        """Device -> when it was lost; those that are back, or that a thaw forgave, are not in it."""
        return {}

    def on_commit(self, commit: Commit) -> None:
        if commit.epoch != self._epoch:  # another leadership heard nobody yet
            self._epoch = commit.epoch
            self._lost.clear()
        turned: dict[str, None] = {}
        for audit in commit.audits:
            if audit.what != "device" or audit.new == audit.old:
                continue
            if audit.new == ONLINE:
                self._lost.pop(audit.object, None)
            elif audit.old == ONLINE and audit.new in LOST:
                self._lost[audit.object] = commit.at_ms
                turned[self._site(audit.object)] = None
        told = {f.name.removeprefix(FROZEN): f.value for f in commit.facts if f.name.startswith(FROZEN)}
        for site, value in told.items():
            if not value:
                self._forgive(site)
        for site in turned:
            if site not in told and not self.seen.facts.get(FROZEN + site):
                self._judge(site, commit.at_ms)

    def _site(self, device: str) -> str:
        known = self.seen.devices.get(device)
        return known.labels.get("site", "") if known is not None else ""

    def _forgive(self, site: str) -> None:
        for device in [d for d in self._lost if self._site(d) == site]:
            del self._lost[device]

    def _judge(self, site: str, now_ms: int) -> None:
        known = [row.device for row in self.seen.devices.values() if not row.removed]
        here = [device for device in known if self._site(device) == site]
        since_ms = now_ms - (STORM_WINDOW_MS - COMMIT_MS)
        lost = [d for d in here if d in self._lost and self._lost[d] >= since_ms]
        if len(lost) >= STORM_DEVICES and len(lost) > STORM_SHARE * len(here):
            what = f"{len(lost)} of {len(here)} devices of site '{site}' are lost at once, not frozen"
            self.breach(what, *lost)

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._lost.clear()
