"""`fm sim scenarios`, `check` and `scale`: what is short enough to stand together."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable

from sim import scenarios as files
from sim.refusals import ExitCode
from sim.scenarios import read_scenario


def scenarios(options: Namespace) -> int:
    """The built-in scenarios: what is in each, and what its file says of it first."""
    rows = []
    for name, text in files.built_in().items():
        plan = read_scenario(text, name)
        told = text.lstrip().partition("\n")[0].removeprefix("#").strip() if text.lstrip()[:1] == "#" else ""
        rows.append((name, len(plan.devices), len(plan.faults), plan.faults_ms, told))
    if options.json:
        names = ("name", "devices", "faults", "faults_ms", "about")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return ExitCode.HELD
    widest = max((len(row[0]) for row in rows), default=4)
    for name, devices, faults, faults_ms, told in rows:
        size = f"{devices:>3} devices {faults:>3} faults {faults_ms / 1_000:>5g} s"
        print(f"{name:<{widest}}  {size}  {told}".rstrip())
    if not rows:
        print("there is none")
    return ExitCode.HELD


COMMANDS: dict[str, Callable[[Namespace], int]] = {"scenarios": scenarios}
