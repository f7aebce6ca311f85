"""Selectors: which devices are meant, as `label.zone=a,profile!=pi-zero-2w,label.gpu,!label.old`.

Rule: terms are joined by commas and all must hold; attributes are those of constraints,
so the words of a job's constraints and of a list's selector are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from controller.api.problems import HttpProblem
from controller.core.condition_faults import condition_fault
from controller.core.views import DeviceView
from protocol.resources import NAMES

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
    attribute = match["attribute"].strip()
    if fault := condition_fault(attribute, "exists", ""):
        raise _wrong(f"{text[:60]!r}: {fault[1]}")
    value = match["value"].strip() if match["operator"] else None
    return _Term(_reader(attribute), value, bool(match["no"]) or match["operator"] == "!=")


def _reader(attribute: str) -> Callable[[DeviceView], tuple[str, ...]]:
    """How to read the attribute's values of a device; none when it has no such thing."""
    if attribute == "site":
        attribute = "label.site"
    kind, dot, name = attribute.partition(".")
    if not dot:
        return _READERS[attribute]
    if kind == "label":
        return lambda device: (device.labels[name],) if name in device.labels else ()
    if kind == "extra":
        return lambda device: (str(device.extras[name]),) if name in device.extras else ()
    place = NAMES.index(name)
    return lambda device: (str(device.capacity[place]),)


_READERS: dict[str, Callable[[DeviceView], tuple[str, ...]]] = {
    "device": lambda device: (device.id,),
    "profile": lambda device: (device.profile,) if device.profile else (),
    "runtime": lambda device: device.runtimes,
    "version": lambda device: (device.version,) if device.version else (),
    "containment": lambda device: (device.containment,) if device.containment else (),
    "limits": lambda device: (device.limits,) if device.limits else (),
    "accelerator": lambda device: tuple(model for _, model, _ in device.accelerators),
    "heartbeat_ms": lambda device: (str(device.heartbeat_ms),),
    "core_speed_milli": lambda device: (str(device.core_speed_milli),),
}


def _wrong(detail: str) -> HttpProblem:
    return HttpProblem("invalid_parameter", detail, parameter="selector")
