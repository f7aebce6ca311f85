"""Outside `/api`: is the process alive, is it ready, which version, what are its figures.

`/healthz` says only that requests are answered: a supervisor that restarts us because a
broker is away would make two outages of one. `/readyz` is for who sends work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from controller.api.asking import view_of
from controller.api.frame import caller_of
from controller.api.meter import CONTENT_TYPE, Family
from controller.api.port import Busy, CorePort, NoAnswer, SaveLost
from controller.api.problems import HttpProblem
from controller.api.shapes import HealthShape, ReadinessShape, VersionShape
from controller.core.events import FleetQueried
from controller.core.views import FleetView
from controller.store.base import StoreError
from protocol.limits import PROTOCOL_VERSION

router = APIRouter(tags=["system"])


@router.get("/healthz")
async def healthz(request: Request) -> HealthShape:
    return HealthShape(status="ok")


@router.get("/readyz", response_model=ReadinessShape, responses={503: {"model": ReadinessShape}})
async def readyz(request: Request) -> Response:
    """503 while one of the checks is false. `standby_of`: who leads while this controller only waits."""
    port = caller_of(request).port
    checks = dict(port.health())
    ready = all(checks.values())
    shape: ReadinessShape = {"ready": ready, "checks": checks}
    if leader := port.standby_of():
        shape["standby_of"] = leader
    return JSONResponse(shape, 200 if ready else 503)


@router.get("/version")
async def version(request: Request) -> VersionShape:
    return VersionShape(version=caller_of(request).desk.version, api="v1", protocol=PROTOCOL_VERSION)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus text. While the core can't answer, its figures are missing and the rest is there."""
    caller = caller_of(request)
    families = list(_own_families(caller.port))
    try:
        families += await _core_families(caller.port)
    except (Busy, SaveLost, NoAnswer, StoreError, HttpProblem):
        pass  # a scrape during an outage is what metrics are for; `ready` tells of it
    return Response(caller.desk.meter.render(families), headers={"Content-Type": CONTENT_TYPE})


def _own_families(port: CorePort) -> Iterator[Family]:
    for name, value in port.metrics().items():
        yield Family(name, "counter" if name.endswith("_total") else "gauge", "", {"": value})
    yield Family("ready", "gauge", "check", {name: int(good) for name, good in port.health().items()})


async def _core_families(port: CorePort) -> list[Family]:
    view = await view_of(port, FleetQueried(port.next_request()), FleetView)
    counts = await port.read(port.store.counts)
    return [
        Family("devices", "gauge", "state", view.devices),
        Family("tasks", "gauge", "state", {**counts.tasks, **view.tasks}),
        Family("pending", "gauge", "reason", view.pending),
        Family("balance", "gauge", "figure", view.balance),
        Family("jobs", "gauge", "state", {**counts.jobs, "open": view.jobs_open}),
        Family("garbage_total", "counter", "reason", view.garbage),
        Family("core_total", "counter", "name", view.counters),
        Family("capacity", "gauge", "resource", _by_resource(view.capacity._asdict())),
        Family("reserved", "gauge", "resource", _by_resource(view.reserved._asdict())),
        _single("alarms", len(view.alarms)),
        _single("epoch", view.epoch),
        _single("uptime_ms", view.uptime_ms),
    ]


def _single(name: str, value: int) -> Family:
    return Family(name, "gauge", "", {"": value})


def _by_resource(amounts: Mapping[str, int]) -> dict[str, int | float]:
    return dict(amounts)
