"""Taints and tolerations against a table, and what is said of texts that are neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.taints import EFFECTS, TaintFault, check_taint, check_toleration, read_taint, tolerated


@pytest.mark.parametrize(
    ("taints", "tolerations", "meaning"),
    [
        ((), (), (True, 0.0, False)),
        (("gpu=yes:no_place",), (), (False, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu=yes:no_place",), (True, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu=no:no_place",), (False, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu=yes",), (True, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu:no_place",), (True, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu:prefer_not",), (False, 0.0, False)),
        (("gpu=yes:no_place",), ("gpu",), (True, 0.0, False)),
        (("gpu=yes:no_place",), ("*",), (True, 0.0, False)),
        (("gpu=yes:no_place", "wet:evict"), ("*:no_place",), (False, 0.0, True)),
        (("old:prefer_not",), (), (True, 0.5, False)),
        (("old:prefer_not", "slow:prefer_not"), (), (True, 0.75, False)),
        (("old:prefer_not", "slow:prefer_not"), ("old",), (True, 0.5, False)),
        (("wet:evict",), (), (False, 0.0, True)),
        (("wet:evict",), ("wet",), (True, 0.0, False)),
        (("wet=a:evict", "wet=b:evict"), ("wet=a",), (False, 0.0, True)),
    ],
)
def test_a_device_is_open_to_whoever_tolerates_it(taints, tolerations, meaning):
    assert tolerated(taints, tolerations) == meaning


keys, effects = st.sampled_from(("a", "b")), st.sampled_from(EFFECTS)
taints = st.builds("{}{}:{}".format, keys, st.sampled_from(("", "=1", "=2")), effects)
overlooked = st.one_of(
    taints, keys, st.builds("{}=1".format, keys), st.just("*"), st.builds("*:{}".format, effects)
)


def dumb(taint, toleration):
    """The reference: compares texts, form by form."""
    mark, effect = taint.split(":")
    wanted, _, its = toleration.partition(":")
    if its and its != effect:
        return False
    return wanted == "*" or wanted == mark or ("=" not in wanted and wanted == mark.split("=")[0])


@given(st.lists(taints, max_size=4), st.lists(overlooked, max_size=3))
def test_what_is_left_decides(said, overlooking):
    left = [t for t in said if not any(dumb(t, o) for o in overlooking)]
    effects = [t.split(":")[1] for t in left]
    soft = effects.count("prefer_not")
    found = tolerated(said, overlooking)
    assert found.allowed == (soft == len(left))
    assert found.evicts == ("evict" in effects)
    assert found.penalty == pytest.approx(1 - 1 / 2**soft)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu", "has no effect; write gpu:no_place"),
        ("gpu:", "'' is not an effect; there are no_place"),
        ("gpu:NoSchedule", "did you mean 'no_place'?"),
        ("gpu:no-place", "did you mean 'no_place'?"),
        ("gpu:NoExecute", "did you mean 'evict'?"),
        ("gpu:prefer", "did you mean 'prefer_not'?"),
        ("=x:evict", "'' is no key"),
        ("a b:evict", "'a b' is no key"),
        ("a=:evict", "'' is no value"),
        ("a=b=c:evict", "'b=c' is no value"),
        ("a=b:c:evict", "is not an effect"),
        ("x" * 64 + ":evict", "is no key: 1 to 63"),
        ("*:evict", "'*' is no key"),
    ],
)
def test_what_is_no_taint_is_refused(text, words):
    assert words in check_taint(text)
    with pytest.raises(TaintFault):
        read_taint(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a key is missing"),
        (":evict", "write key:evict, or *:evict"),
        ("a:b", "is not an effect"),
        ("*=x", "'*' is no key"),
        ("a=", "'' is no value"),
    ],
)
def test_what_is_no_toleration_is_refused(text, words):
    assert words in check_toleration(text)


@given(st.one_of(overlooked, st.text("ab=:*ev", max_size=8)))
def test_what_has_no_fault_can_be_weighed(text):
    if not check_toleration(text):
        tolerated(("a:evict",), (text,))
    if not check_taint(text):
        tolerated((text,), ("*",))
        assert not check_toleration(text), "whatever is a taint tolerates itself"
        assert tolerated((text,), (text,)).allowed
