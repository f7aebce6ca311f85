"""Victims: the cheapest reservations to end on ONE device so that a demand fits there.

Cheapest, in this order: the lowest priority of the most important victim; the fewest
victims; the least work lost. What leaves anyway costs nothing, so a device where waiting
is enough beats all others. No victim is taken that isn't needed.

One expression over the fleet per priority finds the devices where the sums suffice; the 32
that lack least are then looked at exactly, set by set from the smallest size. Where there
are too many sets to try, victims are taken by what they cover, and those that proved
unneeded are spared: no larger than needed, perhaps not the fewest.
It ends nothing, and knows neither tasks nor time.
Rejected: sets over several devices (each would free room for others as well); a limit on
how many victims one may cost (priorities say what is worth what).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from controller.scheduler.view import (
    DOCUMENT_BYTES_LEAST,
    SLOTS,
    Demand,
    Flags,
    Floats,
    Ints,
    Share,
    View,
)
from protocol.resources import NAMES

LEAVES = -1
"""Priority of what leaves anyway."""
DEVICES_TRIED = 32
SETS_TRIED = 2_000
"""Of one size on one device: some 2 ms."""
_BYTES = len(NAMES)


class Endable(NamedTuple):
    """A reservation; `lost_ms`: how long its run has gone on, which ending it throws away."""

    priority: int
    share: Share
    entry_bytes: int = 0
    lost_ms: int = 0


class Yielding(NamedTuple):
    """Which of a device's reservations, by their places in the list that was looked at."""

    row: int
    victims: tuple[int, ...]


class Cost(NamedTuple):
    """Smaller is better."""

    priority: int
    victims: int
    lost_ms: int


class Holdings:
    """How much reservations of each priority hold per device: columns that are told what changed."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._sums: dict[int, Ints] = {}
        """Priority -> (resources and document bytes, devices)."""
        self._extras: dict[int, dict[str, Ints]] = {}

    def note(self, row: int, held: Sequence[Endable]) -> None:
        """What is held on a device now, instead of what was."""
        for sums in self._sums.values():
            if row < sums.shape[1]:
                sums[:, row] = 0
        for extras in self._extras.values():
            for column in extras.values():
                column[row : row + 1] = 0
        totals: dict[int, list[int]] = {}
        for priority, share, entry_bytes, _ in held:
            amounts = [*share.resources, entry_bytes]
            before = totals.get(priority)
            # Summed as plain numbers first: a write into a column costs as much as all of these.
            totals[priority] = [a + b for a, b in zip(before, amounts, strict=True)] if before else amounts
            for name, amount in share.extras:
                self._extra(priority, name, row)[row] += amount
        for priority, total in totals.items():
            self._column(priority, row)[:, row] = total

    def _column(self, priority: int, row: int) -> Ints:
        sums = self._sums.get(priority)
        if sums is None or sums.shape[1] <= row:
            wider = np.zeros((_BYTES + 1, max(self.view.count, row + 1)), np.int64)
            if sums is not None:
                wider[:, : sums.shape[1]] = sums
            sums = self._sums[priority] = wider
        return sums

    def _extra(self, priority: int, name: str, row: int) -> Ints:
        columns = self._extras.setdefault(priority, {})
        column = columns.get(name, np.zeros(0, np.int64))
        if len(column) <= row:
            size = max(self.view.count, row + 1)
            column = columns[name] = np.concatenate([column, np.zeros(size - len(column), np.int64)])
        return column

    def levels(self, at_most: int) -> list[int]:
        """Priorities to give way, least important first; the first is always what leaves anyway."""
        return sorted({LEAVES, *(p for p in self._sums if p <= at_most)})

    def sums(self, priority: int, what: int) -> Ints:
        """Of a resource, or `len(NAMES)` for document bytes; as long as the view."""
        sums = self._sums.get(priority)
        return _fitted(sums[what] if sums is not None else None, self.view.count)

    def extras(self, priority: int, name: str) -> Ints:
        return _fitted(self._extras.get(priority, {}).get(name), self.view.count)


def _fitted(column: Ints | None, size: int) -> Ints:
    if column is None:
        return np.zeros(size, np.int64)
    return np.concatenate([column, np.zeros(size - len(column), np.int64)]) if len(column) < size else column


# ------------------------------------------------------------- over the fleet


def cheapest(
    view: View,
    demand: Demand,
    allowed: Flags,
    holdings: Holdings,
    at_most: int,
    held_on: Callable[[int], Sequence[Endable]],
) -> Yielding | None:
    """The best device among the allowed ones, with its victims of priority `at_most`; None: there is none.

    `held_on` lists a device's reservations, those that may not be ended left out; it must tell
    what `holdings` was told.
    """
    left = _Left(view, demand)
    for priority in holdings.levels(at_most):
        left.grow(holdings, priority)
        rows = np.flatnonzero(allowed & left.suffices())
        best: tuple[Cost, Yielding] | None = None
        for row in left.nearest(rows).tolist():
            held = held_on(row)
            victims = on_device(view, demand, row, held, priority)
            if victims is not None:
                found = cost_of(held, victims), Yielding(row, victims)
                best = found if best is None or found[0] < best[0] else best
        if best is not None:
            return best[1]
    return None


def cost_of(held: Sequence[Endable], victims: Sequence[int]) -> Cost:
    """What a set of victims costs."""
    chosen = [held[i] for i in victims]
    return Cost(
        max((h.priority for h in chosen), default=LEAVES), len(chosen), sum(h.lost_ms for h in chosen)
    )


class _Left:
    """What would be free per device if more and more priorities gave way, less what is needed."""

    def __init__(self, view: View, demand: Demand) -> None:
        self.view = view
        everything = slice(0, view.count)
        self.columns: dict[int, Ints] = {}
        for i, amount in enumerate(demand.resources):
            if amount:
                self.columns[i] = view.free[i] - view.amount(demand, i, everything)
        self.columns[SLOTS] = view.free[SLOTS] - max(1, demand.resources[SLOTS])
        self.columns[_BYTES] = view.document_bytes_free - max(DOCUMENT_BYTES_LEAST, demand.entry_bytes)
        nothing = np.zeros(view.count, np.int64)
        self.extras = {n: view.extras_free.get(n, nothing) - amount for n, amount in demand.extras.items()}
        self.lacking = self._lacking()

    def _lacking(self) -> Floats:
        """The largest share of what a device offers that is not free yet."""
        worst = np.zeros(self.view.count)
        for i, column in self.columns.items():
            scale = self.view.scale[i] if i != _BYTES else 1e-6
            np.maximum(worst, -column * scale, out=worst)
        return worst

    def grow(self, holdings: Holdings, priority: int) -> None:
        """This priority gives way, too."""
        for i in self.columns:
            self.columns[i] = self.columns[i] + holdings.sums(priority, i)
        for name in self.extras:
            self.extras[name] = self.extras[name] + holdings.extras(priority, name)

    def suffices(self) -> Flags:
        enough: Flags = np.ones(self.view.count, np.bool_)
        for column in (*self.columns.values(), *self.extras.values()):
            enough &= column >= 0
        return enough

    def nearest(self, rows: Ints) -> Ints:
        """Those that lack least: they need the fewest victims."""
        return rows[np.argsort(self.lacking[rows], kind="stable")[:DEVICES_TRIED]]


# ------------------------------------------------------------- on one device


def on_device(
    view: View, demand: Demand, row: int, held: Sequence[Endable], at_most: int, count_max: int | None = None
) -> tuple[int, ...] | None:
    """The cheapest victims on this device, by their places; None when all would not do, or too few may go."""
    leaving = [h for h in held if h.priority == LEAVES]
    room = _Room(view, demand, row, leaving)
    if room.fits(()):
        return ()
    for priority in sorted({h.priority for h in held if LEAVES < h.priority <= at_most}):
        candidates = [i for i, h in enumerate(held) if LEAVES < h.priority <= priority]
        room.consider(held, candidates)
        if room.fits(candidates):
            victims = room.fewest(held, candidates, count_max if count_max is not None else len(held))
            return victims if count_max is None or len(victims) <= count_max else None
    return None


def share_after(view: View, demand: Demand, row: int, going: Sequence[Share]) -> Share:
    """What the demand would reserve there when these are gone: accelerators that are free then."""
    count, milli = demand.accelerators
    share = view.share(row, demand)
    if not count:
        return share
    free = _accelerators(view, demand, row, going)
    fitting = sorted((f, place) for place, f in enumerate(free) if f >= milli)
    if len(fitting) < count:  # nothing is known to go: the emptiest are the likeliest
        fitting = sorted(((f, place) for place, f in enumerate(free)), key=lambda each: (-each[0], each[1]))
    return share._replace(accelerators=tuple((place, milli) for _, place in fitting[:count]))


def _accelerators(view: View, demand: Demand, row: int, going: Sequence[Share]) -> list[int]:
    """Milli that will be free on each accelerator; 0 on models that won't do."""
    free: list[int] = view.accel_free[row].tolist()
    for share in going:
        for place, milli in share.accelerators:
            if 0 <= place < len(free):
                free[place] += milli
    if demand.models:
        allowed = view.allowed_models(demand)
        free = [f if m in allowed else 0 for f, m in zip(free, view.accel_model[row].tolist(), strict=True)]
    return free


class _Room:
    """One device: what is lacking there, and which sets of reservations would cover it."""

    def __init__(self, view: View, demand: Demand, row: int, leaving: Sequence[Endable]) -> None:
        self.view, self.demand, self.row = view, demand, row
        self.leaving = [h.share for h in leaving]
        self.held: Sequence[Endable] = ()
        own = view.share(row, demand)
        needs = {i: a for i, a in enumerate(own.resources) if a and i != SLOTS}
        lacks: list[tuple[int | str, int]] = [(i, int(a - view.free[i][row])) for i, a in needs.items()]
        lacks.append((SLOTS, int(max(1, own.resources[SLOTS]) - view.free[SLOTS][row])))
        spare = int(view.document_bytes_free[row])
        lacks.append((_BYTES, max(DOCUMENT_BYTES_LEAST, demand.entry_bytes) - spare))
        for name, amount in own.extras:
            free = view.extras_free.get(name)
            lacks.append((name, amount - int(free[row]) if free is not None else amount))
        lacks = [(what, lack - sum(_of(h, what) for h in leaving)) for what, lack in lacks]
        self.lacks = [(what, lack) for what, lack in lacks if lack > 0]
        self.gains: dict[int, tuple[int, ...]] = {}

    def consider(self, held: Sequence[Endable], candidates: Sequence[int]) -> None:
        """Learns what each of them would give."""
        self.held = held
        for i in candidates:
            if i not in self.gains:
                self.gains[i] = tuple(_of(held[i], what) for what, _ in self.lacks)

    def fits(self, chosen: Sequence[int]) -> bool:
        """Whether the demand fits once these are gone."""
        for at, (_, lack) in enumerate(self.lacks):
            if sum(self.gains[i][at] for i in chosen) < lack:
                return False
        count, milli = self.demand.accelerators
        if not count:
            return True
        going = [*self.leaving, *(self.held[i].share for i in chosen)]
        return sum(f // milli for f in _accelerators(self.view, self.demand, self.row, going)) >= count

    def fewest(self, held: Sequence[Endable], candidates: Sequence[int], most: int) -> tuple[int, ...]:
        """The smallest set that does, of these the one that loses least; all, where `most` are too few."""
        shared = bool(self.demand.accelerators[0])
        useful = [i for i in candidates if any(self.gains[i]) or (shared and held[i].share.accelerators)]
        for size in range(self._least(useful), len(useful) + 1):
            if size > most:
                return tuple(candidates)
            if comb(len(useful), size) > SETS_TRIED:
                return self._covering(held, useful)
            sets = [s for s in combinations(useful, size) if self.fits(s)]
            if sets:
                return min(sets, key=lambda chosen: (cost_of(held, chosen), chosen))
        raise AssertionError("all of them together did")

    def _least(self, useful: Sequence[int]) -> int:
        """No set smaller than that can do."""
        least = 1
        for at, (_, lack) in enumerate(self.lacks):
            covered, size = 0, 0
            for gain in sorted((self.gains[i][at] for i in useful), reverse=True):
                if covered >= lack:
                    break
                covered, size = covered + gain, size + 1
            least = max(least, size)
        return least

    def _covering(self, held: Sequence[Endable], useful: Sequence[int]) -> tuple[int, ...]:
        left, chosen = list(useful), list[int]()
        while not self.fits(chosen):
            best = max(left, key=lambda i: (self._covers(i, chosen), -held[i].lost_ms, -i))
            left.remove(best)
            chosen.append(best)
        for i in sorted(chosen, key=lambda i: (-held[i].priority, -held[i].lost_ms, i)):
            rest = [other for other in chosen if other != i]
            if self.fits(rest):
                chosen = rest
        return tuple(sorted(chosen))

    def _covers(self, i: int, chosen: Sequence[int]) -> float:
        """How much of what is still lacking it covers, each lack counted as 1."""
        total = 0.0
        for at, (_, lack) in enumerate(self.lacks):
            still = lack - sum(self.gains[c][at] for c in chosen)
            total += min(max(0, still), self.gains[i][at]) / lack
        if self.demand.accelerators[0]:
            total += self.held[i].share.resources.gpu_milli / (self.demand.resources.gpu_milli + 1)
        return total


def _of(held: Endable, what: int | str) -> int:
    """How much of something a reservation holds."""
    if isinstance(what, str):
        return sum(amount for name, amount in held.share.extras if name == what)
    return held.entry_bytes if what == _BYTES else held.share.resources[what]
