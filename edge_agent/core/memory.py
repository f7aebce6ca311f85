"""Memory: the facts that an agent must not forget, as one small image.

Rule of this file: whatever is in `Memory` is saved whole or not at all, so any image
that was ever saved is consistent in itself. It knows no disk; `image` and `restore`
are each other's inverse. Whoever changes a fact sets `changed`.

A terminal entry *is* the tombstone (D6): one table, so an attempt that has ended and is
named by the document again is listed, never run. Rejected: a log of changes (replay,
compaction, and no bound on flash wear at the moment it matters).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cbor2

from protocol.codec import decode, encode
from protocol.errors import RemoteGarbage
from protocol.messages import NO_REVISION, Assignments, Message, RunEntry, Settings
from protocol.tasks import AttemptId, RunState
from protocol.topics import Topic

IMAGE_VERSION = 1


class ImageError(ValueError):
    """An image that this version cannot read: newer, or not ours."""


@dataclass(slots=True)
class Memory:
    """All durable facts of one agent. `entries` holds every attempt with a saved intent or end."""

    instance_id: str
    session: int = 0
    epoch: int = 0
    assignments: Assignments = field(default_factory=lambda: Assignments(NO_REVISION))
    settings: Settings = field(default_factory=lambda: Settings(NO_REVISION))
    entries: dict[AttemptId, RunEntry] = field(default_factory=dict)
    outputs: dict[AttemptId, None] = field(default_factory=dict)
    """Attempts whose captured output is still on disk, in the order they were started."""
    changed: bool = False
    _written: dict[str, tuple[Message, bytes]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The documents as they were last written: they change seldom, what is saved around them often."""

    def image(self) -> bytes:
        """The bytes to save."""
        entries = [
            [e.task, e.attempt, e.state.value, e.exit_code, e.signal, e.reason] for e in self.entries.values()
        ]
        return cbor2.dumps(
            [
                IMAGE_VERSION,
                self.instance_id,
                self.session,
                self.epoch,
                self._bytes_of(self.assignments),
                self._bytes_of(self.settings),
                entries,
                [list(key) for key in self.outputs],
            ]
        )

    def _bytes_of(self, document: Message) -> bytes:
        known = self._written.get(document.channel)
        if known is None or known[0] is not document:
            known = self._written[document.channel] = document, encode(document)
        return known[1]


def restore(image: bytes) -> Memory:
    """The memory of a saved image. Raises `ImageError` if it is not one of this version."""
    try:
        version, *facts = cbor2.loads(image)
        if version != IMAGE_VERSION:
            raise ImageError(f"the journal was written by another version (format {version})")
        instance, session, epoch, assignments, settings, entries, outputs = facts
        memory = Memory(str(instance), int(session), int(epoch))
        desired = decode(Topic("", "", Assignments.channel), assignments)
        asked = decode(Topic("", "", Settings.channel), settings)
        assert isinstance(desired, Assignments) and isinstance(asked, Settings)
        memory.assignments, memory.settings = desired, asked
        for task, attempt, state, exit_code, signal, reason in entries:
            entry = RunEntry(task, attempt, RunState(state), exit_code, signal, reason)
            memory.entries[AttemptId(task, attempt)] = entry
        memory.outputs = {AttemptId(task, attempt): None for task, attempt in outputs}
    except ImageError:
        raise
    except (cbor2.CBORDecodeError, RemoteGarbage, ValueError, TypeError) as error:
        raise ImageError(f"the journal holds no image of this agent ({type(error).__name__})") from None
    return memory
