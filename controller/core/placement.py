"""Placement: gathers what waits, shows the scheduler the fleet, applies its picks.

The scheduler decides business; this file only translates between records and columns,
and looks again only when a device may have become able to take something.
"""

from __future__ import annotations

from controller.core.conditions import ATTRIBUTES, OPERATORS, test_of
from controller.core.fleet import ONLINE, Flags
from controller.core.ledger import Job, Ledger, Task
from controller.core.records import Constraint
from controller.core.tasks import Tasks
from controller.core.views import ExplainView, FilterView, ScoreView, WaitsView
from controller.scheduler.explain import explain
from controller.scheduler.pick import NO_DEVICE, Picker, reserve
from controller.scheduler.view import Demand, View
from protocol.limits import DOCUMENT_ATTEMPTS_MAX, PAYLOAD_BYTES_MAX
from protocol.tasks import TaskState

__all__ = ["ATTRIBUTES", "OPERATORS", "Placement"]

GATHER_MS = 3
"""From a submit to its placement: what arrives meanwhile shares one round and one commit."""
WAITING_PER_MS = 200
DOCUMENT_BYTES_MAX = PAYLOAD_BYTES_MAX - 256
PLACEMENTS_PER_ROUND = 5_000


class Placement:
    """Turns ready tasks into assignments."""

    def __init__(self, ledger: Ledger, tasks: Tasks, policy: str) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.tasks = tasks
        self.policy = policy
        self.due_ms: int | None = None
        self.not_before_ms = 0
        """After a take-over that found an old leader row, nothing is placed before (L6)."""
        self._seen_room = -1
        self._eligible: dict[tuple[str, str, str], Flags] = {}
        self._eligible_facts = (-1, -1)

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
        """One round: jobs by priority, then by age; each until nothing fits any more."""
        self.due_ms = None
        view = self.view()
        pickers: dict[str, Picker] = {}
        budget = PLACEMENTS_PER_ROUND
        for job in self._waiting():
            picker = pickers.get(job.signature)
            if picker is None:
                picker = pickers[job.signature] = Picker(view, self.demand(job), self.policy)
            budget -= self._place(job, picker, list(pickers.values()), budget, now_ms)
            if not job.ready:
                self.ledger.waiting.pop(job.row.id, None)
            if budget <= 0:
                self.wake(now_ms)
                break

    def _waiting(self) -> list[Job]:
        room = self.fleet.room_generation
        waiting = [j for j in self.ledger.waiting.values() if j.blocked != room]
        waiting.sort(key=lambda j: -j.row.priority)
        return waiting

    def _place(self, job: Job, picker: Picker, pickers: list[Picker], budget: int, now_ms: int) -> int:
        placed = 0
        while job.ready and placed < budget:
            task = self.ledger.tasks.get(job.ready[0])
            if task is None or task.row.state is not TaskState.PENDING:
                job.ready.popleft()
                continue
            row = picker.pick(self.fleet.index.get(task.avoid, NO_DEVICE))
            if row == NO_DEVICE:
                job.blocked = self.fleet.room_generation
                break
            job.ready.popleft()
            reserve(picker.view, row, picker.demand)
            for other in pickers:
                other.refresh(row)
            self.tasks.assign(task, row, now_ms)
            placed += 1
        return placed

    # ------------------------------------------------------------- what the scheduler sees

    def view(self) -> View:
        """The fleet as columns of its own."""
        f, n = self.fleet, self.fleet.count
        online = (f.state[:n] == ONLINE) & (f.runs_session[:n] == f.session[:n]) & f.known[:n]
        shut = f.cordoned[:n] | f.draining[:n] | f.quarantined[:n] | f.removed[:n]
        return View(
            n, online, ~shut,
            [c[:n] for c in f.capacity],
            [c[:n] - r[:n] for c, r in zip(f.capacity, f.reserved, strict=True)],
            DOCUMENT_BYTES_MAX - f.doc_bytes[:n],
            DOCUMENT_ATTEMPTS_MAX - f.held[:n],
        )  # fmt: skip

    def demand(self, job: Job) -> Demand:
        """What one task of the job asks for."""
        spec = job.row.spec
        eligible = {f"runtime {spec.runtime}": self._column("runtime", "=", spec.runtime)}
        for c in spec.constraints:
            eligible[f"{c.attribute} {c.operator} {c.value}".strip()] = self._column(
                c.attribute, c.operator, c.value
            )
        return Demand(job.demand, job.entry_bytes, eligible)

    def _column(self, attribute: str, operator: str, value: str) -> Flags:
        if self._eligible_facts != (self.fleet.facts_generation, self.fleet.count):
            self._eligible_facts = (self.fleet.facts_generation, self.fleet.count)
            self._eligible.clear()
        key = (attribute, operator, value)
        if key not in self._eligible:
            if len(self._eligible) > 1_000:
                self._eligible.clear()
            self._eligible[key] = self.fleet.column(test_of(Constraint(*key)))
        return self._eligible[key]

    # ------------------------------------------------------------- explanations

    def explain(self, task: Task, now_ms: int) -> ExplainView:
        """Why this task is where it is, or nowhere, as of now."""
        row = task.row
        found = explain(self.view(), self.demand(task.job), self.policy)
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
        view, known, reasons = self.view(), dict[str, str](), dict[str, str]()
        for task_id in tasks:
            task = self.ledger.tasks.get(task_id)
            if task is None or task.row.state is not TaskState.PENDING:
                continue
            reason = self._waits(task, now_ms)
            if not reason:
                job = task.job
                if job.signature not in known:
                    known[job.signature] = explain(view, self.demand(job), self.policy).summary
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
