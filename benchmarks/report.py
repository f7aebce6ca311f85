"""How a measurement is printed: value against target, ratio to its probe, processor time per unit.

Rule of this file: a number never stands alone. `good` or `missed` is only printed: whoever
shares the machine can spoil a run, so nothing fails because of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One measured number. `target` is a bound in the same unit; above it is bad unless `at_least`."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    probe: float | None = None
    """What the bare machine needs for the least of it, in the same unit, in the same run."""
    cpu: str = ""
    """Processor time per unit, with its words."""

    def line(self) -> str:
        parts = [f"{self.what:<58} {_short(self.value):>9} {self.unit:<5}"]
        if self.target is not None:
            met = self.value >= self.target if self.at_least else self.value <= self.target
            sign, word = (">=" if self.at_least else "<="), ("good" if met else "MISSED")
            parts.append(f"target {sign} {_short(self.target)}: {word}")
        if self.probe:
            parts.append(f"{self.value / self.probe:.1f} x probe ({_short(self.probe)} {self.unit})")
        if self.cpu:
            parts.append(f"cpu {self.cpu}")
        return "  ".join(parts)


def show(*results: Result) -> None:
    """Each on a line of its own, at once."""
    for result in results:
        print(result.line(), flush=True)


def say(text: str) -> None:
    """A remark between results."""
    print(f"# {text}", flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed; of at least one value."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _short(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
