"""Clauses that a device keeps: sessions, documents and grants. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import edge_agent.core.agent as agent_module
import edge_agent.core.connection as connection_module
from edge_agent.core.agent import HANDLERS, RECEIVERS, Agent
from edge_agent.core.commands import CommandBook
from edge_agent.core.connection import Connection
from edge_agent.core.effects import ExtendRun
from edge_agent.core.heartbeat import Heartbeats
from edge_agent.core.leases import LeaseBook
from edge_agent.core.outbox import Outbox
from edge_agent.core.promises import Promises
from edge_agent.core.runs import RunBook
from edge_agent.guard_runs import Run
from protocol import messages as wire
from protocol.core import LinkUp
from sim.machines.runhost import VirtualGuard

# ------------------------------------------------------------- sessions


def _counted_draw(self):
    above = max(self.memory.session, self.session, self.memory.settings.session_floor)
    self.memory.session = ((above >> 24) + 1) << 24
    self.memory.changed = True
    return self.memory.session


def _never_sure(original):
    """Once a save failed, no later one counts."""

    def holds(self, session):
        return original(self, session) and not self.__dict__.get("_ever_failed", False)

    return holds


def _remember_failure(original):
    def failed(self, now_ms):
        self.__dict__["_ever_failed"] = True
        original(self, now_ms)

    return failed


def _greets_without_report(original):
    def link_up(self, event, now_ms):
        listed, self.runs.listed = self.runs.listed, False
        effects = original(self, event, now_ms)
        self.runs.listed, self.runs.changed = listed, False
        return effects

    return link_up


SESSIONS = (
    Mutation(
        "S1 sessions only count",
        "the 24 random bits: a lost journal counts from 1 again",
        "old_grant_after_lost_journal",
        "I15",
        (instead(Connection, "_draw", _counted_draw),),
    ),
    Mutation(
        "S1 nothing starts again after a failed save",
        "the end of the wait: a save that succeeds",
        "journal_fails_for_a_while",
        "I11",
        (Swap(Promises, "holds", _never_sure), Swap(Promises, "failed", _remember_failure)),
    ),
    Mutation(
        "S1 an unattainable floor is obeyed",
        "the bound on floors",
        "impossible_floor",
        "I11",
        (
            does_nothing(connection_module, "floor_is_attainable", True),
            does_nothing(agent_module, "floor_is_attainable", True),
        ),
    ),
    Mutation(
        "S1 floor not obeyed",
        "the reconnect above the floor",
        "journal_of_long_ago",
        "I11",
        (does_nothing(Connection, "obey_floor", []),),
    ),
    Mutation(
        "S3 no short waits at first",
        "the cap of 8 s for the first eight tries",
        "broker_blip",
        "lease_lost",
        (instead(connection_module, "reconnect_ms", lambda tries, rng, base_ms: rng.randint(0, 60_000)),),
    ),
    Mutation(
        "S3 no report on connecting",
        "`runs` in the greeting",
        "reconnect",
        "I11",
        (Swap(HANDLERS, LinkUp, _greets_without_report),),
    ),
)

# ------------------------------------------------------------- documents and grants


def _obeys_any_document(self, message, now_ms):
    if not self._epoch_holds(message.revision.epoch):
        return []
    effects = self.runs.take(message, now_ms)
    self.leases.forget()
    self._tune()
    self.heartbeats.now(now_ms)
    return effects


def _document_is_a_grant(original):
    def assignments(self, message, now_ms):
        before = self.memory.assignments.revision
        effects = original(self, message, now_ms)
        if self.memory.assignments.revision > before:
            self.leases.grant(now_ms)
        return effects

    return assignments


def _any_revision_is_ours(original):
    def lease_answer(self, message, now_ms):
        if message.granted != wire.NO_REVISION:
            message = wire.LeaseAnswer(
                message.epoch, message.session, message.seq, self.memory.assignments.revision,
                message.runs, message.inventory, message.outbox, message.stored,
            )  # fmt: skip
        return original(self, message, now_ms)

    return lease_answer


def _any_session_is_ours(original):
    return lambda self, session, seq: original(self, self.session, seq)


def _unknown_is_the_latest(original):
    def answered(self, session, seq):
        if session == self.session and seq not in self.sent and self.sent:
            return next(reversed(self.sent.values()))
        return original(self, session, seq)

    return answered


def _counted_from_receipt(original):
    def lease_answer(self, message, now_ms):
        sent = self.heartbeats.sent
        if message.seq in sent:
            sent[message.seq] = (now_ms, sent[message.seq][1])
        return original(self, message, now_ms)

    return lease_answer


def _latest_grant_counts(self, sent_ms):
    self.sent_ms = sent_ms
    return True


def _deadlines_move_back(original):
    def offer(self, deadline, may_start, now_ms):
        self._told.clear()
        return original(self, deadline, may_start, now_ms)

    return offer


def _guard_obeys_back(self, deadline_ms, now_ms):
    if not self.cause and self.deadline_ms:
        self.deadline_ms = deadline_ms
        self.end_due_ms = self._end_due(now_ms)


def _looks_at_once(original):
    def extend(self, key, deadline_ms):
        original(self, key, deadline_ms)
        if (run := self._find(key)) is not None:
            self._arm(run)

    return extend


def _without_extensions(original):
    def offer(self, deadline, may_start, now_ms):
        return [e for e in original(self, deadline, may_start, now_ms) if not isinstance(e, ExtendRun)]

    return offer


def _starts_unlooked(original):
    """The guard begins a run whatever its deadline says."""

    def begin(self, run):
        deadline_ms, run.rule.deadline_ms = run.rule.deadline_ms, 0
        original(self, run)
        run.rule.deadline_ms = deadline_ms

    return begin


def _looks_at_live_runs_only(original):
    return lambda self, run: original(self, run) if run.alive else None


def _repairs_nothing_of(channel):
    def make(original):
        def may_repeat(self, name, now_ms):
            return name != channel and original(self, name, now_ms)

        return may_repeat

    return make


DOCUMENTS = (
    Mutation(
        "D1 old documents obeyed",
        "the comparison of revisions",
        "old_document_and_its_grant",
        "I1 I15",
        (instead(RECEIVERS, wire.Assignments, _obeys_any_document),),
    ),
    Mutation(
        "D2 start on the document alone",
        "the wait for a grant",
        "document_comes_late",
        "I1",
        (Swap(RECEIVERS, wire.Assignments, _document_is_a_grant),),
    ),
    Mutation(
        "D2 grant for another revision",
        "the comparison of the granted revision with the one held",
        "grant_of_the_revision_before",
        "I1",
        (Swap(RECEIVERS, wire.LeaseAnswer, _any_revision_is_ours),),
    ),
    Mutation(
        "D2 grant for another session",
        "the comparison of the session of a grant with the present one",
        "old_grant_after_lost_journal",
        "I15",
        (Swap(Heartbeats, "answered", _any_session_is_ours),),
    ),
    Mutation(
        "D2 start after the deadline",
        "the guard's look at the clock before it starts",
        "slow_start",
        "I1",
        (
            Swap(VirtualGuard, "_begin", _starts_unlooked),
            Swap(VirtualGuard, "_look", _looks_at_live_runs_only),
        ),
    ),
    Mutation(
        "D3 runs said once",
        "the device's repeat of a `Runs` that was not processed",
        "runs_lost",
        "I11",
        (Swap(Agent, "_may_repeat", _repairs_nothing_of("runs")),),
    ),
    Mutation(
        "D3 inventory said once",
        "the repeat of an inventory that was not processed",
        "inventory_lost",
        "I11",
        (Swap(Agent, "_may_repeat", _repairs_nothing_of("inventory")),),
    ),
    Mutation(
        "D3 no heartbeat on a new document",
        "the heartbeat at once",
        "quick_start",
        "slow",
        (does_nothing(Heartbeats, "now"),),
    ),
    Mutation(
        "L1 count from receipt",
        "the look-up of when the heartbeat was sent",
        "grant_lay_in_the_broker",
        "I1",
        (Swap(RECEIVERS, wire.LeaseAnswer, _counted_from_receipt),),
    ),
    Mutation(
        "L1 grant for an unknown heartbeat",
        "the refusal of grants whose heartbeat is not remembered",
        "grant_for_a_forgotten_heartbeat",
        "I1",
        (Swap(Heartbeats, "answered", _unknown_is_the_latest),),
    ),
    Mutation(
        "L1 deadlines move back",
        "that a deadline is never earlier than it was",
        "grants_out_of_order",
        "I12",
        (
            instead(LeaseBook, "grant", _latest_grant_counts),
            Swap(RunBook, "offer", _deadlines_move_back),
            instead(Run, "extend", _guard_obeys_back),
            Swap(VirtualGuard, "extend", _looks_at_once),
        ),
        "the lease book, the run book and the guard each refuse it; all three are off",
    ),
    Mutation(
        "L1 grants extend nothing",
        "the extension of a live run's deadline",
        "long_run",
        "lease_lost",
        (Swap(RunBook, "offer", _without_extensions),),
    ),
    Mutation(
        "C1 commands of any session",
        "the comparison of a command's session",
        "late_command",
        "C1",
        (Swap(CommandBook, "answer", lambda original: lambda s, m, session: original(s, m, m.session)),),
    ),
    Mutation(
        "C1 doubles answered",
        "the memory of commands answered",
        "doubled_command",
        "C1",
        (
            Swap(
                CommandBook,
                "answer",
                lambda original: lambda s, m, session: (s._answered.clear(), original(s, m, session))[1],
            ),
        ),
    ),
    Mutation(
        "C3 trimmed when sent",
        "that output is kept until it is named as stored",
        "output_chunk_lost",
        "I8",
        (does_nothing(Outbox, "resend", []),),
    ),
)

DEVICE = (*SESSIONS, *DOCUMENTS)
