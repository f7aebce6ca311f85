"""The guard: parent of all runs of one device, and the only one that enforces deadlines.

`python -I -S guard.py DATA_DIR [--containment weak] [--limits rlimit] [--idle-exit-ms N]`
Takes the lock, sweeps what a predecessor left, and only then listens on `guard.sock`. It
needs nothing from the agent to kill, obeys the newest agent connection alone, and its own
death ends its runs (see guard_supervisor). This file is the process; guard_loop the loop.

It knows no MQTT, no journal, no leases: only moments. Standard library only, a short list:
it has 12 MB (a script is compiled anew at each start, which costs memory: so this file is
small). Rejected: asyncio and subprocess (memory); a thread per run; a guard inside the
agent (a frozen agent would be a frozen guard).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

if __name__ == "__main__":  # -I leaves our own folder out; siblings are found beside this file
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from edge_agent import guard_kernel as kernel
from edge_agent import guard_limits as limits
from edge_agent import guard_peers as peers
from edge_agent import guard_registry as registry
from edge_agent import guard_supervisor as supervisor
from edge_agent.guard_loop import IDLE_EXIT_MS, PID_NAME, TIDY_MS, Guard

REGISTRY_NAME = "guard.runs"
LOCK_WAIT_MS = 5_000
LEAVE_TRIES = 20
ALREADY_RUNNING = 75
STOPPERS = (signal.SIGTERM, signal.SIGINT)


def take_lock() -> int | None:
    """The descriptor that holds `guard.pid`, None when another guard lives.

    A dying predecessor's children may hold the lock until they have closed what they inherited.
    """
    fd = os.open(PID_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until_ms = kernel.boottime_ms() + LOCK_WAIT_MS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if kernel.boottime_ms() >= until_ms:
                return None
            time.sleep(registry.SWEEP_PAUSE_S)


def protect() -> None:
    """First in line for the processor and last for the OOM killer, where we may say so."""
    try:
        limits.write("/proc/self/oom_score_adj", "-900")
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    except OSError:
        return


def option(arguments: list[str], name: str, default: str) -> str:
    """The word after `name`."""
    return arguments[arguments.index(name) + 1] if name in arguments[:-1] else default


def main(arguments: list[str]) -> int:
    """Exit code: 0 after a shutdown, 75 when another guard lives."""
    data_dir = arguments[0]
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPERS)  # who is told to go sweeps all the same
    os.umask(0o077)
    os.chdir(data_dir)
    lock_fd = take_lock()
    own = kernel.process_facts("self")
    if lock_fd is None or own is None:
        return ALREADY_RUNNING
    kernel.set_name(b"fm-guard")
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    slots = registry.Registry(REGISTRY_NAME)
    registry.sweep(slots, data_dir)
    name = f"{limits.BASE_PREFIX}{own.pid}-{own.start_ticks}"
    found = limits.find_limits(name, option(arguments, "--limits", "auto"))
    slots.begin(list(found.bases))
    registry.remove_stale_bases(limits.parents(found))
    protect()
    os.pwrite(lock_fd, b"%d %d\n".ljust(40) % (own.pid, own.start_ticks), 0)
    mode = supervisor.find_mode(option(arguments, "--containment", "auto"))
    guard = Guard(data_dir, mode, found, slots)
    guard.idle_exit_ms = int(option(arguments, "--idle-exit-ms", str(IDLE_EXIT_MS)))
    signal.set_wakeup_fd(guard.wakeup_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in STOPPERS:
        signal.signal(number, guard.ask_to_stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPERS)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kernel.trim_memory()
    guard.serve()
    leave(guard, lock_fd)
    return 0


def leave(guard: Guard, lock_fd: int) -> None:
    """Takes away what only a living guard needs; the lock goes last."""
    for _ in range(LEAVE_TRIES):
        guard.busy_groups = limits.remove(guard.busy_groups)
        if not guard.busy_groups:
            break
        time.sleep(TIDY_MS / 1000)
    guard.limits.remove_bases()
    try:
        os.unlink(peers.SOCKET_NAME)
    except FileNotFoundError:
        pass  # the whole data directory is gone
    os.ftruncate(lock_fd, 0)
    os.close(lock_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
