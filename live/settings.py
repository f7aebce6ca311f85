"""Typed settings: flags > environment > conf.d/*.toml > file > defaults.

A program declares slotted dataclasses: one of sections, each with fields made by `setting`,
which asks for default, reason and unit. Rules of this file: an unknown key is an error that
names file, key and the nearest known one; a wrong type is an error; every value knows where
it comes from; all errors are one line. Names are `section.key` in flags, `[section] key` in
TOML, `FM_<SECTION>_<KEY>` in the environment; a variable of a known section with an unknown
key is an error too, other `FM_` variables are not ours (a run's `FM_TASK`).

It knows no program's settings. Rejected: pydantic (the agent's base install stays small);
silently ignored keys (a misspelt limit is a limit that isn't there).
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

T = TypeVar("T")
ENV_PREFIX = "FM"
DEFAULT_ORIGIN = "default"
TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


class SettingsError(Exception):
    """One line: where, which key, what is wrong, and what may have been meant."""


def setting(
    default: T,
    reason: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> T:
    """A field of a section. `minimum` and `maximum` are inclusive; `secret` is never shown.

    Types: int, float, bool, str, Path, a string enum, `X | None`, `tuple[X, ...]`, `dict[str, X]`.
    """
    notes = {"reason": reason, "unit": unit, "minimum": minimum, "maximum": maximum, "secret": secret}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: cast(T, dict(default)), metadata=notes)
    return dataclasses.field(default=default, metadata=notes)


def section(kind: type[T]) -> T:
    """A field of the whole that holds one section of this dataclass."""
    return dataclasses.field(default_factory=kind)


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of a listing: everything a person needs to know about one setting."""

    name: str
    value: str
    unit: str
    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """The settings and where each comes from: `default`, `file:line`, a variable or a flag."""

    value: T
    origins: Mapping[str, str]

    def origin(self, name: str) -> str:
        """Where `section.key` was set. Raises `KeyError` for a name that doesn't exist."""
        return self.origins[name]

    def rows(self) -> Iterator[SettingRow]:
        """Every setting in the order of its declaration; secrets that are set show as `***`."""
        for name, spec in _specs(type(self.value)).items():
            value = getattr(getattr(self.value, spec.section), spec.key)
            shown = "***" if spec.secret and value else _show(value)
            yield SettingRow(name, shown, spec.unit, self.origins[name], spec.reason)


def load_settings(
    kind: type[T],
    *,
    file: Path | None = None,
    conf_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, str | None] | None = None,
) -> Loaded[T]:
    """Gather the layers into one `kind`. A `conf_dir` that isn't there is empty; a `file` must exist.

    `flags` maps `section.key` to text; None means not given. Raises `SettingsError`.
    """
    specs = _specs(kind)
    values: dict[str, object] = {}
    origins = dict.fromkeys(specs, DEFAULT_ORIGIN)
    files = ([file] if file else []) + (sorted(conf_dir.glob("*.toml")) if conf_dir else [])
    layers = [_from_file(path, specs) for path in files]
    layers += [_from_env(env or {}, specs), _from_flags(flags or {}, specs)]
    for layer in layers:
        for name, (value, origin) in layer.items():
            values[name], origins[name] = value, origin
    return Loaded(_build(kind, values), origins)


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True, slots=True)
class _Spec:
    section: str
    key: str
    type: object
    reason: str
    unit: str
    minimum: float | None
    maximum: float | None
    secret: bool


def _specs(kind: type[object]) -> dict[str, _Spec]:
    """`section.key` → what was declared, in order."""
    specs = {}
    section_types = typing.get_type_hints(kind)
    for outer in dataclasses.fields(cast("type[typing.Any]", kind)):
        inner_kind = section_types[outer.name]
        types_ = typing.get_type_hints(inner_kind)
        for inner in dataclasses.fields(inner_kind):
            specs[f"{outer.name}.{inner.name}"] = _Spec(
                outer.name, inner.name, types_[inner.name], **inner.metadata
            )
    return specs


def _build(kind: type[T], values: Mapping[str, object]) -> T:
    sections = {}
    for outer_name, inner_kind in typing.get_type_hints(kind).items():
        prefix = f"{outer_name}."
        given = {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
        sections[outer_name] = inner_kind(**given)
    return kind(**sections)


# ---------------------------------------------------------------- layers

Layer = dict[str, tuple[object, str]]


def _from_file(path: Path, specs: Mapping[str, _Spec]) -> Layer:
    try:
        text = path.read_text("utf-8")
        tables = tomllib.loads(text)
    except (OSError, ValueError) as error:  # tomllib's errors and bad UTF-8 are ValueErrors
        raise SettingsError(f"{path}: {_one_line(error)}") from None
    sections = {spec.section for spec in specs.values()}
    layer: Layer = {}
    for section_name, table in tables.items():
        where = f"{path}:{_line(text, section_name, None)}"
        if section_name not in sections:
            raise SettingsError(
                f"{where}: unknown section [{section_name}]{_nearest(section_name, sections)}"
            )
        if not isinstance(table, dict):
            raise SettingsError(f"{where}: [{section_name}] must be a table")
        for key, raw in table.items():
            where = f"{path}:{_line(text, section_name, key)}"
            spec = _find(f"{section_name}.{key}", specs, where)
            layer[f"{section_name}.{key}"] = (_checked(raw, spec, where), where)
    return layer


def _from_env(env: Mapping[str, str], specs: Mapping[str, _Spec]) -> Layer:
    names = {f"{ENV_PREFIX}_{name.replace('.', '_')}".upper(): name for name in specs}
    prefixes = tuple(sorted({f"{ENV_PREFIX}_{spec.section}_".upper() for spec in specs.values()}))
    layer: Layer = {}
    for variable in sorted(env):
        if variable in names:
            spec = specs[names[variable]]
            layer[names[variable]] = (_checked_text(env[variable], spec, variable), variable)
        elif variable.startswith(prefixes):
            raise SettingsError(f"environment: unknown variable {variable}{_nearest(variable, names)}")
    return layer


def _from_flags(flags: Mapping[str, str | None], specs: Mapping[str, _Spec]) -> Layer:
    layer: Layer = {}
    for name, text in flags.items():
        if text is not None:
            spec = _find(name, specs, "flags")
            layer[name] = (_checked_text(text, spec, f"flag {name}"), f"flag {name}")
    return layer


def _find(name: str, specs: Mapping[str, _Spec], where: str) -> _Spec:
    if name not in specs:
        raise SettingsError(f"{where}: unknown key {name}{_nearest(name, specs)}")
    return specs[name]


# ---------------------------------------------------------------- values


def _checked(raw: object, spec: _Spec, where: str) -> object:
    """A TOML value as the declared type, within its bounds."""
    try:
        return _bounded(_convert(raw, spec.type), spec)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{where}: {spec.section}.{spec.key} {_one_line(error)}") from None


def _checked_text(text: str, spec: _Spec, where: str) -> object:
    """Text of a flag or variable as the declared type, within its bounds."""
    try:
        return _bounded(_convert(_parse(text, spec.type), spec.type), spec)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{where}: {spec.section}.{spec.key} {_one_line(error)}") from None


def _parse(text: str, kind: object) -> object:
    """Text to what TOML would have given for this type."""
    kind = _without_none(kind)
    origin = typing.get_origin(kind)
    if kind is bool:
        return _parse_bool(text)
    if kind in (int, float):
        return _parse_number(text, kind is int)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return [_parse(part.strip(), item) for part in text.split(",") if part.strip()]
    if origin is dict:
        item = typing.get_args(kind)[1]
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        return {key.strip(): _parse(value.strip(), item) for key, _, value in pairs}
    return text


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"must be true or false, not {text!r}")
    return word in TRUE_WORDS


def _parse_number(text: str, whole: bool) -> int | float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"must be {_name_of(int if whole else float)}, not {text!r}") from None


def _convert(raw: object, kind: object) -> object:
    kind = _without_none(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        items = _expect(raw, list, kind)
        return tuple(_convert(item, typing.get_args(kind)[0]) for item in items)
    if origin is dict:
        table = _expect(raw, dict, kind)
        item = typing.get_args(kind)[1]
        return {str(key): _convert(value, item) for key, value in table.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        words = [str(member.value) for member in kind]
        if raw not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {raw!r}")
        return kind(raw)
    if kind is float:
        return float(raw) if type(raw) is int else _expect(raw, float, kind)
    if kind is Path:
        return Path(_expect(raw, str, kind)).expanduser()
    return _expect(raw, cast("type[object]", kind), kind)


def _expect(raw: object, python_type: type[T], kind: object) -> T:
    if type(raw) is not python_type:  # exact: a bool is not an int here
        raise TypeError(f"must be {_name_of(kind)}, not {raw!r}")
    return raw


def _bounded(value: object, spec: _Spec) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        unit = f" {spec.unit}" if spec.unit else ""
        if not value == value or (spec.minimum is not None and value < spec.minimum):
            raise ValueError(f"must be at least {spec.minimum}{unit}, not {value}")
        if spec.maximum is not None and value > spec.maximum:
            raise ValueError(f"must be at most {spec.maximum}{unit}, not {value}")
    return value


def _without_none(kind: object) -> object:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


# ---------------------------------------------------------------- words


def _name_of(kind: object) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if typing.get_origin(kind) is tuple:
        return "a list"
    if typing.get_origin(kind) is dict:
        return "a table of text" if typing.get_args(kind)[1] is str else "a table of numbers"
    return names.get(cast("type[object]", kind), str(kind))


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def _line(text: str, section_name: str, key: str | None) -> int:
    """The line that most likely set it; 1 where the layout defeats so simple a search."""
    header = re.compile(rf"\s*\[\s*\"?{re.escape(section_name)}\"?\s*[\].]")
    other = re.compile(r"\s*\[")
    assignment = re.compile(rf"\s*\"?{re.escape(key or section_name)}\"?\s*[=.]")
    inside, first = False, 1
    for number, line in enumerate(text.splitlines(), 1):
        if header.match(line):
            inside, first = True, number
            if key is None:
                return number
        elif inside and other.match(line):
            inside = False
        elif (inside or key is None) and assignment.match(line):
            return number
    return first
