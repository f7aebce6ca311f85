"""A hundred fresh bad days: every run of the tests looks where nobody has looked before.

The first seed is drawn from the clock and printed with the rate; a failure names its seed
and the line that plays it again.
"""

from __future__ import annotations

import time

import pytest

from sim.command.workers import run
from sim.plan import Verdict
from sim.safety import describe

SEEDS = 100
DEVICES = 10
FAULTS_MS = 120_000


@pytest.mark.timeout(600)
def test_a_hundred_fresh_bad_days_break_no_promise_and_end_well(capsys):
    first = int(time.time()) * 1_000
    began = time.process_time()
    virtual_ms = starts = 0
    for seed in range(first, first + SEEDS):
        outcome = run(seed, DEVICES, FAULTS_MS)
        virtual_ms, starts = virtual_ms + outcome.virtual_ms, starts + outcome.starts
        again = f"fm sim safety --seed {seed} --devices {DEVICES} --minutes {FAULTS_MS / 60_000:g}"
        told = "\n".join(f"{b.invariant} at {b.at_ms}: {b.text}" for b in outcome.breaches[:5])
        assert outcome.verdict is Verdict.HELD, "\n".join(
            (f"again: {again}", outcome.verdict, outcome.detail, told, describe(outcome.plan))
        )
    took_s = time.process_time() - began
    rate = virtual_ms / 1_000 * DEVICES / took_s
    with capsys.disabled():
        print(
            f"\nseeds {first}…{first + SEEDS - 1}: {starts} starts, {SEEDS / took_s:.1f} seeds/s, "
            f"{rate:.0f} device-seconds per core-second"
        )
