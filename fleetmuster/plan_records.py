"""What `POST /plan` is asked and answers, as types; see `records` for the rule.

A plan's changes are built from options and only ever sent, so they are JSON here.
"""

from __future__ import annotations

from typing import Required, TypedDict

from fleetmuster.records import Number


class PlanRequest(TypedDict, total=False):
    """`changes`: one object each, whose only key says what happens."""

    changes: Required[list[dict[str, object]]]
    survive: int


class PlannedLine(TypedDict, total=False):
    """One task of a plan: where it is, and where it would be."""

    task: str | None
    job: str | None
    device: str | None
    to: str | None
    reason: str | None
    words: str | None


class RoomLine(TypedDict, total=False):
    devices: Number | None
    offered: dict[str, Number] | None
    free: dict[str, Number] | None
    largest: dict[str, Number] | None
    utilisation: Number | None


class MoreLine(TypedDict, total=False):
    job: str | None
    copies: Number | None


class LossLine(TypedDict, total=False):
    sites: list[str] | None
    devices: Number | None
    moved: Number | None
    broken: Number | None
    utilisation: Number | None


class SurvivalLine(TypedDict, total=False):
    at_once: Number | None
    looked_at: Number | None
    left_out: Number | None
    breaking: Number | None
    worst: list[LossLine] | None


class RemotePlan(TypedDict, total=False):
    breaks: Required[bool]
    counts: dict[str, Number] | None
    moved: list[PlannedLine] | None
    broken: list[PlannedLine] | None
    placed: list[PlannedLine] | None
    reasons: dict[str, Number] | None
    before: RoomLine | None
    after: RoomLine | None
    more: list[MoreLine] | None
    notes: list[str] | None
    survival: SurvivalLine | None
