"""Rows to SQL and back: one `SqlTable` per row type, and the statements made from it.

A save writes many rows per statement (`INSERT … VALUES (…),(…)`): sqlite3 gives up Python's
global lock at each step, so `executemany` does at each row, and beside a busy event loop
each time may cost a whole switch interval (`benchmarks/bench_store.py` measures it). JSON
only where a value has no columns of its own: spec, labels, capacity, runtimes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from operator import attrgetter
from typing import Any, cast

from controller.core.records import (
    Affinity,
    AttemptRow,
    AttemptState,
    AuditRow,
    Constraint,
    Dependency,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    JobRules,
    JobState,
    OutputRow,
    Row,
    Spread,
    TaskRow,
    TaskSpec,
)
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState

Value = str | int | bytes | None
Values = tuple[Value, ...]
Statement = tuple[str, Sequence[Value]]

CHUNK_ROWS_MAX = 256
"""Rows per statement: 29 columns of it stay far below SQLite's 32,766 variables."""
CHUNK_ROWS_STEP = 16
"""Larger statements come in these steps, the rest of a batch in one: 31 texts per table to keep
prepared, and two steps for any batch up to the maximum."""
_SPECS_MAX = 4_096
_SPEC_CHARS_MAX = 4_096
"""Together: at most 16 MiB of remembered text."""
_SIGN = 1 << 63


@dataclass(slots=True)
class SqlTable:
    """How one row type is written. `values` of a row are in the order of `columns`.

    `key`: empty where rows are appended. `conflict`: an ON CONFLICT clause of its own.
    """

    name: str
    columns: tuple[str, ...]
    values: Callable[[Row], Values]
    key: tuple[str, ...] = ()
    conflict: str = ""

    def insert(self, rows: int) -> str:
        """The statement that writes `rows` rows."""
        one = "(" + ",".join("?" * len(self.columns)) + ")"
        head = f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES "
        return head + ",".join([one] * rows) + self._on_conflict()

    def _on_conflict(self) -> str:
        if self.conflict or not self.key:
            return self.conflict
        sets = ", ".join(f"{c} = excluded.{c}" for c in self.columns if c not in self.key)
        return f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {sets}"


def statements(table: SqlTable, rows: Sequence[Row]) -> Iterator[Statement]:
    """The statements that write `rows`."""
    values, at = table.values, 0
    while left := len(rows) - at:
        chunk = min(CHUNK_ROWS_MAX, left - left % CHUNK_ROWS_STEP or left)
        yield _insert(table, chunk), list(chain.from_iterable(map(values, rows[at : at + chunk])))
        at += chunk


_inserts: dict[tuple[str, int], str] = {}


def _insert(table: SqlTable, rows: int) -> str:
    text = _inserts.get((table.name, rows))
    if text is None:
        text = _inserts[table.name, rows] = table.insert(rows)
    return text


def _getter(*fields: str) -> Callable[[Row], Values]:
    # attrgetter follows `state._value_` in C; an enum's `value` is a Python property in 3.11.
    return cast("Callable[[Row], Values]", attrgetter(*fields))


# ---------------------------------------------------------------------------- jobs

_NO_RULES = JobRules()
_specs: dict[str, tuple[TaskSpec, str]] = {}
"""The text of each job's spec while it is open: a job is saved more often than it is made."""


def spec_text(spec: TaskSpec) -> str:
    """Compact JSON of a spec; `read_spec` is its inverse."""
    constraints = [(c.attribute, c.operator, c.value) for c in spec.constraints]
    what = (spec.runtime, spec.command, spec.env, spec.resources, constraints)
    wishes = {
        "affinities": [(a.attribute, a.operator, a.value, a.weight) for a in spec.affinities],
        "spreads": [(s.attribute, s.weight, s.targets) for s in spec.spreads],
        "tolerations": spec.tolerations,
        "models": spec.models,
        "extras": spec.extras,
        "reference_cpu": spec.reference_cpu,
    }
    said = {name: value for name, value in wishes.items() if value}
    return json.dumps((*what, spec.timeout_ms, spec.stop_grace_ms, said), separators=(",", ":"))


def read_spec(text: str) -> TaskSpec:
    runtime, command, env, resources, constraints, timeout_ms, stop_grace_ms, *more = json.loads(text)
    said = more[0] if more else {}
    spreads = said.get("spreads", ())
    return TaskSpec(
        runtime,
        tuple(command),
        env,
        Resources(*resources),
        tuple(Constraint(*c) for c in constraints),
        timeout_ms,
        stop_grace_ms,
        said.get("extras", {}),
        tuple(said.get("models", ())),
        said.get("reference_cpu", False),
        tuple(Affinity(*a) for a in said.get("affinities", ())),
        tuple(Spread(a, weight, tuple((v, p) for v, p in targets)) for a, weight, targets in spreads),
        tuple(said.get("tolerations", ())),
    )


def rules_text(rules: JobRules) -> str:
    """Compact JSON of what differs from the defaults; `read_rules` is its inverse."""
    if rules == _NO_RULES:
        return ""
    said = {f.name: getattr(rules, f.name) for f in fields(rules)}
    said["depends_on"] = [(d.job, d.until) for d in rules.depends_on]
    default = {f.name: getattr(_NO_RULES, f.name) for f in fields(rules)}
    return json.dumps({n: v for n, v in said.items() if v != default[n]}, separators=(",", ":"))


def read_rules(text: str) -> JobRules:
    said = json.loads(text) if text else {}
    said["depends_on"] = tuple(Dependency(*d) for d in said.get("depends_on", ()))
    return JobRules(**said)


def _spec_once(row: JobRow) -> str:
    known = _specs.get(row.id)
    if known is not None and known[0] is row.spec:
        return known[1]
    if len(_specs) >= _SPECS_MAX:
        _specs.clear()
    text = spec_text(row.spec)
    if len(text) <= _SPEC_CHARS_MAX:
        _specs[row.id] = (row.spec, text)
    return text


_JOB_HEAD = attrgetter(
    "id", "name", "kind._value_", "count", "priority", "guarantee", "max_attempts", "ttl_ms", "lease_ms"
)
_JOB_TAIL = attrgetter(
    "state._value_", "desired", "created_at", "changed_at", "actor", "idempotency_key", "fingerprint"
)
_GUARANTEE_TEXT = {g: g.name.lower() for g in Guarantee}
_GUARANTEES = {text: g for g, text in _GUARANTEE_TEXT.items()}


def _job_values(row: Row) -> Values:
    head = list(_JOB_HEAD(row))
    job = cast(JobRow, row)
    head[5] = _GUARANTEE_TEXT[job.guarantee]
    return (*head, _spec_once(job), *_JOB_TAIL(row), rules_text(job.rules), job.fired_at, job.runs)


def read_job(v: Sequence[object]) -> JobRow:
    row = JobRow(*v)  # type: ignore[arg-type]
    row.kind = JobKind(row.kind)
    row.guarantee = _GUARANTEES[cast(str, row.guarantee)]
    row.spec = read_spec(cast(str, row.spec))
    row.state = JobState(row.state)
    row.rules = read_rules(cast(str, row.rules))
    return row


# ---------------------------------------------------------------------------- tasks, attempts


def read_task(v: Sequence[object]) -> TaskRow:
    job, index, state, *rest = v
    return TaskRow(f"{job}.{index}", job, index, TaskState(state), *rest)  # type: ignore[arg-type]


def read_attempt(v: Sequence[object]) -> AttemptRow:
    row = AttemptRow(*v)  # type: ignore[arg-type]
    row.state = AttemptState(row.state)
    return row


# ---------------------------------------------------------------------------- devices


def _device_values(row: Row) -> Values:
    d = cast(DeviceRow, row)
    signed = d.session - 2 * _SIGN if d.session >= _SIGN else d.session
    return (
        *(d.device, signed, d.boot_id, d.instance_id, d.previous_identity, d.inventory, d.profile),
        json.dumps(d.capacity, separators=(",", ":")),
        json.dumps(d.labels, separators=(",", ":")),
        json.dumps(d.runtimes, separators=(",", ":")),
        *(d.containment, d.heartbeat_ms, d.version, d.cordoned, d.draining, d.quarantined, d.removed),
        *(d.settings_epoch, d.settings_number, d.created_at, d.limits),
        json.dumps(d.accelerators, separators=(",", ":")) if d.accelerators else "",
        json.dumps(d.extras, separators=(",", ":")) if d.extras else "",
        *(d.core_speed_milli, json.dumps(d.taints, separators=(",", ":")) if d.taints else "", d.doubt),
    )


def read_device(v: Sequence[object]) -> DeviceRow:
    row = DeviceRow(*v)  # type: ignore[arg-type]
    row.session %= 2 * _SIGN
    row.capacity = Resources(*json.loads(cast(str, row.capacity)))
    row.labels = json.loads(cast(str, row.labels))
    row.runtimes = tuple(json.loads(cast(str, row.runtimes)))
    row.cordoned, row.draining = bool(row.cordoned), bool(row.draining)
    row.quarantined, row.removed = bool(row.quarantined), bool(row.removed)
    row.accelerators = tuple((n, m, a) for n, m, a in _read_optional(row.accelerators, []))
    row.extras = _read_optional(row.extras, {})
    row.taints = tuple(_read_optional(row.taints, []))
    return row


def _read_optional(text: object, absent: Any) -> Any:
    return json.loads(cast(str, text)) if text else absent


def read_audit(v: Sequence[object]) -> AuditRow:
    return AuditRow(*v)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- the tables

_LONGER_OUTPUT = (
    " ON CONFLICT (task, attempt, stream, offset) DO UPDATE SET"
    " data = iif(length(excluded.data) > length(data), excluded.data, data), last = max(last, excluded.last)"
    " WHERE length(excluded.data) > length(data) OR excluded.last > last"
)
"""The same place is kept once, and the longer piece: an agent that lost its place cuts anew."""

_JOB_COLUMNS = (
    *("id", "name", "kind", "count", "priority", "guarantee", "max_attempts", "ttl_ms", "lease_ms", "spec"),
    *("state", "desired", "created_at", "changed_at", "actor", "idempotency_key", "fingerprint"),
    *("rules", "fired_at", "runs"),
)
_TASK_FIELDS = (
    *("desired", "device", "attempt", "exit_code", "reason", "failures", "created_at", "changed_at", "pin"),
    "handed_out",
)
_ATTEMPT_TAIL = (
    *("since", "removed_epoch", "until", "exit_code", "signal", "reason"),
    *("created_at", "started_at", "ended_at", "given"),
)
_DEVICE_COLUMNS = (
    *("device", "session", "boot_id", "instance_id", "previous_identity", "inventory", "profile"),
    *("capacity", "labels", "runtimes", "containment", "heartbeat_ms", "version"),
    *("cordoned", "draining", "quarantined", "removed", "settings_epoch", "settings_number"),
    *("created_at", "limits", "accelerators", "extras", "core_speed_milli", "taints", "doubt"),
)
_AUDIT_COLUMNS = ("at", "actor", "what", "object", "old", "new", "device", "attempt", "reason")
_OUTPUT_COLUMNS = ("task", "attempt", "stream", "offset", "data", "last")

TABLES: dict[type, SqlTable] = {
    JobRow: SqlTable("jobs", _JOB_COLUMNS, _job_values, ("id",)),
    TaskRow: SqlTable(
        "tasks",
        ("job", "idx", "state", *_TASK_FIELDS),
        _getter("job", "index", "state._value_", *_TASK_FIELDS),
        ("job", "idx"),
    ),
    AttemptRow: SqlTable(
        "attempts",
        ("task", "attempt", "device", "state", *_ATTEMPT_TAIL),
        _getter("task", "attempt", "device", "state._value_", *_ATTEMPT_TAIL),
        ("task", "attempt"),
    ),
    DeviceRow: SqlTable("devices", _DEVICE_COLUMNS, _device_values, ("device",)),
    DocumentRow: SqlTable(
        "documents", ("device", "epoch", "number"), _getter("device", "epoch", "number"), ("device",)
    ),
    FleetRow: SqlTable("fleet", ("name", "value"), _getter("name", "value"), ("name",)),
    AuditRow: SqlTable("audit", _AUDIT_COLUMNS, _getter(*_AUDIT_COLUMNS)),
    OutputRow: SqlTable("output", _OUTPUT_COLUMNS, _getter(*_OUTPUT_COLUMNS), conflict=_LONGER_OUTPUT),
}
"""In the order in which a save writes them."""

JOB, TASK, ATTEMPT = (", ".join(TABLES[t].columns) for t in (JobRow, TaskRow, AttemptRow))
DEVICE, AUDIT = (", ".join(TABLES[t].columns) for t in (DeviceRow, AuditRow))
