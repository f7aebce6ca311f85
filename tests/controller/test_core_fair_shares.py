"""Fair shares: who gets what of a round, against giving one task at a time to whoever has least."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.records import Constraint, JobRules
from protocol.resources import Resources

QUARTER = Resources(1_000, 1_024)
"""Of a device."""
quiet = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def owned(owner):
    return JobRules(owner=owner)


def devices(desk, count, room=Resources(4_000, 4_096, 10_000, 0)):
    for i in range(count):
        desk.join(f"d{i}", room=room)


def has(desk):
    """Tasks by owner."""
    return Counter(attempt.job.owner for attempt in desk.core.ledger.attempts.values())


def submit(desk, owner, count, needs=QUARTER, name="new", **more):
    if count:
        desk.submit(job=f"{name}-{owner}", needs=needs, count=count, rules=owned(owner), **more)


def one_at_a_time(total, free, needs, counts, held):
    """How many each owner would get; `total`, `free` and `held`: what there is of each resource."""
    given_, left = Counter(), dict(counts)
    while True:
        fitting = [o for o in left if left[o] and all(n <= f for n, f in zip(needs[o], free, strict=True))]
        if not fitting:
            return given_
        least = min(fitting, key=lambda o: max(h / t for h, t in zip(held[o], total, strict=True)))
        left[least] -= 1
        given_[least] += 1
        free = [f - n for f, n in zip(free, needs[least], strict=True)]
        held[least] = [h + n for h, n in zip(held[least], needs[least], strict=True)]


@pytest.mark.parametrize("count", [1, 7, 16, 20, 40])
@pytest.mark.parametrize("owners", ["ab", "abc", "abcdefg"])
def test_a_fleet_of_any_size_is_shared_evenly(desk, count, owners):
    devices(desk, count)
    for owner in owners:
        submit(desk, owner, 1_000)
    desk.after(500)
    out = [has(desk)[owner] for owner in owners]
    assert sum(out) == 4 * count and max(out) - min(out) <= 1


def test_who_has_more_already_gets_less_of_what_comes_free(desk):
    devices(desk, 7)
    submit(desk, "a", 10)
    desk.after(200)
    submit(desk, "a", 100, name="more")
    submit(desk, "b", 100)
    desk.after(200)
    assert has(desk) == {"a": 14, "b": 14}


def test_a_small_part_of_a_large_fleet_is_shared_too(desk):
    """What counts is the room for the tasks, not for tasks of whatever kind."""
    for i in range(300):
        desk.join(f"d{i}", labels={"site": "here" if i < 7 else "there"})
    for owner in "ab":
        submit(desk, owner, 100, constraints=(Constraint("site", "=", "here"),))
    desk.after(200)
    assert has(desk) == {"a": 14, "b": 14}


def test_an_owner_of_lower_priority_gets_what_is_left(desk):
    devices(desk, 7)
    submit(desk, "a", 100)
    submit(desk, "b", 100, priority=10)
    desk.after(200)
    assert has(desk) == {"b": 28}


def test_who_waits_alone_is_served_in_one_turn(desk, monkeypatch):
    """Turns cost: a large job of one owner must not be cut up, whoever waits below it."""
    turns = []
    place = desk.core.placement._place

    def watched(job, budget, now_ms):
        turns.append(job.row.id)
        return place(job, budget, now_ms)

    monkeypatch.setattr(desk.core.placement, "_place", watched)
    devices(desk, 100)
    submit(desk, "b", 10)
    submit(desk, "a", 300, priority=10)
    desk.after(200)
    assert turns == ["new-a", "new-b"]


def test_turns_are_long_where_there_is_much_room(desk, monkeypatch):
    turns = []
    place = desk.core.placement._place

    def watched(job, budget, now_ms):
        turns.append(place(job, budget, now_ms))
        return turns[-1]

    monkeypatch.setattr(desk.core.placement, "_place", watched)
    devices(desk, 250)
    for owner in "ab":
        submit(desk, owner, 1_000)
    desk.after(500)
    assert has(desk) == {"a": 500, "b": 500} and turns[0] >= 60 and len(turns) <= 150


@quiet
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40)), min_size=2, max_size=5),
)
def test_equal_tasks_are_given_as_one_at_a_time(desk_kit, count, owners):
    """`owners`: how many tasks each has, and how many more it asks for."""
    desk = desk_kit.Desk()
    devices(desk, count)
    names = "abcde"[: len(owners)]
    for owner, (before, _) in zip(names, owners, strict=True):
        submit(desk, owner, before, name="old")
        desk.after(200)
    held, asked = has(desk), {o: more for o, (_, more) in zip(names, owners, strict=True)}
    for job in list(desk.core.ledger.jobs.values()):  # who had no room at first is not part of this
        if job.ready:
            asked[job.owner] += len(job.ready)
    slots = [4 * count]
    expected = one_at_a_time(
        slots,
        [slots[0] - sum(held.values())],
        dict.fromkeys(names, (1,)),
        asked,
        {o: [held[o]] for o in names},
    )
    for owner in names:
        submit(desk, owner, dict(zip(names, owners, strict=True))[owner][1])
    desk.after(500)
    got = has(desk)
    assert sum(got.values()) - sum(held.values()) == sum(expected.values())
    assert all(abs(got[o] - held[o] - expected[o]) <= 1 for o in names)


@quiet
@given(
    st.integers(20, 400),
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30), st.integers(1, 200)),
        min_size=2,
        max_size=5,
    ),
)
def test_unlike_tasks_are_given_as_one_at_a_time(desk_kit, room, owners):
    """`owners`: cpu and memory of each one's tasks, how many it has, and how many more it asks for.

    Who is next is decided by less than a task, and what is left at the end fits one and not the other: so
    shares may differ by a few of the largest tasks, and never by more.
    """
    desk = desk_kit.Desk()
    total = (room, room)
    devices(desk, 1, Resources(*total, 10_000, 0, 0, 0, 4_000))
    names = "abcde"[: len(owners)]
    by_owner = dict(zip(names, owners, strict=True))
    for owner, (cpu, memory, before, _) in by_owner.items():
        submit(desk, owner, before, Resources(cpu, memory), name="old")
        desk.after(100)
    before = has(desk)
    needs = {o: (cpu, memory) for o, (cpu, memory, _, _) in by_owner.items()}
    waiting = Counter()
    for job in desk.core.ledger.jobs.values():
        waiting[job.owner] += len(job.ready)
    held = {o: [before[o] * n for n in needs[o]] for o in names}
    free = [t - sum(held[o][i] for o in names) for i, t in enumerate(total)]
    asked = {o: by_owner[o][3] + waiting[o] for o in names}
    expected = one_at_a_time(total, free, needs, asked, held)
    for owner, (cpu, memory, _, more) in by_owner.items():
        submit(desk, owner, more, Resources(cpu, memory))
    desk.after(500)
    got = has(desk)
    largest = max(max(n) for n in needs.values())
    for owner in names:
        apart = abs(got[owner] - before[owner] - expected[owner]) * max(needs[owner])
        assert apart <= 2 * largest, (owner, got, before, expected)


@pytest.mark.parametrize("cpu_milli", [500, 1_000], ids=["room in crumbs", "no room at all"])
def test_what_fits_nowhere_is_not_looked_at_one_by_one(desk, monkeypatch, cpu_milli):
    devices(desk, 20, Resources(cpu_milli, 4_096, 10_000, 0))
    if cpu_milli == 1_000:
        submit(desk, "c", 20, name="full")
    desk.after(200)
    looks = []
    picker = desk.core.placement.picker

    def watched(job):
        looks.append(job.row.id)
        return picker(job)

    monkeypatch.setattr(desk.core.placement, "picker", watched)
    for i in range(400):
        desk.submit(job=f"j{i}", needs=QUARTER, rules=owned("ab"[i % 2]))
    desk.after(200)
    assert has(desk).keys() <= {"c"} and 2 <= len(looks) <= 40
