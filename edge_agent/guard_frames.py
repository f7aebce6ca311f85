"""The words between an agent and its guard: fixed frames on a unix socket.

A frame is a u32 length and a body; a body is a kind byte, that kind's fixed number of
signed 64-bit integers, then its fixed number of length-prefixed blobs. `SHAPES` is the
whole protocol. Little endian: both ends are always on one machine.

It knows neither processes nor sockets, and imports only `struct`: the guard has 12 MB.
Rejected: JSON and CBOR (imports that the guard can't afford); a version per frame (HELLO
and WELCOME carry it once; a guard of another version is shut down and replaced).
"""

from __future__ import annotations

import struct

FRAMES_VERSION = 1
FRAME_BYTES_MAX = 1_048_576
"""argv and environment of one run are bounded far below it by the wire's payload limit."""

# agent -> guard
HELLO = 1
START = 2
EXTEND = 3
STOP = 4
FORGET = 5
LIST = 6
SHUTDOWN = 7
# guard -> agent
WELCOME = 33
STARTED = 34
REFUSED = 35
EXITED = 36
LIVE = 37
PAST = 38
LISTED = 39
SUPERSEDED = 40

START_INTS = (
    "attempt",
    "deadline_ms",
    "timeout_ms",
    "stop_grace_ms",
    "output_bytes_max",
    "cpu_milli",
    "memory_mib",
    "disk_mib",
    "pids_max",
    "uid",
    "gid",
    "make_directories",
)
START_BLOBS = ("task", "cwd", "stdout_path", "stderr_path", "argv", "env")

SHAPES: dict[int, tuple[int, int]] = {
    HELLO: (1, 0),  # version
    START: (len(START_INTS), len(START_BLOBS)),
    EXTEND: (2, 1),  # attempt, deadline_ms; task
    STOP: (2, 1),  # attempt, grace_ms; task
    FORGET: (1, 1),  # attempt; task
    LIST: (0, 0),
    SHUTDOWN: (1, 0),  # grace_ms
    WELCOME: (2, 3),  # version, pid; containment, limits, controllers
    STARTED: (2, 1),  # attempt, pid; task
    REFUSED: (2, 2),  # attempt, 1 if the task itself is at fault; task, reason
    EXITED: (3, 2),  # attempt, exit code or -1, signal or 0; task, reason
    LIVE: (3, 1),  # attempt, deadline_ms, pid; task
    PAST: (3, 2),  # as EXITED, inside a list
    LISTED: (2, 0),  # how many LIVE, how many PAST stood before it
    SUPERSEDED: (0, 0),
}

_LENGTH = struct.Struct("<I")


class FrameError(ValueError):
    """The peer does not speak this protocol; its connection is worth nothing any more."""


def pack(kind: int, ints: tuple[int, ...] = (), blobs: tuple[bytes, ...] = ()) -> bytes:
    """One whole frame. Raises `FrameError` when the shape or an integer doesn't fit."""
    if SHAPES.get(kind) != (len(ints), len(blobs)):
        raise FrameError(f"frame {kind} has another shape")
    try:
        body = struct.pack(f"<B{len(ints)}q", kind, *ints)
    except struct.error as error:
        raise FrameError(f"frame {kind}: {error}") from None
    body += b"".join(_LENGTH.pack(len(blob)) + blob for blob in blobs)
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"frame {kind} is too long")
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> tuple[int, tuple[int, ...], tuple[bytes, ...]]:
    """Kind, integers, blobs of one body (without its length). Raises `FrameError`."""
    shape = SHAPES.get(body[0]) if body else None
    if shape is None:
        raise FrameError("unknown kind of frame")
    layout = struct.Struct(f"<B{shape[0]}q")
    if len(body) < layout.size:
        raise FrameError("frame is cut short")
    kind, *ints = layout.unpack_from(body)
    blobs: list[bytes] = []
    at = layout.size
    for _ in range(shape[1]):
        if at + 4 > len(body):
            raise FrameError("frame is cut short")
        end = at + 4 + int(_LENGTH.unpack_from(body, at)[0])
        if end > len(body):
            raise FrameError("frame is cut short")
        blobs.append(body[at + 4 : end])
        at = end
    if at != len(body):
        raise FrameError("frame has bytes left over")
    return kind, tuple(ints), tuple(blobs)


class FrameReader:
    """Cuts a byte stream into bodies. After a `FrameError` it must not be fed again."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies completed by `data`. Raises `FrameError` on an impossible length."""
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= 4:
            length = int(_LENGTH.unpack_from(self._buffer, at)[0])
            if not 0 < length <= FRAME_BYTES_MAX:
                raise FrameError("impossible length of a frame")
            if len(self._buffer) - at - 4 < length:
                break
            bodies.append(bytes(self._buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        del self._buffer[:at]
        return bodies
