"""Histories of moves that nobody needs, with measure and without: P9."""

from __future__ import annotations

from dataclasses import replace

from history_book import LEASE_MS, attempt

from controller.core.records import AttemptState, DeviceRow, JobRules
from protocol.resources import Resources
from protocol.tasks import JobKind

PASSES, BREAKS = [], []
RESTED_MS = 3 * LEASE_MS
TINY = Resources(100, 10)


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


def placed(b, count=1, job="j1", **more):
    """Tasks of one job, placed together."""
    b.device()
    b.submit(job, count, **more)
    rows = [row for i in range(count) for row in b.assigned(f"{job}.{i}")]
    b.commit(*rows)


def moved(b, *tasks, reason="rebalanced", epoch=7):
    gone = [replace(attempt(name, "d0", 1, AttemptState.REMOVED), reason=reason) for name in tasks]
    b.commit(*gone, epoch=epoch)


def of(count, job="j1", first=0):
    return [f"{job}.{i}" for i in range(first, first + count)]


@passes("P9")
def moved_when_it_has_rested(b):
    placed(b)
    b.after(RESTED_MS)
    moved(b, "j1.0")


@breaks("P9")
def moved_too_early(b):
    placed(b)
    b.after(RESTED_MS // 2)
    moved(b, "j1.0")


@breaks("P9")
def moved_as_soon_as_another_leads(b):
    placed(b)
    b.after(RESTED_MS)
    b.commit(b.rows[DeviceRow, "d0"])
    b.after(5_000)
    moved(b, "j1.0", epoch=8)


@passes("P9")
def moved_when_another_has_led_for_long(b):
    """His first commit tells nothing of when he began."""
    placed(b)
    b.after(RESTED_MS)
    b.commit(b.rows[DeviceRow, "d0"], epoch=8)
    moved(b, "j1.0", epoch=8)


@passes("P9")
def drained_too_early(b):
    placed(b)
    moved(b, "j1.0", reason="drained")


@breaks("P9")
def a_daemon_is_moved(b):
    b.device()
    b.submit(kind=JobKind.DAEMON, pins=("d0",))
    b.assign(pin="d0")
    b.after(RESTED_MS)
    moved(b, "j1.0")


@breaks("P9")
def one_of_a_gang_is_moved(b):
    placed(b, 2, rules=JobRules(gang=True))
    b.after(RESTED_MS)
    moved(b, "j1.0")


@breaks("P9")
def what_is_packed_is_moved(b):
    placed(b, rules=JobRules(policy="binpack"))
    b.after(RESTED_MS)
    moved(b, "j1.0")


@passes("P9")
def ten_at_a_time(b):
    placed(b, 20, resources=TINY)
    b.after(RESTED_MS)
    moved(b, *of(10))
    freed = [attempt(name, "d0", 1, AttemptState.FREE) for name in of(10)]
    b.commit(*freed)
    moved(b, *of(10, first=10))


@breaks("P9")
def eleven_at_a_time(b):
    placed(b, 20, resources=TINY)
    b.after(RESTED_MS)
    moved(b, *of(10))
    moved(b, "j1.10")


@breaks("P9")
def eleven_of_two_leaders(b):
    placed(b, 20, resources=TINY)
    b.after(RESTED_MS)
    moved(b, *of(10))
    b.commit(b.rows[DeviceRow, "d0"], epoch=8)
    b.after(RESTED_MS)
    moved(b, "j1.10", epoch=8)


@breaks("P9")
def eleven_with_those_of_a_drain(b):
    placed(b, 20, resources=TINY)
    b.commit(replace(b.rows[DeviceRow, "d0"], draining=True))
    b.after(RESTED_MS)
    moved(b, *of(10), reason="drained")
    moved(b, "j1.10")
