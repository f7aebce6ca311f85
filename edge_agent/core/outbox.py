"""Outbox: captured output on its way to the controller, numbered, resent until stored.

Rules of this file. Every chunk has a seq; it leaves the window only when a `LeaseAnswer`
names it as stored (C3): a broker's acknowledgement is not the controller's commit. The
numbering belongs to one agent process; a restarted agent reads what is still on disk
from the start, and the controller deduplicates by (task, attempt, stream, offset).
What is on disk is the queue: only a window of chunks is in memory. Files are read by the
world, one read at a time; a live run's are polled, slower while it is silent.
An attempt's output is dropped when the attempt has left the document *and* all of it is
stored, or, oldest ended first, when the disk bound is reached.

Rejected: watching files (a kernel watch per stream, and none on some flash filesystems).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edge_agent.core.effects import DropOutput, ForgetRun, ReadOutput
from edge_agent.core.events import OutputRead
from protocol.core import Effect, Note
from protocol.limits import OUTBOX_WINDOW, OUTPUT_CHUNK_BYTES_MAX
from protocol.messages import OutputChunk
from protocol.tasks import AttemptId

POLL_MS = 500
POLL_MS_MAX = 4_000
"""A silent run is looked at ever less often: 0.2 % of a small board's core is all we have."""
STALL_MS = 15_000
"""No progress for so long: everything unacknowledged is sent again."""
FULL_MS = 1_000
"""A full window is worth a heartbeat after this pause: its answer names what is stored."""
BYTES_MAX = 64 * 1024 * 1024
FLIGHT_BYTES_MIN = OUTPUT_CHUNK_BYTES_MAX
FLIGHT_BYTES_MAX = OUTBOX_WINDOW * OUTPUT_CHUNK_BYTES_MAX
"""Bytes in flight, doubled while heartbeats are answered fast, halved when they are not: on a
100 kbit/s link a full window would stand before a heartbeat for 40 s, longer than a lease."""
FAST_MS = 500
SLOW_MS = 2_000
STREAMS = (1, 2)


@dataclass(slots=True)
class Stream:
    """How far one stream was read, how much it held when last asked, its last seq once all is queued."""

    offset: int = 0
    size: int = 0
    measured: bool = False
    last_seq: int = 0


@dataclass(slots=True)
class Reading:
    """The one open read: what was asked, when, and whether the run had ended by then."""

    key: AttemptId
    stream: int
    only_size: bool
    ended: bool
    since_ms: int


@dataclass(slots=True)
class RunOutput:
    """The captured output of one attempt."""

    restored: bool
    streams: dict[int, Stream] = field(default_factory=lambda: {n: Stream() for n in STREAMS})
    ended: bool = False
    gone: bool = False
    """The attempt has left the document; nobody will ask for it again."""
    dropped: bool = False
    poll_ms: int = POLL_MS
    poll_at_ms: int = 0

    def bytes(self) -> int:
        return sum(max(stream.size, stream.offset) for stream in self.streams.values())


Want = tuple[AttemptId, int]


def _dropped(key: AttemptId, output: RunOutput) -> Note:
    about: dict[str, str | int] = {"task": key.task, "attempt": key.attempt, "bytes": output.bytes()}
    return Note("warning", "output dropped: the outbox holds no more", about)


class Outbox:
    """All output of one agent process."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.id = 0
        self.outputs: dict[AttemptId, RunOutput] = {}
        self.window: deque[OutputChunk] = deque()
        self.stored = 0
        self._flight_max = 4 * FLIGHT_BYTES_MIN
        self._flight = 0
        self._next_seq = 1
        self._wants: deque[Want] = deque()
        self._reading: Reading | None = None
        self._loose = False
        """Whether `sweep` may find something."""
        self._moved_ms = 0
        self._beat_ms = FULL_MS
        self._asked_ms: int | None = None

    # ------------------------------------------------------------ what lives and ends

    def watch(self, key: AttemptId, now_ms: int, restored: bool = False) -> None:
        """An attempt with output has started (or is found on disk)."""
        if key not in self.outputs:
            self.outputs[key] = RunOutput(restored, poll_at_ms=now_ms + POLL_MS)

    def end(self, key: AttemptId) -> None:
        """No more output will be written: read it to its end."""
        output = self.outputs.get(key)
        if output is not None and not output.ended:
            output.ended = self._loose = True
            self._want(key)

    def release(self, key: AttemptId) -> None:
        """The attempt has left the document."""
        self.outputs.setdefault(key, RunOutput(restored=True, ended=True, dropped=True)).gone = True
        self._loose = True

    def sweep(self) -> list[Effect]:
        """Drop what is gone and stored; then, oldest ended first, what the disk has no room for."""
        if not self._loose:
            return []
        self._loose = False
        effects: list[Effect] = []
        for key in [k for k, o in self.outputs.items() if o.gone and o.ended and self._delivered(o)]:
            del self.outputs[key]
            effects += [ForgetRun(*key), DropOutput(*key)]
        excess = sum(o.bytes() for o in self.outputs.values() if not o.dropped) - self.bytes_max
        for key, output in self.outputs.items():
            if excess <= 0:
                break
            if output.ended and not output.dropped:
                excess -= output.bytes()
                output.dropped = True
                effects += [DropOutput(*key), _dropped(key, output)]
        return effects

    # ------------------------------------------------------------ reading

    def pump(self, up: bool, now_ms: int) -> list[Effect]:
        """The next read, if there is one to do and room for what it brings."""
        self._poll(up, now_ms)
        if self._reading is not None:
            return []
        room = up and not self._full()
        for _ in range(len(self._wants)):
            key, number = want = self._wants.popleft()
            output = self.outputs.get(key)
            if output is None or output.dropped or output.streams[number].last_seq:
                continue
            stream = output.streams[number]
            if room or (output.ended and not stream.measured):
                self._reading = Reading(key, number, not room, output.ended, now_ms)
                return [ReadOutput(*key, number, stream.offset, OUTPUT_CHUNK_BYTES_MAX if room else 0)]
            self._wants.append(want)
        return []

    def read(self, event: OutputRead, now_ms: int) -> OutputChunk | None:
        """The answer to the one open read; the chunk to publish, if it brought one."""
        asked, key = self._reading, AttemptId(event.task, event.attempt)
        output = self.outputs.get(key)
        if asked is None or output is None or (asked.key, asked.stream) != (key, event.stream):
            return None
        stream = output.streams[event.stream]
        if event.offset != stream.offset:
            return None
        self._reading, self._loose = None, True
        stream.size, stream.measured = event.size, True
        at_end = stream.offset + len(event.data) >= event.size
        if asked.only_size or not at_end or output.ended != asked.ended:
            self._wants.append((asked.key, asked.stream))
        if asked.only_size:
            return None
        if asked.ended and at_end and output.restored and output.gone and not event.size:
            # Dropped before the restart, or never written: there is nothing to tell.
            stream.last_seq = -1
            return None
        if event.data:
            output.poll_ms = POLL_MS
        elif not (asked.ended and at_end):
            return None
        return self._append(asked, stream, event.data, asked.ended and at_end, now_ms)

    # ------------------------------------------------------------ sending

    def begin(self, session: int) -> list[OutputChunk]:
        """A new connection: what is in the window goes out again, from the base."""
        if not self.id:
            self.id = session
        return self.resend()

    def resend(self) -> list[OutputChunk]:
        base = self.stored + 1
        return [
            OutputChunk(c.outbox, base, c.seq, c.task, c.attempt, c.stream, c.offset, c.data, c.last)
            for c in self.window
        ]

    def acknowledge(self, outbox: int, stored: int, now_ms: int) -> None:
        """Trim what the controller has stored; an answer for another outbox says nothing."""
        if outbox != self.id or stored <= self.stored or stored >= self._next_seq:
            return
        self.stored, self._moved_ms, self._loose = stored, now_ms, True
        self._beat_ms, self._asked_ms = FULL_MS, None
        while self.window and self.window[0].seq <= stored:
            self._flight -= len(self.window.popleft().data)

    def pace(self, answered_after_ms: int) -> None:
        """A heartbeat was answered so late: send more at a time, or less."""
        if answered_after_ms <= FAST_MS:
            self._flight_max = min(2 * self._flight_max, FLIGHT_BYTES_MAX)
        elif answered_after_ms >= SLOW_MS:
            self._flight_max = max(self._flight_max // 2, FLIGHT_BYTES_MIN)

    def reset(self) -> None:
        """The world dropped a read or a chunk on the floor (a save failed)."""
        if self._reading is not None:
            self._wants.append((self._reading.key, self._reading.stream))
            self._reading = None

    # ------------------------------------------------------------ time

    def elapse(self, up: bool, now_ms: int) -> list[OutputChunk]:
        """Resend after a stall; also frees a read that was never answered."""
        if self._reading is not None and now_ms >= self._reading.since_ms + STALL_MS:
            self.reset()
        if not up or now_ms < self._moved_ms + STALL_MS:
            return []
        self._moved_ms = now_ms
        return self.resend()

    def wants_beat(self, now_ms: int) -> bool:
        """Whether a full window has waited long enough to ask for its acknowledgement."""
        if not self._full():
            return False
        if self._asked_ms is None:
            self._asked_ms = now_ms + self._beat_ms
        if now_ms < self._asked_ms:
            return False
        self._beat_ms = min(2 * self._beat_ms, STALL_MS)
        self._asked_ms = now_ms + self._beat_ms
        return True

    def due_ms(self, up: bool) -> int | None:
        if not self.outputs and not self.window and self._reading is None:
            return None
        dues: list[int] = []
        if up:
            dues += [o.poll_at_ms for o in self.outputs.values() if not o.ended]
            if self.window:
                dues.append(self._moved_ms + STALL_MS)
            if self._full():
                dues.append(self._asked_ms or 0)
        if self._reading is not None:
            dues.append(self._reading.since_ms + STALL_MS)
        return min(dues, default=None)

    # ------------------------------------------------------------ inside

    def _full(self) -> bool:
        return len(self.window) >= OUTBOX_WINDOW or self._flight >= self._flight_max

    def _want(self, key: AttemptId) -> None:
        for stream in STREAMS:
            want = (key, stream)
            reading = self._reading
            if want not in self._wants and not (reading and (reading.key, reading.stream) == want):
                self._wants.append(want)

    def _poll(self, up: bool, now_ms: int) -> None:
        if not up:
            return
        for key, output in self.outputs.items():
            if not output.ended and now_ms >= output.poll_at_ms:
                output.poll_at_ms = now_ms + output.poll_ms
                output.poll_ms = min(2 * output.poll_ms, POLL_MS_MAX)
                self._want(key)

    def _append(self, asked: Reading, stream: Stream, data: bytes, last: bool, now_ms: int) -> OutputChunk:
        key, seq = asked.key, self._next_seq
        chunk = OutputChunk(
            self.id, self.stored + 1, seq, key.task, key.attempt, asked.stream, stream.offset, data, last
        )
        self._next_seq += 1
        stream.offset += len(data)
        stream.last_seq = seq if last else 0
        if not self.window:
            self._moved_ms = now_ms
        self.window.append(chunk)
        self._flight += len(data)
        return chunk

    def _delivered(self, output: RunOutput) -> bool:
        if output.dropped:
            return True
        return all(s.last_seq and s.last_seq <= self.stored for s in output.streams.values())
