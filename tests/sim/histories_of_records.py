"""Histories that hold and histories that break an invariant: I1 to I7, what runs and what is committed."""

from __future__ import annotations

from dataclasses import replace

from history_book import CONTROLLER, HOLD_MS, attempt, audit, task

from controller.core.records import (
    AttemptState,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobState,
)
from protocol.messages import (
    AssignedAttempt,
    Assignments,
    Revision,
)
from protocol.resources import Resources
from protocol.tasks import Guarantee, TaskState
from sim import observations as seen

PASSES, BREAKS = [], []


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


# ------------------------------------------------------------- I1


@passes("I1")
def one_after_the_other(b):
    b.one_run(end=False)
    b.ended()
    b.began("j1.0", "d1", 2)


@passes("I1")
def at_least_one_may_overlap(b):
    b.began(only_one=False)
    b.began("j1.0", "d1", 2, only_one=False)


@passes("I1")
def a_frozen_run_does_not_count(b):
    b.began()
    b.saw(seen.RunFrozen, "d0", "j1.0", 1)
    b.began("j1.0", "d1", 2)
    b.ended()


@breaks("I1")
def two_live(b):
    b.began()
    b.began("j1.0", "d1", 2)


@breaks("I1")
def one_thaws_beside_its_successor(b):
    b.began()
    b.saw(seen.RunFrozen, "d0", "j1.0", 1)
    b.began("j1.0", "d1", 2)
    b.saw(seen.RunThawed, "d0", "j1.0", 1)


@breaks("I1")
def two_live_after_a_restored_copy(b):
    b.one_run(end=False)
    b.saw(seen.DatabaseRestored, ())
    b.began("j1.0", "d1", 2)


# ------------------------------------------------------------- I2


@breaks("I2")
def accepted_and_not_stored(b):
    b.saw(seen.JobAccepted, "j1", 1)


@breaks("I2")
def stored_in_part(b):
    b.commit(b.job(count=2), audit("job", "j1", "", "open"), task("j1.0"))


@breaks("I2")
def closed_over_an_open_task(b):
    b.submit()
    b.commit(b.job(state=JobState.SUCCEEDED), audit("job", "j1", "open", "succeeded"))


@breaks("I2")
def lost_by_the_database(b):
    b.submit()
    b.saw(seen.DatabaseRead, ())


@breaks("I2")
def kept_otherwise_by_the_database(b):
    b.submit()
    b.saw(seen.DatabaseRead, (task("j1.0", TaskState.ASSIGNED, "d0", 1),))


@passes("I2")
def found_as_committed(b):
    b.submit(count=3)
    b.saw(seen.DatabaseRead, tuple(task(f"j1.{i}") for i in range(3)))


@passes("I2")
def what_came_after_a_backup_is_lost(b):
    b.submit()
    b.saw(seen.DatabaseRestored, ())


# ------------------------------------------------------------- I3


@breaks("I3")
def a_second_result(b):
    b.one_run()
    b.commit(task("j1.0", TaskState.SUCCEEDED, "d1", 1, exit_code=1))


@breaks("I3")
def a_result_of_an_old_attempt(b):
    b.one_run(end=False)
    b.ended()
    b.pending(was="running")
    b.assign(number=2)
    b.commit(
        attempt("j1.0", "d0", 2, AttemptState.FREE),
        task("j1.0", TaskState.SUCCEEDED, "d0", 1, exit_code=0),
        audit("task", "j1.0", "assigned", "succeeded"),
        b.job(state=JobState.SUCCEEDED),
        audit("job", "j1", "open", "succeeded"),
    )


@breaks("I3")
def a_result_of_a_run_that_lives(b):
    b.one_run(end=False)
    b.succeed()


def freed_while_it_lives(b):
    """An `at_least_one` attempt; its first run ended, its device was restarted."""
    b.device()
    b.submit(guarantee=Guarantee.AT_LEAST_ONE)
    b.assign()
    b.began(only_one=False)
    b.runs()
    b.ended()
    b.saw(seen.JournalLost, "d0")
    b.began(only_one=False)
    b.pending(was="running")


@passes("I3")
def freed_by_the_end_of_a_run_that_was_forgotten(b):
    freed_while_it_lives(b)


def freed_after_a_copy(b, since, until):
    b.one_run(end=False)
    held = replace(attempt("j1.0", "d0", 1), since=since)
    rows = (b.job(), task("j1.0", TaskState.ASSIGNED, "d0", 1), b.rows[DeviceRow, "d0"], held)
    b.saw(seen.DatabaseRestored, rows)
    b.commit(
        replace(held, state=AttemptState.FREE, until=until),
        task("j1.0", TaskState.PENDING, "", 1),
        audit("task", "j1.0", "assigned", "pending"),
    )


@passes("I3")
def withdrawn_from_a_copy_that_never_listed_it(b):
    freed_after_a_copy(b, since=4, until=4)


@breaks("I3")
def freed_after_a_copy_that_listed_it(b):
    freed_after_a_copy(b, since=3, until=4)


@breaks("I3")
def freed_again_where_nothing_was_forgotten(b):
    freed_while_it_lives(b)
    b.assign(number=2)
    b.began(number=2, only_one=False)
    b.pending(number=2)


@breaks("I3")
def an_illegal_move(b):
    b.one_run(end=False)
    b.commit(task("j1.0", TaskState.ASSIGNED, "d0", 1), audit("task", "j1.0", "running", "assigned"))


@breaks("I3")
def a_free_attempt_that_comes_back(b):
    b.one_run()
    b.commit(attempt("j1.0", "d0", 1, AttemptState.RUNNING))


# ------------------------------------------------------------- I4


@passes("I4")
def told_after_the_commit(b):
    b.device()
    b.submit()
    b.assign()
    b.heard("d0", document("d0", 1), client="d0")


@breaks("I4")
def a_number_twice(b):
    b.device()
    b.submit()
    b.assign(number=2)
    b.pending(number=2)
    b.commit(attempt("j1.0", "d0", 1))


@breaks("I4")
def a_number_for_two_devices(b):
    b.device()
    b.device("d1")
    b.submit()
    b.assign()
    b.commit(attempt("j1.0", "d1", 1))


@breaks("I4")
def told_before_the_commit(b):
    b.device()
    b.submit()
    b.heard("d0", document("d0", 1), CONTROLLER, received=False)


@breaks("I4")
def told_to_another(b):
    b.device()
    b.submit()
    b.assign()
    b.heard("d1", document("d1", 1), client="d1")


@breaks("I4")
def handed_out_again_after_a_marked_copy(b):
    b.one_run(end=False)
    b.ended()
    b.saw(seen.DatabaseRestored, (b.job(), task("j1.0"), b.rows[DeviceRow, "d0"]))
    b.after(HOLD_MS)
    b.assign()


@passes("I4")
def handed_out_again_before_anybody_could_know(b):
    b.one_run(end=False)
    b.ended()
    b.saw(seen.DatabaseRestored, (b.job(), task("j1.0"), b.rows[DeviceRow, "d0"]), False)
    b.assign()
    b.began()


@passes("I4")
def told_late_what_another_was_given_in_the_dark(b):
    """And then another copy is put back: what was lost twice was still given to both."""
    b.device()
    b.device("d1")
    b.submit()
    copy = tuple(b.rows.values())
    b.assign()
    b.saw(seen.DatabaseRestored, copy, False)
    b.assign(device="d1")
    b.saw(seen.DatabaseRestored, copy, False)
    b.heard("d0", document("d0", 1), received=False)
    b.heard("d1", document("d1", 1), received=False)


@breaks("I4")
def handed_out_again_after_it_was_found_out(b):
    b.device()
    b.submit()
    b.assign(number=5)
    b.saw(seen.DatabaseRestored, (b.job(), task("j1.0"), b.rows[DeviceRow, "d0"]), False)
    b.commit(FleetRow("restored_epoch", "9"))
    b.after(HOLD_MS)
    b.assign(number=4)


def started_again_after_an_unmarked_copy(b, told):
    """The copy lists what has ended since; its leader stamps a document, or does not, and is found out."""
    b.one_run(end=False)
    copy = tuple(b.rows.values())
    b.ended()
    b.saw(seen.DatabaseRestored, copy, False)
    if told:
        b.commit(DocumentRow("d0", 9, 4), epoch=9)
    b.commit(FleetRow("restored_epoch", "10"), epoch=10)
    b.began(only_one=False)


@passes("I15")
def started_again_by_a_document_that_a_copy_stamped(b):
    started_again_after_an_unmarked_copy(b, told=True)


@breaks("I15")
def started_again_though_the_copy_told_nothing(b):
    started_again_after_an_unmarked_copy(b, told=False)


def document(device, number):
    entry = AssignedAttempt("j1.0", number, "process", ("true",))
    return Assignments(Revision(7, 1), (entry,))


# ------------------------------------------------------------- I5


@breaks("I5")
def more_than_fits(b):
    b.device(room=Resources(1_500, 4_096, 10_000, 0))
    b.submit(count=2)
    b.assign("j1.0")
    b.assign("j1.1")


@passes("I5")
def room_that_became_free(b):
    b.device(room=Resources(1_500, 4_096, 10_000, 0))
    b.submit(count=2)
    b.assign("j1.0")
    b.pending("j1.0")
    b.assign("j1.1")


@passes("I5")
def a_device_that_shrinks_keeps_what_it_has(b):
    b.device()
    b.submit(count=2)
    b.assign("j1.0")
    b.commit(replace(b.rows[DeviceRow, "d0"], capacity=Resources(10, 10, 0, 0)))


@breaks("I5")
def a_device_that_shrank_gets_more(b):
    a_device_that_shrinks_keeps_what_it_has(b)
    b.assign("j1.1")


# ------------------------------------------------------------- I6


def cordoned(b):
    b.device()
    b.submit()
    b.assign()
    b.commit(DocumentRow("d0", 7, 3))
    row = replace(b.rows[DeviceRow, "d0"], cordoned=True)
    b.commit(row, DocumentRow("d0", 7, 4), audit("device", "d0", "open", "cordoned", "alice"))


@passes("I6")
def a_grant_in_flight(b):
    cordoned(b)
    b.after(HOLD_MS)
    b.began()


@breaks("I6")
def later_than_hold(b):
    cordoned(b)
    b.after(HOLD_MS + 1)
    b.began()


@passes("I6")
def weak_containment_takes_longer(b):
    cordoned(b)
    b.after(HOLD_MS + 1)
    b.began(weak=True)


@passes("I6")
def an_older_document_was_named(b):
    cordoned(b)
    b.beat(epoch=7, number=3)
    b.began()


@breaks("I6")
def after_it_was_effective(b):
    cordoned(b)
    b.beat(epoch=7, number=4)
    b.after(10)
    b.began()


@passes("I6")
def opened_again(b):
    cordoned(b)
    b.after(HOLD_MS)
    row = replace(b.rows[DeviceRow, "d0"], cordoned=False)
    b.commit(row, audit("device", "d0", "cordoned", "open", "alice"))
    b.after(1)
    b.began()


# ------------------------------------------------------------- I7


def cancelled(b, **more):
    b.device()
    b.submit(**more)
    b.assign()
    b.began(only_one="guarantee" not in more)
    b.runs()
    b.commit(
        replace(b.job(**more), desired="cancelled"),
        audit("job", "j1", "run", "cancelled", "alice"),
        task("j1.0", TaskState.RUNNING, "d0", 1, desired="cancelled"),
        audit("task", "j1.0", "run", "cancelled", "alice"),
    )


@passes("I7")
def dead_by_hold(b):
    cancelled(b)
    b.after(HOLD_MS)
    b.ended()


@breaks("I7")
def alive_after_hold(b):
    cancelled(b)
    b.after(HOLD_MS + 1)
    b.ended()


@breaks("I7")
def alive_at_the_end_of_the_history(b):
    cancelled(b)
    b.after(HOLD_MS + 1)
    b.device("d1")


@passes("I7")
def at_least_one_counts_as_stopping(b):
    cancelled(b, guarantee=Guarantee.AT_LEAST_ONE)
    b.after(10 * HOLD_MS)
    b.ended()


@passes("I7")
def said_to_be_over_where_it_was_forgotten_and_begun_anew(b):
    cancelled(b, guarantee=Guarantee.AT_LEAST_ONE)
    b.ended()
    b.saw(seen.JournalLost, "d0")
    b.began(only_one=False)
    over(b)


@breaks("I7")
def said_to_be_over_and_alive(b):
    cancelled(b, guarantee=Guarantee.AT_LEAST_ONE)
    over(b)


def over(b):
    b.commit(
        attempt("j1.0", "d0", 1, AttemptState.FREE),
        task("j1.0", TaskState.CANCELLED, "d0", 1, desired="cancelled"),
        audit("task", "j1.0", "running", "cancelled"),
        replace(b.job(state=JobState.CANCELLED), desired="cancelled"),
        audit("job", "j1", "open", "cancelled"),
    )
