"""Selectors: which devices are meant, as `label.zone=a,profile!=pi-zero-2w,label.gpu,!label.old`.

Rule: terms are joined by commas and all must hold; attributes are those of constraints,
so the words of a job's constraints and of a list's selector are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from controller.api.bodies import LABEL_PREFIX, known_attribute
from controller.api.problems import HttpProblem
from controller.core.views import DeviceView

TERMS_MAX = 16
_TERM = re.compile(r"(?P<no>!?)(?P<attribute>[^!=]+)(?:(?P<operator>!=|==?)(?P<value>[^=!]*))?")


class _Term(NamedTuple):
    values: Callable[[DeviceView], tuple[str, ...]]
    wanted: str | None
    """None asks whether there is any value."""
    negated: bool

    def holds(self, device: DeviceView) -> bool:
        values = self.values(device)
        found = self.wanted in values if self.wanted is not None else bool(values)
        return found is not self.negated


class Selector(NamedTuple):
    """A parsed selector; without terms it matches every device."""

    terms: tuple[_Term, ...]

    def matches(self, device: DeviceView) -> bool:
        return all(term.holds(device) for term in self.terms)


def parse_selector(text: str) -> Selector:
    """Raises `HttpProblem` (invalid_parameter) naming the term that can't be read."""
    if not text:
        return Selector(())
    terms = text.split(",")
    if len(terms) > TERMS_MAX:
        raise _wrong(f"more than {TERMS_MAX} terms")
    return Selector(tuple(_term(term.strip()) for term in terms))


def _term(text: str) -> _Term:
    match = _TERM.fullmatch(text)
    if match is None or (match["no"] and match["operator"]):
        raise _wrong(f"{text[:60]!r} is not ATTRIBUTE=VALUE, ATTRIBUTE!=VALUE, ATTRIBUTE or !ATTRIBUTE")
    try:
        attribute = known_attribute(match["attribute"].strip())
    except PydanticCustomError as error:
        raise _wrong(f"{text[:60]!r}: {error.message()}") from None
    value = match["value"].strip() if match["operator"] else None
    return _Term(_reader(attribute), value, bool(match["no"]) or match["operator"] == "!=")


def _reader(attribute: str) -> Callable[[DeviceView], tuple[str, ...]]:
    """How to read the attribute's values of a device; none when it has no such thing."""
    if attribute == "site":
        attribute = LABEL_PREFIX + "site"
    if attribute.startswith(LABEL_PREFIX):
        label = attribute.removeprefix(LABEL_PREFIX)
        return lambda device: (device.labels[label],) if label in device.labels else ()
    return _READERS[attribute]


_READERS: dict[str, Callable[[DeviceView], tuple[str, ...]]] = {
    "device": lambda device: (device.id,),
    "profile": lambda device: (device.profile,) if device.profile else (),
    "runtime": lambda device: device.runtimes,
    "version": lambda device: (device.version,) if device.version else (),
    "containment": lambda device: (device.containment,) if device.containment else (),
}


def _wrong(detail: str) -> HttpProblem:
    return HttpProblem("invalid_parameter", detail, parameter="selector")
