"""What simulated runs write, and what is left of it: a file per stream, as a supervisor fills it.

Rules of this file. A run writes a line when it begins and a few more as it grows older; one
that fails says so on its second stream. Nobody waits for these lines: they are written when
somebody looks, as far as the run's age has brought them, so a run that nobody reads costs
nothing. Time that a run stands still makes it no older. What a power cut takes is the end
of a file, never the middle. It knows no agent and no chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

AGES_MS = (0, 5_000, 20_000, 60_000)
"""When a run writes a line."""
UNSYNCED_MS = 30_000
"""So old a write is on the card; a kernel lets no dirty page grow older."""


@dataclass(slots=True)
class Written:
    """Bytes that were added to a stream (1 or 2) at `offset`."""

    stream: int
    offset: int
    data: bytes


@dataclass(slots=True)
class SimulatedOutput:
    """Both streams of one attempt. `bytes_max` each; what comes behind it is dropped."""

    task: str
    attempt: int
    bytes_max: int
    streams: list[bytes] = field(default_factory=lambda: [b"", b""])
    lines: int = 0
    """How many of the lines of `AGES_MS` are written."""
    full: bool = False
    """A write failed for want of room: this file gets nothing more."""
    marks: list[tuple[int, int, int]] = field(default_factory=list)
    """(when, stream, its size) after each write."""

    def grow(self, age_ms: int, now_ms: int) -> list[Written]:
        """Whatever the run has written until this age."""
        if self.lines == len(AGES_MS) or AGES_MS[self.lines] > age_ms:
            return []
        text = ""
        while self.lines < len(AGES_MS) and AGES_MS[self.lines] <= age_ms:
            late = f" {AGES_MS[self.lines]}" if self.lines else ""
            text += f"{self.task} {self.attempt}{late}\n"
            self.lines += 1
        return self._write(1, text.encode(), now_ms)

    def complain(self, exit_code: int, now_ms: int) -> list[Written]:
        """The last words of a run that fails."""
        return self._write(2, f"exit {exit_code}\n".encode(), now_ms)

    def read(self, stream: int, offset: int, bytes_max: int) -> tuple[bytes, int]:
        """(data, size of the stream)."""
        held = self.streams[stream - 1]
        return held[offset : offset + bytes_max], len(held)

    def lose_power(self, now_ms: int) -> list[tuple[int, int]]:
        """What was written of late never reached the card: (stream, bytes left) where that is so."""
        left = []
        for stream in (1, 2):
            safe = [size for at_ms, of, size in self.marks if of == stream and at_ms <= now_ms - UNSYNCED_MS]
            size = max(safe, default=0)
            if size < len(self.streams[stream - 1]):
                self.streams[stream - 1] = self.streams[stream - 1][:size]
                left.append((stream, size))
        return left

    def _write(self, stream: int, data: bytes, now_ms: int) -> list[Written]:
        held = self.streams[stream - 1]
        data = b"" if self.full else data[: self.bytes_max - len(held)]
        if not data:
            return []
        self.streams[stream - 1] = held + data
        self.marks.append((now_ms, stream, len(held) + len(data)))
        return [Written(stream, len(held), data)]
