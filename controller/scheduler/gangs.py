"""Gangs: how many of a gang's tasks fit at once, and which single change would place all of it.

Rule of this file: equal tasks are counted, not placed. A device takes so many copies, a
value of a limit so many; where limits nest (devices within the values of one label) every
order of picks ends at that sum, so a change is proved by an expression of columns. Where
two labels limit a gang the order of picks matters: then `tries` picks in earnest, on a
copy, and only what that placed is told. A remedy here places the whole gang.
Rejected: one task's remedies (room for one is no room for all); a change of several
devices at once, which is no single change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from controller.scheduler.groups import Grouping
from controller.scheduler.remedies import (
    ANY_DEVICE,
    COSTS,
    REMEDIES_MAX,
    ROWS_MAX,
    Remedy,
    kind_of,
)
from controller.scheduler.view import (
    DOCUMENT_BYTES_LEAST,
    GPU,
    SLOTS,
    WHOLE_MILLI,
    Demand,
    Flags,
    Ints,
    View,
)
from protocol.resources import NAMES

TASKS, SPREAD = "tasks", "spread"
"""Kinds of remedy that only a gang has: fewer tasks, and a wish that leads picks astray."""
LOOKS_MAX = 5_000_000
"""Devices x picks that are tried in earnest for one explanation: some 50 ms."""
ROWS_TRIED = 8
"""Devices of which it is asked whether a change there alone would do, those with most room first."""
_ALL = slice(None)
Tries = Callable[[Demand, str], int]
"""How many tasks of this demand real picks place on a copy of the view, without the limit of these words."""


@dataclass(slots=True)
class Gang:
    """`count` equal tasks that want to stand at once. `present`: devices that can be changed at all."""

    view: View
    demand: Demand
    count: int
    grouping: Grouping | None = None
    present: Flags | None = None
    tries: Tries | None = None
    looks: int = 0
    """Devices looked at by `tries` so far."""

    def fit(self, demand: Demand | None = None, without: str = "") -> int:
        """How many would fit at once, with another demand, or without a limit or spread of these words.

        Where only real picks could tell: 0 if it can't be all of them, or too much was tried already.
        """
        demand = demand or self.demand
        copies = self.copies(demand)
        counted = self.counted(copies, without)
        if counted is not None:
            return counted
        cost = self.count * self.view.count
        if self.tries is None or self.looks + cost > LOOKS_MAX or int(copies.sum()) < self.count:
            return 0
        self.looks += cost
        return self.tries(demand, without)

    def copies(self, demand: Demand) -> Ints:
        """How many each device would take, were it not for limits of the group."""
        able = self.view.ready & _roomy(self.view)
        for column in demand.eligible.values():
            able = able & column
        return np.where(able, self.view.copies(demand, _ALL), 0)

    def counted(self, copies: Ints, without: str = "") -> int | None:
        """How many stand at once where devices take so many; None where that depends on the order."""
        return int(copies.sum()) if self.grouping is None else self.grouping.most(copies, without)

    @property
    def nests(self) -> bool:
        """Whether counting alone tells."""
        return self.grouping is None or self.grouping.most(np.zeros(self.view.count, np.int64)) is not None


def gang_remedies(gang: Gang, fit: int) -> list[Remedy]:
    """Single changes that place all of it, cheapest first; `fit`: how many fit as things are."""
    if not gang.view.count:
        return []
    options = [*_fewer(gang, fit), *_dropped(gang), *_smaller(gang)]
    if gang.nests:
        options += [*_opened(gang, fit), *_overlooked(gang), *_more_room(gang, fit)]
    options.sort(key=lambda r: r.cost)
    return options[:REMEDIES_MAX]


def _roomy(view: View) -> Flags:
    enough: Flags = view.document_bytes_free >= DOCUMENT_BYTES_LEAST
    return enough


# ------------------------------------------------------------- the job changes


def _fewer(gang: Gang, fit: int) -> Iterator[Remedy]:
    if 0 < fit < gang.count:
        devices = int((gang.copies(gang.demand) > 0).sum())
        yield Remedy(TASKS, "", ANY_DEVICE, fit, (gang.count - fit) / gang.count, devices)


def _dropped(gang: Gang) -> Iterator[Remedy]:
    """A constraint, a limit, the model; a spread only matters where the order of picks does."""
    demand = gang.demand
    for words in demand.eligible:
        if kind_of(words) == "constraint":
            other = replace(demand, eligible={w: c for w, c in demand.eligible.items() if w != words})
            yield from _if_all(gang, other, Remedy("constraint", words, cost=COSTS["constraint"]))
    if demand.models and demand.accelerators[0]:
        named = " or ".join(demand.models)
        yield from _if_all(gang, replace(demand, models=()), Remedy("model", named, cost=COSTS["model"]))
    if gang.grouping is None:
        return
    for kind, names in (("distinct", gang.grouping.filters()), (SPREAD, gang.grouping.parts())):
        for words, _ in names:
            if (kind != SPREAD or not gang.nests) and gang.fit(demand, words) >= gang.count:
                yield Remedy(kind, words, cost=COSTS["distinct"])


def _if_all(gang: Gang, demand: Demand, remedy: Remedy) -> Iterator[Remedy]:
    if gang.fit(demand) >= gang.count:
        more = (gang.copies(demand) > 0) & (gang.copies(gang.demand) == 0)
        remedy.devices = max(1, int(more.sum()))
        yield remedy


def _smaller(gang: Gang) -> Iterator[Remedy]:
    """Of each amount the largest smaller one with which all of it is placed."""
    demand = gang.demand
    for i, name in enumerate(NAMES):
        if demand.resources[i]:
            step = WHOLE_MILLI if i == GPU and demand.resources[i] > WHOLE_MILLI else 1
            yield from _searched(gang, name, demand.resources[i], step)
    for name, amount in demand.extras.items():
        yield from _searched(gang, name, amount, 1)


def _searched(gang: Gang, name: str, asked: int, step: int) -> Iterator[Remedy]:
    """In steps; what was last seen to do is told, so that an order that matters can't make it untrue."""
    does, not_do = 0, -(-asked // step)
    while not_do - does > 1:
        middle = 1 if not does else (does + not_do) // 2
        if gang.fit(_with(gang.demand, name, middle * step)) >= gang.count:
            does = middle
        elif not does:
            return
        else:
            not_do = middle
    if does:
        amount = does * step
        devices = int((gang.copies(_with(gang.demand, name, amount)) > 0).sum())
        yield Remedy("demand", name, ANY_DEVICE, amount, (asked - amount) / asked, devices)


def _with(demand: Demand, name: str, amount: int) -> Demand:
    if name in demand.extras:
        return replace(demand, extras=demand.extras | {name: amount})
    return replace(demand, resources=demand.resources._replace(**{name: amount}))


# ------------------------------------------------------------- a device changes


def _opened(gang: Gang, fit: int) -> Iterator[Remedy]:
    """One device that is shut for one reason, and large enough for all that is missing."""
    missing = gang.count - fit
    for kind, name, rows, copies in _shut(gang):
        enough = rows[copies[rows] >= missing]
        order = enough[np.argsort(-copies[enough], kind="stable")]
        for row in order[:ROWS_TRIED].tolist() if kind != "toleration" else ():
            able = gang.copies(gang.demand)
            able[row] = copies[row]
            if (gang.counted(able) or 0) >= gang.count:
                yield Remedy(kind, name, row, 0, COSTS[kind], len(enough), (row,))
                break


def _overlooked(gang: Gang) -> Iterator[Remedy]:
    """Taints: those of as few devices as will do, largest first."""
    for kind, name, rows, copies in _shut(gang):
        if kind != "toleration":
            continue
        order = rows[np.argsort(-copies[rows], kind="stable")][:ROWS_MAX]
        for some in range(1, len(order) + 1):
            able = gang.copies(gang.demand)
            able[order[:some]] = copies[order[:some]]
            if (gang.counted(able) or 0) >= gang.count:
                used = tuple(order[:some].tolist())
                yield Remedy(kind, name, used[0], 0, COSTS[kind], len(rows), used, True)
                break


def _shut(gang: Gang) -> Iterator[tuple[str, str, Ints, Ints]]:
    """(kind, name, rows that only it keeps out, copies that devices would take)."""
    view, demand = gang.view, gang.demand
    columns = [("online", "", view.online), ("open", "", view.open), ("healthy", "", view.fit)]
    columns += [(kind_of(words), words, column) for words, column in demand.eligible.items()]
    there = _roomy(view) if gang.present is None else _roomy(view) & gang.present
    copies = view.copies(demand, _ALL)
    for place, (kind, name, column) in enumerate(columns):
        if kind == "constraint":
            continue
        only = there & ~column & (copies > 0)
        for other, (_, _, passes) in enumerate(columns):
            if other != place:
                only = only & passes
        yield kind, name, np.flatnonzero(only), copies


def _more_room(gang: Gang, fit: int) -> Iterator[Remedy]:
    """So much more of one amount on one device, on which all that is missing then stands as well."""
    view, demand = gang.view, gang.demand
    for i, name in enumerate(NAMES):
        if demand.resources[i] and i not in (SLOTS, GPU):
            none = replace(demand, resources=demand.resources._replace(**{name: 0}))
            each = np.broadcast_to(np.asarray(view.amount(demand, i, _ALL)), (view.count,))
            yield from _room_of(gang, fit, name, none, each, view.free[i], view.offered[i])
    for name, amount in demand.extras.items():
        nothing = np.zeros(view.count, np.int64)
        none = replace(demand, extras={n: a for n, a in demand.extras.items() if n != name})
        free, offered = view.extras_free.get(name, nothing), view.extras_offered.get(name, nothing)
        yield from _room_of(gang, fit, name, none, nothing + amount, free, offered)


def _room_of(
    gang: Gang, fit: int, name: str, none: Demand, each: Ints, free: Ints, offered: Ints
) -> Iterator[Remedy]:
    """`none`: the demand without this amount, `each`: what one task needs of it on each device."""
    copies, missing = gang.copies(gang.demand), gang.count - fit
    wanted = copies + missing
    lacking = wanted * each - free
    rows = np.flatnonzero((gang.copies(none) >= wanted) & (lacking > 0))
    for row in rows[np.argsort(lacking[rows], kind="stable")][:ROWS_TRIED].tolist():
        able = copies.copy()
        able[row] = wanted[row]
        if (gang.counted(able) or 0) >= gang.count:
            amount = int(lacking[row])
            kind = "room" if int(offered[row]) >= int(wanted[row] * each[row]) else "capacity"
            cost = amount / max(1, int(each[row]) * gang.count)
            yield Remedy(kind, name, row, amount, cost, len(rows))
            return
