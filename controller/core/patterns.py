"""Patterns: regular expressions whose cost is bounded before they meet a device.

A pattern becomes a complete automaton when the job is submitted; matching is then one
table look-up per character, whatever the text is. A pattern whose automaton would be too
large is refused, so nothing that was accepted can hang the controller later.
Rejected: `re` behind a check for nested repeats. It backtracks: `.*a.*b` alone takes the
cube of a label's length, and 200,000 labels multiply that. An engine in C would be one
more wheel that small boards don't have.
A pattern is *searched for*, as in RE2, Go and Nomad; `^…$` asks for the whole text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.core.pattern_text import LAST, Node, Parser, PatternFault, Ranges

PATTERN_CHARS_MAX = 256
PROGRAM_MAX = 512
"""Instructions; with `STATES_MAX` it keeps the making of an automaton below 50 ms."""
STATES_MAX = 512
VISITS_MAX = 4 * PROGRAM_MAX
BATCH = 4_096
"""Texts that are walked together: 4 MB of them when each is as long as a label may be."""

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# ----------------------------------------------------------------- the automaton


class Pattern:
    """A compiled pattern. State 0 can never match any more, state 1 has matched."""

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_CHARS_MAX:
            raise PatternFault(f"a pattern has at most {PATTERN_CHARS_MAX} characters; this has {len(text)}")
        program = _Program()
        program.emit(Parser(text).parse())
        program.add(_Op("match"))
        self._cuts, masks = _alphabet(program)
        self._classes = _Classes(self._cuts)
        self._start, self._table, self._ends = _determinise(program, masks)
        self._steps = _Steps(self._cuts, self._table)

    def search(self, text: str) -> bool:
        """Whether the pattern is found anywhere in the text."""
        state, table, classes = self._start, self._table, self._classes
        for char in text:
            if state <= 1:
                break
            state = table[state][classes[char]]
        return self._ends[state]

    def search_all(self, texts: Sequence[str]) -> Flags:
        """The same of many texts at once, twenty times as fast: all of them take each step together."""
        ends = np.array(self._ends)
        found = [self._steps.walk(self._start, texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        return ends[np.concatenate(found)] if found else np.zeros(0, np.bool_)


@lru_cache(maxsize=256)
def pattern(text: str) -> Pattern:
    """Compiles; raises `PatternFault`."""
    return Pattern(text)


class _Classes(dict[str, int]):
    """Character -> class; what isn't ASCII is looked up, not kept, so that labels can't fill the memory."""

    def __init__(self, cuts: list[int]) -> None:
        self.cuts = cuts
        super().__init__((chr(c), bisect_right(cuts, c) - 1) for c in range(128))

    def __missing__(self, char: str) -> int:
        return bisect_right(self.cuts, ord(char)) - 1


class _Steps:
    """The table as one array, with a class of its own for what lies behind the end of a text: stay."""

    def __init__(self, cuts: list[int], table: list[list[int]]) -> None:
        self.cuts, self.pad = np.array(cuts), len(cuts)
        self.width = len(cuts) + 1
        self.ascii = np.searchsorted(self.cuts, np.arange(128), side="right") - 1
        self.flat = np.array([[*row, at] for at, row in enumerate(table)], np.int64).ravel() * self.width

    def walk(self, start: int, texts: Sequence[str]) -> Ints:
        """The state that each text ends in."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        longest = max(1, int(lengths.max()))
        # numpy keeps four bytes per character and fills up with zeros, which a text may end in itself.
        chars = np.array(texts, f"U{longest}").view(np.uint32).reshape(len(texts), longest).T
        classes = self.ascii[np.minimum(chars, 127)]
        if (wide := chars > 127).any():
            classes[wide] = np.searchsorted(self.cuts, chars[wide], side="right") - 1
        classes[np.arange(longest)[:, None] >= lengths] = self.pad
        state = np.full(len(texts), start * self.width)
        for step in classes:
            state = self.flat[state + step]
        return state // self.width


def _determinise(program: _Program, masks: list[int]) -> tuple[int, list[list[int]], list[bool]]:
    """The subset construction: start state, next state by state and class, whether a text may end there."""
    match = 1 << (len(program.ops) - 1)
    within_from, ends_from = program.reach(False, False), program.reach(False, True)
    may_end = sum(1 << at for at, found in enumerate(ends_from) if found & match)
    table: list[list[int]] = [[0] * len(masks), [1] * len(masks)]
    ends = [False, True]
    known: dict[tuple[int, bool], int] = {}
    by_kernel: dict[int, int] = {}
    todo: list[tuple[int, int]] = []

    def state_of(within: int, end: bool) -> int:
        if within & match:
            return 1
        reading = within & program.reading
        if not reading and not end:
            return 0
        number = known.get((reading, end))
        if number is None:
            number = known[reading, end] = len(table)
            if number >= STATES_MAX:
                raise PatternFault(
                    f"too complex: it needs more than {STATES_MAX} states; anchor it with ^ and $, "
                    "or use fewer counted repeats"
                )
            table.append([])
            ends.append(end)
            todo.append((number, reading))
        return number

    start = state_of(program.reach(True, False)[0], bool(program.reach(True, True)[0] & match))
    while todo:
        number, reading = todo.pop()
        row = table[number]
        for mask in masks:
            # Each reading instruction leads to the one after it; a search may begin anew anywhere.
            kernel = (reading & mask) << 1 | 1
            following = by_kernel.get(kernel)
            if following is None:
                following = by_kernel[kernel] = state_of(_union(kernel, within_from), bool(kernel & may_end))
            row.append(following)
    return start, table, ends


def _union(kernel: int, reach: list[int]) -> int:
    """All that is reached from any of these bits."""
    found, todo = 0, kernel
    while todo:
        found |= reach[(todo & -todo).bit_length() - 1]
        todo &= ~found
    return found


def _alphabet(program: _Program) -> tuple[list[int], list[int]]:
    """Where classes of characters begin; and for each class which instructions read it, as bits."""
    cuts = sorted({0, *(c for ranges in program.sets for low, high in ranges for c in (low, high + 1))})
    cuts = [c for c in cuts if c <= LAST]
    masks = [0] * len(cuts)
    for ranges, readers in program.sets.items():
        for low, high in ranges:
            for at in range(bisect_right(cuts, low) - 1, bisect_right(cuts, high)):
                masks[at] |= readers
    return cuts, masks


# ----------------------------------------------------------------- the program


class _Op(NamedTuple):
    """`read` goes to the next one on a character; `split` and `jump` go at once; `begin`, `end` if so."""

    kind: str
    to: tuple[int, ...] = ()


class _Program:
    """Instructions of a non-deterministic machine that starts at 0."""

    def __init__(self) -> None:
        self.ops: list[_Op] = []
        self.sets: dict[Ranges, int] = {}
        """For each set of characters, the instructions that read it, as bits."""
        self.reading = 0
        self._visits = 0

    def add(self, op: _Op) -> int:
        if len(self.ops) >= PROGRAM_MAX:
            raise PatternFault(f"too long once its repeats are written out ({PROGRAM_MAX} steps at most)")
        self.ops.append(op)
        return len(self.ops) - 1

    def emit(self, node: Node) -> None:
        # Repeats of nothing add no instruction, but take time: they are counted too.
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise PatternFault("too long once its repeats are written out")
        if node.kind == "set":
            bit = 1 << self.add(_Op("read"))
            self.reading |= bit
            self.sets[node.ranges] = self.sets.get(node.ranges, 0) | bit
        elif node.kind == "cat":
            for part in node.parts:
                self.emit(part)
        elif node.kind == "alt":
            self._emit_either(node.parts)
        elif node.kind == "repeat":
            self._emit_repeat(node)
        else:
            self.add(_Op(node.kind))

    def _emit_either(self, parts: tuple[Node, ...]) -> None:
        leave = []
        for part in parts[:-1]:
            split = self.add(_Op("split"))
            self.emit(part)
            leave.append(self.add(_Op("jump")))
            self.ops[split] = _Op("split", (split + 1, len(self.ops)))
        self.emit(parts[-1])
        for jump in leave:
            self.ops[jump] = _Op("jump", (len(self.ops),))

    def _emit_repeat(self, node: Node) -> None:
        for _ in range(node.least):
            self.emit(node.parts[0])
        if node.most is None:
            split = self.add(_Op("split"))
            self.emit(node.parts[0])
            self.add(_Op("jump", (split,)))
            self.ops[split] = _Op("split", (split + 1, len(self.ops)))
            return
        splits = []
        for _ in range(node.most - node.least):
            splits.append(self.add(_Op("split")))
            self.emit(node.parts[0])
        for split in splits:
            self.ops[split] = _Op("split", (split + 1, len(self.ops)))

    def targets(self, at: int, begin: bool, end: bool) -> tuple[int, ...]:
        """Where this instruction leads to without reading."""
        op = self.ops[at]
        if op.kind in ("split", "jump"):
            return op.to
        return (at + 1,) if (op.kind == "begin" and begin) or (op.kind == "end" and end) else ()

    def reach(self, begin: bool, end: bool) -> list[int]:
        """For each instruction all that are reached from it without reading, as bits."""
        done = [0] * len(self.ops)
        # Backwards, because most lead forward: what lies behind is known already.
        for at in reversed(range(len(self.ops))):
            found = todo = 1 << at
            while todo:
                here = (todo & -todo).bit_length() - 1
                todo &= todo - 1
                if here > at:
                    found |= done[here]
                    todo &= ~done[here]
                    continue
                for target in self.targets(here, begin, end):
                    if not found >> target & 1:
                        found |= 1 << target
                        todo |= 1 << target
            done[at] = found
        return done
