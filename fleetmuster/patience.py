"""Patience: asking again while waiting, with growing pauses, through a controller's restart.

Rule: only waits use it, and only for reading. A controller that is away for a while is
said once and forgiven for `AWAY_MS_MAX`; any other refusal ends the wait at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from fleetmuster.console import Console
from fleetmuster.exits import CommandError, Exit

AWAY_MS_MAX = 30_000  # a restart takes seconds; longer is worth a person's look
PAUSE_MS_MIN = 50
PAUSE_MS_MAX = 1_000
T = TypeVar("T")


class Patience:
    """Time left and pauses of one wait. `timeout_ms` `None`: as long as it takes."""

    def __init__(self, console: Console, timeout_ms: int | None) -> None:
        self._console = console
        self._deadline_ms = None if timeout_ms is None else _now_ms() + timeout_ms
        self._away_since_ms: int | None = None
        self._pause_ms = PAUSE_MS_MIN

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, asked again while the controller is away. Raises `CommandError`."""
        while True:
            try:
                answer = question()
            except CommandError as error:
                self._forgive(error)
                continue
            if self._away_since_ms is not None:
                self._console.say("the controller answers again")
                self._away_since_ms = None
            return answer

    def pause(self) -> bool:
        """Sleeps a little, longer each time; false if the time is up."""
        left_ms = PAUSE_MS_MAX if self._deadline_ms is None else self._deadline_ms - _now_ms()
        if left_ms <= 0:
            return False
        time.sleep(min(self._pause_ms, left_ms) / 1000)
        self._pause_ms = min(self._pause_ms * 3 // 2, PAUSE_MS_MAX)
        return True

    def news(self) -> None:
        """Something changed: more may follow soon, so look again soon."""
        self._pause_ms = PAUSE_MS_MIN

    def _forgive(self, error: CommandError) -> None:
        if error.code not in (Exit.UNREACHABLE, Exit.TIMEOUT):
            raise error
        if self._away_since_ms is None:
            self._away_since_ms = _now_ms()
            self._console.say(f"{error.what}; waiting for it")
        if _now_ms() - self._away_since_ms > AWAY_MS_MAX or not self.pause():
            raise error


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
