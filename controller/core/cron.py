"""Cron jobs: at each time of its schedule a cron job makes a batch job, a run of it.

A cron job has no tasks and stays open until it is cancelled. That ends its schedule and nothing
else: runs that are open go on, and are cancelled by their own ids. What was decided about a time
is stored with the job in the commit that makes the run, so no time makes two of them.

A time that passed while no controller led is treated by the job's `missed`: `skip`; `once`, one
run for all of them; `all`, a run each, the newest 100. Without `overlap` no run begins while the
last is open, made up or not: so `all` needs `overlap` to be more than `once`.
A wall clock that is set forward is such an absence, unless by more than three hours: then, as in
Debian's cron, it was wrong and the new time counts. Set back, fixed times wait until they come
again to what was not decided yet, for three hours at most; others go on at once (after a minute's wait).
It knows no calendar and places nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.core.calendar import NoSchedule, follows_clock, local_text, newest_fires_ms, next_fire_ms
from controller.core.jobs import Jobs
from controller.core.ledger import Job, Ledger
from controller.core.records import JobRow, JobState
from controller.core.run_ids import run_id
from protocol.tasks import JobKind

LATE_MS = 60_000
"""A time that passed no longer ago is on time: neither a restart nor a take-over is an absence."""
MISSED_MAX = 100
"""Times that `all` makes up for: more are no backlog, but a flood."""
RUNS_MAX = 100
"""Open runs of one cron job, where they may overlap: with no device to run them they'd pile up."""
CORRECTION_MS = 3 * 3_600_000
"""A clock that is set by more was wrong before (crontab of Debian: what clocks change by is less)."""
PACE_MS = 10
"""Between runs that are made up for: a hundred of each of many jobs at once would stop all else."""
DRIFT_MS = 1_000
"""Less is the clock being disciplined; the next time of each schedule is met all the same."""
UNREADABLE_RETRY_MS = 3_600_000
UNREADABLE = "cron_schedule"
"""Alarm: this machine can't read a schedule that was accepted."""


class Cron:
    """Makes the runs of cron jobs. The ledger's deadline `cron` of a job means: look at its schedule."""

    def __init__(self, ledger: Ledger, jobs: Jobs) -> None:
        self.ledger = ledger
        self.jobs = jobs
        self.offset_ms = ledger.wall_offset_ms
        """Of the wall clock when schedules were last looked at together."""
        self.since_ms: int | None = None
        """Wall time at which the clock was set right: nothing before it was missed."""
        self.runs: dict[str, list[str]] = {}
        """Runs of each cron job that were open when last looked at, oldest first."""
        self.unreadable: dict[str, None] = {}

    def recall(self, now_ms: int) -> None:
        """Out of the jobs that were loaded: who is whose run, and every schedule is looked at."""
        for id, job in self.ledger.jobs.items():
            if (parent := job.row.rules.parent) in self.ledger.jobs:
                self.runs.setdefault(parent, []).append(id)
        for job in self._crons():
            self.ledger.deadlines.set("cron", job.row.id, now_ms)

    def _crons(self) -> Iterator[Job]:
        return (job for job in self.ledger.jobs.values() if job.row.kind is JobKind.CRON)

    # ------------------------------------------------------------- time

    def on_wall_clock(self, now_ms: int) -> None:
        """The wall clock was read anew; when it was set, every schedule is looked at."""
        jump_ms = self.ledger.wall_offset_ms - self.offset_ms
        if abs(jump_ms) < DRIFT_MS:
            return
        self.offset_ms = self.ledger.wall_offset_ms
        if jump_ms > CORRECTION_MS:
            self.since_ms = self.ledger.wall(now_ms)
        elif jump_ms < 0:
            self.since_ms = None
        for job in self._crons():
            self.ledger.deadlines.set("cron", job.row.id, now_ms)

    def on_due(self, job_id: str, now_ms: int) -> None:
        """Decides about one time that has come and waits for the next, however soon that is."""
        job = self.ledger.jobs.get(job_id)
        if job is None:
            self.runs.pop(job_id, None)
            self._readable(job_id)
            return
        try:
            self._look(job, now_ms)
        except NoSchedule as error:  # zone data that were there at its submit are not here
            self._unreadable(job, str(error), now_ms)
        else:
            self._readable(job_id)

    def _look(self, job: Job, now_ms: int) -> None:
        row, rules, wall = job.row, job.row.rules, self.ledger.wall(now_ms)
        self._follow_clock(row, wall)
        most = MISSED_MAX if rules.missed == "all" else 1
        fires = newest_fires_ms(rules.schedule, rules.zone, row.fired_at, wall, most)
        if fires:
            self._decide(row, fires[0], now_ms)
        following = next_fire_ms(rules.schedule, rules.zone, row.fired_at)
        if following is None:
            self.ledger.deadlines.clear("cron", row.id)
        else:
            self.ledger.deadlines.set("cron", row.id, now_ms + max(PACE_MS, following - wall))

    def _follow_clock(self, row: JobRow, wall: int) -> None:
        """Where a clock that was set leaves the times that are decided."""
        ahead_ms = row.fired_at - wall
        if ahead_ms > CORRECTION_MS or (ahead_ms > LATE_MS and follows_clock(row.rules.schedule)):
            row.fired_at = wall
        elif self.since_ms is not None and row.fired_at < self.since_ms <= wall:
            row.fired_at = self.since_ms

    # ------------------------------------------------------------- decisions

    def _decide(self, row: JobRow, fire: int, now_ms: int) -> None:
        """`fire` is the oldest time that still counts; what passed before it is given up."""
        rules, wall = row.rules, self.ledger.wall(now_ms)
        oldest = next_fire_ms(rules.schedule, rules.zone, row.fired_at)
        late = rules.missed == "skip" and wall - fire > LATE_MS
        given_up = late or (oldest is not None and oldest < fire)
        row.fired_at = fire
        if given_up:
            self._tell(row, "missed", oldest or fire, now_ms, "passed unseen")
        if not late:
            self._begin(row, fire, now_ms)
        self.ledger.save(row)

    def _begin(self, row: JobRow, fire: int, now_ms: int) -> None:
        runs = self.runs[row.id] = [id for id in self.runs.get(row.id, ()) if id in self.ledger.jobs]
        if len(runs) >= (RUNS_MAX if row.rules.overlap else 1):
            self._tell(row, "skipped", fire, now_ms, f"run {runs[0]} is still open")
            return
        row.runs += 1
        run = self._run(row, run_id(row.id, row.runs, fire), now_ms)
        runs.append(run.id)
        self._tell(row, "run", fire, now_ms, run.id)
        self.jobs.enter(run, now_ms)

    def _run(self, row: JobRow, id: str, now_ms: int) -> JobRow:
        """The batch job that a cron job makes: as it was declared, but for its schedule."""
        wall = self.ledger.wall(now_ms)
        rules = replace(row.rules, schedule="", zone="UTC", overlap=False, missed="skip", parent=row.id)
        return replace(
            row, id=id, kind=JobKind.BATCH, state=JobState.OPEN, desired="run", created_at=wall,
            changed_at=wall, idempotency_key="", fingerprint="", rules=rules, fired_at=0, runs=0,
        )  # fmt: skip

    def _tell(self, row: JobRow, what: str, fire: int, now_ms: int, why: str) -> None:
        self.ledger.count(f"cron_{what}")
        text = f"{local_text(fire, row.rules.zone)}: {why}"
        self.ledger.audit(now_ms, "cron", row.id, "due", what, reason=text)

    # ------------------------------------------------------------- trouble

    def _unreadable(self, job: Job, why: str, now_ms: int) -> None:
        self.unreadable[job.row.id] = None
        self.ledger.alarm(UNREADABLE, f"cron job {job.row.id} does not run: {why}; are zone data installed?")
        self.ledger.deadlines.set("cron", job.row.id, now_ms + UNREADABLE_RETRY_MS)

    def _readable(self, job_id: str) -> None:
        if self.unreadable.pop(job_id, 0) is None and not self.unreadable:
            self.ledger.calm(UNREADABLE)
