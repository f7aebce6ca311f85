"""Message to bytes and back: the only place that knows CBOR and JSON.

CBOR with integer keys is what we send; JSON with names is accepted everywhere (a JSON
object begins with `{`, which no CBOR map does), so that a person can speak with a plain
MQTT client. Whatever comes in ends as a message or as `RemoteGarbage`, nothing else.
"""

from __future__ import annotations

import io
import json
from typing import cast

import cbor2

from protocol.errors import GarbageReason, RemoteGarbage
from protocol.fields import Record
from protocol.limits import DECODE_DEPTH_MAX, PAYLOAD_BYTES_MAX
from protocol.messages import DEVICE_MESSAGES, FLEET_MESSAGES, Message
from protocol.topics import CONTROLLER, Topic

_RECORDS = {cls: Record(cls) for cls in (*DEVICE_MESSAGES.values(), *FLEET_MESSAGES.values())}
_ENCODER = cbor2.CBOREncoder(io.BytesIO())
"""One for all: making it costs three times what it then does. Cores and worlds encode in one thread."""
_JSON_INT_DIGITS_MAX = 25


def encode(message: Message) -> bytes:
    """The CBOR payload of a message."""
    return _ENCODER.encode_to_bytes(_RECORDS[type(message)].write(message, named=False))


def encode_json(message: Message) -> str:
    """The same message as JSON with names, for people."""
    return json.dumps(_RECORDS[type(message)].write(message, named=True), separators=(",", ":"))


def decode(topic: Topic, payload: bytes) -> Message:
    """The message of `payload` on `topic`. Raises `RemoteGarbage`, and nothing else, on anything else."""
    table = FLEET_MESSAGES if topic.device == CONTROLLER else DEVICE_MESSAGES
    cls = table.get(topic.channel)
    if cls is None:
        raise RemoteGarbage(GarbageReason.WRONG_CHANNEL, topic.channel)
    if not payload:
        raise RemoteGarbage(GarbageReason.EMPTY, topic.channel)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise RemoteGarbage(GarbageReason.OVERSIZE, f"{len(payload)} bytes")
    raw = _parse_json(payload) if payload[:1] == b"{" else _parse_cbor(payload)
    return cast(Message, _RECORDS[cls].read(raw))


def _parse_cbor(payload: bytes) -> object:
    stream = io.BytesIO(payload)
    try:
        value: object = cbor2.CBORDecoder(stream, max_depth=DECODE_DEPTH_MAX).decode()
    except Exception as error:
        # Hostile bytes reach every corner of the decoder (dates, decimals, regular
        # expressions): whatever it raises is the sender's garbage. What it builds from
        # tags is of no type that a field accepts.
        raise RemoteGarbage(GarbageReason.MALFORMED, f"{type(error).__name__}: {error}"[:120]) from None
    if stream.tell() != len(payload):
        # Trailing bytes would let two readers disagree.
        raise RemoteGarbage(GarbageReason.MALFORMED, "bytes after the end")
    return value


def _parse_json(payload: bytes) -> object:
    try:
        return json.loads(payload, parse_int=_bounded_int, parse_constant=_no_constant)
    except RemoteGarbage:
        raise
    except (ValueError, RecursionError) as error:
        raise RemoteGarbage(GarbageReason.MALFORMED, str(error)[:120]) from None


def _bounded_int(text: str) -> int:
    if len(text) > _JSON_INT_DIGITS_MAX:
        raise RemoteGarbage(GarbageReason.OUT_OF_RANGE, "an integer of too many digits")
    return int(text)


def _no_constant(text: str) -> object:
    raise RemoteGarbage(GarbageReason.MALFORMED, text)
