"""A storm: 30 % of 5,000 devices lost at once, seen by their wills, 10 `at_least_one` tasks on each.

The production core with a store, fed with what 5,000 devices say (wills, heartbeats, `Runs`),
in virtual time that its own deadlines drive. Failover of their site must freeze with an alarm
and move nothing; an operator releases it, and then every task of the lost devices must be
assigned again (committed: documents follow at a pace of their own), each exactly once, and
nothing else may move. Measured from the release to the last of these commits: virtual time,
which pauses and paces make, and processor time, which the work takes, saves included. On a
machine of its own the controller needs about the larger of the two.
Run: `python -m benchmarks.bench_storm [--devices N] [--share 0.3] [--store memory|sqlite]`.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.report import Result, say, show
from controller.core.controller import Controller
from controller.core.effects import Confirm, PublishFleet
from controller.core.events import CanaryReturned, FleetUnfrozen, HeartbeatBatch, JobSubmitted
from controller.core.leadership import Beginning
from controller.core.records import AttemptRow, AttemptState, LeaderRow, Row, TaskSpec
from controller.core.rules import Rules
from controller.store.base import Store
from controller.store.memory import MemoryStore
from controller.store.sqlite import SqliteStore
from protocol.core import Connect, Effect, Event, LinkUp, MessageArrived, Save, TimerElapsed
from protocol.messages import Canary, Inventory, RunEntry, Runs, Status
from protocol.resources import Resources
from protocol.tasks import AttemptId, Guarantee, JobKind, RunState

WALL_MS = 1_700_000_000_000
SESSION = 1 << 24
PERIOD_MS = 10_000
SLICE_MS = 200
"""Heartbeats are spread evenly over the period, in batches as a busy loop gathers them."""
TASKS_EACH = 10
ROOM = Resources(4_000, 4_096, 32_000, 0, 0, 0, 20)
NEEDS = Resources(150, 100)
JOB_TASKS = 500
TARGET_S = 5.0


class Site:
    """A core, its store, and devices that say what devices say."""

    def __init__(self, devices: int, store: Store) -> None:
        self.now_ms = 1_000_000
        self.store = store
        self.names = [f"d{number:05}" for number in range(devices)]
        self.living = np.ones(devices, np.bool_)
        self.attempts: dict[AttemptId, tuple[str, AttemptState]] = {}
        """As committed."""
        self.handed_out: list[AttemptRow] = []
        """New attempts, in the order of their commits."""
        self.core_s = self.store_s = 0.0
        leader, _ = store.lead("c1", 0, WALL_MS)
        self.epoch = leader.epoch
        beginning = Beginning(self.now_ms, False, False, WALL_MS)
        self.core = Controller(store.load(), beginning, self.now_ms, random.Random(1), Rules())
        self._seq, self._beaten_ms = 0, self.now_ms
        self.pass_ms(0)

    # ------------------------------------------------------------- events

    def feed(self, event: Event) -> list[Effect]:
        """One event, its rows saved, what is to be confirmed confirmed."""
        begin = time.process_time()
        effects = self.core.handle(event, self.now_ms)
        self.core_s += time.process_time() - begin
        for effect in effects:
            if isinstance(effect, Save):
                self._save(effect)
            elif isinstance(effect, Connect):
                self.feed(LinkUp(effect.session))
            elif isinstance(effect, Confirm):
                self.feed(effect.event)
            elif isinstance(effect, PublishFleet) and isinstance(effect.message, Canary):
                self.feed(CanaryReturned(effect.message.epoch, effect.message.number))
        return effects

    def _save(self, save: Save) -> None:
        begin = time.process_time()
        rows: list[Row] = [row for row in save.rows if not isinstance(row, LeaderRow)]  # type: ignore[misc]
        self.store.save(rows, self.epoch)
        self.store_s += time.process_time() - begin
        for row in save.rows:
            if isinstance(row, AttemptRow):
                key = AttemptId(row.task, row.attempt)
                if key not in self.attempts:
                    self.handed_out.append(row)
                self.attempts[key] = row.device, row.state

    def pass_ms(self, ms: int) -> None:
        """Time passes: the core wakes when it wants to, living devices beat."""
        until_ms = self.now_ms + ms
        while True:
            due_ms = min(
                max(self.core.next_due_ms() or until_ms + 1, self.now_ms), self._beaten_ms + SLICE_MS
            )
            if due_ms > until_ms:
                break
            self.now_ms = due_ms
            if due_ms >= self._beaten_ms + SLICE_MS:
                self._beaten_ms = due_ms
                self.beat(self._turn())
            self.feed(TimerElapsed())
        self.now_ms = until_ms

    def _turn(self) -> Sequence[int]:
        """Living devices whose heartbeat comes in this slice."""
        slices = PERIOD_MS // SLICE_MS
        rows = np.arange(self.now_ms // SLICE_MS % slices, len(self.names), slices)
        found: list[int] = rows[self.living[rows]].tolist()
        return found

    # ------------------------------------------------------------- devices

    def beat(self, devices: Sequence[int]) -> None:
        """Heartbeats of these devices, holding what they were told last."""
        if not devices:
            return
        self._seq += 1
        f, names = self.core.ledger.fleet, [self.names[d] for d in devices]
        rows, count = f.rows(names), len(devices)
        columns = (f.doc_epoch, f.doc_number, f.runs_number, f.inventory, f.settings_epoch, f.settings_number)
        held = np.stack([np.maximum(c[rows], i == 3) for i, c in enumerate(columns)], axis=1)
        sessions, seqs = np.full(count, SESSION, np.uint64), np.full(count, self._seq, np.int64)
        self.feed(HeartbeatBatch(names, sessions, seqs, held, np.zeros((count, 3), np.int64)))

    def connect(self) -> None:
        """All devices join."""
        for at, name in enumerate(self.names):
            self.feed(MessageArrived(name, Status(True, SESSION, "b1", "i1")))
            self.feed(MessageArrived(name, Inventory(1, SESSION, "generic-linux", ROOM, {}, ("process",))))
            self.report(name, 1)
            if at % 100 == 99:
                self.beat(range(at - 99, at + 1))
        self.beat(range(len(self.names)))

    def report(self, name: str, number: int) -> None:
        """Its `Runs`: everything that its document lists runs."""
        fleet = self.core.ledger.fleet
        row = fleet.index[name]
        listed = self.core.ledger.by_device[row]
        runs = tuple(RunEntry(key.task, key.attempt, RunState.RUNNING) for key in listed)
        self.feed(MessageArrived(name, Runs(SESSION, number, fleet.document(row), runs)))

    def submit(self, tasks: int) -> None:
        """Jobs of one kind of demand each, all `at_least_one`."""
        for number in range(tasks // JOB_TASKS):
            spec = TaskSpec("process", ("true",), {}, NEEDS._replace(memory_mib=100 + number % 20))
            job, kind, guarantee = f"j{number}", JobKind.BATCH, Guarantee.AT_LEAST_ONE
            self.feed(JobSubmitted(1, job, job, kind, JOB_TASKS, 0, guarantee, 3, 0, 30_000, spec, "bench"))

    def die(self, devices: Sequence[int]) -> None:
        """The broker tells the wills of all of them."""
        self.living[list(devices)] = False
        for device in devices:
            self.feed(MessageArrived(self.names[device], Status(False, SESSION, "b1", "i1", "will")))


def check(what: bool, words: str) -> None:
    """Ends the benchmark with an error: a number of a run that went wrong is none."""
    if not what:
        raise SystemExit(f"bench_storm: {words}")


def prepared(devices: int, store: Store) -> Site:
    """Every device has joined, and all tasks are placed and run."""
    site = Site(devices, store)
    site.connect()
    site.submit(devices * TASKS_EACH)
    site.pass_ms(30_000)
    check(len(site.attempts) == devices * TASKS_EACH, f"only {len(site.attempts)} tasks were placed")
    for name in site.names:
        site.report(name, 2)
    site.pass_ms(PERIOD_MS)
    return site


def frozen(site: Site, lost: Sequence[int]) -> None:
    """The wills come; failover must freeze, say so and move nothing."""
    before = len(site.handed_out)
    site.die(lost)
    site.pass_ms(20_000)
    [alarm] = site.core.ledger.alarms.values()
    say(f"alarm: {alarm}")
    check(f"{len(lost)} of its {len(site.names)} devices" in alarm, "the alarm tells other numbers")
    check(len(site.handed_out) == before, "something moved in the freeze")


def released(site: Site, moved: int) -> float:
    """Unfreezes; virtual seconds until so many attempts are committed."""
    began_ms, before = site.now_ms, len(site.handed_out)
    site.feed(FleetUnfrozen(2, "bench"))
    while len(site.handed_out) - before < moved and site.now_ms < began_ms + 60_000:
        site.pass_ms(max(1, (site.core.next_due_ms() or 0) - site.now_ms))
    return (site.now_ms - began_ms) / 1e3


def judge(site: Site, homes: dict[str, str], dead: frozenset[str], before: int) -> None:
    """Each task of the dead has exactly one new attempt, on the living; nobody else has one."""
    again = Counter(row.task for row in site.handed_out[before:])
    wanted = {task for task, device in homes.items() if device in dead}
    check(
        set(again) == wanted,
        f"{len(wanted - set(again))} tasks not assigned, {len(set(again) - wanted)} moved",
    )
    check(max(again.values()) == 1, "a task was assigned twice")
    check(not any(row.device in dead for row in site.handed_out[before:]), "a task went to the dead")


def profiled(site: Site, moved: int) -> float:
    profile = cProfile.Profile()
    took_s = profile.runcall(released, site, moved)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
    return took_s


def stores(kind: str) -> Iterator[Store]:
    """The one store that was asked for."""
    if kind == "memory":
        yield MemoryStore()
        return
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "storm.db")
        store.open()
        yield store
        store.close()


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_storm", description=__doc__)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    for store in stores(asked.store):
        site = prepared(asked.devices, store)
        lost = random.Random(1).sample(range(asked.devices), int(asked.devices * asked.share))
        dead = frozenset(site.names[d] for d in lost)
        homes = {key.task: device for key, (device, _) in site.attempts.items()}
        moved = sum(device in dead for device in homes.values())
        frozen(site, lost)
        before, site.core_s, site.store_s = len(site.handed_out), 0.0, 0.0
        virtual_s = (profiled if asked.profile else released)(site, moved)
        core_s, store_s = site.core_s, site.store_s
        site.pass_ms(30_000)
        judge(site, homes, dead, before)
        show(
            Result(f"release to the last of {moved:,} assignments: virtual time", virtual_s, "s", TARGET_S),
            Result(f"processor time of it, {asked.store} store", core_s + store_s, "s", TARGET_S,
                   cpu=f"{(core_s + store_s) / moved * 1e6:.0f} us a task, {store_s:.2f} s of it the store"),
        )  # fmt: skip


if __name__ == "__main__":
    main()
