"""Leases: heartbeats in, answers out, and what a grant means for the controller.

A grant for revision R moves the hold of every attempt in R: one column per device does
it. It is given only for the present revision, only for a heartbeat that names it, in a
session whose `Runs` was processed (L2). Regular heartbeats, those that change nothing,
are handled as columns; the others one by one.
"""

from __future__ import annotations

import numpy as np

from controller.core.condition import Condition
from controller.core.documents import Documents
from controller.core.effects import PublishLeases, TakeEpoch
from controller.core.events import HeartbeatBatch
from controller.core.fleet import NEVER, ONLINE, Flags, Ints
from controller.core.holds import Holds
from controller.core.ledger import Ledger
from controller.core.liveness import Liveness
from controller.core.sessions import Sessions
from protocol.messages import NO_REVISION, Held, LeaseAnswer, Revision

EPOCH_AHEAD_MAX = 86_400
"""Epochs are unix seconds or a few above: a day beyond ours and the clock is no epoch."""


class Leases:
    """Answers every heartbeat; grants where the rules allow it."""

    def __init__(
        self,
        ledger: Ledger,
        documents: Documents,
        sessions: Sessions,
        holds: Holds,
        liveness: Liveness,
        condition: Condition,
        restored: int,
    ) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.documents = documents
        self.sessions = sessions
        self.holds = holds
        self.liveness = liveness
        self.condition = condition
        self.loaded = {row: self.fleet.document(row) for row in range(self.fleet.count)}
        self.restored = restored
        self.outdated = False
        """Found out that the database is older than the fleet; nothing more may be said (D1)."""

    def on_heartbeats(self, batch: HeartbeatBatch, now_ms: int) -> None:
        """Columns where nothing changes, rows where something does."""
        rows = self.fleet.rows(batch.devices) if batch.rows is None else batch.rows
        regular = self._regular(batch, rows)
        if regular.all():
            self._grant_columns(batch, rows, now_ms)
            return
        if regular.any():
            self._grant_columns(batch.of(regular), rows[regular], now_ms)
        for i in np.flatnonzero(~regular):
            self._on_heartbeat(batch, int(i), now_ms)

    def _regular(self, batch: HeartbeatBatch, rows: Ints) -> Flags:
        """Those that name exactly what we hold, of online devices granted in this session before,
        or without a document: to them there is nothing to grant."""
        f, held, session = self.fleet, batch.held, batch.sessions
        if not f.count:
            return np.zeros(len(rows), np.bool_)
        numbers = f.doc_number[rows]
        same: Flags = (rows >= 0) & (f.session[rows] == session) & ~f.removed[rows]
        same &= ((f.granted_session[rows] == session) | (numbers == 0)) & (f.runs_session[rows] == session)
        same &= (f.doc_epoch[rows] == held[:, 0]) & (numbers == held[:, 1])
        same &= (f.runs_number[rows] == held[:, 2]) & (f.inventory[rows] == held[:, 3])
        same &= (f.settings_epoch[rows] == held[:, 4]) & (f.settings_number[rows] == held[:, 5])
        same &= (f.state[rows] == ONLINE) & (f.willed_ms[rows] == NEVER)
        return same

    def _grant_columns(self, batch: HeartbeatBatch, rows: Ints, now_ms: int) -> None:
        f = self.fleet
        numbers = f.doc_number[rows]
        f.note_heartbeats(rows, batch.used, now_ms)
        if batch.health is not None:
            self.condition.note_health(rows, batch.health)
        granted = rows if numbers.all() else rows[numbers > 0]
        if (f.granted_number[granted] != f.doc_number[granted]).any():
            self.liveness.hasten(now_ms)
        f.note_granted(granted, now_ms)
        if self.documents.adds or self.documents.acknowledgements:
            for row in rows:
                self.documents.on_granted(int(row))
        self.ledger.emit(
            PublishLeases(
                self.ledger.epoch, batch.devices, batch.sessions, batch.seqs, f.doc_epoch[rows], numbers,
                f.runs_number[rows], f.inventory[rows], f.outbox[rows], f.stored[rows],
            )
        )  # fmt: skip
        self.ledger.count("grants", len(granted))

    def _on_heartbeat(self, batch: HeartbeatBatch, i: int, now_ms: int) -> None:
        row = self.sessions.row_of(batch.devices[i], now_ms)
        session = int(batch.sessions[i])
        if row is None or not self.sessions.accept(row, session, now_ms):
            return
        held = Held(*[int(v) for v in batch.held[i]])
        self.fleet.note_heartbeats(np.array([row]), batch.used[i : i + 1], now_ms)
        if batch.health is not None:
            self.condition.note_health(np.array([row]), batch.health[i : i + 1])
        self.liveness.heard(row, now_ms)
        if self._from_the_future(row, held.assignments, now_ms):
            return
        self.documents.heard(row, now_ms)
        self.sessions.settings_differ(row, held.settings, now_ms)
        granted = self._grant(row, held, now_ms)
        self._answer(row, session, int(batch.seqs[i]), granted)

    def _from_the_future(self, row: int, named: Revision, now_ms: int) -> bool:
        """A revision above what was stored before this take-over: the database is older than the fleet (D1).

        Revisions of epochs before the last detected restore are known to be above, and say nothing new.
        """
        ours, wall_s = self.ledger.epoch, self.ledger.wall(now_ms) // 1000
        if named.epoch > max(ours, wall_s) + EPOCH_AHEAD_MAX or (named.epoch > ours == self.restored):
            # No leader can have had it: believing it would drive the epoch out of its range. An
            # epoch taken for being above the whole fleet is not outdone by the next device that
            # names a higher one: it would make the fleet wait again and again.
            self.ledger.count_garbage("implausible_epoch")
            return False
        past = self.restored <= named.epoch < self.ledger.epoch
        if named.epoch <= self.ledger.epoch and not (past and named > self.loaded.get(row, NO_REVISION)):
            return False
        device = self.fleet.names[row]
        text = f"{device} holds revision {named.epoch}.{named.number}, later than ours"
        self.ledger.note("error", text, device=device)
        self.outdated = True
        self.ledger.emit(TakeEpoch(named.epoch, named))
        return True

    def _grant(self, row: int, held: Held, now_ms: int) -> Revision:
        """The revision granted to this heartbeat, or `NO_REVISION`."""
        if row in self.documents.doubted:
            self._weigh(row, held, now_ms)
            return NO_REVISION
        if held.assignments != self.fleet.document(row):
            self.documents.republish(row, now_ms)
            return NO_REVISION
        if not self.fleet.doc_number[row] or not self._reported(row, held):
            return NO_REVISION
        if not self._first(row):
            return self._granted(row, now_ms)
        if forgotten := self.holds.forgotten(row):
            self.holds.remove(forgotten, "forgotten by the device", now_ms)
            return NO_REVISION
        if row in self.documents.acknowledgements:
            # It names what has ended, and a device that lost its journal has lost that tombstone too.
            self.documents.revise(row, now_ms)
            return NO_REVISION
        for attempt in self.ledger.by_device[row].values():
            attempt.before = False
        return self._granted(row, now_ms)

    def _weigh(self, row: int, held: Held, now_ms: int) -> None:
        """After a restore: what the device was told in the backup and does not list is never told again.

        A report may have been on its way since before the restore, and tell of then: only one
        is believed whose device shows that it has heard this or a later leader since.
        """
        if held.settings.epoch < self.restored:
            self.sessions.tell_floor(row, now_ms)
            return
        if not self._reported(row, held):
            return
        forgotten = self.holds.forgotten(row)
        self.documents.believe(row)
        if forgotten:
            self.holds.remove(forgotten, "forgotten by the device", now_ms)
        else:
            self.documents.revise(row, now_ms)

    def _first(self, row: int) -> bool:
        """Whether nothing was granted yet in this session, under this leadership."""
        return bool(self.fleet.granted_session[row] != self.fleet.session[row])

    def _reported(self, row: int, held: Held) -> bool:
        """Grants begin after a `Runs` of this session; the first needs the one that the heartbeat names."""
        if self.fleet.runs_session[row] != self.fleet.session[row]:
            return False
        return not self._first(row) or int(self.fleet.runs_number[row]) >= held.runs

    def _granted(self, row: int, now_ms: int) -> Revision:
        self.liveness.hasten(now_ms)
        self.fleet.note_granted(np.array([row]), now_ms)
        self.documents.on_granted(row)
        self.ledger.count("grants")
        return self.fleet.document(row)

    def _answer(self, row: int, session: int, seq: int, granted: Revision) -> None:
        f = self.fleet
        runs = int(f.runs_number[row]) if int(f.runs_session[row]) == session else 0
        self.ledger.publish(
            row,
            LeaseAnswer(
                self.ledger.epoch, session, seq, granted, runs,
                int(f.inventory[row]), int(f.outbox[row]), int(f.stored[row]),
            ),
        )  # fmt: skip
