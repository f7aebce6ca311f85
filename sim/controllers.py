"""A controller process: the core, its store, its link, and death at any point between them.

Rule of this file: it does what the assembled controller does. Heartbeats of one moment
become one batch; a `Save` is a barrier and carries the epoch; when it fails the core is
thrown away and built anew from what is stored; a database older than the fleet makes it
lead again above what it saw. `die_after` ends the process between any two effects.
The store is given, because the simulator knows pure parts only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.events import Publication
from controller.core.controller import Controller
from controller.core.effects import ClearRetained, Confirm, PublishFleet, PublishLeases, Reply, TakeEpoch
from controller.core.events import CanaryReturned, heartbeat_batch
from controller.core.leadership import Beginning
from controller.core.records import LeaderRow, Row, Snapshot
from protocol import topics
from protocol.codec import decode, encode
from protocol.core import (
    Connect,
    Disconnect,
    Effect,
    Event,
    GarbageArrived,
    LinkDown,
    LinkUp,
    MessageArrived,
    Note,
    Publish,
    Save,
    TimerElapsed,
)
from protocol.errors import RemoteGarbage
from protocol.messages import Canary, Heartbeat, LeaseAnswer, Message, Revision
from sim.clockwork import Clockwork
from sim.network import Network

HOLDER = "c1"
CLIENT = f"_controller-{HOLDER}"
WALL_OFFSET_MS = 1_700_000_000_000
RETRY_MS = 1_000


class LeaderStore(Protocol):
    """The few words of a store that a core is driven by."""

    def lead(self, holder: str, above: int, wall_ms: int) -> tuple[LeaderRow, Any]: ...

    def renew(self, epoch: int, wall_ms: int) -> None: ...

    def load(self) -> Snapshot: ...

    def save(self, rows: Sequence[Row], epoch: int) -> None: ...


@dataclass(slots=True)
class Storage:
    """A store and the errors by which it refuses; `fails` makes it refuse on demand."""

    store: LeaderStore
    errors: tuple[type[Exception], ...]
    fails: bool = False


class StorageRefused(Exception):
    """The store did not take it; nothing was half done."""


class CommitWatcher(Protocol):
    """Who is told what was committed, in the order of commits."""

    def committed(self, rows: Sequence[Row]) -> None: ...


class ControllerProcess:
    """One controller; `core` is None while it is dead."""

    def __init__(
        self, fleet: str, clock: Clockwork, network: Network, storage: Storage, watcher: CommitWatcher
    ) -> None:
        self.fleet = fleet
        self.clock = clock
        self.network = network
        self.storage = storage
        self.watcher = watcher
        self.refusals: tuple[type[Exception], ...] = (*storage.errors, StorageRefused)
        self.core: Controller | None = None
        self.replies: dict[int, object] = {}
        self.notes: list[Note] = []
        self.policy = "spread"
        self.die_after: int | None = None
        """So many saves and effects from now the process is killed; None: never."""
        self.steps = self.takeovers = self.events = 0
        self._rng = clock.stream("controller")
        self._life = 0
        self._above = 0
        self._connection = self._session = 0
        self._armed_ms: int | None = None
        self._heartbeats: list[tuple[str, Heartbeat]] = []
        self._perform = self._performers()

    # ------------------------------------------------------------- life

    def start(self) -> None:
        """Takes leadership and builds a core from what is stored."""
        if self.core is not None:
            return
        asked_ms = self.clock.now_ms
        wall_ms = asked_ms + WALL_OFFSET_MS
        try:
            if self.storage.fails:
                raise StorageRefused
            leader, found = self.storage.store.lead(HOLDER, self._above, wall_ms)
            snapshot = self.storage.store.load()
        except self.refusals:
            life = self._life
            self.clock.after(RETRY_MS, lambda: self.start() if life == self._life else None)
            return
        waits = (found.stale or found.marked) and bool(snapshot.devices)
        beginning = Beginning(asked_ms, waits, bool(self._above), WALL_OFFSET_MS)
        self._above, self._armed_ms = 0, None
        self._life += 1
        self.takeovers += 1
        self.clock.trace(CLIENT, f"leads {leader.epoch}")
        rng = self.clock.stream(f"controller {self.takeovers}")
        self.core = Controller(snapshot, beginning, asked_ms, rng, self.policy)
        self._arm()

    def kill(self) -> None:
        """SIGKILL: what was not saved is gone, what was not said is not said."""
        if self.core is None:
            return
        self.clock.trace(CLIENT, "killed")
        self.core, self.die_after = None, None
        self._life += 1
        self._heartbeats = []
        self.network.abandon(self._connection)
        self._connection = 0

    def _rebuild(self) -> None:
        """A save failed: memory is ahead of the store, so it is thrown away."""
        self.kill()
        self.start()

    # ------------------------------------------------------------- driving the core

    def feed(self, event: Event) -> None:
        """One event; its effects in order, a save first."""
        if self.core is None:
            return
        life = self._life
        self.events += 1
        effects = self.core.handle(event, self.clock.now_ms)
        for effect in effects:
            if self._dies() or life != self._life:
                return
            if isinstance(effect, Save):
                if not self._save(effect):
                    self._rebuild()
                    return
            else:
                self._perform[type(effect)](effect)
        self._arm()

    def _dies(self) -> bool:
        self.steps += 1
        if self.die_after is None:
            return False
        self.die_after -= 1
        if self.die_after >= 0:
            return False
        self.kill()
        return True

    def _save(self, effect: Save) -> bool:
        """Rows to the store, the leader row as a renewal; False when it refused."""
        assert self.core is not None
        rows: list[Row] = list(effect.rows)  # type: ignore[arg-type]
        plain = [row for row in rows if not isinstance(row, LeaderRow)]
        epoch, store = self.core.ledger.epoch, self.storage.store
        try:
            if self.storage.fails or self._above:
                raise StorageRefused
            if plain:
                store.save(plain, epoch)
                self.watcher.committed(plain)
            if len(plain) < len(rows):
                store.renew(epoch, self.clock.now_ms + WALL_OFFSET_MS)
        except self.refusals:
            return False
        return True

    def _arm(self) -> None:
        due_ms = self.core.next_due_ms() if self.core is not None else None
        if due_ms is None:
            return
        due_ms = max(due_ms, self.clock.now_ms + 1)
        if self._armed_ms is None or due_ms < self._armed_ms:
            self._armed_ms = due_ms
            life = self._life
            self.clock.at(due_ms, lambda: self._wake(life, due_ms))

    def _wake(self, life: int, armed_ms: int) -> None:
        if life != self._life or self._armed_ms != armed_ms or self.core is None:
            return
        self._armed_ms = None
        due_ms = self.core.next_due_ms()
        if due_ms is not None and due_ms <= self.clock.now_ms:
            self.feed(TimerElapsed())
        else:
            self._arm()

    # ------------------------------------------------------------- effects

    def _performers(self) -> dict[type[Effect], Callable[[Any], None]]:
        return {
            Publish: lambda e: self._send(e.device, e.message),
            PublishLeases: self._publish_leases,
            PublishFleet: lambda e: self._send(topics.CONTROLLER, e.message),
            ClearRetained: self._clear_retained,
            Connect: self._connect,
            Disconnect: lambda e: self.network.disconnect(self._connection),
            Reply: self._reply,
            Confirm: lambda e: self._later(e.event),
            TakeEpoch: self._take_epoch,
            Note: self.notes.append,
        }

    def _later(self, event: Event) -> None:
        life = self._life
        self.clock.after(0, lambda: self.feed(event) if life == self._life else None)

    def _reply(self, effect: Reply) -> None:
        self.clock.trace(CLIENT, f"replies {effect.request} {type(effect.body).__name__}")
        self.replies[effect.request] = effect.body

    def _take_epoch(self, effect: TakeEpoch) -> None:
        assert self.core is not None
        self._above = max(effect.above, self.core.ledger.epoch)

    def _connect(self, effect: Connect) -> None:
        self.network.abandon(self._connection)
        will = None
        if effect.will is not None:
            topic = topics.build(self.fleet, topics.CONTROLLER, effect.will.channel)
            will = Publication(topic, encode(effect.will), 1, True)
        own = topics.build(self.fleet, topics.CONTROLLER, Canary.channel)
        filters = tuple(
            (f, 0 if f.endswith("/heartbeat") else 1) for f in (*topics.up_filters(self.fleet), own)
        )
        self._session = effect.session
        self._connection = self.network.connect(CLIENT, self, filters, will)

    def _send(self, device: str, message: Message) -> None:
        topic = topics.build(self.fleet, device, message.channel)
        self.network.publish(self._connection, topic, encode(message), message.qos, message.retain)

    def _publish_leases(self, effect: PublishLeases) -> None:
        columns = zip(
            effect.devices, effect.sessions.tolist(), effect.seqs.tolist(), effect.epochs.tolist(),
            effect.numbers.tolist(), effect.runs.tolist(), effect.inventories.tolist(),
            effect.outboxes.tolist(), effect.stored.tolist(), strict=True,
        )  # fmt: skip
        for device, session, seq, epoch, number, *rest in columns:
            self._send(device, LeaseAnswer(effect.epoch, session, seq, Revision(epoch, number), *rest))

    def _clear_retained(self, effect: ClearRetained) -> None:
        for topic in topics.retained_topics(self.fleet, effect.device):
            self.network.publish(self._connection, topic, b"", 1, True)

    # ------------------------------------------------------------- the connection's news

    def on_link_up(self, connection: int) -> None:
        if connection == self._connection:
            self.feed(LinkUp(self._session))

    def on_link_down(self, connection: int, reason: str) -> None:
        if connection == self._connection:
            self._connection = 0
            self._later(LinkDown(self._session, reason))

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if connection != self._connection or self.core is None:
            return
        parsed = topics.parse(topic)
        self.clock.trace(CLIENT, f"hears {parsed.device} {parsed.channel}", payload)
        try:
            message = decode(parsed, payload)
        except RemoteGarbage as garbage:
            self.feed(GarbageArrived(parsed.device, parsed.channel, garbage.reason, garbage.detail))
            return
        if isinstance(message, Heartbeat):
            self._gather(parsed.device, message)
        elif isinstance(message, Canary):
            self.feed(CanaryReturned(message.number))
        else:
            self.feed(MessageArrived(parsed.device, message, retain))

    def _gather(self, device: str, message: Heartbeat) -> None:
        if not self._heartbeats:
            life = self._life
            self.clock.after(0, lambda: self._flush() if life == self._life else None)
        self._heartbeats.append((device, message))

    def _flush(self) -> None:
        gathered, self._heartbeats = self._heartbeats, []
        self.feed(heartbeat_batch(gathered))
