"""Waiting for a job: look again and again, tell each change once, say how it ended.

Rule: a batch job ends when its state is no longer `open`; a service or a daemon has no end,
so its wait is over when all its tasks run; a cron job has nothing to wait for. Changes go
to stderr. The controller may restart meanwhile. Rejected: a stream of events (one more
protocol for one caller).
"""

from __future__ import annotations

from typing import NamedTuple

from fleetmuster.exits import CommandError, Exit
from fleetmuster.patience import Patience
from fleetmuster.records import RemoteJob
from fleetmuster.session import Session


class EndedWait(NamedTuple):
    """The job as last seen; `code` is ok, failed or timeout."""

    job: RemoteJob
    code: Exit


def wait_for_job(session: Session, job_id: str, timeout_ms: int | None) -> EndedWait:
    """Raises `CommandError` if there is no such job or the controller stays away."""
    patience = Patience(session.console, timeout_ms)
    told = ""
    while True:
        job = patience.ask(lambda: session.client.job(job_id))
        line = _progress(job)
        if line != told:
            session.console.say(line)
            patience.news()
            told = line
        code = _ending(job)
        if code is Exit.FAILED:
            session.console.say(f"why: fm task list --job {job_id}, then fm task show ID")
        if code is not None:
            return EndedWait(job, code)
        if not patience.pause():
            return EndedWait(job, Exit.TIMEOUT)


def _progress(job: RemoteJob) -> str:
    counts = job.get("tasks") or {}
    shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{job['id']} {job.get('state') or 'unknown'}" + (f": {shown}" if shown else "")


def _ending(job: RemoteJob) -> Exit | None:
    state = job.get("state")
    if state == "succeeded":
        return Exit.OK
    if state in ("failed", "cancelled"):
        return Exit.FAILED
    kind, counts = job.get("kind"), job.get("tasks") or {}
    if kind == "cron":
        raise CommandError(
            Exit.FAILED,
            f"job {job['id']} makes a job at each of its times, and has no end itself",
            next_step="wait for one of those: fm job list",
        )
    running = counts.get("running", 0)
    if kind == "service" and running >= (job.get("count") or 1):
        return Exit.OK
    if kind == "daemon" and running and not counts.get("pending") and not counts.get("assigned"):
        return Exit.OK
    return None
