"""Scores: how good a device would be, each a column in 0..1 with a meaning.

A criterion is one function of free and capacity after the task was placed. Resources
that a device does not have, or the task does not ask for, do not speak.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller.scheduler.view import Demand, Floats, Ints

Score = Callable[[list[Ints], list[Ints], Demand], Floats]


def _used_after(capacity: list[Ints], free: list[Ints], demand: Demand) -> list[Floats]:
    """Per asked resource, the share of it that would be reserved: 0 empty … 1 full."""
    shares = []
    for total, left, amount in zip(capacity, free, demand.resources, strict=True):
        if amount:
            shares.append((total - left + amount) / np.maximum(total, 1))
    return shares


def room(capacity: list[Ints], free: list[Ints], demand: Demand) -> Floats:
    """1: all of its scarcest asked resource stays free; 0: it would be full. Ties go to the larger device."""
    shares = _used_after(capacity, free, demand)
    if not shares:
        return _size(capacity)
    worst = shares[0] if len(shares) == 1 else np.maximum.reduce(shares)
    left: Floats = np.clip(1.0 - worst, 0.0, 1.0)
    return left * 0.99 + 0.01 * _size(capacity)


def fit(capacity: list[Ints], free: list[Ints], demand: Demand) -> Floats:
    """1: the task fills its asked resources exactly; 0: it would be alone on an endless device."""
    shares = _used_after(capacity, free, demand)
    if not shares:
        return 1.0 - _size(capacity)
    return np.clip(sum(shares[1:], shares[0]) / len(shares), 0.0, 1.0)


def _size(capacity: list[Ints]) -> Floats:
    """Grows with memory, below 1."""
    return capacity[1] / (capacity[1] + 65_536.0)
