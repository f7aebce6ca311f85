"""Bodies of plans: what somebody imagines, with types and bounds, and in the core's words.

Rule: as strict as every body. A change is an object with exactly one field, whose name
says what happens; a fault is a pointer and a sentence that says what to write instead.
A profile fills in what was not said of a device; what the profile would measure must be.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from controller.api.bodies import (
    CONSTRAINTS_MAX,
    COUNT_MAX,
    NAME_CHARS_MAX,
    RUNTIME_PATTERN,
    ConstraintBody,
    ExtraName,
    JobBody,
    JobId,
    KilobitsPerSecond,
    Mebibytes,
    Milli,
    PolicyName,
    TaintText,
    Value,
    Word,
)
from controller.api.meaning import (
    accelerator_faults,
    condition_faults,
    job_faults,
    rules_of,
    spec_of,
    toleration_faults,
)
from controller.api.problems import BodyFault
from controller.core.changes import (
    Change,
    DrainChange,
    GrowthChange,
    JobChange,
    LossChange,
    SubmitChange,
)
from controller.core.records import Constraint, DeviceRow, JobRow, JobState
from controller.core.sessions import new_device
from controller.core.taints import check_taint
from firmware_profiles import Catalogue, Profile
from protocol import limits as lim
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind

CHANGES_MAX = 64
DEVICES_MAX = 10_000
ADDED_MAX = 10_000
TAINTS_MAX = 16
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LossBody(_Strict):
    """These devices are gone, or a whole site; '' is the site of devices without one."""

    devices: Annotated[tuple[DeviceId, ...], Field(max_length=DEVICES_MAX)] = ()
    site: Value | None = None


class AmountsBody(_Strict):
    """Only what is said counts."""

    cpu_milli: Milli | None = None
    memory_mib: Mebibytes | None = None
    disk_mib: Mebibytes | None = None
    gpu_milli: Milli | None = None
    up_kbit_s: KilobitsPerSecond | None = None
    down_kbit_s: KilobitsPerSecond | None = None
    slots: Annotated[int, Field(ge=0, le=lim.MILLI_MAX)] | None = None

    def said(self) -> dict[str, int]:
        """The amounts that were given."""
        return self.model_dump(exclude_none=True)


class AcceleratorBody(_Strict):
    """One accelerator; 1,000 is a whole one."""

    name: Word
    model: Annotated[str, Field(max_length=NAME_CHARS_MAX)] = ""
    milli: Annotated[int, Field(ge=1, le=1_000)] = 1_000


class GrowthBody(_Strict):
    """So many more devices of this shape, online and empty."""

    count: Annotated[int, Field(ge=1, le=ADDED_MAX)] = 1
    profile: Annotated[str, Field(max_length=NAME_CHARS_MAX)] = ""
    capacity: AmountsBody = AmountsBody()
    """What is left out is the profile's."""
    labels: Annotated[dict[Word, Value], Field(max_length=lim.LABELS_MAX)] = {}
    runtimes: Annotated[tuple[Annotated[str, Field(pattern=RUNTIME_PATTERN)], ...], Field(max_length=16)] = ()
    accelerators: Annotated[tuple[AcceleratorBody, ...], Field(max_length=lim.ACCELERATORS_MAX)] = ()
    extras: Annotated[
        dict[ExtraName, Annotated[int, Field(ge=0, le=lim.MIB_MAX)]], Field(max_length=lim.EXTRAS_MAX)
    ] = {}
    core_speed_milli: Annotated[int, Field(ge=1, le=100_000)] | None = None
    taints: Annotated[tuple[TaintText, ...], Field(max_length=TAINTS_MAX)] = ()


class JobChangeBody(_Strict):
    """An open job is another one; what is left out stays."""

    job: JobId
    resources: AmountsBody = AmountsBody()
    extras: Annotated[
        dict[ExtraName, Annotated[int, Field(ge=0, le=lim.MIB_MAX)]], Field(max_length=lim.EXTRAS_MAX)
    ] = {}
    constraints: Annotated[tuple[ConstraintBody, ...], Field(max_length=CONSTRAINTS_MAX)] | None = None
    """Instead of all that it has."""
    tolerations: Annotated[tuple[TaintText, ...], Field(max_length=CONSTRAINTS_MAX)] | None = None
    """Instead of all that it has."""
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    policy: PolicyName | None = None
    """Empty: the fleet's."""


class ChangeBody(_Strict):
    """One change: exactly one of these."""

    drain: Annotated[tuple[DeviceId, ...], Field(min_length=1, max_length=DEVICES_MAX)] | None = None
    lose: LossBody | None = None
    add: GrowthBody | None = None
    submit: JobBody | None = None
    change: JobChangeBody | None = None


class PlanBody(_Strict):
    """What would happen if all of `changes` came, and then any site (1) or any two (2) were lost."""

    changes: Annotated[tuple[ChangeBody, ...], Field(max_length=CHANGES_MAX)] = ()
    survive: Annotated[int, Field(ge=0, le=2)] = 0


# ------------------------------------------------------------------------- what contradicts


def plan_faults(body: PlanBody, profiles: Catalogue) -> list[BodyFault]:
    """Everything that is wrong between fields, in the order of the document."""
    if not body.changes and not body.survive:
        return [BodyFault("/changes", "nothing to foretell; say a change, or survive 1")]
    added = [change.add.count if change.add is not None else 0 for change in body.changes]
    if sum(added) > ADDED_MAX:
        place = next(at for at in range(len(added)) if sum(added[: at + 1]) > ADDED_MAX)
        detail = f"a plan adds at most {ADDED_MAX:,} devices in all, not {sum(added):,}"
        return [BodyFault(f"/changes/{place}/add/count", detail)]
    return [
        BodyFault(f"/changes/{place}{fault.pointer}", fault.detail)
        for place, change in enumerate(body.changes)
        for fault in _change_faults(change, profiles)
    ]


def _change_faults(change: ChangeBody, profiles: Catalogue) -> Iterator[BodyFault]:
    said = [name for name in ChangeBody.model_fields if getattr(change, name) is not None]
    if len(said) != 1:
        told = f"{' and '.join(said)} are {len(said)} changes" if said else "no change"
        yield BodyFault("", f"{told}; say exactly one of {', '.join(ChangeBody.model_fields)} in each")
    elif change.lose is not None and not change.lose.devices and change.lose.site is None:
        yield BodyFault("/lose", "nothing is lost; say devices or a site")
    elif change.add is not None:
        for fault in _growth_faults(change.add, profiles):
            yield BodyFault(f"/add{fault.pointer}", fault.detail)
    elif change.submit is not None:
        for fault in job_faults(change.submit):
            yield BodyFault(f"/submit{fault.pointer}", fault.detail)
    elif change.change is not None:
        for fault in _change_faults_of_job(change.change):
            yield BodyFault(f"/change{fault.pointer}", fault.detail)


def _growth_faults(add: GrowthBody, profiles: Catalogue) -> Iterator[BodyFault]:
    profile = profiles.find(add.profile)
    if add.profile and profile is None:
        near = difflib.get_close_matches(add.profile, profiles.names, 1)
        told = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(profiles.names)}"
        yield BodyFault("/profile", f"no such profile; {told}")
        return
    capacity = _capacity(add, profile)
    for field, given in (("cpu_milli", capacity.cpu_milli), ("memory_mib", capacity.memory_mib)):
        if not given:
            why = f"the profile {add.profile} measures it on the machine" if add.profile else "there is none"
            yield BodyFault(f"/capacity/{field}", f"{why}; say how much a device has, or another profile")
    if add.accelerators and add.capacity.gpu_milli is not None:
        total = sum(a.milli for a in add.accelerators)
        if total != add.capacity.gpu_milli:
            yield BodyFault("/capacity/gpu_milli", f"the accelerators add up to {total}; leave it out")
    for place, taint in enumerate(add.taints):
        if fault := check_taint(taint):
            yield BodyFault(f"/taints/{place}", fault)


def _change_faults_of_job(change: JobChangeBody) -> Iterator[BodyFault]:
    said = (change.constraints, change.tolerations, change.count, change.policy)
    if not change.resources.said() and not change.extras and all(each is None for each in said):
        detail = "nothing changes; say resources, extras, constraints, tolerations, count or policy"
        yield BodyFault("", detail)
    yield from accelerator_faults("", change.resources.gpu_milli or 0)
    yield from condition_faults("", change.constraints or ())
    yield from toleration_faults("", change.tolerations or ())


# ------------------------------------------------------------------------- in the core's words


def changes_of(body: PlanBody, profiles: Catalogue, actor: str, wall_ms: int) -> tuple[Change, ...]:
    """Of a body without faults."""
    found: list[Change] = []
    taken: dict[str, None] = {}
    for change in body.changes:
        if change.drain is not None:
            found.append(DrainChange(change.drain))
        elif change.lose is not None:
            sites = () if change.lose.site is None else (change.lose.site,)
            found.append(LossChange(change.lose.devices, sites))
        elif change.add is not None:
            found.append(
                GrowthChange(change.add.count, _device(change.add, profiles.find(change.add.profile)))
            )
        elif change.submit is not None:
            name = _unique(change.submit.name or "new", taken)
            found.append(SubmitChange(_job_row(change.submit, name, actor, wall_ms)))
        elif change.change is not None:
            found.append(_job_change(change.change))
    return tuple(found)


def _unique(name: str, taken: dict[str, None]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken[unique] = None
    return unique


def _capacity(add: GrowthBody, profile: Profile | None) -> Resources:
    base = profile.resources() if profile is not None else Resources()
    if add.accelerators:
        base = base._replace(gpu_milli=sum(a.milli for a in add.accelerators))
    return base._replace(**add.capacity.said())


def _device(add: GrowthBody, profile: Profile | None) -> DeviceRow:
    row = new_device("new", 0)
    row.profile, row.labels, row.extras = add.profile, dict(add.labels), dict(add.extras)
    row.capacity, row.taints = _capacity(add, profile), add.taints
    row.runtimes = add.runtimes or (profile.firmware.runtimes if profile is not None else ("process",))
    if add.accelerators:
        row.accelerators = tuple((a.name, a.model, a.milli) for a in add.accelerators)
    elif profile is not None and add.capacity.gpu_milli is None:
        row.accelerators = tuple((a.name, a.model, a.milli) for a in profile.capacity.accelerators)
    speed = profile.capacity.core_speed_milli if profile is not None else 1_000
    row.core_speed_milli = add.core_speed_milli or speed
    return row


def _job_row(body: JobBody, name: str, actor: str, wall_ms: int) -> JobRow:
    return JobRow(
        id=name,
        name=name,
        kind=JobKind(body.kind),
        count=0 if body.kind == "daemon" else body.count,
        priority=body.priority,
        guarantee=Guarantee[body.guarantee.upper()],
        max_attempts=body.max_attempts or 0,
        ttl_ms=body.ttl_ms,
        lease_ms=body.lease_ms,
        spec=spec_of(body.task),
        state=JobState.OPEN,
        desired="run",
        created_at=wall_ms,
        changed_at=wall_ms,
        actor=actor,
        rules=rules_of(body),
    )


def _job_change(body: JobChangeBody) -> JobChange:
    amounts = tuple(sorted((body.resources.said() | body.extras).items()))
    constraints = body.constraints
    if constraints is not None:
        told = tuple(Constraint(c.attribute, c.operator, c.text()) for c in constraints)
    return JobChange(
        body.job, amounts, None if constraints is None else told, body.tolerations, body.count, body.policy
    )
