"""Explain: why a task is nowhere, or what spoke for a device. Data, not prose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler.filters import columns
from controller.scheduler.pick import OUT, Picker
from controller.scheduler.view import Demand, View
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


@dataclass(slots=True)
class Explanation:
    """`removed`: (filter, how many devices it took away from what was left), in order.

    `candidates`: (row, score, parts) of the best passing devices, best first.
    """

    summary: str
    removed: list[tuple[str, int]]
    candidates: list[tuple[int, float, dict[str, float]]]


def explain(picker: Picker) -> Explanation:
    """Walks the filters in order, then lists the best of what is left."""
    view, demand = picker.view, picker.demand
    left = np.ones(view.count, np.bool_)
    removed = []
    for name, column in columns(view, demand):
        gone = int((left & ~column).sum())
        if gone:
            removed.append((name, gone))
        left &= column
    summary = f"{int(left.sum())} of {view.count} devices fit" if left.any() else _why_none(view, demand)
    return Explanation(summary, removed, _best(picker))


def _best(picker: Picker) -> list[tuple[int, float, dict[str, float]]]:
    picker.follow()
    order = np.argsort(-picker.total, kind="stable")[:CANDIDATES_MAX].tolist()
    return [
        (row, round(float(picker.total[row]), 4), picker.parts(row))
        for row in order
        if picker.total[row] > OUT
    ]


def _why_none(view: View, demand: Demand) -> str:
    """The first thing that no device has, in one sentence."""
    if not view.count:
        return "no device is known yet"
    able = view.open.copy()
    for words, column in demand.eligible.items():
        if not (able & column).any():
            return f"no open device has {words}"
        able &= column
    for name, amount, offered in zip(NAMES, demand.resources, view.offered, strict=True):
        largest = int(offered[able].max()) if able.any() else 0
        if amount > largest:
            return (
                f"can never fit as things are: needs {amount:,} {UNITS[name]}; largest device has {largest:,}"
            )
    if not (able & view.online).any():
        return "every device that could take it is offline or suspect"
    able &= view.online
    for name, amount, free in zip(NAMES, demand.resources, view.free, strict=True):
        most = int(free[able].max())
        if amount > most:
            return f"waits for room: needs {amount:,} {UNITS[name]}; most free now is {most:,}"
    return "waits for room: no single device has enough of everything free at once"
