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

from controller.scheduler.parts import PLACES, Asked
from controller.scheduler.popularity import Popularity, kind_of
from controller.scheduler.standing import PART, Standing
from controller.scheduler.usable import MEMORY, Usable
from controller.scheduler.view import CPU, WHOLE_MILLI, Demand, Floats, Ints, View
from protocol.limits import ACCELERATORS_MAX

SCALE = 0.5 / (WHOLE_MILLI * ACCELERATORS_MAX)
"""A gain is at most all of a device's accelerators, either way; as a score it is 0…1 about 0.5."""
NOWHERE = -np.inf
"""The gain where the demand doesn't fit."""


class Fragmentation:
    """The measure of one view. `generation` rises with each new table: scores of older ones are void."""

    def __init__(self, view: View, popularity: Popularity | None = None) -> None:
        self.view = view
        self.popularity = popularity or Popularity()
        self.generation = 0
        self.standing = Standing(view)
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
        self.standing.learn(self.usable)

    def gains(self, asked: Asked, rows: Ints) -> tuple[Floats, Ints]:
        """(worth gained in milli, accelerator) of placing the demand on each of these.

        All have the processor, memory and links for it; where the accelerators can't take it: `NOWHERE`.
        """
        view, usable, standing = self.view, self.usable, self.standing
        standing.follow()
        room = {i: view.free[i][rows] - view.amount(asked.demand, i, rows) for i in usable.looked_at}
        answers = standing.answers.answers(asked, rows, usable.cell(room[CPU], room[MEMORY]))
        gains: Floats = (answers // PLACES - standing.parts[rows]).astype(np.float64)
        gains *= PART
        gains += standing.idle[rows]
        gains -= usable.idle(room)
        gains[answers < 0] = NOWHERE
        return gains, answers % PLACES - 1
