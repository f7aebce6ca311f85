"""Rules: what a fleet's operator decided once for all jobs and devices."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.core.fleet import Offer, whole_capacity
from controller.core.windows import Window
from controller.scheduler.balance import Aims
from controller.scheduler.policies import DEFAULT, POLICIES, Policies

REBALANCE_MODES = ("off", "propose", "auto")
"""Nobody looks; plans wait for a person; small plans are carried out by themselves."""
DEFAULT_AIMS = Aims()
PACKING = ("binpack", "fragmentation")
"""Policies that make some devices fuller than others on purpose: levelling would undo their work."""


@dataclass(slots=True, frozen=True)
class Rules:
    """`policy`: a name in `scheduler.policies.NAMES`; `offer`: what of a capacity may be reserved.

    `rebalance`: one of `REBALANCE_MODES`. `aims`: where a plan begins and ends. A plan is small
    that has at most `auto_moves_max` moves, or `auto_moves_percent` of all placed tasks. Nothing
    is proposed while the fullest device is below `load_percent_least`. `windows`: when voluntary
    moves may begin; always, if there are none. `policies`: the table of policies, `weighted` as the
    operator weighs it. `profiles`: those that `offer` knows; empty where it needs none.
    """

    policy: str = DEFAULT
    offer: Offer = whole_capacity
    rebalance: str = "off"
    aims: Aims = DEFAULT_AIMS
    auto_moves_max: int = 10
    auto_moves_percent: int = 2
    load_percent_least: int = 50
    look_ms: int = 60_000
    windows: tuple[Window, ...] = ()
    policies: Policies = field(default_factory=lambda: POLICIES)
    profiles: tuple[str, ...] = ()
