"""The checkers are tested: each clause of the rules, taken out, is caught by a story of its own.

With every rule on no story finds anything; without its clause each finds what the table
says. A clause without a story, or whose story finds nothing, fails here. What no removal
can show is in `UNCAUGHT`, with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutations import MUTATIONS, UNCAUGHT
from stories import STORIES

RULES = re.findall(
    r"^### ([SDLC]\d)", (Path(__file__).parents[2] / "protocol/DESIGN.md").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize("story", STORIES)
def test_with_every_rule_on_nothing_breaks(story):
    assert STORIES[story]() == set()


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_a_clause_its_story_finds_what_it_says(name):
    mutation = MUTATIONS[name]
    with mutation.switch_off():
        found = STORIES[mutation.story]()
    assert set(mutation.finds.split()) <= found, f"without {mutation.removed}"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_protocol_has_a_clause_that_is_caught(rule):
    assert any(mutation.rule == rule for mutation in MUTATIONS.values())


def test_what_is_switched_off_is_on_again_whatever_happens():
    before = [(swap, swap.get()) for mutation in MUTATIONS.values() for swap in mutation.swaps]
    for mutation in MUTATIONS.values():
        with pytest.raises(ZeroDivisionError), mutation.switch_off():
            raise ZeroDivisionError
    assert all(swap.get() == original for swap, original in before)


def test_clauses_that_nothing_catches_say_why():
    assert len(RULES) == 23
    assert all(clause.split()[0] in RULES and len(why) > 20 for clause, why in UNCAUGHT.items())
    assert not set(UNCAUGHT) & set(MUTATIONS)


def test_each_clause_has_its_row_in_the_tables():
    told = (Path(__file__).parents[2] / "sim/DESIGN.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Za-z]+\d* [^|]+?) \| ", told, re.M)
    clauses = [*MUTATIONS, *UNCAUGHT]
    assert sorted(row for row in rows if row in clauses) == sorted(clauses)
    for mutation in MUTATIONS.values():
        assert re.search(rf"^\| {re.escape(mutation.name)} \|.*\| `{mutation.story}` \|$", told, re.M)
