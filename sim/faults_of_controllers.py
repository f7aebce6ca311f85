"""Faults of controllers and of their database.

Rule of this file: a controller dies between any two effects, stands still or loses its
network or its database; the database refuses or an old copy of it is put back.
"""

from __future__ import annotations

from random import Random

from sim.controllers import CLIENT
from sim.fault_kinds import Cast, Choice, Drawn, FaultKind, Scene, Whole, number, spread, text
from sim.faults_of_network import WAY_ODDS, WAYS, cut_client
from sim.plan import Fault

CONTROLLER = Whole(0, 1)
STEPS_MAX = 10_000


def _which(rng: Random, cast: Cast) -> tuple[str, int]:
    return ("controller", rng.randrange(cast.controllers))


# ------------------------------------------------------------- its process


def _dies(scene: Scene, fault: Fault) -> bool:
    controller = scene.controller(fault)
    lives = controller.core is not None
    controller.kill()
    return lives


def _dies_after(scene: Scene, fault: Fault) -> bool:
    controller = scene.controller(fault)
    if controller.core is not None:
        controller.die_after = number(fault, "steps")
    return controller.core is not None


def _comes_back(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).die_after = None
    scene.controller(fault).start()


def _draw_kill(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 10, 40_000), (_which(rng, cast),))


def _draw_dies_after(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", rng.randint(2_000, 20_000), (_which(rng, cast), ("steps", rng.randint(0, 40))))


# ------------------------------------------------------------- its network


def _cut_begins(scene: Scene, fault: Fault) -> None:
    cut_client(scene, CLIENT, text(fault, "way"))


def _cut_ends(scene: Scene, fault: Fault) -> None:
    scene.world.network.heal(CLIENT)


def _draw_cut(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 500, 60_000), (_which(rng, cast), ("way", rng.choice(WAY_ODDS))))


# ------------------------------------------------------------- its database


def _refuses(scene: Scene, fault: Fault) -> None:
    scene.world.storage.fails = True


def _takes_again(scene: Scene, fault: Fault) -> None:
    scene.world.storage.fails = False


def _draw_refusal(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 50, 30_000))


KINDS = {
    "controller_killed": FaultKind(
        "controllers", _draw_kill, _dies, _comes_back, {"controller": CONTROLLER}, False
    ),
    "controller_dies_after": FaultKind(
        "controllers", _draw_dies_after, _dies_after, _comes_back,
        {"controller": CONTROLLER, "steps": Whole(0, STEPS_MAX)}, False,
    ),
    "controller_cut": FaultKind(
        "partitions", _draw_cut, _cut_begins, _cut_ends,
        {"controller": CONTROLLER, "way": Choice(WAYS)}, False,
    ),
    "database_refuses": FaultKind("database", _draw_refusal, _refuses, _takes_again, {}, False),
}  # fmt: skip
