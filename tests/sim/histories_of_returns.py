"""Histories of tasks whose older run stays (C6), of those where it must not, and of what a copy says: I3."""

from __future__ import annotations

from dataclasses import replace

from history_book import attempt, audit, task

from controller.core.records import AttemptState, JobRow, JobRules, JobState
from protocol.tasks import Guarantee, TaskState
from sim import observations as seen

PASSES, BREAKS = [], []


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


def two_at_once(b, rule="keep_original", guarantee=Guarantee.AT_LEAST_ONE):
    """Attempt 1 is listed on the lost d0, attempt 2 runs on d1; the job chooses."""
    b.device()
    b.device("d1")
    job = replace(b.job(guarantee=guarantee), rules=JobRules(on_return=rule))
    b.commit(job, audit("job", "j1", "", "open"), task("j1.0"))
    b.assign()
    b.runs()
    b.commit(task("j1.0", TaskState.PENDING, "", 1), audit("task", "j1.0", "running", "pending"))
    b.assign(device="d1", number=2)
    b.runs(device="d1", number=2)


def goes_back(b, second=AttemptState.REMOVED):
    moves = (("running", "pending"), ("pending", "assigned"), ("assigned", "running"))
    b.commit(
        attempt("j1.0", "d1", 2, second),
        replace(task("j1.0", TaskState.RUNNING, "d0", 1), handed_out=2),
        *(audit("task", "j1.0", old, new) for old, new in moves),
    )


@passes("I3")
def an_older_run_is_kept_and_is_the_result(b):
    two_at_once(b)
    goes_back(b)
    b.commit(
        attempt("j1.0", "d0", 1, AttemptState.FREE),
        task("j1.0", TaskState.SUCCEEDED, "d0", 1, exit_code=0),
        audit("task", "j1.0", "running", "succeeded"),
        replace(b.rows[JobRow, "j1"], state=JobState.SUCCEEDED),
        audit("job", "j1", "open", "succeeded"),
    )


@breaks("I3")
def an_older_run_of_a_job_that_wants_the_newest(b):
    two_at_once(b, rule="newest")
    goes_back(b)


@breaks("I3")
def an_older_run_where_only_one_may_live(b):
    two_at_once(b, guarantee=Guarantee.AT_MOST_ONE)
    goes_back(b)


@breaks("I3")
def an_older_run_is_kept_and_so_is_the_newer(b):
    two_at_once(b)
    goes_back(b, second=AttemptState.RUNNING)


# ------------------------------------------------------------- a second machine of the same identity


def freed_by_a_late_word_of_a_copy(b, guarantee, before=True):
    """The machine was cloned, the clone is gone; `before`: the run lives since before that."""
    only_one = guarantee is Guarantee.AT_MOST_ONE
    b.device()
    b.submit(guarantee=guarantee)
    if before:
        b.assign()
        b.began(only_one=only_one)
    b.saw(seen.OutOfBounds, "d0", ("I3",), b.now + 1_000, "one identity twice")
    b.after(90_000)
    if not before:
        b.assign()
        b.began(only_one=only_one)
    b.pending()


@passes("I3")
def a_copy_knew_what_may_live_twice(b):
    freed_by_a_late_word_of_a_copy(b, Guarantee.AT_LEAST_ONE)


@breaks("I3")
def a_copy_knew_what_may_live_once(b):
    freed_by_a_late_word_of_a_copy(b, Guarantee.AT_MOST_ONE)


@breaks("I3")
def no_copy_knew_it(b):
    freed_by_a_late_word_of_a_copy(b, Guarantee.AT_LEAST_ONE, before=False)
