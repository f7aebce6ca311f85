"""One seed, one trace: whatever the order of a set or an address may be in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from sim.command.workers import run; print(run({seed}, devices=5, faults_ms=90_000).trace_hash)"


def digest(seed: int, hash_seed: str) -> str:
    """The trace of a bad day, made by a process with its own order of sets."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seed=seed)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.strip()


def test_one_seed_gives_one_trace_under_any_hash_seed():
    for seed in (7, 11):
        assert len({digest(seed, hash_seed) for hash_seed in ("0", "1", "4242")}) == 1


def test_another_seed_gives_another_trace():
    assert digest(7, "0") != digest(8, "0")
