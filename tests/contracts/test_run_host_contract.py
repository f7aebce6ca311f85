"""One contract, two run hosts: the guard with real processes, and timers without any.

The suite speaks in commands that both understand and in waits that only the adapter knows:
real time passes for the guard, virtual time for the simulated host.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from edge_agent import guard_runs
from edge_agent.guard_client import GuardClient
from edge_agent.guard_kernel import boottime_ms
from edge_agent.runtimes.host import (
    REASONS,
    HeldRun,
    HostAnswer,
    HostListed,
    RunExited,
    RunRefused,
    RunSpec,
    RunStarted,
)
from edge_agent.runtimes.process import ProcessRuntime
from edge_agent.runtimes.simulated import SimulatedHost
from protocol import limits

T = TypeVar("T", bound=HostAnswer)
WAIT_S = 20.0


class Adapter:
    """The words of a host, and `wait`: the next answer of a kind about a task."""

    answers: list[HostAnswer]

    def pick(self, kind: type[T], task: str | None) -> T | None:
        for index, answer in enumerate(self.answers):
            if isinstance(answer, kind) and task in (None, getattr(answer, "task", None)):
                del self.answers[index]
                return answer
        return None


class GuardAdapter(Adapter):
    def __init__(self, folder: Path) -> None:
        self.answers = []
        self.runner = asyncio.Runner()
        self.client = GuardClient(ProcessRuntime(folder, "pi-1"), self.answers.append)
        self.runner.run(self.client.open())
        assert isinstance(self.answers.pop(), HostListed)

    def now(self) -> int:
        return boottime_ms()

    def command(self, ms: int | None, code: int = 0, deaf: bool = False) -> tuple[str, ...]:
        trap = "trap '' TERM; " if deaf else ""
        sleeping = "sleep 600" if ms is None else f"sleep {ms / 1000}"
        return ("sh", "-c", f"{trap}{sleeping}; exit {code}")

    def call(self, word: str, *arguments: object) -> None:
        async def say() -> None:
            getattr(self.client, word)(*arguments)

        self.runner.run(say())

    def wait(self, kind: type[T], task: str | None = None) -> T:
        async def look() -> T:
            while (answer := self.pick(kind, task)) is None:
                await asyncio.sleep(0.01)
            return answer

        return self.runner.run(asyncio.wait_for(look(), WAIT_S))

    def close(self) -> None:
        self.runner.run(self.client.close(stop_runs=True))
        self.runner.close()


class SimulatedAdapter(Adapter):
    def __init__(self, folder: Path) -> None:
        self.answers = []
        self.host = SimulatedHost(random.Random(1))
        self.time = 5_000

    def now(self) -> int:
        return self.time

    def command(self, ms: int | None, code: int = 0, deaf: bool = False) -> tuple[str, ...]:
        length = () if ms is None else ("--ms", str(ms))
        return ("run", *length, "--exit", str(code), *(("--ignore-term",) if deaf else ()))

    def call(self, word: str, *arguments: object) -> None:
        timed = word in ("start", "extend", "stop")
        getattr(self.host, word)(*arguments, *((self.time,) if timed else ()))

    def wait(self, kind: type[T], task: str | None = None) -> T:
        while True:
            self.answers += self.host.advance(self.time)
            answer = self.pick(kind, task)
            if answer is not None:
                return answer
            due = self.host.due_ms()
            assert due is not None, f"no {kind.__name__} will ever come; {self.answers}"
            self.time = max(self.time, due)

    def close(self) -> None:
        return


@pytest.fixture(params=[GuardAdapter, SimulatedAdapter])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GuardAdapter | SimulatedAdapter]:
    made = request.param(tmp_path)
    try:
        yield made
    finally:
        made.close()


Host = GuardAdapter | SimulatedAdapter


def spec(host: Host, ms: int | None = None, task: str = "t", attempt: int = 1, **more: object) -> RunSpec:
    limits = {name: more.pop(name) for name in ("timeout_ms", "stop_grace_ms") if name in more}
    return RunSpec(task, attempt, "process", host.command(ms, **more), {}, **limits)  # type: ignore[arg-type]


def listed(host: Host) -> HostListed:
    host.call("list", 7)
    answer = host.wait(HostListed)
    assert answer.ask == 7
    return answer


def test_a_run_starts_and_exits_with_its_code(host: Host) -> None:
    host.call("start", spec(host, 50, code=3), 0)
    assert host.wait(RunStarted).pid > 0
    assert host.wait(RunExited) == RunExited("t", 1, 3, None, "exited")


def test_an_exit_stays_in_the_list_until_forgotten(host: Host) -> None:
    host.call("start", spec(host, 0), 0)
    ended = host.wait(RunExited)
    assert listed(host).exits == (ended,)
    host.call("forget", "t", 1)
    assert listed(host).exits == ()


def test_a_live_run_is_listed_with_its_deadline(host: Host) -> None:
    deadline = host.now() + 500_000
    host.call("start", spec(host), deadline)
    started = host.wait(RunStarted)
    assert listed(host).live == (HeldRun("t", 1, deadline, started.pid),)
    host.call("extend", "t", 1, deadline + 1)
    host.call("extend", "t", 1, deadline - 1)
    host.call("extend", "t", 2, deadline + 5)
    assert listed(host).live == (HeldRun("t", 1, deadline + 1, started.pid),)


def test_the_deadline_ends_a_run_that_obeys_by_term(host: Host) -> None:
    deadline = host.now() + 1_000
    host.call("start", spec(host, stop_grace_ms=400), deadline)
    assert host.wait(RunExited) == RunExited("t", 1, None, 15, "deadline")


def test_the_deadline_ends_a_deaf_run_by_kill_and_not_earlier(host: Host) -> None:
    deadline = host.now() + 700
    host.call("start", spec(host, deaf=True, stop_grace_ms=300), deadline)
    assert host.wait(RunExited) == RunExited("t", 1, None, 9, "deadline")
    assert host.now() >= deadline


def test_the_time_limit_ends_a_run(host: Host) -> None:
    host.call("start", spec(host, timeout_ms=200, stop_grace_ms=5_000), 0)
    assert host.wait(RunExited) == RunExited("t", 1, None, 15, "timeout")
    host.call("start", spec(host, attempt=2, deaf=True, timeout_ms=200, stop_grace_ms=100), 0)
    assert host.wait(RunExited) == RunExited("t", 2, None, 9, "timeout")


def test_stop_asks_first_and_kills_after_the_grace(host: Host) -> None:
    host.call("start", spec(host), 0)
    host.call("start", spec(host, task="deaf", deaf=True), 0)
    host.wait(RunStarted, "t")
    host.wait(RunStarted, "deaf")
    host.call("stop", "t", 1, 5_000)
    assert host.wait(RunExited, "t") == RunExited("t", 1, None, 15, "stopped")
    host.call("stop", "deaf", 1, 0)
    assert host.wait(RunExited, "deaf") == RunExited("deaf", 1, None, 9, "stopped")


def test_a_stop_of_something_else_does_nothing(host: Host) -> None:
    host.call("start", spec(host), 0)
    host.wait(RunStarted)
    host.call("stop", "t", 2, 0)
    host.call("stop", "other", 1, 0)
    assert [run[:2] for run in listed(host).live] == [("t", 1)]


@pytest.mark.parametrize("late_ms", [0, 1, 60_000])
def test_nothing_starts_at_or_after_its_deadline(host: Host, late_ms: int) -> None:
    host.call("start", spec(host, 0), host.now() - late_ms)
    assert host.wait(RunRefused) == RunRefused("t", 1, "deadline passed")
    assert listed(host).live == ()


def test_a_task_runs_once_and_an_attempt_starts_once(host: Host) -> None:
    host.call("start", spec(host), 0)
    host.wait(RunStarted)
    host.call("start", spec(host, attempt=2), 0)
    assert host.wait(RunRefused) == RunRefused("t", 2, "task is live")
    host.call("stop", "t", 1, 0)
    host.wait(RunExited)
    host.call("start", spec(host), 0)
    assert host.wait(RunRefused) == RunRefused("t", 1, "attempt is known")


def test_an_impossible_command_is_the_tasks_own_fault(host: Host) -> None:
    host.call("start", RunSpec("t", 1, "process", ("no-such-program", "--colour"), {}), 0)
    refused = host.wait(RunRefused)
    assert refused.failed
    assert refused.reason


def test_every_reason_is_one_of_the_words(host: Host) -> None:
    host.call("start", spec(host, 0), 0)
    assert host.wait(RunExited).reason in REASONS


def test_the_guard_and_the_protocol_agree_on_the_grace_at_a_lease_s_end() -> None:
    assert guard_runs.GRACE_SHARE == limits.EXPIRY_GRACE_SHARE
