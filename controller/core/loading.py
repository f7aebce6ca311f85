"""Loading: a core's memory out of a store's snapshot, at start and at every take-over.

Whatever was not committed as free counts as held for one full hold from now (L5), and
every device is doubted until it speaks.
"""

from __future__ import annotations

from controller.core.documents import Documents
from controller.core.fleet import SUSPECT
from controller.core.jobs import Jobs, new_job
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.operators import Operators
from controller.core.records import AttemptRow, AttemptState, Snapshot, TaskRow
from controller.core.sessions import new_device
from controller.core.shares import read_share
from protocol.tasks import AttemptId, TaskState


def load_devices(ledger: Ledger, snapshot: Snapshot, now_ms: int) -> None:
    """Devices with their documents; all of them suspect, as if heard just now."""
    documents = {d.device: d for d in snapshot.documents}
    for record in snapshot.devices:
        ledger.by_device.append({})
        row = ledger.fleet.admit(record, documents.get(record.device))
        if record.session:
            ledger.fleet.note_state(row, SUSPECT, now_ms)
    ledger.fleet.hear_all(now_ms)


def load_work(
    ledger: Ledger, snapshot: Snapshot, jobs: Jobs, documents: Documents, operators: Operators, now_ms: int
) -> None:
    """Jobs, tasks, attempts and what else the snapshot remembers."""
    for row in snapshot.jobs:
        final = snapshot.final_counts.get(row.id, {})
        job = new_job(row)
        job.failed, job.cancelled = final.get("failed", 0), final.get("cancelled", 0)
        ledger.jobs[row.id] = job
    for job in list(ledger.jobs.values()):
        jobs.dependencies.enter(job)
    for task in snapshot.tasks:
        _load_task(ledger, jobs, task, now_ms)
    # A job that is over keeps its room wherever an attempt of it may still run.
    closed = {row.id: new_job(row) for row in snapshot.closed}
    for attempt in snapshot.attempts:
        _load_attempt(ledger, documents, attempt, closed, now_ms)
    for key, job_id, fingerprint in snapshot.keys:
        jobs.remember(key, job_id, fingerprint)
    for row in snapshot.jobs:  # one that was stored while the clock was behind is not among the newest
        if row.idempotency_key not in jobs.keys:
            jobs.remember(row.idempotency_key, row.id, row.fingerprint)
    for task_id, number, device in snapshot.recent:
        ledger.remember(AttemptId(task_id, number), device)
    for attempt in snapshot.attempts:
        if attempt.state is AttemptState.FREE:  # its device was not told yet: its output may still come
            ledger.remember(AttemptId(attempt.task, attempt.attempt), attempt.device)
    for job in list(ledger.jobs.values()):
        if job.daemon:
            jobs.daemons.enter(job, now_ms)
    for row_number in range(ledger.fleet.count):
        documents.recall(row_number)
        operators.recall(row_number)


def _load_task(ledger: Ledger, jobs: Jobs, row: TaskRow, now_ms: int) -> None:
    job = ledger.jobs[row.job]
    task = Task(row, job, avoid=row.device, started_ms=now_ms)
    ledger.tasks[row.id] = task
    job.left += 1
    if row.state is TaskState.PENDING:
        jobs.tasks.ready(task, now_ms)
    if job.row.ttl_ms:
        # The one place where wall time is compared: nothing else survives a restart.
        spent = min(max(0, ledger.wall(now_ms) - row.created_at), job.row.ttl_ms)
        ledger.deadlines.set("expired", row.id, now_ms + job.row.ttl_ms - spent)


def _is_elder(attempt: AttemptRow, task: TaskRow) -> bool:
    """Listed by its device and not what its task waits for: it was lost, and may be kept (C6)."""
    present = task.state is not TaskState.PENDING and task.attempt == attempt.attempt
    return attempt.state is not AttemptState.REMOVED and not present


def _load_attempt(
    ledger: Ledger, documents: Documents, row: AttemptRow, closed: dict[str, Job], now_ms: int
) -> None:
    device = ledger.fleet.index.get(row.device)
    if device is None:
        device = ledger.admit(new_device(row.device, ledger.wall(now_ms)))
    if row.state is AttemptState.FREE:
        documents.acknowledge(device, now_ms)
        return
    job_id = row.task.rpartition(".")[0]
    job = ledger.jobs.get(job_id) or closed[job_id]
    share = read_share(row.given, job.demand, ledger.fleet.records[device])
    attempt = Attempt(row, job, device, documents.fleet.doc_number[device] >= row.since, share=share)
    if attempt.before:
        attempt.floor_ms = now_ms + ledger.fleet.hold_ms(device, job.row.lease_ms)
        attempt.hold_until_ms = attempt.floor_ms
        attempt.holder = int(ledger.fleet.session[device])
    else:
        documents.add(device, now_ms)
    if row.state is AttemptState.RUNNING:
        attempt.started_ms = now_ms
    ledger.hold(attempt, now_ms)
    task = ledger.tasks.get(row.task)
    if task is not None and not job.at_most_one and _is_elder(row, task.row):
        ledger.elders[row.task] = attempt
    if row.state is AttemptState.REMOVED:
        ledger.deadlines.set("hold", attempt.id, attempt.hold_until_ms)
