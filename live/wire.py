"""One TCP or TLS byte stream, cut into MQTT packets. Below the MQTT library, above asyncio.

Rule of this file: bytes and packet borders only; what a packet means is the link's. Reads
are cut here because a client library that asks the socket for one byte, then another, then
the body costs three system calls a packet; writes of one loop turn leave as one.

A packet body longer than `BODY_BYTES_MAX` is cut, not refused: a link that hung up on an
oversized retained message would meet it again at each connection.

Rejected: `loop.add_reader` and our own socket calls: a transport gives the same readers
plus non-blocking TLS handshakes, and on uvloop runs in C.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

BODY_BYTES_MAX = 131_072
"""Twice the legal payload: what is longer is surely illegal, and this much is kept of it."""
FLUSH_BYTES = 65_536
"""Gathered writes leave at once from here on, so that the transport's own bound is felt."""
PATIENT_TURNS = 3
"""Turns of the loop an acknowledgement waits for a message to travel with: one for the core to be
woken, one for it to answer, one for whoever waits for that. Sent at once it would cost a system call,
in which the broker wakes up and takes our processor, before what it acknowledges is even looked at."""
CLOSE_MS = 1_000
"""Time for the last bytes to leave at an orderly close; then the socket is cut."""


class WireOwner(Protocol):
    """Who a wire reports to."""

    def on_packet(self, command: int, body: bytes) -> None: ...

    def on_writable(self) -> None: ...

    def on_wire_lost(self, reason: str) -> None: ...


class PacketWire(asyncio.Protocol):
    """The stream. `heard` and `spoke` are set by traffic and cleared by whoever watches silence."""

    def __init__(self, owner: WireOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.heard = False
        self.spoke = False
        self.congested = False
        self.open = False
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flushing = self._patient = False
        self._paused = False
        self._reason = ""

    # ---------------------------------------------------------------- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        _set_nodelay(self._transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if not self.open:
            return
        self._splitter.add(data)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._out.clear()
        self._owner.on_wire_lost(self._reason or (_describe(exc) if exc else "closed by the broker"))

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._owner.on_writable()

    # ---------------------------------------------------------------- the link's side

    def write(self, packet: bytes, patient: bool = False) -> None:
        """Gather one packet; all of a loop turn leave together. A `patient` one may wait for others."""
        if not self.open:
            return
        self._out.append(packet)
        self._out_bytes += len(packet)
        if self._out_bytes >= FLUSH_BYTES:
            self.flush()
        elif patient:
            if not self._patient:
                self._patient = True
                self._loop.call_soon(self._wait, PATIENT_TURNS)
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flushing = False
        self.flush()

    def _wait(self, turns: int) -> None:
        if turns and self._out:
            self._loop.call_soon(self._wait, turns - 1)
        else:
            self._patient = False
            self.flush()

    def flush(self) -> None:
        """Hand what was gathered to the transport."""
        if not self._out or self._transport is None:
            return
        packets, self._out, self._out_bytes = self._out, [], 0
        self.spoke = True
        self._transport.write(packets[0] if len(packets) == 1 else b"".join(packets))

    def pause(self) -> None:
        """No packet is handed up until `resume`."""
        self._paused = True
        if self._transport is not None and self.open:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Hand up what was read already, then read on."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._resume)

    @property
    def paused(self) -> bool:
        return self._paused

    def set_silence_limit(self, limit_ms: int) -> None:
        """Let the kernel give up on bytes that nobody acknowledges, also while reading is paused."""
        option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux only; pings cover the rest
        raw = self._transport.get_extra_info("socket") if self._transport else None
        if raw is not None and option is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, option, limit_ms)

    def finish(self, reason: str) -> None:
        """Send what is gathered and wait for the peer to close; `on_wire_lost(reason)` within `CLOSE_MS`.

        We don't close first: with unread bytes in our socket that sends a reset, which may
        overtake the DISCONNECT in the peer's buffer, and the will would be published.
        """
        self.flush()
        if self._end(reason) and self._transport is not None:
            self._transport.resume_reading()
            self._loop.call_later(CLOSE_MS / 1_000, self._transport.abort)

    def abort(self, reason: str) -> None:
        """Cut the connection now; `on_wire_lost(reason)` follows in a later turn."""
        if self._end(reason) and self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------- inside

    def _end(self, reason: str) -> bool:
        was_open, self.open = self.open, False
        if was_open:
            self._reason = reason
            self._out.clear()
        return was_open

    def _resume(self) -> None:
        self._pump()
        if self._transport is not None and self.open and not self._paused:
            self._transport.resume_reading()

    def _pump(self) -> None:
        take, hand_up = self._splitter.take, self._owner.on_packet
        try:
            while self.open and not self._paused:
                packet = take()
                if packet is None:
                    return
                hand_up(packet[0], packet[1])
        except LengthError:
            self.abort("unreadable: packet length")
        except BaseException:
            self.abort("stopped by an error of ours")  # the bug goes on to the loop's handler
            raise


class LengthError(ValueError):
    """A remaining length of more than four bytes: whatever this is, it isn't MQTT."""


class Splitter:
    """Cuts a byte stream into (first byte, body). Keeps at most one cut body and one chunk."""

    __slots__ = ("_buffer", "_pos", "_skip")

    def __init__(self) -> None:
        self._buffer = b""
        self._pos = 0
        self._skip = 0

    def add(self, data: bytes) -> None:
        """Append what was read. `data` isn't kept after it was taken."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer = self._buffer[self._pos :] + data if self._pos < len(self._buffer) else bytes(data)
        self._pos = 0

    def take(self) -> tuple[int, bytes] | None:
        """The next whole packet, or None. Raises `LengthError`."""
        buffer, pos = self._buffer, self._pos
        available = len(buffer) - pos
        if available < 2:
            return None
        length, start = buffer[pos + 1], pos + 2
        if length > 127:
            long_form = self._long_length(pos)
            if long_form is None:
                return None
            length, start = long_form
        end = start + length
        if end <= len(buffer):
            self._pos = end
            if end == len(buffer):  # an idle link keeps no memory
                self._buffer, self._pos = b"", 0
            return buffer[pos], buffer[start : min(end, start + BODY_BYTES_MAX)]
        if length > BODY_BYTES_MAX and len(buffer) - start >= BODY_BYTES_MAX:
            self._skip, self._buffer, self._pos = end - len(buffer), b"", 0
            return buffer[pos], buffer[start : start + BODY_BYTES_MAX]
        return None

    def _long_length(self, pos: int) -> tuple[int, int] | None:
        buffer, length = self._buffer, 0
        for index in range(4):
            at = pos + 1 + index
            if at >= len(buffer):
                return None
            length |= (buffer[at] & 127) << (7 * index)
            if buffer[at] < 128:
                return length, at + 1
        raise LengthError


def _set_nodelay(transport: asyncio.Transport) -> None:
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
