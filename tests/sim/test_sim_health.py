"""Health of simulated devices: what their agents tell of it, also of devices that rest as columns."""

from __future__ import annotations

import pytest

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from protocol.messages import (
    HEALTH_KNOWN,
    NO_HEALTH,
    THROTTLED,
    UNDERVOLTAGE,
    Accelerator,
    Health,
    Heartbeat,
    Inventory,
)
from sim.columns import IdleFleet
from sim.controllers import Storage
from sim.machines.agents import AgentProcess
from sim.world import ROOM, World

WARM = Health(HEALTH_KNOWN, 60, 0, 3, 0)
HOT = Health(HEALTH_KNOWN | THROTTLED, 84, 0, 3, 0)


@pytest.fixture
def said(monkeypatch):
    """(device, message) of everything that agents publish."""
    found, publish = [], AgentProcess._publish

    def hear(process, effect):
        found.append((process.machine.name, effect.message))
        publish(process, effect)

    monkeypatch.setattr(AgentProcess, "_publish", hear)
    return found


def make_world(devices=2):
    world = World(5, Storage(MemoryStore(), (Fenced, StoreError)), (ROOM,) * devices)
    world.controller.start()
    return world


def healths(said, name):
    return [m.health for device, m in said if device == name and isinstance(m, Heartbeat)]


def test_devices_without_sensors_never_speak_of_health(said):
    world = make_world()
    for device in world.devices.values():
        device.boot()
    world.advance(300_000)
    assert {*healths(said, "d0"), *healths(said, "d1")} == {NO_HEALTH}


def test_health_is_told_with_the_round_trip_and_repeated_once_a_minute(said):
    world = make_world()
    device = world.devices["d0"]
    device.set_health(WARM)
    device.boot()
    world.advance(305_000)
    told = [health for health in healths(said, "d0") if health != NO_HEALTH]
    assert told[0] == WARM and {health._replace(latency_ms=0) for health in told} == {WARM}
    assert 0 < told[-1].latency_ms < 1_000
    assert 5 <= len(told) <= 10 < len(healths(said, "d0"))


def test_a_change_is_told_within_two_heartbeats_and_an_alarm_needs_no_third(said):
    world = make_world()
    device = world.devices["d0"]
    device.set_health(WARM)
    device.boot()
    world.advance(30_000)
    del said[:]
    device.set_health(HOT)
    world.advance(device.heartbeat_ms + 2_000)
    first, second = healths(said, "d0")[:2]
    assert (first, second.flags) == (NO_HEALTH, HOT.flags), "read with the first, told a second later"


def test_a_resting_device_whose_health_becomes_known_is_roused_and_tells_it(said):
    world = make_world(4)
    idle = IdleFleet(world)
    for device in world.devices.values():
        device.boot()
    idle.begin()
    world.advance(60_000)
    assert idle.resting() == 4
    world.devices["d2"].set_health(Health(HEALTH_KNOWN | UNDERVOLTAGE, 50))
    world.advance(120_000)
    assert idle.resting() == 3, "its heartbeats differ from one another now"
    assert next(health.flags for health in healths(said, "d2") if health != NO_HEALTH) == 5
    idle.end()
    assert not world.checkers.breaches


def test_what_a_device_has_stands_in_its_inventory_and_its_clones(said):
    world = make_world(1)
    device = world.devices["d0"]
    device.accelerators, device.extras = (Accelerator("gpu0", "a2", 500),), {"cameras": 2}
    device.core_speed_milli = 1_850
    device.boot()
    world.advance(5_000)
    inventories = [message for _, message in said if isinstance(message, Inventory)]
    assert inventories and inventories[-1].accelerators == device.accelerators
    assert (inventories[-1].extras, inventories[-1].core_speed_milli) == ({"cameras": 2}, 1_850)
    twin = device.clone()
    assert (twin.accelerators, twin.extras, twin.core_speed_milli) == (
        device.accelerators,
        {"cameras": 2},
        1_850,
    )
