"""Groups: wishes and demands on all tasks of a job together, as columns that follow each placement.

`Distinct` bounds how many of a job's tasks stand on one device, or on devices of one
value; `Shares` wants them in given shares over values. A `Grouping` serves one job in one
round: it is told each placement and says of every device whether it is allowed, and how
good it would be now. Devices of one value are alike, so all counting is per value.
It knows no labels: a value is a code, made once per generation of facts by `codes`;
-1 is a device without a value. Such a device is never allowed by a `Distinct`, because
nobody can tell what it shares; a `Shares` puts it last.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from controller.scheduler.view import Flags, Floats, Ints

ABSENT = -1
NEUTRAL = 0.5
Name = TypeVar("Name", bound=Hashable)


def codes(values: Sequence[Name | None]) -> tuple[Ints, list[Name]]:
    """Each device's value as a number, and the values in order of their first device; None is -1."""
    known: dict[Name, int] = {}
    found = (ABSENT if v is None else known.setdefault(v, len(known)) for v in values)
    return np.fromiter(found, np.int64, len(values)), list(known)


def shares_of(names: Sequence[str], targets: Sequence[tuple[str, int]]) -> Floats:
    """Each value's percent. What is left for all others together stands at each of them, below zero:
    how many they are is only known when it is known which ones can be reached."""
    wanted = dict(targets)
    rest = max(0, 100 - sum(wanted.values()))
    return np.array([wanted.get(name, -rest) for name in names], np.float64)


def affinity(columns: Sequence[Flags], weights: Sequence[int], count: int) -> Floats:
    """1: every wish holds and nothing unwanted; 0: the opposite; 1/2: neutral, or no wishes at all."""
    total = np.zeros(count)
    for column, weight in zip(columns, weights, strict=True):
        total += weight * column
    return NEUTRAL + total * (0.5 / max(1, sum(map(abs, weights))))


@dataclass(slots=True)
class Distinct:
    """At most `limit` tasks per value; `codes` None: per device. `words` name it in explanations."""

    words: str
    codes: Ints | None
    limit: int


@dataclass(slots=True)
class Shares:
    """Tasks in these shares over values; `shares` has one number per code, as `shares_of` makes them."""

    words: str
    codes: Ints
    shares: Floats
    weight: int


class Grouping:
    """Counts of one job's tasks per value, and the columns that follow from them."""

    def __init__(
        self,
        count: int,
        distincts: Sequence[Distinct],
        spreads: Sequence[Shares],
        placed: Sequence[int] = (),
        candidates: Flags | None = None,
    ) -> None:
        """`placed`: rows that hold tasks of the job already, one entry per task; see `narrow`."""
        self.count = count
        self._limits = [_Limit(count, d) for d in distincts]
        self._spreads = [_Spread(s, candidates) for s in spreads]
        self._blocks = np.zeros(count, np.int64)
        """How many limits rule each device out."""
        rows = np.asarray(placed, np.int64)
        for limit in self._limits:
            limit.count_all(rows)
            self._blocks += ~limit.allows()
        for spread in self._spreads:
            spread.count_all(rows)
        self._allowed: Flags = self._blocks == 0
        self._score: Floats | None = None

    # ------------------------------------------------------------- columns

    def allows(self) -> Flags:
        """Devices that one more task of the job may be placed on. It changes with `placed`; don't write."""
        return self._allowed

    def score(self) -> Floats:
        """1: its value's turn in every spread; halved by being one task ahead; 1 when nothing is spread."""
        if self._score is None:
            total = sum(s.weight for s in self._spreads)
            columns = [(s.score(), s.weight / total) for s in self._spreads]
            # One spread is the usual case, and this is asked for after each placement.
            self._score = columns[0][0] if len(columns) == 1 else _mixed(columns, self.count)
        return self._score

    def filters(self) -> Iterator[tuple[str, Flags]]:
        """(words, devices it allows now) of each limit, for explanations."""
        for limit in self._limits:
            yield limit.words, limit.allows()

    def parts(self) -> Iterator[tuple[str, Floats]]:
        """(words, score) of each spread, for explanations."""
        for spread in self._spreads:
            yield spread.words, spread.score()

    def most(self, copies: Ints, without: str = "") -> int | None:
        """How many tasks may stand at once where each device takes `copies`, whatever the order of picks.

        None where the order matters: two labels bound the tasks across each other. `without`: a limit's
        words; it doesn't count.
        """
        limits = [limit for limit in self._limits if limit.words != without]
        labels = [limit for limit in limits if limit.codes is not None]
        if len(labels) > 1:
            return None
        for limit in limits:
            if limit.codes is None:
                copies = np.minimum(copies, limit.left())
        return labels[0].most(copies) if labels else int(copies.sum())

    def copy(self, without: str = "") -> Grouping:
        """One to try things on, without the limit or spread of these words."""
        other = Grouping(self.count, [], [])
        other._limits = [limit.copy() for limit in self._limits if limit.words != without]
        other._spreads = [spread.copy() for spread in self._spreads if spread.words != without]
        for limit in other._limits:
            other._blocks += ~limit.allows()
        other._allowed = other._blocks == 0
        return other

    # ------------------------------------------------------------- changes

    def placed(self, row: int) -> bool:
        """One more task of the job stands there. Whether `allows` has changed."""
        return self._note(row, 1)

    def unplaced(self, row: int) -> bool:
        """One task of the job left. Whether `allows` has changed."""
        return self._note(row, -1)

    def _note(self, row: int, change: int) -> bool:
        changed = False
        for limit in self._limits:
            if (turned := limit.note(row, change)) is not None:
                self._blocks[turned] += change
                self._allowed[turned] = self._blocks[turned] == 0
                changed = True
        for spread in self._spreads:
            self._score = None if spread.note(row, change) else self._score
        return changed

    def narrow(self, candidates: Flags) -> None:
        """Shares are due only among values that one of these devices has: what is full waits for nothing."""
        for spread in self._spreads:
            spread.reach(candidates)
        self._score = None


def _mixed(columns: Sequence[tuple[Floats, float]], count: int) -> Floats:
    result = np.zeros(count) if columns else np.ones(count)
    for column, weight in columns:
        result += weight * column
    return result


class _Limit:
    def __init__(self, count: int, distinct: Distinct) -> None:
        self.words, self.codes, self.most_each = distinct.words, distinct.codes, distinct.limit
        size = count if self.codes is None else int(self.codes.max(initial=ABSENT)) + 1
        # The last entry is that of code -1: never below any limit.
        self.counts = np.zeros(size + 1, np.int64)
        self.counts[ABSENT] = np.iinfo(np.int64).max

    def count_all(self, rows: Ints) -> None:
        found = rows if self.codes is None else self.codes[rows]
        self.counts[:-1] += np.bincount(found[found >= 0], minlength=len(self.counts) - 1)

    def allows(self) -> Flags:
        free: Flags = self.counts < self.most_each
        return free[:-1] if self.codes is None else free[self.codes]

    def left(self) -> Ints:
        """How many more each value, or device, may hold."""
        return np.maximum(self.most_each - self.counts[:-1], 0)

    def most(self, copies: Ints) -> int:
        """How many more there may be where devices take so many; a device without a value takes none."""
        assert self.codes is not None
        there = self.codes >= 0
        sums = np.zeros(len(self.counts) - 1, np.int64)
        np.add.at(sums, self.codes[there], copies[there])
        return int(np.minimum(sums, self.left()).sum())

    def copy(self) -> _Limit:
        other = copy(self)
        other.counts = self.counts.copy()
        return other

    def note(self, row: int, change: int) -> Ints | None:
        """The devices that are ruled out by this, or free again; None when nothing turns."""
        code = row if self.codes is None else int(self.codes[row])
        if code == ABSENT:
            return None
        before = int(self.counts[code])
        self.counts[code] = before + change
        if (before < self.most_each) == (before + change < self.most_each):
            return None
        return np.array([row]) if self.codes is None else np.flatnonzero(self.codes == code)


class _Spread:
    """By how many tasks each value is ahead of the one whose turn it is.

    With n tasks placed, a value of share s is due s·(n+1); whoever is shortest of that is
    next. So no value ever stands a whole task above its share, at whatever count one stops.
    """

    def __init__(self, wish: Shares, candidates: Flags | None) -> None:
        self.words, self.codes, self.weight = wish.words, wish.codes, wish.weight
        self.wanted = wish.shares
        self.counts = np.zeros(len(wish.shares), np.int64)
        self.reach(np.ones(len(wish.codes), np.bool_) if candidates is None else candidates)

    def reach(self, candidates: Flags) -> None:
        there = self.codes[candidates & (self.codes >= 0)]
        reached = np.bincount(there, minlength=len(self.wanted)) > 0
        others = reached & (self.wanted < 0)
        self.shares = np.where(reached, np.maximum(self.wanted, 0.0), 0.0)
        self.shares[others] = -self.wanted[others] / max(1, int(others.sum()))
        self.shares /= max(float(self.shares.sum()), 1e-300)

    def count_all(self, rows: Ints) -> None:
        found = self.codes[rows]
        self.counts += np.bincount(found[found >= 0], minlength=len(self.counts))

    def copy(self) -> _Spread:
        other = copy(self)
        other.counts = self.counts.copy()
        return other

    def note(self, row: int, change: int) -> bool:
        code = int(self.codes[row])
        if code != ABSENT:
            self.counts[code] += change
        return code != ABSENT

    def score(self) -> Floats:
        table = np.zeros(len(self.shares) + 1)
        due = self.shares > 0
        if due.any():
            placed = int(self.counts[due].sum())
            short = self.shares[due] * (placed + 1) - self.counts[due]
            table[:-1][due] = 1.0 / (1.0 + (short.max() - short))
        return table.take(self.codes)
