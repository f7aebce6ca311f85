"""A guard without processes: runs are timers, and nothing else ends them late.

Rules of this file. When a run is told to end is decided by the real guard's own clockwork
(`edge_agent.guard_runs`); here is what a process makes of it. It starts nothing at or after
a deadline, refuses two runs of one task and an attempt that it knows, needs no agent to
kill, is done with a kill within K, remembers how runs ended until told to forget, and takes
its runs with it when it dies, unless the device can't contain them. While the machine is
suspended nothing executes and nobody enforces. Times of deadlines are the device's own clock.
It knows no journal and no network.
Rejected: the simulated runtime itself as the guard (it starts and kills in no time and
never dies, and what a protocol must bear lies in just those seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_agent.core.events import HostListed, RunExit, RunExited, RunRefused, RunStarted
from edge_agent.core.runs import SILENT_RUNTIMES
from edge_agent.guard_frames import START_INTS
from edge_agent.guard_runs import KILL, TERM, Run, StartRequest
from edge_agent.runtimes.simulated import SIGKILL, SIGTERM, SimulatedCommand, read_command
from protocol.core import Event
from protocol.limits import KILL_MS
from protocol.messages import AssignedAttempt
from protocol.tasks import AttemptId, Guarantee
from sim.clockwork import Clockwork
from sim.machines.localclock import LocalClock
from sim.machines.outputs import SimulatedOutput, Written
from sim.observations import (
    Observation,
    OutputDropped,
    OutputLost,
    OutputWritten,
    RunBegan,
    RunEnded,
    RunFrozen,
    RunThawed,
)

START_MS = (1, 40)
"""From the order to a process; a slow card takes longer, and the deadline is looked at after it."""
TERM_MS = (0, KILL_MS)
"""What a run that obeys needs to leave after TERM; KILL comes all the same when its grace is over."""
STARVED_MS = (KILL_MS * 9 // 10, KILL_MS)


class RunWatcher(Protocol):
    """Who is told what really happens, and not what anybody says of it."""

    def saw(self, observation: Observation) -> None: ...


@dataclass(slots=True)
class GuardedRun:
    """A run from its order to its end; `alive` from its start. World times; 0: never."""

    attempt: AssignedAttempt
    rule: Run
    does: SimulatedCommand
    alive: bool = False
    gone: bool = False
    killing: bool = False
    frozen: bool = False
    orphan: bool = False
    """Its guard is dead and it is not: nobody enforces anything."""
    began_ms: int = 0
    ends_ms: int = 0
    armed_ms: int = 0

    @property
    def key(self) -> AttemptId:
        return AttemptId(self.attempt.task, self.attempt.attempt)


class VirtualGuard:
    """All runs of one device."""

    def __init__(
        self, device: str, place: str, clock: Clockwork, own: LocalClock, watcher: RunWatcher
    ) -> None:
        self.device = device
        self.place = place
        self.clock = clock
        self.own = own
        self.watcher = watcher
        self.rng = clock.stream(f"guard {place}")
        self.runs: dict[str, GuardedRun] = {}
        self.orphans: list[GuardedRun] = []
        """Runs that outlived their guard and are not swept yet."""
        self.exits: dict[AttemptId, RunExit] = {}
        self.outputs: dict[AttemptId, SimulatedOutput] = {}
        self.up = False
        """A dead guard takes no orders; its successor answers when it stands."""
        self.containment = "strong"
        self.slow_ms = 0
        """Added to every start: unpacking, a slow card."""
        self.starved = False
        """Every kill takes almost all of K."""
        self.disk_full = False
        """What runs write is lost from now on."""
        self.tell: Callable[[Event], None] = lambda event: None
        """The newest agent's ear; nobody else is obeyed."""
        self._asleep = False
        self._slept_ms = 0
        self._missed: list[Callable[[], None]] = []

    # ------------------------------------------------------------- orders

    def start(self, attempt: AssignedAttempt, deadline_ms: int) -> None:
        """Takes the order or refuses it; what was taken is held, listed and killable from now on."""
        refusal, now_ms = self._refusal(attempt, deadline_ms), self.own.local_ms()
        try:
            does = read_command(attempt.command)
            rule = Run(request_of(attempt, deadline_ms), now_ms)
        except ValueError as error:
            self.tell(RunRefused(attempt.task, attempt.attempt, str(error), True))
            return
        if refusal:
            self.tell(RunRefused(attempt.task, attempt.attempt, refusal))
            return
        run = self.runs[attempt.task] = GuardedRun(attempt, rule, does)
        self._after(self.rng.randint(*START_MS) + self.slow_ms, lambda: self._begin(run))
        self._arm(run)

    def _refusal(self, attempt: AssignedAttempt, deadline_ms: int) -> str:
        if not self.up:
            return "no guard"
        if deadline_ms and self.own.local_ms() >= deadline_ms:
            return "deadline passed"
        held = self.runs.get(attempt.task)
        if AttemptId(attempt.task, attempt.attempt) in self.exits or (
            held is not None and held.attempt.attempt == attempt.attempt
        ):
            return "attempt is known"
        return "task is live" if held is not None else ""

    def _begin(self, run: GuardedRun) -> None:
        """Everything is unpacked: now it starts, unless its deadline or an order to end came meanwhile."""
        if run.gone or run.killing:
            return
        late = run.rule.deadline_ms and self.own.local_ms() >= run.rule.deadline_ms
        if late or run.rule.cause:
            self._bury(run)
            self.tell(RunRefused(*run.key, "deadline passed" if late else "told to end before it began"))
        else:
            self._live(run)

    def _live(self, run: GuardedRun) -> None:
        attempt, now_ms = run.attempt, self.clock.now_ms
        run.alive, run.began_ms = True, now_ms
        run.rule.note_started(1, self.own.local_ms())
        if attempt.runtime not in SILENT_RUNTIMES:
            self.outputs[run.key] = SimulatedOutput(*run.key, attempt.output_bytes_max)
        self.clock.trace(self.place, f"START {attempt.task} {attempt.attempt}")
        only_one, weak = attempt.guarantee is Guarantee.AT_MOST_ONE, self.containment == "weak"
        self.watcher.saw(RunBegan(now_ms, self.device, *run.key, only_one, attempt.lease_ms, weak))
        self.tell(RunStarted(attempt.task, attempt.attempt))
        if run.does.duration_ms is not None:
            run.ends_ms = now_ms + run.does.duration_ms
            self.clock.at(run.ends_ms, lambda: self._exit(run))
        self._arm(run)

    def extend(self, key: AttemptId, deadline_ms: int, at_ms: int = 0) -> None:
        """`at_ms`: when it was asked, if that is not now (see `rest`)."""
        run = self._find(key)
        if run is not None:
            run.rule.extend(deadline_ms, at_ms or self.own.local_ms())

    def stop(self, key: AttemptId, grace_ms: int) -> None:
        run = self._find(key)
        if run is not None:
            self._carry_out(run, run.rule.stop(b"stopped", grace_ms, self.own.local_ms()))
            self._look(run)

    def forget(self, key: AttemptId) -> None:
        if self.up:
            self.exits.pop(key, None)

    def listing(self, ask: int) -> HostListed:
        """What lives here and how it is held."""
        live = tuple((run.attempt.task, run.attempt.attempt) for run in self.runs.values())
        preparing = tuple(
            (run.attempt.task, run.attempt.attempt) for run in self.runs.values() if not run.alive
        )
        exits = tuple(self.exits.values())
        return HostListed(ask, live, exits, self.containment, "simulated", preparing)

    def _find(self, key: AttemptId) -> GuardedRun | None:
        run = self.runs.get(key.task) if self.up else None
        return run if run is not None and run.attempt.attempt == key.attempt else None

    # ------------------------------------------------------------- ends

    def _arm(self, run: GuardedRun) -> None:
        due_ms = run.rule.due_ms()
        if not due_ms or run.killing:
            return
        world_ms = self.own.world_ms(due_ms)
        if not run.armed_ms or world_ms < run.armed_ms:
            run.armed_ms = world_ms
            self.clock.at(world_ms, lambda: self._ring(run, world_ms))

    def _ring(self, run: GuardedRun, armed_ms: int) -> None:
        if run.armed_ms == armed_ms and not run.gone and not self._asleep:
            run.armed_ms = 0
            self._look(run)

    def rest(self) -> None:
        """Nothing is due until `rearm`: who asks for this sees to it that every deadline is extended
        in time, and says so afterwards."""
        for run in self.runs.values():
            run.armed_ms = 0

    def rested(self, sent_ms: int) -> None:
        """Deadlines were extended again and again, the last time for a heartbeat sent then."""
        for run in self.runs.values():
            until_ms = sent_ms + run.attempt.lease_ms - KILL_MS
            run.rule.extend(until_ms, run.rule.deadline_ms - 1)

    def at_rest(self) -> bool:
        """Whether its runs just live, bounded by nothing but leases."""
        if self.orphans or not self.up or self._asleep:
            return False
        return all(
            run.alive and not (run.frozen or run.rule.cause or run.rule.timeout_due_ms)
            for run in self.runs.values()
        )

    def rearm(self) -> None:
        """The clock runs at another rate: every moment comes at another time."""
        for run in self.runs.values():
            run.armed_ms = 0
            self._arm(run)

    def _look(self, run: GuardedRun) -> None:
        """What the real guard would do now."""
        if run.gone or run.orphan or run.killing:
            return
        self._carry_out(run, run.rule.decide(self.own.local_ms()))
        self._arm(run)

    def _carry_out(self, run: GuardedRun, order: int) -> None:
        if order in (TERM, KILL):
            word = "TERM" if order == TERM else "KILL"
            self.clock.trace(self.place, f"{word} {run.attempt.task} {run.attempt.attempt}")
        if order == TERM and run.alive:
            self._terminate(run)
        elif order == KILL:
            run.killing = True
            took_ms = self.rng.randint(*(STARVED_MS if self.starved else (0, KILL_MS)))
            self._after(took_ms, lambda: self._end(run, -1, SIGKILL))

    def _terminate(self, run: GuardedRun) -> None:
        if not run.does.ignores_term:
            self._after(self.rng.randint(*TERM_MS), lambda: self._leave(run))

    def _leave(self, run: GuardedRun) -> None:
        """It obeys TERM, if it may execute; where it may not, KILL follows."""
        if run.orphan and not run.gone:
            self._bury(run)
        elif not run.frozen:
            self._end(run, -1, SIGTERM)

    def _exit(self, run: GuardedRun) -> None:
        """Its own end; later if it stood still meanwhile."""
        if not run.gone and not run.frozen and self.clock.now_ms >= run.ends_ms:
            if run.orphan:
                self._bury(run)
            else:
                self._end(run, run.does.exit_code, 0)

    def _end(self, run: GuardedRun, exit_code: int, signal: int) -> None:
        """Nothing of it lives any more. An exit of its own may come before the kill is done."""
        if run.gone or run.orphan:
            return
        self._bury(run)
        if run.key in self.outputs and exit_code > 0:
            self._wrote(run.key, self.outputs[run.key].complain(exit_code, self.clock.now_ms))
        cause = run.rule.cause.decode() or "exited"
        self.exits[run.key] = RunExit(*run.key, exit_code, signal, cause)
        self.tell(RunExited(self.exits[run.key]))

    def _bury(self, run: GuardedRun) -> None:
        if run.alive:
            self._write_until_now(run)
            self.clock.trace(self.place, f"END {run.attempt.task} {run.attempt.attempt}")
        run.gone = True
        if run.orphan:
            self.orphans.remove(run)
        else:
            del self.runs[run.attempt.task]
        if run.alive:
            self.watcher.saw(RunEnded(self.clock.now_ms, self.device, *run.key))

    # ------------------------------------------------------------- output

    def read_output(self, key: AttemptId, stream: int, offset: int, bytes_max: int) -> tuple[bytes, int]:
        """(data, size of the stream)."""
        run, output = self.runs.get(key.task), self.outputs.get(key)
        if run is not None and run.alive and run.attempt.attempt == key.attempt:
            self._write_until_now(run)
        return output.read(stream, offset, bytes_max) if output is not None else (b"", 0)

    def drop_output(self, key: AttemptId) -> None:
        """Nobody needs it any more."""
        if self.outputs.pop(key, None) is not None:
            self.watcher.saw(OutputDropped(self.clock.now_ms, self.device, *key))

    def _write_until_now(self, run: GuardedRun) -> None:
        output = self.outputs.get(run.key)
        if output is not None and not run.frozen:
            output.full = output.full or self.disk_full
            self._wrote(run.key, output.grow(self.clock.now_ms - run.began_ms, self.clock.now_ms))

    def _wrote(self, key: AttemptId, parts: list[Written]) -> None:
        for part in parts:
            self.watcher.saw(
                OutputWritten(self.clock.now_ms, self.device, *key, part.stream, part.offset, part.data)
            )

    # ------------------------------------------------------------- the guard's own life

    def boot(self) -> None:
        """The machine has come up: a guard with nothing in it."""
        self.up, self._asleep, self._missed = True, False, []

    def stand(self) -> None:
        """A successor has swept and answers; its first word is what it holds."""
        self.up = True
        self.tell(self.listing(0))

    def die(self, survivors: bool = False) -> None:
        """The guard's end is the end of its runs, and of what it remembers."""
        self.up = False
        for run in list(self.runs.values()):
            if survivors and run.alive and not run.killing:
                del self.runs[run.attempt.task]
                run.orphan = True
                self.orphans.append(run)
            else:
                self._bury(run)
        self.exits.clear()

    def sweep(self) -> None:
        """Ends what a predecessor left."""
        for run in list(self.orphans):
            self._bury(run)

    def lose_power(self) -> None:
        """Nothing lives on, and what was written of late is gone."""
        self.die()
        self.sweep()
        now_ms = self.clock.now_ms
        for key, output in self.outputs.items():
            for stream, size in output.lose_power(now_ms):
                self.watcher.saw(OutputLost(now_ms, self.device, *key, stream, size))

    # ------------------------------------------------------------- suspend

    def _after(self, delay_ms: int, work: Callable[[], None]) -> None:
        """Something that happens on this machine: not while it sleeps."""
        self.clock.after(delay_ms, lambda: self._missed.append(work) if self._asleep else work())

    def suspend(self) -> None:
        """From now on nothing here executes."""
        self._asleep, self._slept_ms = True, self.clock.now_ms
        for run in [*self.runs.values(), *self.orphans]:
            if run.alive and not run.frozen:
                self._write_until_now(run)
                run.frozen = True
                self.watcher.saw(RunFrozen(self.clock.now_ms, self.device, *run.key))

    def resume(self, look_first: bool, look_ms: int) -> None:
        """The machine is awake. With `look_first` deadlines are enforced before anything thaws;
        else everything executes again, and the guard looks `look_ms` later."""
        self._asleep = False
        if look_first:
            self._look_at_all()
            self._thaw_all()
        else:
            self._thaw_all()
            self._after(look_ms, self._look_at_all)
        missed, self._missed = self._missed, []
        for work in missed:
            work()

    def _look_at_all(self) -> None:
        for run in list(self.runs.values()):
            run.armed_ms = 0
            self._look(run)

    def _thaw_all(self) -> None:
        slept_ms = self.clock.now_ms - self._slept_ms
        for run in [*self.runs.values(), *self.orphans]:
            if run.frozen and not run.killing:
                self._thaw(run, slept_ms)

    def _thaw(self, run: GuardedRun, slept_ms: int) -> None:
        run.frozen = False
        run.began_ms += slept_ms
        self.watcher.saw(RunThawed(self.clock.now_ms, self.device, *run.key))
        if run.ends_ms:
            run.ends_ms += slept_ms
            self.clock.at(run.ends_ms, lambda: self._exit(run))


def request_of(attempt: AssignedAttempt, deadline_ms: int) -> StartRequest:
    """The order as the real guard reads it. Raises `ValueError` for what it would refuse."""
    numbers = dict.fromkeys(START_INTS, 0)
    numbers["attempt"] = attempt.attempt
    numbers["deadline_ms"] = deadline_ms
    numbers["timeout_ms"] = attempt.timeout_ms
    numbers["stop_grace_ms"] = attempt.stop_grace_ms
    argv = "\0".join(attempt.command).encode()
    blobs = (attempt.task.encode(), b"/", b"/", b"/", argv, b"")
    return StartRequest(tuple(numbers.values()), blobs)
