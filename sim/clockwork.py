"""Clockwork: virtual time, named dice, and a hash of everything that happened.

Rule of this file: it is the only place with a notion of now. One heap of (due_ms, seq,
work) decides all order; equal times happen in the order in which they were asked for. One
seed is split into a stream of chance per name, so that a new user of dice changes nobody
else's throws. Everything that matters is told to `trace`: two runs with one seed agree in
every byte of it, or something reads a clock, a set's order or an address.
It knows no device, no controller and no message.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random

Work = Callable[[], None]

START_MS = 1_000_000
"""Where a world's clock begins; not 0, so that 0 stays \"never\"."""
LINES_MAX = 4_000
"""Lines of the trace that are kept for people."""


class Clockwork:
    """A heap of work and the present moment, in integer milliseconds."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ms = START_MS
        self.lines: list[str] = []
        self.on_line: Callable[[str], None] | None = None
        """Who else reads along, line by line: a report."""
        self._heap: list[tuple[int, int, Work]] = []
        self._seq = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def stream(self, name: str) -> Random:
        """Chance of its own for `name`, the same in every run with this seed."""
        return Random(f"{self.seed}/{name}")

    def at(self, due_ms: int, work: Work) -> None:
        """Do `work` at `due_ms`, or now if that has passed."""
        self._seq = seq = self._seq + 1
        heapq.heappush(self._heap, (due_ms if due_ms > self.now_ms else self.now_ms, seq, work))

    def after(self, delay_ms: int, work: Work) -> None:
        self.at(self.now_ms + delay_ms, work)

    def step(self, until_ms: int) -> bool:
        """The next piece of work, if one is due by `until_ms`; else time goes there."""
        if not self._heap or self._heap[0][0] > until_ms:
            self.now_ms = max(self.now_ms, until_ms)
            return False
        self.now_ms, _, work = heapq.heappop(self._heap)
        work()
        return True

    def run(self, until_ms: int) -> None:
        """All work that is due by `until_ms`, then that moment."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_ms:
            self.now_ms, _, work = pop(heap)
            work()
        if self.now_ms < until_ms:
            self.now_ms = until_ms

    @property
    def asked(self) -> int:
        """How much work was asked for so far."""
        return self._seq

    def pending(self) -> int:
        """How much work waits; for who watches that nothing piles up."""
        return len(self._heap)

    def trace(self, who: str, what: str, payload: bytes = b"") -> None:
        """Note that something happened; a line for people, all of it for the hash."""
        line = f"{self.now_ms} {who} {what}"
        self._hash.update(line.encode() + payload)
        self.lines.append(line)
        if self.on_line is not None:
            self.on_line(line)
        if len(self.lines) > 2 * LINES_MAX:
            del self.lines[:LINES_MAX]

    def digest(self) -> str:
        """The hash of everything traced so far."""
        return self._hash.hexdigest()
