"""The queue: whose tasks are placed next.

Order: by priority, which grows by one for each minute that a job has waited, so that
nothing starves; among equals the owner with the smallest dominant share of the fleet
(the largest of its shares over resources: DRF, Ghodsi et al., NSDI 2011), then the
oldest job; jobs that ask for the same stand together, where the first of them stands, because
they are placed at once. An owner's turn ends after `TURN_TASKS` while others wait at the same height.
It places nothing and knows no device.
"""

from __future__ import annotations

import heapq

from controller.core.ledger import Job, Ledger

Key = tuple[int, float, int, int, str]
AGE_MS = 60_000
TURN_TASKS = 64


class Queue:
    """The waiting jobs of one round."""

    def __init__(self, ledger: Ledger, jobs: list[Job], now_ms: int) -> None:
        self.ledger = ledger
        self.now_ms = now_ms
        self._total = [max(1, int(column.sum())) for column in ledger.fleet.view.offered]
        self._order = {job.row.id: at for at, job in enumerate(jobs)}
        self._kinds: dict[str, int] = {}
        for job in jobs:
            self._kinds.setdefault(job.signature, len(self._kinds))
        self._heap = [self._key(job) for job in jobs]
        heapq.heapify(self._heap)
        self._owners = len({job.owner for job in jobs})

    def __bool__(self) -> bool:
        return bool(self._heap)

    def _key(self, job: Job) -> Key:
        kind, at = self._kinds[job.signature], self._order[job.row.id]
        return -height(job, self.now_ms), self.share(job.owner), kind, at, job.row.id

    def share(self, owner: str) -> float:
        """The owner's dominant share of what the fleet offers, 0…1."""
        held = self.ledger.owned.get(owner)
        return max((h / t for h, t in zip(held, self._total, strict=True)), default=0.0) if held else 0.0

    def next(self) -> Job | None:
        """The job whose turn it is; it leaves the queue."""
        return self.ledger.jobs[heapq.heappop(self._heap)[-1]] if self._heap else None

    def alike(self, job: Job, tasks: int) -> list[Job]:
        """The jobs right behind it that ask for the same, of so many tasks together; they leave the queue."""
        found: list[Job] = []
        left = tasks - len(job.ready)
        while self._heap and left > 0:
            other = self.ledger.jobs[self._heap[0][-1]]
            if other.signature != job.signature or other.owner != job.owner:
                break
            heapq.heappop(self._heap)
            found.append(other)
            left -= len(other.ready)
        return found

    def again(self, job: Job) -> None:
        """Its turn is over, but it has more."""
        heapq.heappush(self._heap, self._key(job))

    def turn(self) -> int:
        """How many tasks may be placed before others are asked."""
        return TURN_TASKS if self._owners > 1 and self._heap else 2**31


def height(job: Job, now_ms: int) -> int:
    """Its priority, and a step more for each minute that it has waited."""
    waited_ms = 0 if job.ready_ms is None else max(0, now_ms - job.ready_ms)
    return job.row.priority + waited_ms // AGE_MS
