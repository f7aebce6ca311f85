"""Bodies: what a request may say, with its types and bounds; pydantic lives here.

Rule: strict. Unknown fields are errors, a bool is no integer, text is no number; every
list, string and number has a bound, taken from the wire's where it travels. What this
file lets through, the agent's decoder accepts. Meanings (does a device exist, may a job
be cancelled) are the core's.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from controller.core.condition_faults import (
    ITEMS_MAX,
    TARGETS_MAX,
    WEIGHT_MAX,
    Fault,
    affinity_fault,
    fault_of,
    spread_fault,
)
from controller.core.conditions import GROUP_OPERATORS, LISTS, OPERATORS
from controller.scheduler.policies import NAMES as POLICIES
from protocol import limits as lim
from protocol.resources import NAMES as RESOURCES

JOB_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RUNTIME_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
OWNER_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._@-]{0,63})?$"
COUNT_MAX = 100_000
PRIORITY_MAX = 100
MAX_ATTEMPTS_MAX = 1_000_000
CONSTRAINTS_MAX = 32
SPREADS_MAX = 8
"""Each is a pass over the fleet; nobody has eight dimensions of sites."""
DEPENDENCIES_MAX = 32
ATTRIBUTE_CHARS_MAX = 128
NAME_CHARS_MAX = 100
"""Of models and extras: a word on the wire."""
TAINT_CHARS_MAX = 150
"""Key, value and effect at their longest, and what stands between."""
SCHEDULE_CHARS_MAX = 256
ZONE_CHARS_MAX = 64
VALUE_CHARS_MAX = lim.LABEL_CHARS_MAX
ENV_NAME_CHARS_MAX = 100
RESERVED_ENV_PREFIX = "FM_"
"""`FM_TASK`, `FM_INDEX`, `FM_ATTEMPT`, `FM_DEVICE` are the agent's own; nobody else may forge a fencing
token."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def plain_text(text: str) -> str:
    """Text that the wire and an operating system can carry: no NUL, no lone surrogate."""
    if "\0" in text:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    if not text.isascii() and _SURROGATE.search(text):
        raise PydanticCustomError("surrogate", "must not contain a lone surrogate")
    return text


def _env_name(name: str) -> str:
    plain_text(name)
    if not name or "=" in name:
        raise PydanticCustomError("env_name", "a variable's name is not empty and has no '='")
    if name.startswith(RESERVED_ENV_PREFIX):
        raise PydanticCustomError("env_name", "names beginning with FM_ are set by the agent")
    return name


def _known_policy(name: str) -> str:
    if not name or name in POLICIES:
        return name
    near = difflib.get_close_matches(name, POLICIES, 1)
    told = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(POLICIES)}"
    raise PydanticCustomError("policy", "not a policy of the scheduler; {told}", {"told": told})


def _extra_name(name: str) -> str:
    plain_text(name)
    if not name or name != name.strip() or "=" in name:
        raise PydanticCustomError("extra_name", "a resource's name is a word without '='")
    if name in RESOURCES:
        raise PydanticCustomError(
            "extra_name", "not an extra of a site; say task.resources.{name}", {"name": name}
        )
    return name


def _word(text: str) -> str:
    plain_text(text)
    if not text.strip():
        raise PydanticCustomError("word", "must not be empty")
    return text


Argument = Annotated[str, Field(max_length=lim.ARGV_ITEM_CHARS_MAX), AfterValidator(plain_text)]
EnvName = Annotated[str, Field(max_length=ENV_NAME_CHARS_MAX), AfterValidator(_env_name)]
Attribute = Annotated[str, Field(max_length=ATTRIBUTE_CHARS_MAX), AfterValidator(plain_text)]
Operator = Annotated[
    str,
    Field(max_length=NAME_CHARS_MAX, json_schema_extra={"enum": [*OPERATORS, *GROUP_OPERATORS]}),
    AfterValidator(plain_text),
]
Weight = Annotated[int, Field(ge=-WEIGHT_MAX, le=WEIGHT_MAX)]
Percent = Annotated[int, Field(ge=0, le=100)]
Value = Annotated[str, Field(max_length=VALUE_CHARS_MAX), AfterValidator(plain_text)]
Milli = Annotated[int, Field(ge=0, le=lim.MILLI_MAX)]
Mebibytes = Annotated[int, Field(ge=0, le=lim.MIB_MAX)]
KilobitsPerSecond = Annotated[int, Field(ge=0, le=lim.MIB_MAX)]
DurationMs = Annotated[int, Field(ge=0, le=lim.DURATION_MS_MAX)]
PolicyName = Annotated[str, Field(max_length=NAME_CHARS_MAX), AfterValidator(_known_policy)]
ExtraName = Annotated[str, Field(max_length=NAME_CHARS_MAX), AfterValidator(_extra_name)]
Word = Annotated[str, Field(max_length=NAME_CHARS_MAX), AfterValidator(_word)]
TaintText = Annotated[str, Field(max_length=TAINT_CHARS_MAX), AfterValidator(plain_text)]
JobId = Annotated[str, Field(pattern=r"^[a-z0-9]{1,64}$")]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ResourcesBody(_Body):
    """What each task reserves."""

    cpu_milli: Milli = 100
    memory_mib: Mebibytes = 32
    disk_mib: Mebibytes = 0
    gpu_milli: Milli = 0
    """Below 1,000 a share of one accelerator, else whole ones: 1,000, 2,000, …"""
    up_kbit_s: KilobitsPerSecond = 0
    down_kbit_s: KilobitsPerSecond = 0
    slots: Annotated[int, Field(ge=0, le=lim.MILLI_MAX)] = 0


class ConstraintBody(_Body):
    """A demand on the device: attribute, operator, value. `in` and `not_in` take a list or `a,b,c`."""

    attribute: Attribute = ""
    operator: Operator
    value: Value | Annotated[tuple[Value, ...], Field(max_length=ITEMS_MAX)] = ""

    def fault(self) -> Fault | None:
        """The field that doesn't go with the others, and why."""
        return self.list_fault() or fault_of(self.attribute, self.operator, self.text())

    def list_fault(self) -> Fault | None:
        """What can be wrong with a list, beyond its text."""
        if isinstance(self.value, str):
            return None
        if self.operator not in LISTS:
            return "value", f"operator '{self.operator[:30]}' takes one value, not a list"
        if any("," in item for item in self.value):
            return "value", f"operator '{self.operator}' needs a list of values that have no comma"
        if len(self.text()) > VALUE_CHARS_MAX:
            return "value", f"longer than {VALUE_CHARS_MAX} characters in all"
        return None

    def text(self) -> str:
        """The value as the core keeps it: a list is joined by commas."""
        return self.value if isinstance(self.value, str) else ",".join(self.value)


class AffinityBody(ConstraintBody):
    """A wish: devices where it holds are better, or worse where `weight` is negative."""

    weight: Weight = 50

    def fault(self) -> Fault | None:
        return self.list_fault() or affinity_fault(self.attribute, self.operator, self.text(), self.weight)


class SpreadBody(_Body):
    """A wish: the job's tasks in these percentages over the values of an attribute; evenly without."""

    attribute: Attribute
    weight: Weight = 50
    targets: Annotated[dict[Value, Percent], Field(max_length=TARGETS_MAX)] = {}

    def fault(self) -> Fault | None:
        """The field that doesn't go with the others, and why."""
        return spread_fault(self.attribute, self.weight, self.targets.items())


class TaskBody(_Body):
    """What each task of the job runs. `command` is an argument vector, never a shell line."""

    runtime: Annotated[str, Field(pattern=RUNTIME_PATTERN)] = "process"
    command: Annotated[tuple[Argument, ...], Field(max_length=lim.ARGV_ITEMS_MAX)] = ()
    env: Annotated[dict[EnvName, Argument], Field(max_length=lim.ENV_ITEMS_MAX)] = {}
    resources: ResourcesBody = ResourcesBody()
    constraints: Annotated[tuple[ConstraintBody, ...], Field(max_length=CONSTRAINTS_MAX)] = ()
    timeout_ms: DurationMs = 0
    stop_grace_ms: Annotated[int, Field(ge=0, le=lim.STOP_GRACE_MS_MAX)] = lim.STOP_GRACE_MS
    accelerator_models: Annotated[tuple[Word, ...], Field(max_length=lim.ACCELERATORS_MAX)] = ()
    """Models that will do; empty: any."""
    extras: Annotated[
        dict[ExtraName, Annotated[int, Field(ge=1, le=lim.MIB_MAX)]], Field(max_length=lim.EXTRAS_MAX)
    ] = {}
    reference_cpu: bool = False
    affinities: Annotated[tuple[AffinityBody, ...], Field(max_length=CONSTRAINTS_MAX)] = ()
    spreads: Annotated[tuple[SpreadBody, ...], Field(max_length=SPREADS_MAX)] = ()
    tolerations: Annotated[tuple[TaintText, ...], Field(max_length=CONSTRAINTS_MAX)] = ()


class DependencyBody(_Body):
    """Wait until that job is over: `succeeded`, or `ended` however."""

    job: JobId
    until: Literal["succeeded", "ended"] = "succeeded"


def _spelling(value: object) -> str:
    return f"{CHOICE}id" if isinstance(value, str) else f"{CHOICE}object"


CHOICE = "choice-"
"""Names of a union's members begin so: they are no place of a document."""
Dependent = Annotated[
    Annotated[JobId, Tag(f"{CHOICE}id")] | Annotated[DependencyBody, Tag(f"{CHOICE}object")],
    Discriminator(_spelling),
]


class JobBody(_Body):
    """A job. Without a name it is called after its command; 0 means none or unlimited."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN)] | None = None
    kind: Literal["batch", "service", "daemon", "cron"] = "batch"
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 1
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] = 50
    guarantee: Literal["at_most_one", "at_least_one"] = "at_most_one"
    max_attempts: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS_MAX)] | None = None
    """3 for batch and cron, unlimited (0) for service and daemon."""
    ttl_ms: DurationMs = 0
    lease_ms: Annotated[int, Field(ge=lim.LEASE_MS_MIN, le=lim.LEASE_MS_MAX)] = lim.LEASE_MS
    task: TaskBody
    policy: PolicyName = ""
    """Empty: the fleet's."""
    owner: Annotated[str, Field(pattern=OWNER_PATTERN)] = ""
    """Whose share of the fleet it counts to; empty: who submits it."""
    gang: bool = False
    parallel_max: Annotated[int, Field(ge=0, le=COUNT_MAX)] = 0
    depends_on: Annotated[tuple[Dependent, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    on_return: Literal["newest", "keep_original", "longest_running", "best_score"] = "newest"
    schedule: Annotated[str, Field(max_length=SCHEDULE_CHARS_MAX), AfterValidator(plain_text)] = ""
    zone: Annotated[str, Field(max_length=ZONE_CHARS_MAX), AfterValidator(plain_text)] = "UTC"
    overlap: bool = False
    missed: Literal["skip", "once", "all"] = "skip"


class TaintBody(_Body):
    """A taint: `key=value:effect`."""

    taint: TaintText


class DeviceBody(_Body):
    """A device to register: its id is also its MQTT client id and user name."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]
