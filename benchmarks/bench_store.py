"""What the SQLite store costs: rows a second, processor time per row, alone and beside a busy loop.

Each figure stands beside a probe taken in the same run: the bare fsync rate of the disk,
and sqlite3's own `executemany` of the same rows into a table without indexes. The rows are
the life of tasks as the core saves it (job, task, attempt, document, audit), in group
commits. Run: `python -m benchmarks.bench_store [--rows N] [--tasks N] [--dir DIR]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.core.records import (
    AttemptRow,
    AttemptState,
    AuditRow,
    DocumentRow,
    JobRow,
    JobState,
    Row,
    TaskRow,
    TaskSpec,
)
from controller.store.saver import SWITCH_INTERVAL_S, StoreSaver
from controller.store.sqlite import SqliteStore
from controller.store.tables import TABLES
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState

BATCH_ROWS = 500
BUSY_ROUNDS = 3
"""Who gets the lock first is luck of the moment: each is measured this often."""
WALL_MS = 1_700_000_000_000
SPEC = TaskSpec("process", ("/usr/bin/env", "sleep", "1"), {"MODE": "fast"}, Resources(500, 64))
STEPS = (
    (TaskState.PENDING, None),
    (TaskState.ASSIGNED, AttemptState.ASSIGNED),
    (TaskState.RUNNING, AttemptState.RUNNING),
    (TaskState.SUCCEEDED, AttemptState.FREE),
)


def job_row(id: str, count: int, state: JobState = JobState.OPEN) -> JobRow:
    return JobRow(
        *(id, "bench", JobKind.BATCH, count, 0, Guarantee.AT_MOST_ONE, 3, 0, 30_000, SPEC),
        *(state, "run", WALL_MS, WALL_MS, "bench"),
    )


def task_row(job: str, index: int, state: TaskState, device: str, attempt: int) -> TaskRow:
    code = 0 if state is TaskState.SUCCEEDED else None
    return TaskRow(f"{job}.{index}", job, index, state, "run", device, attempt, code, "", 0, WALL_MS, WALL_MS)


def attempt_row(task: str, device: str, state: AttemptState) -> AttemptRow:
    free = state is AttemptState.FREE
    until, ended_at = (2, WALL_MS) if free else (0, 0)
    return AttemptRow(
        task, 1, device, state, 1, 0, until, 0 if free else None, 0, "", WALL_MS, WALL_MS, ended_at
    )


def lives(start: int, tasks: int) -> Iterator[list[Row]]:
    """Four steps in the life of `tasks` one-task jobs: about 3 rows each."""
    for state, attempt in STEPS:
        rows: list[Row] = []
        for n in range(start, start + tasks):
            job, device = f"j{n:020d}", f"pi-{n % 1000:04d}"
            placed = device if attempt else ""
            if attempt is None or state is TaskState.SUCCEEDED:
                rows.append(job_row(job, 1, JobState.OPEN if attempt is None else JobState.SUCCEEDED))
            rows.append(task_row(job, 0, state, placed, 1 if attempt else 0))
            if attempt is not None:
                rows.append(attempt_row(f"{job}.0", device, attempt))
                rows.append(DocumentRow(device, 1, n))
            rows.append(AuditRow(WALL_MS, "bench", "task", f"{job}.0", "", state.value, placed, 1, ""))
        yield rows


def batches(rows: int) -> list[list[Row]]:
    """Group commits of about BATCH_ROWS rows, `rows` in all."""
    made: list[list[Row]] = []
    start, count = 0, 0
    while count < rows:
        for batch in lives(start, BATCH_ROWS // 4):
            made.append(batch)
            count += len(batch)
        start += BATCH_ROWS // 4
    return made


class Figure:
    """One measurement: rows, seconds on the wall, processor seconds of the working thread."""

    def __init__(self, label: str, rows: int, wall_s: float, cpu_s: float, commits: int) -> None:
        self.label, self.rows, self.wall_s, self.cpu_s, self.commits = label, rows, wall_s, cpu_s, commits

    def line(self) -> str:
        rate, cost = self.rows / self.wall_s, self.cpu_s / self.rows * 1e6
        each = self.wall_s / self.commits * 1e3
        return f"  {self.label:<46} {rate:>9,.0f} rows/s  {cost:>6.1f} µs cpu/row  {each:>8.2f} ms/commit"


def timed(label: str, made: list[list[Row]], save: Callable[[list[Row]], None]) -> Figure:
    wall, cpu = time.perf_counter(), time.thread_time()
    for batch in made:
        save(batch)
    rows = sum(map(len, made))
    return Figure(label, rows, time.perf_counter() - wall, time.thread_time() - cpu, len(made))


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that always wants Python's global lock, as an event loop under load does."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(200))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def probe_fsync(folder: Path) -> float:
    """fdatasync after each 4 KiB appended: calls per second."""
    fd = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        begin = time.perf_counter()
        for _ in range(200):
            os.write(fd, b"x" * 4096)
            os.fdatasync(fd)
        return 200 / (time.perf_counter() - begin)
    finally:
        os.close(fd)


class ByExecutemany:
    """The probes: the same values by `executemany`, into bare tables or into the store's own."""

    def __init__(self, path: Path, bare: bool) -> None:
        if not bare:
            store = SqliteStore(path)
            store.open()
            store.close()
        self.db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000"):
            self.db.execute(f"PRAGMA {pragma}").close()
        if bare:
            for table in TABLES.values():
                self.db.execute(f"CREATE TABLE {table.name} ({', '.join(table.columns)})")
        self.inserts = {
            kind: f"INSERT INTO {table.name} VALUES ({','.join('?' * len(table.columns))})"
            if bare
            else table.insert(1)
            for kind, table in TABLES.items()
        }

    def save(self, rows: list[Row]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for kind, table in TABLES.items():
            mine = [table.values(row) for row in rows if type(row) is kind]
            self.db.executemany(self.inserts[kind], mine)
        self.db.execute("COMMIT")


@contextmanager
def fresh_store(folder: Path, name: str) -> Iterator[tuple[SqliteStore, int]]:
    store = SqliteStore(folder / name)
    store.open()
    try:
        yield store, store.lead("bench", 0, WALL_MS)[0].epoch
    finally:
        store.close()


def bench_saves(folder: Path, rows: int) -> None:
    made = batches(rows)
    few = made[: max(4, len(made) // 10)]
    raw = ByExecutemany(folder / "raw.db", bare=True)
    print(f"group commits of ~{BATCH_ROWS} rows (probe: fsync {probe_fsync(folder):,.0f}/s)")
    print(timed("probe: executemany, no key, no index", made, raw.save).line())
    with fresh_store(folder, "alone.db") as (store, epoch):
        print(timed("store", made, lambda batch: store.save(batch, epoch)).line())
    slow = ByExecutemany(folder / "slow.db", bare=False)
    print(timed("probe: executemany, the store's tables", made, slow.save).line())
    raw.db.close()
    slow.db.close()
    default_s = sys.getswitchinterval()
    for interval_s in (default_s, SWITCH_INTERVAL_S) * BUSY_ROUNDS:
        print(f"the same beside a thread that never idles, switch interval {interval_s * 1e3:g} ms")
        sys.setswitchinterval(interval_s)
        with fresh_store(folder, f"busy-{len(os.listdir(folder))}.db") as (store, epoch), busy_thread():
            print(timed("store", few, lambda batch, s=store, e=epoch: s.save(batch, e)).line())  # type: ignore[misc]
            slow = ByExecutemany(folder / f"slow-{len(os.listdir(folder))}.db", bare=False)
            print(timed("probe: executemany, the store's tables", few, slow.save).line())
            slow.db.close()
    sys.setswitchinterval(default_s)


def bench_submits(folder: Path, commits: int) -> None:
    """The smallest commit there is, through the event loop."""

    async def run() -> list[float]:
        saver = StoreSaver(SqliteStore(folder / "submits.db"))
        await saver.open()
        await saver.lead("bench", 0, WALL_MS)
        took = []
        for n in range(commits):
            job = f"j{n:020d}"
            audit = AuditRow(WALL_MS, "bench", "job", job, "", "open")
            begin = time.perf_counter()
            await saver.save([job_row(job, 1), task_row(job, 0, TaskState.PENDING, "", 0), audit])
            took.append((time.perf_counter() - begin) * 1e3)
        await saver.close()
        return took

    took = sorted(asyncio.run(run()))
    p50, p99 = statistics.median(took), took[len(took) * 99 // 100]
    print(f"one job, one task, one audit row per commit (probe: fsync {probe_fsync(folder):,.0f}/s)")
    print(
        f"  through the event loop: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {1e3 / statistics.mean(took):,.0f}/s"
    )


def bench_reads(folder: Path, tasks: int) -> None:
    with fresh_store(folder, "large.db") as (store, epoch):
        begin = time.perf_counter()
        per_job = 1_000
        for n in range(tasks // per_job):
            job = f"j{n:020d}"
            state = TaskState.PENDING if n < 10 else TaskState.SUCCEEDED
            ended = JobState.OPEN if n < 10 else JobState.SUCCEEDED
            made = [task_row(job, i, state, f"pi-{i:04d}", 1) for i in range(per_job)]
            free = [attempt_row(t.id, t.device, AttemptState.FREE) for t in made]
            store.save([job_row(job, per_job, ended), *made, *free], epoch)
        took = time.perf_counter() - begin
        print(f"reads of a store with {tasks:,} tasks and attempts (filled in {took:.0f} s)")
        last = f"j{tasks // per_job - 1:020d}"
        store.save([DocumentRow(f"pi-{i:04d}", 1, 5) for i in range(per_job)], epoch)
        for label, read in (
            ("counts()", store.counts),
            ("job(id)", lambda: store.job(last)),
            ("jobs(limit=100)", lambda: store.jobs(limit=100)),
            ("tasks(limit=100)", lambda: store.tasks(limit=100)),
            ("tasks(job, state, after the 900th)", lambda: store.tasks(last, "", "succeeded", f"{last}.900")),
            ("tasks(device)", lambda: store.tasks(device="pi-0007")),
            ("load() of 10,000 open tasks", store.load),
            ("prune() of one piece", lambda: store.prune(WALL_MS + 1, 10**9, 10**12)),
        ):
            print(f"  {label:<46} {_best_ms(read):>9.2f} ms")


def _best_ms(read: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        read()
        took.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(took)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--commits", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--dir", type=Path, help="on the disk to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        bench_saves(Path(folder), args.rows)
        bench_submits(Path(folder), args.commits)
        bench_reads(Path(folder), args.tasks)


if __name__ == "__main__":
    main()
