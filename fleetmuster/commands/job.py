"""`fm job`: declare work, look at it, stop it.

Rule: `run` prints the job's id and nothing else on stdout, so that `id=$(fm job run ...)`
works; with -o json it is the job, after the wait if there is one. Options that were
not given are not sent: the controller's defaults live in the controller.
Cancelling the one job that was named asks nothing; several jobs with more than
`ASK_TASKS` unfinished tasks between them do.
"""

from __future__ import annotations

from argparse import Namespace

from fleetmuster.commands.several import confirm_many, for_each
from fleetmuster.commands.waiting import wait_for_job
from fleetmuster.exits import CommandError, Exit, usage
from fleetmuster.moments import age, stamp
from fleetmuster.quantities import show_cpu, show_exact_duration, show_memory
from fleetmuster.records import JobRequest, RemoteJob, RemoteTaskSpec
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
_OPTION_OF = {
    "name": "--name",
    "kind": "--kind",
    "count": "--count",
    "priority": "--priority",
    "guarantee": "--guarantee",
    "max_attempts": "--max-attempts",
    "ttl_ms": "--ttl",
    "lease_ms": "--lease",
    "task/runtime": "--runtime",
    "task/command": "the command after --",
    "task/env": "--env",
    "task/constraints": "--constraint",
    "task/timeout_ms": "--timeout",
    "task/stop_grace_ms": "--stop-grace",
    "task/resources/cpu_milli": "--cpu",
    "task/resources/memory_mib": "--memory",
    "task/resources/disk_mib": "--disk",
    "task/resources/gpu_milli": "--gpu",
}


def run(session: Session, options: Namespace) -> Exit:
    """Submits, prints the id, and with --wait follows."""
    request = _request(options)
    if options.wait_timeout is not None and not options.wait:
        raise usage("--wait-timeout needs --wait")
    try:
        job, replayed = session.client.submit_job(request, options.idempotency_key or "")
    except ApiError as error:
        _name_the_option(error)
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
        session.console.table(_COLUMNS, [_row(job) for job in jobs])
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


# ---------------------------------------------------------------------- the request


def _request(options: Namespace) -> JobRequest:
    """What was typed, as the body of `POST /jobs`."""
    if options.stray or (options.runtime == "process" and not options.command):
        said = f" before {options.stray[0]!r}" if options.stray else " and a command"
        raise usage(f"fm job run needs --{said}", "fm job run [options] -- CMD ARG...")
    spec = _spec(options, options.command or [])
    request: JobRequest = {"kind": options.kind, "count": options.count, "task": spec}
    if options.name is not None:
        request["name"] = options.name
    if options.priority is not None:
        request["priority"] = options.priority
    if options.guarantee is not None:
        request["guarantee"] = options.guarantee
    if options.max_attempts is not None:
        request["max_attempts"] = options.max_attempts
    if options.ttl is not None:
        request["ttl_ms"] = options.ttl
    if options.lease is not None:
        request["lease_ms"] = options.lease
    return request


def _spec(options: Namespace, command: list[str]) -> RemoteTaskSpec:
    spec: RemoteTaskSpec = {"runtime": options.runtime, "command": command}
    amounts = {
        "cpu_milli": options.cpu,
        "memory_mib": options.memory,
        "disk_mib": options.disk,
        "gpu_milli": options.gpu,
    }
    resources = {name: amount for name, amount in amounts.items() if amount is not None}
    if resources:
        spec["resources"] = resources
    if options.env:
        spec["env"] = dict(options.env)
    if options.constraint:
        spec["constraints"] = [
            {"attribute": attribute, "operator": operator, "value": value}
            for attribute, operator, value in options.constraint
        ]
    if options.timeout is not None:
        spec["timeout_ms"] = options.timeout
    if options.stop_grace is not None:
        spec["stop_grace_ms"] = options.stop_grace
    return spec


def _name_the_option(error: ApiError) -> None:
    """A pointer into the body means nothing to who typed options; the option does."""
    path = error.pointer.strip("#/")
    while path and path not in _OPTION_OF:
        path = path.rpartition("/")[0]
    if path and not error.next_step:
        error.next_step = f"change {_OPTION_OF[path]}"


# ---------------------------------------------------------------------- showing


def _row(job: RemoteJob) -> list[str]:
    counts = job.get("tasks") or {}
    waiting = counts.get("pending", 0) + counts.get("assigned", 0)
    return [
        job["id"],
        job.get("name") or "",
        job.get("kind") or "",
        job.get("state") or "",
        str(job.get("count", "")),
        str(waiting),
        str(counts.get("running", 0)),
        str(counts.get("succeeded", 0)),
        str(counts.get("failed", 0)),
        age(job.get("created")),
    ]


def _spec_facts(spec: RemoteTaskSpec) -> list[tuple[str, str]]:
    resources = spec.get("resources") or {}
    constraints = spec.get("constraints") or []
    return [
        ("runtime", spec.get("runtime") or ""),
        ("command", " ".join(spec.get("command") or [])),
        ("env", " ".join(f"{key}={value}" for key, value in (spec.get("env") or {}).items())),
        ("cpu", show_cpu(resources["cpu_milli"]) if resources.get("cpu_milli") else ""),
        ("memory", show_memory(resources["memory_mib"]) if resources.get("memory_mib") else ""),
        ("disk", show_memory(resources["disk_mib"]) if resources.get("disk_mib") else ""),
        ("gpu", show_cpu(resources["gpu_milli"]) if resources.get("gpu_milli") else ""),
        (
            "constraints",
            ", ".join(f"{c.get('attribute')} {c.get('operator')} {c.get('value')}" for c in constraints),
        ),
        ("timeout", _time(spec.get("timeout_ms"))),
        ("stop grace", _time(spec.get("stop_grace_ms"))),
    ]


def _time(ms: int | None) -> str:
    return show_exact_duration(ms) if ms else ""


def _unfinished(job: RemoteJob) -> int:
    counts = job.get("tasks") or {}
    return int(sum(counts.get(state, 0) for state in ("pending", "assigned", "running")))
