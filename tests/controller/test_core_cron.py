"""Cron jobs: a run at each time, once whatever crashes; overlaps, absences, clocks that are set, cancels."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from controller.core.cron import MISSED_MAX, RUNS_MAX, UNREADABLE
from controller.core.events import WallClockRead
from controller.core.records import JobRow, JobRules, JobState
from controller.core.run_ids import run_id
from protocol.core import Save
from protocol.tasks import JobKind, RunState, TaskState

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ENDED = RunState.ENDED


def declare(desk, schedule="* * * * *", job="c1", **rules):
    """Submits a cron job; `zone`, `overlap`, `missed` may be named, the rest goes to the job."""
    named = {n: rules.pop(n) for n in ("zone", "overlap", "missed", "owner") if n in rules}
    return desk.submit(job=job, kind=JobKind.CRON, rules=JobRules(schedule=schedule, **named), **rules)


def row(desk, job="c1"):
    return desk.store.job(job).row


def runs(desk, job="c1"):
    """The runs that were made, first one first."""
    return [row for row in reversed(jobs(desk)) if row.rules.parent == job]


def jobs(desk):
    found, after = [], ""
    while page := desk.store.jobs(after):
        found += [summary.row for summary in page]
        after = found[-1].id
    return found


def told(desk, what, job="c1"):
    """What the audit tells of its times."""
    return [a.reason for a in desk.store.story(job) if (a.what, a.new) == ("cron", what)]


def times(desk, job="c1"):
    """At which times, to the minute, runs were made."""
    return [reason[11:16] for reason in told(desk, "run", job)]


def wall(desk):
    return desk.core.ledger.wall(desk.now)


def go_to(desk, text):
    """Lets the desk begin at a wall-clock time, by setting its clock before anything is declared."""
    at = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)
    desk.feed(WallClockRead(at - desk.now))


def saves(effects):
    return [e for e in effects if isinstance(e, Save)]


def set_clock(desk, by_ms):
    desk.feed(WallClockRead(desk.core.ledger.wall_offset_ms + by_ms))


def be_away(desk, ms):
    """A crash, and a new core after that time; its wall clock is right."""
    offset = desk.core.ledger.wall_offset_ms
    desk.now += ms
    desk.take_over(offset_ms=offset)


def end_runs(desk):
    """Every open run succeeds, without a device: cancelled is as final."""
    for open_run in [r for r in runs(desk) if r.state is JobState.OPEN]:
        desk.cancel(open_run.id)


# ------------------------------------------------------------------ runs


def test_a_cron_job_makes_a_batch_job_at_each_of_its_times(desk):
    go_to(desk, "2026-05-04T10:00:30")
    declare(desk, "*/5 * * * *", overlap=True, count=2, priority=7, owner="ops", ttl_ms=DAY)
    desk.after(12 * MINUTE)
    assert times(desk) == ["10:05", "10:10"]
    first = runs(desk)[0]
    assert (first.kind, first.count, first.priority, first.actor) == (JobKind.BATCH, 2, 7, "tester")
    assert first.rules == JobRules(owner="ops", parent="c1")
    assert first.spec == row(desk).spec and first.name == row(desk).name
    assert first.created_at == wall(desk) - (wall(desk) % (5 * MINUTE)) - 5 * MINUTE
    assert [desk.task(f"{first.id}.{i}").state for i in (0, 1)] == [TaskState.PENDING] * 2
    assert desk.store.task("c1.0") is None and row(desk).state is JobState.OPEN
    assert (row(desk).runs, desk.core.ledger.counters["cron_run"]) == (2, 2)


def test_a_run_is_placed_runs_and_ends_as_any_job(desk):
    number = desk.join()
    declare(desk)
    desk.heartbeat("d1", number, 2)
    while not runs(desk):
        desk.after(1_000)
        desk.heartbeat("d1", number, 3)
    desk.after(200)
    [run] = runs(desk)
    assert desk.task(f"{run.id}.0").state is TaskState.ASSIGNED
    desk.heartbeat("d1", number, 4)
    desk.runs("d1", number, 2, (f"{run.id}.0", 1, RunState.RUNNING))
    desk.runs("d1", number, 3, (f"{run.id}.0", 1, ENDED, 0))
    assert desk.store.job(run.id).row.state is JobState.SUCCEEDED
    assert row(desk).state is JobState.OPEN


def test_a_run_and_what_was_decided_about_its_time_are_saved_together(desk):
    declare(desk)
    kept = [[r for r in e.rows if isinstance(r, JobRow)] for e in saves(desk.after(MINUTE))]
    [both] = [rows for rows in kept if rows]
    assert {r.id for r in both} == {"c1", runs(desk)[0].id}
    assert row(desk).fired_at == runs(desk)[0].created_at


def test_ids_of_runs_are_in_the_order_of_time_and_never_the_same(desk):
    declare(desk, overlap=True)
    declare(desk, job="c2", overlap=True)
    desk.after(5 * MINUTE)
    ids = [r.id for r in runs(desk)] + [r.id for r in runs(desk, "c2")]
    assert len(set(ids)) == 10 and ids[:5] == sorted(ids[:5])
    assert all(id.isalnum() and id == id.lower() and len(id) <= 64 for id in ids)
    assert run_id("j0123456789abcde", 99_999_999, wall(desk)) > "j" and len(run_id("j" * 16, 10**8, 0)) < 40


def test_a_nightly_job_runs_once_in_the_night_in_which_clocks_change(desk):
    for zone, night, expected in [
        ("Europe/Berlin", "2026-03-29T00:00", ["03:00"]),
        ("Europe/Berlin", "2026-10-25T00:00", ["02:30"]),
        ("America/New_York", "2026-03-08T06:00", ["03:00"]),
    ]:
        job = f"c{night[5:7]}{zone[0].lower()}"
        go_to(desk, night)
        declare(desk, "30 2 * * *", job=job, zone=zone)
        desk.after(2 * HOUR + 1_000)
        assert times(desk, job) == expected
        desk.cancel(job)


# ------------------------------------------------------------------ overlap


def test_without_overlap_a_time_is_skipped_while_the_last_run_is_open(desk):
    go_to(desk, "2026-05-04T10:00:30")
    declare(desk)
    desk.after(3 * MINUTE)
    [run] = runs(desk)
    assert times(desk) == ["10:01"] and len(told(desk, "skipped")) == 2
    assert told(desk, "skipped")[0] == f"2026-05-04T10:02+00:00: run {run.id} is still open"
    assert desk.core.ledger.counters["cron_skipped"] == 2
    end_runs(desk)
    desk.after(MINUTE)
    assert times(desk) == ["10:01", "10:04"]


def test_without_overlap_a_run_from_before_a_restart_counts_too(desk):
    declare(desk)
    desk.after(MINUTE)
    be_away(desk, 1_000)
    desk.after(2 * MINUTE)
    assert len(runs(desk)) == 1 and len(told(desk, "skipped")) == 2


def test_with_overlap_no_more_than_a_hundred_runs_are_open(desk):
    declare(desk, overlap=True)
    desk.after((RUNS_MAX + 3) * MINUTE)
    assert len(runs(desk)) == RUNS_MAX and len(told(desk, "skipped")) == 3
    desk.cancel(runs(desk)[40].id)
    desk.after(2 * MINUTE)
    assert len(runs(desk)) == RUNS_MAX + 1


# ------------------------------------------------------------------ restarts and absences


@pytest.mark.parametrize("seed", range(5))
def test_no_time_is_lost_or_doubled_however_often_the_controller_restarts(desk, seed):
    rng = random.Random(seed)
    go_to(desk, "2026-05-04T10:00:01")
    declare(desk, overlap=True)
    began = wall(desk)
    for _ in range(40):
        desk.after(rng.choice([0, 1, 500, 20_000, 59_999, rng.randrange(90_000)]))
        be_away(desk, rng.choice([0, 1, 1_000, 30_000]))
    desk.after(0)
    minutes = wall(desk) // MINUTE - began // MINUTE
    assert len(told(desk, "run")) == len(set(told(desk, "run"))) == len(runs(desk)) == minutes
    assert told(desk, "missed") == []


def test_a_time_within_the_last_minute_is_on_time(desk):
    go_to(desk, "2026-05-04T10:00:30")
    declare(desk, "0 * * * *", missed="skip")
    be_away(desk, HOUR - 30_000 + 59_000)
    desk.after(0)
    assert times(desk) == ["11:00"] and told(desk, "missed") == []


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("skip", []), ("once", ["13:00"]), ("all", ["11:00", "12:00", "13:00"])],
)
def test_what_was_missed_is_treated_as_the_job_says(desk, missed, expected):
    go_to(desk, "2026-05-04T10:30")
    declare(desk, "0 * * * *", missed=missed, overlap=True)
    be_away(desk, 3 * HOUR)
    desk.after(1_000)
    assert times(desk) == expected
    assert told(desk, "missed") == ([] if missed == "all" else ["2026-05-04T11:00+00:00: passed unseen"])
    desk.after(HOUR)
    assert times(desk) == [*expected, "14:00"]


def test_all_makes_up_for_the_newest_hundred_and_tells_of_the_others(desk):
    go_to(desk, "2026-05-04T10:00:30")
    declare(desk, "*/10 * * * *", missed="all", overlap=True)
    be_away(desk, 400 * DAY)
    desk.after(1_000)
    assert len(runs(desk)) == min(MISSED_MAX, RUNS_MAX)
    assert told(desk, "missed") == ["2026-05-04T10:10+00:00: passed unseen"]
    assert told(desk, "run")[-1].startswith("2027-06-08T10:00") and times(desk)[0] == "17:30"


def test_what_is_made_up_for_leaves_others_their_turn(desk):
    for i in range(30):
        declare(desk, job=f"c{i}", missed="all", overlap=True)
    be_away(desk, 2 * DAY)
    made = [
        len([r for r in e.rows if isinstance(r, JobRow) and r.rules.parent]) for e in saves(desk.after(2_000))
    ]
    # The first of each came with the take-over.
    assert sum(made) == 30 * (MISSED_MAX - 1) and max(made) <= 30


def test_all_without_overlap_is_once_and_tells_what_it_skipped(desk):
    go_to(desk, "2026-05-04T10:30")
    declare(desk, "0 * * * *", missed="all")
    be_away(desk, 3 * HOUR)
    desk.after(1_000)
    assert times(desk) == ["11:00"] and len(told(desk, "skipped")) == 2


def test_times_before_its_submit_are_not_missed(desk):
    go_to(desk, "2026-05-04T10:30")
    declare(desk, "0 * * * *", missed="all", overlap=True)
    be_away(desk, 10 * MINUTE)
    desk.after(1_000)
    assert runs(desk) == []


# ------------------------------------------------------------------ a wall clock that is set


def test_a_clock_that_drifts_doubles_and_loses_nothing(desk):
    rng = random.Random(1)
    go_to(desk, "2026-05-04T10:00:30")
    declare(desk, overlap=True)
    for _ in range(200):
        desk.after(rng.randrange(20_000))
        set_clock(desk, rng.randrange(-1_500, 1_500))
    desk.after(0)
    made = [datetime.fromisoformat(reason[:22]) for reason in told(desk, "run")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(made)]
    assert len(made) > 20 and set(gaps) == {60.0}


def test_a_clock_that_is_set_forward_a_little_has_missed_what_it_passed(desk):
    go_to(desk, "2026-05-04T10:30")
    declare(desk, "0 * * * *", missed="once")
    declare(desk, "0 * * * *", job="c2", missed="skip")
    set_clock(desk, 2 * HOUR)
    desk.after(1_000)
    assert times(desk) == ["12:00"] and times(desk, "c2") == [] and len(told(desk, "missed", "c2")) == 1


def test_a_clock_that_is_set_forward_by_years_was_wrong_before(desk):
    go_to(desk, "1970-01-01T00:10")
    declare(desk, "0 * * * *", missed="all", overlap=True)
    set_clock(desk, 56 * 365 * DAY)
    desk.after(1_000)
    assert runs(desk) == [] and told(desk, "missed") == []
    desk.after(HOUR)
    assert len(runs(desk)) == 1


def test_a_clock_that_is_set_back_a_little_runs_nothing_fixed_twice(desk):
    go_to(desk, "2026-05-04T12:10")
    declare(desk, "0,15 8-20 * * *", job="c1")
    declare(desk, "*/15 * * * *", job="c2", overlap=True)
    desk.after(10 * MINUTE)
    assert times(desk) == times(desk, "c2") == ["12:15"]
    end_runs(desk)
    set_clock(desk, -2 * HOUR)
    desk.after(HOUR)
    assert times(desk) == ["12:15"]
    assert times(desk, "c2") == ["12:15", "10:30", "10:45", "11:00", "11:15"]
    desk.after(2 * HOUR)
    assert times(desk) == ["12:15", "13:00"]


def test_a_clock_that_is_set_back_by_more_was_wrong_before(desk):
    go_to(desk, "2036-05-04T12:59")
    declare(desk, "0 13 * * *")
    desk.after(2 * MINUTE)
    assert times(desk) == ["13:00"]
    end_runs(desk)
    set_clock(desk, -4 * HOUR)
    desk.after(4 * HOUR)
    assert times(desk) == ["13:00", "13:00"] and len({r.id for r in runs(desk)}) == 2
    set_clock(desk, -10 * 365 * DAY - HOUR)
    desk.after(HOUR)
    assert len(told(desk, "run")) + len(told(desk, "skipped")) == 3


def test_a_clock_that_was_set_back_by_years_while_no_controller_led_counts_too(desk):
    go_to(desk, "2036-05-04T12:59")
    declare(desk, "0 * * * *", overlap=True)
    desk.after(2 * MINUTE)
    desk.take_over(offset_ms=desk.core.ledger.wall_offset_ms - 10 * 365 * DAY)
    desk.after(HOUR)
    assert len(runs(desk)) == 2


# ------------------------------------------------------------------ the end, and trouble


def test_a_cancel_ends_the_schedule_and_leaves_open_runs_alone(desk):
    declare(desk)
    desk.after(MINUTE)
    [run] = runs(desk)
    desk.cancel("c1")
    assert row(desk).state is JobState.CANCELLED and desk.store.job(run.id).row.state is JobState.OPEN
    desk.after(5 * MINUTE)
    be_away(desk, 1_000)
    desk.after(5 * MINUTE)
    assert len(runs(desk)) == 1 and "c1" not in desk.core.cron.runs
    assert desk.core.ledger.deadlines.due_of("cron", "c1") is None


def test_who_cancels_a_cron_job_before_its_first_time_gets_no_run(desk):
    declare(desk)
    desk.cancel("c1")
    desk.after(3 * MINUTE)
    assert runs(desk) == [] and row(desk).state is JobState.CANCELLED


def test_a_schedule_that_this_machine_cannot_read_alarms_and_stops_nobody_else(desk):
    declare(desk, zone="Europe/Atlantis", job="c1")
    declare(desk, job="c2")
    desk.after(2 * MINUTE)
    assert runs(desk) == [] and len(runs(desk, "c2")) == 1
    assert "Europe/Atlantis" in desk.core.ledger.alarms[UNREADABLE]
    desk.after(2 * HOUR)
    assert UNREADABLE in desk.core.ledger.alarms
    desk.cancel("c1")
    desk.after(0)
    assert UNREADABLE not in desk.core.ledger.alarms


def test_a_schedule_without_a_further_time_waits_for_nothing(desk):
    go_to(desk, "2026-05-04T12:00")
    declare(desk, "0 0 31 2 0", job="c1")  # a Sunday of February will do
    declare(desk, "* * */20 * 1L", job="c2")
    desk.after(1_000)
    due = desk.core.ledger.deadlines.due_of
    assert due("cron", "c1") is not None and due("cron", "c2") is None


def test_a_thousand_cron_jobs_at_the_same_time_make_a_thousand_runs(desk):
    for i in range(1_000):
        declare(desk, "0 * * * *", job=f"c{i}")
    desk.after(HOUR)
    made = [row for row in jobs(desk) if row.rules.parent]
    assert len(made) == 1_000 and len({row.rules.parent for row in made}) == 1_000
