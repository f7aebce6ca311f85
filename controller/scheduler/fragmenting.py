"""Fragmenting: the picker of the `fragmentation` policy, and which picker a policy has.

Like any picker it scores the fleet once and then only what the view's log names: many rows
in columns, few of them closely. What it adds: rows where the demand doesn't fit are sorted
out before anything dear is computed, and it remembers for each device on which accelerator
a share would go.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.fragmentation import SCALE
from controller.scheduler.parts import ANY, Asked
from controller.scheduler.pick import OUT, Bases, Picker, _all_of
from controller.scheduler.view import (
    DOCUMENT_BYTES_LEAST,
    GPU,
    SLOTS,
    Demand,
    Flags,
    Floats,
    Ints,
    Rows,
    Share,
    View,
)

FRAGMENTATION = "fragmentation"
_CLOSELY = 64
"""Up to so many rows plain numbers are faster than columns."""


def picker_of(view: View, demand: Demand, bases: Bases, policy: str) -> Picker:
    """The picker that places this demand by this policy."""
    kind = FragmentationPicker if policy == FRAGMENTATION else Picker
    return kind(view, demand, bases, policy)


class FragmentationPicker(Picker):
    """Scores by what usual demands lose; the policy's other criteria weigh beside that."""

    def __init__(self, view: View, demand: Demand, bases: Bases, policy: str) -> None:
        self.measure, self.closely = bases.fragmentation, bases.closely
        self._generation = self.measure.current()
        self.places = np.full(view.count, ANY, np.int8)
        self.asked_closely = Asked(view, demand)
        self._odd = bool(
            demand.extras or demand.entry_bytes > DOCUMENT_BYTES_LEAST or demand.resources[SLOTS] > 1
        )
        self._plain = not (self._odd or demand.reference_cpu or demand.wish is not None)
        self._weight = bases.policies[policy].usable * SCALE
        super().__init__(view, demand, bases, policy)

    # ------------------------------------------------------------- following

    def follow(self) -> None:
        """Takes in what changed, and a new table of popularity."""
        view, seen, stale = self.view, self._seen, self._generation
        self._generation, self._seen = self.measure.current(), len(view.log)
        self.overtaken, self._era = view.era != self._era, view.era
        if self.overtaken or stale != self._generation or len(self.total) != view.count:
            self.eligible = _all_of(self.demand.eligible)
            self.asked_closely = Asked(view, self.demand)
            self.total = self._whole()
        elif seen < self._seen:
            self._took_in(seen)

    def _took_in(self, seen: int) -> None:
        """Looks again at what was logged since."""
        view, base = self.view, self.bases.of(self.policy_name).column
        self.closely.follow()
        if len(view.log) - seen <= _CLOSELY:
            rows = list(dict.fromkeys(view.log[seen:]))
        else:
            rows = self.measure.standing.changed(seen).tolist()
        if len(rows) <= _CLOSELY and self._plain:
            self._look(rows, base)
        else:
            some = np.array(rows)
            self.total[some] = self._score(some, base[some])

    def _whole(self) -> Floats:
        self.places = np.full(self.view.count, ANY, np.int8)
        return super()._whole()

    # ------------------------------------------------------------- scores

    def _score(self, rows: Rows, base: Floats) -> Floats:
        every = np.arange(self.view.count)[rows] if isinstance(rows, slice) else rows
        total = np.full(len(every), OUT)
        able = np.flatnonzero(self._able(every, base))
        if not len(able):
            return total
        some = every[able]
        gains, self.places[some] = self.measure.gains(self.asked_closely, some)
        gains *= self._weight
        gains += base[able]
        if self.demand.wish is not None:
            gains += self.demand.wish_weight * self.demand.wish[some]
        total[able] = gains
        return total

    def _able(self, rows: Ints, base: Floats) -> Flags:
        view, demand = self.view, self.demand
        able: Flags = base > OUT
        for i in self.asked:  # all accelerators together too: one that is gone may still be somebody's
            able &= view.free[i][rows] >= view.amount(demand, i, rows)
        if self.eligible is not None:
            able &= self.eligible[rows]
        if self._odd:
            able &= view.copies(demand, rows) > 0
        return able

    def _look(self, rows: list[int], base: Floats) -> None:
        """The same, row by row."""
        total, places, weight, eligible = self.total, self.places, self._weight, self.eligible
        for row, (gain, place) in zip(rows, self.closely.gains(self.asked_closely, rows), strict=True):
            # Whatever is added to `OUT` is `OUT`.
            fits = eligible is None or eligible[row]
            total[row], places[row] = gain * weight + base.item(row) if fits else OUT, place

    # ------------------------------------------------------------- one

    def parts(self, row: int) -> dict[str, float]:
        """As of any picker, and what the policy is named after."""
        gains, _ = self.measure.gains(self.asked_closely, np.array([row]))
        return {"usable": round(0.5 + SCALE * float(gains[0]), 6)} | super().parts(row)

    def gain_of(self, row: int) -> float:
        """Worth gained in milli by placing it there, where it fits."""
        self.closely.follow()
        found = self.closely.gain(self.asked_closely, row)
        return found[0] if found is not None else OUT

    def share(self, row: int) -> Share:
        """What the demand would reserve there: one accelerator is the one that suits best."""
        place, demand = int(self.places[row]), self.demand
        if not self._plain or (place == ANY and demand.resources[GPU]):
            usual = super().share(row)
            return usual if place == ANY else usual._replace(accelerators=((place, demand.accelerators[1]),))
        return Share(demand.resources, () if place == ANY else ((place, demand.accelerators[1]),))
