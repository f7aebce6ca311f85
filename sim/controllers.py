"""A controller process: the core, its clock, its link, and death or sleep at any point between.

Rule of this file: it does what the assembled controller does (`controller/app.py`). A `Save`
is a barrier and carries the epoch; while it runs nothing is fed. When it fails the core is
thrown away and built anew from what is stored; a database older than the fleet makes it lead
again above what it saw; while another leads it stands by and watches the leader's row.
`die_after` ends the process between any two effects, `pause` stops it between any two events.
Rejected: one driver for both worlds (the live one is asyncio, and this one must stop halfway).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from controller.core.controller import Controller
from controller.core.effects import ClearRetained, Confirm, PublishFleet, PublishLeases, Reply, TakeEpoch
from controller.core.events import WallClockRead
from controller.core.leadership import WATCH_MS, Finding, Led, Standby, Takeover, beginning
from controller.core.records import LeaderRow, Snapshot
from controller.core.rules import Rules
from protocol.core import Connect, Disconnect, Effect, Event, Note, Publish, Save, TimerElapsed
from sim.clockwork import Clockwork, Work
from sim.controller_wire import SimulatedWire
from sim.database import WALL_OFFSET_MS, Database, StorageRefused
from sim.database import Storage as Storage
from sim.machines.localclock import LocalClock
from sim.network import Network

RETRY_MS = 1_000
WALL_CLOCK_MS = 10_000
LATE_MS = 200
"""What waited longer makes a controller's picture of its fleet that much older than the news is."""
Told = Callable[[int, object], None]
Leadership = tuple[LeaderRow, Takeover, Snapshot]


class ControllerProcess:
    """One controller. `on`: its process lives; `core` is None while it is dead or stands by."""

    def __init__(
        self, fleet: str, holder: str, clock: Clockwork, network: Network, database: Database, told: Told
    ) -> None:
        """`told` hears every reply: (request, body)."""
        self.holder = holder
        self.client = f"_controller-{holder}"
        self.clock = clock
        self.network = network
        self.database = database
        self.on = self.paused = False
        self.core: Controller | None = None
        self.standby = Standby()
        self.notes: list[Note] = []
        self.rules = Rules()
        self.die_after: int | None = None
        """So many saves and effects from now the process is killed; None: never."""
        self.takeovers = self.events = 0
        self.wall_offset_ms = WALL_OFFSET_MS
        self.wire = SimulatedWire(
            fleet, self.client, clock, network, self._when_free, self._handle, self._later
        )
        self._told = told
        self._time = LocalClock(clock, 0)
        self._time.begin(clock.now_ms)
        self._rng = clock.stream(self.client)
        self._process = self._life = 0
        """Numbers of this process, and of its core: what belongs to an earlier one is dropped."""
        self._former: Controller | None = None
        """Thrown away, and not yet replaced."""
        self._finding = Finding()
        self._busy = self._draining = False
        self._stopping = self._follows = False
        """Whether it waits for its database with its last word, and is to be started after that."""
        """With the database, or with getting back to lead: nothing is fed."""
        self._inbox: deque[tuple[int, bool, Work]] = deque()
        """What waits to be fed: since when, and whether it is somebody's question."""
        self.late_ms = 0
        """When something was last fed that had waited for longer than `LATE_MS`."""
        self._held: list[Work] = []
        """What the process has to do first when it is resumed."""
        self._armed_ms: int | None = None
        self._perform = self._performers()

    @property
    def epoch(self) -> int:
        return self.core.ledger.epoch if self.core is not None else 0

    # ------------------------------------------------------------- its own time

    def local_ms(self) -> int:
        """CLOCK_BOOTTIME of its machine."""
        return self._time.local_ms()

    def wall_ms(self) -> int:
        return self.clock.now_ms + self.wall_offset_ms

    def set_rate(self, ppm: int) -> None:
        """From now on its clock is so fast or slow."""
        self._time.set_rate(ppm)
        self._armed_ms = None
        self._arm()

    def jump_wall(self, ms: int) -> None:
        """Somebody sets its wall clock; the core hears of it as the live one does, within ten seconds."""
        self.clock.trace(self.client, f"wall clock jumps {ms}")
        self.wall_offset_ms += ms

    def _after(self, local_ms: int, work: Work) -> None:
        """Does `work` so much later by its own clock, if the process still lives then."""
        process = self._process
        due_ms = self._time.world_ms(self.local_ms() + local_ms)
        self.clock.at(due_ms, lambda: self._urgently(process, work))

    def _urgently(self, process: int, work: Work) -> None:
        """Done even while nothing is fed, but by no process that is dead or stopped."""
        if process != self._process:
            return
        if self.paused:
            self._held.append(lambda: self._urgently(process, work))
        else:
            work()

    # ------------------------------------------------------------- what can befall it

    def start(self) -> None:
        """A new process: leads, or stands by. One that is just stopping goes first."""
        if self.on:
            self._follows = self._stopping
            return
        self.on = True
        self._process += 1
        self._finding = Finding()
        self.standby.forget()
        self._lead()
        self._after(WALL_CLOCK_MS, self._tell_wall_clock)

    def kill(self) -> None:
        """SIGKILL: what was not saved is gone, what was not said is not said."""
        if not self.on:
            return
        self.clock.trace(self.client, "killed")
        self.on = self.paused = self._busy = False
        self._process += 1
        self._drop_core()
        self._former, self.die_after = None, None
        self._stopping = self._follows = False
        self._inbox.clear()
        self._held.clear()
        self.network.thaw(self.client)

    def stop(self) -> None:
        """SIGTERM: nothing new is taken, the broker is told, and the database."""
        if self.core is None or self.paused or self._busy:
            self.kill()
            return
        store, epoch = self.database.storage.store, self.core.ledger.epoch
        self.wire.drop(orderly=True)
        self._drop_core()
        self._stopping = True
        self._ask(lambda: store.mark_clean(epoch), lambda _: self._stopped())

    def _stopped(self) -> None:
        follows = self._follows
        self.kill()
        if follows:
            self.start()

    def pause(self) -> None:
        """SIGSTOP: its kernel goes on receiving, nothing is read and no timer is heard."""
        if self.on and not self.paused:
            self.clock.trace(self.client, "paused")
            self.paused = True
            self.network.freeze(self.client)

    def resume(self) -> None:
        """SIGCONT. Whether what came meanwhile is read first, or the clock, is chance."""
        if not self.paused:
            return
        self.clock.trace(self.client, "resumed")
        self.paused = False
        self.network.thaw(self.client)
        held, self._held = self._held, []
        for work in held:
            work()
        if self._rng.random() < 0.5 and not self._busy:
            self._look()
        self._drain()
        self._arm()

    def cut_database(self) -> None:
        self.database.cut(self.holder)

    def heal_database(self) -> None:
        self.database.heal(self.holder)

    # ------------------------------------------------------------- leading

    @property
    def leads(self) -> bool:
        """Whether there is a core that is driven."""
        return self.core is not None

    def _lead(self) -> None:
        """Asks for leadership; nothing is fed until there is a core."""
        asked_ms, above = self.local_ms(), self._finding.above
        unrenewed = self.standby.unrenewed(asked_ms)
        self._ask(
            lambda: self.database.lead(self.holder, above, unrenewed),
            lambda found: self._lead_answered(asked_ms, found),
        )

    def _lead_answered(self, asked_ms: int, found: Led | Exception | Leadership) -> None:
        if isinstance(found, Led):
            self._stand_by(found)
        elif isinstance(found, Exception):
            self._drop_questions()
            self._after(RETRY_MS, self._lead)
        else:
            self._begin(asked_ms, *found)

    def _stand_by(self, led: Led) -> None:
        if self.standby.note(led.row, self.local_ms()):
            self.clock.trace(self.client, f"stands by: {led}")
        self._inbox.clear()  # what was heard before belongs to a leadership that is over
        self._after(min(WATCH_MS, self.standby.left_ms(self.local_ms()) or WATCH_MS), self._lead)

    def _begin(self, asked_ms: int, leader: LeaderRow, found: Takeover, snapshot: Snapshot) -> None:
        now_ms = self.local_ms()
        begins = beginning(found, self._finding, bool(snapshot.devices), asked_ms, self.wall_ms() - now_ms)
        self._finding = Finding()
        self.standby.forget()
        self.takeovers += 1
        self.clock.trace(self.client, f"leads {leader.epoch}")
        rng = self.clock.stream(f"{self.client} {self.takeovers}")
        self.core = Controller(snapshot, begins, now_ms, rng, self.rules)
        if self._former is not None:
            self.core.count_on(self._former)
        self._former, self._busy = None, False
        self._arm()
        self._drain()

    def _rebuild(self) -> None:
        """A save failed: memory is ahead of the store, so it is thrown away."""
        self.clock.trace(self.client, "save failed")
        self._drop_questions()
        self._drop_core()
        self._lead()

    def _drop_core(self) -> None:
        """It says and does nothing more."""
        self._former, self.core = self.core or self._former, None
        self._life += 1
        self._armed_ms = None
        self.wire.drop()

    def _drop_questions(self) -> None:
        """Who asked was told that nothing was done, so it must not be done later."""
        self._inbox = deque(item for item in self._inbox if not item[1])

    # ------------------------------------------------------------- driving the core

    def feed(self, event: Event) -> None:
        """One event from outside, as soon as the process can; a question only while there is a core."""
        question = hasattr(event, "request")
        if self.core is not None or not question:
            self._when_free(lambda: self._handle(event), question)

    @property
    def behind(self) -> bool:
        """Whether something that arrived waits for a commit."""
        return self._busy or bool(self._inbox)

    def _when_free(self, work: Work, question: bool = False) -> None:
        if self.paused or self._busy or self._inbox:
            self._inbox.append((self.clock.now_ms, question, work))
        elif self.on:
            work()

    def _drain(self) -> None:
        """What arrived while a commit ran. A commit that takes no time ends within the loop that began it."""
        if self._draining:
            return
        self._draining = True
        while self._inbox and not self.paused and not self._busy:
            since_ms, _, work = self._inbox.popleft()
            if self.clock.now_ms - since_ms > LATE_MS:
                self.late_ms = self.clock.now_ms
            work()
        self._draining = False

    def _handle(self, event: Event) -> None:
        if self.core is None:
            return
        self.events += 1
        effects = self.core.handle(event, self.local_ms())
        if effects and isinstance(effects[0], Save):
            self._save(effects[0], effects[1:])
        else:
            self._follow(effects)

    def _follow(self, effects: list[Effect]) -> None:
        life = self._life
        for effect in effects:
            if self._dies() or life != self._life:
                return
            self._perform[type(effect)](effect)
        self._arm()

    def _dies(self) -> bool:
        if self.die_after is None:
            return False
        self.die_after -= 1
        if self.die_after >= 0:
            return False
        self.kill()
        return True

    def _save(self, save: Save, behind: list[Effect]) -> None:
        """Rows to the store; what stands behind only when it took them."""
        assert self.core is not None
        rows: Any = save.rows
        epoch = self.core.ledger.epoch
        if self._dies():
            return
        if self._finding.above:
            self._saved(StorageRefused("the database is older than the fleet"), behind)
        else:
            self._ask(lambda: self.database.save(rows, epoch), lambda found: self._saved(found, behind))

    def _saved(self, found: object, behind: list[Effect]) -> None:
        if isinstance(found, Exception):
            self._rebuild()
            return
        self._busy = False
        self._follow(behind)
        self._drain()

    def _ask(self, work: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Asks the database; nothing is fed until `answer` says so."""
        process, self._busy = self._process, True
        self.database.ask(self.holder, work, lambda found: self._urgently(process, lambda: answer(found)))

    # ------------------------------------------------------------- its timer

    def _arm(self) -> None:
        local_ms = self.core.next_due_ms() if self.core is not None else None
        if local_ms is None:
            return
        due_ms = max(self._time.world_ms(local_ms), self.clock.now_ms + 1)
        if self._armed_ms is None or due_ms < self._armed_ms:
            self._armed_ms = due_ms
            life = self._life
            self.clock.at(due_ms, lambda: self._wake(life, due_ms))

    def _wake(self, life: int, armed_ms: int) -> None:
        if life != self._life or self._armed_ms != armed_ms:
            return
        self._armed_ms = None
        if not self.paused and not self._busy:
            self._look()

    def _look(self) -> None:
        """Feeds the timer if one is due."""
        due_ms = self.core.next_due_ms() if self.core is not None else None
        if due_ms is not None and due_ms <= self.local_ms():
            self._handle(TimerElapsed())
        else:
            self._arm()

    def _tell_wall_clock(self) -> None:
        self._after(WALL_CLOCK_MS, self._tell_wall_clock)
        if self.core is not None:
            self._when_free(lambda: self._handle(WallClockRead(self.wall_ms() - self.local_ms())))

    # ------------------------------------------------------------- effects

    def _performers(self) -> dict[type[Effect], Callable[[Any], None]]:
        wire = self.wire
        return {
            Publish: wire.publish,
            PublishLeases: wire.publish_leases,
            PublishFleet: wire.publish_fleet,
            ClearRetained: wire.clear_retained,
            Connect: wire.connect,
            Disconnect: lambda e: wire.drop(orderly=True),
            Reply: self._reply,
            Confirm: lambda e: self._later(e.event),
            TakeEpoch: self._take_epoch,
            Note: self.notes.append,
        }

    def _later(self, event: Event) -> None:
        life = self._life
        self.clock.after(
            0, lambda: self._when_free(lambda: self._handle(event) if life == self._life else None)
        )

    def _reply(self, effect: Reply) -> None:
        self.clock.trace(self.client, f"replies {effect.request} {type(effect.body).__name__}")
        self._told(effect.request, effect.body)

    def _take_epoch(self, effect: TakeEpoch) -> None:
        assert self.core is not None
        own = self.core.ledger.epoch
        self._finding = Finding(own, max(effect.above, own))
