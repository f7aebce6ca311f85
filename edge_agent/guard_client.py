"""The agent's side of the guard's socket: a `RunHost` on asyncio.

Finds the guard of the data directory or starts one, says HELLO, asks for the list; when the
connection ends it reports `HostLost`, finds or starts a guard again, and reports the new list.
One that was superseded by a newer agent stays away. A guard that takes connections but says
nothing for 15 s is killed: a guard that hangs enforces no deadline, and its end ends its runs.

What is asked while there is no guard is refused (a start) or lost (the rest): the list that
follows tells what to ask again. It knows no leases and decides nothing about runs.
Rejected: a thread; `multiprocessing` (its children inherit the agent).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple, cast

from edge_agent import guard_frames as frames
from edge_agent import guard_kernel as kernel
from edge_agent.runtimes.host import (
    Answer,
    HeldRun,
    HostAnswer,
    HostListed,
    HostLost,
    RunExited,
    RunRefused,
    RunSpec,
    RunStarted,
)
from edge_agent.runtimes.process import ProcessRuntime

GUARD_FILE = Path(__file__).with_name("guard.py")
LOG_BYTES_MAX = 65_536
RETRY_S = 0.02
RETRY_S_MAX = 1.0
WELCOME_S = 5.0
SILENT_TRIES = 3
OPEN_S = 30.0
LEAVE_S = 10.0
NO_GUARD = "no guard"
STOPPERS = (signal.SIGTERM, signal.SIGINT)


class GuardError(Exception):
    """No guard could be started or reached; the text says why."""


class GuardFacts(NamedTuple):
    """What a guard says of itself. `controllers` are those of its control groups."""

    pid: int
    containment: str
    limits: str
    controllers: tuple[str, ...]


class GuardClient:
    """`answer` is called on the loop's thread, never from inside one of our methods."""

    def __init__(self, runtime: ProcessRuntime, answer: Answer, options: tuple[str, ...] = ()) -> None:
        self.facts: GuardFacts | None = None
        self._runtime = runtime
        self._answer = answer
        self._options = options
        self._link: _Link | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._listed = asyncio.Event()
        self._ended = False
        self._silences = 0

    async def open(self) -> GuardFacts:
        """Until the guard's first list was answered. Raises `GuardError`."""
        try:
            self._runtime.open()
        except OSError as error:
            raise GuardError(f"data directory: {error}") from error
        self._keeper = asyncio.create_task(self._keep())
        try:
            await asyncio.wait_for(self._listed.wait(), OPEN_S)
        except TimeoutError:
            await self.close(stop_runs=False)
            raise GuardError(f"no answer within {OPEN_S:.0f} s; see {self._log_path()}") from None
        if self.facts is None:
            raise GuardError("the guard was lost at once")
        return self.facts

    async def close(self, stop_runs: bool, grace_ms: int = 0) -> None:
        """Leaves the guard and its runs alone, or ends both and waits until they are gone."""
        self._ended = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if stop_runs:
            await self._end_guard(grace_ms)
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # it outlives us on purpose; whoever inherits it reaps it

    # -------------------------------------------------------------- words

    def start(self, spec: RunSpec, deadline_ms: int) -> None:
        try:
            frame = self._runtime.start_frame(spec, deadline_ms)
        except ValueError as error:
            return self._say_later(RunRefused(spec.task, spec.attempt, str(error), True))
        if not self._send(frame):
            self._say_later(RunRefused(spec.task, spec.attempt, NO_GUARD))

    def extend(self, task: str, attempt: int, deadline_ms: int) -> None:
        self._send(frames.pack(frames.EXTEND, (attempt, deadline_ms), (task.encode(),)))

    def stop(self, task: str, attempt: int, grace_ms: int) -> None:
        self._send(frames.pack(frames.STOP, (attempt, grace_ms), (task.encode(),)))

    def forget(self, task: str, attempt: int) -> None:
        self._send(frames.pack(frames.FORGET, (attempt,), (task.encode(),)))

    def list(self, ask: int = 0) -> None:
        if self._link is not None:
            self._link.asks.append(ask)
        self._send(frames.pack(frames.LIST))

    def _send(self, frame: bytes) -> bool:
        return self._link is not None and self._link.write(frame)

    def _say_later(self, answer: HostAnswer) -> None:
        asyncio.get_running_loop().call_soon(self._answer, answer)

    # -------------------------------------------------------------- connection

    async def _keep(self) -> None:
        """Connects, waits for the end, connects again."""
        wait_s = RETRY_S
        while not self._ended:
            try:
                link = await self._connect()
            except (OSError, GuardError):
                await asyncio.sleep(wait_s)
                wait_s = min(RETRY_S_MAX, wait_s * 2)
                continue
            wait_s = RETRY_S
            self._link = link
            self.list()
            reason = await link.ended
            self._link = None
            self._ended = self._ended or reason == "superseded"
            self._answer(HostLost(reason))

    async def _connect(self) -> _Link:
        """One link that was welcomed. Raises OSError or `GuardError`."""
        sock = self._open_socket()
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(lambda: _Link(self._hear), sock=sock)
        except BaseException:
            sock.close()
            raise
        link.write(frames.pack(frames.HELLO, (frames.FRAMES_VERSION,)))
        try:
            version, self.facts = await asyncio.wait_for(link.welcome, WELCOME_S)
        except TimeoutError:
            self._silences += 1
            if self._silences % SILENT_TRIES == 0:
                self._signal({read_identity(self._runtime.data_dir)}, signal.SIGKILL)
            raise GuardError("the guard says nothing") from None
        finally:
            if not link.welcome.done() or link.welcome.cancelled() or link.welcome.exception() is not None:
                link.close()
        self._silences = 0
        if version != frames.FRAMES_VERSION:
            link.write(frames.pack(frames.SHUTDOWN, (0,)))
            await link.ended
            raise GuardError("a guard of another version was shut down")
        return link

    def _open_socket(self) -> socket.socket:
        """Connected through the directory's descriptor: the path itself may be too long. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        folder = os.open(self._runtime.data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/guard.sock")
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            self._spawn()
            raise
        except OSError:
            sock.close()
            raise
        finally:
            os.close(folder)
        return sock

    def _spawn(self) -> None:
        """A guard of its own session, unless the one we started is still on its way."""
        if self._child is not None and self._child.poll() is None:
            return
        data_dir = str(self._runtime.data_dir)
        python = [sys.executable, "-I", "-S", str(GUARD_FILE), data_dir, *self._options]
        log = self._log_path()
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.unlink()
        # Born with these blocked: one that is told to go at once first sweeps what it came for.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPERS)
        try:
            with log.open("ab") as file:
                self._child = subprocess.Popen(
                    python,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=data_dir,
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _log_path(self) -> Path:
        return self._runtime.data_dir / "guard.log"

    def _hear(self, answer: HostAnswer) -> None:
        if isinstance(answer, HostListed):
            if self.facts is not None:
                answer = HostListed(
                    answer.live, answer.exits, answer.ask, self.facts.containment, self.facts.limits
                )
            self._answer(answer)
            self._listed.set()
        else:
            self._answer(answer)

    # -------------------------------------------------------------- the end

    async def _end_guard(self, grace_ms: int) -> None:
        """Whichever it is: the one we speak with, the one in the file, or ours that isn't in it yet."""
        guards = {read_identity(self._runtime.data_dir)} - {None}
        if self._child is not None and self._child.poll() is None:
            facts = kernel.process_facts(self._child.pid)
            guards |= {(facts.pid, facts.start_ticks)} if facts else set()
        if not self._send(frames.pack(frames.SHUTDOWN, (grace_ms,))):
            self._signal(guards, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_ms / 1000 + LEAVE_S
        while any(kernel.is_alive(*guard) for guard in guards if guard):
            if loop.time() > until:
                self._signal(guards, signal.SIGKILL)
            await asyncio.sleep(RETRY_S)

    def _signal(self, guards: set[tuple[int, int] | None], number: int) -> None:
        """To those of them that live and are still the same process."""
        for guard in guards:
            if guard is not None and kernel.is_alive(*guard):
                kernel.send_signal(guard[0], number)


def read_identity(data_dir: Path) -> tuple[int, int] | None:
    """(pid, start ticks) in `guard.pid`; None when no guard says it is there."""
    try:
        words = (data_dir / "guard.pid").read_bytes().split()
    except OSError:
        return None
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


class _Link(asyncio.Protocol):
    """One connection: bytes to answers."""

    def __init__(self, hear: Answer) -> None:
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[tuple[int, GuardFacts]] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.asks: deque[int] = deque()
        self._hear = hear
        self._reader = frames.FrameReader()
        self._transport: asyncio.WriteTransport | None = None
        self._live: list[HeldRun] = []
        self._exits: list[RunExited] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "connection closed")

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self._take(*frames.unpack(body))
        except (frames.FrameError, UnicodeDecodeError) as error:
            self._end(f"garbage from the guard: {error}")
            self.close()

    def write(self, frame: bytes) -> bool:
        """False when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(frame)
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
        if not self.welcome.done():
            self.welcome.set_exception(GuardError(reason))

    def _take(self, kind: int, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        texts = [blob.decode() for blob in blobs]
        if kind == frames.WELCOME:
            controllers = tuple(texts[2].split(",")) if texts[2] else ()
            if not self.welcome.done():
                self.welcome.set_result((ints[0], GuardFacts(ints[1], texts[0], texts[1], controllers)))
        elif kind == frames.STARTED:
            self._hear(RunStarted(texts[0], ints[0], ints[1]))
        elif kind == frames.REFUSED:
            self._hear(RunRefused(texts[0], ints[0], texts[1], ints[1] == 1))
        elif kind == frames.EXITED:
            self._hear(exit_of(ints, texts))
        elif kind == frames.LIVE:
            self._live.append(HeldRun(texts[0], ints[0], ints[1], ints[2]))
        elif kind == frames.PAST:
            self._exits.append(exit_of(ints, texts))
        elif kind == frames.LISTED:
            self._take_list()
        elif kind == frames.SUPERSEDED:
            self._end("superseded")

    def _take_list(self) -> None:
        live, self._live = tuple(self._live), []
        exits, self._exits = tuple(self._exits), []
        self._hear(HostListed(live, exits, self.asks.popleft() if self.asks else 0))


def exit_of(ints: tuple[int, ...], texts: list[str]) -> RunExited:
    """From the numbers of an EXITED or PAST frame."""
    code, number = ints[1], ints[2]
    return RunExited(texts[0], ints[0], None if code < 0 else code, None if number == 0 else number, texts[1])
