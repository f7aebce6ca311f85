"""Policies: a name for a mixture of scores. A policy is one entry in this table.

Weights of a policy sum to 1, so a total is in 0…1 too (a job's own wishes come on top).
`in_turn`: scores change where nothing was placed or in ways that a batch can't foresee, so
tasks are placed one by one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.scheduler import scores
from controller.scheduler.view import View

DEFAULT = "balanced"


@dataclass(slots=True, frozen=True)
class Policy:
    """`fits` and `traits`: name -> (criterion, weight); `says`: what it is good for, in a line."""

    says: str
    fits: dict[str, tuple[scores.Fit, float]]
    traits: dict[str, tuple[scores.Trait, float]]
    in_turn: bool = False
    usable: float = 0.0
    """Weight of what usual demands could still use (`fragmentation`), which learns as tasks arrive."""


_HEALTH: dict[str, tuple[scores.Trait, float]] = {
    "cool": (scores.cool, 0.06),
    "powered": (scores.powered, 0.05),
    "unmetered": (scores.unmetered, 0.03),
    "unworn": (scores.unworn, 0.03),
    "near": (scores.near, 0.02),
    "steady": (scores.steady, 0.10),
    "large": (scores.large, 0.01),
}

POLICIES: dict[str, Policy] = {
    "balanced": Policy(
        "room everywhere, no resource stranded, healthy devices first",
        {"room": (scores.room, 0.50), "even": (scores.even, 0.20)},
        _HEALTH,
    ),
    "binpack": Policy(
        "as few devices as possible",
        {"packed": (scores.packed, 0.90)},
        {"steady": (scores.steady, 0.10)},
    ),
    "spread": Policy(
        "the most room after placing, whatever else",
        {"room": (scores.room, 0.99)},
        {"large": (scores.large, 0.01)},
    ),
    "fragmentation": Policy(
        "keeps what is left usable for the tasks that usually come (FGD)",
        {},
        {"steady": (scores.steady, 0.05)},
        in_turn=True,
        usable=0.95,
    ),
    "round_robin": Policy(
        "each device in its turn",
        {},
        {"rested": (scores.rested, 1.0)},
        in_turn=True,
    ),
    "least_loaded": Policy(
        "the least measured use, then the most room",
        {"room": (scores.room, 0.30)},
        {"idle": (scores.idle, 0.70)},
    ),
    "weighted": Policy(
        "criteria by the weights that the fleet's operator set",
        {"room": (scores.room, 0.25), "even": (scores.even, 0.10), "packed": (scores.packed, 0.0)},
        {
            "cool": (scores.cool, 0.10),
            "powered": (scores.powered, 0.10),
            "unmetered": (scores.unmetered, 0.05),
            "unworn": (scores.unworn, 0.05),
            "near": (scores.near, 0.10),
            "steady": (scores.steady, 0.15),
            "idle": (scores.idle, 0.10),
        },
    ),
    "latency": Policy(
        "the nearest devices first",
        {"room": (scores.room, 0.15)},
        {"near": (scores.near, 0.75), "steady": (scores.steady, 0.10)},
    ),
}

WEIGHTED = "weighted"
FITS: dict[str, scores.Fit] = {"room": scores.room, "even": scores.even, "packed": scores.packed}
TRAITS: dict[str, scores.Trait] = {
    **{name: trait for name, (trait, _) in _HEALTH.items()},
    "idle": scores.idle,
}
"""Criteria that an operator may weigh."""
Policies = Mapping[str, Policy]


def weigh(weights: Mapping[str, int]) -> Policies:
    """The table with `weighted` as an operator wants it; empty: as it stands. Weights are relative.

    Raises `ValueError`, saying what is wrong, for an unknown criterion or when nothing weighs anything.
    """
    if not weights:
        return POLICIES
    known = (*FITS, *TRAITS)
    for name in weights:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no criterion {name!r}{meant} Known: {', '.join(known)}")
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError("weights are 0 or more, and at least one is more")
    shares = {name: weight / total for name, weight in weights.items()}
    return POLICIES | {
        WEIGHTED: Policy(
            POLICIES[WEIGHTED].says,
            {name: (fit, shares[name]) for name, fit in FITS.items() if shares.get(name)},
            {name: (trait, shares[name]) for name, trait in TRAITS.items() if shares.get(name)},
        )
    }


ADAPTIVE = "adaptive"
ADAPTIVE_FULL = 0.75
ADAPTIVE_BUSY = 0.40
NAMES = (*POLICIES, ADAPTIVE)
"""What a job or a fleet may name."""


def resolve(name: str, view: View) -> str:
    """The policy that `name` means at the present load.

    `adaptive`: room everywhere while there is plenty (spread below 40 % reserved), balanced
    above, and close packing (fragmentation) from 75 % on, when a gap costs more than heat.
    """
    if name != ADAPTIVE:
        return name
    used = utilisation(view)
    return "fragmentation" if used >= ADAPTIVE_FULL else "balanced" if used >= ADAPTIVE_BUSY else "spread"


def utilisation(view: View) -> float:
    """Share of the ready devices' offers that is reserved, of the scarcest resource."""
    ready = view.ready
    worst = 0.0
    for offered, free in zip(view.offered, view.free, strict=True):
        all_ = float(offered[ready].sum())
        if all_ > 0:
            worst = max(worst, 1.0 - float(np.maximum(free[ready], 0).sum()) / all_)
    return worst
