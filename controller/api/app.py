"""Assembly of the API: routes, errors, the gate and the frame around them, as one ASGI app.

`build` makes no thread, opens nothing and reads no setting; whoever serves the app
decides on sockets. There is no CORS (a browser page elsewhere has no business here), no
redirect for a slash too many, no documentation page that would load scripts from
elsewhere: the OpenAPI file is at `/api/v1/openapi.json`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.api import devices, fleet, jobs, plans, rebalances, system, tasks
from controller.api.frame import Desk, Frame, caller_of
from controller.api.gate import Gate
from controller.api.ids import JobIds
from controller.api.meter import Meter
from controller.api.openapi import describe
from controller.api.port import Busy, CorePort, NoAnswer, SaveLost
from controller.api.problems import HttpProblem, problem_response
from controller.api.wording import suggestion, worded
from controller.brokering import BrokerRefused
from controller.store.base import StoreError

OPENAPI_PATH = "/api/v1/openapi.json"
METRICS_PATH = "/metrics"
SUBMIT_PATH = "/api/v1/jobs"
_METHODS = ("DELETE", "GET", "POST")
QUERY_WORDS = ("attempt", "cursor", "device", "job", "limit", "name", "offset", "selector", "state", "stream")


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What whoever serves the API may choose."""

    root_path: str = ""
    """The prefix that a reverse proxy puts before every path, as `/fleet`; it may strip it or not."""
    metrics_open: bool = True
    """Whether `/metrics` needs no token: right on loopback."""


def build(port: CorePort, options: ApiOptions = ApiOptions()) -> ASGIApp:
    """The API over `port`, for one event loop."""
    open_paths = frozenset((OPENAPI_PATH,))
    guarded_paths = frozenset(() if options.metrics_open else (METRICS_PATH,))
    version = own_version()
    app = FastAPI(
        title="Fleetmuster",
        version=version,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Ours is `/metrics`. Asking the environment for another on each request costs a tenth of a submit.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for module in (jobs, tasks, devices, fleet, plans, rebalances, system):
        app.include_router(module.router)
    _answer_errors(app)
    describe(app, open_paths, guarded_paths)
    desk = Desk(port, Meter(), JobIds(random.SystemRandom().getrandbits), version)
    return Frame(
        app,
        desk,
        Gate(_actors(port)),
        root_path=options.root_path.rstrip("/"),
        open_paths=open_paths,
        guarded_paths=guarded_paths,
        direct={("POST", SUBMIT_PATH): _Direct()},
    )


class _Direct:
    """`POST /jobs` without FastAPI's and Starlette's layers, which cost more than the submit itself."""

    def __init__(self) -> None:
        self.route = Route(SUBMIT_PATH, jobs.submit_job, methods=["POST"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self.route
        request = Request(scope, receive)
        try:
            response = await jobs.submit_job(request)
        except HttpProblem as problem:
            response = _respond(request, problem)
        except tuple(_TROUBLE) as error:
            response = await _on_trouble(request, error)
        await response(scope, receive, send)


def own_version() -> str:
    """Of the installed distribution; `0+unknown` from a source tree that isn't installed."""
    try:
        return distribution_version("fleetmuster")
    except PackageNotFoundError:
        return "0+unknown"


def _actors(port: CorePort) -> Callable[[str], Awaitable[str | None]]:
    async def actor_of(digest: str) -> str | None:
        try:
            row = await port.read(port.store.token, digest)
        except StoreError as error:
            raise HttpProblem("not_ready", f"tokens can't be read: {error}") from error
        return None if row is None else row.name

    return actor_of


# ------------------------------------------------------------------------- errors

_TROUBLE: dict[type[Exception], str] = {
    Busy: "busy",
    SaveLost: "save_lost",
    NoAnswer: "no_answer",
    StoreError: "not_ready",
    BrokerRefused: "broker_refused",
}
"""Problem code by what the port may raise."""


def _answer_errors(app: FastAPI) -> None:
    app.add_exception_handler(HttpProblem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    for kind in _TROUBLE:
        app.add_exception_handler(kind, _on_trouble)
    # Answers; the frame outside logs it, since Starlette raises it again.
    app.add_exception_handler(Exception, _on_bug)


def _respond(request: Request, problem: HttpProblem) -> Response:
    return problem_response(problem, caller_of(request).request_id)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpProblem)
    return _respond(request, error)


async def _on_trouble(request: Request, error: Exception) -> Response:
    code = next(code for kind, code in _TROUBLE.items() if isinstance(error, kind))
    return _respond(request, HttpProblem(code, str(error) or type(error).__name__))


async def _on_bug(request: Request, error: Exception) -> Response:
    return _respond(request, HttpProblem("internal", "the log names this request id"))


async def _on_http(request: Request, error: Exception) -> Response:
    """What the router says: no such route, no such method."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path[:100]
    if error.status_code == 405:
        allowed = ", ".join(_methods_of(request))
        problem = HttpProblem("method_not_allowed", f"{path} knows {allowed}", headers={"Allow": allowed})
    elif error.status_code == 404:
        problem = HttpProblem("unknown_route", f"no {method} {path}")
    else:
        problem = HttpProblem("malformed_body", str(error.detail))
    return _respond(request, problem)


def _methods_of(request: Request) -> list[str]:
    """The methods that some route of this path has; the router itself names the first route's only."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _on_invalid(request: Request, error: Exception) -> Response:
    """A query parameter; bodies are checked elsewhere."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])[:100]
    if first["type"] == "extra_forbidden":
        more = suggestion(name, list(QUERY_WORDS))
        return _respond(
            request, HttpProblem("unknown_parameter", f"no parameter {name!r}{more}", parameter=name)
        )
    return _respond(request, HttpProblem("invalid_parameter", f"{name}: {worded(first)}", parameter=name))
