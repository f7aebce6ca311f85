"""Histories as files: what is written is read again, and what can't be read is named by its line."""

from __future__ import annotations

import json
import typing

import pytest
from history_book import Book
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import observations as seen
from sim.checkers import Checkers
from sim.histories import KINDS, ROWS, HistoryClock, HistoryError, check_history, read_history, write_line

ROW = st.one_of([st.from_type(kind) for kind in ROWS.values()])


def observation(kind):
    hints = typing.get_type_hints(kind)
    more = {"rows": st.lists(ROW, max_size=4).map(tuple)} if "rows" in hints else {}
    return st.builds(kind, at_ms=st.integers(0, 2**53), **more)


HISTORIES = st.lists(st.one_of([observation(kind) for kind in KINDS.values()]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_what_is_written_is_read_again(history):
    history.sort(key=lambda o: o.at_ms)
    text = "".join(write_line(o) + "\n" for o in history)
    assert read_history(text, "h") == history


def test_every_kind_of_observation_has_a_name():
    assert set(KINDS.values()) == set(seen.Observation.__subclasses__())


GOOD = write_line(seen.RunBegan(5, "d0", "j1.0", 1, True, 30_000))
BAD = {
    "nonsense": "a JSON object",
    "[1]": "a JSON object",
    '{"at_ms":1}': '"saw" to be one of',
    '{"at_ms":1,"saw":"RunStarted"}': '"saw" to be one of',
    '{"saw":"JournalLost","device":"d0"}': "JournalLost with 'at_ms'",
    '{"at_ms":9,"saw":"JournalLost"}': "JournalLost with 'device'",
    '{"at_ms":"9","saw":"JournalLost","device":"d0"}': "JournalLost.at_ms to be a whole number",
    '{"at_ms":true,"saw":"JournalLost","device":"d0"}': "JournalLost.at_ms to be a whole number",
    '{"at_ms":9,"saw":"JournalLost","device":"d0","wheels":4}': "JournalLost without 'wheels'; it has at_ms",
    '{"at_ms":9,"saw":"JournalLost","device":null}': "JournalLost.device to be text",
    '{"at_ms":1,"saw":"JournalLost","device":"d0"}': "at_ms of at least 5",
    '{"at_ms":9,"saw":"Committed","epoch":1,"rows":[{"row":"tusk"}]}': '"row" of job, task',
    '{"at_ms":9,"saw":"Committed","epoch":1,"rows":[{"row":"task"}]}': "task with 'id'",
    '{"at_ms":9,"saw":"Committed","epoch":1,"rows":{}}': "Committed.rows to be a list",
    '{"at_ms":9,"saw":"Delivered","client":"c","received":true,"topic":"t","payload":"€"}': "to be base64",
    '{"at_ms":9,"saw":"Delivered","client":"c","received":1,"topic":"t","payload":""}': "true or false",
}


@pytest.mark.parametrize(("line", "expected"), BAD.items())
def test_a_bad_line_is_named_with_what_was_expected(line, expected):
    with pytest.raises(HistoryError) as error:
        read_history(f"{GOOD}\n\n{line}\n", "/tmp/h.jsonl")
    assert str(error.value).startswith("/tmp/h.jsonl:3: expected ") and expected in str(error.value)


def test_a_state_that_does_not_exist_is_named_with_those_that_do():
    book = Book()
    book.submit()
    line = write_line(book.told[0]).replace('"pending"', '"paused"', 1)
    if '"paused"' in line:
        with pytest.raises(HistoryError, match=r"state to be one of pending, assigned"):
            read_history(line, "h")
    told = json.loads(line)
    told["rows"][0]["spec"]["resources"] = [1, 2]
    with pytest.raises(HistoryError, match="resources to be 7 whole numbers"):
        read_history(json.dumps(told).replace('"paused"', '"pending"'), "h")


# ------------------------------------------------------------- I1 against the obvious

LIVES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(0, 2), st.integers(0, 3)), max_size=14
)
"""(begins, lasts, task, device) of runs; attempts are numbered as they come."""


def told_by(lives):
    history = []
    for number, (begins, lasts, task, device) in enumerate(lives, 1):
        who = (f"d{device}", f"j1.{task}", number)
        history.append((begins, 1, seen.RunBegan(begins, *who, True, 30_000)))
        history.append((begins + lasts, 0, seen.RunEnded(begins + lasts, *who)))
    return [o for _, _, o in sorted(history, key=lambda item: item[:2])]


def overlaps(lives):
    """Pairs of one task that live at one moment, each looked at beside each."""
    count = 0
    for a, (a_begins, a_lasts, a_task, _) in enumerate(lives):
        for b_begins, b_lasts, b_task, _ in lives[a + 1 :]:
            count += a_task == b_task and a_begins < b_begins + b_lasts and b_begins < a_begins + a_lasts
    return count


@settings(max_examples=300, deadline=None)
@given(LIVES)
def test_overlaps_are_found_as_by_looking_at_all_pairs(lives):
    breaches = check_history(told_by(lives)).breaches
    assert {b.invariant for b in breaches} <= {"I1"}
    pairs = sum(b.text.count(" on d") - 1 for b in breaches)
    assert pairs == overlaps(lives)


def test_a_long_history_leaves_nothing_to_walk():
    """Incremental: what is over is in no list that a checker goes through."""
    book, clock = Book(), HistoryClock()
    book.device()
    checkers = Checkers(clock)
    for number in range(1, 400):
        book.submit(f"j{number}")
        book.assign(f"j{number}.0", number=1)
        book.began(f"j{number}.0")
        book.runs(f"j{number}.0")
        book.ended(f"j{number}.0")
        book.succeed(f"j{number}.0")
    for observation in book.told:
        clock.now_ms = observation.at_ms
        checkers.saw(observation)
    assert checkers.breaches == [] and not checkers.seen.open
    assert not any(checkers.seen.live.values()) and checkers.seen.held_by == {"d0": 0}
