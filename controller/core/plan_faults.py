"""Plan faults: whether what a plan names is there.

A fault says which change, which field, which place in it, and what was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from controller.core.changes import Change, DrainChange, JobChange, LossChange, SubmitChange
from controller.core.dependencies import meant
from controller.core.ledger import Ledger
from controller.core.outlook import Outlook
from controller.core.plan_views import PlanFaultView
from controller.core.records import GANG_MAX, JobRow
from protocol.tasks import JobKind

NAMES_LOOKED_AT = 500
"""Likeness is dear; more names that begin alike are not compared."""


def fault_of_plan(changes: Sequence[Change], ledger: Ledger, outlook: Outlook) -> PlanFaultView | None:
    """The first thing that is named and not there."""
    sites = dict.fromkeys(outlook.sites())
    for number, change in enumerate(changes):
        for field, place, detail in _faults(change, ledger, outlook, sites):
            return PlanFaultView(number, field, place, detail)
        if getattr(change, "device", None) is not None:
            sites[change.device.labels.get("site", "")] = None  # type: ignore[union-attr]
    return None


def _faults(
    change: Change, ledger: Ledger, outlook: Outlook, sites: dict[str, None]
) -> Iterator[tuple[str, int, str]]:
    if isinstance(change, DrainChange | LossChange):
        fleet = outlook.fleet
        for place, name in enumerate(change.devices):
            row = fleet.index.get(name)
            if row is None or fleet.removed[row]:
                yield "devices", place, f"no device {name}{_meant(name, fleet.names)}"
    if isinstance(change, LossChange):
        for place, name in enumerate(change.sites):
            if name not in sites:
                yield "sites", place, f"no device has the site {name!r}{_meant(name, list(sites))}"
    if isinstance(change, JobChange):
        job = ledger.jobs.get(change.job)
        if job is None:
            yield "job", 0, f"no open job {change.job}{meant(ledger, change.job)}"
        elif job.row.kind is JobKind.CRON:
            yield "job", 0, f"job {change.job} is a cron job and has no tasks itself; name one that it made"
        elif change.count is not None:
            yield from _count_faults(job.row, change.count)
    if isinstance(change, SubmitChange) and change.job.id in ledger.jobs:
        yield "job", 0, f"there is a job {change.job.id} already"


def _count_faults(row: JobRow, count: int) -> Iterator[tuple[str, int, str]]:
    if row.kind is JobKind.DAEMON:
        yield (
            "count",
            0,
            f"job {row.id} is a daemon and runs on every device that matches; change constraints",
        )
    if row.rules.gang and 0 < row.rules.parallel_max < count:
        yield "count", 0, f"job {row.id} is a gang of at most {row.rules.parallel_max} at a time"
    if row.rules.gang and count > GANG_MAX:
        yield "count", 0, f"job {row.id} is a gang, which has at most {GANG_MAX:,} tasks"


def _meant(name: str, names: Sequence[str]) -> str:
    alike = [n for n in names if n[:1].lower() == name[:1].lower()][:NAMES_LOOKED_AT]
    found = difflib.get_close_matches(name, alike, 1)
    return f"; did you mean {found[0]}?" if found else ""
