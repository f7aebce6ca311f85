"""Checkers of what travels: I8 and I13.

Rule of this file: publications are read as the broker took and gave them. What a device wrote
is known from the runs themselves, what is stored from the commits, and what was acknowledged
from the answers that reached the device. Telemetry is not spoken in this version of the
protocol, so I8 is about output alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from protocol import topics
from protocol.errors import RemoteGarbage
from protocol.messages import LeaseAnswer, OutputChunk
from protocol.tasks import AttemptId
from sim.checking.base import Checker, Heard
from sim.checking.picture import Commit
from sim.ears import understand
from sim.observations import Delivered, Observation, OutputDropped, OutputLost, OutputWritten

Place = tuple[str, int, int]
"""(task, attempt, stream)."""


@dataclass(slots=True)
class Underway:
    """What one outbox of a device sent and got no acknowledgement for."""

    outbox: int
    stored: int = 0
    chunks: deque[OutputChunk] = field(default_factory=deque)


class OutputIsKept(Checker):
    """I8: what is stored was written, what is acknowledged is stored, what is dropped is one or the other."""

    invariant = "I8"
    channels = (OutputChunk.channel, LeaseAnswer.channel)

    def hears(self) -> dict[type[Observation], Heard]:
        self._written: dict[Place, bytearray] = {}
        self._stored: dict[Place, dict[int, int]] = {}
        """Place -> bytes stored from each offset on."""
        self._left: dict[Place, int] = {}
        """Place -> bytes that a power cut left on the device; what was stored before stays stored."""
        self._underway: dict[str, Underway] = {}
        return {
            OutputWritten: self._wrote,
            OutputLost: self._lost,
            OutputDropped: self._dropped,
            Delivered: self._delivered,
        }

    def _wrote(self, piece: OutputWritten) -> None:
        place = (piece.task, piece.attempt, piece.stream)
        text = self._written.setdefault(place, bytearray())
        text[piece.offset : piece.offset + len(piece.data)] = piece.data

    def _lost(self, loss: OutputLost) -> None:
        self._left[(loss.task, loss.attempt, loss.stream)] = loss.size

    def _size(self, place: Place) -> int:
        """How much of the stream the device could tell."""
        return self._left.get(place, len(self._written.get(place, b"")))

    def on_commit(self, commit: Commit) -> None:
        for row in commit.outputs:
            place = (row.task, row.attempt, row.stream)
            pieces = self._stored.setdefault(place, {})
            pieces[row.offset] = max(pieces.get(row.offset, 0), len(row.data))
            written = bytes(self._written.get(place, b""))
            what = f"{row.task} {row.attempt} stream {row.stream} at {row.offset}"
            given = self.seen.given.get(AttemptId(row.task, row.attempt), "")
            if written[row.offset : row.offset + len(row.data)] != row.data:
                self.breach(f"stored output of {what} is not what the run wrote", given)
            elif row.last and row.offset + len(row.data) not in (len(written), self._size(place)):
                self.breach(f"output of {what} is stored as its end, of {self._size(place)} bytes", given)

    def _kept(self, place: Place, until: int) -> int:
        """How much is stored from 0 on without a gap, as far as it matters."""
        reached, pieces = 0, self._stored.get(place, {})
        while reached < until and (size := pieces.get(reached, 0)):
            reached += size
        return reached

    def _dropped(self, drop: OutputDropped) -> None:
        if drop.full or drop.device in self.seen.forgetful:
            return
        for stream in (1, 2):
            place = (drop.task, drop.attempt, stream)
            size = self._size(place)
            if (kept := self._kept(place, size)) < size and AttemptId(*place[:2]) in self.seen.attempts:
                what = f"{drop.task} {drop.attempt} stream {stream}"
                self.breach(f"{drop.device} dropped output of {what}, stored {kept} of {size}", drop.device)

    def _delivered(self, delivery: Delivered) -> None:
        if not delivery.received or not delivery.topic.endswith(("/output", "/lease")):
            return
        device, channel = delivery.topic.split("/")[3:5]
        if channel == "lease" and device not in self._underway:
            return
        try:
            message = understand(delivery.topic, delivery.payload)
        except RemoteGarbage:
            return
        if isinstance(message, OutputChunk):
            self._note_chunk(device, message)
        elif isinstance(message, LeaseAnswer) and delivery.client == device:
            self._acknowledge(device, message)

    def _note_chunk(self, device: str, chunk: OutputChunk) -> None:
        known = self._underway.get(device)
        if known is None or known.outbox != chunk.outbox:
            if known is not None and chunk.outbox < known.outbox:
                return
            known = self._underway[device] = Underway(chunk.outbox)
        if chunk.seq > known.stored:
            known.chunks.append(chunk)

    def _acknowledge(self, device: str, answer: LeaseAnswer) -> None:
        known = self._underway[device]
        if answer.outbox != known.outbox or answer.stored <= known.stored:
            return
        known.stored = answer.stored
        left: deque[OutputChunk] = deque()
        for chunk in known.chunks:
            if chunk.seq > answer.stored:
                left.append(chunk)
            elif chunk.data and self.seen.given.get(AttemptId(chunk.task, chunk.attempt)) == device:
                self._check_stored(device, chunk)
        known.chunks = left

    def _check_stored(self, device: str, chunk: OutputChunk) -> None:
        known = AttemptId(chunk.task, chunk.attempt) in self.seen.attempts
        pieces = self._stored.get((chunk.task, chunk.attempt, chunk.stream), {})
        if known and pieces.get(chunk.offset, 0) < len(chunk.data):
            what = f"{chunk.task} {chunk.attempt} stream {chunk.stream} at {chunk.offset}"
            self.breach(f"{device} was told that output of {what} is stored, and it is not", device)


class OwnTopicsOnly(Checker):
    """I13: nothing under another device's topic is read or written with this device's credentials."""

    invariant = "I13"

    def hears(self) -> dict[type[Observation], Heard]:
        self._fine: dict[tuple[str, str, bool], bool] = {}
        """What was judged before: (client, topic, read) repeats all day."""
        return {Delivered: self._delivered}

    def _delivered(self, delivery: Delivered) -> None:
        """Both ends are judged where they are seen: what a broker took, and what it handed out."""
        if not self._may(delivery.client, delivery.topic, delivery.received):
            how = "read" if delivery.received else "wrote"
            self.breach(f"{delivery.client} {how} {delivery.topic}", _device_of(delivery.topic))

    def _may(self, client: str, topic: str, reads: bool) -> bool:
        key = (client, topic, reads)
        known = self._fine.get(key)
        if known is None:
            known = self._fine[key] = _allowed(client, topic, reads)
        return known


def _device_of(topic: str) -> str:
    parts = topic.split("/")
    return parts[3] if len(parts) == 5 else ""


def _allowed(client: str, topic: str, reads: bool) -> bool:
    """Written down once more, not asked of the broker's rules: they are what is under suspicion."""
    parts = topic.split("/")
    if len(parts) != 5:
        return False
    device, channel = parts[3], parts[4]
    if client.startswith("_controller"):
        if device == topics.CONTROLLER:
            return True
        return channel in topics.UP or (not reads and channel in topics.DOWN)
    return device == client and channel in (topics.DOWN if reads else topics.UP)
