"""Outlook: a fleet as it is imagined: today's devices and those that a plan adds.

Rule of this file: it is to `requests` what the fleet is, so that the same words about
devices become the same columns. The fleet's own columns are read and lengthened, never
written; devices that join after the outlook was made are not in it.
Rejected: new columns over all devices (10,000 records are read again for one that is added).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from controller.core.facts import Facts
from controller.core.fleet import DOCUMENT_BYTES_MAX, Fleet, accelerators_of
from controller.core.records import DeviceRow
from controller.scheduler.view import Flags, Floats, Ints, View
from protocol.limits import DOCUMENT_ATTEMPTS_MAX
from protocol.resources import ZERO


class Outlook:
    """Implements `requests.Ground` and, by itself, its facts."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.known = fleet.count
        """Devices of today."""
        self.added: list[DeviceRow] = []
        self._facts = Facts(self.added)
        self._sites = dict(fleet.sites)
        self._site: list[int] = fleet.site[: self.known].tolist()
        self._lost: dict[int, None] = {}

    @property
    def facts(self) -> Outlook:
        return self

    @property
    def count(self) -> int:
        return self.known + len(self.added)

    @property
    def facts_generation(self) -> int:
        return self.fleet.facts_generation

    # ------------------------------------------------------------- devices

    def add(self, record: DeviceRow, view: View) -> int:
        """One more device, online and empty; its row in `view`."""
        self.added.append(record)
        site = record.labels.get("site", "")
        self._site.append(self._sites.setdefault(site, len(self._sites)))
        row = view.add()
        offered = self.fleet.offer(record.profile, record.capacity)
        if not offered.slots:
            offered = offered._replace(slots=DOCUMENT_ATTEMPTS_MAX)
        view.core_speed_milli[row] = record.core_speed_milli
        view.document_bytes_free[row] = DOCUMENT_BYTES_MAX
        view.offer(row, offered, ZERO, accelerators_of(record), record.extras)
        view.online[row] = view.open[row] = view.fit[row] = True
        return row

    def lose(self, rows: Iterable[int]) -> None:
        """They are gone, and no part of their sites any more."""
        self._lost |= dict.fromkeys(rows)

    def name(self, row: int) -> str:
        return self.fleet.names[row] if row < self.known else self.added[row - self.known].device

    def record(self, row: int) -> DeviceRow:
        return self.fleet.records[row] if row < self.known else self.added[row - self.known]

    def free_names(self, count: int) -> list[str]:
        """Names for devices to add, that none has."""
        taken = {record.device for record in self.added}
        found: list[str] = []
        number = 0
        while len(found) < count:
            number += 1
            name = f"new-{number}"
            if name not in self.fleet.index and name not in taken:
                found.append(name)
        return found

    # ------------------------------------------------------------- sites

    def sites(self) -> dict[str, int]:
        """Number by name, of sites that a device has."""
        there = dict.fromkeys(np.array(self._site, np.int64)[self._there()].tolist())
        return {name: number for name, number in self._sites.items() if number in there}

    def site_rows(self, number: int) -> Ints:
        """Devices of a site."""
        return np.flatnonzero((np.array(self._site, np.int64) == number) & self._there())

    def _there(self) -> Flags:
        """Devices that were neither removed nor lost."""
        there: Flags = np.ones(self.count, np.bool_)
        there[: self.known] = ~self.fleet.removed[: self.known]
        there[list(self._lost)] = False
        return there

    # ------------------------------------------------------------- facts, as the fleet's

    def flags(self, attribute: str, operator: str, value: str) -> Flags:
        """As `facts.Facts.flags`."""
        own = self.fleet.facts.flags(attribute, operator, value)[: self.known]
        return np.concatenate([own, self._facts.flags(attribute, operator, value)]) if self.added else own

    def codes(self, attribute: str) -> tuple[Ints, list[str]]:
        """As `facts.Facts.codes`."""
        own, names = self.fleet.facts.codes(attribute)
        own = own[: self.known]
        if not self.added:
            return own, names
        more, others = self._facts.codes(attribute)
        known = {name: code for code, name in enumerate(names)}
        translated = [known.setdefault(name, len(known)) for name in others]
        again = np.array([*translated, -1], np.int64)
        return np.concatenate([own, again[more]]), list(known)

    def bearings(self, tolerations: tuple[str, ...]) -> tuple[Flags, Floats, Flags]:
        """As `facts.Facts.bearings`."""
        allowed, penalty, leaves = self.fleet.facts.bearings(tolerations)
        own = (allowed[: self.known], penalty[: self.known], leaves[: self.known])
        if not self.added:
            return own
        more = self._facts.bearings(tolerations)
        return (
            np.concatenate([own[0], more[0]]),
            np.concatenate([own[1], more[1]]),
            np.concatenate([own[2], more[2]]),
        )
