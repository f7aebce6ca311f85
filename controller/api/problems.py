"""Problems: every error as RFC 9457 problem+json, in one table of stable codes.

Rule: a code, once published, keeps its meaning and its status; clients branch on `type`.
What was wrong is named by `pointer` (JSON pointer into the body) or `parameter` (a query
parameter or header). No problem repeats what the caller sent beyond a short quotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

from controller.core.views import RefusalView

TYPE_PREFIX = "urn:fleetmuster:problem:"
ERRORS_MAX = 20
"""Faults told at once; a body with 100,000 of them answers with a page, not a megabyte."""
DETAIL_CHARS_MAX = 500


class _Kind(NamedTuple):
    status: int
    title: str


CODES: dict[str, _Kind] = {
    "malformed_body": _Kind(400, "The body is not what it claims to be"),
    "invalid_parameter": _Kind(400, "A query parameter or header is not valid"),
    "unknown_parameter": _Kind(400, "There is no such query parameter"),
    "invalid_cursor": _Kind(400, "The cursor is not one of ours"),
    "unauthorized": _Kind(401, "A valid bearer token is needed"),
    "not_found": _Kind(404, "There is no such object"),
    "unknown_route": _Kind(404, "There is no such route"),
    "method_not_allowed": _Kind(405, "This route does not know that method"),
    "not_open": _Kind(409, "It has ended already"),
    "conflict": _Kind(409, "The present state does not allow this"),
    "body_too_large": _Kind(413, "The body is too large"),
    "unsupported_media_type": _Kind(415, "The body must be JSON"),
    "invalid_body": _Kind(422, "The body is not valid"),
    "invalid": _Kind(422, "What was asked for can't be"),
    "idempotency_key_reused": _Kind(422, "The Idempotency-Key belongs to another request"),
    "busy": _Kind(429, "Too many requests wait"),
    "internal": _Kind(500, "An error of ours"),
    "broker_refused": _Kind(502, "The broker's owner could not do it"),
    "not_ready": _Kind(503, "The controller is not ready"),
    "save_lost": _Kind(503, "The change could not be saved"),
    "no_answer": _Kind(503, "No answer in time"),
    "unreachable": _Kind(504, "The device does not answer"),
}
"""Status and title by code."""
_RETRY_AFTER_S = {429: "1", 503: "2"}


class BodyFault(NamedTuple):
    """One thing wrong with a body."""

    pointer: str
    detail: str


class FaultShape(TypedDict):
    pointer: str
    detail: str


class ProblemShape(TypedDict):
    """What a client reads, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    pointer: NotRequired[str]
    parameter: NotRequired[str]
    errors: NotRequired[list[FaultShape]]
    request_id: str


class HttpProblem(Exception):
    """A request that ends with a problem. `faults` name fields of the body, `parameter` all else."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[BodyFault] = (),
        parameter: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        # A code of the core that this table doesn't know yet is still a legal "no".
        self.kind = CODES.get(code, CODES["conflict"])
        self.detail = detail[:DETAIL_CHARS_MAX]
        self.faults = tuple(faults[:ERRORS_MAX])
        self.parameter = parameter
        self.headers = dict(headers or {})


def invalid_body(faults: Sequence[BodyFault]) -> HttpProblem:
    """422 for fields that are wrong; the detail is that of the first."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return HttpProblem("invalid_body", f"{first.pointer or 'the body'}: {first.detail}{more}", faults=faults)


def refused(view: RefusalView) -> HttpProblem:
    """The core's legal "no"."""
    return HttpProblem(view.code, view.detail)


def problem_shape(problem: HttpProblem, request_id: str) -> ProblemShape:
    shape = ProblemShape(
        type=TYPE_PREFIX + problem.code,
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail,
        request_id=request_id,
    )
    if problem.faults:
        shape["pointer"] = problem.faults[0].pointer
    if len(problem.faults) > 1:
        shape["errors"] = [FaultShape(pointer=f.pointer, detail=f.detail) for f in problem.faults]
    if problem.parameter:
        shape["parameter"] = problem.parameter
    return shape


def problem_response(problem: HttpProblem, request_id: str) -> Response:
    status = problem.kind.status
    headers = dict(problem.headers)
    if status in _RETRY_AFTER_S:
        headers.setdefault("Retry-After", _RETRY_AFTER_S[status])
    if status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="fleetmuster"')
    # ASCII only: a quotation of what was sent can't break the encoding of the answer.
    content = json.dumps(problem_shape(problem, request_id)).encode("ascii")
    return Response(content, status, headers, media_type="application/problem+json")
