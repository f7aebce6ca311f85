"""How `fm sim` ends: its exit codes, and the one exception for what a person can cause.

Rule of this file: the numbers stand here and nowhere else. 0, 1, 10 and 11 speak of what was
simulated, so nothing that never began may use 1: it is 2. The texts are those of every `fm`
command: what failed, why likely, what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum

from sim.plan import Verdict


class ExitCode(IntEnum):
    """Stable: scripts depend on them. The worst of several seeds counts: 11, then 1, then 10."""

    HELD = 0
    VIOLATED = 1
    USAGE = 2
    NOT_CONVERGED = 10
    CRASHED = 11
    INTERRUPTED = 130


EXIT_OF = {
    Verdict.HELD: ExitCode.HELD,
    Verdict.VIOLATED: ExitCode.VIOLATED,
    Verdict.NOT_CONVERGED: ExitCode.NOT_CONVERGED,
    Verdict.CRASHED: ExitCode.CRASHED,
}


class Refused(Exception):
    """What failed, why likely, what to do next."""

    def __init__(
        self, what: str, why: str = "", next_step: str = "", code: ExitCode = ExitCode.USAGE
    ) -> None:
        super().__init__(what)
        self.code = code
        self.lines = [f"fm sim: {what}"]
        self.lines += [f"  why:  {why}"] if why else []
        self.lines += [f"  next: {next_step}"] if next_step else []


def unknown(what: str, name: str, known: Iterable[str]) -> Refused:
    """Nobody of that name; the nearest one is proposed."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, 1, 0.5) or [n for n in names if name and name in n][:1]
    meant = f"did you mean {near[0]}? " if near else ""
    listed = f"{meant}there are: {', '.join(names)}" if names else "there is none of any name"
    return Refused(f"no {what} is called {name!r}", next_step=listed)
