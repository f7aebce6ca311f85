"""Prospects: devices that could hold a demand if they were emptier, the most promising first.

Most promising: the most free of what is scarcest there, of all that is asked for; so the
least has to end. Whether what stands in the way ever ends is not to be seen here.
"""

from __future__ import annotations

import numpy as np

from controller.scheduler.view import SLOTS, Demand, Flags, View

DEVICES_TOLD = 256


def prospects(view: View, demand: Demand, allowed: Flags, most: int = DEVICES_TOLD) -> list[int]:
    """Rows of allowed devices whose offer would hold it, best first; equal ones in fleet order."""
    everything = slice(0, view.count)
    could, scarcest = allowed.copy(), np.ones(view.count)
    for i, amount in enumerate(demand.resources):
        if amount:
            could &= view.offered[i] >= view.amount(demand, i, everything)
            if i != SLOTS:
                np.minimum(scarcest, view.share_free[i], out=scarcest)
    for name, amount in demand.extras.items():
        offered = view.extras_offered.get(name)
        could &= offered >= amount if offered is not None else False
    count, _ = demand.accelerators
    if count and demand.models:
        right = np.isin(view.accel_model, view.allowed_models(demand))
        could &= right.sum(axis=1) >= count
    rows = np.flatnonzero(could)
    found: list[int] = rows[np.argsort(-scarcest[rows], kind="stable")][:most].tolist()
    return found
