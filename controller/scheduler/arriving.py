"""Arriving: the device that a moving task goes to.

The least loaded device where it is allowed and stays below the ceiling: that gains most, and
leaves the nearly full ones alone. A queue by load per set of allowed devices finds it in a few
steps; when the first few don't take the task, one expression over all devices does.
Loads here only grow, so what a queue remembers is never too large, and is corrected when read.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from controller.scheduler.shifts import Needs, Shifts
from controller.scheduler.view import Flags, Floats, Ints

Allowed = Callable[[int], Flags]
"""Group of tasks -> the devices that pass its constraints."""

NOWHERE, _LOST = -1, -2
_TRIES = 16
"""Steps one by one before all devices are asked at once; about what that costs."""
_CHUNK = 128
"""Devices that a queue takes over at a time: most are never asked."""


class _Queue:
    """Devices by load, the least loaded first; equal ones by row. `rows` is ordered so already."""

    def __init__(self, rows: Ints, initial: Floats) -> None:
        self.heap: list[tuple[float, int]] = []
        self._rows, self._initial, self._at = rows, initial, 0
        self._next = (-1.0, NOWHERE)
        self._take_over()

    def _take_over(self) -> None:
        chunk = slice(self._at, self._at + _CHUNK)
        self.heap += zip(self._initial[chunk].tolist(), self._rows[chunk].tolist(), strict=True)
        heapify(self.heap)
        self._at = at = min(self._rows.size, self._at + _CHUNK)
        self._next = (np.inf, 0) if at == self._rows.size else (float(self._initial[at]), int(self._rows[at]))

    def first(self, load: list[float]) -> int:
        """The least loaded, or `NOWHERE`; it stays in the queue. `_LOST`: not found in a few steps."""
        heap = self.heap
        for _ in range(_TRIES):
            if self._next[0] < np.inf and (not heap or self._next < heap[0]):
                self._take_over()
            elif not heap:
                return NOWHERE
            else:
                known, row = heap[0]
                if load[row] == known:
                    return row
                heapreplace(heap, (load[row], row))
        return _LOST


class Receivers:
    """Devices that take tasks until they are at their ceiling. `limits`: per resource, what it may hold."""

    def __init__(self, shifts: Shifts, takes: Flags, limits: list[Ints], allowed: Allowed) -> None:
        self._shifts, self._takes, self._allowed = shifts, takes, allowed
        self._limits: dict[int, list[int]] = {r: limits[r].tolist() for r in shifts.asked}
        self._load = shifts.loads()
        self._room = {r: limits[r] - shifts.column(r) for r in shifts.asked}
        self._behind: list[int] = []
        """Rows of `_room` and `_load` that are not what they were; brought up to date when read."""
        self._by_load = np.argsort(self._load, kind="stable")
        self._queues: dict[bytes, _Queue] = {}
        self._of_group: dict[int, tuple[Flags, _Queue]] = {}

    def most(self) -> dict[int, int]:
        """Per resource the largest room anywhere: what is above it fits nowhere."""
        self._catch_up()
        return {r: int(room[self._takes].max(initial=0)) for r, room in self._room.items()}

    def find(self, group: int, needs: Needs) -> int:
        """The row of the device it should go to, or `NOWHERE`."""
        if group not in self._of_group:
            self._of_group[group] = self._open(group)
        able, queue = self._of_group[group]
        load, reserved, limits = self._shifts.load, self._shifts.reserved, self._limits
        aside: list[tuple[float, int]] = []
        while len(aside) < _TRIES:
            row = queue.first(load)
            if row < 0:
                break
            for r, amount in needs:
                if reserved[r][row] + amount > limits[r][row]:
                    aside.append(heappop(queue.heap))
                    break
            else:
                break
        for entry in aside:
            heappush(queue.heap, entry)
        return self._scan(able, needs) if row == _LOST or len(aside) == _TRIES else row

    def took(self, row: int) -> None:
        """Told after each move."""
        self._behind.append(row)

    def _open(self, group: int) -> tuple[Flags, _Queue]:
        """Groups that allow the same devices share one queue."""
        able = self._takes & self._allowed(group)
        key = able.tobytes()
        if key not in self._queues:
            rows = self._by_load[able[self._by_load]]
            self._queues[key] = _Queue(rows, self._load[rows])
        return able, self._queues[key]

    def _catch_up(self) -> None:
        """Row by row when there are few, which is cheaper; else in columns."""
        behind, now = self._behind, self._shifts.reserved
        if len(behind) < _TRIES:
            for row in behind:
                self._load[row] = self._shifts.load[row]
                for r, room in self._room.items():
                    room[row] = self._limits[r][row] - now[r][row]
        else:
            self._load[behind] = [self._shifts.load[row] for row in behind]
            for r, room in self._room.items():
                limit, held = self._limits[r], now[r]
                room[behind] = [limit[row] - held[row] for row in behind]
        behind.clear()

    def _scan(self, able: Flags, needs: Needs) -> int:
        self._catch_up()
        fits = able
        for r, amount in needs:
            fits = fits & (self._room[r] >= amount)
        rows = np.flatnonzero(fits)
        return int(rows[np.argmin(self._load[rows])]) if rows.size else NOWHERE
