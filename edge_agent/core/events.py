"""What happens to an agent, beside what `protocol.core` already names.

Every event that answers an effect carries the identity of the question: a run's
(task, attempt), a list's `ask`, a read's stream and offset. Stale answers therefore die
where they arrive. Times are milliseconds of the device's CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.core import Event
from protocol.messages import NO_HEALTH, Health, Used


@dataclass(slots=True)
class Booted(Event):
    """The world stands: effects can be performed. Fed once, first."""


@dataclass(slots=True)
class SaveConfirmed(Event):
    """A `Save` whose image named this session is durable (answer to `ConfirmSave`)."""

    session: int


@dataclass(slots=True)
class RunExit:
    """How a run ended, as the run host keeps it until it is told to forget.

    `reason` is one of `exited signalled deadline stopped timeout oom guard_lost`, or free text.
    """

    task: str
    attempt: int
    exit_code: int
    signal: int
    reason: str


@dataclass(slots=True)
class HostListed(Event):
    """The run host's answer to `ListRuns(ask)`: its live runs and the exits it remembers.

    `preparing` are those of `live` whose program doesn't run yet.
    `containment` and `limits` say how the host holds runs (see `Inventory`); empty: unchanged.
    """

    ask: int
    live: tuple[tuple[str, int], ...]
    exits: tuple[RunExit, ...]
    containment: str = ""
    limits: str = ""
    preparing: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class HostLost(Event):
    """The run host is gone. What lived there is dead, or will be before its successor answers."""

    reason: str


@dataclass(slots=True)
class RunStarted(Event):
    """The host executes this attempt."""

    task: str
    attempt: int


@dataclass(slots=True)
class RunRefused(Event):
    """The host will not execute this attempt, now or later.

    `failed` tells the task's own fault (no such program) from a legal refusal (past its
    deadline, another run of this task lives).
    """

    task: str
    attempt: int
    reason: str
    failed: bool = False


@dataclass(slots=True)
class RunExited(Event):
    """The host confirms that nothing of this run lives any more."""

    exit: RunExit


@dataclass(slots=True)
class OutputRead(Event):
    """Answer to `ReadOutput`; `size` is what the stream held when it was read (0: there is none)."""

    task: str
    attempt: int
    stream: int
    offset: int
    data: bytes
    size: int


@dataclass(slots=True)
class SensorsRead(Event):
    """What the device measures of itself; no health: it has no such sensors."""

    used: Used
    health: Health = NO_HEALTH


@dataclass(slots=True)
class StopRequested(Event):
    """The agent shall leave in good order; `stop_runs`: and take its runs with it."""

    reason: str
    stop_runs: bool
