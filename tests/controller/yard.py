"""A yard: a desk with devices that do as they are told, and checks at every beat that nothing is broken."""

from __future__ import annotations

from controller.core.events import RebalanceAsked, RebalanceDecided, RebalancesQueried
from controller.core.rules import Rules
from protocol.core import Publish
from protocol.messages import NO_REVISION, Assignments, RunEntry, Runs
from protocol.resources import Resources
from protocol.tasks import RunState

LEASE_MS = 30_000
COOL_MS = 3 * LEASE_MS
ROOM = Resources(4_000, 4_096, 10_000, 0)


class Yard:
    """A desk with devices that do as they are told: they beat, run what is listed, drop what is not."""

    def __init__(self, kit, rules=None, devices=3, labels=None, rooms=None):
        self.kit, self.desk = kit, kit.Desk(rules=rules or Rules("spread"))
        self.seq, self.number, self.session, self.told = 10, {}, {}, {}
        self.silent, self.deaf_to = set(), set()
        self.moving_most = 0
        for i in range(devices):
            self.join(f"d{i}", (labels or {}).get(i), (rooms or {}).get(i, ROOM))

    @property
    def core(self):
        return self.desk.core

    def join(self, name, labels=None, room=ROOM):
        self.session[name] = self.desk.join(name, labels=labels or {}, room=room)
        self.number[name] = 1

    def live(self, ms, step=1_000):
        """Time in which every device beats, and reports what it was told."""
        until = self.desk.now + ms
        while self.desk.now < until:
            self.desk.after(min(step, until - self.desk.now))
            self.beat()
        return self

    def beat(self):
        self.seq += 1
        self.listen()
        for name, session in self.session.items():
            if name not in self.silent:
                held = self.told[name].revision if name in self.told else None
                self.desk.heartbeat(name, session, self.seq, held, runs=self.number[name])
        self.listen()
        for name in self.session:
            if name not in self.silent and name not in self.deaf_to:
                self.report(name)
        self.check()

    def listen(self):
        """Documents reach their devices; a core that takes over has to know what they hold by itself."""
        for effect in self.desk.said:
            if isinstance(effect, Publish) and isinstance(effect.message, Assignments):
                self.told[effect.device] = effect.message
        self.desk.said.clear()

    def report(self, name, **ended):
        """Everything that is listed runs; `ended`: task -> exit code of what does not any more."""
        told = self.told.get(name)
        entries = []
        for a in told.attempts if told else ():
            over = (RunState.ENDED, ended[a.task]) if a.task in ended else (RunState.RUNNING,)
            entries.append(RunEntry(a.task, a.attempt, *over))
        self.number[name] += 1
        answers = told.revision if told else NO_REVISION
        self.desk.message(name, Runs(self.session[name], self.number[name], answers, tuple(entries)))

    def check(self):
        """Nothing is ever reserved beyond what is offered, and the budget of C4 holds."""
        fleet, ledger = self.core.ledger.fleet, self.core.ledger
        for row in range(fleet.count):
            held = [a.share.resources for a in ledger.by_device[row].values()]
            total = [sum(amounts) for amounts in zip(*held, strict=True)] or [0] * len(ROOM)
            offered = fleet.offered_of(row)
            assert all(h <= o for h, o in zip(total, offered, strict=True)), (row, total, offered)
        moving = len(self.core.rebalance.carrying.under_way) + self.core.operators.moving()
        assert moving <= self.core.operators.budget()
        self.moving_most = max(self.moving_most, moving)

    # ------------------------------------------------------------- people

    def ask(self, **how):
        return self.kit.reply(self.desk.feed(RebalanceAsked(7, "ada", **how)))

    def approve(self, plan, approve=True):
        return self.kit.reply(self.desk.feed(RebalanceDecided(8, plan, approve, "ada")))

    def plan(self, plan):
        return self.kit.reply(self.desk.feed(RebalancesQueried(9, plan)))

    def plans(self):
        return self.kit.reply(self.desk.feed(RebalancesQueried(9)))

    def crowd(self, count=8, onto="d0", cpu=500, job="j1", **more):
        """Tasks that all run on one device, the others being empty; past their cool-down."""
        for name in self.session:
            if name != onto:
                self.desk.decide(name, "cordon")
        self.desk.submit(job=job, count=count, needs=Resources(cpu, 64), **more)
        self.live(3_000)
        for name in self.session:
            self.desk.decide(name, "uncordon")
        assert self.count()[onto] >= count
        return self.live(COOL_MS)

    def count(self):
        """How many tasks run where."""
        ledger = self.core.ledger
        return {n: len(ledger.by_device[ledger.fleet.index[n]]) for n in self.session}

    def running(self):
        return [t.row.device for t in self.core.ledger.tasks.values() if t.row.state == "running"]
