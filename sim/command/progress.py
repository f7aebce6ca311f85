"""Progress: how far a long command is, on stderr, for people.

Rule of this file: it never writes to stdout and never stops a run. On a terminal a bar with
an estimate of the rest (tqdm: resizing, rates and terminals are harder than they look);
elsewhere a plain line every few seconds, since a log has no use for carriage returns.
"""

from __future__ import annotations

import sys
import time
from typing import Any

LINE_EVERY_S = 5.0


class Progress:
    """Counts to `total`; `quiet` says nothing but what is told by `tell`."""

    def __init__(self, total: int, unit: str, quiet: bool = False) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._began_s = self._said_s = time.monotonic()
        self._quiet = quiet or total <= 1
        self._note = ""
        self._bar = None if self._quiet else _bar(total, unit)

    def step(self, note: str = "") -> None:
        """One more is done; `note` stands beside the count."""
        self.done += 1
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
        elif not self._quiet and time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            _write(self.line())

    def line(self) -> str:
        """`120 of 1,000 seeds, 0:32 left, 0 failed`."""
        passed_s = time.monotonic() - self._began_s
        left_s = int(passed_s / max(1, self.done) * (self.total - self.done))
        note = f", {self._note}" if self._note else ""
        return f"{self.done:,} of {self.total:,} {self.unit}, {left_s // 60}:{left_s % 60:02} left{note}"

    def tell(self, text: str) -> None:
        """A line that stays, whether quiet or not."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            _write(text)

    def close(self) -> None:
        """Leaves the terminal in order; may be called twice."""
        if self._bar is not None:
            self._bar.close()


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody listens to the talk; the data still goes out


def _bar(total: int, unit: str) -> Any:
    """A bar where there is a terminal and the library; None: lines will do."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, smoothing=0.05)
