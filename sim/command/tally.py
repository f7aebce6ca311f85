"""The tally: what many seeds come to, as a table for people and one object for programs.

Rule of this file: it counts outcomes in the order of their seeds, whoever ran them, so its
trace hash and its numbers don't depend on how many workers there were; only `core_seconds`
does. The worst verdict counts. It knows no process, no clock and no file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from sim.plan import Outcome, Verdict

WORST_FIRST = (Verdict.CRASHED, Verdict.VIOLATED, Verdict.NOT_CONVERGED, Verdict.HELD)
WORDS = {
    Verdict.HELD: "held",
    Verdict.VIOLATED: "violated",
    Verdict.NOT_CONVERGED: "did not converge",
    Verdict.CRASHED: "crashed",
}
BREACHES_TOLD_MAX = 20
FAILURES_TOLD_MAX = 200
DETAIL_CHARS_MAX = 4_000
"""Of one failure in an object: the end of a traceback says most."""


@dataclass(slots=True)
class Played:
    """One seed and what it took."""

    outcome: Outcome
    core_ns: int


@dataclass(slots=True)
class Tally:
    """Sums over all runs so far."""

    runs: dict[int, Played] = field(default_factory=dict)
    """By place in the order of the command, which is the seed."""

    def add(self, place: int, run: Played) -> None:
        self.runs[place] = run

    def outcomes(self) -> list[Outcome]:
        """In the order of places."""
        return [run.outcome for _, run in sorted(self.runs.items())]

    def cut(self, failures: int) -> None:
        """Forgets what lies behind the `failures`-th failure, so that it doesn't matter who ran ahead."""
        failed = self.failed_places()
        if len(failed) >= failures:
            self.runs = {place: run for place, run in self.runs.items() if place <= failed[failures - 1]}

    def failed(self) -> list[Outcome]:
        """Everything that is not a pass, in the order of places."""
        return [outcome for outcome in self.outcomes() if outcome.verdict is not Verdict.HELD]

    def failed_places(self) -> list[int]:
        return [p for p, run in sorted(self.runs.items()) if run.outcome.verdict is not Verdict.HELD]

    def count(self, verdict: Verdict) -> int:
        return sum(1 for run in self.runs.values() if run.outcome.verdict is verdict)

    def verdict(self) -> Verdict:
        """The worst that occurred; of no run at all nothing was shown."""
        for verdict in WORST_FIRST:
            if self.count(verdict):
                return verdict
        return Verdict.CRASHED

    def faults(self) -> dict[str, int]:
        """How often each kind was injected, the most frequent first."""
        sums: dict[str, int] = {}
        for outcome in self.outcomes():
            for kind, count in outcome.faults.items():
                sums[kind] = sums.get(kind, 0) + count
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))

    def trace_hash(self) -> str:
        """Over the hashes of all seeds in order; of a single one that one's own."""
        outcomes = self.outcomes()
        if len(outcomes) == 1:
            return outcomes[0].trace_hash
        lines = "".join(f"{outcome.plan.seed} {outcome.trace_hash}\n" for outcome in outcomes)
        return blake2b(lines.encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------- sums

    @property
    def virtual_ms(self) -> int:
        return sum(run.outcome.virtual_ms for run in self.runs.values())

    @property
    def starts(self) -> int:
        return sum(run.outcome.starts for run in self.runs.values())

    @property
    def failovers(self) -> int:
        return sum(run.outcome.failovers for run in self.runs.values())

    @property
    def core_seconds(self) -> float:
        return sum(run.core_ns for run in self.runs.values()) / 1e9

    @property
    def device_seconds(self) -> float:
        """Simulated: devices × virtual time."""
        return sum(len(o.plan.devices) * o.virtual_ms for o in self.outcomes()) / 1_000

    @property
    def pace(self) -> float:
        """Simulated device-seconds per second of one core."""
        return self.device_seconds / self.core_seconds if self.core_seconds else 0.0


def as_object(tally: Tally, interrupted: bool = False) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "seeds": len(tally.runs),
        "held": tally.count(Verdict.HELD),
        "violations": tally.count(Verdict.VIOLATED),
        "not_converged": tally.count(Verdict.NOT_CONVERGED),
        "crashed": tally.count(Verdict.CRASHED),
        "virtual_ms": tally.virtual_ms,
        "starts": tally.starts,
        "failovers": tally.failovers,
        "faults": tally.faults(),
        "failures": [_failure(outcome) for outcome in tally.failed()[:FAILURES_TOLD_MAX]],
        "trace_hash": tally.trace_hash(),
        "core_seconds": round(tally.core_seconds, 3),
        "device_seconds_per_core_second": round(tally.pace),
        "interrupted": interrupted,
    }


def _failure(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.plan.seed,
        "verdict": str(outcome.verdict),
        "detail": outcome.detail[-DETAIL_CHARS_MAX:],
        "breaches": [
            {"at_ms": breach.at_ms, "invariant": breach.invariant, "text": breach.text}
            for breach in outcome.breaches[:BREACHES_TOLD_MAX]
        ],
    }


def facts(tally: Tally) -> list[tuple[str, str]]:
    """The table for people: names and values."""
    runs = len(tally.runs)
    shown = [("seeds", f"{runs:,}")]
    shown += [(WORDS[verdict], f"{tally.count(verdict):,}") for verdict in reversed(WORST_FIRST)]
    shown += [
        ("runs started", f"{tally.starts:,}"),
        ("failovers", f"{tally.failovers:,}"),
        ("faults injected", f"{sum(tally.faults().values()):,}"),
        ("virtual time", lasting(tally.virtual_ms)),
        ("core time", f"{tally.core_seconds:,.1f} s"),
        ("pace", f"{tally.pace:,.0f} device-seconds per core-second"),
        ("trace hash", tally.trace_hash() if runs else "-"),
    ]
    return shown


def bound(tally: Tally) -> str:
    """What so many seeds show, and what they don't."""
    runs = len(tally.runs)
    # Three in n is close enough from ten on; below it the exact bound differs.
    share = f"1 in {runs // 3:,}" if runs >= 10 else f"{100 * (1 - 0.05 ** (1 / runs)):.0f} % of"
    return (
        f"0 of {runs:,} seeds is not a proof: with 95 % confidence fewer than {share} such seeds"
        " break a promise."
    )


def lasting(ms: int) -> str:
    """`93h 20m`, `8m 12s`: as people say it."""
    seconds = ms // 1_000
    hours, minutes = seconds // 3_600, seconds // 60 % 60
    return f"{hours:,}h {minutes:02}m" if hours else f"{minutes}m {seconds % 60:02}s"
