"""Workers: seeds handed to several processes, in order, and what came back.

Rules of this file. A worker has one seed at a time, so it is known what died with it. Workers
ignore Ctrl-C from their first moment (they are started while it is ignored): the parent hears
it and ends them. A parent that is killed leaves none behind: their pipe ends, and so do they.
What a seed leads to depends on nobody's pace; `enough` hands out no more and lets everything
that was handed out be finished, so the first failures in order are the same with any number.
Rejected: `multiprocessing.Pool` (waits for ever for a worker that was killed);
`ProcessPoolExecutor` (says that one was killed, not with which seed).
"""

from __future__ import annotations

import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from sim import drawing, safety
from sim.command.tally import Played
from sim.database import Storage
from sim.plan import Outcome, Plan, Verdict

SEED_S_MAX = 900.0
"""A seed takes a second or a few; one that takes so long stands still in its virtual time."""
COLLECT_AFTER = 200_000
"""Objects that a seed may make before it is searched for cycles meanwhile: a long one must stay bounded."""
END_S = 2.0
"""From the order to end to the kill."""


@dataclass(slots=True, frozen=True)
class Draw:
    """How a seed becomes a plan: the words of the command."""

    devices: int
    faults_ms: int
    profiles: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    no_faults: bool = False

    def plan(self, seed: int) -> Plan:
        drawn = drawing.draw_plan(seed, self.devices, self.faults_ms, self.profiles, self.families)
        return replace(drawn, families=(), quirks=(), faults=()) if self.no_faults else drawn


def memory_storage() -> Storage:
    """A fresh database in memory; the only kind that a simulation needs."""
    return Storage(MemoryStore(), (Fenced, StoreError))


def play(plan: Plan, watch: safety.Watch | None = None) -> Played:
    """One plan in this process. Whatever throws is an outcome."""
    began_ns = time.process_time_ns()
    try:
        outcome = safety.run_plan(plan, memory_storage, watch)
    except Exception:
        outcome = crashed(plan, traceback.format_exc())
    return Played(outcome, time.process_time_ns() - began_ns)


def play_seed(draw: Draw, seed: int) -> Played:
    """One seed in this process. Of a plan that held only the cast is kept: ten thousand whole ones
    are most of a gigabyte, and any of them can be drawn again."""
    try:
        plan = draw.plan(seed)
    except Exception:
        return Played(crashed(Plan(seed, draw.faults_ms, ()), traceback.format_exc()), 0)
    played = play(plan)
    if played.outcome.verdict is Verdict.HELD:
        played.outcome.plan = replace(plan, orders=(), faults=())
    return played


def run(seed: int, devices: int = drawing.DEVICES, faults_ms: int = drawing.FAULTS_MS) -> Outcome:
    """One seed, as a test wants it: what throws is thrown."""
    return safety.run_plan(drawing.draw_plan(seed, devices, faults_ms), memory_storage)


def crashed(plan: Plan, detail: str) -> Outcome:
    return Outcome(plan, Verdict.CRASHED, detail, [], 0, 0, 0, {}, "")


class Alone:
    """All seeds in this process, one after another."""

    def __init__(self, draw: Draw, seeds: Sequence[int]) -> None:
        self._draw, self._seeds, self._enough = draw, seeds, False

    def runs(self) -> Iterator[tuple[int, Played]]:
        """(seed, run) as they are done."""
        for seed in self._seeds:
            if self._enough:
                return
            yield seed, play_seed(self._draw, seed)

    def enough(self) -> None:
        """Hands out nothing more."""
        self._enough = True

    def dismiss(self) -> None:
        """Nobody to end."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: connection.Connection[Any, Any]
    seed: int | None = None
    since_s: float = 0.0


class Crew:
    """`jobs` processes; `dismiss` must be called at the end, whatever the end is."""

    def __init__(self, draw: Draw, seeds: Sequence[int], jobs: int) -> None:
        self._draw = draw
        self._todo = iter(seeds)
        self._handing_out = True
        with _deaf_to_interrupts():
            self._workers = [self._hire() for _ in range(min(jobs, len(seeds)))]

    def _hire(self) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self._draw, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def runs(self) -> Iterator[tuple[int, Played]]:
        """(seed, run) as they are done, in any order."""
        for worker in self._workers:
            self._hand_out(worker)
        while busy := [worker for worker in self._workers if worker.seed is not None]:
            ready = connection.wait([worker.pipe for worker in busy], timeout=1.0)
            for worker in busy:
                late = time.monotonic() - worker.since_s > SEED_S_MAX
                if worker.pipe in ready or late:
                    seed = worker.seed
                    assert seed is not None
                    run = self._lost(worker, late) if late else self._take(worker)
                    self._hand_out(worker)
                    yield seed, run

    def _hand_out(self, worker: _Worker) -> None:
        worker.seed = next(self._todo, None) if self._handing_out else None
        worker.since_s = time.monotonic()
        if worker.seed is not None:
            try:
                worker.pipe.send(worker.seed)
            except OSError:
                return  # it is dead; its pipe tells so at the next look

    def _take(self, worker: _Worker) -> Played:
        try:
            run: Played = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker, late=False)
        return run

    def _lost(self, worker: _Worker, late: bool) -> Played:
        """Its seed is a crash; another worker takes its place."""
        assert worker.seed is not None
        if late:
            worker.process.kill()
        worker.process.join()
        how = f"took longer than {SEED_S_MAX:g} s and was ended" if late else _end_of(worker.process)
        worker.pipe.close()
        with _deaf_to_interrupts():
            fresh = self._hire()
        worker.process, worker.pipe = fresh.process, fresh.pipe
        detail = f"the process that played this seed {how}"
        return Played(crashed(self._draw.plan(worker.seed), detail), 0)

    def enough(self) -> None:
        """Hands out nothing more; what was handed out is still finished."""
        self._handing_out = False

    def dismiss(self) -> None:
        """Ends every process and waits for it."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def _end_of(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by signal {-code} (too little memory? --jobs 1 needs the least)"
    return f"ended with exit code {code}"


def _work(draw: Draw, pipe: connection.Connection[Any, Any]) -> None:
    """A worker: seeds in, runs out, until the pipe ends.

    A world is one heap of cycles that dies as a whole, so it is collected once, when it is over.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    while True:
        try:
            pipe.send(play_seed(draw, pipe.recv()))
        except (EOFError, OSError):
            return
        gc.collect()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C for good; a press that we miss is pressed again."""
    try:
        before: Callable[[int, Any], Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: nobody presses Ctrl-C there
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
