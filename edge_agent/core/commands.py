"""Commands: one-off questions, safe to receive late, twice and out of order (C1).

Rule of this file: a command is answered once, and only in the session it was issued for;
a lease does not depend on it and nothing is started by one. Verbs are a table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from protocol.messages import Answer, Command

REMEMBERED_MAX = 64
"""Ids kept against duplicates; a broker redelivers within a connection, not for ever."""

VERBS: dict[str, Callable[[Command], Answer]] = {
    "ping": lambda command: Answer(command.id, True, "pong"),
}


class CommandBook:
    """The commands answered lately."""

    def __init__(self) -> None:
        self._answered: OrderedDict[str, None] = OrderedDict()

    def answer(self, command: Command, session: int) -> Answer | str:
        """The answer, or why there is none: `old_session` or `duplicate`."""
        if command.session != session:
            return "old_session"
        if command.id in self._answered:
            return "duplicate"
        self._answered[command.id] = None
        if len(self._answered) > REMEMBERED_MAX:
            self._answered.popitem(last=False)
        verb = VERBS.get(command.verb)
        return verb(command) if verb else Answer(command.id, False, f"unknown verb {command.verb}")
