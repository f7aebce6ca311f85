"""Rules: what a fleet's operator decided once for all jobs and devices."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.fleet import Offer, whole_capacity
from controller.scheduler.policies import DEFAULT


@dataclass(slots=True, frozen=True)
class Rules:
    """`policy`: a name in `scheduler.policies.NAMES`; `offer`: what of a capacity may be reserved."""

    policy: str = DEFAULT
    offer: Offer = whole_capacity
