"""Kinds of message fields: how one value is checked, written and read.

Rule of this file: a kind never trusts what it reads and never raises anything but
`RemoteGarbage`. Each kind states its bounds, so every message is bounded by its table.
Rejected: a schema library (the agent's base install stays three packages, and these
kinds decode a heartbeat in a few microseconds).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from enum import Enum
from typing import Any, Protocol, cast

from protocol.errors import GarbageReason, RemoteGarbage
from protocol.limits import INT_MAX


class Kind(Protocol):
    """One kind of value. `read` checks and converts what a decoder gave; `write` is its inverse."""

    def read(self, value: object) -> Any: ...

    def write(self, value: Any, named: bool) -> object: ...


def _wrong(expected: str, value: object) -> RemoteGarbage:
    return RemoteGarbage(GarbageReason.WRONG_TYPE, f"expected {expected}, got {type(value).__name__}")


class Int:
    """An integer within bounds; a bool is not an integer here."""

    def __init__(self, low: int = 0, high: int = INT_MAX) -> None:
        self.low, self.high = low, high

    def read(self, value: object) -> int:
        if type(value) is not int:
            raise _wrong("integer", value)
        if not self.low <= value <= self.high:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"not in {self.low}..{self.high}")
        return value

    def write(self, value: int, named: bool) -> object:
        return value


class Flag:
    """A truth value."""

    def read(self, value: object) -> bool:
        if type(value) is not bool:
            raise _wrong("boolean", value)
        return value

    def write(self, value: bool, named: bool) -> object:
        return value


class Text:
    """A string of bounded length, matching `pattern` where one is given; no NUL, no lone surrogate."""

    def __init__(self, chars_max: int, pattern: str | None = None) -> None:
        self.chars_max = chars_max
        self.pattern = re.compile(pattern) if pattern else None

    def read(self, value: object) -> str:
        if type(value) is not str:
            raise _wrong("text", value)
        if len(value) > self.chars_max or "\0" in value:
            raise RemoteGarbage(
                GarbageReason.OUT_OF_RANGE, f"text over {self.chars_max} characters or with NUL"
            )
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, "text with a lone surrogate")
        if self.pattern is not None and self.pattern.fullmatch(value) is None:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"text not of the form {self.pattern.pattern}")
        return value

    def write(self, value: str, named: bool) -> object:
        return value


class Blob:
    """Bytes of bounded length; base64 in JSON."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max

    def read(self, value: object) -> bytes:
        if type(value) is str:
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise _wrong("base64", value) from None
        if type(value) is not bytes:
            raise _wrong("bytes", value)
        if len(value) > self.bytes_max:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"more than {self.bytes_max} bytes")
        return value

    def write(self, value: bytes, named: bool) -> object:
        return base64.b64encode(value).decode() if named else value


class Choice:
    """A member of an enum with integer or text values, by value in CBOR and by name in JSON."""

    def __init__(self, options: type[Enum]) -> None:
        self.by_value: dict[object, Enum] = {m.value: m for m in options}
        self.by_name: dict[object, Enum] = {m.name.lower(): m for m in options}

    def read(self, value: object) -> Enum:
        if type(value) not in (str, int):
            raise _wrong("a choice", value)
        member = self.by_value.get(value) or self.by_name.get(value)
        if member is None:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, "not one of the choices")
        return member

    def write(self, value: Enum, named: bool) -> object:
        return value.name.lower() if named else value.value


class Ints:
    """A row of integers of a named tuple's length, for what must be small on the wire."""

    def __init__(
        self, make: Callable[..., tuple[int, ...]], length: int, high: int = INT_MAX, least: int = 0
    ) -> None:
        self.make, self.length, self.item = make, length, Int(0, high)
        self.least = least or length
        """Rows grow at their end: an older sender's is shorter, and `make` has defaults for the rest."""

    def read(self, value: object) -> tuple[int, ...]:
        if type(value) is not list:
            raise _wrong("a list", value)
        if not self.least <= len(value) <= self.length:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"expected {self.length} integers")
        high = self.item.high
        for v in value:
            if type(v) is not int or v < 0 or v > high:
                self.item.read(v)  # tells what is wrong
        return self.make(*value)

    def write(self, value: tuple[int, ...], named: bool) -> object:
        end = self.length
        while end > self.least and not value[end - 1]:
            end -= 1
        return list(value[:end])


class Many:
    """A list of one kind, read as a tuple."""

    def __init__(self, kind: Kind, items_max: int) -> None:
        self.kind, self.items_max = kind, items_max

    def read(self, value: object) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _wrong("a list", value)
        if len(value) > self.items_max:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"more than {self.items_max} items")
        read = self.kind.read
        return tuple([read(v) for v in value])

    def write(self, value: tuple[Any, ...], named: bool) -> object:
        write = self.kind.write
        return [write(v, named) for v in value]


class Table:
    """A map from short text to one kind."""

    def __init__(self, key: Kind, kind: Kind, items_max: int) -> None:
        self.key, self.kind, self.items_max = key, kind, items_max

    def read(self, value: object) -> dict[str, Any]:
        if type(value) is not dict:
            raise _wrong("a map", value)
        if len(value) > self.items_max:
            raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, f"more than {self.items_max} entries")
        return {self.key.read(k): self.kind.read(v) for k, v in value.items()}

    def write(self, value: dict[str, Any], named: bool) -> object:
        return {k: self.kind.write(v, named) for k, v in value.items()}


class Record:
    """A dataclass whose fields are declared with `wire`; unknown keys are ignored.

    Kinds that write what they are given (`_PLAIN`) are not asked to: this is the hot path.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self._readers = [(name, key, kind.read, default) for name, key, kind, default in table_of(cls)]
        self._writers = [
            (name, key, None if isinstance(kind, _PLAIN) else kind.write, default)
            for name, key, kind, default in table_of(cls)
        ]

    def read(self, value: object) -> Any:
        if type(value) is not dict:
            raise RemoteGarbage(GarbageReason.NOT_A_MAP, type(value).__name__)
        get, arguments = value.get, []
        for name, key, read, default in self._readers:
            raw = get(key, MISSING)
            if raw is MISSING:
                raw = get(name, MISSING)
            if raw is MISSING or (raw is None and default is not MISSING):
                if default is MISSING:
                    raise RemoteGarbage(GarbageReason.MISSING_FIELD, name)
                arguments.append(default)
                continue
            try:
                arguments.append(read(raw))
            except RemoteGarbage as garbage:
                raise RemoteGarbage(garbage.reason, f"{name}: {garbage.detail}"[:160]) from None
        return self.cls(*arguments)

    def write(self, value: Any, named: bool) -> object:
        out: dict[object, object] = {}
        for name, key, write, default in self._writers:
            item = getattr(value, name)
            if default is MISSING or item != default:
                out[name if named else key] = item if write is None else write(item, named)
        return out


_PLAIN = (Int, Flag, Text)
Row = tuple[str, int, Kind, object]


def wire(key: int, kind: Kind, default: object = MISSING) -> Any:
    """Declares a message field: its integer key (never reused), its kind, its default if optional.

    A field equal to its default is left out of the payload. Defaults are immutable values.
    """
    metadata = {"key": key, "kind": kind}
    if default is MISSING:
        return field(metadata=metadata)
    if isinstance(default, dict):
        return field(
            default_factory=lambda: dict(cast("dict[str, Any]", default)),
            metadata=metadata | {"default": default},
        )
    return field(default=default, metadata=metadata)


def table_of(cls: type) -> tuple[Row, ...]:
    """The rows (name, key, kind, default) of a declared dataclass; keys are unique."""
    rows: list[Row] = []
    for declared in fields(cast("type[Any]", cls)):
        data = declared.metadata
        rows.append((declared.name, data["key"], data["kind"], data.get("default", declared.default)))
    assert len({row[1] for row in rows}) == len(rows), f"{cls.__name__}: a key is used twice"
    return tuple(rows)
