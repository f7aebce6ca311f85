"""Frames of the guard: pack and unpack are each other's inverse, garbage is an error, never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import guard_frames as frames

INT = st.integers(-(2**63), 2**63 - 1)
BLOB = st.binary(max_size=300)


@st.composite
def whole_frames(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[bytes, ...]]:
    kind = draw(st.sampled_from(sorted(frames.SHAPES)))
    ints, blobs = frames.SHAPES[kind]
    return kind, draw(st.tuples(*[INT] * ints)), draw(st.tuples(*[BLOB] * blobs))


@given(st.lists(whole_frames(), max_size=6), st.integers(1, 50))
def test_frames_survive_any_cutting_of_the_stream(sent: list, size: int) -> None:
    stream = b"".join(frames.pack(*frame) for frame in sent)
    reader = frames.FrameReader()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    bodies = [body for piece in pieces for body in reader.feed(piece)]
    assert [frames.unpack(body) for body in bodies] == sent


@given(st.binary(max_size=400))
def test_any_bytes_are_a_frame_or_an_error(body: bytes) -> None:
    try:
        kind, ints, blobs = frames.unpack(body)
    except frames.FrameError:
        return
    assert frames.pack(kind, ints, blobs)[4:] == body


@given(st.binary(min_size=4, max_size=400))
def test_any_stream_is_bodies_or_an_error(stream: bytes) -> None:
    try:
        bodies = frames.FrameReader().feed(stream)
    except frames.FrameError:
        return
    assert sum(len(body) + 4 for body in bodies) <= len(stream)


@given(whole_frames(), st.data())
def test_a_frame_cut_short_is_an_error(frame: tuple, data: st.DataObject) -> None:
    body = frames.pack(*frame)[4:]
    if len(body) > 1:
        with pytest.raises(frames.FrameError):
            frames.unpack(body[: data.draw(st.integers(1, len(body) - 1))])


@pytest.mark.parametrize(
    "frame",
    [
        (frames.LIST, (1,), ()),
        (99, (), ()),
        (frames.STOP, (1, 2**63), (b"t",)),
        (frames.STOP, (1, 2), (b"t" * frames.FRAME_BYTES_MAX,)),
    ],
)
def test_what_has_another_shape_is_not_packed(frame: tuple) -> None:
    with pytest.raises(frames.FrameError):
        frames.pack(*frame)
