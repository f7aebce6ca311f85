"""Shapes: how the accelerators of a device stand, each arrangement known once.

Rule of this file: equal numbers, equal accelerators (model and free milli, place by place);
a number is never given twice. Most of a fleet is of few shapes, and shapes come back, so
what was reckoned for one device serves all that are like it, later ones too.
It knows no demand and no other resource.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.scheduler.view import WHOLE_MILLI, Ints, View

SHAPES_LEAST = 1 << 14
SHAPES_PER_DEVICE = 2
"""So many are remembered, whichever is more; then all are forgotten: a shape is about 1 KB."""

MIXED = -2


class Alike(NamedTuple):
    """Accelerators of a device with the same model and as much free; `place`: the first of them."""

    place: int
    number: int
    free: int
    model: int


class Shape(NamedTuple):
    """Those with anything free, in their order, and how many whole ones that is."""

    number: int
    accelerators: tuple[Alike, ...]
    whole: int
    model: int
    """Of all of them; `MIXED`: of several models, or there are none."""


class Shapes:
    """The shape of each device. `follow` before a look; `number` and `model` are theirs, row by row."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.number: Ints = np.zeros(0, np.int64)
        self.model: Ints = np.zeros(0, np.int64)
        self._of: dict[bytes, Shape] = {}
        self._listed: dict[int, Shape] = {}
        self._next = 0
        self._free, self._model = view.accel_free[:0].copy(), view.accel_model[:0].copy()

    def compare(self) -> None:
        """Looks at all devices, closely only at those that are not as they were."""
        view, known = self.view, len(self._free)
        if self._free.shape[1] != view.accel_free.shape[1]:
            known = 0
        other = self._free[:known] != view.accel_free[:known]
        other |= self._model[:known] != view.accel_model[:known]
        rows = np.flatnonzero(other.any(axis=1)).tolist()
        self._free, self._model = view.accel_free.copy(), view.accel_model.copy()
        fresh = np.zeros(view.count - known, np.int64)
        self.number, self.model = np.append(self.number[:known], fresh), np.append(self.model[:known], fresh)
        for row in [*rows, *range(known, view.count)]:
            self.look(row)

    def look(self, row: int) -> Shape:
        """The shape of this device, looked at anew."""
        view = self.view
        free, model = view.accel_free[row], view.accel_model[row]
        self._free[row], self._model[row] = free, model
        shape = self.of(free, model)
        self.number[row], self.model[row] = shape.number, shape.model
        return shape

    def of(self, free: Ints, model: npt.NDArray[np.int16]) -> Shape:
        """The shape of accelerators with so much free, of these models."""
        key = free.tobytes() + model.tobytes()
        shape = self._of.get(key)
        if shape is None:
            self._next += 1
            shape = self._of[key] = _made(self._next, free.tolist(), model.tolist())
            self._listed[self._next] = shape
        return shape

    def crowded(self) -> bool:
        """Whether it's time to forget all."""
        return len(self._of) > max(SHAPES_LEAST, SHAPES_PER_DEVICE * self.view.count)

    def forget(self) -> None:
        """All devices are looked at again; numbers go on."""
        self._of.clear()
        self._listed.clear()
        self._free = self._free[:0]
        self.compare()

    def numbered(self, number: int) -> Shape:
        """The shape with this number, that a device has."""
        return self._listed[number]


def _made(number: int, free: list[int], models: list[int]) -> Shape:
    """Of several models on one device each accelerator stands for itself: they are taken in their order."""
    with_room = [place for place, milli in enumerate(free) if milli > 0]
    of = {models[place] for place in with_room}
    mixed = len(of) > 1
    places: dict[int, list[int]] = {}
    for place in with_room:
        places.setdefault(~place if mixed else free[place], []).append(place)
    found = [Alike(p[0], len(p), free[p[0]], models[p[0]]) for p in places.values()]
    whole = sum([a.number for a in found if a.free >= WHOLE_MILLI])
    return Shape(number, tuple(found), whole, found[0].model if len(of) == 1 else MIXED)
