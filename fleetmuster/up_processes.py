"""Child processes of `fm up`: started so that they die with it, watched, ended in order.

A child's talk goes to its log file; a child that dies unasked is told to whoever watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from live.parent import ASKED

TERM_S = 8.0
KILL_S = 5.0
LOG_BYTES_MAX = 32 * 1024 * 1024
"""A log larger than this is set aside once (`.1`) when its process starts."""


class Child:
    """One process: `argv` run by this Python, its output in `log_path`."""

    def __init__(
        self, name: str, argv: Sequence[str], log_path: Path, pass_fds: tuple[int, ...] = ()
    ) -> None:
        self.name, self.argv, self.log_path, self.pass_fds = name, list(argv), log_path, pass_fds
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: asyncio.Task[int] | None = None

    def start(self) -> None:
        """Raises `OSError`."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            os.replace(self.log_path, self.log_path.with_name(self.log_path.name + ".1"))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FM_")}
        environment[ASKED] = str(os.getpid())
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        self.ended = asyncio.create_task(_exit_of(self.process))

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def stop(self, patience_s: float = TERM_S) -> None:
        """SIGTERM, then SIGKILL for one that doesn't listen."""
        if self.ended is None:
            return
        self.signal(signal.SIGTERM)
        if not await self._gone(patience_s):
            self.signal(signal.SIGKILL)
            await self._gone(KILL_S)

    async def _gone(self, patience_s: float) -> bool:
        assert self.ended is not None
        done, _ = await asyncio.wait([self.ended], timeout=patience_s)
        return bool(done)

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 4_096))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


async def _exit_of(process: subprocess.Popen[bytes]) -> int:
    """The exit code, by a pidfd where the kernel has one, else by looking."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        while process.poll() is None:
            await asyncio.sleep(0.1)
        return process.returncode
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(fd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return process.wait()
