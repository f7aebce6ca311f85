"""Foresight: what would happen if the fleet or its work changed; nothing is.

Rule of this file: it reads the ledger and the fleet, and changes neither, not by a bit. A
plan is made of copies taken at the moment of asking: room, who stands where, jobs as they
are. It is worked on in slices between other events, because a large one takes seconds
and heartbeats must not wait; what happens meanwhile is not in it.
Order: tasks are placed by their job's priority (and its waiting), then by its age. A
plan preempts nobody and knows no shares of owners: it tells what there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat

from controller.core.changes import DrainChange, GrowthChange, JobChange, LossChange, SubmitChange
from controller.core.effects import Reply
from controller.core.events import PlanAsked
from controller.core.ledger import Ledger
from controller.core.outlook import Outlook
from controller.core.placement import Placement
from controller.core.plan_faults import fault_of_plan
from controller.core.plan_notes import Yielders, replaced
from controller.core.plan_parties import Cohort, Roster, Wave
from controller.core.plan_views import MoreView, PlannedTask, PlanView, RoomView, SiteLossView
from controller.core.views import RefusalView
from controller.scheduler.explain import PARALLEL
from controller.scheduler.pick import NO_DEVICE
from controller.scheduler.whatif import MANY, Landing, RoomLeft, Trial, Unit, losses

ROWS_MAX = 500
"""Of each list: what nobody reads to its end is counted, not listed."""
LOSSES_MAX = 1_000
LOSSES_TOLD = 100
LOST_TASKS_MAX = 500_000
"""Of all losses together: some 5 s of work. The sets of the smallest sites are left out, and counted."""
PLANS_MAX = 8
ADDED_AT_ONCE = 1_000
"""Devices to a slice: some 25 ms."""
SLICE_US = 50_000
"""Between two other events, by rule of thumb and not by a clock: this is pure."""


class Foresight:
    """Answers plans, a slice at a time."""

    def __init__(self, ledger: Ledger, placement: Placement) -> None:
        self.ledger = ledger
        self.placement = placement
        self._plans: deque[tuple[int, Iterator[int], PlanView]] = deque()

    def ask(self, event: PlanAsked, now_ms: int) -> None:
        """Takes a plan on, or says at once why not."""
        outlook = Outlook(self.ledger.fleet)
        fault = fault_of_plan(event.changes, self.ledger, outlook)
        if fault is not None:
            self.ledger.emit(Reply(event.request, fault))
        elif len(self._plans) >= PLANS_MAX:
            busy = RefusalView("busy", f"{PLANS_MAX} plans are worked on already; ask again in a moment")
            self.ledger.emit(Reply(event.request, busy))
        else:
            plan = _Plan(self.ledger, outlook, self.placement, event, now_ms)
            self._plans.append((event.request, plan.work(), plan.view))
            if len(self._plans) == 1:
                self.step()

    def next_due_ms(self, now_ms: int) -> int | None:
        """Plans go on as soon as nothing else is to be done."""
        return now_ms + 1 if self._plans else None

    def step(self) -> None:
        """One slice of the oldest plan; answers it when it is done."""
        if not self._plans:
            return
        request, work, view = self._plans[0]
        spent = 0
        for cost_us in work:
            spent += cost_us
            if spent >= SLICE_US:
                return
        self._plans.popleft()
        self.ledger.emit(Reply(request, view))


class _Plan:
    """One plan at work: the base after all changes, then the losses that it should survive."""

    def __init__(
        self, ledger: Ledger, outlook: Outlook, placement: Placement, event: PlanAsked, now_ms: int
    ) -> None:
        self.ledger = ledger
        self.outlook = outlook
        self.event = event
        self.trial = Trial(ledger.fleet.view, placement.popularity, placement.policies)
        before = _room_view(self.trial.room())
        self.roster = Roster(ledger, outlook, placement.policy, now_ms, self._concerned())
        self.view = PlanView(dict.fromkeys(_COUNTS, 0), before, before)
        self.homeless: list[tuple[Cohort, list[Unit]]] = []
        self.breaking: dict[str, Unit] = {}
        """By job, the first of its tasks that find no place."""

    def work(self) -> Iterator[int]:
        """Does it all; yields what each step cost."""
        for change in self.event.changes:
            if isinstance(change, GrowthChange):
                yield from self._grow(change)
            else:
                self._apply(change)
            yield 1_000 + self.outlook.count
        self.roster.add_daemons_on_added()
        yield from self._settle()
        self.view.after = _room_view(self.trial.room())
        yield from self._count_more()
        yield from Yielders(self.ledger, self.outlook, self.roster, self.trial).notes(
            self.breaking, self.view.notes
        )
        if self.event.survive:
            yield from self._survive()

    def _concerned(self) -> list[int]:
        """Devices that somebody may have to leave."""
        changes = self.event.changes
        if self.event.survive or any(isinstance(change, JobChange) for change in changes):
            return list(range(self.outlook.known))
        rows: list[int] = []
        for change in changes:
            if isinstance(change, DrainChange | LossChange):
                rows += self._named(change)
        return list(dict.fromkeys(rows))

    # ------------------------------------------------------------- changes

    def _apply(self, change: DrainChange | LossChange | JobChange | SubmitChange) -> None:
        if isinstance(change, DrainChange):
            rows = self._named(change)
            self.trial.close(rows)
            self.homeless += self._take_off(rows, self.trial)
        elif isinstance(change, LossChange):
            rows = self._named(change)
            self.trial.lose(rows)
            self.outlook.lose(rows)
            self.homeless += self._take_off(rows, self.trial)
        elif isinstance(change, JobChange):
            self._change_job(change)
        else:
            self.roster.submit(change.job)

    def _grow(self, change: GrowthChange) -> Iterator[int]:
        for at, name in enumerate(self.outlook.free_names(change.count), 1):
            self.outlook.add(replace(change.device, device=name), self.trial.view)
            if at % ADDED_AT_ONCE == 0:
                yield 25 * ADDED_AT_ONCE
        self.trial.grown()
        self.roster.forget_columns()

    def _named(self, change: DrainChange | LossChange) -> list[int]:
        rows = [self.outlook.fleet.index[name] for name in change.devices]
        sites = self.outlook.sites()
        for site in change.sites if isinstance(change, LossChange) else ():
            # A site that the plan itself adds has nobody on it yet.
            rows += self.outlook.site_rows(sites[site]).tolist() if site in sites else []
        return list(dict.fromkeys(rows))

    def _take_off(self, rows: list[int], trial: Trial) -> list[tuple[Cohort, list[Unit]]]:
        """Everybody who stands there; daemons' tasks end with their device."""
        gone = self.roster.leave(rows)
        for cohort, units in gone:
            for unit in units:
                trial.vacate(unit, cohort.job.demand.entry_bytes)
        return gone

    def _change_job(self, change: JobChange) -> None:
        """Tasks that still fit where they are stay there; the others look for a place."""
        before = self.roster.cohort(self.ledger.jobs[change.job]).job.row
        self.view.notes += replaced(before, change.of(before))
        found = self.roster.change_job(change, self.trial)
        cohort, counts = found.cohort, self.view.counts
        counts["ended"] += found.ended
        counts["stayed"] += found.kept
        if change.count is not None:
            self._shorten(cohort, change.count)
        party = self.roster.party(cohort, [])
        picker = self.trial.picker(party)
        grouping = party.grouping(picker.able())
        leaving = []
        for unit in found.leaving:
            stayed = self.trial.stay(picker, unit, grouping) if unit.row != NO_DEVICE else None
            if stayed is None:
                leaving.append(unit)
            else:
                self.roster.stand(cohort, unit._replace(share=stayed.share))
                counts["stayed"] += 1
        if leaving:
            self.homeless.append((cohort, leaving))

    def _shorten(self, cohort: Cohort, count: int) -> None:
        """Of those that lost their place before, some are no part of the job any more."""
        for other, units in self.homeless:
            if other is cohort:
                left = [unit for unit in units if int(unit.name.rpartition(".")[2]) < count]
                self.view.counts["ended"] += len(units) - len(left)
                units[:] = left

    # ------------------------------------------------------------- placing

    def _settle(self) -> Iterator[int]:
        """Everybody without a place looks for one, in the queue's order."""
        waves = self.roster.in_order([*self.homeless, *self.roster.waiting()])
        self.view.counts["left_out"] = self.roster.left_out
        for wave in waves:
            party = self.roster.party(wave.first, wave.units)
            party.kin = self.roster.kin(wave.first)
            owners = chain(wave.owners, repeat(wave.first))
            for at, landing in enumerate(self.trial.place(party)):
                if at >= len(wave.units):
                    self.roster.fall(wave.first, landing.unit)
                    self.view.counts["stayed"] -= 1
                self._note(next(owners), landing)
            yield self._cost_us(wave) + 10 * len(wave.units)

    def _count_more(self) -> Iterator[int]:
        """Where a task of the job finds no place there is room for none; a daemon has one on each device."""
        for cohort in self.roster.asked:
            if not cohort.daemon:
                none = cohort.name in self.breaking
                more = 0 if none else self.trial.more(self.roster.party(cohort, []))
                self.view.more.append(MoreView(cohort.name, more))
                yield 1_000 + self.outlook.count

    def _cost_us(self, wave: Wave) -> int:
        units, count = len(wave.units), self.outlook.count
        single = wave.first.singly or units < MANY
        return units * (60 + count // 100) if single else 1_500 + 2 * units + count // 10

    def _note(self, cohort: Cohort, landing: Landing) -> None:
        view, unit = self.view, landing.unit
        device = self.outlook.name(unit.row) if unit.row != NO_DEVICE else ""
        if landing.row != NO_DEVICE:
            self.roster.stand(cohort, unit._replace(row=landing.row, share=landing.share))
            to = self.outlook.name(landing.row)
            kind, rows = ("moved", view.moved) if device else ("placed", view.placed)
            _enter(view, kind, rows, PlannedTask(unit.name, cohort.name, device, to))
            return
        why = landing.why
        reason, words = (why.code, why.words) if why else ("", "")
        if device or (cohort.asked and reason != PARALLEL):
            view.reasons[reason] = view.reasons.get(reason, 0) + 1
            self.breaking.setdefault(cohort.name, unit)
            _enter(
                view, "broken", view.broken, PlannedTask(unit.name, cohort.name, device, "", reason, words)
            )
        else:
            view.counts["waiting"] += 1

    # ------------------------------------------------------------- losses

    def _survive(self) -> Iterator[int]:
        sites = self.outlook.sites()
        rows = {number: self.outlook.site_rows(number).tolist() for number in sites.values()}
        here = {number: self.roster.on(rows[number]) for number in rows}
        tasks = {number: sum(len(units) for _, units in here[number]) for number in here}
        yield 5 * sum(tasks.values())
        largest = sorted(tasks, key=lambda number: -tasks[number])
        chosen, left = losses(largest, self.event.survive, LOSSES_MAX)
        names = {number: name for name, number in sites.items()}
        found: list[SiteLossView] = []
        budget = LOST_TASKS_MAX
        for some in chosen:
            budget -= sum(tasks[n] for n in some)
            if budget < 0 and found:
                left += len(chosen) - len(found)
                break
            loss = SiteLossView(tuple(names[n] for n in some), sum(len(rows[n]) for n in some), 0, 0, 0.0)
            gone = [cohort for number in some for cohort in here[number]]
            yield from self._lose(loss, [row for number in some for row in rows[number]], gone)
            found.append(loss)
        found.sort(key=lambda loss: (-loss.broken, -loss.utilisation))
        view = self.view
        view.losses, view.losses_looked_at, view.losses_left_out = found[:LOSSES_TOLD], len(found), left
        view.losses_breaking = sum(loss.broken > 0 for loss in found)

    def _lose(
        self, loss: SiteLossView, rows: list[int], gone: list[tuple[Cohort, list[Unit]]]
    ) -> Iterator[int]:
        """On a copy of the base; everybody stands there again afterwards."""
        trial = Trial(self.trial.view, self.trial.popularity, self.trial.policies)
        trial.lose(rows)
        yield 1_000 + self.outlook.count // 2
        for cohort, units in gone:
            cohort.step_off(units)
        for wave in self.roster.in_order(gone):
            placed = trial.fill(self.roster.party(wave.first, wave.units))
            loss.moved += placed
            loss.broken += len(wave.units) - placed
            yield self._cost_us(wave)
        for cohort, units in gone:
            cohort.step_on(units)
        loss.utilisation = round(trial.room().utilisation, 4)


_COUNTS = ("moved", "broken", "placed", "waiting", "stayed", "ended", "left_out")


def _enter(view: PlanView, kind: str, rows: list[PlannedTask], task: PlannedTask) -> None:
    view.counts[kind] += 1
    if len(rows) < ROWS_MAX:
        rows.append(task)


def _room_view(room: RoomLeft) -> RoomView:
    return RoomView(room.devices, room.offered, room.free, room.largest, round(room.utilisation, 4))
