"""Popularity: which kinds of demand usually arrive, learned from those that did.

Rule of this file: it sees arrivals and nothing else. A kind is what a demand asks of a
device's accelerators, processor, memory and links; equal kinds are counted together. Old
arrivals weigh less: whenever `WINDOW` have been counted all counts are halved, so a fleet
whose work changes is understood anew. A table is made from the counts only now and then
(`tables`), because everything scored with the old one is forgotten then.
Rejected: a table given by hand (wrong next month); one that moves with every arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

from controller.scheduler.view import GPU, SLOTS, WHOLE_MILLI, Demand
from protocol.resources import NAMES

WINDOW = 16_384
"""Arrivals until all are halved: about two tables' worth of noise below one per cent."""
FIRST = 4
"""Arrivals until the first table that is more than the prior."""
GROWTH = 8
"""The next table is made when so many times the arrivals have been counted: early tables are rough."""
STEP = WINDOW // 2
"""And at the latest after so many more."""
KINDS_MAX = 512
"""Beyond that the rarest half is forgotten: what is so rare decides nothing."""
FED = tuple(i for i in range(len(NAMES)) if i not in (GPU, SLOTS))
"""Resources that a task needs beside its accelerators, and without which those lie idle."""

_fed: Callable[[tuple[int, ...]], tuple[int, ...]] = itemgetter(*FED)


class DemandKind(NamedTuple):
    """`amounts` in the order of `FED`; `accelerators` wanted and `milli` of each; `models` that will do."""

    amounts: tuple[int, ...]
    accelerators: int
    milli: int
    models: tuple[str, ...] = ()

    @property
    def total_milli(self) -> int:
        return self.accelerators * self.milli


_NOTHING = (0,) * len(FED)
PRIOR = {DemandKind(_NOTHING, 1, milli): 1.0 for milli in (WHOLE_MILLI, WHOLE_MILLI // 2, WHOLE_MILLI // 4)}
"""Before anything arrived: wholes, halves and quarters, so that the first tasks leave accelerators whole."""


def kind_of(demand: Demand) -> DemandKind:
    """A demand without what only single devices know of (extras, labels)."""
    count, milli = demand.accelerators
    return DemandKind(_fed(demand.resources), count, milli, tuple(sorted(demand.models)))


class Popularity:
    """Counts of kinds. `tables` rises whenever enough has arrived that a new table is due."""

    def __init__(self) -> None:
        self.tables = 0
        self._counts: dict[DemandKind, float] = dict(PRIOR)
        self._total = 0
        self._next = FIRST

    def note(self, kind: DemandKind, tasks: int = 1) -> None:
        """`tasks` of this kind arrived; told once, whether they find room or not."""
        self._counts[kind] = self._counts.get(kind, 0.0) + tasks
        self._total += tasks
        if len(self._counts) > KINDS_MAX:
            self._forget_rare()
        if self._total < self._next:
            return
        while self._total >= WINDOW:
            self._counts = {kind: count / 2 for kind, count in self._counts.items()}
            self._total //= 2
        self._next = min(self._total * GROWTH, self._total + STEP)
        self.tables += 1

    def shares(self) -> dict[DemandKind, float]:
        """Each kind's share of all arrivals; they sum to 1."""
        total = sum(self._counts.values())
        return {kind: count / total for kind, count in self._counts.items()}

    def _forget_rare(self) -> None:
        kept = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[: KINDS_MAX // 2]
        self._counts = dict(kept)
