"""Fragmentation: places a task where it least hurts what usually comes next.

Rule of this file: a device's worth is what the usual demands could still use of its free
accelerators, less what would lie idle for want of processor, memory or links (`usable`). A
placement's gain is the worth after it less the worth before, and a share goes to the
accelerator of the device on which that is largest. One `Fragmentation` serves all demands
of one view; each demand's picker remembers its own column and looks only at what changed.
It knows no task and no fleet; it never refuses what fits.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.popularity import Popularity, kind_of
from controller.scheduler.usable import MEMORY, Places, Usable
from controller.scheduler.view import CPU, WHOLE_MILLI, Demand, Flags, Floats, Ints, View
from protocol.limits import ACCELERATORS_MAX

SCALE = 0.5 / (WHOLE_MILLI * ACCELERATORS_MAX)
"""A gain is at most all of a device's accelerators, either way; as a score it is 0…1 about 0.5."""
_LAYERS = np.array([0, 1, 1])
"""Now, after on the accelerators as they are, and after on those with the share taken."""
ANY = -1
"""The place where no single accelerator was chosen: none is wanted, or several whole ones."""


class Fragmentation:
    """The measure of one view. `generation` rises with each new table: scores of older ones are void."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.popularity = Popularity()
        self.generation = 0
        self._learn()

    def note(self, demand: Demand, tasks: int = 1) -> None:
        """So many tasks of this demand arrived; each is told once, whether it finds room or not."""
        if self.popularity.note(kind_of(demand), tasks):
            self._learn()

    def current(self) -> int:
        """The generation, after a look at whether new models were met."""
        if self.usable.models != len(self.view.models):
            self._learn()
        return self.generation

    def _learn(self) -> None:
        self.usable = Usable(self.popularity.shares(), self.view.models)
        self.generation += 1

    # ------------------------------------------------------------- gains

    def room(self, demand: Demand, rows: Ints) -> Flags:
        """Devices whose accelerators can take the demand."""
        count, milli = demand.accelerators
        if not count:
            return np.ones(len(rows), np.bool_)
        free = self.view.accelerators_free(demand, rows)
        if count == 1:
            largest: Ints = free.max(axis=1)
            return largest >= milli
        enough: Flags = (free >= milli).sum(axis=1) >= count
        return enough

    def gains(self, demand: Demand, rows: Ints) -> tuple[Floats, Ints]:
        """(worth gained in milli, accelerator) of placing the demand on each of these devices, where it fits.

        Before and after are two layers of the same arrays: few rows change between two tasks of
        a kind, and then the number of calls is what costs.
        """
        view, usable = self.view, self.usable
        count, milli = demand.accelerators
        free = view.accel_free[rows]
        room = {}
        for i in usable.looked_at:
            amount = view.amount(demand, i, rows)
            room[i] = np.array([view.free[i][rows]] * 2)
            room[i][1] -= amount
        cells = usable.cell(room[CPU], room[MEMORY])[:, :, None]
        if usable.has_models:
            cells = cells + usable.table(view.accel_model[rows])
        whole = free >= WHOLE_MILLI if usable.has_whole or count > 1 or milli == WHOLE_MILLI else None
        if count == 1 and (milli < WHOLE_MILLI or usable.has_models):
            gain, places = self._share(demand, rows, cells, free, whole)
        else:
            gain, places = self._several(demand, rows, cells, free, whole)
        idle = usable.idle(room)
        if idle is not None:
            gain += idle[0]
            gain -= idle[1]
        return gain, places

    def _share(
        self, demand: Demand, rows: Ints, cells: Places, free: Ints, whole: Flags | None
    ) -> tuple[Floats, Ints]:
        """With a share taken from the best accelerator of each device, and which that is."""
        usable, milli = self.usable, demand.accelerators[1]
        rest = free - milli
        before, each, after = usable.single_of(cells[_LAYERS], np.array([free, free, rest]))
        after -= each
        if usable.has_whole and whole is not None:
            count = whole.sum(axis=1)
            kept = usable.whole_of(cells, whole, count)
            fewer = usable.whole_of(cells[1], whole, np.maximum(count - 1, 0))
            before += kept[0]
            each += kept[1]
            after += np.where(whole, fewer.sum(axis=1)[:, None] - fewer - kept[1].sum(axis=1)[:, None], 0.0)
        lacking = rest < 0
        if demand.models:
            lacking = self.view.accelerators_free(demand, rows) < milli
        after[lacking] = -np.inf
        places = after.argmax(axis=1)
        each -= before
        return after.max(axis=1) + each.sum(axis=1), places

    def _several(
        self, demand: Demand, rows: Ints, cells: Places, free: Ints, whole: Flags | None
    ) -> tuple[Floats, Ints]:
        """With the first whole accelerators taken, as many as the demand wants; perhaps none."""
        usable, count = self.usable, demand.accelerators[0]
        before, each = usable.single_of(cells, free)
        if usable.has_whole and whole is not None:
            there = whole.sum(axis=1)
            before += usable.whole_of(cells[0], whole, there)
            each += usable.whole_of(cells[1], whole, np.maximum(there - count, 0))
        if count and whole is not None:
            able = self.view.accelerators_free(demand, rows) >= WHOLE_MILLI if demand.models else whole
            each[able & (able.cumsum(axis=1) <= count)] = 0.0
        each -= before
        return each.sum(axis=1), np.full(len(free), ANY)
