"""The journal survives a power cut at any byte, a bad card, a full disk, and a second agent."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys

import pytest

from edge_agent.app import JournalSaver
from edge_agent.core.memory import Memory
from edge_agent.journal import (
    FILE_NAME,
    HEADER,
    SLOT_BYTES,
    Journal,
    JournalError,
    lock_directory,
)
from live.driver import SaveError


@pytest.fixture
def directory(tmp_path):
    return tmp_path


def written(directory, *images):
    journal = Journal.open(directory)
    journal.load()
    for image in images:
        journal.save(image)
    journal.close()
    return directory / FILE_NAME


def read(directory):
    journal = Journal.open(directory)
    try:
        return journal.load()
    finally:
        journal.close()


def test_a_fresh_journal_is_empty_and_has_its_full_size(directory):
    assert read(directory) is None
    assert (directory / FILE_NAME).stat().st_size == 2 * SLOT_BYTES


def test_the_newest_image_is_read_back(directory):
    written(directory, b"one", b"two", b"three")
    assert read(directory) == b"three"
    written(directory, b"four")
    assert read(directory) == b"four"


def test_a_power_cut_at_any_byte_leaves_the_old_or_the_new_image(directory):
    path = written(directory, b"old image", b"previous image")
    before = path.read_bytes()
    written(directory, b"the new image")
    after = path.read_bytes()
    end = HEADER.size + len(b"the new image")
    slot = 0 if before[:end] != after[:end] else SLOT_BYTES
    for cut in range(end + 1):
        torn = before[:slot] + after[slot : slot + cut] + before[slot + cut :]
        path.write_bytes(torn)
        assert read(directory) == (b"the new image" if cut == end else b"previous image"), cut


def test_sectors_written_in_any_order_leave_the_old_or_the_new_image(directory):
    rng = random.Random(7)
    old, previous, new = (rng.randbytes(9_000) for _ in range(3))
    path = written(directory, old, previous)
    before = path.read_bytes()
    written(directory, new)
    after = path.read_bytes()
    for _ in range(60):
        torn = bytearray(before)
        for sector in range(0, len(before), 512):
            if before[sector : sector + 512] != after[sector : sector + 512] and rng.random() < 0.8:
                torn[sector : sector + 512] = after[sector : sector + 512]
        path.write_bytes(torn)
        assert read(directory) in (previous, new)


def test_any_flipped_byte_is_noticed(directory):
    path = written(directory, b"old", b"new")
    good = path.read_bytes()
    for slot in (0, SLOT_BYTES):
        for at in range(slot, slot + HEADER.size + 3):
            path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
            try:
                assert read(directory) in (b"old", b"new")
            except JournalError as error:
                assert "newer version" in str(error)


def test_truncation_at_any_place_is_no_exception(directory):
    path = written(directory, b"old", b"new")
    good = path.read_bytes()
    for size in (0, 1, HEADER.size, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 5, 2 * SLOT_BYTES - 1):
        path.write_bytes(good[:size])
        assert read(directory) in (None, b"old", b"new")
        assert path.stat().st_size == 2 * SLOT_BYTES


def test_damage_is_reported(directory):
    path = written(directory, b"old", b"new")
    path.write_bytes(b"\xff" * (2 * SLOT_BYTES))
    journal = Journal.open(directory)
    assert journal.load() is None
    assert journal.damaged
    journal.save(b"anew")
    journal.close()
    assert read(directory) == b"anew"


def test_a_newer_version_is_refused_in_one_line(directory):
    path = written(directory, b"x")
    raw = path.read_bytes()
    at = SLOT_BYTES if raw[:8] == bytes(8) else 0
    path.write_bytes(raw[: at + 8] + b"\x09" + raw[at + 9 :])
    with pytest.raises(JournalError, match="newer version"):
        read(directory)


def test_an_image_that_does_not_fit_is_refused_and_the_old_one_stands(directory):
    written(directory, b"good")
    journal = Journal.open(directory)
    journal.load()
    with pytest.raises(JournalError):
        journal.save(bytes(SLOT_BYTES))
    journal.close()
    assert read(directory) == b"good"


def test_a_failed_write_leaves_the_previous_image_and_the_next_save_works(directory, monkeypatch):
    journal = Journal.open(directory)
    journal.load()
    journal.save(b"good")

    def refuse(fd):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        for _ in range(3):
            with pytest.raises(JournalError):
                journal.save(b"bad")
    journal.save(b"better")
    journal.close()
    assert read(directory) == b"better"


def test_what_a_killed_process_left_unsynced_is_safe_before_it_is_believed(directory, monkeypatch):
    """1. A save is written, its process dies before the sync. 2. A new one reads that image. 3. Its
    first save goes to the other slot, the only one on the card. 4. The power fails: both are gone."""
    journal = Journal.open(directory)
    order = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: order.append("sync"))
        pread = os.pread
        patch.setattr(os, "pread", lambda *about: order.append("read") or pread(*about))
        journal.load()
    assert order == ["sync", "read", "read"]


def test_a_saver_tells_the_driver_why_it_failed(directory, monkeypatch):
    journal = Journal.open(directory)
    monkeypatch.setattr(
        os, "pwrite", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(SaveError, match="No space left"):
        asyncio.run(JournalSaver(journal).save([Memory("i")]))
    journal.close()


FULL_DISK = """
import os, sys
from pathlib import Path
from edge_agent.journal import Journal
directory = Path(sys.argv[1])
journal = Journal.open(directory)
journal.load()
journal.save(b"before")
try:
    with open(directory / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(65536)):
            pass
except OSError as error:
    assert error.errno == 28, error
for n in range(20):
    journal.save(b"image %d" % n * 1000)
again = Journal.open(directory)
assert again.load() == b"image 19" * 1000
"""


def test_a_full_disk_does_not_stop_a_save(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small filesystem")
    try:
        subprocess.run([sys.executable, "-c", FULL_DISK, str(disk)], check=True, timeout=60)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_save_grows_the_file(directory):
    """What a bound on file sizes would stop."""
    journal = Journal.open(directory)
    journal.load()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SLOT_BYTES, hard))
    try:
        for n in range(5):
            journal.save(bytes([n]) * (SLOT_BYTES - HEADER.size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    journal.close()
    assert read(directory) == bytes([4]) * (SLOT_BYTES - HEADER.size)


def test_an_unwritable_directory_is_one_line(directory):
    with pytest.raises(JournalError, match="cannot open"):
        Journal.open(directory / "missing")
    with pytest.raises(JournalError, match="cannot use the data directory"):
        lock_directory(directory / "missing")


def test_a_second_agent_on_the_same_directory_is_refused(directory):
    fd = lock_directory(directory)
    with pytest.raises(JournalError, match="another agent"):
        lock_directory(directory)
    os.close(fd)
    os.close(lock_directory(directory))
