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

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from controller.core.placement import ATTRIBUTES
from protocol import limits as lim

JOB_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RUNTIME_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
COUNT_MAX = 100_000
PRIORITY_MAX = 100
MAX_ATTEMPTS_MAX = 1_000_000
CONSTRAINTS_MAX = 32
VALUE_CHARS_MAX = lim.LABEL_CHARS_MAX
ENV_NAME_CHARS_MAX = 100
RESERVED_ENV_PREFIX = "FM_"
"""`FM_TASK`, `FM_ATTEMPT`, `FM_DEVICE` are the agent's own; nobody else may forge a fencing token."""

LABEL_PREFIX = "label."
ORDER_OPERATORS = ("<", "<=", ">", ">=")
LIST_OPERATORS = ("in", "not_in")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain_text(text: str) -> str:
    """Text that the wire and an operating system can carry: no NUL, no lone surrogate."""
    if "\0" in text:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    if not text.isascii() and _SURROGATE.search(text):
        raise PydanticCustomError("surrogate", "must not contain a lone surrogate")
    return text


def known_attribute(name: str) -> str:
    """An attribute that devices have, or `label.` and a label's name."""
    plain_text(name)
    if name in ATTRIBUTES or (name.startswith(LABEL_PREFIX) and len(name) > len(LABEL_PREFIX)):
        return name
    near = difflib.get_close_matches(name, ATTRIBUTES, 1)
    meant = near[0] if near else f"{LABEL_PREFIX}{name}"
    raise PydanticCustomError(
        "attribute", "not an attribute of devices; did you mean '{meant}'?", {"meant": meant[:60]}
    )


def _env_name(name: str) -> str:
    plain_text(name)
    if not name or "=" in name:
        raise PydanticCustomError("env_name", "a variable's name is not empty and has no '='")
    if name.startswith(RESERVED_ENV_PREFIX):
        raise PydanticCustomError("env_name", "names beginning with FM_ are set by the agent")
    return name


Argument = Annotated[str, Field(max_length=lim.ARGV_ITEM_CHARS_MAX), AfterValidator(plain_text)]
EnvName = Annotated[str, Field(max_length=ENV_NAME_CHARS_MAX), AfterValidator(_env_name)]
Attribute = Annotated[
    str, Field(max_length=len(LABEL_PREFIX) + ENV_NAME_CHARS_MAX), AfterValidator(known_attribute)
]
Value = Annotated[str, Field(max_length=VALUE_CHARS_MAX), AfterValidator(plain_text)]
Milli = Annotated[int, Field(ge=0, le=lim.MILLI_MAX)]
Mebibytes = Annotated[int, Field(ge=0, le=lim.MIB_MAX)]
DurationMs = Annotated[int, Field(ge=0, le=lim.DURATION_MS_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ResourcesBody(_Body):
    """What each task reserves."""

    cpu_milli: Milli = 100
    memory_mib: Mebibytes = 32
    disk_mib: Mebibytes = 0
    gpu_milli: Milli = 0


class ConstraintBody(_Body):
    """A demand on the device: attribute, operator, value. `in` and `not_in` take a list or `a,b,c`."""

    attribute: Attribute
    operator: Literal["=", "!=", "in", "not_in", "exists", "<", "<=", ">", ">="]
    value: Value | Annotated[tuple[Value, ...], Field(max_length=64)] = ""

    def fault(self) -> tuple[str, str] | None:
        """The field that doesn't go with the others, and why."""
        if self.operator in LIST_OPERATORS:
            return self._list_fault()
        if not isinstance(self.value, str):
            return "value", f"operator '{self.operator}' takes one value, not a list"
        if self.operator == "exists" and self.value:
            return "value", "operator 'exists' takes no value"
        if self.operator in ORDER_OPERATORS:
            if not self.attribute.startswith(LABEL_PREFIX):
                return "operator", f"only labels have an order: {self.attribute} is compared as text"
            if _NUMBER.fullmatch(self.value) is None:
                return "value", f"operator '{self.operator}' needs a number"
        return None

    def _list_fault(self) -> tuple[str, str] | None:
        items = self.value.split(",") if isinstance(self.value, str) else self.value
        if not any(items) or (isinstance(self.value, tuple) and any("," in item for item in items)):
            return "value", f"operator '{self.operator}' needs a list of values that have no comma"
        if len(self.text()) > VALUE_CHARS_MAX:
            return "value", f"longer than {VALUE_CHARS_MAX} characters in all"
        return None

    def text(self) -> str:
        """The value as the core keeps it: a list is joined by commas."""
        return self.value if isinstance(self.value, str) else ",".join(self.value)


class TaskBody(_Body):
    """What each task of the job runs. `command` is an argument vector, never a shell line."""

    runtime: Annotated[str, Field(pattern=RUNTIME_PATTERN)] = "process"
    command: Annotated[tuple[Argument, ...], Field(max_length=lim.ARGV_ITEMS_MAX)] = ()
    env: Annotated[dict[EnvName, Argument], Field(max_length=lim.ENV_ITEMS_MAX)] = {}
    resources: ResourcesBody = ResourcesBody()
    constraints: Annotated[tuple[ConstraintBody, ...], Field(max_length=CONSTRAINTS_MAX)] = ()
    timeout_ms: DurationMs = 0
    stop_grace_ms: Annotated[int, Field(ge=0, le=lim.STOP_GRACE_MS_MAX)] = lim.STOP_GRACE_MS


class JobBody(_Body):
    """A job. Without a name it is called after its command; 0 means none or unlimited."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN)] | None = None
    kind: Literal["batch", "service"] = "batch"
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 1
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] = 50
    guarantee: Literal["at_most_one", "at_least_one"] = "at_most_one"
    max_attempts: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS_MAX)] | None = None
    """3 for batch, unlimited (0) for a service."""
    ttl_ms: DurationMs = 0
    lease_ms: Annotated[int, Field(ge=lim.LEASE_MS_MIN, le=lim.LEASE_MS_MAX)] = lim.LEASE_MS
    task: TaskBody


class DeviceBody(_Body):
    """A device to register: its id is also its MQTT client id and user name."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]
