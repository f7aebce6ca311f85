"""Condition faults: what is wrong with a condition, a wish or a spread, and what was meant.

Rule of this file: whatever passes here can be evaluated without an error, at a bounded
cost; whatever does not is refused when the job is submitted, with the field that is wrong
and a suggestion. It judges text only: a label that no device has is no fault.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from controller.core.conditions import (
    ATTRIBUTES,
    GROUP_OPERATORS,
    LISTS,
    OPERATORS,
    ORDER,
    PREFIXES,
    PRESENCE,
    items_of,
    number_of,
)
from controller.core.pattern_text import PatternFault
from controller.core.patterns import pattern
from controller.core.semver import VersionFault, versions
from protocol.resources import NAMES

WEIGHT_MAX = 100
TARGETS_MAX = 64
DISTINCT_MAX = 1_000_000
ITEMS_MAX = 64

_ATTRIBUTE_MAX = 128
SEVERAL = ("runtime", "accelerator")
"""Attributes of which a device may have several values."""
_NUMERIC = ("heartbeat_ms", "core_speed_milli")
_VERSIONED = ("version", "label.")
_OTHER_WORDS = {
    "==": "=", "eq": "=", "is": "=", "<>": "!=", "ne": "!=", "is_not": "!=",
    "=~": "regex", "~": "regex", "~=": "regex", "matches": "regex", "regexp": "regex", "re": "regex",
    "is_set": "exists", "is_not_set": "not_exists", "doesnotexist": "not_exists", "absent": "not_exists",
    "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "notin": "not_in", "one_of": "in",
    "distinct_hosts": "distinct_device", "distinct_property": "distinct", "~>": "semver", "^": "semver",
}  # fmt: skip
"""What the same is called elsewhere."""

Fault = tuple[str, str]
"""The field that is wrong (`attribute`, `operator`, `value`, …), and why, with what to do."""


def check_constraint(attribute: str, operator: str, value: str) -> str:
    """What is wrong with a constraint and what would be right, in a sentence; empty when it is fine."""
    fault = fault_of(attribute, operator, value)
    return f"{fault[0]}: {fault[1]}" if fault else ""


def fault_of(attribute: str, operator: str, value: str) -> Fault | None:
    """The first fault of a constraint, by field."""
    if operator in GROUP_OPERATORS:
        return _group_fault(attribute, operator, value)
    return condition_fault(attribute, operator, value)


def condition_fault(attribute: str, operator: str, value: str) -> Fault | None:
    """The first fault of a question to one device."""
    if why := _attribute_fault(attribute):
        return "attribute", why
    if operator not in OPERATORS:
        return "operator", _operator_fault(operator)
    if operator in PRESENCE:
        return ("value", f"operator '{operator}' takes no value") if value else None
    if operator in LISTS:
        return _list_fault(operator, value)
    if operator in ORDER:
        return _order_fault(attribute, operator, value)
    if operator == "regex":
        return _regex_fault(value)
    if operator == "semver":
        return _semver_fault(attribute, value)
    if not value and not attribute.startswith("label."):
        return "value", f"no device has an empty {attribute}; did you mean 'not_exists'?"
    return None


def affinity_fault(attribute: str, operator: str, value: str, weight: int) -> Fault | None:
    """The first fault of an affinity."""
    if operator in GROUP_OPERATORS:
        return "operator", f"'{operator}' is a constraint; a wish for evenness is a spread"
    if fault := condition_fault(attribute, operator, value):
        return fault
    if not -WEIGHT_MAX <= weight <= WEIGHT_MAX or not weight:
        return "weight", f"a weight is -{WEIGHT_MAX} to {WEIGHT_MAX} and not 0; negative avoids"
    return None


def spread_fault(attribute: str, weight: int, targets: Iterable[tuple[str, int]]) -> Fault | None:
    """The first fault of a spread. Percents may leave something for all other values."""
    if fault := _single_fault(attribute, "spread"):
        return fault
    if not 1 <= weight <= WEIGHT_MAX:
        return "weight", f"a spread's weight is 1 to {WEIGHT_MAX}"
    said = list(targets)
    names = [name for name, _ in said]
    if len(said) > TARGETS_MAX:
        return "targets", f"at most {TARGETS_MAX} targets; this has {len(said)}"
    for name in names:
        if not name or names.count(name) > 1:
            return "targets", f"'{name}' is named twice" if name else "a target needs a value"
    if any(not 0 <= percent <= 100 for _, percent in said):
        return "targets", "a percent is 0 to 100"
    total = sum(percent for _, percent in said)
    if total > 100:
        return "targets", f"the percents add up to {total}; 100 is all"
    if said and not total:
        return "targets", "nothing is left to place: give a target more than 0 percent, or none at all"
    return None


def _attribute_fault(attribute: str) -> str:
    kind, dot, name = attribute.partition(".")
    if attribute in ATTRIBUTES:
        return ""
    if len(attribute) > _ATTRIBUTE_MAX:
        return f"longer than {_ATTRIBUTE_MAX} characters"
    if kind + dot in PREFIXES and name:
        if kind != "capacity" or name in NAMES:
            return ""
        return f"'{name}' is no resource; {_meant(name, NAMES, 'capacity.', NAMES)}"
    return f"'{attribute[:60]}' is not an attribute of devices; {_attribute_meant(attribute)}"


def _attribute_meant(attribute: str) -> str:
    kind, dot, name = attribute.partition(".")
    if dot and name and (near := difflib.get_close_matches(kind + dot, PREFIXES, 1, 0.7)):
        return f"did you mean '{near[0]}{name[:60]}'?"
    if attribute in NAMES:
        return f"did you mean 'capacity.{attribute}'?"
    near = difflib.get_close_matches(attribute, ATTRIBUTES, 1, 0.7)
    if not near and (resource := difflib.get_close_matches(attribute, NAMES, 1, 0.7)):
        near = [f"capacity.{resource[0]}"]
    if not near and attribute and not dot:
        near = [f"label.{attribute[:60]}"]
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"{meant}There are {', '.join(ATTRIBUTES)}, and names behind {', '.join(PREFIXES)}"


def _meant(word: str, among: Iterable[str], prefix: str, all_of: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(among), 1, 0.5)
    return f"did you mean '{prefix}{near[0]}'?" if near else f"there are {', '.join(all_of)}"


def _operator_fault(operator: str) -> str:
    every = (*OPERATORS, *GROUP_OPERATORS)
    word = operator.strip().lower().replace(" ", "_").replace("-", "_")
    same = _OTHER_WORDS.get(word, word if word in every else "")
    meant = f"did you mean '{same}'?" if same else _meant(word, every, "", every)
    return f"'{operator[:30]}' is not an operator; {meant}"


def _list_fault(operator: str, value: str) -> Fault | None:
    items = items_of(value)
    if not all(items):
        return "value", f"operator '{operator}' needs values with commas between them: a,b,c"
    if len(items) > ITEMS_MAX:
        return "value", f"at most {ITEMS_MAX} values; this has {len(items)}"
    return None


def _order_fault(attribute: str, operator: str, value: str) -> Fault | None:
    if attribute == "version":
        return "operator", f"a version is no number; use 'semver' with the value '{operator} {value[:40]}'"
    if attribute not in _NUMERIC and not attribute.startswith(PREFIXES):
        return "operator", f"only numbers have an order: {attribute} is text; use '=', 'in' or 'regex'"
    if number_of(value) is None:
        hint = ""
        if attribute.startswith("label.") and value[:1].isdigit() and value.count(".") > 1:
            hint = f"; for versions use 'semver' with the value '{operator} {value[:40]}'"
        return "value", f"operator '{operator}' needs a number like 4 or -0.5{hint}"
    return None


def _regex_fault(value: str) -> Fault | None:
    if not value:
        return "value", "an empty pattern is found everywhere; did you mean 'exists'?"
    try:
        pattern(value)
    except PatternFault as fault:
        return "value", f"the pattern can't be used: {fault}"
    return None


def _semver_fault(attribute: str, value: str) -> Fault | None:
    if not attribute.startswith(_VERSIONED):
        return "operator", f"{attribute} is no version; 'semver' goes with version and labels"
    try:
        versions(value)
    except VersionFault as fault:
        return "value", str(fault)
    return None


def _group_fault(attribute: str, operator: str, value: str) -> Fault | None:
    if operator == "distinct_device":
        if attribute:
            return "attribute", "'distinct_device' takes no attribute; for one per value use 'distinct'"
    elif fault := _single_fault(attribute, operator):
        return fault
    if value and not (
        value.isascii() and value.isdigit() and len(value) <= 7 and 1 <= int(value) <= DISTINCT_MAX
    ):
        what = "device" if operator == "distinct_device" else "value"
        return "value", f"how many tasks per {what}: a whole number from 1, or nothing for 1"
    return None


def _single_fault(attribute: str, what: str) -> Fault | None:
    """Tasks are counted per value: a device with several would count in each."""
    if not attribute:
        return "attribute", f"'{what}' needs an attribute, as label.zone"
    if why := _attribute_fault(attribute):
        return "attribute", why
    if attribute in SEVERAL:
        return (
            "attribute",
            f"a device may have several values of {attribute}; '{what}' needs one, as label.zone",
        )
    return None
