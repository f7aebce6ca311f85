"""Tables of the wire's specification, made from the code that they describe.

Rule of this file: a number, a name or an edge is never typed here, only read; what is
typed is why. A field, a limit or a transition without a reason is an error, so whoever
adds one explains it.
"""

from __future__ import annotations

import ast
from enum import Enum
from pathlib import Path
from types import ModuleType

from controller.core.records import AttemptState
from protocol import backoff, fields, limits, tasks, topics
from protocol import messages as wire
from protocol.errors import GarbageReason

NESTED = (wire.RunEntry, wire.AssignedAttempt, wire.Accelerator)

CHANNELS = {
    "status": "birth, orderly goodbye, last will",
    "heartbeat": "sign of life, measured use, health when it is news, request for the lease",
    "runs": "reported document: every attempt the device holds",
    "inventory": "what the device is",
    "telemetry": "reserved, not spoken in version 1",
    "output": "a piece of an attempt's captured output",
    "answer": "answer to a command, by its id",
    "assignments": "desired document: every attempt the device should hold",
    "lease": "answer to a heartbeat; perhaps a grant",
    "settings": "session floor, quarantine, manner of speaking",
    "command": "one-off question",
}

GARBAGE = {
    GarbageReason.UNKNOWN_TOPIC: "not of the tree of section 1, or a topic too long",
    GarbageReason.WRONG_CHANNEL: "a legal topic on which this reader expects no message",
    GarbageReason.OVERSIZE: "payload over the limit; not parsed",
    GarbageReason.EMPTY: "no payload: somebody deleted a retained message",
    GarbageReason.MALFORMED: "neither CBOR nor JSON, nested too deep, or bytes after the end",
    GarbageReason.NOT_A_MAP: "well-formed, but no map",
    GarbageReason.MISSING_FIELD: "a field without a default is absent",
    GarbageReason.WRONG_TYPE: "a field of another type; a boolean is no integer",
    GarbageReason.OUT_OF_RANGE: "a field outside its bounds, or text with NUL or a lone surrogate",
}

T, R = tasks.TaskState, tasks.RunState
TASK_WHY = {
    (T.PENDING, T.ASSIGNED): "the scheduler picked a device; the number is committed with it. "
    "Or an older run stays (C6)",
    (T.PENDING, T.CANCELLED): "cancelled while it waited",
    (T.PENDING, T.FAILED): "`ttl_ms` passed while it waited",
    (T.ASSIGNED, T.RUNNING): "a `Runs` lists the attempt as started",
    (T.ASSIGNED, T.PENDING): "the attempt is free without a result or failed, may be tried again; or C6",
    (T.ASSIGNED, T.SUCCEEDED): "ended with 0 before any `Runs` showed it running",
    (T.ASSIGNED, T.FAILED): "its last allowed failure, or `ttl_ms` passed, before any such `Runs`",
    (T.ASSIGNED, T.CANCELLED): "cancelled, and the attempt is free",
    (T.RUNNING, T.PENDING): "as from assigned",
    (T.RUNNING, T.SUCCEEDED): "a batch run ended with 0",
    (T.RUNNING, T.FAILED): "its last allowed failure, or `ttl_ms` passed and the attempt is free",
    (T.RUNNING, T.CANCELLED): "cancelled, and the attempt is free",
}
RUN_WHY = {
    (R.STARTING, R.RUNNING): "the guard started it",
    (R.STARTING, R.STOPPING): "it was removed from the document",
    (R.STARTING, R.ENDED): "it ended by itself, or could not be started (its own fault)",
    (R.STARTING, R.STOPPED): "the guard refused it: too late, or another run of the task lives",
    (R.STARTING, R.INTERRUPTED): "the guard, asked, does not hold it",
    (R.RUNNING, R.STOPPING): "it was removed from the document; the order to stop is given",
    (R.RUNNING, R.ENDED): "it ended by itself: exit, signal, time limit, out of memory",
    (R.RUNNING, R.STOPPED): "the guard ended it: deadline, or an order",
    (R.RUNNING, R.INTERRUPTED): "lost with its guard or by a reboot",
    (R.STOPPING, R.ENDED): "it ended by itself meanwhile",
    (R.STOPPING, R.STOPPED): "the guard confirms its death",
    (R.STOPPING, R.INTERRUPTED): "lost with its guard or by a reboot",
}
A = AttemptState
RESERVATION_WHY = {
    (A.ASSIGNED, A.RUNNING): "a `Runs` lists it as started",
    (A.ASSIGNED, A.REMOVED): "taken out of the document: cancel, expiry, drain, loss, forgotten",
    (A.ASSIGNED, A.FREE): "a `Runs` says how it ended",
    (A.RUNNING, A.REMOVED): "taken out of the document",
    (A.RUNNING, A.FREE): "a `Runs` says how it ended",
    (A.REMOVED, A.FREE): "a `Runs` no longer holds it, its hold has passed, or its device was removed",
}

LIMIT_WHY = {
    "PROTOCOL_VERSION": "second level of every topic; both versions can share a broker",
    "ARGV_ITEMS_MAX": "what a person writes fits; what a program generates belongs into a file",
    "ENV_ITEMS_MAX": "as above",
    "LABELS_MAX": "a full inventory still fits one payload",
    "LABEL_CHARS_MAX": "as above",
    "REASON_CHARS_MAX": "one line for people",
    "OUTPUT_BYTES_CEILING": "an attempt may not ask for more than this; a controller stores no more",
    "INT_MAX": "what a signed 64-bit column holds",
    "SESSION_MAX": "40 bits that count, 24 drawn at random",
    "MIB_MAX": "2^40 MiB; sums of a whole fleet still fit 63 bits",
    "HEARTBEAT_MS": "three in a lease",
    "HEARTBEAT_MS_MIN": "faster costs radio time and tells nothing more",
    "LEASE_MS": "ten seconds of silence are common on a radio link, thirty are not",
    "LEASE_MS_MAX": "a week; what is allowed longer without news is better `at_least_one`",
    "HOLD_MARGIN_MS": "rounding, and the time between reading a message and stamping it",
    "KEEPALIVE_S": "a broker gives up a silent connection after 1.5 times this",
    "SUSPECT_HEARTBEATS": "two lost in a row are not yet a reason",
    "OFFLINE_HEARTBEATS": "four lost in a row are",
    "LEADER_MS": "four renewals, 3 s apart",
    "STOP_GRACE_MS": "between TERM and KILL, unless the job says otherwise",
    "STOP_GRACE_MS_MAX": "ten minutes",
    "COMMAND_TTL_MS": "a person waits no longer",
    "DURATION_MS_MAX": "a leap year",
}
BACKOFF_WHY = {
    "RECONNECT_BASE_MS": "`Settings` may raise it",
    "RECONNECT_FAST_TRIES": "a blip of seconds must not outlast a lease",
    "RECONNECT_FAST_CAP_MS": "as above",
    "RECONNECT_CAP_MS": "a long outage must not keep a radio awake",
    "CONTROLLER_RECONNECT_MS": "upper bound of the controller's wait",
    "RETRY_BASE_MS": "before a task's next attempt after its own failure, doubled per failure",
    "RETRY_CAP_MS": "upper bound of that",
}


# ------------------------------------------------------------------------- blocks


def channel_table() -> str:
    """Every channel of a device topic, and the fleet's own."""
    rows = []
    for channel in (*topics.UP, *topics.DOWN):
        way = "up" if channel in topics.UP else "down"
        rows.append([f"`{channel}`", way, *_manner(wire.DEVICE_MESSAGES.get(channel)), CHANNELS[channel]])
    return _table("channel|way|QoS|retained|message|what", rows)


def fleet_table() -> str:
    """The channels below `_controller`."""
    whats = {"status": "who leads; nothing decides by it", "canary": "the controller's letter to itself"}
    rows = [
        [f"`{topics.CONTROLLER}/{channel}`", *_manner(wire.FLEET_MESSAGES[channel]), whats[channel]]
        for channel in topics.CONTROLLER_CHANNELS
    ]
    return _table("channel|QoS|retained|message|what", rows)


def _manner(cls: type | None) -> list[str]:
    if cls is None:
        return ["", "", "none"]
    return [str(cls.qos), "yes" if cls.retain else "no", f"`{cls.__name__}`"]  # type: ignore[attr-defined]


def message_tables() -> str:
    """One table per message and nested record: key, name, type, bounds, default."""
    parts = []
    for cls in (*wire.DEVICE_MESSAGES.values(), *wire.FLEET_MESSAGES.values(), *NESTED):
        where = f" on `{cls.channel}`" if hasattr(cls, "channel") else ", an item of a list"
        rows = [
            [str(key), f"`{name}`", _kind(kind), _default(default)]
            for name, key, kind, default in fields.table_of(cls)
        ]
        parts.append(f"**`{cls.__name__}`**{where}\n\n" + _table("key|name|type and bounds|default", rows))
    return "\n\n".join(parts)


def row_table() -> str:
    """The rows of integers: which place means what."""
    rows = [
        [f"`{cls.__name__}`", ", ".join(f"`{name}`" for name in cls._fields)]
        for cls in (wire.Revision, wire.Held, wire.Used, wire.Health, wire.Resources)
    ]
    return _table("row|integers, in this order", rows)


def choice_table() -> str:
    """Enums of the wire with their numbers."""
    rows = [
        [f"`{cls.__name__}`", ", ".join(f"{m.value} `{m.name.lower()}`" for m in cls)]
        for cls in (tasks.RunState, tasks.Guarantee)
    ]
    return _table("choice|number in CBOR, name in JSON", rows)


def garbage_table() -> str:
    """Why a message is dropped."""
    return _table("reason|when", [[f"`{reason.value}`", GARBAGE[reason]] for reason in GarbageReason])


def limit_table() -> str:
    """Every bound with its reason: the code's own, or the one given here."""
    rows = []
    for module, more in ((limits, LIMIT_WHY), (backoff, BACKOFF_WHY)):
        for name, told in _constants(module):
            rows.append([f"`{name}`", _number(getattr(module, name)), told or more[name]])
    return _table("name|value|reason", rows)


def task_diagram() -> str:
    """Life of a task."""
    return _diagram(tasks.TASK_MOVES, T.PENDING)


def run_diagram() -> str:
    """Life of a run, as its device reports it."""
    return _diagram(tasks.RUN_MOVES, R.STARTING)


def task_reasons() -> str:
    """What makes each move of a task."""
    return _reasons(tasks.TASK_MOVES, TASK_WHY)


def run_reasons() -> str:
    """What makes each move of a run."""
    return _reasons(tasks.RUN_MOVES, RUN_WHY)


def reservation_diagram() -> str:
    """Life of an attempt's reservation."""
    return _diagram(_reservation_moves(), A.ASSIGNED)


def reservation_reasons() -> str:
    """What makes each move of a reservation."""
    return _reasons(_reservation_moves(), RESERVATION_WHY)


def _reservation_moves() -> dict[AttemptState, tuple[AttemptState, ...]]:
    return {old: tuple(b for a, b in RESERVATION_WHY if a is old) for old in AttemptState}


# ------------------------------------------------------------------------- words


def _kind(kind: fields.Kind) -> str:
    match kind:
        case fields.Int():
            return f"integer {_number(kind.low)} … {_number(kind.high)}"
        case fields.Flag():
            return "boolean"
        case fields.Text():
            pattern = kind.pattern.pattern.replace("|", "\\|") if kind.pattern else ""
            form = f", of the form `{pattern}`" if pattern else ""
            return f"text, up to {kind.chars_max:,} characters{form}"
        case fields.Blob():
            return f"bytes, up to {kind.bytes_max:,}; base64 in JSON"
        case fields.Choice():
            return "choice " + ", ".join(f"`{name}`" for name in kind.by_name)
        case fields.Ints():
            length = str(kind.length) if kind.least == kind.length else f"{kind.least} to {kind.length}"
            return f"row `{kind.make.__name__}`: {length} integers 0 … {_number(kind.item.high)}"
        case fields.Many():
            return f"list of {_item(kind.kind)}, up to {kind.items_max:,}"
        case fields.Table():
            return f"map of {_item(kind.key)} to {_item(kind.kind)}, up to {kind.items_max:,}"
    raise AssertionError(f"no words for {kind!r}")


def _item(kind: fields.Kind) -> str:
    return f"`{kind.cls.__name__}`" if isinstance(kind, fields.Record) else f"({_kind(kind)})"


def _default(default: object) -> str:
    match default:
        case fields.MISSING:
            return "required"
        case bool():
            return str(default).lower()
        case int():
            return _number(default)
        case Enum():
            return f"`{default.name.lower()}`"
        case "" | b"":
            return "empty"
        case str():
            return f"`{default}`"
        case () | {} if not default:
            return "none"
        case tuple():
            return str(list(default))
    raise AssertionError(f"no words for {default!r}")


def _number(value: float) -> str:
    for power in (40, 53, 63, 64):
        for off, sign in ((0, ""), (1, "−1")):
            if value == 2**power - off:
                return f"2^{power}{sign}"
    return f"{value:,}"


def _constants(module: ModuleType) -> list[tuple[str, str]]:
    """(name, reason) of every constant: the text right below it, if there is one."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    found = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            found.append((node.targets[0].id, text))
    return found


def _table(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _name(state: Enum) -> str:
    return str(state.value if isinstance(state.value, str) else state.name.lower())


def _diagram(moves: dict, first: Enum) -> str:  # type: ignore[type-arg]
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_name(first)}"]
    for old, targets in moves.items():
        lines += [f"    {_name(old)} --> {_name(new)}" for new in targets] or [f"    {_name(old)} --> [*]"]
    return "\n".join([*lines, "```"])


def _reasons(moves: dict, why: dict) -> str:  # type: ignore[type-arg]
    edges = [(old, new) for old, targets in moves.items() for new in targets]
    assert set(edges) == set(why), "an edge without a reason, or a reason without an edge"
    return _table("from|to|when", [[_name(old), _name(new), why[old, new]] for old, new in edges])
