"""`fm job`: declare work, look at it, stop it.

Rule: `run` prints the job's id and nothing else on stdout, so that `id=$(fm job run ...)`
works; with -o json it is the job, after the wait if there is one. Options that were
not given are not sent, see `job_request`.
Cancelling the one job that was named asks nothing; several jobs with more than
`ASK_TASKS` unfinished tasks between them do.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from fleetmuster.commands.job_request import job_request, name_the_option
from fleetmuster.commands.several import confirm_many, for_each
from fleetmuster.commands.waiting import wait_for_job
from fleetmuster.exits import CommandError, Exit, usage
from fleetmuster.moments import age, stamp
from fleetmuster.quantities import show_cpu, show_exact_duration, show_memory, show_rate
from fleetmuster.records import RemoteConstraint, RemoteJob, RemoteSpread, RemoteTaskSpec
from fleetmuster.session import Session
from fleetmuster.tables import Column
from fleetmuster.wire import ApiError

ASK_TASKS = 100  # unfinished tasks of several jobs: more ask for a confirmation
_COLUMNS = (
    Column("ID", fixed=True),
    Column("NAME"),
    Column("KIND"),
    Column("STATE"),
    Column("TASKS", right=True),
    Column("PENDING", right=True),
    Column("RUNNING", right=True),
    Column("SUCCEEDED", right=True),
    Column("FAILED", right=True),
    Column("AGE", right=True),
)


def run(session: Session, options: Namespace) -> Exit:
    """Submits, prints the id, and with --wait follows."""
    request = job_request(options)
    if options.wait_timeout is not None and not options.wait:
        raise usage("--wait-timeout needs --wait")
    if options.wait and options.cron is not None:
        raise usage("--wait and --cron: a cron job has no end", "fm job wait one of the jobs that it makes")
    try:
        job, replayed = session.client.submit_job(request, options.idempotency_key or "")
    except ApiError as error:
        name_the_option(error)
        raise
    console, job_id = session.console, job["id"]
    if replayed:
        console.say(f"job {job_id} was accepted earlier under this key; nothing new was submitted")
    if not console.json_wanted:
        console.line(job_id)
    elif not options.wait:
        console.json(job)
    if options.wait:
        return _follow(session, job_id, options.wait_timeout)
    for lead, step in (("next:", "job wait"), ("     ", "task list --job"), ("     ", "job cancel")):
        console.say(f"{lead} fm {step} {job_id}")
    return Exit.OK


def _follow(session: Session, job_id: str, timeout_ms: int | None) -> Exit:
    try:
        ended = wait_for_job(session, job_id, timeout_ms)
    except KeyboardInterrupt:
        session.console.say(f"detached; the job goes on. Again: fm job wait {job_id}")
        raise
    if session.console.json_wanted:
        session.console.json(ended.job)
    if ended.code is Exit.TIMEOUT:
        raise CommandError(Exit.TIMEOUT, f"job {job_id} has not ended in time", "", f"fm job wait {job_id}")
    return ended.code


def wait(session: Session, options: Namespace) -> Exit:
    return _follow(session, options.id, options.timeout)


def list_(session: Session, options: Namespace) -> Exit:
    jobs = list(session.client.jobs(options.limit))
    if session.console.json_wanted:
        session.console.json(jobs)
    else:
        more = _more_columns(jobs)
        rows = [_row(job) + [_text(job, name) for name in more] for job in jobs]
        session.console.table((*_COLUMNS, *more.values()), rows)
        if not jobs:
            session.console.say("no job yet; try: fm job run -- uptime")
    return Exit.OK


def show(session: Session, options: Namespace) -> Exit:
    job = session.client.job(options.id)
    if session.console.json_wanted:
        session.console.json(job)
        return Exit.OK
    counts = job.get("tasks") or {}
    session.console.facts(
        [
            ("id", job["id"]),
            ("name", job.get("name") or ""),
            ("kind", job.get("kind") or ""),
            ("state", job.get("state") or ""),
            ("tasks", ", ".join(f"{count} {state}" for state, count in counts.items() if count)),
            ("guarantee", job.get("guarantee") or ""),
            ("priority", str(job.get("priority") or "")),
            *_rule_facts(job),
            ("max attempts", str(job.get("max_attempts") or "unlimited")),
            ("ttl", _time(job.get("ttl_ms"))),
            ("lease", _time(job.get("lease_ms"))),
            ("created", stamp(job.get("created"))),
            *_spec_facts(job.get("task") or {}),
        ]
    )
    return Exit.OK


def cancel(session: Session, options: Namespace) -> Exit:
    ids: list[str] = list(dict.fromkeys(options.ids))
    if len(ids) > 1 and not options.yes:
        unfinished = sum(_unfinished(session.client.job(each)) for each in ids)
        if unfinished > ASK_TASKS:
            confirm_many(
                session, f"cancel {len(ids)} jobs with {unfinished} unfinished tasks", ids, unfinished
            )
    return for_each(session, ids, session.client.cancel_job, "will be cancelled")


VERBS = {"run": run, "wait": wait, "list": list_, "show": show, "cancel": cancel}


# ---------------------------------------------------------------------- showing


def _row(job: RemoteJob) -> list[str]:
    return [
        job["id"],
        job.get("name") or "",
        job.get("kind") or "",
        job.get("state") or "",
        *_numbers(job),
        age(job.get("created")),
    ]


def _numbers(job: RemoteJob) -> list[str]:
    """Of a cron job none: its `count` is of the jobs that it makes, which stand in the list themselves."""
    if job.get("kind") == "cron":
        return [""] * 5
    counts = job.get("tasks") or {}
    waiting = counts.get("pending", 0) + counts.get("assigned", 0)
    states = [str(counts.get(state, 0)) for state in ("running", "succeeded", "failed")]
    return [str(job.get("count", "")), str(waiting), *states]


def _more_columns(jobs: Sequence[RemoteJob]) -> dict[str, Column]:
    """Fields that tell something of these jobs: owners where there are several, schedules where any."""
    more: dict[str, Column] = {}
    if len({_text(job, "owner") for job in jobs}) > 1:
        more["owner"] = Column("OWNER")
    if any(_text(job, "schedule") for job in jobs):
        more["schedule"] = Column("SCHEDULE")
    return more


def _text(job: RemoteJob, name: str) -> str:
    value = job.get(name)
    return value if isinstance(value, str) else ""


def _rule_facts(job: RemoteJob) -> list[tuple[str, str]]:
    schedule = job.get("schedule") or ""
    passed = f"{'over' if job.get('overlap') else 'no over'}lap, missed: {job.get('missed') or 'skip'}"
    return [
        ("owner", job.get("owner") or ""),
        ("policy", job.get("policy") or ""),
        ("schedule", f"{schedule} ({job.get('zone') or 'UTC'}; {passed})" if schedule else ""),
        ("each time", f"a batch job of {job.get('count') or 1}" if schedule else ""),
        ("made by", job.get("parent") or ""),
        ("gang", "all at once, or none" if job.get("gang") else ""),
        ("parallel", f"at most {job['parallel_max']}" if job.get("parallel_max") else ""),
        ("after", ", ".join(f"{d.get('job')} {d.get('until')}" for d in job.get("depends_on") or [])),
        ("on return", (job.get("on_return") or "") if job.get("guarantee") == "at_least_one" else ""),
    ]


def _spec_facts(spec: RemoteTaskSpec) -> list[tuple[str, str]]:
    wishes = [f"{_condition(a)} ({a.get('weight', 0):+d})" for a in spec.get("affinities") or []]
    return [
        ("runtime", spec.get("runtime") or ""),
        ("command", " ".join(spec.get("command") or [])),
        ("env", " ".join(f"{key}={value}" for key, value in (spec.get("env") or {}).items())),
        *_amount_facts(spec),
        ("constraints", ", ".join(_condition(c) for c in spec.get("constraints") or [])),
        ("preferences", ", ".join(wishes)),
        ("spreads", ", ".join(_spread(s) for s in spec.get("spreads") or [])),
        ("tolerates", ", ".join(spec.get("tolerations") or [])),
        ("timeout", _time(spec.get("timeout_ms"))),
        ("stop grace", _time(spec.get("stop_grace_ms"))),
    ]


def _amount_facts(spec: RemoteTaskSpec) -> list[tuple[str, str]]:
    of = spec.get("resources") or {}
    models = ", ".join(spec.get("accelerator_models") or [])
    return [
        ("cpu", show_cpu(of["cpu_milli"]) + _reference(spec) if of.get("cpu_milli") else ""),
        ("memory", show_memory(of["memory_mib"]) if of.get("memory_mib") else ""),
        ("disk", show_memory(of["disk_mib"]) if of.get("disk_mib") else ""),
        ("gpu", show_cpu(of["gpu_milli"]) + (models and f" of {models}") if of.get("gpu_milli") else ""),
        ("up", show_rate(of["up_kbit_s"]) if of.get("up_kbit_s") else ""),
        ("down", show_rate(of["down_kbit_s"]) if of.get("down_kbit_s") else ""),
        ("slots", str(of.get("slots") or "")),
        ("extras", ", ".join(f"{amount} {name}" for name, amount in (spec.get("extras") or {}).items())),
    ]


def _reference(spec: RemoteTaskSpec) -> str:
    return " of the reference core" if spec.get("reference_cpu") else ""


def _condition(said: RemoteConstraint) -> str:
    words = (said.get("attribute"), said.get("operator"), said.get("value"))
    return " ".join(word for word in words if word)


def _spread(said: RemoteSpread) -> str:
    shares = " ".join(f"{value}={percent}%" for value, percent in (said.get("targets") or {}).items())
    return f"{said.get('attribute')} ({said.get('weight')})" + (shares and f" {shares}")


def _time(ms: int | None) -> str:
    return show_exact_duration(ms) if ms else ""


def _unfinished(job: RemoteJob) -> int:
    counts = job.get("tasks") or {}
    return int(sum(counts.get(state, 0) for state in ("pending", "assigned", "running")))
