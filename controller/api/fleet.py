"""The fleet: the overview, and the end of a freeze."""

from __future__ import annotations

from fastapi import APIRouter, Request

from controller.api.answers import fleet_shape
from controller.api.asking import view_of
from controller.api.frame import Caller, caller_of
from controller.api.shapes import FleetShape
from controller.core.events import FleetQueried, FleetUnfrozen
from controller.core.views import DoneView, FleetView

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/fleet")
async def show_fleet(request: Request) -> FleetShape:
    """Counts by state, sums by resource, and what is wrong."""
    return await _fleet(caller_of(request))


@router.post("/fleet/unfreeze")
async def unfreeze_fleet(request: Request) -> FleetShape:
    """Ends the freeze of failover now: the silent devices are taken for lost."""
    caller = caller_of(request)
    port = caller.port
    await view_of(port, FleetUnfrozen(port.next_request(), caller.actor), DoneView)
    return await _fleet(caller)


async def _fleet(caller: Caller) -> FleetShape:
    port = caller.port
    view = await view_of(port, FleetQueried(port.next_request()), FleetView)
    counts = await port.read(port.store.counts)
    return fleet_shape(view, counts.jobs, counts.tasks, caller.desk.version)
