"""Devices: list, show, register and remove, cordon and drain, ping.

Their present state is the core's, so every read is a question. Registering has two
halves, the broker's credential and the registry's row. The credential comes first both
ways: a crash between leaves a device that the registry still lets one add, or remove, again.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from controller.api.answers import device_shape
from controller.api.asking import view_of
from controller.api.bodies import DeviceBody, TaintBody
from controller.api.frame import Caller, caller_of
from controller.api.openapi import body_reference
from controller.api.paging import CURSOR_CHARS_MAX, LIMIT, LIMIT_MAX, cursor_of, position_of
from controller.api.problems import BodyFault, HttpProblem, invalid_body
from controller.api.reading import read_json
from controller.api.selector import Selector, parse_selector
from controller.api.shapes import AddedDeviceShape, DevicePage, DeviceShape, PingShape
from controller.core.events import DeviceDecision, DevicePinged, DevicesQueried
from controller.core.taints import check_taint
from controller.core.views import DevicesView, DeviceView, DoneView, PingView
from protocol.topics import valid_id

SCAN_PAGES_MAX = 10
"""A filtered page looks at 10,000 devices at most, then answers what it has and a cursor."""

router = APIRouter(prefix="/api/v1", tags=["devices"])


class DeviceFilter(BaseModel):
    """Query parameters of a list of devices; empty means any."""

    model_config = ConfigDict(extra="forbid")
    state: Literal["online", "suspect", "offline"] | None = None
    selector: Annotated[str, Field(max_length=2_000)] = ""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = LIMIT
    cursor: Annotated[str, Field(max_length=CURSOR_CHARS_MAX)] = ""


@router.get("/devices")
async def list_devices(request: Request, query: Annotated[DeviceFilter, Query()]) -> DevicePage:
    """Devices in the order of their ids. A page may be short although more follow: see `next`."""
    selector = parse_selector(query.selector)
    found, last = await _scan(caller_of(request), query, selector, position_of(query.cursor))
    return DevicePage(items=[device_shape(view) for view in found], next=cursor_of(last) if last else None)


async def _scan(
    caller: Caller, query: DeviceFilter, selector: Selector, after: str
) -> tuple[list[DeviceView], str]:
    """The devices that match, and the id to go on from; empty at the end."""
    port = caller.port
    found: list[DeviceView] = []
    filtered = query.state is not None or bool(selector.terms)
    size = LIMIT_MAX if filtered else query.limit
    for _ in range(SCAN_PAGES_MAX):
        question = DevicesQueried(port.next_request(), after=after, limit=size)
        page = await view_of(port, question, DevicesView)
        for view in page.items:
            if (query.state is None or view.state == query.state) and selector.matches(view):
                if len(found) == query.limit:
                    return found, found[-1].id
                found.append(view)
        after = page.next
        if not after or not filtered:
            break
    return found, after


@router.get("/devices/{device}")
async def show_device(request: Request, device: str) -> DeviceShape:
    return device_shape(await _device(caller_of(request), device))


@router.post(
    "/devices", status_code=201, response_model=AddedDeviceShape, openapi_extra=body_reference(DeviceBody)
)
async def add_device(request: Request) -> Response:
    """Registers a device; the answer holds its credential, once."""
    caller = caller_of(request)
    body, _ = await read_json(request, DeviceBody)
    if await _find(caller, body.id) is not None:
        # A new credential would lock out the machine that has the present one.
        raise HttpProblem("conflict", f"device {body.id} exists; remove it first")
    text = await caller.port.add_device(body.id)
    await _decide(caller, body.id, "add")
    place = f"{request.scope.get('root_path', '')}/api/v1/devices/{body.id}"
    return JSONResponse(AddedDeviceShape(id=body.id, agent_toml=text), 201, {"Location": place})


@router.delete("/devices/{device}", status_code=204, response_class=Response)
async def remove_device(request: Request, device: str) -> Response:
    """Its work moves as if it were lost; its credential, ACL and retained messages go."""
    caller = caller_of(request)
    await _device(caller, device)
    await caller.port.remove_device(device)
    await _decide(caller, device, "remove")
    return Response(status_code=204)


@router.post("/devices/{device}/cordon")
async def cordon_device(request: Request, device: str) -> DeviceShape:
    """No new tasks."""
    return await _decided(request, device, "cordon")


@router.post("/devices/{device}/uncordon")
async def uncordon_device(request: Request, device: str) -> DeviceShape:
    """Tasks again; also ends a drain."""
    return await _decided(request, device, "uncordon")


@router.post("/devices/{device}/drain", status_code=202)
async def drain_device(request: Request, device: str) -> DeviceShape:
    """No new tasks, and the present ones move: watch `tasks` fall to 0."""
    return await _decided(request, device, "drain")


@router.post("/devices/{device}/taints", openapi_extra=body_reference(TaintBody))
async def taint_device(request: Request, device: str) -> DeviceShape:
    """Only tasks that tolerate it come here any more; setting it twice changes nothing."""
    body, _ = await read_json(request, TaintBody)
    if fault := check_taint(body.taint):
        raise invalid_body([BodyFault("/taint", fault)])
    try:
        return await _decided(request, device, "taint", body.taint)
    except HttpProblem as problem:
        if problem.code != "invalid":
            raise
        raise invalid_body([BodyFault("/taint", problem.detail)]) from None


@router.delete("/devices/{device}/taints/{taint:path}")
async def untaint_device(request: Request, device: str, taint: str) -> DeviceShape:
    """Takes one taint away, written as it is shown."""
    return await _decided(request, device, "untaint", taint)


@router.post("/devices/{device}/ping")
async def ping_device(request: Request, device: str) -> PingShape:
    """One command there and back, in microseconds; 504 when no answer comes."""
    port = caller_of(request).port
    _known_form(device)
    question = DevicePinged(port.next_request(), device, _now_us())
    view = await view_of(port, question, PingView)
    return PingShape(rtt_us=_now_us() - view.sent_us)


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


async def _decided(request: Request, device: str, verb: str, value: str = "") -> DeviceShape:
    """Takes the decision and answers with the device as it is then."""
    caller = caller_of(request)
    await _decide(caller, device, verb, value)
    return device_shape(await _device(caller, device))


async def _decide(caller: Caller, device: str, verb: str, value: str = "") -> None:
    _known_form(device)
    question = DeviceDecision(caller.port.next_request(), device, verb, caller.actor, value)
    await view_of(caller.port, question, DoneView)


async def _device(caller: Caller, device: str) -> DeviceView:
    _known_form(device)
    view = await _find(caller, device)
    if view is None:
        raise HttpProblem("not_found", f"no device {device}")
    return view


async def _find(caller: Caller, device: str) -> DeviceView | None:
    try:
        view = await view_of(caller.port, DevicesQueried(caller.port.next_request(), device), DevicesView)
    except HttpProblem as problem:
        if problem.code == "not_found":
            return None
        raise
    return view.items[0] if view.items else None


def _known_form(device: str) -> None:
    """An id that no device can have is not worth a question."""
    if not valid_id(device):
        raise HttpProblem("not_found", "device ids are up to 64 letters, digits and '-'")
