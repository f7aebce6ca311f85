"""What `/rebalances` is asked and answers, as types; see `records` for the rule."""

from __future__ import annotations

from typing import Required, TypedDict

from fleetmuster.records import Moment, Number


class RebalanceRequest(TypedDict, total=False):
    """The body of `POST /rebalances`. What is left out gets the controller's default."""

    dry_run: bool
    approve: bool
    moves_max: int
    task: str


class BalanceLine(TypedDict, total=False):
    """How evenly devices are loaded."""

    imbalance: Number | None
    mean_load: Number | None
    most_load: Number | None
    ratio: Number | None
    response: Number | None


class VoluntaryMoveLine(TypedDict, total=False):
    """One move of a plan: from `source` to `target`; it `landed` there, or elsewhere."""

    task: str | None
    source: str | None
    target: str | None
    state: str | None
    landed: str | None
    reason: str | None
    cost: Number | None
    gain: Number | None
    source_load: Number | None
    target_load: Number | None


class RemoteRebalance(TypedDict, total=False):
    """A plan of voluntary moves; a list of plans leaves the moves out."""

    id: Required[str]
    kind: str | None
    state: str | None
    reason: str | None
    actor: str | None
    decided_by: str | None
    created: Moment | None
    device: str | None
    task: str | None
    reached: bool | None
    before: BalanceLine | None
    after: BalanceLine | None
    counts: dict[str, Number] | None
    moves: list[VoluntaryMoveLine] | None
    homeless: list[str] | None
    staying: list[str] | None


class RemoteRebalances(TypedDict, total=False):
    items: Required[list[RemoteRebalance]]
    mode: str | None
    waits: str | None
    now: BalanceLine | None
