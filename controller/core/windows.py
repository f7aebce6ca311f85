"""Maintenance windows: times of the week at which work may be moved for no other reason than balance.

A window is days and two times of day, in UTC: `mon-fri 22:00-06:00`, `sat+sun 00:00-24:00`,
`daily 02:00-04:00`. One that ends before it begins runs over midnight and belongs to the day
on which it began. Without any window it is always time.
It reads no clock: it is told wall-clock milliseconds.
Rejected: time zones (a fleet has several, and a window that an hour's change doubles or skips
moves work when nobody expects it); cron expressions (they tell moments, not spans).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAILY = "daily"
DAY_MINUTES = 1_440
_MINUTE_MS = 60_000
_THURSDAY = 3
"""The first day of 1970, in `DAYS`."""
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
EXAMPLE = "write it as in 'mon-fri 22:00-06:00', 'sat+sun 00:00-24:00' or 'daily 02:00-04:00' (UTC)"


class WindowFault(ValueError):
    """What is wrong with the text of a window, in a sentence."""


class Window(NamedTuple):
    """`days`: bit 0 is Monday. Minutes of the day, `to_minute` excluded; it may be below `from_minute`."""

    days: int
    from_minute: int
    to_minute: int

    def open_at(self, wall_ms: int) -> bool:
        """Whether this moment is within it."""
        days_gone, minute = divmod(wall_ms // _MINUTE_MS, DAY_MINUTES)
        today = (days_gone + _THURSDAY) % 7
        if self.from_minute < self.to_minute:
            return self._on(today) and self.from_minute <= minute < self.to_minute
        yesterday = (today - 1) % 7
        return (self._on(today) and minute >= self.from_minute) or (
            self._on(yesterday) and minute < self.to_minute
        )

    def _on(self, day: int) -> bool:
        return bool(self.days >> day & 1)

    def __str__(self) -> str:
        days = [name for at, name in enumerate(DAYS) if self._on(at)]
        spoken = DAILY if len(days) == len(DAYS) else "+".join(days)
        return f"{spoken} {_clock(self.from_minute)}-{_clock(self.to_minute)}"


def open_at(windows: Sequence[Window], wall_ms: int) -> bool:
    """Whether one of them is open; without any it is always time."""
    return not windows or any(window.open_at(wall_ms) for window in windows)


def read_windows(texts: Iterable[str]) -> tuple[Window, ...]:
    """Each text as a window. Raises `WindowFault`."""
    return tuple(map(read_window, texts))


def read_window(text: str) -> Window:
    """Raises `WindowFault` with what is wrong and how to write it."""
    words = text.lower().split()
    if len(words) != 2 or words[1].count("-") != 1:
        raise WindowFault(f"{text!r} is no window: {EXAMPLE}")
    begin, _, end = words[1].partition("-")
    window = Window(_days(words[0], text), _minute(begin, text), _minute(end, text))
    if window.from_minute == window.to_minute or window.from_minute == DAY_MINUTES:
        raise WindowFault(f"{text!r} is never open: {EXAMPLE}")
    return window


def _days(text: str, whole: str) -> int:
    if text == DAILY:
        return (1 << len(DAYS)) - 1
    mask = 0
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        at, until = _day(first, whole), _day(last, whole) if dash else _day(first, whole)
        # Over the end of the week too: `sat-mon` is three days.
        for day in range(at, at + (until - at) % 7 + 1):
            mask |= 1 << day % 7
    return mask


def _day(text: str, whole: str) -> int:
    if text in DAYS:
        return DAYS.index(text)
    near = difflib.get_close_matches(text, (*DAYS, DAILY), 1, 0.5)
    if "," in text:  # a list of settings is written with commas, so a window must do without
        raise WindowFault(f"{text!r} in {whole!r} is no day: join days with '+'")
    meant = f"; did you mean {near[0]!r}?" if near else f"; days are {', '.join(DAYS)}, or {DAILY}"
    raise WindowFault(f"{text!r} in {whole!r} is no day{meant}")


def _minute(text: str, whole: str) -> int:
    found = _TIME.fullmatch(text)
    minute = int(found[1]) * 60 + int(found[2]) if found else DAY_MINUTES + 1
    if minute > DAY_MINUTES:
        raise WindowFault(f"{text!r} in {whole!r} is no time of day, 00:00 to 24:00: {EXAMPLE}")
    return minute


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
