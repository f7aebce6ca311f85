"""Jobs that wait for jobs: held back, let go, failed down the line, in the commit of what caused it."""

from __future__ import annotations

import pytest

from controller.core.effects import Reply
from controller.core.records import Dependency, JobRow, JobRules, TaskRow
from controller.core.views import RefusalView, SubmittedView
from protocol.core import Save
from protocol.tasks import JobKind, RunState, TaskState

ENDED = RunState.ENDED


def after_jobs(*jobs, until="succeeded", **more):
    return JobRules(depends_on=tuple(Dependency(j, until) for j in jobs), **more)


def end(desk, number, task, code=0, count=50):
    """The task is granted, starts and ends on d1."""
    attempt = desk.task(task).attempt
    desk.heartbeat("d1", number, count, runs=count - 1)
    return desk.runs("d1", number, count, (task, attempt, ENDED, code))


def job_state(desk, job):
    return desk.store.job(job).row.state.value


def saved(effects, kind):
    return [row for e in effects if isinstance(e, Save) for row in e.rows if isinstance(row, kind)]


def reply(effects):
    [body] = [e.body for e in effects if isinstance(e, Reply)]
    return body


def test_tasks_are_there_but_not_placed_until_the_other_job_succeeded(desk):
    number = desk.join()
    desk.placed(job="a")
    desk.placed(job="b", rules=after_jobs("a"), count=2)
    assert desk.task("b.0").state is TaskState.PENDING and desk.task("b.1").attempt == 0
    end(desk, number, "a.0")
    desk.after(200)
    assert [desk.task(t).state for t in ("b.0", "b.1")] == [TaskState.ASSIGNED] * 2


def test_it_waits_for_all_of_its_list(desk):
    number = desk.join()
    desk.placed(job="a")
    desk.placed(job="b")
    desk.placed(job="c", rules=after_jobs("a", "b"))
    end(desk, number, "a.0", count=50)
    desk.after(200)
    assert desk.task("c.0").state is TaskState.PENDING
    end(desk, number, "b.0", count=60)
    desk.after(200)
    assert desk.task("c.0").state is TaskState.ASSIGNED


def test_a_failure_fails_those_that_need_it_in_the_same_commit_and_so_on(desk):
    number = desk.join()
    desk.placed(job="a", max_attempts=1)
    desk.submit(job="b", rules=after_jobs("a"), count=2)
    desk.submit(job="c", rules=after_jobs("b"))
    desk.submit(job="d", rules=after_jobs("a", until="ended"))
    effects = end(desk, number, "a.0", code=1)
    assert {r.id: r.state.value for r in saved(effects, JobRow)} == {
        "a": "failed",
        "b": "failed",
        "c": "failed",
    }
    tasks = {r.id: (r.state, r.reason) for r in saved(effects, TaskRow)}
    assert tasks["b.1"] == (TaskState.FAILED, "job a failed")
    assert tasks["c.0"] == (TaskState.FAILED, "job b failed")
    desk.after(200)
    assert desk.task("d.0").state is TaskState.ASSIGNED


def test_one_failed_task_is_enough_though_others_go_on(desk):
    number = desk.join()
    desk.placed(job="a", count=2, max_attempts=1)
    desk.submit(job="b", rules=after_jobs("a"))
    desk.submit(job="d", rules=after_jobs("a", until="ended"))
    desk.heartbeat("d1", number, 10)
    desk.runs("d1", number, 50, ("a.0", 1, ENDED, 1), ("a.1", 1, RunState.RUNNING))
    assert (job_state(desk, "a"), job_state(desk, "b"), job_state(desk, "d")) == ("open", "failed", "open")
    assert isinstance(reply(desk.submit(job="e", rules=after_jobs("a"))), RefusalView)
    desk.after(200)
    assert desk.task("d.0").state is TaskState.PENDING


def test_a_cancelled_job_fails_those_that_need_it_and_frees_those_that_only_wait(desk):
    desk.join()
    desk.submit(job="a")
    desk.submit(job="b", rules=after_jobs("a"))
    desk.submit(job="c", rules=after_jobs("a", until="ended"))
    desk.cancel("a")
    assert desk.task("b.0").reason == "job a was cancelled" and job_state(desk, "b") == "failed"
    desk.after(200)
    assert desk.task("c.0").state is TaskState.ASSIGNED


def test_a_waiting_job_can_be_cancelled_and_leaves_nothing_behind(desk):
    number = desk.join()
    desk.placed(job="a")
    desk.submit(job="b", rules=after_jobs("a"))
    desk.submit(job="c", rules=after_jobs("b"))
    desk.cancel("b")
    assert (job_state(desk, "b"), job_state(desk, "c")) == ("cancelled", "failed")
    assert desk.core.dependencies.dependents == {}
    end(desk, number, "a.0")
    assert desk.core.dependencies.dependents == {}


def test_its_time_to_live_counts_while_it_waits(desk):
    desk.submit(job="a")
    desk.submit(job="b", rules=after_jobs("a"), ttl_ms=5_000)
    desk.after(5_100)
    assert (desk.task("b.0").state, desk.task("b.0").reason) == (TaskState.FAILED, "expired")


def test_waiting_is_no_claim_to_a_better_place_in_the_queue(desk):
    number = desk.join()
    desk.placed(job="a")
    desk.submit(job="b", rules=after_jobs("a"))
    desk.heartbeat("d1", number, 9)
    desk.after(20_000)
    end(desk, number, "a.0")
    assert desk.core.ledger.jobs["b"].ready_ms == desk.now


@pytest.mark.parametrize(
    ("rules", "closed", "said"),
    [
        (after_jobs("nobody"), {}, "there is no job nobody"),
        (after_jobs("new"), {}, "wait for itself"),
        (after_jobs("old"), {"old": "failed"}, "job old can't succeed any more"),
        (after_jobs("old"), {"old": "cancelled"}, "job old can't succeed any more"),
        (after_jobs("web"), {}, "job web is a service, which never succeeds"),
    ],
)
def test_what_can_never_come_is_refused_and_leaves_no_trace(desk, rules, closed, said):
    desk.submit(job="web", kind=JobKind.SERVICE)
    body = reply(desk.submit(job="new", rules=rules, closed=closed, idempotency_key="k"))
    assert isinstance(body, RefusalView) and body.code == "invalid" and said in body.detail
    assert desk.store.job("new") is None and "new" not in desk.core.ledger.jobs
    assert isinstance(reply(desk.submit(job="new", idempotency_key="k")), SubmittedView)


def test_a_job_that_is_over_already_is_not_waited_for(desk):
    desk.join()
    closed = {"old": "succeeded", "older": "failed"}
    rules = JobRules(depends_on=(Dependency("old"), Dependency("older", "ended")))
    desk.placed(job="new", rules=rules, closed=closed)
    assert desk.task("new.0").state is TaskState.ASSIGNED


def test_restarts_in_the_middle_change_nothing(desk):
    number = desk.join()
    desk.placed(job="a", max_attempts=1)
    desk.placed(job="b")
    desk.placed(job="c", rules=after_jobs("a", "b"))
    desk.placed(job="d", rules=after_jobs("c"))
    end(desk, number, "a.0", count=50)
    desk.take_over()
    desk.after(200)
    assert desk.task("c.0").state is TaskState.PENDING and desk.core.ledger.jobs["c"].waits == {
        "b": "succeeded"
    }
    desk.heartbeat("d1", number, 60, runs=50)
    desk.heartbeat("d1", number, 61, runs=50)
    desk.runs("d1", number, 70, ("b.0", 1, ENDED, 0))
    desk.take_over()
    assert desk.core.ledger.jobs["c"].waits == {} and desk.core.ledger.jobs["d"].waits == {"c": "succeeded"}
    desk.heartbeat("d1", number, 80, runs=70)
    desk.runs("d1", number, 81)
    desk.after(10_000)
    assert desk.task("c.0").state is TaskState.ASSIGNED and desk.task("d.0").state is TaskState.PENDING


def test_a_crash_before_the_commit_of_the_end_loses_the_consequence_with_it(desk):
    desk.submit(job="a")
    desk.submit(job="b", rules=after_jobs("a"))
    desk.core.jobs.cancel(type("E", (), {"job": "a", "actor": "x", "request": 9})(), desk.now)
    desk.take_over()
    assert (job_state(desk, "a"), job_state(desk, "b")) == ("open", "open")
    assert desk.core.ledger.jobs["b"].waits == {"a": "succeeded"}


def test_a_schedule_that_waits_for_a_failed_job_ends(desk):
    desk.submit(job="a")
    rules = after_jobs("a", schedule="0 0 1 1 *")
    desk.submit(job="nightly", kind=JobKind.CRON, rules=rules)
    desk.cancel("a")
    assert job_state(desk, "nightly") == "failed"
