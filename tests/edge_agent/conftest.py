"""A bench for one agent core: feed events, look at effects, jump in time. No mocks: it is the core."""

from __future__ import annotations

import random

import pytest

from edge_agent.core.agent import Agent
from edge_agent.core.effects import ConfirmSave, ListRuns, StartRun
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.events import Booted, HostListed, RunExit, RunExited, RunStarted, SaveConfirmed
from edge_agent.core.memory import Memory, restore
from protocol.core import (
    Connect,
    Effect,
    Event,
    LinkDown,
    LinkUp,
    MessageArrived,
    Publish,
    Save,
    SaveFailed,
    TimerElapsed,
)
from protocol.messages import AssignedAttempt, Assignments, Heartbeat, LeaseAnswer, Message, Revision, Runs
from protocol.resources import Resources
from protocol.tasks import Guarantee, RunState

DEVICE = "pi-1"


class Bench:
    """One agent, its journal, and a clock that the test moves."""

    def __init__(
        self, journal: bytes | None = None, seed: int = 1, now: int = 1_000_000, **options: int
    ) -> None:
        memory = restore(journal) if journal else Memory("instance-1")
        equipment = Equipment("generic-linux", Resources(4000, 4096, 9999, 0), {}, ("process",), 10_000)
        identity = Identity(DEVICE, "boot-1", "test")
        self.agent = Agent(memory, identity, equipment, random.Random(seed), **options)
        self.now = now
        self.journal = journal
        self.effects: list[Effect] = []
        self.saves_work = True
        self.host_answers = True
        self.live: dict[tuple[str, int], None] = {}
        self.exits: tuple[RunExit, ...] = ()

    def feed(self, event: Event) -> list[Effect]:
        """One event; saves are kept and confirmed and the host tells what it holds, as the world does."""
        if isinstance(event, RunStarted):
            self.live[event.task, event.attempt] = None
        if isinstance(event, RunExited):
            self.live.pop((event.exit.task, event.exit.attempt), None)
        self.effects = self.agent.handle(event, self.now)
        effects = list(self.effects)
        todo = list(self.effects)
        saves = [e for e in effects if isinstance(e, Save)]
        if saves and not self.saves_work:
            return self.feed(SaveFailed("disk"))
        if saves:
            assert isinstance(effects[0], Save), "a save stands in front"
            self.journal = saves[-1].rows[-1].image()
        for effect in todo:
            if isinstance(effect, ConfirmSave):
                effects += self.feed(SaveConfirmed(effect.session))
            if isinstance(effect, ListRuns) and self.host_answers:
                effects += self.feed(HostListed(effect.ask, tuple(self.live), self.exits))
        self.effects = effects
        return effects

    def at(self, now: int) -> list[Effect]:
        """Let time pass, waking the agent as often as it wants to be woken."""
        effects: list[Effect] = []
        for _ in range(10_000):
            due = self.agent.next_due_ms()
            if due is None or due > now:
                break
            self.now = max(self.now, due)
            effects += self.feed(TimerElapsed())
        else:
            raise AssertionError("the agent spins")
        self.now = now
        return effects

    def boot(self, live: tuple[tuple[str, int], ...] = (), exits: tuple[RunExit, ...] = ()) -> list[Effect]:
        self.live, self.exits = dict.fromkeys(live), exits
        return self.feed(Booted())

    def up(self) -> list[Effect]:
        """Answer the open `Connect`."""
        return self.feed(LinkUp(self.agent.connection.session))

    def down(self) -> list[Effect]:
        return self.feed(LinkDown(self.agent.connection.session, "test"))

    def ready(self, **kinds: tuple) -> Bench:
        self.boot(**kinds)
        self.up()
        return self

    def receive(self, message: Message) -> list[Effect]:
        return self.feed(MessageArrived(DEVICE, message))

    def document(self, number: int, *attempts: AssignedAttempt, epoch: int = 1) -> list[Effect]:
        return self.receive(Assignments(Revision(epoch, number), attempts))

    def answer(
        self, seq: int | None = None, session: int | None = None, granted: Revision | None = None, **more: int
    ):
        """A lease answer; by default it grants what is held, for the last heartbeat."""
        agent = self.agent
        seq = agent.heartbeats._seq if seq is None else seq
        session = agent.connection.session if session is None else session
        granted = agent.memory.assignments.revision if granted is None else granted
        more.setdefault("runs", agent.runs.number)
        more.setdefault("inventory", agent._inventory_number)
        more.setdefault("epoch", agent.memory.epoch)
        epoch = more.pop("epoch")
        return self.receive(LeaseAnswer(epoch, session, seq, granted, **more))

    def running(self, *attempts: AssignedAttempt, number: int = 1) -> Bench:
        """A document, its grant, and every run started."""
        self.document(number, *attempts)
        for start in of(self.answer(), StartRun):
            self.feed(RunStarted(start.attempt.task, start.attempt.attempt))
        return self

    def exit(self, task: str, attempt: int = 1, code: int = 0, reason: str = "exited") -> list[Effect]:
        return self.feed(RunExited(RunExit(task, attempt, code, 0, reason)))

    def restarted(self, **options: int) -> Bench:
        """Another process of the same agent, on the same journal."""
        return Bench(self.journal, seed=self.now, now=self.now, **options)

    def states(self) -> dict[str, RunState]:
        """What the agent would report now."""
        return {e.task: e.state for e in self.agent.memory.entries.values()}


def of(effects: list[Effect], kind: type) -> list:
    return [e for e in effects if isinstance(e, kind)]


def published(effects: list[Effect], kind: type) -> list:
    return [e.message for e in of(effects, Publish) if isinstance(e.message, kind)]


def attempt(task: str = "job.1", number: int = 1, lease_ms: int = 30_000, **more: object) -> AssignedAttempt:
    return AssignedAttempt(task, number, more.pop("runtime", "process"), ("true",), lease_ms=lease_ms, **more)


def eager(task: str = "job.1", number: int = 1, **more: object) -> AssignedAttempt:
    return attempt(task, number, guarantee=Guarantee.AT_LEAST_ONE, **more)


class Kit:
    """What tests use, since test files import nothing from each other."""

    Bench, Publish, Booted, HostListed, StartRun = Bench, Publish, Booted, HostListed, StartRun
    of = staticmethod(of)
    published = staticmethod(published)
    attempt = staticmethod(attempt)
    eager = staticmethod(eager)
    heartbeats = staticmethod(lambda effects: published(effects, Heartbeat))
    runs = staticmethod(lambda effects: published(effects, Runs))
    connects = staticmethod(lambda effects: of(effects, Connect))


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def bench() -> Bench:
    """A fresh agent, booted, connected, its host listed and empty."""
    return Bench().ready()
