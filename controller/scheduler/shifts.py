"""Shifts: the fleet as it would be after the moves of a plan so far, and what each move gains.

Rule of this file: the only writer of a plan's reservations; the columns that came in stay as
they are. Plain lists, because a plan asks one device at a time, a thousand times over, and an
element of an array costs ten times that of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler.imbalance import Devices, Placed, loads
from controller.scheduler.view import Flags, Floats, Ints

Needs = list[tuple[int, int]]
"""What a task needs: (resource, amount), without what it doesn't."""


@dataclass(slots=True)
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
        self.devices, self.tasks = devices, tasks
        spoken = [r for r, amounts in enumerate(tasks.amounts) if amounts.any()]
        self.asked = tuple(spoken)
        self.counted = tuple(r for r in counted if r in spoken or devices.reserved[r].any())
        """What nobody asks for and nobody holds is no load, whatever counts."""
        self.part = devices.receives | devices.gives
        load = np.where(self.part, loads(devices.capacity, devices.reserved, self.counted), 0.0)
        self.load: list[float] = load.tolist()
        self.reserved: dict[int, list[int]] = {
            r: devices.reserved[r].tolist() for r in sorted({*self.counted, *spoken})
        }
        """Of what somebody asks for or what is load; nothing else can change or matter."""
        self._shares: list[tuple[int, list[int], list[int]]] = [
            (r, self.reserved[r], np.maximum(devices.capacity[r], 1).tolist()) for r in self.counted
        ]
        self._weighs: list[bool] = self.part.tolist()
        self._count = max(1, int(self.part.sum()))
        self._sum, self._squares = float(load.sum()), float(load @ load)
        self.moves: list[Move] = []
        self._cost: list[float] = tasks.cost.tolist()

    @property
    def mean(self) -> float:
        """The mean load of the devices that take part."""
        return self._sum / self._count

    def needs(self, tasks: Ints) -> list[Needs]:
        """What each of these tasks needs."""
        if not self.asked:
            return [[] for _ in range(tasks.size)]
        amounts = zip(*[self.tasks.amounts[r][tasks].tolist() for r in self.asked], strict=True)
        return [[(r, n) for r, n in zip(self.asked, row, strict=True) if n] for row in amounts]

    def column(self, resource: int) -> Ints:
        """What is reserved of it on each device, a copy."""
        return np.array(self.reserved[resource], np.int64)

    def unmoved(self) -> Flags:
        """The tasks that no move is about so far."""
        result = np.ones(self.tasks.row.size, np.bool_)
        result[[move.task for move in self.moves]] = False
        return result

    def loads(self) -> Floats:
        """The loads as an array, a copy."""
        return np.array(self.load)

    def load_with(self, row: int, wants: dict[int, int], sign: int) -> float:
        """The load of a device with these amounts more (sign 1) or less (-1)."""
        most = 0.0
        for r, reserved, size in self._shares:
            share = (reserved[row] + sign * wants.get(r, 0)) / size[row]
            if share > most:
                most = share
        return most

    def move(self, task: int, source: int, target: int, needs: Needs, gain_min: float) -> bool:
        """Moves it, or leaves all as it was when that gains less than `gain_min`."""
        had, found, wants = self.load[source], self.load[target], dict(needs)
        # Devices that take no part weigh nothing: neither what they lose nor what they get.
        left = self.load_with(source, wants, -1) if self._weighs[source] else 0.0
        holds = self.load_with(target, wants, +1) if self._weighs[target] else 0.0
        total = self._sum + (left - had) + (holds - found)
        squares = self._squares + (left * left - had * had) + (holds * holds - found * found)
        gain = (self._squares - self._sum**2 / self._count) - (squares - total**2 / self._count)
        if gain < gain_min:
            return False
        for r, amount in needs:
            column = self.reserved[r]
            column[source] -= amount
            column[target] += amount
        self.load[source], self.load[target] = left, holds
        self._sum, self._squares = total, squares
        self.moves.append(Move(task, source, target, self._cost[task], gain, had, found))
        return True
