"""One conversation between the two real cores, message by message, as people and as bytes.

Nothing here makes a message: a controller's core and an agent's core are joined by a wire
that loses nothing, a guard that starts what it is told and says how it ended, and a clock
that stands still between the steps. Seeds are fixed, so the bytes are always the same.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import numpy as np

from controller.core.controller import Controller
from controller.core.effects import Confirm, PublishFleet, PublishLeases
from controller.core.events import CanaryReturned, HeartbeatBatch, JobSubmitted
from controller.core.leadership import Beginning
from controller.core.records import LeaderRow, Snapshot, TaskSpec
from edge_agent.core import effects as asked
from edge_agent.core import events as told
from edge_agent.core.agent import Agent
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.memory import Memory
from protocol.codec import decode, encode, encode_json
from protocol.core import Connect, Effect, Event, LinkUp, MessageArrived, Publish, TimerElapsed
from protocol.messages import Canary, Heartbeat, LeaseAnswer, Message, Revision
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind
from protocol.topics import UP, build, parse

FLEET, DEVICE = "fleet", "pi-1"
EPOCH = 1_800_000_000
OUTPUT = b"hello\n"
HEX_WIDTH = 32
"""Bytes per line."""


@dataclass(slots=True)
class Said:
    """One message on the wire."""

    at_ms: int
    topic: str
    message: Message

    @property
    def payload(self) -> bytes:
        return encode(self.message)


class Conversation:
    """Both cores and everything between them."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.said: list[Said] = []
        leader = LeaderRow(EPOCH, "main", EPOCH * 1_000)
        self.controller = Controller(Snapshot(leader), Beginning(0), 0, random.Random(1))
        equipment = Equipment("pi-4b-4g", Resources(4_000, 3_790, 20_000, 0), {}, ("process",), 10_000)
        self.agent = Agent(Memory("i-1"), Identity(DEVICE, "b-1", "0.1.0"), equipment, random.Random(2))
        self._queue: deque[tuple[Controller | Agent, Event]] = deque()
        self._live: dict[tuple[str, int], None] = {}

    # ------------------------------------------------------------- steps

    def connect(self) -> None:
        """Both sides come up."""
        self.advance(0)
        self.feed(self.agent, told.Booted())

    def submit(self) -> None:
        """A person declares a job of one task."""
        spec = TaskSpec(command=("echo", "hello"), resources=Resources(100, 32, 0, 0))
        event = JobSubmitted(
            1, "j-1", "hello", JobKind.BATCH, 1, 50, Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec, "me"
        )  # fmt: skip
        self.feed(self.controller, event)

    def end(self) -> None:
        """The run ends with 0."""
        ((task, attempt),) = self._live
        self._live.clear()
        self.feed(self.agent, told.RunExited(told.RunExit(task, attempt, 0, 0, "exited")))

    def advance(self, by_ms: int) -> None:
        """Time passes; each core is woken when it wants to be."""
        until_ms = self.now_ms + by_ms
        for _ in range(1_000):
            dues = [(core.next_due_ms(), core) for core in (self.controller, self.agent)]
            due_ms, core = min(((d, c) for d, c in dues if d is not None), key=lambda pair: pair[0])
            if due_ms > until_ms:
                break
            self.now_ms = max(self.now_ms, due_ms)
            self.feed(core, TimerElapsed())
        self.now_ms = until_ms

    # ------------------------------------------------------------- both worlds

    def feed(self, core: Controller | Agent, event: Event) -> None:
        self._queue.append((core, event))
        while self._queue:
            receiver, next_event = self._queue.popleft()
            for effect in receiver.handle(next_event, self.now_ms):
                self._perform(receiver, effect)

    def _perform(self, core: Controller | Agent, effect: Effect) -> None:
        match effect:
            case Connect():
                self._queue.append((core, LinkUp(effect.session)))
            case Publish():
                self._carry(core, effect.device, effect.message)
            case PublishFleet(message=Canary() as canary):
                self._queue.append((core, CanaryReturned(canary.epoch, canary.number)))
            case PublishLeases():
                self._carry(core, DEVICE, _first_lease(effect))
            case Confirm():
                self._queue.append((core, effect.event))
            case asked.ConfirmSave():
                self._queue.append((core, told.SaveConfirmed(effect.session)))
            case asked.ListRuns():
                self._queue.append((core, told.HostListed(effect.ask, tuple(self._live), ())))
            case asked.StartRun():
                self._live[effect.attempt.task, effect.attempt.attempt] = None
                started = told.RunStarted(effect.attempt.task, effect.attempt.attempt)
                self._queue.append((core, started))
            case asked.ReadOutput():
                data = OUTPUT[effect.offset :][: effect.bytes_max] if effect.stream == 1 else b""
                size = len(OUTPUT) if effect.stream == 1 else 0
                key = (effect.task, effect.attempt, effect.stream, effect.offset)
                self._queue.append((core, told.OutputRead(*key, data, size)))

    def _carry(self, sender: Controller | Agent, device: str, message: Message) -> None:
        """Over the wire, as bytes: the receiver sees what it decodes."""
        topic = build(FLEET, device, message.channel)
        self.said.append(Said(self.now_ms, topic, message))
        arrived = decode(parse(topic), encode(message))
        if sender is self.controller:
            self._queue.append((self.agent, MessageArrived(device, arrived)))
        elif isinstance(arrived, Heartbeat):
            self._queue.append((self.controller, _batch(device, arrived)))
        else:
            self._queue.append((self.controller, MessageArrived(device, arrived)))


def _batch(device: str, beat: Heartbeat) -> HeartbeatBatch:
    columns = [np.array([v], np.int64) for v in (beat.seq, beat.held, beat.used)]
    return HeartbeatBatch([device], np.array([beat.session], np.uint64), *columns)


def _first_lease(effect: PublishLeases) -> LeaseAnswer:
    granted = Revision(int(effect.epochs[0]), int(effect.numbers[0]))
    columns = (effect.runs, effect.inventories, effect.outboxes, effect.stored)
    rest = [int(column[0]) for column in columns]
    return LeaseAnswer(effect.epoch, int(effect.sessions[0]), int(effect.seqs[0]), granted, *rest)


CAPTIONS = (
    (
        "status",
        "The device is connected and subscribed. It publishes its birth; the same message with "
        "`online` false and reason `will` was left with the broker as last will.",
    ),
    (
        "inventory",
        "What it is.",
    ),
    (
        "runs",
        "Its reported document, number 1 of this session: it holds nothing, and knows no assignments.",
    ),
    (
        "heartbeat",
        "The first heartbeat names what it holds: no assignments, `Runs` 1, inventory 1, no settings. "
        "It goes before any backlog.",
    ),
    (
        "lease",
        "The answer names `Runs` 1 and inventory 1 as processed and saved. It grants nothing: there "
        "is no document yet.",
    ),
    (
        "assignments",
        "A job was submitted. Its task was placed here as attempt 1; that is committed, and only then "
        "said. Document (epoch, 1) is an invitation: nothing starts.",
    ),
    (
        "runs",
        "The device saved the document. This is its first, so it reports that it obeys it.",
    ),
    (
        "heartbeat",
        "On a new document it sends a heartbeat at once. This is the request for the lease.",
    ),
    (
        "lease",
        "The grant: for exactly this revision, this session, this heartbeat. The deadline is the "
        "moment heartbeat 2 was sent + 30 s − 2 s. The device saves its intent, then orders the start "
        "with that deadline.",
    ),
    (
        "runs",
        "The guard started it.",
    ),
    (
        "output",
        "Half a second later its output is read for the first time: sequence 1 of this outbox.",
    ),
    (
        "runs",
        "It ended with 0. The end was saved before this is said (D6). The task is now `succeeded`, "
        "its capacity free.",
    ),
    (
        "output",
        "The end of its standard output.",
    ),
    (
        "output",
        "The end of its standard error, which stayed empty.",
    ),
    (
        "assignments",
        "The acknowledgement: a document without the attempt, committed with its result. It waited a "
        "second for an addition to travel with. The device may forget the run now.",
    ),
    (
        "heartbeat",
        "A new document, so a heartbeat at once. `Runs` is still number 4: a document that only "
        "acknowledges is answered by its heartbeat alone.",
    ),
    (
        "lease",
        "Granted, and the outbox is stored up to 3: the captured output may leave the device's disk.",
    ),
)


def held() -> list[Said]:
    """The whole conversation."""
    talk = Conversation()
    talk.connect()
    talk.submit()
    talk.advance(200)
    talk.advance(600)
    talk.end()
    talk.advance(2_000)
    return talk.said


def told_in_full() -> str:
    """Every message with its caption, its fields by name, and its bytes."""
    said = held()
    channels = [one.message.channel for one in said]
    assert channels == [channel for channel, _ in CAPTIONS], f"the cores now say {channels}"
    return "\n\n".join(_told(i, one, CAPTIONS[i - 1][1]) for i, one in enumerate(said, 1))


def _told(number: int, one: Said, caption: str) -> str:
    way = "device" if one.message.channel in UP else "controller"
    digits = one.payload.hex(" ").split(" ")
    rows = [" ".join(digits[i : i + HEX_WIDTH]) for i in range(0, len(digits), HEX_WIDTH)]
    head = f"**{number}. {way} → `{one.topic}`**, at {one.at_ms} ms, {len(one.payload)} bytes. {caption}"
    return "\n".join([head, "```text", encode_json(one.message), *rows, "```"])
