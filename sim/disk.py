"""The journal's disk: two slots written by turns, and what power, a full card or a bad one do to them.

Rules of this file. It promises what the real journal promises: a save touches only the slot
that is not the newest whole one, so whatever happens inside it leaves the previous image or
the new one. What was written and not yet synced is seen by every process until the power
fails; then it is lost with a share drawn for that moment. A save that is told to have
failed may be seen all the same. It knows no image's meaning and no clock.
Rejected: bytes and checksums (whether a slot is whole is all that a reader learns of them).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

LOST_PERCENT = (80, 100)
"""Of unsynced writes, so many are lost with the power."""
SEEN_THOUGH_FAILED = 0.5
TORN_SHARE = 0.5
"""Of lost writes, so many left half of themselves; the others left what was there before."""


@dataclass(slots=True)
class JournalSlot:
    """What a reader finds: a whole image (`sequence` above 0), nothing, or garbage."""

    sequence: int = 0
    image: bytes = b""
    damaged: bool = False


EMPTY = JournalSlot()
GARBAGE = JournalSlot(damaged=True)


class SimulatedDisk:
    """One journal. `fails`: no save succeeds. `slow_ms`: how long one takes."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.fails = False
        self.slow_ms = 0
        self.torn: bool | None = None
        """The power fails inside the next save; True: and its image is lost."""
        self.damaged = False
        """Whether the last `load` met a slot that was neither empty nor whole."""
        self._slots = [EMPTY, EMPTY]
        self._synced = [EMPTY, EMPTY]
        self._newest = 1
        self._sequence = 0

    def load(self) -> bytes | None:
        """The newest whole image, None if there is none: a new process opens the journal, and makes
        safe what its predecessor did not."""
        self.sync()
        self._newest, self._sequence = 1, 0
        self.damaged = any(slot.damaged for slot in self._slots)
        for number, slot in enumerate(self._slots):
            if slot.sequence > self._sequence:
                self._newest, self._sequence = number, slot.sequence
        return self.image()

    def image(self) -> bytes | None:
        """What a process that started now would remember."""
        newest = max(self._slots, key=lambda slot: slot.sequence)
        return newest.image if newest.sequence else None

    def write(self, image: bytes) -> None:
        """The image is handed to the kernel; it is safe behind `sync`."""
        self._newest, self._sequence = 1 - self._newest, self._sequence + 1
        self._slots[self._newest] = JournalSlot(self._sequence, image)

    def sync(self) -> None:
        """All that was written is safe."""
        self._synced = list(self._slots)

    def save(self, image: bytes) -> None:
        """Written and safe."""
        self.write(image)
        self.sync()

    def refuse(self, image: bytes) -> None:
        """The save fails. Perhaps only its sync did."""
        if self.rng.random() < SEEN_THOUGH_FAILED:
            self._slots[1 - self._newest] = JournalSlot(self._sequence + 1, image)

    def tear(self, image: bytes, lost: bool) -> None:
        """The power fails inside this save."""
        number = 1 - self._newest
        self._synced[number] = self._lost(number) if lost else JournalSlot(self._sequence + 1, image)
        self._slots = list(self._synced)

    def lose_power(self) -> None:
        """What was not synced is lost, most of it."""
        if self._slots == self._synced:
            return
        share = self.rng.randint(*LOST_PERCENT)
        for number, slot in enumerate(self._slots):
            if slot is not self._synced[number]:
                lost = self.rng.randint(1, 100) <= share
                self._synced[number] = self._lost(number) if lost else slot
        self._slots = list(self._synced)

    def _lost(self, number: int) -> JournalSlot:
        return GARBAGE if self.rng.random() < TORN_SHARE else self._synced[number]

    # ------------------------------------------------------------- what else befalls it

    def wipe(self) -> None:
        """The file is gone."""
        self._slots, self._synced = [EMPTY, EMPTY], [EMPTY, EMPTY]
        self._newest, self._sequence = 1, 0

    def corrupt(self, only_newest: bool = False) -> None:
        """A bad card: nothing can be read, or only the image before the newest."""
        newest = max(range(2), key=lambda number: self._slots[number].sequence)
        for number in (newest,) if only_newest else (0, 1):
            self._slots[number] = self._synced[number] = GARBAGE

    def put(self, image: bytes | None) -> None:
        """As if this were all that was ever saved."""
        self.wipe()
        if image is not None:
            self.save(image)

    def copy_from(self, other: SimulatedDisk) -> None:
        """A card copied while its machine was off, or on: what a reader would have found."""
        self._slots = list(other._slots)
        self.sync()
