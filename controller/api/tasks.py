"""Tasks: list, show with their story, read their output, explain their place.

History is the store's, the explanation is the core's; a finished task, which the core
has forgotten, explains itself by its last state.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from controller.api.answers import attempt_shape, explain_shape, story_shape, task_shape
from controller.api.asking import view_of
from controller.api.frame import Caller, caller_of
from controller.api.paging import CURSOR_CHARS_MAX, LIMIT, LIMIT_MAX, cursor_of, position_of
from controller.api.port import CorePort
from controller.api.problems import HttpProblem
from controller.api.shapes import ExplainShape, TaskDetailShape, TaskPage
from controller.core.events import TaskExplained, WaitsQueried
from controller.core.records import TaskRow
from controller.core.views import ExplainView, WaitsView
from controller.store.base import OUTPUT_PIECE_BYTES_MAX
from protocol.limits import INT_MAX
from protocol.tasks import FINAL_TASK, TaskState

_ID = re.compile(r"[a-z0-9]{1,64}\.(0|[1-9][0-9]{0,9})")
STREAMS = {"stdout": 1, "stderr": 2}

router = APIRouter(prefix="/api/v1", tags=["tasks"])


class TaskFilter(BaseModel):
    """Query parameters of a list of tasks; empty means any."""

    model_config = ConfigDict(extra="forbid")
    job: Annotated[str, Field(pattern=r"^[a-z0-9]{0,64}$")] = ""
    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    state: TaskState | None = None
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = LIMIT
    cursor: Annotated[str, Field(max_length=CURSOR_CHARS_MAX)] = ""


class OutputQuery(BaseModel):
    """Which bytes of a task's output; without `attempt`, the latest."""

    model_config = ConfigDict(extra="forbid")
    stream: Literal["stdout", "stderr"] = "stdout"
    attempt: Annotated[int, Field(ge=1, le=INT_MAX)] | None = None
    offset: Annotated[int, Field(ge=0, le=INT_MAX)] = 0
    limit: Annotated[int, Field(ge=1, le=OUTPUT_PIECE_BYTES_MAX)] = OUTPUT_PIECE_BYTES_MAX


@router.get("/tasks")
async def list_tasks(request: Request, query: Annotated[TaskFilter, Query()]) -> TaskPage:
    """Tasks in the order of their jobs and, within one, of their index."""
    port = caller_of(request).port
    after = position_of(query.cursor)
    state = query.state.value if query.state else ""
    limit = min(query.limit + 1, LIMIT_MAX)
    rows = await port.read(port.store.tasks, query.job, query.device, state, after, limit)
    page = rows[: query.limit]
    # At the store's own maximum one row more can't be asked for: a full page then has a next one.
    more = len(rows) > len(page) or len(page) == LIMIT_MAX
    reasons = await _reasons(port, page)
    items = [task_shape(row, reasons.get(row.id, "")) for row in page]
    return TaskPage(items=items, next=cursor_of(page[-1].id) if more else None)


@router.get("/tasks/{task}")
async def show_task(request: Request, task: str) -> TaskDetailShape:
    """With every attempt and the story: who changed what, when and why."""
    caller = caller_of(request)
    port = caller.port
    row = await _task(caller, task)
    attempts = await port.read(port.store.attempts, task)
    story = await port.read(port.store.story, row.job) + await port.read(port.store.story, task)
    reasons = await _reasons(port, [row])
    return TaskDetailShape(
        **task_shape(row, reasons.get(row.id, "")),
        attempts=[attempt_shape(attempt) for attempt in attempts],
        story=[story_shape(line) for line in sorted(story, key=lambda line: line.at)],
    )


@router.get(
    "/tasks/{task}/output",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "X-Next-Offset": {"description": "where to read on", "schema": {"type": "integer"}},
                "X-Complete": {"description": "true when nothing follows", "schema": {"type": "boolean"}},
                "X-Gap": {"description": "bytes missing before these", "schema": {"type": "integer"}},
            },
        }
    },
)
async def read_output(request: Request, task: str, query: Annotated[OutputQuery, Query()]) -> Response:
    """Raw bytes of one stream of one attempt, from `offset` on, as far as they have arrived."""
    caller = caller_of(request)
    port = caller.port
    attempt = query.attempt
    row = await _task(caller, task)
    if attempt is None:
        attempt = row.attempt
    stream = STREAMS[query.stream]
    piece = await port.read(port.store.output, task, attempt, stream, query.offset, query.limit)
    headers = {
        "X-Attempt": str(attempt),
        "X-Next-Offset": str(piece.next_offset),
        "X-Complete": "true" if piece.complete else "false",
    }
    if piece.gap:
        headers["X-Gap"] = str(piece.gap)
    return Response(piece.data, headers=headers, media_type="text/plain")


@router.get("/tasks/{task}/explain")
async def explain_task(request: Request, task: str) -> ExplainShape:
    """Why the task is where it is, or nowhere: filters, then scores."""
    caller = caller_of(request)
    row = await _task(caller, task)
    if row.state in FINAL_TASK:
        return explain_shape(_ended(row))
    question = TaskExplained(caller.port.next_request(), task)
    try:
        view = await view_of(caller.port, question, ExplainView)
    except HttpProblem as problem:
        if problem.code not in ("not_open", "not_found"):
            raise
        # It ended between the two questions.
        return explain_shape(_ended(await _task(caller, task)))
    return explain_shape(view)


async def _reasons(port: CorePort, rows: list[TaskRow]) -> dict[str, str]:
    """Why the pending ones among these wait, as of now; the store only knows how they came to."""
    pending = tuple(row.id for row in rows if row.state is TaskState.PENDING)
    if not pending:
        return {}
    view = await view_of(port, WaitsQueried(port.next_request(), pending), WaitsView)
    return view.reasons


async def _task(caller: Caller, task: str) -> TaskRow:
    if _ID.fullmatch(task) is None:
        raise HttpProblem("not_found", "task ids are a job's id, a dot and a number")
    row = await caller.port.read(caller.port.store.task, task)
    if row is None:
        raise HttpProblem("not_found", f"no task {task}")
    return row


def _ended(row: TaskRow) -> ExplainView:
    where = f" on {row.device}" if row.device else ""
    why = f": {row.reason}" if row.reason else ""
    return ExplainView(row.id, row.state.value, row.device, f"{row.state.value}{where}{why}")
