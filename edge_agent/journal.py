"""The journal: two preallocated, checksummed slots in one file, rewritten in place by turns.

Rules of this file. A save touches only the slot that is not the newest valid one, and
returns after fdatasync: a power cut at any byte leaves the previous image or the new one,
never a mixture. The file has its full size from the first moment, so a full disk does not
stop a save. It knows nothing of what an image means.

A slot: magic, format version, sequence number, length, digest over all of these and the
image. Rejected: write-and-rename (needs free space at the worst moment, and two metadata
commits per save on a flash card); a log (grows, and its replay is code nobody tests);
a worker thread (nothing may be fed while a save runs anyway, and an agent at rest has one
thread and the memory of one).
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

FILE_NAME = "journal"
LOCK_NAME = "agent.lock"
SLOT_BYTES = 524_288
"""A full document (64 KiB) and an entry with a long reason for each of its attempts, twice over."""
FORMAT_VERSION = 1
MAGIC = b"fmjournl"
HEADER = struct.Struct("<8sIQI16s")
"""magic, format version, sequence number, image length, digest."""


class JournalError(Exception):
    """One line for people: the journal cannot be opened, read or written."""


class Journal:
    """The one image of one agent. `sequence` is that of the newest valid slot, 0 if none."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._slot = 1
        self.sequence = 0
        self.damaged = False
        """Whether `load` met a slot that is neither empty nor whole (a torn save, or a bad card)."""

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """The journal of a data directory, made at its full size if there is none. Raises `JournalError`."""
        path = directory / FILE_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _allocate(fd, directory)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise JournalError(f"cannot open {path}: {error.strerror}") from None
        return cls(fd, path)

    def load(self) -> bytes | None:
        """The newest whole image; `None` if there never was one, or none survived. Raises `JournalError`.

        What a killed predecessor wrote and did not sync is made safe before it is believed: the next
        save overwrites the other slot, and a power cut inside it would otherwise leave neither.
        """
        best: bytes | None = None
        self.sequence, self._slot, self.damaged = 0, 1, False
        with suppress(OSError):  # a card that can't sync refuses the next save too, and then it is told
            os.fdatasync(self._fd)
        for slot in (0, 1):
            try:
                raw = os.pread(self._fd, SLOT_BYTES, slot * SLOT_BYTES)
            except OSError:
                self.damaged = True
                continue
            sequence, image = self._parse(raw)
            if image is not None and sequence > self.sequence:
                best, self.sequence, self._slot = image, sequence, slot
        return best

    def save(self, image: bytes) -> None:
        """Make `image` durable. After `JournalError` the previous image still stands."""
        if len(image) > SLOT_BYTES - HEADER.size:
            raise JournalError(f"an image of {len(image)} bytes does not fit the journal")
        slot, sequence = 1 - self._slot, self.sequence + 1
        head = (MAGIC, FORMAT_VERSION, sequence, len(image))
        raw = HEADER.pack(*head, _digest(sequence, image)) + image
        try:
            written = os.pwrite(self._fd, raw, slot * SLOT_BYTES)
            if written != len(raw):
                raise JournalError(f"cannot write {self._path}: only {written} of {len(raw)} bytes")
            os.fdatasync(self._fd)
        except OSError as error:
            raise JournalError(f"cannot write {self._path}: {error.strerror}") from None
        self._slot, self.sequence = slot, sequence

    def close(self) -> None:
        os.close(self._fd)

    def _parse(self, raw: bytes) -> tuple[int, bytes | None]:
        if len(raw) < HEADER.size:
            self.damaged = True
            return 0, None
        magic, version, sequence, length, digest = HEADER.unpack_from(raw)
        if magic == MAGIC and version > FORMAT_VERSION:
            raise JournalError(f"{self._path} was written by a newer version (format {version})")
        image = raw[HEADER.size : HEADER.size + length]
        if magic == MAGIC and len(image) == length and digest == _digest(sequence, image):
            return sequence, image
        self.damaged = self.damaged or any(raw[: HEADER.size])
        return 0, None


def lock_directory(directory: Path) -> int:
    """Hold the data directory for this process; the descriptor holds the lock. Raises `JournalError`."""
    try:
        fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise JournalError(f"another agent uses the data directory {directory}") from None
    return fd


def _digest(sequence: int, image: bytes) -> bytes:
    about = struct.pack("<IQI", FORMAT_VERSION, sequence, len(image))
    return blake2b(about + image, digest_size=16).digest()


def _allocate(fd: int, directory: Path) -> None:
    """Give a new (or half-made) file its full size, written once so that no later write allocates."""
    size = os.fstat(fd).st_size
    if size >= 2 * SLOT_BYTES:
        return
    os.posix_fallocate(fd, 0, 2 * SLOT_BYTES)
    zeros = bytes(65_536)
    for offset in range(size, 2 * SLOT_BYTES, len(zeros)):
        os.pwrite(fd, zeros[: 2 * SLOT_BYTES - offset], offset)
    os.fsync(fd)
    directory_fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)
