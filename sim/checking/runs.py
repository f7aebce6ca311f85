"""Checkers of what really runs: I1, I6, I7 and I15.

Rule of this file: a run is what lives between `RunBegan` and `RunEnded`, whoever says what
of it. The bound of I6 and I7 is the attempt's own hold and nothing more: a deadline counts
from a heartbeat that was sent before the commit, so even the slowest clock and the slowest
kill are done two per cent and a second before it.
"""

from __future__ import annotations

from controller.core.records import AttemptRow, AttemptState, DeviceRow
from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.limits import hold_ms
from protocol.messages import Heartbeat
from protocol.tasks import AttemptId
from sim.checking.base import Checker, Heard
from sim.checking.picture import Commit
from sim.ears import understand
from sim.observations import DatabaseRestored, Delivered, Observation, RunBegan, RunThawed


def patience_ms(run: RunBegan) -> int:
    """How long after a commit a run may still begin, or live."""
    return hold_ms(run.lease_ms, run.weak)


class OneLiveRun(Checker):
    """I1: no two live runs of one `at_most_one` task."""

    invariant = "I1"

    def hears(self) -> dict[type[Observation], Heard]:
        return {RunBegan: lambda run: self._executes(run, "starts"), RunThawed: self._thawed}

    def _thawed(self, thaw: RunThawed) -> None:
        for device, run in self.seen.live.get(thaw.task, ()):
            if device == thaw.device and run.attempt == thaw.attempt:
                self._executes(run, "thaws")

    def _executes(self, run: RunBegan, how: str) -> None:
        live = self.seen.live[run.task]
        if len(live) < 2 or not run.at_most_one:
            return
        others = [(d, r) for d, r in live if r is not run]
        if AttemptId(run.task, run.attempt) in self.seen.obscure:
            return
        told = ", ".join(f"{r.attempt} on {d}" for d, r in others)
        devices = (run.device, *(d for d, _ in others))
        self.breach(f"{run.task} {run.attempt} {how} on {run.device} while these live: {told}", *devices)


class StartsOnce(Checker):
    """I15: a (task, attempt) starts at most once, but for an `at_least_one` one that was forgotten."""

    invariant = "I15"

    def hears(self) -> dict[type[Observation], Heard]:
        self._outside: dict[AttemptId, None] = {}
        """Attempts that started where a suspended fault was: its other half may start them too."""
        return {RunBegan: self._began}

    def _began(self, run: RunBegan) -> None:
        key = AttemptId(run.task, run.attempt)
        count = self.seen.starts[key]
        if self.judge.outside(self.invariant, run.device):
            self._outside[key] = None
        seen = self.seen
        if count < 2 or key in seen.obscure or key in seen.retold or seen.began_anew(run):
            return
        what = f"{run.task} {run.attempt} starts for the {count}. time, on {run.device}"
        self.breach(what, run.device, self.seen.given.get(key, ""), excused=key in self._outside)


def is_shut(row: DeviceRow) -> bool:
    return row.cordoned or row.quarantined or row.removed


class NothingStartsWhereShut(Checker):
    """I6: (`at_most_one`) nothing starts later than hold after a device was shut, nor after that took effect.

    It takes effect when a heartbeat that reached a controller names the document of that commit.
    """

    invariant = "I6"
    channels = (Heartbeat.channel,)

    def hears(self) -> dict[type[Observation], Heard]:
        self._shut_ms: dict[str, int] = {}
        self._wanted: dict[str, tuple[int, int]] = {}
        """Shut device -> the revision whose naming makes it effective."""
        self._effective_ms: dict[str, int] = {}
        return {RunBegan: self._began, Delivered: self._delivered}

    def on_commit(self, commit: Commit) -> None:
        for _, row in commit.devices:
            if not is_shut(row):
                self._open(row.device)
            elif row.device not in self._shut_ms:
                self._shut_ms[row.device] = commit.at_ms
                self._wanted[row.device] = self.seen.documents.get(row.device, (0, 0))

    def _open(self, device: str) -> None:
        for facts in (self._shut_ms, self._wanted, self._effective_ms):
            facts.pop(device, None)

    def on_restored(self, copy: DatabaseRestored) -> None:
        for device in list(self._shut_ms):
            self._open(device)
        for device, row in self.seen.devices.items():
            if is_shut(row):
                self._shut_ms[device] = copy.at_ms

    def _delivered(self, delivery: Delivered) -> None:
        if not self._wanted or not delivery.received or not delivery.topic.endswith("/heartbeat"):
            return
        device = delivery.topic.split("/")[3]
        wanted = self._wanted.get(device)
        if wanted is None or not delivery.client.startswith(topics.CONTROLLER):
            return
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        if isinstance(message, Heartbeat) and (message.held.epoch, message.held.number) >= wanted:
            del self._wanted[device]
            self._effective_ms[device] = delivery.at_ms

    def _began(self, run: RunBegan) -> None:
        shut_ms = self._shut_ms.get(run.device)
        if shut_ms is None or not run.at_most_one:
            return
        what = f"{run.task} {run.attempt} starts on {run.device}"
        if run.at_ms > shut_ms + patience_ms(run):
            self.breach(f"{what}, shut since {shut_ms}", run.device)
        elif (since_ms := self._effective_ms.get(run.device)) is not None:
            self.breach(f"{what}, where shutting out was effective at {since_ms}", run.device)


class CancelledEnds(Checker):
    """I7: (`at_most_one`) no live run later than hold after its cancel was committed.

    An `at_least_one` run counts as stopping until it has ended: its attempt becomes free no sooner,
    but on a device that was removed, or that forgot it and began it anew.
    """

    invariant = "I7"

    def hears(self) -> dict[type[Observation], Heard]:
        self._asked_ms: dict[str, int] = {}
        return {RunBegan: self._watch, RunThawed: self._thawed}

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._asked_ms.clear()
        for task, row in self.seen.tasks.items():
            if row.desired == "cancelled" and task in self.seen.open:
                self._ask(task, copy.at_ms)

    def on_commit(self, commit: Commit) -> None:
        for old, row in commit.tasks:
            if row.desired == "cancelled" and (old is None or old.desired != "cancelled"):
                self._ask(row.id, commit.at_ms)
        for before, attempt in commit.attempts:
            ended = attempt.state is AttemptState.FREE and (
                before is None or before.state is not attempt.state
            )
            if ended and attempt.task in self._asked_ms:
                self._check_over(attempt)

    def _ask(self, task: str, at_ms: int) -> None:
        self._asked_ms[task] = at_ms
        for _, run in self.seen.live.get(task, ()):
            self._watch(run)

    def _check_over(self, attempt: AttemptRow) -> None:
        """Whoever says that it is over must be right, but of a device that was removed."""
        known = self.seen.devices.get(attempt.device)
        for device, run in self.seen.live.get(attempt.task, ()):
            same = run.attempt == attempt.attempt and device == attempt.device
            if same and not (known is not None and known.removed) and not self.seen.began_anew(run):
                what = (
                    f"{attempt.task} is cancelled, {attempt.attempt} said to be over, and lives on {device}"
                )
                self.breach(what, device, excused=self.judge.outside("I1", device))

    def _thawed(self, thaw: RunThawed) -> None:
        for device, run in self.seen.live.get(thaw.task, ()):
            if device == thaw.device and run.attempt == thaw.attempt:
                self._watch(run)

    def _watch(self, run: RunBegan) -> None:
        asked_ms = self._asked_ms.get(run.task)
        if asked_ms is not None and run.at_most_one:
            self.judge.wait(asked_ms + patience_ms(run), lambda: self._look(run, asked_ms))

    def _look(self, run: RunBegan, asked_ms: int) -> None:
        lives = any(r is run for _, r in self.seen.live.get(run.task, ()))
        if lives and self._asked_ms.get(run.task) == asked_ms:
            self.breach(
                f"{run.task} {run.attempt} lives on {run.device}, cancelled at {asked_ms}", run.device
            )
