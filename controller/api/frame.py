"""The frame around every request: its id, the gate, the headers, the count, the last catch.

Rule: whatever happens inside, the caller gets an answer with a request id and our
headers, and the log gets the id of what went wrong. Everything under `/api/` needs a
token before a route is even looked for, but the paths named open.
Plain ASGI, because it is on the path of every submit.
Rejected: Starlette's BaseHTTPMiddleware (a task and a memory stream for each request).
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.gate import Gate
from controller.api.ids import JobIds
from controller.api.meter import Meter
from controller.api.port import CorePort
from controller.api.problems import HttpProblem, problem_response

_log = logging.getLogger("controller.api")

GUARDED = "/api/"
CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_FIXED_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)
_POLICY_HEADER = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
_FOREIGN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_METHODS = frozenset(("GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"))
_SCOPE_KEY = "fleetmuster.caller"


@dataclass(frozen=True, slots=True)
class Desk:
    """What all requests share."""

    port: CorePort
    meter: Meter
    ids: JobIds
    version: str


@dataclass(slots=True)
class Caller:
    """Who asks, and at which desk; every route gets it from its request."""

    desk: Desk
    request_id: str
    actor: str = ""
    """Empty on open paths."""

    @property
    def port(self) -> CorePort:
        return self.desk.port


def caller_of(request: Request) -> Caller:
    caller = request.scope[_SCOPE_KEY]
    assert isinstance(caller, Caller)
    return caller


class Frame:
    """Wraps the application. `open_paths` under `/api/` need no token, `guarded_paths` elsewhere do."""

    def __init__(
        self,
        app: ASGIApp,
        desk: Desk,
        gate: Gate,
        *,
        root_path: str,
        open_paths: frozenset[str],
        guarded_paths: frozenset[str],
        direct: Mapping[tuple[str, str], ASGIApp],
    ) -> None:
        self._app, self._desk, self._gate, self._meter = app, desk, gate, desk.meter
        self._root_path = root_path
        self._open_paths, self._guarded_paths = open_paths, guarded_paths
        self._direct = direct
        self._id_prefix = secrets.token_hex(4)
        self._id_count = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        caller = Caller(self._desk, self._request_id(scope))
        scope[_SCOPE_KEY] = caller
        if self._root_path:
            scope["root_path"] = self._root_path
        method = scope["method"]
        answer = _Answer(send, caller.request_id, method == "HEAD")
        if method == "HEAD":
            # Every GET route answers HEAD; the answer is made in full and sent without its body.
            scope["method"] = "GET"
        self._meter.waiting += 1
        try:
            await self._enter(caller, scope, receive, answer.send)
        except Exception:
            _log.exception("request %s: %s %s failed", caller.request_id, method, scope["path"])
            if not answer.status:
                broken = HttpProblem("internal", "the log names this request id")
                await problem_response(broken, caller.request_id)(scope, receive, answer.send)
        finally:
            self._meter.waiting -= 1
            took_ms = (time.perf_counter() - began_s) * 1000
            known = method if method in _METHODS else "other"
            self._meter.note(_template(scope), known, answer.status, took_ms)

    async def _enter(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        path = get_route_path(scope)  # the same function that routes: they can't disagree
        if (path.startswith(GUARDED) and path not in self._open_paths) or path in self._guarded_paths:
            try:
                caller.actor = await self._gate.actor(scope["headers"])
            except HttpProblem as problem:
                await problem_response(problem, caller.request_id)(scope, receive, send)
                return
        app = self._direct.get((scope["method"], path), self._app)
        await app(scope, receive, send)

    def _request_id(self, scope: Scope) -> str:
        """A proxy's own id is kept, so that both logs tell the same story."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _FOREIGN_ID.match(value):
                return str(value, "ascii")
        return f"{self._id_prefix}-{next(self._id_count):x}"


class _Answer:
    """Adds our headers to the answer and remembers its status; 0 until it began."""

    def __init__(self, send: Send, request_id: str, bare: bool) -> None:
        self._send, self._bare = send, bare
        self._id_header = (b"x-request-id", request_id.encode())
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            if not any(name == _POLICY_HEADER[0] for name, _ in headers):
                headers.append(_POLICY_HEADER)
            given = {name for name, _ in headers}
            headers += [pair for pair in _FIXED_HEADERS if pair[0] not in given]
            headers.append(self._id_header)
        elif self._bare:
            message = {**message, "body": b""}
        await self._send(message)


def _template(scope: Scope) -> str:
    """The route's path with its parameters unfilled; one word for all that is none of ours."""
    path = getattr(scope.get("route"), "path", "")
    return path if isinstance(path, str) and path else "unknown"
