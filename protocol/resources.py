"""The resource vector: an ordered row of integers, the same on the wire, in columns and in SQL.

Order is part of the protocol: cpu_milli, memory_mib, disk_mib, gpu_milli, up_kbit_s,
down_kbit_s, slots. New resources are appended, never inserted: a shorter row of an older
sender means zero for what it doesn't know. Integers only: a sum of floats would not be
capacity. `gpu_milli` is the sum over accelerators; which one a task gets is told beside it.
"""

from __future__ import annotations

from typing import NamedTuple


class Resources(NamedTuple):
    """Amounts of each resource; of a device, a task, or a difference (then perhaps negative)."""

    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpu_milli: int = 0
    up_kbit_s: int = 0
    down_kbit_s: int = 0
    slots: int = 0
    """How many tasks at once; a task takes one."""

    def plus(self, other: Resources) -> Resources:
        return Resources(*[a + b for a, b in zip(self, other, strict=True)])

    def minus(self, other: Resources) -> Resources:
        return Resources(*[a - b for a, b in zip(self, other, strict=True)])

    def fits(self, room: Resources) -> bool:
        """Whether this demand fits into `room`, resource by resource."""
        return all(a <= b for a, b in zip(self, room, strict=True))


NAMES = Resources._fields
ZERO = Resources()
