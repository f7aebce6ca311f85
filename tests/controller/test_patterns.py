"""Patterns against Python's own engine, and against people who want to hang the controller."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.pattern_text import PatternFault
from controller.core.patterns import PROGRAM_MAX, STATES_MAX, Pattern

ATOMS = (
    *("a", "b", "A", "-", "1", ".", "é", "\n", r"\.", r"\-", r"\t", " "),
    *("[ab]", "[^a]", "[a-c-]", "[]a]", r"[^\d]", r"[\w.]", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"),
)
REPEATS = ("*", "+", "?", "{2}", "{1,3}", "{2,}", "{0}", "{0,2}", "*?", "+?", "??", "{1,2}?")


def _larger(inner):
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(REPEATS)).map(lambda p: f"(?:{p[0]}){p[1]}"),
        st.tuples(st.sampled_from(ATOMS), st.sampled_from(REPEATS)).map("".join),
        inner.map("({})".format),
        inner.map("^{}".format),
        inner.map("{}$".format),
        inner.map("(|{})".format),
    )


patterns = st.tuples(
    st.sampled_from(("", "(?i)")), st.recursive(st.sampled_from(ATOMS), _larger, max_leaves=9)
).map("".join)
texts = st.text("abABc-.1é\n \0", max_size=9)


@settings(max_examples=600, deadline=None)
@given(patterns, st.lists(texts, min_size=1, max_size=8))
def test_a_pattern_finds_what_re_finds(pattern, samples):
    # `$` is the end of the text and nothing else; in Python it is also before a last newline.
    reference = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    try:
        made = Pattern(pattern)
    except PatternFault as fault:
        assert "too" in str(fault)
        return
    for text in samples:
        assert made.search(text) == bool(reference.search(text)), text
    assert made.search_all(samples).tolist() == [made.search(text) for text in samples]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("(a+)+$", "a" * 256 + "b", False),
        ("^(a|a)*$", "a" * 256 + "b", False),
        ("^(a|aa)+$", "a" * 256, True),
        ("^(a*)*$", "a" * 256, True),
        (".*.*.*.*.*.*b", "a" * 256, False),
        ("(.*a){20}b", "a" * 256, False),
        ("^(a?){200}$", "a" * 200, True),
        ("^(a?){200}$", "a" * 201, False),
        ("(x+x+)+y", "x" * 256, False),
        ("^([a-z0-9]+-?)+!$", "a1" * 128, False),
    ],
)
def test_what_makes_others_hang_is_answered(pattern, text, found):
    """With `re` most of these never end."""
    assert Pattern(pattern).search(text) is found
    assert Pattern(pattern).search_all([text, "", text] * 3_000)[::3].tolist() == [found] * 3_000


@settings(max_examples=200, deadline=None)
@given(st.text(r"ab.*+?{}()[]|^$\d,1290-", max_size=256))
def test_any_text_is_a_pattern_of_bounded_size_or_a_fault(text):
    try:
        made = Pattern(text)
    except PatternFault as fault:
        assert str(fault)
        return
    assert len(made._table) <= STATES_MAX
    assert all(0 <= after < len(made._table) for row in made._table for after in row)


@pytest.mark.parametrize(
    "pattern",
    ["(a|b)*a(a|b){20}", "a{256}b{256}", "((a{0}){256}){256}", "(((((a?){9}){9}){9}){9}){9}", "(a?b?){200}"],
)
def test_what_would_be_too_large_is_refused(pattern):
    with pytest.raises(PatternFault, match=r"too (complex|long)"):
        Pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "at character 4: back-references"),
        (r"\bpi", "'\\b' is not known; there are no word boundaries"),
        (r"\q", "'\\q' is not known"),
        ("\\", "'\\' is not known"),
        ("a(?=b)", "at character 3: only"),
        ("a(?<!b)", "there is no looking ahead or back"),
        ("a(?i)b", "(?i) at the very beginning"),
        ("a**", "a repeat of a repeat"),
        ("a{2}{3}", "a repeat of a repeat"),
        ("a*+", "a repeat of a repeat"),
        ("*a", "at character 1: nothing to repeat; write \\*"),
        ("a|+", "nothing to repeat"),
        ("^*", "an anchor can't be repeated"),
        ("a{,3}", "write \\{ for the character"),
        ("{", "nothing to repeat"),
        ("a{3,2}", "the wrong way round"),
        ("a{257}", "counts go up to 256"),
        ("(a", "')' is missing"),
        ("a)", "')' without '('"),
        ("[a", "']' is missing"),
        ("[z-a]", "a range is the wrong way round"),
        (r"[\d-z]", "a range goes from one character to another"),
        ("[[:alpha:]]", "write a-zA-Z"),
        ("(" * 21 + ")" * 21, "nested deeper than 20"),
        ("a" * 257, "at most 256 characters; this has 257"),
    ],
)
def test_a_fault_says_where_and_what_to_write(pattern, words):
    with pytest.raises(PatternFault) as caught:
        Pattern(pattern)
    assert words in str(caught.value)


def test_a_pattern_is_searched_for_unless_it_is_anchored():
    assert Pattern("b").search("abc")
    assert not Pattern("^b$").search("abc")
    assert Pattern(r"\Aabc\z").search("abc")
    assert not Pattern("^pi-[0-9]+$").search("pi-7\n"), "the end is the end, not before a last newline"


def test_ascii_letters_lose_their_case_on_request():
    assert Pattern("(?i)^rack-[A-F]$").search("RACK-b")
    assert not Pattern("(?i)^[^a]$").search("A")
    assert not Pattern("(?i)é").search("É")


REAL = (
    "^(eu|us|ap)-(north|south|east|west)-[0-9]{1,2}[a-c]$",
    r"^10\.2[0-9]\.\d{1,3}\.\d{1,3}$",
    "[a-z]{3,20}-[a-z]{3,20}-[a-z]{2,20}$",
    r"^(?P<numbers>v?\d+\.\d+\.\d+)(-[\w.]+)?$",
    ".{200}",
)


@pytest.mark.parametrize("pattern", REAL)
def test_the_bounds_leave_room_for_real_patterns(pattern):
    assert len(Pattern(pattern)._table) < STATES_MAX / 2
    assert PROGRAM_MAX >= 2 * 256, "a label's length, counted"
