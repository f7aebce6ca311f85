"""Room: what attempts really reserve on a device, and what is left of what it offers.

Rule of this file: an attempt reserves what its row says it was given, and where the row says
nothing its job's demand; sums are kept by name, so that an accelerator which its device no
longer has is still somebody's. It reads the record's text on its own, not as the core does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.core.records import AttemptRow, DeviceRow, JobRow
from protocol.limits import DOCUMENT_ATTEMPTS_MAX
from protocol.resources import NAMES, ZERO, Resources

WHOLE_MILLI = 1_000


@dataclass(slots=True, frozen=True)
class Taken:
    """What one attempt reserves. `cards`: milli by the accelerator's name."""

    resources: Resources = ZERO
    cards: tuple[tuple[str, int], ...] = ()
    extras: tuple[tuple[str, int], ...] = ()


def taken_by(row: AttemptRow, job: JobRow | None) -> Taken:
    """Nothing where the job was never stored."""
    if job is None:
        return Taken()
    needs = job.spec.resources
    needs = needs._replace(slots=max(1, needs.slots))
    cards = []
    for word in row.given.split():
        name, _, amount = word.rpartition("=")
        if name == "cpu":
            needs = needs._replace(cpu_milli=int(amount))
        else:
            cards.append((name, int(amount)))
    return Taken(needs, tuple(cards), tuple(job.spec.extras.items()))


@dataclass(slots=True)
class Reserved:
    """What the attempts of one device that are not free reserve together."""

    resources: Resources = ZERO
    cards: dict[str, int] = field(default_factory=dict)
    extras: dict[str, int] = field(default_factory=dict)

    def add(self, taken: Taken) -> None:
        self.resources = self.resources.plus(taken.resources)
        _sum(self.cards, taken.cards, 1)
        _sum(self.extras, taken.extras, 1)

    def take_off(self, taken: Taken) -> None:
        self.resources = self.resources.minus(taken.resources)
        _sum(self.cards, taken.cards, -1)
        _sum(self.extras, taken.extras, -1)


def _sum(sums: dict[str, int], amounts: tuple[tuple[str, int], ...], sign: int) -> None:
    for name, amount in amounts:
        sums[name] = sums.get(name, 0) + sign * amount
        if not sums[name]:
            del sums[name]


def offered(resources: Resources) -> Resources:
    """Who names no slots has as many as its document holds."""
    return resources if resources.slots else resources._replace(slots=DOCUMENT_ATTEMPTS_MAX)


def cards_of(row: DeviceRow) -> dict[str, tuple[str, int]]:
    """(model, milli) of each accelerator; unnamed ones are thousands of `gpu_milli`, numbered."""
    if row.accelerators:
        return {name: (model, milli) for name, model, milli in row.accelerators}
    whole, rest = divmod(row.capacity.gpu_milli, WHOLE_MILLI)
    sizes = [WHOLE_MILLI] * whole + [rest] * (rest > 0)
    return {f"gpu{n}": ("", milli) for n, milli in enumerate(sizes)}


def faults(taken: Taken, job: JobRow, reserved: Reserved, row: DeviceRow, offer: Resources) -> Iterator[str]:
    """What is wrong with a new reservation: of each thing that it takes there must be enough for all."""
    room = offered(offer)
    for name, amount, total, most in zip(NAMES, taken.resources, reserved.resources, room, strict=True):
        if amount and total > most:
            yield f"offers {name} {most}, reserved {total}"
    for name, amount in taken.extras:
        if amount and reserved.extras.get(name, 0) > row.extras.get(name, 0):
            yield f"has {row.extras.get(name, 0)} {name}, reserved {reserved.extras[name]}"
    yield from _card_faults(taken, job, reserved, row)


def _card_faults(taken: Taken, job: JobRow, reserved: Reserved, row: DeviceRow) -> Iterator[str]:
    wanted, cards = job.spec.resources.gpu_milli, cards_of(row)
    each = min(wanted, WHOLE_MILLI)
    if [milli for _, milli in taken.cards] != [each] * (-(-wanted // WHOLE_MILLI)):
        yield f"{wanted} milli were asked for, given {taken.cards}"
    if len(dict(taken.cards)) != len(taken.cards):
        yield f"one accelerator is given twice: {taken.cards}"
    for name, _ in taken.cards:
        model, milli = cards.get(name, ("", 0))
        if reserved.cards.get(name, 0) > milli:
            yield f"its {name} has {milli} milli, reserved {reserved.cards[name]}"
        if job.spec.models and model not in job.spec.models:
            yield f"its {name} is a {model or 'nameless one'}, asked for {' or '.join(job.spec.models)}"
