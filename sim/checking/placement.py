"""Checkers of placement: P1 to P8, what jobs were promised about where and when they are placed.

Rule of this file: each new reservation is judged in the commit that makes it, from rows alone.
A device whose row changes in the same commit is judged by both: a record of real processes
may hold several events in one. Health is known as it reached the controller that committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.core.records import AttemptRow, AttemptState, DeviceRow, JobRow, JobState
from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.messages import HEALTH_KNOWN, ON_BATTERY, UNDERVOLTAGE, Health, Heartbeat, LeaseAnswer
from protocol.tasks import AttemptId, JobKind
from sim.checking.base import Checker, Heard
from sim.checking.picture import Commit, job_of
from sim.checking.welcome import most_of, together, turned_away, value_of, words
from sim.ears import understand
from sim.observations import DatabaseRestored, Delivered, Observation

PREEMPTED = "preempted by "
DELTA = 10
"""Of priorities: who is less than that below is not sent away."""
HOT_C, BATTERY_PERCENT = 85, 15
BEATS_MAX = 100
"""A device says how it fares when that changes, and once a minute."""
SEEN_WITHIN_MS = 11_000
"""A guard is looked at every ten seconds; one more for a commit that takes its time."""


def new_of(commit: Commit) -> dict[str, list[AttemptRow]]:
    """The attempts that the commit hands out, but for those that it ends at once, by job."""
    found: dict[str, list[AttemptRow]] = {}
    for old, row in commit.attempts:
        if old is None and row.state is not AttemptState.FREE:
            found.setdefault(job_of(row.task), []).append(row)
    return found


class GangsWhole(Checker):
    """P1: a gang of which nothing stands is given an attempt for each of its open tasks, or for none.

    What was taken out and only has to end (a broken gang gives its room up) doesn't stand any more.
    """

    invariant = "P1"

    def on_commit(self, commit: Commit) -> None:
        for name, added in new_of(commit).items():
            job = self.seen.jobs.get(name)
            if job is None or not job.rules.gang or self._stood_before(name, commit):
                continue
            given = {row.task for row in added}
            left = [t for t in (f"{name}.{i}" for i in range(job.count)) if t in self.seen.open]
            missing = [task for task in left if task not in given]
            if missing:
                devices = [row.device for row in added]
                self.breach(f"gang {name} is given {len(given)}, not {', '.join(missing)}", *devices)

    def _stood_before(self, name: str, commit: Commit) -> bool:
        changed = {AttemptId(row.task, row.attempt): old for old, row in commit.attempts}
        before = {key: old for key, old in changed.items() if job_of(key.task) == name}
        before |= {k: self.seen.attempts[k] for k in self.seen.held.get(name, ()) if k not in changed}
        gone = (AttemptState.REMOVED, AttemptState.FREE)
        return any(row is not None and row.state not in gone for row in before.values())


class Apart(Checker):
    """P2: no more tasks of a job share a device, or a value, than it allows."""

    invariant = "P2"

    def on_commit(self, commit: Commit) -> None:
        changed = {row.device for old, row in commit.devices if old is not None and old.labels != row.labels}
        for name, added in new_of(commit).items():
            job = self.seen.jobs.get(name)
            demands = together(job) if job is not None else []
            places = list(self.seen.held.get(name, {}).values())
            if not demands or changed.intersection(places):
                continue
            rows = self.seen.devices
            for demand in demands:
                values = [value_of(demand, rows[place]) for place in places if place in rows]
                for attempt in added:
                    known = rows.get(attempt.device)
                    value = value_of(demand, known) if known is not None else None
                    if value is None or values.count(value) > most_of(demand):
                        what = f"{words(demand)}: {values.count(value)} at {value}"
                        self.breach(f"{attempt.task} {attempt.attempt}: {what}", attempt.device)


class OwnDevice(Checker):
    """P3: a daemon's task is placed on its own device alone, and no device has two open ones of a daemon."""

    invariant = "P3"

    def hears(self) -> dict[type[Observation], Heard]:
        self._pins: dict[tuple[str, str], dict[str, None]] = {}
        """(Job, device) -> its open tasks."""
        return {}

    def on_commit(self, commit: Commit) -> None:
        for old, row in commit.attempts:
            task = self.seen.tasks.get(row.task)
            if old is None and task is not None and task.pin and task.pin != row.device:
                self.breach(f"{row.task} belongs to {task.pin} and is given to {row.device}", row.device)
        for _, task in commit.tasks:
            if not task.pin:
                continue
            there = self._pins.setdefault((task.job, task.pin), {})
            if task.id not in self.seen.open:
                there.pop(task.id, None)
            elif task.id not in there:
                there[task.id] = None
                if len(there) > 1:
                    self.breach(f"{task.pin} has {len(there)} open tasks of {task.job}", task.pin)

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._pins = {}
        for id in self.seen.open:
            task = self.seen.tasks[id]
            if task.pin:
                self._pins.setdefault((task.job, task.pin), {})[id] = None


class AfterOthers(Checker):
    """P4: nothing of a job is placed before the jobs that it depends on are over, and as it wants them."""

    invariant = "P4"

    def on_commit(self, commit: Commit) -> None:
        for name, added in new_of(commit).items():
            job = self.seen.jobs.get(name)
            for dependency in job.rules.depends_on if job is not None else ():
                other = self.seen.jobs.get(dependency.job)
                if other is None:
                    continue
                good = other.state is JobState.SUCCEEDED
                if other.state is JobState.OPEN or (dependency.until == "succeeded" and not good):
                    what = f"{name} needs {dependency.job} {dependency.until}, which is {other.state}"
                    self.breach(what, *[row.device for row in added])


class Bounded(Checker):
    """P5: no more tasks of a job are out at a time than its `parallel_max`."""

    invariant = "P5"

    def on_commit(self, commit: Commit) -> None:
        for name, added in new_of(commit).items():
            job = self.seen.jobs.get(name)
            most = job.rules.parallel_max if job is not None else 0
            if most and (out := len(self.seen.held.get(name, ()))) > most:
                self.breach(f"{out} tasks of {name} are out, parallel_max is {most}", added[-1].device)


class OnlyLower(Checker):
    """P6: only for a job whose priority is higher by ten an attempt is sent away, and never a daemon's."""

    invariant = "P6"

    def on_commit(self, commit: Commit) -> None:
        for old, row in commit.attempts:
            if not row.reason.startswith(PREEMPTED) or (old is not None and old.reason == row.reason):
                continue
            victim = self.seen.jobs.get(job_of(row.task))
            other = self.seen.jobs.get(row.reason.removeprefix(PREEMPTED))
            if victim is None or other is None:
                self.breach(f"{row.task} {row.attempt} is {row.reason}, which nobody knows", row.device)
            elif victim.kind is JobKind.DAEMON:
                self.breach(f"{row.task} {row.attempt} of a daemon is {row.reason}", row.device)
            elif victim.priority > other.priority - DELTA:
                what = f"{row.task} of priority {victim.priority} is {row.reason} of {other.priority}"
                self.breach(what, row.device)


class WelcomeThere(Checker):
    """P7: what is new is placed only where it may be: the device is open, is what the job demands, has no
    taint against it, and no guard (heat, voltage, battery) that the controller has heard of."""

    invariant = "P7"
    channels = (Heartbeat.channel, LeaseAnswer.channel)

    def hears(self) -> dict[type[Observation], Heard]:
        self._ails: dict[tuple[str, str], Ailing] = {}
        """(Controller, device) -> the heartbeats that told it the device is unfit."""
        return {Delivered: self._delivered}

    def _delivered(self, delivery: Delivered) -> None:
        """Up, what reached a controller; down, what it answered: so it has taken that in."""
        device, channel = delivery.topic.split("/")[3:5]
        if delivery.received != (channel == Heartbeat.channel) or not delivery.client.startswith(
            topics.CONTROLLER
        ):
            return
        place = (delivery.client, device)
        if channel == LeaseAnswer.channel and place not in self._ails:
            return
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        if isinstance(message, LeaseAnswer):
            self._ails[place].answered(message, delivery.at_ms)
        elif isinstance(message, Heartbeat) and message.health.flags & HEALTH_KNOWN:
            self._hear(place, message)

    def _hear(self, place: tuple[str, str], beat: Heartbeat) -> None:
        """Of a session that is over nothing is heard; each new one tells of health anew."""
        known, told = self.seen.devices.get(place[1]), self._ails.get(place)
        if known is not None and beat.session < known.session:
            return
        if not unfit(beat.health):
            self._ails.pop(place, None)
        elif told is None or told.session < beat.session:
            self._ails[place] = Ailing(beat.session, {beat.seq: None})
        elif len(told.beats) < BEATS_MAX:
            told.beats[beat.seq] = None

    def on_commit(self, commit: Commit) -> None:
        before = {row.device: old for old, row in commit.devices if old is not None}
        for _, device in commit.devices:
            self._forget(device)
        for name, added in new_of(commit).items():
            job = self.seen.jobs.get(name)
            if job is None:
                continue
            for row in added:
                self._judge(row, job, before.get(row.device))
                self._judge_condition(row, commit)

    def _judge(self, row: AttemptRow, job: JobRow, before: DeviceRow | None) -> None:
        known = self.seen.devices.get(row.device)
        if known is None:
            return
        why = turned_away(job, known)
        if why and (before is None or turned_away(job, before)):
            self.breach(f"{row.task} {row.attempt} is given to {row.device}, which {why}", row.device)

    def _forget(self, device: DeviceRow) -> None:
        """Health is told anew in each session; also who may join again after a removal begins anew."""
        for place, told in list(self._ails.items()):
            if place[1] == device.device and told.session != device.session:
                del self._ails[place]

    def _judge_condition(self, row: AttemptRow, commit: Commit) -> None:
        for (_, device), told in self._ails.items():
            known_ms = told.known_ms.get(commit.epoch, commit.at_ms) if device == row.device else commit.at_ms
            if commit.at_ms - known_ms > SEEN_WITHIN_MS:
                what = f"is given to {device}, known to be unfit since {known_ms}"
                self.breach(f"{row.task} {row.attempt} {what}", device)

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._ails.clear()


@dataclass(slots=True)
class Ailing:
    """A device that said it is unfit, in these heartbeats."""

    session: int
    beats: dict[int, None]
    known_ms: dict[int, int] = field(default_factory=dict)
    """Epoch -> when a leader of it had answered the first of them: he knows nothing of what others heard."""

    def answered(self, answer: LeaseAnswer, at_ms: int) -> None:
        if answer.session == self.session and answer.seq in self.beats:
            self.known_ms.setdefault(answer.epoch, at_ms)


def unfit(health: Health) -> bool:
    """What keeps new work away."""
    empty = bool(health.flags & ON_BATTERY) and health.battery_percent < BATTERY_PERCENT
    return health.temperature_c >= HOT_C or bool(health.flags & UNDERVOLTAGE) or empty


class OneRunAtATime(Checker):
    """P8: a cron job without overlap has one open run at most."""

    invariant = "P8"

    def hears(self) -> dict[type[Observation], Heard]:
        self._runs: dict[str, dict[str, None]] = {}
        return {}

    def on_commit(self, commit: Commit) -> None:
        for old, row in commit.jobs:
            parent = row.rules.parent
            if not parent:
                continue
            open_runs = self._runs.setdefault(parent, {})
            if row.state is not JobState.OPEN:
                open_runs.pop(row.id, None)
            elif old is None:
                open_runs[row.id] = None
                maker = self.seen.jobs.get(parent)
                if maker is not None and not maker.rules.overlap and len(open_runs) > 1:
                    self.breach(f"{parent} may not overlap, open are {', '.join(open_runs)}")

    def on_restored(self, copy: DatabaseRestored) -> None:
        self._runs = {}
        for row in self.seen.jobs.values():
            if row.rules.parent and row.state is JobState.OPEN:
                self._runs.setdefault(row.rules.parent, {})[row.id] = None
