"""A hundred bad days: faults drawn from seeds, checkers on; afterwards everything settles (I11)."""

from __future__ import annotations

import pytest

from sim.__main__ import run

SEEDS = 100
BATCHES = 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_bad_days_break_no_promise_and_end_well(batch):
    starts = 0
    for seed in range(batch * SEEDS // BATCHES, (batch + 1) * SEEDS // BATCHES):
        starts += len(run(seed).checkers.start_times)
    assert starts > 100, "the days were so bad that nothing ran; then they prove nothing"
