"""Closely: the gain of placing one demand on one device, in plain numbers.

Between two tasks of a kind few devices change, and for few a call of numpy costs more than
the numbers in it. This is `fragmentation` once more, for one device at a time, with the
same sums and so the same gains to the last bit; a property test holds that. What was read
of a device is remembered until its row changes, for all demands together; accelerators of
a device that are alike are looked at once.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from controller.scheduler.fragmentation import ANY, Fragmentation
from controller.scheduler.usable import MEMORY, PARTS
from controller.scheduler.view import CPU, GPU, WHOLE_MILLI, Demand, View

_PART = 1.0 / PARTS


class Alike(NamedTuple):
    """Accelerators of a device with the same model and as much free; `place`: the first of them.

    `table`, `table_whole`: where the tables of their model begin; `here`: as `table`, at their step.
    """

    place: int
    number: int
    free: int
    model: int
    table: int
    here: int
    table_whole: int


class Seen(NamedTuple):
    """What a device has left, and its worth as it is."""

    room: tuple[int, ...]
    accelerators: tuple[Alike, ...]
    whole: int
    parts: int
    idle: float


class Asked:
    """A demand, as it is looked up; what it needs is the same on every device."""

    def __init__(self, view: View, demand: Demand) -> None:
        self.needs = [(i, amount) for i, amount in enumerate(demand.resources) if amount]
        self.taken = tuple(demand.resources)
        self.count, self.milli = demand.accelerators
        self.models = view.allowed_models(demand) if demand.models else None


class Closely:
    """Gains device by device. `follow` before a look at what may have changed."""

    def __init__(self, view: View, measure: Fragmentation) -> None:
        self.view, self.measure = view, measure
        self._seen: dict[int, Seen] = {}
        self._era = self._logged = self._generation = 0
        self._refresh()

    def follow(self) -> None:
        """Forgets what changed."""
        view = self.view
        if self._generation != self.measure.generation or view.era != self._era:
            self._refresh()
            return
        for row in view.log[self._logged :]:
            self._seen.pop(row, None)
        self._logged = len(view.log)

    def _refresh(self) -> None:
        """A new table, or everything may have changed."""
        usable = self.usable = self.measure.usable
        self._generation, self._era = self.measure.generation, self.view.era
        self._logged = len(self.view.log)
        self._seen.clear()
        self._single, self._whole = usable.single.data, usable.whole.data
        self._step: list[int] = usable.step_of_milli.tolist()
        self._table_of: list[int] = usable.table_of.tolist()
        self._cpu, self._memory, self._rows = usable.cpu.listed, usable.memory.listed, usable.memory.size
        self._starved = [
            (s.resource, s.knots.tolist(), s.of_milli.tolist(), s.of_room.tolist()) for s in usable.starved
        ]

    # ------------------------------------------------------------- a device as it is

    def seen(self, row: int) -> Seen:
        """The device as it is."""
        found = self._seen.get(row)
        if found is None:
            view = self.view
            found = self._seen[row] = self.look(
                tuple([int(column[row]) for column in view.free]),
                view.accel_free[row].tolist(),
                view.accel_model[row].tolist(),
            )
        return found

    def look(self, room: tuple[int, ...], free: list[int], models: list[int]) -> Seen:
        """A device that had so much left."""
        usable = self.usable
        accelerators = self._alike(free, models)
        whole = sum([a.number for a in accelerators if a.free >= WHOLE_MILLI])
        cell = bisect_right(self._cpu, room[CPU]) * self._rows + bisect_right(self._memory, room[MEMORY])
        parts = 0
        for _, number, milli, _, _, here, _ in accelerators:
            parts += self._single[cell * usable.steps + here] * milli * number
        if whole and usable.has_whole:
            parts += self._together(accelerators, cell, whole)
        return Seen(room, accelerators, whole, parts, self._idle(room, (0,) * len(room)))

    def worth(self, seen: Seen) -> float:
        """What usual demands could use of it, less what would lie idle; in milli."""
        return seen.parts * _PART - seen.idle

    def _alike(self, free: list[int], models: list[int]) -> tuple[Alike, ...]:
        """Those with anything free; of several models on one device each for itself, in their order."""
        with_room = [place for place, milli in enumerate(free) if milli > 0]
        mixed = self.usable.has_models and len({models[place] for place in with_room}) > 1
        places: dict[int, list[int]] = {}
        for place in with_room:
            places.setdefault(~place if mixed else free[place], []).append(place)
        found = []
        for place, *others in places.values():
            milli, model = free[place], models[place]
            begin = self._table_of[model] * self.usable.cells
            table, table_whole = begin * self.usable.steps, begin * self.usable.counts
            here = table + self._step[milli if milli < WHOLE_MILLI else WHOLE_MILLI]
            found.append(Alike(place, 1 + len(others), milli, model, table, here, table_whole))
        return tuple(found)

    def _together(self, accelerators: tuple[Alike, ...], cell: int, count: int) -> int:
        """Worth of all whole ones to demands for several, were there `count` together."""
        at, parts = cell * self.usable.counts + count, 0
        for a in accelerators:
            if a.free >= WHOLE_MILLI:
                parts += self._whole[at + a.table_whole] * WHOLE_MILLI * a.number
        return parts

    def _idle(self, room: tuple[int, ...], taken: tuple[int, ...]) -> float:
        """Milli that the scarcest resource can't feed once so much was taken."""
        milli, worst = room[GPU] - taken[GPU], 0.0
        for resource, knots, of_milli, of_room in self._starved:
            left = room[resource] - taken[resource]
            each = left / (milli if milli > 1 else 1)
            if each >= knots[-1]:
                continue
            at = bisect_right(knots, each)
            idle = of_milli[at] * milli - of_room[at] * left
            if idle > worst:
                worst = idle
        return worst

    # ------------------------------------------------------------- a demand on it

    def gain(self, asked: Asked, row: int) -> tuple[float, int] | None:
        """(worth gained in milli, accelerator), or None where it doesn't fit."""
        return self.gain_in(asked, self._seen.get(row) or self.seen(row))

    def gain_in(self, asked: Asked, seen: Seen) -> tuple[float, int] | None:
        """The same of a device that was looked at."""
        room, taken = seen.room, asked.taken
        for resource, amount in asked.needs:
            if room[resource] < amount:
                return None
        cell = bisect_right(self._cpu, room[CPU] - taken[CPU]) * self._rows
        cell += bisect_right(self._memory, room[MEMORY] - taken[MEMORY])
        if asked.count == 1 and (asked.milli < WHOLE_MILLI or self.usable.has_models):
            found = self._share(seen, cell, asked)
        else:
            found = self._several(seen, cell, asked)
        if found is None:
            return None
        # In the same order as in columns: the sum of these may else differ in its last bit.
        return (found[0] - seen.parts) * _PART + seen.idle - self._idle(room, taken), found[1]

    def _share(self, seen: Seen, cell: int, asked: Asked) -> tuple[int, int] | None:
        single, step, milli, models = self._single, self._step, asked.milli, asked.models
        at, at_whole = cell * self.usable.steps, 0
        total, best, chosen, broken = 0, 0, ANY, 0
        if seen.whole and self.usable.has_whole:
            total = self._together(seen.accelerators, cell, seen.whole)
            broken = self._together(seen.accelerators, cell, seen.whole - 1) - total
            at_whole = cell * self.usable.counts + seen.whole - 1
        for place, number, free, model, table, here, table_whole in seen.accelerators:
            each = single[at + here] * free
            total += each * number
            rest = free - milli
            if rest < 0 or (models is not None and model not in models):
                continue
            change = single[at + table + step[rest if rest < WHOLE_MILLI else WHOLE_MILLI]] * rest - each
            if at_whole and free >= WHOLE_MILLI:
                change += broken - self._whole[at_whole + table_whole] * WHOLE_MILLI
            if chosen == ANY or change > best:
                best, chosen = change, place
        return None if chosen == ANY else (total + best, chosen)

    def _several(self, seen: Seen, cell: int, asked: Asked) -> tuple[int, int] | None:
        single, models, wanted = self._single, asked.models, asked.count
        at, at_whole = cell * self.usable.steps, cell * self.usable.counts + seen.whole - wanted
        if wanted > seen.whole:
            return None
        total, first = 0, ANY
        for place, number, free, model, _, here, table_whole in seen.accelerators:
            if free >= WHOLE_MILLI:
                if wanted and (models is None or model in models):
                    first = place
                    taken = min(wanted, number)
                    number, wanted = number - taken, wanted - taken
                if self.usable.has_whole:
                    total += self._whole[at_whole + table_whole] * WHOLE_MILLI * number
            total += single[at + here] * free * number
        return None if wanted else (total, first if asked.count == 1 else ANY)
