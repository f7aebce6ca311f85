"""One verb on several things: go on after a failure, and say which failed.

Rule: with one thing, its error is the command's error. With several, 0 means all, 8
some, and the common code none. A controller that is away, or refuses the token, ends
it at once: the rest would fail alike. Also here: asking before much is destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetmuster.console import tell_error
from fleetmuster.exits import CommandError, Exit
from fleetmuster.session import Session

SAMPLE = 5  # names shown before a confirmation


def for_each(session: Session, ids: Sequence[str], action: Callable[[str], None], done: str) -> Exit:
    """Runs `action` on each id, saying `<id> <done>`. Raises `CommandError` if there is only one."""
    codes: list[Exit] = []
    for identity in dict.fromkeys(ids):
        try:
            action(identity)
            session.console.say(f"{identity} {done}")
            codes.append(Exit.OK)
        except CommandError as error:
            fatal = error.code in (Exit.UNREACHABLE, Exit.AUTH) and Exit.OK not in codes
            if fatal or len(set(ids)) == 1:
                raise
            session.advise(error)
            tell_error(error)
            codes.append(error.code)
    return _summed(codes)


def confirm_many(session: Session, what: str, ids: Sequence[str], count: int) -> None:
    """Shows what is meant and asks to type the number. Raises `CommandError` (usage) unless confirmed."""
    more = f" and {len(ids) - SAMPLE} more" if len(ids) > SAMPLE else ""
    session.console.confirm(f"{what} ({', '.join(ids[:SAMPLE])}{more})", str(count))


def _summed(codes: Sequence[Exit]) -> Exit:
    kinds = set(codes)
    if len(kinds) == 1:
        return codes[0]
    return Exit.PARTIAL if Exit.OK in kinds else Exit.FAILED
