"""What only the file can do: be killed, be full, be somebody else's, be newer than we are."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.core.records import AuditRow, FleetRow, OutputRow, TaskRow
from controller.store.base import StoreError, StoreUnusable
from controller.store.sqlite import SqliteStore, migrations
from controller.store.tables import TABLES, statements
from protocol.errors import LocalMistake
from protocol.tasks import TaskState

ROOT = Path(__file__).resolve().parents[2]
WALL_MS = 1_700_000_000_000


@contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    store.open()
    with closing(store):
        yield store


def task(job: str, index: int, state: TaskState = TaskState.PENDING) -> TaskRow:
    return TaskRow(f"{job}.{index}", job, index, state, "run", "", 0, None, "", 0, 1, 1)


def one_line(found: pytest.ExceptionInfo[StoreUnusable]) -> str:
    text = str(found.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------ files we can't use


def test_file_that_is_no_database_is_told_in_one_line_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"my diary\n" * 1000)
    with pytest.raises(StoreUnusable) as found:
        SqliteStore(path).open()
    assert "not a database" in one_line(found)
    assert path.read_bytes() == b"my diary\n" * 1000


def test_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable) as found:
        SqliteStore(path).open()
    assert "another program" in one_line(found)
    assert path.read_bytes() == before


def test_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(StoreUnusable) as found:
        SqliteStore(path).open()
    assert "newer" in one_line(found)


@pytest.mark.parametrize("name", ["nowhere/fleet.db", "."])
def test_path_that_can_t_be_opened_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreUnusable) as found:
        SqliteStore(tmp_path / name).open()
    assert "can't open" in one_line(found)


def test_damaged_database_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path):
        pass
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + os.urandom(4096) + whole[4196:])
    with pytest.raises(StoreUnusable) as found:
        SqliteStore(path).open()
    one_line(found)


def test_second_controller_is_kept_off_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path):
        with pytest.raises(StoreUnusable) as found:
            SqliteStore(path).open()
        assert "another controller" in one_line(found)
    with opened(path):
        pass


def test_database_is_readable_by_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path) as store:
        store.lead("here", 0, WALL_MS)
        assert {entry.stat().st_mode & 0o077 for entry in tmp_path.iterdir()} == {0}


def test_failed_migration_leaves_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.db"
    scripts = migrations()
    with monkeypatch.context() as patched:
        broken = [*scripts, "CREATE TABLE more (a TEXT) STRICT; CREATE TABLE leader (a TEXT) STRICT;"]
        patched.setattr("controller.store.sqlite.migrations", lambda: broken)
        with pytest.raises(StoreUnusable):
            SqliteStore(path).open()
    with opened(path) as store:
        store.lead("here", 0, WALL_MS)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(scripts)
        assert not db.execute("SELECT * FROM sqlite_schema WHERE name = 'more'").fetchall()


def test_commits_are_synced_and_logged_ahead(tmp_path: Path) -> None:
    with opened(tmp_path / "fleet.db") as store:
        writer = store._open_writer()
        assert writer.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


# ------------------------------------------------------------------ world trouble


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk does, to this process alone: every write beyond `size` fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_full_disk_loses_nothing_saved_half_does_nothing_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path) as store:
        epoch = store.lead("here", 0, WALL_MS)[0].epoch
        store.save([task("j1", 0)], epoch)
        pieces = (OutputRow("j1.0", 1, 1, n, os.urandom(9000), False) for n in range(60))
        rows = [FleetRow("half", "done"), *pieces]
        grown = Path(f"{path}-wal").stat().st_size
        for room in (0, 5_000, 50_000, 300_000):
            with files_no_larger_than(grown + room), pytest.raises(StoreError):
                store.save(rows, epoch)
            assert store.load().fleet == {} and store.counts().output_bytes == 0
            assert store.task("j1.0") == task("j1", 0)
        store.save(rows, epoch)
        assert store.counts().output_bytes == 60 * 9000
    with opened(path) as store:
        assert store.counts().output_bytes == 60 * 9000 and store.task("j1.0") == task("j1", 0)


def test_file_locked_by_somebody_is_trouble_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with opened(path) as store:
        epoch = store.lead("here", 0, WALL_MS)[0].epoch
        store._open_writer().execute("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                store.save([task("j1", 0)], epoch)
            assert store.tasks() == []
        store.save([task("j1", 0)], epoch)
        assert store.tasks() == [task("j1", 0)]


def test_value_that_can_t_be_stored_is_the_callers_mistake_and_half_does_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "fleet.db") as store:
        epoch = store.lead("here", 0, WALL_MS)[0].epoch
        for bad in (FleetRow("b", "\ud800"), AuditRow(1 << 63, "", "", "", "", ""), FleetRow("b", None)):  # type: ignore[arg-type]
            with pytest.raises(LocalMistake):
                store.save([FleetRow("a", "1"), task("j1", 0), bad], epoch)
            assert store.load().fleet == {} and store.tasks() == []


def test_words_of_a_closed_store_are_a_mistake(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "fleet.db")
    for word in (store.load, store.counts):
        with pytest.raises(LocalMistake):
            word()


def test_every_count_of_rows_is_written_once(tmp_path: Path) -> None:
    with opened(tmp_path / "fleet.db") as store:
        epoch = store.lead("here", 0, WALL_MS)[0].epoch
        for count in (1, 2, 15, 16, 17, 255, 256, 257, 300, 1023):
            store.save([task(f"j{count}", n) for n in range(count)], epoch)
            found = store._open_writer().execute("SELECT count(*) FROM tasks WHERE job = ?", (f"j{count}",))
            assert found.fetchone()[0] == count


def test_statements_are_few() -> None:
    rows = [task("j", n) for n in range(511)]
    counts = {n: len(list(statements(TABLES[TaskRow], rows[:n]))) for n in (0, 1, 15, 17, 256, 500, 511)}
    assert counts == {0: 0, 1: 1, 15: 1, 17: 2, 256: 1, 500: 3, 511: 3}


# ------------------------------------------------------------------ killed at any instant

WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from controller.core.records import AuditRow, FleetRow, TaskRow
    from controller.store.sqlite import SqliteStore
    from protocol.tasks import TaskState

    store = SqliteStore(Path(sys.argv[1]))
    store.open()
    epoch = store.lead("child", 0, 1_700_000_000_000)[0].epoch
    start = int(store.load().fleet.get("round", "-1")) + 1
    for round in range(start, start + 100_000):
        rows = [FleetRow("round", str(round))]
        for n in range(300):
            task = (f"j{round}.{n}", f"j{round}", n, TaskState.PENDING, "run", "", 0, None, "", 0, 1, 1)
            rows.append(TaskRow(*task))
            rows.append(AuditRow(round, "me", "task", f"j{round}.{n}", "", "pending"))
        store.save(rows, epoch)
        print(round, flush=True)
""")


def acknowledged(path: Path, rng: random.Random) -> int:
    """Let a writer run, kill it somewhere in a save; the last round it called saved."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    try:
        first = child.stdout.readline()
        assert first, child.stderr.read()
        for _ in range(rng.randrange(3_000_000)):
            pass  # any instant will do, also inside a commit
    finally:
        child.kill()
        rest, _ = child.communicate(timeout=30)
    whole = [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]
    return int(whole[-1])


def test_killed_writer_loses_nothing_acknowledged_and_leaves_whole_transactions(tmp_path: Path) -> None:
    path, rng = tmp_path / "fleet.db", random.Random(7)
    for _ in range(6):
        last = acknowledged(path, rng)
        with opened(path) as store:
            db = store._open_writer()
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            store.lead("child", 0, WALL_MS)
            kept = int(store.load().fleet["round"])
            assert last <= kept <= last + 1
            rows = db.execute("SELECT job, count(*) FROM tasks GROUP BY job").fetchall()
            assert dict(rows) == {f"j{n}": 300 for n in range(kept + 1)}
            assert db.execute("SELECT count(*) FROM audit").fetchone()[0] == 300 * (kept + 1)
            assert store.counts().tasks["pending"] == 300 * (kept + 1)


def test_full_disk_error_number_is_what_the_limit_makes() -> None:
    """The way these tests fill a disk does fail a write."""
    with files_no_larger_than(0), open(os.devnull, "wb") as null:
        null.write(b"x")  # devices have no size
    with files_no_larger_than(10):
        fd = os.memfd_create("full")
        try:
            os.pwrite(fd, b"x" * 10, 0)
            with pytest.raises(OSError) as found:
                os.pwrite(fd, b"x", 10)
            assert found.value.errno == errno.EFBIG
        finally:
            os.close(fd)
