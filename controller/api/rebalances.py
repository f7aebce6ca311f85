"""Rebalances: plans of voluntary moves; ask for one, look at it, approve or reject it.

They live in the core's memory, as long as this leadership does; drains are among them.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from controller.api.asking import view_of
from controller.api.frame import caller_of
from controller.api.openapi import body_reference
from controller.api.problems import BodyFault, HttpProblem, invalid_body
from controller.api.reading import read_json
from controller.api.rebalance_shapes import (
    NoBody,
    RebalanceBody,
    RebalanceListShape,
    RebalanceShape,
    list_shape,
    rebalance_shape,
)
from controller.core.balance_views import RebalancesView, RebalanceView
from controller.core.events import RebalanceAsked, RebalanceDecided, RebalancesQueried
from controller.core.views import DoneView

PLAN_CHARS_MAX = 64
router = APIRouter(prefix="/api/v1", tags=["rebalances"])


@router.get("/rebalances")
async def list_rebalances(request: Request) -> RebalanceListShape:
    """Every plan that is remembered, without its moves; and how even the fleet is now."""
    port = caller_of(request).port
    return list_shape(await view_of(port, RebalancesQueried(port.next_request()), RebalancesView))


@router.post(
    "/rebalances", status_code=201, response_model=RebalanceShape, openapi_extra=body_reference(RebalanceBody)
)
async def ask_rebalance(request: Request) -> Response:
    """A plan that levels the fleet, or makes room for a task; 200 for a dry run.

    It waits for approval, unless `approve` is said.
    """
    caller = caller_of(request)
    body, _ = await read_json(request, RebalanceBody)
    if body.dry_run and body.approve:
        raise invalid_body([BodyFault("/approve", "a dry run is never carried out; say one of the two")])
    question = RebalanceAsked(
        caller.port.next_request(), caller.actor, body.dry_run, body.approve, body.moves_max or 0,
        body.task or "",
    )  # fmt: skip
    shape = rebalance_shape(await view_of(caller.port, question, RebalanceView))
    if body.dry_run:
        return JSONResponse(shape, 200)
    place = f"{request.scope.get('root_path', '')}/api/v1/rebalances/{shape['id']}"
    return JSONResponse(shape, 201, {"Location": place})


@router.get("/rebalances/{plan}")
async def show_rebalance(request: Request, plan: str) -> RebalanceShape:
    """One plan with its moves, and what became of each."""
    port = caller_of(request).port
    view = await view_of(port, RebalancesQueried(port.next_request(), _known_form(plan)), RebalanceView)
    return rebalance_shape(view)


@router.post("/rebalances/{plan}/approve", openapi_extra=body_reference(NoBody))
async def approve_rebalance(request: Request, plan: str) -> RebalanceShape:
    """Begins a plan that is proposed."""
    return await _decided(request, plan, True)


@router.post("/rebalances/{plan}/reject", openapi_extra=body_reference(NoBody))
async def reject_rebalance(request: Request, plan: str) -> RebalanceShape:
    """Ends a plan; moves that began go on, the others never do."""
    return await _decided(request, plan, False)


async def _decided(request: Request, plan: str, approve: bool) -> RebalanceShape:
    caller = caller_of(request)
    if request.headers.get("content-length", "0") != "0":  # a body is optional, and says nothing
        await read_json(request, NoBody)
    question = RebalanceDecided(caller.port.next_request(), _known_form(plan), approve, caller.actor)
    await view_of(caller.port, question, DoneView)
    return await show_rebalance(request, plan)


def _known_form(plan: str) -> str:
    """An id that no plan can have is not worth a question."""
    if not plan.isascii() or not plan.replace("-", "").isalnum() or len(plan) > PLAN_CHARS_MAX:
        raise HttpProblem("not_found", "plans have ids as r1767323045-1")
    return plan
