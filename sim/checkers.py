"""Checkers: observers of the invariants, by what really runs and what was really committed.

Rule of this file: nobody's word counts. Runs are those of the guards, state is what the
store took, in the order of commits. A breach is noted with its moment and never raised in
the middle of a step; who drives the world looks at `breaches`.
Invariants by their names in the protocol: I1 I3 I4 I5 I6 I7 I15 as it goes, I2 at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from controller.core.records import AttemptRow, AttemptState, DeviceRow, JobRow, Row, TaskRow
from protocol.limits import KILL_MS, hold_ms
from protocol.messages import AssignedAttempt
from protocol.resources import ZERO, Resources
from protocol.tasks import FINAL_TASK, AttemptId, Guarantee, TaskState
from sim.clockwork import Clockwork
from sim.observations import Observation, RunFrozen, RunThawed

RATE_SHARE = 0.02
"""Two clocks at the ends of their bounds measure a duration so differently."""


class Checkers:
    """All observers, and what they found."""

    def __init__(self, clock: Clockwork) -> None:
        self.clock = clock
        self.breaches: list[str] = []
        self.live: dict[str, list[tuple[str, AssignedAttempt]]] = {}
        """Task -> its live runs: (device, attempt), oldest first."""
        self.starts: dict[AttemptId, int] = {}
        self.start_times: list[tuple[int, str, AttemptId]] = []
        """(when, device, attempt) of every start."""
        self.jobs: dict[str, JobRow] = {}
        self.tasks: dict[str, TaskRow] = {}
        self.attempts: dict[AttemptId, AttemptRow] = {}
        self.devices: dict[str, DeviceRow] = {}
        self.accepted: dict[str, int] = {}
        """Jobs whose acceptance was answered, and how many tasks each has."""
        self.forgetful: dict[str, None] = {}
        """Devices that lost a journal: an `at_least_one` attempt needs no grant to start there again."""
        self.frozen: list[tuple[str, AssignedAttempt]] = []
        """Runs of suspended machines: they execute nothing."""
        self._last: dict[str, int] = {}
        self._held: dict[str, dict[AttemptId, None]] = {}
        self._added: list[str] = []
        self._shut_ms: dict[str, int] = {}
        self._cancelled_ms: dict[str, int] = {}

    def breach(self, code: str, text: str) -> None:
        line = f"{code} at {self.clock.now_ms}: {text}"
        self.clock.trace("CHECKER", line)
        self.breaches.append(line)

    # ------------------------------------------------------------- what really runs

    def run_began(self, device: str, attempt: AssignedAttempt) -> None:
        key, now_ms = AttemptId(attempt.task, attempt.attempt), self.clock.now_ms
        others = self.live.setdefault(attempt.task, [])
        only_one = attempt.guarantee is Guarantee.AT_MOST_ONE
        if others and only_one:
            told = ", ".join(f"{a.attempt} on {d}" for d, a in others)
            self.breach("I1", f"{key} starts on {device} while these live: {told}")
        others.append((device, attempt))
        self.starts[key] = self.starts.get(key, 0) + 1
        self.start_times.append((now_ms, device, key))
        if self.starts[key] > 1 and (only_one or device not in self.forgetful):
            self.breach("I15", f"{key} starts for the {self.starts[key]}. time, on {device}")
        shut_ms = self._shut_ms.get(device)
        if only_one and shut_ms is not None and now_ms > shut_ms + self._patience_ms(attempt):
            self.breach("I6", f"{key} starts on {device}, shut since {shut_ms}")
        self._check_cancelled(attempt)

    def run_ended(self, device: str, attempt: AssignedAttempt) -> None:
        if (device, attempt) in self.frozen:
            self.frozen.remove((device, attempt))
            return
        self.live[attempt.task].remove((device, attempt))
        self._check_cancelled(attempt)

    def saw(self, observation: Observation) -> None:
        """What has no word of its own here."""
        if isinstance(observation, RunFrozen):
            key = (observation.device, observation.task, observation.attempt)
            for device, attempt in list(self.live[observation.task]):
                if (device, attempt.task, attempt.attempt) == key:
                    self.live[observation.task].remove((device, attempt))
                    self.frozen.append((device, attempt))
        elif isinstance(observation, RunThawed):
            key = (observation.device, observation.task, observation.attempt)
            for device, attempt in list(self.frozen):
                if (device, attempt.task, attempt.attempt) == key:
                    self.frozen.remove((device, attempt))
                    self._thawed(device, attempt)

    def _thawed(self, device: str, attempt: AssignedAttempt) -> None:
        others = self.live.setdefault(attempt.task, [])
        if others and attempt.guarantee is Guarantee.AT_MOST_ONE:
            self.breach("I1", f"{attempt.task} {attempt.attempt} thaws on {device} while another lives")
        others.append((device, attempt))

    def journal_lost(self, device: str) -> None:
        self.forgetful[device] = None

    def _check_cancelled(self, attempt: AssignedAttempt) -> None:
        """I7: an `at_most_one` run may live for one hold after the cancel was committed."""
        asked_ms = self._cancelled_ms.get(attempt.task.rpartition(".")[0])
        late = asked_ms is not None and self.clock.now_ms > asked_ms + self._patience_ms(attempt)
        if late and attempt.guarantee is Guarantee.AT_MOST_ONE:
            self.breach("I7", f"{attempt.task} {attempt.attempt} lives, cancelled at {asked_ms}")

    def _patience_ms(self, attempt: AssignedAttempt) -> int:
        return int(hold_ms(attempt.lease_ms) * (1 + RATE_SHARE)) + KILL_MS

    # ------------------------------------------------------------- what was committed

    def committed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if isinstance(row, AttemptRow):
                self._on_attempt(row)
            elif isinstance(row, TaskRow):
                self._on_task(row)
            elif isinstance(row, DeviceRow):
                self._on_device(row)
            elif isinstance(row, JobRow):
                self.jobs[row.id] = copy(row)
                if row.desired == "cancelled":
                    self._cancelled_ms.setdefault(row.id, self.clock.now_ms)
        for device in dict.fromkeys(self._added):
            self._check_room(device)
        self._added.clear()

    def _on_attempt(self, row: AttemptRow) -> None:
        key = AttemptId(row.task, row.attempt)
        old = self.attempts.get(key)
        if old is None:
            self._added.append(row.device)
            if row.attempt <= self._last.get(row.task, 0):
                self.breach("I4", f"{key} is committed after {self._last[row.task]}")
            self._last[row.task] = row.attempt
        elif old.device != row.device:
            self.breach("I4", f"{key} was given to {old.device} and to {row.device}")
        self.attempts[key] = copy(row)
        held = self._held.setdefault(row.device, {})
        if row.state is AttemptState.FREE:
            held.pop(key, None)
        else:
            held[key] = None

    def _demand(self, key: AttemptId) -> Resources:
        """What an attempt reserves, until it is free."""
        return self.jobs[key.task.rpartition(".")[0]].spec.resources

    def _check_room(self, device: str) -> None:
        """I5, looked at where a commit added something."""
        known, reserved = self.devices.get(device), ZERO
        for key in self._held[device]:
            reserved = reserved.plus(self._demand(key))
        if known is not None and not reserved.fits(known.capacity):
            self.breach("I5", f"{device} has {known.capacity}, reserved {reserved}")

    def _on_task(self, row: TaskRow) -> None:
        old = self.tasks.get(row.id)
        if old is not None and old.state in FINAL_TASK and old != row:
            self.breach("I3", f"{row.id} was {old.state} and becomes {row.state}")
        if row.state is TaskState.SUCCEEDED and row.attempt != self._last.get(row.id, 0):
            self.breach("I3", f"{row.id} succeeds by attempt {row.attempt} of {self._last.get(row.id)}")
        self.tasks[row.id] = copy(row)

    def _on_device(self, row: DeviceRow) -> None:
        self.devices[row.device] = copy(row)
        if row.cordoned or row.quarantined or row.removed:
            self._shut_ms.setdefault(row.device, self.clock.now_ms)
        else:
            self._shut_ms.pop(row.device, None)

    # ------------------------------------------------------------- the end

    def check_accounts(self) -> None:
        """I2: every accepted task is in exactly one state, none has vanished."""
        for job, count in sorted(self.accepted.items()):
            stored = sum(1 for task in self.tasks.values() if task.job == job)
            if stored != count:
                self.breach("I2", f"{job} was accepted with {count} tasks and has {stored}")

    def restored(self, snapshot: list[Row]) -> None:
        """An older copy of the database was put back: from now on its word counts (§6)."""
        self.jobs, self.tasks, self.attempts, self.devices = {}, {}, {}, {}
        self._last, self._held, self._shut_ms, self._cancelled_ms = {}, {}, {}, {}
        self.accepted.clear()
        self.committed(snapshot)
