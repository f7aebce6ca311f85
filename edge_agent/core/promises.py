"""Promises: what may be promised while the journal can, or cannot, be written.

Rule of this file: nothing is started unless a save that includes the present session has
succeeded (S1). One `Save` stands in front of all effects of an event that changed memory.
When saving fails the world drops effects; from then on memory is saved by a timer alone,
and everything that is no promise (reports, stops, heartbeats) goes on without it.
It knows nothing of what is in the memory. A `Save`'s one row is the `Memory` itself: the world
takes the image of the last row of a batch, once, which is the state after all its events.
"""

from __future__ import annotations

from edge_agent.core.effects import ConfirmSave
from edge_agent.core.memory import Memory
from protocol.core import Effect, Save

RETRY_MS = 1_000
RETRY_MS_MAX = 60_000


class Promises:
    """Whether the journal keeps up with memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.failing = False
        self._confirmed = 0
        self._asked = 0
        self._wait_ms = RETRY_MS
        self._due_ms: int | None = None

    def holds(self, session: int) -> bool:
        """Whether this session is known to be saved."""
        return self._confirmed == session != 0

    def front(self, now_ms: int) -> list[Effect]:
        """What stands in front of the effects of an event: a save if memory changed, else nothing.

        While saving fails only the timer brings one.
        """
        if self._due_ms is not None and now_ms >= self._due_ms:
            self._due_ms = None
            return self._save()
        return [] if self.failing or not self.memory.changed else self._save()

    def failed(self, now_ms: int) -> None:
        self.failing, self._confirmed, self._asked = True, 0, 0
        self.memory.changed = True
        if self._due_ms is None:
            self._due_ms = now_ms + self._wait_ms
            self._wait_ms = min(2 * self._wait_ms, RETRY_MS_MAX)

    def confirmed(self, session: int) -> bool:
        """A save that named this session succeeded; whether that ends a time of failing."""
        recovered = self.failing
        self._confirmed, self.failing = session, False
        self._wait_ms, self._due_ms = RETRY_MS, None
        return recovered

    def due_ms(self) -> int | None:
        return self._due_ms

    def _save(self) -> list[Effect]:
        self.memory.changed = False
        effects: list[Effect] = [Save((self.memory,))]
        session = self.memory.session
        if session != self._asked:
            self._asked = session
            effects.append(ConfirmSave(session))
        return effects
