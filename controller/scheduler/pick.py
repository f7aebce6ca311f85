"""Pick: the best device for a demand, again and again, while the view changes.

A `Picker` scores the whole fleet once; after that it looks only at rows that the view's log
names. `many` foretells a whole run of equal tasks at once: the same devices, in the same
order, as picking and reserving one by one (a property test holds it), at 1 µs each.
Ties: the first device in fleet order. It reserves nothing; who does, tells the view.
Rejected: a heap per demand (scores may rise when something is placed, as when packing, and
a heap with stale entries then errs); remembering nothing (a scan per task).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from controller.scheduler.closely import Closely
from controller.scheduler.fragmentation import Fragmentation
from controller.scheduler.groups import Grouping
from controller.scheduler.policies import POLICIES, Policies, Policy
from controller.scheduler.popularity import Popularity
from controller.scheduler.view import (
    DOCUMENT_BYTES_LEAST,
    SLOTS,
    Demand,
    Flags,
    Floats,
    Ints,
    Rows,
    Share,
    View,
)
from protocol.resources import NAMES

NO_DEVICE = -1
OUT = -np.inf
Tops = tuple[tuple[int, float], ...]
"""(row, score), the one that was picked first."""
"""The score of a device that can't take it."""
GROUP_WEIGHT = 1.0
"""Of spreads, beside a policy's total: a job that asks for one wants it before anything else."""
_MEMORY = 1
_ALL = slice(None)
_FEW_ROWS = 16
"""More than this part of all rows: a look at all is cheaper than sorting out which."""
_SINGLY = 4
"""Up to so many rows plain numbers are faster than columns."""
TOPS = 3
"""Devices that a placement remembers with their scores."""
_BLOCK = 10_000
"""Rows scored at once: columns of far more leave the caches, and the system zeroes memory for each anew."""
_PAIRS_LEAST = 2_048
_DEPTH = 4
"""So many copies per device are looked at first; four times more where that was too few."""


class Remembered:
    """Something computed per row that follows the view's log."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._era, self._seen = view.era, len(view.log)
        self.overtaken = False
        """The last look found that much had changed at once, traits perhaps."""

    def changed(self) -> Ints | None:
        """Rows that changed since the last call, each once; None: so many that all are looked at."""
        view, seen = self.view, self._seen
        self._seen = len(view.log)
        self.overtaken = view.era != self._era
        self._era = view.era
        if self.overtaken or self._seen - seen > max(_SINGLY, view.count // _FEW_ROWS):
            return None
        rows = np.array(view.log[seen:], np.int64)
        return rows if len(rows) <= 1 else np.unique(rows)


class Base(Remembered):
    """What a policy thinks of each device whatever the demand; `OUT` where it may take nothing.

    Traits are looked at anew when the view says that much changed (`touch_all`); a row that
    changes meanwhile only opens or shuts, unless the policy places in turn.
    """

    def __init__(self, view: View, policy: Policy) -> None:
        super().__init__(view)
        self.policy = policy
        self.column: Floats = np.zeros(0)
        self._anew()

    def follow(self) -> None:
        """Takes in what changed."""
        rows = self.changed()
        if self.overtaken or len(self.column) != self.view.count or (rows is None and self.policy.in_turn):
            self._anew()
        elif rows is None:
            self.column = self._opened(_ALL)
        elif len(rows):
            if self.policy.in_turn and not self.policy.usable:
                self._traits[rows] = self._traits_of(rows)
            for row in rows.tolist() if len(rows) <= _SINGLY else ():
                self.column[row] = self._traits[row] if self.view.takes(row) else OUT
            if len(rows) > _SINGLY:
                self.column[rows] = self._opened(rows)

    def _anew(self) -> None:
        self._traits = self._traits_of(_ALL)
        self.column = self._opened(_ALL)

    def _traits_of(self, rows: Rows) -> Floats:
        total = np.zeros(len(self.view.turn[rows]))
        for trait, weight in self.policy.traits.values():
            if weight:
                total += weight * trait(self.view, rows)
        return total

    def _opened(self, rows: Rows) -> Floats:
        view = self.view
        return np.where(view.takes(rows), self._traits[rows], OUT)


class Bases:
    """One `Base` per policy, for one view."""

    def __init__(
        self, view: View, popularity: Popularity | None = None, policies: Policies = POLICIES
    ) -> None:
        """`popularity`: what was learned elsewhere, where this view is a copy."""
        self.view, self.policies = view, policies
        self._of: dict[str, Base] = {}
        self.popularity = popularity or Popularity()

    @cached_property
    def fragmentation(self) -> Fragmentation:
        """Dear to make (it sorts the devices by shape), so only where a policy asks for it."""
        return Fragmentation(self.view, self.popularity)

    @cached_property
    def closely(self) -> Closely:
        return Closely(self.view, self.fragmentation)

    def of(self, policy: str) -> Base:
        base = self._of.get(policy)
        if base is None:
            base = self._of[policy] = Base(self.view, self.policies[policy])
        else:
            base.follow()
        return base


class Picker(Remembered):
    """Scores of one demand on every device, kept up with the view."""

    def __init__(self, view: View, demand: Demand, bases: Bases, policy: str) -> None:
        super().__init__(view)
        self.demand, self.bases, self.policy_name = demand, bases, policy
        self.policy = bases.policies[policy]
        self.asked = [i for i in range(len(NAMES)) if demand.resources[i] and i != SLOTS]
        self._fits = [(fit, weight) for fit, weight in self.policy.fits.values() if weight]
        self.eligible = _all_of(demand.eligible)
        self.total = self._whole()
        self._seen_total = self.total
        """What the last pick compared."""

    # ------------------------------------------------------------- scores

    def _whole(self) -> Floats:
        base = self.bases.of(self.policy_name).column
        if len(base) <= _BLOCK:
            return self._score(_ALL, base)
        total = np.empty(len(base))
        for begin in range(0, len(base), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            total[rows] = self._score(rows, base[rows])
        return total

    def follow(self) -> None:
        """Takes in what changed in the view since."""
        rows = self.changed()
        if rows is None or len(self.total) != self.view.count:
            self.eligible = _all_of(self.demand.eligible)
            self.total = self._whole()
        elif len(rows):
            base = self.bases.of(self.policy_name).column
            self.total[rows] = self._score(rows, base[rows])

    def _score(self, rows: Rows, base: Floats) -> Floats:
        """Totals of these devices; `base` is theirs."""
        view, demand = self.view, self.demand
        left = []
        for i in self.asked:
            need = view.scale[i][rows] * view.amount(demand, i, rows)
            left.append(np.subtract(view.share_free[i][rows], need, out=need))
        out = self._narrow(rows)
        if left:
            worst = _least(left)
            lacking = worst < 0.0
            out = lacking if out is None else np.logical_or(out, lacking, out=out)
        else:
            left = [_memory_left(view, rows)]
            worst = left[0]
        total = self._add(base, left, worst)
        if demand.wish is not None:
            total += demand.wish_weight * demand.wish[rows]
        if out is not None:
            np.copyto(total, OUT, where=out)
        return total

    def _add(self, base: Floats, left: list[Floats], worst: Floats) -> Floats:
        total, spare = np.empty_like(worst), np.empty_like(worst)
        so_far = base
        for fit, weight in self._fits:
            so_far = np.add(so_far, np.multiply(fit(left, worst, spare), weight, out=spare), out=total)
        return base.copy() if so_far is base else so_far

    def _narrow(self, rows: Rows) -> Flags | None:
        """Where anything but the asked amounts keeps it out; None where nothing could."""
        view, demand = self.view, self.demand
        out: Flags | None = None
        if demand.resources[SLOTS] > 1:
            out = view.free[SLOTS][rows] < demand.resources[SLOTS]
        if demand.entry_bytes > DOCUMENT_BYTES_LEAST:
            full = view.document_bytes_free[rows] < demand.entry_bytes
            out = full if out is None else out | full
        if self.eligible is not None:
            other = ~self.eligible[rows]
            out = other if out is None else out | other
        if demand.extras or demand.resources.gpu_milli:
            lacking = view.copies(demand, rows) < 1
            out = lacking if out is None else out | lacking
        return out

    # ------------------------------------------------------------- one

    def pick(
        self, avoid: Sequence[int] = (), prefer: int = NO_DEVICE, grouping: Grouping | None = None
    ) -> int:
        """The best device's row, or `NO_DEVICE`.

        `prefer` is taken if it can take it at all; `avoid` only when there is no other.
        `grouping` says what the job's other tasks allow and wish.
        """
        self.follow()
        total = self.total
        if grouping is not None:
            total = np.where(grouping.allows(), total + GROUP_WEIGHT * grouping.score(), OUT)
        self._seen_total = total
        if prefer != NO_DEVICE and total[prefer] > OUT:
            return prefer
        if not self.view.count:
            return NO_DEVICE
        row = int(total.argmax())
        if row in avoid and total[row] > OUT:
            others = total.copy()
            others[list(avoid)] = OUT
            other = int(others.argmax())
            row = other if others[other] > OUT else row
        return row if total[row] > OUT else NO_DEVICE

    def tops(self, row: int) -> Tops:
        """The device that was just picked, and the best of the others; before anything is taken there."""
        total, self._seen_total = self._seen_total, self.total
        found, scores = [row], [float(total[row])]
        total[row] = OUT  # taken out one by one, and put back: a copy costs more
        while len(found) < TOPS:
            other = int(total.argmax())
            if total[other] <= OUT:
                break
            found.append(other)
            scores.append(float(total[other]))
            total[other] = OUT
        total[found] = scores
        return tuple((at, round(score, 4)) for at, score in zip(found, scores, strict=True))

    def fits(self, row: int) -> bool:
        """Whether this device could take it now."""
        self.follow()
        return bool(self.total[row] > OUT)

    def able(self) -> Flags:
        """Devices that could take it now."""
        self.follow()
        return self.total > OUT

    def parts(self, row: int) -> dict[str, float]:
        """Each criterion of the policy for one device, as it stands; for explanations."""
        rows, view = np.array([row]), self.view
        left = [
            view.share_free[i][rows] - view.scale[i][rows] * view.amount(self.demand, i, rows)
            for i in self.asked
        ] or [_memory_left(view, rows)]
        found = {
            name: fit(left, _least(left), np.empty(1))
            for name, (fit, weight) in self.policy.fits.items()
            if weight
        }
        found |= {name: trait(view, rows) for name, (trait, weight) in self.policy.traits.items() if weight}
        return {name: round(float(score[0]), 4) for name, score in found.items()}

    def share(self, row: int) -> Share:
        """What the demand would reserve there."""
        return self.view.share(row, self.demand)

    # ------------------------------------------------------------- many

    def many(self, count: int) -> list[int]:
        """Rows for up to `count` equal tasks, in the order in which picking one by one would go.

        A device's k-th copy waits for its (k-1)-th, so it comes no earlier than its worst
        predecessor: sorting by the running minimum of each device's scores merges them.
        Devices are looked at `depth` copies deep; what is told beyond the first one that ran
        out of looked-at copies is thrown away and looked at anew, deeper.
        """
        self.follow()
        if self.policy.in_turn:
            raise AssertionError(f"{self.policy_name} places in turn")
        chosen: list[int] = []
        heads, taken = self.total.copy(), np.zeros(self.view.count, np.int64)
        depth = _DEPTH
        while len(chosen) < count:
            wanted = count - len(chosen)
            pairs = max(_PAIRS_LEAST, _DEPTH * wanted)
            rows = _best(heads, min(wanted, max(1, pairs // depth)))
            if not len(rows):
                break
            picked, too_shallow = self._merge(rows, taken, max(depth, pairs // len(rows)), wanted, heads)
            chosen += picked.tolist()
            np.add.at(taken, picked, 1)
            again = np.unique(picked)
            heads[again] = self._ahead(again, taken[again][:, None])[:, 0]
            depth = depth * _DEPTH if too_shallow else max(1, depth // _DEPTH)
        return chosen

    def _merge(self, rows: Ints, taken: Ints, depth: int, wanted: int, heads: Floats) -> tuple[Ints, bool]:
        """The next picks among these devices, as far as they are certain, at least one; and whether
        a device that ran out of looked-at copies was what ended the certainty."""
        copies = self.view.copies(self.demand, rows) - taken[rows]
        depth = max(1, min(depth, wanted, int(copies.max())))
        scores = self._ahead(rows, taken[rows][:, None] + np.arange(depth))
        running = np.minimum.accumulate(scores, axis=1).ravel()
        order = _first(running, wanted)
        order = order[running[order] > OUT]
        at, copy = order // depth, order % depth
        ends = np.flatnonzero((copy == depth - 1) & (copies[at] > depth))
        sure = len(order) if not len(ends) else int(ends[0]) + 1
        too_shallow = sure < len(order)
        # So many picks touch no more devices than that: then the others don't matter.
        limit = OUT if len(rows) >= wanted else _best_beside(heads, rows)
        if sure and running[order[sure - 1]] <= limit:  # a device that was not looked at may come first
            below = int(np.flatnonzero(running[order[:sure]] <= limit)[0])
            sure, too_shallow = max(1, below), False
        return rows[at[:sure]], too_shallow

    def _ahead(self, rows: Ints, copies: Ints) -> Floats:
        """Scores, in the shape of `copies`, of the next copy when so many copies were placed there before."""
        view, demand = self.view, self.demand
        left = []
        for i in self.asked:
            amount = view.amount(demand, i, rows)
            each = amount if isinstance(amount, int) else amount[:, None]
            scale = view.scale[i][rows][:, None]
            left.append((view.free[i][rows][:, None] - copies * each) * scale - each * scale)
        base = np.broadcast_to(self.bases.of(self.policy_name).column[rows][:, None], copies.shape)
        if left:
            worst = _least(left)
        else:
            left = [np.broadcast_to(_memory_left(view, rows)[:, None], copies.shape)]
            worst = left[0]
        total = self._add(base, left, worst)
        if demand.wish is not None:
            total += demand.wish_weight * demand.wish[rows][:, None]
        most = view.copies(demand, rows)
        if self.eligible is not None:
            most = np.where(self.eligible[rows], most, 0)
        np.copyto(total, OUT, where=copies >= most[:, None])
        return total


def _memory_left(view: View, rows: Rows) -> Floats:
    """Stands for room where nothing is asked for; a device that shrank below what is reserved has none."""
    return np.maximum(view.share_free[_MEMORY][rows], 0.0)


def _least(columns: list[Floats]) -> Floats:
    least = columns[0]
    for column in columns[1:]:
        least = np.minimum(least, column)
    return least


def _all_of(columns: dict[str, Flags]) -> Flags | None:
    together: Flags | None = None
    for column in columns.values():
        together = column if together is None else together & column
    return together


def _best(heads: Floats, count: int) -> Ints:
    """Rows of the best `count` heads (ties: the first rows), in fleet order."""
    able = np.flatnonzero(heads > OUT)
    if len(able) <= count:
        return able
    return np.sort(able[_first(heads[able], count)])


def _first(values: Floats, count: int) -> Ints:
    """Places of the `count` largest, largest first, equal ones in their order."""
    if count < len(values):
        edge = np.partition(values, len(values) - count)[len(values) - count]
        above = np.flatnonzero(values > edge)
        equal = np.flatnonzero(values == edge)[: count - len(above)]
        places = np.sort(np.concatenate([above, equal]))
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")]


def _best_beside(heads: Floats, rows: Ints) -> float:
    """The best head that is not among these rows."""
    if len(rows) == len(heads):
        return OUT
    others = heads.copy()
    others[rows] = OUT
    return float(others.max())
