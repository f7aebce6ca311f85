"""Jobs: submit, list, show, cancel.

`submit` is the hot path of the whole API, so it is a plain Starlette route: one pass of
pydantic-core over the bytes, one question, one answer built from what was asked. It
makes no read of the store unless the request is a replay.
Rejected for it: FastAPI's handler (dependency solving and two exit stacks per request,
see `docs/api.md` for the figures); reading the job back after its commit (a thread hop).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

from controller.api.answers import job_shape
from controller.api.asking import view_of
from controller.api.bodies import VALUE_CHARS_MAX, JobBody, TaskBody
from controller.api.frame import Caller, caller_of
from controller.api.meaning import WHOLE_MILLI, dependency_of, job_faults, rules_of, spec_of
from controller.api.openapi import KEY_PARAMETER, body_reference
from controller.api.paging import CURSOR_CHARS_MAX, LIMIT, LIMIT_MAX, cursor_of, position_of
from controller.api.problems import BodyFault, HttpProblem, invalid_body
from controller.api.reading import read_json
from controller.api.shapes import JobPage, JobShape
from controller.core.events import JobCancelled, JobSubmitted
from controller.core.records import JobRow, JobState, TaskSpec
from controller.core.views import DoneView, SubmittedView
from controller.store.base import JobSummary
from protocol import limits as lim
from protocol.codec import encode
from protocol.messages import AssignedAttempt, Assignments, Revision
from protocol.tasks import Guarantee, JobKind

ENTRY_BYTES_MAX = 32_768
"""Half a document: a device must be able to hold at least two attempts."""
_SMALL_BODY_BYTES = 16_384
"""CBOR of an attempt is never larger than its JSON by more than ids and numbers: not worth encoding."""
PAGE_SPEC_CHARS_MAX = 4_000_000
"""A page of jobs ends early above this: 1,000 jobs of 32 KiB would be one answer of 32 MB."""
ACCELERATOR_CHARS_MAX = 100
BATCH_ATTEMPTS = 3
ENDING_KINDS = ("batch", "cron")
KEY_CHARS_MAX = 255
_KEY = re.compile(rf"[!-~]{{1,{KEY_CHARS_MAX}}}")
_ID = re.compile(r"[a-z0-9]{1,64}")
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")

router = APIRouter(prefix="/api/v1", tags=["jobs"])


class JobFilter(BaseModel):
    """Query parameters of a list of jobs."""

    model_config = ConfigDict(extra="forbid")
    state: JobState | None = None
    name: Annotated[str, Field(max_length=100)] = ""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = LIMIT
    cursor: Annotated[str, Field(max_length=CURSOR_CHARS_MAX)] = ""


@router.post(
    "/jobs",
    status_code=201,
    response_model=JobShape,
    responses={200: {"model": JobShape, "description": "A replay: this Idempotency-Key was seen before"}},
    openapi_extra=body_reference(JobBody) | {"parameters": [KEY_PARAMETER]},
)
async def submit_job(request: Request) -> Response:
    """201 with the job; 200 when its Idempotency-Key was seen before with this body."""
    caller = caller_of(request)
    key = _idempotency_key(request)
    body, body_bytes = await read_json(request, JobBody)
    question = _question(caller, body, key)
    _check_meaning(body, question.spec, body_bytes)
    try:
        view = await _submitted(caller, question)
    except HttpProblem as problem:
        raise _pointing(problem, body) from None
    if view.replayed:
        made = await _job(caller, view.job)
        shape = job_shape(made.row, made.tasks)
        return _job_response(request, 200, shape, {"Idempotent-Replayed": "true"})
    return _job_response(request, 201, _fresh(caller, question, view.tasks), {})


@router.get("/jobs")
async def list_jobs(request: Request, query: Annotated[JobFilter, Query()]) -> JobPage:
    """Jobs, newest first."""
    caller = caller_of(request)
    port = caller.port
    after = position_of(query.cursor)
    state = query.state.value if query.state else ""
    rows = await port.read(port.store.jobs, after, min(query.limit + 1, LIMIT_MAX), state, query.name)
    page = _bounded(rows[: query.limit])
    # At the store's own maximum one row more can't be asked for: a full page then has a next one.
    more = len(rows) > len(page) or len(page) == LIMIT_MAX
    items = [job_shape(summary.row, summary.tasks) for summary in page]
    return JobPage(items=items, next=cursor_of(page[-1].row.id) if more else None)


@router.get("/jobs/{job}")
async def show_job(request: Request, job: str) -> JobShape:
    summary = await _job(caller_of(request), job)
    return job_shape(summary.row, summary.tasks)


@router.post("/jobs/{job}/cancel", status_code=202)
async def cancel_job(request: Request, job: str) -> JobShape:
    """The wish is stored; its tasks keep their state with `desired: cancelled` until they are free."""
    caller = caller_of(request)
    port = caller.port
    _known_form(job)
    try:
        await view_of(port, JobCancelled(port.next_request(), job, caller.actor), DoneView)
    except HttpProblem as problem:
        if problem.code != "not_open":
            raise
        # The core knows open jobs only; the store tells which "no" this is.
        ended = await _job(caller, job)
        if ended.row.desired != "cancelled":
            raise HttpProblem("not_open", f"job {job} is {ended.row.state.value} already") from None
    summary = await _job(caller, job)
    return job_shape(summary.row, summary.tasks)


# ------------------------------------------------------------------------- submitting


def _question(caller: Caller, body: JobBody, key: str) -> JobSubmitted:
    attempts = body.max_attempts
    if attempts is None:
        attempts = BATCH_ATTEMPTS if body.kind in ENDING_KINDS else 0
    return JobSubmitted(
        request=caller.port.next_request(),
        job=caller.desk.ids.mint(caller.port.wall_ms()),
        name=body.name or _name_for(body.task),
        kind=JobKind(body.kind),
        count=0 if body.kind == "daemon" else body.count,
        priority=body.priority,
        guarantee=Guarantee[body.guarantee.upper()],
        max_attempts=attempts,
        ttl_ms=body.ttl_ms,
        lease_ms=body.lease_ms,
        spec=spec_of(body.task),
        actor=caller.actor,
        idempotency_key=key,
        fingerprint=_fingerprint(body) if key else "",
        rules=rules_of(body),
    )


async def _submitted(caller: Caller, question: JobSubmitted) -> SubmittedView:
    """The core knows open jobs only. Asked first, it can't miss one that ends meanwhile: what it does
    not know is over, and stored, or never was."""
    port = caller.port
    try:
        return await view_of(port, question, SubmittedView)
    except HttpProblem as problem:
        if problem.code != "invalid" or not question.rules.depends_on:
            raise
        closed = {}
        for dependency in question.rules.depends_on:
            known = await port.read(port.store.job, dependency.job)
            if known is not None and known.row.state is not JobState.OPEN:
                closed[dependency.job] = known.row.state.value
        if not closed:
            raise
    again = replace(question, request=port.next_request(), closed=closed)
    return await view_of(port, again, SubmittedView)


def _name_for(task: TaskBody) -> str:
    """The last part of the command's first word, in the characters that a name may have."""
    word = posixpath.basename(task.command[0].rstrip("/")) if task.command else task.runtime
    return _UNNAMEABLE.sub("-", word).lstrip("._-")[:64] or task.runtime


def _check_meaning(body: JobBody, spec: TaskSpec, body_bytes: int) -> None:
    """What no single field can tell. Raises `HttpProblem`."""
    faults = job_faults(body)
    if not faults and body_bytes > _SMALL_BODY_BYTES:
        size = _entry_bytes(spec, body.lease_ms)
        if size > ENTRY_BYTES_MAX:
            detail = (
                f"command and env take {size} bytes in a device's document; at most {ENTRY_BYTES_MAX} fit"
            )
            faults.append(BodyFault("/task", detail))
    if faults:
        raise invalid_body(faults)


def _pointing(problem: HttpProblem, body: JobBody) -> HttpProblem:
    """The core knows no pointers; a job that it names is one of those to wait for."""
    if problem.code == "invalid":
        for place, said in enumerate(body.depends_on):
            if re.search(rf"\b{dependency_of(said).job}\b", problem.detail):
                return invalid_body([BodyFault(f"/depends_on/{place}", problem.detail)])
    return problem


def _entry_bytes(spec: TaskSpec, lease_ms: int) -> int:
    """How much of a document one attempt takes, with ids and numbers of the longest kind."""
    accelerators = min(-(-spec.resources.gpu_milli // WHOLE_MILLI), lim.ACCELERATORS_MAX)
    attempt = AssignedAttempt(
        task="j" * 30,
        attempt=lim.INT_MAX,
        runtime=spec.runtime,
        command=spec.command,
        env=spec.env,
        resources=spec.resources,
        lease_ms=lease_ms,
        timeout_ms=spec.timeout_ms,
        stop_grace_ms=spec.stop_grace_ms,
        accelerators=("x" * ACCELERATOR_CHARS_MAX,) * accelerators,
    )
    return len(encode(Assignments(Revision(lim.INT_MAX, lim.INT_MAX), (attempt,))))


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if _KEY.fullmatch(key) is None:
        detail = f"1 to {KEY_CHARS_MAX} visible ASCII characters"
        raise HttpProblem("invalid_parameter", detail, parameter="Idempotency-Key")
    return key


def _fingerprint(body: JobBody) -> str:
    """SHA-256 of the job in one spelling: defaults left out, keys in order, no white space.

    A field that a later version adds does not change it, so a replay may cross an upgrade.
    """
    said = body.model_dump(mode="json", exclude_defaults=True)
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _fresh(caller: Caller, question: JobSubmitted, tasks: int) -> JobShape:
    """The job as it was accepted, with so many tasks. Its stored moments may be some milliseconds later."""
    now = caller.port.wall_ms()
    row = JobRow(
        id=question.job,
        name=question.name,
        kind=question.kind,
        count=question.count,
        priority=question.priority,
        guarantee=question.guarantee,
        max_attempts=question.max_attempts,
        ttl_ms=question.ttl_ms,
        lease_ms=question.lease_ms,
        spec=question.spec,
        state=JobState.OPEN,
        desired="run",
        created_at=now,
        changed_at=now,
        actor=question.actor,
        rules=question.rules,
    )
    # A cron job has no tasks of its own, and how many a daemon has is the core's to say.
    own = {JobKind.CRON: 0, JobKind.DAEMON: tasks}.get(question.kind, question.count)
    return job_shape(row, {"pending": own})


def _job_response(request: Request, status: int, shape: JobShape, headers: dict[str, str]) -> Response:
    headers["Location"] = f"{request.scope.get('root_path', '')}/api/v1/jobs/{shape['id']}"
    # A quarter of what json.dumps takes; no text that was let in has a surrogate.
    return Response(to_json(shape), status, headers, media_type="application/json")


# ------------------------------------------------------------------------- reading


async def _job(caller: Caller, job: str) -> JobSummary:
    _known_form(job)
    summary = await caller.port.read(caller.port.store.job, job)
    if summary is None:
        raise HttpProblem("not_found", f"no job {job}")
    return summary


def _known_form(job: str) -> None:
    """An id that none of ours can have is not worth a question."""
    if _ID.fullmatch(job) is None:
        raise HttpProblem("not_found", "job ids are made of lower case letters and digits")


def _bounded(rows: list[JobSummary]) -> list[JobSummary]:
    """The first rows that together stay below the bound of a page, at least one."""
    chars = 0
    for place, summary in enumerate(rows):
        chars += _chars(summary.row.spec)
        if chars > PAGE_SPEC_CHARS_MAX and place:
            return rows[:place]
    return rows


def _chars(spec: TaskSpec) -> int:
    """How long the texts of a spec are; a wish counts as its longest field."""
    texts = (spec.command, spec.env, spec.env.values(), (c.value for c in spec.constraints))
    wishes = len(spec.affinities) + len(spec.tolerations) + sum(len(s.targets) for s in spec.spreads)
    return sum(sum(map(len, each)) for each in texts) + wishes * VALUE_CHARS_MAX
