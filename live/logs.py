"""Logs: one line an event, `key=value`, to stderr; JSON on request.

Rules: one line whatever the text holds (control characters are escaped); colours only on
a terminal and without NO_COLOR; the same warning or error again within `FOLD_MS` is counted
instead of written, and the count is told with the next one. Cores don't log: they return
`Note`, and `note_to_log` is its performer.

Rejected: the standard library's logging as our own interface (formatting handlers in four
places, global state that any library changes); what libraries log through it is taken in
by `capture_logging`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from live.clock import Clock, boottime_ms, wall_ms
from protocol.core import Note

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FOLD_MS = 10_000
"""A reconnecting device in a dead network writes six lines a minute instead of sixty."""
FOLDED_MAX = 256
"""Different lines that are remembered; the oldest is told and forgotten."""
COLOURS = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
RESET = "\x1b[0m"

Fields = Mapping[str, str | int | float | bool | None]


class Log:
    """One sink. `level` is the least that is written."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: str = "info",
        as_json: bool = False,
        clock: Clock = boottime_ms,
        wall: Clock = wall_ms,
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")
        self._stream = stream
        self._least = LEVELS[level]
        self._as_json = as_json
        self._clock = clock
        self._wall = wall
        self._seen: dict[tuple[str, str, tuple[tuple[str, object], ...]], list[int]] = {}

    def write(self, level: str, text: str, fields: Fields | None = None) -> None:
        """One line, or one more of a folded one. A level that doesn't exist counts as error."""
        number = LEVELS.get(level, LEVELS["error"])
        if number < self._least:
            return
        fields = dict(fields or {})
        repeated = self._fold(level, text, fields) if number >= LEVELS["warning"] else 0
        if repeated is None:
            return
        if repeated:
            fields["repeated"] = repeated
        self._emit(level, text, fields)

    def flush(self) -> None:
        """Tell the counts that wait. For the end of the process."""
        for (level, text, fields), (_, count) in list(self._seen.items()):
            if count:
                self._emit(level, text, _as_fields(fields) | {"repeated": count})
        self._seen.clear()

    def _fold(self, level: str, text: str, fields: Fields) -> int | None:
        """How many were swallowed before this one; None: swallow this one too."""
        now_ms = self._clock()
        key = (level, text, tuple(sorted(fields.items(), key=lambda item: item[0])))
        seen = self._seen.get(key)
        if seen is not None and now_ms - seen[0] < FOLD_MS:
            seen[1] += 1
            return None
        self._seen.pop(key, None)
        self._seen[key] = [now_ms, 0]
        if len(self._seen) > FOLDED_MAX:
            self._forget_oldest()
        return seen[1] if seen else 0

    def _forget_oldest(self) -> None:
        level, text, fields = key = next(iter(self._seen))
        _, count = self._seen.pop(key)
        if count:
            self._emit(level, text, _as_fields(fields) | {"repeated": count})

    def _emit(self, level: str, text: str, fields: Fields) -> None:
        stamp = datetime.fromtimestamp(self._wall() / 1_000, UTC).isoformat(timespec="milliseconds")
        stamp = stamp.replace("+00:00", "Z")
        if self._as_json:
            line = json.dumps({"time": stamp, "level": level, "text": text, **fields}, ensure_ascii=False)
        else:
            words = [stamp, f"level={level}", f"text={_quoted(text)}"]
            line = " ".join(words + [f"{key}={_quoted(_shown(value))}" for key, value in fields.items()])
        stream = self._stream or sys.stderr
        colour = COLOURS.get(level, "") if not self._as_json and _wants_colour(stream) else ""
        try:
            stream.write(f"{colour}{line}{RESET}\n" if colour else f"{line}\n")
            stream.flush()
        except (OSError, ValueError):  # stderr is closed or full: there is nobody left to tell
            return


class _Holder:
    """The log of this process, exchangeable at start."""

    def __init__(self) -> None:
        self.log = Log()


_PROCESS = _Holder()


def setup_logs(*, level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> Log:
    """Make and return the log of this process. Raises `ValueError` for an unknown level."""
    _PROCESS.log = Log(stream, level=level, as_json=as_json)
    return _PROCESS.log


def log(level: str, text: str, /, **fields: str | int | float | bool | None) -> None:
    """A line in the log of this process, for leaves and worlds; cores return `Note`."""
    _PROCESS.log.write(level, text, fields)


def note_to_log(note: Note) -> None:
    """The performer of `Note`."""
    _PROCESS.log.write(note.level, note.text, note.fields)


def capture_logging(least: int = logging.WARNING) -> None:
    """Lead what libraries log (uvicorn, amqtt, asyncio) into ours; replaces their handlers at the root."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(least)]
    root.setLevel(least)


class _Bridge(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        level = level if record.levelno >= logging.WARNING else "info"
        level = level if record.levelno >= logging.INFO else "debug"
        fields: dict[str, str | int | float | bool | None] = {"source": record.name}
        if record.exc_info:
            fields["trace"] = logging.Formatter().formatException(record.exc_info)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a library's bad format string
            text = str(record.msg)
        _PROCESS.log.write(level, text, fields)


def _wants_colour(stream: TextIO) -> bool:
    try:
        return stream.isatty() and not os.environ.get("NO_COLOR")
    except (AttributeError, ValueError):
        return False


def _as_fields(pairs: tuple[tuple[str, object], ...]) -> dict[str, str | int | float | bool | None]:
    return {key: value if isinstance(value, str | int | float | bool) else None for key, value in pairs}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _quoted(text: str) -> str:
    """As it is if it is one plain word, else a JSON string: always one line, always parsable."""
    plain = text and text.isprintable() and not any(mark in text for mark in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
