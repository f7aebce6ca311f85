"""Room plans: few moves off one device, so that a pending task that fits nowhere finds room there.

`rebalance` keeps and decides these plans like any other; this file says whether one may be made,
makes it, says when it is overtaken, and keeps the room it frees for the task it was made for.
A plan is of use as a whole or not at all: it is judged anew right before its moves begin, they
begin together, and it never has more of them than the budget of moves always allows.
It moves nothing itself. What may move is `carrying`'s judgement, which moves make room the
scheduler's, where a task goes placement's.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.core.balance_columns import figures, fits, load_with
from controller.core.balance_plan import VoluntaryMove, VoluntaryPlan
from controller.core.broken_gangs import together
from controller.core.carrying import ROOM_KEPT_MS, Carrying
from controller.core.explaining import HELD_BACK, NOMINATED, Explaining
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.operators import MOVES_AT_ONCE
from controller.core.placement import Placement
from controller.core.room_search import RoomSearch, allowed
from controller.core.tasks import CANCELLED
from controller.core.views import RefusalView, RemedyView
from controller.scheduler.defragment import RoomPlan, suffices
from controller.scheduler.victims import share_after
from controller.scheduler.view import NOTHING, Flags
from protocol.tasks import AttemptId, TaskState

MOVE_COST = 0.2
"""Of a remedy, for each move: giving up a demand costs half of it, an operator's word as much as this."""
WANT_MS, KINDS_LOOKED_AT = 60_000, 4
"""Who waits less is not worth a restart of others that nobody asked for; and so many are looked at."""


class RoomPlans:
    """Makes and judges plans of room."""

    def __init__(
        self, ledger: Ledger, placement: Placement, carrying: Carrying, explaining: Explaining
    ) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.placement = placement
        self.nominations = placement.nominations
        self.carrying = carrying
        self.explaining = explaining
        explaining.room_for = self.remedy

    # ------------------------------------------------------------- making one

    def make(
        self, task_id: str, plan_id: str, actor: str, moves_max: int, now_ms: int
    ) -> VoluntaryPlan | RefusalView:
        """The plan for this task, or why there is none."""
        if refusal := self._pointless(task_id, now_ms):
            return refusal
        moves_max = min(moves_max or MOVES_AT_ONCE, MOVES_AT_ONCE)
        task = self.ledger.tasks[task_id]
        lifted = self.nominations.lifted_of(task_id)
        search = self._search(task, now_ms)
        found = search.fewest(moves_max)
        plan = self._plan(search, found, plan_id, actor) if found else None
        self.nominations.restore(lifted)
        return plan or self._none(task, search, moves_max, now_ms)

    def _search(self, task: Task, now_ms: int) -> RoomSearch:
        return RoomSearch(self.ledger, self.placement, self.carrying, task, now_ms)

    def _plan(self, search: RoomSearch, found: RoomPlan, plan_id: str, actor: str) -> VoluntaryPlan:
        view, now_ms = self.fleet.view, search.now_ms
        after, moves = view.copy(), list[VoluntaryMove]()
        for shift in found.moves:
            attempt = search.attempts[shift.task]
            entry_bytes = attempt.job.demand.entry_bytes
            after.give(shift.source, attempt.share, entry_bytes)
            after.take(shift.target, shift.share, entry_bytes)
            loads = load_with(view, shift.source, NOTHING), load_with(view, shift.target, NOTHING)
            moves.append(
                VoluntaryMove(
                    attempt.row.task, attempt.row.attempt, shift.source, shift.target, shift.cost, 0.0, *loads
                )
            )
        demand = search.demand
        after.take(found.row, after.share(found.row, demand), demand.entry_bytes)
        return VoluntaryPlan(
            plan_id, actor, now_ms, self.ledger.wall(now_ms), moves, figures(self.fleet),
            figures(self.fleet, after), device=found.row, task=search.task.row.id,
        )  # fmt: skip

    def _none(self, task: Task, search: RoomSearch, moves_max: int, now_ms: int) -> RefusalView:
        moves = f"{moves_max} move{'s' * (moves_max != 1)}"
        reasons, fresh = self.explaining.waits((task.row.id,), now_ms).reasons, search.fresh
        cooling = f"; {fresh:,} of the tasks there came too lately to be moved again" if fresh else ""
        more = f"`fm task explain {task.row.id}` shows what else would help"
        why = f"no plan of at most {moves} makes room for {task.row.id}: {reasons[task.row.id]}"
        return RefusalView("conflict", f"{why}{cooling}; {more}")

    # ------------------------------------------------------------- unasked

    def in_want(self, now_ms: int) -> list[Task]:
        """Tasks that have waited long for room, one of each kind, the longest wait first."""
        jobs: dict[str, Job] = {}
        waits = [(_since_ms(job, now_ms), job) for job in self.ledger.waiting.values()]
        for since_ms, job in sorted(waits, key=lambda each: each[0]):
            long = now_ms - since_ms >= WANT_MS and len(jobs) < KINDS_LOOKED_AT
            if long and any(id in self.ledger.tasks for id in job.ready):
                jobs.setdefault(job.signature, job)
        known = self.ledger.tasks
        return [known[next(id for id in job.ready if id in known)] for job in jobs.values()]

    def propose(self, tasks: Sequence[Task], plan_id: str, actor: str, now_ms: int) -> VoluntaryPlan | None:
        """A plan for the first of these that has one worth its moves."""
        for task in tasks:
            if self._pointless(task.row.id, now_ms):
                continue
            lifted = self.nominations.lifted_of(task.row.id)
            search = self._search(task, now_ms)
            found = search.worthwhile(MOVES_AT_ONCE)
            plan = self._plan(search, found, plan_id, actor) if found else None
            self.nominations.restore(lifted)
            if plan is not None:
                return plan
        return None

    # ------------------------------------------------------------- as a remedy

    def remedy(self, task: Task, now_ms: int) -> RemedyView | None:
        """The same as one change among others; None where there is no plan."""
        if self._pointless(task.row.id, now_ms):
            return None
        lifted = self.nominations.lifted_of(task.row.id)
        found = self._search(task, now_ms).fewest(MOVES_AT_ONCE)
        self.nominations.restore(lifted)
        if found is None:
            return None
        device, moves = self.fleet.names[found.row], len(found.moves)
        what = f"move {moves} task{'s' * (moves != 1)} off {device}"
        words = f"{what}: fm rebalance plan --task {task.row.id}"
        return RemedyView("moves", "", device, moves, MOVE_COST * moves, 1, words)

    # ------------------------------------------------------------- whether it is of use

    def _pointless(self, task_id: str, now_ms: int, own: bool = False) -> RefusalView | None:
        """Why no moves would help this task, whichever they are. `own`: a plan of its own is under way."""
        task = self.ledger.tasks.get(task_id)
        if task is None:
            return RefusalView("not_found", f"no open task {task_id}: it is over, or never was")
        if task.row.state is not TaskState.PENDING:
            there = f" on {task.row.device}" if task.row.device else ""
            said = f"task {task_id} is {task.row.state}{there}; room is made for tasks that are pending"
            return RefusalView("conflict", said)
        if task.row.desired == CANCELLED or task.expired:
            return RefusalView("conflict", f"task {task_id} is to end")
        if why := self._waits_for_others(task, now_ms, own):
            return RefusalView("conflict", f"task {task_id} waits for something else than room: {why}")
        lifted = self.nominations.lifted_of(task_id)
        devices = int(self._fits(task).sum())
        self.nominations.restore(lifted)
        if devices:
            said = f"task {task_id} fits on {devices} device{'s' * (devices != 1)} without moving anything"
            return RefusalView("conflict", said)
        return None

    def _waits_for_others(self, task: Task, now_ms: int, own: bool) -> str:
        job = task.job
        if job.left > 1 and together(self.ledger, job):
            return "its whole gang must fit at once"
        why = self.explaining.held(task, now_ms)
        if why is None or (own and why.code == HELD_BACK):
            return ""
        if why.code == NOMINATED and (own or self.nominations.by_task[task.row.id].starving):
            return ""
        return why.words

    def _fits(self, task: Task) -> Flags:
        """Devices that could take it now."""
        picker = self.placement.picker(task.job)
        able = picker.able() & allowed(self.placement, task)
        return able

    # ------------------------------------------------------------- carrying it out

    def overtaken(self, plan: VoluntaryPlan, now_ms: int) -> str:
        """Why the plan is of no use any more, as far as its task is concerned; empty: it still is."""
        refusal = self._pointless(plan.task, now_ms, own=True)
        return refusal.detail if refusal else ""

    def broken(self, plan: VoluntaryPlan, now_ms: int) -> str:
        """Why what is left of its moves does not make the room any more; empty: it does.

        Each is judged as it would be right before it begins; those that pass must fit together.
        """
        task = self.ledger.tasks[plan.task]
        lifted = self.nominations.lifted_of(plan.task)
        self.carrying.review(plan, now_ms)
        whole = self._fit_together(plan) and self._suffices(plan, task)
        self.nominations.restore(lifted)
        reasons = sorted({m.reason for m in plan.moves if m.reason})
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return "" if whole else f"it would make no room for {plan.task} any more{why}"

    def _fit_together(self, plan: VoluntaryPlan) -> bool:
        view = self.fleet.view.copy()
        for move in plan.waiting():
            job = self.ledger.attempts[AttemptId(move.task, move.attempt)].job
            demand = self.placement.requests.demand(job)
            if not fits(view, demand, move.target):
                return False
            view.take(move.target, view.share(move.target, demand), demand.entry_bytes)
        return True

    def _suffices(self, plan: VoluntaryPlan, task: Task) -> bool:
        going = [(a.share, a.job.demand.entry_bytes) for a in self._going(plan)]
        demand = self.placement.requests.demand(task.job)
        room = suffices(self.fleet.view, demand, plan.device, going)
        return room and bool(allowed(self.placement, task)[plan.device])

    def _going(self, plan: VoluntaryPlan) -> list[Attempt]:
        """Attempts that the plan takes off its device, and that hold their room there yet."""
        attempts = self.ledger.attempts
        found = [attempts.get(AttemptId(m.task, m.attempt)) for m in plan.undecided()]
        return [attempt for attempt in found if attempt is not None]

    def crowded(self, plan: VoluntaryPlan) -> str:
        """Why its moves can't begin together yet."""
        if len(plan.waiting()) <= self.carrying.room():
            return ""
        return "other moves are on their way, and its own begin together"

    def begin(self, plan: VoluntaryPlan, now_ms: int) -> int:
        """Begins its moves; the room that they free is its task's, and a promise that it had is over."""
        if not plan.waiting():
            return 0
        self.nominations.end(plan.task)
        begun = self.carrying.begin(plan, now_ms)
        self._keep(plan, now_ms)
        return begun

    def _keep(self, plan: VoluntaryPlan, now_ms: int) -> None:
        task, going = self.ledger.tasks[plan.task], self._going(plan)
        demand = self.placement.requests.demand(task.job)
        share = share_after(self.fleet.view, demand, plan.device, [a.share for a in going])
        ids = tuple(a.id for a in going)
        self.nominations.nominate(task, plan.device, share, now_ms + ROOM_KEPT_MS, ids)


def _since_ms(job: Job, now_ms: int) -> int:
    """Since when nothing of it was placed though it waits for room."""
    return now_ms if job.ready_ms is None else max(job.ready_ms, job.assigned_ms)
