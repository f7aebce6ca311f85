"""Near names: what a job asks for that no device has, and what was probably meant.

Rule of this file: a name that is unknown today may be right tomorrow, so nothing is
refused for it; a task that waits is told. Only what keeps devices out is looked at, and
only a demand that no device of the fleet meets; a suggestion is a name the fleet has.
It is sorted and bounded: the same fleet gives the same words, and a label that is
different on every device costs some 10 ms, however large the fleet is.
Rejected: refusing unknown names at the submit, when the device may only come later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import numpy as np

from controller.core.conditions import items_of
from controller.core.fleet import Fleet
from controller.core.records import Constraint, DeviceRow, TaskSpec
from controller.scheduler.view import Flags

NAMES_MAX = 100
"""Names that one is compared with from each end, where there are more: a slip of the finger leaves
most of the beginning or of the end as it was."""
CHARS_MAX = 64
"""A longer one is no slip of the finger."""
ROWS_MAX = 10_000
"""Devices that names are read of; whether any device has one is asked of all."""
TOLD_MAX = 3
_OF_NONE = ("not_exists", "!=", "not_in", "distinct_device")
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
        self.rows = np.flatnonzero(present)[:ROWS_MAX]

    def unknown(self, spec: TaskSpec) -> Iterator[tuple[str, str, str]]:
        """(what it is, the name asked for, the near one)."""
        if not self.some(Constraint("runtime", "=", spec.runtime)):
            yield from _near("runtime", [spec.runtime], self.values("runtime"))
        for name in spec.extras:
            offered = self.fleet.view.extras_offered.get(name)
            if offered is None or not offered[self.present].any():
                yield from _near("extra", [name], self.extras())
        if spec.models and spec.resources.gpu_milli:
            if not any(self.some(Constraint("accelerator", "=", model)) for model in spec.models):
                yield from _near("accelerator", spec.models, self.values("accelerator"))
        for constraint in spec.constraints:
            if constraint.operator not in _OF_NONE and not self.some(constraint):
                yield from self._of(constraint)

    def _of(self, constraint: Constraint) -> Iterator[tuple[str, str, str]]:
        """What is unknown of a constraint that no device meets: the attribute, else the value."""
        attribute = constraint.attribute
        kind, _, name = attribute.partition(".")
        values = self.values(attribute)
        if values or self.some(Constraint(attribute, "exists", "")):
            if constraint.operator in ("=", "in"):
                listed = constraint.operator == "in"
                wanted = items_of(constraint.value) if listed else [constraint.value]
                yield from _near(attribute, wanted, values)
        elif kind == "label":
            yield from _near("label", [name], self.labels())
        elif kind == "extra":
            yield from _near("extra", [name], self.extras())

    def some(self, constraint: Constraint) -> bool:
        """Whether a present device meets it."""
        flags = self.fleet.facts.flags(constraint.attribute, constraint.operator, constraint.value)
        return bool((flags & self.present).any())

    def values(self, attribute: str) -> list[str]:
        return self.fleet.facts.values(attribute, self.rows)

    def labels(self) -> list[str]:
        return sorted({name for record in self._records() for name in record.labels})

    def extras(self) -> list[str]:
        return sorted({name for record in self._records() for name in record.extras})

    def _records(self) -> list[DeviceRow]:
        return [self.fleet.records[row] for row in self.rows.tolist()]


def _near(what: str, asked: Iterable[str], known: list[str]) -> Iterator[tuple[str, str, str]]:
    """The first of the names that is near a known one."""
    for name in asked:
        if near := closest(name, known):
            yield what, name, near
            return


def closest(name: str, known: Iterable[str]) -> str:
    """The nearest of these, whatever its case; empty if none is near."""
    if len(name) > CHARS_MAX:
        return ""
    folded = {k.casefold(): k for k in sorted(known, reverse=True) if k and len(k) <= CHARS_MAX}
    word, names = name.casefold(), sorted(folded)
    if len(names) > 2 * NAMES_MAX:
        ends = _around(word[::-1], sorted(k[::-1] for k in names))
        names = sorted({*_around(word, names), *(k[::-1] for k in ends)})
    near = get_close_matches(word, names, 1)
    return folded[near[0]] if near else ""


def _around(word: str, names: list[str]) -> list[str]:
    """Those beside which it would be sorted: they begin as it does."""
    at = bisect_left(names, word)
    return names[max(0, at - NAMES_MAX // 2) : at + NAMES_MAX // 2]
