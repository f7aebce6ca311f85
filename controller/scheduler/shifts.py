"""Shifts: the fleet as it would be after the moves of a plan so far, and what each move gains.

Rule of this file: the only writer of a plan's reservations; the columns that came in stay as
they are. Plain lists, because a plan asks one device at a time, a thousand times over, and an
element of an array costs ten times that of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler.imbalance import Devices, Placed, loads
from controller.scheduler.view import Floats, Ints

Needs = list[tuple[int, int]]
"""What a task needs: (resource, amount), without what it doesn't."""


@dataclass(frozen=True, slots=True)
class Move:
    """`task` (index into the columns of tasks) goes from device `source` to device `target`.

    `cost` as it was given. `gain`: how much this move, in its turn, makes the sum of (load - mean)²
    fall; it means the same in fleets of any size, and over a plan the gains add up to
    devices x (b² before - b² after). The loads are those of both devices just before the move.
    """

    task: int
    source: int
    target: int
    cost: float
    gain: float
    source_load: float
    target_load: float


class Shifts:
    """Reservations and loads, changed move by move. Devices that take no part have load 0 here."""

    def __init__(self, devices: Devices, tasks: Placed, counted: tuple[int, ...]) -> None:
        self.devices, self.tasks, self.counted = devices, tasks, counted
        self.part = devices.receives | devices.gives
        load = np.where(self.part, loads(devices.capacity, devices.reserved, counted), 0.0)
        self.load: list[float] = load.tolist()
        self.reserved: list[list[int]] = [column.tolist() for column in devices.reserved]
        self._size: list[list[int]] = [np.maximum(c, 1).tolist() for c in devices.capacity]
        self._count = max(1, int(self.part.sum()))
        self._sum, self._squares = float(load.sum()), float(load @ load)
        self.moves: list[Move] = []
        self.moved = np.zeros(tasks.row.size, np.bool_)

    @property
    def mean(self) -> float:
        """The mean load of the devices that take part."""
        return self._sum / self._count

    def needs(self, task: int) -> Needs:
        """What this task needs."""
        amounts = [(r, int(column[task])) for r, column in enumerate(self.tasks.amounts)]
        return [(r, amount) for r, amount in amounts if amount]

    def columns(self) -> list[Ints]:
        """The reservations as arrays, a copy."""
        return [np.array(column, np.int64) for column in self.reserved]

    def loads(self) -> Floats:
        """The loads as an array, a copy."""
        return np.array(self.load)

    def _load_of(self, row: int) -> float:
        size, reserved = self._size, self.reserved
        return max([reserved[r][row] / size[r][row] for r in self.counted], default=0.0)

    def _give(self, row: int, needs: Needs, sign: int) -> None:
        for r, amount in needs:
            self.reserved[r][row] += sign * amount

    def move(self, task: int, target: int, needs: Needs, gain_min: float) -> bool:
        """Moves it, or leaves all as it was when the gain is not above 0 or below `gain_min`."""
        source = int(self.tasks.row[task])
        had, found = self.load[source], self.load[target]
        self._give(source, needs, -1)
        self._give(target, needs, +1)
        # Devices that take no part weigh nothing: neither what they lose nor what they get.
        left = self._load_of(source) if self.part[source] else 0.0
        holds = self._load_of(target) if self.part[target] else 0.0
        total = self._sum + (left - had) + (holds - found)
        squares = self._squares + (left * left - had * had) + (holds * holds - found * found)
        gain = (self._squares - self._sum**2 / self._count) - (squares - total**2 / self._count)
        if gain < gain_min:
            self._give(source, needs, +1)
            self._give(target, needs, -1)
            return False
        self.load[source], self.load[target] = left, holds
        self._sum, self._squares = total, squares
        self.moved[task] = True
        cost = float(self.tasks.cost[task])
        self.moves.append(Move(task, source, target, cost, gain, had, found))
        return True
