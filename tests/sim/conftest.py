"""Worlds for stories. Every world that a test made is checked for broken invariants at its end."""

from __future__ import annotations

import pytest

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from protocol.resources import Resources
from sim.database import Storage
from sim.world import ROOM, World


@pytest.fixture
def make_world():
    """`make_world(devices, seed, rooms)`: a fleet that is ready, or switched off with `begin=False`."""
    worlds = []

    def make(devices=3, seed=1, rooms=None, begin=True, controllers=1):
        sizes = tuple(Resources(*r) for r in rooms) if rooms else (ROOM,) * devices
        world = World(seed, Storage(MemoryStore(), (Fenced, StoreError)), sizes, controllers)
        worlds.append(world)
        if begin:
            world.begin()
        return world

    yield make
    for world in worlds:
        world.check()


@pytest.fixture
def world(make_world):
    """Three equal devices, ready."""
    return make_world()
