"""The database that controllers share: durable and linear, and otherwise as trying as a real one.

Rule of this file: a transaction happens in one moment, all or nothing, and is told to the
watcher in that moment, with the epoch it was conditional on. What can go wrong lies around
it: it refuses (full), it is out of reach for one controller, it takes a while, and then who
asked may be dead, stopped or cut off when it is done. Its wall clock is its own and jumps.
It knows rows and leader rows, no core. The store inside is given.
Rejected: a commit that is half done, or forgotten (outside the assumptions, §11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controller.core.leadership import Led, Takeover
from controller.core.records import LeaderRow, Row, Snapshot
from sim.clockwork import Clockwork

WALL_OFFSET_MS = 1_700_000_000_000
"""What every wall clock shows beyond the world's, until one jumps."""
GIVE_UP_MS = 3_000
"""A controller waits so long for an answer that will not come."""


class LeaderStore(Protocol):
    """The few words of a store that a core is driven by."""

    def lead(
        self, holder: str, above: int, wall_ms: int, unrenewed: LeaderRow | None = None
    ) -> tuple[LeaderRow, Takeover]: ...

    def renew(self, epoch: int, wall_ms: int) -> None: ...

    def mark_clean(self, epoch: int) -> None: ...

    def load(self) -> Snapshot: ...

    def save(self, rows: Sequence[Row], epoch: int) -> None: ...


class StoredTables(Protocol):
    """A copy of everything stored, by key."""

    @property
    def jobs(self) -> dict[Any, Any]: ...

    @property
    def tasks(self) -> dict[Any, Any]: ...

    @property
    def attempts(self) -> dict[Any, Any]: ...

    @property
    def devices(self) -> dict[Any, Any]: ...


@dataclass(slots=True)
class Storage:
    """A store and the errors by which it refuses; `fails` makes it refuse on demand."""

    store: LeaderStore
    errors: tuple[type[Exception], ...]
    fails: bool = False


class StorageRefused(Exception):
    """The store did not take it; nothing was half done."""


class AnswerLost(StorageRefused):
    """No answer came: it may have been done."""


class CommitWatcher(Protocol):
    """Who is told what was committed, in the order of commits."""

    def committed(self, rows: Sequence[Row], epoch: int = 0) -> None: ...

    def restored(self, snapshot: Sequence[Row], marked: bool = True) -> None: ...


class Database:
    """One store for all controllers of a world."""

    def __init__(self, clock: Clockwork, storage: Storage, watcher: CommitWatcher) -> None:
        self.clock = clock
        self.storage = storage
        self.watcher = watcher
        self.refusals: tuple[type[Exception], ...] = (*storage.errors, StorageRefused, Led)
        self.wall_offset_ms = WALL_OFFSET_MS
        self.cuts: dict[str, None] = {}
        """Controllers that can't reach it."""
        self.slow_ms = 0
        """A transaction takes up to so long, the way there and back included."""
        self._life = 0
        """How often a copy was put back: what was asked before does not reach it."""
        self._rng = clock.stream("database")

    # ------------------------------------------------------------- its own troubles

    def wall_ms(self) -> int:
        return self.clock.now_ms + self.wall_offset_ms

    def jump_wall(self, ms: int) -> None:
        """Its wall clock is set: an hour, or ten years, forward or back."""
        self.clock.trace("database", f"wall clock jumps {ms}")
        self.wall_offset_ms += ms

    def cut(self, holder: str) -> None:
        self.clock.trace("database", f"out of reach for {holder}")
        self.cuts[holder] = None

    def heal(self, holder: str) -> None:
        if self.cuts.pop(holder, "") is None:
            self.clock.trace("database", f"in reach for {holder}")

    # ------------------------------------------------------------- transactions

    def ask(self, holder: str, work: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Has `work` done, and `answer` told what it returned, or the exception it ended with.

        At once, unless the database is slow or out of reach. Nobody can take back what was
        asked: if the asker dies meanwhile it is done all the same, and nobody hears of it.
        """
        if not self.slow_ms and holder not in self.cuts:
            answer(self._attempt(work))
            return
        there_ms, back_ms = (self._rng.randint(0, self.slow_ms // 2) for _ in range(2))
        life = self._life

        def arrive() -> None:
            if holder in self.cuts or life != self._life:
                self._lose(answer)
                return
            found = self._attempt(work)
            self.clock.after(back_ms, lambda: self._return(holder, answer, found))

        self.clock.after(there_ms, arrive)

    def _return(self, holder: str, answer: Callable[[Any], None], found: Any) -> None:
        if holder in self.cuts:
            self._lose(answer)
        else:
            answer(found)

    def _lose(self, answer: Callable[[Any], None]) -> None:
        self.clock.after(GIVE_UP_MS, lambda: answer(AnswerLost("no answer")))

    def _attempt(self, work: Callable[[], Any]) -> Any:
        try:
            if self.storage.fails:
                raise StorageRefused("it refuses")
            return work()
        except self.refusals as refusal:
            return refusal

    def lead(
        self, holder: str, above: int, unrenewed: LeaderRow | None
    ) -> tuple[LeaderRow, Takeover, Snapshot]:
        """Raises `Led`, and what the store raises."""
        leader, found = self.storage.store.lead(holder, above, self.wall_ms(), unrenewed)
        return leader, found, self.storage.store.load()

    def save(self, rows: Sequence[Row], epoch: int) -> None:
        """Rows in one transaction, the leader's own row as a renewal. Raises what the store raises."""
        plain = [row for row in rows if not isinstance(row, LeaderRow)]
        if plain:
            self.storage.store.save(plain, epoch)
            self.watcher.committed(plain, epoch)
        if len(plain) < len(rows):
            self.storage.store.renew(epoch, self.wall_ms())

    # ------------------------------------------------------------- backups

    def backup(self) -> StoredTables:
        """A copy of all of it as it is now."""
        store: Any = self.storage.store
        tables: StoredTables = store.snapshot()
        return tables

    def restore(self, tables: StoredTables, marked: bool) -> None:
        """Puts a copy back; `marked`: and says that it is one. Nobody may lead meanwhile."""
        store: Any = self.storage.store
        self.clock.trace("database", f"restored {'marked' if marked else 'unmarked'}")
        self._life += 1
        store.restore(tables)
        if marked:
            store.mark_restored()
        kinds = (tables.jobs, tables.tasks, tables.devices, tables.attempts)
        self.watcher.restored([row for kind in kinds for row in kind.values()], marked)
