"""Topics, life cycles, holds and waits: small rules, checked against their dumb statements."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backoff, limits, topics
from protocol.errors import LocalMistake, RemoteGarbage
from protocol.resources import Resources
from protocol.tasks import FINAL_TASK, TASK_MOVES, TaskState, check_task_move

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", fullmatch=True)


@given(ids, ids, st.sampled_from(topics.UP + topics.DOWN))
def test_build_and_parse_are_inverse(fleet: str, device: str, channel: str) -> None:
    assert topics.parse(topics.build(fleet, device, channel)) == (fleet, device, channel)


@given(st.text(max_size=60))
def test_any_other_topic_is_garbage(text: str) -> None:
    try:
        parsed = topics.parse(text)
    except RemoteGarbage:
        return
    assert topics.build(*parsed) == text


@pytest.mark.parametrize("bad", ["", "-a", "a/b", "a+", "#", "_x", "a" * 65, "a\n", "é"])
def test_ids_that_could_leave_their_level_are_refused(bad: str) -> None:
    assert not topics.valid_id(bad)


def test_final_states_have_no_way_out() -> None:
    assert all(not TASK_MOVES[s] for s in FINAL_TASK)
    with pytest.raises(LocalMistake):
        check_task_move("t", TaskState.SUCCEEDED, TaskState.RUNNING)


@given(st.integers(limits.LEASE_MS_MIN, limits.LEASE_MS_MAX))
def test_hold_outlasts_a_lease_on_the_slowest_clock(lease_ms: int) -> None:
    """A device 1 % slow and a controller 1 % fast still leave the kill time inside the hold."""
    rho = limits.CLOCK_RATE_PPM / 1_000_000
    device_real = (lease_ms - limits.KILL_MS) / (1 - rho) + limits.KILL_MS
    controller_real = limits.hold_ms(lease_ms) / (1 + rho)
    assert controller_real >= device_real


@given(st.integers(0, 40), st.integers(0, 2**32))
def test_reconnect_waits_are_short_for_eight_tries_and_bounded_after(tries: int, seed: int) -> None:
    wait = backoff.reconnect_ms(tries, random.Random(seed))
    bound = min(8_000, 2_000 * 2**tries) if tries < 8 else 60_000
    assert 0 <= wait <= bound


@given(
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
)
def test_resources_add_and_fit_like_their_numbers(a: list[int], b: list[int]) -> None:
    x, y = Resources(*a), Resources(*b)
    assert x.plus(y).minus(y) == x
    assert x.fits(y) == all(p <= q for p, q in zip(a, b, strict=True))
