"""Exit codes and the one exception that carries them: what failed, why likely, what next.

Rule: every failure a person can cause or meet leaves the program as a `CommandError`; a
traceback means a bug of ours. The table here is the only place where the numbers stand
(`fm help exit-codes` prints it).
Rejected: one exception class per code (callers match on the code, never on the class).
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `fm`, stable: scripts depend on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    UNREACHABLE = 6
    TIMEOUT = 7
    PARTIAL = 8
    BREACHED = 9
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "failed: the work itself, or something no other code names",
    Exit.USAGE: "usage: wrong option or value, or a confirmation that nobody could give",
    Exit.NOT_FOUND: "not found: no such job, task, device or context",
    Exit.AUTH: "auth: token missing, wrong, revoked or without the right",
    Exit.CONFLICT: "conflict or stale: it exists already, or changed meanwhile",
    Exit.UNREACHABLE: "unreachable: no controller answers at that URL",
    Exit.TIMEOUT: "timeout: the wait or the request took longer than allowed",
    Exit.PARTIAL: "partial: done for some of the things named, failed for others",
    Exit.BREACHED: "threshold breached: it ran, but missed a limit; of fm plan: something would break",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


class CommandError(Exception):
    """A failure told to the person: `code` for scripts, the three texts for people."""

    def __init__(self, code: Exit, what: str, why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.next_step = next_step


def usage(what: str, next_step: str = "") -> CommandError:
    """A wrong word on the command line."""
    return CommandError(Exit.USAGE, what, next_step=next_step)
