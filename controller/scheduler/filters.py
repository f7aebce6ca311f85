"""Filters: which devices could take the task at all; each one column, each one name.

Order is the order in which an explanation is read: life, operator, attributes, room.
A filter says of every device yes or no, and of itself what it wants, in words.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from controller.scheduler.view import Demand, Flags, View
from protocol.resources import NAMES


def columns(view: View, demand: Demand) -> Iterator[tuple[str, Flags]]:
    """(name, devices that pass) of every filter, in reading order."""
    yield "online", view.online
    yield "not cordoned, draining or quarantined", view.open
    yield from demand.eligible.items()
    for name, amount, capacity in zip(NAMES, demand.resources, view.capacity, strict=True):
        if amount:
            yield f"{name} capacity >= {amount}", capacity >= amount
    for name, amount, free in zip(NAMES, demand.resources, view.free, strict=True):
        if amount:
            yield f"{name} free >= {amount}", free >= amount
    yield "room in its document", (view.document_bytes_free >= demand.entry_bytes) & (view.slots_free > 0)


def passing(view: View, demand: Demand) -> Flags:
    """The devices that pass every filter."""
    result = np.ones(view.count, np.bool_)
    for _, column in columns(view, demand):
        result &= column
    return result
