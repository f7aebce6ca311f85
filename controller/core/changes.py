"""Changes: what somebody imagines happening to the fleet, as data.

Only `foresight` reads them, and it changes nothing; the same words are in the bodies of
the API. A change names devices, sites and jobs; whether they exist is found out there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.core.records import Constraint, DeviceRow, JobRow
from protocol.resources import NAMES


@dataclass(slots=True, frozen=True)
class DrainChange:
    """These devices take nothing new, and what they have moves."""

    devices: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class LossChange:
    """These devices, and all of these sites, are gone. A device without a site is of the site ''."""

    devices: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class GrowthChange:
    """So many more devices that say this of themselves."""

    count: int
    device: DeviceRow


@dataclass(slots=True, frozen=True)
class SubmitChange:
    """A job is declared."""

    job: JobRow


@dataclass(slots=True, frozen=True)
class JobChange:
    """An open job is another one. `amounts`: by resource or extra; None anywhere: as before.

    Tasks from index `count` on end, or as many are added. A daemon has no count.
    """

    job: str
    amounts: tuple[tuple[str, int], ...] = ()
    constraints: tuple[Constraint, ...] | None = None
    tolerations: tuple[str, ...] | None = None
    count: int | None = None
    policy: str | None = None

    def of(self, row: JobRow) -> JobRow:
        """The job as it would be."""
        amounts = dict(self.amounts)
        common = {name: amount for name, amount in amounts.items() if name in NAMES}
        extras = row.spec.extras | {name: amount for name, amount in amounts.items() if name not in NAMES}
        spec = replace(row.spec, resources=row.spec.resources._replace(**common), extras=extras)
        if self.constraints is not None:
            spec = replace(spec, constraints=self.constraints)
        if self.tolerations is not None:
            spec = replace(spec, tolerations=self.tolerations)
        rules = row.rules if self.policy is None else replace(row.rules, policy=self.policy)
        return replace(row, spec=spec, rules=rules, count=row.count if self.count is None else self.count)


Change = DrainChange | LossChange | GrowthChange | SubmitChange | JobChange
