"""The store's contract: a few words of plain data, its errors, and what its reads answer.

Rules every store keeps: a `save` is one transaction, all or nothing, and only while the
leader row carries the caller's epoch; of two rows with the same key the later wins; reads
never wait for a save. Task ids are `<job>.<index>`, job ids hold no dot, text is encodable
as UTF-8 and integers fit 63 bits (a device's session 64): else the caller has a bug and
gets `LocalMistake`. Rows handed over or handed out are never shared with the caller.
The contract knows no SQL, no clock and no event loop: every word blocks, `saver.py` waits.
Rejected: a query language (each list the API shows is one word here); a store that leads
by itself (leadership is the caller's, the row only fences).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.core.leadership import Led, Takeover
from controller.core.records import (
    KEYS,
    AttemptRow,
    AuditRow,
    JobRow,
    LeaderRow,
    OutputRow,
    Row,
    Snapshot,
    TaskRow,
)
from protocol.errors import LocalMistake

CLEAN_STOP = "clean_stop"
"""Fleet fact: the last leader stopped in good order; `lead` consumes it."""
RESTORED = "restored"
"""Fleet fact, `restore` or `stale`: this copy may be older than the fleet. It stays until the
leader saves it as "" in the commit that also holds its wait: a crash between must not lose it."""

PAGE_ROWS_MAX = 1_000
"""A list never answers more: one page is one statement and one JSON body."""
STORY_ROWS_MAX = 1_000
"""The newest rows of an object's story; a service that flaps for a year has more."""
OUTPUT_PIECE_BYTES_MAX = 1_048_576
RECENT_MS = 3_600_000
RECENT_ATTEMPTS_MAX = 20_000
"""Ended attempts that a fresh core still knows by device: late output comes within minutes."""

_KINDS = frozenset({*KEYS, AuditRow, OutputRow})
_TASK_ID = re.compile(r"([^.]+)\.(0|[1-9][0-9]{0,9})\Z")


class StoreError(Exception):
    """World trouble: disk full, locked, I/O error. Nothing was half done; later may work again."""


class Fenced(Exception):
    """The leader row carries another epoch: somebody else leads, this one must stop speaking."""


class StoreUnusable(Exception):
    """Can't be opened at all; one line for people, saying what to do."""


@dataclass(slots=True)
class JobSummary:
    """A job and how many of its tasks are in each state (every state is named)."""

    row: JobRow
    tasks: dict[str, int]


@dataclass(slots=True)
class Counts:
    """The whole store at a glance; every state is named."""

    tasks: dict[str, int]
    jobs: dict[str, int]
    output_bytes: int


@dataclass(slots=True)
class OutputPiece:
    """Bytes from `offset + gap` on; `gap` bytes before them are missing (so far).

    `next_offset` is where to read on. `complete`: the output ends there.
    """

    data: bytes
    next_offset: int
    complete: bool
    gap: int


@dataclass(slots=True)
class Pruned:
    """What one call deleted; `more` when the next call would delete still more."""

    jobs: int = 0
    tasks: int = 0
    attempts: int = 0
    audit: int = 0
    output: int = 0
    more: bool = False


@dataclass(slots=True)
class TokenRow:
    """A bearer token, known only by its hash."""

    hash: str
    name: str
    scope: str
    created_at: int


@dataclass(slots=True)
class AuditEntry:
    """An audit row with its place in the order of commits."""

    number: int
    row: AuditRow


class Store(Protocol):
    """The whole contract. Any word may raise `StoreError`."""

    def open(self) -> None:
        """Raises `StoreUnusable`."""

    def close(self) -> None: ...

    # ------------------------------------------------------------------ the leader writes

    def lead(
        self, holder: str, above: int, wall_ms: int, unrenewed: LeaderRow | None = None
    ) -> tuple[LeaderRow, Takeover]:
        """Commit a new epoch: max(stored + 1, unix seconds, above + 1).

        The same holder leads again at once: it says that its former process is over. Another
        one only after an orderly stop, or while the row is still `unrenewed`, which it has
        watched for long enough (`core.leadership`). Raises `Led`, with the row as it is.
        """

    def renew(self, epoch: int, wall_ms: int) -> None:
        """Raises `Fenced`."""

    def mark_clean(self, epoch: int) -> None:
        """The leader stops in good order, everything is saved. Raises `Fenced`."""

    def mark_restored(self) -> None:
        """Called on a copy that was put back from a backup, while nobody leads."""

    def load(self) -> Snapshot:
        """What a core is built from. Only for who leads; every list in the order of its key."""

    def save(self, rows: Sequence[Row], epoch: int) -> None:
        """One transaction. Raises `Fenced`."""

    def prune(self, before_wall_ms: int, tasks_max: int, output_bytes_max: int) -> Pruned:
        """Delete old history, a bounded piece per call; raises `Fenced`.

        Finished jobs, oldest end first, with all that is theirs: those that ended before
        `before_wall_ms`, and more while there are over `tasks_max` tasks or
        `output_bytes_max` bytes of output. Then audit rows from before, and attempts that
        ended before, were superseded by a newer one and are in no document (a service may
        restart for ever).
        """

    # ------------------------------------------------------------------ anybody reads

    def jobs(self, after: str = "", limit: int = 100, state: str = "", name: str = "") -> list[JobSummary]:
        """Newest id first; `after` is the last id seen."""

    def job(self, job: str) -> JobSummary | None: ...

    def tasks(
        self, job: str = "", device: str = "", state: str = "", after: str = "", limit: int = 100
    ) -> list[TaskRow]:
        """In the order of (job, index); `after` is the last id seen."""

    def task(self, task: str) -> TaskRow | None: ...

    def attempts(self, task: str) -> list[AttemptRow]:
        """By number; the newest PAGE_ROWS_MAX."""

    def story(self, object: str) -> list[AuditRow]:
        """Audit rows of one job, task or device, oldest first; the newest STORY_ROWS_MAX."""

    def audit(self, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """In the order of commits, those with a higher number than `after`."""

    def output(self, task: str, attempt: int, stream: int, offset: int, limit: int) -> OutputPiece:
        """One stream from `offset` on, at most `limit` bytes, up to the next gap."""

    def counts(self) -> Counts:
        """Cheap at any size."""

    # ------------------------------------------------------------------ tokens, not fenced

    def add_token(self, hash: str, name: str, scope: str, created_at: int) -> None: ...

    def revoke_tokens(self, name: str) -> int:
        """Revoke every token of that name; how many there were."""

    def token(self, hash: str) -> TokenRow | None: ...


def check_leader(
    holder: str, leader: LeaderRow | None, clean: bool, unrenewed: LeaderRow | None
) -> LeaderRow | None:
    """The row that `holder` may take over; None in a new database. Raises `Led` (rule L6)."""
    if leader is not None and leader.holder != holder and not clean and leader != unrenewed:
        raise Led(leader)
    return leader


def renewed_at(before_ms: int, wall_ms: int) -> int:
    """When a renewal is said to have been: never what stood there, or who watches would not see it."""
    return wall_ms if wall_ms != before_ms else wall_ms + 1


def next_epoch(stored: int, wall_ms: int, above: int) -> int:
    """Rule L6: above what is stored and what was seen, and above what a restored copy could hold."""
    return max(stored + 1, wall_ms // 1000, above + 1)


def split_task(task: str) -> tuple[str, int] | None:
    """(job, index) of a task id; None for what is none."""
    match = _TASK_ID.match(task)
    return (match[1], int(match[2])) if match else None


def task_cursor(after: str) -> tuple[str, int]:
    """Where a list of tasks goes on; text that is no task id stands before the job of that name."""
    return split_task(after) or (after, -1)


def page_rows(limit: int) -> int:
    """A page size within bounds."""
    return max(1, min(limit, PAGE_ROWS_MAX))


def check_rows(rows: Sequence[Row]) -> None:
    """Raises `LocalMistake` for what no store keeps, or an id not of the form that keys rest on."""
    for row in rows:
        kind = type(row)
        if kind not in _KINDS:
            raise LocalMistake(f"no table for {kind.__name__}")
        if kind is TaskRow and row.id != f"{row.job}.{row.index}":  # type: ignore[union-attr]
            raise LocalMistake(f"task id {row.id} is not {row.job}.{row.index}")  # type: ignore[union-attr]
        if kind is JobRow and "." in row.id:  # type: ignore[union-attr]
            raise LocalMistake(f"job id {row.id} holds a dot")  # type: ignore[union-attr]
