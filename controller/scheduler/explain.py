"""Explain: why a task is nowhere, or what spoke for a device. Data, not prose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.scheduler.filters import columns
from controller.scheduler.pick import Picker
from controller.scheduler.policies import POLICIES
from controller.scheduler.view import Demand, View
from protocol.resources import NAMES

CANDIDATES_MAX = 10
UNITS = {"cpu_milli": "mCPU", "memory_mib": "MiB", "disk_mib": "MiB of disk", "gpu_milli": "mGPU"}


@dataclass(slots=True)
class Explanation:
    """`removed`: (filter, how many devices it took away from what was left), in order.

    `candidates`: (row, score, parts) of the best passing devices, best first.
    """

    summary: str
    removed: list[tuple[str, int]]
    candidates: list[tuple[int, float, dict[str, float]]]


def explain(view: View, demand: Demand, policy: str) -> Explanation:
    """Walks the filters in order, then lists the best of what is left."""
    left = np.ones(view.count, np.bool_)
    removed = []
    for name, column in columns(view, demand):
        gone = int((left & ~column).sum())
        if gone:
            removed.append((name, gone))
        left &= column
    summary = f"{int(left.sum())} of {view.count} devices fit" if left.any() else _why_none(view, demand)
    return Explanation(summary, removed, _best(view, demand, policy))


def _best(view: View, demand: Demand, policy: str) -> list[tuple[int, float, dict[str, float]]]:
    if not view.count:
        return []
    total = Picker(view, demand, policy).total
    order = [int(r) for r in np.argsort(-total, kind="stable")[:CANDIDATES_MAX] if total[r] >= 0]
    result = []
    for row in order:
        one = [c[row : row + 1] for c in view.capacity], [f[row : row + 1] for f in view.free]
        parts = {
            name: round(float(score(*one, demand)[0]), 4) for name, (score, _) in POLICIES[policy].items()
        }
        result.append((row, round(float(total[row]), 4), parts))
    return result


def _why_none(view: View, demand: Demand) -> str:
    """The first thing that no device has, in one sentence."""
    if not view.count:
        return "no device is known yet"
    able = view.open.copy()
    for words, column in demand.eligible.items():
        if not (able & column).any():
            return f"no open device has {words}"
        able &= column
    for name, amount, capacity in zip(NAMES, demand.resources, view.capacity, strict=True):
        largest = int(capacity[able].max()) if able.any() else 0
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
