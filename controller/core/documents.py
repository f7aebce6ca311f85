"""Documents: the revisions of each device's `Assignments`, and when they are published.

Rule of this file: it is the only place that makes a revision. A revision is saved before
it is published, and its content never changes: what is published again is what was
published (D3). Revisions that only add or acknowledge wait until the present one was
granted or a third of a lease has passed, because churn starves leases; a removal never waits.
It decides no placement and frees nothing.
"""

from __future__ import annotations

from collections import deque

from controller.core.ledger import Attempt, Ledger
from controller.core.records import AttemptState, DocumentRow
from controller.core.shares import names_given
from protocol import limits
from protocol.messages import AssignedAttempt, Assignments, Revision
from protocol.pace import Pace

ADDS_AT_ONCE = 4
ADD_MS = 200
"""A few lone tasks are told at once; under load several share a revision of their device."""
ACKNOWLEDGE_MS = 1_000
"""How long an acknowledgement waits for an addition to travel with."""
CHURN_MS = limits.LEASE_MS // 3
REPUBLISH_MS = 1_000
REVISIONS_AT_ONCE = 1_000
REVISION_MS = 2
"""All devices together: a burst, then 500 a second; beyond it additions gather."""
LOT_MS = 20
"""Between two looks at those that wait for this pace: ten revisions share a commit."""


class Documents:
    """Gathers changes per device and turns them into revisions."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.current: dict[int, Assignments] = {}
        self.adds: dict[int, int] = {}
        """Row -> since when additions wait."""
        self.acknowledgements: dict[int, int] = {}
        self.pace = Pace(REVISIONS_AT_ONCE, REVISION_MS)
        self.paces: dict[int, Pace] = {}
        self._ready: deque[int] = deque()
        """Rows whose waiting is over, but for the pace of all."""
        self.doubted: dict[int, None] = {}
        """Rows whose document is of before a restore: what it lists may have ended since, and who
        forgot that would start it again. Nothing is told to them before they reported (D1)."""
        self.unheard: dict[int, None] = {}
        """Rows known before this leadership that have named no revision in it. What they hold may prove
        that the database is old; an addition told before would replace that proof (D1)."""
        self.look_ms: int | None = None
        """When something that gathers may be due; exact after each flush."""

    # ------------------------------------------------------------- after a restore

    def doubt(self, restored: int) -> None:
        """Doubts what was not stamped since the restore that was found out under this epoch."""
        f = self.fleet
        self.doubted = {row: None for row in range(f.count) if 0 < f.document(row).epoch < restored}
        self.unheard = dict.fromkeys(range(f.count))

    def heard(self, row: int, now_ms: int) -> None:
        """A heartbeat named what the device holds, and that was no reason to take the database for old."""
        if self.unheard.pop(row, 0) is None and (row in self.adds or row in self.acknowledgements):
            self._look(now_ms)

    def _waits(self, row: int) -> bool:
        """Whether nothing that gathers may be told yet."""
        return row in self.doubted or row in self.unheard

    def believe(self, row: int) -> None:
        """The device has reported. Who calls this makes a revision: the old one may list what was
        removed and freed while nothing could be told, and must never be granted as it is."""
        del self.doubted[row]

    # ------------------------------------------------------------- changes

    def add(self, row: int, now_ms: int) -> int:
        """An attempt was assigned; returns the number of the first revision that will list it."""
        self.adds.setdefault(row, now_ms)
        self._look(self._add_due_ms(row))
        return int(self.fleet.doc_number[row]) + 1

    def acknowledge(self, row: int, now_ms: int) -> int:
        """A terminal attempt may leave; returns the number of the first revision without it."""
        self.acknowledgements.setdefault(row, now_ms)
        self._look(self._acknowledge_due_ms(row))
        return int(self.fleet.doc_number[row]) + 1

    def remove(self, attempts: list[Attempt], now_ms: int) -> None:
        """Takes attempts of one device out at once; they stay reserved until they are free (L3)."""
        row = attempts[0].device
        for attempt in attempts:
            self._mark_removed(attempt)
            attempt.row.removed_epoch, attempt.row.until = (
                self.ledger.epoch,
                int(self.fleet.doc_number[row]) + 1,
            )
            self.ledger.save(attempt.row)
        self.revise(row, now_ms)

    def _mark_removed(self, attempt: Attempt) -> None:
        attempt.hold_until_ms = self.hold_until_ms(attempt)
        attempt.holder = self.holder(attempt)
        attempt.row.state = AttemptState.REMOVED
        self.ledger.moved[attempt.device] = None

    # ------------------------------------------------------------- leases seen from an attempt

    def covered(self, attempt: Attempt) -> bool:
        """Whether a grant of this leadership covered the attempt."""
        return bool(self.fleet.granted_number[attempt.device] >= attempt.row.since > 0)

    def published(self, attempt: Attempt) -> bool:
        """Whether any revision that lists it was ever made."""
        return attempt.row.since <= int(self.fleet.doc_number[attempt.device])

    def holder(self, attempt: Attempt) -> int:
        """Session of the last grant that covered it; after a take-over the last session known."""
        if attempt.row.state is AttemptState.REMOVED:
            return attempt.holder
        if self.covered(attempt):
            return int(self.fleet.granted_session[attempt.device])
        return attempt.holder

    def hold_until_ms(self, attempt: Attempt) -> int:
        """Until when it must be taken for alive without other news (L2, L5)."""
        if attempt.row.state is AttemptState.REMOVED:
            return attempt.hold_until_ms
        until = attempt.floor_ms
        if self.covered(attempt):
            hold = self.fleet.hold_ms(attempt.device, attempt.job.row.lease_ms)
            until = max(until, int(self.fleet.granted_ms[attempt.device]) + hold)
        return until

    # ------------------------------------------------------------- revisions

    def revise(self, row: int, now_ms: int) -> None:
        """Makes, saves and publishes a device's next revision; of a doubted one, once it has reported."""
        if row in self.doubted:
            return
        self.adds.pop(row, None)
        self.acknowledgements.pop(row, None)
        revision = Revision(self.ledger.epoch, int(self.fleet.doc_number[row]) + 1)
        self._set(row, revision)
        self._send(row, now_ms)
        self.ledger.count("revisions")

    def _set(self, row: int, revision: Revision) -> None:
        content = self._content(row)
        self.fleet.note_document(row, revision, _shortest_ms(content))
        self.ledger.save(DocumentRow(self.fleet.names[row], *revision))
        self.current[row] = Assignments(revision, content)

    def recall(self, row: int) -> None:
        """After a take-over: the leases of the document that is still out there."""
        self.fleet.note_document(row, self.fleet.document(row), _shortest_ms(self._content(row)))

    def _content(self, row: int) -> tuple[AssignedAttempt, ...]:
        listed = (AttemptState.ASSIGNED, AttemptState.RUNNING)
        return tuple(entry(a) for a in self.ledger.by_device[row].values() if a.row.state in listed)

    def _send(self, row: int, now_ms: int) -> None:
        self.fleet.note_published(row, now_ms)
        self.ledger.publish(row, self.current[row])

    def republish(self, row: int, now_ms: int) -> None:
        """A heartbeat named another revision: the present one again, at most once a second (D3)."""
        if now_ms - int(self.fleet.published_ms[row]) < REPUBLISH_MS:
            return
        if row in self.current:
            self._send(row, now_ms)
        elif self.fleet.doc_number[row] or self.ledger.by_device[row]:
            self._restamp(row, now_ms)
        else:
            self.revise(row, now_ms)

    def _restamp(self, row: int, now_ms: int) -> None:
        """After a take-over: the same content under the new epoch.

        Content of before is what was listed then; attempts that were only about to be
        listed wait in `adds` for a number of their own.
        """
        if row in self.adds or row in self.acknowledgements:
            self.revise(row, now_ms)
            return
        self._set(row, Revision(self.ledger.epoch, int(self.fleet.doc_number[row])))
        self._send(row, now_ms)

    # ------------------------------------------------------------- gathering

    def flush(self, now_ms: int) -> None:
        """Publishes every change whose waiting is over.

        Whose waiting is over is found out once for all of them: in a storm thousands wait for the pace.
        """
        if not self._ready:
            self._ready.extend(self._due_rows(now_ms))
        while self._ready:
            if not self.pace.admits(now_ms):
                self.look_ms = max(self.pace.due_ms(), now_ms + LOT_MS)
                return
            if self._due(row := self._ready.popleft(), now_ms):
                self.pace.take(now_ms)
                self._pace_of(row).take(now_ms)
                self.revise(row, now_ms)
        due = [self._add_due_ms(r) for r in self.adds if not self._waits(r)]
        due += [self._acknowledge_due_ms(r) for r in self.acknowledgements if not self._waits(r)]
        self.look_ms = min(due, default=None)

    def _due(self, row: int, now_ms: int) -> bool:
        """Whether something of it is still to be told, now."""
        adds = row in self.adds and self._add_due_ms(row) <= now_ms
        acknowledges = row in self.acknowledgements and self._acknowledge_due_ms(row) <= now_ms
        return (adds or acknowledges) and not self._waits(row)

    def _due_rows(self, now_ms: int) -> list[int]:
        """Additions first; a revision that adds also acknowledges."""
        rows = [r for r in self.adds if self._add_due_ms(r) <= now_ms]
        due = dict.fromkeys(rows)
        due.update(dict.fromkeys(r for r in self.acknowledgements if self._acknowledge_due_ms(r) <= now_ms))
        return [r for r in due if not self._waits(r)]

    def _pace_of(self, row: int) -> Pace:
        if row not in self.paces:
            self.paces[row] = Pace(ADDS_AT_ONCE, ADD_MS)
        return self.paces[row]

    def _settled_ms(self, row: int) -> int:
        """From when on another revision harms no lease."""
        if not self.fleet.doc_number[row] or self.fleet.granted(row):
            return 0
        return int(self.fleet.published_ms[row]) + CHURN_MS

    def _add_due_ms(self, row: int) -> int:
        return max(self.adds[row], self._pace_of(row).due_ms(), self._settled_ms(row))

    def _acknowledge_due_ms(self, row: int) -> int:
        return max(self.acknowledgements[row] + ACKNOWLEDGE_MS, self._settled_ms(row))

    def _look(self, due_ms: int) -> None:
        self.look_ms = due_ms if self.look_ms is None else min(self.look_ms, due_ms)

    def on_granted(self, row: int) -> None:
        """A grant ends the wait of whatever gathers for this device."""
        if row in self.adds:
            self._look(self._add_due_ms(row))
        if row in self.acknowledgements:
            self._look(self._acknowledge_due_ms(row))

    def next_due_ms(self) -> int | None:
        """When `flush` has something to do."""
        return self.look_ms


def _shortest_ms(content: tuple[AssignedAttempt, ...]) -> int:
    return min((attempt.lease_ms for attempt in content), default=0)


def entry(attempt: Attempt) -> AssignedAttempt:
    """What a document says of an attempt."""
    job, spec, given = attempt.job.row, attempt.job.row.spec, attempt.row.given
    # Slots are counted here alone, and an agent of before they were there reads no longer row than four.
    resources = spec.resources._replace(slots=0)
    if given:
        resources = resources._replace(cpu_milli=attempt.share.resources.cpu_milli)
    return AssignedAttempt(
        attempt.row.task, attempt.row.attempt, spec.runtime, spec.command, spec.env, resources,
        job.guarantee, job.lease_ms, spec.timeout_ms, spec.stop_grace_ms, accelerators=names_given(given),
    )  # fmt: skip
