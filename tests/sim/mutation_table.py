"""How many random seeds see that a rule is gone: one markdown row for each mutation. Run by hand.

`python tests/sim/mutation_table.py --seeds 1000 [--only NAME] [--devices 8] [--minutes 3]`.
Each mutation is switched off in a worker process, which plays seed after seed until three
were caught. The row names the first of them, how many of the first hundred were caught as far
as it came, what they broke, and the directed story that needs no luck.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

from mutations import MUTATIONS, UNCAUGHT

from sim.command.workers import memory_storage
from sim.drawing import draw_plan
from sim.plan import Outcome, Verdict
from sim.safety import run_plan

CATCHES_MAX = 3
BASELINE = "(every rule on)"
SEEN = (Verdict.VIOLATED, Verdict.NOT_CONVERGED)
IDLE = "no task ever started"
"""Of a run that fails because it shows nothing."""


@dataclass(frozen=True)
class Search:
    """What one worker is asked: this mutation, so many seeds of this size, no longer than this."""

    name: str
    seeds: int
    devices: int
    faults_ms: int
    seconds_max: float


@dataclass
class Row:
    """What came of it. `caught`: seeds, in order; `crashed`: seeds that proved nothing."""

    name: str
    played: int
    caught: list[int]
    crashed: int
    broken: Counter[str]


def search(asked: Search) -> Row:
    """A seed that fails with every rule on too shows nothing of the rule."""
    row = Row(asked.name, 0, [], 0, Counter())
    until = time.monotonic() + asked.seconds_max
    for seed in range(asked.seeds):
        if len(row.caught) >= CATCHES_MAX or time.monotonic() > until:
            break
        outcome = play(asked, seed, asked.name)
        row.played += 1
        seen = outcome.verdict in SEEN or outcome.detail.startswith(IDLE)
        row.crashed += outcome.verdict is Verdict.CRASHED and not seen
        if seen and (asked.name == BASELINE or play(asked, seed, BASELINE).verdict is Verdict.HELD):
            row.caught.append(seed)
            row.broken.update(broken(outcome))
    return row


def play(asked: Search, seed: int, name: str) -> Outcome:
    with MUTATIONS[name].switch_off() if name in MUTATIONS else nullcontext():
        return run_plan(draw_plan(seed, asked.devices, asked.faults_ms), memory_storage)


def broken(outcome: Outcome) -> set[str]:
    """Names of invariants; what did not settle is I11."""
    return {b.invariant for b in outcome.breaches} or {"I11"}


def told(row: Row) -> str:
    first = str(row.caught[0] + 1) if row.caught else "none"
    crashed = f", {row.crashed} crashed" if row.crashed else ""
    invariants = " ".join(
        f"{name} {n}" for name, n in sorted(row.broken.items(), key=lambda x: int(x[0][1:]))
    )
    story = f"`{MUTATIONS[row.name].story}`" if row.name in MUTATIONS else "all of them hold"
    return f"| {row.name} | {first} | {len(row.caught)} of {row.played}{crashed} | {invariants} | {story} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults, virtual, per seed")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds per mutation")
    parser.add_argument("--workers", type=int, default=1)
    o = parser.parse_args()
    faults_ms = int(o.minutes * 60_000)
    asked = [
        Search(n, o.seeds, o.devices, faults_ms, o.patience) for n in (BASELINE, *MUTATIONS) if o.only in n
    ]
    print(
        "| clause switched off | first seed | caught | invariants | directed story |\n|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(o.workers) as pool:
        for row in pool.map(search, asked):
            print(told(row), flush=True)
    print("\n| not caught by anything | why |\n|---|---|")
    for clause, why in UNCAUGHT.items():
        print(f"| {clause} | {why} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
