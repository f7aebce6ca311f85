"""What plans of voluntary moves look like over HTTP: the body that asks for one, the answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from controller.api.answers import moment
from controller.api.bodies import plain_text
from controller.core.balance_views import BalanceView, RebalancesView, RebalanceView, VoluntaryMoveView

MOVES_MAX = 100_000
TASK_CHARS_MAX = 64
TaskId = Annotated[str, Field(min_length=1, max_length=TASK_CHARS_MAX), AfterValidator(plain_text)]


class RebalanceBody(BaseModel):
    """`dry_run`: only to look at. `approve`: begin at once. `moves_max`: null is what the fleet allows.

    `task`: a pending task that room is to be made for; null: the fleet is to be levelled.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    dry_run: bool = False
    approve: bool = False
    moves_max: Annotated[int, Field(ge=1, le=MOVES_MAX)] | None = None
    task: TaskId | None = None


class NoBody(BaseModel):
    """`{}`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class BalanceShape(TypedDict):
    """How evenly devices are loaded; a load is the share of what is scarcest that is reserved."""

    imbalance: float
    mean_load: float
    most_load: float
    ratio: float
    response: float


class VoluntaryMoveShape(TypedDict):
    task: str
    source: str
    target: str
    state: str
    landed: str
    reason: str
    cost: float
    gain: float
    source_load: float
    target_load: float


class RebalanceSummaryShape(TypedDict):
    """A plan in a list; `counts` are its moves by state. `task`: whom a plan of room is for."""

    id: str
    kind: str
    state: str
    reason: str
    actor: str
    decided_by: str
    created: str
    device: str
    task: str
    reached: bool
    before: BalanceShape
    after: BalanceShape
    counts: dict[str, int]


class RebalanceShape(RebalanceSummaryShape):
    moves: list[VoluntaryMoveShape]
    homeless: list[str]
    staying: list[str]


class RebalanceListShape(TypedDict):
    """The newest first. `now`: the fleet as it is; `waits`: why no voluntary move would begin."""

    items: list[RebalanceSummaryShape]
    mode: str
    waits: str
    now: BalanceShape


def balance_shape(view: BalanceView) -> BalanceShape:
    return BalanceShape(
        imbalance=view.imbalance,
        mean_load=view.mean_load,
        most_load=view.most_load,
        ratio=view.ratio,
        response=view.response,
    )


def rebalance_shape(view: RebalanceView) -> RebalanceShape:
    return RebalanceShape(
        **summary_shape(view),
        moves=[_move_shape(move) for move in view.moves],
        homeless=view.homeless,
        staying=view.staying,
    )


def summary_shape(view: RebalanceView) -> RebalanceSummaryShape:
    return RebalanceSummaryShape(
        id=view.id,
        kind=view.kind,
        state=view.state,
        reason=view.reason,
        actor=view.actor,
        decided_by=view.decided_by,
        created=moment(view.created_at),
        device=view.device,
        task=view.task,
        reached=view.reached,
        before=balance_shape(view.before),
        after=balance_shape(view.after),
        counts=view.counts,
    )


def list_shape(view: RebalancesView) -> RebalanceListShape:
    return RebalanceListShape(
        items=[summary_shape(item) for item in view.items],
        mode=view.mode,
        waits=view.waits,
        now=balance_shape(view.now),
    )


def _move_shape(move: VoluntaryMoveView) -> VoluntaryMoveShape:
    return VoluntaryMoveShape(
        task=move.task,
        source=move.source,
        target=move.target,
        state=move.state,
        landed=move.landed,
        reason=move.reason,
        cost=move.cost,
        gain=move.gain,
        source_load=move.source_load,
        target_load=move.target_load,
    )
