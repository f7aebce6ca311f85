"""What a plan answers: who would move, what would break, what is left. Plain pictures, bounded.

Lists hold the first of what the counts count. Rows are in the order in which tasks are
considered: by priority, then by age.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.resources import Resources


@dataclass(slots=True)
class PlannedTask:
    """One task of a plan. `device`: where it is, empty when nowhere; `to`: where it would be."""

    task: str
    job: str
    device: str
    to: str
    reason: str = ""
    """A code of `scheduler.explain.CODES`, where it finds no place."""
    words: str = ""


@dataclass(slots=True)
class RoomView:
    """What the devices that may be given work have, together; `largest`: the most free on one."""

    devices: int
    offered: Resources
    free: Resources
    largest: Resources
    utilisation: float
    """Reserved share of the scarcest resource, 0…1."""


@dataclass(slots=True)
class MoreView:
    """How many more tasks of a job there would be room for, after all that was planned."""

    job: str
    copies: int


@dataclass(slots=True)
class SiteLossView:
    """What the loss of these sites at once would do."""

    sites: tuple[str, ...]
    devices: int
    moved: int
    broken: int
    utilisation: float


@dataclass(slots=True)
class PlanFaultView:
    """A change that names what is not there; `field` and `place` say where in it."""

    change: int
    field: str
    place: int
    detail: str


@dataclass(slots=True)
class PlanView:
    """`counts`: `moved`, `broken`, `placed` (new or waiting tasks that find a place), `waiting` (that
    don't, and didn't before), `stayed` (of a changed job, where they are), `ended` (no part of it any
    more), `left_out`."""

    counts: dict[str, int]
    before: RoomView
    after: RoomView
    moved: list[PlannedTask] = field(default_factory=list)
    broken: list[PlannedTask] = field(default_factory=list)
    placed: list[PlannedTask] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    """Of what breaks, by code."""
    more: list[MoreView] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the numbers leave out: who would really give way, what a change took away."""
    losses: list[SiteLossView] = field(default_factory=list)
    """The worst first."""
    losses_looked_at: int = 0
    losses_left_out: int = 0
    losses_breaking: int = 0

    @property
    def breaks(self) -> bool:
        """Whether something that runs, or was asked for, would find no place."""
        return bool(self.counts.get("broken") or self.losses_breaking)
