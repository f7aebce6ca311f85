"""Departure: leaving in good order.

Runs first, if they are to end: their ends are saved and reported, so the controller may
free them at once. Then the goodbye, then the end of the process. Each step has a bound:
what does not answer in time is left to the guard, which needs nobody to kill.
"""

from __future__ import annotations

from enum import Enum

STOP_MS_MAX = 15_000
"""Longest wait for runs to end; a grace beyond it is cut short by the guard's own end."""
SETTLE_MS = 300
"""From the last report to the goodbye: it may still be on its way."""
GOODBYE_MS = 2_000
"""Longest wait for the connection to close."""


class Step(Enum):
    """How far the departure is."""

    STAYING = 1
    STOPPING = 2
    REPORTING = 3
    SAYING = 4
    GONE = 5


class Departure:
    """The way out; one direction."""

    def __init__(self) -> None:
        self.step = Step.STAYING
        self.reason = ""
        self._due_ms: int | None = None

    @property
    def leaving(self) -> bool:
        return self.step is not Step.STAYING

    def begin(self, reason: str, stop_runs: bool, now_ms: int) -> None:
        self.reason = reason
        self._go(Step.STOPPING if stop_runs else Step.REPORTING, now_ms + (STOP_MS_MAX if stop_runs else 0))

    def advance(self, living: bool, up: bool, now_ms: int) -> Step | None:
        """The step to take now: `SAYING` (say goodbye), `GONE` (quit), or none."""
        due = self._due_ms is not None and now_ms >= self._due_ms
        if self.step is Step.STOPPING and (due or not living):
            self._go(Step.REPORTING, now_ms + (SETTLE_MS if up else 0))
            due = not up
        if self.step is Step.REPORTING and due:
            self._go(Step.SAYING, now_ms + GOODBYE_MS)
            return Step.SAYING
        if self.step is Step.SAYING and due:
            return self.quit()
        return None

    def quit(self) -> Step:
        self.step, self._due_ms = Step.GONE, None
        return Step.GONE

    def due_ms(self) -> int | None:
        return self._due_ms

    def _go(self, step: Step, due_ms: int) -> None:
        self.step, self._due_ms = step, due_ms
