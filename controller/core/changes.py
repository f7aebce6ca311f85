"""Changes: what somebody imagines happening to the fleet, as data.

Only `foresight` reads them, and it changes nothing; the same words are in the bodies of
the API. A change names devices, sites and jobs; whether they exist is found out there.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.records import Constraint, DeviceRow, JobRow


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
class DemandChange:
    """The tasks of a job ask for something else. `amounts`: by resource or extra; None: as before."""

    job: str
    amounts: tuple[tuple[str, int], ...] = ()
    constraints: tuple[Constraint, ...] | None = None


Change = DrainChange | LossChange | GrowthChange | SubmitChange | DemandChange
