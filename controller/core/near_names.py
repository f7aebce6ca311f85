"""Near names: what a job asks for that no device has, and what was probably meant.

Rule of this file: a name that is unknown today may be right tomorrow, so nothing is
refused for it; a task that waits is told. Only what keeps devices out is looked at, and
only a demand that no device of the fleet meets; a suggestion is a name the fleet has.
It is sorted and bounded: the same fleet gives the same words, and a label that is
different on every device costs no more than `NAMES_MAX` comparisons.
Rejected: refusing unknown names at the submit, when the device may only come later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import numpy as np

from controller.core.conditions import ATTRIBUTES, items_of
from controller.core.fleet import Fleet
from controller.core.records import Constraint, DeviceRow, TaskSpec
from controller.scheduler.view import Flags

NAMES_MAX = 500
"""Names that one is compared with, those of the nearest length first: some 5 ms."""
CHARS_MAX = 64
"""A longer one is no slip of the finger."""
RECORDS_MAX = 10_000
"""Devices whose labels and extras are read for names."""
TOLD_MAX = 3
_PRESENT = ("not_exists", "!=", "not_in", "distinct_device")
"""Operators that a device without the attribute passes."""


def unknown_names(fleet: Fleet, spec: TaskSpec, present: Flags) -> list[str]:
    """ "no device has …; did you mean …?" for each name of the spec that no present device has, three at
    most; only where there is something to suggest."""
    known = _Known(fleet, present)
    told = dict.fromkeys(_words(what, word, near) for what, word, near in known.unknown(spec))
    return list(told)[:TOLD_MAX]


def _words(what: str, word: str, near: str) -> str:
    return f"no device has {what} {word!r}; did you mean {near!r}?"


class _Known:
    """What the present devices have."""

    def __init__(self, fleet: Fleet, present: Flags) -> None:
        self.fleet, self.present = fleet, present

    def unknown(self, spec: TaskSpec) -> Iterator[tuple[str, str, str]]:
        """(what it is, the name asked for, the near one)."""
        yield from _near("runtime", (spec.runtime,), self.values("runtime"))
        for name in spec.extras:
            offered = self.fleet.view.extras_offered.get(name)
            if offered is None or not offered[self.present].any():
                yield from _near("extra", (name,), self.extras())
        if spec.models and spec.resources.gpu_milli:
            yield from _near("accelerator", spec.models, self.values("accelerator"))
        for constraint in spec.constraints:
            if constraint.operator not in _PRESENT:
                yield from self._of(constraint)

    def _of(self, constraint: Constraint) -> Iterator[tuple[str, str, str]]:
        attribute, values = constraint.attribute, self.values(constraint.attribute)
        kind, _, name = attribute.partition(".")
        if not values and kind == "label":
            yield from _near("label", (name,), self.labels())
        elif not values and kind == "extra":
            yield from _near("extra", (name,), self.extras())
        elif values and constraint.operator in ("=", "in") and (name or attribute in ATTRIBUTES):
            wanted = items_of(constraint.value) if constraint.operator == "in" else [constraint.value]
            yield from _near(attribute, wanted, values)

    def values(self, attribute: str) -> list[str]:
        """Every value that a present device has of it."""
        return self.fleet.facts.values(attribute, self.present)

    def labels(self) -> list[str]:
        return sorted({name for record in self._records() for name in record.labels})

    def extras(self) -> list[str]:
        return sorted({name for record in self._records() for name in record.extras})

    def _records(self) -> list[DeviceRow]:
        records = self.fleet.records
        return [records[row] for row in np.flatnonzero(self.present)[:RECORDS_MAX].tolist()]


def _near(what: str, asked: Iterable[str], known: list[str]) -> Iterator[tuple[str, str, str]]:
    """The first of the names that is near one that exists, unless one of them does."""
    names = list(asked)
    if not any(name in known for name in names):
        for name in names:
            if near := closest(name, known):
                yield what, name, near
                return


def closest(name: str, known: list[str]) -> str:
    """The nearest of these, whatever its case; empty if none is near."""
    short = [k for k in known if k and len(k) <= CHARS_MAX] if len(name) <= CHARS_MAX else []
    likely = sorted(short, key=lambda k: (abs(len(k) - len(name)), k))[:NAMES_MAX]
    folded = {k.casefold(): k for k in reversed(likely)}
    near = get_close_matches(name.casefold(), sorted(folded), 1)
    return folded[near[0]] if near else ""
