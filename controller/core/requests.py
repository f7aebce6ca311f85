"""Requests: a job's words about devices, as columns that the scheduler understands.

Constraints and taints become columns of yes and no, affinities and `prefer_not` a column
of likes, spreads and distincts a grouping. Columns follow the facts of the fleet; they
are made again only when a device described itself anew. It judges nothing itself.
"""

from __future__ import annotations

from typing import Protocol

from controller.core.conditions import most_per_value, of_group
from controller.core.ledger import Job
from controller.core.records import Constraint
from controller.scheduler.groups import Distinct, Grouping, Shares, affinity, shares_of
from controller.scheduler.view import Demand, Flags, Floats, Ints

WISH_WEIGHT = 0.5
"""A job's own wishes against all that a policy says: strong, but a full device stays worse."""


class FactColumns(Protocol):
    """What `core.facts` answers."""

    def flags(self, attribute: str, operator: str, value: str) -> Flags: ...

    def codes(self, attribute: str) -> tuple[Ints, list[str]]: ...

    def bearings(self, tolerations: tuple[str, ...]) -> tuple[Flags, Floats, Flags]: ...


class Ground(Protocol):
    """Devices that requests are about: the fleet, or one that somebody imagines."""

    @property
    def facts(self) -> FactColumns: ...

    @property
    def count(self) -> int: ...

    @property
    def facts_generation(self) -> int: ...


class Requests:
    """Translates for one fleet."""

    def __init__(self, fleet: Ground) -> None:
        self.fleet = fleet

    def era(self) -> tuple[int, int]:
        """As long as it is the same, columns made before hold."""
        return self.fleet.facts_generation, self.fleet.count

    def demand(self, job: Job) -> Demand:
        """What one task of the job asks for, with columns of now."""
        if job.demand_era != (era := self.era()):
            job.demand_era = era
            job.demand.eligible = self._eligible(job)
            job.demand.wish = self._wish(job)
            job.demand.wish_weight = WISH_WEIGHT
        return job.demand

    def _eligible(self, job: Job) -> dict[str, Flags]:
        spec, facts = job.row.spec, self.fleet.facts
        eligible = {f"runtime {spec.runtime}": facts.flags("runtime", "=", spec.runtime)}
        for c in spec.constraints:
            if not of_group(c):
                eligible[_words(c)] = facts.flags(c.attribute, c.operator, c.value)
        allowed, _, _ = facts.bearings(spec.tolerations)
        if not allowed.all():
            eligible["taints tolerated"] = allowed
        return eligible

    def _wish(self, job: Job) -> Floats | None:
        spec, facts = job.row.spec, self.fleet.facts
        _, penalty, _ = facts.bearings(spec.tolerations)
        if not spec.affinities and not penalty.any():
            return None
        columns = [facts.flags(a.attribute, a.operator, a.value) for a in spec.affinities]
        return affinity(columns, [a.weight for a in spec.affinities], self.fleet.count) - penalty

    def grouping(self, job: Job, candidates: Flags | None = None) -> Grouping | None:
        """Counts of the job's tasks where they stand now; None where nothing asks for it."""
        spec = job.row.spec
        together = [c for c in spec.constraints if of_group(c)]
        if not together and not spec.spreads:
            return None
        distincts = [Distinct(_words(c), self._codes(c), most_per_value(c)) for c in together]
        shares = []
        for spread in spec.spreads:
            codes, names = self.fleet.facts.codes(spread.attribute)
            wanted = shares_of(names, spread.targets)
            shares.append(Shares(f"spread over {spread.attribute}", codes, wanted, spread.weight))
        return Grouping(self.fleet.count, distincts, shares, list(job.placed.values()), candidates)

    def _codes(self, constraint: Constraint):  # type: ignore[no-untyped-def]
        if constraint.operator == "distinct_device":
            return None
        return self.fleet.facts.codes(constraint.attribute)[0]


def _words(constraint: Constraint) -> str:
    return f"{constraint.attribute} {constraint.operator} {constraint.value}".strip()
