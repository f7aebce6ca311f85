"""Faults: the table of all kinds, how a plan's faults are played, and how they all end.

Rule of this file: a new kind is an entry of one of the three tables that are joined here.
`calm` ends everything that may still be wrong, so that what is not well afterwards never
will be. It knows no invariant but by the names that a kind suspends.
"""

from __future__ import annotations

from dataclasses import replace

from sim.fault_families import of_controllers, of_devices, of_facts, of_network
from sim.fault_families.kinds import FaultKind, Scene
from sim.plan import Fault

FAULTS: dict[str, FaultKind] = {
    **of_network.KINDS,
    **of_devices.KINDS,
    **of_controllers.KINDS,
    **of_facts.KINDS,
}
FAMILIES = tuple(dict.fromkeys(kind.family for kind in FAULTS.values()))

QUIRKS_FAMILY = "quirks"
"""A family without moments: the broker misbehaves in its own way from the beginning to the end."""


def schedule(scene: Scene) -> None:
    """All faults of the plan, counted from now."""
    clock = scene.world.clock
    for fault in scene.plan.faults:
        clock.after(fault.at_ms, lambda fault=fault: inject(scene, fault))  # type: ignore[misc]


def inject(scene: Scene, fault: Fault) -> None:
    """Begins it now, and sees to its end."""
    if scene.over:
        return
    kind = FAULTS[fault.kind]
    words = " ".join(f"{name}={value}" for name, value in fault.args)
    scene.world.clock.trace("faults", f"{fault.kind} {fault.device} {fault.for_ms} {words}")
    if kind.begin(scene, fault) is False:
        return
    scene.counts[fault.kind] = scene.counts.get(fault.kind, 0) + 1
    scene.world.clock.after(fault.for_ms, lambda: None if scene.over else kind.end(scene, fault))


def calm(scene: Scene) -> None:
    """The end of all faults: everybody is up, nothing is cut or lost, every disk and database works.

    Not even what is lost on a good day: a lease of 6 s ends with one heartbeat.
    """
    scene.over = True
    world = scene.world
    world.clock.trace("faults", "calm")
    world.network.weather = replace(scene.fair, lost=0.0)
    for client in list(world.network.cuts):
        world.network.heal(client)
    world.network.broker_back()
    world.storage.fails, world.database.slow_ms = False, 0
    for controller in world.controllers:
        controller.die_after = None
        controller.set_rate(0)
        controller.heal_database()
        controller.resume()
    for clone in scene.clones.values():
        if clone.on:
            clone.power_off()
    for device in world.devices.values():
        device.disk.fails, device.disk.torn, device.disk.slow_ms = False, None, 0
        device.guard.slow_ms, device.guard.starved, device.guard.disk_full = 0, False, False
        device.set_rate(scene.planned(device.name).rate_ppm)
        of_facts.restore(scene, device)
        of_devices.raise_device(device)
    for controller in world.controllers:
        controller.start()
