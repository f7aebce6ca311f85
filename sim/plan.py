"""A plan: all that a seed decides before its world begins, as plain data.

Rule of this file: nothing is drawn later but delays and losses of the weather; so a plan can
be printed, written to a file, read again and shrunk by leaving something out. Times count
from the moment at which the fleet is ready. It knows no world.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Args = tuple[tuple[str, int | str], ...]
"""Further words of a fault or an order, by name, in the order of names."""


@dataclass(slots=True, frozen=True)
class Fault:
    """One trouble: `kind` is a name in `faults.FAULTS`; `device` "" where it concerns none."""

    at_ms: int
    kind: str
    device: str = ""
    for_ms: int = 0
    """How long; 0: a moment."""
    args: Args = ()


@dataclass(slots=True, frozen=True)
class Order:
    """What people do: `kind` is a name in `workload.ORDERS`."""

    at_ms: int
    kind: str
    args: Args = ()


@dataclass(slots=True, frozen=True)
class PlannedDevice:
    """One device and what it is for the whole run."""

    name: str
    profile: str
    site: str = ""
    rate_ppm: int = 0
    containment: str = "strong"
    labels: str = ""
    """Beside its site: `zone=a tier=2`."""
    accelerators: str = ""
    """`gpu0:t4:1000 gpu1:a2:500`; empty: those of its profile."""
    extras: str = ""
    """`camera=1`."""


@dataclass(slots=True, frozen=True)
class Plan:
    """`faults_ms` of faults, then quiet."""

    seed: int
    faults_ms: int
    devices: tuple[PlannedDevice, ...]
    controllers: int = 1
    families: tuple[str, ...] = ()
    policy: str = ""
    """The fleet's policy of placement; empty: the default."""
    offer: str = "whole"
    """What of a capacity may be reserved: a name in `offers.OFFERS`."""
    balance_ms: int = 0
    """How often the controller looks whether the fleet is level, and levels it; 0: never."""
    quirks: Args = ()
    """Fields of `broker.events.BrokerQuirks` that are not off."""
    orders: tuple[Order, ...] = ()
    faults: tuple[Fault, ...] = ()


class Verdict(StrEnum):
    """How a run ended."""

    HELD = "held"
    VIOLATED = "violated"
    NOT_CONVERGED = "not_converged"
    CRASHED = "crashed"
    """A core, a checker or the simulator threw, or nothing was ever started: no proof of anything."""


@dataclass(slots=True)
class Breach:
    """An invariant that did not hold."""

    at_ms: int
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at_ms}: {self.text}"


@dataclass(slots=True)
class Outcome:
    """What one plan led to."""

    plan: Plan
    verdict: Verdict
    detail: str
    """What did not settle, or the traceback of what threw; empty when all held."""
    breaches: list[Breach]
    virtual_ms: int
    starts: int
    failovers: int
    """Attempts that were committed for a task which had one on another device before."""
    faults: dict[str, int]
    """How often each kind was injected."""
    trace_hash: str
