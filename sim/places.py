"""Places: on which line of a scenario a word stands, which a TOML parser doesn't tell.

Rule of this file: it finds lines for messages and decides nothing. It knows the two ways in
which people write a list of tables, `[[faults]]` and one `{ … }` per line; in anything
stranger it names the line of the list, or the first.
"""

from __future__ import annotations

from re import compile as pattern

HEADER = pattern(r"\s*\[\[?\s*([\w-]+)\s*\]\]?\s*(#.*)?$")
KEY = pattern(r'\s*"?([\w-]+)"?\s*=')
OPENS = pattern(r"\s*([\w-]+)\s*=\s*\[\s*(#.*)?$")
ROW = pattern(r"\s*\{")
CLOSES = pattern(r"\s*\]")


class Places:
    """The lines of one text, counted from 1."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self._keys: dict[tuple[str, int, str], int] = {}
        self._counts: dict[str, int] = {}
        self._read()

    def line(self, name: str, index: int, key: str) -> int:
        """Of `key` in item `index` of the list `name`; where that isn't found, of the item or the list."""
        for wanted in ((name, index, key), (name, index, ""), ("", 0, name), ("", 0, key)):
            if wanted in self._keys:
                return self._keys[wanted]
        return 1

    def _read(self) -> None:
        name, index, rows = "", 0, False
        for number, line in enumerate(self.lines, 1):
            if rows and CLOSES.match(line):
                name, index, rows = "", 0, False
            elif rows and ROW.match(line):
                index = self._item(name, number)
                self._words(name, index, number, line)
            elif opened := OPENS.match(line):
                self._keys[name, index, opened[1]] = number
                name, rows = opened[1], True
            elif header := HEADER.match(line):
                name = header[1]
                self._keys.setdefault(("", 0, name), number)
                index = self._item(name, number)
            elif key := KEY.match(line):
                self._keys[name, index, key[1]] = number

    def _item(self, name: str, number: int) -> int:
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        self._keys[name, index, ""] = number
        return index

    def _words(self, name: str, index: int, number: int, line: str) -> None:
        for piece in line.replace("{", ",").split(","):
            if key := KEY.match(piece):
                self._keys[name, index, key[1]] = number
