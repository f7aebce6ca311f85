"""Fragmentation: places a task where it least hurts what usually comes next.

Rule of this file: a device's worth is what the usual demands could still use of its free
accelerators, less what would lie idle for want of processor, memory or links (`usable`). A
placement's gain is the worth after it less the worth before, and a share goes to the
accelerator of the device on which that is largest. One `Fragmentation` serves all demands
of one view; each demand's picker remembers its own column and looks only at what changed.
It knows no task and no fleet; it never refuses what fits. Here many devices are looked at
in columns; `closely` does the same for a few, exactly.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.popularity import Popularity, kind_of
from controller.scheduler.usable import MEMORY, PARTS, Places, Usable
from controller.scheduler.view import CPU, GPU, WHOLE_MILLI, Demand, Flags, Floats, Ints, View
from protocol.limits import ACCELERATORS_MAX

SCALE = 0.5 / (WHOLE_MILLI * ACCELERATORS_MAX)
"""A gain is at most all of a device's accelerators, either way; as a score it is 0…1 about 0.5."""
ANY = -1
"""The place where no single accelerator was chosen: none is wanted, or several whole ones."""
_LAYERS = np.array([0, 1, 1])
"""Now, after on the accelerators as they are, and after on those with the share taken."""
_NEVER = -(1 << 62)
_MANY = 256
"""From so many rows on, finding out which devices are alike is cheaper than a look at each."""


class Fragmentation:
    """The measure of one view. `generation` rises with each new table: scores of older ones are void."""

    def __init__(self, view: View, popularity: Popularity | None = None) -> None:
        self.view = view
        self.popularity = popularity or Popularity()
        self.generation = 0
        self._shapes = Shapes(view)
        self._learn()

    def note(self, demand: Demand, tasks: int = 1) -> None:
        """So many tasks of this demand arrived; each is told once, whether it finds room or not."""
        self.popularity.note(kind_of(demand), tasks)

    def current(self) -> int:
        """The generation, after a look at whether a table is due, or new models were met."""
        if self._tables != self.popularity.tables or self.usable.models != len(self.view.models):
            self._learn()
        return self.generation

    def _learn(self) -> None:
        self._tables = self.popularity.tables
        self.usable = Usable(self.popularity.shares(), self.view.models)
        self.generation += 1
        self._shapes.sort()

    # ------------------------------------------------------------- gains

    def room(self, demand: Demand, rows: Ints) -> Flags:
        """Devices whose accelerators can take the demand."""
        count, milli = demand.accelerators
        if not count:
            return np.ones(len(rows), np.bool_)
        free = self.view.accelerators_free(demand, rows)
        enough: Flags = (free >= milli).sum(axis=1) >= count
        return enough

    def gains(self, demand: Demand, rows: Ints) -> tuple[Floats, Ints]:
        """(worth gained in milli, accelerator) of placing the demand on each of these, where it fits."""
        if len(rows) < _MANY:
            return self._gains(demand, rows)
        _, first, place = np.unique(self._shapes.of(rows), return_index=True, return_inverse=True)
        gains, accelerators = self._gains(demand, rows[first])
        return gains[place], accelerators[place]

    def _gains(self, demand: Demand, rows: Ints) -> tuple[Floats, Ints]:
        view, usable = self.view, self.usable
        count, milli = demand.accelerators
        free = np.maximum(view.accel_free[rows], 0)
        room = {i: self._room(demand, i, rows) for i in usable.looked_at}
        cells = usable.cell(room[CPU], room[MEMORY])[:, :, None]
        if usable.has_models:
            cells = cells + usable.table(view.accel_model[rows])
        if count == 1 and (milli < WHOLE_MILLI or usable.has_models):
            parts, places = self._share(demand, rows, cells, free)
        else:
            parts, places = self._several(demand, rows, cells, free)
        gain = parts.astype(np.float64) * (1.0 / PARTS)
        idle = self._idle(room)
        gain += idle[0]
        gain -= idle[1]
        return gain, places

    def _room(self, demand: Demand, resource: int, rows: Ints) -> Ints:
        """Two layers: free now, and after the placement."""
        free = self.view.free[resource][rows]
        return np.array([free, free - self.view.amount(demand, resource, rows)])

    def _idle(self, room: dict[int, Ints]) -> Floats:
        """Milli that the scarcest resource can't feed, in both layers."""
        idle = np.zeros(room[GPU].shape)
        for starved in self.usable.starved:
            np.maximum(idle, starved.idle(room[starved.resource], room[GPU]), out=idle)
        return idle

    def _share(self, demand: Demand, rows: Ints, cells: Places, free: Ints) -> tuple[Ints, Ints]:
        """With a share taken from the best accelerator of each device, and which that is."""
        usable, milli = self.usable, demand.accelerators[1]
        rest = free - milli
        before, each, after = usable.single_of(cells[_LAYERS], np.array([free, free, rest]))
        after -= each
        if usable.has_whole:
            whole = free >= WHOLE_MILLI
            count = whole.sum(axis=1)
            kept = usable.whole_of(cells, whole, count)
            fewer = usable.whole_of(cells[1], whole, np.maximum(count - 1, 0))
            before += kept[0]
            each += kept[1]
            after += whole * ((fewer - kept[1]).sum(axis=1)[:, None] - fewer)
        lacking = rest < 0
        if demand.models:
            lacking = self.view.accelerators_free(demand, rows) < milli
        after[lacking] = _NEVER
        places = after.argmax(axis=1)
        each -= before
        return after.max(axis=1) + each.sum(axis=1), places

    def _several(self, demand: Demand, rows: Ints, cells: Places, free: Ints) -> tuple[Ints, Ints]:
        """With the first whole accelerators taken, as many as the demand wants; perhaps none."""
        usable, count = self.usable, demand.accelerators[0]
        before, each = usable.single_of(cells, free)
        whole = free >= WHOLE_MILLI
        if usable.has_whole:
            there = whole.sum(axis=1)
            before += usable.whole_of(cells[0], whole, there)
            each += usable.whole_of(cells[1], whole, np.maximum(there - count, 0))
        able = whole
        if count:
            able = self.view.accelerators_free(demand, rows) >= WHOLE_MILLI if demand.models else whole
            each[able & (able.cumsum(axis=1) <= count)] = 0
        each -= before
        places = able.argmax(axis=1) if count == 1 else np.full(len(free), ANY)
        return each.sum(axis=1), places


class Shapes:
    """Which devices are alike in all that is looked at: most of a fleet, while it is empty.

    Equal numbers, equal devices. Devices are sorted now and then; one that changed since has
    a number of its own.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.sort()

    def sort(self) -> None:
        """Numbers all devices anew."""
        view = self.view
        self._era, self._logged = view.era, len(view.log)
        facts = np.column_stack([*view.free, view.core_speed_milli, view.accel_free, view.accel_model])
        number = np.unique(facts, axis=0, return_inverse=True)[1] if view.count else np.zeros(0)
        self._number: Ints = number.reshape(-1).astype(np.int64)
        self._next = view.count

    def of(self, rows: Ints) -> Ints:
        """The number of each of these devices."""
        view = self.view
        if view.era != self._era or len(self._number) != view.count:
            self.sort()
        changed = view.log[self._logged :]
        self._number[changed] = np.arange(self._next, self._next + len(changed))
        self._next, self._logged = self._next + len(changed), len(view.log)
        return self._number[rows]
