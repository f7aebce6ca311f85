"""Explain: why a task is nowhere, or what speaks for a device. Data, not prose.

Rule of this file: it tells what the filters, the picker and the grouping say, in their
order and numbers; it judges nothing itself. `code` is one of `CODES`, so that tasks can be
counted by it. It knows rows, not names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from controller.scheduler.filters import columns
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import GROUP_WEIGHT, OUT, Picker
from controller.scheduler.remedies import ANY_DEVICE, Remedy, kind_of, remedies
from controller.scheduler.view import CPU, DOCUMENT_BYTES_LEAST, SLOTS, WHOLE_MILLI, Demand, Flags, Ints, View
from protocol.resources import NAMES

CANDIDATES_MAX = 10
UNITS = {
    "cpu_milli": "mCPU",
    "memory_mib": "MiB",
    "disk_mib": "MiB of disk",
    "gpu_milli": "mGPU",
    "up_kbit_s": "kbit/s up",
    "down_kbit_s": "kbit/s down",
    "slots": "slots",
}
FITS, NO_DEVICES, CLOSED, OFFLINE, GUARDED, PINNED, ROOM, PARALLEL, GANG = (
    "fits", "no_devices", "closed", "offline", "guarded", "pinned", "room", "parallel", "gang",
)  # fmt: skip
RESOURCE_CODES = ("cpu", "memory", "disk", "accelerator", "up", "down", "slots")
"""In the order of `NAMES`."""
CODES = (
    FITS, NO_DEVICES, CLOSED, OFFLINE, GUARDED, PINNED, ROOM, *RESOURCE_CODES,
    "extra", "document", "constraint", "runtime", "taint", "distinct", PARALLEL, GANG,
)  # fmt: skip
_ALL_TAINTED = "every open device that could take it has a taint that the job doesn't tolerate"
_ATTRIBUTE_CODES = {"runtime": "runtime", "toleration": "taint", "constraint": "constraint"}


class Why(NamedTuple):
    """What is missing, as a code of `CODES` and as a sentence."""

    code: str
    words: str


@dataclass(slots=True)
class Explanation:
    """`removed`: (filter, how many devices it took away from what was left), in order.

    `candidates`: (row, score, parts) of the best passing devices, best first. `remedies`: where
    nothing passes, the cheapest single changes after which something would.
    """

    summary: str
    removed: list[tuple[str, int]]
    candidates: list[tuple[int, float, dict[str, float]]]
    code: str = FITS
    remedies: list[Remedy] = field(default_factory=list)


def explain(
    picker: Picker, grouping: Grouping | None = None, only: int = ANY_DEVICE, present: Flags | None = None
) -> Explanation:
    """Walks the filters in order, then lists the best of what is left, or what would help.

    `grouping`: what the job's other tasks allow; `only`: the one device that may take it;
    `present`: devices that were not removed.
    """
    view, demand = picker.view, picker.demand
    left = np.ones(view.count, np.bool_) if present is None else present.copy()
    devices = int(left.sum())
    removed = []
    for name, column in _filters(view, demand, grouping, only):
        gone = int((left & ~column).sum())
        if gone:
            removed.append((name, gone))
        left &= column
    if left.any():
        summary = f"{int(left.sum())} of {devices} devices fit"
        return Explanation(summary, removed, best(picker, grouping, left))
    why = why_none(view, demand, grouping, only, present)
    options = remedies(view, demand, grouping, only, present)
    return Explanation(why.words, removed, [], why.code, options)


def _filters(view: View, demand: Demand, grouping: Grouping | None, only: int) -> Iterator[tuple[str, Flags]]:
    if only != ANY_DEVICE:
        yield "its own device", np.arange(view.count) == only
    yield from columns(view, demand)
    if grouping is not None:
        yield from grouping.filters()


def best(
    picker: Picker, grouping: Grouping | None = None, among: Flags | None = None
) -> list[tuple[int, float, dict[str, float]]]:
    """The devices that `pick` would take first, with all that went into their scores."""
    picker.follow()
    total = picker.total
    if grouping is not None:
        total = np.where(grouping.allows(), total + GROUP_WEIGHT * grouping.score(), OUT)
    if among is not None:
        total = np.where(among, total, OUT)
    order = np.argsort(-total, kind="stable")[:CANDIDATES_MAX].tolist()
    return [
        (row, round(float(total[row]), 4), _parts(picker, grouping, row)) for row in order if total[row] > OUT
    ]


def _parts(picker: Picker, grouping: Grouping | None, row: int) -> dict[str, float]:
    parts = picker.parts(row)
    if picker.demand.wish is not None:
        parts["wish"] = round(float(picker.demand.wish[row]), 4)
    for words, column in grouping.parts() if grouping is not None else ():
        parts[words] = round(float(column[row]), 4)
    return parts


# ------------------------------------------------------------- why nothing fits


def why_none(
    view: View,
    demand: Demand,
    grouping: Grouping | None = None,
    only: int = ANY_DEVICE,
    present: Flags | None = None,
) -> Why:
    """The first thing that no device has: what never fits before what is only missing now."""
    able = np.ones(view.count, np.bool_) if present is None else present.copy()
    if not able.any():
        return Why(NO_DEVICES, "no device is known yet")
    if only != ANY_DEVICE:
        able &= np.arange(view.count) == only
        if not able.any():
            return Why(PINNED, "its own device was removed")
    for step in (_attributes, _never, _away, _now):
        why = step(view, demand, able)
        if why is not None:
            return why
    for words, column in grouping.filters() if grouping is not None else ():
        if not (able & column).any():
            return Why("distinct", f"no device with room is left by {words}")
        able &= column
    return Why(ROOM, "waits for room: no single device has enough of everything free at once")


def _attributes(view: View, demand: Demand, able: Flags) -> Why | None:
    """Narrows `able`, as the other steps do."""
    if not (able & view.open).any():
        return Why(CLOSED, "every device that could take it is cordoned, draining or in quarantine")
    able &= view.open
    for words, column in demand.eligible.items():
        if not (able & column).any():
            code = _ATTRIBUTE_CODES[kind_of(words)]
            return Why(code, _ALL_TAINTED if code == "taint" else f"no open device has {words}")
        able &= column
    return None


def _never(view: View, demand: Demand, able: Flags) -> Why | None:
    never = "can never fit as things are: needs"
    for i, (amount, offered) in enumerate(zip(demand.resources, view.offered, strict=True)):
        if amount and not (able & (offered >= view.amount(demand, i, slice(None)))).any():
            largest = int(_as_asked(view, demand, i, offered, able).max())
            said = f"{never} {amount:,} {_unit_of(demand, i)}; largest device has {largest:,}"
            return Why(RESOURCE_CODES[i], said)
    for name, amount in demand.extras.items():
        has = view.extras_offered.get(name)
        most = 0 if has is None else int(has[able].max())
        if amount > most:
            return Why("extra", f"{never} {amount:,} {name}; most on one device is {most:,}")
    if demand.models and demand.accelerators[0]:
        has_model = np.isin(view.accel_model, view.allowed_models(demand)).any(axis=1)
        if not (able & has_model).any():
            return Why("accelerator", f"no open device has an accelerator {' or '.join(demand.models)}")
    return None


def _unit_of(demand: Demand, resource: int) -> str:
    """The unit in which the demand counts this resource."""
    unit = UNITS[NAMES[resource]]
    return f"{unit} of the reference core" if resource == CPU and demand.reference_cpu else unit


def _as_asked(view: View, demand: Demand, resource: int, amounts: Ints, rows: Flags) -> Ints:
    """What these devices' amounts are in that unit."""
    own: Ints = amounts[rows]
    if resource == CPU and demand.reference_cpu:
        own = own * view.core_speed_milli[rows] // WHOLE_MILLI
    return own


def _away(view: View, demand: Demand, able: Flags) -> Why | None:
    if not (able & view.online).any():
        return Why(OFFLINE, "every device that could take it is offline or suspect")
    able &= view.online
    if not (able & view.fit).any():
        return Why(GUARDED, "every device that could take it is too hot, too low on power, or too flaky")
    able &= view.fit
    return None


def _now(view: View, demand: Demand, able: Flags) -> Why | None:
    waits = "waits for room: needs"
    for i, (amount, free) in enumerate(zip(demand.resources, view.free, strict=True)):
        if amount and not (able & (free >= view.amount(demand, i, slice(None)))).any():
            most = max(0, int(_as_asked(view, demand, i, free, able).max()))
            said = f"{waits} {amount:,} {_unit_of(demand, i)}; most free now is {most:,}"
            return Why(RESOURCE_CODES[i], said)
    for name, amount in demand.extras.items():
        free = view.extras_free[name]
        if not (able & (free >= amount)).any():
            return Why("extra", f"{waits} {amount:,} {name}; most free now is {int(free[able].max()):,}")
    count, milli = demand.accelerators
    if count:
        enough = (view.accelerators_free(demand, slice(None)) >= milli).sum(axis=1) >= count
        if not (able & enough).any():
            words = f"{count} whole accelerators" if milli == 1_000 else f"{milli:,} mGPU on one accelerator"
            return Why("accelerator", f"{waits} {words}; no device has that free")
    if not (able & (view.free[SLOTS] > 0)).any():
        return Why("slots", "waits for room: every device that could take it is full of tasks")
    if not (able & (view.document_bytes_free >= max(demand.entry_bytes, DOCUMENT_BYTES_LEAST))).any():
        return Why("document", "waits for room: no device's document has room for it")
    fits = np.ones(view.count, np.bool_)
    for _, column in columns(view, demand):
        fits &= column
    if not (able & fits).any():
        return Why(ROOM, "waits for room: no single device has enough of everything free at once")
    able &= fits
    return None
