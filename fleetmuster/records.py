"""What the REST API answers, as types; and the check that an answer has them.

Rule: a record stays the very object that was decoded, so that `-o json` shows every
field, also those of a newer controller. Only identity is required; what is there must
have the stated type. Absent and null mean the same to a reader: not known.
It knows no HTTP and no tables. Rejected: dataclasses (they would lose unknown fields);
pydantic (the base install has none).
"""

from __future__ import annotations

from types import UnionType
from typing import Required, TypeAlias, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from fleetmuster.exits import CommandError, Exit

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Number = int | float
Moment = str | int  # RFC 3339, or milliseconds since 1970
R = TypeVar("R")


class NotAController(CommandError):
    """Something answers at that URL, but not as a controller does."""

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(
            Exit.UNREACHABLE,
            what,
            why or "another service, or a proxy, answers there",
            "check the URL: fm context show",
        )


class RemoteConstraint(TypedDict, total=False):
    attribute: str
    operator: str
    value: str


class RemoteAffinity(RemoteConstraint, total=False):
    weight: int


class RemoteSpread(TypedDict, total=False):
    attribute: str
    weight: int
    targets: dict[str, int]


class RemoteDependency(TypedDict, total=False):
    job: str
    until: str


class RemoteTaskSpec(TypedDict, total=False):
    """What each task of a job runs. Amounts in the units of their names."""

    runtime: str
    command: list[str]
    env: dict[str, str]
    resources: dict[str, Number]
    constraints: list[RemoteConstraint]
    timeout_ms: int | None
    stop_grace_ms: int | None
    accelerator_models: list[str] | None
    extras: dict[str, Number] | None
    reference_cpu: bool | None
    affinities: list[RemoteAffinity] | None
    spreads: list[RemoteSpread] | None
    tolerations: list[str] | None


class JobRequest(TypedDict, total=False):
    """The body of `POST /jobs`. What is left out gets the controller's default."""

    name: str
    kind: str
    count: int
    priority: int
    guarantee: str
    max_attempts: int
    ttl_ms: int
    lease_ms: int
    task: Required[RemoteTaskSpec]
    policy: str
    owner: str
    gang: bool
    parallel_max: int
    depends_on: list[RemoteDependency]
    on_return: str
    schedule: str
    zone: str
    overlap: bool
    missed: str


class RemoteJob(TypedDict, total=False):
    id: Required[str]
    name: str | None
    kind: str | None
    count: int | None
    priority: int | None
    guarantee: str | None
    max_attempts: int | None
    ttl_ms: int | None
    lease_ms: int | None
    task: RemoteTaskSpec | None
    state: str | None
    created: Moment | None
    tasks: dict[str, Number] | None
    policy: str | None
    owner: str | None
    gang: bool | None
    parallel_max: int | None
    depends_on: list[RemoteDependency] | None
    on_return: str | None
    schedule: str | None
    zone: str | None
    overlap: bool | None
    missed: str | None
    parent: str | None


class RemoteAttempt(TypedDict, total=False):
    attempt: int | None
    device: str | None
    state: str | None
    exit_code: int | None
    reason: str | None
    created: Moment | None
    ended: Moment | None


# One state change of a task: when, by whom, what. (Written so because `from` is a keyword.)
StoryLine = TypedDict(
    "StoryLine",
    {
        "at": Moment | None,
        "actor": str | None,
        "what": str | None,
        "from": str | None,
        "to": str | None,
        "device": str | None,
        "attempt": int | None,
        "reason": str | None,
    },
    total=False,
)


class RemoteTask(TypedDict, total=False):
    id: Required[str]
    job: str | None
    state: str | None
    desired: str | None
    device: str | None
    attempt: int | None
    exit_code: int | None
    reason: str | None
    created: Moment | None
    changed: Moment | None
    attempts: list[RemoteAttempt] | None
    story: list[StoryLine] | None


class FilterLine(TypedDict, total=False):
    """One filter of a placement: how many devices it removed, and why."""

    filter: str | None
    removed: Number | None
    reason: str | None


class ScoreLine(TypedDict, total=False):
    """The score of one device that passed all filters."""

    device: str | None
    score: Number | None
    parts: dict[str, Number] | None


class RemedyLine(TypedDict, total=False):
    """One change after which a pending task would be placed."""

    kind: str | None
    device: str | None
    devices: Number | None
    words: str | None


class RemoteExplanation(TypedDict, total=False):
    """Why a task is where it is, or nowhere."""

    task: str | None
    state: str | None
    device: str | None
    placed: bool | str | None
    summary: str | None
    filters: list[FilterLine] | None
    scores: list[ScoreLine] | None
    reason: str | None
    policy: str | None
    remedies: list[RemedyLine] | None
    chosen: list[ScoreLine] | None


class RemoteAccelerator(TypedDict, total=False):
    name: str | None
    model: str | None
    milli: int | None


class RemoteHealth(TypedDict, total=False):
    """How a device fares."""

    throttled: bool | None
    undervoltage: bool | None
    on_battery: bool | None
    metered: bool | None
    temperature_c: Number | None
    battery_percent: Number | None
    wear_percent: Number | None
    latency_ms: Number | None


class RemoteDevice(TypedDict, total=False):
    id: Required[str]
    state: str | None
    cordoned: bool | None
    draining: bool | None
    quarantined: bool | None
    profile: str | None
    labels: dict[str, str] | None
    capacity: dict[str, Number] | None
    reserved: dict[str, Number] | None
    free: dict[str, Number] | None
    used: dict[str, Number | None] | None
    session: int | None
    runtimes: list[str] | None
    containment: str | None
    limits: str | None
    version: str | None
    tasks: Number | None
    last_heartbeat_ms_ago: Number | None
    accelerators: list[RemoteAccelerator] | None
    extras: dict[str, Number] | None
    core_speed_milli: int | None
    taints: list[str] | None
    doubt: str | None
    health: RemoteHealth | None


class RemoteFleet(TypedDict, total=False):
    devices: dict[str, Number] | None
    tasks: dict[str, Number] | None
    jobs: dict[str, Number] | None
    capacity: dict[str, Number] | None
    reserved: dict[str, Number] | None
    free: dict[str, Number] | None
    frozen: object
    alarms: list[object] | None
    garbage: dict[str, Number] | None
    epoch: int | None
    leader: str | None
    uptime_ms: Number | None
    version: str | None


class NewDevice(TypedDict):
    """A device that was just added. The credential in `agent_toml` is shown once."""

    id: str
    agent_toml: str


class PingResult(TypedDict):
    rtt_us: Number


def checked(value: object, kind: type[R], where: str) -> R:
    """`value` as a record of `kind`. Raises `NotAController` naming the first field that is wrong."""
    _check(value, kind, where)
    return value  # type: ignore[return-value]  # _check has just proved it


_HINTS: dict[type, dict[str, tuple[object, bool]]] = {}


def _check(value: object, kind: object, where: str) -> None:
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for choice in choices:
        if _outside_fits(value, choice):
            _check_inside(value, choice, where)
            return
    raise NotAController("the answer can't be read", f"{where} is of type {type(value).__name__}")


def _outside_fits(value: object, kind: object) -> bool:
    """Whether the outermost type is right; a bool is no number."""
    shell = dict if _is_record(kind) else get_origin(kind) or kind
    assert isinstance(shell, type)
    return isinstance(value, shell) and (shell in (bool, object) or not isinstance(value, bool))


def _check_inside(value: object, kind: object, where: str) -> None:
    if isinstance(value, dict) and _is_record(kind):
        for key, (hint, required) in _hints(kind).items():
            if key in value:
                _check(value[key], hint, f"{where}/{key}")
            elif required:
                raise NotAController("the answer can't be read", f"{where}/{key} is missing")
    elif isinstance(value, dict) and get_args(kind):
        for key, item in value.items():
            _check(item, get_args(kind)[1], f"{where}/{key}")
    elif isinstance(value, list) and get_args(kind):
        for index, item in enumerate(value):
            _check(item, get_args(kind)[0], f"{where}/{index}")


def _is_record(kind: object) -> bool:
    return hasattr(kind, "__required_keys__")


def _hints(kind: object) -> dict[str, tuple[object, bool]]:
    """Type of each field, and whether it must be there."""
    assert isinstance(kind, type)
    if kind not in _HINTS:
        always = getattr(kind, "__total__", False)  # `__required_keys__` misses Required in text annotations
        found: dict[str, tuple[object, bool]] = {}
        for key, hint in get_type_hints(kind, include_extras=True).items():
            marked = get_origin(hint) is Required
            found[key] = (get_args(hint)[0] if marked else hint, marked or always)
        _HINTS[kind] = found
    return _HINTS[kind]
