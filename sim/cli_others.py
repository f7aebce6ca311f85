"""`fm sim scenarios`, `check` and `scale`: what is short enough to stand together."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from sim import scenarios as files
from sim.histories import HistoryError, check_history, read_history
from sim.refusals import ExitCode, Refused
from sim.scenarios import read_scenario

BREACHES_TOLD_MAX = 20


def scenarios(options: Namespace) -> int:
    """The built-in scenarios: what is in each, and what its file says of it first."""
    rows = []
    for name, text in files.built_in().items():
        plan = read_scenario(text, name)
        about = text.partition("\n")[0]
        about = about.removeprefix("#").strip() if about.startswith("#") else ""
        rows.append((name, len(plan.devices), len(plan.faults), plan.faults_ms, about))
    if options.json:
        names = ("name", "devices", "faults", "faults_ms", "about")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return ExitCode.HELD
    widest = max((len(row[0]) for row in rows), default=4)
    for name, devices, faults, faults_ms, about in rows:
        size = f"{devices:>3} devices {faults:>3} faults {faults_ms / 1_000:>5g} s"
        print(f"{name:<{widest}}  {size}  {about}".rstrip())
    if not rows:
        print("no scenario is built in")
    return ExitCode.HELD


def check(options: Namespace) -> int:
    """The checkers of the simulation over what real processes did."""
    path: Path = options.history
    try:
        history = read_history(path.read_text(encoding="utf-8"), str(path))
    except HistoryError as error:
        raise Refused(str(error), next_step="docs/simulation.md shows the format") from None
    except OSError as error:
        raise Refused(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is no text: byte {error.start} is not UTF-8") from None
    checkers = check_history(history)
    starts, breaches = sum(checkers.starts.values()), checkers.breaches
    if options.json:
        told = [{"at_ms": b.at_ms, "invariant": b.invariant, "text": b.text} for b in breaches]
        print(json.dumps({"observations": len(history), "starts": starts, "violations": told}))
    else:
        print(f"observations  {len(history):,}\nruns started  {starts:,}\nviolations    {len(breaches):,}")
        for breach in breaches[:BREACHES_TOLD_MAX]:
            print(f"  {breach.invariant} at {breach.at_ms} ms: {breach.text}")
    if breaches:
        return ExitCode.VIOLATED
    if not starts:
        raise Refused(
            f"{path} shows nothing",
            "no run ever started in it",
            "record a history with work",
            ExitCode.CRASHED,
        )
    return ExitCode.HELD


COMMANDS: dict[str, Callable[[Namespace], int]] = {"scenarios": scenarios, "check": check}
