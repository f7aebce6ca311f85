"""Jobs: submits, replays, cancels, and the tasks' time to live.

A submit is accepted whole or not at all; a job that can never fit is accepted too, stays
pending and explains itself, because a device that fits may come tomorrow.
"""

from __future__ import annotations

from collections import OrderedDict

from controller.core.claims import NAME_BYTES_MAX
from controller.core.daemons import Daemons
from controller.core.dependencies import Dependencies
from controller.core.effects import Reply
from controller.core.events import JobCancelled, JobSubmitted
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.records import KEYS_MAX, JobRow, JobState
from controller.core.tasks import Tasks
from controller.core.views import DoneView, RefusalView, SubmittedView
from controller.scheduler.view import WHOLE_MILLI, Demand
from protocol.limits import ACCELERATORS_MAX
from protocol.tasks import JobKind, TaskState

ENTRY_BYTES = 160
"""Keys, numbers and ids of one entry at their longest, and what surrounds it."""
TEXT_BYTES = 5
"""What CBOR puts before a text of up to 4 GiB."""


def entry_bytes(row: JobRow) -> int:
    """What one attempt of the job takes in a document, at most; a bound, because encoding is dear."""
    spec = row.spec
    texts = (row.id, spec.runtime, *spec.command, *spec.env.keys(), *spec.env.values())
    accelerators = min(ACCELERATORS_MAX, -(-spec.resources.gpu_milli // WHOLE_MILLI))
    names = accelerators * (NAME_BYTES_MAX + TEXT_BYTES)
    return ENTRY_BYTES + names + sum(len(t.encode()) + TEXT_BYTES for t in texts)


def new_job(row: JobRow) -> Job:
    """The job in memory, without its tasks."""
    spec = row.spec
    resources = spec.resources._replace(slots=max(1, spec.resources.slots))
    models = spec.models if resources.gpu_milli else ()  # a plan may imagine it without accelerators
    demand = Demand(resources, entry_bytes(row), {}, spec.extras, models, spec.reference_cpu)
    asks = (spec.runtime, resources, demand.entry_bytes, spec.extras, models, spec.reference_cpu)
    return Job(
        row,
        demand,
        signature=f"{row.rules.policy}|{asks}|{spec.constraints}|{spec.affinities}|{spec.tolerations}|"
        f"{spec.spreads}|{row.rules.gang}|{row.rules.parallel_max}",
    )


class Jobs:
    """What users ask of jobs."""

    def __init__(
        self, ledger: Ledger, tasks: Tasks, holds: Holds, dependencies: Dependencies, daemons: Daemons
    ) -> None:
        self.ledger = ledger
        self.dependencies = dependencies
        self.daemons = daemons
        self.tasks = tasks
        self.holds = holds
        self.keys: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Idempotency key -> (job, fingerprint)."""

    # ------------------------------------------------------------- submit

    def submit(self, event: JobSubmitted, now_ms: int) -> None:
        if (known := self.keys.get(event.idempotency_key)) is not None:
            self._replay(event, known)
            return
        if (refusal := self.dependencies.refusal(event)) is not None:
            self.ledger.emit(Reply(event.request, refusal))
            return
        row = self._row(event, now_ms)
        self.enter(row, now_ms)
        self.remember(event.idempotency_key, row.id, event.fingerprint)
        self.ledger.emit(Reply(event.request, SubmittedView(row.id, tasks=row.count)))

    def enter(self, row: JobRow, now_ms: int) -> None:
        """A new job with its tasks; a cron job has none, its schedule is looked at instead."""
        job = new_job(row)
        self.ledger.jobs[row.id] = job
        self.dependencies.enter(job)
        self.ledger.save(row)
        self.ledger.audit(now_ms, "job", row.id, "", JobState.OPEN, row.actor, reason=f"{row.count} tasks")
        if row.kind is JobKind.CRON:
            row.fired_at = row.created_at
            self.ledger.deadlines.set("cron", row.id, now_ms)
            return
        for index in range(row.count):
            self.tasks.add(job, index, now_ms)
        if row.kind is JobKind.DAEMON:
            self.daemons.enter(job, now_ms)

    def _row(self, e: JobSubmitted, now_ms: int) -> JobRow:
        wall = self.ledger.wall(now_ms)
        return JobRow(
            e.job, e.name, e.kind, e.count, e.priority, e.guarantee, e.max_attempts, e.ttl_ms, e.lease_ms,
            e.spec, JobState.OPEN, "run", wall, wall, e.actor, e.idempotency_key, e.fingerprint,
            e.rules,
        )  # fmt: skip

    def _replay(self, event: JobSubmitted, known: tuple[str, str]) -> None:
        job, fingerprint = known
        body: object = SubmittedView(job, True)
        if fingerprint != event.fingerprint:
            body = RefusalView("idempotency_key_reused", "this Idempotency-Key was used with another body")
        self.ledger.emit(Reply(event.request, body))

    def remember(self, key: str, job: str, fingerprint: str) -> None:
        if key:
            self.keys[key] = (job, fingerprint)
            if len(self.keys) > KEYS_MAX:
                self.keys.popitem(last=False)

    # ------------------------------------------------------------- ends

    def cancel(self, event: JobCancelled, now_ms: int) -> None:
        """Pending tasks end now; the others when their attempts are free."""
        job = self.ledger.jobs.get(event.job)
        if job is None:
            self.ledger.emit(Reply(event.request, RefusalView("not_open", f"job {event.job} is not open")))
            return
        if job.row.desired != "cancelled":
            job.row.desired = "cancelled"
            self.ledger.save(job.row)
            self.ledger.audit(now_ms, "job", job.row.id, "run", "cancelled", event.actor)
            self._stop(self.ledger.tasks_of(job), event.actor, now_ms)
            if not job.left and job.row.id in self.ledger.jobs:
                self.tasks.close(job, now_ms)
            if job.row.kind is JobKind.CRON:  # its runs go on: they are jobs of their own
                self.ledger.deadlines.set("cron", job.row.id, now_ms)  # so that it is forgotten there
        self.ledger.emit(Reply(event.request, DoneView(event.job)))

    def _stop(self, tasks: list[Task], actor: str, now_ms: int) -> None:
        by_device: dict[int, list[Attempt]] = {}
        for task in tasks:
            attempt = self.tasks.cancel(task, actor, now_ms)
            if attempt is not None:
                by_device.setdefault(attempt.device, []).append(attempt)
        for attempts in by_device.values():
            self.holds.remove(attempts, "cancelled", now_ms)

    def on_expired(self, task_id: str, now_ms: int) -> None:
        """`ttl_ms` from creation has passed."""
        task = self.ledger.tasks.get(task_id)
        if task is None:
            return
        attempt = self.tasks.expire(task, now_ms)
        if attempt is not None:
            self.holds.remove([attempt], "expired", now_ms)

    def on_ready(self, task_id: str, now_ms: int) -> None:
        """The wait before a retry is over."""
        task = self.ledger.tasks.get(task_id)
        if task is not None and task.row.state is TaskState.PENDING:
            self.tasks.ready(task, now_ms)
