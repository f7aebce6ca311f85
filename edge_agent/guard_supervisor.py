"""The process above one run: init of its own PID namespace, reaper, and pump of its output.

Forked by the guard. Strong containment: an intermediate unshares and forks init, reports
its pid and leaves; init is then the guard's child (the guard is a subreaper), waits for its
word, asks for SIGKILL at the guard's death and only then looks whether the guard still
lives (end of file on the control pipe): whichever order death and request come in, it ends.
Init's end is the end of everything in the namespace. Init keeps its uid: changing it would
clear the parent-death signal; only the run's process changes.
Weak containment: a subreaper that kills its descendants when the control pipe ends.

It knows no deadlines but one: a program isn't started at or after it, nor when its end was
ordered while it was prepared. Reports on the status
pipe are `(kind, number, text)`. A disk that is slow or full holds up this process, never the
guard, and costs output, never the run.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

from edge_agent import guard_kernel as kernel
from edge_agent import guard_limits as limits
from edge_agent.guard_registry import SUPERVISOR_NAME, write_slot
from edge_agent.guard_runs import StartRequest

PLAIN = "plain"
USER = "user"
WEAK = "weak"
REPORT = struct.Struct("<cqH")
GO = b"G"
TERM = b"T"
KILL = b"K"
PUMP_BYTES = 65_536
KILL_AGAIN_MS = 20
RUN_OOM_SCORE = 500
FD_MAX = 65_536
REASON_BYTES_MAX = 180
"""Fits one status report and the wire's limit of 200 characters."""


class StartFailure(Exception):
    """Why a program could not be started, in words for people; and that its task is to blame."""


class Supervisor:
    """Everything one run needs from the guard, handed over by fork."""

    __slots__ = (
        "control_fd",
        "groups",
        "guard_pid",
        "killing",
        "limits",
        "main",
        "mode",
        "own",
        "proc_fd",
        "registry_fd",
        "request",
        "slot",
        "status_fd",
        "streams",
        "wait_status",
    )

    def __init__(self, request: StartRequest, mode: str, found: limits.Limits, groups: list[str]) -> None:
        self.request = request
        self.mode = mode
        self.limits = found
        self.groups = groups
        self.control_fd = self.status_fd = self.registry_fd = self.slot = self.proc_fd = -1
        self.guard_pid = os.getpid()
        self.own = (0, 0)
        self.streams: dict[int, Stream] = {}
        self.main = 0
        self.wait_status: int | None = None
        self.killing = False

    # -------------------------------------------------------------- becoming

    def enter(self) -> None:
        """In the forked child; the caller leaves with `os._exit` whatever happens."""
        signal.set_wakeup_fd(-1)
        close_others({0, 1, 2, self.control_fd, self.status_fd, self.registry_fd})
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        kernel.set_name(SUPERVISOR_NAME)
        try:
            if self.mode == WEAK:
                kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            else:
                self._enter_namespaces()
            if os.read(self.control_fd, 1) != GO:
                return
            if self.mode != WEAK:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
                if _has_ended(self.control_fd):
                    return
            self._prepare()
        except OSError as error:
            return self._report(b"F", 0, f"cannot prepare: {error}")
        self._serve()

    def _enter_namespaces(self) -> None:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.guard_pid:
            os._exit(1)
        enter_namespaces(self.mode)
        pid = os.fork()
        if pid:
            self._report(b"P", pid)
            os._exit(0)

    def _report(self, kind: bytes, number: int, text: str = "") -> None:
        blob = text.encode("utf-8", "replace")[:REASON_BYTES_MAX]
        os.write(self.status_fd, REPORT.pack(kind, number, len(blob)) + blob)

    # -------------------------------------------------------------- starting

    def _prepare(self) -> None:
        """Slot, directories, /proc. Raises OSError."""
        own = kernel.process_facts("self")  # before /proc is our own: pids as the guard has them
        self.own = (own.pid, own.start_ticks) if own else (0, 0)
        self.proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._write_slot(0, 0)
        if self.request.make_directories:
            self._make_directories()
        if self.mode != WEAK:
            _mount_proc()
        if self.mode == USER:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # the run has our uid and may not trace us

    def _write_slot(self, main_pid: int, main_ticks: int) -> None:
        numbers = (*self.own, main_pid, main_ticks, self.request.attempt)
        try:
            write_slot(self.registry_fd, self.slot, numbers, self.request.task)
        except OSError:
            if self.mode == WEAK:
                raise

    def _make_directories(self) -> None:
        request = self.request
        os.umask(0o066)  # others may pass, not look
        os.makedirs(os.path.dirname(request.cwd), exist_ok=True)
        try:
            os.mkdir(request.cwd, 0o700)
        except FileExistsError:
            return
        if request.uid >= 0:
            os.chown(request.cwd, request.uid, request.gid)

    def _serve(self) -> None:
        wakeup_r, wakeup_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        main_pid, failure = self._launch()
        if failure:
            return self._report(b"F", int(failure[0]), failure[1:])
        self._report(b"S", main_pid)
        self._watch(wakeup_r)
        self._report(b"X", self.wait_status or 0)

    def _launch(self) -> tuple[int, str]:
        """Forks the run; its pid as the guard sees it, and a failure: 1 if its own fault, and why."""
        outputs = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        report_r, report_w = os.pipe2(os.O_CLOEXEC)
        self.main = os.fork()
        if self.main == 0:
            try:
                self._become_run([writer for _, writer in outputs], report_w)
            except BaseException as error:
                fault = b"!1" if isinstance(error, StartFailure) else b"!0"
                os.write(report_w, fault + str(error).encode("utf-8", "replace")[:REASON_BYTES_MAX])
            os._exit(127)
        os.close(report_w)
        paths = (self.request.stdout_path, self.request.stderr_path)
        for (reader, writer), path in zip(outputs, paths, strict=True):
            os.close(writer)
            self.streams[reader] = Stream(reader, path, self.request.output_bytes_max)
        text = b""
        while chunk := os.read(report_r, 512):
            text += chunk
        os.close(report_r)
        number, _, failure = text.partition(b"!")
        return int(number or b"0"), failure.decode("utf-8", "replace")

    def _become_run(self, outputs: list[int], report_w: int) -> None:
        request = self.request
        os.setsid()
        signal.set_wakeup_fd(-1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else our own files in /proc are root's
        self._tell_pid(report_w)
        limits.join(self.groups)
        _raise_oom_score()
        stdin = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((stdin, 0), (outputs[0], 1), (outputs[1], 2)):
            os.dup2(source, target)
        try:
            os.chdir(request.cwd)
        except OSError as error:
            raise StartFailure(f"bad working directory: {error.strerror}") from None
        own_uid = request.uid > 0
        self.limits.apply_rlimits(request.memory_mib, request.disk_mib, request.pids_max, own_uid)
        self._change_user()
        _reset_signals()
        if request.deadline_ms and kernel.boottime_ms() >= request.deadline_ms:
            raise TimeoutError("deadline passed")
        if _is_told(self.control_fd):  # preparing may take as long as a bad disk likes
            raise TimeoutError("told to end before it began")
        _execute(request.arguments, request.environment)

    def _tell_pid(self, report_w: int) -> None:
        """Our pid and start as the guard's namespace has them, to supervisor and registry."""
        pid = int(os.readlink("self", dir_fd=self.proc_fd))
        fd = os.open("self/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc_fd)
        ticks = int(os.read(fd, 1024).rpartition(b") ")[2].split()[19])
        os.close(fd)
        self._write_slot(pid, ticks)
        os.write(report_w, b"%d" % pid)

    def _change_user(self) -> None:
        os.umask(0o022)
        if self.request.uid >= 0:
            os.setgroups([])
            os.setgid(self.request.gid)
            os.setuid(self.request.uid)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.mode == WEAK:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)

    # -------------------------------------------------------------- watching

    def _watch(self, wakeup_r: int) -> None:
        """Until nothing of the run is left and its output is saved."""
        poll = select.poll()
        for fd in (self.control_fd, wakeup_r, *self.streams):
            poll.register(fd, select.POLLIN)
        while not self._reap():
            for fd, _ in poll.poll(KILL_AGAIN_MS if self.killing else None):
                if fd == wakeup_r:
                    os.read(wakeup_r, 512)
                elif fd == self.control_fd:
                    self._obey()
                elif not self.streams[fd].pump():
                    poll.unregister(fd)
            if self.killing:
                self._signal_all(signal.SIGKILL)
        for stream in self.streams.values():
            stream.drain()

    def _obey(self) -> None:
        orders = os.read(self.control_fd, 64)
        if KILL in orders:
            self.killing = True
        elif TERM in orders:
            self._signal_all(signal.SIGTERM)
            self._signal_all(signal.SIGCONT)
        elif not orders:
            self._follow_guard()

    def _follow_guard(self) -> None:
        """The guard is gone. The end of an init is the end of its namespace; a subreaper works for it."""
        while os.getpid() != 1 and kernel.descendants(os.getpid()):
            self._signal_all(signal.SIGKILL)
            self._reap()
        os._exit(0)

    def _signal_all(self, number: int) -> None:
        """To everything below us. Only a real init may say -1, elsewhere that is the whole machine."""
        if os.getpid() == 1:
            kernel.send_signal(-1, number)
            return
        for pid in kernel.descendants(os.getpid()):
            kernel.send_signal(pid, number)

    def _reap(self) -> bool:
        """Whether no child is left. The leader's end begins the end of what it left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.main:
                self.wait_status = status
                self.killing = True


class Stream:
    """One output of the run: a pipe emptied into a file, up to a limit, then into nothing."""

    __slots__ = ("file", "reader", "room_bytes")

    def __init__(self, reader: int, path: bytes, bytes_max: int) -> None:
        os.set_blocking(reader, False)
        self.reader = reader
        self.room_bytes = bytes_max
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.file = os.open(path, flags, 0o600)
        except OSError:
            self.file = -1

    def pump(self) -> bool:
        """Empties what is there now; False when the pipe has ended."""
        try:
            data = os.read(self.reader, PUMP_BYTES)
        except BlockingIOError:
            return True
        self._keep(data[: self.room_bytes])
        return bool(data)

    def drain(self) -> None:
        """Empties it when no writer is left."""
        while True:
            try:
                data = os.read(self.reader, PUMP_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self._keep(data[: self.room_bytes])

    def _keep(self, data: bytes) -> None:
        self.room_bytes -= len(data)
        try:
            while data and self.file >= 0:
                data = data[os.write(self.file, data) :]
        except OSError:
            os.close(self.file)  # a full disk costs the rest of the output, not the run
            self.file = -1


# ------------------------------------------------------------------ steps of a start


def enter_namespaces(mode: str) -> None:
    """New PID and mount namespaces for our next child. Raises OSError where not allowed."""
    uid, gid = os.geteuid(), os.getegid()
    flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
    kernel.unshare(flags | (kernel.CLONE_NEWUSER if mode == USER else 0))
    if mode == USER:
        limits.write("/proc/self/setgroups", "deny")
        limits.write("/proc/self/uid_map", f"{uid} {uid} 1")
        limits.write("/proc/self/gid_map", f"{gid} {gid} 1")


def find_mode(wanted: str) -> str:
    """What this machine allows: PLAIN as root, USER as somebody else, else WEAK."""
    mode = PLAIN if os.geteuid() == 0 else USER
    if wanted == WEAK:
        return WEAK
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            enter_namespaces(mode)
            code = _fork_inside()
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return mode if os.waitpid(pid, 0)[1] == 0 else WEAK


def _fork_inside() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def close_others(keep: set[int]) -> None:
    """Closes every descriptor but these: the guard's lock above all."""
    low = 0
    for fd in sorted(keep):
        if fd > low:  # an empty range would be read as "from here to the end"
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, FD_MAX)


def _has_ended(fd: int) -> bool:
    """Whether the last writer of this pipe is gone."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _is_told(fd: int) -> bool:
    """Whether an order waits on this pipe, or its last writer is gone."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _mount_proc() -> None:
    """A /proc of the namespace's own, where allowed. Never before the mounts are private:
    shared ones would carry it to the whole machine."""
    try:
        kernel.mount(b"none", b"/", b"none", kernel.MS_REC_PRIVATE)
        kernel.mount(b"proc", b"/proc", b"proc", kernel.MS_NOSUID_NODEV_NOEXEC)
    except OSError:
        return


def _raise_oom_score() -> None:
    """Runs die before agent and guard do; back to normal priority while we still may."""
    try:
        limits.write("/proc/self/oom_score_adj", str(RUN_OOM_SCORE))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        return


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(arguments: list[bytes], environment: dict[bytes, bytes]) -> None:
    """exec, with PATH of the run's own environment. Raises StartFailure."""
    program = arguments[0]
    folders = environment.get(b"PATH", b"/usr/bin:/bin").split(b":")
    paths = [program] if b"/" in program else [folder + b"/" + program for folder in folders]
    worst: OSError = FileNotFoundError(errno.ENOENT, "")
    for path in paths:
        try:
            os.execve(path, arguments, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            worst = error
    name = program.decode("utf-8", "replace")
    if worst.errno == errno.ENOENT:
        raise StartFailure(f"not found: {name}")
    if worst.errno == errno.EACCES:
        raise StartFailure(f"not executable: {name}")
    raise StartFailure(f"cannot execute {name}: {worst.strerror}")
