"""Closely: the gain of placing one demand on few devices, in plain numbers.

Between two tasks of a kind few devices change, and for few a call of numpy costs more than
the numbers in it. This is `fragmentation` once more, one device at a time, with the same
sums and so the same gains to the last bit; a property test holds that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

from controller.scheduler.fragmentation import NOWHERE, Fragmentation
from controller.scheduler.parts import ANY, PLACES, STRIDE, Asked
from controller.scheduler.shapes import MIXED
from controller.scheduler.standing import PART, Seen
from controller.scheduler.usable import MEMORY
from controller.scheduler.view import CPU, GPU, View

NOWHERE_AT_ALL = (NOWHERE, ANY)


class Closely:
    """Gains device by device. `follow` before a look at what may have changed."""

    def __init__(self, view: View, measure: Fragmentation) -> None:
        self.view, self.measure, self.standing = view, measure, measure.standing

    def follow(self) -> None:
        """Takes in what changed."""
        self.standing.follow()

    def seen(self, row: int) -> Seen:
        """The device as it is."""
        return self.standing.seen(row)

    def look(self, room: tuple[int, ...], free: list[int], models: list[int]) -> Seen:
        """A device that had so much left."""
        shape = self.standing.shapes.of(np.array(free, np.int64), np.array(models, np.int16))
        return self.standing.of(room, shape)

    def worth(self, seen: Seen) -> float:
        """What usual demands could use of it, less what would lie idle; in milli."""
        return seen.parts * PART - seen.idle

    def gain(self, asked: Asked, row: int) -> tuple[float, int] | None:
        """(worth gained in milli, accelerator), or None where it doesn't fit."""
        return self.gain_in(asked, self.seen(row))

    def gain_in(self, asked: Asked, seen: Seen) -> tuple[float, int] | None:
        """The same of a device that was looked at."""
        [(gain, place)] = self._gains(asked, [seen])
        return (gain, place) if gain > NOWHERE else None

    def gains(self, asked: Asked, rows: Iterable[int]) -> list[tuple[float, int]]:
        """Of each of these devices; `NOWHERE_AT_ALL` where it doesn't fit."""
        devices, seen = self.standing.devices, self.standing.seen
        return self._gains(asked, [devices[row] or seen(row) for row in rows])

    def _gains(self, asked: Asked, devices: list[Seen]) -> list[tuple[float, int]]:
        """One loop, hardly a call in it: here most of the policy's time is spent."""
        standing, usable, models = self.standing, self.standing.usable, asked.models
        answers, curves, needs, taken = standing.answers, standing.curves, asked.needs, asked.taken
        known, (own, whichever) = answers.known, answers.numbers(asked)
        cpus, memories, rows, cells = (
            usable.cpu.listed,
            usable.memory.listed,
            usable.memory.size,
            usable.cells,
        )
        same, cpu, memory, gpu = usable.same_listed, taken[CPU], taken[MEMORY], taken[GPU]
        found = []
        for room, shape, parts, idle in devices:
            wanted, number = asked.whichever, whichever
            if models is not None and shape.model not in models:
                if shape.model != MIXED:
                    found.append(NOWHERE_AT_ALL)
                    continue
                wanted, number = asked.wanted, own
            for resource, amount in needs:
                if room[resource] < amount:
                    found.append(NOWHERE_AT_ALL)
                    break
            else:
                at = bisect_right(cpus, room[CPU] - cpu) * rows + bisect_right(
                    memories, room[MEMORY] - memory
                )
                cell = same[at]
                key = (shape.number * cells + cell) * STRIDE + number
                answer = known.get(key)
                if answer is None:
                    answer = answers.reckon(key, wanted, shape, cell)
                if answer < 0:
                    found.append(NOWHERE_AT_ALL)
                    continue
                milli, worst = room[GPU] - gpu, 0.0
                for resource, last, knots, of_milli, of_room in curves:
                    left = room[resource] - taken[resource]
                    each = left / (milli if milli > 1 else 1)
                    if each < last:
                        at = bisect_right(knots, each)
                        lies = of_milli[at] * milli - of_room[at] * left
                        if lies > worst:
                            worst = lies
                # In the same order as in columns: the sum of these may else differ in its last bit.
                gain = (answer // PLACES - parts) * PART + idle - worst
                found.append((gain, answer % PLACES - 1))
        return found
