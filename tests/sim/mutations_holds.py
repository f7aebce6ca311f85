"""Clauses that say when an attempt is free. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.loading as loading_module
from controller.core.documents import Documents
from controller.core.fleet import Fleet
from controller.core.holds import Holds
from controller.core.records import AttemptState
from protocol import limits
from protocol.tasks import AttemptId


def _absence_frees(original):
    def weigh(self, attempt, entry, answers, now_ms):
        if entry is None and attempt.row.state is AttemptState.REMOVED:
            self._release(attempt, "stopped", now_ms)
        else:
            original(self, attempt, entry, answers, now_ms)

    return weigh


def _absence_of_anything_frees(original):
    def weigh(self, attempt, entry, answers, now_ms):
        if entry is None:
            self._release(attempt, "stopped", now_ms)
        else:
            original(self, attempt, entry, answers, now_ms)

    return weigh


def _every_session_frees(original):
    def on_runs(self, row, runs, now_ms):
        holder, Documents.holder = Documents.holder, lambda documents, attempt: 0
        try:
            original(self, row, runs, now_ms)
        finally:
            Documents.holder = holder

    return on_runs


def _make_before_break(original):
    def remove(self, attempts, reason, now_ms):
        original(self, attempts, reason, now_ms)
        for attempt in attempts:
            if attempt.id in self.ledger.attempts and self.awaited(attempt):
                self.tasks.lost(self._task_of(attempt), reason, now_ms)

    return remove


def _time_frees_everything(original):
    def remove(self, attempts, reason, now_ms):
        original(self, attempts, reason, now_ms)
        for attempt in attempts:
            if attempt.id in self.ledger.attempts and not attempt.job.at_most_one:
                self.ledger.deadlines.set("hold", attempt.id, now_ms + 31_900)

    return remove


def _frees_by_time(self, attempt, now_ms):
    if attempt.row.state is not AttemptState.REMOVED:
        return
    if not attempt.job.at_most_one or now_ms >= attempt.hold_until_ms:
        self._release(attempt, attempt.row.reason or "hold passed", now_ms)
    else:
        self.ledger.deadlines.set("hold", attempt.id, attempt.hold_until_ms)


def _nothing_held(removed_only):
    def make(original):
        def load(ledger, documents, row, closed, now_ms):
            original(ledger, documents, row, closed, now_ms)
            attempt = ledger.attempts.get(AttemptId(row.task, row.attempt))
            if attempt is None or (removed_only and row.state is not AttemptState.REMOVED):
                return
            attempt.floor_ms = attempt.hold_until_ms = 0
            if row.state is AttemptState.REMOVED:
                ledger.deadlines.set("hold", attempt.id, now_ms)

        return load

    return make


HOLDS = (
    Mutation(
        "L3 no revision check",
        "that absence counts only with the revision that removed it",
        "old_runs_after_removal",
        "I1",
        (Swap(Holds, "_weigh", _absence_frees),),
    ),
    Mutation(
        "L3 absence of what was not removed",
        "that an attempt which nobody removed is not freed by absence",
        "old_runs",
        "I1",
        (Swap(Holds, "_weigh", _absence_of_anything_frees),),
    ),
    Mutation(
        "L3 reports of old sessions free",
        "the comparison with the session of the last grant",
        "old_runs_without_restart",
        "I1",
        (Swap(Holds, "on_runs", _every_session_frees), does_nothing(Holds, "forgotten", [])),
        "L2: what a session's first report doesn't list is never granted again",
    ),
    Mutation(
        "L3 make before break",
        "the wait of a successor for the end of what is moved",
        "drain",
        "I1",
        (Swap(Holds, "remove", _make_before_break),),
    ),
    Mutation(
        "L3 time frees at_least_one",
        "that an `at_least_one` attempt waits for its device's word",
        "eager_cancel",
        "I7",
        (Swap(Holds, "remove", _time_frees_everything), instead(Holds, "on_hold_due", _frees_by_time)),
    ),
    Mutation(
        "L4 weak containment is held as strong",
        "the 30 s more for a guard that may sweep late",
        "weak_guard_dies_cut_off",
        "I1",
        (instead(Fleet, "hold_ms", lambda self, row, lease_ms: limits.hold_ms(lease_ms)),),
    ),
    Mutation(
        "L5 nothing is held after a take-over",
        "the hold of everything not free",
        "cut_and_take_over",
        "I1",
        (Swap(loading_module, "_load_attempt", _nothing_held(False)),),
    ),
    Mutation(
        "L5 removed attempts are not held after a take-over",
        "the hold of what was removed before",
        "removed_and_take_over",
        "I1",
        (Swap(loading_module, "_load_attempt", _nothing_held(True)),),
    ),
    Mutation(
        "L7 a cordon leaves the unstarted",
        "that it takes out what no `Runs` showed as started",
        "cordon_before_the_document",
        "I6",
        (does_nothing(Holds, "unstarted", []),),
    ),
)
