"""Checkers of how things stand: I9, I11, I12 and I14.

Rule of this file: what people are shown, what runs at the end and how much room it all takes
is compared with what was delivered, committed and begun. I11 needs one thing that no record
holds, whether a pending task has a reason to wait; who asks the question brings the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.limits import SUSPECT_HEARTBEATS
from protocol.messages import Heartbeat, Status
from protocol.tasks import FINAL_TASK, TaskState
from sim.checking.base import Checker, Heard
from sim.checking.picture import Commit, Picture
from sim.ears import understand
from sim.observations import (
    DatabaseRestored,
    Delivered,
    Measured,
    Observation,
    RestartBegan,
    RestartOver,
    Shown,
)

SWEEP_MS = 1_000
"""How late a device that fell silent may be found out: the controller looks so often."""
NEVER = (0, 0)
SESSIONS_KEPT = 8
"""Of one device; the one that is silent for longest is forgotten."""


class ShownIsSo(Checker):
    """I9: shown online ⇒ of the highest session that spoke, and heard within the limit.

    Who has just connected, or is not connected, has heard nobody and judges nobody; sessions
    that an earlier leadership heard and did not commit are nothing to it.
    """

    invariant = "I9"
    channels = (Heartbeat.channel, Status.channel)

    def hears(self) -> dict[type[Observation], Heard]:
        self._spoke: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
        """(Controller, device) -> its sessions -> when a birth and when a heartbeat of it last arrived
        there. What a deposed leader still hears is nothing to its successor."""
        return {Delivered: self._delivered, Shown: self._shown}

    def _delivered(self, delivery: Delivered) -> None:
        if not delivery.received or not delivery.topic.endswith(("/heartbeat", "/status")):
            return
        device = delivery.topic.split("/")[3]
        place = (delivery.client, device)
        if device == topics.CONTROLLER or not delivery.client.startswith(topics.CONTROLLER):
            return
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        if isinstance(message, Heartbeat):
            born_ms, _ = self._times(place, message.session)
            self._spoke[place][message.session] = (born_ms, delivery.at_ms)
        elif isinstance(message, Status) and message.online:
            _, beat_ms = self._times(place, message.session)
            self._spoke[place][message.session] = (delivery.at_ms, beat_ms)

    def _times(self, place: tuple[str, str], session: int) -> tuple[int, int]:
        sessions = self._spoke.setdefault(place, {})
        if session not in sessions and len(sessions) >= SESSIONS_KEPT:
            del sessions[min(sessions, key=lambda s: max(sessions[s]))]
        return sessions.get(session, NEVER)

    def _shown(self, shown: Shown) -> None:
        limit_ms = int(shown.period_ms * SUSPECT_HEARTBEATS) + SWEEP_MS
        if shown.state != "online" or not shown.hearing_ms or shown.at_ms - shown.hearing_ms <= limit_ms:
            return
        device, sessions = shown.device, self._spoke.get((shown.by, shown.device), {})
        highest = max((s for s, times in sessions.items() if max(times) >= shown.hearing_ms), default=0)
        if (known := self.seen.devices.get(device)) is not None:
            highest = max(highest, known.session)
        beats = [beat_ms for session, (_, beat_ms) in sessions.items() if session <= shown.session]
        silent_ms = shown.at_ms - max(beats, default=0)
        if shown.session < highest:
            self.breach(f"{device} is shown online with session {shown.session}, heard {highest}", device)
        elif silent_ms > limit_ms:
            self.breach(f"{device} is shown online, last heard {silent_ms} ms ago", device)

    def on_commit(self, commit: Commit) -> None:
        """A removed device that may join again begins anew, with whatever number it has."""
        for old, row in commit.devices:
            if old is not None and old.removed and not row.removed:
                self._forget(row.device)

    def on_restored(self, copy: DatabaseRestored) -> None:
        """The copy knows of no later session; that one spoke is no reason any more."""
        for _, device in list(self._spoke):
            self._forget(device)

    def _forget(self, device: str) -> None:
        """When it was heard is still so, whatever its number was; 0 is below every session."""
        for place in self._spoke:
            if place[1] == device:
                beat_ms = max((beat for _, beat in self._spoke[place].values()), default=0)
                self._spoke[place] = {0: (0, beat_ms)}


class Settling(Checker):
    """I11: with all faults over, every runnable task runs exactly once, and moves stop.

    Not judged as it goes: `unsettled` is asked, until the bound, by whoever ended the faults.
    """

    invariant = "I11"

    def unsettled(self, has_reason: Callable[[str], bool]) -> str:
        """What is not as it should be; empty when all is well. `has_reason`: may this task wait?"""
        seen = self.seen
        for task, live in seen.live.items():
            if live and (row := seen.tasks.get(task)) is not None and row.state in FINAL_TASK:
                return f"{task} is {row.state} and lives: {_places(seen, task)}"
            if live and task not in seen.tasks:
                return f"{task} is nobody's and lives: {_places(seen, task)}"
        for task in seen.open:
            row, places = seen.tasks[task], _places(seen, task)
            if row.state is TaskState.RUNNING:
                if places != [(row.device, row.attempt)]:
                    return f"{task} is said to run as {row.device} {row.attempt}, lives: {places}"
            elif row.state is not TaskState.PENDING or not has_reason(task):
                return f"{task} is {row.state}, lives: {places}"
        return ""

    def late(self, what: str) -> None:
        """The bound has passed and something is still not as it should be."""
        self.breach(what)


def _places(seen: Picture, task: str) -> list[tuple[str, int]]:
    return [(device, run.attempt) for device, run in seen.live.get(task, ())]


Assignment = tuple[str, int]


class RestartMovesNothing(Checker):
    """I12: restarting one component changes no assignment of a task that had no reason to change."""

    invariant = "I12"

    def hears(self) -> dict[type[Observation], Heard]:
        self._before: dict[str, dict[str, Assignment]] = {}
        return {RestartBegan: self._began, RestartOver: self._over}

    def _began(self, restart: RestartBegan) -> None:
        rows = [self.seen.tasks[task] for task in restart.tasks]
        self._before[restart.what] = {row.id: (row.device, row.attempt) for row in rows}

    def _over(self, restart: RestartOver) -> None:
        for task, before in self._before.pop(restart.what, {}).items():
            row = self.seen.tasks.get(task)
            if row is None or row.desired != "run":
                continue
            by_itself = row.state is TaskState.SUCCEEDED
            if not by_itself and (row.device, row.attempt) != before:
                now = f"{row.device} {row.attempt}"
                self.breach(f"{task} was {before[0]} {before[1]} before {restart.what} restarted, is {now}")


class StaysBounded(Checker):
    """I14: memory, files, database and retained messages stay below their bounds."""

    invariant = "I14"

    def hears(self) -> dict[type[Observation], Heard]:
        self._over: dict[str, None] = {}
        return {Measured: self._measured}

    def _measured(self, measured: Measured) -> None:
        """Told once each time that it grows over its bound."""
        if measured.value <= measured.bound:
            self._over.pop(measured.name, None)
        elif measured.name not in self._over:
            self._over[measured.name] = None
            self.breach(f"{measured.name} is {measured.value}, at most {measured.bound} was promised")
