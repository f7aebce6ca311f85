"""Heartbeats as columns and one by one: two ways through the same rules, told apart by nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from protocol.messages import Revision
from protocol.tasks import RunState

DEVICES = ("d1", "d2", "d3")
FIELDS = (
    "granted_number", "granted_ms", "granted_session", "session", "runs_session", "runs_number",
    "heard_ms", "state", "doc_epoch", "doc_number",
)  # fmt: skip


def one_by_one(desk):
    """This desk's controller never takes the short way."""
    desk.core.leases._regular = lambda batch, rows: np.zeros(len(rows), np.bool_)


class Story:
    """The same things happen on two desks; what is said and known must be the same."""

    def __init__(self, desk_kit, seed):
        self.kit, self.rng = desk_kit, random.Random(seed)
        self.desks = (desk_kit.Desk(), desk_kit.Desk())
        one_by_one(self.desks[1])
        self.numbers = {device: desk_kit.session(1) for device in DEVICES}
        self.runs = dict.fromkeys(DEVICES, 1)
        self.seq = self.jobs = 0

    def each(self, wish):
        effects = [wish(desk) for desk in self.desks]
        assert self.answers(effects[0]) == self.answers(effects[1])
        return effects

    def answers(self, effects):
        told = [(d, a) for d in DEVICES for a in self.kit.answers(effects, d)]
        documents = [(d, m) for d in DEVICES for m in self.kit.documents(effects, d)]
        return sorted(told, key=lambda t: (t[0], t[1].seq)), documents

    def step(self):
        rng, device = self.rng, self.rng.choice(DEVICES)
        verb = rng.choice(
            ("beat", "beat", "beat", "reported", "reconnect", "submit", "cancel", "wait", "cordon")
        )
        getattr(self, verb)(device)
        for desk in self.desks:
            assert desk.now == self.desks[0].now
        for name in FIELDS:
            a, b = (getattr(desk.core.ledger.fleet, name)[: len(DEVICES)].tolist() for desk in self.desks)
            assert a == b, name

    def beat(self, device):
        rng, rows = self.rng, []
        for name in rng.sample(DEVICES, rng.randint(1, 3)):
            self.seq += 1
            number = self.numbers[name] - (1 << 24) * (rng.random() < 0.1)
            held = None
            if rng.random() < 0.2:
                present = self.desks[0].document(name)
                held = Revision(present.epoch, max(0, present.number - 1))
            rows.append((name, max(number, 1), self.seq, held, self.runs[name], 1, None))
        self.each(lambda desk: desk.heartbeats(*rows))

    def runs_of(self, desk, device):
        row = desk.core.ledger.fleet.index[device]
        return [
            (a.row.task, a.row.attempt, RunState.RUNNING) for a in desk.core.ledger.by_device[row].values()
        ]

    def reported(self, device):
        self.runs[device] += 1
        listed = self.runs_of(self.desks[0], device)
        if self.rng.random() < 0.3:
            listed = listed[1:]
        self.each(lambda desk: desk.runs(device, self.numbers[device], self.runs[device], *listed))

    def reconnect(self, device):
        self.numbers[device] += 1 << 24
        self.runs[device] = 0
        self.each(lambda desk: desk.status(device, self.numbers[device]))
        self.each(lambda desk: desk.inventory(device, self.numbers[device]))
        self.reported(device)

    def submit(self, device):
        self.jobs += 1
        self.each(lambda desk: desk.submit(job=f"j{self.jobs}"))

    def cancel(self, device):
        job = f"j{self.rng.randint(1, max(1, self.jobs))}"
        self.each(lambda desk: desk.cancel(job))

    def wait(self, device):
        ms = self.rng.choice((50, 400, 3_000, 9_000))
        self.each(lambda desk: desk.after(ms))

    def cordon(self, device):
        verb = self.rng.choice(("cordon", "uncordon", "uncordon"))
        self.each(lambda desk: desk.decide(device, verb))


@pytest.mark.parametrize("seed", range(12))
def test_regular_heartbeats_are_answered_in_columns_as_one_by_one(desk_kit, seed):
    story = Story(desk_kit, seed)
    for device in DEVICES:
        story.each(lambda desk, device=device: desk.join(device) and [])
    for _ in range(150):
        story.step()
    counts = [desk.core.ledger.counters.get("grants", 0) for desk in story.desks]
    assert counts[0] == counts[1] > 20
