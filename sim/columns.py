"""Columns: devices at rest, whose heartbeats are rows of arrays instead of events.

A fleet of 5,000 that works for a day says 43 million times that nothing has changed. Here a
device whose agent is at rest is put aside, like a clock under a cloth: its next heartbeats
are computed, in its own clock's arithmetic, all that are due within a window reach the
production controller as one `HeartbeatBatch`, and the answers that grant exactly what is
held are noted in a column. Whatever else happens to the device (a message, a run's end, a
fault, an answer that is missing or says more) lifts the cloth first: the real agent lives
through its last heartbeats and their answers at the times at which they were, and so has
in memory and in its guard what it would have if it had sent them all.

A heartbeat takes until the end of its window instead of two ways of a few ms; nothing else
differs. It knows what an agent at rest is from the agent, and of a run only that it lives.
Refused: shortcuts in the controller. It sees batches, as it does from the live driver.
Rejected: windows of a second and more (an agent repeats what is unanswered for two).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import overload

import numpy as np
import numpy.typing as npt

from controller.core.controller import Controller
from controller.core.effects import PublishLeases
from controller.core.events import HeartbeatBatch
from protocol.core import MessageArrived, TimerElapsed
from protocol.messages import Heartbeat, Held, LeaseAnswer, Revision, Used
from sim.devices import SimulatedDevice
from sim.machines.agents import AgentProcess
from sim.machines.localclock import PPM
from sim.world import World

WINDOW_MS = 400
"""So long a heartbeat is under way at most; less than what an agent calls fast."""
LOOK_MS = 1_000
"""How often those awake are looked at."""
KEPT = 8
"""Heartbeats whose times are kept; an agent remembers those within its longest lease."""
FAR_MS = 2**62

Ints = npt.NDArray[np.int64]


class NamesAt(Sequence[str]):
    """Names that are looked up only if somebody asks."""

    def __init__(self, names: npt.NDArray[np.object_], rows: Ints) -> None:
        self.names, self.rows = names, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return NamesAt(self.names, self.rows[at]) if isinstance(at, slice) else str(self.names[self.rows[at]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names[self.rows].tolist())


class IdleFleet:
    """All devices of a world; those at rest as columns, one row each."""

    def __init__(self, world: World, window_ms: int = WINDOW_MS) -> None:
        self.world = world
        self.clock = world.clock
        self.window_ms = window_ms
        self.heartbeats = self.rests = 0
        """Heartbeats that went as columns; how often a device was put to rest."""
        self.awake: dict[str, None] = {}
        self.row: dict[str, int] = {}
        self.names = np.zeros(0, object)
        self._processes: list[AgentProcess | None] = []
        self._asked: HeartbeatBatch | None = None
        """The last batch, while all of it rests."""
        self._core_rows: dict[int, tuple[Controller, Ints]] = {}
        self._asked_rows = np.zeros(0, np.int64)
        self._resting = 0
        self._flushing = self._open = False
        self._resize(0)

    def _resize(self, size: int) -> None:
        """Room for so many; nothing rests when it is called."""
        self.due_ms: Ints = np.full(size, FAR_MS, np.int64)
        """World time of the next heartbeat."""
        self.period_ms: Ints = np.zeros(size, np.int64)
        self.world_ms: Ints = np.zeros(size, np.int64)
        self.local_ms: Ints = np.zeros(size, np.int64)
        self.speed: Ints = np.zeros(size, np.int64)
        """The device's clock: anchored there, this many of its microseconds a second."""
        self.session = np.zeros(size, np.uint64)
        self.seq: Ints = np.zeros(size, np.int64)
        self.began_seq: Ints = np.zeros(size, np.int64)
        self.answered: Ints = np.zeros(size, np.int64)
        self.sent_ms: Ints = np.zeros(size * KEPT, np.int64)
        """Own time of each of the last heartbeats: row by row, in it by seq modulo `KEPT`."""
        self.epoch: Ints = np.zeros(size, np.int64)
        self.held: Ints = np.zeros((size, len(Held._fields)), np.int64)
        self.used: Ints = np.zeros((size, len(Used._fields)), np.int64)

    # ------------------------------------------------------------- begin and end

    def begin(self) -> None:
        """From now on who is at rest is put aside."""
        self._open = True
        self._processes = [None] * len(self.world.devices)
        self.names = np.array([*self.world.devices], object)
        self.row = {name: row for row, name in enumerate(self.world.devices)}
        self.awake = dict.fromkeys(self.world.devices)
        self._resize(len(self.row))
        for controller in self.world.controllers:
            controller.wire.take_leases = self._take
        self.clock.after(LOOK_MS, self._look)

    def end(self) -> None:
        """Everybody is brought to the present and stays awake."""
        self._open = False
        self._flush()
        self._rouse_all()
        for controller in self.world.controllers:
            controller.wire.take_leases = None

    def _rouse_all(self) -> None:
        for row in np.flatnonzero(self.due_ms < FAR_MS).tolist():
            self._rouse(row)

    def _calm(self) -> bool:
        """Whether the network does to every message what it does to a batch."""
        network = self.world.network
        w = network.weather
        if w.lost or w.lost_answers or w.doubled or w.straggling or w.dropped or not network.broker_up:
            return False
        return not (network.cuts and any(c.client in network.cuts for c in self.world.controllers))

    def resting(self) -> int:
        """How many devices are columns at the moment."""
        return self._resting

    # ------------------------------------------------------------- to rest

    def _look(self) -> None:
        if not self._open:
            return
        self.clock.after(LOOK_MS, self._look)
        if not self._calm():
            return
        for name in [name for name in self.awake if self._may_rest(self.world.devices[name])]:
            self._rest(self.world.devices[name])

    def _may_rest(self, device: SimulatedDevice) -> bool:
        """At rest, with nothing else on its machine; and its memory of heartbeats fits the columns."""
        process = device.process
        if process is None or len(device.twins) > 1 or not process.at_rest() or not device.guard.at_rest():
            return False
        beats = process.core.heartbeats
        remembered = beats.longest_ms // beats.period_ms + 2
        return remembered < KEPT and device.place not in self.world.network.cuts

    def _rest(self, device: SimulatedDevice) -> None:
        process = device.process
        assert process is not None
        core, row = process.core, self.row[device.name]
        seq, last_ms = core.heartbeats.latest
        self.seq[row] = self.began_seq[row] = self.answered[row] = seq
        self.sent_ms[row * KEPT + seq % KEPT] = last_ms
        self.period_ms[row] = core.heartbeats.period_ms
        self.world_ms[row], self.local_ms[row] = device.own.anchor()
        self.speed[row] = PPM + device.own.rate_ppm
        self.session[row], self.epoch[row] = core.connection.session, core.memory.epoch
        self.held[row], self.used[row] = core.held(), core.used
        self.due_ms[row] = device.own.world_ms(last_ms + core.heartbeats.period_ms)
        self._processes[row] = process
        if any(rows[row] < 0 for _, rows in self._core_rows.values()):
            self._core_rows.clear()
        del self.awake[device.name]
        process.rest(roused := partial(self._bring_back, row))
        device.guard.rest()
        self.world.network.rest(process.connection, roused)
        self.clock.trace(device.place, "rests")
        self.rests += 1
        self._resting += 1
        if self._resting == 1:
            self.clock.after(self.window_ms, self._window)

    # ------------------------------------------------------------- heartbeats

    def _window(self) -> None:
        self._flush()
        if not self._calm():
            self._rouse_all()
        if self._resting:
            self.clock.after(self.window_ms, self._window)

    def _flush(self) -> None:
        """All heartbeats that left until now arrive; who was not answered since the last time is roused."""
        if self._flushing:
            return
        self._flushing = True
        asked = self._asked_rows
        for row in asked[self.answered[asked] != self.seq[asked]].tolist():
            self._rouse(row)
        rows = np.flatnonzero(self.due_ms <= self.clock.now_ms)
        self._asked_rows = rows
        if rows.size:
            self._beat(rows)
        self._flushing = False

    def _beat(self, rows: Ints) -> None:
        """The next heartbeat of each leaves at its own time, and all arrive now."""
        speed, anchor_ms, own_ms = self.speed[rows], self.world_ms[rows], self.local_ms[rows]
        local_ms = own_ms + (self.due_ms[rows] - anchor_ms) * speed // PPM
        seqs = self.seq[rows] + 1
        self.seq[rows] = seqs
        self.sent_ms[rows * KEPT + seqs % KEPT] = local_ms
        passed_ms = local_ms + self.period_ms[rows] - own_ms
        self.due_ms[rows] = anchor_ms - (-passed_ms * PPM // speed)
        self.heartbeats += len(rows)
        self._asked = HeartbeatBatch(
            NamesAt(self.names, rows),
            self.session[rows],
            seqs,
            self.held.take(rows, 0),
            self.used.take(rows, 0),
        )
        for number, controller in enumerate(self.world.controllers):
            if controller.core is not None and controller.core.link.up:
                # Each its own: who is busy or paused reads it later, when another's rows would stand there.
                theirs = self._rows_of(number, controller.core)[rows]
                controller.wire.hear_columns(replace(self._asked, rows=theirs))

    def _rows_of(self, number: int, core: Controller) -> Ints:
        """Where our devices stand in the columns of this core; it has heard all that rest."""
        known = self._core_rows.get(number)
        if known is None or known[0] is not core:
            known = self._core_rows[number] = core, core.rows(self.names.tolist())
        return known[1]

    def _take(self, answers: PublishLeases) -> PublishLeases | None:
        """Notes what answers columns and says no more than expected; returns the rest."""
        asked = self._asked
        if asked is not None and answers.seqs is asked.seqs:
            rows, held, fits = self._asked_rows, asked.held, self.epoch[self._asked_rows] == answers.epoch
        else:
            rows = np.array([self.row.get(name, -1) for name in answers.devices], np.int64)
            held, fits = self.held[rows], (rows >= 0) & (self.due_ms[rows] < FAR_MS)
            fits &= (self.seq[rows] == answers.seqs) & (self.session[rows] == answers.sessions)
            fits &= self.epoch[rows] == answers.epoch
        fits &= (held[:, 0] == answers.epochs) & (held[:, 1] == answers.numbers)
        fits &= (held[:, 2] == answers.runs) & (held[:, 3] == answers.inventories)
        if fits.all():
            self.answered[rows] = answers.seqs
            return None
        self.answered[rows[fits]] = answers.seqs[fits]
        return answers.of(~fits)

    # ------------------------------------------------------------- back to the present

    def _bring_back(self, row: int) -> None:
        """Something is about to happen to this device: what it sent until now has left."""
        self._flush()
        self._rouse(row)

    def _rouse(self, row: int) -> None:
        """Its agent lives through what it may still remember."""
        process = self._processes[row]
        if process is None:
            return
        self._processes[row] = self._asked = None
        self._resting -= 1
        self.due_ms[row] = FAR_MS
        self.awake[process.machine.name] = None
        self.clock.trace(process.machine.place, f"wakes {self.seq[row]}")
        self._relive(process, row)
        process.go_on()
        self.world.network.rouse(process.machine.place, process.connection)
        process.machine.guard.rearm()

    def _relive(self, process: AgentProcess, row: int) -> None:
        core, seq, began = process.core, int(self.seq[row]), int(self.began_seq[row])
        beats = core.heartbeats
        first = max(began, seq - beats.longest_ms // beats.period_ms - 2)
        if first > began:
            sent_ms = int(self.sent_ms[row * KEPT + first % KEPT])
            beats.skip(first - began, sent_ms)
            process.machine.guard.rested(sent_ms)
        held, used = Held(*self.held[row].tolist()), Used(*self.used[row].tolist())
        granted = Revision(held.epoch, held.number)
        for number in range(first + 1, seq + 1):
            sent_ms = int(self.sent_ms[row * KEPT + number % KEPT])
            said = process.relive(TimerElapsed(), sent_ms)
            assert said == [Heartbeat(core.connection.session, number, held, used)], said
            if number > self.answered[row]:
                break
            answer = LeaseAnswer(
                int(self.epoch[row]), core.connection.session, number, granted, held.runs, held.inventory
            )
            heard_ms = min(sent_ms + self.window_ms, process.own.local_ms())
            said = process.relive(MessageArrived(process.machine.name, answer), heard_ms)
            assert not said, said
