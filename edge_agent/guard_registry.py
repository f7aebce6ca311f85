"""What a guard leaves for its successor: who its runs are; and the successor's sweep.

One preallocated file: a header (boot id, control group bases) and a slot per run. Slots are
written in place, without fsync, by the run's own supervisor before its program starts: a
slow disk never blocks the guard, a full one doesn't stop it, and after a reboot nothing in
it is alive anyway. Old slots are harmless: they name (pid, start ticks) pairs.

The sweep runs after the lock is taken and before the first answer. It looks for members of
the control groups, supervisors, leaders, their sessions, and (for a double-forked setsid
child under weak containment) the environment that the run was started with.
Rejected: a file per run (inodes on a full disk); trusting pids without start times.
"""

from __future__ import annotations

import os
import time

from edge_agent import guard_kernel as kernel
from edge_agent import guard_limits as limits

SLOTS = 512
"""As many as one device's document may hold."""
SLOT_BYTES = 256
HEADER_BYTES = 8192
SUPERVISOR_NAME = b"fm-run"
SWEEP_PAUSE_S = 0.01


class Registry:
    """The open file. `usable` is False when not even its space could be reserved."""

    __slots__ = ("fd", "usable")

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.usable = True
        try:
            os.posix_fallocate(self.fd, 0, HEADER_BYTES + SLOTS * SLOT_BYTES)
        except OSError:
            self.usable = os.fstat(self.fd).st_size >= HEADER_BYTES + SLOTS * SLOT_BYTES

    def read_header(self) -> tuple[str, list[str]]:
        """Boot id and control group bases of the guard that wrote last."""
        lines = os.pread(self.fd, HEADER_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace").split("\n")
        return lines[0], [line for line in lines[1:] if line]

    def begin(self, bases: list[str]) -> None:
        """Claims the file for this guard; all slots become empty."""
        text = "\n".join([boot_id(), *bases]).encode()
        try:
            os.pwrite(self.fd, text[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0"), 0)
            os.pwrite(self.fd, bytes(SLOTS * SLOT_BYTES), HEADER_BYTES)
        except OSError:
            self.usable = False

    def read_slots(self) -> list[Slot]:
        """Every slot that names a run."""
        found: list[Slot] = []
        for index in range(SLOTS):
            words = os.pread(self.fd, SLOT_BYTES, HEADER_BYTES + index * SLOT_BYTES).split(b"\n")[0].split()
            if len(words) == 6 and all(word.isdigit() for word in words[:5]):
                found.append(Slot([int(word) for word in words[:5]], words[5]))
        return found


class Slot:
    """One run: supervisor and leader as (pid, start ticks), attempt, task."""

    __slots__ = ("attempt", "main_pid", "main_ticks", "pid", "start_ticks", "task")

    def __init__(self, numbers: list[int], task: bytes) -> None:
        self.pid, self.start_ticks, self.main_pid, self.main_ticks, self.attempt = numbers
        self.task = task


def write_slot(fd: int, index: int, numbers: tuple[int, int, int, int, int], task: bytes) -> None:
    """In the supervisor and in the run before its program. Raises OSError."""
    text = b" ".join([b"%d" % number for number in numbers] + [task]) + b"\n"
    os.pwrite(fd, text.ljust(SLOT_BYTES, b"\0"), HEADER_BYTES + index * SLOT_BYTES)


def boot_id() -> str:
    """This boot's name, empty where the kernel doesn't tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def sweep(registry: Registry, data_dir: str) -> int:
    """Ends everything a predecessor left; returns when nothing is left. How many were killed."""
    boot, bases = registry.read_header()
    if boot != boot_id():
        return 0
    slots = registry.read_slots()
    killed: set[int] = set()
    while True:
        for base in bases:
            for directory in limits.run_directories(base):
                limits.kill_members([directory])
        left = _leftovers(slots, data_dir)
        kernel.kill_all(left)
        killed.update(left)
        busy = [path for base in bases for path in limits.remove([base, *limits.run_directories(base)])]
        if not left and not busy:
            return len(killed)
        time.sleep(SWEEP_PAUSE_S)


def _leftovers(slots: list[Slot], data_dir: str) -> list[int]:
    """Living processes of these runs, ourselves never."""
    processes = [facts for facts in kernel.all_processes() if not facts.dead and facts.pid != os.getpid()]
    ticks = {facts.pid: facts.start_ticks for facts in processes}
    pairs = {(slot.pid, slot.start_ticks) for slot in slots}
    pairs |= {(slot.main_pid, slot.main_ticks) for slot in slots if slot.main_pid}
    # A session id isn't given to a new process while a member of the session lives, so a session
    # is the run's exactly when its leader is ours or gone.
    sessions = {slot.main_pid: slot.main_ticks for slot in slots if slot.main_pid}
    found: list[int] = []
    for facts in processes:
        begun = sessions.get(facts.session)
        ours = begun is not None and ticks.get(facts.session, begun) == begun <= facts.start_ticks
        if ours or (facts.pid, facts.start_ticks) in pairs or _is_marked(facts, slots, data_dir):
            found.append(facts.pid)
    return found


def _is_marked(facts: kernel.ProcessFacts, slots: list[Slot], data_dir: str) -> bool:
    """A supervisor of this directory that had no slot yet, or a process with a run's environment."""
    if facts.name == SUPERVISOR_NAME:
        return os.fsencode(data_dir) in _read(facts.pid, "cmdline").split(b"\0")
    if not slots:
        return False
    entries = _read(facts.pid, "environ").split(b"\0")
    if not any(entry.startswith(b"FM_ATTEMPT=") for entry in entries):
        return False
    here = any(os.fsencode(data_dir) + b"/" in entry for entry in entries)
    names = {(b"FM_TASK=" + slot.task, b"FM_ATTEMPT=%d" % slot.attempt) for slot in slots}
    return here and any(task in entries and attempt in entries for task, attempt in names)


def _read(pid: int, file: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{file}", "rb", buffering=0) as handle:
            return handle.read(131_072)
    except OSError:
        return b""


def remove_stale_bases(parents: list[str]) -> None:
    """Empty control groups of guards whose data directory is gone; those of the living stay."""
    for parent in parents:
        for base in limits.run_directories(parent):
            words = os.path.basename(base).split("-")
            if len(words) != 3 or f"{words[0]}-" != limits.BASE_PREFIX:
                continue
            if not all(word.isdigit() for word in words[1:]):
                continue
            if not kernel.is_alive(int(words[1]), int(words[2])):
                limits.remove([base, *limits.run_directories(base)])
