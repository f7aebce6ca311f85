"""Sampling: what only shows when somebody looks: what people are told, how large things grew.

Rule of this file: every few seconds a look at the world from outside, as observations. The
database is read by someone who has no part in writing it, devices are looked up the way the
API does it, sizes are measured where a file, a table or a broker would show them.
Each bound says why it is no larger; a bound that nothing can reach would check nothing.
Looking changes nothing: no event, no effect, no die.
"""

from __future__ import annotations

from typing import Protocol

from broker.model import BrokerModel
from controller.core.records import Snapshot
from controller.core.views import DevicesView
from protocol.topics import retained_topics
from sim.checkers import Checkers
from sim.clockwork import Clockwork
from sim.controllers import ControllerProcess
from sim.database import Storage
from sim.devices import SimulatedDevice
from sim.network import Network
from sim.observations import DatabaseRead, Measured, Shown

LOOK_MS = 10_000
STORE_LOOKS = 6
"""The database is read at each sixth look: that costs as much as all else together."""
PAGE = 100_000
FLEET_TOPICS = 2
"""Retained beside those of devices: who leads; the canary is not, one more is room for a will."""
ENTRY_BYTES = 1_024
"""An entry of a journal with a command, an end and a reason, in this simulation's sizes."""
JOURNAL_BYTES = 2_048
"""An empty journal: who it is, its settings, its sessions."""
ENTRIES_SPARE = 24
"""Ended runs that wait for a document without them: a device is told within a heartbeat or two."""
CONNECTIONS = 12
"""A client tries once in two seconds, and a broker gives a dead connection up after fifteen."""
FACTS = 16
"""Facts of the fleet by name: each has a name in the code, none is made of data."""


class Watched(Protocol):
    """A world, as far as one looks at it from here."""

    clock: Clockwork
    storage: Storage
    broker: BrokerModel
    network: Network
    checkers: Checkers
    devices: dict[str, SimulatedDevice]

    @property
    def now_ms(self) -> int: ...

    @property
    def leader(self) -> ControllerProcess | None: ...


class Sampler:
    """Looks at a world every `LOOK_MS`, from `begin` on."""

    def __init__(self, world: Watched) -> None:
        self.world = world
        self.looks = 0

    def begin(self) -> None:
        self.world.clock.after(LOOK_MS, self._tick)

    def _tick(self) -> None:
        self.look()
        self.world.clock.after(LOOK_MS, self._tick)

    def look(self) -> None:
        self.looks += 1
        self._show()
        self._measure_devices()
        self._measure_broker()
        if self.looks % STORE_LOOKS == 0:
            self.read_store()

    # ------------------------------------------------------------- what people are shown

    def _show(self) -> None:
        leader = self.world.leader
        core = None if leader is None else leader.core
        if leader is None or core is None:
            return
        now_ms, saw = self.world.now_ms, self.world.checkers.saw
        hearing_ms = 0
        # What waited behind a commit is newer than its stamp.
        if self._stands(leader.client) and not leader.behind:
            hearing_ms = max(core.ledger.fleet.forgiven_ms, leader.late_ms)
        page = core.pictures.devices("", "", PAGE, now_ms)
        assert isinstance(page, DevicesView)
        periods = core.ledger.fleet.periods_ms()
        for view in page.items:
            period_ms = int(periods[core.ledger.fleet.index[view.id]])
            saw(Shown(now_ms, view.id, view.state, view.session, period_ms, hearing_ms, leader.client))

    def _stands(self, client: str) -> bool:
        """Whether its connection stands: who is cut off claims nothing."""
        lines = self.world.network.lines.values()
        return any(line.client == client and line.up and line.near_open for line in lines)

    # ------------------------------------------------------------- sizes

    def _measure_devices(self) -> None:
        world, now_ms = self.world, self.world.now_ms
        for name, device in world.devices.items():
            entries = world.checkers.seen.held_by.get(name, 0) + ENTRIES_SPARE
            journal = device.journal
            sizes = (
                ("journal bytes", len(journal) if journal else 0, JOURNAL_BYTES + entries * ENTRY_BYTES),
                ("remembered exits", len(device.guard.exits), entries),
            )
            for what, value, bound in sizes:
                world.checkers.saw(Measured(now_ms, f"{name}: {what}", value, bound))

    def _measure_broker(self) -> None:
        world, now_ms = self.world, self.world.now_ms
        devices = max(len(world.devices), len(world.checkers.devices))
        topics = len(retained_topics("", ""))
        sizes = (
            ("retained messages", sum(1 for _ in world.broker.retained()), devices * topics + FLEET_TOPICS),
            ("connections", len(world.network.lines), (len(world.devices) + 4) * CONNECTIONS),
        )
        for what, value, bound in sizes:
            world.checkers.saw(Measured(now_ms, what, value, bound))

    # ------------------------------------------------------------- the database

    def read_store(self) -> None:
        """What a new leader would find, and how much of it there is."""
        world, now_ms = self.world, self.world.now_ms
        found: Snapshot = world.storage.store.load()
        world.checkers.saw(DatabaseRead(now_ms, (*found.jobs, *found.tasks)))
        held = len(world.checkers.seen.open)
        documents = len(found.devices) * ENTRIES_SPARE
        sizes = (
            ("loaded attempts", len(found.attempts), held * (1 + len(found.devices)) + documents),
            ("loaded documents", len(found.documents), len(found.devices)),
            ("facts", len(found.fleet), FACTS),
        )
        for what, value, bound in sizes:
            world.checkers.saw(Measured(now_ms, what, value, bound))
