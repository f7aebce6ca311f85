"""Pickers: those of recent kinds of demand, remembered as long as there is memory for them.

Rule of this file: scores of one kind are a column per device, so what bounds their number is
bytes, not a count: thousands of kinds on a small fleet, hundreds on a large one. Whose
turn was longest ago goes first. It knows no job; `key` is whatever tells kinds apart.
Rejected: a count (too few for a small fleet, too much memory on a large one).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from controller.scheduler.fragmenting import picker_of
from controller.scheduler.pick import Bases, Picker
from controller.scheduler.view import Demand

PICKERS_BYTES = 64 << 20
"""A twentieth of what a controller on a board of 1-2 GB may use."""
PICKERS_LEAST = 64
"""However large the fleet: a round with fewer kinds must not score the fleet again and again."""
_DEVICE_BYTES = 26
"""Per picker and device: a score, a place on it, whether it is eligible, how much the job likes it, by one
column each, and one more while they are made anew."""
_PICKER_BYTES = 4_096
"""Of a picker itself, its demand and its words."""


class Pickers:
    """The pickers of one view."""

    def __init__(self, bases: Bases, bytes_max: int = PICKERS_BYTES) -> None:
        self.bases, self.bytes_max = bases, bytes_max
        self._kept: OrderedDict[tuple[Hashable, str], Picker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def most(self) -> int:
        """How many are remembered at this size of the fleet."""
        each = _PICKER_BYTES + _DEVICE_BYTES * self.bases.view.count
        return max(PICKERS_LEAST, self.bytes_max // each)

    def of(self, key: Hashable, demand: Demand, policy: str) -> Picker:
        """The picker of this kind under this policy; equal keys must mean equal demands."""
        kept = self._kept
        picker = kept.get((key, policy))
        if picker is not None:
            kept.move_to_end((key, policy))
            return picker
        picker = kept[key, policy] = picker_of(self.bases.view, demand, self.bases, policy)
        while len(kept) > self.most:
            kept.popitem(last=False)
        return picker

    def clear(self) -> None:
        """Facts have changed: what was eligible may no longer be."""
        self._kept.clear()
