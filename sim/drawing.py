"""Drawing: a seed becomes a plan.

Rule of this file: each part has a stream of chance of its own (devices, orders, every family
of faults), so a new family changes nobody else's draws. Swarm: a seed switches a random
subset of families on, each as often as it drew; all of them at once would hide what two of
them do together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import firmware_profiles
from controller.scheduler.policies import NAMES as POLICIES
from sim.declaring import Features, draw_features, equip
from sim.fault_families.kinds import LATENESS, Cast, spread
from sim.fault_families.of_devices import RATE_PPM_MAX
from sim.faults import FAMILIES, FAULTS, QUIRKS_FAMILY
from sim.offers import OFFERS
from sim.plan import Args, Fault, Plan, PlannedDevice
from sim.workload import draw_orders

FAULTS_MS = 300_000
DEVICES = 20
LANDED_MS = 20_000
"""What the worst weather delays arrives so long after the last fault at the latest."""
SELDOM_MS = 120_000
"""Of a family that is on there is one in so long at least, in the mean."""

BALANCE_MS = (3_000, 10_000, 30_000)
"""Often, so that five minutes see many moves."""

EXCLUDED_BY = {"walls": "backups"}
"""Devices drop what is said in an epoch below the highest they heard. A copy put back while the clock
went back too may give its leader such an epoch, and only a document of a higher one would tell it (D1)."""

CLASSES = ("generic-linux", "pi-4b-4g", "pi-5-8g", "pi-zero-2w")
"""What a swarm is drawn from: named here, because a seed must not mean another fleet whenever a class
of devices is added."""

Stream = Callable[[str], Random]


def draw_plan(
    seed: int,
    devices: int = DEVICES,
    faults_ms: int = FAULTS_MS,
    profiles: Sequence[str] = (),
    families: Sequence[str] = (),
) -> Plan:
    """The plan of a seed. `profiles`: only devices of these; `families`: exactly these are on."""

    def stream(name: str) -> Random:
        return Random(f"{seed}/plan/{name}")

    controllers = 2 if stream("controllers").random() < 1 / 3 else 1
    features = draw_features(stream)
    plain = draw_devices(stream, devices, tuple(profiles) or CLASSES)
    fleet = tuple(_equipped(stream, features, device) for device in plain)
    chosen = tuple(families) or _draw_families(stream)
    return Plan(
        seed=seed,
        faults_ms=faults_ms,
        devices=fleet,
        controllers=controllers,
        families=chosen,
        policy=_draw_policy(stream, features),
        offer=_draw_offer(stream, features),
        balance_ms=stream("balance").choice(BALANCE_MS) if "balance" in features else 0,
        quirks=_draw_quirks(stream("quirks")) if QUIRKS_FAMILY in chosen else (),
        orders=draw_orders(stream, fleet, faults_ms, features),
        faults=_draw_faults(stream, chosen, Cast(fleet, controllers), faults_ms),
    )


# ------------------------------------------------------------- the fleet


def draw_devices(stream: Stream, count: int, profiles: tuple[str, ...]) -> tuple[PlannedDevice, ...]:
    """Classes, sites, clocks and containment; each seed has some of each, or none."""
    rng = stream("fleet")
    chosen = rng.sample(profiles, rng.randint(1, len(profiles)))
    sites = rng.choice(((),) * 2 + (("a",), ("a", "b"), ("a", "b", "c")))
    weak = rng.choice((0.0, 0.0, 0.3))
    strays = rng.random() < 0.5
    return tuple(_draw_device(stream, f"d{n}", chosen, sites, weak, strays) for n in range(count))


def _draw_device(
    stream: Stream, name: str, profiles: list[str], sites: tuple[str, ...], weak: float, strays: bool
) -> PlannedDevice:
    rng = stream(f"device {name}")
    profile = firmware_profiles.load(rng.choice(profiles))
    drift = RATE_PPM_MAX if strays else profile.clock.drift_ppm
    return PlannedDevice(
        name,
        profile.name,
        rng.choice(sites) if sites else "",
        rng.randint(-drift, drift),
        "weak" if rng.random() < weak else "strong",
    )


def _equipped(stream: Stream, features: Features, device: PlannedDevice) -> PlannedDevice:
    labels, accelerators, extras = equip(stream, features, device)
    return replace(device, labels=labels, accelerators=accelerators, extras=extras)


def _draw_policy(stream: Stream, features: Features) -> str:
    """Every policy is the fleet's in some seeds."""
    return stream("policy").choice(POLICIES) if "policies" in features else ""


def _draw_offer(stream: Stream, features: Features) -> str:
    return stream("offer").choice(tuple(OFFERS)) if features else "whole"


def _draw_quirks(rng: Random) -> Args:
    quirks: dict[str, int | str] = {
        "no_retained_for_wildcards": rng.randint(0, 1),
        "redeliver_live_ms": rng.choice((0, 500, 5_000)),
        "will_late_ms": rng.choice((0, 3_000, 40_000)),
        "silence_unnoticed": int(rng.random() < 0.3),
        "copies_for_overlaps": rng.randint(0, 1),
    }
    return tuple(sorted((name, value) for name, value in quirks.items() if value))


# ------------------------------------------------------------- faults


def _draw_families(stream: Stream) -> tuple[str, ...]:
    """Each family is on with a chance that the seed drew; never none."""
    share = stream("swarm").uniform(0.1, 0.7)
    draws = {family: stream(f"family {family}").random() for family in (*FAMILIES, QUIRKS_FAMILY)}
    found = tuple(family for family, draw in draws.items() if draw < share)
    found = tuple(family for family in found if EXCLUDED_BY.get(family) not in found)
    return found or (min(draws, key=lambda family: draws[family]),)


def _draw_faults(stream: Stream, families: Sequence[str], cast: Cast, lasts_ms: int) -> tuple[Fault, ...]:
    found: list[Fault] = []
    for family in families:
        rng = stream(f"faults {family}")
        kinds = [name for name, kind in FAULTS.items() if kind.family == family]
        often_ms = max((FAULTS[name].gap_ms_min for name in kinds), default=SELDOM_MS)
        gap_ms = spread(rng, often_ms, SELDOM_MS)
        at_ms = rng.expovariate(1 / gap_ms)
        while kinds and at_ms < lasts_ms:
            name = rng.choice(kinds)
            drawn = FAULTS[name].draw(rng, cast)
            words = _landing(drawn.args, int(at_ms) + drawn.for_ms, lasts_ms)
            found.append(Fault(int(at_ms), name, drawn.device, drawn.for_ms, words))
            at_ms += rng.expovariate(1 / gap_ms)
    return tuple(sorted(found, key=lambda fault: fault.at_ms))


def _landing(args: Args, end_ms: int, lasts_ms: int) -> Args:
    """Delays near the end are shorter, so that quiet can begin soon after the last fault."""
    most_ms = lasts_ms + LANDED_MS - min(end_ms, lasts_ms)
    return tuple(sorted((n, min(int(v), most_ms) if n in LATENESS else v) for n, v in args))
