"""Dependencies: jobs that wait until other jobs are over.

A job with `depends_on` has its tasks from the start, but none is ready before every job
that it names is over: `succeeded` means that all tasks of the other one did, `ended` that
it is closed, however. When another can no longer succeed, the tasks of those that need it
fail, each with that reason, and so on down the line.

Rule of this file: what follows from a job's end is in the same commit as that end. So an
open job waits exactly for those jobs of its list that are open; nothing else need be kept
to know it after a restart, however long ago the others were forgotten. Only jobs that
exist can be named, so no circle can arise.
It places nothing, and asks no store: who submits brings the ends of jobs that are over.
"""

from __future__ import annotations

from controller.core.events import JobSubmitted
from controller.core.ledger import Job, Ledger
from controller.core.records import Dependency, JobState
from controller.core.tasks import Tasks
from controller.core.views import RefusalView
from protocol.tasks import JobKind

SUCCEEDED = "succeeded"
ENDLESS = (JobKind.SERVICE, JobKind.DAEMON, JobKind.CRON)
"""They go on until they are cancelled, so they never succeed."""


class Dependencies:
    """Holds back jobs, and lets them go or fail when others end."""

    def __init__(self, ledger: Ledger, tasks: Tasks) -> None:
        self.ledger = ledger
        self.tasks = tasks
        self.dependents: dict[str, dict[str, None]] = {}
        """Of each job that others wait for: those others, in the order of their submits."""

    # ------------------------------------------------------------- submits

    def refusal(self, event: JobSubmitted) -> RefusalView | None:
        """Why this job can't wait for what it names, if it can't."""
        for dependency in event.rules.depends_on:
            if why := self._fault(event, dependency):
                return RefusalView("invalid", why)
        return None

    def _fault(self, event: JobSubmitted, dependency: Dependency) -> str:
        name, needed = dependency.job, dependency.until == SUCCEEDED
        if name == event.job:
            return f"job {name} would wait for itself; leave it out"
        job = self.ledger.jobs.get(name)
        state = event.closed.get(name, "") if job is None else JobState.OPEN
        if not state:
            return f"there is no job {name}{meant(self.ledger, name)}"
        if needed and job is not None and job.row.kind in ENDLESS:
            return f"job {name} is a {job.row.kind}, which never succeeds; say until 'ended', or leave it out"
        if needed and (state in (JobState.FAILED, JobState.CANCELLED) or (job is not None and job.spoilt)):
            return f"job {name} can't succeed any more; submit it anew, or say until 'ended'"
        return ""

    def enter(self, job: Job) -> None:
        """A new or loaded job: from now on it waits for the open ones of its list."""
        for dependency in job.row.rules.depends_on:
            other = self.ledger.jobs.get(dependency.job)
            if other is None or other is job:
                continue
            job.waits[dependency.job] = dependency.until
            self.dependents.setdefault(dependency.job, {})[job.row.id] = None
            if other.spoilt:
                self.ledger.turned.append(other)

    # ------------------------------------------------------------- ends

    def follow(self, now_ms: int) -> None:
        """Draws every consequence of the jobs that ended, or can't succeed any more, in this event."""
        turned = self.ledger.turned
        while turned:
            job = turned.pop()
            closed = job.row.id not in self.ledger.jobs
            for id in list(self.dependents.get(job.row.id, ())):
                self._tell(id, job, closed, now_ms)
            if closed:
                self.dependents.pop(job.row.id, None)
                self._forget(job)

    def _tell(self, id: str, job: Job, closed: bool, now_ms: int) -> None:
        waiting = self.ledger.jobs.get(id)
        if waiting is None or job.row.id not in waiting.waits:
            return
        if job.spoilt and waiting.waits[job.row.id] == SUCCEEDED:
            word = "failed" if job.failed else "was cancelled"
            self.tasks.fail_all(waiting, f"job {job.row.id} {word}", now_ms)
        elif closed:
            del waiting.waits[job.row.id]
            if not waiting.waits:
                self._release(waiting, now_ms)

    def _release(self, job: Job, now_ms: int) -> None:
        """Nothing keeps it back any more."""
        for task in self.ledger.tasks_of(job):
            self.tasks.ready(task, now_ms)

    def _forget(self, job: Job) -> None:
        """A job that is over waits for nobody."""
        for name in job.waits:
            others = self.dependents.get(name)
            if others is not None:
                others.pop(job.row.id, None)
                if not others:
                    del self.dependents[name]


def meant(ledger: Ledger, said: str) -> str:
    """What to say instead of an id that no open job has: often it is the name of one."""
    ids = [id for id, job in ledger.jobs.items() if job.row.name == said]
    if not ids:
        return "; `fm job list` shows those there are"
    others = f", or one of {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"; {said} is the name of job {ids[-1]}{others}: say its id"
