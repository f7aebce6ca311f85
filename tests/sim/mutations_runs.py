"""Clauses that a device keeps: intents, ends, tombstones, and the guard. See `switches`."""

from __future__ import annotations

from dataclasses import replace

from switches import Mutation, Swap, does_nothing, instead

from controller.core.holds import Holds
from edge_agent.core.agent import Agent
from edge_agent.core.effects import StartRun
from edge_agent.core.runs import RunBook
from edge_agent.guard_runs import Run
from protocol import messages as wire
from protocol.core import Publish, Save
from protocol.tasks import FINAL_RUN, AttemptId, RunState
from sim.machines.runhost import VirtualGuard


def _effects_before_the_save(original):
    def handle(self, event, now_ms):
        effects = original(self, event, now_ms)
        saves = [e for e in effects if isinstance(e, Save)]
        return [e for e in effects if not isinstance(e, Save)] + saves

    return handle


def _starts_again(states):
    """What neither the host holds nor a document lets go is started once more."""

    def make(original):
        def offer(self, deadline, may_start, now_ms):
            effects = original(self, deadline, may_start, now_ms)
            for attempt in self.memory.assignments.attempts:
                entry = self.memory.entries.get(AttemptId(attempt.task, attempt.attempt))
                deadline_ms = deadline(attempt)
                if entry is not None and entry.state in states and deadline_ms is not None and may_start:
                    if not any(isinstance(e, StartRun) and e.attempt == attempt for e in effects):
                        effects.append(StartRun(attempt, deadline_ms))
            return effects

        return offer

    return make


def _holds_nothing(original):
    def host_listed(self, event, now_ms):
        return original(self, replace(event, live=()), now_ms)

    return host_listed


def _nothing_is_prepared(original):
    def host_listed(self, event, now_ms):
        return original(self, replace(event, preparing=()), now_ms)

    return host_listed


def _only_known_runs(original):
    def host_listed(self, event, now_ms):
        live = tuple(key for key in event.live if AttemptId(*key) in self.memory.entries)
        return original(self, replace(event, live=live), now_ms)

    return host_listed


def _never_interrupted(original):
    def host_listed(self, event, now_ms):
        unsettled = [k for k, e in self.memory.entries.items() if e.state not in FINAL_RUN]
        live = dict.fromkeys([*map(tuple, event.live), *map(tuple, unsettled)])
        ended = {(x.task, x.attempt) for x in event.exits}
        kept = tuple(key for key in live if key not in ended)
        return original(self, replace(event, live=kept), now_ms)

    return host_listed


def _lists(keep):
    """`Runs` lists only what `keep(self, entry)` says."""

    def make(original):
        def again(self, session):
            runs = original(self, session)
            entries = tuple(e for e in runs.entries if keep(self, e))
            return wire.Runs(runs.session, runs.number, runs.answers, entries)

        return again

    return make


def _said_once(self, entry):
    said = self.__dict__.setdefault("_said", set())
    key = (entry.task, entry.attempt)
    if key in said:
        return False
    if entry.state in FINAL_RUN:
        said.add(key)
    return True


def _unlisted(original):
    """Nothing waits for the host's list."""

    def report(self, now_ms):
        listed, self.runs.listed = self.runs.listed, True
        effects = original(self, now_ms)
        self.runs.listed = listed
        return effects

    return report


def _starts_unasked(original):
    def offer(self, deadline, may_start, now_ms):
        asking, listed = self._asking, self.listed
        self._asking, self.listed = False, True
        effects = original(self, deadline, may_start, now_ms)
        self._asking, self.listed = asking, listed
        return effects

    return offer


def _stops_adopted(original):
    def stop_unwanted(self, now_ms):
        self._adopted.clear()
        return original(self, now_ms)

    return stop_unwanted


def _mute_tombstones(original):
    """An end that came while the document did not name the attempt stays unsaid afterwards."""

    def take(self, document, now_ms):
        before = {AttemptId(a.task, a.attempt) for a in self.memory.assignments.attempts}
        ended = [k for k, e in self.memory.entries.items() if e.state in FINAL_RUN and k not in before]
        self.__dict__.setdefault("_mute", set()).update(ended)
        return original(self, document, now_ms)

    return take


def _quiet_while_failing(original):
    def handle(self, event, now_ms):
        effects = original(self, event, now_ms)
        if not self.promises.failing:
            return effects
        return [e for e in effects if not (isinstance(e, Publish) and isinstance(e.message, wire.Runs))]

    return handle


def _only_live_runs(self, attempt, deadline_ms):
    held = self.runs.get(attempt.task)
    return "task is live" if held is not None else "no guard" if not self.up else ""


RUNS = (
    Mutation(
        "D4 start before the intent is saved",
        "the order of the save and what follows it",
        "power_fails_at_the_start",
        "I15",
        (Swap(Agent, "handle", _effects_before_the_save), does_nothing(Holds, "forgotten", [])),
        "L2: what a session's first report doesn't list is never granted again",
    ),
    Mutation(
        "D4 what has an entry is started",
        "that an entry in the journal forbids a start",
        "guard_dies_unnoticed",
        "I1 I15",
        (Swap(RunBook, "offer", _starts_again({RunState.STARTING, RunState.RUNNING})),),
        "the guard's news come after the network's",
    ),
    Mutation(
        "D4 interrupted is said unasked",
        "the question to the guard",
        "agent_restarts",
        "I1 I12",
        (Swap(RunBook, "host_listed", _holds_nothing),),
    ),
    Mutation(
        "D4 interrupted is never said",
        "the conclusion that what the guard does not hold is over",
        "reboot",
        "I11",
        (Swap(RunBook, "host_listed", _never_interrupted),),
    ),
    Mutation(
        "D4 start before the guard has answered",
        "the wait for the guard's list",
        "slow_guard_and_no_journal",
        "I12",
        (Swap(RunBook, "offer", _starts_unasked),),
    ),
    Mutation(
        "D5 an end is said once",
        "that an end stays listed",
        "runs_lost",
        "I11",
        (Swap(RunBook, "again", _lists(_said_once)),),
    ),
    Mutation(
        "D5 a stop that is ordered is done",
        "`stopping`: the attempt leaves `Runs` at once",
        "drain",
        "I1",
        (Swap(RunBook, "again", _lists(lambda self, e: e.state is not RunState.STOPPING)),),
    ),
    Mutation(
        "D5 what is prepared is called running",
        "`starting` for what the guard lists without a process",
        "cordon_while_it_is_prepared",
        "I6",
        (Swap(RunBook, "host_listed", _nothing_is_prepared),),
    ),
    Mutation(
        "D5 runs without the guard's list",
        "what the guard holds and the journal does not know",
        "lost_journal_alone",
        "I1 I12",
        (Swap(RunBook, "host_listed", _only_known_runs),),
    ),
    Mutation(
        "D5 runs before the guard's list",
        "the silence of an agent that can't ask its guard",
        "slow_guard_and_no_journal_leased",
        "I12",
        (Swap(Agent, "_report", _unlisted),),
    ),
    Mutation(
        "D6 no tombstone",
        "that what ended is never started again",
        "runs_held",
        "I15",
        (
            Swap(RunBook, "offer", _starts_again(FINAL_RUN)),
            instead(VirtualGuard, "_refusal", _only_live_runs),
        ),
        "the guard, which refuses an attempt that it remembers",
    ),
    Mutation(
        "D6 a tombstone that is not told",
        "that an ended attempt named by a document is listed",
        "ends_under_an_old_copy",
        "rerun",
        (
            Swap(RunBook, "take", _mute_tombstones),
            Swap(
                RunBook,
                "again",
                _lists(lambda self, e: (e.task, e.attempt) not in self.__dict__.get("_mute", set())),
            ),
        ),
    ),
    Mutation(
        "D6 an unconfirmed document stops adopted runs",
        "the patience until a grant names the document",
        "old_copy_after_lost_journal",
        "I12",
        (Swap(RunBook, "_stop_unwanted", _stops_adopted),),
    ),
    Mutation(
        "D6 tombstones are kept for ever",
        "the end of a tombstone at the next document without it",
        "steady_work",
        "I14",
        (does_nothing(RunBook, "_forget"),),
    ),
    Mutation(
        "D6 no end is said while saving fails",
        "the report of an end whose intent was saved",
        "end_while_the_journal_fails",
        "I11",
        (Swap(Agent, "handle", _quiet_while_failing),),
    ),
    Mutation(
        "L4 the guard does not kill",
        "the enforcement of deadlines",
        "cut",
        "I1",
        (does_nothing(Run, "_end_due", 0),),
    ),
    Mutation(
        "L4 the guard's death ends nothing",
        "that its runs die with it",
        "guard_dies",
        "I1",
        (
            Swap(VirtualGuard, "die", lambda original: lambda self, *rest: original(self, True)),
            does_nothing(VirtualGuard, "sweep"),
        ),
    ),
    Mutation(
        "L4 a new guard answers before it has swept",
        "the sweep of what a predecessor left, where runs can't be contained",
        "weak_guard_dies",
        "I1",
        (does_nothing(VirtualGuard, "sweep"),),
    ),
    Mutation(
        "L4 runs thaw before the guard looks",
        "the look at deadlines after a suspend",
        "suspend",
        "I1",
        (
            Swap(
                VirtualGuard, "resume", lambda original: lambda self, first, ms: original(self, False, 1_500)
            ),
        ),
    ),
)
