"""Arriving: the device that a moving task goes to.

The least loaded device where it is allowed and stays below the ceiling: that gains most, and
leaves the nearly full ones alone. A queue by load per set of allowed devices finds it in a few
steps; when the first few don't take the task, one expression over all devices does.
Loads here only grow, so what a queue remembers is never too large, and is corrected when read.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

import numpy as np

from controller.scheduler.shifts import Needs, Shifts
from controller.scheduler.view import Flags, Floats, Ints

Allowed = Callable[[int], Flags]
"""Group of tasks -> the devices that pass its constraints."""

NOWHERE = -1
_TRIES = 8
"""Devices asked one by one before all are asked at once; about what that costs."""
_CHUNK = 128
"""Devices that a queue takes over at a time: most are never asked."""


class _Queue:
    """Devices by load, the least loaded first; equal ones by row. `rows` is ordered so already."""

    def __init__(self, rows: Ints, initial: Floats) -> None:
        self.rows, self.initial, self.at = rows, initial, 0
        self.heap: list[tuple[float, int]] = []

    def pop(self) -> tuple[float, int] | None:
        """The least loaded, as far as is known here."""
        while self.at < self.rows.size and not (
            self.heap and self.heap[0] < (self.initial[self.at], self.rows[self.at])
        ):
            chunk = slice(self.at, self.at + _CHUNK)
            self.heap += zip(self.initial[chunk].tolist(), self.rows[chunk].tolist(), strict=True)
            self.at += _CHUNK
            heapify(self.heap)
        return heappop(self.heap) if self.heap else None


class Receivers:
    """Devices that take tasks until their room is used up. `room`: per resource, what may still come."""

    def __init__(self, shifts: Shifts, takes: Flags, room: list[Ints], allowed: Allowed) -> None:
        self._shifts, self._takes, self._allowed = shifts, takes, allowed
        self._room = room
        self._left: list[list[int]] = [column.tolist() for column in room]
        self._load = shifts.loads()
        self._by_load = np.argsort(self._load, kind="stable")
        self._queues: dict[bytes, _Queue] = {}
        self._of_group: dict[int, tuple[Flags, _Queue]] = {}

    def most(self) -> list[int]:
        """Per resource the largest room anywhere: what is above it fits nowhere."""
        return [int(column[self._takes].max(initial=0)) for column in self._room]

    def find(self, group: int, needs: Needs) -> int:
        """The row of the device it should go to, or `NOWHERE`."""
        if group not in self._of_group:
            self._of_group[group] = self._open(group)
        able, queue = self._of_group[group]
        load, left, aside, found = self._shifts.load, self._left, [], NOWHERE
        while len(aside) < _TRIES:
            entry = queue.pop()
            if entry is None:
                break
            row = entry[1]
            if load[row] != entry[0]:
                heappush(queue.heap, (load[row], row))
                continue
            aside.append(entry)
            if all([left[r][row] >= amount for r, amount in needs]):
                found = row
                break
        for entry in aside:
            heappush(queue.heap, entry)
        if found == NOWHERE and len(aside) == _TRIES:
            return self._scan(able, needs)
        return found

    def take(self, row: int, needs: Needs) -> None:
        """Uses up its room; told after the shift, when the device's load is the new one."""
        self._load[row] = self._shifts.load[row]
        for r, amount in needs:
            self._left[r][row] -= amount
            self._room[r][row] -= amount

    def _open(self, group: int) -> tuple[Flags, _Queue]:
        """Groups that allow the same devices share one queue."""
        able = self._takes & self._allowed(group)
        key = able.tobytes()
        if key not in self._queues:
            rows = self._by_load[able[self._by_load]]
            self._queues[key] = _Queue(rows, self._load[rows])
        return able, self._queues[key]

    def _scan(self, able: Flags, needs: Needs) -> int:
        fits = able
        for r, amount in needs:
            fits = fits & (self._room[r] >= amount)
        rows = np.flatnonzero(fits)
        if not rows.size:
            return NOWHERE
        return int(rows[np.argmin(self._load[rows])])
