"""The queue: whose tasks are placed next.

Order: by priority, which grows by one for each minute in which a job waited and got nothing, so
that nothing starves; among equals the owner with the smallest dominant share of the fleet
(the largest of its shares over resources: DRF, Ghodsi et al., NSDI 2011), then the
oldest job; jobs that ask for the same stand together, where the first of them stands, because
they are placed at once. While others wait at the same priority, an owner's turn brings it up to the
next one's share, and a step further: so whenever room runs out, owners are a step apart, and
steps grow small with the room. It places nothing; of devices it knows what all have together.
Rejected: one heap of all jobs (an owner's share changes with each of its turns, and with it the
place of all its other jobs).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from controller.core.ledger import Job, Ledger
from protocol.resources import ZERO, Resources

Place = tuple[int, int, int, str]
"""Of a job among its owner's: height (negative), kind, age, id."""
Turn = tuple[int, float, int, int, str]
"""Of an owner: its first job's height (negative), its share, that job's kind and age, its name."""
AGE_MS = 60_000
TURN_TASKS = 64
"""Of a step at most, however much room there is."""
STEPS = 8
"""Of each owner that waits, in the room that is left: with two of them a step is a sixteenth of it."""


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
        self._ranks: dict[int, int] = {}
        """How many owners wait for a turn, by their first job's height (negative)."""
        for turn in self._turns:
            self._ranks[turn[0]] = self._ranks.get(turn[0], 0) + 1
        self._served: str | None = None
        self._first: Job | None = None
        self._vain: dict[str, None] = {}
        """Kinds of demand of which nothing fitted: then it is of no use to look at them one by one."""
        self._rank = 0
        self._held = ZERO
        """What the owner whose turn it is had before."""
        self._free = self._room()

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

    def _room(self) -> list[int]:
        """What is free on all devices that may be given work, together."""
        view = self.ledger.fleet.view
        ready = view.ready
        return [max(0, int(column[ready].sum())) for column in view.free]

    def share(self, owner: str) -> float:
        """The owner's dominant share of what the fleet offers, 0…1."""
        held = self.ledger.owned.get(owner)
        return max((h / t for h, t in zip(held, self._total, strict=True)), default=0.0) if held else 0.0

    def next(self) -> Job | None:
        """The job whose turn it is; it leaves the queue."""
        if self._served is not None:
            self._settle(self._served)
        if not self._turns:
            self._served = None
            return None
        turn = heapq.heappop(self._turns)
        self._rank, self._served = turn[0], turn[-1]
        self._ranks[self._rank] -= 1
        self._held = self.ledger.owned.get(self._served, ZERO)
        self._first = self.ledger.jobs[heapq.heappop(self._rest())[-1]]
        return self._first

    def _settle(self, owner: str) -> None:
        """Its turn is over: what it took is not free any more, and it stands again by its new share."""
        taken = self.ledger.owned.get(owner, ZERO).minus(self._held)
        job = self._first
        if taken == ZERO and job is not None and not (job.row.rules.gang or job.row.rules.parallel_max):
            self._vain[job.signature] = None
        self._free = [free - amount for free, amount in zip(self._free, taken, strict=True)]
        if self._rest():
            turn = self._turn(owner)
            self._ranks[turn[0]] = self._ranks.get(turn[0], 0) + 1
            heapq.heappush(self._turns, turn)

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

    def turn(self, job: Job, room_for: Callable[[Job], int]) -> int:
        """How many of its tasks may be placed before others are asked, at least one: all, while nobody else
        waits at its height. `room_for` tells how many fit; what all devices have together is at least that,
        and cheaper to know."""
        rivals = self._ranks.get(self._rank, 0)
        if not rivals:
            return 2**31
        demand = job.demand.resources
        each = demand._replace(slots=max(1, demand.slots))
        steps, room = STEPS * (rivals + 1), _times(each, self._free)
        if room // steps > 1:
            room = min(room, room_for(job))
        if not room or job.signature in self._vain:
            return TURN_TASKS
        return self._behind(each) + max(1, min(TURN_TASKS, room // steps))

    def _behind(self, each: Resources) -> int:
        """How many tasks of `each` its owner may have until it has the share of the one that comes next."""
        share = self._turns[0][1]
        left = [round(share * total) - held for total, held in zip(self._total, self._held, strict=True)]
        return _times(each, left)


def _times(each: Resources, room: Sequence[int]) -> int:
    """How often a demand fits, as if the room were all on one device."""
    return max(0, min(left // amount for left, amount in zip(room, each, strict=True) if amount))


def height(job: Job, now_ms: int) -> int:
    """Its priority, and a step more for each minute that it has waited since it got something."""
    since_ms = now_ms if job.ready_ms is None else max(job.ready_ms, job.assigned_ms)
    return job.row.priority + max(0, now_ms - since_ms) // AGE_MS
