"""Standing: what each device is worth as it is, in columns and device by device.

Rule of this file: worth is what usual demands could use of its accelerators (`parts`) less
what would lie idle for want of processor, memory or links. It is reckoned anew where the
view's log says that a row changed, for all demands together; after a new table, or when
the view says that much changed at once, for all devices in columns.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from controller.scheduler.parts import PLACES, Asked, Parts
from controller.scheduler.shapes import Shape, Shapes
from controller.scheduler.usable import MEMORY, PARTS, Usable
from controller.scheduler.view import CPU, GPU, Demand, Floats, Ints, View
from protocol.resources import Resources

PART = 1.0 / PARTS
_FEW = 256
"""Up to so many changed rows plain numbers are faster than all in columns."""


class Seen(NamedTuple):
    """What a device has left, and its worth as it is."""

    room: tuple[int, ...]
    shape: Shape
    parts: int
    idle: float


class Standing:
    """All devices as they are. `follow` before a look at what may have changed."""

    def __init__(self, view: View) -> None:
        self.view, self.shapes = view, Shapes(view)
        self._nothing = Asked(view, Demand(Resources()))
        self.parts: Ints = np.zeros(0, np.int64)
        self.idle: Floats = np.zeros(0)
        self._era = self._logged = 0
        self._logged_at: Ints = np.zeros(0, np.int64)

    def learn(self, usable: Usable) -> None:
        """A new table."""
        self.usable = usable
        self.answers = Parts(self.view, usable, self.shapes)
        self._cpu, self._memory, self._rows = usable.cpu.listed, usable.memory.listed, usable.memory.size
        self.curves = [
            (s.resource, float(s.knots[-1]), s.knots.tolist(), s.of_milli.tolist(), s.of_room.tolist())
            for s in usable.starved
        ]
        self._anew()

    def follow(self) -> None:
        """Takes in what changed."""
        view = self.view
        if view.era != self._era or len(self.parts) != view.count:
            self._anew()
            return
        logged = self._logged
        if logged == len(view.log):
            return
        self._logged, fresh = len(view.log), view.log[logged:]
        if len(fresh) > _FEW or self.shapes.crowded():
            self._logged_at[fresh] = self._logged
            self._all()
            return
        for at, row in enumerate(fresh, logged):
            seen = self.devices[row] = self._seen(row, self.shapes.look(row))
            self.parts[row], self.idle[row], self._logged_at[row] = seen.parts, seen.idle, at

    def changed(self, seen: int) -> Ints:
        """Rows that changed since so much was logged, within this era."""
        return np.flatnonzero(self._logged_at >= seen)

    def _anew(self) -> None:
        self._era, self._logged = self.view.era, len(self.view.log)
        # Who looked last before this missed whatever was logged in between: to him all of them changed.
        self._logged_at = np.full(self.view.count, self._logged - 1)
        self._all()

    def _all(self) -> None:
        view, usable = self.view, self.usable
        if self.shapes.crowded():
            self.shapes.forget()
            self.answers.forget()
        else:
            self.shapes.compare()
        cells = usable.cell(view.free[CPU], view.free[MEMORY])
        self.parts = self.answers.answers(self._nothing, np.arange(view.count), cells) // PLACES
        self.idle = usable.idle({i: view.free[i] for i in usable.looked_at})
        self.devices: list[Seen | None] = [None] * view.count

    # ------------------------------------------------------------- one device

    def seen(self, row: int) -> Seen:
        """The device as it is."""
        found = self.devices[row]
        if found is None:
            found = self.devices[row] = self._seen(row, self.shapes.numbered(int(self.shapes.number[row])))
        return found

    def _seen(self, row: int, shape: Shape) -> Seen:
        return self.of(tuple([column.item(row) for column in self.view.free]), shape)

    def of(self, room: tuple[int, ...], shape: Shape) -> Seen:
        """A device that had so much left, and such accelerators."""
        parts = self.answers.answer(self._nothing, shape, self.cell(room[CPU], room[MEMORY]))
        return Seen(room, shape, parts // PLACES, self.idle_of(room))

    def cell(self, cpu: int, memory: int) -> int:
        """The place of a device with so much left on the axes of the tables."""
        at = bisect_right(self._cpu, cpu) * self._rows + bisect_right(self._memory, memory)
        return self.usable.same_listed[at]

    def idle_of(self, room: tuple[int, ...]) -> float:
        """Milli that the scarcest resource can't feed."""
        milli, worst = room[GPU], 0.0
        for resource, last, knots, of_milli, of_room in self.curves:
            left = room[resource]
            each = left / (milli if milli > 1 else 1)
            if each < last:
                at = bisect_right(knots, each)
                idle = of_milli[at] * milli - of_room[at] * left
                if idle > worst:
                    worst = idle
        return worst
