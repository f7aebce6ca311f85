"""A recorder: what real processes did and what a real database took, as a history for the checkers.

Rule of this file: it looks from outside, at /proc and at the controller's database (read only),
and believes no agent and no API. A run lives from the start time that the kernel gives its first
process until the last look at which one of its processes was there; so two runs that overlap in
the history did overlap. What was committed is seen some tens of ms later, many commits as one.
Output, messages and what people are shown are not recorded: I8, I9 and I13 are not judged by this.

    python tests/live/recording.py --data DIR --seconds 60 > history.jsonl && fm sim check history.jsonl
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.core.records import AuditRow, DeviceRow, DocumentRow, JobRow, Row
from controller.store.tables import (
    ATTEMPT,
    AUDIT,
    DEVICE,
    JOB,
    TASK,
    read_attempt,
    read_audit,
    read_device,
    read_job,
    read_task,
)
from protocol.tasks import Guarantee
from sim.histories import write_line
from sim.observations import Committed, JobAccepted, Observation, RunBegan, RunEnded

LOOK_S = 0.02
"""A look at all processes costs about 2 ms; 50 a second are enough for kills of 2 s."""
YOUNG_S = 2.0
"""A process so young may still become a run by exec, so it is asked again."""
TICK_MS = 1_000 // os.sysconf("SC_CLK_TCK")
Key = tuple[str, str, int]
"""(device, task, attempt)."""


def now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def environment_of(pid: str) -> Key | None:
    """Whose run this process belongs to; None for everybody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = dict(e.partition(b"=")[::2] for e in file.read().split(b"\0"))
    except OSError:
        return None
    if b"FM_TASK" not in entries or b"FM_ATTEMPT" not in entries:
        return None
    device, task = entries.get(b"FM_DEVICE", b"").decode(), entries[b"FM_TASK"].decode()
    return device, task, int(entries[b"FM_ATTEMPT"])


def began_ms(pid: str) -> int | None:
    """The kernel's start time, in ms since boot; None for a process that is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if words[0] in (b"Z", b"X") else int(words[19]) * TICK_MS


@dataclass
class Life:
    """A run as seen: from its first process's start to the last look that found one."""

    began_ms: int
    seen_ms: int


class Runs:
    """All runs of this machine's agents."""

    def __init__(self, devices: Callable[[str], bool]) -> None:
        self.devices = devices
        self.lives: list[tuple[Key, Life]] = []
        self._present: dict[Key, Life] = {}
        self._strangers: dict[str, int] = {}
        """Pid -> when it was first seen, of processes that are nobody's run."""

    def look(self) -> None:
        at_ms = now_ms()
        found: dict[Key, int] = {}
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        self._strangers = {pid: self._strangers[pid] for pid in pids if pid in self._strangers}
        for pid in pids:
            if at_ms - self._strangers.get(pid, at_ms) > YOUNG_S * 1_000:
                continue
            key = environment_of(pid)
            if key is None or not self.devices(key[0]):
                self._strangers.setdefault(pid, at_ms)
            elif (since_ms := began_ms(pid)) is not None:
                found[key] = min(since_ms, found.get(key, since_ms))
        self._note(found, at_ms)

    def _note(self, found: dict[Key, int], at_ms: int) -> None:
        for key, since_ms in found.items():
            life = self._present.get(key)
            if life is None:
                life = self._present[key] = Life(since_ms, at_ms)
                self.lives.append((key, life))
            life.seen_ms = at_ms
        for key in [key for key in self._present if key not in found]:
            del self._present[key]

    def living(self, key: Key) -> bool:
        return key in self._present


class Database:
    """The tables of a controller, and what changed in them since the last look."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5)
        self.known: dict[tuple[str, object], object] = {}
        self.audits = 0
        self._version = -1

    def look(self) -> list[Row]:
        """Rows that are new or changed, audit rows in their order; empty when nothing was committed."""
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        self.db.execute("BEGIN")
        try:
            return [*self._changed(), *self._told()]
        finally:
            self.db.execute("COMMIT")

    def _changed(self) -> Iterable[Row]:
        tables: tuple[tuple[str, str, int, Callable[[Any], Row]], ...] = (
            ("jobs", JOB, 1, read_job),
            ("tasks", TASK, 2, read_task),
            ("devices", DEVICE, 1, read_device),
            ("documents", "device, epoch, number", 1, lambda v: DocumentRow(*v)),
            ("attempts", ATTEMPT, 2, read_attempt),
        )
        for table, columns, width, read in tables:
            for values in self.db.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2"):
                key = (table, values[:width])
                if self.known.get(key) != values:
                    self.known[key] = values
                    yield read(values)

    def _told(self) -> list[AuditRow]:
        found = self.db.execute(
            f"SELECT number, {AUDIT} FROM audit WHERE number > ? ORDER BY number", (self.audits,)
        ).fetchall()
        if found:
            self.audits = found[-1][0]
        return [read_audit(values[1:]) for values in found]


class Recorder:
    """Watches a fleet's data directory and this machine's processes until `stop`."""

    def __init__(self, database: Path, devices: Callable[[str], bool] = bool) -> None:
        self.runs = Runs(devices)
        self.told: list[Observation] = []
        self.looks = 0
        self.took_s = 0.0
        self._path = database
        self._wanted = self._done = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._looked = threading.Condition()

    def start(self) -> Recorder:
        self._thread.start()
        return self

    def _watch(self) -> None:
        database = Database(self._path)
        while True:
            over, began_s = self._over.is_set(), time.monotonic()
            self.runs.look()
            if rows := database.look():
                self.told.append(Committed(now_ms(), 0, tuple(rows)))
            self.took_s += time.monotonic() - began_s
            with self._looked:
                self.looks += 1
                self._looked.notify_all()
            if over:
                database.db.close()
                return
            time.sleep(max(0.0, LOOK_S - (time.monotonic() - began_s)))

    def accepted(self, job: str, count: int) -> None:
        """Somebody was told that his job is accepted: by now the database holds it."""
        with self._looked:
            wanted = self.looks + 2
            assert self._looked.wait_for(lambda: self.looks >= wanted, 30), "the recorder has stopped"
        self.told.append(JobAccepted(now_ms(), job, count))

    def stop(self) -> list[Observation]:
        """The history, in the order in which things happened."""
        self._over.set()
        self._thread.join(30)
        jobs, devices = self._rows()
        history: list[tuple[int, int, Observation]] = [(o.at_ms, 1, o) for o in self.told]
        for key, life in self.runs.lives:
            job = jobs.get(key[1].rpartition(".")[0])
            if job is None:
                continue
            only_one = job.guarantee is Guarantee.AT_MOST_ONE
            weak = key[0] in devices and devices[key[0]].containment == "weak"
            began = RunBegan(life.began_ms, *key, only_one, job.lease_ms, weak)
            history.append((life.began_ms, 2, began))
            if not self.runs.living(key):
                history.append(
                    (life.seen_ms, 0 if life.seen_ms > life.began_ms else 3, RunEnded(life.seen_ms, *key))
                )
        return [o for _, _, o in sorted(history, key=lambda item: item[:2])]

    def _rows(self) -> tuple[dict[str, JobRow], dict[str, DeviceRow]]:
        rows = [row for o in self.told if isinstance(o, Committed) for row in o.rows]
        jobs = {row.id: row for row in rows if isinstance(row, JobRow)}
        return jobs, {row.device: row for row in rows if isinstance(row, DeviceRow)}


def find_database(data: Path) -> Path:
    """The one SQLite file below a fleet's data directory. Raises `FileNotFoundError`."""
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            if file.read(15) == b"SQLite format 3":
                return path
    raise FileNotFoundError(f"no database below {data}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Records what a fleet on this machine really does.")
    parser.add_argument("--data", type=Path, required=True, help="the data directory of fm up")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    options = parser.parse_args()
    recorder = Recorder(find_database(options.data)).start()
    time.sleep(options.seconds)
    for observation in recorder.stop():
        print(write_line(observation))
    print(f"{recorder.looks} looks, {recorder.took_s:.1f} s of work", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
