"""Preemption: room for a task that fits nowhere, made or waited for.

A task of priority p may end attempts of jobs of priority p - 10 or lower on one device,
the cheapest there are (`scheduler.victims`); never those of daemons, and never for a whole
gang, whose members would need victims on many devices at once. They leave as in a drain and are
pending again as soon as they are free, without a failure counted. Until then the room is
nominated to the task. What leaves a device anyway counts as free there: so a restart,
which forgets nominations, asks for no second set of victims.

A task that nothing may give way to, but which a device could hold if it were emptier,
starves behind smaller ones: after five minutes without a placement of its job the device
with the best prospect is nominated to it, and empties as its runs end. A daemon's task waits
for its own device, by its own time; a whole gang has devices kept together (`gang_room`).

Rule of this file: it decides who must give way, not where tasks go. Victims on their way
out are bounded like voluntary moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.core.broken_gangs import together
from controller.core.gang_room import GangRoom
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Job, Ledger, Task
from controller.core.nominations import (
    STARVING_HELD_MS,
    STARVING_MS,
    Nomination,
    Nominations,
    starved_ms,
)
from controller.core.records import AttemptState
from controller.scheduler.groups import Grouping
from controller.scheduler.prospects import prospects
from controller.scheduler.victims import LEAVES, Endable, Holdings, Yielding, cheapest, on_device, share_after
from controller.scheduler.view import Demand, Flags
from protocol.limits import HEARTBEAT_MS
from protocol.tasks import TaskState

DELTA = 10
"""Smaller differences of priority order the queue, but are not worth the work that is thrown away."""
VICTIMS_AT_ONCE = 10
VICTIMS_SHARE = 0.05
"""Of all reservations; as with drains. A single task may need more, if nobody else is waited for."""
SEARCHES_PER_ROUND = 64
SEARCHES_OF_GANG = 16
"""What one look for room for a gang counts: 13 ms for 200 tasks."""
STARVING_AT_ONCE = 10
TRIED_MAX = 1_024
"""What was tried in vain is remembered for so many."""
STARVING_DEVICES = 0.1
"""Devices that may be kept for starving tasks: they stand half empty meanwhile."""


class Seeker(NamedTuple):
    """A task that fits nowhere, and where it might. `grouping`: what the others of its job allow."""

    task: Task
    demand: Demand
    grouping: Grouping | None


class Preemption:
    """Finds who gives way to whom."""

    def __init__(self, ledger: Ledger, holds: Holds, nominations: Nominations) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.nominations = nominations
        self.gang_room = GangRoom(ledger, nominations)
        self._holdings = Holdings(ledger.fleet.view)
        self._vain: dict[tuple[str, int], int] = {}
        """Kinds of demand and priority for which nothing was found -> at which room generation."""
        self._searches = 0
        self.put_off: list[Job] = []
        """Jobs that the round had no search left for: they are looked at in the next one."""
        self._resume: dict[str, int] = {}
        """Daemons whose tasks were not all searched for -> where to go on."""
        self._tried: dict[str, int] = {}
        """Of starving tasks: the device that was kept for it in vain."""

    def begin_round(self) -> None:
        """A round of placement begins."""
        self.nominations.tidy()
        self._searches = SEARCHES_PER_ROUND
        self.put_off.clear()
        if len(self._resume) > TRIED_MAX:
            self._resume.clear()
        if len(self._tried) > TRIED_MAX:
            self._tried.clear()
        if len(self._vain) > TRIED_MAX:
            self._vain.clear()

    def wanted(self, job: Job, now_ms: int) -> bool:
        """Whether looking may help at all; asked of every job that fits nowhere, so it must be cheap."""
        rules = job.row.rules
        if rules.out_max and len(job.placed) >= rules.out_max:
            return False
        if rules.gang and together(self.ledger, job):
            return self.gang_room.wanted(job, now_ms) and self._may_search(job)
        return self._may_preempt(job) or self._starves(job, now_ms)

    def _may_preempt(self, job: Job) -> bool:
        at_most = job.row.priority - DELTA
        if at_most < 0 or min(self.ledger.priorities, default=at_most + 1) > at_most:
            return False
        if self._vain.get((job.signature, job.row.priority)) == self.fleet.room_generation:
            return False
        return self._may_search(job)

    def _may_search(self, job: Job) -> bool:
        """Whether the round has a search left; who finds none is looked at in the next."""
        if self._searches <= 0:
            self.put_off.append(job)
        return self._searches > 0

    def _starves(self, job: Job, now_ms: int) -> bool:
        waited_ms = starved_ms(job, now_ms)
        if job.daemon:  # its tasks wait each for a device of its own: others' luck is not theirs
            waited_ms = 0 if job.ready_ms is None else now_ms - job.ready_ms
        if waited_ms < STARVING_MS:
            return False
        most = max(1, min(STARVING_AT_ONCE, int(STARVING_DEVICES * self.fleet.count)))
        return self.nominations.kept_singly() < most

    # ------------------------------------------------------------- for one job

    def seek(self, job: Job, demand: Demand, grouping: Grouping | None, now_ms: int) -> None:
        """Makes room for tasks of a job that fit nowhere, one after the other, or has it waited for."""
        if together(self.ledger, job):
            self._searches -= SEARCHES_OF_GANG
            self.gang_room.keep(job, demand, grouping, now_ms)
            return
        promised = self.nominations.of(job)
        if grouping is not None:
            for nomination in promised:
                grouping.placed(nomination.row)
        most = job.row.rules.out_max or len(job.ready) + len(job.placed)
        most -= len(job.placed) + len(promised)
        ready = list(job.ready)
        for at in range(self._resume.pop(job.row.id, 0), len(ready)):
            id, task = ready[at], self.ledger.tasks.get(ready[at])
            if task is None or task.row.state is not TaskState.PENDING or id in self.nominations.by_task:
                continue
            if job.daemon and self._searches <= 0:
                self._resume[job.row.id] = at
                self.put_off.append(job)
                break
            if most <= 0 or not self._make_room(Seeker(task, demand, grouping), now_ms):
                if not job.daemon:
                    break
                continue
            most -= 1
            if grouping is not None:
                grouping.placed(self.nominations.by_task[id].row)

    def _make_room(self, seeker: Seeker, now_ms: int) -> bool:
        job = seeker.task.job
        if self._may_preempt(job) and self._preempt(seeker, now_ms):
            return True
        if job.daemon and now_ms - seeker.task.ready_ms < STARVING_MS:
            return False
        return self._starves(job, now_ms) and self._keep(seeker, now_ms)

    def _allowed(self, seeker: Seeker) -> Flags:
        """Where it may be placed as far as anything but room is concerned."""
        rows: Flags = self.fleet.view.ready.copy()
        for column in seeker.demand.eligible.values():
            rows &= column
        if seeker.grouping is not None:
            rows &= seeker.grouping.allows()
        return self.nominations.bar(rows)

    def _allows(self, seeker: Seeker, row: int) -> bool:
        """The same of one device: a daemon asks it for each of its tasks."""
        view, grouping = self.fleet.view, seeker.grouping
        return bool(
            (view.online[row] and view.open[row] and view.fit[row])
            and all(column[row] for column in seeker.demand.eligible.values())
            and (grouping is None or grouping.allows()[row])
            and not self.nominations.bars(row)
        )

    # ------------------------------------------------------------- preemption

    def _preempt(self, seeker: Seeker, now_ms: int) -> bool:
        job = seeker.task.job
        choice, instead = self._cheapest(seeker, now_ms), list[Nomination]()
        if choice is None:
            choice, instead = self._instead_of_gang(seeker, now_ms)
        if choice is None:
            return False
        there = self._endable(choice.row)
        victims = [there[i] for i in choice.victims]
        if not self._within_budget(len(victims)):
            return False
        for nomination in instead:
            self.nominations.end(nomination.task.row.id)
        going = [*victims, *(a for a in there if a.row.state is AttemptState.REMOVED)]
        share = share_after(self.fleet.view, seeker.demand, choice.row, [a.share for a in going])
        until_ms = now_ms + max((self._gone_ms(a) for a in going), default=HEARTBEAT_MS)
        ids = tuple(a.id for a in victims)
        self.nominations.nominate(seeker.task, choice.row, share, until_ms, ids)
        self.ledger.count("preempted", len(victims))
        self.holds.remove(victims, f"preempted by {job.row.id}", now_ms)
        return True

    def _instead_of_gang(self, seeker: Seeker, now_ms: int) -> tuple[Yielding | None, list[Nomination]]:
        """As `_cheapest`, where room is kept for a gang far enough below; and what is over then."""
        job = seeker.task.job
        kept = [
            n
            for n in self.nominations.kept_together()
            if n.task.job.row.priority <= job.row.priority - DELTA and n.yields_to(job, now_ms)
        ]
        if not kept:
            return None, []
        self.nominations.lift(kept)
        choice = self._cheapest(seeker, now_ms)
        self.nominations.restore(kept)
        taken = choice is not None and any(n.row == choice.row for n in kept)
        return choice, kept if taken else []

    def _cheapest(self, seeker: Seeker, now_ms: int) -> Yielding | None:
        view, job = self.fleet.view, seeker.task.job
        at_most = job.row.priority - DELTA

        def held_on(row: int) -> list[Endable]:
            return [self._held(a, now_ms) for a in self._endable(row)]

        if seeker.task.row.pin:
            row = self.fleet.index[seeker.task.row.pin]
            if not self._allows(seeker, row):
                return None
            self._searches -= 1
            victims = on_device(view, seeker.demand, row, held_on(row), at_most)
            return None if victims is None else Yielding(row, victims)
        self._searches -= 1
        self._note_changes()
        choice = cheapest(view, seeker.demand, self._allowed(seeker), self._holdings, at_most, held_on)
        if choice is None and seeker.grouping is None:  # else it is vain for this job alone
            self._vain[job.signature, job.row.priority] = self.fleet.room_generation
        return choice

    def _within_budget(self, victims: int) -> bool:
        leaving = self.nominations.victims_left()
        most = max(VICTIMS_AT_ONCE, int(VICTIMS_SHARE * len(self.ledger.attempts)))
        return leaving + victims <= most or leaving == 0

    def _gone_ms(self, attempt: Attempt) -> int:
        """How long it may take to be free: its hold, and the time it has to stop."""
        hold_ms = self.fleet.hold_ms(attempt.device, attempt.job.row.lease_ms)
        return hold_ms + attempt.job.row.spec.stop_grace_ms

    def _endable(self, row: int) -> list[Attempt]:
        """What is on its way out, and what a more important task may send there."""
        attempts = self.ledger.by_device[row].values()
        return [a for a in attempts if a.row.state is AttemptState.REMOVED or not a.job.daemon]

    def _held(self, attempt: Attempt, now_ms: int) -> Endable:
        if attempt.row.state is AttemptState.REMOVED:
            return Endable(LEAVES, attempt.share, attempt.job.demand.entry_bytes)
        task = self.ledger.tasks.get(attempt.row.task)
        running = attempt.row.state is AttemptState.RUNNING and task is not None
        lost_ms = now_ms - task.started_ms if running and task is not None else 0
        return Endable(attempt.job.row.priority, attempt.share, attempt.job.demand.entry_bytes, lost_ms)

    def _note_changes(self) -> None:
        """Tells the columns which devices hold something else since the last look."""
        moved = self.ledger.moved
        for row in moved:
            self._holdings.note(row, [self._held(a, 0) for a in self._endable(row)])
        moved.clear()

    # ------------------------------------------------------------- starving

    def _keep(self, seeker: Seeker, now_ms: int) -> bool:
        """Keeps the device with the best prospect for the task, without ending anything on it."""
        id = seeker.task.row.id
        if seeker.task.row.pin:
            row = self.fleet.index[seeker.task.row.pin]
            if not self._allows(seeker, row) or not self._empties(row, seeker.demand):
                return False
            allowed = np.zeros(self.fleet.view.count, np.bool_)
            allowed[row] = True
            self._searches -= 1
        else:
            allowed = self._allowed(seeker)
        tried = self._tried.get(id)
        if tried is not None:
            allowed[tried] = False
        view = self.fleet.view
        for row in prospects(view, seeker.demand, allowed):
            if self._empties(row, seeker.demand):
                share = share_after(view, seeker.demand, row, ())
                self._tried[id] = row
                self.nominations.nominate(seeker.task, row, share, now_ms + STARVING_HELD_MS, starving=True)
                return True
        if tried is not None:
            del self._tried[id]  # it is the only one: it may be tried again
        return False

    def _empties(self, row: int, demand: Demand) -> bool:
        """Whether it would have room enough if everything that ends by itself had ended."""
        staying: Sequence[Attempt] = [
            a
            for a in self.ledger.by_device[row].values()
            if a.job.service and a.row.state is not AttemptState.REMOVED
        ]
        view, what = self.fleet.view, self.fleet.view.share(row, demand).resources
        return all(
            need + sum(a.share.resources[i] for a in staying) <= int(view.offered[i][row])
            for i, need in enumerate(what)
            if need
        )
