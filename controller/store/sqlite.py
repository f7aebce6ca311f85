"""The durable store: one SQLite file, WAL, synchronous=FULL, one writer.

Rule of this file: a commit happens in `_transaction` or nowhere, and every commit of the
leader starts by looking at the leader row. Reads go to `sqlite_reads.py` on connections of
their own, one per reading thread, so they never wait for a save. It knows nothing of event
loops: each word blocks, and only one thread at a time may call the writing ones.
An flock on `<file>.lock` keeps a second controller off; SIGKILL releases it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from controller.core.leadership import Takeover
from controller.core.records import (
    KEYS,
    AttemptRow,
    AuditRow,
    LeaderRow,
    Row,
    Snapshot,
    TaskRow,
)
from controller.store.base import (
    CLEAN_STOP,
    RESTORED,
    AuditEntry,
    Counts,
    Fenced,
    JobSummary,
    OutputPiece,
    Pruned,
    StoreError,
    StoreUnusable,
    TokenRow,
    check_leader,
    check_rows,
    next_epoch,
    renewed_at,
)
from controller.store.sqlite_prune import Pruner
from controller.store.sqlite_reads import Reads, load
from controller.store.tables import TABLES, statements
from protocol.errors import LocalMistake
from protocol.limits import LEADER_GAP_MS

APPLICATION_ID = 0x464D7374
"""`FMst` in the file's header: a database of somebody else is never written to."""
SQLITE_MIN = (3, 37, 0)
"""STRICT tables."""
BUSY_MS = 5_000
"""A backup or a person's shell holds the file for moments; longer is trouble worth telling."""
CHECKPOINT_PAGES = 4_000
"""16 MiB of log before it moves into the file: a checkpoint costs two more syncs."""
LOG_BYTES_KEPT = 64 * 1024 * 1024
CACHE_KIB = 32_768
STATEMENTS_CACHED = 256
"""Eight tables times 31 chunk sizes, of which few are in use at a time."""


class SqliteStore:
    """`Store` in the file `path`; its directory must exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._lock_fd = -1
        self._epoch = 0
        self._pruner = Pruner()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()

    # ------------------------------------------------------------------ open and close

    def open(self) -> None:
        if sqlite3.sqlite_version_info < SQLITE_MIN:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old, 3.37 or newer is needed")
        try:
            self._take_lock()
            self._writer = self._connect()
            self._prepare(self._writer)
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, sqlite3.Error)):
                raise StoreUnusable(_for_people(self.path, error)) from error
            raise

    def _take_lock(self) -> None:
        # The database itself is made here too, so that its rights are ours before a byte is in it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnusable(f"{self.path} is in use by another controller; stop it first") from None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path,
            timeout=BUSY_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_CACHED,
        )

    def _prepare(self, writer: sqlite3.Connection) -> None:
        version, owner, tables = writer.execute(
            "SELECT (SELECT user_version FROM pragma_user_version),"
            " (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)"
        ).fetchone()
        if tables and owner != APPLICATION_ID:
            raise StoreUnusable(f"{self.path} belongs to another program; choose another data directory")
        scripts = migrations()
        if version > len(scripts):
            raise StoreUnusable(
                f"{self.path} has version {version}, this program knows {len(scripts)};"
                " install a newer fleetmuster or restore an older backup"
            )
        for pragma in _WRITER_PRAGMAS:
            writer.execute(pragma).close()
        for number, script in enumerate(scripts[version:], version + 1):
            _migrate(writer, number, script)

    def close(self) -> None:
        with self._readers_lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()
            self._local = threading.local()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # ------------------------------------------------------------------ the leader writes

    def lead(
        self, holder: str, above: int, wall_ms: int, unrenewed: LeaderRow | None = None
    ) -> tuple[LeaderRow, Takeover]:
        with self._transaction() as db:
            found = db.execute("SELECT epoch, holder, renewed_at FROM leader").fetchone()
            marks = dict(db.execute("SELECT name, value FROM fleet"))
            clean = bool(marks.get(CLEAN_STOP))
            leader = check_leader(holder, LeaderRow(*found) if found else None, clean, unrenewed)
            stored, renewed_ms = (leader.epoch, leader.renewed_at) if leader else (0, wall_ms)
            # A row from the future tells as little about the time since as an old one.
            stale = not clean and abs(wall_ms - renewed_ms) > LEADER_GAP_MS
            marked = bool(marks.get(RESTORED))
            row = LeaderRow(next_epoch(stored, wall_ms, above), holder, wall_ms)
            db.execute("REPLACE INTO leader VALUES (1, ?, ?, ?)", (row.epoch, row.holder, row.renewed_at))
            db.execute("DELETE FROM fleet WHERE name = ?", (CLEAN_STOP,))
            if stale and not marked:
                db.execute("REPLACE INTO fleet VALUES (?, 'stale')", (RESTORED,))
        self._epoch = row.epoch
        return row, Takeover(stale, clean, marked, stored)

    def renew(self, epoch: int, wall_ms: int) -> None:
        with self._transaction(epoch) as db:
            before = db.execute("SELECT renewed_at FROM leader").fetchone()[0]
            db.execute("UPDATE leader SET renewed_at = ?", (renewed_at(before, wall_ms),))

    def mark_clean(self, epoch: int) -> None:
        with self._transaction(epoch) as db:
            db.execute("REPLACE INTO fleet VALUES (?, '1')", (CLEAN_STOP,))

    def mark_restored(self) -> None:
        with self._transaction() as db:
            db.execute("REPLACE INTO fleet VALUES (?, 'restore')", (RESTORED,))

    def load(self) -> Snapshot:
        with self._transaction() as db:  # all of it of one moment
            return load(db)

    def save(self, rows: Sequence[Row], epoch: int) -> None:
        check_rows(rows)
        parts = by_type(rows)
        with self._transaction(epoch) as db:
            for kind, table in TABLES.items():
                for text, values in statements(table, parts[kind]) if kind in parts else ():
                    db.execute(text, values).close()

    def prune(self, before_wall_ms: int, tasks_max: int, output_bytes_max: int) -> Pruned:
        with self._transaction(self._epoch) as db:
            return self._pruner.prune(db, before_wall_ms, tasks_max, output_bytes_max)

    @contextmanager
    def _transaction(self, epoch: int | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing; with `epoch`, only while the leader row carries it. Raises `Fenced`."""
        db = self._open_writer()
        with trouble():
            try:
                db.execute("BEGIN IMMEDIATE")
                if epoch is not None:
                    row = db.execute("SELECT epoch FROM leader").fetchone()
                    if row is None or row[0] != epoch:
                        raise Fenced(f"epoch {row[0] if row else 'of nobody'} leads, not {epoch}")
                yield db
                db.execute("COMMIT")
            except BaseException:
                # Some errors (disk full) have rolled back by themselves.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise LocalMistake("the store is not open")
        return self._writer

    # ------------------------------------------------------------------ anybody reads

    @contextmanager
    def _reads(self) -> Iterator[Reads]:
        with trouble():
            reads: Reads | None = getattr(self._local, "reads", None)
            if reads is None:
                reads = self._local.reads = self._new_reads()
            yield reads

    def _new_reads(self) -> Reads:
        self._open_writer()
        reader = self._connect()
        for pragma in _READER_PRAGMAS:
            reader.execute(pragma).close()
        with self._readers_lock:
            self._readers.append(reader)
        return Reads(reader)

    def jobs(self, after: str = "", limit: int = 100, state: str = "", name: str = "") -> list[JobSummary]:
        with self._reads() as reads:
            return reads.jobs(after, limit, state, name)

    def job(self, job: str) -> JobSummary | None:
        with self._reads() as reads:
            return reads.job(job)

    def tasks(
        self, job: str = "", device: str = "", state: str = "", after: str = "", limit: int = 100
    ) -> list[TaskRow]:
        with self._reads() as reads:
            return reads.tasks(job, device, state, after, limit)

    def task(self, task: str) -> TaskRow | None:
        with self._reads() as reads:
            return reads.task(task)

    def attempts(self, task: str) -> list[AttemptRow]:
        with self._reads() as reads:
            return reads.attempts(task)

    def story(self, object: str) -> list[AuditRow]:
        with self._reads() as reads:
            return reads.story(object)

    def audit(self, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        with self._reads() as reads:
            return reads.audit(after, limit)

    def output(self, task: str, attempt: int, stream: int, offset: int, limit: int) -> OutputPiece:
        with self._reads() as reads:
            return reads.output(task, attempt, stream, offset, limit)

    def counts(self) -> Counts:
        with self._reads() as reads:
            return reads.counts()

    # ------------------------------------------------------------------ tokens

    def add_token(self, hash: str, name: str, scope: str, created_at: int) -> None:
        with self._transaction() as db:
            db.execute("REPLACE INTO tokens VALUES (?, ?, ?, ?)", (hash, name, scope, created_at))

    def revoke_tokens(self, name: str) -> int:
        with self._transaction() as db:
            return db.execute("DELETE FROM tokens WHERE name = ?", (name,)).rowcount

    def token(self, hash: str) -> TokenRow | None:
        with self._reads() as reads:
            return reads.token(hash)


_WRITER_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}",
    f"PRAGMA cache_size = -{CACHE_KIB}",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA foreign_keys = OFF",
)
_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA temp_store = MEMORY")


def by_type(rows: Sequence[Row]) -> dict[type, list[Row]]:
    """Rows of each type in their order; of those with one key only the last."""
    parts: dict[type, list[Row]] = {}
    for row in rows:
        parts.setdefault(type(row), []).append(row)
    for kind, part in parts.items():
        if kind in KEYS and len(part) > 1:
            parts[kind] = last_of_key(part, KEYS[kind])
    return parts


def last_of_key(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    """The last row of each key, in the order in which the keys came."""
    if len(key) == 1:
        name = key[0]
        return list({getattr(row, name): row for row in rows}.values())
    return list({tuple(getattr(row, name) for name in key): row for row in rows}.values())


def migrations() -> list[str]:
    """The numbered scripts: number n makes version n out of n - 1."""
    folder = files("controller.store") / "migrations"
    found = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".sql"))
    for number, (name, _) in enumerate(found, 1):
        if not name.startswith(f"{number:04d}_"):
            raise LocalMistake(f"migration {name} is not number {number}")
    return [entry.read_text(encoding="utf-8") for _, entry in found]


def _migrate(db: sqlite3.Connection, number: int, script: str) -> None:
    head = f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
    try:
        db.executescript(f"{head}\n{script}\nCOMMIT;").close()
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def trouble() -> Iterator[None]:
    """World trouble becomes `StoreError`; what the caller did wrong becomes `LocalMistake`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{error}") from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError) as error:
        raise LocalMistake(f"{type(error).__name__}: {error}") from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise LocalMistake(f"a value that can't be stored: {error}") from error
    except sqlite3.Error as error:
        raise StoreError(f"{error}") from error


def _for_people(path: Path, error: Exception) -> str:
    text = str(error)
    if "not a database" in text:
        return f"{path} is not a database; move it away or choose another data directory"
    if "malformed" in text:
        return f"{path} is damaged ({text}); restore a backup"
    if isinstance(error, OSError):
        return f"can't open {path}: {error.strerror}"
    return f"can't open {path}: {text}"
