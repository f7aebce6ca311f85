"""Random worlds: whatever comes in whatever order, the device keeps its promises.

Checked after every step: nothing starts without a valid grant, at or after its deadline,
twice, or unsaved; deadlines only move forward; what is reported as dead is dead; the
journal can be read back; everything stays bounded.
"""

from __future__ import annotations

import random

import pytest

from edge_agent.core.effects import ConfirmSave, ExtendRun, ListRuns, ReadOutput, StartRun, StopRun
from edge_agent.core.events import (
    Booted,
    HostListed,
    HostLost,
    OutputRead,
    RunExit,
    RunExited,
    RunRefused,
    RunStarted,
    SaveConfirmed,
)
from protocol.core import (
    Connect,
    Disconnect,
    LinkDown,
    LinkUp,
    MessageArrived,
    Publish,
    Save,
    SaveFailed,
    TimerElapsed,
)
from protocol.limits import KILL_MS
from protocol.messages import AssignedAttempt, Assignments, Heartbeat, LeaseAnswer, Revision, Runs, Settings
from protocol.tasks import FINAL_RUN, AttemptId, Guarantee


class World:
    """Everything around one agent: a host, a journal, a link, a controller that keeps the rules."""

    def __init__(self, kit, seed):
        self.kit, self.rng = kit, random.Random(seed)
        self.now, self.seed = 1_000_000, seed
        self.journal = None
        self.live, self.exits = {}, {}
        self.started, self.deadlines = set(), {}
        self.sent = {}
        self.document = Assignments(Revision(1, 0))
        self.documents = [self.document]
        self.attempts = {}
        self.answers, self.delivered = [], []
        self.starts = 0
        self.boot()

    def boot(self):
        self.bench = self.kit.Bench(self.journal, seed=self.rng.randrange(1 << 30), now=self.now)
        self.agent = self.bench.agent
        self.connected = self.opening = 0
        self.pending = []
        self.feed(Booted())

    def feed(self, event):
        effects = self.agent.handle(event, self.now)
        saves = [e for e in effects if isinstance(e, Save)]
        if saves and self.rng.random() < self.bad_disk:
            return self.feed(SaveFailed("disk"))
        if saves:
            assert isinstance(effects[0], Save)
            self.journal = self.agent.memory.image()
        for effect in effects:
            self.perform(effect)
        self.check()
        return effects

    bad_disk = 0.0

    def perform(self, effect):
        if isinstance(effect, StartRun):
            self.start(effect)
        elif isinstance(effect, ExtendRun):
            key = AttemptId(effect.task, effect.attempt)
            assert effect.deadline_ms > 0
            self.deadlines[key] = max(self.deadlines.get(key, 0), effect.deadline_ms)
        elif isinstance(effect, StopRun):
            self.pending.append(("die", AttemptId(effect.task, effect.attempt), "stopped"))
        elif isinstance(effect, ListRuns):
            self.pending.append(("list", effect.ask))
        elif isinstance(effect, ReadOutput):
            self.pending.append(
                ("feed", OutputRead(effect.task, effect.attempt, effect.stream, effect.offset, b"", 0))
            )
        elif isinstance(effect, ConfirmSave):
            self.pending.append(("feed", SaveConfirmed(effect.session)))
        elif isinstance(effect, Connect):
            self.opening, self.connected = effect.session, 0
        elif isinstance(effect, Disconnect):
            self.pending.append(("feed", LinkDown(effect.session, "closed")))
        elif isinstance(effect, Publish):
            self.publish(effect.message)

    def start(self, effect):
        """The guard's view of a start: the invariants I15, D2, D4."""
        key = AttemptId(effect.attempt.task, effect.attempt.attempt)
        assert key not in self.started, f"{key} starts twice"
        assert key in self.agent.memory.entries
        assert key.task not in {k.task for k in self.live}, "two runs of one task"
        if effect.attempt.guarantee is Guarantee.AT_MOST_ONE:
            assert self.now < effect.deadline_ms
            granted = [a for a in self.delivered if a.granted == self.agent.memory.assignments.revision]
            sent = [
                self.sent.get((a.session, a.seq))
                for a in granted
                if a.session == self.agent.connection.session
            ]
            best = max(s for s in sent if s is not None)
            assert effect.deadline_ms == best + effect.attempt.lease_ms - KILL_MS
        self.started.add(key)
        self.starts += 1
        self.deadlines[key] = effect.deadline_ms
        if self.rng.random() < 0.9:
            self.live[key] = None
            self.pending.append(("feed", RunStarted(*key)))
        else:
            self.pending.append(("feed", RunRefused(*key, "deadline")))

    def publish(self, message):
        if isinstance(message, Heartbeat):
            self.sent[message.session, message.seq] = self.now
            granted = message.held.assignments == self.document.revision and self.rng.random() < 0.8
            self.answers.append(
                LeaseAnswer(
                    self.document.revision.epoch,
                    message.session,
                    message.seq,
                    message.held.assignments if granted else Revision(0, 0),
                    runs=message.held.runs if self.rng.random() < 0.8 else 0,
                )
            )
        if isinstance(message, Runs):
            for entry in message.entries:
                key = AttemptId(entry.task, entry.attempt)
                assert not (entry.state in FINAL_RUN and key in self.live), (
                    f"{key} is reported dead and lives"
                )
            listed = {AttemptId(e.task, e.attempt) for e in message.entries}
            assert all(key in listed for key in self.live), "a live run is not listed"

    def check(self):
        assert len(self.agent.heartbeats.sent) <= 256
        assert len(self.agent.counts) <= 65
        due = self.agent.next_due_ms()
        assert due is None or isinstance(due, int)

    # ------------------------------------------------------------ what may happen

    def step(self):
        getattr(self, self.rng.choice(self.MOVES))()

    def answer_something(self):
        if self.pending:
            kind, *rest = self.pending.pop(0)
            getattr(self, "do_" + kind)(*rest)

    def do_feed(self, event):
        self.feed(event)

    def do_list(self, ask):
        exits = tuple(RunExit(*k, -1, 9, reason) for k, reason in self.exits.items())
        self.feed(HostListed(ask, tuple((k.task, k.attempt) for k in self.live), exits))

    def do_die(self, key, reason):
        if key in self.live:
            del self.live[key]
            self.exits[key] = reason
            self.feed(RunExited(RunExit(*key, -1, 9, reason)))

    def link_moves(self):
        session = self.agent.connection.session
        if self.opening == session and self.connected != session:
            self.connected = session
            self.feed(LinkUp(session) if self.rng.random() < 0.8 else LinkDown(session, "refused"))
        elif self.connected == session and self.rng.random() < 0.2:
            self.feed(LinkDown(session, "lost"))

    def time_passes(self):
        self.now += self.rng.choice((1, 300, 1_000, 5_000))
        for key in [k for k in self.live if 0 < self.deadlines[k] <= self.now]:
            self.do_die(key, "deadline")
        for _ in range(50):
            due = self.agent.next_due_ms()
            if due is None or due > self.now:
                return
            self.feed(TimerElapsed())

    def new_document(self):
        attempts = [a for a in self.document.attempts if self.rng.random() < 0.7]
        named = {a.task for a in attempts}
        task = f"t{self.rng.randrange(5)}"
        if task not in named:
            number = self.attempts[task] = self.attempts.get(task, 0) + 1
            lasting = Guarantee.AT_LEAST_ONE if task == "t0" else Guarantee.AT_MOST_ONE
            attempts.append(
                AssignedAttempt(task, number, "process", ("true",), guarantee=lasting, lease_ms=9_000)
            )
        epoch, number = self.document.revision
        epoch += self.rng.random() < 0.05
        self.document = Assignments(Revision(epoch, number + self.rng.choice((1, 1, 2))), tuple(attempts))
        self.documents.append(self.document)

    def message_comes(self):
        if self.agent.connection.up:
            what = self.rng.random()
            if what < 0.5 and self.answers:
                message = self.rng.choice(self.answers[-6:])
                self.delivered.append(message)
            elif what < 0.95:
                message = self.document if self.rng.random() < 0.8 else self.rng.choice(self.documents)
            else:
                floor = self.agent.connection.session + self.rng.choice((-1, 0, 1 << 25))
                revision = Revision(self.document.revision.epoch, self.now)
                message = Settings(revision, session_floor=floor, quarantined=self.rng.random() < 0.2)
            self.feed(MessageArrived("pi-1", message))

    def run_ends(self):
        if self.live:
            self.do_die(self.rng.choice(list(self.live)), "exited")

    def agent_crashes(self):
        if self.rng.random() < 0.1:
            self.boot()

    def host_dies(self):
        if self.rng.random() < 0.1:
            self.live.clear()
            self.exits.clear()
            self.pending = [p for p in self.pending if p[0] == "feed" and not isinstance(p[1], RunStarted)]
            self.feed(HostLost("killed"))

    def disk_breaks(self):
        self.bad_disk = self.rng.choice((0.0, 0.0, 0.0, 0.3, 1.0))

    MOVES = (
        ["answer_something"] * 8
        + ["link_moves"] * 3
        + ["message_comes"] * 8
        + ["time_passes"] * 4
        + ["new_document", "run_ends", "agent_crashes", "host_dies", "disk_breaks"]
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_device_keeps_its_promises_in_a_random_world(kit, seed):
    world = World(kit, seed)
    for _ in range(600):
        world.step()
    if world.journal:
        assert kit.Bench(world.journal).agent.memory.session <= world.agent.memory.session


def test_random_worlds_do_start_things(kit):
    world = World(kit, 4)
    for _ in range(3_000):
        world.step()
    assert world.starts >= 10
