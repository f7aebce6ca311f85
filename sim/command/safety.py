"""`fm sim safety`: seed after seed, a table at the end, and everything about the first failure.

Rule of this file: it chooses what is played and says what came of it. Data (what a seed draws,
the table, or one object) goes to stdout, everything else to stderr. Ctrl-C ends the workers
and shows what is known so far. What is done with a failure is in `command/findings.py`.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import firmware_profiles
from sim import scenarios
from sim.command.findings import Again, Finder, open_folder
from sim.command.progress import Progress
from sim.command.refusals import EXIT_OF, ExitCode, Refused, unknown
from sim.command.tally import WORDS, Played, Tally, as_object, bound, facts
from sim.command.workers import Alone, Crew, Draw, play
from sim.drawing import DEVICES, FAULTS_MS
from sim.faults import FAMILIES, QUIRKS_FAMILY
from sim.plan import Outcome, Plan, Verdict
from sim.safety import describe

SEEDS = 100
FOLDER = Path("fm-sim")
"""Where a failure is written when nobody named a place."""
FAILURES_TOLD_MAX = 10
SEEDS_TOLD_MAX = 50


@dataclass(slots=True)
class Work:
    """What a command is to play: one plan, or the seeds of a draw."""

    again: Again
    plan: Plan | None = None
    seeds: range = field(default_factory=lambda: range(0))

    @property
    def total(self) -> int:
        return 1 if self.plan is not None else len(self.seeds)


def safety(options: Namespace) -> int:
    """Plays it all; returns the exit code of the worst outcome."""
    work = _scenario(options) if options.scenario is not None else _seeds(options)
    if options.report is not None:
        open_folder(options.report)
    _introduce(options, work)
    tally = Tally()
    interrupted = not _play(options, work, tally)
    if interrupted and not tally.runs:
        raise Refused("interrupted before a seed was over", code=ExitCode.INTERRUPTED)
    _result(options, tally, interrupted)
    code = ExitCode.INTERRUPTED if interrupted else EXIT_OF[tally.verdict()]
    if interrupted and options.report is None:
        return code
    try:
        return _findings(options, work, tally) or code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


# ------------------------------------------------------------- what is played


def _seeds(options: Namespace) -> Work:
    if options.seed is not None and (options.seeds is not None or options.first is not None):
        raise Refused("--seed names one seed, --seeds and --from name many", next_step="say one of them")
    known = firmware_profiles.names()
    for name in options.profile:
        if name not in known:
            raise unknown("device class", name, known)
    families = _families(options.faults)
    draw = Draw(
        options.devices or DEVICES,
        round(options.minutes * 60_000) if options.minutes else FAULTS_MS,
        tuple(dict.fromkeys(options.profile)),
        families,
        options.faults is not None and not families,
    )
    one = options.seed is not None
    first = options.seed if one else options.first or 0
    return Work(Again(draw), seeds=range(first, first + (1 if one else options.seeds or SEEDS)))


def _families(text: str | None) -> tuple[str, ...]:
    """The families that were named; none for `none`, and where nothing was said."""
    if text is None or text.strip() == "none":
        return ()
    known = tuple(dict.fromkeys((*FAMILIES, QUIRKS_FAMILY)))
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise unknown("family of faults", name, (*known, "none"))
    return tuple(family for family in known if family in names)


def _scenario(options: Namespace) -> Work:
    drawn = ("seeds", "first", "seed", "minutes", "devices", "faults")
    said = [word for word in drawn if getattr(options, word) is not None]
    said += ["profile"] if options.profile else []
    if said:
        name = "from" if said[0] == "first" else said[0]
        raise Refused(f"--scenario decides everything, --{name} can't be said with it")
    return Work(Again(None, options.scenario), plan=read(options.scenario))


def read(name: str) -> Plan:
    """A built-in scenario, or the file of that name. Raises `Refused` with file and line."""
    built_in = scenarios.built_in()
    try:
        if name in built_in:
            return scenarios.read_scenario(built_in[name], name)
        return scenarios.read_scenario(Path(name).read_text(encoding="utf-8"), name)
    except scenarios.ScenarioError as error:
        raise Refused(str(error), next_step="docs/simulation.md shows the format") from None
    except FileNotFoundError:
        if "/" in name or name.endswith(".toml"):
            raise Refused(
                f"there is no file {name}", next_step="fm sim scenarios shows the built-in"
            ) from None
        raise unknown("scenario", name, built_in) from None
    except OSError as error:
        raise Refused(f"can't read {name or repr(name)}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is no text: byte {error.start} is not UTF-8") from None


# ------------------------------------------------------------- playing


def _introduce(options: Namespace, work: Work) -> None:
    """Of a single plan everything is told before it begins, should it never end."""
    if work.total == 1 and not (options.quiet and options.json):
        text = describe(work.plan or work.again.plan(work.seeds[0]))
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def _play(options: Namespace, work: Work, tally: Tally) -> bool:
    """Everything into `tally`; False after Ctrl-C."""
    if work.plan is not None:
        tally.add(0, play(work.plan))
        return True
    assert work.again.draw is not None
    progress = Progress(work.total, "seeds", options.quiet)
    jobs = min(options.jobs or _cores(), work.total)
    crew: Alone | Crew | None = None
    try:
        crew = Alone(work.again.draw, work.seeds) if jobs == 1 else Crew(work.again.draw, work.seeds, jobs)
        for seed, run in crew.runs():
            tally.add(seed, run)
            _step(progress, tally, run)
            if options.stop_after and len(tally.failed_places()) >= options.stop_after:
                crew.enough()
    except KeyboardInterrupt:
        return False
    finally:
        progress.close()
        if crew is not None:
            crew.dismiss()
    if options.stop_after:
        tally.cut(options.stop_after)
    return True


def _step(progress: Progress, tally: Tally, run: Played) -> None:
    failed = len(tally.failed_places())
    progress.step(f"{failed:,} failed")
    if run.outcome.verdict is not Verdict.HELD and failed <= FAILURES_TOLD_MAX and progress.total > 1:
        progress.tell(told(run.outcome))


def told(outcome: Outcome) -> str:
    """A failure in one line."""
    if outcome.breaches:
        first = outcome.breaches[0]
        what = f"{first.invariant} at {first.at_ms} ms: {first.text}"
    else:
        what = outcome.detail.strip().rpartition("\n")[2]
    return f"seed {outcome.plan.seed} {WORDS[outcome.verdict]}: {what[:200]}"


def _cores() -> int:
    """Those that we may use, not those that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------- saying


def _result(options: Namespace, tally: Tally, interrupted: bool) -> None:
    if options.json:
        print(json.dumps(as_object(tally, interrupted)), flush=True)
        return
    shown = facts(tally)
    widest = max(len(name) for name, _ in shown)
    print("\n".join(f"{name:<{widest}}  {value}" for name, value in shown))
    failed = [str(outcome.plan.seed) for outcome in tally.failed()]
    if failed and len(tally.runs) > 1:
        more = ", …" if len(failed) > SEEDS_TOLD_MAX else ""
        print(f"\nseeds that failed: {', '.join(failed[:SEEDS_TOLD_MAX])}{more}")
    kinds = tally.faults()
    if kinds:
        print("\nfaults\n" + "\n".join(f"  {count:>7,}  {kind}" for kind, count in kinds.items()))
    if tally.verdict() is Verdict.HELD and len(tally.runs) > 1:
        print(f"\n{bound(tally)}")
    print(end="", flush=True)


def _findings(options: Namespace, work: Work, tally: Tally) -> int:
    """Replays and writes what is worth it; not 0 if that failed."""
    failed = tally.failed_places()
    if not failed and options.report is None:
        return 0
    runs = tally.runs
    worst = tally.verdict()
    chosen = min(place for place, run in runs.items() if run.outcome.verdict is worst)
    outcome = runs[chosen].outcome
    outcome.plan = work.plan or work.again.plan(outcome.plan.seed)
    finder = Finder(work.again, tally, outcome, bool(options.no_shrink), bool(options.quiet))
    return finder.find(options.report or FOLDER)
