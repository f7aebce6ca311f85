"""Faults of facts: devices describe themselves anew, say nonsense, run hot.

Rule of this file: what a device says of itself comes from its configuration, which is read when
its agent starts; so each new description restarts the agent and leaves guard and runs alone. The
end of a fault, and the calm, bring the planned description back. Health comes from sensors and
needs no restart. It knows no controller.
"""

from __future__ import annotations

from random import Random

import firmware_profiles
from protocol.limits import MIB_MAX
from protocol.messages import (
    HEALTH_KNOWN,
    METERED,
    NO_HEALTH,
    ON_BATTERY,
    THROTTLED,
    UNDERVOLTAGE,
    Accelerator,
    Health,
)
from protocol.resources import Resources
from sim import phrases
from sim.devices import SimulatedDevice
from sim.fault_families.kinds import (
    Cast,
    Drawn,
    FaultKind,
    OneOf,
    Phrase,
    Scene,
    Whole,
    Word,
    number,
    spread,
    text,
)
from sim.plan import Fault, PlannedDevice

SERVER = Resources(4_000, 8_192, 20_000, 0)
"""A machine whose class says: measure it."""
NONSENSE = ("cores", "no_memory", "twins", "sum")
WELL = Health(HEALTH_KNOWN, 45, 100, 0, 0)
AILMENTS: dict[str, Health] = {
    "hot": Health(HEALTH_KNOWN | THROTTLED, 92, 100, 0, 0),
    "undervoltage": Health(HEALTH_KNOWN | UNDERVOLTAGE, 50, 100, 0, 0),
    "battery_low": Health(HEALTH_KNOWN | ON_BATTERY, 40, 7, 0, 0),
    "throttled": Health(HEALTH_KNOWN | THROTTLED, 80, 100, 0, 0),
    "metered": Health(HEALTH_KNOWN | METERED | ON_BATTERY, 40, 60, 90, 400),
}
"""The first three keep new work away; the others only make a device worse."""
PERMILLE = (0, 50, 300, 700, 1_500, 3_000)
LABELS = ("", "zone=a", "zone=b tier=3", "zone=c tier=1", "tier=2")
CARDS = ("", "gpu0:t4:1000", "gpu1:t4:1000 gpu0:a2:1000", "card0:t4:1000 card1:a2:500", "gpu0:t4:400")
EXTRAS = ("", "camera=1", "camera=3 licence=1", "licence=9")


def describe_as(device: SimulatedDevice, planned: PlannedDevice) -> bool:
    """What the plan says of it; whether that is news."""
    profile = firmware_profiles.load(planned.profile)
    room = SERVER if profile.capacity.measured else profile.resources()
    cards = phrases.accelerators(planned.accelerators) or profile.capacity.accelerators
    labels = phrases.labels(planned.labels)
    if planned.site:
        labels["site"] = planned.site
    return _describe(device, _summed(room, cards), cards, labels, phrases.amounts(planned.extras))


def _describe(
    device: SimulatedDevice,
    room: Resources,
    cards: tuple[Accelerator, ...],
    labels: dict[str, str],
    extras: dict[str, int],
) -> bool:
    before = (device.capacity, device.accelerators, device.labels, device.extras)
    device.capacity, device.accelerators, device.labels, device.extras = room, cards, labels, extras
    return before != (room, cards, labels, extras)


def _summed(room: Resources, cards: tuple[Accelerator, ...]) -> Resources:
    return room._replace(gpu_milli=sum(card.milli for card in cards)) if cards else room


def _reread(device: SimulatedDevice) -> None:
    """Its agent is restarted, and reads its configuration."""
    if device.agent is not None:
        device.kill_agent()
        device.start_agent()


# ------------------------------------------------------------- descriptions


def _described_anew(scene: Scene, fault: Fault) -> None:
    """Another capacity, other labels, cards and things; its site stays, since it did not move."""
    device, planned = scene.device(fault), scene.planned(fault.device)
    describe_as(device, planned)
    cards = phrases.accelerators(text(fault, "accelerators"))
    room = _summed(_scaled(device.capacity, number(fault, "permille"))._replace(gpu_milli=0), cards)
    labels = phrases.labels(text(fault, "labels"))
    if planned.site:
        labels["site"] = planned.site
    _describe(device, room, cards, labels, phrases.amounts(text(fault, "extras")))
    _reread(device)


def _scaled(room: Resources, permille: int) -> Resources:
    """Never quite nothing: a device without processor or memory that runs tasks is nonsense."""
    return Resources(*[max(amount and 1, amount * permille // 1_000) for amount in room])


def _says_nonsense(scene: Scene, fault: Fault) -> None:
    device, what = scene.device(fault), text(fault, "what")
    describe_as(device, scene.planned(fault.device))
    if what == "cores":
        device.capacity = device.capacity._replace(cpu_milli=MIB_MAX)
    elif what == "no_memory":
        device.capacity = device.capacity._replace(memory_mib=0)
    elif what == "twins":
        device.accelerators = (Accelerator("gpu0", "t4"), Accelerator("gpu0", "t4"))
        device.capacity = device.capacity._replace(gpu_milli=2_000)
    else:
        device.accelerators = (Accelerator("gpu0", "t4"),)
        device.capacity = device.capacity._replace(gpu_milli=9_000)
    scene.doubted[fault.device] = None
    _reread(device)


def _as_planned(scene: Scene, fault: Fault) -> None:
    device = scene.device(fault)
    if describe_as(device, scene.planned(fault.device)):
        _reread(device)


def _draw_description(rng: Random, cast: Cast) -> Drawn:
    words: tuple[tuple[str, int | str], ...] = (
        ("accelerators", rng.choice(CARDS)),
        ("extras", rng.choice(EXTRAS)),
        ("labels", rng.choice(LABELS)),
        ("permille", rng.choice(PERMILLE)),
    )
    return Drawn(cast.any_device(rng).name, spread(rng, 2_000, 200_000), words)


def _draw_nonsense(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 2_000, 60_000), (("what", rng.choice(NONSENSE)),))


# ------------------------------------------------------------- health


def _ails(scene: Scene, fault: Fault) -> None:
    scene.device(fault).set_health(AILMENTS[text(fault, "how")])


def _recovers(scene: Scene, fault: Fault) -> None:
    recover(scene.device(fault))


def recover(device: SimulatedDevice) -> None:
    """Its sensors say that all is well; who never told of health goes on saying nothing."""
    if device.health not in (NO_HEALTH, WELL):
        device.set_health(WELL)


def _draw_ailment(rng: Random, cast: Cast) -> Drawn:
    how = rng.choice(tuple(AILMENTS))
    return Drawn(cast.any_device(rng).name, spread(rng, 5_000, 200_000), (("how", how),))


def restore(scene: Scene, device: SimulatedDevice) -> None:
    """The calm: what the plan says of it, and well."""
    if describe_as(device, scene.planned(device.name)):
        _reread(device)
    recover(device)


DESCRIPTION: dict[str, Word] = {
    "accelerators": Phrase(phrases.accelerators),
    "extras": Phrase(phrases.amounts),
    "labels": Phrase(phrases.labels),
    "permille": Whole(0, 100_000),
}

KINDS = {
    "described_anew": FaultKind(
        "descriptions", _draw_description, _described_anew, _as_planned, DESCRIPTION, gap_ms_min=12_000
    ),
    "nonsense_said": FaultKind(
        "descriptions", _draw_nonsense, _says_nonsense, _as_planned, {"what": OneOf(NONSENSE)},
        gap_ms_min=12_000,
    ),
    "ails": FaultKind("health", _draw_ailment, _ails, _recovers, {"how": OneOf(tuple(AILMENTS))}),
}  # fmt: skip
