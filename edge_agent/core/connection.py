"""Connection: sessions that never recur, and when to try again.

Rule of this file: it is the only place that draws a session (S1) and that waits to
reconnect (S3). A session is a count in the high 40 bits and chance in the low 24, drawn
per connection and put into memory before `Connect` leaves; the count alone would recur
with a lost journal, and an old grant would then fit a new heartbeat.
It knows nothing of documents; what is said on a new connection is said elsewhere.
"""

from __future__ import annotations

import random
from enum import Enum

from edge_agent.core.memory import Memory
from protocol.backoff import RECONNECT_BASE_MS, RECONNECT_STABLE_MS, reconnect_ms
from protocol.core import Connect, Disconnect, Effect, Publish
from protocol.limits import SESSION_LEAP_MAX, SESSION_MAX
from protocol.messages import Status

CHANCE_BITS = 24


class LinkState(Enum):
    """State of the one connection."""

    WAITING = 1
    CONNECTING = 2
    UP = 3
    CLOSING = 4
    """Below the floor: closed by us, to come back above it."""
    GONE = 5
    """Left in good order; no way back."""


class Connection:
    """One MQTT connection after another, each with its own session."""

    def __init__(self, memory: Memory, device: str, boot_id: str, rng: random.Random) -> None:
        self.memory = memory
        self.device = device
        self.boot_id = boot_id
        self.rng = rng
        self.state = LinkState.WAITING
        self.session = 0
        self._tries = 0
        self._due_ms: int | None = None
        self._up_ms = 0

    @property
    def up(self) -> bool:
        return self.state is LinkState.UP

    def open(self) -> list[Effect]:
        """Draw a session and connect with it."""
        self.session = self._draw()
        self.state, self._due_ms = LinkState.CONNECTING, None
        return [Connect(self.session, will=self.status(False, "will"))]

    def reopen(self) -> list[Effect]:
        """The world dropped our last wish (a save failed): ask again, under a fresh session."""
        if self.state is LinkState.CONNECTING:
            return [Disconnect(self.session), *self.open()]
        if self.state is LinkState.CLOSING:
            return [Disconnect(self.session)]
        return []

    def rose(self, session: int, now_ms: int) -> bool:
        """Whether this is the connection asked for; anything else is an old answer."""
        if session != self.session or self.state is not LinkState.CONNECTING:
            return False
        self.state, self._up_ms = LinkState.UP, now_ms
        return True

    def fell(self, session: int, now_ms: int) -> bool:
        """Whether our connection is gone; then the wait for the next one begins."""
        if session != self.session or self.state in (LinkState.WAITING, LinkState.GONE):
            return False
        if self.state is LinkState.UP and now_ms - self._up_ms >= RECONNECT_STABLE_MS:
            self._tries = 0
        base_ms = max(RECONNECT_BASE_MS, self.memory.settings.reconnect_base_ms)
        self._due_ms = now_ms + reconnect_ms(self._tries, self.rng, base_ms)
        self._tries += 1
        self.state = LinkState.WAITING
        return True

    def obey_floor(self) -> list[Effect]:
        """A session strictly below the floor ends here; an equal one would loop."""
        if self.state is not LinkState.UP or self.session >= self.memory.settings.session_floor:
            return []
        self.state = LinkState.CLOSING
        return [Disconnect(self.session)]

    def leave(self, reason: str) -> list[Effect]:
        """Say goodbye and close; no will follows."""
        was, self.state, self._due_ms = self.state, LinkState.GONE, None
        if was is LinkState.UP:
            return [Publish(self.device, self.status(False, reason)), Disconnect(self.session)]
        return [] if was is LinkState.WAITING else [Disconnect(self.session)]

    def status(self, online: bool, reason: str = "") -> Status:
        return Status(online, self.session, self.boot_id, self.memory.instance_id, reason)

    def elapse(self, now_ms: int) -> list[Effect]:
        if self._due_ms is not None and now_ms >= self._due_ms:
            return self.open()
        return []

    def due_ms(self) -> int | None:
        return self._due_ms

    def _draw(self) -> int:
        above = max(self.memory.session, self.session, self.memory.settings.session_floor)
        count = min((above >> CHANCE_BITS) + 1, SESSION_MAX >> CHANCE_BITS)
        self.memory.session = count << CHANCE_BITS | self.rng.getrandbits(CHANCE_BITS)
        self.memory.changed = True
        return self.memory.session


def floor_is_attainable(floor: int, session: int) -> bool:
    """A floor that leaves no session above it, or so far above ours that no counting reached it, is garbage.

    Obeying the first would loop for ever, the second would make us speak with sessions that nobody believes.
    """
    return floor >> CHANCE_BITS < SESSION_MAX >> CHANCE_BITS and floor <= session + SESSION_LEAP_MAX
