"""Pattern text: the written form of a pattern as a tree, or why it is none.

The language is what RE2, Go and Nomad share: `^` and `$` are the ends of the whole text,
`\\d \\w \\s` and `(?i)` mean ASCII, `.` is anything but a newline. There are no
back-references and no looking around: their cost can't be bounded. What is not known is
refused with its place, never taken for something else.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

REPEAT_MAX = 256
"""A label has no more characters than that."""
DEPTH_MAX = 20
LAST = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]

_SETS: dict[str, Ranges] = {
    "d": ((48, 57),),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "s": ((9, 13), (32, 32)),
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_NOT_NEWLINE: Ranges = ((0, 9), (11, LAST))
_COUNT = re.compile(r"\{([0-9]{1,6})(,([0-9]{0,6}))?\}")
_NAMED = re.compile(r"\?P?<[A-Za-z_][A-Za-z0-9_]*>")
_SPECIAL = "|)"


class PatternFault(ValueError):
    """The pattern can't be used; the message says why and what to write instead."""


class Node(NamedTuple):
    kind: str
    parts: tuple[Node, ...] = ()
    ranges: Ranges = ()
    least: int = 0
    most: int | None = None


class Parser:
    """Recursive descent over the text; refuses what it does not know, with the place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.any_case = text.startswith("(?i)")
        if self.any_case:
            self.at = 4

    def parse(self) -> Node:
        node = self._either()
        if self.at < len(self.text):
            raise self._fault("')' without '('; write \\) for the character")
        return node

    def _fault(self, why: str) -> PatternFault:
        return PatternFault(f"at character {self.at + 1}: {why}")

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _either(self) -> Node:
        parts = [self._row()]
        while self._peek() == "|":
            self.at += 1
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else Node("alt", tuple(parts))

    def _row(self) -> Node:
        parts = []
        while (char := self._peek()) and char not in _SPECIAL:
            parts.append(self._repeated(self._one()))
        return Node("cat", tuple(parts))

    def _repeated(self, node: Node) -> Node:
        char = self._peek()
        if not char or char not in "*+?{":
            return node
        if node.kind in ("begin", "end"):
            raise self._fault("an anchor can't be repeated")
        least, most = self._count()
        # Whether a repeat is greedy changes what is found, not whether something is.
        if self._peek() == "?":
            self.at += 1
        elif (more := self._peek()) and more in "*+{":
            raise self._fault("a repeat of a repeat; put a group around the first: (?:…)")
        return Node("repeat", (node,), (), least, most)

    def _count(self) -> tuple[int, int | None]:
        char = self._peek()
        if char != "{":
            self.at += 1
            return (1 if char == "+" else 0), (1 if char == "?" else None)
        found = _COUNT.match(self.text, self.at)
        if found is None:
            raise self._fault("'{' begins a count like {2} or {2,5}; write \\{ for the character")
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if max(least, most or 0) > REPEAT_MAX:
            raise self._fault(f"counts go up to {REPEAT_MAX}")
        if most is not None and most < least:
            raise self._fault(f"the count {found[0]} is the wrong way round")
        self.at = found.end()
        return least, most

    def _one(self) -> Node:
        char = self._peek()
        if char == "(":
            return self._group()
        if char == "[":
            return self._set(self._class())
        if char == "\\":
            if anchor := {"\\A": "begin", "\\Z": "end", "\\z": "end"}.get(self.text[self.at : self.at + 2]):
                self.at += 2
                return Node(anchor)
            return self._set(self._escape())
        if char in "*+?{":
            raise self._fault(f"nothing to repeat; write \\{char} for the character")
        self.at += 1
        if char in "^$":
            return Node("begin" if char == "^" else "end")
        return self._set(_NOT_NEWLINE if char == "." else ((ord(char), ord(char)),))

    def _set(self, ranges: Ranges) -> Node:
        return Node("set", (), _both_cases(ranges) if self.any_case else ranges)

    def _group(self) -> Node:
        self.at += 1
        if self._peek() == "?":
            named = _NAMED.match(self.text, self.at)
            if self.text.startswith("?:", self.at):
                self.at += 2
            elif named is not None:
                self.at = named.end()
            else:
                raise self._fault(
                    "only (…), (?:…) and (?P<name>…) are known, and (?i) at the very beginning; "
                    "there is no looking ahead or back: use a second condition, or not_in"
                )
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self._fault(f"groups are nested deeper than {DEPTH_MAX}")
        node = self._either()
        self.depth -= 1
        if self._peek() != ")":
            raise self._fault("a group is not closed: ')' is missing; write \\( for the character")
        self.at += 1
        return node

    def _escape(self) -> Ranges:
        """What stands behind a backslash, as a set."""
        char = self.text[self.at + 1 : self.at + 2]
        if char.lower() in _SETS:
            found = _SETS[char.lower()]
            self.at += 2
            return found if char.islower() else _others(found)
        if char.isdigit():
            raise self._fault("back-references are not supported: their cost can't be bounded")
        if not char or (char.isascii() and char.isalnum() and char not in _CONTROLS):
            hint = "; there are no word boundaries: use ^, $ or [^a-z]" if char in ("b", "B") else ""
            raise self._fault(f"'\\{char}' is not known{hint}")
        self.at += 2
        code = ord(_CONTROLS.get(char, char))
        return ((code, code),)

    def _class(self) -> Ranges:
        """`[…]`, with ranges and escapes; a first `]` and a `-` at either end are themselves."""
        self.at += 1
        negated = self._peek() == "^"
        self.at += negated
        found: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            if not self._peek():
                raise self._fault("a class is not closed: ']' is missing; write \\[ for the character")
            if self.text.startswith("[:", self.at):
                raise self._fault("classes like [:alpha:] are not known; write a-zA-Z")
            first = False
            found += self._member()
        self.at += 1
        ranges = _merged(found)
        # Before the turn: `(?i)[^a]` is neither a nor A.
        ranges = _both_cases(ranges) if self.any_case else ranges
        return _others(ranges) if negated else ranges

    def _member(self) -> Ranges:
        low = self._class_part()
        if self._peek() != "-" or self.text[self.at + 1 : self.at + 2] in ("]", ""):
            return low
        self.at += 1
        high = self._class_part()
        if low[0][0] != low[-1][1] or high[0][0] != high[-1][1]:
            raise self._fault("a range goes from one character to another")
        if high[0][0] < low[0][0]:
            raise self._fault("a range is the wrong way round")
        return ((low[0][0], high[0][0]),)

    def _class_part(self) -> Ranges:
        if self._peek() == "\\":
            return self._escape()
        code = ord(self._peek())
        self.at += 1
        return ((code, code),)


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def _others(ranges: Ranges) -> Ranges:
    """Every character that is not in these."""
    fence = [(-1, -1), *ranges, (LAST + 1, LAST + 1)]
    return tuple((a[1] + 1, b[0] - 1) for a, b in pairwise(fence) if b[0] - a[1] > 1)


def _both_cases(ranges: Ranges) -> Ranges:
    """With the other case of each ASCII letter."""
    found = list(ranges)
    for low, high in ranges:
        for first, shift in ((65, 32), (97, -32)):
            a, b = max(low, first), min(high, first + 25)
            if a <= b:
                found.append((a + shift, b + shift))
    return _merged(found)
