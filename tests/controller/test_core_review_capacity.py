"""What a second reading of the capacity-aware core found: each of these went wrong once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from controller.core import preemption
from controller.core.claims import NAME_BYTES_MAX, doubt_of
from controller.core.condition import REFRESH_MS
from controller.core.documents import entry
from controller.core.placement import IN_VAIN_FEW
from controller.core.queue import AGE_MS
from controller.core.records import Constraint, JobRules
from controller.core.sessions import new_device
from controller.core.shares import NOWHERE, names_given, place_of, read_share, write_share
from controller.scheduler import view as views
from controller.scheduler.view import NO_MODEL, Demand, Share, View
from protocol.messages import Accelerator, Health, Inventory
from protocol.resources import Resources
from protocol.tasks import JobKind, RunState, TaskState
from tests.controller.stages import FULL, Stage

ONE = Resources(1_000, 10)
LIVE = (TaskState.ASSIGNED, TaskState.RUNNING)


def of(owner):
    return JobRules(owner=owner)


def out(desk):
    return Counter(a.job.owner for a in desk.core.ledger.attempts.values())


# ------------------------------------------------------------- the queue


def test_owners_share_a_full_fleet_though_one_of_them_asks_with_many_jobs(desk):
    desk.join("d1", room=Resources(256_000, 256_000, 0, 0))
    for at in range(200):
        desk.submit(job=f"a{at:03}", needs=ONE, rules=of("a"))
    for at in range(200):
        desk.submit(job=f"b{at:03}", needs=ONE, rules=of("b"))
    desk.after(500)
    assert sum(out(desk).values()) == 256
    assert 96 <= out(desk)["b"] <= 160, "by turns of 64"


def passing(stage, ms):
    """Time in which every device goes on beating."""
    for _ in range(ms // 5_000):
        stage.desk.after(5_000)
        for device in stage.numbers:
            stage.beat(device)


def test_what_is_served_all_the_time_grows_no_older(desk):
    """A job of endless tasks must not stay ahead of one below it for ever."""
    stage = Stage(desk)
    desk.submit(job="endless", needs=FULL, count=100, priority=2)
    desk.after(100)
    desk.submit(job="patient", needs=FULL, priority=0)
    for _ in range(8):
        passing(stage, AGE_MS // 2)
        stage.report("d1")
        [attempt] = stage.listed("d1")
        if attempt.row.task == "patient.0":
            return
        stage.counts["d1"] += 1
        ended = (attempt.row.task, attempt.row.attempt, RunState.ENDED, 0)
        desk.runs("d1", stage.numbers["d1"], stage.counts["d1"], ended)
        desk.after(100)
    raise AssertionError("it starved")


# ------------------------------------------------------------- preemption


NOWHERE_TO_BE_FOUND = (Constraint("label.zone", "=", "nowhere"),)


def test_who_finds_no_search_left_in_a_round_is_looked_at_in_the_next(desk, monkeypatch):
    monkeypatch.setattr(preemption, "SEARCHES_PER_ROUND", 2)
    stage = Stage(desk)
    stage.filled()
    for at in range(5):
        needs = Resources(4_000, 10 + at)
        desk.submit(job=f"hopeless{at}", needs=needs, priority=50, constraints=NOWHERE_TO_BE_FOUND)
    desk.submit(job="high", needs=FULL, priority=20)
    desk.after(200)
    assert stage.leaving() == ["low.0"], "though nothing else happened in the fleet"


def test_each_task_of_a_large_daemon_is_searched_for(desk, monkeypatch):
    monkeypatch.setattr(preemption, "SEARCHES_PER_ROUND", 2)
    stage = Stage(desk, count=8)
    for at in range(1, 9):  # all but the last hold what doesn't give way
        stage.filled(job=f"x{at}", needs=FULL, priority=0 if at == 8 else 20)
    assert len(desk.core.ledger.attempts) == 8
    desk.submit(job="guard", needs=FULL, count=0, priority=25, kind=JobKind.DAEMON)
    desk.after(300)
    assert len(stage.leaving()) == 1


def test_what_is_in_vain_for_a_job_with_rules_of_its_own_is_not_for_another(desk):
    apart = (Constraint("", "distinct_device", ""),)
    stage = Stage(desk)
    desk.placed(job="j-a", needs=ONE, priority=50, count=2, constraints=apart)
    stage.filled(job="low", needs=Resources(3_000, 10))
    desk.after(100)
    desk.submit(job="j-b", needs=ONE, priority=50, constraints=apart)
    desk.after(100)
    assert stage.leaving() == ["low.0"]


def test_a_turn_that_promises_used_up_leaves_nobody_behind(desk, monkeypatch):
    monkeypatch.setattr("controller.core.queue.TURN_TASKS", 1)
    stage = Stage(desk)
    stage.filled()
    desk.submit(job="other", needs=FULL, constraints=NOWHERE_TO_BE_FOUND, rules=of("b"))
    desk.placed(job="high", needs=FULL, count=2, priority=50, rules=of("a"))
    assert stage.leaving() == ["low.0"]
    stage.report("d1")
    stage.join("d2")
    desk.after(200)
    assert {stage.where("high.0"), stage.where("high.1")} == {"d1", "d2"}


def test_many_kinds_that_fit_nowhere_are_looked_at_less_often(desk):
    """Each of them is held against the whole fleet, whenever anything ends."""
    desk.join()
    placement, fleet = desk.core.placement, desk.core.ledger.fleet

    def pause_ms():
        fleet.note_room()
        placement.notice_room(desk.now)
        pause = placement.due_ms - desk.now
        desk.after(500)
        return pause

    for at in range(IN_VAIN_FEW + 200):
        desk.submit(job=f"j{at:03}", needs=Resources(5_000 + at))
    desk.after(500)
    assert pause_ms() >= 20
    for at in range(IN_VAIN_FEW + 190):
        desk.cancel(f"j{at:03}")
    pause_ms()
    assert pause_ms() < 5


def test_room_that_a_gang_gives_up_is_told_to_who_waits_for_it(desk):
    stage = Stage(desk)
    stage.filled(job="held", needs=FULL, rules=of("a"))
    stage.join("d2")
    desk.submit(job="gang", needs=FULL, count=2, rules=JobRules(owner="a", gang=True))
    desk.after(50)
    core = desk.core
    share = Share(FULL._replace(slots=1))
    core.nominations.nominate(core.ledger.tasks["gang.0"], 1, share, desk.now + 600_000)
    core.ledger.fleet.note_room()  # something ended, somewhere
    desk.submit(job="patient", needs=FULL, rules=of("b"))
    desk.after(200)
    assert stage.where("patient.0") == "d2", "its turn came before the gang's"


# ------------------------------------------------------------- what devices say


def inventory(**more):
    return Inventory(1, 1, "p", Resources(4_000, 4_096, 0, 1_000), runtimes=("process",), **more)


@pytest.mark.parametrize("name", ["a b", "a\u2003b", "a\x0bb", "a=b", "a\rb", "", "cpu", "é" * 51])
def test_no_accelerator_has_a_name_that_a_record_could_not_keep(name):
    assert "calls an accelerator" in doubt_of(inventory(accelerators=(Accelerator(name),)))
    assert not doubt_of(inventory(accelerators=(Accelerator("é" * (NAME_BYTES_MAX // 2)),)))


def test_an_odd_name_that_was_written_is_read_again():
    record = replace(new_device("d", 0), accelerators=(("a\u2003b", "", 1_000),))
    share = Share(Resources(7, 1, 0, 500), ((0, 500),))
    text = write_share(share, Demand(Resources(10, 1, 0, 500)), record)
    assert read_share(text, Demand(Resources(10, 1, 0, 500)), record) == share
    assert names_given(text) == ("a\u2003b",) and names_given("") == ()


def test_an_unnamed_accelerator_that_a_device_no_longer_has_stands_nowhere():
    record = replace(new_device("d", 0), capacity=Resources(1, 1, 0, 1_500))
    assert [place_of(record, f"gpu{n}") for n in range(3)] == [0, 1, NOWHERE]


def test_names_that_devices_invent_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(views, "MODELS_MAX", 2)
    monkeypatch.setattr(views, "EXTRAS_KINDS_MAX", 2)
    view = View()
    row = view.add()
    for at in range(4):
        gpus = [(f"m{at}", 1_000)]
        view.offer(row, Resources(1, 1, 1, 1_000), Resources(), gpus, {f"x{at}": 5})
    assert list(view.models) == ["m0", "m1"] and view.accel_model[row, 0] == NO_MODEL
    assert list(view.extras_free) == ["x0", "x1"] and view.extras_free["x1"][row] == 0
    share = Share(Resources(), (), (("x3", 5),))
    view.take(row, share, 0)
    view.give(row, share, 0)
    assert list(view.extras_free) == ["x0", "x1"]


def test_what_is_given_back_of_an_extra_was_taken_though_nobody_offered_it_then():
    """A device dropped it while a run held some; after a restart another device names it first."""
    view = View()
    row, other = view.add(), view.add()
    share = Share(Resources(), (), (("camera", 1),))
    view.take(row, share, 0)
    view.offer(other, Resources(), Resources(), (), {"camera": 1})
    view.give(row, share, 0)
    assert view.extras_free["camera"].tolist() == [0, 1]


def test_health_that_a_device_no_longer_tells_does_not_stand_for_ever(desk):
    """At a session's begin nothing is told: who lost its thermometer while it was hot must get work again."""
    desk.join()
    core, view = desk.core, desk.core.ledger.fleet.view
    core.condition.note_health(np.array([0]), np.array([Health(1, temperature_c=99)], np.int64))
    desk.after(REFRESH_MS)
    desk.heartbeat("d1", 1 << 24, 2)
    desk.placed()
    assert desk.task().state is TaskState.PENDING and view.temperature_c[0] == 99
    desk.join("d1", 2 << 24)
    desk.after(REFRESH_MS)
    desk.heartbeat("d1", 2 << 24, 2)
    desk.after(REFRESH_MS)
    assert desk.task().state in LIVE


def test_no_document_names_slots(desk):
    """An agent of before they were there reads rows of four, and a longer one makes it drop all its work."""
    desk.join()
    desk.placed(needs=Resources(100, 10, 0, 0, 0, 0, 2))
    [attempt] = desk.core.ledger.attempts.values()
    assert attempt.share.resources.slots == 2
    assert entry(attempt).resources == Resources(100, 10)


def test_the_same_words_at_the_begin_of_a_session_wake_nobody(desk):
    desk.join(labels={"zone": "a"})
    fleet = desk.core.ledger.fleet
    before = fleet.facts_generation, fleet.facts.flags("label.zone", "=", "a").tolist()
    desk.inventory("d1", 1 << 24, 2, labels={"zone": "a"})
    assert (fleet.facts_generation, fleet.facts.flags("label.zone", "=", "a").tolist()) == before
    assert fleet.records[0].inventory == 2 and not fleet.retold
    desk.inventory("d1", 1 << 24, 3, labels={"zone": "b"})
    assert fleet.facts.flags("label.zone", "=", "b").tolist() == [True]
    assert desk.store.load().devices[0].labels == {"zone": "b"}
