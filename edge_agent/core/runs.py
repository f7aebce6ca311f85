"""Runs: what the document asks for, what the journal promises, what the host holds.

Rules of this file. Intent before effect: an attempt enters `entries` (and is saved)
before `StartRun` leaves, and what has an entry is never started (D4). A terminal entry
is the tombstone (D6); it stays until a document without the attempt is held (D5). Death
is what the host says: a stop that was ordered is `stopping`, not `stopped` (H3).
`interrupted` is only said of what the host, asked, does not hold.
A run adopted without an entry (the journal was lost) is not stopped by a document that
no grant has confirmed yet: it may be an old copy; the deadline bounds the run (H7).

It is told whether starting is allowed and what the deadlines are; it knows nothing of
sessions, heartbeats or saving.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.core.effects import ExtendRun, ListRuns, StartRun, StopRun
from edge_agent.core.events import HostListed, RunExit
from edge_agent.core.memory import Memory
from protocol.core import Effect
from protocol.limits import STOP_GRACE_MS
from protocol.messages import NO_REVISION, AssignedAttempt, Assignments, RunEntry, Runs
from protocol.tasks import FINAL_RUN, AttemptId, RunState, check_run_move

ANSWER_MS = 10_000
"""A question that the host has not answered by then was lost on the way."""
UNSETTLED_MS = 30_000
"""A run that hangs between two states for so long is asked after."""
REASON_CHARS = 200
REASON_CHARS_CROWDED = 24
CROWD = 128
"""More entries than this and their reasons are cut: the document must fit one payload."""
EXTENDABLE = frozenset({RunState.STARTING, RunState.RUNNING})
OWN_ENDS = frozenset({"exited", "signalled", "timeout", "oom"})
"""Ends that are the task's own (C5); every other was done to it."""

SILENT_RUNTIMES = frozenset({"simulated"})
"""Their runs write no output: nothing to poll, nothing to drop."""

Deadline = Callable[[AssignedAttempt], int | None]


class RunBook:
    """All attempts of this device, from intent to oblivion."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.listed = False
        """Whether the present host has told what it holds; before that nothing is said or started."""
        self.changed = True
        """Whether the reported document differs from the last one published."""
        self.stale = True
        """Whether `offer` may find something to do."""
        self.number = 0
        self.ended: list[AttemptId] = []
        self.gone: list[AttemptId] = []
        self._told: dict[AttemptId, int] = {}
        self._grace: dict[AttemptId, int] = {}
        """Grace of live runs, kept because a stop comes with the document that no longer says it."""
        self._adopted: set[AttemptId] = set()
        self._moving: set[AttemptId] = set()
        self._wanted_of: tuple[Assignments | None, frozenset[AttemptId]] = (None, frozenset())
        self._ask = 0
        self._asking = False
        self._checked_ms = 0

    # ------------------------------------------------------------ the host

    def ask(self, now_ms: int) -> list[Effect]:
        """Ask the host what it holds; until it answers nothing is started."""
        self._ask += 1
        self._asking, self._checked_ms = True, now_ms
        return [ListRuns(self._ask)]

    def host_lost(self, now_ms: int) -> list[Effect]:
        self.listed = False
        self._told.clear()
        return self.ask(now_ms)

    def host_listed(self, event: HostListed, now_ms: int) -> list[Effect]:
        """Exits first, then adoption, then whatever neither lives nor ended was interrupted.

        A list nobody asked for (`ask` 0) is a new host's first word. While an order to start may be
        under way, behind a slow save, it may have reached that host after this word: ask behind it.
        An answer that the first word made needless may be older than what was started since.
        """
        if not event.ask:
            if self.listed:
                return []
            if self._moving:
                return self.ask(now_ms)
        elif event.ask != self._ask or not self._asking:
            return []
        self._asking, self._checked_ms, self.listed, self.stale = False, now_ms, True, True
        self._told.clear()  # an extension may have been dropped with a failed save: say them all again
        live = {AttemptId(task, attempt): None for task, attempt in event.live}
        preparing = {AttemptId(task, attempt) for task, attempt in event.preparing}
        for exit_ in event.exits:
            self.exited(exit_, now_ms)
        effects: list[Effect] = [self._stop_run(key) for key in live if self._state(key) is RunState.STOPPING]
        for key in live:
            effects += self._found(key, key in preparing, now_ms)
        for key in [k for k, e in self.memory.entries.items() if e.state not in FINAL_RUN and k not in live]:
            self._end(RunEntry(*key, RunState.INTERRUPTED, reason="not held by the run host"), now_ms)
        self.ended += [key for key in self.memory.outputs if key not in live and key not in self.ended]
        return effects + self._stop_unwanted(now_ms)

    def _found(self, key: AttemptId, preparing: bool, now_ms: int) -> list[Effect]:
        """The host holds it. What it still prepares has not started, and nobody may be told so (L7)."""
        if self._state(key) is None:
            self._adopted.add(key)
            self.memory.outputs[key] = None
            self._put(key, RunEntry(*key, RunState.STARTING), now_ms)
            self.memory.changed = self.stale = True
        if not preparing:
            return self.started(key, now_ms)
        if self._state(key) is RunState.STARTING:
            self._moving.add(key)  # also after a restart: that it started may be lost on the way
        return [self._stop_run(key)] if self._state(key) in FINAL_RUN else []

    def started(self, key: AttemptId, now_ms: int) -> list[Effect]:
        """The host executes this attempt. One that nobody knows here is adopted."""
        state = self._state(key)
        if state is None:
            return self._found(key, False, now_ms)
        if state is RunState.STARTING:
            self._put(key, RunEntry(*key, RunState.RUNNING), now_ms)
        return [self._stop_run(key)] if state in FINAL_RUN else []

    def refused(self, key: AttemptId, reason: str, failed: bool, now_ms: int) -> None:
        """The host will not run it: the task's own fault, or a start that came too late."""
        if key in self.memory.entries:
            stopping = self.memory.entries[key].state is RunState.STOPPING
            state = RunState.ENDED if failed and not stopping else RunState.STOPPED
            self._end(RunEntry(*key, state, reason=reason[:REASON_CHARS]), now_ms)

    def exited(self, exit_: RunExit, now_ms: int) -> None:
        """Nothing of this run lives any more. Told twice is told once."""
        key = AttemptId(exit_.task, exit_.attempt)
        self.stale = True
        if key not in self.memory.entries and not self._concerns(key):
            self.ended.append(key)
            self.gone.append(key)
            return
        own = exit_.reason in OWN_ENDS
        lost = exit_.reason == "guard_lost"
        state = RunState.ENDED if own else RunState.INTERRUPTED if lost else RunState.STOPPED
        reason = "" if exit_.reason in ("exited", "signalled") else exit_.reason[:REASON_CHARS]
        self._end(RunEntry(*key, state, exit_.exit_code, exit_.signal, reason), now_ms)

    # ------------------------------------------------------------ the document

    def take(self, document: Assignments, now_ms: int) -> list[Effect]:
        """Obey a newer document: what it no longer names is stopped, or forgotten if it has ended."""
        old = self.memory.assignments
        self.memory.assignments, self.memory.changed, self.stale = document, True, True
        wanted = self._wanted()
        was = {AttemptId(a.task, a.attempt): a.stop_grace_ms for a in old.attempts}
        removed = [key for key in was if key not in wanted]
        self._grace.update({key: was[key] for key in removed if key in self.memory.entries})
        follows = document.revision == (old.revision.epoch, old.revision.number + 1)
        if not follows or any(self._state(key) not in FINAL_RUN for key in removed):
            # Somebody may wait for `Runs` to name this revision (L3). A document that only
            # adds, or acknowledges what was reported, is answered by its heartbeat alone.
            self.changed = True
        self._forget(wanted)
        return self._stop_unwanted(now_ms)

    def confirmed(self, now_ms: int) -> list[Effect]:
        """A grant names the document we hold: it is no old copy, also for adopted runs."""
        self.stale = True
        self._adopted.clear()
        return self._stop_unwanted(now_ms)

    def processed(self, number: int) -> None:
        """The controller has saved `Runs` of this number: ends that it no longer asks for may go."""
        if number == self.number and not self.changed and self.memory.assignments.revision != NO_REVISION:
            self._forget(self._wanted())

    def offer(self, deadline: Deadline, may_start: bool, now_ms: int) -> list[Effect]:
        """Start what may be started, extend what lives and is covered."""
        self.stale = False
        effects: list[Effect] = []
        entries = self.memory.entries
        busy = {key.task for key, entry in entries.items() if entry.state not in FINAL_RUN}
        for attempt in self.memory.assignments.attempts:
            key, deadline_ms = AttemptId(attempt.task, attempt.attempt), deadline(attempt)
            entry = entries.get(key)
            if deadline_ms is None:
                continue
            if entry is None:
                in_time = not deadline_ms or now_ms < deadline_ms
                if may_start and in_time and not self._asking and self.listed and key.task not in busy:
                    busy.add(key.task)
                    effects.append(self._start(key, attempt, deadline_ms, now_ms))
            elif entry.state in EXTENDABLE and deadline_ms > self._told.get(key, 0):
                self._told[key] = deadline_ms
                effects.append(ExtendRun(*key, deadline_ms))
        return effects

    def stop_all(self, now_ms: int) -> list[Effect]:
        """Leave nothing behind."""
        live = [key for key, entry in self.memory.entries.items() if entry.state not in FINAL_RUN]
        return self._stop(live, now_ms)

    def living(self) -> bool:
        return any(entry.state not in FINAL_RUN for entry in self.memory.entries.values())

    # ------------------------------------------------------------ the report

    def begin(self) -> None:
        """A new session: its numbers start anew, and nothing was reported in it."""
        self.number, self.changed = 0, True

    def report(self, session: int) -> Runs:
        """The reported document, under a new number."""
        self.number += 1
        self.changed = False
        return self.again(session)

    def again(self, session: int) -> Runs:
        """The last reported document once more."""
        entries = tuple(self.memory.entries.values())
        if len(entries) > CROWD:
            entries = tuple(_shortened(entry) for entry in entries)
        return Runs(session, self.number, self.memory.assignments.revision, entries)

    # ------------------------------------------------------------ time

    def elapse(self, now_ms: int) -> list[Effect]:
        due_ms = self.due_ms()
        return self.ask(now_ms) if due_ms is not None and now_ms >= due_ms else []

    def due_ms(self) -> int | None:
        if self._asking:
            return self._checked_ms + ANSWER_MS
        return self._checked_ms + UNSETTLED_MS if self._moving else None

    # ------------------------------------------------------------ inside

    def _wanted(self) -> frozenset[AttemptId]:
        """Made once for each document: every event asks."""
        document = self.memory.assignments
        if document is not self._wanted_of[0]:
            wanted = frozenset(AttemptId(a.task, a.attempt) for a in document.attempts)
            self._wanted_of = document, wanted
        return self._wanted_of[1]

    def _state(self, key: AttemptId) -> RunState | None:
        entry = self.memory.entries.get(key)
        return None if entry is None else entry.state

    def _concerns(self, key: AttemptId) -> bool:
        """Whether the end of an attempt without an entry is news: it is asked for, or nothing is known."""
        return self.memory.assignments.revision == NO_REVISION or key in self._wanted()

    def _start(self, key: AttemptId, attempt: AssignedAttempt, deadline_ms: int, now_ms: int) -> Effect:
        reported = self.changed
        self._put(key, RunEntry(*key, RunState.STARTING), now_ms)
        self.changed = reported  # `running` follows within milliseconds and is worth the message
        self._told[key] = deadline_ms
        self._grace[key] = attempt.stop_grace_ms
        if attempt.runtime not in SILENT_RUNTIMES:
            self.memory.outputs[key] = None
        self.memory.changed = True
        return StartRun(attempt, deadline_ms)

    def _stop_unwanted(self, now_ms: int) -> list[Effect]:
        if self.memory.assignments.revision == NO_REVISION:
            return []
        wanted = self._wanted()
        live = [key for key, entry in self.memory.entries.items() if entry.state not in FINAL_RUN]
        return self._stop([k for k in live if k not in wanted and k not in self._adopted], now_ms)

    def _stop_run(self, key: AttemptId) -> Effect:
        return StopRun(*key, self._grace.get(key, STOP_GRACE_MS))

    def _stop(self, keys: list[AttemptId], now_ms: int) -> list[Effect]:
        """Order the end once; a host that lists such a run again is told again, and never otherwise."""
        effects: list[Effect] = []
        for key in keys:
            if self._state(key) is not RunState.STOPPING:
                self._put(key, RunEntry(*key, RunState.STOPPING), now_ms)
                effects.append(self._stop_run(key))
        return effects

    def _end(self, entry: RunEntry, now_ms: int) -> None:
        """The end of an attempt, and with it the tombstone. Told twice is told once."""
        key = AttemptId(entry.task, entry.attempt)
        if self._state(key) in FINAL_RUN:
            return
        self._told.pop(key, None)
        self._grace.pop(key, None)
        self._adopted.discard(key)
        self._put(key, entry, now_ms)
        self.memory.changed = self.stale = True
        self.ended.append(key)

    def _forget(self, wanted: frozenset[AttemptId]) -> None:
        entries = self.memory.entries
        for key in [k for k, e in entries.items() if e.state in FINAL_RUN and k not in wanted]:
            del entries[key]
            self._grace.pop(key, None)
            self.gone.append(key)

    def _put(self, key: AttemptId, entry: RunEntry, now_ms: int) -> None:
        old = self.memory.entries.get(key)
        if old is not None:
            check_run_move(key, old.state, entry.state)
        self.memory.entries[key] = entry
        self.changed = True
        self._moving.discard(key)
        if entry.state in (RunState.STARTING, RunState.STOPPING):
            self._moving.add(key)
            self._checked_ms = now_ms


def _shortened(entry: RunEntry) -> RunEntry:
    reason = entry.reason[:REASON_CHARS_CROWDED]
    return RunEntry(entry.task, entry.attempt, entry.state, entry.exit_code, entry.signal, reason)
