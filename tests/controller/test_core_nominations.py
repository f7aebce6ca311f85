"""Nominations: room that is promised before it is free, to whom, for how long, and what others see of it."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core.events import DevicesQueried, FleetQueried
from controller.core.preemption import STARVING_HELD_MS, STARVING_MS
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, RunState, TaskState
from tests.controller.stages import FULL, Stage

SMALL = Resources(1_000, 10)
MOST = Resources(3_000, 10)


@pytest.fixture
def stage(desk):
    return Stage(desk)


def promised(desk, device="d1", priority=10):
    """`low` runs on the device, `high` waits for it to end."""
    stage = Stage(desk)
    stage.filled(needs=MOST)
    desk.placed(job="high", needs=FULL, priority=priority)
    assert stage.leaving() == ["low.0"] and desk.core.nominations.nominated_for("high.0") == device
    return stage


@pytest.mark.parametrize(("priority", "takes"), [(0, False), (10, False), (11, True)])
def test_nobody_of_the_same_or_a_lower_priority_takes_what_is_promised(desk, priority, takes):
    """A quarter of the device is free all the while."""
    stage = promised(desk)
    desk.placed(job="other", needs=SMALL, priority=priority)
    assert (stage.where("other.0") == "d1") is takes
    stage.report("d1")
    desk.after(200)
    assert (stage.where("high.0") == "d1") is not takes


def test_who_may_take_it_does_so_only_where_there_is_no_other_room(desk):
    stage = promised(desk)
    stage.join("d2")
    desk.placed(job="higher", needs=SMALL, priority=90)
    assert stage.where("higher.0") == "d2"


def test_people_see_no_reservation_that_is_none(desk, desk_kit):
    promised(desk)
    [view] = desk_kit.reply(desk.feed(DevicesQueried(5, "d1"))).items
    assert (view.reserved.cpu_milli, view.free.cpu_milli) == (3_000, 1_000)
    fleet = desk_kit.reply(desk.feed(FleetQueried(6)))
    assert (fleet.reserved.cpu_milli, fleet.free.cpu_milli) == (3_000, 1_000)


def test_a_promise_ends_when_its_time_is_up_and_can_be_made_again(desk):
    """An at_least_one victim that never confirms its stop."""
    stage = Stage(desk)
    stage.filled(guarantee=Guarantee.AT_LEAST_ONE)
    desk.placed(job="high", needs=FULL, priority=10)
    assert desk.core.nominations.nominated_for("high.0") == "d1"
    began = desk.now
    while desk.core.ledger.counters.get("nominations_expired", 0) == 0 and desk.now < began + 90_000:
        desk.after(5_000)
        stage.beat("d1")
    waited = desk.now - began
    assert 36_000 < waited < 45_000, "its hold and the time it has to stop"
    assert stage.leaving() == ["low.0"]


def test_a_device_that_describes_itself_anew_keeps_its_promise_and_its_sums(desk):
    stage = promised(desk)
    view = desk.core.ledger.fleet.view
    before = [int(c[0]) for c in view.free]
    desk.inventory("d1", stage.numbers["d1"], 2)
    assert [int(c[0]) for c in view.free] == before
    desk.cancel("high")
    desk.cancel("low")
    stage.report("d1")
    desk.submit(job="x", needs=SMALL)
    desk.after(200)
    assert desk.core.nominations.by_task == {}
    assert int(view.free[0][0]) == 3_000


@pytest.mark.parametrize("verb", ["cordon", "drain", "remove"])
def test_a_device_that_is_shut_loses_its_promise(desk, verb):
    stage = promised(desk)
    stage.join("d2")
    desk.decide("d1", verb)
    desk.after(200)
    assert stage.where("high.0") == "d2" and desk.core.nominations.by_task == {}


def test_room_that_comes_up_elsewhere_is_taken_and_the_promise_given_back(desk):
    stage = promised(desk)
    stage.join("d2")
    desk.after(200)
    assert stage.where("high.0") == "d2" and desk.core.nominations.by_task == {}
    assert desk.core.ledger.fleet.aside == {}


# ------------------------------------------------------------- starving


class Crumbs:
    """Two devices kept busy by small tasks that come as fast as others end."""

    def __init__(self, desk, **more):
        self.desk, self.stage, self.made, self.more = desk, Stage(desk, 2), 0, more
        self.fill(8)

    def fill(self, count):
        for _ in range(count):
            self.desk.submit(job=f"s{self.made}", needs=SMALL, **self.more)
            self.made += 1
        self.desk.after(100)
        self.stage.run_all()

    def turn(self):
        """On each device the oldest task ends, and two new ones are submitted."""
        for _ in range(2):
            self.desk.submit(job=f"s{self.made}", needs=SMALL, **self.more)
            self.made += 1
        for device in self.stage.numbers:
            listed = self.stage.listed(device)
            if listed:
                oldest = listed[0].row
                self.end(device, oldest)
            self.desk.after(50)
        self.stage.run_all()

    def end(self, device, oldest):
        stage, desk = self.stage, self.desk
        stage.counts[device] += 1
        entries = [(a.row.task, a.row.attempt, RunState.RUNNING) for a in stage.listed(device)]
        entries = [e for e in entries if e[0] != oldest.task]
        ended = (oldest.task, oldest.attempt, RunState.ENDED, 0)
        desk.runs(device, stage.numbers[device], stage.counts[device], *entries, ended)
        stage.beat(device)


def test_small_tasks_cannot_starve_a_large_one_for_ever(desk):
    crumbs = Crumbs(desk)
    desk.submit(job="large", needs=FULL)
    began = desk.now
    while desk.task("large.0").state is TaskState.PENDING and desk.now < began + 4 * STARVING_MS:
        crumbs.turn()
        waited = desk.now - began
        promise = desk.core.nominations.nominated_for("large.0")
        assert promise is None or waited >= STARVING_MS
    assert desk.task("large.0").state is TaskState.ASSIGNED or desk.task("large.0").state is TaskState.RUNNING
    assert desk.core.ledger.counters["nominations"] == 1
    assert "preempted" not in desk.core.ledger.counters


def test_without_the_wait_nothing_is_kept(desk):
    crumbs = Crumbs(desk)
    desk.submit(job="large", needs=FULL)
    began = desk.now
    while desk.now < began + STARVING_MS - 20_000:
        crumbs.turn()
    assert desk.core.nominations.by_task == {} and desk.task("large.0").state is TaskState.PENDING


def waits(desk, stage, ms):
    began = desk.now
    while desk.now < began + ms:
        desk.after(9_000)
        for device in stage.numbers:
            stage.beat(device)


def nudge(desk, stage):
    """Something changes somewhere: the queue is looked through."""
    desk.core.ledger.fleet.note_room()
    desk.core.placement.notice_room(desk.now)
    desk.after(100)


def test_a_device_full_of_services_is_not_kept_in_vain(desk):
    stage = Stage(desk)
    stage.filled(job="web", needs=MOST, kind=JobKind.SERVICE)
    desk.submit(job="large", needs=FULL)
    waits(desk, stage, STARVING_MS + 10_000)
    nudge(desk, stage)
    assert desk.core.nominations.by_task == {}
    stage.join("d2", room=Resources(8_000, 4_096, 10_000, 0))
    desk.placed(job="b", needs=Resources(6_000, 10))
    assert stage.where("large.0") == "d2"


def test_what_no_device_could_ever_hold_keeps_none(desk):
    stage = Stage(desk)
    stage.filled(needs=MOST)
    desk.submit(job="giant", needs=Resources(40_000, 10))
    waits(desk, stage, STARVING_MS + 10_000)
    nudge(desk, stage)
    assert desk.core.nominations.by_task == {}


def test_the_device_with_the_best_prospect_is_kept_and_another_one_after_it_came_to_nothing(desk):
    stage = Stage(desk, 12)
    for i in range(12):
        desk.placed(job=f"b{i}", needs=SMALL if i == 4 else MOST)
    stage.run_all()
    [best] = [d for d in stage.numbers if [a.row.task for a in stage.listed(d)] == ["b4.0"]]
    desk.submit(job="large", needs=FULL)
    waits(desk, stage, STARVING_MS + 10_000)
    nudge(desk, stage)
    assert desk.core.nominations.nominated_for("large.0") == best
    waits(desk, stage, STARVING_HELD_MS)
    nudge(desk, stage)
    assert desk.core.nominations.nominated_for("large.0") not in (None, best)


def test_a_restart_forgets_what_was_kept_and_finds_it_anew_after_the_same_wait(desk):
    stage = Stage(desk)
    stage.filled(needs=MOST)
    desk.submit(job="large", needs=FULL)
    waits(desk, stage, STARVING_MS + 10_000)
    nudge(desk, stage)
    assert desk.core.nominations.nominated_for("large.0") == "d1"
    desk.take_over()
    assert desk.core.nominations.by_task == {}
    free = desk.core.ledger.fleet.view.free
    assert np.array([c[0] for c in free])[0] == 1_000
