"""The agent's side of the guard: finding, starting, losing and outliving it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from edge_agent import guard_client
from edge_agent.guard_client import GuardClient, GuardError, read_identity
from edge_agent.guard_kernel import boottime_ms, is_alive
from edge_agent.runtimes.host import (
    HostAnswer,
    HostListed,
    HostLost,
    RunExited,
    RunRefused,
    RunSpec,
    RunStarted,
)
from edge_agent.runtimes.process import ProcessRuntime

sys.path.append(str(Path(__file__).parent))
from guard_bench import alive, token

pytestmark = pytest.mark.live


class Desk:
    """One client and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.said: list[HostAnswer] = []
        self.folder = folder
        self.client = GuardClient(ProcessRuntime(folder, "pi-1"), self.said.append)

    async def hear(self, kind: type[HostAnswer]) -> HostAnswer:
        async with asyncio.timeout(20):
            while not any(isinstance(answer, kind) for answer in self.said):
                await asyncio.sleep(0.01)
        return self.said.pop(next(i for i, answer in enumerate(self.said) if isinstance(answer, kind)))

    def start(self, *command: str, attempt: int = 1, deadline_ms: int = 0) -> None:
        self.client.start(RunSpec("t", attempt, "process", command, {}), deadline_ms)

    def guard_pid(self) -> int:
        identity = read_identity(self.folder)
        assert identity is not None
        return identity[0]


def play(
    story: Callable[[Desk], Coroutine[None, None, None]], folder: Path, runner: object = asyncio.run
) -> None:
    """Tells a story with an open client; the guard and its runs are gone afterwards."""

    async def whole() -> None:
        desk = Desk(folder)
        await desk.client.open()
        try:
            await story(desk)
        finally:
            await desk.client.close(stop_runs=True)
        assert read_identity(folder) is None

    runner(whole())  # type: ignore[operator]


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_run_goes_its_whole_way_on_either_loop(tmp_path: Path, runner: object) -> None:
    async def story(desk: Desk) -> None:
        assert desk.client.facts is not None
        listed = await desk.hear(HostListed)
        assert isinstance(listed, HostListed)
        assert (listed.containment, listed.limits) == (
            desk.client.facts.containment,
            desk.client.facts.limits,
        )
        desk.start("sh", "-c", "echo out; exit 2", deadline_ms=boottime_ms() + 60_000)
        await desk.hear(RunStarted)
        assert await desk.hear(RunExited) == RunExited("t", 1, 2, None, "exited")
        runtime = desk.client._runtime
        assert runtime.read_output("t", 1, 1, 1, 100) == b"ut\n"
        assert runtime.run_directories() == [("t", 1)]
        assert runtime.remove_run_directory("t", 1)
        assert runtime.run_directories() == []

    play(story, tmp_path, runner)


def test_a_lost_guard_is_reported_and_replaced(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.hear(HostListed)
        word = token()
        desk.start("sleep", word)
        await desk.hear(RunStarted)
        os.kill(desk.guard_pid(), signal.SIGKILL)
        await desk.hear(HostLost)
        listed = await desk.hear(HostListed)
        assert isinstance(listed, HostListed) and (listed.live, listed.exits) == ((), ())
        assert alive(word) == []
        desk.start("true", attempt=2)
        await desk.hear(RunStarted)

    play(story, tmp_path)


def test_a_start_without_a_guard_is_refused(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        os.kill(desk.guard_pid(), signal.SIGKILL)
        await desk.hear(HostLost)
        desk.start("true")
        refused = await desk.hear(RunRefused)
        assert isinstance(refused, RunRefused) and not refused.failed

    play(story, tmp_path)


def test_the_next_agent_adopts_what_the_last_one_left(tmp_path: Path) -> None:
    async def first() -> None:
        desk = Desk(tmp_path)
        await desk.client.open()
        desk.start("sleep", token(), deadline_ms=boottime_ms() + 500_000)
        await desk.hear(RunStarted)
        await desk.client.close(stop_runs=False)

    async def story(desk: Desk) -> None:
        listed = await desk.hear(HostListed)
        assert isinstance(listed, HostListed)
        assert [run[:2] for run in listed.live] == [("t", 1)]

    asyncio.run(first())
    play(story, tmp_path)


def test_an_older_agent_stays_away(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        newer = Desk(tmp_path)
        await newer.client.open()
        assert await desk.hear(HostLost) == HostLost("superseded")
        await asyncio.sleep(0.3)
        newer.start("true")
        await newer.hear(RunStarted)
        await newer.client.close(stop_runs=False)

    play(story, tmp_path)


def test_a_guard_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_client, "WELCOME_S", 0.2)

    async def leave(desk: Desk) -> None:
        await desk.client.open()
        await desk.client.close(stop_runs=False)

    asyncio.run(leave(Desk(tmp_path)))
    identity = read_identity(tmp_path)
    assert identity is not None
    os.kill(identity[0], signal.SIGSTOP)

    async def story(desk: Desk) -> None:
        assert not is_alive(*identity)
        assert desk.guard_pid() != identity[0]

    play(story, tmp_path)


def test_a_data_directory_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardError):
        asyncio.run(Desk(tmp_path / "file" / "data").client.open())
