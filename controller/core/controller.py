"""The controller's core: dispatches events to its machines and wires them together.

Nothing clever lives here: an event goes to one method, the machines change the ledger,
and what the ledger gathered leaves as `Save` first and effects after it. It speaks only
while it leads (L6): leadership is looked at after the event was read, on the core's own
clock, counted from before the renewal was asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from controller.core.broken_gangs import DUE as BROKEN_GANG_DUE
from controller.core.broker_link import BrokerLink
from controller.core.claims import NONSENSE, doubt_of
from controller.core.commands import Commands
from controller.core.condition import Condition
from controller.core.cron import Cron
from controller.core.daemons import Daemons
from controller.core.dependencies import Dependencies
from controller.core.documents import Documents
from controller.core.effects import Confirm, Reply
from controller.core.events import (
    CanaryReturned,
    DeviceDecision,
    DevicePinged,
    DevicesQueried,
    FleetQueried,
    FleetUnfrozen,
    HeartbeatBatch,
    JobCancelled,
    JobSubmitted,
    LeaderRenewed,
    PlanAsked,
    RebalanceAsked,
    RebalanceDecided,
    RebalancesQueried,
    TaskExplained,
    WaitsQueried,
    WallClockRead,
)
from controller.core.explaining import Explaining
from controller.core.failover import Failover
from controller.core.fleet import Fleet, Ints
from controller.core.foresight import Foresight
from controller.core.holds import Holds
from controller.core.jobs import Jobs
from controller.core.leadership import SPEAK_MS, Beginning
from controller.core.leases import Leases
from controller.core.ledger import Ledger
from controller.core.liveness import Liveness
from controller.core.loading import load_devices, load_work
from controller.core.nominations import DUE as NOMINATION_DUE
from controller.core.nominations import Nominations
from controller.core.operators import Operators
from controller.core.output import Output
from controller.core.pictures import Pictures
from controller.core.placement import Placement
from controller.core.preemption import Preemption
from controller.core.rebalance import Rebalance
from controller.core.records import LeaderRow, Snapshot
from controller.core.returns import Returns
from controller.core.rules import Rules
from controller.core.sessions import Sessions
from controller.core.tasks import Tasks
from controller.core.views import DoneView, RefusalView
from protocol.core import (
    Effect,
    Event,
    GarbageArrived,
    LinkDown,
    LinkUp,
    MessageArrived,
    Save,
    SaveFailed,
    TimerElapsed,
)
from protocol.errors import GarbageReason
from protocol.limits import LEASE_MS, hold_ms
from protocol.messages import (
    Answer,
    Inventory,
    OutputChunk,
    Runs,
    Status,
)
from protocol.tasks import AttemptId
from protocol.topics import CONTROLLER

RENEW_MS = 3_000
DUE_BATCH = 2_000
RESTORED_EPOCH = "restored_epoch"
"""Fleet fact: the epoch taken when a restored database was last found out (D1)."""
RESTORED_MARK = "restored"
"""Fleet fact of the store: this copy may be old; taken away with the commit that holds the wait."""


class Controller:
    """Implements `protocol.core.Core`. `rules` are the fleet's; the defaults are in `core.rules`."""

    def __init__(
        self,
        snapshot: Snapshot,
        beginning: Beginning,
        now_ms: int,
        rng: random.Random,
        rules: Rules | None = None,
    ) -> None:
        leader = snapshot.leader
        self.rng = rng
        self.now_ms = now_ms
        rules = rules or Rules()
        self.ledger = Ledger(Fleet(rules.offer, rules.profiles), leader.epoch, leader.holder)
        self.ledger.wall_offset_ms = beginning.wall_offset_ms
        self.speak_until_ms = beginning.asked_ms + SPEAK_MS
        restored = leader.epoch if beginning.restored else int(snapshot.fleet.get(RESTORED_EPOCH, "0"))
        load_devices(self.ledger, snapshot, now_ms)
        self._wire(restored, rules, now_ms)
        self.documents.doubt(restored)
        load_work(self.ledger, snapshot, self.jobs, self.documents, self.operators, now_ms)
        self.cron.recall(now_ms)
        self.failover.recall(snapshot.fleet, now_ms)
        self.failover.resume(now_ms)
        self.rebalance.carrying.recall()
        self._begin(snapshot, beginning, restored, now_ms)
        self.placement.wake(now_ms)

    def _wire(self, restored: int, rules: Rules, now_ms: int) -> None:
        ledger = self.ledger
        self.documents = Documents(ledger)
        self.condition = Condition(ledger.fleet)
        self.tasks = Tasks(ledger, self.documents, self.condition, restored)
        self.holds = Holds(ledger, self.documents, self.tasks)
        self.sessions = Sessions(ledger)
        self.liveness = Liveness(ledger)
        self.leases = Leases(
            ledger, self.documents, self.sessions, self.holds, self.liveness, self.condition, restored
        )
        self.failover = Failover(ledger, self.holds, self.condition)
        self.operators = Operators(ledger, self.holds, self.sessions)
        self.dependencies = Dependencies(ledger, self.tasks)
        self.daemons = Daemons(ledger, self.tasks, self.holds)
        self.jobs = Jobs(ledger, self.tasks, self.holds, self.dependencies, self.daemons)
        self.cron = Cron(ledger, self.jobs)
        self.output = Output(ledger)
        self.commands = Commands(ledger)
        self.nominations = Nominations(ledger)
        self.preemption = Preemption(ledger, self.holds, self.nominations)
        self.placement = Placement(ledger, self.tasks, self.condition, self.preemption, rules)
        self.returns = Returns(ledger, self.holds, self.placement)
        self.explaining = Explaining(ledger, self.placement, self.failover)
        self.pictures = Pictures(ledger, self.placement, self.failover, self.explaining, now_ms)
        self.foresight = Foresight(ledger, self.placement)
        self.rebalance = Rebalance(
            ledger, self.holds, self.placement, self.operators, self.failover, self.explaining, rules, now_ms
        )
        self.placement.gangs.blind = lambda: not self.liveness.watching or self.failover.blind()
        self.link = BrokerLink(ledger, self.liveness, self.failover, self.rng, now_ms)
        self.renew_due_ms = now_ms + RENEW_MS
        self._handlers = self._table()
        self._due = self._due_table()

    def _begin(self, snapshot: Snapshot, beginning: Beginning, restored: int, now_ms: int) -> None:
        """A wait without placements is committed, so that a successor within it waits anew (L6)."""
        if beginning.restored:
            self.ledger.fact(RESTORED_EPOCH, str(restored))
            self.ledger.alarm(
                "old_database",
                "the database is older than the fleet: what was accepted or cancelled after it is lost",
            )
        if beginning.wait or beginning.restored or snapshot.fleet.get("waiting") == "1":
            longest = max([j.row.lease_ms for j in self.ledger.jobs.values()], default=LEASE_MS)
            self.placement.not_before_ms = now_ms + hold_ms(
                max(longest, LEASE_MS), weak=bool(self._any_weak())
            )
            self.ledger.fact("waiting", "1")
            self.ledger.deadlines.set("waited", 0, self.placement.not_before_ms)
            self.holds.withdraw_unlisted(now_ms)
        if snapshot.fleet.get(RESTORED_MARK):
            self.ledger.fact(RESTORED_MARK, "")

    def _any_weak(self) -> bool:
        return bool(self.ledger.fleet.weak[: self.ledger.fleet.count].any())

    # ------------------------------------------------------------- the contract

    def count_on(self, before: Controller) -> None:
        """Goes on with the counts of the core that this one replaces: they belong to the process."""
        self.ledger.counters |= before.ledger.counters
        self.ledger.garbage |= before.ledger.garbage

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """One event in, effects out; a `Save`, if any, stands first."""
        self.now_ms = now_ms
        self._handlers[type(event)](event, now_ms)
        self._after(now_ms)
        return self._take()

    def next_due_ms(self) -> int | None:
        """The earliest of all deadlines; while we do not lead only the next renewal counts."""
        due = [self.renew_due_ms]
        if not self._leading(self.now_ms):
            return self.renew_due_ms
        for other in (
            self.ledger.deadlines.next_ms(),
            self.placement.due_ms,
            self.documents.next_due_ms(),
            self.operators.next_due_ms(),
            self.rebalance.next_due_ms(),
            self.foresight.next_due_ms(self.now_ms),
            self.liveness.due_ms if self.liveness.watching else None,
        ):
            if other is not None:
                due.append(other)
        return min(due)

    def _take(self) -> list[Effect]:
        ledger = self.ledger
        effects = ledger.effects
        if ledger.rows:
            effects = [Save(tuple(ledger.rows)), *effects]
            ledger.rows = []
        ledger.effects = []
        return effects

    def rows(self, devices: Sequence[str]) -> Ints:
        """Row numbers for `HeartbeatBatch`; they hold while this object lives. -1: not known yet."""
        return self.ledger.fleet.rows(devices)

    # ------------------------------------------------------------- dispatch

    def _table(self) -> dict[type[Event], Callable[[Any, int], None]]:
        ledger = self.ledger
        return {
            TimerElapsed: self._on_timer,
            HeartbeatBatch: self._on_heartbeats,
            MessageArrived: self._on_message,
            GarbageArrived: self._on_garbage,
            LinkUp: self.link.on_up,
            LinkDown: self.link.on_down,
            CanaryReturned: self.link.on_canary,
            LeaderRenewed: self._on_renewed,
            WallClockRead: self._on_wall_clock,
            SaveFailed: lambda e, now: None,
            JobSubmitted: self._on_request(self.jobs.submit),
            JobCancelled: self._on_request(self.jobs.cancel),
            DeviceDecision: self._on_request(self.operators.decide),
            RebalanceAsked: self._on_request(self.rebalance.ask),
            RebalanceDecided: self._on_request(self.rebalance.decide),
            RebalancesQueried: self.rebalance.query,
            DevicePinged: self._on_request(self.commands.ping),
            FleetUnfrozen: self._on_request(self._on_unfrozen),
            DevicesQueried: lambda e, now: ledger.emit(
                Reply(e.request, self.pictures.devices(e.device, e.after, e.limit, now))
            ),
            FleetQueried: lambda e, now: ledger.emit(Reply(e.request, self.pictures.fleet_view(now))),
            TaskExplained: self._on_explain,
            PlanAsked: self._on_plan,
            WaitsQueried: lambda e, now: ledger.emit(Reply(e.request, self.explaining.waits(e.tasks, now))),
        }

    def _on_request(self, method: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
        """A wish that changes something is refused while we do not lead."""

        def handle(event: Any, now_ms: int) -> None:
            if self._leading(now_ms):
                method(event, now_ms)
                if self.ledger.waiting:
                    self.placement.wake(now_ms)
            else:
                refusal = RefusalView("not_ready", "this controller does not lead at the moment")
                self.ledger.emit(Reply(event.request, refusal))

        return handle

    def _leading(self, now_ms: int) -> bool:
        return now_ms < self.speak_until_ms

    # ------------------------------------------------------------- messages

    def _on_heartbeats(self, event: HeartbeatBatch, now_ms: int) -> None:
        if self._leading(now_ms):
            self.leases.on_heartbeats(event, now_ms)
        if self.leases.outdated:
            # Silent from now on; the next save is the renewal, and the world rebuilds us there.
            self.speak_until_ms = self.renew_due_ms = now_ms

    def _on_message(self, event: MessageArrived, now_ms: int) -> None:
        # `+/status` brings our own status too: we are no device.
        if event.device == CONTROLLER or not self._leading(now_ms):
            return
        row = self.sessions.row_of(event.device, now_ms)
        if row is None:
            return
        message = event.message
        if isinstance(message, Runs):
            self._on_runs(row, message, now_ms)
        elif isinstance(message, Status):
            self._on_status(row, message, now_ms)
        elif isinstance(message, Inventory):
            self._on_inventory(row, message, now_ms)
        elif isinstance(message, OutputChunk):
            self.output.on_chunk(row, message)
        elif isinstance(message, Answer):
            self.commands.on_answer(row, message)
        else:
            self.ledger.count_garbage("wrong_channel")

    def _on_garbage(self, event: GarbageArrived, now_ms: int) -> None:
        row = self.ledger.fleet.index.get(event.device)
        if event.reason == GarbageReason.EMPTY and row is not None and self.ledger.fleet.removed[row]:
            return  # our own deletion of its retained messages
        self.ledger.count_garbage(event.reason)
        if row is not None and event.channel == Inventory.channel and event.reason in NONSENSE:
            self.operators.on_nonsense(row, event.detail, now_ms)

    def _on_status(self, row: int, message: Status, now_ms: int) -> None:
        if not self.sessions.accept(row, message.session, now_ms):
            return
        if not message.online:  # a will may be that of a life long over: it tells nothing of who speaks
            self.liveness.willed(row, now_ms)
        elif self.sessions.identify(row, message):
            self.operators.quarantine(row, now_ms)

    def _on_runs(self, row: int, message: Runs, now_ms: int) -> None:
        # An older session's report never overwrites, but may free (S1, L3); and its sender learns the floor.
        accepted = self.sessions.accept(row, message.session, now_ms)
        if not accepted and self.sessions.newer(row, message.session):
            return
        self.holds.on_runs(row, message, now_ms)
        self.returns.look(row, now_ms)
        self.placement.notice_room(now_ms)

    def _on_inventory(self, row: int, message: Inventory, now_ms: int) -> None:
        fleet = self.ledger.fleet
        if not self.sessions.accept(row, message.session, now_ms) or message.number < fleet.inventory[row]:
            return
        fleet.note_inventory(row, message.number)
        if doubt := doubt_of(message):
            fleet.records[row].doubt = doubt
            self.operators.quarantine(row, now_ms)
            return
        self.operators.calm_nonsense(row)
        lifted = self.nominations.lifted_on(row)
        fleet.describe(row, message, self.ledger.shares(row))
        self.nominations.restore(lifted)
        self.liveness.hasten(now_ms)
        self.ledger.save(fleet.records[row])

    # ------------------------------------------------------------- leadership

    def _renew(self, now_ms: int) -> None:
        self.renew_due_ms = now_ms + RENEW_MS
        self.ledger.save(LeaderRow(self.ledger.epoch, self.ledger.leader, self.ledger.wall(now_ms)))
        self.ledger.emit(Confirm(LeaderRenewed(now_ms)))

    def _on_renewed(self, event: LeaderRenewed, now_ms: int) -> None:
        if self.leases.outdated:
            return  # a renewal from before it was found out must not give the voice back (D1)
        if not self._leading(now_ms):
            self.ledger.fleet.hear_all(now_ms)  # what was said meanwhile we dropped: the silence was ours
        self.speak_until_ms = max(self.speak_until_ms, event.asked_ms + SPEAK_MS)

    def _on_wall_clock(self, event: WallClockRead, now_ms: int) -> None:
        self.ledger.wall_offset_ms = event.offset_ms
        self.cron.on_wall_clock(now_ms)

    def _on_unfrozen(self, event: FleetUnfrozen, now_ms: int) -> None:
        if self.failover.unfreeze(now_ms):
            self.ledger.audit(now_ms, "fleet", "failover", "frozen", "open", event.actor)
        self.ledger.emit(Reply(event.request, DoneView("fleet")))

    def _on_explain(self, event: TaskExplained, now_ms: int) -> None:
        task = self.ledger.tasks.get(event.task)
        if task is None:
            body: object = RefusalView("not_open", f"task {event.task} is not open")
        else:
            body = self.explaining.explain(task, now_ms)
        self.ledger.emit(Reply(event.request, body))

    def _on_plan(self, event: PlanAsked, now_ms: int) -> None:
        if self._leading(now_ms):
            self.foresight.ask(event, now_ms)
        else:  # nobody would go on with it
            refusal = RefusalView("not_ready", "this controller does not lead at the moment")
            self.ledger.emit(Reply(event.request, refusal))

    # ------------------------------------------------------------- time

    def _due_table(self) -> dict[str, Callable[[Any, int], None]]:
        return {
            "hold": lambda key, now: self.failover.on_due(AttemptId(*key), now),
            "ready": self.jobs.on_ready,
            "expired": self.jobs.on_expired,
            "cron": self.cron.on_due,
            NOMINATION_DUE: lambda key, now: self.nominations.on_due(key),
            BROKEN_GANG_DUE: self.placement.gangs.on_due,
            "freeze": self.failover.on_freeze_due,
            "lost": lambda key, now: self.failover.step(now),
            "command": lambda key, now: self.commands.on_due(key),
            "link": lambda key, now: self.link.connect(),
            "canary": lambda key, now: self.link.send_canary(now),
            "waited": lambda key, now: self._on_waited(now),
        }

    def _on_waited(self, now_ms: int) -> None:
        self.ledger.fact("waiting", "0")
        self.ledger.calm("old_database")
        self.placement.wake(now_ms)

    def _on_timer(self, event: TimerElapsed, now_ms: int) -> None:
        if now_ms >= self.renew_due_ms:
            self._renew(now_ms)
        if not self._leading(now_ms):
            return
        self.liveness.sweep(now_ms)
        for done, (kind, key) in enumerate(self.ledger.deadlines.pop(now_ms)):
            self._due[kind](key, now_ms)
            if done >= DUE_BATCH:
                break
        if (due_ms := self.operators.next_due_ms()) is not None and now_ms >= due_ms:
            self.operators.step(now_ms)
        if (due_ms := self.rebalance.next_due_ms()) is not None and now_ms >= due_ms:
            self.rebalance.step(now_ms)
        if self.ledger.waiting:  # a device that cools down, or is quiet for long enough, sends no event
            self.condition.refresh(now_ms)
        self.placement.notice_room(now_ms)
        self.foresight.step()

    def _after(self, now_ms: int) -> None:
        """What any event may have set off: state changes of devices, a round of placement, revisions."""
        if self.liveness.changed:
            changed, self.liveness.changed = self.liveness.changed, []
            self.failover.on_changes(changed, now_ms)
            for row in changed:
                self.returns.look(row, now_ms)
            self.placement.notice_room(now_ms)
        self._draw_consequences(now_ms)
        if self.ledger.newly_ready:
            # A retry whose pause is over frees no room, and nobody else would look.
            self.ledger.newly_ready = False
            self.placement.wake(now_ms)
        if not self._leading(now_ms):
            return
        if self.placement.due_ms is not None and now_ms >= self.placement.due_ms:
            self.placement.run(now_ms)
        if (due_ms := self.documents.next_due_ms()) is not None and now_ms >= due_ms:
            self.documents.flush(now_ms)
        self._draw_consequences(now_ms)

    def _draw_consequences(self, now_ms: int) -> None:
        """What follows from devices and jobs that changed, in the same commit."""
        self.daemons.follow(now_ms)
        self.dependencies.follow(now_ms)
        self.returns.follow(now_ms)
