"""What tests with real processes share: a port, a private mosquitto, patience with an end.

Rule of this file: a test run leaves nothing behind. At its end every process that it
started, or that such a process started, is gone; whatever isn't is named, killed, and
fails the run. Found by descent, by a mark in the environment, and by working directory,
because an orphan has lost the first and a run with a scrubbed environment the second.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

MARK = f"FM_TEST_RUN={os.getpid()}-{time.time_ns()}"
LEFTOVER_GRACE_MS = 5_000
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs deaf to Ctrl-C, and what we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
NO_MOSQUITTO = "NOT RUN, mosquitto isn't installed: sudo apt-get install -y --no-install-recommends mosquitto"


def find_mosquitto() -> str | None:
    """Debian puts it in /usr/sbin, which isn't on everybody's PATH."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


# ------------------------------------------------------------------ waiting


def poll(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """The first truthy answer of `condition`; fails after `timeout_s` with its last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            pytest.fail(f"not within {timeout_s} s: {what or condition}; last answer: {answer!r}")
        time.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """`wait_until(condition, timeout_s=10.0, what="")`: see `poll`."""
    return poll


# ------------------------------------------------------------------ ports and brokers


def pick_port() -> int:
    """A loopback port that is free now; who binds it must cope with losing it to another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_port() -> int:
    """One free loopback port."""
    return pick_port()


@dataclass(slots=True)
class Mosquitto:
    """A private broker: loopback, anonymous, forgets everything when it ends."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, again on the same port if it had one; returns when it accepts."""
        for _ in range(5):
            port = self.port or pick_port()
            self._spawn(port)
            answer = poll(partial(self._answers, port), what=f"mosquitto on port {port}")
            if answer == "accepts":
                self.port = port
                return
        pytest.fail(f"mosquitto doesn't start: {(self.folder / 'log').read_text()[-500:]}")

    def kill(self) -> None:
        """SIGKILL: nothing is saved, no will is sent in good order."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def _spawn(self, port: int) -> None:
        self.kill()
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence false",
            "set_tcp_nodelay true",
        ]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        command = [find_mosquitto() or "mosquitto", "-c", str(config)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _answers(self, port: int) -> str:
        if self.process is not None and self.process.poll() is not None:
            return "ended"
        with socket.socket() as probe:
            return "accepts" if probe.connect_ex(("127.0.0.1", port)) == 0 else ""


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running private mosquitto with `port`, `url`, `kill()` and `start()`; a skip where there is none."""
    if find_mosquitto() is None:
        pytest.skip(NO_MOSQUITTO)
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_mosquitto") and find_mosquitto() is None:
        pytest.skip(NO_MOSQUITTO)


# ------------------------------------------------------------------ nothing is left behind


def pytest_configure(config: pytest.Config) -> None:
    name, value = MARK.split("=", 1)
    os.environ[name] = value


def leftovers(folder: str | None) -> dict[int, str]:
    """Live processes of this test run other than itself: pid to command line."""
    found: dict[int, str] = {}
    own = os.getpid()
    parents = {pid: parent for pid, parent in map(_parent, _pids()) if parent}
    for pid in parents:
        if pid == own or _is_ancestor(pid, own, parents):
            continue
        if _is_ancestor(own, pid, parents) or _is_marked(pid) or _works_in(pid, folder):
            command = _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
            # The standard library's own helper ends with its parent, not before.
            if command and "multiprocessing.resource_tracker" not in command:
                found[pid] = command
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone meanwhile, or not ours
        return b""


def _parent(pid: int) -> tuple[int, int]:
    """Its parent; 0 for what is gone or is only a zombie, which runs nothing."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (pid, 0) if len(fields) < 2 or fields[0] in (b"Z", b"X") else (pid, int(fields[1]))


def _is_ancestor(above: int, pid: int, parents: dict[int, int]) -> bool:
    seen = 0
    while pid in parents and seen < 100:
        pid, seen = parents[pid], seen + 1
        if pid == above:
            return True
    return False


def _is_marked(pid: int) -> bool:
    return MARK.encode() in _read(pid, "environ").split(b"\0")


def _works_in(pid: int, folder: str | None) -> bool:
    try:
        return folder is not None and os.readlink(f"/proc/{pid}/cwd").startswith(folder + "/")
    except OSError:
        return False


def _test_folder(config: pytest.Config) -> str | None:
    """This run's own tmp_path root, if any test asked for one."""
    factory = getattr(config, "_tmp_path_factory", None)
    base = getattr(factory, "_basetemp", None)
    return str(base) if base else None


LEFT: dict[int, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = _test_folder(session.config)
    deadline = time.monotonic() + LEFTOVER_GRACE_MS / 1_000
    while (left := leftovers(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    LEFT.update(left)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as trouble:
            LEFT[pid] += f" (not killed: {trouble})"
    if left and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    without = [
        report for report in terminalreporter.stats.get("skipped", ()) if NO_MOSQUITTO in str(report.longrepr)
    ]
    if without:
        terminalreporter.section(f"{len(without)} tests {NO_MOSQUITTO}", sep="!", yellow=True)
    if LEFT:
        terminalreporter.section("FAILED: the tests left processes behind (killed now)", sep="!", red=True)
        for pid, command in LEFT.items():
            terminalreporter.write_line(f"{pid}: {command}")
