"""What a job demands and wishes, as people write it: constraints, preferences, spreads, marks.

Rule: here only the form is read; which attributes, operators and names exist is the
controller's to say, so a newer controller's are not refused by an older `fm`.
It knows no option names and sends nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fleetmuster.exits import CommandError, usage

_ATTRIBUTE = r"\s*([A-Za-z0-9_][A-Za-z0-9_.:/-]*)"
_CONDITIONS = tuple(
    re.compile(_ATTRIBUTE + more)
    for more in (
        r"\s*(!=|>=|<=|==|=|>|<)\s*(.*)",
        r"\s+(in|not_in|regex|semver)\s+(.+)",
        r"\s+(exists|not_exists)\s*()",
        r"\s+(distinct)\s*(\d*)\s*",
    )
)
_ONE_DEVICE = re.compile(r"\s*()(distinct_device)\s*(\d*)\s*")
_WEIGHT = re.compile(r"(.*\S)\s*:\s*([+-]?\d{1,9})\s*", re.DOTALL)
_SPREAD = re.compile(r"\s*([A-Za-z0-9_][A-Za-z0-9_./-]*)(?::(\d{1,9}))?(?:\s+(\S.*))?", re.DOTALL)


class Preference(NamedTuple):
    """A wish; `weight` is `None` where none was said."""

    attribute: str
    operator: str
    value: str
    weight: int | None


class SpreadWish(NamedTuple):
    """`targets`: percent by value."""

    attribute: str
    weight: int | None
    targets: dict[str, int]


def parse_env(text: str) -> tuple[str, str]:
    """`K=V` to a pair. Raises `CommandError`."""
    name, equals, value = text.partition("=")
    if not equals or not name or "\0" in value:
        raise usage(f"{text!r} is no environment variable", "write NAME=VALUE")
    return name, value


def parse_constraint(text: str) -> tuple[str, str, str]:
    """`label.zone=a`, `site in a,b`, `label.gpu exists`, `distinct_device` to (attribute, operator, value).

    Raises `CommandError`.
    """
    matches = (form.fullmatch(text) for form in (*_CONDITIONS, _ONE_DEVICE))
    match = next((m for m in matches if m is not None), None)
    if match is None:
        raise usage(
            f"{text!r} is no constraint",
            "write 'label.zone=a'; also != < <= > >=, 'site in a,b', 'label.x exists', "
            "'version semver >=1.2', 'label.x regex ^a', 'label.rack distinct', distinct_device",
        )
    operator = "=" if match[2] == "==" else match[2]
    return match[1], operator, match[3].strip()


def parse_preference(text: str) -> Preference:
    """`label.zone=a:50`: a constraint and a weight; without one, the controller's. Raises `CommandError`."""
    match = _WEIGHT.fullmatch(text)
    condition, weight = (match[1], int(match[2])) if match else (text, None)
    try:
        return Preference(*parse_constraint(condition), weight)
    except CommandError as error:
        raise usage(
            f"{text!r} is no preference", "write 'label.zone=a:50', or 'label.zone=a:-50' to avoid"
        ) from error


def parse_spread(text: str) -> SpreadWish:
    """`label.zone`, `label.zone:80`, `label.zone a=70,b=30`. Raises `CommandError`."""
    match = _SPREAD.fullmatch(text)
    targets = _targets(match[3] or "") if match else None
    if match is None or targets is None:
        raise usage(f"{text!r} is no spread", "write label.zone, label.zone:80 or 'label.zone a=70,b=30'")
    return SpreadWish(match[1], int(match[2]) if match[2] else None, targets)


def _targets(text: str) -> dict[str, int] | None:
    """`a=70,b=30%` as percent by value; `None` if it is no such thing, or names a value twice."""
    targets: dict[str, int] = {}
    for part in text.split(",") if text else ():
        value, _, percent = part.rpartition("=")
        value, digits = value.strip(), percent.strip().removesuffix("%")
        if not value or value in targets or re.fullmatch(r"\d{1,9}", digits, re.ASCII) is None:
            return None
        targets[value] = int(digits)
    return targets


def parse_need(text: str) -> tuple[str, int]:
    """`camera=1` or `camera` to (name, amount). Raises `CommandError`."""
    name, equals, amount = text.partition("=")
    said = amount.strip() if equals else "1"
    if not name.strip() or re.fullmatch(r"\d{1,15}", said, re.ASCII) is None:
        raise usage(f"{text!r} is no amount of a site's own resource", "write camera=1")
    return name.strip(), int(said)


def parse_dependency(text: str) -> tuple[str, str]:
    """`JOB`, `JOB:succeeded` or `JOB:ended` to (job, until). Raises `CommandError`."""
    job, colon, until = text.strip().partition(":")
    if not job or (colon and until not in ("succeeded", "ended")):
        raise usage(f"{text!r} is no job to wait for", "write JOB, or JOB:ended if it may fail")
    return job, until or "succeeded"
