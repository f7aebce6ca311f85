"""What an agent asks of its world, beside what `protocol.core` already names.

Run words are ordered: the host performs them as they come. Deadlines are milliseconds
of CLOCK_BOOTTIME; 0 means none. Nothing here is answered by a return value.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.core import Effect
from protocol.messages import AssignedAttempt


@dataclass(slots=True)
class ConfirmSave(Effect):
    """Stands right behind a `Save`: feed `SaveConfirmed(session)` when this is reached."""

    session: int


@dataclass(slots=True)
class ListRuns(Effect):
    """Ask the run host what lives and what ended; answered by `HostListed(ask)`."""

    ask: int


@dataclass(slots=True)
class StartRun(Effect):
    """Execute this attempt, not at or after its deadline; answered by `RunStarted` or `RunRefused`."""

    attempt: AssignedAttempt
    deadline_ms: int


@dataclass(slots=True)
class ExtendRun(Effect):
    """Move a live run's deadline forward; never back."""

    task: str
    attempt: int
    deadline_ms: int


@dataclass(slots=True)
class StopRun(Effect):
    """End a run: TERM, KILL after the grace; answered by `RunExited` when nothing of it lives."""

    task: str
    attempt: int
    grace_ms: int


@dataclass(slots=True)
class ForgetRun(Effect):
    """The host may forget how this run ended."""

    task: str
    attempt: int


@dataclass(slots=True)
class ReadOutput(Effect):
    """Read at most `bytes_max` of a run's captured stream (1 out, 2 err); answered by `OutputRead`.

    `bytes_max` 0 only asks for the size.
    """

    task: str
    attempt: int
    stream: int
    offset: int
    bytes_max: int


@dataclass(slots=True)
class DropOutput(Effect):
    """Remove what a run left on disk; nothing needs it any more."""

    task: str
    attempt: int


@dataclass(slots=True)
class ReadSensors(Effect):
    """Measure; answered by `SensorsRead`."""


@dataclass(slots=True)
class Quit(Effect):
    """Everything is said and done: the process may end."""
