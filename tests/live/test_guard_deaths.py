"""What is left when guard, agent or supervisor die, and who is obeyed when two agents speak."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import guard_frames as frames
from edge_agent.guard_kernel import all_processes, boottime_ms, process_facts

sys.path.append(str(Path(__file__).parent))
from guard_bench import GUARD, K_S, ROOT, Bench, alive, sh, soon, token, until

pytestmark = pytest.mark.live

AGENT = """
import asyncio, sys
from pathlib import Path
from edge_agent.guard_client import GuardClient
from edge_agent.runtimes.host import RunSpec, RunStarted
from edge_agent.runtimes.process import ProcessRuntime

async def main():
    started = asyncio.Event()
    def answer(said):
        if isinstance(said, RunStarted): started.set()
    client = GuardClient(ProcessRuntime(Path(sys.argv[1]), "pi-1"), answer)
    await client.open()
    client.start(RunSpec("t", 1, "process", ("sh", "-c", sys.argv[2]), {}, stop_grace_ms=0), int(sys.argv[3]))
    await started.wait()
    print("started", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture(params=["auto", "weak"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(tmp_path, "--containment", request.param)
    try:
        yield made
    finally:
        made.close()


def agent(folder: Path, text: str, deadline_ms: int) -> subprocess.Popen[bytes]:
    """An agent of its own process, whose run has started."""
    command = [sys.executable, "-c", AGENT, str(folder), text, str(deadline_ms)]
    made = subprocess.Popen(command, cwd=GUARD.parent.parent, stdout=subprocess.PIPE)
    assert made.stdout is not None and made.stdout.readline() == b"started\n"
    return made


def end_guard_of(folder: Path) -> None:
    pid = int((folder / "guard.pid").read_bytes().split()[0])
    os.kill(pid, signal.SIGTERM)
    until(lambda: (facts := process_facts(pid)) is None or facts.dead)


def hidden(word: str) -> tuple[str, str, str]:
    """A run with a double-forked child in a session of its own."""
    return sh(f"setsid -f setsid -f sleep {word}; exec sleep {word}")


# ------------------------------------------------------------------ deaths


def test_the_end_of_agent_and_guard_ends_everything(tmp_path: Path) -> None:
    word = token()
    made = agent(tmp_path, hidden(word)[2], 0)
    until(lambda: len(alive(word)) == 2)
    made.kill()
    made.wait(10)
    os.kill(int((tmp_path / "guard.pid").read_bytes().split()[0]), signal.SIGKILL)
    until(lambda: not alive(word), K_S)
    bench = Bench(tmp_path)
    assert bench.list() == ([], [])
    bench.close()


def test_the_end_of_a_guard_ends_its_runs(bench: Bench) -> None:
    word = token()
    bench.start(*hidden(word))
    until(lambda: len(alive(word)) == 2)
    bench.kill_guard()
    until(lambda: not alive(word), K_S)


def test_a_new_guard_answers_only_when_its_predecessors_runs_are_gone(bench: Bench) -> None:
    word = token()
    for number in range(5):
        bench.start(*hidden(word), task=f"t{number}")
    until(lambda: len(alive(word)) == 10)
    bench.kill_guard()
    bench.begin()
    assert alive(word) == []
    assert bench.list() == ([], [])


def test_a_new_guard_finds_what_a_dead_weak_supervisor_let_go(tmp_path: Path) -> None:
    for limits in ("auto", "rlimit"):
        folder = tmp_path / limits
        folder.mkdir()
        bench = Bench(folder, "--containment", "weak", "--limits", limits)
        word = token()
        bench.start(*hidden(word))
        until(lambda word=word: len(alive(word)) == 2)
        assert bench.guard is not None
        supervisors = [facts.pid for facts in all_processes() if facts.parent == bench.guard.pid]
        os.kill(bench.guard.pid, signal.SIGSTOP)
        for pid in supervisors:
            os.kill(pid, signal.SIGKILL)
        assert alive(word)
        bench.kill_guard()
        bench.begin()
        assert alive(word) == []
        bench.close()


def test_a_supervisor_that_is_killed_takes_its_run_along(bench: Bench) -> None:
    word = token()
    bench.start(*hidden(word))
    until(lambda: len(alive(word)) == 2)
    assert bench.guard is not None
    for pid in [facts.pid for facts in all_processes() if facts.parent == bench.guard.pid]:
        os.kill(pid, signal.SIGKILL)
    assert bench.exit() == (-1, signal.SIGKILL, b"signalled")
    assert alive(word) == []


def test_a_supervisor_that_hangs_is_overruled(bench: Bench) -> None:
    word = token()
    bench.start(*hidden(word))
    until(lambda: len(alive(word)) == 2)
    assert bench.guard is not None
    for pid in [facts.pid for facts in all_processes() if facts.parent == bench.guard.pid]:
        os.kill(pid, signal.SIGSTOP)
    bench.send(frames.STOP, (1, 0), (b"t",))
    assert bench.exit() == (-1, signal.SIGKILL, b"stopped")
    assert alive(word) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_deadlines_hold_while_the_agent_is_dead_or_frozen(tmp_path: Path, number: int) -> None:
    word = token()
    made = agent(tmp_path, hidden(word)[2], soon(2500))
    until(lambda: len(alive(word)) == 2)
    made.send_signal(number)
    until(lambda: not alive(word))
    made.kill()
    made.wait(10)
    end_guard_of(tmp_path)


def test_shutdown_ends_all_runs_and_tells(bench: Bench) -> None:
    words = [token(), token()]
    for number, word in enumerate(words):
        bench.start(*hidden(word), task=f"t{number}")
    bench.send(frames.SHUTDOWN, (0,))
    assert [bench.exit()[2], bench.exit()[2]] == [b"stopped", b"stopped"]
    assert bench.guard is not None and bench.guard.wait(10) == 0
    assert not any(alive(word) for word in words)


def test_an_idle_guard_without_an_agent_leaves(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "--idle-exit-ms", "1500")
    assert bench.guard is not None and bench.sock is not None
    bench.start("true")
    bench.exit()
    bench.sock.close()
    bench.connect()
    assert len(bench.list()[1]) == 1
    bench.send(frames.FORGET, (1,), (b"t",))
    bench.sock.close()
    assert bench.guard.wait(30) == 0


@pytest.mark.skipif(not ROOT, reason="NOT RUN: becoming nobody needs root")
def test_a_guard_without_privileges_contains_just_the_same() -> None:
    """In a folder that nobody may enter: pytest's own are closed to others."""
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True,
        check=False,
    )
    if version.stdout != b"True\n" or shutil.which("setpriv") is None:
        pytest.skip("NOT RUN: no system python for another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(GUARD.parent, folder / "edge_agent", ignore=shutil.ignore_patterns("__pycache__"))
        data = folder / "data"
        data.mkdir()
        shutil.chown(data, 65534, 65534)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3")
        bench = Bench(data, python=nobody, file=folder / "edge_agent" / "guard.py")
        word = token()
        assert bench.facts is not None
        try:
            bench.start(*hidden(word))
            until(lambda: len(alive(word)) == 2)
            bench.kill_guard()
            until(lambda: not alive(word), K_S)
        finally:
            bench.close()


# ------------------------------------------------------------------ connections


def test_runs_and_unread_exits_outlive_a_connection(bench: Bench) -> None:
    deadline_ms = soon(600_000)
    pid = bench.start("sleep", token(), task="long", deadline_ms=deadline_ms)[1][1]
    bench.start(*sh("sleep 0.3; exit 5"), task="short")
    assert bench.sock is not None
    bench.sock.close()
    bench.connect()
    until(lambda: len(bench.list()[1]) == 1)
    live, past = bench.list()
    assert live == [(frames.LIVE, (1, deadline_ms, pid), (b"long",))]
    assert past == [(frames.PAST, (1, 5, 0), (b"short", b"exited"))]


def test_only_the_newest_agent_is_obeyed(bench: Bench) -> None:
    older, reader = bench.sock, bench.reader
    bench.connect()
    assert older is not None
    bodies = reader.feed(older.recv(65_536))
    assert [frames.unpack(body)[0] for body in bodies] == [frames.SUPERSEDED]
    assert older.recv(1) == b""
    older.close()
    assert bench.start("true")[0] == frames.STARTED


def test_a_connection_without_hello_is_not_an_agent(bench: Bench) -> None:
    word = token()
    bench.start("sleep", word)
    stranger = bench.dial()
    stranger.sendall(frames.pack(frames.SHUTDOWN, (0,)))
    assert stranger.recv(1) == b""
    stranger.close()
    assert len(bench.list()[0]) == 1


def test_garbage_closes_its_connection_and_nothing_else(bench: Bench) -> None:
    bench.start("sleep", token())
    chance = random.Random(5)
    poisons = [b"\0\0\0\0", b"\xff" * 8, frames.pack(frames.LIST)[:4] + b"\x99", b"GET / HTTP/1.1\r\n\r\n"]
    poisons += [bytes(chance.randrange(256) for _ in range(400)) for _ in range(20)]
    for poison in poisons:
        stranger = bench.dial()
        stranger.sendall(poison + b"\xff" * 4)
        stranger.shutdown(1)
        assert stranger.recv(10) == b""
        stranger.close()
    assert len(bench.list()[0]) == 1


def test_a_second_guard_of_one_directory_gives_up(bench: Bench) -> None:
    command = [sys.executable, "-I", "-S", str(GUARD), str(bench.folder)]
    assert subprocess.run(command, timeout=30).returncode == 75
    assert bench.start("true")[0] == frames.STARTED


def test_a_long_path_of_the_data_directory_is_no_matter(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 10] * 4)
    folder.mkdir(parents=True)
    bench = Bench(folder)
    assert bench.start(*sh("echo here"))[0] == frames.STARTED
    assert bench.exit() == (0, 0, b"exited")
    bench.close()


def test_a_deadline_of_zero_is_none_and_never_comes_back(bench: Bench) -> None:
    bench.start("sleep", token(), deadline_ms=soon(700), stop_grace_ms=0)
    passed_ms = soon(800)
    bench.send(frames.EXTEND, (1, 0), (b"t",))
    until(lambda: boottime_ms() > passed_ms)
    bench.send(frames.EXTEND, (1, soon(10)), (b"t",))
    live, _ = bench.list()
    assert [frame[1][1] for frame in live] == [0]
