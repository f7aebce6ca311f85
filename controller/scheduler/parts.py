"""Parts: what usual demands could use of a device's accelerators, and what of it a demand leaves.

Rule of this file: the answer hangs on three things alone: how the accelerators stand (their
shape), the device's cell on the axes of processor and memory, and what the demand wants of
accelerators. So each answer is reckoned once per table and remembered; most looks find it.
What is missing is reckoned in plain numbers where it is little, and in columns where it is
much: the same whole numbers either way. In parts x milli; nothing of fleets or scores here.
Rejected: remembering whole gains (what lies idle differs with every device's room).
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.shapes import MIXED, Shape, Shapes
from controller.scheduler.usable import Places, Usable
from controller.scheduler.view import WHOLE_MILLI, Demand, Flags, Ints, View

ANY = -1
"""The place where no single accelerator was chosen: none is wanted, or several whole ones."""
LACKING = -1
"""Remembered where the accelerators can't take the demand."""
PLACES = 32
"""An answer is parts x milli x `PLACES` + (place + 1): one number fits into a column."""
KNOWN_MAX = 1 << 16
"""Answers for plain numbers, about 130 bytes each; then all are forgotten."""
STRIDE = 1 << 16
"""More than there are different demands between two tables; were there more, all would be forgotten."""
_SLOTS_BITS = 16
"""Answers for columns: 1 MB. Each has one place there, and drives out who had it."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_NEVER = -(1 << 62)
_FEW = 64
"""Up to so many missing ones plain numbers are faster than columns."""

Wanted = tuple[int, int, tuple[int, ...] | None]


class Asked:
    """A demand, as it is looked up; what it needs is the same on every device."""

    def __init__(self, view: View, demand: Demand) -> None:
        self.demand = demand
        self.needs = [(i, amount) for i, amount in enumerate(demand.resources) if amount]
        self.taken = tuple(demand.resources)
        self.count, self.milli = demand.accelerators
        self.models = view.allowed_models(demand) if demand.models and self.count else None
        self.wanted: Wanted = (self.count, self.milli, self.models)
        self.whichever: Wanted = (self.count, self.milli, None)
        """Where all accelerators are of one model that will do, so that there's no choice of models."""


class Parts:
    """The answers of one table. A key is made of the shape, the cell and what is wanted."""

    def __init__(self, view: View, usable: Usable, shapes: Shapes) -> None:
        self.view, self.usable, self.shapes = view, usable, shapes
        self.known: dict[int, int] = {}
        self._numbers: dict[Wanted, int] = {}
        self._keys: Ints = np.full(1 << _SLOTS_BITS, -1, np.int64)
        self._answers: Ints = np.zeros(1 << _SLOTS_BITS, np.int64)
        self._single, self._whole = usable.single.data, usable.whole.data
        self._step: list[int] = usable.step_of_milli.tolist()
        self._table_of: list[int] = usable.table_of.tolist()

    def numbers(self, asked: Asked) -> tuple[int, int]:
        """Of its `wanted` and `whichever`; (shape x cells + cell) x `STRIDE` + number is a key."""
        if len(self._numbers) > STRIDE - 2:
            self.forget()
        number = self._numbers.setdefault(asked.whichever, len(self._numbers))
        if asked.models is None:
            return number, number
        return self._numbers.setdefault(asked.wanted, len(self._numbers)), number

    def forget(self) -> None:
        """Nothing is known any more."""
        self.known.clear()
        self._numbers.clear()
        self._keys.fill(-1)

    # ------------------------------------------------------------- in plain numbers

    def answer(self, asked: Asked, shape: Shape, cell: int) -> int:
        """What is left to use when the demand is placed there and the device is then in this cell."""
        key = (shape.number * self.usable.cells + cell) * STRIDE + self.numbers(asked)[0]
        found = self.known.get(key)
        return self.reckon(key, asked.wanted, shape, cell) if found is None else found

    def reckon(self, key: int, wanted: Wanted, shape: Shape, cell: int) -> int:
        """The same, of what is not known yet."""
        if len(self.known) >= KNOWN_MAX:
            self.known.clear()
        if wanted[0] == 1 and (wanted[1] < WHOLE_MILLI or self.usable.has_models):
            found = self._share(wanted, shape, cell)
        else:
            found = self._several(wanted, shape, cell)
        self.known[key] = found
        return found

    def _share(self, wanted: Wanted, shape: Shape, cell: int) -> int:
        single, step, steps = self._single, self._step, self.usable.steps
        begin, cells = self._table_of, self.usable.cells
        _, milli, models = wanted
        there = shape.whole if self.usable.has_whole else 0
        total = self._together(shape, cell, there) if there else 0
        broken = self._together(shape, cell, there - 1) - total if there else 0
        best, chosen = 0, ANY
        for place, number, free, model in shape.accelerators:
            at = begin[model] * cells + cell
            here = at * steps
            each = single[here + step[free if free < WHOLE_MILLI else WHOLE_MILLI]] * free
            total += each * number
            rest = free - milli
            if rest < 0 or (models is not None and model not in models):
                continue
            change = single[here + step[rest if rest < WHOLE_MILLI else WHOLE_MILLI]] * rest - each
            if there and free >= WHOLE_MILLI:
                change += broken - self._whole[at * self.usable.counts + there - 1] * WHOLE_MILLI
            if chosen == ANY or change > best:
                best, chosen = change, place
        return LACKING if chosen == ANY else (total + best) * PLACES + chosen + 1

    def _together(self, shape: Shape, cell: int, count: int) -> int:
        """Worth of all whole ones to demands for several, were there `count` together."""
        parts = 0
        for _, number, free, model in shape.accelerators:
            if free >= WHOLE_MILLI:
                at = (self._table_of[model] * self.usable.cells + cell) * self.usable.counts
                parts += self._whole[at + count] * WHOLE_MILLI * number
        return parts

    def _several(self, wanted: Wanted, shape: Shape, cell: int) -> int:
        single, step, steps = self._single, self._step, self.usable.steps
        count, _, models = wanted
        total, first, lacking, left = 0, ANY, count, shape.whole - count
        if left < 0:
            return LACKING
        for place, number, free, model in shape.accelerators:
            at = self._table_of[model] * self.usable.cells + cell
            if free >= WHOLE_MILLI:
                if lacking and (models is None or model in models):
                    first = place
                    taken = min(lacking, number)
                    number, lacking = number - taken, lacking - taken
                if self.usable.has_whole:
                    total += self._whole[at * self.usable.counts + left] * WHOLE_MILLI * number
            total += single[at * steps + step[free if free < WHOLE_MILLI else WHOLE_MILLI]] * free * number
        return LACKING if lacking else total * PLACES + (first if count == 1 else ANY) + 1

    # ------------------------------------------------------------- in columns

    def answers(self, asked: Asked, rows: Ints, cells: Places) -> Ints:
        """The same for these devices, which are then in these cells."""
        own, whichever = self.numbers(asked)
        if asked.models is None:
            return self._answers_of(asked.wanted, own, rows, cells)
        model, answers = self.shapes.model[rows], np.full(len(rows), LACKING)
        for places, wanted, number in (
            (np.flatnonzero(_among(model, asked.models)), asked.whichever, whichever),
            (np.flatnonzero(model == MIXED), asked.wanted, own),
        ):
            if len(places):
                answers[places] = self._answers_of(wanted, number, rows[places], cells[places])
        return answers

    def _answers_of(self, wanted: Wanted, number: int, rows: Ints, cells: Places) -> Ints:
        keys = (self.shapes.number[rows] * self.usable.cells + cells) * STRIDE + number
        slots = (keys.view(np.uint64) * _SPREAD >> np.uint64(64 - _SLOTS_BITS)).view(np.int64)
        answers = self._answers[slots]
        missing = np.flatnonzero(self._keys[slots] != keys)
        if len(missing):
            keys, slots = keys[missing], slots[missing]
            answers[missing] = found = self._found(wanted, rows[missing], cells[missing], keys)
            # Some may share a slot; who is written last is the same for both arrays, or it is told here.
            self._keys[slots] = keys
            mine = self._keys[slots] == keys
            self._answers[slots[mine]] = found[mine]
        return answers

    def _found(self, wanted: Wanted, rows: Ints, cells: Places, keys: Ints) -> Ints:
        """Answers that are known in plain numbers at best; equal keys are looked at once."""
        listed = keys.tolist()
        found = dict(zip(listed, map(self.known.get, listed), strict=True))
        new = [at for at, key in enumerate(listed) if found[key] is None]
        if len(new) > _FEW:
            new = list({listed[at]: at for at in new}.values())
            made = self._made(wanted, rows[new], cells[new])
            found |= zip([listed[at] for at in new], made, strict=True)
        else:
            for at in new:
                if found[key := listed[at]] is None:
                    shape = self.shapes.numbered(self.shapes.number.item(rows[at]))
                    found[key] = self.reckon(key, wanted, shape, cells.item(at))
        return np.array([found[key] for key in listed], np.int64)

    def _made(self, wanted: Wanted, rows: Ints, cells: Places) -> list[int]:
        if wanted[0] == 1 and (wanted[1] < WHOLE_MILLI or self.usable.has_models):
            left, chosen, lacking = self._share_of(wanted, rows, cells)
        else:
            left, chosen, lacking = self._several_of(wanted, rows, cells)
        made: list[int] = np.where(lacking, LACKING, left * PLACES + chosen + 1).tolist()
        return made

    def _laid_out(self, wanted: Wanted, rows: Ints, cells: Places) -> tuple[Places, Ints, Flags]:
        """(cells, milli free, whether it suits), one by accelerator."""
        view, models = self.view, wanted[2]
        free, model = np.maximum(view.accel_free[rows], 0), view.accel_model[rows]
        suits = np.ones(free.shape, np.bool_) if models is None else np.isin(model, models)
        return cells[:, None] + self.usable.table(model), free, suits

    def _share_of(self, wanted: Wanted, rows: Ints, cells: Places) -> tuple[Ints, Ints, Flags]:
        """With a share taken from the best accelerator of each device, and which that is."""
        usable, milli = self.usable, wanted[1]
        each_cell, free, suits = self._laid_out(wanted, rows, cells)
        rest = free - milli
        each, after = usable.single_of(each_cell, free), usable.single_of(each_cell, np.maximum(rest, 0))
        after -= each
        if usable.has_whole:
            whole = free >= WHOLE_MILLI
            count = whole.sum(axis=1)
            kept = usable.whole_of(each_cell, whole, count)
            fewer = usable.whole_of(each_cell, whole, np.maximum(count - 1, 0))
            each += kept
            after += whole * ((fewer - kept).sum(axis=1)[:, None] - fewer)
        lacking = (rest < 0) | ~suits
        after[lacking] = _NEVER
        left: Ints = after.max(axis=1) + each.sum(axis=1)
        nowhere: Flags = np.logical_and.reduce(lacking, axis=1)
        return left, after.argmax(axis=1), nowhere

    def _several_of(self, wanted: Wanted, rows: Ints, cells: Places) -> tuple[Ints, Ints, Flags]:
        """With the first whole accelerators taken, as many as the demand wants; perhaps none."""
        usable, count = self.usable, wanted[0]
        each_cell, free, suits = self._laid_out(wanted, rows, cells)
        each, whole = usable.single_of(each_cell, free), free >= WHOLE_MILLI
        if usable.has_whole:
            each += usable.whole_of(each_cell, whole, np.maximum(whole.sum(axis=1) - count, 0))
        able = whole & suits
        if count:
            each[able & (able.cumsum(axis=1) <= count)] = 0
        places = able.argmax(axis=1) if count == 1 else np.full(len(rows), ANY)
        left: Ints = each.sum(axis=1)
        lacking: Flags = able.sum(axis=1) < count
        return left, places, lacking


def _among(values: Ints, some: tuple[int, ...]) -> Flags:
    """As `isin`, but quicker for a handful."""
    found = np.zeros(len(values), np.bool_)
    for one in some:
        found |= values == one
    return found
