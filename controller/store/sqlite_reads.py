"""What is read from the SQLite store: lists for people, and the snapshot a core is built from.

Rules: each list is one statement that an index answers in its order, whatever the filter;
a page comes out of SQLite as one JSON text. sqlite3 gives up Python's global lock at each
row, and beside a busy event loop each row would wait for its turn (`fetch` takes one).
Nothing here writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from controller.core.records import (
    KEYS_MAX,
    AttemptRow,
    AttemptState,
    AuditRow,
    DocumentRow,
    JobRow,
    JobState,
    LeaderRow,
    Snapshot,
    TaskRow,
)
from controller.store.base import (
    PAGE_ROWS_MAX,
    RECENT_ATTEMPTS_MAX,
    RECENT_MS,
    STORY_ROWS_MAX,
    AuditEntry,
    Counts,
    JobSummary,
    OutputPiece,
    TokenRow,
    page_rows,
    split_task,
    task_cursor,
)
from controller.store.output import Chunk, assemble
from controller.store.tables import (
    ATTEMPT,
    AUDIT,
    DEVICE,
    JOB,
    TASK,
    Value,
    read_attempt,
    read_audit,
    read_device,
    read_job,
    read_task,
)
from protocol.errors import LocalMistake
from protocol.limits import INT_MAX, OUTPUT_CHUNK_BYTES_MAX
from protocol.tasks import FINAL_TASK, TaskState

_TASK_STATES = tuple(s.value for s in TaskState)
_JOB_STATES = tuple(s.value for s in JobState)
_FINAL = tuple(s.value for s in TaskState if s in FINAL_TASK)
_LIVE = ", ".join(f"'{s.value}'" for s in TaskState if s not in FINAL_TASK)
_JOB_COUNTS = ", ".join(f"coalesce(c.{s}, 0)" for s in _TASK_STATES)
_JOB_FIELDS = ", ".join(f"j.{c}" for c in JOB.split(", "))
_JOB_WIDTH = len(JOB.split(", "))


def fetch(db: sqlite3.Connection, columns: int, sql: str, values: Sequence[Value]) -> list[list[object]]:
    """All rows of a query without blobs, in one step of SQLite."""
    names = ", ".join(f"c{n}" for n in range(columns))
    text: str = db.execute(
        f"WITH page({names}) AS ({sql}) SELECT json_group_array(json_array({names})) FROM page", values
    ).fetchone()[0]
    rows: list[list[object]] = json.loads(text)
    return rows


class Reads:
    """Reads on one connection, for one thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    # ------------------------------------------------------------------ jobs

    def jobs(self, after: str, limit: int, state: str, name: str) -> list[JobSummary]:
        where, values = ["1"], list[Value]()
        for text, value in (("j.id < ?", after), ("j.state = ?", state), ("j.name = ?", name)):
            if value:
                where.append(text)
                values.append(value)
        return self._jobs(" AND ".join(where), [*values, page_rows(limit)])

    def job(self, job: str) -> JobSummary | None:
        found = self._jobs("j.id = ?", [job, 1])
        return found[0] if found else None

    def _jobs(self, where: str, values: Sequence[Value]) -> list[JobSummary]:
        rows = fetch(
            self.db,
            _JOB_WIDTH + len(_TASK_STATES),
            f"SELECT {_JOB_FIELDS}, {_JOB_COUNTS} FROM jobs j LEFT JOIN job_tasks c ON c.job = j.id"
            f" WHERE {where} ORDER BY j.id DESC LIMIT ?",
            values,
        )
        return [_summary(row) for row in rows]

    # ------------------------------------------------------------------ tasks

    def tasks(self, job: str, device: str, state: str, after: str, limit: int) -> list[TaskRow]:
        where, values = ["1"], list[Value]()
        after_job, after_index = task_cursor(after) if after else ("", -1)
        if job:
            # Not as a pair: with the job fixed, only the plain index column is a range.
            first = -1 if after_job < job else after_index if after_job == job else INT_MAX
            where.append("job = ? AND idx > ?")
            values.extend((job, first))
        elif after:
            where.append("(job, idx) > (?, ?)")
            values.extend((after_job, after_index))
        if device:
            where.append("device = ? AND device <> ''")
            values.append(device)
        # The index of a device is by state, then job: without a state its parts are merged.
        states = [state] if state else [*_TASK_STATES] if device else []
        part = f"SELECT {TASK} FROM tasks WHERE {' AND '.join(where)}"
        tail = " ORDER BY job, idx LIMIT ?"
        rows = page_rows(limit)
        if not states:
            return self._tasks(part + tail, [*values, rows])
        parts = [f"SELECT * FROM ({part} AND state = ?{tail})"] * len(states)
        every = [v for s in states for v in (*values, s, rows)]
        return self._tasks(" UNION ALL ".join(parts) + tail, [*every, rows])

    def task(self, task: str) -> TaskRow | None:
        parts = split_task(task)
        if parts is None:
            return None
        found = self._tasks(f"SELECT {TASK} FROM tasks WHERE job = ? AND idx = ?", parts)
        return found[0] if found else None

    def _tasks(self, sql: str, values: Sequence[Value]) -> list[TaskRow]:
        return [read_task(v) for v in fetch(self.db, len(TASK.split(", ")), sql, values)]

    # ------------------------------------------------------------------ history

    def attempts(self, task: str) -> list[AttemptRow]:
        sql = f"SELECT {ATTEMPT} FROM attempts WHERE task = ? ORDER BY attempt DESC LIMIT {PAGE_ROWS_MAX}"
        return [read_attempt(v) for v in reversed(fetch(self.db, len(ATTEMPT.split(", ")), sql, (task,)))]

    def story(self, object: str) -> list[AuditRow]:
        sql = f"SELECT {AUDIT} FROM audit WHERE object = ? ORDER BY number DESC LIMIT {STORY_ROWS_MAX}"
        return [read_audit(v) for v in reversed(fetch(self.db, len(AUDIT.split(", ")), sql, (object,)))]

    def audit(self, after: int, limit: int) -> list[AuditEntry]:
        sql = f"SELECT number, {AUDIT} FROM audit WHERE number > ? ORDER BY number LIMIT ?"
        rows = fetch(self.db, 1 + len(AUDIT.split(", ")), sql, (after, page_rows(limit)))
        return [AuditEntry(v[0], read_audit(v[1:])) for v in rows]  # type: ignore[arg-type]

    def output(self, task: str, attempt: int, stream: int, offset: int, limit: int) -> OutputPiece:
        place = (task, attempt, stream)
        end = self.db.execute(
            "SELECT max(offset + length(data)) FROM output"
            " WHERE task = ? AND attempt = ? AND stream = ? AND last = 1",
            place,
        ).fetchone()[0]
        chunks: Iterator[Chunk] = self.db.execute(
            "SELECT offset, data FROM output WHERE task = ? AND attempt = ? AND stream = ? AND offset >= ?"
            " ORDER BY offset",
            # A piece that covers `offset` begins less than a piece before it.
            (*place, offset - OUTPUT_CHUNK_BYTES_MAX),
        )
        return assemble(chunks, end, offset, limit)

    # ------------------------------------------------------------------ the rest

    def counts(self) -> Counts:
        totals = dict(self.db.execute("SELECT name, n FROM totals"))
        tasks = {s: totals[f"task.{s}"] for s in _TASK_STATES}
        jobs = {s: totals[f"job.{s}"] for s in _JOB_STATES}
        return Counts(tasks, jobs, totals["output.bytes"])

    def token(self, hash: str) -> TokenRow | None:
        sql = "SELECT hash, name, scope, created_at FROM tokens WHERE hash = ?"
        row = self.db.execute(sql, (hash,)).fetchone()
        return TokenRow(*row) if row else None


def _summary(row: Sequence[object]) -> JobSummary:
    counts = dict(zip(_TASK_STATES, row[_JOB_WIDTH:], strict=True))
    return JobSummary(read_job(row[:_JOB_WIDTH]), counts)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- the snapshot


def load(db: sqlite3.Connection) -> Snapshot:
    """The snapshot; the caller holds a transaction, so that all of it is of one moment."""
    row = db.execute("SELECT epoch, holder, renewed_at FROM leader").fetchone()
    if row is None:
        raise LocalMistake("nobody has ever led this store")
    leader = LeaderRow(*row)
    return Snapshot(
        leader,
        jobs=_open_jobs(db),
        tasks=_open_tasks(db),
        attempts=_kept_attempts(db),
        devices=[read_device(v) for v in db.execute(f"SELECT {DEVICE} FROM devices ORDER BY device")],
        documents=[DocumentRow(*v) for v in db.execute("SELECT * FROM documents ORDER BY device")],
        fleet=dict(db.execute("SELECT name, value FROM fleet ORDER BY name")),
        recent=_recent(db, leader.renewed_at - RECENT_MS),
        keys=_keys(db),
        final_counts=_final_counts(db),
        closed=_closed_jobs(db),
    )


def _open_jobs(db: sqlite3.Connection) -> list[JobRow]:
    return [read_job(v) for v in db.execute(f"SELECT {JOB} FROM jobs WHERE state = 'open' ORDER BY id")]


def _closed_jobs(db: sqlite3.Connection) -> list[JobRow]:
    held = "SELECT DISTINCT substr(task, 1, instr(task, '.') - 1) FROM attempts INDEXED BY attempts_held"
    sql = f"SELECT {JOB} FROM jobs WHERE id IN ({held} WHERE state <> 'free') AND state <> 'open' ORDER BY id"
    return [read_job(v) for v in db.execute(sql)]


def _open_tasks(db: sqlite3.Connection) -> list[TaskRow]:
    # CROSS JOIN fixes the order: from the few tasks that are not final to their jobs.
    fields = ", ".join(f"t.{c}" for c in TASK.split(", "))
    sql = (
        f"SELECT {fields} FROM tasks t INDEXED BY tasks_state CROSS JOIN jobs j ON j.id = t.job"
        f" WHERE t.state IN ({_LIVE}) AND j.state = 'open' ORDER BY t.job, t.idx"
    )
    return [read_task(v) for v in db.execute(sql)]


_NOT_FREE = f"SELECT {ATTEMPT} FROM attempts INDEXED BY attempts_held WHERE state <> 'free'"
_NEXT_DEVICE = "SELECT min(device) FROM attempts INDEXED BY attempts_listed WHERE state = 'free'"
_DEVICES = (
    f"WITH RECURSIVE d(device) AS ({_NEXT_DEVICE} UNION ALL"
    f" SELECT ({_NEXT_DEVICE} AND device > d.device) FROM d WHERE d.device IS NOT NULL)"
)
"""One look into the index per device, however many attempts it had."""
_LISTED = (
    f"SELECT {', '.join(f'a.{c}' for c in ATTEMPT.split(', '))} FROM d"
    " CROSS JOIN attempts a INDEXED BY attempts_listed ON a.device = d.device AND a.state = 'free'"
)


def _kept_attempts(db: sqlite3.Connection) -> list[AttemptRow]:
    sql = (
        f"{_DEVICES} {_NOT_FREE} UNION ALL {_LISTED} AND a.until = 0 UNION ALL {_LISTED} AND a.until > max("
        "0, coalesce((SELECT number FROM documents WHERE device = d.device), 0)) ORDER BY task, attempt"
    )
    return [read_attempt(v) for v in db.execute(sql)]


def _recent(db: sqlite3.Connection, since_ms: int) -> list[tuple[str, int, str]]:
    sql = (
        "SELECT a.task, a.attempt, a.device FROM attempts a INDEXED BY attempts_ended"
        " LEFT JOIN documents d ON d.device = a.device"
        " WHERE a.state = 'free' AND a.ended_at >= ? AND a.ended_at > 0"
        " AND a.until BETWEEN 1 AND coalesce(d.number, 0)"
        " ORDER BY a.ended_at DESC, a.task DESC, a.attempt DESC LIMIT ?"
    )
    rows = db.execute(sql, (since_ms, RECENT_ATTEMPTS_MAX)).fetchall()
    return rows[::-1]


def _keys(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """The newest by number, not by age: a clock that was set must not make a repeated submission new."""
    sql = (
        "SELECT idempotency_key, id, fingerprint FROM jobs"
        " WHERE idempotency_key <> '' ORDER BY created_at DESC, id DESC LIMIT ?"
    )
    return db.execute(sql, (KEYS_MAX,)).fetchall()[::-1]


def _final_counts(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    counts = ", ".join(f"coalesce(c.{s}, 0)" for s in _FINAL)
    sql = (
        f"SELECT j.id, {counts} FROM jobs j LEFT JOIN job_tasks c ON c.job = j.id"
        " WHERE j.state = 'open' ORDER BY j.id"
    )
    return {row[0]: dict(zip(_FINAL, row[1:], strict=True)) for row in db.execute(sql)}


assert AttemptState.FREE.value == "free" and JobState.OPEN.value == "open"
# The texts above and the partial indexes of the migrations rest on these two words.
