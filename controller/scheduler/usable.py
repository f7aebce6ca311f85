"""Usable: how much of a device's free accelerators the usual demands could still use.

After "Beware of Fragmentation" (USENIX ATC'23): of what is free, that which a demand can't
use is a fragment for it; a device's measure is the mean over the usual demands. The paper's
loop over demands becomes a look-up, because of one accelerator with `v` milli free a demand
can use all or nothing: its mean use is v x (popularity of what fits into `v`, the free
processor and the free memory), a cumulative sum over three ordered axes.

Added to the paper: what lies idle because processor, memory or links run out before the
accelerators do (`Starved`). The paper sees it only once not a single task fits any more.
Other resources than processor and memory have no axis; they count in `Starved` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.scheduler.popularity import FED, Kind
from controller.scheduler.view import CPU, GPU, WHOLE_MILLI, Flags, Floats, Ints
from protocol.limits import ACCELERATORS_MAX
from protocol.resources import NAMES

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
        self.size = len(steps) + 1

    def at(self, free: Ints) -> Places:
        return self.steps.searchsorted(free, "right")

    def of(self, wanted: int) -> int:
        """The place from which on a demand of so much fits."""
        return int(self.steps.searchsorted(wanted, "left")) + 1


@dataclass(slots=True)
class Starved:
    """The share of free accelerators that a resource can't feed, by how much of it there is per milli."""

    resource: int
    per_milli: Floats
    share: Floats

    def of(self, free: Ints, milli: Ints) -> Floats:
        """Milli that would lie idle; piecewise linear, 0 where there is plenty."""
        idle: Floats = np.interp(free / np.maximum(milli, 1), self.per_milli, self.share)
        idle *= milli
        return idle


class Usable:
    """The table made of one state of popularity, for the accelerator models known then.

    `single` and `whole` are flat; an index is made of the device's place on the axes and,
    for `single`, the step of one accelerator's free milli, for `whole` the number of whole ones.
    """

    def __init__(self, shares: dict[Kind, float], models: dict[str, int]) -> None:
        kinds = [(kind, share) for kind, share in shares.items() if kind.accelerators]
        self.models = len(models)
        self.cpu = Axis([k.amounts[_CPU] for k, _ in kinds])
        self.memory = Axis([k.amounts[_MEMORY] for k, _ in kinds])
        milli = Axis([k.milli for k, _ in kinds if k.accelerators == 1])
        self.step_of_milli = milli.at(np.arange(WHOLE_MILLI + 1))
        self.steps, self.counts = milli.size, ACCELERATORS_MAX + 1
        self.has_whole = any(k.accelerators > 1 for k, _ in kinds)
        self._cells = self.cpu.size * self.memory.size
        patterns = self._patterns(kinds, models)
        self.has_models = len(patterns) > 1
        shape = (len(patterns), self.cpu.size, self.memory.size)
        single, whole = np.zeros((*shape, self.steps)), np.zeros((*shape, self.counts))
        for t, allowed in enumerate(patterns):
            for (kind, share), allows in zip(kinds, allowed, strict=True):
                at = (t, self.cpu.of(kind.amounts[_CPU]), self.memory.of(kind.amounts[_MEMORY]))
                if allows and kind.accelerators == 1:
                    single[(*at, milli.of(kind.milli))] += share
                elif allows and kind.accelerators < self.counts:
                    whole[(*at, kind.accelerators)] += share
        self.single, self.whole = _cumulative(single), _cumulative(whole)
        self.starved = _starved(shares)
        self.looked_at = sorted({CPU, MEMORY, GPU, *(starved.resource for starved in self.starved)})
        """Resources that the measure needs of a device."""

    def _patterns(self, kinds: list[tuple[Kind, float]], models: dict[str, int]) -> list[tuple[bool, ...]]:
        """The different answers of models to "which kinds may run on you", the unknown model's first."""
        patterns = {tuple(not kind.models for kind, _ in kinds): 0}
        self._table_of = np.zeros(len(models) + 1, np.intp)
        for name, index in models.items():
            allowed = tuple(not kind.models or name in kind.models for kind, _ in kinds)
            self._table_of[index] = patterns.setdefault(allowed, len(patterns))
        return list(patterns)

    def cell(self, cpu: Ints, memory: Ints) -> Places:
        """The place of devices with so much left on the first two axes."""
        return self.cpu.at(cpu) * self.memory.size + self.memory.at(memory)

    def table(self, models: npt.NDArray[np.int16]) -> Places:
        """What to add to a cell for accelerators of these models; unknown ones are at the end, index -1."""
        return self._table_of.take(models, mode="wrap") * self._cells

    def single_of(self, cells: Places, free: Ints) -> Floats:
        """Milli of each accelerator that a usual demand for one of them could use, on average."""
        mean = self.single.take(cells * self.steps + self.step_of_milli.take(free, mode="clip"))
        mean *= free
        return mean

    def whole_of(self, cells: Places, whole: Flags, count: Ints) -> Floats:
        """The same of demands for several whole ones, where a device has `count` of them together."""
        if not self.has_whole:
            return np.zeros((1, 1))
        mean = self.whole.take(cells * self.counts + count[:, None])
        return np.multiply(mean, whole * float(WHOLE_MILLI))

    def idle(self, room: dict[int, Ints]) -> Floats | None:
        """Milli of each device that its scarcest resource can't feed; None where nobody asks for any."""
        worst: Floats | None = None
        for starved in self.starved:
            idle = starved.of(room[starved.resource], room[GPU])
            worst = idle if worst is None else np.maximum(worst, idle, out=worst)
        return worst


def _cumulative(mass: npt.NDArray[np.float64]) -> Floats:
    for axis in (1, 2, 3):
        np.cumsum(mass, axis=axis, out=mass)
    return mass.ravel()


def _starved(shares: dict[Kind, float]) -> list[Starved]:
    """One curve per resource that demands for accelerators need.

    A kind that needs `a` per milli leaves idle what exceeds free / a. Demands without
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
        wanted = np.array(sorted(needs)) * (1.0 + beside / fed)
        weights = np.array([needs[each] for each in sorted(needs)])
        knots = np.concatenate([[0.0], wanted])
        idle = (np.maximum(0.0, 1.0 - knots[:, None] / wanted) * weights).sum(axis=1)
        curves.append(Starved(resource, knots, idle))
    return curves
