"""`python -m sim --seeds 100`: bad days one after another; a seed that breaks a promise is named.

The only file of the simulator that knows a store: the others are given one.
"""

from __future__ import annotations

import argparse
import sys

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from protocol.limits import hold_ms
from sim.controllers import Storage
from sim.faults import BadDay, settle
from sim.world import ROOM, World

CHAOS_MS = 180_000
SETTLE_MS = 60_000 + 2 * hold_ms(30_000) + 90_000
"""Longest reconnect wait, two holds (of a take-over, of a lost device), a cool-down (I11)."""
PEACE_MS = 40_000
"""What is well must stay well for longer than a hold."""


def run(seed: int, devices: int = 6, chaos_ms: int = CHAOS_MS) -> World:
    """One bad day and its end. Raises `AssertionError` when a promise was broken."""
    world = World(seed, Storage(MemoryStore(), (Fenced, StoreError)), (ROOM,) * devices)
    world.begin()
    day = BadDay(world)
    day.begin()
    world.advance(chaos_ms)
    day.calm()
    world.until(lambda: not settle(world), SETTLE_MS, "a fleet that has settled")
    world.advance(PEACE_MS)
    world.until(lambda: not settle(world), SETTLE_MS, "a fleet that stays so")
    world.check()
    return world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim", description="Bad days in virtual time.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--devices", type=int, default=6)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            run(seed, options.devices)
        except AssertionError as error:
            failed += 1
            print(error, flush=True)
    print(f"{options.seeds} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
