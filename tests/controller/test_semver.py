"""Versions: the order of semver.org 2.0.0 clause 11, and sets of conditions on it."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.semver import VersionFault, version, versions

ASCENDING = (
    *("0.0.4", "0.1.0", "1.0.0-0", "1.0.0-2", "1.0.0-11", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta"),
    *(
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "2.0.0",
        "2.1.0",
        "2.1.1",
        "10.0.0",
    ),
)


def test_the_example_of_the_specification_is_in_order():
    for a, b in itertools.combinations(ASCENDING, 2):
        assert version(a) < version(b), (a, b)


def _compare(a, b):
    """Clause 11, sentence by sentence."""
    (core_a, _, pre_a), (core_b, _, pre_b) = (t.split("+")[0].partition("-") for t in (a, b))
    numbers_a, numbers_b = ([int(n) for n in c.split(".")] for c in (core_a, core_b))
    if numbers_a != numbers_b:
        return -1 if numbers_a < numbers_b else 1
    if not pre_a or not pre_b:
        return bool(pre_b) - bool(pre_a)
    for x, y in zip(pre_a.split("."), pre_b.split("."), strict=False):
        if x == y:
            continue
        if x.isdigit() and y.isdigit():
            return -1 if int(x) < int(y) else 1
        if x.isdigit() or y.isdigit():
            return -1 if x.isdigit() else 1
        return -1 if x < y else 1
    return (pre_a.count(".") > pre_b.count(".")) - (pre_a.count(".") < pre_b.count("."))


small = st.integers(0, 12).map(str)
names = st.one_of(small, st.text("aB-1", min_size=1, max_size=3).filter(lambda t: not t.isdigit()))
pre = st.one_of(st.just(""), st.lists(names, min_size=1, max_size=3).map(lambda n: "-" + ".".join(n)))
texts = st.tuples(
    st.lists(small, min_size=3, max_size=3).map(".".join), pre, st.sampled_from(("", "+b.01"))
).map("".join)


@settings(max_examples=400, deadline=None)
@given(texts, texts)
def test_precedence_is_that_of_the_specification(a, b):
    mine = (version(a) > version(b)) - (version(a) < version(b))
    sign = _compare(a, b)
    assert mine == (sign > 0) - (sign < 0)
    for operator, wanted in {
        "<": sign < 0,
        "<=": sign <= 0,
        "=": sign == 0,
        "!=": sign != 0,
        ">": sign > 0,
    }.items():
        assert versions(f"{operator} {b}").hold(a) is wanted


@given(st.lists(texts, max_size=8))
def test_sorting_by_version_sorts_by_precedence(found):
    key = functools.cmp_to_key(_compare)
    assert [version(t) for t in sorted(found, key=key)] == sorted(version(t) for t in found)


@pytest.mark.parametrize(
    ("condition", "inside", "outside"),
    [
        (">= 1.4, < 2.0", ("1.4.0", "1.9.9", "2.0.0-rc.1"), ("1.3.9", "2.0.0", "1.4.0-rc.1")),
        ("~> 1.4", ("1.4.0", "v1.9", "1.4"), ("1.3.9", "2.0.0", "2.0.0-0", "1.4.0-rc.1")),
        ("~> 1.4.2", ("1.4.2", "1.4.99"), ("1.4.1", "1.5.0", "1.5.0-alpha")),
        ("~> 1", ("1.0.0", "1.99"), ("2.0.0", "0.9")),
        ("~>1.4.0-rc.1", ("1.4.0-rc.1", "1.4.0"), ("1.4.0-beta", "1.5.0")),
        ("^1.4.2", ("1.4.2", "1.9.0"), ("1.4.1", "2.0.0", "2.0.0-0")),
        ("^0.3.1", ("0.3.1", "0.3.9"), ("0.4.0", "1.0.0")),
        ("^0.0.3", ("0.0.3",), ("0.0.4", "0.0.2")),
        ("^0.0", ("0.0.3",), ("0.1.0",)),
        ("^0", ("0.9.3",), ("1.0.0",)),
        ("1.2", ("1.2.0", "v1.2", "1.2.0+build.7"), ("1.2.1",)),
        ("== 1.2.3", ("1.2.3",), ("1.2.4",)),
        ("!= 1.2.3, >1", ("1.2.4",), ("1.2.3", "1.0.0")),
        ("> 1", ("1.0.1",), ("1", "01.2", "22.04", "1.2.3.4", "", "latest", "1.2.3-", "1.2.3-01", "1.2.x")),
    ],
)
def test_a_set_of_conditions_holds_for_what_it_says(condition, inside, outside):
    for text in inside:
        assert versions(condition).hold(text), text
    for text in outside:
        assert not versions(condition).hold(text), text


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "is no condition on a version"),
        (">= 1.4,", "is no condition on a version"),
        (">= 1.4 < 2", "is no condition on a version"),
        ("=> 1.4", "is no condition on a version"),
        (">= 22.04", "without leading zeros"),
        (">= 1.x", "'1.x' is no version"),
        ("~ 1.4", "write '~> 1.4' or '^1.4'"),
        (",".join(["> 1"] * 17), "more than 16"),
    ],
)
def test_what_is_no_condition_is_refused(condition, words):
    with pytest.raises(VersionFault) as caught:
        versions(condition)
    assert words in str(caught.value)
