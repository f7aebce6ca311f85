"""What the guard asks of Linux that Python has no function for, and what it reads in /proc.

prctl, unshare, mount and timerfd by ctypes; process start times, parents and sessions
from /proc. Every call either works or raises OSError; nothing here decides anything.
A process is known by `(pid, start_ticks)`: pids come back, the pair doesn't within a boot.
Rejected: psutil (20 MB in a process that may have 12).
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
MS_REC_PRIVATE = 0x4000 | (1 << 18)
TFD_TIMER_ABSTIME = 1
TFD_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    argument = ctypes.c_ulong(value)
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, argument, zero, zero, zero), "prctl")


def set_name(name: bytes) -> None:
    """Names this process in ps and /proc; at most 15 bytes."""
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: bytes, target: bytes, kind: bytes, flags: int) -> None:
    """mount(2). Raises OSError."""
    _checked(_libc.mount(source, target, kind, ctypes.c_ulong(flags), None), "mount")


def boottime_ms() -> int:
    """Milliseconds since boot, suspend included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def timer_create() -> int:
    """A descriptor that becomes readable at a moment of CLOCK_BOOTTIME. Raises OSError.

    poll()'s own timeout doesn't count suspend: a deadline that passed while the machine
    slept would be noticed late by as much as was left of it.
    """
    return _checked(_libc.timerfd_create(time.CLOCK_BOOTTIME, TFD_CLOEXEC_NONBLOCK), "timerfd_create")


def timer_set(fd: int, at_ms: int) -> None:
    """Arms the timer for `at_ms`; 0 disarms it. Raises OSError."""
    value = _Timespec(at_ms // 1000, at_ms % 1000 * 1_000_000)
    spec = _Itimerspec(_Timespec(0, 0), value)
    _checked(_libc.timerfd_settime(fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None), "timerfd_settime")


class ProcessFacts:
    """One line of /proc/<pid>/stat."""

    __slots__ = ("dead", "name", "parent", "pid", "session", "start_ticks")

    def __init__(self, pid: int, name: bytes, fields: list[bytes]) -> None:
        self.pid = pid
        self.name = name
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])
        self.dead = fields[0] in (b"Z", b"X")


def process_facts(pid: int | str) -> ProcessFacts | None:
    """Facts of a process (a pid or "self"), None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
    except OSError:
        return None
    head, _, rest = text.rpartition(b") ")
    if not rest:
        return None
    number, _, name = head.partition(b" (")
    return ProcessFacts(int(number), name, rest.split())


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether exactly this process exists and has not yet ended."""
    facts = process_facts(pid)
    return facts is not None and facts.start_ticks == start_ticks and not facts.dead


def all_processes() -> list[ProcessFacts]:
    """Every process that /proc shows, in pid order."""
    found = [process_facts(name) for name in os.listdir("/proc") if name.isdigit()]
    return sorted((facts for facts in found if facts is not None), key=lambda facts: facts.pid)


def descendants(root: int) -> list[int]:
    """Living processes below `root`, at any depth, without itself."""
    everything = all_processes()
    inside = {root}
    grew = True
    while grew:
        below = {facts.pid for facts in everything if facts.parent in inside}
        grew = not below <= inside
        inside |= below
    return [facts.pid for facts in everything if facts.pid in inside and facts.pid != root and not facts.dead]


def send_signal(pid: int, number: int) -> bool:
    """Whether the signal was sent; a process that is gone is no error."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_all(pids: list[int]) -> None:
    """SIGKILL to each of them."""
    for pid in pids:
        send_signal(pid, signal.SIGKILL)


def trim_memory() -> None:
    """Gives what start-up left over back to the kernel; musl has no such call."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
