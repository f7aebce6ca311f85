"""Placement: gathers what waits, asks the scheduler, applies its picks.

The scheduler decides business; this file only translates between records and columns,
and looks again only when a device may have become able to take something.
"""

from __future__ import annotations

from collections import OrderedDict

from controller.core.condition import Condition
from controller.core.ledger import Job, Ledger, Task
from controller.core.queue import Queue
from controller.core.requests import Requests
from controller.core.tasks import Tasks
from controller.core.views import ExplainView, FilterView, ScoreView, WaitsView
from controller.scheduler.explain import explain
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE, Bases, Picker
from controller.scheduler.policies import resolve
from protocol.tasks import TaskState

GATHER_MS = 3
"""From a submit to its placement: what arrives meanwhile shares one round and one commit."""
WAITING_PER_MS = 200
PLACEMENTS_PER_ROUND = 5_000
PICKERS_MAX = 64
"""Kinds of demand whose scores are remembered between rounds: 80 KB each at 10,000 devices."""


class Placement:
    """Turns ready tasks into assignments."""

    def __init__(self, ledger: Ledger, tasks: Tasks, condition: Condition, policy: str) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.tasks = tasks
        self.condition = condition
        self.policy = policy
        self.requests = Requests(ledger.fleet)
        self.due_ms: int | None = None
        self.not_before_ms = 0
        """After a take-over that found an old leader row, nothing is placed before (L6)."""
        self._seen_room = -1
        self._bases = Bases(ledger.fleet.view)
        self._pickers: OrderedDict[tuple[str, str], Picker] = OrderedDict()
        self._pickers_era = (-1, -1)

    def wake(self, now_ms: int) -> None:
        """Something became ready, or some room free."""
        # A long queue is looked through less often, so that looking stays a small part of the work.
        gather = GATHER_MS + len(self.ledger.waiting) // WAITING_PER_MS
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
        queue = Queue(self.ledger, self._waiting(), now_ms)
        budget = PLACEMENTS_PER_ROUND
        while (job := queue.next()) is not None:
            placed = self._place(job, min(budget, queue.turn()), now_ms)
            budget -= placed
            if not job.ready:
                self.ledger.waiting.pop(job.row.id, None)
            elif budget <= 0:
                self.wake(now_ms)
                break
            elif placed and job.blocked != self.fleet.room_generation:
                queue.again(job)

    def _waiting(self) -> list[Job]:
        room = self.fleet.room_generation
        return [j for j in self.ledger.waiting.values() if j.blocked != room]

    def picker(self, job: Job) -> Picker:
        """The scores of this job's demand, remembered while facts stay as they are."""
        if self._pickers_era != (era := self.requests.era()):
            self._pickers_era = era
            self._pickers.clear()
        demand = self.requests.demand(job)
        key = (job.signature, resolve(job.row.rules.policy or self.policy, self.fleet.view))
        picker = self._pickers.get(key)
        if picker is None:
            picker = self._pickers[key] = Picker(self.fleet.view, demand, self._bases, key[1])
            if len(self._pickers) > PICKERS_MAX:
                self._pickers.popitem(last=False)
        else:
            self._pickers.move_to_end(key)
        return picker

    # ------------------------------------------------------------- one job

    def _place(self, job: Job, budget: int, now_ms: int) -> int:
        """Places what fits of a job, up to the budget; how many."""
        self._drop_stale(job)
        most = min(budget, len(job.ready))
        if job.row.rules.parallel_max:
            most = min(most, job.row.rules.parallel_max - len(job.placed))
        if most <= 0:
            job.blocked = self.fleet.room_generation
            return 0
        picker = self.picker(job)
        grouping = self.requests.grouping(job, picker.able())
        if job.row.rules.gang and not job.placed:
            return self._place_gang(job, picker, grouping, now_ms)
        if grouping is None and not picker.policy.in_turn and most > 1 and self._plain(job, most):
            return self._place_alike(job, picker, most, now_ms)
        placed = 0
        while placed < most:
            task = self.ledger.tasks[job.ready[0]]
            row = self._pick(task, picker, grouping)
            if row == NO_DEVICE:
                job.blocked = self.fleet.room_generation
                break
            job.ready.popleft()
            if grouping is not None:
                grouping.placed(row)
            self.tasks.assign(task, row, picker.share(row), now_ms)
            placed += 1
        return placed

    def _drop_stale(self, job: Job) -> None:
        """What was ready and is over, or placed, leaves the queue."""
        tasks = self.ledger.tasks
        ready = [i for i in job.ready if i in tasks and tasks[i].row.state is TaskState.PENDING]
        if len(ready) != len(job.ready):
            job.ready.clear()
            job.ready.extend(dict.fromkeys(ready))

    def _plain(self, job: Job, most: int) -> bool:
        """Whether the next tasks are all alike: no device of their own to prefer or avoid."""
        tasks = self.ledger.tasks
        return not any((t := tasks[job.ready[i]]).avoid or t.prefer or t.row.pin for i in range(most))

    def _pick(self, task: Task, picker: Picker, grouping: Grouping | None) -> int:
        index = self.fleet.index
        if task.row.pin:
            row = index.get(task.row.pin, NO_DEVICE)
            return row if row != NO_DEVICE and picker.fits(row) else NO_DEVICE
        avoid = (index[task.avoid],) if task.avoid in index else ()
        return picker.pick(avoid, index.get(task.prefer, NO_DEVICE), grouping)

    def _place_alike(self, job: Job, picker: Picker, most: int, now_ms: int) -> int:
        rows = picker.many(most)
        for row in rows:
            task = self.ledger.tasks[job.ready.popleft()]
            self.tasks.assign(task, row, picker.share(row), now_ms)
        if len(rows) < most:
            job.blocked = self.fleet.room_generation
        return len(rows)

    def _place_gang(self, job: Job, picker: Picker, grouping: Grouping | None, now_ms: int) -> int:
        """All tasks of the job, or none: reserved one after the other, then assigned in one commit."""
        view, tried = self.fleet.view, []
        tasks = [self.ledger.tasks[i] for i in job.ready]
        complete = len(tasks) == job.left
        for task in tasks if complete else ():
            row = self._pick(task, picker, grouping)
            if row == NO_DEVICE:
                break
            share = picker.share(row)
            view.take(row, share, job.demand.entry_bytes)
            tried.append((task, row, share))
            if grouping is not None:
                grouping.placed(row)
        for _, row, share in reversed(tried):
            view.give(row, share, job.demand.entry_bytes)
        if not complete or len(tried) < len(tasks):
            job.blocked = self.fleet.room_generation
            return 0
        job.ready.clear()
        for task, row, share in tried:
            self.tasks.assign(task, row, share, now_ms)
        return len(tried)

    # ------------------------------------------------------------- explanations

    def explain(self, task: Task, now_ms: int) -> ExplainView:
        """Why this task is where it is, or nowhere, as of now."""
        row = task.row
        found = explain(self.picker(task.job))
        summary = found.summary if row.state is TaskState.PENDING else f"placed on {row.device}"
        if row.state is TaskState.PENDING:
            summary = self._waits(task, now_ms) or summary
        return ExplainView(
            row.id, row.state, row.device, summary,
            [FilterView(name, gone) for name, gone in found.removed],
            [ScoreView(self.fleet.names[r], total, parts) for r, total, parts in found.candidates],
        )  # fmt: skip

    def waits(self, tasks: tuple[str, ...], now_ms: int) -> WaitsView:
        """Why each of these tasks is pending; equal demands are looked at once."""
        known, reasons = dict[str, str](), dict[str, str]()
        for task_id in tasks:
            task = self.ledger.tasks.get(task_id)
            if task is None or task.row.state is not TaskState.PENDING:
                continue
            reason = self._waits(task, now_ms)
            if not reason:
                job = task.job
                if job.signature not in known:
                    known[job.signature] = explain(self.picker(job)).summary
                reason = known[job.signature]
            reasons[task_id] = reason
        return WaitsView(reasons)

    def _waits(self, task: Task, now_ms: int) -> str:
        if (due_ms := self.ledger.deadlines.due_of("ready", task.row.id)) is not None:
            seconds = max(0, due_ms - now_ms) / 1000
            return f"waits {seconds:.1f} s before attempt {task.row.attempt + 1}, after: {task.row.reason}"
        if now_ms < self.not_before_ms:
            seconds = (self.not_before_ms - now_ms) / 1000
            return f"nothing is placed for {seconds:.0f} s: the database may be older than the fleet"
        return ""
