"""Why tasks wait, in every way that a task can wait; and what spoke for a device."""

from __future__ import annotations

import pytest

from controller.core.events import TaskExplained, WaitsQueried
from controller.core.explaining import DEPENDENCY, HELD_BACK, PAUSE, UNEXAMINED
from controller.core.placement import FEW
from controller.core.records import Affinity, Constraint, Dependency, JobRules, Spread, TaskSpec
from controller.scheduler.explain import CODES
from protocol.resources import Resources
from protocol.tasks import JobKind, RunState

SMALL = Resources(2_000, 4_096, 10_000, 0)


def told(desk, desk_kit, task="j1.0"):
    return desk_kit.reply(desk.feed(TaskExplained(9, task)))


def words(view):
    return [remedy.words for remedy in view.remedies]


def pending(desk):
    core = desk.core
    return core.pictures.fleet_view(desk.now).pending


def test_memory_that_is_missing_is_told_with_what_would_help(desk, desk_kit):
    desk.join("pi-07", room=Resources(4_000, 472, 1_000))
    desk.join("pi-08", room=Resources(4_000, 4_096, 1_000))
    desk.decide("pi-08", "cordon")
    desk.placed(needs=Resources(1_000, 512))
    view = told(desk, desk_kit)
    assert view.reason == "memory" and view.policy.startswith("spread: ")
    assert words(view) == [
        "40 MiB more on pi-07, which is too small",
        "a smaller demand: memory_mib 472 instead of 512",
        "uncordon pi-08",
    ]
    assert [(f.filter, f.removed) for f in view.filters] == [
        ("not cordoned, draining or quarantined", 1), ("memory_mib capacity >= 512", 1),
    ]  # fmt: skip
    assert pending(desk) == {"memory": 1}


def test_attributes_taints_and_absence_have_their_words(desk, desk_kit):
    desk.join("a1", labels={"zone": "a"})
    desk.join("b1", labels={"zone": "b"})
    fleet = desk.core.ledger.fleet
    fleet.taint(fleet.index["b1"], ("gpu=shared:no_place", "old:prefer_not"))
    desk.placed(constraints=(Constraint("label.zone", "=", "b"),))
    view = told(desk, desk_kit)
    assert view.reason == "taint" and "has a taint that the job doesn't tolerate" in view.summary
    assert words(view) == ["tolerate gpu=shared:no_place, as b1 has it", "drop label.zone = b"]
    assert [r.devices for r in view.remedies] == [1, 1]


def test_a_sick_device_is_to_get_well(desk, desk_kit):
    desk.join("d1")
    view = desk.core.ledger.fleet.view
    view.temperature_c[0], view.on_battery[0], view.battery_percent[0] = 91, True, 5
    desk.core.condition.due_ms = 0
    desk.placed()
    found = told(desk, desk_kit)
    assert found.reason == "guarded"
    assert words(found) == ["d1 cools below 85 °C (now 91) and charges above 15 % (now 5)"]


def test_a_job_that_waits_for_another_says_so(desk, desk_kit):
    desk.join("d1", room=SMALL)
    desk.submit(job="first", needs=Resources(1_000, 9_000))
    desk.placed(job="j1", count=3, rules=JobRules(depends_on=(Dependency("first"),)))
    view = told(desk, desk_kit)
    assert view.reason == DEPENDENCY and view.summary == "waits for job first to succeed"
    assert pending(desk) == {"memory": 1, DEPENDENCY: 3}


def test_a_bound_of_its_own_says_so(desk, desk_kit):
    desk.join("d1")
    desk.placed(count=3, rules=JobRules(parallel_max=1))
    view = told(desk, desk_kit, "j1.1")
    assert view.reason == "parallel" and "1 of its tasks are out, parallel_max is 1" in view.summary
    assert pending(desk) == {"parallel": 2}


def test_no_single_change_is_told_where_it_would_not_place_the_task(desk, desk_kit):
    """A gang needs room for all of it; who waits for another job waits, whatever becomes free."""
    for i in range(2):
        desk.join(f"d{i}", room=SMALL)
    desk.placed(count=2, needs=Resources(4_000, 64), rules=JobRules(gang=True))
    desk.placed(job="j2", needs=Resources(4_000, 64), rules=JobRules(gang=True))
    desk.placed(job="j3", needs=Resources(4_000, 64), rules=JobRules(depends_on=(Dependency("j1", "ended"),)))
    gang, alone, later = (told(desk, desk_kit, f"{job}.0") for job in ("j1", "j2", "j3"))
    assert gang.reason == "gang" and gang.summary.startswith("none of its gang of 2 fit at once; the next ")
    assert words(gang) == [
        "a smaller demand: cpu_milli 2000 instead of 4000",
        "6,000 mCPU more on d0, which is too small",
    ]
    assert alone.reason == "cpu" and "2,000 mCPU more on d0, which is too small" in words(alone)
    assert (later.reason, words(later)) == (DEPENDENCY, [])


def test_a_gang_tells_how_much_of_it_fits(desk, desk_kit):
    desk.join("d1", room=SMALL)
    desk.placed(count=3, rules=JobRules(gang=True))
    view = told(desk, desk_kit)
    assert view.reason == "gang" and view.summary.startswith("only 2 of its gang of 3 fit at once")
    assert pending(desk) == {"gang": 3}
    assert words(view) == [
        "a gang of 2 tasks instead of 3",
        "1,000 mCPU more on d1, which is too small",
        "a smaller demand: cpu_milli 666 instead of 1000",
    ]


def test_a_page_of_waiting_gangs_is_counted(desk, desk_kit):
    desk.join("d1", room=SMALL)
    desk.join("d2", room=Resources(1_000, 4_096, 10_000, 0))
    apart = (Constraint("", "distinct_device", ""),)
    desk.placed(job="j1", count=4, rules=JobRules(gang=True))
    desk.placed(job="j2", count=3, rules=JobRules(gang=True), constraints=apart)
    desk.placed(job="j3", count=2, needs=Resources(3_000, 64), rules=JobRules(gang=True))
    tasks = ("j1.0", "j1.3", "j2.1", "j3.0")
    found = desk_kit.reply(desk.feed(WaitsQueried(9, tasks))).reasons
    assert list(found.values()) == [
        "only 3 of its gang of 4 fit at once", "only 3 of its gang of 4 fit at once",
        "only 2 of its gang of 3 fit at once", "none of its gang of 2 fit at once",
    ]  # fmt: skip


def test_taints_that_keep_a_gang_away_are_told_together(desk, desk_kit):
    fleet = desk.core.ledger.fleet
    for name, taint in (("d1", "gpu:no_place"), ("d2", "old:no_place"), ("d3", "new:no_place")):
        desk.join(name, room=SMALL)
        fleet.taint(fleet.index[name], (taint,))
    desk.placed(count=4, rules=JobRules(gang=True))
    view = told(desk, desk_kit)
    assert words(view) == ["tolerate gpu:no_place and old:no_place, as d1 and 1 more have it"]


def test_a_limit_over_values_tells_itself(desk, desk_kit):
    desk.join("a1", labels={"rack": "r"})
    desk.join("a2", labels={"rack": "r"})
    desk.placed(count=2, constraints=(Constraint("label.rack", "distinct", ""),))
    view = told(desk, desk_kit, "j1.1")
    assert view.reason == "distinct" and words(view) == ["drop label.rack distinct"]
    assert pending(desk) == {"distinct": 1}


def test_a_daemon_speaks_of_its_own_device_only(desk, desk_kit):
    desk.join("d1", room=SMALL)
    desk.join("d2", room=SMALL)
    desk.decide("d2", "cordon")
    desk.placed(kind=JobKind.DAEMON, count=0)
    view = told(desk, desk_kit, "j1.1")
    assert view.reason == "closed" and words(view) == ["uncordon d2"]
    assert view.filters[0].filter == "its own device" and view.filters[0].removed == 1


def test_a_pause_and_a_hold_of_everything_come_first(desk, desk_kit):
    number = desk.running("d1")
    desk.runs("d1", number, 3, ("j1.0", 1, RunState.ENDED, 1))
    view = told(desk, desk_kit)
    assert view.reason == PAUSE and "before attempt 2" in view.summary
    assert pending(desk) == {PAUSE: 1}
    desk.take_over(wait=True)
    desk.submit(job="late")
    assert told(desk, desk_kit, "late.0").reason == HELD_BACK


def test_a_placed_task_tells_what_spoke_for_its_device(desk, desk_kit):
    desk.join("a1", labels={"zone": "a"})
    desk.join("b1", labels={"zone": "b"})
    spec = TaskSpec(
        "process", ("true",), {}, Resources(1_000, 100),
        affinities=(Affinity("label.zone", "=", "b", 80),), spreads=(Spread("label.zone"),),
    )  # fmt: skip
    _submit(desk, spec)
    view = told(desk, desk_kit)
    assert view.summary == "placed on b1" and not view.remedies and not view.reason
    assert [s.device for s in view.scores] == ["b1", "a1"]
    assert view.scores[0].parts["wish"] == 1.0 and view.scores[1].parts["wish"] == 0.5
    assert view.scores[0].parts["spread over label.zone"] == 1.0


def test_what_was_best_when_it_was_placed_is_kept_until_a_take_over(desk, desk_kit):
    for name, cores in (("d1", 8_000), ("d2", 6_000), ("d3", 4_000), ("d4", 2_000)):
        desk.join(name, room=Resources(cores, 4_096, 10_000, 0))
    desk.placed(needs=Resources(1_000, 100))
    before = told(desk, desk_kit)
    assert [s.device for s in before.chosen] == [s.device for s in before.scores[:3]]
    assert [s.score for s in before.chosen] == [s.score for s in before.scores[:3]]
    desk.placed(job="j2", needs=Resources(7_000, 100))  # takes the room that the first had beside it
    after = told(desk, desk_kit)
    assert after.chosen == before.chosen and after.scores[0].score < before.scores[0].score
    desk.take_over()
    assert told(desk, desk_kit).summary == "placed on d1" and told(desk, desk_kit).chosen == []


def test_of_many_at_once_nothing_is_kept(desk, desk_kit):
    desk.join("d1", room=Resources(80_000, 9_000, 10_000, 0))
    desk.placed(count=FEW)
    desk.placed(job="j2", count=FEW + 1)
    shown = [told(desk, desk_kit, name) for name in ("j1.0", f"j1.{FEW - 1}", "j2.0")]
    assert [len(s.chosen) for s in shown] == [1, 1, 0] and shown[2].scores


def _submit(desk, spec):
    from controller.core.events import JobSubmitted
    from protocol.tasks import Guarantee

    desk.feed(
        JobSubmitted(1, "j1", "j1", JobKind.BATCH, 1, 0, Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec, "tester")
    )
    desk.after(200)


def test_reasons_are_few_whatever_waits(desk, desk_kit, monkeypatch):
    desk.join("d1", room=SMALL)
    for i in range(8):
        desk.submit(job=f"j{i}", count=2, needs=Resources(3_000 + i, 100))
    desk.after(200)
    assert pending(desk) == {"cpu": 16}
    monkeypatch.setattr("controller.core.explaining.LOOKS_MAX", 3)
    desk.core.explaining._seen = ()
    assert pending(desk) == {"cpu": 6, UNEXAMINED: 10}
    assert len(CODES) == len(set(CODES)) < 30


@pytest.mark.parametrize("verb", ["cordon", "drain", "remove"])
def test_a_shut_device_helps_only_while_it_is_there(desk, desk_kit, verb):
    desk.join("d1")
    desk.decide("d1", verb)
    desk.placed()
    view = told(desk, desk_kit)
    assert view.reason == ("no_devices" if verb == "remove" else "closed")
    assert bool(view.remedies) == (verb != "remove")
