"""What people see of plans of voluntary moves: plain pictures, no objects of the core."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class BalanceView:
    """How evenly the fleet is loaded; `scheduler.imbalance.Imbalance` tells what the figures mean."""

    imbalance: float
    mean_load: float
    most_load: float
    ratio: float
    response: float


@dataclass(slots=True)
class VoluntaryMoveView:
    """One move. `landed`: the device where the task is since; it may be another than `target`."""

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


@dataclass(slots=True)
class RebalanceView:
    """A plan; `moves` is empty in a list of plans, `counts` never.

    `kind` is `rebalance`, `drain` (then `device` is the drained one) or `room` (then `device` is where
    room is made, and `task` whom for). `homeless`: tasks for which no device was foreseen;
    `staying`: tasks that are of no other device.
    """

    id: str
    kind: str
    state: str
    reason: str
    """Why it waits, or why it ended as it did."""
    actor: str
    decided_by: str
    created_at: int
    device: str
    before: BalanceView
    after: BalanceView
    counts: dict[str, int]
    reached: bool
    moves: list[VoluntaryMoveView] = field(default_factory=list)
    homeless: list[str] = field(default_factory=list)
    staying: list[str] = field(default_factory=list)
    task: str = ""


@dataclass(slots=True)
class RebalancesView:
    """All plans of this leadership that are remembered, the newest first."""

    items: list[RebalanceView]
    now: BalanceView
    mode: str
    waits: str
    """Why no voluntary move would begin now; empty when nothing speaks against it."""
