"""Placement: gathers what waits, asks the scheduler, applies its picks.

The scheduler decides business; this file only translates between records and columns,
and looks again only when a device may have become able to take something.
"""

from __future__ import annotations

import numpy as np

from controller.core.broken_gangs import BrokenGangs, together
from controller.core.condition import Condition
from controller.core.conditions import of_group
from controller.core.ledger import Job, Ledger, Task
from controller.core.preemption import Preemption
from controller.core.queue import Queue
from controller.core.requests import Requests
from controller.core.rules import Rules
from controller.core.tasks import Tasks
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE, Bases, Picker, Tops
from controller.scheduler.pickers import Pickers
from controller.scheduler.policies import ADAPTIVE, resolve
from controller.scheduler.popularity import Popularity, kind_of
from controller.scheduler.view import Share, View
from protocol.tasks import AttemptId, TaskState

GATHER_MS = 3
"""From a submit to its placement: what arrives meanwhile shares one round and one commit."""
WAITING_PER_MS = 200
LOOKS_PER_MS = 50_000
"""Devices that demands which fit nowhere are held against, one by one: half of what a core manages."""
LOOK_DEVICES_LEAST = 5_000
"""A look at fewer costs as much."""
PLACEMENTS_PER_ROUND = 5_000
FEW = 8
"""So many equal tasks are picked one by one, and what spoke for each device then is kept."""
IN_VAIN_FEW = 64
"""So many kinds that fit nowhere are looked at without a thought."""


class Placement:
    """Turns ready tasks into assignments."""

    def __init__(
        self, ledger: Ledger, tasks: Tasks, condition: Condition, preemption: Preemption, rules: Rules
    ) -> None:
        self.ledger = ledger
        self.preemption = preemption
        self.nominations = preemption.nominations
        self.gangs = BrokenGangs(ledger, preemption.holds, preemption.nominations)
        self.fleet = ledger.fleet
        self.tasks = tasks
        self.condition = condition
        self.policy, self.policies = rules.policy, rules.policies
        self.requests = Requests(ledger.fleet)
        self.due_ms: int | None = None
        self.not_before_ms = 0
        """After a take-over that found an old leader row, nothing is placed before (L6)."""
        self._seen_room = -1
        self._bases = Bases(ledger.fleet.view, None, rules.policies)
        self._pickers = Pickers(self._bases)
        self._pickers_era = (-1, -1)
        self._in_vain, self._round_room = 0, -1
        """How many kinds of demand the last look at all that waits found no room for; and when that was."""
        self._adaptive = ""
        """What `adaptive` means since the last round: a look at the load costs more than a placement."""

    def wake(self, now_ms: int) -> None:
        """Something became ready, or some room free."""
        # A long queue is looked through less often, so that looking stays a small part of the work.
        devices = max(self.fleet.count, LOOK_DEVICES_LEAST)
        gather = GATHER_MS + len(self.ledger.waiting) // WAITING_PER_MS
        gather += max(0, self._in_vain - IN_VAIN_FEW) * devices // LOOKS_PER_MS
        wanted = max(now_ms + gather, self.not_before_ms)
        self.due_ms = wanted if self.due_ms is None else min(self.due_ms, wanted)

    def notice_room(self, now_ms: int) -> None:
        """Wakes when a device may have become able to take what waits."""
        if self.fleet.room_generation != self._seen_room:
            self._seen_room = self.fleet.room_generation
            if self.ledger.waiting:
                self.wake(now_ms)

    # ------------------------------------------------------------- a round

    def run(self, now_ms: int) -> None:
        """One round: jobs in the order of the queue; each until nothing fits any more."""
        self.due_ms = None
        self.condition.refresh(now_ms)
        self.preemption.begin_round()
        self._adaptive = ""
        room = self.fleet.room_generation
        queue = Queue(self.ledger, self._waiting(), now_ms)
        budget, in_vain = PLACEMENTS_PER_ROUND, 0
        while (job := queue.next()) is not None:
            turn = min(budget, queue.turn(job, self._room_for))
            alike = [job, *queue.alike(job, turn)] if self._mergeable(job) else [job]
            placed = (
                self._place_alike(alike, turn, now_ms)
                if len(alike) > 1
                else self._place_promised(job, turn, now_ms)
            )
            budget -= placed
            in_vain += not placed
            for one in alike:
                if not one.ready:
                    self.ledger.waiting.pop(one.row.id, None)
                elif one.blocked == self.fleet.room_generation:
                    self._make_room(one, now_ms)
                elif placed and one.blocked != self.fleet.room_generation:
                    queue.again(one)
                self.gangs.look(one, now_ms)
            if budget <= 0 and queue:
                self.wake(now_ms)
                break
        self._in_vain = in_vain if room != self._round_room else max(in_vain, self._in_vain)
        self._round_room = room
        for job in self.preemption.put_off:
            job.blocked = -1
        if self.preemption.put_off or self.fleet.room_generation != room:  # some victims were free at once
            self.wake(now_ms)

    def _waiting(self) -> list[Job]:
        room = self.fleet.room_generation
        return [j for j in self.ledger.waiting.values() if j.blocked != room]

    def _room_for(self, job: Job) -> int:
        """For how many of its tasks there is room, each on its own."""
        picker = self.picker(job)
        return int(self.fleet.view.copies(picker.demand, np.flatnonzero(picker.able())).sum())

    def picker(self, job: Job) -> Picker:
        """The scores of this job's demand, remembered while facts stay as they are."""
        if self._pickers_era != (era := self.requests.era()):
            self._pickers_era = era
            self._pickers.clear()
        new = job.demand_era == (-1, -1)
        demand = self.requests.demand(job)
        if new:
            self._bases.popularity.note(kind_of(demand), max(1, job.left))
        return self._pickers.of(job.signature, demand, self._policy_of(job))

    def _policy_of(self, job: Job) -> str:
        name = job.row.rules.policy or self.policy
        if name == ADAPTIVE:
            name = self._adaptive = self._adaptive or resolve(ADAPTIVE, self.fleet.view)
        return name

    @property
    def popularity(self) -> Popularity:
        """What was learned of arrivals: pickers on a copy of the view need it, too."""
        return self._bases.popularity

    def bases_on(self, view: View) -> Bases:
        """The same policies, and what was learned, for a copy of the view."""
        return Bases(view, self.popularity, self.policies)

    # ------------------------------------------------------------- one job

    def _mergeable(self, job: Job) -> bool:
        """Whether nothing but its demand tells its tasks from those of another job of that demand."""
        spec, rules = job.row.spec, job.row.rules
        own = job.daemon or rules.gang or rules.parallel_max or spec.spreads or self.nominations.by_task
        return not (own or any(map(of_group, spec.constraints)))

    def _place_promised(self, job: Job, budget: int, now_ms: int) -> int:
        """`_place`, where room may be set aside: for this job, or for jobs below it, if there is no other."""
        if not self.nominations.by_task:
            return self._place(job, budget, now_ms)
        placed = self._place_nominees(job, now_ms)
        if placed < budget:  # with none left it would count as what fits nowhere
            placed += self._place(job, budget - placed, now_ms)
        if job.ready and placed < budget and (lifted := self.nominations.lifted_for(job, now_ms)):
            placed += self._place(job, budget - placed, now_ms)
            self.nominations.restore(lifted)
        self.nominations.tidy(self.nominations.of(job))
        return placed

    def _place_nominees(self, job: Job, now_ms: int) -> int:
        placed = 0
        if together(self.ledger, job):
            return self._place_kept(job, now_ms)
        for nomination in self.nominations.offers(job):
            task, row, picker = nomination.task, nomination.row, self.picker(job)
            waiting = task.row.id in job.ready and task.row.state is TaskState.PENDING
            if waiting and self._at_bound(job):  # others of its job took its turn: the room is anybody's
                self.nominations.end(task.row.id)
                self.fleet.note_room()
            elif waiting and picker.pick((), row, self.requests.grouping(job, picker.able())) == row:
                job.ready.remove(task.row.id)
                self.tasks.assign(task, row, picker.share(row), now_ms)
                self.nominations.end(task.row.id)
                placed += 1
        return placed

    def _place_kept(self, job: Job, now_ms: int) -> int:
        """A gang of which nothing stands, in the room that is kept for all of it; together, or not at all."""
        kept = self.nominations.of(job)
        placed = 0
        if len(kept) == job.left and all(n.together for n in kept):
            self.nominations.lift(kept)
            placed = self._place(job, job.left, now_ms)
            if not placed:
                self.nominations.restore(kept)
                return 0
        # Placed, or its others ended since: what was kept for one is anybody's again.
        for nomination in kept:
            self.nominations.end(nomination.task.row.id)
        if placed and kept:  # it may stand elsewhere, and those who were barred do not know it
            self.fleet.note_room()
        return placed

    def _at_bound(self, job: Job) -> bool:
        """Whether as many of its tasks are out as may be at a time."""
        most = job.row.rules.out_max
        return bool(most and len(job.placed) >= most)

    def _make_room(self, job: Job, now_ms: int) -> None:
        """Nothing fits this job any more: others may have to give way, or room be kept."""
        if not self.preemption.wanted(job, now_ms):
            return
        picker = self.picker(job)
        grouping = self.requests.grouping(job, picker.able())
        self.preemption.seek(job, picker.demand, grouping, now_ms)

    def _place(self, job: Job, budget: int, now_ms: int) -> int:
        """Places what fits of a job, up to the budget; how many."""
        if job.daemon:
            return self._place_pinned(job, budget, now_ms)
        if most := job.row.rules.out_max:
            budget = min(budget, most - len(job.placed))
        gang = together(self.ledger, job)
        tasks = self._front(job, len(job.ready) if gang else budget)
        if not tasks:
            job.blocked = self.fleet.room_generation
            return 0
        picker = self.picker(job)
        grouping = self.requests.grouping(job, picker.able())
        if gang:
            return self._place_gang(job, tasks, picker, grouping, now_ms)
        many = grouping is None and not picker.policy.in_turn and len(tasks) > FEW
        if many and all(map(self._plain, tasks)):
            return self._assign_many(tasks, picker, now_ms)
        for done, task in enumerate(tasks):
            row = self._pick(task, picker, grouping)
            if row == NO_DEVICE:
                self._put_back(tasks[done:])
                return done
            tops: Tops = () if task.row.pin else picker.tops(row)
            if grouping is not None:
                grouping.placed(row)
            self.tasks.assign(task, row, picker.share(row), now_ms)
            self.ledger.attempts[AttemptId(task.row.id, task.row.attempt)].tops = tops
        return len(tasks)

    def _place_pinned(self, job: Job, budget: int, now_ms: int) -> int:
        """A daemon's tasks, each on its own device or not at all; none waits behind another."""
        picker = self.picker(job)
        able, placed, waiting = picker.able(), 0, list[Task]()
        for task in self._front(job, len(job.ready)):
            row = self.fleet.index[task.row.pin]
            if placed < budget and able[row]:
                self.tasks.assign(task, row, picker.share(row), now_ms)
                placed += 1
            else:
                waiting.append(task)
        self._put_back(waiting)
        if placed == budget:
            job.blocked = -1
        return placed

    def _place_alike(self, jobs: list[Job], budget: int, now_ms: int) -> int:
        """Places tasks of several jobs that ask for the same, as if they were one job's."""
        tasks: list[Task] = []
        for job in jobs:
            tasks += self._front(job, budget - len(tasks))
        picker = self.picker(jobs[0])
        if not picker.policy.in_turn and all(map(self._plain, tasks)):
            return self._assign_many(tasks, picker, now_ms)
        self._put_back(tasks)
        return sum([self._place(job, budget, now_ms) for job in jobs])

    def _plain(self, task: Task) -> bool:
        """It has no device of its own to prefer, to be pinned to, or to avoid though it would take it."""
        row = self.fleet.index.get(task.avoid, NO_DEVICE) if task.avoid else NO_DEVICE
        avoids = row != NO_DEVICE and bool(self.fleet.view.takes(row))
        return not (avoids or task.prefer or task.row.pin)

    def _assign_many(self, tasks: list[Task], picker: Picker, now_ms: int) -> int:
        rows = picker.many(len(tasks))
        for task, row in zip(tasks, rows, strict=False):
            self.tasks.assign(task, row, picker.share(row), now_ms)
        self._put_back(tasks[len(rows) :])
        return len(rows)

    def _front(self, job: Job, most: int) -> list[Task]:
        """Takes the next tasks out of a job's queue; what is over, or out, is dropped."""
        found: dict[str, Task] = {}
        while job.ready and len(found) < most:
            task = self.ledger.tasks.get(job.ready.popleft())
            if task is not None and task.row.state is TaskState.PENDING:
                found[task.row.id] = task
        return list(found.values())

    def _put_back(self, tasks: list[Task]) -> None:
        """They fitted nowhere: first in their queues again, until some device has more room."""
        for task in reversed(tasks):
            task.job.ready.appendleft(task.row.id)
            task.job.blocked = self.fleet.room_generation

    def _pick(self, task: Task, picker: Picker, grouping: Grouping | None) -> int:
        index = self.fleet.index
        if task.row.pin:
            row = index.get(task.row.pin, NO_DEVICE)
            return row if row != NO_DEVICE and picker.fits(row) else NO_DEVICE
        avoid = (index[task.avoid],) if task.avoid in index else ()
        return picker.pick(avoid, index.get(task.prefer, NO_DEVICE), grouping)

    def _place_gang(
        self, job: Job, tasks: list[Task], picker: Picker, grouping: Grouping | None, now_ms: int
    ) -> int:
        """All tasks of the job, or none: reserved one after the other, then assigned in one commit."""
        # Room for so many of them at all is asked first: it is one expression, trying is a pick for each.
        room = self.fleet.view.copies(picker.demand, np.flatnonzero(picker.able()))
        if len(tasks) < job.left or int(room.sum()) < len(tasks):
            self._put_back(tasks)
            return 0
        tried = self._try(tasks, picker, grouping, {})
        kept = {n.task.row.id: n.row for n in self.nominations.of(job) if not n.aside}
        if len(tried) < len(tasks) and kept:  # picks by score may miss what was chosen to hold all of it
            tried = self._try(tasks, picker, self.requests.grouping(job, picker.able()), kept)
        if len(tried) < len(tasks):
            self._put_back(tasks)
            return 0
        for task, row, share in tried:
            self.tasks.assign(task, row, share, now_ms)
        return len(tried)

    def _try(
        self, tasks: list[Task], picker: Picker, grouping: Grouping | None, kept: dict[str, int]
    ) -> list[tuple[Task, int, Share]]:
        """Where they would stand, one after the other; fewer where one finds none. `kept`: on these rows."""
        view, bytes_each = self.fleet.view, picker.demand.entry_bytes
        tried: list[tuple[Task, int, Share]] = []
        turn = view.turn.copy()
        for task in tasks:
            row = kept.get(task.row.id, NO_DEVICE)
            if not kept:
                row = self._pick(task, picker, grouping)
            elif not picker.fits(row) or (grouping is not None and not grouping.allows()[row]):
                row = NO_DEVICE
            if row == NO_DEVICE:
                break
            tried.append((task, row, picker.share(row)))
            view.take(row, tried[-1][2], bytes_each)
            if grouping is not None:
                grouping.placed(row)
        for _, row, share in reversed(tried):
            view.give(row, share, bytes_each)
        view.turn[:] = turn  # what was only tried is nobody's turn
        return tried
