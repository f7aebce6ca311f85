"""Deleting old history from the SQLite store, a bounded piece per call.

Rule: one call is one short transaction, so that no save waits long behind it; the caller
comes again while `more`. A job of a million tasks goes in many pieces, its row last, so a
crash between leaves a job that is still found and finished next time.
"""

from __future__ import annotations

import sqlite3

from controller.store.base import Pruned, split_task

TASKS_PER_CALL = 100
ROWS_PER_CALL = 500
"""Pieces of output, attempts and audit rows. Together about 10 ms: what a save may have to wait."""


class Pruner:
    """Keeps its place in the list of ended attempts: many of them stay, being a task's last."""

    def __init__(self) -> None:
        self._place: tuple[int, str, int] = (0, "", 0)

    def prune(self, db: sqlite3.Connection, before_ms: int, tasks_max: int, output_bytes_max: int) -> Pruned:
        """In the caller's transaction."""
        done = Pruned()
        budget = TASKS_PER_CALL
        while budget > 0:
            job = _next_job(db, before_ms, tasks_max, output_bytes_max)
            if job is None:
                break
            budget -= _prune_job(db, job, budget, done)
        done.more = budget <= 0
        _prune_audit(db, before_ms, done)
        self._prune_attempts(db, before_ms, done)
        return done

    def _prune_attempts(self, db: sqlite3.Connection, before_ms: int, done: Pruned) -> None:
        rows = db.execute(
            "SELECT ended_at, task, attempt FROM attempts INDEXED BY attempts_ended"
            " WHERE state = 'free' AND ended_at > 0 AND ended_at < ?"
            " AND (ended_at, task, attempt) > (?, ?, ?) ORDER BY ended_at, task, attempt LIMIT ?",
            (before_ms, *self._place, ROWS_PER_CALL),
        ).fetchall()
        full = len(rows) == ROWS_PER_CALL
        self._place = rows[-1] if full else (0, "", 0)
        done.more = done.more or full
        for _, task, attempt in rows:
            place = split_task(task)
            if place is not None and db.execute(_SUPERSEDED, (*place, task, attempt)).fetchone():
                done.output += _delete(db, "output WHERE task = ? AND attempt = ?", task, attempt)
                done.attempts += _delete(db, "attempts WHERE task = ? AND attempt = ?", task, attempt)


_SUPERSEDED = (
    "SELECT 1 FROM tasks t JOIN attempts a ON t.job = ? AND t.idx = ? AND a.task = ? AND a.attempt = ?"
    " AND t.attempt > a.attempt AND a.until BETWEEN 1 AND"
    " coalesce((SELECT number FROM documents WHERE device = a.device), 0)"
)


def _next_job(db: sqlite3.Connection, before_ms: int, tasks_max: int, output_bytes_max: int) -> str | None:
    """The finished job that ended first, if it must go."""
    row = db.execute(
        "SELECT id, changed_at FROM jobs INDEXED BY jobs_finished WHERE state <> 'open'"
        " ORDER BY changed_at, id LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    tasks, output_bytes = db.execute(
        "SELECT sum(n) FILTER (WHERE name LIKE 'task.%'), sum(n) FILTER (WHERE name = 'output.bytes')"
        " FROM totals"
    ).fetchone()
    due = row[1] < before_ms or tasks > tasks_max or output_bytes > output_bytes_max
    return str(row[0]) if due else None


def _prune_job(db: sqlite3.Connection, job: str, budget: int, done: Pruned) -> int:
    """Delete up to `budget` tasks of a job, and the job with its last task. The part of the budget spent."""
    found = db.execute("SELECT idx FROM tasks WHERE job = ? ORDER BY idx LIMIT ?", (job, budget))
    indexes = [row[0] for row in found.fetchall()]
    rows_before = done.output + done.attempts + done.audit
    for index in indexes:
        if done.output + done.attempts + done.audit - rows_before > ROWS_PER_CALL:
            return budget
        task = f"{job}.{index}"
        done.output += _delete(db, "output WHERE task = ?", task)
        done.attempts += _delete(db, "attempts WHERE task = ?", task)
        done.audit += _delete(db, "audit WHERE object = ?", task)
        done.tasks += _delete(db, "tasks WHERE job = ? AND idx = ?", job, index)
    if len(indexes) < budget:
        done.audit += _delete(db, "audit WHERE object = ?", job)
        done.jobs += _delete(db, "jobs WHERE id = ?", job)
        _delete(db, "job_tasks WHERE job = ?", job)
    return max(1, len(indexes))


def _prune_audit(db: sqlite3.Connection, before_ms: int, done: Pruned) -> None:
    # Audit rows lie in the order of commits, which is that of time but for a clock's steps.
    rows = _delete(
        db,
        "audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT ?) AND at < ?",
        ROWS_PER_CALL,
        before_ms,
    )
    done.audit += rows
    done.more = done.more or rows == ROWS_PER_CALL


def _delete(db: sqlite3.Connection, what: str, *values: str | int) -> int:
    return db.execute(f"DELETE FROM {what}", values).rowcount
