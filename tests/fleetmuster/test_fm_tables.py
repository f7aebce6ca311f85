"""Tables: widths by content, cut only for a terminal, nothing foreign gets through."""

from hypothesis import given
from hypothesis import strategies as st

from fleetmuster.tables import Column, printable, render

COLUMNS = (Column("ID", fixed=True), Column("NAME"), Column("N", right=True))


def test_columns_are_as_wide_as_their_content():
    text = render(COLUMNS, [["t-1", "short", "5"], ["t-22222", "a longer name", "12345"]])
    assert text.splitlines() == [
        "ID       NAME               N",
        "t-1      short              5",
        "t-22222  a longer name  12345",
    ]


def test_without_a_width_nothing_is_cut():
    assert "x" * 500 in render(COLUMNS, [["t-1", "x" * 500, "1"]])


def test_a_terminal_cuts_names_but_never_ids():
    text = render(COLUMNS, [["i" * 30, "n" * 60, "1"]], width=50)
    assert "i" * 30 in text and "…" in text
    assert all(len(line) <= 50 for line in text.splitlines())


def test_an_escape_sequence_in_a_label_is_shown_not_obeyed():
    text = render(COLUMNS, [["t-1", "\x1b[2Jgone\nnext", "1"]])
    assert "\x1b" not in text and "\\x1b[2Jgone\\nnext" in text
    assert len(text.splitlines()) == 2


def test_a_state_is_coloured_without_moving_the_columns():
    plain = render(COLUMNS, [["t-1", "failed", "1"]])
    painted = render(COLUMNS, [["t-1", "failed", "1"]], colour=True)
    assert "\x1b[31mfailed\x1b[0m" in painted
    assert painted.replace("\x1b[31m", "").replace("\x1b[0m", "") == plain


def test_wide_characters_take_two_columns():
    lines = render(COLUMNS, [["t-1", "日本", "1"], ["t-2", "abcd", "1"]]).splitlines()
    assert lines[1] == "t-1  日本  1" and lines[2] == "t-2  abcd  1"


@given(st.text(max_size=40), st.integers(min_value=1, max_value=60))
def test_any_text_stays_one_line_within_the_width(text, width):
    assert printable(text).isprintable()
    shown = render((Column("A"),), [[text]], width=max(width, 6))
    assert shown.count("\n") == 2
