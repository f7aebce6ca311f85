"""Scenario files: what is written is read again, the built-in ones hold, and what is wrong is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.command.workers import memory_storage
from sim.drawing import draw_plan
from sim.plan import Verdict
from sim.safety import run_plan
from sim.scenarios import ScenarioError, built_in, read_scenario, write_scenario

GOOD = """\
# Two devices and a cut.
seed = 7
faults_ms = 60000

devices = [
    { name = "d0", profile = "pi-4b-4g" },
    { name = "d1", profile = "pi-4b-4g", site = "hall" },
]

[[faults]]
at_ms = 1000
kind = "cut"
device = "d1"
for_ms = 5000
way = "both"

[[orders]]
at_ms = 500
kind = "cordon"
device = "d0"
"""


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), devices=st.integers(1, 6), faults_ms=st.integers(1, 200_000))
def test_what_is_written_is_read_again(seed, devices, faults_ms):
    plan = draw_plan(seed, devices, faults_ms)
    assert read_scenario(write_scenario(plan), "drawn") == plan


def test_both_ways_of_writing_a_list_are_read():
    plan = read_scenario(GOOD, "good.toml")
    assert read_scenario(write_scenario(plan), "again") == plan
    assert plan.faults[0].args == (("way", "both"),)


# ------------------------------------------------------------- those that come along


@pytest.fixture
def play():
    """Plays a built-in scenario: (outcome, world)."""

    def play(name):
        seen = []
        plan = read_scenario(built_in()[name], f"{name}.toml")
        outcome = run_plan(plan, memory_storage, seen.append)
        assert outcome.verdict is Verdict.HELD, (outcome.breaches, outcome.detail)
        return outcome, seen[0]

    return play


def alarms(world):
    return [str(n.fields["alarm"]) for c in world.controllers for n in c.notes if "alarm" in n.fields]


@pytest.mark.parametrize("name", sorted(built_in()))
def test_each_built_in_scenario_holds_and_each_of_its_faults_begins(name, play):
    outcome, _ = play(name)
    planned = [fault.kind for fault in outcome.plan.faults]
    assert outcome.faults == {kind: planned.count(kind) for kind in planned}


def test_a_silent_site_freezes_failover_with_an_alarm(play):
    outcome, world = play("silent-site")
    assert "storm:hall" in alarms(world)
    cut_ms = 1_000_000 + 15_000
    moved = [
        device for when, device, _ in world.checkers.start_times
        if cut_ms + 20_000 < when < cut_ms + 60_000 and world.devices[device].labels["site"] == "office"
    ]  # fmt: skip
    assert not moved, "failover is frozen, nothing goes to the office"
    assert outcome.starts >= 18


def test_a_clone_is_quarantined_with_an_alarm_and_frees_nothing_by_what_it_reports(play):
    _, world = play("clone")
    assert "quarantine:d1" in alarms(world)


def test_an_old_backup_is_told_and_nothing_new_starts_for_one_hold(play):
    _, world = play("old-backup")
    found = [n.text for c in world.controllers for n in c.notes if "older than the fleet" in n.text]
    assert found
    begun = [when - 1_000_000 for when, _, _ in world.checkers.start_times]
    assert not [when for when in begun if 152_000 < when < 180_000]


# ------------------------------------------------------------- what is wrong

FAMILY_WORDS = 'families = ["lost"]\nseed = 7'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 7", "seed = ", "bad.toml:2: not TOML: Invalid value"),
        ("seed = 7", "sed = 7", "bad.toml:2: unknown key 'sed'; did you mean 'seed'? Expected one of:"),
        ("seed = 7\n", "", "bad.toml:1: expected 'seed', which is missing"),
        ("seed = 7", FAMILY_WORDS, "bad.toml:2: unknown family 'lost'; did you mean 'loss'?"),
        ("faults_ms = 60000", "faults_ms = -1",
         "bad.toml:3: faults_ms: expected a whole number 1…86400000, not -1"),
        ("at_ms = 1000", "at_ms = -5", "bad.toml:11: at_ms: expected a whole number 0…86400000, not -5"),
        ("at_ms = 1000", "at_ms = 1.5", "bad.toml:11: at_ms: expected a whole number 0…86400000, not 1.5"),
        ("at_ms = 1000", 'at_ms = "soon"',
         "bad.toml:11: at_ms: expected a whole number 0…86400000, not 'soon'"),
        ("at_ms = 1000", "at_ms = true",
         "bad.toml:11: at_ms: expected a whole number 0…86400000, not true or false"),
        ("at_ms = 1000\n", "", "bad.toml:10: expected 'at_ms', which is missing"),
        ('kind = "cut"', 'kind = "cutt"',
         "bad.toml:12: unknown kind of fault 'cutt'; did you mean 'cut'? Expected one of: agent_dies_after,"),
        ('kind = "cut"\n', "", "bad.toml:10: expected 'kind', which is missing"),
        ('kind = "cordon"', 'kind = "cordn"',
         "bad.toml:19: unknown kind of order 'cordn'; did you mean 'cordon'? Expected one of: add, cancel,"),
        ('device = "d1"', 'device = "d11"',
         "bad.toml:13: unknown device 'd11'; did you mean 'd1'? Expected one of: d0, d1"),
        ('device = "d1"\n', "", "bad.toml:10: expected 'device', which is missing"),
        ('way = "both"', 'way = "upp"',
         "bad.toml:15: unknown way 'upp'; did you mean 'up'? Expected one of: both, down, up"),
        ('way = "both"', "way = 3", "bad.toml:15: way: expected text in quotes, not 3"),
        ('way = "both"\n', "", "bad.toml:10: expected 'way', which is missing"),
        ('way = "both"', 'way = "both"\nhow = "so"',
         "bad.toml:16: unknown key 'how'; did you mean 'way'? Expected one of: at_ms, device,"),
        ('"d1", profile', '"d0", profile', "bad.toml:7: there is a device 'd0' already"),
        ('"d1", profile', '"d/1", profile', "bad.toml:7: expected letters, digits and hyphens, not 'd/1'"),
        ('profile = "pi-4b-4g", site', 'profile = "pi-4b", site',
         "bad.toml:7: unknown profile 'pi-4b'; did you mean 'pi-4b-4g'? Expected one of: generic-linux,"),
        ('site = "hall"', "rate_ppm = 9999999",
         "bad.toml:7: rate_ppm: expected a whole number -500000…500000, not 9999999"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line_and_what_was_expected(old, new, message):
    assert GOOD.count(old) >= 1
    with pytest.raises(ScenarioError) as caught:
        read_scenario(GOOD.replace(old, new, 1), "bad.toml")
    assert str(caught.value).startswith(message)


def test_wrong_quirks_lists_and_emptiness_are_told():
    quirks = GOOD + "\n[quirks]\nwill_late = 3\n"
    for text, message in (
        (quirks, "x:23: unknown key 'will_late'; did you mean 'will_late_ms'?"),
        ("seed = 1\nfaults_ms = 5\ndevices = []\n", "x:3: expected at least one device"),
        ("seed = 1\nfaults_ms = 5\ndevices = 3\n", "x:3: expected a list of tables"),
        ("seed = 1\nfaults_ms = 5\nquirks = 3\n[[devices]]\nname = 'd'\n", "x:3: expected a table: [quirks]"),
        ("", "x:1: expected 'seed', which is missing"),
        ("seed = 1\nfaults_ms = 5\nfamilies = 'all'\n[[devices]]\nname = 'd'\n",
         "x:3: expected a list of names in quotes"),
    ):  # fmt: skip
        with pytest.raises(ScenarioError) as caught:
            read_scenario(text, "x")
        assert str(caught.value).startswith(message)
