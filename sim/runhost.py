"""A guard without processes: runs are timers, and nothing else ends them late.

Rules of this file: it keeps what the real guard promises. It starts nothing at or after a
deadline, refuses two runs of one task, needs no agent to kill, is done with a kill within
K, remembers how runs ended until told to forget, and takes its runs with it when it dies.
A command means what it means to the simulated runtime. Times are the device's own clock,
which is not the world's. It knows no journal and no network.
Rejected: the simulated runtime itself as the guard (it starts and kills in no time and
never dies, and what a protocol must bear lies in just those seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_agent.core.events import HostListed, RunExit, RunExited, RunRefused, RunStarted
from edge_agent.runtimes.simulated import read_command
from protocol.core import Event
from protocol.limits import KILL_MS
from protocol.messages import AssignedAttempt
from protocol.tasks import AttemptId
from sim.clockwork import Clockwork

START_MS = (1, 40)
"""From the order to a process; a slow card takes longer, and the deadline is looked at after it."""


class RunWatcher(Protocol):
    """Who is told what really runs, and not what anybody says of it."""

    def run_began(self, device: str, attempt: AssignedAttempt) -> None: ...

    def run_ended(self, device: str, attempt: AssignedAttempt) -> None: ...

    def journal_lost(self, device: str) -> None: ...


class DeviceClock(Protocol):
    """The device's own time."""

    def local_ms(self) -> int: ...

    def world_ms(self, local_ms: int) -> int: ...


@dataclass(slots=True)
class GuardedRun:
    """A run from its order to its end; `alive` from its start. `deadline_ms` 0: none."""

    attempt: AssignedAttempt
    deadline_ms: int
    alive: bool = False
    dying: bool = False


class VirtualGuard:
    """All runs of one device."""

    def __init__(self, device: str, clock: Clockwork, own: DeviceClock, watcher: RunWatcher) -> None:
        self.device = device
        self.clock = clock
        self.own = own
        self.watcher = watcher
        self.rng = clock.stream(f"guard {device}")
        self.runs: dict[str, GuardedRun] = {}
        self.exits: dict[AttemptId, RunExit] = {}
        self.outputs: dict[AttemptId, bytes] = {}
        self.up = True
        """A dead guard takes no orders; its successor answers when it stands."""
        self.slow_ms = 0
        """Added to every start: unpacking, a slow card."""
        self.tell: Callable[[Event], None] = lambda event: None
        """The newest agent's ear; nobody else is obeyed."""

    # ------------------------------------------------------------- orders

    def start(self, attempt: AssignedAttempt, deadline_ms: int) -> None:
        """Takes the order or refuses it; what was taken is held, listed and killable from now on."""
        if not self.up:
            return
        if attempt.task in self.runs:
            self.tell(RunRefused(attempt.task, attempt.attempt, "another run of this task lives"))
            return
        run = self.runs[attempt.task] = GuardedRun(attempt, deadline_ms)
        self.clock.after(self.rng.randint(*START_MS) + self.slow_ms, lambda: self._begin(run))

    def _begin(self, run: GuardedRun) -> None:
        """Everything is unpacked: now it starts, unless the deadline has come meanwhile."""
        attempt = run.attempt
        if self.runs.get(attempt.task) is not run or run.dying:
            return
        if run.deadline_ms and self.own.local_ms() >= run.deadline_ms:
            self._bury(run)
            self.tell(RunRefused(attempt.task, attempt.attempt, "past its deadline"))
        else:
            self._live(run)

    def _live(self, run: GuardedRun) -> None:
        attempt = run.attempt
        run.alive = True
        self.outputs[AttemptId(attempt.task, attempt.attempt)] = (
            f"{attempt.task} {attempt.attempt}\n".encode()
        )
        self.clock.trace(self.device, f"START {attempt.task} {attempt.attempt}")
        self.watcher.run_began(self.device, attempt)
        self.tell(RunStarted(attempt.task, attempt.attempt))
        does = read_command(attempt.command)
        if does.duration_ms is not None:
            self.clock.after(does.duration_ms, lambda: self._end(run, does.exit_code, "exited"))
        if attempt.timeout_ms:
            self.clock.after(attempt.timeout_ms, lambda: self._kill(run, "timeout"))
        self._watch(run)

    def extend(self, key: AttemptId, deadline_ms: int) -> None:
        run = self.runs.get(key.task)
        if run is not None and run.attempt.attempt == key.attempt and run.deadline_ms:
            run.deadline_ms = max(run.deadline_ms, deadline_ms)

    def stop(self, key: AttemptId) -> None:
        run = self.runs.get(key.task)
        if run is not None and run.attempt.attempt == key.attempt:
            self._kill(run, "stopped")
        elif key in self.exits:
            self.tell(RunExited(self.exits[key]))

    def forget(self, key: AttemptId) -> None:
        self.exits.pop(key, None)

    def listing(self, ask: int) -> HostListed:
        live = tuple((run.attempt.task, run.attempt.attempt) for run in self.runs.values())
        return HostListed(ask, live, tuple(self.exits.values()))

    def drop_output(self, key: AttemptId) -> None:
        self.outputs.pop(key, None)

    # ------------------------------------------------------------- ends

    def _watch(self, run: GuardedRun) -> None:
        if run.deadline_ms:
            self.clock.at(self.own.world_ms(run.deadline_ms), lambda: self._look(run))

    def _look(self, run: GuardedRun) -> None:
        if self.runs.get(run.attempt.task) is not run or run.dying:
            return
        if self.own.local_ms() >= run.deadline_ms:
            self._kill(run, "deadline")
        else:
            self._watch(run)

    def _kill(self, run: GuardedRun, reason: str) -> None:
        if self.runs.get(run.attempt.task) is run and not run.dying:
            run.dying = True
            grace_ms = min(run.attempt.stop_grace_ms, KILL_MS)
            self.clock.after(self.rng.randint(0, grace_ms), lambda: self._end(run, -1, reason))

    def _end(self, run: GuardedRun, exit_code: int, reason: str) -> None:
        """Nothing of it lives any more. An exit of its own may come before the kill is done."""
        if self.runs.get(run.attempt.task) is not run:
            return
        self._bury(run)
        key = AttemptId(run.attempt.task, run.attempt.attempt)
        self.exits[key] = RunExit(*key, exit_code, 0 if exit_code >= 0 else 9, reason)
        self.tell(RunExited(self.exits[key]))

    def _bury(self, run: GuardedRun) -> None:
        del self.runs[run.attempt.task]
        if run.alive:
            self.clock.trace(self.device, f"END {run.attempt.task} {run.attempt.attempt}")
            self.watcher.run_ended(self.device, run.attempt)

    def die(self) -> None:
        """The guard's end is the end of its runs, and of what it remembers."""
        for run in list(self.runs.values()):
            self._bury(run)
        self.exits.clear()
