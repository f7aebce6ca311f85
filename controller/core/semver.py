"""Versions: ordered as semver.org 2.0.0 clause 11 says, and sets of conditions on them.

A version is `major.minor.patch`, then `-prerelease`, then `+build`; the build is ignored.
What devices say is read kindly: a leading `v` is dropped, missing parts are 0. Leading
zeros are not a version ("22.04" is a number: compare it with `>=`).
A condition set is `>= 1.4, < 2.0`: all must hold. `~> 1.4` is 1.4 and later below 2,
`~> 1.4.2` below 1.5; `^1.4.2` is below 2, `^0.3.1` below 0.4. Order alone decides, so
`2.0.0-rc.1` satisfies `< 2.0.0`; the upper ends of `~>` and `^` do exclude it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import NamedTuple

_NUMBER = r"(0|[1-9][0-9]{0,17})"
_NAME = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?"
    rf"(?:-({_NAME}(?:\.{_NAME})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_CLAUSE = re.compile(r"\s*(~>|>=|<=|!=|==|=|>|<|\^|~|)\s*(\S+)\s*")
_COMPARE = {"=": eq, "!=": ne, ">": gt, ">=": ge, "<": lt, "<=": le}
CLAUSES_MAX = 16

Names = tuple[tuple[int, int, str], ...]


class VersionFault(ValueError):
    """No set of version conditions; the message says why."""


class Version(NamedTuple):
    """Compares as precedence does: a release is above its pre-releases, numbers are below words."""

    major: int
    minor: int
    patch: int
    released: bool
    names: Names = ()


LOWEST: Names = ((0, 0, ""),)
"""Of a pre-release that nobody can write: below `-0`, the lowest that one can."""


def version(text: str) -> Version | None:
    """The version that a text says; None when it says none."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    major, minor, patch, names = found.groups()
    return Version(int(major), int(minor or 0), int(patch or 0), names is None, _names(names or ""))


def _names(text: str) -> Names:
    parts = text.split(".") if text else []
    # A number of any length is compared as digits: by their count first.
    return tuple((0, len(p), p) if p.isdigit() else (1, 0, p) for p in parts)


class Versions:
    """A set of conditions that a version satisfies or not."""

    def __init__(self, text: str) -> None:
        parts = text.split(",")
        if len(parts) > CLAUSES_MAX:
            raise VersionFault(f"has more than {CLAUSES_MAX} conditions")
        self.clauses = [clause for part in parts for clause in _clause(part)]

    def hold(self, text: str) -> bool:
        """Whether the text is a version that satisfies all."""
        found = version(text)
        return found is not None and all(_COMPARE[op](found, bound) for op, bound in self.clauses)


@lru_cache(maxsize=256)
def versions(text: str) -> Versions:
    """Reads a set of conditions; raises `VersionFault`."""
    return Versions(text)


def _clause(part: str) -> list[tuple[str, Version]]:
    found = _CLAUSE.fullmatch(part)
    if found is None:
        raise VersionFault(f"'{part.strip()}' is no condition on a version; write it like '>= 1.4, < 2.0'")
    operator, text = found.groups()
    bound = version(text)
    if bound is None:
        raise VersionFault(f"'{text}' is no version; write it like 1.4 or 1.4.2-rc.1, without leading zeros")
    if operator == "~":
        raise VersionFault(f"'~' is not known; write '~> {text}' or '^{text}'")
    if operator not in ("~>", "^"):
        return [("=" if operator in ("", "==") else operator, bound)]
    said = len(text.removeprefix("v").split("+", 1)[0].split("-", 1)[0].split("."))
    parts = [bound.major, bound.minor, bound.patch][:said]
    fixed = max(said - 1, 1) if operator == "~>" else _caret(parts)
    return [(">=", bound), ("<", _next(parts[:fixed]))]


def _caret(parts: list[int]) -> int:
    """How many leading parts stay: up to the first that is not zero."""
    return next((at for at, part in enumerate(parts, 1) if part), len(parts))


def _next(parts: list[int]) -> Version:
    """Below the lowest release, and its pre-releases, whose leading parts are above these."""
    major, minor, patch = [*parts[:-1], parts[-1] + 1, 0, 0][:3]
    return Version(major, minor, patch, False, LOWEST)
