"""Tasks as timers: the run host of virtual devices and of the simulator. A pure machine.

The same words, refusals, deadlines and time limits as the guard; no process. A command is
`NAME [SECONDS] [--ms N] [--exit N] [--fail-rate F] [--ignore-term]`: NAME means nothing, a
bare number is a duration in seconds, without a duration it runs until stopped (without a NAME,
too). `--fail-rate` is the chance of exit code 1 instead; a run that ignores TERM ends by KILL.

Time comes in with every word, chance by the given generator. Answers are collected and
handed out by `advance`; `due_ms` says when to call it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.runtimes.host import (
    HeldRun,
    HostAnswer,
    HostListed,
    RunExited,
    RunRefused,
    RunSpec,
    RunStarted,
)
from protocol.limits import EXPIRY_GRACE_SHARE
from protocol.resources import Resources

SIGKILL = 9
SIGTERM = 15

Answers = list[HostAnswer]


@dataclass(slots=True)
class SimulatedCommand:
    """What a simulated command does. `duration_ms` is None for ever."""

    duration_ms: int | None = None
    exit_code: int = 0
    fail_rate: float = 0.0
    ignores_term: bool = False


def read_command(command: tuple[str, ...]) -> SimulatedCommand:
    """Raises ValueError for anything but the grammar above."""
    found = SimulatedCommand()
    words = iter(command[1:])
    for word in words:
        if word == "--ignore-term":
            found.ignores_term = True
        elif word == "--ms":
            found.duration_ms = int(next(words, ""))
        elif word == "--exit":
            found.exit_code = int(next(words, ""))
        elif word == "--fail-rate":
            found.fail_rate = float(next(words, ""))
        else:
            found.duration_ms = round(float(word) * 1000)
    if not 0 <= (found.duration_ms or 0) < 2**53:
        raise ValueError("duration out of range")
    if not 0 <= found.exit_code <= 255 or not 0.0 <= found.fail_rate <= 1.0:
        raise ValueError("exit code or fail rate out of range")
    return found


@dataclass(slots=True)
class SimulatedRun:
    """One live run. Moments in ms; `None` for never."""

    spec: RunSpec
    behaviour: SimulatedCommand
    pid: int
    deadline_ms: int
    term_ms: int | None
    end_ms: int | None
    timeout_ms: int | None
    exit_code: int
    cause: str = ""
    kill_ms: int | None = None

    def due_ms(self) -> int | None:
        moments = (self.end_ms, self.kill_ms) if self.cause else (self.end_ms, self.term_ms, self.timeout_ms)
        return min((moment for moment in moments if moment is not None), default=None)


class SimulatedHost:
    """The runs of one virtual device."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._runs: dict[str, SimulatedRun] = {}
        self._exits: dict[tuple[str, int], RunExited] = {}
        self._answers: Answers = []
        self._now_ms = 0
        self._pids = 0

    # -------------------------------------------------------------- words

    def start(self, spec: RunSpec, deadline_ms: int, now_ms: int) -> None:
        self._settle(now_ms)
        try:
            behaviour = read_command(spec.command)
            refusal = self._refusal(spec, deadline_ms)
        except (ValueError, OverflowError) as error:
            reason = f"bad simulated command: {error}"
            self._answers.append(RunRefused(spec.task, spec.attempt, reason, True))
            return
        if refusal:
            self._answers.append(RunRefused(spec.task, spec.attempt, refusal))
            return
        self._pids += 1
        failed = behaviour.fail_rate > 0.0 and self._rng.random() < behaviour.fail_rate
        duration_ms = behaviour.duration_ms
        self._runs[spec.task] = SimulatedRun(
            spec,
            behaviour,
            self._pids,
            deadline_ms,
            self._term_ms(spec, deadline_ms),
            None if duration_ms is None else now_ms + duration_ms,
            now_ms + spec.timeout_ms if spec.timeout_ms else None,
            1 if failed else behaviour.exit_code,
        )
        self._answers.append(RunStarted(spec.task, spec.attempt, self._pids))

    def extend(self, task: str, attempt: int, deadline_ms: int, now_ms: int) -> None:
        self._settle(now_ms)
        run = self._find(task, attempt)
        if run is None or run.cause or not run.deadline_ms or 0 < deadline_ms <= run.deadline_ms:
            return
        run.deadline_ms = deadline_ms
        run.term_ms = self._term_ms(run.spec, deadline_ms)

    def stop(self, task: str, attempt: int, grace_ms: int, now_ms: int) -> None:
        self._settle(now_ms)
        run = self._find(task, attempt)
        if run is not None:
            self._terminate(run, "stopped", now_ms, now_ms + grace_ms)

    def forget(self, task: str, attempt: int) -> None:
        self._exits.pop((task, attempt), None)

    def list(self, ask: int = 0) -> None:
        runs = self._runs.values()
        live = [HeldRun(run.spec.task, run.spec.attempt, run.deadline_ms, run.pid) for run in runs]
        self._answers.append(HostListed(tuple(live), tuple(self._exits.values()), ask, "strong", "simulated"))

    def due_ms(self) -> int | None:
        """When `advance` has something to say; None for never."""
        if self._answers:
            return self._now_ms
        moments = (run.due_ms() for run in self._runs.values())
        return min((moment for moment in moments if moment is not None), default=None)

    def advance(self, now_ms: int) -> Answers:
        """Everything that happened until now, in order."""
        self._settle(now_ms)
        answers, self._answers = self._answers, []
        return answers

    def used(self) -> Resources:
        """What the live runs take: each exactly what it was promised."""
        total = Resources()
        for run in self._runs.values():
            spec = run.spec
            total = total.plus(Resources(spec.cpu_milli, spec.memory_mib, spec.disk_mib, spec.gpu_milli))
        return total

    # -------------------------------------------------------------- clockwork

    def _settle(self, now_ms: int) -> None:
        """Everything due until now happens, earliest first, before any word is heard."""
        self._now_ms = max(self._now_ms, now_ms)
        while True:
            due = [
                (moment, run.pid, run) for run in self._runs.values() if (moment := run.due_ms()) is not None
            ]
            if not due:
                return
            moment, _, run = min(due, key=lambda entry: entry[:2])
            if moment > self._now_ms:
                return
            self._happen(run, moment)

    def _happen(self, run: SimulatedRun, moment_ms: int) -> None:
        if run.cause and moment_ms == run.kill_ms:
            self._end(run, None, SIGKILL)
        elif moment_ms == run.end_ms:
            self._end(run, run.exit_code, None)
        elif moment_ms == run.term_ms:
            self._terminate(run, "deadline", moment_ms, run.deadline_ms)
        else:
            self._terminate(run, "timeout", moment_ms, moment_ms + run.spec.stop_grace_ms)

    def _terminate(self, run: SimulatedRun, cause: str, now_ms: int, kill_ms: int) -> None:
        bounds = [kill_ms, *[bound for bound in (run.deadline_ms, run.kill_ms) if bound]]
        run.cause = run.cause or cause
        run.kill_ms = min(bounds)
        if run.kill_ms <= now_ms:
            self._end(run, None, SIGKILL)
        elif not run.behaviour.ignores_term:
            self._end(run, None, SIGTERM)

    def _end(self, run: SimulatedRun, exit_code: int | None, signal: int | None) -> None:
        spec = run.spec
        exited = RunExited(spec.task, spec.attempt, exit_code, signal, run.cause or "exited")
        del self._runs[spec.task]
        self._exits[(spec.task, spec.attempt)] = exited
        self._answers.append(exited)

    def _term_ms(self, spec: RunSpec, deadline_ms: int) -> int | None:
        """A grace before the deadline, at most a twelfth of what the grant gave, as the guard has it."""
        if not deadline_ms:
            return None
        return deadline_ms - min(spec.stop_grace_ms, max(0, deadline_ms - self._now_ms) // EXPIRY_GRACE_SHARE)

    def _refusal(self, spec: RunSpec, deadline_ms: int) -> str:
        if deadline_ms and self._now_ms >= deadline_ms:
            return "deadline passed"
        if self._find(spec.task, spec.attempt) or (spec.task, spec.attempt) in self._exits:
            return "attempt is known"
        return "task is live" if spec.task in self._runs else ""

    def _find(self, task: str, attempt: int) -> SimulatedRun | None:
        run = self._runs.get(task)
        return run if run is not None and run.spec.attempt == attempt else None
