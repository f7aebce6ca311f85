"""Plan notes: what a plan's numbers leave out, in sentences.

A plan preempts nobody. So it may say that an important task finds no place, where really
others would give way to it: then a note says who. The victims are those that preemption
would look for, on the plan's copy; that they are asked for together, and bounded, is not
foretold, nor what becomes of them.
Rule of this file: it looks at one task of each of the first jobs, and reserves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from controller.core.ledger import Ledger
from controller.core.outlook import Outlook
from controller.core.plan_parties import Cohort, Roster
from controller.core.preemption import DELTA
from controller.core.records import AttemptState, Constraint, JobRow
from controller.scheduler.pick import NO_DEVICE
from controller.scheduler.victims import LEAVES, Endable, Holdings, cheapest
from controller.scheduler.whatif import Trial, Unit

JOBS_MAX = 8
"""Each is a search over the fleet."""
NAMED_MAX = 5
NOTED_AT_ONCE = 500
"""Devices to a slice: some 10 ms."""


@dataclass(slots=True)
class Yielders:
    """Who would give way to whom, after all that was planned."""

    ledger: Ledger
    outlook: Outlook
    roster: Roster
    trial: Trial
    _holdings: Holdings | None = field(default=None, init=False)

    def notes(self, breaking: dict[str, Unit], found: list[str]) -> Iterator[int]:
        """One for each job that would make room for a task of it; `breaking`: one task by job."""
        cohorts = [self.roster.cohorts[name] for name in breaking]
        urgent = sorted((c for c in cohorts if self._may(c)), key=lambda cohort: cohort.order)[:JOBS_MAX]
        for cohort in urgent:
            if self._holdings is None:
                self._holdings = Holdings(self.trial.view)
                yield from self._learn(self._holdings)
            if words := self._look(cohort, breaking[cohort.name], self._holdings):
                found.append(words)
            yield 5_000 + self.outlook.count

    def _may(self, cohort: Cohort) -> bool:
        """As preemption has it; a gang that stands nowhere asks nobody to leave."""
        row = cohort.job.row
        at_bound = row.rules.out_max and len(cohort.standing) >= row.rules.out_max
        return row.priority >= DELTA and not at_bound and not (row.rules.gang and not cohort.standing)

    def _learn(self, holdings: Holdings) -> Iterator[int]:
        for row in range(self.outlook.count):
            if held := self._held(row):
                holdings.note(row, [endable for _, endable in held])
            if row % NOTED_AT_ONCE == 0:
                yield 20 * NOTED_AT_ONCE

    def _held(self, row: int) -> list[tuple[str, Endable]]:
        """Job and reservation of all that may have to go; daemons never do."""
        held = [
            (job.row.id, Endable(job.row.priority, unit.share, job.demand.entry_bytes))
            for job, unit in self.roster.here(row)
            if not job.daemon
        ]
        if row < self.outlook.known and not self.roster.knows(row):
            for attempt in self.ledger.by_device[row].values():
                leaves = attempt.row.state is AttemptState.REMOVED
                if leaves or not attempt.job.daemon:
                    priority = LEAVES if leaves else attempt.job.row.priority
                    reserved = Endable(priority, attempt.share, attempt.job.demand.entry_bytes)
                    held.append((attempt.job.row.id, reserved))
        return held

    def _look(self, cohort: Cohort, unit: Unit, holdings: Holdings) -> str:
        party = self.roster.party(cohort, [unit])
        picker = self.trial.picker(party)
        view, demand = self.trial.view, picker.demand
        allowed = view.ready.copy()
        if unit.pin != NO_DEVICE:
            allowed &= np.arange(view.count) == unit.pin
        for column in demand.eligible.values():
            allowed &= column
        if (grouping := party.grouping(picker.able())) is not None:
            allowed &= grouping.allows()

        def held_on(row: int) -> list[Endable]:
            return [endable for _, endable in self._held(row)]

        choice = cheapest(view, demand, allowed, holdings, cohort.job.row.priority - DELTA, held_on)
        if choice is None or not choice.victims:
            return ""
        held = self._held(choice.row)
        jobs = list(dict.fromkeys(held[place][0] for place in choice.victims))
        more = f" and {len(jobs) - NAMED_MAX:,} more jobs" if len(jobs) > NAMED_MAX else ""
        device = self.outlook.name(choice.row)
        who = ", ".join(jobs[:NAMED_MAX]) + more
        return f"{cohort.name} would make others of lower priority give way on {device}: {who}"


def replaced(before: JobRow, after: JobRow) -> list[str]:
    """What a changed job has no longer, because lists are said as a whole."""
    notes = []
    constraints = [c for c in before.spec.constraints if c not in after.spec.constraints]
    if constraints:
        told = ", ".join(map(_condition, constraints))
        notes.append(f"{before.id} would have other constraints, and no longer: {told}")
    tolerations = [t for t in before.spec.tolerations if t not in after.spec.tolerations]
    if tolerations:
        notes.append(f"{before.id} would have other tolerations, and no longer: {', '.join(tolerations)}")
    return notes


def _condition(condition: Constraint) -> str:
    return " ".join(filter(None, (condition.attribute, condition.operator, condition.value)))
