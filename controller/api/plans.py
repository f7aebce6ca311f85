"""Plans: what would happen. Asked like a change, answered like a question; nothing is stored."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from controller.api.frame import caller_of
from controller.api.openapi import body_reference
from controller.api.plan_bodies import PlanBody, changes_of, plan_faults
from controller.api.plan_shapes import PlanShape, plan_shape
from controller.api.problems import BodyFault, HttpProblem, invalid_body, refused
from controller.api.reading import read_json
from controller.core.events import PlanAsked
from controller.core.plan_views import PlanFaultView, PlanView
from controller.core.views import RefusalView
from protocol.errors import LocalMistake

router = APIRouter(prefix="/api/v1", tags=["plan"])


@router.post("/plan", response_model=PlanShape, openapi_extra=body_reference(PlanBody))
async def ask_plan(request: Request) -> Response:
    """Which tasks would move, which would find no place, what would be left. Nothing changes."""
    caller = caller_of(request)
    body, _ = await read_json(request, PlanBody)
    if faults := plan_faults(body, caller.port.profiles):
        raise invalid_body(faults)
    changes = changes_of(body, caller.port.profiles, caller.actor, caller.port.wall_ms())
    view = await caller.port.ask(PlanAsked(caller.port.next_request(), changes, body.survive))
    if isinstance(view, RefusalView):
        raise refused(view)
    if isinstance(view, PlanFaultView):
        raise _pointed(view, body)
    if not isinstance(view, PlanView):
        raise LocalMistake(f"a plan was answered by {type(view).__name__}")
    # A plan may have 1,500 rows: a quarter of what json.dumps takes.
    return Response(to_json(plan_shape(view, body.survive)), media_type="application/json")


def _pointed(fault: PlanFaultView, body: PlanBody) -> HttpProblem:
    """422 that names the place in the body; the core knows changes, not fields."""
    change = body.changes[fault.change]
    if change.drain is not None:
        place = f"drain/{fault.place}"
    elif change.lose is not None:
        place = "lose/site" if fault.field == "sites" else f"lose/devices/{fault.place}"
    else:
        place = f"change/{fault.field}" if change.change is not None else "submit/name"
    return invalid_body([BodyFault(f"/changes/{fault.change}/{place}", fault.detail)])
