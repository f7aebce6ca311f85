"""Clients of the model: connecting, silence, wills, redelivery, bounds. Numbers are clauses of MQTT 3.1.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker import events as ev

Make = Callable[..., Any]

WILL = ev.Publication("w/1", b"gone", 1, True)


# ---------------------------------------------------------------------------- connecting


def test_a_clean_connection_is_accepted_without_a_session(make: Make) -> None:
    """3.2.2-1."""
    assert make().connect(1, "a") == [ev.SendConnack(1, "a", ev.ConnackCode.ACCEPTED, False)]


def test_a_kept_session_is_present_on_return(make: Make) -> None:
    """3.2.2-2, 3.2.2-3."""
    b = make()
    b.connect(1, "a", clean_session=False)
    b.feed(ev.DisconnectReceived(1))
    assert b.connect(2, "a", clean_session=False) == [ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, True)]


def test_a_clean_connection_discards_a_kept_session(make: Make) -> None:
    """3.1.2-6."""
    b = make()
    b.connect(1, "a", clean_session=False)
    b.subscribe(1, "t")
    b.feed(ev.ConnectionLost(1))
    assert b.connect(2, "a") == [ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, False)]
    b.connect(3)
    b.publish(3, "t", qos=1)
    assert b.sent() == []


def test_the_same_client_id_takes_over(make: Make) -> None:
    """3.1.4-2: the old connection is closed, then the new one accepted."""
    b = make()
    b.connect(1, "a")
    assert b.connect(2, "a") == [
        ev.CloseConnection(1, "a", "taken over"),
        ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, False),
    ]


def test_the_loss_of_a_taken_over_connection_changes_nothing(make: Make) -> None:
    b = make()
    b.connect(1, "a")
    b.connect(2, "a", will=WILL)
    assert b.feed(ev.ConnectionLost(1)) == []
    assert b.model.connected("a") and b.model.counts.stale == 1


def test_a_second_connect_costs_the_connection_and_sends_the_will(make: Make) -> None:
    """3.1.0-2, 3.1.2-8."""
    b = make()
    b.connect(1, "a", will=WILL)
    b.connect(1, "a")
    assert b.closed() == [1] and [p.topic for p in b.model.retained()] == ["w/1"]


def test_a_packet_before_connect_costs_the_connection(make: Make) -> None:
    """3.1.0-1."""
    b = make()
    b.publish(1, "t")
    assert b.closed() == [1]


def test_an_empty_client_id_gets_a_name_if_clean(make: Make) -> None:
    """3.1.3-6."""
    first, second = (b := make()).feed(ev.ConnectReceived(1, "")), b.feed(ev.ConnectReceived(2, ""))
    names = [effect.client for effect in (*first, *second) if isinstance(effect, ev.SendConnack)]
    assert len(set(names)) == 2 and all(names)


def test_an_empty_client_id_is_refused_if_not_clean(make: Make) -> None:
    """3.1.3-8."""
    effects = make().feed(ev.ConnectReceived(1, "", clean_session=False))
    assert effects[0] == ev.SendConnack(1, "", ev.ConnackCode.IDENTIFIER_REJECTED)
    assert isinstance(effects[1], ev.CloseConnection)


def test_one_client_too_many_is_told_that_the_server_is_unavailable(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(sessions_max=1))
    b.connect(1, "a")
    assert b.connect(2, "b")[0] == ev.SendConnack(2, "b", ev.ConnackCode.SERVER_UNAVAILABLE)
    assert b.connect(3, "a")[-1] == ev.SendConnack(3, "a", ev.ConnackCode.ACCEPTED)  # a take-over is not more


# ---------------------------------------------------------------------------- keep-alive


def test_silence_of_one_and_a_half_keep_alives_sends_the_will(make: Make) -> None:
    """3.1.2-24, 3.1.2-8."""
    b = make()
    b.connect(1, "a", keep_alive_ms=10_000, will=WILL)
    b.connect(2, "watcher")
    b.subscribe(2, "w/+")
    assert b.model.next_due_ms() == 15_000
    assert b.to(14_999) == []
    b.to(15_000)
    assert b.closed() == [1] and [(p.client, p.payload) for p in b.sent()] == [("watcher", b"gone")]


@pytest.mark.parametrize(
    "packet", [ev.PingReceived(1), ev.PublishReceived(1, "t", b""), ev.PubackReceived(1, 5)]
)
def test_any_packet_is_a_sign_of_life(make: Make, packet: ev.Event) -> None:
    """3.1.2-23."""
    b = make()
    b.connect(1, "a", keep_alive_ms=10_000)
    b.now_ms = 14_000
    b.feed(packet)
    assert b.to(28_999) == [] and b.model.connected("a")
    b.to(29_000)
    assert b.closed() == [1]


def test_a_packet_after_the_silence_comes_too_late(make: Make) -> None:
    """Time is worked off before the event, whatever the world does first."""
    b = make()
    b.connect(1, "a", keep_alive_ms=10_000, will=WILL)
    b.now_ms = 15_000
    b.feed(ev.PingReceived(1))
    assert b.closed() == [1, 1] and b.model.counts.wills == 1


def test_no_keep_alive_is_no_limit(make: Make) -> None:
    """3.1.2.10."""
    b = make()
    b.connect(1, "a")
    assert b.model.next_due_ms() is None and b.to(10**9) == []


def test_a_ping_is_answered(make: Make) -> None:
    """3.12.4-1."""
    b = make()
    b.connect(1)
    assert b.feed(ev.PingReceived(1)) == [ev.SendPingresp(1)]


# --------------------------------------------------------------------------------- wills


def test_an_orderly_goodbye_discards_the_will(make: Make) -> None:
    """3.14.4-3, 3.1.2-10."""
    b = make()
    b.connect(1, "a", will=WILL)
    b.feed(ev.DisconnectReceived(1))
    assert list(b.model.retained()) == [] and b.closed() == [1]


def test_an_abrupt_loss_sends_the_will(make: Make) -> None:
    """3.1.2-8, 3.1.2-17."""
    b = make()
    b.connect(1, "a", will=WILL)
    b.feed(ev.ConnectionLost(1))
    assert list(b.model.retained()) == [WILL]


def test_a_take_over_sends_the_will_before_the_newcomer_is_accepted(make: Make) -> None:
    """3.1.2-8, 3.1.4-2: so a birth always overwrites it."""
    b = make()
    b.connect(2, "watcher")
    b.subscribe(2, "w/1")
    b.connect(1, "a", will=WILL)
    b.connect(3, "a")
    kinds = [type(effect).__name__ for effect in b.last]
    assert kinds == ["CloseConnection", "SendPublish", "SendConnack"]


def test_a_protocol_error_sends_the_will(make: Make) -> None:
    """3.1.2-8."""
    b = make()
    b.connect(1, "a", will=WILL)
    b.publish(1, "bad/#")
    assert b.closed() == [1] and list(b.model.retained()) == [WILL]


def test_a_will_is_sent_once(make: Make) -> None:
    b = make()
    b.connect(1, "a", clean_session=False, will=WILL)
    b.feed(ev.ConnectionLost(1))
    b.connect(2, "a", clean_session=False)
    b.feed(ev.ConnectionLost(2))
    assert b.model.counts.wills == 1


# --------------------------------------------------------------------------------- QoS 1


def test_a_qos_1_publish_is_acknowledged(make: Make) -> None:
    """3.3.4-1."""
    b = make()
    b.connect(1)
    assert b.publish(1, "t", qos=1) == [ev.SendPuback(1, 9)]


def test_unacknowledged_messages_come_again_in_order_with_dup_and_the_same_id(make: Make) -> None:
    """4.4.0-1, 4.6.0-1, 3.3.1-1, 2.3.1-3."""
    b = make()
    b.connect(1, "a", clean_session=False)
    b.subscribe(1, "t")
    b.connect(2)
    ids = []
    for payload in (b"1", b"2", b"3"):
        b.publish(2, "t", payload, qos=1)
        ids += [p.packet_id for p in b.sent()]
    b.feed(ev.PubackReceived(1, ids[1]))
    b.feed(ev.ConnectionLost(1))
    b.publish(2, "t", b"4", qos=1)
    b.publish(2, "t", b"lost", qos=0)
    b.connect(3, "a", clean_session=False)
    again = [(p.payload, p.dup, p.packet_id) for p in b.sent()]
    assert again[:2] == [(b"1", True, ids[0]), (b"3", True, ids[2])]
    assert [(payload, dup) for payload, dup, _ in again[2:]] == [(b"4", False)]


def test_what_is_in_flight_is_bounded_and_an_acknowledgement_makes_room(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(inflight_max=2))
    b.connect(1)
    b.subscribe(1, "t")
    b.connect(2)
    for number in range(4):
        b.publish(2, "t", bytes([number]), qos=1)
    b.feed(ev.PubackReceived(1, 1))
    assert [(p.payload, p.dup, p.packet_id) for p in b.sent()] == [(b"\2", False, 3)]
    b.feed(ev.PubackReceived(1, 1))  # twice changes nothing
    assert b.last == []


def test_a_full_queue_drops_the_newest_and_counts_it(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(queued_max=2, queued_bytes_max=100))
    b.connect(1, "a", clean_session=False)
    b.subscribe(1, "t")
    b.feed(ev.ConnectionLost(1))
    b.connect(2)
    b.publish(2, "t", b"x" * 101, qos=1)
    for payload in (b"1", b"2", b"3"):
        b.publish(2, "t", payload, qos=1)
    b.connect(3, "a", clean_session=False)
    assert [p.payload for p in b.sent()] == [b"1", b"2"] and b.model.counts.queue_full == 2


def test_packet_ids_in_flight_are_not_given_out_again(make: Make) -> None:
    """2.3.1-2."""
    b = make()
    b.connect(1)
    b.subscribe(1, "t")
    b.publish(1, "t", qos=1)
    for _ in range(65_536):
        b.publish(1, "t", qos=1)
        packet_id = b.sent()[0].packet_id
        assert 1 < packet_id <= 65_535
        b.feed(ev.PubackReceived(1, packet_id))


def test_qos_2_is_a_protocol_error_here(make: Make) -> None:
    """The fleet's protocol has none; the configuration that we render says `max_qos 1`."""
    b = make()
    b.connect(1)
    b.publish(1, "t", qos=2)
    assert b.closed() == [1]


# -------------------------------------------------------------------------------- bounds


def test_a_payload_too_large_is_acknowledged_and_dropped(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(payload_bytes_max=10, packet_bytes_max=20))
    b.connect(1)
    b.subscribe(1, "t")
    assert b.publish(1, "t", b"x" * 11, qos=1) == [ev.SendPuback(1, 9)]
    assert b.model.counts.oversize == 1


def test_a_packet_too_large_costs_the_connection(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(payload_bytes_max=10, packet_bytes_max=20))
    b.connect(1)
    b.publish(1, "t", b"x" * 30)
    assert b.closed() == [1]


def test_retained_messages_are_bounded(make: Make) -> None:
    b = make(limits=ev.BrokerLimits(retained_max=1))
    b.connect(1)
    for topic in ("a", "b", "a"):
        b.publish(1, topic, topic.encode() * 2, retain=True)
    assert [p.topic for p in b.model.retained()] == ["a"] and b.model.counts.retained_full == 1
