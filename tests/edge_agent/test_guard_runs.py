"""The clockwork of one run: when TERM, KILL and FORCE are due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.guard_frames import START_INTS
from edge_agent.guard_runs import (
    FORCE,
    FORCE_AFTER_MS,
    KILL,
    NOTHING,
    TERM,
    Run,
    StartRequest,
    is_task_name,
)

NOW = 1_000_000


def request(**amounts: int) -> StartRequest:
    ints = dict.fromkeys(START_INTS, 0) | {"attempt": 1, "uid": -1, "gid": -1} | amounts
    blobs = (b"t", b"/w", b"/o", b"/e", b"true", b"A=1\0B=x=y")
    return StartRequest(tuple(ints.values()), blobs)


def run(**amounts: int) -> Run:
    return Run(request(**amounts), NOW)


def test_deadline_terms_a_grace_before_and_kills_at_it() -> None:
    one = run(deadline_ms=NOW + 30_000, stop_grace_ms=2_500)
    assert one.due_ms() == NOW + 27_500
    assert one.decide(NOW + 27_499) == NOTHING
    assert one.decide(NOW + 27_500) == TERM
    assert one.cause == b"deadline"
    assert one.due_ms() == NOW + 30_000
    assert one.decide(NOW + 29_999) == NOTHING
    assert one.decide(NOW + 30_000) == KILL
    assert one.due_ms() == NOW + 30_000 + FORCE_AFTER_MS
    assert one.decide(one.due_ms()) == FORCE
    assert one.decide(one.due_ms()) == FORCE


def test_a_guard_that_wakes_late_kills_at_once() -> None:
    assert run(deadline_ms=NOW + 30_000, stop_grace_ms=5_000).decide(NOW + 90_000) == KILL


def test_a_grace_longer_than_the_grant_takes_a_twelfth_of_it() -> None:
    assert run(deadline_ms=NOW + 24_000, stop_grace_ms=600_000).due_ms() == NOW + 22_000


def test_extension_moves_forward_only() -> None:
    one = run(deadline_ms=NOW + 10_000, stop_grace_ms=1_000)
    one.extend(NOW + 9_000, NOW)
    one.extend(-5, NOW)
    assert one.deadline_ms == NOW + 10_000
    one.extend(NOW + 20_000, NOW + 1)
    assert (one.deadline_ms, one.due_ms()) == (NOW + 20_000, NOW + 19_000)
    one.extend(0, NOW + 2)
    assert one.due_ms() == 0
    one.extend(NOW + 90_000, NOW + 2)
    assert one.deadline_ms == 0


def test_an_extension_after_term_or_after_the_deadline_saves_nobody() -> None:
    told = run(deadline_ms=NOW + 10_000, stop_grace_ms=1_000)
    assert told.decide(NOW + 9_500) == TERM
    told.extend(NOW + 99_000, NOW + 9_600)
    assert told.decide(NOW + 10_000) == KILL
    late = run(deadline_ms=NOW + 10_000)
    late.extend(NOW + 99_000, NOW + 10_000)
    assert late.decide(NOW + 10_000) == KILL


def test_stop_may_be_hastened_and_never_outlives_the_deadline() -> None:
    one = run(deadline_ms=NOW + 10_000)
    assert one.stop(b"stopped", 60_000, NOW) == TERM
    assert one.due_ms() == NOW + 10_000
    assert one.stop(b"stopped", 2_000, NOW) == NOTHING
    assert one.due_ms() == NOW + 2_000
    assert one.stop(b"stopped", 5_000, NOW) == NOTHING
    assert one.decide(NOW + 2_000) == KILL


def test_own_time_limit_counts_from_the_start_of_the_program() -> None:
    one = run(timeout_ms=1_000, stop_grace_ms=500)
    one.note_started(7, NOW + 200)
    assert one.decide(NOW + 1_199) == NOTHING
    assert one.decide(NOW + 1_200) == TERM
    assert (one.cause, one.due_ms()) == (b"timeout", NOW + 1_700)


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 60_000)), max_size=20), st.integers(0, 9_000)
)
def test_the_tree_is_killed_at_the_latest_deadline_whatever_the_order(
    extensions: list, grace_ms: int
) -> None:
    one = run(deadline_ms=NOW + 10_000, stop_grace_ms=grace_ms)
    now, killed = NOW, False
    for step_ms, ahead_ms in extensions:
        target = now + step_ms
        while one.due_ms() and one.due_ms() <= target and not killed:
            now = max(now, one.due_ms())
            killed = one.decide(now) == KILL
            assert killed or now < one.deadline_ms
        if killed:
            break
        now = target
        one.extend(now + ahead_ms, now)
    assert killed or one.deadline_ms > now


@pytest.mark.parametrize("name", [b"a", b"0", b"job-1.task_2", b"a" * 100])
def test_proper_names_of_tasks(name: bytes) -> None:
    assert is_task_name(name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"A", b"a/b", b"-a", b"a\0", b"a" * 101, b"\xc3\xa9"])
def test_improper_names_of_tasks(name: bytes) -> None:
    assert not is_task_name(name)


def test_a_request_reads_its_lists() -> None:
    made = request(cpu_milli=5)
    assert (made.arguments, made.cpu_milli) == ([b"true"], 5)
    assert made.environment == {b"A": b"1", b"B": b"x=y"}


@pytest.mark.parametrize("amounts", [{"attempt": 0}, {"cpu_milli": -1}, {"uid": -2}, {"deadline_ms": -1}])
def test_a_request_out_of_range_is_refused(amounts: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        request(**amounts)
