"""Pace against its dumb reference: a bucket that is refilled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.pace import Pace


@given(st.integers(1, 20), st.integers(1, 500), st.lists(st.integers(0, 2_000), max_size=60))
def test_a_pace_admits_what_a_bucket_would(burst: int, interval_ms: int, gaps: list[int]) -> None:
    pace = Pace(burst, interval_ms)
    now, credit_ms, last = 1_000_000, burst * interval_ms, 1_000_000
    for gap in gaps:
        now += gap
        credit_ms = min(burst * interval_ms, credit_ms + now - last)
        last = now
        assert pace.admits(now) == (credit_ms >= interval_ms)
        if pace.admits(now):
            pace.take(now)
            credit_ms -= interval_ms


@given(st.integers(1, 20), st.integers(1, 500))
def test_the_due_time_is_the_first_moment_that_admits(burst: int, interval_ms: int) -> None:
    pace = Pace(burst, interval_ms)
    for _ in range(burst):
        assert pace.admits(1_000_000)
        pace.take(1_000_000)
    assert not pace.admits(pace.due_ms() - 1) and pace.admits(pace.due_ms())
    assert pace.due_ms() == 1_000_000 + interval_ms
