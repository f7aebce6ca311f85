"""The contract between an agent and whatever runs its tasks: a few words of plain data.

Asking never blocks and never answers by return value: answers come through one callback,
with the identity of the question. A deadline is CLOCK_BOOTTIME milliseconds, 0 for none; it
only moves forward, and nothing starts at or after it. One live run per task; an attempt that
is live or not yet forgotten doesn't start again. What an unreachable host is told is lost:
after `HostLost` comes a `HostListed`, and that is what to reconcile with.

This file knows neither how a run is made nor why. Rejected: awaiting each answer (a start
and its end would have two owners); exceptions for refusals (they are legal answers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

REASONS = ("exited", "signalled", "deadline", "stopped", "timeout", "oom", "guard_lost")
"""Why a run ended. The first two are its own doing; `guard_lost`: nobody saw how."""


@dataclass(slots=True)
class RunSpec:
    """One attempt to run. Amounts and times of 0 mean no limit."""

    task: str
    attempt: int
    runtime: str
    command: tuple[str, ...]
    env: dict[str, str]
    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpu_milli: int = 0
    timeout_ms: int = 0
    stop_grace_ms: int = 5_000
    output_bytes_max: int = 1_048_576
    accelerators: tuple[str, ...] = ()
    """Names of those that it has, or has a share of; told to it and enforced by nobody."""


class HeldRun(NamedTuple):
    """One entry of a list. `pid` is 0 until its program runs."""

    task: str
    attempt: int
    deadline_ms: int
    pid: int


@dataclass(slots=True)
class RunStarted:
    """The program of this attempt is running."""

    task: str
    attempt: int
    pid: int


@dataclass(slots=True)
class RunRefused:
    """This attempt did not run, and will not by this request.

    `failed` tells the task's own fault (no such program) from a refusal by circumstance.
    """

    task: str
    attempt: int
    reason: str
    failed: bool = False


@dataclass(slots=True)
class RunExited:
    """Its whole process tree is gone. `reason` is one of `REASONS`."""

    task: str
    attempt: int
    exit_code: int | None
    signal: int | None
    reason: str


@dataclass(slots=True)
class HostListed:
    """Everything the host holds. `ask` is the question's number, 0 for a list nobody asked for."""

    live: tuple[HeldRun, ...]
    exits: tuple[RunExited, ...]
    ask: int = 0
    containment: str = "strong"
    limits: str = ""


@dataclass(slots=True)
class HostLost:
    """The host doesn't answer: `superseded` for good, anything else until the next list."""

    reason: str


HostAnswer = RunStarted | RunRefused | RunExited | HostListed | HostLost
Answer = Callable[[HostAnswer], None]


class RunHost(Protocol):
    """What an agent asks. Every method returns at once."""

    def start(self, spec: RunSpec, deadline_ms: int) -> None:
        """Answered by `RunStarted` and later `RunExited`, or by `RunRefused`."""

    def extend(self, task: str, attempt: int, deadline_ms: int) -> None:
        """Moves a deadline forward; an earlier one, or an unknown run, is ignored."""

    def stop(self, task: str, attempt: int, grace_ms: int) -> None:
        """TERM, and KILL after the grace; answered by `RunExited`."""

    def forget(self, task: str, attempt: int) -> None:
        """Its exit was saved elsewhere."""

    def list(self, ask: int = 0) -> None:
        """Answered by `HostListed` with the same `ask`."""
