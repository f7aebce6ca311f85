"""Faults of devices: processes die, machines stop, disks refuse, starts are slow.

Rule of this file: agent, guard and machine fail separately, because most holes of a protocol
lie between them. Ends give back whatever the device lacks, whoever took it.
"""

from __future__ import annotations

from random import Random

from firmware_profiles import load
from sim.devices import SimulatedDevice
from sim.fault_kinds import Cast, Choice, Drawn, FaultKind, Scene, Whole, nothing, number, spread, text
from sim.plan import Fault

WIPE_SHARE = 0.15


def raise_device(device: SimulatedDevice) -> None:
    """Whatever it lacks: power, an agent, a thaw."""
    if not device.on:
        device.boot()
    device.start_agent()
    device.thaw()


def _raise(scene: Scene, fault: Fault) -> None:
    raise_device(scene.device(fault))


# ------------------------------------------------------------- processes


def _agent_dies(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    lives = device.agent is not None
    device.kill_agent()
    return lives


def _agent_freezes(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    device.freeze()
    return device.frozen


def _thaws(scene: Scene, fault: Fault) -> None:
    scene.device(fault).thaw()


def _guard_dies(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    if device.on:
        device.kill_guard()
    return device.on


def _draw_agent(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 10, 30_000))


def _draw_freeze(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 500, 90_000))


def _draw_guard(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, 0)


# ------------------------------------------------------------- machines


def _processes_die(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    was_on = device.on
    device.kill()
    return was_on


def _power_fails(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    was_on = device.on
    device.power_off()
    return was_on


def _draw_killed(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 100, 60_000))


def _draw_power(rng: Random, cast: Cast) -> Drawn:
    """Off for a while, and as long as its class takes to boot on top."""
    device = cast.any_device(rng)
    return Drawn(device.name, spread(rng, 100, 60_000) + load(device.profile).behaviour.boot_ms)


# ------------------------------------------------------------- disks


def _journal_fails(scene: Scene, fault: Fault) -> None:
    scene.device(fault).journal_fails = True


def _journal_mends(scene: Scene, fault: Fault) -> None:
    scene.device(fault).journal_fails = False


def _draw_full(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 100, 60_000))


def _journal_goes(scene: Scene, fault: Fault) -> None:
    """With the agent's process: a living one would write it anew."""
    device = scene.device(fault)
    (device.kill_agent if text(fault, "with") == "agent" else device.power_off)()
    device.wipe_journal()


def _draw_wipe(rng: Random, cast: Cast) -> Drawn:
    device, dies = cast.any_device(rng), rng.choice(("agent", "machine"))
    return Drawn(device.name, spread(rng, 10, 40_000), (("with", dies),))


# ------------------------------------------------------------- slowness


def _starts_slow(scene: Scene, fault: Fault) -> None:
    scene.device(fault).guard.slow_ms = number(fault, "by_ms")


def _starts_fast(scene: Scene, fault: Fault) -> None:
    scene.device(fault).guard.slow_ms = 0


def _draw_slow(rng: Random, cast: Cast) -> Drawn:
    by_ms = rng.choice((500, 5_000, 27_000, 40_000, 70_000))
    return Drawn(cast.any_device(rng).name, spread(rng, 5_000, 90_000), (("by_ms", by_ms),))


KINDS = {
    "agent_killed": FaultKind("agents", _draw_agent, _agent_dies, _raise),
    "agent_frozen": FaultKind("freezes", _draw_freeze, _agent_freezes, _thaws),
    "guard_killed": FaultKind("guards", _draw_guard, _guard_dies, nothing),
    "processes_killed": FaultKind("machines", _draw_killed, _processes_die, _raise),
    "power_cut": FaultKind("machines", _draw_power, _power_fails, _raise),
    "journal_full": FaultKind("disks", _draw_full, _journal_fails, _journal_mends),
    "journal_wiped": FaultKind(
        "journals", _draw_wipe, _journal_goes, _raise, {"with": Choice(("agent", "machine"))}
    ),
    "slow_starts": FaultKind("slow", _draw_slow, _starts_slow, _starts_fast, {"by_ms": Whole(0, 600_000)}),
}
