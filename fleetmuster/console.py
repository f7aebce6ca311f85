"""Speaking with the person: data on stdout, talk on stderr, questions only where one sits.

Rule: stdout carries nothing but the data that was asked for, so that a pipe can read
it; everything else goes to stderr and `--quiet` silences it, except errors. Text that
came from elsewhere is shown without control characters: a label must not be able to
write to somebody's terminal. Colour only on a terminal and never with NO_COLOR.
It knows no command and no record.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from fleetmuster.exits import CommandError, usage
from fleetmuster.tables import Column, printable, render

WIDTH_IF_UNKNOWN = 80  # what a terminal has that can't say


class Console:
    """The two streams and how to use them."""

    def __init__(
        self, output: str = "table", quiet: bool = False, verbose: bool = False, no_input: bool = False
    ) -> None:
        self.json_wanted = output == "json"
        self._quiet = quiet
        self._verbose = verbose
        self._no_input = no_input

    # ------------------------------------------------------------------ data

    def line(self, text: str) -> None:
        """One line of data, flushed: a reader may wait for it while we go on."""
        if sys.stdout is not None:
            sys.stdout.write(printable(text) + "\n")
            sys.stdout.flush()

    def block(self, text: str) -> None:
        """Several lines of data as they are."""
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()

    def raw(self, data: bytes) -> None:
        """Bytes of a task's output, untouched."""
        if sys.stdout is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def json(self, value: object) -> None:
        self.block(json.dumps(value, indent=2) + "\n")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Cut to the terminal's width only if there is one."""
        width = _width(sys.stdout) if _is_terminal(sys.stdout) else None
        self.block(render(columns, list(rows), width, self._coloured()))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """One `name  value` per line, names aligned; empty values are left out."""
        shown = [(name, value) for name, value in pairs if value]
        widest = max((len(name) for name, _ in shown), default=0)
        self.block("".join(f"{name:<{widest}}  {printable(value)}\n" for name, value in shown))

    # ------------------------------------------------------------------ talk

    def say(self, text: str) -> None:
        if not self._quiet:
            _to_stderr(text)

    def detail(self, text: str) -> None:
        """Only with -v."""
        if self._verbose:
            _to_stderr(text)

    def confirm(self, question: str, expected: str) -> None:
        """Returns only if the person typed `expected`. Raises `CommandError` (usage) otherwise."""
        asks = not self._no_input and _is_terminal(sys.stdin) and _is_terminal(sys.stderr)
        if not asks:
            raise usage(
                f"{question} needs a confirmation and nobody can be asked", "say --yes if it is meant"
            )
        sys.stderr.write(printable(f"{question}? Type {expected} to go on: "))
        sys.stderr.flush()
        if sys.stdin.readline().strip() != expected:
            raise usage("not confirmed; nothing was done")

    def _coloured(self) -> bool:
        return (
            _is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )


def tell_error(error: CommandError) -> None:
    """What failed, why likely, what to do next; on stderr, whatever --quiet says."""
    lines = [f"fm: {error.what}"]
    lines += [f"  why:  {error.why}"] if error.why else []
    lines += [f"  next: {error.next_step}"] if error.next_step else []
    for line in lines:
        _to_stderr(line)


def _to_stderr(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        return  # nobody listens to the talk; the data still goes out


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _width(stream: TextIO) -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH_IF_UNKNOWN
    except (OSError, ValueError):
        return WIDTH_IF_UNKNOWN
