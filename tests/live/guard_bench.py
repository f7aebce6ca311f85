"""A guard of a test's own and one connection to it: what the tests of the guard share.

Processes are found by a number in their command line: pids inside a namespace mean nothing
outside. `Bench.close` lets a last guard sweep, tidy and leave, whatever the test has killed.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent import guard_frames as frames
from edge_agent import guard_limits
from edge_agent.guard_kernel import boottime_ms
from edge_agent.runtimes.host import RunSpec
from edge_agent.runtimes.process import ProcessRuntime

GUARD = Path(guard_limits.__file__).with_name("guard.py")
K_S = 2.0
ROOT = os.geteuid() == 0
tokens = itertools.count(1)
Frame = tuple[int, tuple[int, ...], tuple[bytes, ...]]


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.01)


def token() -> str:
    """A sleeping time that nobody else uses."""
    return f"{4_000_000 + os.getpid()}.{next(tokens)}"


def alive(word: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        if any(word.encode() in each for each in words) and b"sleep" in words[0]:
            found.append(int(name))
    return found


class Bench:
    """A guard in a folder, and one connection to it."""

    def __init__(
        self, folder: Path, *options: str, python: tuple[str, ...] = (sys.executable,), file: Path = GUARD
    ) -> None:
        self.folder = folder
        self.python = python
        self.file = file
        self.options = options
        self.runtime = ProcessRuntime(folder, "pi-1")
        self.guard: subprocess.Popen[bytes] | None = None
        self.sock: socket.socket | None = None
        self.inbox: list[Frame] = []
        self.facts: Frame | None = None
        self.runtime.open()
        self.begin()

    def begin(self) -> None:
        command = [*self.python, "-I", "-S", str(self.file), str(self.folder), *self.options]
        with (self.folder / "log").open("ab") as log:
            self.guard = subprocess.Popen(
                command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.connect()

    def connect(self) -> None:
        self.inbox, self.reader = [], frames.FrameReader()
        self.sock = self.dial()
        self.send(frames.HELLO, (1,))
        self.facts = self.wait(frames.WELCOME)

    def dial(self) -> socket.socket:
        folder = os.open(self.folder, os.O_RDONLY)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)

        def connected() -> bool:
            try:
                sock.connect(f"/proc/self/fd/{folder}/guard.sock")
            except OSError:
                return False
            return True

        until(connected, 15)
        os.close(folder)
        return sock

    def send(self, kind: int, ints: tuple[int, ...] = (), blobs: tuple[bytes, ...] = ()) -> None:
        assert self.sock is not None
        self.sock.sendall(frames.pack(kind, ints, blobs))

    def wait(self, *kinds: int) -> Frame:
        """The next frame of one of these kinds; others wait for their turn."""
        assert self.sock is not None
        while True:
            for index, frame in enumerate(self.inbox):
                if frame[0] in kinds:
                    return self.inbox.pop(index)
            data = self.sock.recv(65_536)
            assert data, f"the guard closed: {(self.folder / 'log').read_text()[-800:]}"
            self.inbox += [frames.unpack(body) for body in self.reader.feed(data)]

    def start(
        self, *command: str, task: str = "t", attempt: int = 1, deadline_ms: int = 0, **more: int
    ) -> Frame:
        spec = RunSpec(task, attempt, "process", command, {"COLOUR": "blue"}, **more)
        assert self.sock is not None
        self.sock.sendall(self.runtime.start_frame(spec, deadline_ms))
        return self.wait(frames.STARTED, frames.REFUSED)

    def exit(self) -> tuple[int, int, bytes]:
        """(exit code, signal, reason) of the next run that ends."""
        _, ints, blobs = self.wait(frames.EXITED)
        return ints[1], ints[2], blobs[1]

    def list(self) -> tuple[list[Frame], list[Frame]]:
        self.send(frames.LIST)
        self.wait(frames.LISTED)
        live = [frame for frame in self.inbox if frame[0] == frames.LIVE]
        past = [frame for frame in self.inbox if frame[0] == frames.PAST]
        self.inbox = [frame for frame in self.inbox if frame[0] not in (frames.LIVE, frames.PAST)]
        return live, past

    def output(self, stream: int = 1, task: str = "t", attempt: int = 1) -> str:
        return self.runtime.read_output(task, attempt, stream, 0, 1 << 20).decode()

    def kill_guard(self) -> None:
        assert self.guard is not None
        self.guard.kill()
        self.guard.wait(10)

    def close(self) -> None:
        """Whatever happened: a last guard sweeps, tidies and leaves."""
        assert self.guard is not None
        self.guard.send_signal(signal.SIGCONT)
        if self.guard.poll() is not None:
            self.begin()
        self.guard.terminate()
        try:
            self.guard.wait(10)
        finally:
            self.guard.kill()
        if self.sock is not None:
            self.sock.close()


def sh(text: str) -> tuple[str, str, str]:
    return ("sh", "-c", text)


def soon(ms: int) -> int:
    return boottime_ms() + ms
