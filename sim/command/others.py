"""`fm sim scenarios`, `check` and `scale`: what is short enough to stand together."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from textwrap import wrap

from sim import scenarios as files
from sim.command.progress import Progress
from sim.command.refusals import ExitCode, Refused
from sim.command.tally import lasting
from sim.command.workers import memory_storage
from sim.histories import HistoryError, check_history, read_history
from sim.scale import ScaleResult, Work, run_scale
from sim.scenarios import read_scenario

BREACHES_TOLD_MAX = 20
COLUMNS = 100


def scenarios(options: Namespace) -> int:
    """The built-in scenarios: what is in each, and the story at the head of its file."""
    rows = []
    for name, text in files.built_in().items():
        plan = read_scenario(text, name)
        about = takewhile(lambda line: line.startswith("#"), text.splitlines())
        story = " ".join(line.removeprefix("#").strip() for line in about)
        rows.append((name, len(plan.devices), len(plan.faults), plan.faults_ms, story))
    if options.json:
        names = ("name", "devices", "faults", "faults_ms", "about")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return ExitCode.HELD
    for name, devices, faults, faults_ms, story in rows:
        counted = f"{faults} fault{'' if faults == 1 else 's'}"
        print(f"{name}: {devices} devices, {counted}, {faults_ms / 1_000:g} s")
        print("\n".join(wrap(story, COLUMNS, initial_indent="  ", subsequent_indent="  ")))
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
    try:
        checkers = check_history(history)
    except LookupError as error:
        raise Refused(
            f"{path} can't be followed: {error}",
            "its recorder missed something, so nobody can tell what held",
            code=ExitCode.CRASHED,
        ) from None
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


def scale(options: Namespace) -> int:
    """Everybody is real; only devices at rest go as columns. Measured with the processor's clock."""
    progress = Progress(100, "percent", options.quiet)

    def watch(share: float) -> None:
        while progress.done < int(share * 100):
            progress.step()

    began_ns = time.process_time_ns()
    work = Work(max(1, options.devices // 5), max(1, options.devices // 50))
    try:
        result = run_scale(options.devices, options.hours, memory_storage(), options.seed, work, watch)
    finally:
        progress.close()
    core_s = (time.process_time_ns() - began_ns) / 1e9
    pace = round(result.devices * result.virtual_ms / 1_000 / core_s)
    if options.json:
        told = asdict(result) | {"core_seconds": round(core_s, 3), "device_seconds_per_core_second": pace}
        print(json.dumps(told))
    else:
        _tell_scale(result, core_s, pace)
    if result.breaches:
        return ExitCode.VIOLATED
    return ExitCode.HELD if result.starts else ExitCode.CRASHED


def _tell_scale(result: ScaleResult, core_s: float, pace: int) -> None:
    shown = (
        ("devices", f"{result.devices:,}"),
        ("virtual time", lasting(result.virtual_ms)),
        ("heartbeats", f"{result.heartbeats:,} ({result.columns:,} as columns)"),
        ("runs started", f"{result.starts:,}"),
        ("batch tasks done", f"{result.succeeded:,}"),
        ("services moved", f"{result.lost:,}"),
        ("violations", f"{len(result.breaches):,}"),
        ("core time", f"{core_s:,.1f} s"),
        ("pace", f"{pace:,} device-seconds per core-second"),
        ("trace hash", result.trace_hash),
    )
    print("\n".join(f"{name:<16}  {value}" for name, value in shown))
    for breach in result.breaches[:BREACHES_TOLD_MAX]:
        print(f"  {breach}")


COMMANDS: dict[str, Callable[[Namespace], int]] = {"scenarios": scenarios, "check": check, "scale": scale}
