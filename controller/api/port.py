"""The port: all that the API needs of the program around it.

Rule: the API asks the core by events and reads history from the store, both through
here; it opens no file, no socket and no database of its own. The app implements it over
the driver and the store, a test in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, Protocol, TypeVar

from controller.core.events import (
    DeviceDecision,
    DevicePinged,
    DevicesQueried,
    FleetQueried,
    FleetUnfrozen,
    JobCancelled,
    JobSubmitted,
    PlanAsked,
    RebalanceAsked,
    RebalanceDecided,
    RebalancesQueried,
    TaskExplained,
    WaitsQueried,
)
from controller.core.records import AttemptRow, AuditRow, TaskRow
from controller.store.base import Counts, JobSummary, OutputPiece, TokenRow
from firmware_profiles import Catalogue

P = ParamSpec("P")
T = TypeVar("T")

Question = (
    JobSubmitted
    | JobCancelled
    | DeviceDecision
    | DevicePinged
    | FleetUnfrozen
    | DevicesQueried
    | FleetQueried
    | TaskExplained
    | PlanAsked
    | RebalanceAsked
    | RebalanceDecided
    | RebalancesQueried
    | WaitsQueried
)
"""Events that a `Reply` with the same `request` answers."""


class Busy(Exception):
    """The inbox is full: nothing was done, try again in a moment."""


class SaveLost(Exception):
    """The save behind the answer failed, or the core was rebuilt: nothing was promised."""


class NoAnswer(Exception):
    """No answer in time; what was asked for may still happen."""


class CorePort(Protocol):
    """What the app gives to the API. All of it is called from one event loop."""

    @property
    def store(self) -> StoreReads: ...

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a read of `store` in a reader thread."""
        ...

    @property
    def profiles(self) -> Catalogue:
        """Device classes that are known here."""
        ...

    def next_request(self) -> int: ...

    async def ask(self, question: Question) -> object:
        """The body of the core's reply. Raises `Busy`, `SaveLost`, `NoAnswer`."""
        ...

    def wall_ms(self) -> int: ...

    async def add_device(self, device: str) -> str:
        """Makes credential and ACL; returns the text of the `agent.toml`. Raises `BrokerRefused`."""
        ...

    async def remove_device(self, device: str) -> None:
        """Takes credential and ACL away; not an error when there is none. Raises `BrokerRefused`."""
        ...

    def metrics(self) -> Mapping[str, int | float]:
        """The program's own figures by name, as `inbox_lag_ms`, `saves_total`; `_total` counts upward."""
        ...

    def health(self) -> Mapping[str, bool]:
        """What has to be true before work is taken: `store`, `broker`, `leader`, …"""
        ...

    def standby_of(self) -> str:
        """Who leads while this controller stands by; empty when it does not."""
        ...


class StoreReads(Protocol):
    """The reads of the store's contract that the API uses; they block and may raise `StoreError`."""

    def jobs(
        self, after: str = "", limit: int = 100, state: str = "", name: str = ""
    ) -> list[JobSummary]: ...

    def job(self, job: str) -> JobSummary | None: ...

    def tasks(
        self, job: str = "", device: str = "", state: str = "", after: str = "", limit: int = 100
    ) -> list[TaskRow]: ...

    def task(self, task: str) -> TaskRow | None: ...

    def attempts(self, task: str) -> list[AttemptRow]: ...

    def story(self, object: str) -> list[AuditRow]: ...

    def output(self, task: str, attempt: int, stream: int, offset: int, limit: int) -> OutputPiece: ...

    def counts(self) -> Counts: ...

    def token(self, hash: str) -> TokenRow | None: ...
