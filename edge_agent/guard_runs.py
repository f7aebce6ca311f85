"""One run as its guard sees it: what may be started, and when TERM and KILL are due.

Pure: integers and bytes in, a decision out; the guard carries it out. Times are
milliseconds of CLOCK_BOOTTIME. Order of a run's end: TERM at deadline - grace (or by
STOP, or at its own time limit), KILL of the whole tree at the deadline or when the grace
is over, FORCE (the supervisor itself) when the tree isn't gone 300 ms later.
A deadline only moves forward, and not back from TERM: what was told to end, ends.
"""

from __future__ import annotations

from edge_agent.guard_frames import START_BLOBS, START_INTS

NOTHING = 0
TERM = 1
KILL = 2
FORCE = 3
FORCE_AFTER_MS = 300
"""A supervisor that obeys KILL also saves the last output; one that hangs gets this long of K."""
FORCE_AGAIN_MS = 100
GRACE_SHARE = 12
"""The protocol's EXPIRY_GRACE_SHARE; the guard imports nothing, a contract suite holds them equal."""
TASK_CHARS_MAX = 100
_TASK_FIRST = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_TASK_REST = _TASK_FIRST | frozenset(b"._-")


class StartRequest:
    """A START frame by names. Raises `ValueError` with the reason for a refusal."""

    __slots__ = START_INTS + START_BLOBS + ("arguments", "environment")
    attempt: int
    deadline_ms: int
    timeout_ms: int
    stop_grace_ms: int
    output_bytes_max: int
    cpu_milli: int
    memory_mib: int
    disk_mib: int
    pids_max: int
    uid: int
    gid: int
    make_directories: int
    task: bytes
    cwd: bytes
    stdout_path: bytes
    stderr_path: bytes
    argv: bytes
    env: bytes

    def __init__(self, ints: tuple[int, ...], blobs: tuple[bytes, ...]) -> None:
        for name, number in zip(START_INTS, ints, strict=True):
            if number < (-1 if name in ("uid", "gid") else 0):
                raise ValueError(f"{name} is negative")
            setattr(self, name, number)
        for field, blob in zip(START_BLOBS, blobs, strict=True):
            setattr(self, field, blob)
        if not is_task_name(self.task) or self.attempt < 1:
            raise ValueError("no proper name of an attempt")
        if not all(path.startswith(b"/") for path in (self.cwd, self.stdout_path, self.stderr_path)):
            raise ValueError("a path is not absolute")
        self.arguments = self.argv.split(b"\0")
        if not self.arguments[0]:
            raise ValueError("empty command")
        pairs = [entry.partition(b"=") for entry in self.env.split(b"\0") if entry]
        if any(not name or not equals for name, equals, _ in pairs):
            raise ValueError("malformed environment")
        self.environment = {name: value for name, _, value in pairs}


def is_task_name(task: bytes) -> bool:
    """Whether it may be part of a path: `[a-z0-9][a-z0-9._-]{0,99}`."""
    return 0 < len(task) <= TASK_CHARS_MAX and task[0] in _TASK_FIRST and _TASK_REST.issuperset(task)


class Run:
    """Identity, clockwork and handles of one live run."""

    __slots__ = (
        "at_fault",
        "attempt",
        "cause",
        "control_fd",
        "deadline_ms",
        "end_due_ms",
        "failure",
        "force_due_ms",
        "grace_ms",
        "groups",
        "kill_due_ms",
        "main_pid",
        "pid",
        "reaped",
        "slot",
        "spawn_pid",
        "status_bytes",
        "status_fd",
        "task",
        "timeout_due_ms",
        "timeout_ms",
        "wait_status",
    )

    def __init__(self, request: StartRequest, now_ms: int) -> None:
        self.task = request.task
        self.attempt = request.attempt
        self.deadline_ms = request.deadline_ms
        self.grace_ms = request.stop_grace_ms
        self.timeout_ms = request.timeout_ms
        self.end_due_ms = self._end_due(now_ms)
        self.timeout_due_ms = now_ms + self.timeout_ms if self.timeout_ms else 0
        self.kill_due_ms = 0
        self.force_due_ms = 0
        self.cause = b""
        self.slot = -1
        self.groups: list[str] = []
        self.spawn_pid = 0
        self.pid = 0
        self.main_pid = 0
        self.control_fd = -1
        self.status_fd = -1
        self.status_bytes = b""
        self.wait_status: int | None = None
        self.failure: bytes | None = None
        self.at_fault = 0
        self.reaped = False

    @property
    def key(self) -> tuple[bytes, int]:
        return (self.task, self.attempt)

    def _end_due(self, now_ms: int) -> int:
        """When TERM is due: a grace before the deadline, but at most a twelfth of what the grant gave.

        A long grace would otherwise stop runs whose renewals all arrive, or arrive a blip late.
        """
        if not self.deadline_ms:
            return 0
        return self.deadline_ms - min(self.grace_ms, max(0, self.deadline_ms - now_ms) // GRACE_SHARE)

    def note_started(self, main_pid: int, now_ms: int) -> None:
        """Its program runs: its own time limit counts from here."""
        self.main_pid = main_pid
        if self.timeout_ms:
            self.timeout_due_ms = now_ms + self.timeout_ms

    def extend(self, deadline_ms: int, now_ms: int) -> None:
        """Moves the deadline forward; 0 takes it away; anything earlier is ignored."""
        if self.cause or not self.deadline_ms or 0 < deadline_ms <= self.deadline_ms:
            return
        if now_ms >= self.deadline_ms or deadline_ms < 0:
            return
        self.deadline_ms = deadline_ms
        self.end_due_ms = self._end_due(now_ms)

    def stop(self, cause: bytes, grace_ms: int, now_ms: int) -> int:
        """Begins the end; returns the first thing to do. A second call may only hasten it."""
        first = not self.cause
        self.cause = self.cause or cause
        due_ms = now_ms + max(0, grace_ms)
        for bound_ms in (self.deadline_ms, self.kill_due_ms):
            due_ms = min(due_ms, bound_ms) if bound_ms else due_ms
        self.kill_due_ms = due_ms
        return TERM if first and due_ms > now_ms else NOTHING

    def due_ms(self) -> int:
        """The next moment at which `decide` has something to say; 0 for never."""
        if self.force_due_ms or self.kill_due_ms:
            return self.force_due_ms or self.kill_due_ms
        return min([moment for moment in (self.end_due_ms, self.timeout_due_ms) if moment], default=0)

    def decide(self, now_ms: int) -> int:
        """What is to be done now: NOTHING, TERM, KILL or FORCE."""
        if self.force_due_ms:
            if now_ms < self.force_due_ms:
                return NOTHING
            self.force_due_ms = now_ms + FORCE_AGAIN_MS
            return FORCE
        if not self.cause:
            order = self._begin_end(now_ms)
            if not self.kill_due_ms or now_ms < self.kill_due_ms:
                return order
        if now_ms < self.kill_due_ms:
            return NOTHING
        self.force_due_ms = now_ms + FORCE_AFTER_MS
        return KILL

    def _begin_end(self, now_ms: int) -> int:
        if self.end_due_ms and now_ms >= self.end_due_ms:
            return self.stop(b"deadline", self.deadline_ms - now_ms, now_ms)
        if self.timeout_due_ms and now_ms >= self.timeout_due_ms:
            return self.stop(b"timeout", self.grace_ms, now_ms)
        return NOTHING
