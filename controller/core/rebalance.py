"""Rebalance: plans of voluntary moves that a person can read, decided here and nowhere else.

A plan levels the fleet, or makes room for one task that fits nowhere (`room_plan`). It is made when
somebody asks, or by a look each minute where the fleet's rules want that: if its load is uneven
beyond the trigger or, where the policy packs, if a task waits for room. Levelling ends at the goal,
below the trigger, so that a second look finds nothing to do. Small plans may run by themselves,
others wait for approval. Nothing begins while failover is frozen, while we are deaf, in the wait
after a take-over, or outside of the maintenance windows. A drain is shown as a plan too, but
`operators` carries it out: here its tasks only learn where they are foreseen to go.

At most one such plan is proposed or carried out at a time. Plans are in memory only: a take-over
forgets them, and what was on its way is placed like any other work.
Rejected: devices that settle it between them (nobody could read it beforehand, or stop it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from controller.core.balance_columns import Cargo, device_columns, figures
from controller.core.balance_plan import (
    CARRIED,
    OPEN,
    MoveState,
    PlanState,
    VoluntaryMove,
    VoluntaryPlan,
    balance_view,
    plan_view,
)
from controller.core.balance_views import RebalancesView, RebalanceView
from controller.core.carrying import Carrying, may_move
from controller.core.effects import Reply
from controller.core.events import RebalanceAsked, RebalanceDecided, RebalancesQueried
from controller.core.explaining import Explaining
from controller.core.failover import Failover
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Ledger, Task
from controller.core.operators import Operators
from controller.core.placement import Placement
from controller.core.records import AttemptState
from controller.core.room_plan import RoomPlans
from controller.core.rules import PACKING, Rules
from controller.core.views import DoneView, RefusalView
from controller.core.windows import open_at
from controller.scheduler.balance import Aims, drain, rebalance
from controller.scheduler.shifts import Move

STEP_MS, WAITING_MS = 500, 5_000
"""Between two steps; while nothing may begin they are fewer."""
PLAN_MS = 600_000
"""A proposal that nobody approved for so long is stale: the fleet it was made for is gone."""
QUIET_MS = 3_600_000
"""Who rejected a proposal is not asked again for so long, unless somebody asks for a plan."""
FRUITLESS_MAX = 16
"""Each look that finds an uneven fleet and no remedy doubles the pause, up to so many times."""
PLANS_KEPT = 20
CONTROLLER = "controller"
POINTLESS = "none of its moves makes sense any more"


class Rebalance:
    """Makes plans, keeps them, and has them carried out."""

    def __init__(
        self, ledger: Ledger, holds: Holds, placement: Placement, operators: Operators,
        failover: Failover, explaining: Explaining, rules: Rules, now_ms: int,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.placement = placement
        self.operators = operators
        self.failover = failover
        self.rules = rules
        self.carrying = Carrying(ledger, holds, placement, operators, now_ms)
        self.rooms = RoomPlans(ledger, placement, self.carrying, explaining)
        self.plans: dict[str, VoluntaryPlan] = {}
        """In the order in which they were made."""
        self.look_ms = now_ms + rules.look_ms
        self.step_ms = now_ms
        self._number = 0
        self._fruitless = 1
        self._quiet_until_ms = now_ms
        operators.foresee = self.foresee

    @property
    def _looks(self) -> bool:
        return self.rules.rebalance != "off"

    # ------------------------------------------------------------- what people ask

    def ask(self, event: RebalanceAsked, now_ms: int) -> None:
        """Makes a plan; a dry run is answered and forgotten."""
        self._review(now_ms)
        carried = next((p for p in self._rebalances() if p.state in CARRIED), None)
        if carried is not None and not event.dry_run:
            detail = f"plan {carried.id} is being carried out; wait for it, or reject it to end it"
            self.ledger.emit(Reply(event.request, RefusalView("conflict", detail)))
            return
        plan = self._asked_for(event, now_ms)
        if isinstance(plan, RefusalView):
            self.ledger.emit(Reply(event.request, plan))
            return
        idle = "" if plan.moves else self._why_idle(plan, now_ms)
        if event.dry_run and idle:
            plan.turn(PlanState.STALE, idle)
        elif not event.dry_run:
            self._enter(plan, now_ms)
            if idle:
                self._turn(plan, PlanState.STALE, idle, event.actor, now_ms)
            elif event.approve:
                self._approve(plan, event.actor, now_ms)
        self.ledger.emit(Reply(event.request, plan_view(plan, self.fleet.names, True)))

    def _asked_for(self, event: RebalanceAsked, now_ms: int) -> VoluntaryPlan | RefusalView:
        if event.task:
            return self.rooms.make(event.task, self._id("m"), event.actor, event.moves_max, now_ms)
        aims = replace(self.rules.aims, trigger=self.rules.aims.goal)  # whoever asks need not wait for more
        if event.moves_max:
            aims = replace(aims, moves_max=min(event.moves_max, aims.moves_max))
        return self._make(aims, event.actor, now_ms)

    def decide(self, event: RebalanceDecided, now_ms: int) -> None:
        """Approves a plan, or rejects it; rejecting one that runs ends it after the moves that began."""
        self._review(now_ms)
        plan = self.plans.get(event.plan)
        allowed = (PlanState.PROPOSED,) if event.approve else OPEN
        if plan is None:
            body: object = _unknown(event.plan)
        elif plan.of_drain:
            body = RefusalView("conflict", f"{plan.id} is a drain: `fm device uncordon` ends it")
        elif plan.state not in allowed:
            why = f" ({plan.reason})" if plan.reason else ""
            body = RefusalView("conflict", f"plan {plan.id} is {plan.state}{why}; ask for a new one")
        else:
            if event.approve:
                self._approve(plan, event.actor, now_ms)
            else:
                if plan.actor == CONTROLLER or not plan.of_room:
                    self._quiet_until_ms = now_ms + QUIET_MS
                self._drop_waiting(plan, "the plan was rejected")
                self._turn(plan, PlanState.REJECTED, "", event.actor, now_ms)
            body = DoneView(plan.id)
        self.ledger.emit(Reply(event.request, body))

    def query(self, event: RebalancesQueried, now_ms: int) -> None:
        """One plan with its moves, or all without."""
        self._review(now_ms)
        names = self.fleet.names
        if event.plan:
            plan = self.plans.get(event.plan)
            found: RebalanceView | RefusalView = (
                plan_view(plan, names, True) if plan else _unknown(event.plan)
            )
            self.ledger.emit(Reply(event.request, found))
            return
        items = [plan_view(plan, names, False) for plan in reversed(self.plans.values())]
        now = balance_view(figures(self.fleet))
        self.ledger.emit(
            Reply(event.request, RebalancesView(items, now, self.rules.rebalance, self.waits(now_ms)))
        )

    # ------------------------------------------------------------- making a plan

    def _make(self, aims: Aims, actor: str, now_ms: int) -> VoluntaryPlan:
        cargo = Cargo(self.ledger, self.placement.requests)
        tasks = cargo.placed(self._staying(now_ms), now_ms)
        devices = device_columns(self.fleet, self.fleet.view)
        made = rebalance(devices, tasks, cargo.allowed, aims)
        kept, after = cargo.kept(made.moves)
        reached = made.reached and len(kept) == len(made.moves)
        moves = [self._move(move, cargo.attempts[move.task]) for move in kept]
        return VoluntaryPlan(
            self._id("r"), actor, now_ms, self.ledger.wall(now_ms), moves, made.before, after, reached
        )

    def _why_idle(self, plan: VoluntaryPlan, now_ms: int) -> str:
        """Why a plan moves nothing: it need not, or it may not yet."""
        if plan.reached:
            return "nothing to do"
        fresh = sum(
            not self.carrying.rested(attempt, task, now_ms)
            for attempt, task, _ in self._staying(now_ms)
            if may_move(attempt.job)
        )
        tasks = f"{fresh:,} task{'s' * (fresh != 1)}"
        cooling = f"; {tasks} came to their devices too lately to be moved again" if fresh else ""
        return f"nothing to do: no move would help{cooling}"

    def _staying(self, now_ms: int) -> Iterator[tuple[Attempt, Task, bool]]:
        """Attempts that are not on their way out, and whether they may move."""
        ledger, rested = self.ledger, self.carrying.rested
        for job in ledger.jobs.values():
            may = may_move(job)
            for key in job.placed:
                attempt, task = ledger.attempts[key], ledger.tasks.get(key.task)
                if task is not None and attempt.row.state is not AttemptState.REMOVED:
                    yield attempt, task, may and rested(attempt, task, now_ms)

    def _move(self, move: Move, attempt: Attempt) -> VoluntaryMove:
        return VoluntaryMove(
            attempt.row.task, attempt.row.attempt, move.source, move.target, move.cost, move.gain,
            move.source_load, move.target_load,
        )  # fmt: skip

    def _id(self, kind: str) -> str:
        """One of this leadership, and so of all."""
        self._number += 1
        return f"{kind}{self.ledger.epoch}-{self._number}"

    def _enter(self, plan: VoluntaryPlan, now_ms: int) -> None:
        """A newer rebalance takes the place of one that is only proposed."""
        for other in self._rebalances():
            if other.state is PlanState.PROPOSED and not plan.of_drain:
                self._turn(other, PlanState.STALE, f"{plan.id} took its place", CONTROLLER, now_ms)
        self.plans[plan.id] = plan
        self.ledger.audit(
            now_ms, "plan", plan.id, "", plan.state, plan.actor, reason=f"{len(plan.moves)} moves"
        )
        closed = [p.id for p in self.plans.values() if p.state not in OPEN]
        for id in closed[: max(0, len(self.plans) - PLANS_KEPT)]:
            del self.plans[id]

    def _rebalances(self) -> list[VoluntaryPlan]:
        return [p for p in self.plans.values() if not p.of_drain]

    # ------------------------------------------------------------- drains

    def foresee(self, row: int, actor: str, now_ms: int) -> None:
        """A drain begins: its plan, and to each task where it is foreseen to go."""
        cargo = Cargo(self.ledger, self.placement.requests)
        here = [(a, self.ledger.tasks.get(a.row.task)) for a in self.ledger.by_device[row].values()]
        held = [(a, t, not a.job.daemon) for a, t in here if t and a.row.state is not AttemptState.REMOVED]
        made = drain(
            device_columns(self.fleet, self.fleet.view), cargo.placed(held, now_ms), cargo.allowed,
            np.array([row], np.int64),
        )  # fmt: skip
        kept, _ = cargo.kept(made.moves)
        foreseen = dict.fromkeys(move.task for move in kept)
        refused = [move.task for move in made.moves if move.task not in foreseen]
        moves = [self._move(move, cargo.attempts[move.task]) for move in kept]
        for move in moves:
            self.ledger.tasks[move.task].prefer = self.fleet.names[move.target]
        homeless = [cargo.attempts[i].row.task for i in sorted([*made.homeless, *refused])]
        staying = [cargo.attempts[i].row.task for i in made.staying]
        plan = VoluntaryPlan(
            self._id("d"), actor, now_ms, self.ledger.wall(now_ms), moves, made.before, made.after,
            not homeless, row, homeless, staying, PlanState.RUNNING, actor,
        )  # fmt: skip
        self._enter(plan, now_ms)

    def _follow_drain(self, plan: VoluntaryPlan, now_ms: int) -> None:
        for move in plan.undecided():
            self.carrying.look_at(move)
        record = self.fleet.records[plan.device]
        if plan.device in self.operators.draining:
            return
        ended = record.cordoned and not self.ledger.by_device[plan.device]
        if not ended:
            self._drop_waiting(plan, "the drain was ended")
        state = PlanState.DONE if ended else PlanState.REJECTED
        self._turn(
            plan, state, "" if ended else "the device was opened again, or removed", CONTROLLER, now_ms
        )

    # ------------------------------------------------------------- time

    def next_due_ms(self) -> int | None:
        """The next look, or the next step of what is carried out."""
        due = [self.look_ms] if self._looks else []
        if self.carrying.under_way or any(p.state in CARRIED for p in self.plans.values()):
            due.append(self.step_ms)
        return min(due, default=None)

    def step(self, now_ms: int) -> None:
        """Carries on what is approved, and looks when it is time."""
        if now_ms >= self.step_ms:
            self.step_ms = now_ms + (WAITING_MS if self.waits(now_ms) else STEP_MS)
            self._carry(now_ms)
        if self._looks and now_ms >= self.look_ms:
            self.look_ms = now_ms + self.rules.look_ms
            self._look(now_ms)

    def waits(self, now_ms: int) -> str:
        """Why no voluntary move may begin now."""
        if self.failover.frozen:
            return "failover is frozen"
        if self.failover.deaf:
            return "the broker does not return the controller's own messages"
        if now_ms < self.placement.not_before_ms:
            return "nothing is placed until the wait after the take-over is over"
        if not open_at(self.rules.windows, self.ledger.wall(now_ms)):
            return "no maintenance window is open"
        return ""

    def _carry(self, now_ms: int) -> None:
        self.carrying.follow()
        for plan in list(self.plans.values()):
            if plan.of_drain and plan.state in CARRIED:
                self._follow_drain(plan, now_ms)
            elif plan.state in CARRIED:
                self._carry_on(plan, now_ms)

    def _carry_on(self, plan: VoluntaryPlan, now_ms: int) -> None:
        plan.reason = self.waits(now_ms)
        if plan.of_room and plan.waiting():
            if self._settled(plan, now_ms):
                return
            plan.reason = plan.reason or self.rooms.crowded(plan)
        begin = self.rooms.begin if plan.of_room else self.carrying.begin
        if not plan.reason and begin(plan, now_ms) and plan.state is PlanState.APPROVED:
            self._turn(plan, PlanState.RUNNING, "", CONTROLLER, now_ms)
        if plan.undecided():
            return
        if plan.state is PlanState.RUNNING:
            self._turn(plan, PlanState.DONE, "", CONTROLLER, now_ms)
        else:
            self._turn(plan, PlanState.STALE, POINTLESS, CONTROLLER, now_ms)

    def _settled(self, plan: VoluntaryPlan, now_ms: int) -> bool:
        """Whether a plan of room has become of no use. If it is to begin: whether its moves still make it."""
        why = self.rooms.overtaken(plan, now_ms)
        if not why and not plan.reason:
            why = self.rooms.broken(plan, now_ms)
        if why:
            self._drop_waiting(plan, "its plan is stale")
            self._turn(plan, PlanState.STALE, why, CONTROLLER, now_ms)
        return bool(why)

    def _look(self, now_ms: int) -> None:
        """Proposes a plan, or begins it, if there is need of one and nothing else goes on."""
        self._review(now_ms)
        busy = self.operators.draining or self.operators.evicting or now_ms < self._quiet_until_ms
        if busy or self.waits(now_ms) or any(p.state in OPEN for p in self._rebalances()):
            return
        # Where the policy packs, levelling would undo its work; what it leaves to be wished for is room.
        packs = self.rules.policy in PACKING
        in_want = self.rooms.in_want(now_ms) if packs else []
        if not (in_want if packs else self._uneven()):
            self._fruitless = 1
            return
        plan = (
            self.rooms.propose(in_want, self._id("m"), CONTROLLER, now_ms)
            if packs
            else self._make(self.rules.aims, CONTROLLER, now_ms)
        )
        if plan is None or not plan.moves:
            self.look_ms = now_ms + self.rules.look_ms * self._fruitless
            self._fruitless = min(FRUITLESS_MAX, self._fruitless * 2)
            return
        self._fruitless = 1
        self._enter(plan, now_ms)
        share = len(self.ledger.attempts) * self.rules.auto_moves_percent // 100
        if self.rules.rebalance == "auto" and len(plan.moves) <= max(self.rules.auto_moves_max, share):
            self._approve(plan, CONTROLLER, now_ms)
        else:
            self.ledger.note("info", "a rebalance waits for approval", plan=plan.id, moves=len(plan.moves))

    def _uneven(self) -> bool:
        now, rules = figures(self.fleet), self.rules
        return now.most > rules.aims.trigger * now.mean and now.most * 100 >= rules.load_percent_least

    # ------------------------------------------------------------- states

    def _approve(self, plan: VoluntaryPlan, actor: str, now_ms: int) -> None:
        self._turn(plan, PlanState.APPROVED, "", actor, now_ms)
        self.step_ms = now_ms
        self.step(now_ms)

    def _review(self, now_ms: int) -> None:
        """What is known of open plans, as of now."""
        self.carrying.follow()
        for plan in self._rebalances():
            if plan.state is not PlanState.PROPOSED:
                continue
            if plan.of_room and self._settled(plan, now_ms):
                continue
            self.carrying.review(plan, now_ms)
            if not plan.undecided():
                self._turn(plan, PlanState.STALE, POINTLESS, CONTROLLER, now_ms)
            elif now_ms - plan.made_ms >= PLAN_MS:
                reason = f"nobody approved it within {PLAN_MS // 60_000} minutes"
                self._turn(plan, PlanState.STALE, reason, CONTROLLER, now_ms)

    def _drop_waiting(self, plan: VoluntaryPlan, reason: str) -> None:
        for move in plan.moves:
            if move.state is not MoveState.WAITING:
                continue
            move.state, move.reason = MoveState.SKIPPED, reason
            task = self.ledger.tasks.get(move.task)
            if plan.of_drain and task and task.prefer == self.fleet.names[move.target]:
                task.prefer = ""

    def _turn(self, plan: VoluntaryPlan, state: PlanState, reason: str, actor: str, now_ms: int) -> None:
        before = plan.state
        plan.turn(state, reason)
        if state in (PlanState.APPROVED, PlanState.REJECTED):
            plan.decided_by = actor
        self.ledger.audit(now_ms, "plan", plan.id, before, state, actor, reason=reason)


def _unknown(plan: str) -> RefusalView:
    more = f"a controller forgets them when it starts, and the oldest of more than {PLANS_KEPT}"
    return RefusalView("not_found", f"no plan {plan}: {more}")
