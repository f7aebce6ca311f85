"""Tasks as processes: what a run's directory and environment look like.

`<data>/runs/<task>.<attempt>/` belongs to the agent and holds `stdout`, `stderr` and the
run's own `work/`, which belongs to the run's user and is its home, its temporary folder and
where it starts. The environment is built from nothing: PATH, HOME, LANG, TMPDIR, then what
the job says, then `FM_TASK`, `FM_INDEX` (which of its job), `FM_ATTEMPT` (the fencing token),
`FM_DEVICE` and `FM_ACCELERATORS` (names, by commas; empty for none).

It turns a `RunSpec` into the guard's START frame; it starts nothing and creates nothing (the
run's supervisor makes the directories: a slow disk must not hold up the agent).
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from edge_agent import guard_frames as frames
from edge_agent.guard_runs import is_task_name
from edge_agent.runtimes.host import RunSpec

RUN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUN_LANG = "C.UTF-8"
PIDS_MAX = 1_024
"""Stops a fork bomb; far above what a task of a small board needs."""
STREAMS = {1: "stdout", 2: "stderr"}
OTHERS_MAY_PASS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class ProcessRuntime:
    """Paths, environment and user of this device's runs. `uid` -1 means the agent's own."""

    name = "process"

    def __init__(
        self, data_dir: Path, device: str, uid: int = -1, gid: int = -1, pids_max: int = PIDS_MAX
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.device = device
        self.uid = uid
        self.gid = gid if uid >= 0 else -1
        self.pids_max = pids_max

    def open(self) -> None:
        """Makes the data directory; another user's runs may pass through it. Raises OSError."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.uid >= 0:
            mode = stat.S_IMODE(self.data_dir.stat().st_mode)
            self.data_dir.chmod(mode | OTHERS_MAY_PASS)

    def run_directory(self, task: str, attempt: int) -> Path:
        """Where everything of one attempt is. Raises ValueError for a name that is no task's."""
        if not is_task_name(task.encode("utf-8", "replace")) or attempt < 1:
            raise ValueError("no proper name of an attempt")
        return self.data_dir / "runs" / f"{task}.{attempt}"

    def start_frame(self, spec: RunSpec, deadline_ms: int) -> bytes:
        """The guard's START. Raises ValueError with the reason for a refusal."""
        folder = self.run_directory(spec.task, spec.attempt)
        work = folder / "work"
        if not spec.command or not spec.command[0]:
            raise ValueError("empty command")
        ints = (
            spec.attempt,
            deadline_ms,
            spec.timeout_ms,
            spec.stop_grace_ms,
            spec.output_bytes_max,
            spec.cpu_milli,
            spec.memory_mib,
            spec.disk_mib,
            self.pids_max,
            self.uid,
            self.gid,
            1,
        )
        blobs = (
            spec.task.encode(),
            os.fsencode(work),
            os.fsencode(folder / "stdout"),
            os.fsencode(folder / "stderr"),
            _joined(list(spec.command)),
            _joined([f"{name}={value}" for name, value in self.environment(spec, work).items()]),
        )
        return frames.pack(frames.START, ints, blobs)

    def environment(self, spec: RunSpec, work: Path) -> dict[str, str]:
        """Everything the run will find in its environment. Raises ValueError for a bad name."""
        if any(not name or "=" in name for name in spec.env):
            raise ValueError("bad name in the environment")
        home = str(work)
        found = {"PATH": RUN_PATH, "HOME": home, "LANG": RUN_LANG, "TMPDIR": home}
        found.update(spec.env)
        found.update(
            FM_TASK=spec.task,
            FM_INDEX=task_index(spec.task),
            FM_ATTEMPT=str(spec.attempt),
            FM_DEVICE=self.device,
            FM_ACCELERATORS=",".join(spec.accelerators),
        )
        return found

    def read_output(self, task: str, attempt: int, stream: int, offset: int, bytes_max: int) -> bytes:
        """What the run wrote from `offset` on (1 stdout, 2 stderr); empty when there is no more."""
        try:
            fd = os.open(self._output(task, attempt, stream), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, bytes_max, offset)
        finally:
            os.close(fd)

    def output_bytes(self, task: str, attempt: int, stream: int) -> int:
        """How much of it there is by now; 0 for a run that never wrote."""
        try:
            return self._output(task, attempt, stream).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def _output(self, task: str, attempt: int, stream: int) -> Path:
        return self.run_directory(task, attempt) / STREAMS[stream]

    def remove_run_directory(self, task: str, attempt: int) -> bool:
        """Whether nothing of it is left. Walks a tree that the run made: not for an event loop."""
        folder = self.run_directory(task, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            _open_up(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    def run_directories(self) -> list[tuple[str, int]]:
        """Attempts that have a directory, to find what a lost journal left behind."""
        found: list[tuple[str, int]] = []
        folder = self.data_dir / "runs"
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            task, _, attempt = name.rpartition(".")
            if is_task_name(task.encode("utf-8", "replace")) and attempt.isdecimal() and int(attempt) > 0:
                found.append((task, int(attempt)))
        return found


def task_index(task: str) -> str:
    """A task is `<job>.<index>`; one that was named otherwise is its job's only one."""
    index = task.rpartition(".")[2]
    return index if index.isdecimal() and index.isascii() else "0"


def _joined(words: list[str]) -> bytes:
    """As the guard takes lists: NUL between the words. Raises ValueError when one contains it."""
    if any("\0" in word for word in words):
        raise ValueError("NUL in command or environment")
    return "\0".join(words).encode("utf-8", "surrogateescape")


def _open_up(folder: Path) -> None:
    """Folders whose permissions their owner took from himself; symbolic links aren't followed."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
