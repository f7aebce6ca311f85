"""The guard's loop and tables: starts, deadlines, exits.

On every wake the deadlines come before all else; a wake is due at the next of them, by a
timer that counts suspend. Nothing starts at or after its deadline, no task runs twice, no
attempt that is known starts again. A run has ended when its whole tree is gone, not before.
Exits are kept until FORGET; when too many are kept nothing more is started: to drop the
oldest would let an attempt start a second time.
It never waits for a disk, a run or an agent.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from edge_agent import guard_frames as frames
from edge_agent import guard_kernel as kernel
from edge_agent import guard_limits as limits
from edge_agent import guard_peers as peers
from edge_agent import guard_registry as registry
from edge_agent import guard_runs as runs
from edge_agent import guard_supervisor as supervisor

EXITS_MAX = 10_000
"""About 3 MB; an agent forgets each exit once its controller has acknowledged it."""
TIDY_MS = 50
IDLE_LOOK_MS = 10_000
IDLE_EXIT_MS = 600_000
"""Without agent, runs or unread exits; the next agent starts another guard in 100 ms."""
PID_NAME = "guard.pid"


class Guard(peers.Hearer):
    """The loop and its tables."""

    def __init__(self, data_dir: str, mode: str, found: limits.Limits, slots: registry.Registry) -> None:
        self.data_dir = data_dir
        self.mode = mode
        self.limits = found
        self.registry = slots
        self.free_slots = list(range(registry.SLOTS - 1, -1, -1))
        self.runs: dict[tuple[bytes, int], runs.Run] = {}
        self.tasks: dict[bytes, runs.Run] = {}
        self.exits: dict[tuple[bytes, int], tuple[int, int, bytes]] = {}
        self.pids: dict[int, runs.Run] = {}
        self.statuses: dict[int, runs.Run] = {}
        self.busy_groups: list[str] = []
        self.started = 0
        self.stopping = False
        self.asked_to_stop = False
        self.idle_since_ms = kernel.boottime_ms()
        self.idle_exit_ms = IDLE_EXIT_MS
        self.poll = select.poll()
        self.timer_fd = kernel.timer_create()
        self.wakeup_r, self.wakeup_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for fd in (self.timer_fd, self.wakeup_r):
            self.poll.register(fd, select.POLLIN)
        containment = b"weak" if mode == supervisor.WEAK else b"strong"
        facts = (containment, found.mechanism.encode(), ",".join(found.controllers).encode())
        self.answers = {
            frames.START: self._start,
            frames.EXTEND: self._extend,
            frames.STOP: self._stop,
            frames.FORGET: self._forget,
            frames.LIST: self._list,
            frames.SHUTDOWN: self._shut_down,
        }
        self.peers = peers.Peers(self.poll, facts, self)

    # -------------------------------------------------------------- the loop

    def serve(self) -> None:
        """Until a shutdown is complete."""
        while self.runs or not self.stopping:
            self._arm()
            ready = self.poll.poll()
            self._enforce(kernel.boottime_ms())
            if self.asked_to_stop and not self.stopping:
                self.stop_everything(0)
            for fd, event in ready:
                self._handle(fd, event)
            self._reap()
            self._tidy()
            self._look_idle(kernel.boottime_ms())
        self.peers.flush_last()

    def _arm(self) -> None:
        now_ms = kernel.boottime_ms()
        due = [moment for moment in (run.due_ms() for run in self.runs.values()) if moment]
        if self.busy_groups or any(run.reaped for run in self.runs.values()):
            due.append(now_ms + TIDY_MS)
        if self.peers.empty and not self.stopping:
            due.append(now_ms + min(IDLE_LOOK_MS, self.idle_exit_ms))
        kernel.timer_set(self.timer_fd, max(1, min(due, default=0)) if due else 0)

    def _enforce(self, now_ms: int) -> None:
        """Deadlines, before anything else: whoever wakes late must not start by listening."""
        for run in self.runs.values():
            self._carry_out(run, run.decide(now_ms))

    def _carry_out(self, run: runs.Run, order: int) -> None:
        if order == runs.TERM:
            self._tell(run, supervisor.TERM)
        elif order == runs.KILL:
            self._tell(run, supervisor.KILL)
            if run.pid == 0:
                self._kill_hard(run)
        elif order == runs.FORCE:
            self._kill_hard(run)

    def _kill_hard(self, run: runs.Run) -> None:
        """Everything at once: tree (where the end of an init isn't enough), groups, supervisor."""
        if self.mode == supervisor.WEAK and run.pid and not run.reaped:
            kernel.kill_all(kernel.descendants(run.pid))
        limits.kill_members(run.groups)
        for pid in (run.pid, run.spawn_pid):
            if pid in self.pids:
                kernel.send_signal(pid, signal.SIGKILL)

    def _tell(self, run: runs.Run, order: bytes) -> None:
        try:
            os.write(run.control_fd, order)
        except OSError:
            return  # it is gone, or so stuck that its pipe is full: FORCE comes by itself

    def _handle(self, fd: int, event: int) -> None:
        if fd == self.timer_fd or fd == self.wakeup_r:
            drain(fd)
        elif fd in self.statuses:
            self._read_status(self.statuses[fd])
        else:
            self.peers.handle(fd, event)

    # -------------------------------------------------------------- starting

    def _start(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        now_ms = kernel.boottime_ms()
        try:
            request = runs.StartRequest(ints, blobs)
            refusal = self._refusal(request, now_ms)
        except ValueError as error:
            return self.peers.send(frames.REFUSED, (ints[0], 1), (blobs[0], f"bad request: {error}".encode()))
        if refusal:
            return self.peers.send(frames.REFUSED, (ints[0], 0), (blobs[0], refusal.encode()))
        run = runs.Run(request, now_ms)
        try:
            self._spawn(run, request)
        except OSError as error:
            run.failure = f"cannot start: {error}".encode()
            self._finish(run)

    def _refusal(self, request: runs.StartRequest, now_ms: int) -> str:
        key = (request.task, request.attempt)
        if self.stopping:
            return "shutting down"
        if request.deadline_ms and now_ms >= request.deadline_ms:
            return "deadline passed"
        if key in self.runs or key in self.exits:
            return "attempt is known"
        if request.task in self.tasks:
            return "task is live"
        if len(self.exits) >= EXITS_MAX or not self.free_slots:
            return "too many runs"
        if self.mode == supervisor.WEAK and not self.registry.usable:
            return "no room for the registry of runs"
        if self.mode != supervisor.PLAIN and os.geteuid() != 0 and request.uid >= 0:
            return "may not change the user"
        return ""

    def _spawn(self, run: runs.Run, request: runs.StartRequest) -> None:
        """Forks the supervisor. Raises OSError with nothing left but what `_finish` removes."""
        self.runs[run.key] = self.tasks[run.task] = run
        run.slot = self.free_slots.pop()
        self.started += 1
        amounts = (request.cpu_milli, request.memory_mib, request.pids_max)
        run.groups = self.limits.create(f"run-{self.started}", *amounts)
        child = supervisor.Supervisor(request, self.mode, self.limits, run.groups)
        child.control_fd, run.control_fd = os.pipe2(os.O_CLOEXEC)
        run.status_fd, child.status_fd = os.pipe2(os.O_CLOEXEC)
        child.registry_fd, child.slot = self.registry.fd, run.slot
        try:
            run.spawn_pid = os.fork()
            if run.spawn_pid == 0:
                become_supervisor(child)
        finally:
            os.close(child.control_fd)
            os.close(child.status_fd)
        self.pids[run.spawn_pid] = run
        self.statuses[run.status_fd] = run
        os.set_blocking(run.status_fd, False)
        os.set_blocking(run.control_fd, False)
        self.poll.register(run.status_fd, select.POLLIN)
        if self.mode == supervisor.WEAK:
            run.pid = run.spawn_pid
            self._tell(run, supervisor.GO)

    def _read_status(self, run: runs.Run) -> None:
        """What the supervisor reported so far."""
        while run.status_fd >= 0:
            try:
                data = os.read(run.status_fd, 4096)
            except BlockingIOError:
                break
            if not data:
                self._close_status(run)
            run.status_bytes += data
        size = supervisor.REPORT.size
        while len(run.status_bytes) >= size:
            kind, number, length = supervisor.REPORT.unpack_from(run.status_bytes)
            if len(run.status_bytes) < size + length:
                break
            text = run.status_bytes[size : size + length]
            run.status_bytes = run.status_bytes[size + length :]
            self._note_report(run, kind, number, text)

    def _note_report(self, run: runs.Run, kind: bytes, number: int, text: bytes) -> None:
        if kind == b"P":
            run.pid = number
            self.pids[number] = run
        elif kind == b"S":
            run.note_started(number, kernel.boottime_ms())
            self.peers.send(frames.STARTED, (run.attempt, number), (run.task,))
        elif kind == b"F":
            run.failure, run.at_fault = text, number
        elif kind == b"X":
            run.wait_status = number

    def _close_status(self, run: runs.Run) -> None:
        if run.status_fd >= 0:
            if self.statuses.pop(run.status_fd, None) is not None:
                self.poll.unregister(run.status_fd)
            os.close(run.status_fd)
            run.status_fd = -1

    # -------------------------------------------------------------- ending

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self.pids:  # an init that died before its P was read
                for starting in [run for run in self.runs.values() if run.pid == 0]:
                    self._read_status(starting)
            run = self.pids.get(pid)
            if run is not None:
                self._note_reaped(run, pid)
                self.pids.pop(pid, None)

    def _note_reaped(self, run: runs.Run, pid: int) -> None:
        self._read_status(run)
        if pid == run.spawn_pid and run.pid not in (0, pid):
            self._tell(run, supervisor.GO)  # init is our own child from here on
            if run.force_due_ms:
                self._kill_hard(run)
            return
        run.reaped = True
        self._settle(run)

    def _settle(self, run: runs.Run) -> None:
        """Ends a run whose supervisor is gone as soon as nothing else of it is left."""
        left = limits.kill_members(run.groups)
        if self.mode == supervisor.WEAK and run.wait_status is None and run.failure is None:
            orphans = [facts.pid for facts in kernel.all_processes() if facts.parent == os.getpid()]
            for pid in (pid for pid in orphans if pid not in self.pids):
                left += [pid, *kernel.descendants(pid)]
            kernel.kill_all(left)
        if not left:
            self._finish(run)

    def _tidy(self) -> None:
        for run in [run for run in self.runs.values() if run.reaped]:
            self._settle(run)
        self.busy_groups = limits.remove(self.busy_groups)

    def _finish(self, run: runs.Run) -> None:
        """The whole tree is gone: say so, free what it held."""
        oom = limits.oom_kills(run.groups) > 0
        self._close_status(run)
        if run.control_fd >= 0:
            os.close(run.control_fd)
            run.control_fd = -1
        self.busy_groups += limits.remove(run.groups)
        del self.runs[run.key], self.tasks[run.task]
        self.free_slots.append(run.slot)
        if run.failure is None and run.pid == 0 and not run.cause:
            run.failure = b"the supervisor ended before the run began"
        if run.failure is not None:
            return self.peers.send(frames.REFUSED, (run.attempt, run.at_fault), (run.task, run.failure))
        code, number = split_status(run.wait_status)
        reason = b"oom" if oom and number == signal.SIGKILL else b"signalled" if number else b"exited"
        self.exits[run.key] = (code, number, run.cause or reason)
        self._send_exit(frames.EXITED, run.key)

    def _send_exit(self, kind: int, key: tuple[bytes, int]) -> None:
        code, number, reason = self.exits[key]
        self.peers.send(kind, (key[1], code, number), (key[0], reason))

    # -------------------------------------------------------------- the agent's other words

    def hear(self, kind: int, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> bool:
        answer = self.answers.get(kind)
        if answer is not None:
            answer(ints, blobs)
        return answer is not None

    def _extend(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        run = self.runs.get((blobs[0], ints[0]))
        if run is not None:
            run.extend(ints[1], kernel.boottime_ms())

    def _stop(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        run = self.runs.get((blobs[0], ints[0]))
        if run is not None:
            self._end(run, ints[1])

    def _end(self, run: runs.Run, grace_ms: int) -> None:
        now_ms = kernel.boottime_ms()
        self._carry_out(run, run.stop(b"stopped", grace_ms, now_ms))
        self._carry_out(run, run.decide(now_ms))

    def _forget(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        self.exits.pop((blobs[0], ints[0]), None)

    def _list(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        for run in self.runs.values():
            self.peers.send(frames.LIVE, (run.attempt, run.deadline_ms, run.main_pid), (run.task,))
        for key in self.exits:
            self._send_exit(frames.PAST, key)
        self.peers.send(frames.LISTED, (len(self.runs), len(self.exits)))

    def _shut_down(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        self.stop_everything(ints[0])

    def ask_to_stop(self, *_: object) -> None:
        """For signal handlers: the loop does it, between two other things."""
        self.asked_to_stop = True

    def stop_everything(self, grace_ms: int) -> None:
        """Ends all runs; the loop ends with the last of them."""
        self.stopping = True
        for run in list(self.runs.values()):
            self._end(run, grace_ms)

    def _look_idle(self, now_ms: int) -> None:
        if not self.peers.empty or self.stopping:
            self.idle_since_ms = now_ms
            return
        useless = not self.runs and not self.exits
        if (useless and now_ms - self.idle_since_ms >= self.idle_exit_ms) or not os.path.exists(PID_NAME):
            self.stop_everything(0)


def split_status(status: int | None) -> tuple[int, int]:
    """(exit code or -1, signal or 0) of a wait status; none means it was killed with its init."""
    if status is None:
        return -1, int(signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return (code, 0) if code >= 0 else (-1, -code)


def become_supervisor(child: supervisor.Supervisor) -> None:
    """In the forked child; never returns."""
    code = 70
    try:
        child.enter()
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def drain(fd: int) -> None:
    """Empties a descriptor that only wakes."""
    try:
        while len(os.read(fd, 512)) == 512:
            continue
    except BlockingIOError:
        return
