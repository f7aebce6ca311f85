"""What-if: places tasks on a copy of the fleet, by the very pick that places them in earnest.

Rule of this file: a `Trial` owns its copy of the view; nothing that is done to it can be
seen elsewhere. Devices are closed, lost or added; tasks are taken off and placed anew,
job by job in the order in which they are brought. Who is brought when, and what all of it
is called, is not known here. Nobody is preempted: a trial tells what there is room for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from math import comb
from typing import NamedTuple

import numpy as np

from controller.scheduler.explain import GANG, PARALLEL, Why, why_none
from controller.scheduler.fragmenting import picker_of
from controller.scheduler.groups import Grouping
from controller.scheduler.pick import NO_DEVICE, Bases, Picker
from controller.scheduler.policies import POLICIES, Policies, resolve, utilisation
from controller.scheduler.popularity import Popularity
from controller.scheduler.view import NOTHING, Demand, Flags, Share, View
from protocol.resources import Resources

PICKERS_MAX = 64
TRIED_MAX = 500
MANY = 64
"""From so many alike on, foretelling all of them at once is cheaper than one pick each."""
_ALL = slice(None)


class Unit(NamedTuple):
    """A task that needs a place. `row`: where it stands, or stood; `pin`: its only device."""

    name: str
    row: int = NO_DEVICE
    share: Share = NOTHING
    pin: int = NO_DEVICE


class Landing(NamedTuple):
    """Where a task came to stand: `row` and what it reserves there, or why nowhere."""

    unit: Unit
    row: int
    share: Share = NOTHING
    why: Why | None = None


@dataclass(slots=True)
class Party:
    """Tasks of one job that are placed together, by the rules of that job.

    `key` is equal for parties that ask for the same; `demand` and `grouping` (given the devices that
    could take it) are only called when they are needed. `out`: how many others of the job stand; `kin`:
    who of them falls with a gang that doesn't find room for all units.
    """

    units: list[Unit]
    key: str
    policy: str
    demand: Callable[[], Demand]
    grouping: Callable[[Flags], Grouping | None] = field(default=lambda able: None)
    gang: bool = False
    parallel_max: int = 0
    out: int = 0
    kin: list[Unit] = field(default_factory=list)

    @property
    def together(self) -> bool:
        """Whether all of it finds room, or none."""
        return self.gang and (bool(self.kin) or not self.out)


class RoomLeft(NamedTuple):
    """Of the devices that may be given work: how many, what they offer, what of it is free, the most on
    one of them, and the reserved share of the scarcest resource."""

    devices: int
    offered: Resources
    free: Resources
    largest: Resources
    utilisation: float


class Trial:
    """A copy of a fleet's room, to try things on."""

    def __init__(
        self, view: View, popularity: Popularity | None = None, policies: Policies = POLICIES
    ) -> None:
        self.view = view.copy()
        self.popularity, self.policies = popularity, policies
        self._bases = Bases(self.view, popularity, policies)
        self._pickers: OrderedDict[tuple[str, str], Picker] = OrderedDict()

    # ------------------------------------------------------------- devices

    def close(self, rows: Sequence[int]) -> None:
        """Nothing more is placed there."""
        self.view.open[list(rows)] = False
        self.view.touch_all()

    def lose(self, rows: Sequence[int]) -> None:
        """They are gone, and what they offered."""
        self.view.online[list(rows)] = False
        self.view.touch_all()

    def grown(self) -> None:
        """Devices were added to the view: nothing remembered has their rows."""
        self._bases = Bases(self.view, self.popularity, self.policies)
        self._pickers.clear()

    # ------------------------------------------------------------- tasks

    def picker(self, party: Party) -> Picker:
        key = (party.key, resolve(party.policy, self.view))
        picker = self._pickers.get(key)
        if picker is None:
            picker = self._pickers[key] = picker_of(self.view, party.demand(), self._bases, key[1])
            if len(self._pickers) > PICKERS_MAX:
                self._pickers.popitem(last=False)
        return picker

    def vacate(self, unit: Unit, entry_bytes: int) -> None:
        """Gives back what it reserves where it stands."""
        self.view.give(unit.row, unit.share, entry_bytes)

    def place(self, party: Party) -> Iterator[Landing]:
        """Reserves for each of the units, as far as there is room; in their order. Kin that fall are last."""
        picker = self.picker(party)
        grouping = party.grouping(picker.able())
        units, late = _within(party)
        if party.together:
            yield from self._gang(picker, grouping, units, party.kin)
        elif grouping is None and not picker.policy.in_turn and _alike(units):
            yield from self._alike(picker, units)
        else:
            yield from self._singly(picker, grouping, units)
        for unit in late:
            why = Why(PARALLEL, f"waits for its own job, of which {party.parallel_max} tasks run at a time")
            yield Landing(unit, NO_DEVICE, NOTHING, why)

    def fill(self, party: Party) -> int:
        """How many of the units find a place: as `place`, where nobody asks who and where."""
        picker = self.picker(party)
        units, _ = _within(party)
        grouping = party.grouping(picker.able())
        if party.together or grouping is not None or picker.policy.in_turn or not _alike(units):
            return sum(landing.row != NO_DEVICE for landing in self.place(party))
        rows = picker.many(len(units))
        self.view.take_many(np.array(rows, np.int64), picker.demand)
        return len(rows)

    def stay(self, picker: Picker, unit: Unit, grouping: Grouping | None = None) -> Landing | None:
        """Reserves for it where it stood, if that is possible, and the job's other tasks allow it."""
        if not picker.fits(unit.row) or (grouping is not None and not grouping.allows()[unit.row]):
            return None
        if grouping is not None:
            grouping.placed(unit.row)
        return self._take(picker, unit, unit.row)

    def more(self, party: Party) -> int:
        """How many more of it there is room for, each on its own, as the rules of its job allow.

        Where two labels bound the job across each other they are tried, and no more than `TRIED_MAX`."""
        picker = self.picker(party)
        able = picker.able()
        copies = np.where(able, self.view.copies(picker.demand, _ALL), 0)
        grouping = party.grouping(able)
        most = int(copies.sum()) if grouping is None else grouping.most(copies)
        if most is None:
            copy = Trial(self.view, self.popularity, self.policies)
            units = [Unit(str(i)) for i in range(min(TRIED_MAX, int(copies.sum())))]
            most = copy.fill(replace(party, units=units, gang=False, parallel_max=0))
        return min(most, max(0, party.parallel_max - party.out)) if party.parallel_max else most

    def _take(self, picker: Picker, unit: Unit, row: int) -> Landing:
        share = picker.share(row)
        self.view.take(row, share, picker.demand.entry_bytes)
        return Landing(unit, row, share)

    def _alike(self, picker: Picker, units: list[Unit]) -> Iterator[Landing]:
        rows = picker.many(len(units))
        for unit, row in zip(units, rows, strict=False):
            yield self._take(picker, unit, row)
        yield from self._nowhere(picker, None, units[len(rows) :])

    def _singly(self, picker: Picker, grouping: Grouping | None, units: list[Unit]) -> Iterator[Landing]:
        for at, unit in enumerate(units):
            if unit.pin != NO_DEVICE:
                row = unit.pin if picker.fits(unit.pin) else NO_DEVICE
            else:
                row = picker.pick(grouping=grouping)
            if row != NO_DEVICE:
                if grouping is not None:
                    grouping.placed(row)
                yield self._take(picker, unit, row)
            elif unit.pin != NO_DEVICE:
                yield from self._nowhere(picker, grouping, [unit])
            else:  # what doesn't fit for one fits for none of the others
                yield from self._nowhere(picker, grouping, units[at:])
                return

    def _gang(
        self, picker: Picker, grouping: Grouping | None, units: list[Unit], kin: list[Unit]
    ) -> Iterator[Landing]:
        turn = self.view.turn.copy()
        landed = list(self._singly(picker, grouping, units))
        missing = [landing for landing in landed if landing.row == NO_DEVICE]
        if not missing:
            yield from landed
            return
        for landing in reversed(landed):
            if landing.row != NO_DEVICE:
                self.view.give(landing.row, landing.share, picker.demand.entry_bytes)
        self.view.turn[:] = turn  # what was only tried is nobody's turn
        for unit in kin:
            self.vacate(unit, picker.demand.entry_bytes)
        total = len(kin) + len(landed)
        fit, why = total - len(missing), missing[0].why
        words = f"only {fit} of its gang of {total} fit at once; the next {why.words if why else ''}"
        for unit in (*units, *kin):
            yield Landing(unit, NO_DEVICE, NOTHING, Why(GANG, words))

    def _nowhere(self, picker: Picker, grouping: Grouping | None, units: Sequence[Unit]) -> Iterator[Landing]:
        if not units:
            return
        why = why_none(self.view, picker.demand, grouping, units[0].pin)
        for unit in units:
            yield Landing(unit, NO_DEVICE, NOTHING, why)

    # ------------------------------------------------------------- what is left

    def room(self) -> RoomLeft:
        """Sums over the devices that may be given work."""
        return room_of(self.view)


def room_of(view: View) -> RoomLeft:
    """Sums over the devices that may be given work."""
    ready = view.ready
    offered, free, largest = [], [], []
    for all_, left in zip(view.offered, view.free, strict=True):
        left = np.maximum(left[ready], 0)
        offered.append(int(all_[ready].sum()))
        free.append(int(left.sum()))
        largest.append(int(left.max(initial=0)))
    return RoomLeft(
        int(ready.sum()), Resources(*offered), Resources(*free), Resources(*largest), utilisation(view)
    )


def _alike(units: list[Unit]) -> bool:
    """Whether they are many, and have no device of their own."""
    return len(units) >= MANY and not any(unit.pin != NO_DEVICE for unit in units)


def _within(party: Party) -> tuple[list[Unit], list[Unit]]:
    """The units that may be out at once, and those that wait for them; a gang goes as a whole."""
    if not party.parallel_max or party.together:
        return party.units, []
    most = max(0, party.parallel_max - party.out)
    return party.units[:most], party.units[most:]


def losses(sites: Sequence[int], at_once: int, most: int) -> tuple[list[tuple[int, ...]], int]:
    """Every set of `at_once` sites that may be lost (all, where there are fewer); and how many are left out.

    `sites`: largest first, so that what is left out beyond `most` are the smallest.
    """
    at_once = min(at_once, len(sites))
    if not at_once:
        return [], 0
    chosen = list(islice(combinations(sites, at_once), most))
    return chosen, comb(len(sites), at_once) - len(chosen)
