"""Meaning: what no single field of a job can tell, and the job in the core's words.

Rule: a fault is a pointer and a sentence that says what to write instead. Fields that were
not given, or say what they would be anyway, cost nothing here: the path of every submit
goes through this file. Whether another job exists is the core's to say.
Rejected: pydantic's model validators (one fault per model, and no pointer to its field).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from controller.api.bodies import ConstraintBody, DependencyBody, JobBody, SpreadBody, TaskBody
from controller.api.problems import BodyFault
from controller.core.calendar import check_schedule
from controller.core.condition_faults import SEVERAL
from controller.core.conditions import GROUP_OPERATORS, items_of
from controller.core.records import GANG_MAX, Affinity, Constraint, Dependency, JobRules, Spread, TaskSpec
from controller.core.taints import check_toleration
from protocol.resources import Resources

PATTERNS_MAX = 4
"""Of one task. To make, or refuse, the automaton of one may take 100 ms, and heartbeats wait meanwhile."""
WHOLE_MILLI = 1_000
"""One accelerator."""
NO_RULES = JobRules()
_RULE_FIELDS = frozenset(JobRules.__slots__) & frozenset(JobBody.model_fields)
_WISHES = frozenset(("extras", "accelerator_models", "reference_cpu", "affinities", "spreads", "tolerations"))
_Faults = Iterator[BodyFault]


# ------------------------------------------------------------------------- in the core's words


def spec_of(task: TaskBody) -> TaskSpec:
    """What each task runs and needs. A list of values is joined by commas."""
    r = task.resources
    spec = TaskSpec(
        runtime=task.runtime,
        command=task.command,
        # Sorted, so that two spellings of one job have one fingerprint.
        env=dict(sorted(task.env.items())),
        resources=Resources(
            r.cpu_milli, r.memory_mib, r.disk_mib, r.gpu_milli, r.up_kbit_s, r.down_kbit_s, r.slots
        ),
        constraints=tuple([Constraint(c.attribute, c.operator, c.text()) for c in task.constraints]),
        timeout_ms=task.timeout_ms,
        stop_grace_ms=task.stop_grace_ms,
    )
    return spec if _WISHES.isdisjoint(task.model_fields_set) else _with_wishes(spec, task)


def _with_wishes(spec: TaskSpec, task: TaskBody) -> TaskSpec:
    return replace(
        spec,
        extras=dict(sorted(task.extras.items())),
        models=task.accelerator_models,
        reference_cpu=task.reference_cpu,
        affinities=tuple([Affinity(a.attribute, a.operator, a.text(), a.weight) for a in task.affinities]),
        spreads=tuple([Spread(s.attribute, s.weight, tuple(s.targets.items())) for s in task.spreads]),
        tolerations=task.tolerations,
    )


def rules_of(body: JobBody) -> JobRules:
    """How the job is treated; one object for all jobs that say nothing of it."""
    if _RULE_FIELDS.isdisjoint(body.model_fields_set):
        return NO_RULES
    return JobRules(
        policy=body.policy,
        owner=body.owner,
        gang=body.gang,
        parallel_max=body.parallel_max,
        depends_on=tuple(map(dependency_of, body.depends_on)),
        on_return=body.on_return,
        schedule=body.schedule,
        zone=body.zone,
        overlap=body.overlap,
        missed=body.missed,
    )


def dependency_of(said: str | DependencyBody) -> Dependency:
    return Dependency(said) if isinstance(said, str) else Dependency(said.job, said.until)


# ------------------------------------------------------------------------- what contradicts


def job_faults(body: JobBody) -> list[BodyFault]:
    """Everything that is wrong between fields, in the order of the document."""
    faults: list[BodyFault] = []
    given = body.task.model_fields_set
    for fields, check in _TASK_CHECKS.items():
        if not given.isdisjoint(fields):
            faults += check(body.task)
    if body.task.runtime == "process" and not (body.task.command and body.task.command[0]):
        faults.append(
            BodyFault("/task/command", 'the runtime process needs a command: ["program", "argument", …]')
        )
    if body.kind in _KIND_CHECKS or not _RULE_FIELDS.isdisjoint(body.model_fields_set):
        faults += _rule_faults(body)
    return faults


def _rule_faults(body: JobBody) -> _Faults:
    if check := _KIND_CHECKS.get(body.kind):
        yield from check(body)
    if body.kind != "cron":
        yield from _no_cron_faults(body)
    if body.gang:
        yield from _gang_faults(body)
    if body.parallel_max and body.kind == "service" and body.parallel_max < body.count:
        detail = (
            f"a service doesn't end, so its other tasks would wait for ever; say count {body.parallel_max}"
        )
        yield BodyFault("/parallel_max", detail)
    if body.on_return != "newest" and body.guarantee != "at_least_one":
        detail = "only an at_least_one task may find two runs of itself; say guarantee at_least_one"
        yield BodyFault("/on_return", detail)
    if body.depends_on:
        yield from _twice("/depends_on", [dependency_of(d).job for d in body.depends_on], "the job")


def _daemon_faults(body: JobBody) -> _Faults:
    if "count" in body.model_fields_set:
        detail = "a daemon runs on every device that matches; leave count out, or say kind service"
        yield BodyFault("/count", detail)
    if body.gang:
        yield BodyFault("/gang", "a daemon has no number of tasks to place together; say kind service")
    if body.parallel_max:
        detail = "a daemon runs on every device that matches; choose devices by task.constraints"
        yield BodyFault("/parallel_max", detail)
    for field in ("max_attempts", "ttl_ms"):
        if getattr(body, field):
            detail = f"a daemon is started again for as long as its device matches; leave {field} out"
            yield BodyFault(f"/{field}", detail)
    for place, constraint in enumerate(body.task.constraints):
        if constraint.operator == "distinct":
            detail = "a daemon runs on every device that matches; choose devices by other constraints"
            yield BodyFault(f"/task/constraints/{place}/operator", detail)


def _cron_faults(body: JobBody) -> _Faults:
    if not body.schedule:
        yield BodyFault("/schedule", 'a cron job needs one, such as "*/5 * * * *"')
        return
    if fault := check_schedule(body.schedule, "UTC"):
        yield BodyFault("/schedule", fault)
    elif fault := check_schedule(body.schedule, body.zone):
        yield BodyFault("/zone", fault)


def _no_cron_faults(body: JobBody) -> _Faults:
    said = {
        "schedule": body.schedule != "",
        "zone": body.zone != "UTC",
        "overlap": body.overlap,
        "missed": body.missed != "skip",
    }
    for field, is_said in said.items():
        if is_said:
            detail = f"only a cron job has one; say kind cron, or leave {field} out"
            yield BodyFault(f"/{field}", detail)


def _gang_faults(body: JobBody) -> _Faults:
    if body.kind == "daemon":
        return
    if body.count > GANG_MAX:
        detail = f"a gang is placed in one commit, at most {GANG_MAX:,} tasks; leave gang out, or say less"
        yield BodyFault("/count", detail)
    if 0 < body.parallel_max < body.count:
        detail = f"contradicts gang, which places all {body.count} together; leave one of them out"
        yield BodyFault("/parallel_max", detail)
    yield from _gang_apart_faults(body)


def _gang_apart_faults(body: JobBody) -> _Faults:
    """Where other constraints name all the values there may be, so many tasks can't be kept apart."""
    constraints = body.task.constraints
    named: dict[str, set[str]] = {}
    for c in constraints:
        if c.operator in ("=", "in"):
            values = set(items_of(c.text())) if c.operator == "in" else {c.text()}
            named[c.attribute] = named.get(c.attribute, values) & values
    for place, c in enumerate(constraints):
        attribute = "device" if c.operator == "distinct_device" else c.attribute
        if c.operator not in GROUP_OPERATORS or attribute not in named or attribute in SEVERAL:
            continue
        most = len(named[attribute]) * (int(c.text()) if c.text().isdecimal() else 1)
        if most < body.count:
            left = "1 value" if len(named[attribute]) == 1 else f"{len(named[attribute]):,} values"
            detail = (
                f"keeps all but {most:,} of this gang of {body.count:,} away, as constraints leave {left} "
                f"of {attribute}; say count {max(1, most):,}, or name more"
            )
            yield BodyFault(f"/task/constraints/{place}", detail)


def _twice(pointer: str, items: list[str], what: str) -> _Faults:
    seen: set[str] = set()
    for place, item in enumerate(items):
        if item in seen:
            yield BodyFault(f"{pointer}/{place}", f"{what} {item[:60]} is there already; leave one out")
        seen.add(item)


# ------------------------------------------------------------------------- of a task


def _resource_faults(task: TaskBody) -> _Faults:
    return accelerator_faults("/task", task.resources.gpu_milli)


def accelerator_faults(pointer: str, milli: int) -> _Faults:
    """Of an amount that is neither a share nor a number of whole ones."""
    if milli > WHOLE_MILLI and milli % WHOLE_MILLI:
        below = milli - milli % WHOLE_MILLI
        yield BodyFault(
            f"{pointer}/resources/gpu_milli",
            f"a share lies on one accelerator, and beyond it only whole ones count: say {below} or "
            f"{below + WHOLE_MILLI}, or less than {WHOLE_MILLI}",
        )


def _model_faults(task: TaskBody) -> _Faults:
    if task.accelerator_models and not task.resources.gpu_milli:
        detail = "no accelerator is asked for; say task.resources.gpu_milli, 1000 for a whole one"
        yield BodyFault("/task/accelerator_models", detail)
    yield from _twice("/task/accelerator_models", list(task.accelerator_models), "the model")


def _each_fault(pointer: str, conditions: Sequence[ConstraintBody | SpreadBody]) -> _Faults:
    for place, condition in enumerate(conditions):
        if fault := condition.fault():
            yield BodyFault(f"{pointer}/{place}/{fault[0]}", fault[1])


def _condition_faults(task: TaskBody) -> _Faults:
    return condition_faults("/task", task.constraints, task.affinities)


def condition_faults(
    pointer: str, constraints: Sequence[ConstraintBody], affinities: Sequence[ConstraintBody] = ()
) -> _Faults:
    """Of affinities too, if there are too many patterns in both: then none is looked into."""
    lists = (("constraints", constraints), ("affinities", affinities))
    patterns = [f"{name}/{i}" for name, items in lists for i, c in enumerate(items) if c.operator == "regex"]
    if len(patterns) > PATTERNS_MAX:
        detail = f"{len(patterns)} patterns are too many for a task, at most {PATTERNS_MAX}; join some: a|b"
        yield BodyFault(f"{pointer}/{patterns[PATTERNS_MAX]}/operator", detail)
    else:
        yield from _each_fault(f"{pointer}/constraints", constraints)
        yield from _each_fault(f"{pointer}/affinities", affinities)


def _spread_faults(task: TaskBody) -> _Faults:
    yield from _each_fault("/task/spreads", task.spreads)
    yield from _twice("/task/spreads", [s.attribute for s in task.spreads], "a spread over")


def _toleration_faults(task: TaskBody) -> _Faults:
    return toleration_faults("/task", task.tolerations)


def toleration_faults(pointer: str, tolerations: Sequence[str]) -> _Faults:
    for place, toleration in enumerate(tolerations):
        if fault := check_toleration(toleration):
            yield BodyFault(f"{pointer}/tolerations/{place}", fault)
    yield from _twice(f"{pointer}/tolerations", list(tolerations), "the toleration")


_KIND_CHECKS: dict[str, Callable[[JobBody], _Faults]] = {"daemon": _daemon_faults, "cron": _cron_faults}
_TASK_CHECKS: dict[tuple[str, ...], Callable[[TaskBody], _Faults]] = {
    ("resources",): _resource_faults,
    ("accelerator_models",): _model_faults,
    ("constraints", "affinities"): _condition_faults,
    ("spreads",): _spread_faults,
    ("tolerations",): _toleration_faults,
}
