"""Shares: what of its device an attempt was given, as the record keeps it.

A share is told by the job's demand alone for most; only a faster core's fewer thousandths
and named accelerators must be written down, because the device may describe itself
otherwise later. Text: `cpu=540 gpu0=500 gpu1=1000`; names hold neither space nor `=`.
"""

from __future__ import annotations

from controller.core.records import DeviceRow
from controller.scheduler.view import WHOLE_MILLI, Demand, Share

NOWHERE = -1
"""Place of an accelerator that the device no longer has."""


def write_share(share: Share, demand: Demand, record: DeviceRow) -> str:
    """What `read_share` needs to find the share again."""
    parts = []
    if share.resources.cpu_milli != demand.resources.cpu_milli:
        parts.append(f"cpu={share.resources.cpu_milli}")
    parts += [f"{name_of(record, place)}={milli}" for place, milli in share.accelerators]
    return " ".join(parts)


def read_share(text: str, demand: Demand, record: DeviceRow) -> Share:
    """The share of an attempt on its device as the device is now."""
    resources, places = demand.resources, []
    for part in _parts(text):
        name, _, amount = part.rpartition("=")
        if name == "cpu":
            resources = resources._replace(cpu_milli=int(amount))
        else:
            places.append((place_of(record, name), int(amount)))
    return Share(resources, tuple(places), tuple(demand.extras.items()))


def names_given(text: str) -> tuple[str, ...]:
    """The accelerators that an attempt was given, by name."""
    return tuple(p.rpartition("=")[0] for p in _parts(text) if not p.startswith("cpu="))


def _parts(text: str) -> list[str]:
    """At spaces alone: other white space was written as part of a name, and must not make it unreadable."""
    return text.split(" ") if text else []


def name_of(record: DeviceRow, place: int) -> str:
    """An accelerator's name; unnamed ones are called by their number."""
    return record.accelerators[place][0] if record.accelerators else f"gpu{place}"


def place_of(record: DeviceRow, name: str) -> int:
    """Where it stands among the device's accelerators; one that it no longer has stands nowhere."""
    if not record.accelerators:
        place = int(name[3:]) if name.startswith("gpu") and name[3:].isdecimal() else NOWHERE
        return place if place < -(-record.capacity.gpu_milli // WHOLE_MILLI) else NOWHERE
    return next((i for i, (n, _, _) in enumerate(record.accelerators) if n == name), NOWHERE)
