"""Holes that a model of this protocol found, each with the story that shows it closed.

The clause that closes a hole is in `mutations`; without it the story finds what the model
found. A hole may have several ways in.
"""

from __future__ import annotations

import pytest
from mutations import MUTATIONS
from stories import STORIES

HOLES: dict[str, tuple[str, ...]] = {
    "H1 a session number comes again": ("S1 sessions only count", "D2 grant for another session"),
    "H2 a start after the grant has run out": ("D2 start after the deadline",),
    "H3 an ordered stop is taken for death": (
        "D5 a stop that is ordered is done",
        "D5 runs without the guard's list",
        "D4 interrupted is said unasked",
    ),
    "H4 an attempt that was forgotten is granted again": (
        "L2 grants before a report",
        "L2 the forgotten is granted again",
        "L2 a take-over forgets what was before",
    ),
    "H4b and the session was not committed": ("S1 session not committed",),
    "H5 revisions without their epoch": ("D1 a revision is its number",),
    "H6 a lost report is never said again": ("D3 runs said once",),
    "H7 a tombstone that is not told": (
        "D6 a tombstone that is not told",
        "D6 an unconfirmed document stops adopted runs",
    ),
    "H8 a cordon leaves the unstarted": (
        "L7 a cordon leaves the unstarted",
        "D5 what is prepared is called running",
    ),
    "H9 runs thaw before the guard looks": ("L4 runs thaw before the guard looks",),
    "H10 the floor is told once": ("S1 floor told once",),
    "H11 commits are not conditional on the epoch": ("L6 commits not fenced",),
    "H12 what the journal calls running is started": ("D4 what has an entry is started",),
    "H13 a result frees though its session is old": ("L3 reports of old sessions free",),
    "H14 the guard's death leaves runs behind": ("L4 the guard's death ends nothing",),
    "R1 after a restore nothing holds what runs": ("L6 no wait after a restore",),
    "R2 a second leader within the wait": ("L6 the wait is not committed",),
    "R3 numbers are handed out again": (
        "D1 attempt numbers go on after a restore",
        "D1 an older database is not found out",
    ),
    "G1 weak containment outlives its hold": ("L4 weak containment is held as strong",),
    "G2 a new guard answers before it has swept": ("L4 a new guard answers before it has swept",),
    "J1 an unsaved session starts nothing for ever": ("S1 nothing starts again after a failed save",),
}


@pytest.mark.parametrize(("hole", "clause"), [(h, c) for h, clauses in HOLES.items() for c in clauses])
def test_a_hole_is_closed_and_opens_without_its_clause(hole, clause):
    mutation = MUTATIONS[clause]
    story = STORIES[mutation.story]
    assert story() == set(), f"{hole} is open"
    with mutation.switch_off():
        assert set(mutation.finds.split()) <= story()
