"""Pick: the best passing device, again and again, reserving as it goes.

One `Picker` serves one demand within one view: filters and scores are computed once for
the whole fleet, and after each reservation only for the device that changed, so ten
thousand equal tasks cost ten thousand argmaxes and nothing more.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.filters import passing
from controller.scheduler.policies import POLICIES
from controller.scheduler.view import Demand, View

NO_DEVICE = -1
_OUT = -1.0


def reserve(view: View, row: int, demand: Demand) -> None:
    """Takes the demand out of the view's room."""
    for free, amount in zip(view.free, demand.resources, strict=True):
        free[row] -= amount
    view.document_bytes_free[row] -= demand.entry_bytes
    view.slots_free[row] -= 1


class Picker:
    """Picks devices for tasks of one demand. Equal scores: the first device in fleet order."""

    def __init__(self, view: View, demand: Demand, policy: str) -> None:
        self.view, self.demand = view, demand
        self.parts = POLICIES[policy]
        self.total = np.where(passing(view, demand), self._score(slice(None)), _OUT)

    def _score(self, rows: slice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        capacity = [c[rows] for c in self.view.capacity]
        free = [f[rows] for f in self.view.free]
        total = np.zeros(len(capacity[0]))
        for score, weight in self.parts.values():
            total += weight * score(capacity, free, self.demand)
        return total

    def pick(self, avoid: int = NO_DEVICE) -> int:
        """The best device's row, or `NO_DEVICE`; `avoid` is taken only when there is no other."""
        if not self.view.count:
            return NO_DEVICE
        row = int(self.total.argmax())
        if row == avoid and self.total[row] > _OUT:
            kept, self.total[row] = self.total[row], _OUT
            other = int(self.total.argmax())
            self.total[row] = kept
            if self.total[other] > _OUT:
                return other
        return row if self.total[row] > _OUT else NO_DEVICE

    def refresh(self, row: int) -> None:
        """Computes one device anew after the view changed there."""
        if self.total[row] == _OUT:
            return
        room = self.view
        # As in the filters: what is not asked for does not matter, though a device may have shrunk below it.
        fits = all(
            not amount or free[row] >= amount
            for free, amount in zip(room.free, self.demand.resources, strict=True)
        )
        if not fits or room.document_bytes_free[row] < self.demand.entry_bytes or room.slots_free[row] <= 0:
            self.total[row] = _OUT
        else:
            self.total[row] = self._score(slice(row, row + 1))[0]
