"""Conditions: `attribute operator value`, and what they mean.

Rule of this file: it is the only place that knows which attributes and operators exist.
A condition is a question to the values that one device has of an attribute: none, one,
or several (`runtime`, `accelerator`). It knows no other device: `distinct` and
`distinct_device` are demands on a group of tasks, counted elsewhere.

`=`, `in` and their opposites compare text, exactly; `!=` and `not_in` hold where the
attribute is absent. `< <= > >=` compare numbers, and are false where either side is
none. `regex` searches (see `patterns`), `semver` compares versions (see `semver`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import ge, gt, le, lt

import numpy as np
import numpy.typing as npt

from controller.core.patterns import pattern
from controller.core.records import Constraint, DeviceRow
from controller.core.semver import versions
from protocol.resources import NAMES

ATTRIBUTES = (
    *("device", "profile", "runtime", "site", "version", "containment", "limits"),
    *("accelerator", "heartbeat_ms", "core_speed_milli"),
)
"""What a condition may look at, beside those that begin with one of `PREFIXES`."""
PREFIXES = ("label.", "extra.", "capacity.")
"""A label's value, the amount of a site-defined resource, and of a common one: `capacity.memory_mib`."""
ORDER = ("<", "<=", ">", ">=")
LISTS = ("in", "not_in")
PRESENCE = ("exists", "not_exists")
OPERATORS = ("=", "!=", *LISTS, *PRESENCE, *ORDER, "regex", "semver")
"""What may be asked of one device."""
GROUP_OPERATORS = ("distinct_device", "distinct")
"""What may be asked of all tasks of a job together."""
_NUMBER = re.compile(r"-?[0-9]{1,256}(\.[0-9]{1,256})?")

Values = tuple[str, ...]
Test = Callable[[Values], bool]


def values_of(record: DeviceRow, attribute: str) -> Values:
    """The device's values of an attribute; none when it does not have it."""
    kind, _, name = attribute.partition(".")
    if name:
        return _named_values(record, kind, name)
    if attribute == "runtime":
        return record.runtimes
    if attribute == "accelerator":
        return tuple(model for _, model, _ in record.accelerators)
    if attribute == "site":
        return _unless_empty(record.labels.get("site", ""))
    return _unless_empty(_PLAIN[attribute](record))


def _named_values(record: DeviceRow, kind: str, name: str) -> Values:
    if kind == "label":
        return (record.labels[name],) if name in record.labels else ()
    if kind == "extra":
        return (str(record.extras[name]),) if name in record.extras else ()
    return (str(record.capacity[NAMES.index(name)]),)


def _unless_empty(value: str) -> Values:
    return (value,) if value else ()


_PLAIN: dict[str, Callable[[DeviceRow], str]] = {
    "device": lambda r: r.device,
    "profile": lambda r: r.profile,
    "version": lambda r: r.version,
    "containment": lambda r: r.containment,
    "limits": lambda r: r.limits,
    "heartbeat_ms": lambda r: str(r.heartbeat_ms),
    "core_speed_milli": lambda r: str(r.core_speed_milli),
}


def of_group(constraint: Constraint) -> bool:
    """Whether it is a demand on all tasks of the job together."""
    return constraint.operator in GROUP_OPERATORS


def values_test(operator: str, value: str) -> Test:
    """The condition as a question to a device's values. Raises where `check_constraint` finds a fault."""
    if operator in ("=", "in"):
        wanted = _wanted(operator, value)
        return lambda values: any(v in wanted for v in values)
    if operator in ("!=", "not_in"):
        unwanted = _wanted(operator, value)
        return lambda values: all(v not in unwanted for v in values)
    if operator in ("exists", "distinct"):
        return bool
    if operator == "not_exists":
        return lambda values: not values
    if operator == "distinct_device":
        return lambda values: True
    one = _one_test(operator, value)
    return lambda values: any(map(one, values))


def flags_of(operator: str, value: str, several: Sequence[Values]) -> npt.NDArray[np.bool_]:
    """`values_test` of many devices' values at once."""
    if operator != "regex":
        return np.fromiter(map(values_test(operator, value), several), np.bool_, len(several))
    found = pattern(value).search_all([v for values in several for v in values])
    owners = np.repeat(np.arange(len(several)), [len(values) for values in several])
    return np.bincount(owners[found], minlength=len(several)) > 0


def _one_test(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "regex":
        return pattern(value).search
    if operator == "semver":
        return versions(value).hold
    holds, bound = _ORDER_TESTS[operator], number_of(value)
    if bound is None:
        return lambda v: False
    return lambda v: (found := number_of(v)) is not None and holds(found, bound)


_ORDER_TESTS: dict[str, Callable[[Decimal, Decimal], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def _wanted(operator: str, value: str) -> frozenset[str]:
    return frozenset(items_of(value)) if operator in LISTS else frozenset((value,))


def items_of(value: str) -> list[str]:
    return [item.strip() for item in value.split(",")]


def number_of(text: str) -> Decimal | None:
    """Digits with an optional sign and fraction, exactly; no exponents, no `nan`."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def test_of(constraint: Constraint) -> Callable[[DeviceRow], bool]:
    """The constraint as a question to one device; a group's `distinct` asks for the attribute."""
    attribute, test = constraint.attribute, values_test(constraint.operator, constraint.value)
    if constraint.operator == "distinct_device":
        return lambda record: True
    return lambda record: test(values_of(record, attribute))


def compare(left: str, operator: str, right: str) -> bool:
    """Numbers by size; where either is no number, nothing is smaller or larger."""
    return _one_test(operator, right)(left)


def most_per_value(constraint: Constraint) -> int:
    """How many tasks a group's constraint lets stand on one device, or on devices of one value."""
    return int(constraint.value) if constraint.value else 1
