"""Findings: what is done with the first failure: again, smaller, written down.

Rules of this file. A failure is played again with somebody looking on; if that takes another
course, the simulation itself is at fault, and that is the finding. Shrinking is bounded by runs
and by time, so it ends; the smallest plan that still fails in the same way is what is drawn.
What can't be written is told and never hides a verdict.
Rejected: looking on at every seed (ten thousand are played, one is read).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from shlex import quote

from sim.command.refusals import ExitCode, Refused
from sim.command.tally import FAILURES_TOLD_MAX, WORDS, Tally, as_object, bound, facts
from sim.command.workers import Draw, play
from sim.drawing import DEVICES, FAULTS_MS
from sim.plan import Outcome, Plan, Verdict
from sim.report import Report, Table, as_json, as_page
from sim.safety import describe
from sim.scenarios import write_scenario
from sim.shrink import shrink
from sim.timeline import Recorder

SHRINK_RUNS_MAX = 300
SHRINK_S_MAX = 120.0
BREACHES_TOLD = 5
LINES_TOLD = 15


@dataclass(slots=True, frozen=True)
class Again:
    """What was said on the command line, so that it can be said again for one seed."""

    draw: Draw | None
    scenario: str = ""

    def plan(self, seed: int) -> Plan:
        assert self.draw is not None
        return self.draw.plan(seed)

    def line(self, seed: int) -> str:
        """The shortest command that plays this again."""
        if self.draw is None:
            return f"fm sim safety --scenario {quote(self.scenario)}"
        draw, words = self.draw, [f"fm sim safety --seed {seed}"]
        words += [f"--minutes {draw.faults_ms / 60_000:g}"] if draw.faults_ms != FAULTS_MS else []
        words += [f"--devices {draw.devices}"] if draw.devices != DEVICES else []
        words += [f"--profile {name}" for name in draw.profiles]
        words += [f"--faults {','.join(draw.families)}"] if draw.families else []
        words += ["--faults none"] if draw.no_faults else []
        return " ".join(words)


class Finder:
    """Everything about one outcome."""

    def __init__(self, again: Again, tally: Tally, outcome: Outcome, keep: bool, quiet: bool) -> None:
        self.again = again
        self.tally = tally
        self.outcome = outcome
        self.keep = keep
        """The plan as it was drawn, not a smaller one."""
        self.quiet = quiet

    def find(self, folder: Path) -> int:
        """Replays, shrinks, writes and says where. Returns 0, or the exit code of a trouble of its own."""
        recorder = Recorder()
        outcome, lines = self.outcome, [self.again.line(self.outcome.plan.seed)]
        strange = self._replay(recorder)
        if strange:
            self._say(strange)
            self.outcome.detail = f"{strange}\n{outcome.detail}"
        failed = outcome.verdict is not Verdict.HELD
        if failed and not strange and not self.keep and _shrinkable(outcome):
            outcome, recorder = self._shrunk(outcome, recorder)
        if failed:
            self._tell(outcome, recorder)
        written = self._write(folder, outcome, recorder, lines)
        if failed:
            self._say("again:\n" + "\n".join(f"  {line}" for line in lines))
        return ExitCode.CRASHED if strange or not written else 0

    # ------------------------------------------------------------- again, and smaller

    def _replay(self, recorder: Recorder) -> str:
        """Plays it once more with `recorder`; what was strange about that, or nothing."""
        if not self.outcome.trace_hash:
            return ""  # its process died; ours shall not
        run = play(self.outcome.plan, recorder.watch)
        if run.outcome.trace_hash == self.outcome.trace_hash:
            return ""
        return (
            f"seed {self.outcome.plan.seed} took another course when it was played again:"
            " the simulation is not deterministic, and that comes first"
        )

    def _shrunk(self, outcome: Outcome, recorder: Recorder) -> tuple[Outcome, Recorder]:
        until_s, runs = time.monotonic() + SHRINK_S_MAX, 0
        self._say(f"making seed {outcome.plan.seed} smaller, for {SHRINK_S_MAX:g} s at most (--no-shrink)")

        def fails(plan: Plan) -> bool:
            nonlocal runs
            runs += 1
            if runs > SHRINK_RUNS_MAX or time.monotonic() > until_s:
                return False
            return _alike(play(plan).outcome, outcome)

        plan = shrink(outcome.plan, fails)
        smaller = Recorder()
        found = play(plan, smaller.watch).outcome
        if plan == outcome.plan or not _alike(found, outcome):
            return outcome, recorder
        self._say(f"shrunk in {runs} runs: {_size(outcome.plan)} -> {_size(plan)}")
        return found, smaller

    # ------------------------------------------------------------- told and written

    def _tell(self, outcome: Outcome, recorder: Recorder) -> None:
        self._say(f"seed {outcome.plan.seed} {WORDS[outcome.verdict]}:", always=True)
        for breach in outcome.breaches[:BREACHES_TOLD]:
            self._say(f"  {breach.invariant} at {breach.at_ms} ms: {breach.text}", always=True)
        if outcome.detail:
            self._say("  " + outcome.detail.strip().replace("\n", "\n  "), always=True)
        if recorder.world is not None:
            tail = recorder.world.clock.lines[-LINES_TOLD:]
            self._say("the last of the trace:\n" + "\n".join(f"  {line}" for line in tail))

    def _write(self, folder: Path, outcome: Outcome, recorder: Recorder, lines: list[str]) -> bool:
        """The scenario and both forms of the report; adds the command for the scenario to `lines`."""
        scenario = write_scenario(outcome.plan)
        file = folder / f"seed-{outcome.plan.seed}.toml"
        if outcome.verdict is not Verdict.HELD:
            lines.append(f"fm sim safety --scenario {quote(str(file))}")
        report = self._report(outcome, recorder, lines, scenario)
        page = resources.files("sim").joinpath("report_page.html").read_text(encoding="utf-8")
        try:
            open_folder(folder)
            if outcome.verdict is not Verdict.HELD:
                _put(file, scenario)
            _put(folder / "report.json", as_json(report))
            _put(folder / "report.html", as_page(report, page))
        except Refused as refused:
            self._say("\n".join(refused.lines), always=True)
            return False
        except OSError as error:
            self._say(f"fm sim: the report can't be written: {error.strerror}: {error.filename}", always=True)
            return False
        self._say(f"report: {folder / 'report.html'}")
        return True

    def _report(self, outcome: Outcome, recorder: Recorder, again: Sequence[str], scenario: str) -> Report:
        plan, tally = outcome.plan, self.tally
        smaller = f", shrunk to {_size(plan)}" if plan != self.outcome.plan else ""
        others = f"{len(tally.runs):,} seeds, {len(tally.failed_places()):,} failed. " * (len(tally.runs) > 1)
        tables: list[Table] = [("All seeds" if others else "This seed", facts(tally))]
        if tally.faults():
            when = "Faults injected before shrinking" if smaller else "Faults injected"
            tables.append((when, [(kind, f"{n:,}") for kind, n in tally.faults().items()]))
        return Report(
            summary=as_object(tally),
            verdict=str(outcome.verdict),
            title=f"Seed {plan.seed} {WORDS[outcome.verdict]}{smaller}",
            headline=f"{others}{_size(plan)}; families: {', '.join(plan.families) or 'none'}. "
            + (bound(tally) if tally.verdict() is Verdict.HELD else ""),
            again=again,
            tables=tables,
            timeline=recorder.timeline(outcome) if recorder.world is not None else None,
            detail=outcome.detail,
            plan=describe(plan),
            scenario=scenario,
            failures=[
                f"seed {o.plan.seed} {WORDS[o.verdict]}: {o.breaches[0].invariant if o.breaches else ''}"
                for o in tally.failed()[:FAILURES_TOLD_MAX]
            ],
        )

    def _say(self, text: str, always: bool = False) -> None:
        if (always or not self.quiet) and sys.stderr is not None:
            try:
                print(text, file=sys.stderr, flush=True)
            except OSError:
                return  # nobody listens to the talk


def _shrinkable(outcome: Outcome) -> bool:
    """A run that proved nothing would shrink to nothing."""
    return bool(outcome.breaches) or outcome.verdict is Verdict.NOT_CONVERGED or "Traceback" in outcome.detail


def _alike(outcome: Outcome, wanted: Outcome) -> bool:
    """Whether it fails in the same way: an invariant in common, the same error."""
    if outcome.verdict is not wanted.verdict:
        return False
    broken = {breach.invariant for breach in wanted.breaches}
    if broken:
        return any(breach.invariant in broken for breach in outcome.breaches)
    last = outcome.detail.strip().rpartition("\n")[2]
    return wanted.verdict is Verdict.NOT_CONVERGED or last == wanted.detail.strip().rpartition("\n")[2]


def _size(plan: Plan) -> str:
    counted = ((len(plan.devices), "device"), (len(plan.faults), "fault"), (len(plan.orders), "order"))
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted)
    return f"{words}, {plan.faults_ms / 1_000:g} s"


# ------------------------------------------------------------- files


def open_folder(folder: Path) -> None:
    """Makes it if need be and tries whether it can be written to. Raises `Refused`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".fm-sim-{os.getpid()}"
        trial.write_text("")
        trial.unlink()
    except OSError as error:
        raise Refused(
            f"can't write into {folder}: {error.strerror}", next_step="name another folder with --report DIR"
        ) from None


def _put(path: Path, text: str) -> None:
    """All of it or what was there before."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
