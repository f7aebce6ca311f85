"""Messages to bytes and back; whatever else arrives is garbage with a reason, never an exception."""

from __future__ import annotations

import json

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits, topics
from protocol import messages as m
from protocol.codec import decode, encode, encode_json
from protocol.errors import RemoteGarbage
from protocol.resources import Resources
from protocol.tasks import Guarantee, RunState
from protocol.topics import Topic

EXAMPLES = [
    m.Status(True, 2**24 + 7, "boot", "inst", "orderly"),
    m.Heartbeat(
        (2**40 << 23) + 5,
        4_000,
        m.Held(1_795_000_000, 200, 300, 2, 1_795_000_000, 9),
        m.Used(1500, 900, 40_000),
    ),
    m.Runs(7, 3, m.Revision(5, 6), (m.RunEntry("j-1.0", 2, RunState.ENDED, 3, 0, "exited"),)),
    m.Inventory(
        1, 9, "pi-4b-4g", Resources(4000, 3790, 20_000, 0), {"zone": "a"}, ("process",), "0.1.0", "b"
    ),
    m.OutputChunk(9, 1, 4, "j-1.0", 1, 1, 0, b"\x00hello\xff", True),
    m.Answer("c1", True, "pong"),
    m.Assignments(
        m.Revision(5, 6),
        (
            m.AssignedAttempt(
                "j-1.0",
                2,
                "process",
                ("sh", "-c", "é"),
                {"A": "1"},
                Resources(500, 64),
                Guarantee.AT_LEAST_ONE,
            ),
        ),
    ),
    m.LeaseAnswer(5, 9, 12, m.Revision(5, 6), 3, 1, 9, 4),
    m.Settings(m.Revision(5, 1), 2**24 + 8),
    m.Command("c1", 9, 5, 1, 10_000, "ping"),
    m.Heartbeat(5, 1, m.Held(1, 2, 3, 4, 5, 6), health=m.Health(m.HEALTH_KNOWN | m.THROTTLED, 82, 40, 3, 20)),
    m.Inventory(
        1,
        9,
        "jetson-orin-nano-8g",
        Resources(6000, 6720, 52_000, 1_500, 940_000, 940_000, 20),
        accelerators=(m.Accelerator("gpu0", "orin-nano-8g"), m.Accelerator("tpu0", "", 500)),
        extras={"cameras": 2},
        core_speed_milli=1_430,
    ),
]


def topic(message: m.Message) -> Topic:
    return Topic("f", "d", message.channel)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda x: type(x).__name__)
def test_every_message_returns_from_cbor_and_from_json(message: m.Message) -> None:
    assert decode(topic(message), encode(message)) == message
    assert decode(topic(message), encode_json(message).encode()) == message


def test_every_channel_has_an_example() -> None:
    assert {type(e) for e in EXAMPLES} == set(m.DEVICE_MESSAGES.values())
    assert set(m.DEVICE_MESSAGES) | {"telemetry"} == set(topics.UP + topics.DOWN)


def test_a_full_heartbeat_is_at_most_48_bytes() -> None:
    assert len(encode(EXAMPLES[1])) <= 48


def test_unknown_fields_are_ignored() -> None:
    raw = cbor2.loads(encode(EXAMPLES[0])) | {99: "new", "later": [1]}
    assert decode(topic(EXAMPLES[0]), cbor2.dumps(raw)) == EXAMPLES[0]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not_a_map"),
        (b"\x00" * (limits.PAYLOAD_BYTES_MAX + 1), "oversize"),
        (cbor2.dumps([1]), "not_a_map"),
        (b"{", "malformed"),
        (b'{"online": NaN}', "malformed"),
        (b'{"online": true}', "missing_field"),
        (b'{"online": 1, "session": 1, "boot_id": "b", "instance_id": "i"}', "wrong_type"),
        (b'{"online": true, "session": -1, "boot_id": "b", "instance_id": "i"}', "out_of_range"),
        (
            b'{"online": true, "session": ' + b"9" * 5_000 + b', "boot_id": "b", "instance_id": "i"}',
            "out_of_range",
        ),
        (b'{"online": true, "session": 1, "boot_id": "\\ud800", "instance_id": "i"}', "out_of_range"),
        (b'{"a":' * 5_000, "malformed"),
        (b"\x81" * 60_000, "malformed"),
        (b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01", "malformed"),
        (b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "malformed"),
        (encode(EXAMPLES[0]) + b"\x00", "malformed"),
        (cbor2.dumps({1: True, 2: 1, 3: "x" * 101, 4: "i"}), "out_of_range"),
    ],
)
def test_garbage_is_named_by_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(RemoteGarbage) as caught:
        decode(Topic("f", "d", "status"), payload)
    assert caught.value.reason == reason


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(m.DEVICE_MESSAGES)))
def test_random_bytes_are_garbage_or_a_message(payload: bytes, channel: str) -> None:
    try:
        decode(Topic("f", "d", channel), payload)
    except RemoteGarbage as garbage:
        assert garbage.reason.value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 12) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(EXAMPLES), st.integers(0, 12), json_values)
def test_any_field_replaced_by_anything_is_garbage_or_a_message(
    message: m.Message, key: int, value: object
) -> None:
    raw = cbor2.loads(encode(message))
    raw[key] = value
    try:
        decode(topic(message), cbor2.dumps(raw))
    except RemoteGarbage:
        pass


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_flipped_and_cut_payloads_never_raise_anything_else(message: m.Message, data: st.DataObject) -> None:
    payload = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.integers(0, len(payload))) :]
    try:
        decode(topic(message), bytes(payload))
    except RemoteGarbage:
        pass


def test_json_written_for_people_is_json() -> None:
    assert json.loads(encode_json(EXAMPLES[7]))["granted"] == [5, 6]
