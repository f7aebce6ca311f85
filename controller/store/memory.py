"""The store over dicts: what tests and the simulator use, and what SQLite is compared with.

Obvious on purpose: it sorts and scans where SQLite has an index. A row inside is never
changed, only replaced, so `snapshot` copies the dicts and not what is in them. Nothing
survives the object; failing on demand is the simulator's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from controller.core.leadership import Takeover
from controller.core.records import (
    KEYS_MAX,
    AttemptRow,
    AttemptState,
    AuditRow,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    JobState,
    LeaderRow,
    OutputRow,
    Row,
    Snapshot,
    TaskRow,
    clone,
)
from controller.store.base import (
    CLEAN_STOP,
    PAGE_ROWS_MAX,
    RECENT_ATTEMPTS_MAX,
    RECENT_MS,
    RESTORED,
    STORY_ROWS_MAX,
    AuditEntry,
    Counts,
    Fenced,
    JobSummary,
    OutputPiece,
    Pruned,
    TokenRow,
    check_leader,
    check_rows,
    next_epoch,
    page_rows,
    renewed_at,
    task_cursor,
)
from controller.store.output import assemble
from protocol.errors import LocalMistake
from protocol.limits import LEADER_GAP_MS
from protocol.tasks import FINAL_TASK, TaskState

R = TypeVar("R")
OutputPlace = tuple[str, int, int, int]


@dataclass(slots=True)
class Tables:
    """All that a `MemoryStore` holds, by key."""

    leader: LeaderRow | None = None
    jobs: dict[str, JobRow] = field(default_factory=dict)
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    attempts: dict[tuple[str, int], AttemptRow] = field(default_factory=dict)
    devices: dict[str, DeviceRow] = field(default_factory=dict)
    documents: dict[str, DocumentRow] = field(default_factory=dict)
    fleet: dict[str, str] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)
    audits: int = 0
    """Numbers handed out; they never come again."""
    output: dict[OutputPlace, OutputRow] = field(default_factory=dict)
    tokens: dict[str, TokenRow] = field(default_factory=dict)

    def copy(self) -> Tables:
        """Shares the rows, which nobody changes."""
        return Tables(
            leader=self.leader,
            jobs=dict(self.jobs),
            tasks=dict(self.tasks),
            attempts=dict(self.attempts),
            devices=dict(self.devices),
            documents=dict(self.documents),
            fleet=dict(self.fleet),
            audit=list(self.audit),
            audits=self.audits,
            output=dict(self.output),
            tokens=dict(self.tokens),
        )


class MemoryStore:
    """`Store` in memory; may be opened again after `close`."""

    def __init__(self) -> None:
        self.tables = Tables()
        self._lock = threading.Lock()
        self._epoch = 0

    def snapshot(self) -> Tables:
        """All of it as it is now; later writes don't show."""
        with self._lock:
            return self.tables.copy()

    def restore(self, tables: Tables) -> None:
        """Back to a snapshot, which stays good for more."""
        with self._lock:
            self.tables = tables.copy()

    def open(self) -> None: ...

    def close(self) -> None: ...

    # ------------------------------------------------------------------ the leader writes

    def lead(
        self, holder: str, above: int, wall_ms: int, unrenewed: LeaderRow | None = None
    ) -> tuple[LeaderRow, Takeover]:
        with self._lock:
            t = self.tables
            clean = bool(t.fleet.get(CLEAN_STOP))
            leader = check_leader(holder, t.leader and clone(t.leader), clean, unrenewed)
            stored, renewed_ms = (leader.epoch, leader.renewed_at) if leader else (0, wall_ms)
            t.fleet.pop(CLEAN_STOP, "")
            stale = not clean and abs(wall_ms - renewed_ms) > LEADER_GAP_MS
            marked = bool(t.fleet.get(RESTORED))
            if stale and not marked:
                t.fleet[RESTORED] = "stale"
            t.leader = LeaderRow(next_epoch(stored, wall_ms, above), holder, wall_ms)
            self._epoch = t.leader.epoch
            return clone(t.leader), Takeover(stale, clean, marked, stored)

    def renew(self, epoch: int, wall_ms: int) -> None:
        with self._leading(epoch) as t:
            assert t.leader is not None
            t.leader = LeaderRow(epoch, t.leader.holder, renewed_at(t.leader.renewed_at, wall_ms))

    def mark_clean(self, epoch: int) -> None:
        with self._leading(epoch) as t:
            t.fleet[CLEAN_STOP] = "1"

    def mark_restored(self) -> None:
        with self._lock:
            self.tables.fleet[RESTORED] = "restore"

    def save(self, rows: Sequence[Row], epoch: int) -> None:
        check_rows(rows)
        with self._leading(epoch) as t:
            for row in rows:
                _PUT[type(row)](t, clone(row))

    @contextmanager
    def _leading(self, epoch: int) -> Iterator[Tables]:
        with self._lock:
            stored = self.tables.leader.epoch if self.tables.leader else None
            if stored != epoch:
                raise Fenced(f"epoch {stored or 'of nobody'} leads, not {epoch}")
            yield self.tables

    def load(self) -> Snapshot:
        with self._lock:
            t = self.tables
            if t.leader is None:
                raise LocalMistake("nobody has ever led this store")
            open_jobs = {id for id, job in t.jobs.items() if job.state is JobState.OPEN}
            live = [r for r in t.tasks.values() if r.job in open_jobs and r.state not in FINAL_TASK]
            return Snapshot(
                clone(t.leader),
                jobs=_copies((t.jobs[id] for id in open_jobs), _job_order),
                tasks=_copies(live, _task_order),
                attempts=_copies((a for a in t.attempts.values() if _kept(t, a)), _attempt_order),
                devices=_copies(t.devices.values(), lambda r: r.device),
                documents=_copies(t.documents.values(), lambda r: r.device),
                fleet=dict(sorted(t.fleet.items())),
                recent=_recent(t, t.leader.renewed_at - RECENT_MS),
                keys=_keys(t),
                final_counts={id: _final_counts(t, id) for id in sorted(open_jobs)},
                closed=_copies((t.jobs[id] for id in _held_jobs(t) - open_jobs if id in t.jobs), _job_order),
            )

    def prune(self, before_wall_ms: int, tasks_max: int, output_bytes_max: int) -> Pruned:
        with self._leading(self._epoch) as t:
            done = Pruned()
            for job in sorted((j for j in t.jobs.values() if j.state is not JobState.OPEN), key=_end_order):
                output_bytes = sum(len(r.data) for r in t.output.values())
                if (
                    job.changed_at < before_wall_ms
                    or len(t.tasks) > tasks_max
                    or output_bytes > output_bytes_max
                ):
                    _prune_job(t, job.id, done)
            _drop_audit(t, lambda row: row.at < before_wall_ms, done)
            old = {k for k, a in t.attempts.items() if 0 < a.ended_at < before_wall_ms and _superseded(t, a)}
            _drop_attempts(t, lambda task, attempt: (task, attempt) in old, done)
            return done

    # ------------------------------------------------------------------ anybody reads

    def jobs(self, after: str = "", limit: int = 100, state: str = "", name: str = "") -> list[JobSummary]:
        with self._lock:
            found = [
                job
                for job in self.tables.jobs.values()
                if (not after or job.id < after)
                and (not state or job.state == state)
                and (not name or job.name == name)
            ]
            found.sort(key=_job_order, reverse=True)
            return [self._summary(job) for job in found[: page_rows(limit)]]

    def job(self, job: str) -> JobSummary | None:
        with self._lock:
            found = self.tables.jobs.get(job)
            return self._summary(found) if found else None

    def _summary(self, job: JobRow) -> JobSummary:
        return JobSummary(clone(job), _state_counts(r for r in self.tables.tasks.values() if r.job == job.id))

    def tasks(
        self, job: str = "", device: str = "", state: str = "", after: str = "", limit: int = 100
    ) -> list[TaskRow]:
        with self._lock:
            found = [
                task
                for task in self.tables.tasks.values()
                if (not job or task.job == job)
                and (not device or task.device == device)
                and (not state or task.state == state)
                and (not after or _task_order(task) > task_cursor(after))
            ]
            return _copies(found, _task_order)[: page_rows(limit)]

    def task(self, task: str) -> TaskRow | None:
        with self._lock:
            found = self.tables.tasks.get(task)
            return clone(found) if found else None

    def attempts(self, task: str) -> list[AttemptRow]:
        with self._lock:
            found = (a for a in self.tables.attempts.values() if a.task == task)
            return _copies(found, _attempt_order)[-PAGE_ROWS_MAX:]

    def story(self, object: str) -> list[AuditRow]:
        with self._lock:
            return [clone(e.row) for e in self.tables.audit if e.row.object == object][-STORY_ROWS_MAX:]

    def audit(self, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        with self._lock:
            found = [e for e in self.tables.audit if e.number > after][: page_rows(limit)]
            return [AuditEntry(e.number, clone(e.row)) for e in found]

    def output(self, task: str, attempt: int, stream: int, offset: int, limit: int) -> OutputPiece:
        with self._lock:
            place = (task, attempt, stream)
            rows = sorted(
                (r for k, r in self.tables.output.items() if k[:3] == place), key=lambda r: r.offset
            )
            end = max((r.offset + len(r.data) for r in rows if r.last), default=None)
            return assemble(((r.offset, r.data) for r in rows), end, offset, limit)

    def counts(self) -> Counts:
        with self._lock:
            jobs = {s.value: 0 for s in JobState}
            for job in self.tables.jobs.values():
                jobs[job.state.value] += 1
            output_bytes = sum(len(r.data) for r in self.tables.output.values())
            return Counts(_state_counts(self.tables.tasks.values()), jobs, output_bytes)

    # ------------------------------------------------------------------ tokens

    def add_token(self, hash: str, name: str, scope: str, created_at: int) -> None:
        with self._lock:
            self.tables.tokens[hash] = TokenRow(hash, name, scope, created_at)

    def revoke_tokens(self, name: str) -> int:
        with self._lock:
            gone = [t.hash for t in self.tables.tokens.values() if t.name == name]
            for hash in gone:
                del self.tables.tokens[hash]
            return len(gone)

    def token(self, hash: str) -> TokenRow | None:
        with self._lock:
            found = self.tables.tokens.get(hash)
            return clone(found) if found else None


# ---------------------------------------------------------------------------- putting rows in


def _put_audit(t: Tables, row: AuditRow) -> None:
    t.audits += 1
    t.audit.append(AuditEntry(t.audits, row))


def _put_output(t: Tables, row: OutputRow) -> None:
    """The same place is kept once, and the longer piece."""
    place = (row.task, row.attempt, row.stream, row.offset)
    known = t.output.get(place, row)
    row.data = row.data if len(row.data) > len(known.data) else known.data
    row.last = bool(known.last or row.last)
    t.output[place] = row


_PUT: dict[type, Callable[[Tables, Any], None]] = {
    JobRow: lambda t, r: t.jobs.__setitem__(r.id, r),
    TaskRow: lambda t, r: t.tasks.__setitem__(r.id, r),
    AttemptRow: lambda t, r: t.attempts.__setitem__((r.task, r.attempt), r),
    DeviceRow: lambda t, r: t.devices.__setitem__(r.device, r),
    DocumentRow: lambda t, r: t.documents.__setitem__(r.device, r),
    FleetRow: lambda t, r: t.fleet.__setitem__(r.name, r.value),
    AuditRow: _put_audit,
    OutputRow: _put_output,
}


# ---------------------------------------------------------------------------- questions about rows


def _job_order(row: JobRow) -> str:
    return row.id


def _end_order(row: JobRow) -> tuple[int, str]:
    return row.changed_at, row.id


def _task_order(row: TaskRow) -> tuple[str, int]:
    return row.job, row.index


def _attempt_order(row: AttemptRow) -> tuple[str, int]:
    return row.task, row.attempt


def _copies(rows: Iterable[R], key: Callable[[R], object]) -> list[R]:
    return [clone(row) for row in sorted(rows, key=key)]  # type: ignore[arg-type]


def _state_counts(rows: Iterable[TaskRow]) -> dict[str, int]:
    counts = {s.value: 0 for s in TaskState}
    for row in rows:
        counts[row.state.value] += 1
    return counts


def _final_counts(t: Tables, job: str) -> dict[str, int]:
    counts = _state_counts(r for r in t.tasks.values() if r.job == job)
    return {s.value: counts[s.value] for s in TaskState if s in FINAL_TASK}


def _listed(t: Tables, a: AttemptRow) -> bool:
    """Whether the present document of its device still lists the attempt."""
    document = t.documents.get(a.device)
    return a.until == 0 or a.until > max(0, document.number if document else 0)


def _held_jobs(t: Tables) -> set[str]:
    """Jobs that some attempt is still held for."""
    return {a.task.partition(".")[0] for a in t.attempts.values() if a.state is not AttemptState.FREE}


def _kept(t: Tables, a: AttemptRow) -> bool:
    return a.state is not AttemptState.FREE or _listed(t, a)


def _superseded(t: Tables, a: AttemptRow) -> bool:
    task = t.tasks.get(a.task)
    return not _kept(t, a) and task is not None and task.attempt > a.attempt


def _recent(t: Tables, since_ms: int) -> list[tuple[str, int, str]]:
    ended = [a for a in t.attempts.values() if not _kept(t, a) and a.ended_at > 0 and a.ended_at >= since_ms]
    ended.sort(key=lambda a: (a.ended_at, a.task, a.attempt))
    return [(a.task, a.attempt, a.device) for a in ended[-RECENT_ATTEMPTS_MAX:]]


def _keys(t: Tables) -> list[tuple[str, str, str]]:
    jobs = [j for j in t.jobs.values() if j.idempotency_key]
    jobs.sort(key=lambda j: (j.created_at, j.id))
    return [(j.idempotency_key, j.id, j.fingerprint) for j in jobs[-KEYS_MAX:]]


# ---------------------------------------------------------------------------- taking rows out


def _prune_job(t: Tables, job: str, done: Pruned) -> None:
    tasks = {r.id for r in t.tasks.values() if r.job == job}
    for task in tasks:
        del t.tasks[task]
    _drop_attempts(t, lambda task, _: task in tasks, done)
    _drop_audit(t, lambda row: row.object == job or row.object in tasks, done)
    del t.jobs[job]
    done.tasks += len(tasks)
    done.jobs += 1


def _drop_attempts(t: Tables, gone: Callable[[str, int], bool], done: Pruned) -> None:
    attempts = [k for k in t.attempts if gone(*k)]
    output = [k for k in t.output if gone(k[0], k[1])]
    for attempt in attempts:
        del t.attempts[attempt]
    for place in output:
        del t.output[place]
    done.attempts += len(attempts)
    done.output += len(output)


def _drop_audit(t: Tables, gone: Callable[[AuditRow], bool], done: Pruned) -> None:
    before = len(t.audit)
    t.audit = [e for e in t.audit if not gone(e.row)]
    done.audit += before - len(t.audit)
