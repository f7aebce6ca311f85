"""What an agent remembers comes back as it was, and anything else is refused."""

from __future__ import annotations

import cbor2
import pytest

from edge_agent.core.memory import ImageError, Memory, restore
from protocol.messages import AssignedAttempt, Assignments, Revision, RunEntry, Settings
from protocol.tasks import AttemptId, RunState


def full_memory():
    memory = Memory("instance-9", session=(7 << 24) | 5, epoch=1_700_000_000)
    attempt = AssignedAttempt("job.1", 3, "process", ("sh", "-c", "true"), env={"A": "b"})
    memory.assignments = Assignments(Revision(1_700_000_000, 12), (attempt,))
    memory.settings = Settings(Revision(1_700_000_000, 2), session_floor=9, quarantined=True)
    memory.entries[AttemptId("job.1", 3)] = RunEntry("job.1", 3, RunState.ENDED, 4, 0, "timeout")
    memory.outputs[AttemptId("job.1", 3)] = None
    return memory


def test_an_image_comes_back_as_it_was():
    assert restore(full_memory().image()) == full_memory()
    assert restore(Memory("x").image()) == Memory("x")


def test_what_is_no_image_is_refused_and_never_anything_else():
    image = full_memory().image()
    for cut in range(len(image)):
        with pytest.raises(ImageError):
            restore(image[:cut])
    for strange in (
        b"",
        b"\xff",
        cbor2.dumps(7),
        cbor2.dumps([]),
        cbor2.dumps([1, 2]),
        cbor2.dumps({"a": 1}),
    ):
        with pytest.raises(ImageError):
            restore(strange)


def test_another_version_says_so():
    with pytest.raises(ImageError, match="another version"):
        restore(cbor2.dumps([2, "from the future"]))


def test_flipped_bytes_end_as_memory_or_as_an_image_error():
    image = full_memory().image()
    for at in range(len(image)):
        try:
            restore(image[:at] + bytes([image[at] ^ 0x21]) + image[at + 1 :])
        except ImageError:
            continue
