"""Shapes of plans: what `POST /plan` answers, as types, and how the core's views become them.

Rule: as in `shapes`: a published field keeps its name, type and meaning.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from controller.api.answers import resources_shape
from controller.api.shapes import ResourcesShape
from controller.core.plan_views import PlannedTask, PlanView, RoomView


class PlannedTaskShape(TypedDict):
    """`device`: where it is, empty for nowhere; `to`: where it would be, empty where nothing fits."""

    task: str
    job: str
    device: str
    to: str
    reason: str
    words: str


class RoomShape(TypedDict):
    """Of devices that may be given work, together; `largest`: the most that is free on one of them."""

    devices: int
    offered: ResourcesShape
    free: ResourcesShape
    largest: ResourcesShape
    utilisation: float


class MoreShape(TypedDict):
    """How many more tasks of that job there would be room for."""

    job: str
    copies: int


class SiteLossShape(TypedDict):
    sites: list[str]
    devices: int
    moved: int
    broken: int
    utilisation: float


class SurvivalShape(TypedDict):
    """`worst`: those that break most, first; the counts are of all that were looked at."""

    at_once: int
    looked_at: int
    left_out: int
    breaking: int
    worst: list[SiteLossShape]


class PlanShape(TypedDict):
    """Lists hold the first of what `counts` counts."""

    breaks: bool
    counts: dict[str, int]
    moved: list[PlannedTaskShape]
    broken: list[PlannedTaskShape]
    placed: list[PlannedTaskShape]
    reasons: dict[str, int]
    before: RoomShape
    after: RoomShape
    more: list[MoreShape]
    notes: list[str]
    survival: SurvivalShape | None


def plan_shape(view: PlanView, survive: int) -> PlanShape:
    return PlanShape(
        breaks=view.breaks,
        counts=view.counts,
        moved=[_task(task) for task in view.moved],
        broken=[_task(task) for task in view.broken],
        placed=[_task(task) for task in view.placed],
        reasons=view.reasons,
        before=_room(view.before),
        after=_room(view.after),
        more=[MoreShape(job=more.job, copies=more.copies) for more in view.more],
        notes=view.notes,
        survival=_survival(view, survive) if survive else None,
    )


def _task(task: PlannedTask) -> PlannedTaskShape:
    return PlannedTaskShape(
        task=task.task, job=task.job, device=task.device, to=task.to, reason=task.reason, words=task.words
    )


def _room(room: RoomView) -> RoomShape:
    return RoomShape(
        devices=room.devices,
        offered=resources_shape(room.offered),
        free=resources_shape(room.free),
        largest=resources_shape(room.largest),
        utilisation=room.utilisation,
    )


def _survival(view: PlanView, survive: int) -> SurvivalShape:
    return SurvivalShape(
        at_once=survive,
        looked_at=view.losses_looked_at,
        left_out=view.losses_left_out,
        breaking=view.losses_breaking,
        worst=[
            SiteLossShape(
                sites=list(loss.sites),
                devices=loss.devices,
                moved=loss.moved,
                broken=loss.broken,
                utilisation=loss.utilisation,
            )
            for loss in view.losses
        ],
    )
