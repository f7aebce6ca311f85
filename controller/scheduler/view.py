"""What the scheduler sees: columns of the fleet, and the demand of one task.

A view is a copy that belongs to one round of placement: picks reserve in it, the core
applies them or not. Attribute columns for constraints are made by the caller, because
only it knows where labels live.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.resources import Resources

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class View:
    """`count` devices, one array per fact; `free` and `capacity` one array per resource.

    `online`: heard and ready; `open`: neither cordoned, draining, quarantined nor
    removed; `document_bytes_free`, `slots_free`: what still fits into its document.
    """

    count: int
    online: Flags
    open: Flags
    capacity: list[Ints]
    free: list[Ints]
    document_bytes_free: Ints
    slots_free: Ints


@dataclass(slots=True)
class Demand:
    """What one task needs of a device.

    `eligible` maps each attribute demand, in words, to the column of devices that meet it
    (its runtime, its constraints); `entry_bytes` is its size in a document.
    """

    resources: Resources
    entry_bytes: int
    eligible: dict[str, Flags]
