"""The resource vector: an ordered row of integers, the same on the wire, in columns and in SQL.

Order is part of the protocol: cpu_milli, memory_mib, disk_mib, gpu_milli. New resources
are appended, never inserted. Integers only: a sum of floats would not be capacity.
"""

from __future__ import annotations

from typing import NamedTuple


class Resources(NamedTuple):
    """Amounts of each resource; of a device, a task, or a difference (then perhaps negative)."""

    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpu_milli: int = 0

    def plus(self, other: Resources) -> Resources:
        return Resources(*[a + b for a, b in zip(self, other, strict=True)])

    def minus(self, other: Resources) -> Resources:
        return Resources(*[a - b for a, b in zip(self, other, strict=True)])

    def fits(self, room: Resources) -> bool:
        """Whether this demand fits into `room`, resource by resource."""
        return all(a <= b for a, b in zip(self, room, strict=True))


NAMES = Resources._fields
ZERO = Resources()
