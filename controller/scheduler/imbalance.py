"""Imbalance: how unevenly the fleet is loaded, as numbers that a person can judge.

The load of a device is its largest reserved share over the resources that count: those that
running tasks contend for (CPU, memory, accelerators, network). The scarcest one decides,
because that is what the next task waits for; a mean over resources would call a device half
loaded whose memory is full. Disk and slots are limits, not load: full disks slow nothing down.
A resource that a device lacks does not speak, unless something is reserved of it all the same.
Loads are reserved, not used: what a plan can promise to change. May exceed 1 where a device shrank.
Rejected: the share of the whole fleet (a small full device would not show); measured load
(it moves while the plan is read).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler.view import Flags, Floats, Ints
from protocol.resources import NAMES

CONTENDED = ("cpu_milli", "memory_mib", "gpu_milli", "up_kbit_s", "down_kbit_s")
COUNTED = tuple(index for index, name in enumerate(NAMES) if name in CONTENDED)
"""Which columns of resources make up the load, by default."""

BUSY_MAX = 0.99
"""The response of a device that is busier is told as if it were so: beyond, the formula knows no answer."""


@dataclass(slots=True)
class Devices:
    """One array per fact, row = device. `capacity` and `reserved`: one array per resource.

    The resources are those of `protocol.resources.NAMES`; a caller may append further ones
    (bytes of a document), which bind but are not load. `receives`: may take tasks (ready, not
    cordoned); `gives`: may lose tasks. A device that does neither takes no part in any figure.
    """

    capacity: list[Ints]
    reserved: list[Ints]
    receives: Flags
    gives: Flags


@dataclass(slots=True)
class Placed:
    """The tasks that are somewhere, one array per fact: `row` is the device that a task is on.

    `movable`: neither cooling down, nor of a daemon, nor in a forbidden window. `cost` (at least
    0): how much worse its move is than a plain restart, in plain restarts; 0 for a plain one.
    `group`: tasks with equal constraints share a number.
    """

    row: Ints
    amounts: list[Ints]
    movable: Flags
    cost: Floats
    group: Ints


@dataclass(frozen=True, slots=True)
class Imbalance:
    """`b` is sqrt(mean((load - mean)²)), 0 when all are equally loaded; `most` the largest load.

    `mean` is the mean load, so also the mean utilisation of what is scarcest on each device.
    `response`: how much longer than on an idle device a unit of work takes, when each device is
    a queue of its own (M/M/1: 1 / (1 - load)), mean over devices weighted by their load, because
    that is where work is; 1 for an idle fleet, 100 for one that is full (`BUSY_MAX`). A model to
    compare two states of one fleet with, not a forecast: it knows neither variance nor priorities.
    """

    b: float
    mean: float
    most: float
    response: float

    @property
    def ratio(self) -> float:
        """Largest load over mean load; 1 for an idle fleet."""
        return self.most / self.mean if self.mean > 0 else 1.0


def loads(capacity: list[Ints], reserved: list[Ints], counted: tuple[int, ...] = COUNTED) -> Floats:
    """The load of each device: its largest share of what counts, at least 0."""
    load = np.zeros(len(capacity[0]))
    for r in counted:
        if reserved[r].any():
            np.maximum(load, reserved[r] / np.maximum(capacity[r], 1), out=load)
    return load


def imbalance(load: Floats) -> Imbalance:
    """The figures of devices with these loads; zeros for no device at all."""
    if not load.size:
        return Imbalance(0.0, 0.0, 0.0, 1.0)
    mean, total = float(load.mean()), float(load.sum())
    busy = np.minimum(load, BUSY_MAX)
    response = float((load / (1.0 - busy)).sum()) / total if total > 0 else 1.0
    return Imbalance(float(np.sqrt(np.mean((load - mean) ** 2))), mean, float(load.max()), response)


def ceilings(capacity: list[Ints], cap: float, counted: tuple[int, ...] = COUNTED) -> list[Ints]:
    """Per resource, the most that may be reserved of it: never above capacity, nor above a load of `cap`."""
    result = [column.copy() for column in capacity]
    for r in counted:
        # The grain of salt: 0.55 x 1,000 is 550, whatever the float thinks.
        np.minimum(result[r], np.floor(capacity[r] * cap + 1e-6).astype(np.int64), out=result[r])
    return result


def moves_at_least(
    devices: Devices, tasks: Placed, cap: float, counted: tuple[int, ...] = COUNTED
) -> tuple[int, int]:
    """The counting lower bound: (moves that no plan can do without, devices it can't be reached on).

    Per device above `cap` and per resource that counts: the fewest of its largest movable tasks
    whose sum is at least the excess. The largest of these over resources, summed over devices. Where
    all movable tasks together are not enough, the cap can't be reached there: counted apart.
    """
    limit, n = ceilings(devices.capacity, cap, counted), devices.gives.size
    fewest, unreachable = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    mine = np.flatnonzero(tasks.movable & devices.gives[tasks.row])
    for r in counted:
        excess = np.where(devices.gives, devices.reserved[r] - limit[r], 0)
        order = mine[np.lexsort((-tasks.amounts[r][mine], tasks.row[mine]))]
        row, amount = tasks.row[order], tasks.amounts[r][order]
        begins = np.searchsorted(row, np.arange(n + 1))
        sums = np.concatenate(([0], np.cumsum(amount)))
        # The task is needed when those before it, of the same device, are less than the excess.
        needed = sums[:-1] - sums[begins[row]] < excess[row]
        np.maximum(fewest, np.bincount(row[needed], minlength=n), out=fewest)
        unreachable |= (excess > 0) & (sums[begins[1:]] - sums[begins[:-1]] < excess)
    fewest[unreachable] = 0
    return int(fewest.sum()), int(unreachable.sum())
