"""Explaining: why tasks wait, where they are and why there, for people and for counting.

Rule of this file: it reads everything and changes nothing. What holds a task back before
any device is looked at (a pause, another job, a bound of its own) is told first; then the
scheduler explains, and rows and codes become names and words here.
A placed task is explained on a copy of the view, as if it were placed anew now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from controller.core.broken_gangs import together
from controller.core.conditions import of_group
from controller.core.failover import Failover
from controller.core.ledger import Job, Ledger, Task
from controller.core.near_names import unknown_names
from controller.core.placement import Placement
from controller.core.remedy_words import RemedyWords
from controller.core.views import ExplainView, FilterView, RemedyView, ScoreView, WaitsView
from controller.scheduler.explain import FITS, GANG, PARALLEL, Explanation, Why, explain, why_none
from controller.scheduler.fragmenting import picker_of
from controller.scheduler.gangs import Gang, gang_remedies
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE, Picker
from controller.scheduler.policies import POLICIES
from controller.scheduler.remedies import ANY_DEVICE, REMEDIES_MAX
from controller.scheduler.view import Demand, Flags, View
from protocol.tasks import AttemptId, TaskState

PAUSE, HELD_BACK, DEPENDENCY, UNEXAMINED = "pause", "held_back", "dependency", "unexamined"
NOMINATED = "nominated"
"""Reasons beside those of `scheduler.explain.CODES`; all together are the labels of a metric."""
LOOKS_MAX = 2_000_000
"""Devices x kinds of demand that are looked at to count who waits for what: some 20 ms."""


class Explaining:
    """Answers why."""

    def __init__(self, ledger: Ledger, placement: Placement, failover: Failover) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.placement = placement
        self.requests = placement.requests
        self.failover = failover
        self.words = RemedyWords(ledger.fleet)
        self._reasons: dict[str, str] = {}
        """Code by kind of demand, as of `_seen`."""
        self._seen: tuple[int, ...] = ()
        self.room_for: Callable[[Task, int], RemedyView | None] = lambda task, now_ms: None
        """The plan of moves that would make room for a task, as a remedy."""

    # ------------------------------------------------------------- one task

    def explain(self, task: Task, now_ms: int) -> ExplainView:
        """Why this task is where it is, or nowhere, as of now."""
        if task.row.state is not TaskState.PENDING:
            return self._placed(task)
        picker = self.placement.picker(task.job)
        found = self._pending(task, picker)
        held = self.held(task, now_ms)
        if held is None and self._together(task.job):
            found = self._whole(task.job, picker, found)
        elif held is None and (broken := self.placement.gangs.words(task.job, now_ms)):
            found = replace(found, summary=f"{broken}; {found.summary}", code=GANG)
        words = [held.words if held else found.summary]
        if not found.candidates:
            words += unknown_names(self.fleet, task.job.row.spec, self._present())
        view = self._view(task, picker, found, "; ".join(words))
        view.reason = held.code if held else found.code
        if held:
            view.remedies = []  # whatever changes, it waits
        elif (moves := self.room_for(task, now_ms)) is not None:
            view.remedies = sorted([*view.remedies, moves], key=lambda r: r.cost)[:REMEDIES_MAX]
        return view

    def waits(self, tasks: tuple[str, ...], now_ms: int) -> WaitsView:
        """Why each of these tasks is pending; equal demands are looked at once."""
        known, reasons = dict[tuple[str, str], str](), dict[str, str]()
        for task_id in tasks:
            task = self.ledger.tasks.get(task_id)
            if task is None or task.row.state is not TaskState.PENDING:
                continue
            if held := self.held(task, now_ms):
                reasons[task_id] = held.words
                continue
            # What a group's tasks allow each other depends on the job, not on its demand alone.
            own = task.row.pin or (task.row.job if _of_its_own(task.job) else "")
            key = (task.job.signature, own)
            if key not in known:
                picker = self.placement.picker(task.job)
                words = self._briefly(task.job, picker) if self._together(task.job) else ""
                words = words or self.placement.gangs.words(task.job, now_ms)
                known[key] = words or self._pending(task, picker).summary
            reasons[task_id] = known[key]
        return WaitsView(reasons)

    def _pending(self, task: Task, picker: Picker) -> Explanation:
        grouping = self.requests.grouping(task.job, picker.able())
        return explain(picker, grouping, self._only(task), self._present())

    def _placed(self, task: Task) -> ExplainView:
        """As it would be placed now, were it not where it is."""
        row, job, view = task.row, task.job, self.fleet.view.copy()
        attempt = self.ledger.attempts.get(AttemptId(row.id, row.attempt))
        if attempt is not None:
            view.give(attempt.device, attempt.share, job.demand.entry_bytes)
        known = self.placement.picker(job)
        picker = picker_of(view, known.demand, self.placement.bases_on(view), known.policy_name)
        grouping = self.requests.grouping(job, picker.able())
        if grouping is not None and attempt is not None:
            grouping.unplaced(attempt.device)
        found = explain(picker, grouping, self._only(task), self._present())
        shown = self._view(task, picker, found, f"placed on {row.device}{self._silent(row.device)}")
        if attempt is not None:
            shown.chosen = [ScoreView(self.fleet.names[at], score) for at, score in attempt.tops]
        return shown

    def _silent(self, device: str) -> str:
        row = self.fleet.index.get(device, NO_DEVICE)
        if row != NO_DEVICE and int(self.fleet.site[row]) in self.failover.frozen:
            return "; failover of its site is frozen, so it stays there for now"
        return ""

    def _view(self, task: Task, picker: Picker, found: Explanation, summary: str) -> ExplainView:
        row, names, name = task.row, self.fleet.names, picker.policy_name
        spec, together = task.job.row.spec, task.job.left
        return ExplainView(
            row.id, row.state, row.device, summary,
            [FilterView(words, gone) for words, gone in found.removed],
            [ScoreView(names[r], total, parts) for r, total, parts in found.candidates],
            policy=f"{name}: {POLICIES[name].says}",
            remedies=[self.words.view(r, picker.demand, spec, together) for r in found.remedies],
        )  # fmt: skip

    def _only(self, task: Task) -> int:
        return self.fleet.index.get(task.row.pin, ANY_DEVICE) if task.row.pin else ANY_DEVICE

    def _present(self) -> Flags:
        present: Flags = ~self.fleet.removed[: self.fleet.count]
        return present

    # ------------------------------------------------------------- before any device is looked at

    def held(self, task: Task, now_ms: int) -> Why | None:
        """What keeps it from being looked at."""
        if (due_ms := self.ledger.deadlines.due_of("ready", task.row.id)) is not None:
            seconds, attempt = max(0, due_ms - now_ms) / 1000, task.row.attempt + 1
            return Why(PAUSE, f"waits {seconds:.1f} s before attempt {attempt}, after: {task.row.reason}")
        if now_ms < self.placement.not_before_ms:
            seconds = (self.placement.not_before_ms - now_ms) / 1000
            words = f"nothing is placed for {seconds:.0f} s: the database may be older than the fleet"
            return Why(HELD_BACK, words)
        if (nomination := self.placement.nominations.by_task.get(task.row.id)) is not None:
            device, runs = self.fleet.names[nomination.row], len(nomination.victims)
            end = f"{runs} of its runs to end" if runs else "what runs there to end"
            if nomination.together:
                words = f"room for all of its gang is kept, its own on {device}; waits for {end}"
                return Why(NOMINATED, words)
            return Why(NOMINATED, f"room on {device} is set aside for it; waits for {end}")
        return self._job_held(task.job)

    def _job_held(self, job: Job) -> Why | None:
        for name, until in job.waits.items():
            more = f", and {len(job.waits) - 1} more" if len(job.waits) > 1 else ""
            end = "succeed" if until == "succeeded" else "end"
            return Why(DEPENDENCY, f"waits for job {name} to {end}{more}")
        most = job.row.rules.out_max
        if most and len(job.placed) >= most:
            words = f"waits for its own job: {len(job.placed)} of its tasks are out, parallel_max is {most}"
            return Why(PARALLEL, words)
        return None

    # ------------------------------------------------------------- gangs

    def _whole(self, job: Job, picker: Picker, one: Explanation) -> Explanation:
        """What is to be told of a gang, beside what is true of each of its tasks."""
        fit, why = self._gang(job, picker)
        if why is None:
            return one
        options = [] if len(job.ready) < job.left else gang_remedies(self._counted(job, picker), fit)
        return Explanation(why.words, one.removed, one.candidates, why.code, options)

    def _gang(self, job: Job, picker: Picker) -> tuple[int, Why | None]:
        """How many of a gang fit at once, and what keeps the whole of it; None where nothing does."""
        if len(job.ready) < job.left:
            return 0, Why(
                GANG, f"its gang waits until all of it is ready: {len(job.ready)} of {job.left} are"
            )
        view = self.fleet.view.copy()
        grouping = self.requests.grouping(job, picker.able())
        fit = self._stand(view, picker.demand, grouping, picker.policy_name, job.left)
        if fit == job.left:
            return fit, None
        why = why_none(view, picker.demand, grouping, present=self._present())
        return fit, Why(GANG, f"{_only(fit)} of its gang of {job.left} fit at once; the next {why.words}")

    def _together(self, job: Job) -> bool:
        """Whether it is a gang that is placed as a whole, or not at all."""
        return job.left > 1 and together(self.ledger, job)

    def _briefly(self, job: Job, picker: Picker) -> str:
        """As `_gang`, for a page of many: counted where counting tells, as picks take their time."""
        gang = self._counted(job, picker)
        if len(job.ready) < job.left or not gang.nests:
            why = self._gang(job, picker)[1]
            return why.words if why else ""
        fit = gang.fit()
        return "" if fit >= job.left else f"{_only(fit)} of its gang of {job.left} fit at once"

    def _stand(self, view: View, demand: Demand, grouping: Grouping | None, policy: str, count: int) -> int:
        """Places up to `count` tasks on this view; how many there was room for."""
        picker = picker_of(view, demand, self.placement.bases_on(view), policy)
        if grouping is None and not picker.policy.in_turn:
            rows = picker.many(count)
            view.take_many(np.array(rows, np.int64), demand)
            return len(rows)
        for done in range(count):
            row = picker.pick(grouping=grouping)
            if row == NO_DEVICE:
                return done
            view.take(row, picker.share(row), demand.entry_bytes)
            if grouping is not None:
                grouping.placed(row)
        return count

    def _counted(self, job: Job, picker: Picker) -> Gang:
        def tries(demand: Demand, without: str) -> int:
            view = self.fleet.view.copy()
            able = picker_of(view, demand, self.placement.bases_on(view), picker.policy_name).able()
            grouping = self.requests.grouping(job, able)
            left = grouping.copy(without) if grouping is not None else None
            return self._stand(view, demand, left, picker.policy_name, job.left)

        grouping = self.requests.grouping(job, picker.able())
        return Gang(self.fleet.view, picker.demand, job.left, grouping, self._present(), tries)

    # ------------------------------------------------------------- all tasks

    def pending(self, total: int, now_ms: int) -> dict[str, int]:
        """How many of the `total` pending tasks wait for what: one look per kind of demand, remembered
        while nothing changes. What no queue has is in the pause before a retry."""
        counts: Counter[str] = Counter()
        placements = self.ledger.counters.get("placements", 0)
        seen = (self.fleet.room_generation, *self.requests.era(), placements)
        if seen != self._seen:
            self._seen, self._reasons = seen, {}
        looks = max(1, LOOKS_MAX // max(1, self.fleet.count))
        for job in self.ledger.waiting.values():
            if now_ms < self.placement.not_before_ms:
                counts[HELD_BACK] += len(job.ready)
            elif held := self._job_held(job):
                counts[held.code] += len(job.ready)
            elif self.placement.gangs.words(job, now_ms):
                counts[GANG] += len(job.ready)
            else:
                counts[self._reason(job, looks)] += len(job.ready)
        counts[DEPENDENCY] += sum(job.left for job in self.ledger.jobs.values() if job.waits)
        counts[PAUSE] += total - counts.total()
        return {reason: count for reason, count in sorted(counts.items()) if count > 0}

    def _reason(self, job: Job, looks: int) -> str:
        own = job.row.id if _of_its_own(job) else ""
        key = job.signature + own
        if key not in self._reasons:
            if len(self._reasons) >= looks:
                return UNEXAMINED
            picker = self.placement.picker(job)
            grouping = self.requests.grouping(job, picker.able())
            able = picker.able() if grouping is None else picker.able() & grouping.allows()
            if self._together(job):
                code = GANG
            elif not able.any():
                code = why_none(self.fleet.view, picker.demand, grouping, present=self._present()).code
            else:
                code = FITS
            self._reasons[key] = code
        return self._reasons[key]


def _only(fit: int) -> str:
    return f"only {fit}" if fit else "none"


def _of_its_own(job: Job) -> bool:
    """Whether its tasks' places depend on each other, and not on the demand alone."""
    spec, rules = job.row.spec, job.row.rules
    return bool(rules.gang or rules.parallel_max or any(map(of_group, spec.constraints)))
