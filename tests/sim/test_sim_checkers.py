"""Every checker on histories that hold and histories that don't: one that can't fail is worth nothing."""

from __future__ import annotations

import histories_of_moves
import histories_of_placement
import histories_of_records
import histories_of_returns
import histories_of_suspension
import histories_of_traffic
import pytest
from history_book import Book

from sim import observations as seen
from sim.checkers import CHECKERS, INVARIANTS
from sim.histories import check_history, read_history, write_line

PASSES = (
    histories_of_placement.PASSES
    + histories_of_moves.PASSES
    + histories_of_records.PASSES
    + histories_of_returns.PASSES
    + histories_of_traffic.PASSES
    + histories_of_suspension.PASSES
)
BREAKS = (
    histories_of_placement.BREAKS
    + histories_of_moves.BREAKS
    + histories_of_records.BREAKS
    + histories_of_returns.BREAKS
    + histories_of_traffic.BREAKS
    + histories_of_suspension.BREAKS
)


def invariants_of(book):
    return [breach.invariant for breach in check_history(book.told).breaches]


# ------------------------------------------------------------- what holds everywhere


@pytest.mark.parametrize("invariant", CHECKERS)
def test_one_quiet_run_breaks_nothing(invariant):
    book = Book()
    book.one_run()
    checkers = check_history(book.told)
    assert checkers.breaches == [] and checkers.by_name[invariant].invariant == invariant


# ------------------------------------------------------------- all of them


@pytest.mark.parametrize(("invariant", "tell"), PASSES, ids=lambda v: getattr(v, "__name__", v))
def test_it_holds(invariant, tell):
    book = Book()
    tell(book)
    assert check_history(book.told).breaches == []


@pytest.mark.parametrize(("invariant", "tell"), BREAKS, ids=lambda v: getattr(v, "__name__", v))
def test_it_is_broken_and_nothing_else_is(invariant, tell):
    book = Book()
    tell(book)
    assert set(invariants_of(book)) == {invariant}


@pytest.mark.parametrize(("invariant", "tell"), BREAKS, ids=lambda v: getattr(v, "__name__", v))
def test_a_written_history_is_judged_alike(invariant, tell):
    book = Book()
    tell(book)
    text = "\n".join(write_line(observation) for observation in book.told)
    assert check_history(read_history(text, "x")).breaches == check_history(book.told).breaches


def test_each_invariant_can_fail_here():
    assert list(INVARIANTS) == list(CHECKERS)
    settles = {"I11"}  # asked, not watched: see below
    assert {invariant for invariant, _ in BREAKS} == set(CHECKERS) - settles


# ------------------------------------------------------------- I11


def unsettled(book, has_reason=lambda task: False):
    return check_history(book.told).settling.unsettled(has_reason)


def test_everything_runs_exactly_once_or_has_a_reason_to_wait():
    book = Book()
    book.one_run(end=False)
    assert unsettled(book) == ""
    book.submit("j2")
    assert unsettled(book, lambda task: task == "j2.0") == ""
    assert "j2.0 is pending" in unsettled(book)


def test_what_is_said_to_run_must_run_and_what_is_over_must_not():
    book = Book()
    book.one_run(end=False)
    book.ended()
    assert "said to run" in unsettled(book)
    book.succeed()
    assert unsettled(book) == ""
    book.began(number=1)
    assert "is succeeded and lives" in unsettled(book)
    nobody = Book()
    nobody.began()
    assert "nobody's" in unsettled(nobody)


# ------------------------------------------------------------- faults outside the assumptions


def test_a_fault_outside_the_assumptions_excuses_its_device_its_invariants_and_its_time():
    book = Book()
    book.began()
    book.saw(seen.OutOfBounds, "d0", ("I1",), 5_000, "one identity twice")
    book.began("j1.0", "d1", 2)
    checkers = check_history(book.told)
    assert checkers.breaches == [] and [b.invariant for b in checkers.excused] == ["I1"]
    book.began("j2.0", "d2", 1)
    book.began("j2.0", "d1", 2)
    assert invariants_of(book) == ["I1"], "other devices are not excused"
    book.ended("j1.0", "d1", 2)
    book.after(10_000)
    book.began("j1.0", "d1", 3)
    assert invariants_of(book) == ["I1", "I1"], "nor is the time after it"


def test_a_fault_that_ends_early_says_so():
    book = Book()
    book.saw(seen.OutOfBounds, "", ("I1",), 10**9, "clock")
    book.saw(seen.OutOfBounds, "", ("I1",), book.now, "clock")
    book.began()
    book.after(1)
    book.began("j1.0", "d1", 2)
    assert invariants_of(book) == ["I1"]


def test_an_observer_that_contradicts_itself_is_an_error_and_no_pass():
    book = Book()
    book.ended()
    with pytest.raises(LookupError, match="never began"):
        check_history(book.told)
