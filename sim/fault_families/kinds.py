"""What a kind of fault is: how it is drawn, how it begins and ends, what it suspends.

Rule of this file: an entry of the table `faults.FAULTS` is one of these, and nothing else
about a kind is said anywhere. A beginning that finds nothing to disturb says so (False), and
isn't counted. Ends must bear that another fault has come between, and that there was no
beginning. It knows worlds, but no single kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from sim.controllers import ControllerProcess
from sim.devices import SimulatedDevice
from sim.network import Weather
from sim.plan import Args, Fault, Plan, PlannedDevice
from sim.world import World

LATENESS = ("high_ms", "late_ms", "low_ms")
"""Words that say how much later than sent something may arrive."""


class Whole(NamedTuple):
    """A word whose value is a whole number between these."""

    low: int
    high: int


class OneOf(NamedTuple):
    """A word whose value is one of these."""

    words: tuple[str, ...]


class Name(NamedTuple):
    """A word whose value is an id, a label or a number of somebody: any short text."""

    what: str


class Phrase(NamedTuple):
    """A word whose value is a text that is read further; `read` raises `ValueError`: what was expected."""

    read: Callable[[str], object]


Word = Whole | OneOf | Name | Phrase


class Drawn(NamedTuple):
    """What a drawing decided: for whom, for how long, with which words."""

    device: str
    for_ms: int
    args: Args = ()


@dataclass(slots=True, frozen=True)
class Cast:
    """Who takes part, as far as a drawing may know."""

    devices: tuple[PlannedDevice, ...]
    controllers: int = 1

    def any_device(self, rng: Random) -> PlannedDevice:
        return self.devices[rng.randrange(len(self.devices))]


@dataclass(slots=True)
class Scene:
    """A world and the plan that is played on it."""

    world: World
    plan: Plan
    fair: Weather = field(default_factory=Weather)
    """The weather without faults."""
    over: bool = False
    copied: bool = False
    """Whether a backup of the database was ever taken."""
    counts: dict[str, int] = field(default_factory=dict)
    clones: dict[str, SimulatedDevice] = field(default_factory=dict)
    doubted: dict[str, None] = field(default_factory=dict)
    """Devices that said of themselves what can't be true."""

    def device(self, fault: Fault) -> SimulatedDevice:
        return self.world.devices[fault.device]

    def planned(self, name: str) -> PlannedDevice:
        return next(device for device in self.plan.devices if device.name == name)

    def controller(self, fault: Fault) -> ControllerProcess:
        everybody = self.world.controllers
        return everybody[number(fault, "controller") % len(everybody)]


@dataclass(slots=True, frozen=True)
class FaultKind:
    """One kind. `draw` rolls its dice; `begin` and `end` do it to a world."""

    family: str
    draw: Callable[[Random, Cast], Drawn]
    begin: Callable[[Scene, Fault], bool | None]
    end: Callable[[Scene, Fault], None]
    words: dict[str, Word] = field(default_factory=dict)
    """Its further words in a scenario, all of them required."""
    of_device: bool = True
    """Whether it befalls one device, which then must be named."""
    gap_ms_min: int = 6_000
    """The mean time between two of its family is at least this."""
    outside: tuple[str, ...] = ()
    """Invariants that it suspends, because it lies outside the assumptions (section 11)."""
    instead: str = ""
    """What is checked in their place."""


def number(fault: Fault, name: str) -> int:
    """A word of a fault that is a number; 0 where it wasn't said."""
    return int(dict(fault.args).get(name, 0))


def text(fault: Fault, name: str) -> str:
    """A word of a fault that is text."""
    return str(dict(fault.args).get(name, ""))


def nothing(scene: Scene, fault: Fault) -> None:
    """The end of what was a moment only."""


def spread(rng: Random, low: int, high: int) -> int:
    """Between `low` and `high`, each order of magnitude as likely as the next."""
    return int(low * (high / low) ** rng.random())
