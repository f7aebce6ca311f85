"""What was typed after `fm job run`, as the body of `POST /jobs`; and the way back for a fault.

Rule: options that were not given are not sent: the controller's defaults live in the
controller. A pointer into the body means nothing to who typed options; the option does.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable
from typing import TypeVar

from fleetmuster.exits import usage
from fleetmuster.records import JobRequest, RemoteAffinity, RemoteConstraint, RemoteSpread, RemoteTaskSpec
from fleetmuster.wire import ApiError

V = TypeVar("V")
_RULES = {
    "name": "name",
    "priority": "priority",
    "guarantee": "guarantee",
    "max_attempts": "max_attempts",
    "ttl_ms": "ttl",
    "lease_ms": "lease",
    "policy": "policy",
    "owner": "owner",
    "parallel_max": "parallel",
    "on_return": "on_return",
    "schedule": "cron",
    "zone": "zone",
    "missed": "missed",
}
"""Field of a job -> option whose value it takes as it is."""
_AMOUNTS = {
    "cpu_milli": "cpu",
    "memory_mib": "memory",
    "disk_mib": "disk",
    "gpu_milli": "gpu",
    "up_kbit_s": "up",
    "down_kbit_s": "down",
    "slots": "slots",
}
_OTHERS = {
    "kind": "kind",
    "count": "count",
    "gang": "gang",
    "depends_on": "after",
    "overlap": "overlap",
    "task/runtime": "runtime",
    "task/env": "env",
    "task/constraints": "constraint",
    "task/timeout_ms": "timeout",
    "task/stop_grace_ms": "stop_grace",
    "task/accelerator_models": "gpu_model",
    "task/extras": "need",
    "task/reference_cpu": "reference_cpu",
    "task/affinities": "prefer",
    "task/spreads": "spread",
    "task/tolerations": "tolerate",
}
OPTION_OF = {
    "task/command": "the command after --",
    **{
        field: "--" + option.replace("_", "-")
        for field, option in (
            *_RULES.items(),
            *_OTHERS.items(),
            *((f"task/resources/{field}", option) for field, option in _AMOUNTS.items()),
        )
    },
}


_FIELDS = re.compile(r"\btask(?:\.[a-z_]+)+")
"""How the controller's texts speak of other fields: `task.resources.gpu_milli`."""
_UNITS = ("_milli", "_mib", "_kbit_s", "_ms")
"""Fields in whose unit a text counts, which is not the one that was typed."""


def job_request(options: Namespace) -> JobRequest:
    """Raises `CommandError` for options that contradict each other."""
    if options.stray or (options.runtime == "process" and not options.command):
        said = f" before {options.stray[0]!r}" if options.stray else " and a command"
        raise usage(f"fm job run needs --{said}", "fm job run [options] -- CMD ARG...")
    kind = _kind(options)
    request: JobRequest = {"kind": kind, "task": _spec(options, options.command or [])}
    if options.count is not None or kind != "daemon":
        request["count"] = options.count or 1
    for field, option in _RULES.items():
        if (value := getattr(options, option)) is not None:
            request[field] = value  # type: ignore[literal-required]  # the names of _RULES are fields
    if options.gang:
        request["gang"] = True
    if options.overlap:
        request["overlap"] = True
    if options.after:
        request["depends_on"] = [{"job": job, "until": until} for job, until in options.after]
    return request


def _kind(options: Namespace) -> str:
    """`--daemon` and `--cron` name a kind themselves."""
    said: dict[str, str] = {}
    if options.kind is not None:
        said[options.kind] = f"--kind {options.kind}"
    if options.daemon:
        said["daemon"] = "--daemon"
    if options.cron is not None:
        said["cron"] = "--cron"
    if len(said) > 1:
        raise usage(f"{' and '.join(said.values())} contradict each other", "leave one of them out")
    if "cron" in said and options.cron is None:
        raise usage("--kind cron needs --cron", "--cron '*/5 * * * *' for every five minutes")
    return next(iter(said), "batch")


def _spec(options: Namespace, command: list[str]) -> RemoteTaskSpec:
    spec: RemoteTaskSpec = {"runtime": options.runtime, "command": command}
    amounts = {field: getattr(options, option) for field, option in _AMOUNTS.items()}
    resources = {name: amount for name, amount in amounts.items() if amount is not None}
    if resources:
        spec["resources"] = resources
    if options.env:
        spec["env"] = said_once("env", options.env)
    if options.timeout is not None:
        spec["timeout_ms"] = options.timeout
    if options.stop_grace is not None:
        spec["stop_grace_ms"] = options.stop_grace
    if options.reference_cpu:
        spec["reference_cpu"] = True
    if options.need:
        spec["extras"] = said_once("need", options.need)
    if options.gpu_model:
        spec["accelerator_models"] = options.gpu_model
    _add_wishes(spec, options)
    return spec


def _add_wishes(spec: RemoteTaskSpec, options: Namespace) -> None:
    if options.constraint:
        spec["constraints"] = constraints_of(options.constraint)
    if options.tolerate:
        spec["tolerations"] = options.tolerate
    if options.prefer:
        spec["affinities"] = wishes = []
        for attribute, operator, value, weight in options.prefer:
            wish: RemoteAffinity = {"attribute": attribute, "operator": operator, "value": value}
            wishes.append(wish if weight is None else {**wish, "weight": weight})
    if options.spread:
        spec["spreads"] = spreads = []
        for attribute, weight, targets in options.spread:
            spread: RemoteSpread = {"attribute": attribute}
            if weight is not None:
                spread["weight"] = weight
            if targets:
                spread["targets"] = targets
            spreads.append(spread)


def said_once(option: str, pairs: Iterable[tuple[str, V]]) -> dict[str, V]:
    """What was typed as NAME=VALUE; a name that was typed twice has no value that was meant."""
    found: dict[str, V] = {}
    for name, value in pairs:
        if name in found:
            raise usage(f"--{option} names {name!r} twice", "leave one of them out")
        found[name] = value
    return found


def constraints_of(said: Iterable[tuple[str, str, str]]) -> list[RemoteConstraint]:
    return [{"attribute": a, "operator": operator, "value": value} for a, operator, value in said]


def name_the_option(error: ApiError, path: str | None = None) -> None:
    """Tells which option to change, from the pointer of a fault, or from its `path` in a job."""
    path = error.pointer.strip("#/") if path is None else path
    while path and path not in OPTION_OF:
        path = path.rpartition("/")[0]
    if path:
        field = path.rpartition("/")[2]
        unit = f" ({field})" if field.endswith(_UNITS) else ""
        blame(error, OPTION_OF[path], unit)


def blame(error: ApiError, option: str, unit: str = "") -> None:
    """Puts what was typed in the place of the pointer, and names the options that the text speaks of."""
    text = error.what.removeprefix(f"{error.pointer}: ").removesuffix(f" (at {error.pointer})")
    error.what = f"{option}{unit}: {text}"
    if not error.next_step:
        fields = (named.replace(".", "/").removeprefix("task/") for named in _FIELDS.findall(text))
        others = [said for field in fields if (said := OPTION_OF.get(f"task/{field}", option)) != option]
        error.next_step = f"change {option}" + "".join(f", or say {other}" for other in others)
