"""Carrying: one voluntary move after the other, stop before start, never too many at once (C4).

A move is judged again right before it begins, since its plan may be minutes old; one that makes
no sense any more is skipped and says why. Then room is kept on its target, the attempt leaves its
document, and whatever frees it (L3) lets placement put the task there. Also `at_least_one` work
stops before it starts: a second run for the sake of balance is not worth its load.
It decides no plan and no moment; `rebalance` does.
"""

from __future__ import annotations

from controller.core.balance_columns import fits, load_with
from controller.core.balance_plan import MoveState, VoluntaryMove, VoluntaryPlan
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.operators import Operators
from controller.core.placement import Placement
from controller.core.records import AttemptState
from controller.core.rules import PACKING
from controller.core.tasks import CANCELLED
from controller.scheduler.view import NOTHING
from protocol.tasks import AttemptId, TaskState

COOL_LEASES = 3
"""An attempt stays so many leases where it was put: moved work must get to work (C4)."""
ROOM_KEPT_MS = 300_000
"""Longer than any usual hold; who is gone longer finds another place, or waits like others."""
REBALANCED = "rebalanced"
_LATER = "waits for room"


class Carrying:
    """Judges, begins and follows moves."""

    def __init__(
        self, ledger: Ledger, holds: Holds, placement: Placement, operators: Operators, now_ms: int
    ) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.placement = placement
        self.nominations = placement.nominations
        self.operators = operators
        self.began_ms = now_ms
        """A take-over knows of no attempt when it was put there: all of them cool down anew."""
        self.under_way: dict[str, VoluntaryMove] = {}
        self.inherited: list[Attempt] = []
        """On their way since an earlier leadership; whose plan it was nobody knows."""
        operators.others_moving = self.moving

    def recall(self) -> None:
        """After a take-over: what is leaving for balance still uses up the budget."""
        removed = (a for a in self.ledger.attempts.values() if a.row.state is AttemptState.REMOVED)
        self.inherited = [a for a in removed if a.row.reason == REBALANCED]

    def moving(self) -> int:
        """Moves in flight, whoever led when they began."""
        self.inherited = [a for a in self.inherited if self.holds.awaited(a)]
        return len(self.under_way) + len(self.inherited)

    # ------------------------------------------------------------- who may move

    def movable(self, attempt: Attempt, task: Task | None, now_ms: int) -> bool:
        """Whether this attempt may be moved for balance at all; where to is another question."""
        return task is not None and may_leave(attempt) and self.rested(attempt, task, now_ms)

    def rested(self, attempt: Attempt, task: Task, now_ms: int) -> bool:
        """Whether it is the task's present attempt, is to go on, and has cooled down."""
        if task.row.attempt != attempt.row.attempt or task.row.desired == CANCELLED or task.expired:
            return False
        since_ms = max(task.assigned_ms, self.began_ms)
        return now_ms - since_ms >= COOL_LEASES * attempt.job.row.lease_ms

    # ------------------------------------------------------------- judging

    def judge(self, move: VoluntaryMove, plan: VoluntaryPlan, now_ms: int) -> str:
        """Why it should not begin; empty when it should, `_LATER` when not yet."""
        attempt = self.ledger.attempts.get(AttemptId(move.task, move.attempt))
        task = self.ledger.tasks.get(move.task)
        if attempt is None or task is None or task.row.attempt != move.attempt:
            return "its attempt is over"
        if not self.movable(attempt, task, now_ms):
            return "it is leaving already, or may not be moved any more"
        return self._judge_source(move) or self._judge_target(move, attempt, plan)

    def _judge_source(self, move: VoluntaryMove) -> str:
        f, row = self.fleet, move.source
        if f.view.online[row] and not (f.draining[row] or f.quarantined[row] or f.removed[row]):
            return ""
        return f"{self.fleet.names[move.source]} is not online any more, or is being drained"

    def _judge_target(self, move: VoluntaryMove, attempt: Attempt, plan: VoluntaryPlan) -> str:
        view, target, name = self.fleet.view, move.target, self.fleet.names[move.target]
        demand = self.placement.requests.demand(attempt.job)
        if not view.ready[target]:
            return f"{name} takes nothing at the moment"
        if not all(column[target] for column in demand.eligible.values()):
            return f"{name} no longer meets the job's constraints"
        if (grouping := self.placement.requests.grouping(attempt.job)) is not None:
            grouping.unplaced(move.source)
            if not grouping.allows()[target]:
                return f"a task of the same job that must stand apart is on {name}"
        if not fits(view, demand, target):
            leaves = any(m is not move and m.source == target for m in plan.undecided())
            return _LATER if leaves else f"{name} has no room for it any more"
        if plan.of_room:  # it is for another task's sake, whatever that does to the load
            return ""
        if load_with(view, target, view.share(target, demand)) >= load_with(view, move.source, NOTHING):
            return f"{name} would be no less loaded than {self.fleet.names[move.source]}"
        return ""

    def review(self, plan: VoluntaryPlan, now_ms: int) -> None:
        """Skips what makes no sense any more, of a plan that has not begun."""
        for move in plan.moves:
            if move.state is MoveState.WAITING:
                self._skip(move, self.judge(move, plan, now_ms))

    def _skip(self, move: VoluntaryMove, reason: str) -> None:
        if reason and reason != _LATER:
            move.state, move.reason = MoveState.SKIPPED, reason
            self.ledger.count("rebalance_moves_skipped")

    # ------------------------------------------------------------- moving

    def room(self) -> int:
        """How many more moves may begin now: the budget is one for drains and for balance."""
        return self.operators.budget() - self.operators.moving() - self.moving()

    def begin(self, plan: VoluntaryPlan, now_ms: int) -> int:
        """Begins what the budget allows, in the plan's order; how many."""
        begun: dict[int, list[Attempt]] = {}
        left = self.room()
        for move in plan.moves:
            if left <= 0:
                break
            if move.state is not MoveState.WAITING:
                continue
            if reason := self.judge(move, plan, now_ms):
                self._skip(move, reason)
            else:
                begun.setdefault(move.source, []).append(self._depart(move, now_ms))
                left -= 1
        for attempts in begun.values():  # one revision for each device
            self.holds.remove(attempts, REBALANCED, now_ms)
        return sum(map(len, begun.values()))

    def _depart(self, move: VoluntaryMove, now_ms: int) -> Attempt:
        """Keeps room on the target; the caller removes the attempt."""
        attempt = self.ledger.attempts[AttemptId(move.task, move.attempt)]
        task, view = self.ledger.tasks[move.task], self.fleet.view
        demand = self.placement.requests.demand(attempt.job)
        task.prefer = self.fleet.names[move.target]
        share, until_ms = view.share(move.target, demand), now_ms + ROOM_KEPT_MS
        self.nominations.end(move.task)
        self.nominations.nominate(task, move.target, share, until_ms, (attempt.id,))
        move.state = MoveState.MOVING
        self.under_way[move.task] = move
        self.ledger.count("rebalance_moves")
        return attempt

    def follow(self) -> None:
        """Looks what became of the moves that began."""
        for move in list(self.under_way.values()):
            self.look_at(move)
            if move.state is not MoveState.MOVING:
                del self.under_way[move.task]
                self.nominations.end(move.task)

    def look_at(self, move: VoluntaryMove) -> None:
        """Where the task of a move is by now."""
        task = self.ledger.tasks.get(move.task)
        if task is None or task.row.desired == CANCELLED:
            move.state, move.reason = MoveState.OVER, "the task ended, or is to end"
        elif task.row.attempt > move.attempt:
            if task.row.state is TaskState.PENDING:  # it went on, and was lost again before we looked
                move.state, move.reason = MoveState.OVER, "it had to move again"
            else:
                move.state, move.landed = MoveState.MOVED, task.row.device
        elif task.row.attempt < move.attempt:
            move.state, move.reason = MoveState.OVER, "an older run of it was kept"
        elif task.row.state is TaskState.PENDING:
            move.state = MoveState.MOVING
            self._give_up_target(move, task)
        else:
            attempt = self.ledger.attempts.get(AttemptId(move.task, move.attempt))
            leaving = attempt is None or attempt.row.state is AttemptState.REMOVED
            move.state = MoveState.MOVING if leaving else MoveState.WAITING
            self._give_up_target(move, task)

    def _give_up_target(self, move: VoluntaryMove, task: Task) -> None:
        """A target that is gone keeps no room: the task goes wherever placement likes."""
        if task.prefer == self.fleet.names[move.target] and not self.fleet.view.ready[move.target]:
            task.prefer = ""
            self.nominations.end(move.task)


def may_leave(attempt: Attempt) -> bool:
    """Whether it is not on its way out, and of a job whose tasks are moved."""
    return attempt.row.state is not AttemptState.REMOVED and may_move(attempt.job)


def may_move(job: Job) -> bool:
    """Whether tasks of the job are ever moved for balance: not those of a gang or a daemon, nor what
    its own policy has packed."""
    rules = job.row.rules
    return not (job.daemon or rules.gang or rules.policy in PACKING) and job.row.desired != CANCELLED
