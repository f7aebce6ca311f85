"""Tables as text: columns as wide as their content, cut only for a terminal.

Rule: pure; cells in, one string out. A cell is cleaned of control characters before it
is measured, and coloured after, so that widths are true. Without a width nothing is
ever cut: a script must see whole ids.
It knows no records, no streams. Rejected: a table library (none in the base install).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GAP = "  "
NARROWEST = 6  # a column is never cut below this
_COLOURS = {
    "online": "32",
    "succeeded": "32",
    "running": "36",
    "assigned": "36",
    "suspect": "33",
    "pending": "33",
    "failed": "31",
    "offline": "31",
    "cancelled": "2",
}


class Column(NamedTuple):
    """`right`: numbers are aligned to the right. `fixed`: never cut (ids are copied from tables)."""

    title: str
    right: bool = False
    fixed: bool = False


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None, colour: bool = False
) -> str:
    """The header and every row, each ending with a newline. `width`: terminal columns or `None`."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([len(column.title), *[_columns(row[index]) for row in cells]])
        for index, column in enumerate(columns)
    ]
    if width is not None:
        widths = _fitted(widths, columns, width)
    lines = [_line(columns, [column.title for column in columns], widths, False)]
    lines += [_line(columns, row, widths, colour) for row in cells]
    return "".join(lines)


def printable(text: str) -> str:
    """`text` with control characters, escapes and stray surrogates shown as `\\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], colour: bool) -> str:
    shown: list[str] = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        cut = _cut(cell, width)
        pad = " " * (width - _columns(cut))
        painted = f"\x1b[{_COLOURS[cut]}m{cut}\x1b[0m" if colour and cut in _COLOURS else cut
        shown.append(pad + painted if column.right else painted + pad)
    return GAP.join(shown).rstrip() + "\n"


def _fitted(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Takes from the widest column that may be cut until the line fits or nothing is left to take."""
    fitted = list(widths)
    excess = sum(fitted) + len(GAP) * (len(fitted) - 1) - room
    while excess > 0:
        index = max(range(len(fitted)), key=lambda at: -1 if columns[at].fixed else fitted[at])
        if columns[index].fixed or fitted[index] <= NARROWEST:
            break
        fitted[index] -= 1
        excess -= 1
    return fitted


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    kept = text[: width - 1]
    while _columns(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def _columns(text: str) -> int:
    """Terminal columns that `text` takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
