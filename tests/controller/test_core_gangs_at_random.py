"""Gangs, daemons and crumbs at random, over hours: sums stay right, gangs begin whole, promises end."""

from __future__ import annotations

import random

import pytest

from controller.core.broken_gangs import PATIENCE_MS, standing
from controller.core.placement import Placement
from controller.core.records import Constraint, JobRules
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState
from tests.controller.stages import FULL, Stage

SMALL, HALF = Resources(1_000, 10), Resources(2_000, 10)
STEPS, TURN_MS = 160, 12_000
APART = (Constraint("", "distinct_device", ""),)


class Weather:
    """Devices that do as they are told, and a chance of all that may happen."""

    def __init__(self, desk, seed):
        self.desk, self.rng, self.stage = desk, random.Random(seed), Stage(desk, 5)
        self.made, self.silent = 0, {}

    def submit(self):
        rng, kind = self.rng, self.rng.choice(["small", "small", "small", "gang", "gang", "daemon"])
        name, more = f"{kind}{self.made}", {"priority": rng.choice([0, 0, 5, 50])}
        self.made += 1
        if kind == "gang":
            more |= {"count": rng.randint(2, 4), "needs": rng.choice([SMALL, HALF, FULL])}
            more |= {"rules": JobRules(gang=True), "constraints": rng.choice([(), APART])}
            more |= {"guarantee": rng.choice(list(Guarantee)), "max_attempts": 0}
            more |= {"kind": rng.choice([JobKind.BATCH, JobKind.SERVICE])}
        elif kind == "daemon":
            more |= {"count": 0, "kind": JobKind.DAEMON, "needs": rng.choice([SMALL, HALF])}
        else:
            more |= {"needs": SMALL}
        self.desk.submit(job=name, **more)

    def end(self):
        """A run of some device ends, well or not."""
        device = self.rng.choice(sorted(self.stage.numbers))
        listed = self.stage.listed(device)
        if not listed:
            return
        chosen = self.rng.choice(listed).row
        stage, state = self.stage, self.rng.choice([RunState.ENDED, RunState.ENDED, RunState.INTERRUPTED])
        stage.counts[device] += 1
        entries = [(a.row.task, a.row.attempt, RunState.RUNNING) for a in listed if a.row.task != chosen.task]
        ended = (chosen.task, chosen.attempt, state, 0) if state is RunState.ENDED else None
        ended = ended or (chosen.task, chosen.attempt, state)
        self.desk.runs(device, stage.numbers[device], stage.counts[device], *entries, ended)

    def trouble(self):
        rng, stage = self.rng, self.stage
        what = rng.choice(["cordon", "drain", "uncordon", "uncordon", "silence", "back", "back", "cancel"])
        if what == "silence" and len(stage.numbers) > 3:
            device = rng.choice(sorted(stage.numbers))
            self.silent[device] = stage.numbers.pop(device)
        elif what == "back" and self.silent:
            device = rng.choice(sorted(self.silent))
            stage.numbers[device] = self.silent.pop(device)
            stage.report(device)
        elif what == "cancel" and self.desk.core.ledger.jobs:
            self.desk.cancel(rng.choice(sorted(self.desk.core.ledger.jobs)))
        elif what in ("cordon", "drain", "uncordon"):
            self.desk.decide(f"d{rng.randint(1, 5)}", what)

    def step(self):
        rng = self.rng
        for act, chance in ((self.submit, 0.5), (self.end, 0.7), (self.end, 0.5), (self.trouble, 0.25)):
            if rng.random() < chance:
                act()
                self.check()
        if rng.random() < 0.01:
            before = self.desk.core
            self.desk.take_over().core.count_on(before)
        until = self.desk.now + TURN_MS
        while self.desk.now < until:
            self.desk.after(2_000)
            self.check()
            for device in sorted(self.stage.numbers):
                self.stage.report(device)
                self.check()

    def check(self):
        core = self.desk.core
        ledger, fleet, promises = core.ledger, core.ledger.fleet, core.nominations.by_task
        for row in range(fleet.count):
            reserved = sum(a.share.resources.cpu_milli for a in ledger.by_device[row].values())
            promised = [n for n in promises.values() if n.row == row and n.aside]
            aside = sum(n.share.resources.cpu_milli for n in promised)
            offered = int(fleet.view.offered[0][row])
            assert int(fleet.view.free[0][row]) == offered - reserved - aside
            assert reserved <= offered and aside <= offered
        assert len({n.task.row.job for n in promises.values() if n.together}) <= 1


@pytest.fixture
def rounds(monkeypatch):
    """Each round of placement is judged; how many gangs began."""
    run, began = Placement.run, []

    def judged(self, now_ms):
        gangs = [job for job in self.ledger.jobs.values() if job.row.rules.gang]
        stood = {job.row.id: len(standing(self.ledger, job)) for job in gangs}
        before = self.ledger.counters.get("preempted", 0)
        run(self, now_ms)
        for job in gangs:
            now = len(standing(self.ledger, job))
            if now and not stood[job.row.id]:
                # What a later one of the same round sent away was gone at once.
                assert now == job.left or self.ledger.counters["preempted"] > before
                began.append(job.row.id)

    monkeypatch.setattr(Placement, "run", judged)
    return began


@pytest.mark.parametrize("seed", range(3))
def test_sums_stay_right_and_gangs_begin_whole(desk, rounds, seed):
    weather = Weather(desk, seed)
    for _ in range(STEPS):
        weather.step()
    assert rounds and desk.core.ledger.counters["placements"] > 50
    for job in sorted(desk.core.ledger.jobs):
        desk.cancel(job)
    for device in sorted(weather.silent):
        weather.stage.numbers[device] = weather.silent.pop(device)
    until = desk.now + 2 * PATIENCE_MS
    while desk.now < until:
        desk.after(2_000)
        for device in sorted(weather.stage.numbers):
            weather.stage.report(device)
    core = desk.core
    assert core.ledger.attempts == {} and core.ledger.fleet.aside == {}
    core.preemption.begin_round()
    assert core.nominations.by_task == {}
