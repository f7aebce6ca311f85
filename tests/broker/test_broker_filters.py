"""Filters against the obvious implementation, and the two indexes against filters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.filters import covers, matches, valid_filter, valid_topic
from broker.subscriptions import Subscriptions, TopicIndex

LEVELS = st.sampled_from(["a", "b", "", "$x", "c"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(valid_topic)
FILTERS = (
    st.lists(st.sampled_from(["a", "b", "", "$x", "+"]), min_size=0, max_size=4)
    .flatmap(lambda front: st.sampled_from([[*front, "a"], [*front, "#"], [*front, "+"]]))
    .map("/".join)
    .filter(valid_filter)
)


def dumb_matches(topic_filter: str, topic: str) -> bool:
    """Word for word from 4.7: recursion over levels."""

    def walk(wanted: list[str], levels: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not levels:
            return not wanted and not levels
        return wanted[0] in ("+", levels[0]) and walk(wanted[1:], levels[1:])

    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return walk(wanted, levels) or (wanted[-1] == "#" and walk(wanted[:-1], levels))


@given(FILTERS, TOPICS)
@settings(max_examples=500)
def test_matching_agrees_with_the_specification_read_aloud(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == dumb_matches(topic_filter, topic)


@given(FILTERS, FILTERS, st.lists(TOPICS, max_size=20))
@settings(max_examples=500)
def test_a_covered_filter_matches_nothing_outside(wide: str, narrow: str, topics: list[str]) -> None:
    if covers(wide, narrow):
        assert all(matches(wide, topic) for topic in topics if matches(narrow, topic))


@given(FILTERS, TOPICS)
def test_covering_a_topic_is_matching_it(topic_filter: str, topic: str) -> None:
    assert covers(topic_filter, topic) == matches(topic_filter, topic)


@given(
    st.lists(st.tuples(FILTERS, st.sampled_from("xyz"), st.booleans()), max_size=25),
    st.lists(TOPICS, max_size=6),
)
@settings(max_examples=300)
def test_the_subscription_index_agrees_with_a_plain_list(
    changes: list[tuple[str, str, bool]], topics: list[str]
) -> None:
    index, plain = Subscriptions(), dict[tuple[str, str], int]()
    for number, (topic_filter, client, adding) in enumerate(changes):
        for topic in topics:
            index.receivers(topic)  # so that remembered answers must be forgotten
        if adding:
            index.add(topic_filter, client, number % 2)
            plain[topic_filter, client] = number % 2
        else:
            index.remove(topic_filter, client)
            plain.pop((topic_filter, client), None)
    for topic in topics:
        expected: dict[str, int] = {}
        copies = [(c, q) for (f, c), q in plain.items() if matches(f, topic)]
        for client, qos in copies:
            expected[client] = max(qos, expected.get(client, 0))
        assert dict(index.receivers(topic)) == expected
        assert sorted(index.copies(topic)) == sorted(copies)


@given(st.lists(st.tuples(TOPICS, st.booleans()), max_size=25), FILTERS)
@settings(max_examples=300)
def test_the_topic_index_agrees_with_a_plain_set(changes: list[tuple[str, bool]], topic_filter: str) -> None:
    index, plain = TopicIndex(), dict[str, None]()
    for topic, adding in changes:
        if adding and topic not in plain:
            index.add(topic)
            plain[topic] = None
        elif not adding and topic in plain:
            index.remove(topic)
            del plain[topic]
    assert sorted(index.select(topic_filter)) == sorted(t for t in plain if matches(topic_filter, t))


def test_removed_subscriptions_leave_nothing_behind() -> None:
    index = Subscriptions()
    for topic_filter in ("a/+/c", "a/#", "a/b/c", "#"):
        index.add(topic_filter, "x", 1)
        index.remove(topic_filter, "x")
    assert index._root.empty() and not index._literal


@pytest.mark.parametrize("topic", ["a", "a/b", "/", "a//b", "$SYS/x", "é"])
def test_a_topic_is_valid(topic: str) -> None:
    """4.7.3-1, 4.7.3."""
    assert valid_topic(topic)


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "x" * 65_536, "\ud800", "é" * 40_000])
def test_a_topic_is_refused(topic: str) -> None:
    """3.3.2-2, 4.7.3-1, 4.7.3-2, 4.7.3-3, 1.5.3-1."""
    assert not valid_topic(topic)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/#", "+/b/#", "/+", "a/+/b", "a"])
def test_a_filter_is_valid(topic_filter: str) -> None:
    """4.7.1-2, 4.7.1-3."""
    assert valid_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+", "+a/b", "##", "a\0"])
def test_a_filter_is_refused(topic_filter: str) -> None:
    """4.7.1-2, 4.7.1-3, 4.7.3-1, 4.7.3-2."""
    assert not valid_filter(topic_filter)
