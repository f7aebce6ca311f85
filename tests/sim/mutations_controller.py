"""Clauses that a controller keeps: sessions and grants. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.broker_link as broker_link_module
import controller.core.leases as leases_module
import controller.core.liveness as liveness_module
import controller.core.loading as loading_module
import controller.core.sessions as sessions_module
from controller.core.controller import Controller
from controller.core.documents import Documents
from controller.core.failover import Failover
from controller.core.fleet import ONLINE, Fleet
from controller.core.holds import Holds
from controller.core.leases import Leases
from controller.core.liveness import Liveness
from controller.core.sessions import Sessions
from controller.core.tasks import Tasks
from edge_agent.core.agent import RECEIVERS, Agent
from protocol import messages as wire
from protocol.messages import NO_REVISION, Held
from protocol.tasks import AttemptId

# ------------------------------------------------------------- sessions and liveness


def _any_session_speaks(original):
    def accept(self, row, session, now_ms):
        if 0 < session < int(self.fleet.session[row]):
            return True
        return original(self, row, session, now_ms)

    return accept


def _floor_told_once(original):
    def tell_floor(self, row, now_ms):
        told = self.__dict__.setdefault("_floors_told", set())
        if row not in told:
            told.add(row)
            original(self, row, now_ms)

    return tell_floor


def _uncommitted_session(self, row, session):
    record = self.records[row]
    known = record.session
    _begin_session(self, row, session)
    record.session = known


_begin_session = Fleet.begin_session


def _will_frees(original):
    def on_change(self, row, now_ms):
        original(self, row, now_ms)
        if self.fleet.state[row] == 0:
            attempts = [a for a in self.ledger.by_device[row].values() if a.row.state != "removed"]
            for attempt in attempts:
                self.holds.remove([attempt], "device lost", now_ms)
                if attempt.id in self.ledger.attempts:
                    self.holds.force(attempt, "device lost", now_ms)

    return on_change


def _will_sticks(self, row, now_ms):
    if int(self.fleet.willed_ms[row]) > liveness_module.NEVER:
        return
    if self.fleet.state[row] != ONLINE:
        self._turn(row, ONLINE, now_ms)


def _placed_in_quarantine(original):
    def judge(self, row):
        quarantined, self.quarantined[row] = bool(self.quarantined[row]), False
        original(self, row)
        self.quarantined[row] = quarantined

    return judge


def _freed_in_quarantine(original):
    def on_runs(self, row, runs, now_ms):
        quarantined, self.fleet.quarantined[row] = bool(self.fleet.quarantined[row]), False
        original(self, row, runs, now_ms)
        self.fleet.quarantined[row] = quarantined

    return on_runs


def _any_change_alternates(original):
    def identify(self, row, status):
        known = bool(self.fleet.records[row].boot_id)
        before = (self.fleet.records[row].boot_id, self.fleet.records[row].instance_id)
        original(self, row, status)
        return known and before != (status.boot_id, status.instance_id)

    return identify


def _starts_in_quarantine(self):
    return self.promises.holds(self.connection.session) and not self.departure.leaving


def _identifies_by_wills(original):
    def on_status(self, row, message, now_ms):
        original(self, row, message, now_ms)
        known = message.session == int(self.ledger.fleet.session[row])
        if known and not message.online and self.sessions.identify(row, message):
            self.operators.quarantine(row, now_ms)

    return on_status


SESSIONS = (
    Mutation(
        "S1 old sessions heard",
        "that a lower session is dropped",
        "old_heartbeats_of_a_dead_device",
        "I9",
        (Swap(Sessions, "accept", _any_session_speaks),),
    ),
    Mutation(
        "S1 floor told once",
        "the answer to every message that is dropped for its session",
        "journal_of_long_ago",
        "I11",
        (Swap(Sessions, "tell_floor", _floor_told_once),),
    ),
    Mutation(
        "S1 any leap believed",
        "the bound on how far a session may be above the last",
        "impossible_session",
        "I11",
        (instead(sessions_module, "SESSION_LEAP_MAX", 2**64),),
    ),
    Mutation(
        "S1 session not committed",
        "the commit of a session before its first grant",
        "old_runs_after_a_restart",
        "I1",
        (instead(Fleet, "begin_session", _uncommitted_session), does_nothing(Holds, "forgotten", [])),
        "L2: what a session's first report doesn't list is never granted again",
    ),
    Mutation(
        "S2 a will frees",
        "that a will and silence free nothing",
        "cut",
        "I1",
        (Swap(Failover, "on_change", _will_frees),),
    ),
    Mutation(
        "S2 silence is not noticed",
        "`suspect` and `offline` by missed heartbeats",
        "silent_death",
        "I9 I11",
        (
            instead(liveness_module, "SUSPECT_HEARTBEATS", 1e6),
            instead(liveness_module, "OFFLINE_HEARTBEATS", 1e6),
        ),
    ),
    Mutation(
        "S2 a will is final",
        "that a heartbeat takes a will of its session back",
        "wrong_will",
        "I11",
        (instead(Liveness, "heard", _will_sticks),),
    ),
    Mutation(
        "S2 at_least_one waits too",
        "the successor at once",
        "eager_successor",
        "slow",
        (
            Swap(
                Failover,
                "_plan",
                lambda original: (
                    lambda self, a, now_ms: (
                        original(self, a, now_ms)
                        if a.job.at_most_one
                        else self.ledger.deadlines.set("hold", a.id, now_ms + 31_900)
                    )
                ),
            ),
        ),
    ),
    Mutation(
        "S3 the controller waits for a minute",
        "the 2 s at most of the controller's own reconnect",
        "broker_blip",
        "lease_lost",
        (instead(broker_link_module, "CONTROLLER_RECONNECT_MS", 60_000),),
    ),
    Mutation(
        "S4 two identities are not noticed",
        "the look at who alternates",
        "clone_speaks",
        "I1",
        (does_nothing(Sessions, "identify", False),),
    ),
    Mutation(
        "S4 freed by a clone's word",
        "that in quarantine `Runs` free nothing",
        "clone_speaks",
        "I1",
        (Swap(Holds, "on_runs", _freed_in_quarantine),),
    ),
    Mutation(
        "S4 work for the quarantined",
        "that it gets no work and is told to start none",
        "work_after_quarantine",
        "I6",
        (Swap(Fleet, "_judge", _placed_in_quarantine), instead(Agent, "_may_start", _starts_in_quarantine)),
        "the controller places nothing there, the agent starts nothing; both are off",
    ),
    Mutation(
        "S4 a reboot alternates",
        "that A, B, C is no alternation",
        "reboot_and_return",
        "I11",
        (Swap(Sessions, "identify", _any_change_alternates),),
    ),
    Mutation(
        "S4 a will tells who speaks",
        "that only births are looked at",
        "will_of_a_lost_life",
        "I11",
        (Swap(Controller, "_on_status", _identifies_by_wills),),
    ),
    Mutation(
        "S4 deaf after a quarantine",
        "that what was said in it is asked for again",
        "ends_in_quarantine",
        "I11",
        (does_nothing(Holds, "listen_again"),),
    ),
)

# ------------------------------------------------------------- documents and grants


def _grants_stale(original):
    def grant(self, row, held, now_ms):
        granted = original(self, row, held, now_ms)
        return held.assignments if granted == NO_REVISION else granted

    return grant


def _before_is_nothing(original):
    def load(ledger, documents, row, closed, now_ms):
        original(ledger, documents, row, closed, now_ms)
        attempt = ledger.attempts.get(AttemptId(row.task, row.attempt))
        if attempt is not None:
            attempt.before = False

    return load


def _any_report_will_do(self, row, held):
    return bool(self.fleet.runs_session[row] == self.fleet.session[row])


def _removed_forgets(original):
    def mark_removed(self, attempt):
        original(self, attempt)
        attempt.hold_until_ms = 0

    return mark_removed


def _repeated_invention(original):
    def from_the_future(self, row, named, now_ms):
        restored, self.restored = self.restored, 0
        found = original(self, row, named, now_ms)
        self.restored = restored
        return found

    return from_the_future


def _newer_by_number(original):
    def assignments(self, message, now_ms):
        if message.revision.number <= self.memory.assignments.revision.number:
            return []
        return original(self, message, now_ms)

    return assignments


def _granted_by_number(original):
    def grant(self, row, held, now_ms):
        document = self.fleet.document(row)
        if held.assignments.number == document.number:
            held = Held(*document, *held[2:])
        return original(self, row, held, now_ms)

    return grant


def _old_reports_believed(original):
    def weigh(self, row, held, now_ms):
        restored, self.restored = self.restored, 0
        original(self, row, held, now_ms)
        self.restored = restored

    return weigh


def _doubt_ends_without_a_revision(original):
    def weigh(self, row, held, now_ms):
        same = held.assignments == self.fleet.document(row)
        if same and held.settings.epoch >= self.restored and self._reported(row, held):
            self.documents.believe(row)
        else:
            original(self, row, held, now_ms)

    return weigh


GRANTS = (
    Mutation(
        "D1 a revision is its number",
        "the epoch in revisions",
        "epoch_used_twice",
        "I11",
        (
            Swap(RECEIVERS, wire.Assignments, _newer_by_number),
            Swap(Leases, "_grant", _granted_by_number),
        ),
    ),
    Mutation(
        "D1 an older database is not found out",
        "the look at revisions above what was stored",
        "backup_unmarked",
        "D1",
        (does_nothing(Leases, "_from_the_future", False),),
    ),
    Mutation(
        "D1 a report of before a restore is believed",
        "the sign that the device has heard a leader since",
        "report_of_before_a_restore",
        "I15",
        (Swap(Leases, "_weigh", _old_reports_believed),),
    ),
    Mutation(
        "D1 a document of before a restore is granted",
        "the revision that is made when its device is believed",
        "cancelled_while_nobody_could_be_told",
        "I7",
        (Swap(Leases, "_weigh", _doubt_ends_without_a_revision),),
    ),
    Mutation(
        "D1 attempt numbers go on after a restore",
        "the floor of attempt numbers",
        "backup_of_a_task_that_moved",
        "I15",
        (Swap(Tasks, "__init__", lambda original: lambda self, *others: original(self, *others[:-1], 0)),),
    ),
    Mutation(
        "D1 any epoch believed",
        "the bound of a day above clock and epoch",
        "invented_revision",
        "epoch",
        (instead(leases_module, "EPOCH_AHEAD_MAX", 2**61),),
    ),
    Mutation(
        "D1 every invention believed",
        "that an epoch taken for this reason is not outdone",
        "invented_twice",
        "waits",
        (Swap(Leases, "_from_the_future", _repeated_invention),),
    ),
    Mutation(
        "D3 documents said once",
        "the repeat of a document that a heartbeat does not name",
        "document_lost",
        "I11",
        (does_nothing(Documents, "republish"),),
    ),
    Mutation(
        "D3 additions never wait",
        "the wait until the present revision was granted",
        "churn",
        "lease_lost",
        (does_nothing(Documents, "_settled_ms", 0),),
    ),
    Mutation(
        "L2 stale revisions granted",
        "that only the current revision is granted",
        "removal_lost",
        "I1",
        (Swap(Leases, "_grant", _grants_stale),),
    ),
    Mutation(
        "L2 a hold forgotten",
        "that a grant moves the hold of every attempt in it",
        "cut",
        "I1",
        (does_nothing(Documents, "covered", False),),
    ),
    Mutation(
        "L2 a removed attempt forgets its hold",
        "that it keeps the hold of its last grant",
        "removed_while_cut",
        "I1",
        (Swap(Documents, "_mark_removed", _removed_forgets),),
    ),
    Mutation(
        "L2 grants before a report",
        "the wait for a `Runs` of this session",
        "lost_journal_and_power",
        "I15",
        (does_nothing(Leases, "_reported", True),),
    ),
    Mutation(
        "L2 any report of the session will do",
        "that the first grant needs the `Runs` that the heartbeat names",
        "old_runs_of_this_session",
        "I12",
        (instead(Leases, "_reported", _any_report_will_do),),
    ),
    Mutation(
        "L2 the forgotten is granted again",
        "that what a device no longer lists is taken out",
        "lost_journal_and_power",
        "I15",
        (does_nothing(Holds, "forgotten", []),),
    ),
    Mutation(
        "L2 a take-over forgets what was before",
        "that attempts of an earlier leadership count as granted",
        "lost_journal_and_take_over",
        "I15",
        (Swap(loading_module, "_load_attempt", _before_is_nothing),),
    ),
)


CONTROLLER = (*SESSIONS, *GRANTS)
