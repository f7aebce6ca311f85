"""`python -m sim --seeds 100`: bad days one after another; a seed that breaks a promise is named.

The only file of the simulator that knows a store: the others are given one.
"""

from __future__ import annotations

import argparse
import sys

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from sim.controllers import Storage
from sim.drawing import DEVICES, FAULTS_MS, draw_plan
from sim.plan import Outcome, Verdict
from sim.safety import run_plan


def memory_storage() -> Storage:
    """A database in memory."""
    return Storage(MemoryStore(), (Fenced, StoreError))


def run(seed: int, devices: int = DEVICES, faults_ms: int = FAULTS_MS) -> Outcome:
    """One bad day and its end."""
    return run_plan(draw_plan(seed, devices, faults_ms), memory_storage)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim", description="Bad days in virtual time.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--faults-ms", type=int, default=FAULTS_MS)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = run(seed, options.devices, options.faults_ms)
        if outcome.verdict is not Verdict.HELD:
            failed += 1
            told = "; ".join(f"{b.invariant} at {b.at_ms}: {b.text}" for b in outcome.breaches[:3])
            print(f"seed {seed} {outcome.verdict}: {told} {outcome.detail}", flush=True)
    print(f"{options.seeds} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
