"""Life cycles: task states, run states, guarantees, and which change is legal.

Transitions are tables; what is not in one is an error that tells the task's story.
An attempt is `(task, attempt)`, its identity everywhere and its fencing token.
This file knows neither devices nor time.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

from protocol.errors import LocalMistake


class Guarantee(Enum):
    """What a job is promised about overlapping runs of one task."""

    AT_MOST_ONE = 1
    AT_LEAST_ONE = 2


class JobKind(StrEnum):
    """`batch` ends by itself; `service` is kept running; `daemon` is a service on every device that
    matches, present and future; `cron` makes a batch job at each of its times."""

    BATCH = "batch"
    SERVICE = "service"
    DAEMON = "daemon"
    CRON = "cron"


class TaskState(StrEnum):
    """State of one task as the controller knows it."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunState(Enum):
    """State of one attempt as its device reports it."""

    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    ENDED = 4
    STOPPED = 5
    INTERRUPTED = 6


class AttemptId(NamedTuple):
    """The n-th try of a task."""

    task: str
    attempt: int


FINAL_TASK = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
FINAL_RUN = frozenset({RunState.ENDED, RunState.STOPPED, RunState.INTERRUPTED})

TASK_MOVES: dict[TaskState, tuple[TaskState, ...]] = {
    TaskState.PENDING: (TaskState.ASSIGNED, TaskState.CANCELLED, TaskState.FAILED),
    TaskState.ASSIGNED: (
        TaskState.RUNNING,
        TaskState.PENDING,
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.CANCELLED,
    ),
    TaskState.RUNNING: (TaskState.PENDING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED),
    TaskState.SUCCEEDED: (),
    TaskState.FAILED: (),
    TaskState.CANCELLED: (),
}

RUN_MOVES: dict[RunState, tuple[RunState, ...]] = {
    RunState.STARTING: (
        RunState.RUNNING,
        RunState.STOPPING,
        RunState.ENDED,
        RunState.STOPPED,
        RunState.INTERRUPTED,
    ),
    RunState.RUNNING: (RunState.STOPPING, RunState.ENDED, RunState.STOPPED, RunState.INTERRUPTED),
    RunState.STOPPING: (RunState.ENDED, RunState.STOPPED, RunState.INTERRUPTED),
    RunState.ENDED: (),
    RunState.STOPPED: (),
    RunState.INTERRUPTED: (),
}


def check_task_move(task: str, old: TaskState, new: TaskState) -> None:
    """Raises `LocalMistake` when a task may not go from `old` to `new`."""
    if new not in TASK_MOVES[old]:
        raise LocalMistake(f"task {task}: {old} -> {new} is no legal move")


def check_run_move(run: AttemptId, old: RunState, new: RunState) -> None:
    """Raises `LocalMistake` when a run may not go from `old` to `new`."""
    if new not in RUN_MOVES[old]:
        raise LocalMistake(f"run {run.task}.{run.attempt}: {old.name} -> {new.name} is no legal move")
