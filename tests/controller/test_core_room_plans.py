"""Plans that make room for one pending task: when there is one, what it moves, why there is none."""

from __future__ import annotations

import random

import pytest

from controller.core.records import Constraint, JobRules, Spread
from controller.core.rules import Rules
from controller.core.views import RefusalView
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind
from tests.controller.crumbs import explained, fragmented, six_small, where
from tests.controller.yard import COOL_MS, ROOM

ON = {n: (Constraint("device", "=", n),) for n in ("d0", "d1", "d2", "d3")}


# ------------------------------------------------------------------------- the whole story


@pytest.mark.parametrize("policy", ["spread", "binpack", "fragmentation", "balanced", "round_robin"])
@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_a_task_that_fits_nowhere_gets_its_room_by_one_move(yard, policy, guarantee):
    y = fragmented(yard(Rules(policy)), guarantee=guarantee)
    plan = y.ask(task="big.0")
    assert (plan.kind, plan.state, plan.task, plan.actor) == ("room", "proposed", "big.0", "ada")
    [move] = plan.moves
    assert move.source == plan.device != move.target and move.source_load == 0.375
    assert plan.after.most_load == 0.75 and y.count() == {"d0": 1, "d1": 1, "d2": 1}
    y.approve(plan.id)
    assert y.core.nominations.nominated_for("big.0") == plan.device
    y.live(5_000)
    done = y.plan(plan.id)
    assert done.state == "done" and [m.landed for m in done.moves] == [move.target]
    assert where(y, "big.0") == plan.device and len(y.running()) == 4
    assert not y.core.nominations.by_task
    assert y.plans().now.most_load == plan.after.most_load


def test_the_fewest_tasks_move_and_of_these_the_cheapest(yard):
    y = yard(devices=4, rooms={3: ROOM._replace(cpu_milli=1_500)})
    for job, name, cpu, priority in [
        ("many", "d0", 500, 0), ("dear", "d1", 1_500, 50), ("cheap", "d2", 1_500, 0),
    ]:  # fmt: skip
        y.desk.submit(
            job=job, count=3 if job == "many" else 1, needs=Resources(cpu, 64), priority=priority,
            constraints=(Constraint("device", "in", f"{name},d3"),),
        )  # fmt: skip
        if name != "d0":
            y.desk.submit(job=f"fill-{name}", needs=Resources(500, 64), constraints=ON[name])
        y.desk.decide("d3", "cordon")
        y.live(1_000)
    y.desk.decide("d3", "uncordon")
    y.live(COOL_MS)
    y.desk.submit(job="big", needs=Resources(3_500, 64), constraints=(Constraint("device", "!=", "d3"),))
    y.live(1_000)
    plan = y.ask(task="big.0")
    assert [(m.task, m.target) for m in plan.moves] == [("cheap.0", "d3")] and plan.device == "d2"


def test_several_small_ones_go_to_one_device(yard):
    y = six_small(yard)
    assert len(y.ask(task="big.0", approve=True).moves) == 3
    y.live(5_000)
    assert where(y, "big.0") == "d0" and y.count() == {"d0": 4, "d1": 3}


@pytest.mark.parametrize("resource", ["memory_mib", "disk_mib", "slots", "gpu_milli"])
def test_any_resource_may_be_what_is_lacking(yard, resource):
    room = Resources(4_000, 4_096, 10_000, 1_000, slots=4)
    y = yard(devices=2, rooms={0: room, 1: room})
    half = Resources(10, 10)._replace(**{resource: getattr(room, resource) // 2})
    for name, other in (("d0", "d1"), ("d1", "d0")):
        y.desk.decide(other, "cordon")
        y.desk.submit(job=f"on-{name}", needs=half)
        y.live(1_000)
        y.desk.decide(other, "uncordon")
    y.live(COOL_MS)
    assert y.count() == {"d0": 1, "d1": 1}
    more = Resources(10, 10)._replace(**{resource: getattr(room, resource)})
    y.desk.submit(job="big", needs=more)
    y.live(1_000)
    plan = y.ask(task="big.0", approve=True)
    assert len(plan.moves) == 1
    y.live(5_000)
    assert where(y, "big.0") == plan.device and len(y.running()) == 3


def test_room_is_kept_for_the_task_while_it_is_being_made(yard):
    y = fragmented(yard(devices=2))
    y.deaf_to = {"d0", "d1"}
    plan = y.ask(task="big.0", approve=True)
    y.live(1_000)
    assert plan.state == "running" and y.core.nominations.nominated_for("big.0") == plan.device
    assert explained(y).reason == "nominated" and "waits for 1 of its runs to end" in explained(y).summary
    y.desk.submit(job="thief", count=10, needs=Resources(500, 64))
    y.live(1_000)
    y.deaf_to = set()
    y.live(5_000)
    assert y.plan(plan.id).state == "done" and where(y, "big.0") == plan.device
    thieves = [t for t in y.core.ledger.tasks.values() if t.row.job == "thief" and t.row.device]
    assert len(thieves) == 4  # 2,000 of 8,000 are left by what was there and what was promised


def test_an_explanation_names_the_moves_and_they_do_place_it(yard):
    y = fragmented(yard())
    [remedy] = [r for r in explained(y).remedies if r.kind == "moves"]
    assert (remedy.amount, remedy.words) == (
        1, f"move 1 task off {remedy.device}: fm rebalance plan --task big.0",
    )  # fmt: skip
    before = [list(map(int, column)) for column in y.core.ledger.fleet.view.free]
    explained(y)
    assert before == [list(map(int, column)) for column in y.core.ledger.fleet.view.free]
    y.ask(task="big.0", approve=True)
    y.live(5_000)
    assert where(y, "big.0") == remedy.device


# ------------------------------------------------------------------------- what is refused


def refused(y, task, code="conflict", **more):
    answers = [y.ask(task=task, dry_run=dry_run, **more) for dry_run in (True, False)]
    assert all(isinstance(a, RefusalView) and a.code == code for a in answers), answers
    assert answers[0].detail == answers[1].detail and y.plans().items == []
    return answers[0].detail


def test_tasks_that_need_no_room_made_are_refused(yard):
    y = fragmented(yard())
    assert refused(y, "nobody.0", "not_found") == "no open task nobody.0: it is over, or never was"
    assert "is running on d0; room is made for tasks that are pending" in refused(y, "on-d0.0")
    y.desk.submit(job="held", needs=Resources(3_000, 64), rules=JobRules(parallel_max=1), count=2)
    y.desk.submit(job="gang", needs=Resources(3_000, 64), rules=JobRules(gang=True), count=2)
    y.live(1_000)
    assert "its whole gang must fit at once" in refused(y, "gang.0")
    y.core.placement.not_before_ms = y.desk.now + 5_000
    assert "waits for something else than room: nothing is placed for 5 s" in refused(y, "big.0")
    y.core.placement.not_before_ms = 0


def test_a_task_that_fits_already_is_refused(yard):
    y = fragmented(yard())
    y.core.placement.not_before_ms = y.desk.now + 60_000
    y.listen()
    y.report("d1", **{"on-d1.0": 0})
    y.core.placement.not_before_ms = 0
    assert y.core.ledger.tasks["big.0"].row.state == "pending"
    assert refused(y, "big.0") == "task big.0 fits on 1 device without moving anything"


def test_without_a_plan_it_says_why_and_where_to_look(yard):
    y = fragmented(yard(), each=2_500)
    said = refused(y, "big.0")
    assert said.startswith(
        "no plan of at most 10 moves makes room for big.0: waits for room: needs 3,000 mCPU"
    )
    assert said.endswith("; `fm task explain big.0` shows what else would help")
    assert not [r for r in explained(y).remedies if r.kind == "moves"]


def test_nothing_that_came_lately_moves_and_it_says_so(yard):
    y = fragmented(yard())
    y.desk.take_over()
    y.live(5_000)
    assert "; 3 of the tasks there came too lately to be moved again" in refused(y, "big.0")
    y.live(COOL_MS)
    assert y.ask(task="big.0", dry_run=True).moves and y.plans().items == []


def test_no_more_moves_than_were_allowed(yard):
    y = fragmented(yard(devices=4), each=500, count=4)
    assert "no plan of at most 1 move makes" in refused(y, "big.0", moves_max=1)
    assert len(y.ask(task="big.0", moves_max=2).moves) == 2


@pytest.mark.parametrize(
    "more",
    [{"rules": JobRules(gang=True)}, {"rules": JobRules(policy="binpack")}, {"kind": JobKind.DAEMON}],
)
def test_these_are_never_moved_for_room(yard, more):
    y = yard(devices=2)
    if "kind" in more:
        y.desk.submit(job="on", count=0, needs=Resources(1_500, 64), **more)
    else:
        y.desk.submit(job="on", count=2, needs=Resources(1_500, 64), **more)
        y.desk.submit(job="big0", needs=Resources(3_000, 64))
    y.live(COOL_MS + 5_000)
    y.desk.submit(job="big", count=3, needs=Resources(3_000, 64))
    y.live(1_000)
    waiting = [t for t in ("big.0", "big.1", "big.2") if y.core.ledger.tasks[t].row.state == "pending"]
    refused(y, waiting[-1])


def test_tasks_that_must_stand_apart_do_so_after_a_plan(yard):
    """d1 has the room, but the rack of a sister: the cheaper move is not allowed."""
    racks = {0: {"rack": "a"}, 1: {"rack": "b"}, 2: {"rack": "b"}, 3: {"rack": "c"}}
    y = yard(devices=4, labels=racks, rooms={3: ROOM._replace(cpu_milli=1_500)})
    apart = (Constraint("label.rack", "distinct", ""),)
    y.desk.decide("d1", "cordon"), y.desk.decide("d3", "cordon")
    y.desk.submit(job="apart", count=2, needs=Resources(1_500, 64), constraints=apart)
    y.live(1_000)
    y.desk.submit(job="fill", needs=Resources(2_400, 64), constraints=ON["d2"])
    y.desk.decide("d1", "uncordon")
    y.desk.submit(job="fill1", needs=Resources(1_100, 64), constraints=ON["d1"])
    y.desk.decide("d3", "uncordon")
    y.live(COOL_MS)
    y.desk.submit(job="big", needs=Resources(3_000, 64), constraints=ON["d0"])
    y.live(1_000)
    plan = y.ask(task="big.0", approve=True)
    assert [(m.task[:5], m.source, m.target) for m in plan.moves] == [("apart", "d0", "d3")]
    y.live(5_000)
    assert where(y, "big.0") == "d0" and {where(y, "apart.0"), where(y, "apart.1")} == {"d2", "d3"}


@pytest.mark.parametrize("spread", [False, True])
def test_of_a_job_that_is_spread_one_task_moves_at_a_time(yard, spread):
    """What two of them may do depends on which goes first."""
    y = yard(devices=3, labels={i: {"zone": "a"} for i in range(3)})
    for name in ("d1", "d2"):
        y.desk.decide(name, "cordon")
    y.desk.submit(job="two", count=2, needs=Resources(1_500, 64))
    if spread:
        y.core.ledger.jobs["two"].row.spec.spreads = (Spread("label.zone"),)
    y.live(2_000)
    for name in ("d1", "d2"):
        y.desk.decide(name, "uncordon")
    y.live(COOL_MS)
    y.desk.submit(job="big", needs=Resources(4_000, 64), constraints=ON["d0"])
    y.live(1_000)
    if spread:
        assert "no plan of at most 10 moves" in refused(y, "big.0")
    else:
        assert len(y.ask(task="big.0").moves) == 2


# ------------------------------------------------------------------------- many fleets


@pytest.mark.parametrize("seed", range(40))
def test_whoever_is_promised_room_gets_it_there_and_nothing_is_ever_overbooked(yard, seed):
    """`Yard.check` counts what is reserved at each beat."""
    rng = random.Random(seed)
    labels = {i: {"rack": f"r{i % 3}"} for i in range(4)}
    policy = rng.choice(["spread", "binpack", "fragmentation"])
    room = Resources(4_000, 4_096, 10_000, 2_000, slots=8)
    y = yard(Rules(policy), devices=4, labels=labels, rooms=dict.fromkeys(range(4), room))
    for number in range(12):
        needs = Resources(rng.randint(1, 12) * 100, rng.randint(1, 12) * 100)
        apart = (Constraint("label.rack", "distinct", ""),) if rng.random() < 0.2 else ()
        y.desk.submit(
            job=f"j{number}", count=rng.randint(1, 2), priority=rng.choice([0, 5]), constraints=apart,
            needs=needs._replace(gpu_milli=rng.choice([0, 0, 300, 600])),
        )  # fmt: skip
    y.live(COOL_MS + 2_000)
    gpu = rng.choice([0, 0, 700, 1_000])
    needs = Resources(rng.randint(8, 25) * 100, rng.randint(8, 25) * 100, gpu_milli=gpu)
    y.desk.submit(job="big", needs=needs, priority=5)
    y.live(1_000)
    if y.core.ledger.tasks["big.0"].row.state != "pending":
        return
    named = [r for r in explained(y).remedies if r.kind == "moves"]
    plan = y.ask(task="big.0", approve=True)
    if isinstance(plan, RefusalView):
        assert plan.detail.startswith("no plan of at most 10 moves") and not named
        return
    assert plan.state == "running" and all(r.device == plan.device for r in named)
    y.live(5_000)
    done = y.plan(plan.id)
    assert done.state == "done" and {m.landed == m.target for m in done.moves} == {True}
    assert where(y, "big.0") == plan.device and not y.core.nominations.by_task
