"""Faults of the network: weather, cuts, the broker and its copies, whole sites, strangers.

Rule of this file: a message is lost, doubled, late or overtaken, a way is cut, a broker
forgets; nobody's process or machine is touched. Each aspect of the weather is a kind of its
own, so that two of them at once are two entries of a plan.
"""

from __future__ import annotations

from random import Random

from broker.events import Survival
from sim.fault_families.kinds import (
    Cast,
    Drawn,
    FaultKind,
    Name,
    OneOf,
    Scene,
    Whole,
    nothing,
    number,
    spread,
    text,
)
from sim.plan import Fault
from sim.rogue import forgeries
from sim.world import FLEET

WAYS = ("both", "up", "down")
WAY_ODDS = ("both", "both", "up", "down")
SHARE = Whole(0, 1_000)
MINUTES_MS = 180_000


# ------------------------------------------------------------- weather


def _loss_begins(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.lost = number(fault, "permille") / 1_000


def _loss_ends(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.lost = scene.fair.lost


def _doubles_begin(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.doubled = number(fault, "permille") / 1_000


def _doubles_end(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.doubled = scene.fair.doubled


def _delay_begins(scene: Scene, fault: Fault) -> None:
    low = number(fault, "low_ms")
    scene.world.network.weather.latency_ms = (low, max(low, number(fault, "high_ms")))


def _delay_ends(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.latency_ms = scene.fair.latency_ms


def _disorder_begins(scene: Scene, fault: Fault) -> None:
    weather = scene.world.network.weather
    weather.straggling, weather.straggle_ms = number(fault, "permille") / 1_000, number(fault, "late_ms")


def _disorder_ends(scene: Scene, fault: Fault) -> None:
    weather = scene.world.network.weather
    weather.straggling, weather.straggle_ms = scene.fair.straggling, scene.fair.straggle_ms


def _answers_go(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.lost_answers = number(fault, "permille") / 1_000


def _answers_come(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.lost_answers = scene.fair.lost_answers


def _breaks_begin(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.dropped = number(fault, "permille") / 1_000


def _breaks_end(scene: Scene, fault: Fault) -> None:
    scene.world.network.weather.dropped = scene.fair.dropped


def _draw_breaks(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 2_000, 60_000), (("permille", rng.randint(1, 100)),))


def _draw_answers(rng: Random, cast: Cast) -> Drawn:
    """Up to all of them, for as long as a lease lasts and longer."""
    return Drawn("", spread(rng, 5_000, 120_000), (("permille", rng.choice((200, 500, 900, 1_000))),))


def _draw_loss(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 2_000, 120_000), (("permille", rng.randint(10, 300)),))


def _draw_doubles(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 2_000, 120_000), (("permille", rng.randint(10, 500)),))


def _draw_delay(rng: Random, cast: Cast) -> Drawn:
    """Mostly seconds; seldom minutes, which no keep-alive outlasts."""
    high = spread(rng, 50, 4_000) if rng.random() < 0.8 else spread(rng, 4_000, MINUTES_MS)
    words = (("high_ms", high), ("low_ms", rng.randint(1, high)))
    return Drawn("", spread(rng, 2_000, 60_000), words)


def _draw_disorder(rng: Random, cast: Cast) -> Drawn:
    words = (("late_ms", spread(rng, 500, MINUTES_MS)), ("permille", rng.randint(10, 400)))
    return Drawn("", spread(rng, 2_000, 120_000), words)


# ------------------------------------------------------------- cuts


def cut_client(scene: Scene, client: str, way: str) -> None:
    """Cuts the ways that `way` names."""
    scene.world.network.cut(client, way != "down", way != "up")


def _cut_begins(scene: Scene, fault: Fault) -> None:
    cut_client(scene, fault.device, text(fault, "way"))


def _cut_ends(scene: Scene, fault: Fault) -> None:
    scene.world.network.heal(fault.device)


def _draw_cut(rng: Random, cast: Cast) -> Drawn:
    way = (("way", rng.choice(WAY_ODDS)),)
    return Drawn(cast.any_device(rng).name, spread(rng, 500, 90_000), way)


def _site(scene: Scene, fault: Fault) -> list[str]:
    return [d.name for d in scene.plan.devices if d.site == text(fault, "site")]


def _site_falls_silent(scene: Scene, fault: Fault) -> None:
    for name in _site(scene, fault):
        cut_client(scene, name, "both")


def _site_returns(scene: Scene, fault: Fault) -> None:
    for name in _site(scene, fault):
        scene.world.network.heal(name)


def _draw_site(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", rng.randint(5_000, 120_000), (("site", cast.any_device(rng).site),))


# ------------------------------------------------------------- the broker


def _broker_dies(scene: Scene, fault: Fault) -> None:
    scene.world.restart_broker(fault.for_ms, Survival(text(fault, "survival")))


def _broker_saves(scene: Scene, fault: Fault) -> None:
    scene.world.broker.snapshot()


def _draw_broker(rng: Random, cast: Cast) -> Drawn:
    survival = rng.choice((Survival.LOST, Survival.LOST, Survival.ROLLED_BACK, Survival.KEPT))
    down_ms = rng.choice((0, 0, rng.randint(100, 5_000), rng.randint(5_000, 60_000)))
    return Drawn("", down_ms, (("survival", str(survival)),))


# ------------------------------------------------------------- strangers


def _stranger_comes(scene: Scene, fault: Fault) -> None:
    """With the password of `device` he tries to hurt another, or to read all."""
    network, victim = scene.world.network, text(fault, "victim")
    forged = forgeries(FLEET, victim)
    network.rogue(fault.device, forged, (f"fm/1/{FLEET}/{victim}/assignments", f"fm/1/{FLEET}/#"), forged[1])


def _draw_stranger(rng: Random, cast: Cast) -> Drawn:
    """Mostly another device; sometimes its own, whose password he has, is all there is."""
    thief = cast.any_device(rng).name
    others = [device.name for device in cast.devices if device.name != thief]
    return Drawn(thief, 0, (("victim", rng.choice(others or ["nobody"])),))


KINDS = {
    "loss": FaultKind("loss", _draw_loss, _loss_begins, _loss_ends, {"permille": SHARE}, False),
    "doubles": FaultKind("doubles", _draw_doubles, _doubles_begin, _doubles_end, {"permille": SHARE}, False),
    "delay": FaultKind(
        "delay", _draw_delay, _delay_begins, _delay_ends,
        {"low_ms": Whole(0, 600_000), "high_ms": Whole(0, 600_000)}, False,
    ),
    "disorder": FaultKind(
        "disorder", _draw_disorder, _disorder_begins, _disorder_ends,
        {"permille": SHARE, "late_ms": Whole(0, 600_000)}, False,
    ),
    "answers_lost": FaultKind(
        "answers", _draw_answers, _answers_go, _answers_come, {"permille": SHARE}, False
    ),
    "breaks": FaultKind("breaks", _draw_breaks, _breaks_begin, _breaks_end, {"permille": SHARE}, False),
    "stranger": FaultKind(
        "strangers", _draw_stranger, _stranger_comes, nothing, {"victim": Name("a device, known or not")}
    ),
    "cut": FaultKind("cuts", _draw_cut, _cut_begins, _cut_ends, {"way": OneOf(WAYS)}),
    "site_silent": FaultKind(
        "sites", _draw_site, _site_falls_silent, _site_returns, {"site": Name("a site of a device")}, False
    ),
    "broker_killed": FaultKind(
        "broker", _draw_broker, _broker_dies, nothing,
        {"survival": OneOf(tuple(str(s) for s in Survival))}, False,
    ),
    "broker_saves": FaultKind("broker", lambda rng, cast: Drawn("", 0), _broker_saves, nothing, {}, False),
}  # fmt: skip
