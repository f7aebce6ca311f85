"""Deadlines: one heap for everything that is due once, with lazy deletion.

A deadline is (due_ms, kind, key); setting a key again or clearing it leaves the old
entry in the heap, where it is recognised as stale when it comes up.
Rejected: a live timer per task or device (100,000 of them are 100,000 objects to move).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator


class Deadlines:
    """What is due when, by (kind, key)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, Hashable]] = []
        self._due: dict[tuple[str, Hashable], int] = {}
        self._count = 0

    def set(self, kind: str, key: Hashable, due_ms: int) -> None:
        """Makes (kind, key) due at `due_ms`, instead of any earlier wish."""
        if self._due.get((kind, key)) == due_ms:
            return
        self._due[kind, key] = due_ms
        self._count += 1
        heapq.heappush(self._heap, (due_ms, self._count, kind, key))

    def clear(self, kind: str, key: Hashable) -> None:
        self._due.pop((kind, key), None)

    def due_of(self, kind: str, key: Hashable) -> int | None:
        return self._due.get((kind, key))

    def next_ms(self) -> int | None:
        """When the earliest one is due."""
        while self._heap:
            due_ms, _, kind, key = self._heap[0]
            if self._due.get((kind, key)) == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None

    def pop(self, now_ms: int) -> Iterator[tuple[str, Hashable]]:
        """Takes out everything due at or before `now_ms`, earliest first."""
        while (due_ms := self.next_ms()) is not None and due_ms <= now_ms:
            _, _, kind, key = heapq.heappop(self._heap)
            del self._due[kind, key]
            yield kind, key
