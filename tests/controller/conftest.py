"""A bench for the controller's core: feed events, look at effects, jump in time. The store is a real one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from controller.core.controller import Controller
from controller.core.effects import Confirm, PublishFleet, PublishLeases, Reply
from controller.core.events import CanaryReturned, DeviceDecision, HeartbeatBatch, JobCancelled, JobSubmitted
from controller.core.leadership import Beginning
from controller.core.records import LeaderRow, TaskSpec
from controller.core.rules import Rules
from controller.store.memory import MemoryStore
from protocol.core import Connect, LinkUp, MessageArrived, Publish, Save, TimerElapsed
from protocol.messages import (
    NO_REVISION,
    Assignments,
    Canary,
    Inventory,
    LeaseAnswer,
    Revision,
    RunEntry,
    Runs,
    Settings,
    Status,
)
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState
from tests.controller.yard import Yard

WALL_MS = 1_700_000_000_000
ROOM = Resources(4_000, 4_096, 10_000, 0)


def session(count, chance=0):
    """A session number: a count in the high bits, chance in the low ones."""
    return count << 24 | chance


class Desk:
    """One controller core over a memory store, and a clock that the test moves."""

    def __init__(self, now=1_000_000, rules=None):
        self.store = MemoryStore()
        self.now = now
        self.rules = rules or Rules("spread")
        self.saved = []
        self.said = []
        self.broker_answers = True
        self.take_over()

    def take_over(self, above=0, wait=False, offset_ms=WALL_MS):
        """A new core out of what is saved, as after a crash or a failed save."""
        leader, _ = self.store.lead("c1", above, offset_ms + self.now)
        beginning = Beginning(self.now, wait, bool(above), offset_ms)
        self.core = Controller(self.store.load(), beginning, self.now, random.Random(1), self.rules)
        self.epoch = leader.epoch
        for effect in self.at(self.now):
            if isinstance(effect, Connect):
                self.feed(LinkUp(effect.session))
        return self

    # ------------------------------------------------------------- feeding

    def feed(self, event):
        """One event; its rows go to the store, its confirmations come back. All effects, in order."""
        effects = self.core.handle(event, self.now)
        saves = [e for e in effects if isinstance(e, Save)]
        assert not saves or (len(saves) == 1 and effects[0] is saves[0]), "one save, and it stands in front"
        for save in saves:
            rows = [r for r in save.rows if not isinstance(r, LeaderRow)]
            self.saved = rows
            self.store.save(rows, self.epoch)
        for effect in list(effects):
            if isinstance(effect, Confirm):
                effects += self.feed(effect.event)
            if (
                isinstance(effect, PublishFleet)
                and isinstance(effect.message, Canary)
                and self.broker_answers
            ):
                effects += self.feed(CanaryReturned(effect.message.epoch, effect.message.number))
        self.said += effects
        return effects

    def at(self, now):
        """Lets time pass until `now`, waking the core whenever it wants; all effects of that."""
        effects = []
        for _ in range(100_000):
            due = self.core.next_due_ms()
            if due is None or due > now:
                break
            self.now = max(self.now, due)
            effects += self.feed(TimerElapsed())
        else:
            raise AssertionError("the core spins")
        self.now = now
        return effects

    def after(self, ms):
        return self.at(self.now + ms)

    # ------------------------------------------------------------- devices speak

    def message(self, device, message):
        return self.feed(MessageArrived(device, message))

    def status(self, device, number, online=True, boot="b1", instance="i1"):
        return self.message(device, Status(online, number, boot, instance))

    def runs(self, device, number, count, *entries, answers=None):
        """`entries`: (task, attempt, state[, exit code])."""
        listed = tuple(RunEntry(t, a, s, *rest) for t, a, s, *rest in entries)
        return self.message(device, Runs(number, count, answers or self.document(device), listed))

    def inventory(
        self, device, number, count=1, room=ROOM, containment="strong", labels=None, profile="generic-linux"
    ):
        return self.message(
            device,
            Inventory(
                count,
                number,
                profile,
                room,
                labels or {},
                ("process", "simulated"),
                containment=containment,
            ),
        )

    def heartbeat(self, device, number, seq=1, held=None, runs=1, inventory=1, settings=None):
        """By default it holds the present document and settings, and named the last `Runs`."""
        return self.heartbeats((device, number, seq, held, runs, inventory, settings))

    def heartbeats(self, *rows):
        f = self.core.ledger.fleet
        held = []
        for device, _, _, document, runs, inventory, settings in rows:
            row = f.index.get(device)
            own = (
                NO_REVISION
                if row is None
                else Revision(int(f.settings_epoch[row]), int(f.settings_number[row]))
            )
            held.append((*(document or self.document(device)), runs, inventory, *(settings or own)))
        return self.feed(
            HeartbeatBatch(
                [r[0] for r in rows],
                np.array([r[1] for r in rows], np.uint64),
                np.array([r[2] for r in rows], np.int64),
                np.array(held, np.int64).reshape(-1, 6),
                np.zeros((len(rows), 3), np.int64),
            )
        )

    def join(self, device="d1", number=None, **facts):
        """Connects as a device does: status, inventory, runs, a heartbeat."""
        number = session(1) if number is None else number
        self.status(device, number)
        self.inventory(device, number, **facts)
        self.runs(device, number, 1)
        self.heartbeat(device, number)
        return number

    # ------------------------------------------------------------- people speak

    def submit(self, job="j1", count=1, guarantee=Guarantee.AT_MOST_ONE, kind=JobKind.BATCH, **more):
        spec = TaskSpec(
            more.pop("runtime", "process"), ("true",), {}, more.pop("needs", Resources(1_000, 100)),
            more.pop("constraints", ()), more.pop("timeout_ms", 0),
        )  # fmt: skip
        return self.feed(
            JobSubmitted(
                1, job, job, kind, count, more.pop("priority", 0), guarantee, more.pop("max_attempts", 3),
                more.pop("ttl_ms", 0), more.pop("lease_ms", 30_000), spec, "tester", **more,
            )
        )  # fmt: skip

    def placed(self, **more):
        """Submits and lets it be placed; the effects of both."""
        return [*self.submit(**more), *self.after(200)]

    def running(self, device="d1", number=None, seq=10, **more):
        """A job of one task that is granted and shown as running; the device's session."""
        number = self.join(device) if number is None else number
        self.placed(**more)
        self.heartbeat(device, number, seq)
        job = more.get("job", "j1")
        self.runs(device, number, 2, (f"{job}.0", 1, RunState.RUNNING))
        self.heartbeat(device, number, seq + 1, runs=2)
        return number

    def cancel(self, job="j1"):
        return self.feed(JobCancelled(2, job, "tester"))

    def decide(self, device, verb):
        return self.feed(DeviceDecision(3, device, verb, "tester"))

    # ------------------------------------------------------------- looking

    def document(self, device):
        f = self.core.ledger.fleet
        row = f.index.get(device)
        return NO_REVISION if row is None else f.document(row)

    def task(self, task="j1.0"):
        return self.store.task(task)

    def attempt(self, number=1, task="j1.0"):
        return next(a for a in self.store.attempts(task) if a.attempt == number)


def published(effects, kind, device=None):
    """Messages of one kind, in order; lease answers also out of their columns."""
    found = []
    for effect in effects:
        if (
            isinstance(effect, Publish)
            and isinstance(effect.message, kind)
            and device in (None, effect.device)
        ):
            found.append(effect.message)
        if isinstance(effect, PublishLeases) and kind is LeaseAnswer:
            for i, name in enumerate(effect.devices):
                if device in (None, name):
                    granted = Revision(int(effect.epochs[i]), int(effect.numbers[i]))
                    numbers = (effect.runs[i], effect.inventories[i], effect.outboxes[i], effect.stored[i])
                    found.append(
                        LeaseAnswer(
                            effect.epoch,
                            int(effect.sessions[i]),
                            int(effect.seqs[i]),
                            granted,
                            *map(int, numbers),
                        )
                    )
    return found


class DeskKit:
    """What tests use, since test files import nothing from each other."""

    Desk = Desk
    session = staticmethod(session)
    published = staticmethod(published)
    documents = staticmethod(lambda effects, device=None: published(effects, Assignments, device))
    answers = staticmethod(lambda effects, device=None: published(effects, LeaseAnswer, device))
    settings = staticmethod(lambda effects, device=None: published(effects, Settings, device))

    @staticmethod
    def granted(effects, device=None):
        """The revision that the one answer grants; `NO_REVISION` when it grants nothing."""
        [answer] = published(effects, LeaseAnswer, device)
        return answer.granted

    @staticmethod
    def listed(document):
        return [(a.task, a.attempt) for a in document.attempts]

    @staticmethod
    def reply(effects):
        [body] = [e.body for e in effects if isinstance(e, Reply)]
        return body


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def desk_kit():
    return DeskKit


@pytest.fixture
def yard(desk_kit):
    return lambda rules=None, devices=3, labels=None, rooms=None: Yard(
        desk_kit, rules, devices, labels, rooms
    )
