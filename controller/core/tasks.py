"""Tasks: every change of a task's state, in one place, each with its audit row.

What ends, retries or waits is decided here by the rules C2 and C5; when an attempt is
free is decided in `holds`, where a device's word is weighed.
"""

from __future__ import annotations

from controller.core.condition import FAILED, Condition
from controller.core.documents import Documents
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.records import AttemptRow, AttemptState, JobState, TaskRow
from controller.core.shares import write_share
from controller.scheduler.view import Share
from protocol.backoff import retry_ms
from protocol.tasks import AttemptId, JobKind, TaskState, check_task_move

SERVICE_STABLE_MS = 60_000
"""A service that ran this long starts its restart waits anew."""
QUICK_LOSS_MS = 10_000
QUICK_LOSSES_FREE = 2
QUICK_LOSS_WAIT_MS = 60_000
"""Longest wait after losses that came at once: who refuses every start gets no stream of attempts."""
SPOT_RESTARTS = 1
"""Failures on one device after which another is tried: the first may be the moment's fault."""
CANCELLED = "cancelled"


class Tasks:
    """Moves tasks between states; wakes placement by filling `Job.ready`."""

    def __init__(
        self, ledger: Ledger, documents: Documents, condition: Condition, attempt_floor: int
    ) -> None:
        self.ledger = ledger
        self.documents = documents
        self.condition = condition
        self.attempt_floor = attempt_floor

    # ------------------------------------------------------------- forward

    def add(self, job: Job, index: int, now_ms: int, pin: str = "") -> Task:
        """A new task of a job, pending."""
        wall = self.ledger.wall(now_ms)
        row = TaskRow(
            f"{job.row.id}.{index}", job.row.id, index, TaskState.PENDING, "run", "", 0, None, "", 0,
            wall, wall, pin,
        )  # fmt: skip
        task = Task(row, job)
        self.ledger.tasks[row.id] = task
        self.ledger.save(row)
        job.left += 1
        self.ready(task, now_ms)
        if job.row.ttl_ms:
            self.ledger.deadlines.set("expired", row.id, now_ms + job.row.ttl_ms)
        return task

    def assign(self, task: Task, device: int, share: Share, now_ms: int) -> None:
        """Reserves the next attempt of a task on a device; its number is committed before it is told."""
        row, fleet = task.row, self.ledger.fleet
        name = fleet.names[device]
        row.attempt, row.handed_out = max(row.attempt + 1, row.handed_out + 1, self.attempt_floor), 0
        since = self.documents.add(device, now_ms)
        record = AttemptRow(
            row.id, row.attempt, name, AttemptState.ASSIGNED, since, 0, 0, None, 0, "",
            self.ledger.wall(now_ms), 0, 0, write_share(share, task.job.demand, fleet.records[device]),
        )  # fmt: skip
        self.ledger.hold(Attempt(record, task.job, device, share=share), now_ms)
        self.ledger.save(record)
        row.device, row.reason, row.exit_code = name, "", None
        task.avoid, task.prefer, task.assigned_ms = name, "", now_ms
        task.job.assigned_ms = now_ms
        self.ledger.count("placements")
        self._move(task, TaskState.ASSIGNED, now_ms)

    def started(self, task: Task, attempt: Attempt, now_ms: int) -> None:
        """The device shows the attempt as started."""
        attempt.row.state = AttemptState.RUNNING
        attempt.row.started_at, attempt.started_ms = self.ledger.wall(now_ms), now_ms
        self.ledger.save(attempt.row)
        if task.row.state is TaskState.ASSIGNED:
            task.started_ms = now_ms
            self._move(task, TaskState.RUNNING, now_ms, actor=task.row.device)

    def keep(self, task: Task, attempt: Attempt, reason: str, now_ms: int) -> None:
        """An older attempt that goes on is the task's present one again; numbers go on from the highest."""
        row, known = task.row, attempt.row
        if row.state is not TaskState.PENDING:
            row.reason = reason
            device, row.device = row.device, ""
            self._move(task, TaskState.PENDING, now_ms, device=device)
        self.ledger.deadlines.clear("ready", row.id)
        highest = max(row.attempt, row.handed_out)
        row.handed_out = highest if highest > known.attempt else 0
        row.device, row.attempt, row.reason, row.exit_code = known.device, known.attempt, reason, None
        task.avoid, task.prefer, task.assigned_ms = known.device, "", now_ms
        self._move(task, TaskState.ASSIGNED, now_ms)
        if known.state is AttemptState.RUNNING:
            task.started_ms = attempt.started_ms
            self._move(task, TaskState.RUNNING, now_ms, actor=known.device)
        else:
            self.started(task, attempt, now_ms)

    # ------------------------------------------------------------- ends of an attempt

    def succeeded(self, task: Task, now_ms: int) -> None:
        task.row.exit_code = 0
        self._finish(task, TaskState.SUCCEEDED, "exited", now_ms, actor=task.row.device)

    def own_failure(self, task: Task, exit_code: int | None, reason: str, now_ms: int) -> None:
        """The run itself ended badly (C5), or a service ended at all."""
        job, row = task.job, task.row
        row.exit_code = exit_code
        if self._over(task, now_ms):
            return
        if job.service and now_ms - task.started_ms >= SERVICE_STABLE_MS:
            row.failures = 0
        row.failures += 1
        self._learn(task, now_ms)
        if job.row.max_attempts and row.failures >= job.row.max_attempts:
            self._finish(task, TaskState.FAILED, reason, now_ms, actor=row.device)
        else:
            self.again(task, reason, now_ms, retry_ms(row.failures))

    def _learn(self, task: Task, now_ms: int) -> None:
        """First once more on the spot, where its files still are; then elsewhere."""
        task.failures_here += 1
        spot = task.failures_here <= SPOT_RESTARTS
        task.prefer, task.avoid = (task.row.device, "") if spot else ("", task.row.device)
        if not spot:
            task.failures_here = 0
        self.condition.blame(self.ledger.fleet.index[task.row.device], FAILED, now_ms)

    def lost(self, task: Task, reason: str, now_ms: int) -> None:
        """The attempt is over through no fault of its own: another one, at once.

        Unless the last ones were lost at once too, as where a device can start nothing: then
        after a pause that grows.
        """
        if self._over(task, now_ms):
            return
        task.failures_here = 0
        quick = now_ms - task.assigned_ms < QUICK_LOSS_MS
        task.quick_losses = task.quick_losses + 1 if quick else 0
        more = task.quick_losses - QUICK_LOSSES_FREE
        self.again(task, reason, now_ms, retry_ms(more, cap_ms=QUICK_LOSS_WAIT_MS) if more > 0 else 0)

    def _over(self, task: Task, now_ms: int) -> bool:
        """Ends a task that was to end as soon as it is free."""
        if task.row.desired == CANCELLED:
            self._finish(task, TaskState.CANCELLED, task.row.reason or CANCELLED, now_ms)
        elif task.expired:
            self._finish(task, TaskState.FAILED, "expired", now_ms)
        else:
            return False
        return True

    def again(self, task: Task, reason: str, now_ms: int, wait_ms: int = 0) -> None:
        """Back to pending; ready at once or after a wait."""
        task.row.reason = reason
        device, task.row.device = task.row.device, ""
        self._move(task, TaskState.PENDING, now_ms, device=device)
        if wait_ms:
            self.ledger.deadlines.set("ready", task.row.id, now_ms + wait_ms)
        else:
            self.ready(task, now_ms)

    def ready(self, task: Task, now_ms: int) -> None:
        """It may be placed, unless its job waits for others: then `dependencies` will say so again."""
        if task.job.waits:
            return
        if not task.job.ready:
            task.job.ready_ms = now_ms
        task.job.ready.append(task.row.id)
        task.ready_ms = now_ms
        self.ledger.waiting[task.row.job] = task.job
        task.job.blocked = -1
        self.ledger.newly_ready = True

    # ------------------------------------------------------------- wishes

    def cancel(self, task: Task, actor: str, now_ms: int, reason: str = CANCELLED) -> Attempt | None:
        """Wants the task to end; returns the attempt that must leave its document first, if any."""
        wished, task.row.desired, task.row.reason = task.row.desired, CANCELLED, reason
        if task.row.state is TaskState.PENDING:
            self._finish(task, TaskState.CANCELLED, reason, now_ms, actor)
            return None
        self.ledger.outlive(task.row.id)
        self.ledger.save(task.row)
        if wished != CANCELLED:  # a daemon's task that had to go anyway is not told twice (I10)
            self.ledger.audit(
                now_ms, "task", task.row.id, wished, CANCELLED, actor, task.row.device, task.row.attempt
            )
        return self.attempt_of(task)

    def expire(self, task: Task, now_ms: int) -> Attempt | None:
        """Its time to live is over; as with a cancel, what runs must be stopped first."""
        task.expired = True
        self.ledger.outlive(task.row.id)
        if task.row.state is TaskState.PENDING:
            self._over(task, now_ms)
            return None
        return self.attempt_of(task)

    def fail_all(self, job: Job, reason: str, now_ms: int) -> None:
        """Ends a job that never began, because it never can."""
        for task in self.ledger.tasks_of(job):
            self._finish(task, TaskState.FAILED, reason, now_ms)
        if job.row.id in self.ledger.jobs:  # it had no tasks, or more could have come
            self.close(job, now_ms, JobState.FAILED)

    def attempt_of(self, task: Task) -> Attempt | None:
        """The reservation of the task's present attempt."""
        return self.ledger.attempts.get(AttemptId(task.row.id, task.row.attempt)) if task.row.device else None

    # ------------------------------------------------------------- moves

    def _move(
        self, task: Task, state: TaskState, now_ms: int, actor: str = "controller", device: str = ""
    ) -> None:
        row, old = task.row, task.row.state
        check_task_move(row.id, old, state)
        row.state, row.changed_at = state, self.ledger.wall(now_ms)
        self.ledger.save(row)
        self.ledger.audit(
            now_ms, "task", row.id, old, state, actor, row.device or device, row.attempt, row.reason
        )

    def _finish(
        self, task: Task, state: TaskState, reason: str, now_ms: int, actor: str = "controller"
    ) -> None:
        task.row.reason = reason
        self._move(task, state, now_ms, actor)
        job = task.job
        job.left -= 1
        job.failed += state is TaskState.FAILED
        job.cancelled += state is TaskState.CANCELLED
        del self.ledger.tasks[task.row.id]
        self.ledger.outlive(task.row.id)
        self.ledger.deadlines.clear("ready", task.row.id)
        self.ledger.deadlines.clear("expired", task.row.id)
        self.ledger.count(f"tasks_{state}")
        if task.row.pin:
            self.ledger.unpinned.append(task)
        if job.failed + job.cancelled == 1 and state is not TaskState.SUCCEEDED:
            self.ledger.turned.append(job)
        if not job.left and not job.standing:
            self.close(job, now_ms)

    def close(self, job: Job, now_ms: int, state: JobState | None = None) -> None:
        """The last task is final: the job becomes the worst of what they became, unless `state` says it."""
        cancelled = job.cancelled or job.row.kind in (JobKind.CRON, JobKind.DAEMON)
        worst = JobState.FAILED if job.failed else JobState.CANCELLED if cancelled else JobState.SUCCEEDED
        state = state or worst
        self.ledger.turned.append(job)
        job.row.state, job.row.changed_at = state, self.ledger.wall(now_ms)
        self.ledger.save(job.row)
        self.ledger.audit(now_ms, "job", job.row.id, JobState.OPEN, state)
        del self.ledger.jobs[job.row.id]
        self.ledger.waiting.pop(job.row.id, None)
