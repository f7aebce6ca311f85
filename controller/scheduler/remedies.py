"""Remedies: which single change would place a task that fits nowhere.

Rule of this file: whatever keeps a demand off a device is one `Obstacle`, a column of the
devices that have it not. A device with exactly one obstacle is one change away; all of
them are found in one pass of columns, none by trying. A resource's capacity and its room
are one obstacle, and so are an accelerator's model and its room: one change takes both.
A remedy is data, cheapest first; it knows no names, words are made where names are known.
Rejected: trying each change with the picker (a scan per device and change).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from controller.scheduler.groups import Grouping
from controller.scheduler.view import (
    CPU,
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

REMEDIES_MAX = 5
ROWS_MAX = 64
ANY_DEVICE = -1
DOCUMENT = "document_bytes"
ACCELERATORS = "accelerators"
COSTS = {
    "open": 0.2, "toleration": 0.25, "model": 0.4, "constraint": 0.5, "distinct": 0.5,
    "healthy": 0.6, "online": 0.75, "runtime": 1.0,
}  # fmt: skip
"""What a change that is no amount counts as, beside a share of the amount that was asked: an
operator's word is cheap, giving up a demand costs half of it, a machine must be gone to."""
_ALL = slice(None)


class Obstacle(NamedTuple):
    """What may keep a demand away. `kind` is what would be changed, `name` of what; `passes`: where it
    does not; `lacking`: how much is missing on each device, None where it is no amount."""

    kind: str
    name: str
    passes: Flags
    lacking: Ints | None = None
    asked: int = 0


@dataclass(slots=True)
class Remedy:
    """One change after which the task would be placed.

    `kind`: `room` (so much more of `name` is freed on `device`), `capacity` (the device would have
    to have more), `demand` (ask for `amount` of `name`), or a key of `COSTS`. `devices`: how
    many devices the same kind of change would open, each by its own amount.
    """

    kind: str
    name: str
    device: int = ANY_DEVICE
    amount: int = 0
    cost: float = 0.0
    devices: int = 1
    rows: tuple[int, ...] = ()
    """Some of those devices, where the change is no amount."""
    together: bool = False
    """The change is about all of `rows` at once, not about any one of them."""


def remedies(
    view: View,
    demand: Demand,
    grouping: Grouping | None = None,
    only: int = ANY_DEVICE,
    present: Flags | None = None,
) -> list[Remedy]:
    """The best single changes, cheapest first, one of each kind and name before a second.

    `only`: the one device that may take it. `present`: devices that can be changed at all.
    """
    if not view.count:
        return []
    found = list(obstacles(view, demand, grouping))
    count = np.zeros(view.count, np.int64)
    for obstacle in found:
        count += ~obstacle.passes
    one = count == 1
    if present is not None:
        one &= present
    if only != ANY_DEVICE:
        one &= np.arange(view.count) == only
    options: list[Remedy] = []
    for obstacle in found:
        rows = np.flatnonzero(one & ~obstacle.passes)
        if len(rows):
            options += _options(view, demand, obstacle, rows)
    options.sort(key=lambda r: r.cost)
    return options[:REMEDIES_MAX]


# ------------------------------------------------------------- what is in the way


def obstacles(view: View, demand: Demand, grouping: Grouping | None = None) -> Iterator[Obstacle]:
    """Together they pass exactly the devices that the filters and the grouping pass."""
    yield Obstacle("online", "", view.online)
    yield Obstacle("open", "", view.open)
    yield Obstacle("healthy", "", view.fit)
    for words, column in demand.eligible.items():
        yield Obstacle(kind_of(words), words, column)
    yield from _amounts(view, demand)
    if demand.accelerators[0]:
        yield _accelerators(view, demand)
    free, asked = view.free[SLOTS], max(1, demand.resources[SLOTS])
    yield _amount("slots", free, asked)
    needed = max(demand.entry_bytes, DOCUMENT_BYTES_LEAST)
    yield _amount(DOCUMENT, view.document_bytes_free, needed)
    for words, column in grouping.filters() if grouping is not None else ():
        yield Obstacle("distinct", words, column)


def kind_of(words: str) -> str:
    """Which kind of change lifts an attribute demand, from the words it goes by."""
    first, _, rest = words.partition(" ")
    if first == "runtime" and rest not in ("exists", "not_exists") and " " not in rest:
        return "runtime"
    return "toleration" if first == "taints" else "constraint"


def _amounts(view: View, demand: Demand) -> Iterator[Obstacle]:
    for i, name in enumerate(NAMES):
        if demand.resources[i] and i not in (SLOTS, GPU):
            yield _amount(name, view.free[i], view.amount(demand, i, _ALL))
    for name, amount in demand.extras.items():
        extra = view.extras_free.get(name)
        yield _amount(name, np.zeros(view.count, np.int64) if extra is None else extra, amount)


def _amount(name: str, free: Ints, asked: int | Ints) -> Obstacle:
    lacking = np.maximum(asked - free, 0)
    return Obstacle("room", name, lacking == 0, lacking, asked if isinstance(asked, int) else 0)


def _accelerators(view: View, demand: Demand) -> Obstacle:
    """Lacking: milli on as many of the allowed accelerators as are asked for, or of their sum; where
    there are too few of them, what would have to be added."""
    count, milli = demand.accelerators
    free = view.accelerators_free(demand, _ALL)
    fullest = -np.sort(-free, axis=1)[:, :count]
    missing = np.maximum(milli - fullest, 0).sum(axis=1) + milli * (count - fullest.shape[1])
    lacking = np.maximum(missing, demand.resources[GPU] - view.free[GPU])
    return Obstacle("room", ACCELERATORS, lacking <= 0, np.maximum(lacking, 0), demand.resources[GPU])


# ------------------------------------------------------------- what would lift it


def _options(view: View, demand: Demand, obstacle: Obstacle, rows: Ints) -> list[Remedy]:
    """The best change of each kind that lifts this one obstacle on one of these devices."""
    kind, name, devices = obstacle.kind, obstacle.name, len(rows)
    if obstacle.lacking is None:
        of_device = kind in ("online", "open", "healthy", "toleration", "runtime")
        row, some = int(rows[0]) if of_device else ANY_DEVICE, tuple(rows[:ROWS_MAX].tolist())
        return [Remedy(kind, name, row, 0, COSTS[kind], devices, some)]
    options = list(_more(view, demand, obstacle, rows))
    if name == ACCELERATORS:
        options += _less_of_accelerators(view, demand, rows)
    elif name != DOCUMENT:
        options += _less(view, demand, obstacle, rows)
    return options


def _more(view: View, demand: Demand, obstacle: Obstacle, rows: Ints) -> Iterator[Remedy]:
    """Where the least is lacking, of the devices that have it and others use it, then of the others."""
    assert obstacle.lacking is not None
    name, empty = obstacle.name, _would_fit_empty(view, demand, obstacle.name, rows)
    small = ~empty
    if name == ACCELERATORS:
        small &= _has_accelerators(view, demand, rows)  # one that isn't there can't be given
    for kind, of_kind in (("room", empty), ("capacity", small)):
        some = rows[of_kind]
        if len(some):
            row = int(some[obstacle.lacking[some].argmin()])
            amount = int(obstacle.lacking[row])
            cost = amount / max(1, _asked(view, demand, obstacle, row))
            yield Remedy(kind, name, row, amount, cost, len(some))


def _asked(view: View, demand: Demand, obstacle: Obstacle, row: int) -> int:
    if obstacle.name == NAMES[CPU]:
        amount = view.amount(demand, CPU, np.array([row]))
        return amount if isinstance(amount, int) else int(amount[0])
    return obstacle.asked


def _would_fit_empty(view: View, demand: Demand, name: str, rows: Ints) -> Flags:
    """Which of these devices have it, and others use it."""
    has: Flags = np.ones(len(rows), np.bool_)
    if name in demand.extras:
        offered = view.extras_offered.get(name)
        return ~has if offered is None else offered[rows] >= demand.extras[name]
    if name == ACCELERATORS:
        return _has_accelerators(view, demand, rows) & (view.offered[GPU][rows] >= demand.resources[GPU])
    if name not in NAMES:
        return has
    i = NAMES.index(name)
    has &= view.offered[i][rows] >= (
        max(1, demand.resources[i]) if i == SLOTS else view.amount(demand, i, rows)
    )
    return has


def _has_accelerators(view: View, demand: Demand, rows: Ints) -> Flags:
    """Which have as many allowed accelerators as are asked for, free or not."""
    models = view.accel_model[rows]
    allowed = np.isin(models, view.allowed_models(demand)) if demand.models else models >= 0
    enough: Flags = allowed.sum(axis=1) >= demand.accelerators[0]
    return enough


def _less(view: View, demand: Demand, obstacle: Obstacle, rows: Ints) -> list[Remedy]:
    """The largest smaller amount with which one of these devices takes it."""
    name = obstacle.name
    if name in demand.extras:
        asked, free = demand.extras[name], view.extras_free.get(name)
        most = free[rows] if free is not None else np.zeros(len(rows), np.int64)
    else:
        i = NAMES.index(name)
        asked, most = demand.resources[i], view.free[i][rows]
        if i == CPU and demand.reference_cpu:
            most = most * view.core_speed_milli[rows] // WHOLE_MILLI
    return _smaller(name, asked, most)


def _smaller(name: str, asked: int, each: Ints) -> list[Remedy]:
    """`each`: how much every one of the devices would give."""
    most = int(each.max())
    if not 0 < most < asked:
        return []
    return [Remedy("demand", name, ANY_DEVICE, most, (asked - most) / asked, int((each > 0).sum()))]


def _less_of_accelerators(view: View, demand: Demand, rows: Ints) -> list[Remedy]:
    count, milli = demand.accelerators
    asked = demand.resources[GPU]
    free, all_ = view.accelerators_free(demand, rows), view.free[GPU][rows]
    if milli < WHOLE_MILLI:
        most = np.minimum(free.max(axis=1), all_)
    else:
        most = np.minimum((free >= WHOLE_MILLI).sum(axis=1), all_ // WHOLE_MILLI) * WHOLE_MILLI
    options = _smaller(NAMES[GPU], asked, most)
    if demand.models:
        other = replace(demand, models=())
        fits = ((view.accelerators_free(other, rows) >= milli).sum(axis=1) >= count) & (all_ >= asked)
        if fits.any():
            named = " or ".join(demand.models)
            options.append(Remedy("model", named, ANY_DEVICE, 0, COSTS["model"], int(fits.sum())))
    return options
