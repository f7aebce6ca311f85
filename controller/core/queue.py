"""The queue: whose tasks are placed next.

Order: by priority, which grows by one for each minute in which a job waited and got nothing, so
that nothing starves; among equals the owner with the smallest dominant share of the fleet
(the largest of its shares over resources: DRF, Ghodsi et al., NSDI 2011), then the
oldest job; jobs that ask for the same stand together, where the first of them stands, because
they are placed at once. An owner's turn ends after `TURN_TASKS` while others wait.
It places nothing and knows no device.
Rejected: one heap of all jobs (an owner's share changes with each of its turns, and with it the
place of all its other jobs).
"""

from __future__ import annotations

import heapq

from controller.core.ledger import Job, Ledger

Place = tuple[int, int, int, str]
"""Of a job among its owner's: height (negative), kind, age, id."""
Turn = tuple[int, float, int, int, str]
"""Of an owner: its first job's height (negative), its share, that job's kind and age, its name."""
AGE_MS = 60_000
TURN_TASKS = 64


class Queue:
    """The waiting jobs of one round. Who had the last turn stands again at the next, by its share then."""

    def __init__(self, ledger: Ledger, jobs: list[Job], now_ms: int) -> None:
        self.ledger = ledger
        self.now_ms = now_ms
        self._total = [max(1, int(column.sum())) for column in ledger.fleet.view.offered]
        self._order = {job.row.id: at for at, job in enumerate(jobs)}
        self._kinds: dict[str, int] = {}
        self._of: dict[str, list[Place]] = {}
        for job in jobs:
            self._kinds.setdefault(job.signature, len(self._kinds))
            self._of.setdefault(job.owner, []).append(self._place(job))
        for places in self._of.values():
            heapq.heapify(places)
        self._turns = [self._turn(owner) for owner in self._of]
        heapq.heapify(self._turns)
        self._served: str | None = None

    def __bool__(self) -> bool:
        return bool(self._turns or self._rest())

    def _rest(self) -> list[Place]:
        """What the owner of the last turn still has here."""
        return [] if self._served is None else self._of[self._served]

    def _place(self, job: Job) -> Place:
        return -height(job, self.now_ms), self._kinds[job.signature], self._order[job.row.id], job.row.id

    def _turn(self, owner: str) -> Turn:
        high, kind, at, _ = self._of[owner][0]
        return high, self.share(owner), kind, at, owner

    def share(self, owner: str) -> float:
        """The owner's dominant share of what the fleet offers, 0…1."""
        held = self.ledger.owned.get(owner)
        return max((h / t for h, t in zip(held, self._total, strict=True)), default=0.0) if held else 0.0

    def next(self) -> Job | None:
        """The job whose turn it is; it leaves the queue."""
        if self._served is not None and self._rest():
            heapq.heappush(self._turns, self._turn(self._served))
        self._served = heapq.heappop(self._turns)[-1] if self._turns else None
        return self.ledger.jobs[heapq.heappop(self._rest())[-1]] if self._served is not None else None

    def alike(self, job: Job, tasks: int) -> list[Job]:
        """The jobs right behind the one whose turn it is that ask for the same, of so many tasks together;
        they leave the queue."""
        found: list[Job] = []
        left, places = tasks - len(job.ready), self._of[job.owner]
        while places and left > 0:
            other = self.ledger.jobs[places[0][-1]]
            if other.signature != job.signature or (self._turns and self._turns[0][0] < places[0][0]):
                break
            heapq.heappop(places)
            found.append(other)
            left -= len(other.ready)
        return found

    def again(self, job: Job) -> None:
        """Its turn is over, but it has more."""
        heapq.heappush(self._of[job.owner], self._place(job))

    def turn(self) -> int:
        """How many tasks may be placed before others are asked."""
        return TURN_TASKS if self._turns else 2**31


def height(job: Job, now_ms: int) -> int:
    """Its priority, and a step more for each minute that it has waited since it got something."""
    since_ms = now_ms if job.ready_ms is None else max(job.ready_ms, job.assigned_ms)
    return job.row.priority + max(0, now_ms - since_ms) // AGE_MS
