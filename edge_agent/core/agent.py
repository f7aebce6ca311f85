"""The agent: dispatches events to its machines and wires what they do not know of each other.

Each event goes by its type to one method; then `_close` lets every machine draw its
consequences, in one order: what ended, what may start, what may be dropped, what must be
reported, whether a heartbeat is due. All of it is level-triggered, so an effect that the
world dropped (a save failed) or a message that was lost is asked for again, not replayed.
A `Save`, if memory changed, stands in front of everything an event brought.

Refuses to know: time but as an argument, chance but through its rng, any file or socket.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from edge_agent.core.commands import CommandBook
from edge_agent.core.connection import Connection, floor_is_attainable
from edge_agent.core.departure import Departure, Step
from edge_agent.core.effects import DropOutput, Quit, ReadSensors
from edge_agent.core.equipment import Equipment, Identity
from edge_agent.core.events import (
    Booted,
    HostListed,
    HostLost,
    OutputRead,
    RunExited,
    RunRefused,
    RunStarted,
    SaveConfirmed,
    SensorsRead,
    StopRequested,
)
from edge_agent.core.heartbeat import Heartbeats
from edge_agent.core.leases import LeaseBook
from edge_agent.core.memory import Memory
from edge_agent.core.outbox import BYTES_MAX, Outbox
from edge_agent.core.promises import Promises
from edge_agent.core.runs import RunBook
from edge_agent.core.vitals import Vitals
from protocol import core as words
from protocol import messages as wire
from protocol.core import Effect, Event, Note, Publish
from protocol.errors import LocalMistake
from protocol.pace import Pace
from protocol.tasks import AttemptId

REPUBLISH_MS = 1_000
"""A document that the controller has not processed is published again at most so often."""
NOTES_MS = 10_000
"""The same complaint is noted once in so long, with a count."""
COMPLAINTS_MAX = 64
REPORTS_AT_ONCE = 8
REPORT_MS = 200
"""A lone run's start and end are told at once; a busy device tells many changes in one document."""


class Agent:
    """One device's side of the protocol. `memory` is what the journal held, or a fresh one."""

    def __init__(
        self,
        memory: Memory,
        identity: Identity,
        equipment: Equipment,
        rng: random.Random,
        outbox_bytes_max: int = BYTES_MAX,
    ) -> None:
        self.memory = memory
        self.identity = identity
        self.device = identity.device
        self.equipment = equipment
        self.connection = Connection(memory, identity.device, identity.boot_id, rng)
        self.heartbeats = Heartbeats(equipment.heartbeat_ms)
        self.leases = LeaseBook()
        self.runs = RunBook(memory)
        self.outbox = Outbox(outbox_bytes_max)
        self.promises = Promises(memory)
        self.commands = CommandBook()
        self.departure = Departure()
        self.vitals = Vitals()
        self.used = wire.Used(0, 0, 0)
        self.counts: dict[str, int] = {}
        """Dropped messages by reason, since the start of this process."""
        self._noted_ms: dict[str, int] = {}
        self._inventory_number = 1
        self._reports = Pace(REPORTS_AT_ONCE, REPORT_MS)
        self._published_ms = {wire.Runs.channel: 0, wire.Inventory.channel: 0}
        self._tune()

    # ------------------------------------------------------------ the contract

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """What this event asks of the world, in order. Bounded work; performs nothing."""
        method = HANDLERS.get(type(event))
        if method is None:
            raise LocalMistake(f"the agent knows no event {type(event).__name__}")
        effects = method(self, event, now_ms)
        if type(event) is SensorsRead:  # one with every heartbeat, and nobody waits for it
            return effects
        effects += self._close(now_ms)
        return self.promises.front(now_ms) + effects

    def next_due_ms(self) -> int | None:
        """When the world shall feed `TimerElapsed`."""
        first = self.heartbeats.due_ms()
        for due in (
            self.connection.due_ms(),
            self.runs.due_ms(),
            self.outbox.due_ms(self.connection.up),
            self.promises.due_ms(),
            self.departure.due_ms(),
            self._reports.due_ms() if self._reportable() else None,
        ):
            if due is not None and (first is None or due < first):
                first = due
        return first

    def at_rest(self) -> bool:
        """Whether nothing goes on but the pulse, one beat like the other: all is said, processed,
        saved and granted, and there is no health to tell."""
        runs, held = self.runs, self.memory.assignments.revision
        seq, beat_ms = self.heartbeats.latest
        dues = (
            self.connection.due_ms(),
            runs.due_ms(),
            self.outbox.due_ms(self.connection.up),
            self.promises.due_ms(),
        )
        if any(due is not None for due in dues) or self.memory.changed:
            return False
        if self.departure.leaving or self.vitals.known:
            return False
        granted = held == wire.NO_REVISION or self.leases.sent_ms == beat_ms
        told = runs.listed and not runs.changed and self.heartbeats.sent.get(seq) == (beat_ms, runs.number)
        return granted and told and not runs.stale and self.heartbeats.steady and self._may_start()

    # ------------------------------------------------------------ the world

    def _booted(self, event: Booted, now_ms: int) -> list[Effect]:
        for key in self.memory.outputs:
            self.outbox.watch(key, now_ms, restored=True)
            if key not in self.memory.entries:
                self.outbox.release(key)
        return [*self.runs.ask(now_ms), ReadSensors(), *self.connection.open()]

    def _elapsed(self, event: words.TimerElapsed, now_ms: int) -> list[Effect]:
        return [
            *self.connection.elapse(now_ms),
            *self.runs.elapse(now_ms),
            *self._chunks(self.outbox.elapse(self.connection.up, now_ms)),
        ]

    def _save_failed(self, event: words.SaveFailed, now_ms: int) -> list[Effect]:
        """Everything behind the save was dropped: ask anew for what is no promise."""
        self.promises.failed(now_ms)
        self.runs.changed = True
        self.outbox.reset()
        effects = self.connection.reopen() + self.runs.ask(now_ms)
        if self.departure.step is Step.GONE:
            effects.append(Quit())
        return effects + self._complain("save_failed", event.reason, now_ms, "error")

    def _save_confirmed(self, event: SaveConfirmed, now_ms: int) -> list[Effect]:
        self.runs.stale = True
        if self.promises.confirmed(event.session):
            return [Note("info", "the journal can be written again")]
        return []

    def _stop_requested(self, event: StopRequested, now_ms: int) -> list[Effect]:
        if self.departure.leaving:
            return []
        self.departure.begin(event.reason, event.stop_runs, now_ms)
        return self.runs.stop_all(now_ms) if event.stop_runs else []

    def _sensors_read(self, event: SensorsRead, now_ms: int) -> list[Effect]:
        """An alarm doesn't wait for the next heartbeat."""
        self.used = event.used
        if self.vitals.read(event.health) and self.connection.up:
            self.heartbeats.soon(now_ms)
        return []

    # ------------------------------------------------------------ the link

    def _link_up(self, event: words.LinkUp, now_ms: int) -> list[Effect]:
        """Status, inventory, runs (if the host has told), then the outbox (S3)."""
        if not self.connection.rose(event.session, now_ms):
            return []
        below = self.connection.obey_floor()
        if below:  # told while it rose, before the answer to SUBSCRIBE: the same revision is heard only once
            return below
        self.leases.forget()
        self.runs.begin()
        self.heartbeats.begin(event.session, now_ms)
        self.vitals.begin()
        self._inventory_number = 1
        effects: list[Effect] = [
            Publish(self.device, self.connection.status(True)),
            self._publish_inventory(now_ms),
        ]
        effects += self._report(now_ms)
        # The first heartbeat goes before the backlog: a lease may hang on it.
        effects += self._beat(now_ms)
        return effects + self._chunks(self.outbox.begin(event.session))

    def _link_down(self, event: words.LinkDown, now_ms: int) -> list[Effect]:
        if self.departure.step is Step.SAYING and event.session == self.connection.session:
            self.departure.quit()
            return [Quit()]
        if not self.connection.fell(event.session, now_ms):
            return []
        self.heartbeats.end()
        self.leases.forget()
        return self._complain("link_down", event.reason, now_ms, "info")

    def _garbage(self, event: words.GarbageArrived, now_ms: int) -> list[Effect]:
        """Counted, told, dropped; an empty retained message is a deletion and changes nothing here."""
        return self._complain(f"garbage_{event.reason}", f"{event.channel}: {event.detail}", now_ms)

    def _message(self, event: words.MessageArrived, now_ms: int) -> list[Effect]:
        method = RECEIVERS.get(type(event.message))
        if method is None or event.device != self.device:
            return self._complain("not_for_us", type(event.message).__name__, now_ms)
        return method(self, event.message, now_ms)

    def _assignments(self, message: wire.Assignments, now_ms: int) -> list[Effect]:
        """A newer document is obeyed and answered by a heartbeat at once (D1, D3)."""
        if not self._epoch_holds(message.revision.epoch):
            return self._complain("old_epoch", "assignments", now_ms)
        held = self.memory.assignments.revision
        if message.revision <= held:
            return [] if message.revision == held else self._complain("old_revision", "assignments", now_ms)
        effects = self.runs.take(message, now_ms)
        self.leases.forget()
        self._tune()
        self.heartbeats.now(now_ms)
        return effects

    def _lease_answer(self, message: wire.LeaseAnswer, now_ms: int) -> list[Effect]:
        """What was processed, what is stored, and perhaps a grant (L1)."""
        if not self._epoch_holds(message.epoch):
            return self._complain("old_epoch", "lease", now_ms)
        self.outbox.acknowledge(message.outbox, message.stored, now_ms)
        sent = self.heartbeats.answered(message.session, message.seq)
        if sent is None:
            return self._complain("unknown_heartbeat", f"seq {message.seq}", now_ms, "debug")
        sent_ms, runs_named = sent
        self.outbox.pace(now_ms - sent_ms)
        self.vitals.answered(message.seq, now_ms - sent_ms)
        effects = self._repair(message, runs_named, now_ms)
        held = self.memory.assignments.revision
        if message.granted != wire.NO_REVISION and message.granted == held:
            self.heartbeats.granted()
            if self.leases.grant(sent_ms):
                effects += self.runs.confirmed(now_ms)
        elif self.heartbeats.is_latest(message.seq) and self.memory.assignments.attempts:
            # A renewal too: a new leader first wants `Runs`, and a short lease does not last another period.
            self.heartbeats.refused(now_ms)
        return effects

    def _settings(self, message: wire.Settings, now_ms: int) -> list[Effect]:
        if not self._epoch_holds(message.revision.epoch):
            return self._complain("old_epoch", "settings", now_ms)
        if message.revision <= self.memory.settings.revision:
            return []
        if not floor_is_attainable(message.session_floor, self.connection.session):
            return self._complain("impossible_floor", str(message.session_floor), now_ms, "error")
        self.memory.settings, self.memory.changed = message, True
        self.runs.stale = True
        self._tune()
        effects = self.connection.obey_floor()
        if effects:
            self.heartbeats.end()
            self.leases.forget()
        return effects

    def _command(self, message: wire.Command, now_ms: int) -> list[Effect]:
        if not self._epoch_holds(message.epoch):
            return self._complain("old_epoch", "command", now_ms)
        answer = self.commands.answer(message, self.connection.session if self.connection.up else 0)
        if isinstance(answer, str):
            return self._complain(f"command_{answer}", message.id, now_ms, "debug")
        return [Publish(self.device, answer)]

    # ------------------------------------------------------------ the run host

    def _host_listed(self, event: HostListed, now_ms: int) -> list[Effect]:
        effects = self.runs.host_listed(event, now_ms)
        told = (
            event.containment or self.equipment.containment,
            event.limits or self.equipment.limits,
        )
        if told == (self.equipment.containment, self.equipment.limits):
            return effects
        self.equipment.containment, self.equipment.limits = told
        self._inventory_number += 1
        return [*effects, self._publish_inventory(now_ms)] if self.connection.up else effects

    def _host_lost(self, event: HostLost, now_ms: int) -> list[Effect]:
        return self.runs.host_lost(now_ms) + self._complain("host_lost", event.reason, now_ms)

    def _run_started(self, event: RunStarted, now_ms: int) -> list[Effect]:
        return self.runs.started(AttemptId(event.task, event.attempt), now_ms)

    def _run_refused(self, event: RunRefused, now_ms: int) -> list[Effect]:
        self.runs.refused(AttemptId(event.task, event.attempt), event.reason, event.failed, now_ms)
        fields: dict[str, str | int] = {"task": event.task, "attempt": event.attempt, "reason": event.reason}
        return [Note("warning", "the run host refused a run", fields)]

    def _run_exited(self, event: RunExited, now_ms: int) -> list[Effect]:
        self.runs.exited(event.exit, now_ms)
        return []

    def _output_read(self, event: OutputRead, now_ms: int) -> list[Effect]:
        chunk = self.outbox.read(event, now_ms)
        return self._chunks([chunk]) if chunk is not None else []

    # ------------------------------------------------------------ consequences

    def _close(self, now_ms: int) -> list[Effect]:
        """Let every machine draw its consequences."""
        effects: list[Effect] = []
        if self.runs.stale:
            effects += self.runs.offer(self.leases.deadline_ms, self._may_start(), now_ms)
        effects += self._outputs(now_ms)
        if self._reportable() and (self._reports.admits(now_ms) or self.departure.leaving):
            effects += self._report(now_ms)
        if self.outbox.wants_beat(now_ms):
            self.heartbeats.soon(now_ms)
        due_ms = self.heartbeats.due_ms()
        if due_ms is not None and now_ms >= due_ms:
            effects += self._beat(now_ms)
        return effects + self._depart(now_ms) if self.departure.leaving else effects

    def _may_start(self) -> bool:
        """A saved session, no quarantine, and no intention to leave."""
        settled = self.promises.holds(self.connection.session)
        return settled and not self.memory.settings.quarantined and not self.departure.leaving

    def _outputs(self, now_ms: int) -> list[Effect]:
        """Tell the outbox what started, ended and is gone; keep memory's list of what is on disk."""
        for key in self.memory.outputs:
            self.outbox.watch(key, now_ms)
        for key in self.runs.ended:
            self.outbox.end(key)
        for key in self.runs.gone:
            self.outbox.release(key)
        self.runs.ended, self.runs.gone = [], []
        effects = self.outbox.sweep()
        for effect in effects:
            if isinstance(effect, DropOutput):
                self.memory.outputs.pop(AttemptId(effect.task, effect.attempt), None)
        return effects + self.outbox.pump(self.connection.up, now_ms)

    def _reportable(self) -> bool:
        return self.runs.changed and self.runs.listed and self.connection.up

    def _report(self, now_ms: int) -> list[Effect]:
        """The reported document, unless the host has not told what it holds (D5)."""
        if not (self.connection.up and self.runs.listed):
            return []
        self._published_ms[wire.Runs.channel] = now_ms
        self._reports.take(now_ms)
        return [Publish(self.device, self.runs.report(self.connection.session))]

    def _repair(self, answer: wire.LeaseAnswer, runs_named: int, now_ms: int) -> list[Effect]:
        """Publish again what the controller, at that heartbeat, had not processed (D3)."""
        effects: list[Effect] = []
        runs, inventory = wire.Runs.channel, wire.Inventory.channel
        if answer.runs == self.runs.number:
            if answer.granted == self.memory.assignments.revision:  # else ours may be an old copy (D6)
                self.runs.processed(answer.runs)
        elif self.runs.listed and runs_named == self.runs.number and self._may_repeat(runs, now_ms):
            self._published_ms[runs] = now_ms
            effects.append(Publish(self.device, self.runs.again(self.connection.session)))
        if answer.inventory != self._inventory_number and self._may_repeat(inventory, now_ms):
            effects.append(self._publish_inventory(now_ms))
        return effects

    def _may_repeat(self, channel: str, now_ms: int) -> bool:
        return now_ms - self._published_ms[channel] >= REPUBLISH_MS

    def _publish_inventory(self, now_ms: int) -> Effect:
        self._published_ms[wire.Inventory.channel] = now_ms
        message = self.equipment.inventory(self.identity, self._inventory_number, self.connection.session)
        return Publish(self.device, message)

    def held(self) -> wire.Held:
        """What the next heartbeat names."""
        documents = self.memory.assignments.revision, self.memory.settings.revision
        return wire.Held(*documents[0], self.runs.number, self._inventory_number, *documents[1])

    def _beat(self, now_ms: int) -> list[Effect]:
        health = self.vitals.tell(self.heartbeats.next_seq, now_ms)
        beat = self.heartbeats.beat(self.held(), self.used, now_ms, health)
        return [Publish(self.device, beat), ReadSensors()]

    def _depart(self, now_ms: int) -> list[Effect]:
        living = self.runs.listed and self.runs.living()
        step = self.departure.advance(living, self.connection.up, now_ms)
        if step is Step.GONE:
            return [Quit()]
        if step is not Step.SAYING:
            return []
        self.heartbeats.end()
        effects = self.connection.leave(self.departure.reason)
        if not effects:
            self.departure.quit()
            effects.append(Quit())
        return effects

    def _chunks(self, chunks: list[wire.OutputChunk]) -> list[Effect]:
        return [Publish(self.device, chunk) for chunk in chunks] if self.connection.up else []

    def _tune(self) -> None:
        leases_ms = [attempt.lease_ms for attempt in self.memory.assignments.attempts]
        self.heartbeats.tune(self.memory.settings.heartbeat_ms, leases_ms)

    def _epoch_holds(self, epoch: int) -> bool:
        """Whether a message of this epoch is to be heard; a higher one is remembered (L6)."""
        if epoch > self.memory.epoch:
            self.memory.epoch, self.memory.changed = epoch, True
        return epoch == self.memory.epoch

    def _complain(self, reason: str, detail: str, now_ms: int, level: str = "warning") -> list[Effect]:
        """Count it, and note it unless the same was noted just now."""
        if reason not in self.counts and len(self.counts) >= COMPLAINTS_MAX:
            reason = "other"
        self.counts[reason] = self.counts.get(reason, 0) + 1
        last_ms = self._noted_ms.get(reason)
        if last_ms is not None and now_ms - last_ms < NOTES_MS:
            return []
        self._noted_ms[reason] = now_ms
        return [Note(level, reason, {"detail": detail[:200], "count": self.counts[reason]})]


HANDLERS: dict[type, Callable[..., list[Effect]]] = {
    Booted: Agent._booted,
    words.TimerElapsed: Agent._elapsed,
    words.LinkUp: Agent._link_up,
    words.LinkDown: Agent._link_down,
    words.MessageArrived: Agent._message,
    words.GarbageArrived: Agent._garbage,
    words.SaveFailed: Agent._save_failed,
    SaveConfirmed: Agent._save_confirmed,
    HostListed: Agent._host_listed,
    HostLost: Agent._host_lost,
    RunStarted: Agent._run_started,
    RunRefused: Agent._run_refused,
    RunExited: Agent._run_exited,
    OutputRead: Agent._output_read,
    SensorsRead: Agent._sensors_read,
    StopRequested: Agent._stop_requested,
}

RECEIVERS: dict[type, Callable[..., list[Effect]]] = {
    wire.Assignments: Agent._assignments,
    wire.LeaseAnswer: Agent._lease_answer,
    wire.Settings: Agent._settings,
    wire.Command: Agent._command,
}
