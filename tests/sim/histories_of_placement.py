"""Histories that hold and histories that break what jobs were promised of their places: I5 and P1 to P8."""

from __future__ import annotations

from dataclasses import replace

from history_book import NEEDS, attempt, audit, task

from controller.core.records import (
    AttemptState,
    Constraint,
    Dependency,
    DeviceRow,
    JobRules,
    JobState,
)
from protocol.messages import HEALTH_KNOWN, NO_HEALTH, NO_REVISION, Health, Heartbeat, Held, LeaseAnswer
from protocol.resources import Resources
from protocol.tasks import JobKind, TaskState

PASSES, BREAKS = [], []
CARDS = (("gpu0", "t4", 1_000), ("gpu1", "a2", 1_000))
WITH_CARDS = Resources(4_000, 4_096, 10_000, 2_000)
HALF = NEEDS._replace(gpu_milli=500)
WHOLE = NEEDS._replace(gpu_milli=1_000)
HOT = Health(HEALTH_KNOWN, 92, 100, 0, 0)
COOL = Health(HEALTH_KNOWN, 45, 100, 0, 0)


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


# ------------------------------------------------------------- I5: what is really reserved


def cards(b, *jobs):
    """A device with two accelerators, and jobs of one task with these needs."""
    b.device(room=WITH_CARDS, accelerators=CARDS)
    for number, (needs, given) in enumerate(jobs, 1):
        b.submit(f"j{number}", resources=needs)
        b.assign(f"j{number}.0", given=given)


@passes("I5")
def two_halves_and_a_whole(b):
    cards(b, (HALF, "gpu0=500"), (HALF, "gpu0=500"), (WHOLE, "gpu1=1000"))


@breaks("I5")
def one_accelerator_over_its_milli(b):
    """The sum over both would do."""
    cards(b, (HALF, "gpu0=500"), (HALF._replace(gpu_milli=600), "gpu0=600"))


@breaks("I5")
def a_whole_one_that_is_shared(b):
    cards(b, (HALF, "gpu0=500"), (WHOLE, "gpu0=1000"))


@breaks("I5")
def an_accelerator_that_the_device_has_no_more(b):
    cards(b)
    b.submit(resources=HALF)
    b.commit(replace(b.rows[DeviceRow, "d0"], accelerators=CARDS[:1]))
    b.assign(given="gpu1=500")


@breaks("I5")
def an_accelerator_of_another_model(b):
    b.device(room=WITH_CARDS, accelerators=CARDS)
    b.submit(resources=HALF, models=("a2",))
    b.assign(given="gpu0=500")


@breaks("I5")
def a_share_without_an_accelerator(b):
    cards(b, (HALF, ""))


@passes("I5")
def a_faster_core_gives_fewer_thousandths(b):
    b.device(room=Resources(1_000, 4_096, 10_000), core_speed_milli=2_000)
    for name in ("j1", "j2"):
        b.submit(name, reference_cpu=True)
        b.assign(f"{name}.0", given="cpu=500")


@breaks("I5")
def more_things_of_the_site_than_it_has(b):
    b.device(extras={"camera": 1})
    for name in ("j1", "j2"):
        b.submit(name, extras={"camera": 1})
        b.assign(f"{name}.0")


@breaks("I5")
def more_tasks_than_slots(b):
    b.device(room=Resources(4_000, 4_096, 10_000, slots=1))
    b.submit(count=2)
    b.assign("j1.0")
    b.assign("j1.1")


def shrunk(b, **needs):
    """It has less processor than it has promised; another task comes."""
    b.device()
    b.submit()
    b.assign()
    b.commit(replace(b.rows[DeviceRow, "d0"], capacity=Resources(500, 4_096, 10_000)))
    b.submit("j2", resources=Resources(**needs))
    b.assign("j2.0")


@passes("I5")
def of_what_is_not_short_it_may_give_more(b):
    shrunk(b, memory_mib=100)


@breaks("I5")
def of_what_is_short_it_gives_more(b):
    shrunk(b, cpu_milli=1)


# ------------------------------------------------------------- P1


def gang(b, count=2):
    b.device()
    b.submit(count=count, rules=JobRules(gang=True))


@passes("P1")
def a_gang_at_once(b):
    gang(b)
    b.commit(*b.assigned("j1.0"), *b.assigned("j1.1"))


@passes("P1")
def one_of_a_gang_again(b):
    a_gang_at_once(b)
    b.pending("j1.1")
    b.assign("j1.1", number=2)


@breaks("P1")
def a_gang_in_part(b):
    gang(b, 3)
    b.commit(*b.assigned("j1.0"), *b.assigned("j1.1"))


def broken_gang(b):
    """One of two was lost, the other has to leave."""
    a_gang_at_once(b)
    b.pending("j1.1")
    b.commit(replace(attempt("j1.0", "d0", 1, AttemptState.REMOVED), until=2, reason="gang broken"))


@passes("P1")
def a_broken_gang_whole_again(b):
    broken_gang(b)
    b.pending("j1.0")
    b.commit(*b.assigned("j1.0", number=2), *b.assigned("j1.1", number=2))


@breaks("P1")
def a_broken_gang_in_part_while_the_rest_leaves(b):
    broken_gang(b)
    b.assign("j1.1", number=2)


@breaks("P1")
def a_gang_that_lost_all_in_part(b):
    a_gang_at_once(b)
    b.pending("j1.0")
    b.pending("j1.1")
    b.assign("j1.0", number=2)


# ------------------------------------------------------------- P2


def apart(b, value="", attribute="", **more):
    for name, labels in (("d0", {"zone": "a"}), ("d1", {"zone": "a"}), ("d2", {"zone": "b"}), ("d3", {})):
        b.device(name, labels=labels)
    operator = "distinct" if attribute else "distinct_device"
    b.submit(count=3, constraints=(Constraint(attribute, operator, value),), **more)
    b.assign("j1.0", "d0")


@passes("P2")
def each_on_a_device_of_its_own(b):
    apart(b)
    b.assign("j1.1", "d1")
    b.runs("j1.0", "d0")
    b.pending("j1.1", "d1")
    b.assign("j1.1", "d1", 2)


@breaks("P2")
def two_on_one_device(b):
    apart(b)
    b.assign("j1.1", "d0")


@breaks("P2")
def two_in_one_zone(b):
    apart(b, attribute="label.zone")
    b.assign("j1.1", "d1")


@passes("P2")
def two_in_one_zone_where_two_may(b):
    apart(b, "2", "label.zone")
    b.assign("j1.1", "d1")
    b.assign("j1.2", "d2")


@breaks("P2")
def one_where_nobody_knows_the_zone(b):
    apart(b, attribute="label.zone")
    b.assign("j1.1", "d3")


# ------------------------------------------------------------- P3


def daemon(b, *pins):
    b.device()
    b.device("d1")
    b.submit(count=len(pins), pins=pins, kind=JobKind.DAEMON)


@passes("P3")
def a_daemon_on_each(b):
    daemon(b, "d0", "d1")
    b.assign("j1.0", "d0", pin="d0")
    b.assign("j1.1", "d1", pin="d1")


@breaks("P3")
def a_daemons_task_elsewhere(b):
    daemon(b, "d0")
    b.assign("j1.0", "d1", pin="d0")


@breaks("P3")
def two_tasks_of_a_daemon_for_one_device(b):
    daemon(b, "d0", "d0")


# ------------------------------------------------------------- P4


def chain(b, until):
    b.one_run(end=False)
    b.submit("j2", rules=JobRules(depends_on=(Dependency("j1", until),)))


@passes("P4")
def after_it_succeeded(b):
    chain(b, "succeeded")
    b.ended()
    b.succeed()
    b.assign("j2.0")


@breaks("P4")
def before_it_is_over(b):
    chain(b, "ended")
    b.assign("j2.0")


@breaks("P4")
def after_it_failed(b):
    chain(b, "succeeded")
    b.ended()
    b.commit(
        attempt("j1.0", "d0", 1, AttemptState.FREE, exit_code=1),
        task("j1.0", TaskState.FAILED, "d0", 1, exit_code=1),
        audit("task", "j1.0", "running", "failed"),
        b.job(state=JobState.FAILED),
        audit("job", "j1", "open", "failed"),
    )
    b.assign("j2.0")


# ------------------------------------------------------------- P5


@passes("P5")
def one_after_the_other(b):
    b.device()
    b.submit(count=2, rules=JobRules(parallel_max=1))
    b.assign("j1.0")
    b.pending("j1.0")
    b.assign("j1.1")


@breaks("P5")
def more_than_may_be_out(b):
    b.device()
    b.submit(count=3, rules=JobRules(parallel_max=2))
    for name in ("j1.0", "j1.1", "j1.2"):
        b.assign(name)


# ------------------------------------------------------------- P6


def sent_away(b, priority, kind=JobKind.BATCH, by=30):
    b.device()
    b.submit("j1", pins=("d0",) if kind is JobKind.DAEMON else (), priority=priority, kind=kind)
    b.submit("j2", priority=by)
    b.assign(pin="d0" if kind is JobKind.DAEMON else "")
    b.commit(replace(attempt("j1.0", "d0", 1, AttemptState.REMOVED), until=2, reason="preempted by j2"))


@passes("P6")
def for_a_priority_that_is_higher_by_ten(b):
    sent_away(b, 20)


@breaks("P6")
def for_a_priority_that_is_higher_by_nine(b):
    sent_away(b, 21)


@breaks("P6")
def a_daemon_for_whatever_priority(b):
    sent_away(b, 0, JobKind.DAEMON, 100)


# ------------------------------------------------------------- P7


def one_for(b, taints=(), decided="", tolerations=(), constraints=()):
    b.device(labels={"zone": "a"})
    for taint in taints:
        b.commit(replace(b.rows[DeviceRow, "d0"], taints=taints), audit("device", "d0", "", taint))
    b.submit(tolerations=tolerations, constraints=constraints)
    if decided:
        word = "draining" if decided == "draining" else decided
        b.commit(replace(b.rows[DeviceRow, "d0"], cordoned=True, draining=decided == "draining"),
                 audit("device", "d0", "open", word))  # fmt: skip
    b.assign()


@passes("P7")
def where_all_is_well(b):
    one_for(b, constraints=(Constraint("label.zone", "=", "a"),))


@passes("P7")
def where_a_taint_is_overlooked(b):
    one_for(b, taints=("night:no_place",), tolerations=("night",))


@passes("P7")
def where_a_taint_only_speaks_against_it(b):
    one_for(b, taints=("night:prefer_not",))


@breaks("P7")
def where_a_taint_keeps_it_away(b):
    one_for(b, taints=("night:no_place",), tolerations=("day",))


@breaks("P7")
def where_a_taint_would_send_it_away(b):
    one_for(b, taints=("night:evict",))


@breaks("P7")
def on_a_cordoned_device(b):
    one_for(b, decided="cordoned")


@breaks("P7")
def in_another_zone(b):
    one_for(b, constraints=(Constraint("label.zone", "=", "b"),))


@breaks("P7")
def without_its_runtime(b):
    b.device(runtimes=("container",))
    b.submit()
    b.assign()


@passes("P7")
def a_taint_of_the_same_commit(b):
    """One record of real processes may hold both, in whatever order they happened."""
    b.device()
    b.submit()
    b.commit(
        *b.assigned(),
        replace(b.rows[DeviceRow, "d0"], taints=("night:no_place",)),
        audit("device", "d0", "", "night:no_place"),
    )


def told_of(b, *healths, answers=(1,), epoch=7):
    """A leader hears of these, and answers these heartbeats; then, a while later, something is placed."""
    b.device()
    b.submit()
    for number, health in enumerate(healths, 1):
        b.after(1_000)
        b.heard("d0", Heartbeat(5, number, Held(0, 0, 1, 1, 0, 0), health=health))
        if number in answers:
            b.heard("d0", LeaseAnswer(epoch, 5, number, NO_REVISION, 0, 0, 0, 0), received=False)
    b.after(12_000)
    b.heard("d0", Heartbeat(5, 9, Held(0, 0, 1, 1, 0, 0)))
    b.assign()


@breaks("P7")
def on_a_device_that_is_hot(b):
    told_of(b, HOT)


@passes("P7")
def on_a_device_that_cooled_down(b):
    told_of(b, HOT, COOL)


@passes("P7")
def when_the_heat_was_not_heard(b):
    told_of(b, HOT, answers=())


@passes("P7")
def when_a_new_leader_answers_only_what_came_later(b):
    told_of(b, HOT, NO_HEALTH, answers=(2,))


@passes("P7")
def when_another_leader_heard_of_the_heat(b):
    told_of(b, HOT, epoch=6)


@passes("P7")
def in_a_session_that_told_of_no_heat(b):
    told_of(b, HOT)
    b.told.pop()  # the assignment
    b.commit(replace(b.rows[DeviceRow, "d0"], session=6))
    b.assign()


# ------------------------------------------------------------- P8


def cron(b, overlap):
    b.submit("j1", 0, kind=JobKind.CRON, rules=JobRules(schedule="* * * * *", overlap=overlap))
    for name in ("j1r1", "j1r2"):
        b.commit(b.job(name, rules=JobRules(parent="j1")), audit("job", name, "", "open"), task(f"{name}.0"))


@passes("P8")
def runs_that_may_overlap(b):
    cron(b, overlap=True)


@breaks("P8")
def runs_that_may_not(b):
    cron(b, overlap=False)
