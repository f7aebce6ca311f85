"""A stage: devices of a desk that run what they are told, when the test says so."""

from __future__ import annotations

from controller.core.records import AttemptState
from protocol.resources import Resources
from protocol.tasks import RunState, TaskState

FULL = Resources(4_000, 100)
"""All of a device of the desk."""


class Stage:
    """A desk whose devices run what they are told."""

    def __init__(self, desk, count=1, **facts):
        self.desk, self.numbers, self.counts = desk, {}, {}
        for i in range(1, count + 1):
            self.join(f"d{i}", **facts)

    def join(self, device, **facts):
        self.numbers[device] = self.desk.join(device, **facts)
        self.counts[device] = 1

    def beat(self, device):
        desk, count = self.desk, self.counts[device]
        desk.heartbeat(device, self.numbers[device], 100_000 + desk.now, runs=count)

    def run_all(self):
        """Every device is told, granted, and shows as running what its document lists."""
        for _ in range(4):
            for device in self.numbers:
                self.beat(device)
            self.desk.after(1_000)
        for device in self.numbers:
            self.report(device)

    def listed(self, device):
        ledger = self.desk.core.ledger
        return [
            a
            for a in ledger.by_device[ledger.fleet.index[device]].values()
            if a.row.state is not AttemptState.REMOVED
        ]

    def report(self, device, also=()):
        """A `Runs` of what it should run, and of `also` (task, attempt, state)."""
        self.beat(device)
        self.counts[device] += 1
        entries = [(a.row.task, a.row.attempt, RunState.RUNNING) for a in self.listed(device)]
        self.desk.runs(device, self.numbers[device], self.counts[device], *entries, *also)
        self.beat(device)

    def filled(self, job="low", needs=FULL, priority=0, **more):
        self.desk.placed(job=job, needs=needs, priority=priority, **more)
        self.run_all()

    def leaving(self):
        attempts = self.desk.core.ledger.attempts.values()
        return sorted(a.row.task for a in attempts if a.row.state is AttemptState.REMOVED)

    def where(self, task):
        row = self.desk.task(task)
        return row.device if row.state in (TaskState.ASSIGNED, TaskState.RUNNING) else row.state.value
