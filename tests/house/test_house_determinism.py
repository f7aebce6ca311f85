"""One seed, one trace: whatever the order of a set or an address may be in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from sim.declaring import FEATURES, draw_features

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from sim.command.workers import run
for seed in {seeds}:
    print(run(seed, devices=5, faults_ms=90_000).trace_hash)
"""
PLAIN, MANY = (7, 11), (4, 58, 93)
"""Of the latter each draws a dozen features or more: all kinds of work, fleets that level themselves."""


def digests(seeds: tuple[int, ...], hash_seed: str) -> list[str]:
    """The traces of bad days, made by one process with its own order of sets."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seeds=seeds)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.split()


def test_one_seed_gives_one_trace_under_any_hash_seed_and_whatever_was_played_before():
    seeds = (*PLAIN, *MANY)
    first, second = digests((*seeds, *seeds), "0"), digests(tuple(reversed(seeds)), "4242")
    assert first[: len(seeds)] == first[len(seeds) :] == list(reversed(second))
    assert len(set(second)) == len(seeds)


def test_each_feature_is_drawn_by_one_of_these_seeds():
    drawn = [draw_features(lambda name, seed=seed: Random(f"{seed}/plan/{name}")) for seed in MANY]
    assert {feature for features in drawn for feature in features} == set(FEATURES)
