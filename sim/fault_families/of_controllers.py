"""Faults of controllers and of their database.

Rule of this file: a controller dies between any two effects, stands still or loses its
network or its database; its clock strays; the database refuses, is slow, or an old copy of
it is put back. With two controllers each of these befalls one of them.
"""

from __future__ import annotations

from random import Random

from sim.fault_families.kinds import (
    Cast,
    Drawn,
    FaultKind,
    OneOf,
    Scene,
    Whole,
    Word,
    nothing,
    number,
    spread,
    text,
)
from sim.fault_families.of_devices import RATE_PPM_MAX
from sim.fault_families.of_network import WAY_ODDS, WAYS, cut_client
from sim.plan import Fault

CONTROLLER: dict[str, Word] = {"controller": Whole(0, 1)}
STEPS_MAX = 10_000
HOUR_MS, DECADE_MS = 3_600_000, 10 * 365 * 86_400_000
JUMPS_MS = (-DECADE_MS, -HOUR_MS, HOUR_MS, DECADE_MS)
JUMP: dict[str, Word] = {"by_ms": Whole(-2 * DECADE_MS, 2 * DECADE_MS)}
COPY = ("marked", "unmarked")


def _which(rng: Random, cast: Cast) -> tuple[str, int]:
    return ("controller", rng.randrange(cast.controllers))


# ------------------------------------------------------------- its process


def _dies(scene: Scene, fault: Fault) -> bool:
    controller = scene.controller(fault)
    was_on = controller.on
    controller.kill()
    return was_on


def _stops(scene: Scene, fault: Fault) -> bool:
    controller = scene.controller(fault)
    was_on = controller.on
    controller.stop()
    return was_on


def _dies_after(scene: Scene, fault: Fault) -> bool:
    controller = scene.controller(fault)
    if controller.on:
        controller.die_after = number(fault, "steps")
    return controller.on


def _comes_back(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).die_after = None
    scene.controller(fault).start()


def _pauses(scene: Scene, fault: Fault) -> bool:
    scene.controller(fault).pause()
    return scene.controller(fault).paused


def _resumes(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).resume()


def _draw_kill(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 10, 40_000), (_which(rng, cast),))


def _draw_dies_after(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", rng.randint(2_000, 20_000), (_which(rng, cast), ("steps", rng.randint(0, 40))))


def _draw_pause(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 500, 60_000), (_which(rng, cast),))


# ------------------------------------------------------------- its network and its clocks


def _cut_begins(scene: Scene, fault: Fault) -> None:
    cut_client(scene, scene.controller(fault).client, text(fault, "way"))


def _cut_ends(scene: Scene, fault: Fault) -> None:
    scene.world.network.heal(scene.controller(fault).client)


def _clock_strays(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).set_rate(number(fault, "ppm"))


def _clock_returns(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).set_rate(0)


def _wall_jumps(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).jump_wall(number(fault, "by_ms"))


def _database_wall_jumps(scene: Scene, fault: Fault) -> None:
    scene.world.database.jump_wall(number(fault, "by_ms"))


def _draw_cut(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 500, 60_000), (_which(rng, cast), ("way", rng.choice(WAY_ODDS))))


def _draw_rate(rng: Random, cast: Cast) -> Drawn:
    ppm = rng.choice((-RATE_PPM_MAX, RATE_PPM_MAX, rng.randint(-RATE_PPM_MAX, RATE_PPM_MAX)))
    return Drawn("", spread(rng, 10_000, 300_000), (_which(rng, cast), ("ppm", ppm)))


def _draw_jump(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", 0, (_which(rng, cast), ("by_ms", rng.choice(JUMPS_MS))))


def _draw_database_jump(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", 0, (("by_ms", rng.choice(JUMPS_MS)),))


# ------------------------------------------------------------- its database


def _refuses(scene: Scene, fault: Fault) -> None:
    scene.world.storage.fails = True


def _takes_again(scene: Scene, fault: Fault) -> None:
    scene.world.storage.fails = False


def _slows(scene: Scene, fault: Fault) -> None:
    scene.world.database.slow_ms = number(fault, "by_ms")


def _hurries(scene: Scene, fault: Fault) -> None:
    scene.world.database.slow_ms = 0


def _out_of_reach(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).cut_database()


def _in_reach(scene: Scene, fault: Fault) -> None:
    scene.controller(fault).heal_database()


def _copied(scene: Scene, fault: Fault) -> None:
    scene.world.backup()
    scene.copied = True


def _restored(scene: Scene, fault: Fault) -> bool:
    """Only a copy that was taken: an empty database was never led, and is none of this fleet."""
    if scene.copied:
        scene.world.restore_backup(marked=text(fault, "copy") == "marked")
    return scene.copied


def _draw_refusal(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 50, 30_000))


def _draw_slow(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 1_000, 60_000), (("by_ms", spread(rng, 10, 6_000)),))


def _draw_reach(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", spread(rng, 500, 60_000), (_which(rng, cast),))


def _draw_restore(rng: Random, cast: Cast) -> Drawn:
    return Drawn("", 0, (("copy", rng.choice(COPY)),))


KINDS = {
    "controller_killed": FaultKind("controllers", _draw_kill, _dies, _comes_back, CONTROLLER, False),
    "controller_stopped": FaultKind("controllers", _draw_kill, _stops, _comes_back, CONTROLLER, False),
    "controller_dies_after": FaultKind(
        "controllers", _draw_dies_after, _dies_after, _comes_back,
        {**CONTROLLER, "steps": Whole(0, STEPS_MAX)}, False,
    ),
    "controller_paused": FaultKind("standstills", _draw_pause, _pauses, _resumes, CONTROLLER, False),
    "controller_cut": FaultKind(
        "partitions", _draw_cut, _cut_begins, _cut_ends, {**CONTROLLER, "way": OneOf(WAYS)}, False
    ),
    "controller_clock_rate": FaultKind(
        "clocks", _draw_rate, _clock_strays, _clock_returns,
        {**CONTROLLER, "ppm": Whole(-RATE_PPM_MAX, RATE_PPM_MAX)}, False,
    ),
    "wall_jump": FaultKind("walls", _draw_jump, _wall_jumps, nothing, {**CONTROLLER, **JUMP}, False),
    "database_wall_jump": FaultKind(
        "walls", _draw_database_jump, _database_wall_jumps, nothing, JUMP, False
    ),
    "database_refuses": FaultKind("database", _draw_refusal, _refuses, _takes_again, {}, False),
    "database_slow": FaultKind(
        "database", _draw_slow, _slows, _hurries, {"by_ms": Whole(0, 600_000)}, False
    ),
    "database_cut": FaultKind("partitions", _draw_reach, _out_of_reach, _in_reach, CONTROLLER, False),
    "backup_taken": FaultKind("backups", lambda rng, cast: Drawn("", 0), _copied, nothing, {}, False),
    "backup_restored": FaultKind(
        "backups", _draw_restore, _restored, nothing, {"copy": OneOf(COPY)}, False, 60_000,
        outside=("I1", "I2", "I3", "I4", "I6", "I7", "I15"),
        instead="X1: nothing new is started for one hold after it was marked or found out, with an alarm; "
        "what was accepted, cancelled or cordoned after the copy was taken is lost",
    ),
}  # fmt: skip
