"""Checkers: observers of the invariants, fed with observations and with nothing else.

Rule of this file: it puts them together. An observation enters the picture first, then those
checkers that asked for its kind, found in a dict; so each costs what it looks at. A breach is
noted with its moment and never raised in the middle of a step; a checker that throws ends the
run. A fault outside the assumptions excuses, for its time, breaches of the invariants that it
names in which its own device took part: they are kept apart, not forgotten.
The same object watches a simulated world and a recorded history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from controller.core.fleet import Offer, whole_capacity
from controller.core.records import AttemptRow, DeviceRow, JobRow, Row, TaskRow
from protocol.tasks import AttemptId
from sim.checking.audit import EveryChangeIsAudited
from sim.checking.base import Checker, Heard
from sim.checking.instead import MassSilenceFreezes, OnlyTimeFrees, TwoAreQuarantined, WaitsAfterRestore
from sim.checking.levelling import MovesWithMeasure
from sim.checking.picture import Picture
from sim.checking.placement import (
    AfterOthers,
    Apart,
    Bounded,
    GangsWhole,
    OneRunAtATime,
    OnlyLower,
    OwnDevice,
    WelcomeThere,
)
from sim.checking.records import Accounts, NumbersRise, OneResult, RoomIsKept
from sim.checking.runs import CancelledEnds, NothingStartsWhereShut, OneLiveRun, StartsOnce
from sim.checking.state import RestartMovesNothing, Settling, ShownIsSo, StaysBounded
from sim.checking.traffic import OutputIsKept, OwnTopicsOnly
from sim.observations import (
    Committed,
    DatabaseRestored,
    Delivered,
    JobAccepted,
    JournalLost,
    Observation,
    OutOfBounds,
    RunBegan,
    RunEnded,
    RunFrozen,
    RunThawed,
)
from sim.plan import Breach

INVARIANTS: dict[str, str] = {
    "I1": "no two live runs of one at_most_one task",
    "I2": "every accepted task is in exactly one state and none vanishes",
    "I3": "at most one accepted result per task, of the then current attempt",
    "I4": "attempt numbers rise in the order of commits and are committed before they are told",
    "I5": "each new reservation keeps reserved <= capacity",
    "I6": "nothing starts on a device later than hold after it was shut out, nor after that was effective",
    "I7": "no live run later than hold after its cancel",
    "I8": "stored output is the distinct acknowledged output",
    "I9": "shown online means the highest session's device, heard within the limit",
    "I10": "each state change has one audit row with an actor",
    "I11": "with faults over, every runnable task runs exactly once and moves stop",
    "I12": "restarting one component changes no assignment",
    "I13": "nothing under another device's topic is read or written",
    "I14": "memory, files, database and retained count stay bounded",
    "I15": "a (task, attempt) starts at most once",
    "P1": "a gang is placed as a whole or not at all",
    "P2": "no more tasks of a job share a device or a value than it allows",
    "P3": "a daemon's task is placed on its own device, and no device has two of a daemon",
    "P4": "nothing of a job is placed before what it depends on is over",
    "P5": "no more tasks of a job are out at a time than its parallel_max",
    "P6": "only a priority that is higher by ten sends an attempt away, and never a daemon's",
    "P7": "nothing new is placed where a decision, a demand, a taint or a guard speaks against it",
    "P8": "a cron job without overlap has one open run at most",
    "P9": "for balance only what may be moved is, once it has rested, and never too much at a time",
    "X1": "instead of what an old copy of the database lost: nothing is placed for one hold after it",
    "X2": "instead of what one identity twice suspends: A, B and A again quarantines the device",
    "X3": "instead of what one identity twice suspends: in a quarantine only time frees at_most_one work",
    "X4": "instead of failover when a site falls silent: it is frozen",
}

CHECKERS: dict[str, type[Checker]] = {
    "I1": OneLiveRun,
    "I2": Accounts,
    "I3": OneResult,
    "I4": NumbersRise,
    "I5": RoomIsKept,
    "I6": NothingStartsWhereShut,
    "I7": CancelledEnds,
    "I8": OutputIsKept,
    "I9": ShownIsSo,
    "I10": EveryChangeIsAudited,
    "I11": Settling,
    "I12": RestartMovesNothing,
    "I13": OwnTopicsOnly,
    "I14": StaysBounded,
    "I15": StartsOnce,
    "P1": GangsWhole,
    "P2": Apart,
    "P3": OwnDevice,
    "P4": AfterOthers,
    "P5": Bounded,
    "P6": OnlyLower,
    "P7": WelcomeThere,
    "P8": OneRunAtATime,
    "P9": MovesWithMeasure,
    "X1": WaitsAfterRestore,
    "X2": TwoAreQuarantined,
    "X3": OnlyTimeFrees,
    "X4": MassSilenceFreezes,
}


class Clock(Protocol):
    """The observer's time, and where breaches are written down."""

    now_ms: int

    def trace(self, who: str, what: str, payload: bytes = b"") -> None: ...


class Checkers:
    """All observers, and what they found."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seen = Picture()
        self.offer: Offer = whole_capacity
        self.breaches: list[Breach] = []
        self.excused: list[Breach] = []
        """Breaches that an `OutOfBounds` fault had announced."""
        self._bounds: list[OutOfBounds] = []
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._waits = 0
        self.by_name = {name: make(self) for name, make in CHECKERS.items()}
        self._by_channel: dict[str, tuple[Heard, ...]] = {}
        self._heard = self._table()
        self._take = self._taken_in()

    def _table(self) -> dict[type[Observation], tuple[Heard, ...]]:
        table: dict[type[Observation], tuple[Heard, ...]] = {}
        for checker in self.by_name.values():
            checker.hears_of = checker.hears()
            for kind, hear in checker.hears_of.items():
                table[kind] = (*table.get(kind, ()), hear)
        own = [c.on_commit for c in self.by_name.values() if type(c).on_commit is not Checker.on_commit]
        self._on_commit = tuple(own)
        return table

    def _taken_in(self) -> dict[type[Observation], Callable[[Any], object]]:
        seen = self.seen
        return {
            RunBegan: seen.began,
            RunEnded: lambda o: seen.ended(o.device, o.task, o.attempt),
            RunFrozen: lambda o: seen.froze(o.device, o.task, o.attempt),
            RunThawed: lambda o: seen.thawed(o.device, o.task, o.attempt),
            JournalLost: lambda o: seen.forgetful.__setitem__(o.device, None),
            JobAccepted: lambda o: seen.accepted.__setitem__(o.job, o.count),
            Committed: self._commit,
            DatabaseRestored: self._restore,
            OutOfBounds: self._bound,
        }

    # ------------------------------------------------------------- what happens

    def saw(self, observation: Observation) -> None:
        """Takes one observation in; they come in the order in which things happened."""
        if self._waiting and self._waiting[0][0] < observation.at_ms:
            self._look(observation.at_ms)
        kind = type(observation)
        take = self._take.get(kind)
        if take is not None:
            take(observation)
        hearers = self._heard.get(kind, ()) if kind is not Delivered else self._about(observation)
        for hear in hearers:
            hear(observation)

    def _about(self, delivery: Any) -> tuple[Heard, ...]:
        """Who hears of this delivery: most checkers want few channels, and most news are deliveries."""
        channel = delivery.topic.rpartition("/")[2]
        found = self._by_channel.get(channel)
        if found is None:
            wants = [c for c in self.by_name.values() if not c.channels or channel in c.channels]
            found = tuple(c.hears_of[Delivered] for c in wants if Delivered in c.hears_of)
            self._by_channel[channel] = found
        return found

    def _commit(self, commit: Committed) -> None:
        changes = self.seen.commit(commit.at_ms, commit.epoch, commit.rows)
        for judge in self._on_commit:
            judge(changes)

    def _restore(self, copy: DatabaseRestored) -> None:
        self.seen.restored(copy)
        for checker in self.by_name.values():
            checker.on_restored(copy)

    def _bound(self, fault: OutOfBounds) -> None:
        """A fault that is over says so once more, with its last moment."""
        self._bounds[:] = [b for b in self._bounds if (b.device, b.why) != (fault.device, fault.why)]
        self._bounds.append(fault)

    def finish(self) -> None:
        """The end of the history: what was waited for is looked at, and the accounts."""
        self._look(self.clock.now_ms)
        for checker in self.by_name.values():
            checker.finish(self.clock.now_ms)

    # ------------------------------------------------------------- what checkers ask for

    def wait(self, due_ms: int, look: Callable[[], None]) -> None:
        self._waits += 1
        heapq.heappush(self._waiting, (due_ms, self._waits, look))

    def _look(self, now_ms: int) -> None:
        while self._waiting and self._waiting[0][0] < now_ms:
            heapq.heappop(self._waiting)[2]()

    def breach(self, invariant: str, text: str, devices: tuple[str, ...] = (), excused: bool = False) -> None:
        """An invariant did not hold; `devices` took part in it."""
        found = Breach(self.clock.now_ms, invariant, text)
        excused = excused or self.outside(invariant, *devices)
        self.clock.trace("CHECKER", f"{'excused ' if excused else ''}{found}")
        (self.excused if excused else self.breaches).append(found)

    def outside(self, invariant: str, *devices: str) -> bool:
        if self._bounds:
            now_ms = self.clock.now_ms
            self._bounds[:] = [b for b in self._bounds if now_ms <= b.until_ms]
        return any(invariant in b.invariants and (not b.device or b.device in devices) for b in self._bounds)

    # ------------------------------------------------------------- what others read

    @property
    def live(self) -> dict[str, list[tuple[str, RunBegan]]]:
        return self.seen.live

    @property
    def starts(self) -> dict[AttemptId, int]:
        return self.seen.starts

    @property
    def start_times(self) -> list[tuple[int, str, AttemptId]]:
        return self.seen.start_times

    @property
    def jobs(self) -> dict[str, JobRow]:
        return self.seen.jobs

    @property
    def tasks(self) -> dict[str, TaskRow]:
        return self.seen.tasks

    @property
    def attempts(self) -> dict[AttemptId, AttemptRow]:
        return self.seen.attempts

    @property
    def devices(self) -> dict[str, DeviceRow]:
        return self.seen.devices

    @property
    def accepted(self) -> dict[str, int]:
        return self.seen.accepted

    @property
    def forgetful(self) -> dict[str, None]:
        return self.seen.forgetful

    @property
    def settling(self) -> Settling:
        """Who can tell whether everything is as it should be (I11)."""
        found = self.by_name["I11"]
        assert isinstance(found, Settling)
        return found

    # ------------------------------------------------------------- what the simulated database tells

    def committed(self, rows: Sequence[Row], epoch: int = 0) -> None:
        self.saw(Committed(self.clock.now_ms, epoch, tuple(rows)))

    def restored(self, snapshot: Sequence[Row], marked: bool = True) -> None:
        self.saw(DatabaseRestored(self.clock.now_ms, tuple(snapshot), marked))
