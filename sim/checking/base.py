"""What a checker is: one invariant, the picture it reads, and a way to say that it was broken.

Rule of this file: a checker is told of observations after the picture has taken them in, and
of moments that it asked for. It never asks a core. A breach names the devices that took part
in it, because a fault outside the assumptions excuses its own device and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from controller.core.fleet import Offer
from sim.checking.picture import Commit, Picture
from sim.observations import DatabaseRestored, Observation


class Judge(Protocol):
    """Who hears of breaches and keeps the moments that checkers wait for."""

    seen: Picture
    offer: Offer
    """What of a device's capacity may be reserved."""

    def breach(
        self, invariant: str, text: str, devices: tuple[str, ...] = (), excused: bool = False
    ) -> None: ...

    def outside(self, invariant: str, *devices: str) -> bool:
        """Whether a fault outside the assumptions suspends the invariant for one of these now."""

    def wait(self, due_ms: int, look: Callable[[], None]) -> None:
        """Calls `look` before the first observation later than `due_ms`, and at the end."""


Heard = Callable[[Any], None]


class Checker:
    """One invariant. `hears`: observations by type; commits come as changes, to `on_commit`."""

    invariant = ""
    channels: tuple[str, ...] = ()
    """Of which channels it hears `Delivered`; none named: of all."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.seen = judge.seen
        self.hears_of: dict[type[Observation], Heard] = {}

    def hears(self) -> dict[type[Observation], Heard]:
        return {}

    def on_commit(self, commit: Commit) -> None: ...

    def on_restored(self, copy: DatabaseRestored) -> None: ...

    def finish(self, now_ms: int) -> None: ...

    def breach(self, text: str, *devices: str, excused: bool = False) -> None:
        """`excused`: the checker knows that a suspended fault led here, though not on these devices now."""
        self.judge.breach(self.invariant, text, devices, excused)
