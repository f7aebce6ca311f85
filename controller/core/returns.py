"""Returns: which of two runs of an `at_least_one` task stays when a lost device is back (C6).

A job that doesn't simply want the newest leaves the lost attempt in its device's document,
as the task's *elder*, while a successor is placed elsewhere. When the device is back (online,
its `Runs` of this session processed) one of the two is chosen and the other is removed like
any other. Whose elder is whose needs no record of its own: it is the attempt that is listed
and is not the task's present one. There is at most one for each task.
It moves no task and frees nothing; `holds` and `tasks` do.
Rejected: choosing by a device's own clock or by when an elder was assigned (a run that nobody
saw start may never have started).
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.fleet import ONLINE
from controller.core.holds import NEWEST, SUPERSEDED, Holds
from controller.core.ledger import Attempt, Ledger
from controller.core.placement import Placement
from controller.core.records import AttemptState


class Returns:
    """Chooses between a task's present attempt and its elder."""

    def __init__(self, ledger: Ledger, holds: Holds, placement: Placement) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.placement = placement
        self._stays: dict[str, Callable[[Attempt, Attempt], bool]] = {
            NEWEST: lambda elder, other: False,
            "keep_original": lambda elder, other: True,
            "longest_running": self._ran_longer,
            "best_score": self._scores_better,
        }

    def look(self, row: int, now_ms: int) -> None:
        """A device turned online or reported: if both are so, its elders are kept or removed."""
        if not self.ledger.elders or not self._is_back(row):
            return
        listed, gone = self.holds.reported.get(row, frozenset()), []
        for attempt in list(self.ledger.by_device[row].values()):
            if not self.ledger.is_elder(attempt):
                continue
            # What a returned device doesn't list it has lost, or never begun: then nothing is there to keep.
            if attempt.id in listed and self._kept(attempt):
                self.holds.keep(attempt, now_ms)
            else:
                gone.append(attempt)
        self.holds.remove(gone, SUPERSEDED, now_ms)

    def follow(self, now_ms: int) -> None:
        """Takes out what was outlived in the event at hand, per device."""
        outlived, self.ledger.outlived = self.ledger.outlived, []
        by_device: dict[int, list[Attempt]] = {}
        for attempt in outlived:
            if attempt.id in self.ledger.attempts:
                by_device.setdefault(attempt.device, []).append(attempt)
        for attempts in by_device.values():
            self.holds.remove(attempts, SUPERSEDED, now_ms)

    def _is_back(self, row: int) -> bool:
        f = self.fleet
        reported = f.runs_session[row] == f.session[row]
        return bool(f.state[row] == ONLINE and reported and not f.quarantined[row])

    def _kept(self, elder: Attempt) -> bool:
        """Whether the elder stays."""
        task = self.ledger.tasks[elder.row.task]
        other = self.holds.tasks.attempt_of(task)
        if self.fleet.draining[elder.device]:
            return False
        if other is None or other.row.state is not AttemptState.RUNNING:
            return True  # nobody saw the successor start: a start is saved, whatever the job prefers
        return self._stays[elder.job.row.rules.on_return](elder, other)

    def _ran_longer(self, elder: Attempt, other: Attempt) -> bool:
        """By when this core saw them start; of before a take-over nothing is known but their order."""
        return elder.row.state is AttemptState.RUNNING and elder.started_ms <= other.started_ms

    def _scores_better(self, elder: Attempt, other: Attempt) -> bool:
        """As if neither were there: each device's score for this job by its policy; ties keep the newest."""
        view, entry_bytes = self.fleet.view, elder.job.demand.entry_bytes
        for attempt in (elder, other):
            view.set_aside(attempt.device, attempt.share, entry_bytes, -1)
        picker = self.placement.picker(elder.job)
        picker.follow()
        scores = [float(picker.total[attempt.device]) for attempt in (elder, other)]
        for attempt in (elder, other):
            view.set_aside(attempt.device, attempt.share, entry_bytes, 1)
        return scores[0] > scores[1]
