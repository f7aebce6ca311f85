"""A plan of voluntary moves as the core keeps it: what is to move, what became of it.

Plans are in memory only: a take-over forgets them. Nothing half-done is lost with one,
because each move is an ordinary removal, and the task that it frees is placed like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from controller.core.balance_views import BalanceView, RebalanceView, VoluntaryMoveView
from controller.scheduler.imbalance import Imbalance


class PlanState(StrEnum):
    """`proposed` waits for a person; `approved` for its first move; the last three are final."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    STALE = "stale"


CARRIED = (PlanState.APPROVED, PlanState.RUNNING)
OPEN = (PlanState.PROPOSED, *CARRIED)
_MOVES: dict[PlanState, tuple[PlanState, ...]] = {
    PlanState.PROPOSED: (PlanState.APPROVED, PlanState.REJECTED, PlanState.STALE),
    PlanState.APPROVED: (PlanState.RUNNING, PlanState.DONE, PlanState.REJECTED, PlanState.STALE),
    PlanState.RUNNING: (PlanState.DONE, PlanState.REJECTED, PlanState.STALE),
}


class MoveState(StrEnum):
    """`over`: the task ended or was cancelled on its way; `skipped`: it made no sense any more."""

    WAITING = "waiting"
    MOVING = "moving"
    MOVED = "moved"
    SKIPPED = "skipped"
    OVER = "over"


UNDECIDED = (MoveState.WAITING, MoveState.MOVING)


@dataclass(slots=True)
class VoluntaryMove:
    """One attempt that is to leave `source` for `target` (rows), and what that costs and gains."""

    task: str
    attempt: int
    source: int
    target: int
    cost: float
    gain: float
    source_load: float
    target_load: float
    state: MoveState = MoveState.WAITING
    landed: str = ""
    reason: str = ""


@dataclass(slots=True)
class VoluntaryPlan:
    """`device`: the row of a drain, or where room is made for `task`; -1 of a rebalance."""

    id: str
    actor: str
    made_ms: int
    created_at: int
    moves: list[VoluntaryMove]
    before: Imbalance
    after: Imbalance
    reached: bool = True
    device: int = -1
    homeless: list[str] = field(default_factory=list)
    staying: list[str] = field(default_factory=list)
    state: PlanState = PlanState.PROPOSED
    decided_by: str = ""
    reason: str = ""
    task: str = ""

    @property
    def of_room(self) -> bool:
        return bool(self.task)

    @property
    def of_drain(self) -> bool:
        return self.device >= 0 and not self.of_room

    @property
    def kind(self) -> str:
        return "room" if self.of_room else "drain" if self.of_drain else "rebalance"

    def turn(self, state: PlanState, reason: str = "") -> None:
        """Takes the next state; one that can't follow is a mistake of ours."""
        assert state in _MOVES.get(self.state, ()), f"plan {self.id}: {self.state} -> {state}"
        self.state, self.reason = state, reason

    def undecided(self) -> list[VoluntaryMove]:
        return [m for m in self.moves if m.state in UNDECIDED]

    def waiting(self) -> list[VoluntaryMove]:
        return [m for m in self.moves if m.state is MoveState.WAITING]

    def counts(self) -> dict[str, int]:
        """Moves by state."""
        found = {state.value: 0 for state in MoveState}
        for move in self.moves:
            found[move.state.value] += 1
        return found


def balance_view(figures: Imbalance) -> BalanceView:
    rounded = [round(x, 4) for x in (figures.b, figures.mean, figures.most, figures.ratio, figures.response)]
    return BalanceView(*rounded)


def plan_view(plan: VoluntaryPlan, names: list[str], whole: bool) -> RebalanceView:
    """The plan as people see it; without its moves unless `whole`."""
    return RebalanceView(
        plan.id, plan.kind, plan.state.value, plan.reason, plan.actor,
        plan.decided_by, plan.created_at, names[plan.device] if plan.device >= 0 else "",
        balance_view(plan.before), balance_view(plan.after), plan.counts(), plan.reached,
        [_move_view(move, names) for move in plan.moves] if whole else [],
        list(plan.homeless) if whole else [], list(plan.staying) if whole else [], plan.task,
    )  # fmt: skip


def _move_view(move: VoluntaryMove, names: list[str]) -> VoluntaryMoveView:
    return VoluntaryMoveView(
        move.task, names[move.source], names[move.target], move.state.value, move.landed, move.reason,
        round(move.cost, 3), round(move.gain, 6), round(move.source_load, 4), round(move.target_load, 4),
    )  # fmt: skip
