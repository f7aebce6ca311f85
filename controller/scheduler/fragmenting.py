"""Fragmenting: the picker of the `fragmentation` policy, and which picker a policy has.

Like any picker it scores the fleet once and then only what the view's log names. What it
adds: rows where the demand doesn't fit are sorted out before anything dear is computed, and
it remembers for each device on which accelerator a share would go.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.fragmentation import ANY, SCALE
from controller.scheduler.pick import OUT, Bases, Picker, _all_of
from controller.scheduler.view import GPU, Demand, Flags, Floats, Ints, Rows, Share, View

FRAGMENTATION = "fragmentation"


def picker_of(view: View, demand: Demand, bases: Bases, policy: str) -> Picker:
    """The picker that places this demand by this policy."""
    kind = FragmentationPicker if policy == FRAGMENTATION else Picker
    return kind(view, demand, bases, policy)


class FragmentationPicker(Picker):
    """Scores by what usual demands lose; the policy's other criteria weigh beside that."""

    def __init__(self, view: View, demand: Demand, bases: Bases, policy: str) -> None:
        self.measure = bases.fragmentation
        self._generation = self.measure.current()
        self.places = np.full(view.count, ANY)
        super().__init__(view, demand, bases, policy)

    def follow(self) -> None:
        """Takes in what changed, and a new table of popularity."""
        stale, self._generation = self._generation, self.measure.current()
        rows = self.changed()
        if rows is None or stale != self._generation or len(self.total) != self.view.count:
            self.eligible = _all_of(self.demand.eligible)
            self.total = self._whole()
        elif len(rows):
            self.total[rows] = self._score(rows, self.bases.of(self.policy_name).column[rows])

    def changed(self) -> Ints | None:
        """Rows that changed; all of them only when much changed at once, because each look is dear."""
        view, seen = self.view, self._seen
        self._seen, self.overtaken, self._era = len(view.log), view.era != self._era, view.era
        return None if self.overtaken else np.array(list(dict.fromkeys(view.log[seen:])), np.int64)

    def _whole(self) -> Floats:
        self.places = np.full(self.view.count, ANY)
        return super()._whole()

    def _score(self, rows: Rows, base: Floats) -> Floats:
        every = np.arange(self.view.count)[rows] if isinstance(rows, slice) else rows
        total = np.full(len(every), OUT)
        able = np.flatnonzero(self._able(every, base))
        if not len(able):
            return total
        some, base = every[able], base[able]
        gains, self.places[some] = self.measure.gains(self.demand, some)
        gains *= self.policy.usable * SCALE
        gains += base
        if self.demand.wish is not None:
            gains += self.demand.wish_weight * self.demand.wish[some]
        total[able] = gains
        return total

    def _able(self, rows: Ints, base: Floats) -> Flags:
        view, demand = self.view, self.demand
        able: Flags = base > OUT
        for i in self.asked:
            if i != GPU:
                able &= view.free[i][rows] >= view.amount(demand, i, rows)
        if demand.resources[GPU]:
            able &= self.measure.room(demand, rows)
        return able

    def parts(self, row: int) -> dict[str, float]:
        """As of any picker, and what the policy is named after."""
        gains, _ = self.measure.gains(self.demand, np.array([row]))
        return {"usable": round(float(0.5 + SCALE * gains[0]), 6)} | super().parts(row)

    def share(self, row: int) -> Share:
        """What the demand would reserve there: a share on the accelerator that suits best."""
        place = int(self.places[row])
        if place == ANY:
            return super().share(row)
        count, milli = self.demand.accelerators
        usual = self.view.share(row, self.demand)
        return usual._replace(accelerators=((place, milli),) * count)
