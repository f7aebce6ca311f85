"""Histories that keep and histories that break what holds where an invariant is suspended: X1 to X4."""

from __future__ import annotations

from dataclasses import replace

from history_book import CONTROLLER, HOLD_MS, attempt, audit, task

from controller.core.records import AttemptState, DeviceRow, FleetRow
from protocol.messages import (
    AssignedAttempt,
    Assignments,
    Heartbeat,
    Held,
    LeaseAnswer,
    Revision,
)
from protocol.resources import Resources
from protocol.tasks import Guarantee, TaskState
from sim import observations as seen

PASSES, BREAKS = [], []
REVISION = Revision(7, 1)
SITE = {"site": "a"}


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


# ------------------------------------------------------------- X1


def put_back(b, marked):
    """An old copy with a job that is to be placed."""
    b.device()
    b.submit()
    b.saw(seen.DatabaseRestored, tuple(b.rows.values()), marked)


def found_out(b):
    b.commit(FleetRow("restored_epoch", "8"), epoch=8)


@passes("X1")
def placed_one_hold_after_a_marked_copy(b):
    put_back(b, marked=True)
    b.after(HOLD_MS)
    b.assign()


@passes("X1")
def placed_before_anybody_could_know(b):
    put_back(b, marked=False)
    b.after(5_000)
    b.assign()


@breaks("X1")
def placed_at_once_after_a_marked_copy(b):
    put_back(b, marked=True)
    b.after(HOLD_MS // 2)
    b.assign()


@breaks("X1")
def placed_at_once_after_it_was_found_out(b):
    put_back(b, marked=False)
    b.after(5_000)
    found_out(b)
    b.after(HOLD_MS // 2)
    b.assign()


@passes("X1")
def a_wait_that_an_unmarked_copy_took_away(b):
    b.device()
    b.submit()
    copy = tuple(b.rows.values())
    b.saw(seen.DatabaseRestored, copy, True)
    b.after(5_000)
    b.saw(seen.DatabaseRestored, copy, False)
    b.after(1_000)
    b.assign()


@breaks("X1")
def a_second_copy_is_found_out_too(b):
    put_back(b, marked=True)
    b.after(5_000)
    b.saw(seen.DatabaseRestored, tuple(b.rows.values()), False)
    b.after(1_000)
    found_out(b)
    b.after(HOLD_MS // 2)
    b.assign()


@breaks("X1")
def an_unmarked_copy_that_was_taken_within_a_wait(b):
    b.device()
    b.submit()
    b.commit(FleetRow("waiting", "1"))
    b.saw(seen.DatabaseRestored, tuple(b.rows.values()), False)
    b.after(HOLD_MS // 2)
    b.assign()


# ------------------------------------------------------------- X2


def speaks(b, who, *audits, **facts):
    row = replace(b.rows[DeviceRow, "d0"], boot_id=who, instance_id=who, **facts)
    b.commit(row, *audits)


@passes("X2")
def two_alternate_and_are_quarantined(b):
    b.device(boot_id="A", instance_id="A")
    speaks(b, "B")
    speaks(b, "A", audit("device", "d0", "open", "quarantined"), quarantined=True)
    speaks(b, "B")


@passes("X2")
def three_boots_are_one_machine(b):
    b.device(boot_id="A", instance_id="A")
    speaks(b, "B")
    speaks(b, "C")


@passes("X2")
def who_was_let_stay_may_speak(b):
    two_alternate_and_are_quarantined(b)
    speaks(b, "B", audit("device", "d0", "quarantined", "open"), quarantined=False)
    speaks(b, "A")


@breaks("X2")
def two_alternate_and_go_on(b):
    b.device(boot_id="A", instance_id="A")
    speaks(b, "B")
    speaks(b, "A")


# ------------------------------------------------------------- X3


def granted(b, guarantee=Guarantee.AT_MOST_ONE):
    """An attempt of d0 that a grant covers since now."""
    b.device()
    b.submit(guarantee=guarantee)
    b.assign()
    listed = AssignedAttempt("j1.0", 1, "process", ("true",), {}, Resources(), guarantee, 30_000, 0, 5_000)
    b.heard("d0", Assignments(REVISION, (listed,)), received=False)
    b.heard("d0", Heartbeat(5, 1, Held(7, 1, 1, 1, 0, 0)))
    b.heard("d0", LeaseAnswer(7, 5, 1, REVISION), client=CONTROLLER, received=False)


def quarantined(b):
    b.commit(replace(b.rows[DeviceRow, "d0"], quarantined=True), audit("device", "d0", "open", "quarantined"))


def freed(b):
    b.commit(
        attempt("j1.0", "d0", 1, AttemptState.FREE),
        task("j1.0", TaskState.PENDING, "", 1),
        audit("task", "j1.0", "assigned", "pending"),
    )


@passes("X3")
def free_by_time(b):
    granted(b)
    quarantined(b)
    b.after(HOLD_MS)
    freed(b)


@passes("X3")
def free_at_once_without_a_grant(b):
    b.device()
    b.submit()
    b.assign()
    quarantined(b)
    freed(b)


@passes("X3")
def free_by_a_report_before_the_quarantine(b):
    granted(b)
    freed(b)
    quarantined(b)


@passes("X3")
def at_least_one_work_waits_for_nobody(b):
    granted(b, Guarantee.AT_LEAST_ONE)
    quarantined(b)
    freed(b)


@breaks("X3")
def free_by_a_report_in_quarantine(b):
    granted(b)
    quarantined(b)
    b.after(HOLD_MS // 2)
    freed(b)


# ------------------------------------------------------------- X4


def falls_silent(b, count, *more):
    """So many of twenty devices of a site are suspect at once."""
    names = [f"d{n:02}" for n in range(20)]
    for name in names:
        b.device(name, labels=SITE)
    b.commit(*(audit("device", name, "online", "suspect") for name in names[:count]), *more)


@passes("X4")
def ten_are_silent_and_it_is_frozen(b):
    falls_silent(b, 10, FleetRow("frozen:a", "1"))
    b.commit(audit("device", "d15", "online", "suspect"))


@passes("X4")
def nine_are_no_storm(b):
    falls_silent(b, 9)


@passes("X4")
def one_after_the_other_is_no_storm(b):
    falls_silent(b, 9)
    b.after(40_000)
    b.commit(audit("device", "d15", "online", "suspect"))


@passes("X4")
def what_was_thawed_is_forgiven(b):
    ten_are_silent_and_it_is_frozen(b)
    b.commit(FleetRow("frozen:a", ""))
    b.commit(audit("device", "d16", "online", "suspect"))


@passes("X4")
def another_leadership_has_heard_nobody(b):
    falls_silent(b, 9)
    b.commit(audit("device", "d15", "online", "suspect"), epoch=8)


@breaks("X4")
def ten_are_silent_and_it_goes_on(b):
    falls_silent(b, 10)
