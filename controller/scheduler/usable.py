"""Usable: how much of a device's free accelerators the usual demands could still use.

After "Beware of Fragmentation" (USENIX ATC'23): of what is free, that which a demand can't
use is a fragment for it; a device's measure is the mean over the usual demands. The paper's
loop over demands becomes a look-up, because of one accelerator with `v` milli free a demand
can use all or nothing: its mean use is v x (popularity of what fits into `v`, the free
processor and the free memory), a cumulative sum over three ordered axes. Popularity is in
whole `PARTS`, so that sums are exact, in whatever order they are made.

Added to the paper: what lies idle because processor, memory or links run out before the
accelerators do (`Starved`). The paper sees it only once not a single task fits any more.
Other resources than processor and memory have no axis; they count in `Starved` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.scheduler.popularity import FED, DemandKind
from controller.scheduler.view import CPU, GPU, WHOLE_MILLI, Flags, Floats, Ints
from protocol.limits import ACCELERATORS_MAX
from protocol.resources import NAMES

PARTS = 1 << 20
"""Of all arrivals; a kind's popularity is so many of them."""
LEVELS_MAX = 96
"""Steps of an axis. More kinds than that share steps, rounded up: a fit is never claimed in vain."""
MEMORY = NAMES.index("memory_mib")
_CPU, _MEMORY = FED.index(CPU), FED.index(MEMORY)
Places = npt.NDArray[np.intp]


class Axis:
    """Ordered steps of one amount: `at(x)` of a device is how many steps `x` covers."""

    def __init__(self, wanted: list[int]) -> None:
        steps = np.unique(np.array(wanted or [0], np.int64))
        if len(steps) > LEVELS_MAX:
            steps = np.unique(steps[np.linspace(0, len(steps) - 1, LEVELS_MAX).round().astype(np.intp)])
        self.steps = steps
        self.listed: list[int] = steps.tolist()
        self.size = len(steps) + 1

    def at(self, free: Ints) -> Places:
        return self.steps.searchsorted(free, "right")

    def of(self, wanted: int) -> int:
        """The place from which on a demand of so much fits."""
        return int(self.steps.searchsorted(wanted, "left")) + 1


@dataclass(slots=True)
class Starved:
    """What of a device's free accelerators one resource can't feed.

    `knots`: amounts per milli at which a kind stops to starve. Between two of them the idle
    milli are `of_milli` x free milli - `of_room` x free amount; beyond the last they are none.
    """

    resource: int
    knots: Floats
    of_milli: Floats
    of_room: Floats

    def idle(self, room: Ints, milli: Ints) -> Floats:
        at = self.knots.searchsorted(room / np.maximum(milli, 1), "right")
        some: Floats = self.of_milli.take(at) * milli
        some -= self.of_room.take(at) * room
        return some


class Usable:
    """The table made of one state of popularity, for the accelerator models known then.

    `single` and `whole` are flat; an index is made of the device's cell on the axes and, for
    `single`, the step of one accelerator's free milli, for `whole` the number of whole ones.
    """

    def __init__(self, shares: dict[DemandKind, float], models: dict[str, int]) -> None:
        kinds = [(kind, round(share * PARTS)) for kind, share in shares.items() if kind.accelerators]
        self.models = len(models)
        self.cpu = Axis([k.amounts[_CPU] for k, _ in kinds])
        self.memory = Axis([k.amounts[_MEMORY] for k, _ in kinds])
        milli = Axis([k.milli for k, _ in kinds if k.accelerators == 1])
        self.step_of_milli = milli.at(np.arange(WHOLE_MILLI + 1))
        self.steps, self.counts = milli.size, ACCELERATORS_MAX + 1
        self.has_whole = any(k.accelerators > 1 for k, _ in kinds)
        self.cells = self.cpu.size * self.memory.size
        patterns = self._patterns(kinds, models)
        self.has_models = len(patterns) > 1
        shape = (len(patterns), self.cpu.size, self.memory.size)
        single, whole = np.zeros((*shape, self.steps), np.int64), np.zeros((*shape, self.counts), np.int64)
        for t, allowed in enumerate(patterns):
            for (kind, parts), allows in zip(kinds, allowed, strict=True):
                at = (t, self.cpu.of(kind.amounts[_CPU]), self.memory.of(kind.amounts[_MEMORY]))
                if allows and kind.accelerators == 1:
                    single[(*at, milli.of(kind.milli))] += parts
                elif allows and kind.accelerators < self.counts:
                    whole[(*at, kind.accelerators)] += parts
        self.single, self.whole = _cumulative(single), _cumulative(whole)
        self.same = self._same()
        """By cell, the first one with the same entries in all tables: nine of ten are like another."""
        self.same_listed: list[int] = self.same.tolist()
        self.starved = _starved(shares)
        self.looked_at = tuple(sorted({CPU, MEMORY, GPU, *(s.resource for s in self.starved)}))
        """Resources of a device that matter to its worth."""

    def _patterns(
        self, kinds: list[tuple[DemandKind, int]], models: dict[str, int]
    ) -> list[tuple[bool, ...]]:
        """The different answers of models to "which kinds may run on you", the unknown model's first."""
        patterns = {tuple(not kind.models for kind, _ in kinds): 0}
        self.table_of = np.zeros(len(models) + 1, np.intp)
        """By model; the last is for what is no known model, index -1."""
        for name, index in models.items():
            allowed = tuple(not kind.models or name in kind.models for kind, _ in kinds)
            self.table_of[index] = patterns.setdefault(allowed, len(patterns))
        return list(patterns)

    def _same(self) -> Places:
        first: dict[bytes, int] = {}
        single = self.single.reshape(-1, self.cells, self.steps).transpose(1, 0, 2).reshape(self.cells, -1)
        whole = self.whole.reshape(-1, self.cells, self.counts).transpose(1, 0, 2).reshape(self.cells, -1)
        entries = np.concatenate([single, whole], axis=1)
        found = [first.setdefault(row.tobytes(), cell) for cell, row in enumerate(entries)]
        return np.array(found, np.intp)

    # ------------------------------------------------------------- look-ups, in columns

    def cell(self, cpu: Ints, memory: Ints) -> Places:
        """The place of devices with so much left on the first two axes."""
        return self.same.take(self.cpu.at(cpu) * self.memory.size + self.memory.at(memory))

    def table(self, models: npt.NDArray[np.int16]) -> Places:
        """What to add to a cell for accelerators of these models."""
        return self.table_of.take(models, mode="wrap") * self.cells

    def single_of(self, cells: Places, free: Ints) -> Ints:
        """Parts x milli of each accelerator that a usual demand for one of them could use."""
        mean = self.single.take(cells * self.steps + self.step_of_milli.take(free, mode="clip"))
        mean *= free
        return mean

    def idle(self, room: dict[int, Ints]) -> Floats:
        """Milli that the scarcest resource can't feed; `room` by resource."""
        idle = np.zeros(room[GPU].shape)
        for starved in self.starved:
            np.maximum(idle, starved.idle(room[starved.resource], room[GPU]), out=idle)
        return idle

    def whole_of(self, cells: Places, whole: Flags, count: Ints) -> Ints:
        """The same of demands for several whole ones, where a device has `count` of them together."""
        mean = self.whole.take(cells * self.counts + count[:, None])
        return mean * (whole * WHOLE_MILLI)


def _cumulative(parts: Ints) -> Ints:
    for axis in (1, 2, 3):
        np.cumsum(parts, axis=axis, out=parts)
    return parts.ravel()


def _starved(shares: dict[DemandKind, float]) -> list[Starved]:
    """One curve per resource that demands for accelerators need.

    A kind that needs `a` per milli leaves idle what exceeds room / a. Demands without
    accelerators eat from the same bowl, so every need is raised by their part of it.
    """
    curves = []
    milli = sum(share * kind.total_milli for kind, share in shares.items())
    for place, resource in enumerate(FED):
        needs: dict[float, float] = {}
        beside, fed = 0.0, 0.0
        for kind, share in shares.items():
            if not kind.accelerators:
                beside += share * kind.amounts[place]
            elif kind.amounts[place]:
                each = kind.amounts[place] / kind.total_milli
                needs[each] = needs.get(each, 0.0) + share * kind.total_milli / milli
                fed += share * kind.amounts[place]
        if not fed:
            continue
        knots = np.array(sorted(needs)) * (1.0 + beside / fed)
        weights = np.array([needs[each] for each in sorted(needs)])
        of_milli = np.append(weights[::-1].cumsum()[::-1], 0.0)
        of_room = np.append((weights / knots)[::-1].cumsum()[::-1], 0.0)
        curves.append(Starved(resource, knots, of_milli, of_room))
    return curves
