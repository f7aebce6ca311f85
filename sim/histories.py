"""Histories: observations as JSON lines, and the checkers over a recorded one.

Rule of this file: one object a line, `{"at_ms": …, "saw": "RunBegan", …}`, fields by their
names; a row is an object with its table under `row`. Enums are written as their values, bytes
as base64. A field that equals its default may be left out; what is unknown, missing or of
another type is an error with its file and line and what was expected, never a guess.
It opens no file: whoever has one brings its text.
"""

from __future__ import annotations

import json
import types
import typing
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from controller.core.records import (
    AttemptRow,
    AuditRow,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    LeaderRow,
    OutputRow,
    Row,
    TaskRow,
)
from sim.checkers import Checkers
from sim.observations import Observation

KINDS: dict[str, type[Observation]] = {kind.__name__: kind for kind in Observation.__subclasses__()}
ROWS: dict[str, type[Any]] = {
    "job": JobRow,
    "task": TaskRow,
    "attempt": AttemptRow,
    "device": DeviceRow,
    "document": DocumentRow,
    "audit": AuditRow,
    "output": OutputRow,
    "fleet": FleetRow,
    "leader": LeaderRow,
}
_ROW_NAMES = {kind: name for name, kind in ROWS.items()}
KIND, ROW = "saw", "row"


class HistoryError(Exception):
    """A history that can't be read: `file:line: what was expected`."""


# ------------------------------------------------------------------------ writing


def write_line(observation: Observation) -> str:
    """One line without its end."""
    told = {"at_ms": observation.at_ms, KIND: type(observation).__name__}
    told |= {f.name: _plain(getattr(observation, f.name)) for f in fields(observation)}
    return json.dumps(told, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if is_dataclass(value):
        told = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        name = _ROW_NAMES.get(type(value))
        return {ROW: name, **told} if name else told
    return value


# ------------------------------------------------------------------------ reading


def read_history(text: str, file: str) -> list[Observation]:
    """All observations in order. `file` names it in errors. Raises `HistoryError`."""
    found: list[Observation] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            observation = _read_line(line)
            if found and observation.at_ms < found[-1].at_ms:
                raise _Unlike(f"at_ms of at least {found[-1].at_ms}, for histories go forward")
        except _Unlike as unlike:
            raise HistoryError(f"{file}:{number}: expected {unlike}") from None
        found.append(observation)
    return found


class _Unlike(Exception):
    """Says what was expected."""


def _read_line(line: str) -> Observation:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise _Unlike("a JSON object") from None
    if not isinstance(told, dict):
        raise _Unlike("a JSON object")
    kind = KINDS.get(str(told.pop(KIND, "")))
    if kind is None:
        raise _Unlike(f'"{KIND}" to be one of {", ".join(sorted(KINDS))}')
    found: Observation = _build(kind, told, kind.__name__)
    return found


def _build(kind: type[Any], told: dict[str, Any], where: str) -> Any:
    wanted = _fields_of(kind)
    unknown = [name for name in told if name not in wanted]
    if unknown:
        raise _Unlike(f"{where} without {unknown[0]!r}; it has {', '.join(wanted)}")
    values = {}
    for name, (annotation, required) in wanted.items():
        if name in told:
            values[name] = _value(annotation, told[name], f"{where}.{name}")
        elif required:
            raise _Unlike(f"{where} with {name!r}")
    return kind(**values)


_FIELDS: dict[type[Any], dict[str, tuple[Any, bool]]] = {}


def _fields_of(kind: type[Any]) -> dict[str, tuple[Any, bool]]:
    """Field -> (its type, whether it must be told); read from the class once."""
    known = _FIELDS.get(kind)
    if known is None:
        hints = typing.get_type_hints(kind)
        needed = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
        known = _FIELDS[kind] = {name: (hints[name], needed[name]) for name in needed}
    return known


def _value(wanted: Any, told: Any, where: str) -> Any:
    """`told` as a value of this type, or `_Unlike`."""
    origin = typing.get_origin(wanted)
    if origin is types.UnionType:
        return _union(wanted, told, where)
    if origin is tuple:
        return _tuple(typing.get_args(wanted), told, where)
    if origin is dict:
        return _map(typing.get_args(wanted)[1], told, where)
    if wanted is bytes:
        return _bytes(told, where)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return _choice(wanted, told, where)
    if is_dataclass(wanted):
        if not isinstance(told, dict):
            raise _Unlike(f"{where} to be an object")
        return _build(wanted, told, where)  # type: ignore[arg-type]
    if isinstance(wanted, type) and issubclass(wanted, tuple):
        return _named_tuple(wanted, told, where)
    if type(told) is not wanted:
        raise _Unlike(f"{where} to be {_WORDS.get(wanted, wanted)}")
    return told


_WORDS = {int: "a whole number", str: "text", bool: "true or false"}
_ROW_UNION = typing.get_args(Row)


def _union(wanted: Any, told: Any, where: str) -> Any:
    members = typing.get_args(wanted)
    if members == _ROW_UNION:
        return _row(told, where)
    if told is None and types.NoneType in members:
        return None
    return _value(members[0], told, where)


def _row(told: Any, where: str) -> Any:
    kind = ROWS.get(str(told.get(ROW))) if isinstance(told, dict) else None
    if kind is None:
        raise _Unlike(f'{where} to be objects with "{ROW}" of {", ".join(ROWS)}')
    return _build(kind, {name: value for name, value in told.items() if name != ROW}, str(told[ROW]))


def _tuple(members: tuple[Any, ...], told: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(told, list):
        raise _Unlike(f"{where} to be a list")
    if members[-1] is not Ellipsis:
        if len(told) != len(members):
            raise _Unlike(f"{where} to be lists of {len(members)}")
        return tuple(_value(member, item, where) for member, item in zip(members, told, strict=True))
    return tuple(_value(members[0], item, where) for item in told)


def _map(wanted: type[Any], told: Any, where: str) -> dict[str, Any]:
    if not isinstance(told, dict) or not all(type(value) is wanted for value in told.values()):
        raise _Unlike(f"{where} to be an object of {'texts' if wanted is str else 'whole numbers'}")
    return dict(told)


def _bytes(told: Any, where: str) -> bytes:
    try:
        return b64decode(told, validate=True)
    except (BadBase64, TypeError, ValueError):
        raise _Unlike(f"{where} to be base64") from None


def _choice(wanted: type[Enum], told: Any, where: str) -> Enum:
    try:
        return wanted(told)
    except ValueError:
        raise _Unlike(f"{where} to be one of {', '.join(str(m.value) for m in wanted)}") from None


def _named_tuple(wanted: Any, told: Any, where: str) -> Any:
    if not isinstance(told, list) or len(told) != len(wanted._fields) or not _whole(told):
        raise _Unlike(f"{where} to be {len(wanted._fields)} whole numbers: {', '.join(wanted._fields)}")
    return wanted(*told)


def _whole(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


# ------------------------------------------------------------------------ judging


@dataclass(slots=True)
class HistoryClock:
    """The moment of the observation at hand; nothing is traced."""

    now_ms: int = 0

    def trace(self, who: str, what: str, payload: bytes = b"") -> None: ...


def check_history(history: Iterable[Observation]) -> Checkers:
    """The checkers of the simulation, over what was recorded; `breaches` says what they found."""
    clock = HistoryClock()
    checkers = Checkers(clock)
    for observation in history:
        clock.now_ms = observation.at_ms
        checkers.saw(observation)
    checkers.finish()
    return checkers
