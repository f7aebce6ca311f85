"""Phrases: what is said of devices and jobs in one text each, as plans and scenarios hold it.

Rule of this file: a phrase is read in one place, the same for a drawn plan and for a file that
somebody wrote; what can't be read raises `ValueError` with what was expected. Facts are
separated by blanks, conditions by semicolons. It draws nothing and knows no world.
Rejected: nested tables (a fault or an order is one line of a scenario, and stays one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from controller.core.condition_faults import check_constraint
from controller.core.records import Affinity, Constraint, Dependency, Spread
from controller.core.taints import check_taint, check_toleration
from protocol.messages import Accelerator

T = TypeVar("T")


def labels(text: str) -> dict[str, str]:
    """`zone=a tier=2`."""
    return dict(_pair(word) for word in text.split())


def amounts(text: str) -> dict[str, int]:
    """`camera=1 licence=3`."""
    return {name: _whole(value) for name, value in labels(text).items()}


def accelerators(text: str) -> tuple[Accelerator, ...]:
    """`gpu0:t4:1000 gpu1:t4:500`: name, model, thousandths."""
    return tuple(map(_accelerator, text.split()))


def names(text: str) -> tuple[str, ...]:
    """`t4 a2`."""
    return tuple(text.split())


def constraints(text: str) -> tuple[Constraint, ...]:
    """`label.zone = a; site exists; distinct_device`."""
    return tuple(_each(text, _constraint))


def affinities(text: str) -> tuple[Affinity, ...]:
    """`50 label.zone = a; -20 site exists`: a weight, then a condition."""
    return tuple(_each(text, _affinity))


def spreads(text: str) -> tuple[Spread, ...]:
    """`50 label.zone a:60 b:40; 30 site`: a weight, an attribute, shares in percent."""
    return tuple(_each(text, _spread))


def tolerations(text: str) -> tuple[str, ...]:
    """`role=camera:no_place night:evict`."""
    found = tuple(text.split())
    for problem in map(check_toleration, found):
        if problem:
            raise ValueError(problem)
    return found


def taint(text: str) -> str:
    """`role=camera:no_place`."""
    if problem := check_taint(text):
        raise ValueError(problem)
    return text


def dependencies(text: str) -> tuple[Dependency, ...]:
    """`j1:succeeded j2:ended`."""
    return tuple(map(_dependency, text.split()))


# ------------------------------------------------------------- one of them


def _each(text: str, read: Callable[[list[str]], T]) -> list[T]:
    return [read(part.split()) for part in text.split(";") if part.strip()]


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise ValueError(f"expected name=value, not {word!r}")
    return name, value


def _whole(text: str) -> int:
    if not text.removeprefix("-").isdecimal():
        raise ValueError(f"expected a whole number, not {text!r}")
    return int(text)


def _accelerator(word: str) -> Accelerator:
    name, _, rest = word.partition(":")
    model, _, milli = rest.partition(":")
    if not name or not 1 <= _whole(milli or "0") <= 1_000:
        raise ValueError(f"expected name:model:milli with 1…1000 milli, not {word!r}")
    return Accelerator(name, model, int(milli))


def _constraint(words: list[str]) -> Constraint:
    attribute, operator, value = (*words, "", "")[:3]
    if words == ["distinct_device"]:
        attribute, operator = "", words[0]
    problem = check_constraint(attribute, operator, value)
    if problem or len(words) > 3:
        raise ValueError(problem or f"expected attribute, operator and value, not {' '.join(words)!r}")
    return Constraint(attribute, operator, value)


def _affinity(words: list[str]) -> Affinity:
    wanted = _constraint(words[1:])
    return Affinity(wanted.attribute, wanted.operator, wanted.value, _whole(words[0]))


def _spread(words: list[str]) -> Spread:
    if len(words) < 2:
        raise ValueError(f"expected a weight and an attribute, not {' '.join(words)!r}")
    shares = [word.partition(":") for word in words[2:]]
    return Spread(words[1], _whole(words[0]), tuple((name, _whole(share)) for name, _, share in shares))


def _dependency(word: str) -> Dependency:
    job, _, until = word.partition(":")
    if not job or until not in ("succeeded", "ended"):
        raise ValueError(f"expected job:succeeded or job:ended, not {word!r}")
    return Dependency(job, until)
