"""Answers: rows of the store and views of the core, translated into shapes.

Rule: pure translation, one function per object; no question is asked here, and nothing
is left out because it is empty. Rejected: pydantic models for answers (our own rows are
trusted; a typed dictionary is what JSON is made of anyway).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from controller.api.shapes import (
    AcceleratorShape,
    AffinityShape,
    AttemptShape,
    ChosenShape,
    ConstraintShape,
    DependencyShape,
    DeviceShape,
    DocumentShape,
    ExplainShape,
    FilterShape,
    FitnessShape,
    FleetShape,
    JobShape,
    RemedyShape,
    ResourcesShape,
    ScoreShape,
    SpreadShape,
    StoryShape,
    TaskCountsShape,
    TaskShape,
    TaskSpecShape,
    UsedShape,
)
from controller.core.records import AttemptRow, AuditRow, JobRow, JobState, TaskRow, TaskSpec
from controller.core.views import DeviceView, ExplainView, FleetView, RemedyView
from protocol.messages import HEALTH_KNOWN, METERED, ON_BATTERY, THROTTLED, UNDERVOLTAGE, Health
from protocol.resources import Resources
from protocol.tasks import JobKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Counts = Mapping[str, int]


def moment(wall_ms: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    return (_EPOCH + timedelta(milliseconds=wall_ms)).isoformat(timespec="milliseconds")[:-6] + "Z"


def moment_or_none(wall_ms: int) -> str | None:
    """0 is a moment that hasn't come."""
    return moment(wall_ms) if wall_ms else None


def resources_shape(amounts: Resources) -> ResourcesShape:
    return ResourcesShape(
        cpu_milli=amounts.cpu_milli,
        memory_mib=amounts.memory_mib,
        disk_mib=amounts.disk_mib,
        gpu_milli=amounts.gpu_milli,
        up_kbit_s=amounts.up_kbit_s,
        down_kbit_s=amounts.down_kbit_s,
        slots=amounts.slots,
    )


def spec_shape(spec: TaskSpec) -> TaskSpecShape:
    return TaskSpecShape(
        runtime=spec.runtime,
        command=list(spec.command),
        env=spec.env,
        resources=resources_shape(spec.resources),
        constraints=[
            ConstraintShape(attribute=c.attribute, operator=c.operator, value=c.value)
            for c in spec.constraints
        ],
        timeout_ms=spec.timeout_ms,
        stop_grace_ms=spec.stop_grace_ms,
        accelerator_models=list(spec.models),
        extras=spec.extras,
        reference_cpu=spec.reference_cpu,
        affinities=[
            AffinityShape(attribute=a.attribute, operator=a.operator, value=a.value, weight=a.weight)
            for a in spec.affinities
        ],
        spreads=[
            SpreadShape(attribute=s.attribute, weight=s.weight, targets=dict(s.targets)) for s in spec.spreads
        ],
        tolerations=list(spec.tolerations),
    )


def task_counts_shape(counts: Counts) -> TaskCountsShape:
    return TaskCountsShape(
        pending=counts.get("pending", 0),
        assigned=counts.get("assigned", 0),
        running=counts.get("running", 0),
        succeeded=counts.get("succeeded", 0),
        failed=counts.get("failed", 0),
        cancelled=counts.get("cancelled", 0),
    )


def job_shape(job: JobRow, counts: Counts) -> JobShape:
    """`counts`: how many of its tasks are in each state."""
    rules = job.rules
    created = moment(job.created_at)
    return JobShape(
        id=job.id,
        name=job.name,
        kind=job.kind.value,
        count=_count(job, counts),
        priority=job.priority,
        guarantee=job.guarantee.name.lower(),
        max_attempts=job.max_attempts,
        ttl_ms=job.ttl_ms,
        lease_ms=job.lease_ms,
        task=spec_shape(job.spec),
        state=job.state.value,
        desired=job.desired,
        created=created,
        changed=created if job.changed_at == job.created_at else moment(job.changed_at),
        actor=job.actor,
        tasks=task_counts_shape(counts),
        policy=rules.policy,
        owner=rules.owner or job.actor,
        gang=rules.gang,
        parallel_max=rules.parallel_max,
        depends_on=[DependencyShape(job=d.job, until=d.until) for d in rules.depends_on],
        on_return=rules.on_return,
        schedule=rules.schedule,
        zone=rules.zone,
        overlap=rules.overlap,
        missed=rules.missed,
        parent=rules.parent,
    )


def _count(job: JobRow, counts: Counts) -> int:
    """Of a daemon: on how many devices it is; those that it has left are cancelled tasks."""
    if job.kind is not JobKind.DAEMON or job.state is not JobState.OPEN:
        return job.count
    return sum(counts.values()) - counts.get("cancelled", 0)


def task_shape(task: TaskRow, waits: str = "") -> TaskShape:
    """`waits`: why a pending task waits, if somebody asked."""
    return TaskShape(
        id=task.id,
        job=task.job,
        state=task.state.value,
        desired=task.desired,
        device=task.device,
        attempt=task.attempt,
        exit_code=task.exit_code,
        reason=waits or task.reason,
        created=moment(task.created_at),
        changed=moment(task.changed_at),
    )


def attempt_shape(attempt: AttemptRow) -> AttemptShape:
    return AttemptShape(
        attempt=attempt.attempt,
        device=attempt.device,
        state=attempt.state.value,
        exit_code=attempt.exit_code,
        signal=attempt.signal or None,
        reason=attempt.reason,
        created=moment(attempt.created_at),
        started=moment_or_none(attempt.started_at),
        ended=moment_or_none(attempt.ended_at),
    )


def story_shape(line: AuditRow) -> StoryShape:
    return {
        "at": moment(line.at),
        "actor": line.actor,
        "what": line.what,
        "from": line.old,
        "to": line.new,
        "device": line.device,
        "attempt": line.attempt,
        "reason": line.reason,
    }


def explain_shape(view: ExplainView) -> ExplainShape:
    return ExplainShape(
        task=view.task,
        state=str(view.state),
        device=view.device,
        placed=bool(view.device),
        summary=view.summary,
        filters=[FilterShape(filter=f.filter, removed=f.removed, reason=f.reason) for f in view.filters],
        scores=[ScoreShape(device=s.device, score=s.score, parts=s.parts) for s in view.scores],
        reason=view.reason,
        policy=view.policy,
        remedies=[remedy_shape(remedy) for remedy in view.remedies],
        chosen=[ChosenShape(device=s.device, score=s.score) for s in view.chosen],
    )


def remedy_shape(view: RemedyView) -> RemedyShape:
    return RemedyShape(
        kind=view.kind,
        name=view.name,
        device=view.device,
        amount=view.amount,
        cost=view.cost,
        devices=view.devices,
        words=view.words,
    )


def _used(view: DeviceView) -> UsedShape:
    if view.last_heartbeat_ms_ago is None:
        return UsedShape(cpu_milli=None, memory_mib=None, disk_mib=None)
    used = view.used
    return UsedShape(cpu_milli=used.cpu_milli, memory_mib=used.memory_mib, disk_mib=used.disk_mib)


def device_shape(view: DeviceView) -> DeviceShape:
    return DeviceShape(
        id=view.id,
        state=view.state,
        cordoned=view.cordoned,
        draining=view.draining,
        quarantined=view.quarantined,
        profile=view.profile,
        labels=view.labels,
        capacity=resources_shape(view.capacity),
        reserved=resources_shape(view.reserved),
        free=resources_shape(view.free),
        used=_used(view),
        session=view.session,
        runtimes=list(view.runtimes),
        containment=view.containment,
        limits=view.limits,
        version=view.version,
        tasks=view.tasks,
        last_heartbeat_ms_ago=view.last_heartbeat_ms_ago,
        document=DocumentShape(epoch=view.document[0], number=view.document[1]),
        granted=view.granted,
        heartbeat_ms=view.heartbeat_ms,
        accelerators=[AcceleratorShape(name=n, model=m, milli=a) for n, m, a in view.accelerators],
        extras=view.extras,
        core_speed_milli=view.core_speed_milli,
        taints=list(view.taints),
        doubt=view.doubt,
        health=fitness_shape(view.health),
    )


def fitness_shape(health: Health) -> FitnessShape | None:
    """Null until the device has said how it fares."""
    flags = health.flags
    if not flags & HEALTH_KNOWN:
        return None
    return FitnessShape(
        throttled=bool(flags & THROTTLED),
        undervoltage=bool(flags & UNDERVOLTAGE),
        on_battery=bool(flags & ON_BATTERY),
        metered=bool(flags & METERED),
        temperature_c=health.temperature_c,
        battery_percent=health.battery_percent,
        wear_percent=health.wear_percent,
        latency_ms=health.latency_ms,
    )


def fleet_shape(view: FleetView, jobs: Counts, tasks: Counts, version: str) -> FleetShape:
    """`jobs` and `tasks`: counts by state from the store; the core's own win where it has them."""
    return FleetShape(
        devices=view.devices,
        tasks={**tasks, **view.tasks},
        jobs={**jobs, "open": view.jobs_open},
        capacity=resources_shape(view.capacity),
        reserved=resources_shape(view.reserved),
        free=resources_shape(view.free),
        frozen=view.frozen,
        waiting_ms=view.waiting_ms,
        alarms=view.alarms,
        garbage=view.garbage,
        epoch=view.epoch,
        leader=view.leader,
        uptime_ms=view.uptime_ms,
        version=version,
    )
