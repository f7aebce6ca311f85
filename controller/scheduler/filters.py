"""Filters: which devices could take the task at all; each one column, each one name.

Order is the order in which an explanation is read: life, operator, guards, attributes,
room. A filter says of every device yes or no, and of itself what it wants, in words. The
picker's fast path must agree with these columns; a property test holds that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from controller.scheduler.view import CPU, DOCUMENT_BYTES_LEAST, SLOTS, Demand, Flags, Ints, View
from protocol.resources import NAMES

_ALL = slice(None)


def columns(view: View, demand: Demand) -> Iterator[tuple[str, Flags]]:
    """(name, devices that pass) of every filter, in reading order."""
    yield "online", view.online
    yield "not cordoned, draining or quarantined", view.open
    yield "healthy enough (heat, voltage, battery, flakiness)", view.fit
    yield from demand.eligible.items()
    yield from _capacity(view, demand)
    yield from _room(view, demand)


def _capacity(view: View, demand: Demand) -> Iterator[tuple[str, Flags]]:
    """What the empty device would have."""
    for i, name in enumerate(NAMES):
        if demand.resources[i]:
            enough = _at_least(view.offered[i], view.amount(demand, i, _ALL))
            yield f"{name} capacity >= {_asked(demand, i)}", enough
    for name, amount in demand.extras.items():
        yield f"{name} capacity >= {amount}", _at_least(view.extras_offered.get(name, _none(view)), amount)
    if demand.models and demand.accelerators[0]:
        models = view.allowed_models(demand)
        suits = np.isin(view.accel_model, models).sum(axis=1) > 0
        yield "accelerator " + " or ".join(demand.models), suits


def _room(view: View, demand: Demand) -> Iterator[tuple[str, Flags]]:
    for i, name in enumerate(NAMES):
        if demand.resources[i]:
            enough = _at_least(view.free[i], view.amount(demand, i, _ALL))
            yield f"{name} free >= {_asked(demand, i)}", enough
    for name, amount in demand.extras.items():
        yield f"{name} free >= {amount}", _at_least(view.extras_free.get(name, _none(view)), amount)
    count, milli = demand.accelerators
    if count:
        fits = (view.accelerators_free(demand, _ALL) >= milli).sum(axis=1) >= count
        yield f"{count} accelerator(s) with {milli} milli free each", fits
    yield "a free slot", view.free[SLOTS] > 0
    needed = max(demand.entry_bytes, DOCUMENT_BYTES_LEAST)
    yield "room in its document", view.document_bytes_free >= needed


def _asked(demand: Demand, resource: int) -> str:
    reference = " of the reference core" if resource == CPU and demand.reference_cpu else ""
    return f"{demand.resources[resource]}{reference}"


def _at_least(column: Ints, amount: int | Ints) -> Flags:
    enough: Flags = column >= amount
    return enough


def _none(view: View) -> Ints:
    return np.zeros(view.count, np.int64)


def passing(view: View, demand: Demand) -> Flags:
    """The devices that pass every filter."""
    result = np.ones(view.count, np.bool_)
    for _, column in columns(view, demand):
        result &= column
    return result
