"""Ears: what a publication means, understood once for all who hear it.

Rule of this file: the same bytes under the same topic are the same message, and nobody
assigns to a message after it was made; so the receiver, a second receiver and every checker
may share it. It goes through the codec all the same, once. It knows no listener.
"""

from __future__ import annotations

from functools import lru_cache

from protocol import topics
from protocol.codec import decode
from protocol.messages import Message

REMEMBERED = 1_024
"""Publications; a copy that comes later than so many others is read again."""
TOPICS = 4_096

parse = lru_cache(TOPICS)(topics.parse)
"""As `topics.parse`."""


@lru_cache(REMEMBERED)
def understand(topic: str, payload: bytes) -> Message:
    """What it says. Raises `RemoteGarbage`, each time anew."""
    return decode(parse(topic), payload)
