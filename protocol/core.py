"""The contract between a core and the world that drives it.

A core is a plain synchronous object: one event and the time go in, a list of effects
comes out. It never waits, reads a clock, rolls dice or logs. A world (`live.driver`,
`sim.world`) feeds events, performs the effects in order and keeps one timer.

`Save` is a barrier: whatever follows one in the list happens only after it succeeded.
A world may feed a batch of events and merge all their saves in front (group commit).
If saving fails the world drops the effects of that batch and tells the core.

Rejected: coroutines as cores (a simulator would need an event loop, and a seed would
not repeat); callbacks into the world (order would no longer be part of the value).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from protocol.messages import Message


class Event:
    """What happened. Named by past facts."""

    __slots__ = ()


class Effect:
    """What is asked of the world. Named by imperatives."""

    __slots__ = ()


class Core(Protocol):
    """The whole contract. Time is integer milliseconds of a clock that counts suspend."""

    def handle(self, event: Event, now_ms: int) -> list[Effect]: ...

    def next_due_ms(self) -> int | None: ...


# ---------------------------------------------------------------- events both sides know


@dataclass(slots=True)
class TimerElapsed(Event):
    """`next_due_ms` was reached. Carries nothing: the core looks at its own deadlines."""


@dataclass(slots=True)
class LinkUp(Event):
    """The broker accepted the connection asked for with this `session`, subscriptions are made."""

    session: int


@dataclass(slots=True)
class LinkDown(Event):
    """That connection is gone, or was never made."""

    session: int
    reason: str


@dataclass(slots=True)
class MessageArrived(Event):
    """A well-formed message. `device` comes from the topic, never from the payload."""

    device: str
    message: Message
    retained: bool = False


@dataclass(slots=True)
class GarbageArrived(Event):
    """A message that could not be understood; `device` is empty where even the topic could not."""

    device: str
    channel: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class SaveFailed(Event):
    """The last `Save` did not succeed; everything that stood behind it was dropped."""

    reason: str


# ---------------------------------------------------------------- effects both sides know


@dataclass(slots=True)
class Save(Effect):
    """Make `rows` durable before anything that follows. Their type belongs to each core."""

    rows: tuple[object, ...]


@dataclass(slots=True)
class Publish(Effect):
    """Send `message` on its channel of `device`; QoS and retain are the message's own."""

    device: str
    message: Message


@dataclass(slots=True)
class Connect(Effect):
    """Open one connection; answered by exactly one `LinkUp` or `LinkDown` of this session."""

    session: int
    will: Message | None = None


@dataclass(slots=True)
class Disconnect(Effect):
    """Close that connection in good order (no will); answered by `LinkDown`."""

    session: int


@dataclass(slots=True)
class Note(Effect):
    """A line for the log: level is `debug`, `info`, `warning` or `error`."""

    level: str
    text: str
    fields: dict[str, str | int] = field(default_factory=dict)
