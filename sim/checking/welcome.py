"""Welcome: whether a device may be given a task of a job, but for room and for condition.

Rule of this file: one device and one job at a time, from their rows alone: what was decided about
the device, what the job demands of it, which of its taints the job overlooks. Slow and plain
on purpose: it is what the scheduler's columns are held against.
"""

from __future__ import annotations

from controller.core.conditions import most_per_value, of_group, test_of, values_of
from controller.core.records import Constraint, DeviceRow, JobRow
from controller.core.taints import tolerated


def shut(row: DeviceRow) -> str:
    """What was decided against it; empty when it is open."""
    words = ("removed", "quarantined", "cordoned", "draining")
    return next((word for word in words if getattr(row, word)), "")


def unlike(job: JobRow, row: DeviceRow) -> str:
    """What the job demands and the device is not; empty when it is all that."""
    spec = job.spec
    if spec.runtime not in row.runtimes:
        return f"has no runtime {spec.runtime}"
    for demand in spec.constraints:
        if not of_group(demand) and not test_of(demand)(row):
            return f"is not {words(demand)}"
    return ""


def tainted(job: JobRow, row: DeviceRow) -> str:
    """The taints that keep the job away; empty when none does."""
    allowed = not row.taints or tolerated(row.taints, job.spec.tolerations).allowed
    return "" if allowed else f"has taints {' '.join(row.taints)}"


def turned_away(job: JobRow, row: DeviceRow) -> str:
    """Why the device takes no task of the job, room and condition aside."""
    return shut(row) or unlike(job, row) or tainted(job, row)


def words(demand: Constraint) -> str:
    return f"{demand.attribute} {demand.operator} {demand.value}".strip()


def together(job: JobRow) -> list[Constraint]:
    """Demands on where the job's tasks stand relative to each other."""
    return [demand for demand in job.spec.constraints if of_group(demand)]


def value_of(demand: Constraint, row: DeviceRow) -> str | None:
    """What two tasks must not share; None where the device has no such value."""
    if demand.operator == "distinct_device":
        return row.device
    return next(iter(values_of(row, demand.attribute)), None)


def most_of(demand: Constraint) -> int:
    """So many tasks may share a value."""
    return most_per_value(demand)
