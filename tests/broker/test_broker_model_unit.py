"""Each behaviour of the model by itself; the numbers are clauses of MQTT 3.1.1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import events as ev
from broker.model import BrokerModel
from protocol.core import Effect, TimerElapsed


class Bench:
    """Two lines for what a test would say in ten: feeds events, sorts effects."""

    def __init__(self, **options: object) -> None:
        self.model = BrokerModel(**options)  # type: ignore[arg-type]
        self.now_ms = 0
        self.last: list[Effect] = []

    def feed(self, event: ev.Event) -> list[Effect]:
        self.last = self.model.handle(event, self.now_ms)
        return self.last

    def connect(self, number: int, client: str = "", **options: object) -> list[Effect]:
        return self.feed(ev.ConnectReceived(number, client or f"c{number}", **options))  # type: ignore[arg-type]

    def subscribe(self, number: int, topic_filter: str, qos: int = 1) -> list[Effect]:
        return self.feed(ev.SubscribeReceived(number, ((topic_filter, qos),), 7))

    def publish(
        self, number: int, topic: str, payload: bytes = b"p", qos: int = 0, retain: bool = False
    ) -> list[Effect]:
        return self.feed(ev.PublishReceived(number, topic, payload, qos, retain, 9 if qos else 0))

    def to(self, now_ms: int) -> list[Effect]:
        self.now_ms = now_ms
        return self.feed(TimerElapsed())

    def sent(self) -> list[ev.SendPublish]:
        return [effect for effect in self.last if isinstance(effect, ev.SendPublish)]

    def closed(self) -> list[int]:
        return [effect.connection for effect in self.last if isinstance(effect, ev.CloseConnection)]


WILL = ev.Publication("w/1", b"gone", 1, True)


# ------------------------------------------------------------------------ connecting


def test_a_clean_connection_is_accepted_without_a_session() -> None:
    """3.2.2-1."""
    assert Bench().connect(1, "a") == [ev.SendConnack(1, "a", ev.ConnackCode.ACCEPTED, False)]


def test_a_kept_session_is_present_on_return() -> None:
    """3.2.2-2, 3.2.2-3."""
    b = Bench()
    b.connect(1, "a", clean_session=False)
    b.feed(ev.DisconnectReceived(1))
    assert b.connect(2, "a", clean_session=False) == [ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, True)]


def test_a_clean_connection_discards_a_kept_session() -> None:
    """3.1.2-6."""
    b = Bench()
    b.connect(1, "a", clean_session=False)
    b.subscribe(1, "t")
    b.feed(ev.ConnectionLost(1))
    assert b.connect(2, "a") == [ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, False)]
    b.connect(3)
    b.publish(3, "t", qos=1)
    assert b.sent() == []


def test_the_same_client_id_takes_over() -> None:
    """3.1.4-2: the old connection is closed, then the new one accepted."""
    b = Bench()
    b.connect(1, "a")
    assert b.connect(2, "a") == [
        ev.CloseConnection(1, "a", "taken over"),
        ev.SendConnack(2, "a", ev.ConnackCode.ACCEPTED, False),
    ]


def test_the_loss_of_a_taken_over_connection_changes_nothing() -> None:
    b = Bench()
    b.connect(1, "a")
    b.connect(2, "a", will=WILL)
    assert b.feed(ev.ConnectionLost(1)) == []
    assert b.model.connected("a") and b.model.counts.stale == 1


def test_a_second_connect_costs_the_connection_and_sends_the_will() -> None:
    """3.1.0-2, 3.1.2-8."""
    b = Bench()
    b.connect(1, "a", will=WILL)
    b.connect(1, "a")
    assert b.closed() == [1] and [p.topic for p in b.model.retained()] == ["w/1"]


def test_a_packet_before_connect_costs_the_connection() -> None:
    """3.1.0-1."""
    b = Bench()
    b.publish(1, "t")
    assert b.closed() == [1]


def test_an_empty_client_id_gets_a_name_if_clean() -> None:
    """3.1.3-6."""
    first, second = (b := Bench()).feed(ev.ConnectReceived(1, "")), b.feed(ev.ConnectReceived(2, ""))
    names = [effect.client for effect in (*first, *second) if isinstance(effect, ev.SendConnack)]
    assert len(set(names)) == 2 and all(names)


def test_an_empty_client_id_is_refused_if_not_clean() -> None:
    """3.1.3-8."""
    effects = Bench().feed(ev.ConnectReceived(1, "", clean_session=False))
    assert effects[0] == ev.SendConnack(1, "", ev.ConnackCode.IDENTIFIER_REJECTED)
    assert isinstance(effects[1], ev.CloseConnection)


def test_one_client_too_many_is_told_that_the_server_is_unavailable() -> None:
    b = Bench(limits=ev.BrokerLimits(sessions_max=1))
    b.connect(1, "a")
    assert b.connect(2, "b")[0] == ev.SendConnack(2, "b", ev.ConnackCode.SERVER_UNAVAILABLE)
    assert b.connect(3, "a")[-1] == ev.SendConnack(3, "a", ev.ConnackCode.ACCEPTED)  # a take-over is not more


# ----------------------------------------------------------------------- keep-alive


def test_silence_of_one_and_a_half_keep_alives_sends_the_will() -> None:
    """3.1.2-24, 3.1.2-8."""
    b = Bench()
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
def test_any_packet_is_a_sign_of_life(packet: ev.Event) -> None:
    """3.1.2-23."""
    b = Bench()
    b.connect(1, "a", keep_alive_ms=10_000)
    b.now_ms = 14_000
    b.feed(packet)
    assert b.to(28_999) == [] and b.model.connected("a")
    b.to(29_000)
    assert b.closed() == [1]


def test_a_packet_after_the_silence_comes_too_late() -> None:
    """Time is worked off before the event, whatever the world does first."""
    b = Bench()
    b.connect(1, "a", keep_alive_ms=10_000, will=WILL)
    b.now_ms = 15_000
    b.feed(ev.PingReceived(1))
    assert b.closed() == [1, 1] and b.model.counts.wills == 1


def test_no_keep_alive_is_no_limit() -> None:
    """3.1.2.10."""
    b = Bench()
    b.connect(1, "a")
    assert b.model.next_due_ms() is None and b.to(10**9) == []


def test_a_ping_is_answered() -> None:
    """3.12.4-1."""
    b = Bench()
    b.connect(1)
    assert b.feed(ev.PingReceived(1)) == [ev.SendPingresp(1)]


# ----------------------------------------------------------------------------- wills


def test_an_orderly_goodbye_discards_the_will() -> None:
    """3.14.4-3, 3.1.2-10."""
    b = Bench()
    b.connect(1, "a", will=WILL)
    b.feed(ev.DisconnectReceived(1))
    assert list(b.model.retained()) == [] and b.closed() == [1]


def test_an_abrupt_loss_sends_the_will() -> None:
    """3.1.2-8, 3.1.2-17."""
    b = Bench()
    b.connect(1, "a", will=WILL)
    b.feed(ev.ConnectionLost(1))
    assert list(b.model.retained()) == [WILL]


def test_a_take_over_sends_the_will_before_the_newcomer_is_accepted() -> None:
    """3.1.2-8, 3.1.4-2: so a birth always overwrites it."""
    b = Bench()
    b.connect(2, "watcher")
    b.subscribe(2, "w/1")
    b.connect(1, "a", will=WILL)
    b.connect(3, "a")
    kinds = [type(effect).__name__ for effect in b.last]
    assert kinds == ["CloseConnection", "SendPublish", "SendConnack"]


def test_a_protocol_error_sends_the_will() -> None:
    """3.1.2-8."""
    b = Bench()
    b.connect(1, "a", will=WILL)
    b.publish(1, "bad/#")
    assert b.closed() == [1] and list(b.model.retained()) == [WILL]


def test_a_will_is_sent_once() -> None:
    b = Bench()
    b.connect(1, "a", clean_session=False, will=WILL)
    b.feed(ev.ConnectionLost(1))
    b.connect(2, "a", clean_session=False)
    b.feed(ev.ConnectionLost(2))
    assert b.model.counts.wills == 1


# ----------------------------------------------------------------------- subscribing


def test_wildcards_bring_what_they_match_and_hide_dollar_topics() -> None:
    """4.7.1, 4.7.2-1."""
    b = Bench()
    b.connect(1)
    b.connect(2)
    b.subscribe(1, "#")
    b.subscribe(1, "+/x")
    assert b.publish(2, "$SYS/x") == []
    b.publish(2, "a/x")
    assert len(b.sent()) == 1


def test_overlapping_subscriptions_deliver_once_at_the_highest_qos() -> None:
    """3.3.5-1."""
    b = Bench()
    b.connect(1)
    b.subscribe(1, "a/+", 0)
    b.subscribe(1, "a/b", 1)
    b.publish(1, "a/b", qos=1)
    assert [(p.qos, p.dup) for p in b.sent()] == [(1, False)]


@pytest.mark.parametrize(("published", "granted", "delivered"), [(0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 0)])
def test_a_message_comes_at_the_lower_qos(published: int, granted: int, delivered: int) -> None:
    """3.8.4-6."""
    b = Bench()
    b.connect(1)
    b.subscribe(1, "t", granted)
    b.publish(1, "t", qos=published)
    assert [p.qos for p in b.sent()] == [delivered]


def test_each_filter_is_answered_and_qos_2_is_granted_as_1() -> None:
    """3.8.4-1, 3.8.4-5, 3.8.4-6."""
    b = Bench(limits=ev.BrokerLimits(subscriptions_max=2))
    b.connect(1)
    wanted = (("a", 2), ("b", 0), ("c", 1))
    assert b.feed(ev.SubscribeReceived(1, wanted, 3)) == [ev.SendSuback(1, 3, (1, 0, ev.SUBSCRIBE_FAILED))]


@pytest.mark.parametrize("filters", [(), (("a/#/b", 0),), (("a", 3),)])
def test_a_malformed_subscribe_costs_the_connection(filters: tuple[tuple[str, int], ...]) -> None:
    """3.8.3-3, 3.8.3-4, 4.7.1-2."""
    b = Bench()
    b.connect(1)
    b.feed(ev.SubscribeReceived(1, filters, 1))
    assert b.closed() == [1]


def test_unsubscribing_stops_delivery_and_is_always_answered() -> None:
    """3.10.4-1, 3.10.4-4, 3.10.4-5."""
    b = Bench()
    b.connect(1)
    b.subscribe(1, "t")
    assert b.feed(ev.UnsubscribeReceived(1, ("t", "never"), 4)) == [ev.SendUnsuback(1, 4)]
    assert b.publish(1, "t") == []


# ---------------------------------------------------------------------------- QoS 1


def test_a_qos_1_publish_is_acknowledged() -> None:
    """3.3.4-1."""
    b = Bench()
    b.connect(1)
    assert b.publish(1, "t", qos=1) == [ev.SendPuback(1, 9)]


def test_unacknowledged_messages_come_again_in_order_with_dup_and_the_same_id() -> None:
    """4.4.0-1, 4.6.0-1, 3.3.1-1, 2.3.1-3."""
    b = Bench()
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


def test_what_is_in_flight_is_bounded_and_an_acknowledgement_makes_room() -> None:
    b = Bench(limits=ev.BrokerLimits(inflight_max=2))
    b.connect(1)
    b.subscribe(1, "t")
    b.connect(2)
    for number in range(4):
        b.publish(2, "t", bytes([number]), qos=1)
    b.feed(ev.PubackReceived(1, 1))
    assert [(p.payload, p.dup, p.packet_id) for p in b.sent()] == [(b"\2", False, 3)]
    b.feed(ev.PubackReceived(1, 1))  # twice changes nothing
    assert b.last == []


def test_a_full_queue_drops_the_newest_and_counts_it() -> None:
    b = Bench(limits=ev.BrokerLimits(queued_max=2, queued_bytes_max=100))
    b.connect(1, "a", clean_session=False)
    b.subscribe(1, "t")
    b.feed(ev.ConnectionLost(1))
    b.connect(2)
    b.publish(2, "t", b"x" * 101, qos=1)
    for payload in (b"1", b"2", b"3"):
        b.publish(2, "t", payload, qos=1)
    b.connect(3, "a", clean_session=False)
    assert [p.payload for p in b.sent()] == [b"1", b"2"] and b.model.counts.queue_full == 2


def test_packet_ids_in_flight_are_not_given_out_again() -> None:
    """2.3.1-2."""
    b = Bench()
    b.connect(1)
    b.subscribe(1, "t")
    b.publish(1, "t", qos=1)
    for _ in range(65_536):
        b.publish(1, "t", qos=1)
        packet_id = b.sent()[0].packet_id
        assert 1 < packet_id <= 65_535
        b.feed(ev.PubackReceived(1, packet_id))


def test_qos_2_is_a_protocol_error_here() -> None:
    """The fleet's protocol has none; the configuration that we render says `max_qos 1`."""
    b = Bench()
    b.connect(1)
    b.publish(1, "t", qos=2)
    assert b.closed() == [1]


# --------------------------------------------------------------------------- bounds


def test_a_payload_too_large_is_acknowledged_and_dropped() -> None:
    b = Bench(limits=ev.BrokerLimits(payload_bytes_max=10, packet_bytes_max=20))
    b.connect(1)
    b.subscribe(1, "t")
    assert b.publish(1, "t", b"x" * 11, qos=1) == [ev.SendPuback(1, 9)]
    assert b.model.counts.oversize == 1


def test_a_packet_too_large_costs_the_connection() -> None:
    b = Bench(limits=ev.BrokerLimits(payload_bytes_max=10, packet_bytes_max=20))
    b.connect(1)
    b.publish(1, "t", b"x" * 30)
    assert b.closed() == [1]


def test_retained_messages_are_bounded() -> None:
    b = Bench(limits=ev.BrokerLimits(retained_max=1))
    b.connect(1)
    for topic in ("a", "b", "a"):
        b.publish(1, topic, topic.encode() * 2, retain=True)
    assert [p.topic for p in b.model.retained()] == ["a"] and b.model.counts.retained_full == 1


# -------------------------------------------------------------------------- retained


def test_a_retained_message_comes_with_the_flag_to_a_new_subscription_only() -> None:
    """3.3.1-5, 3.3.1-6, 3.3.1-8, 3.3.1-9."""
    b = Bench()
    b.connect(1)
    b.connect(2)
    b.subscribe(1, "t")
    b.publish(2, "t", b"old", retain=True)
    assert [p.retain for p in b.sent()] == [False]
    b.publish(2, "t", b"new", qos=1, retain=True)
    b.subscribe(2, "+")
    assert [(p.payload, p.retain, p.qos) for p in b.sent()] == [(b"new", True, 1)]


def test_subscribing_again_brings_retained_messages_again() -> None:
    """3.8.4-3."""
    b = Bench()
    b.connect(1)
    b.publish(1, "t", b"x", retain=True)
    b.subscribe(1, "t")
    b.subscribe(1, "t", 0)
    assert [(p.qos, p.retain) for p in b.sent()] == [(0, True)]
    b.publish(1, "t", b"y", qos=1)
    assert [p.qos for p in b.sent()] == [0]


def test_an_empty_retained_payload_deletes_and_is_still_delivered() -> None:
    """3.3.1-10, 3.3.1-11."""
    b = Bench()
    b.connect(1)
    b.subscribe(1, "t")
    b.publish(1, "t", b"x", retain=True)
    b.publish(1, "t", b"", retain=True)
    assert [(p.payload, p.retain) for p in b.sent()] == [(b"", False)]
    b.connect(2)
    assert b.subscribe(2, "#") == [ev.SendSuback(2, 7, (1,))]


def test_an_unretained_message_leaves_the_retained_one() -> None:
    """3.3.1-12."""
    b = Bench()
    b.connect(1)
    b.publish(1, "t", b"kept", retain=True)
    b.publish(1, "t", b"passing")
    assert [p.payload for p in b.model.retained()] == [b"kept"]


# ------------------------------------------------------------------------------- ACL


def test_access_is_asked_on_every_way() -> None:
    """3.3.5-2: a denied publish is acknowledged and dropped; wills and retained ones obey too."""
    refused: set[tuple[str, str]] = set()

    def acl(client: str, username: str, action: ev.AclAction, topic: str) -> bool:
        assert username == f"user-{client}"
        return (action.value, topic) not in refused

    b = Bench(acl=acl)
    for number in (1, 2):
        b.connect(number, username=f"user-c{number}", will=ev.Publication(f"will/{number}", b"x", 1, True))
    b.subscribe(1, "#")
    b.publish(2, "kept", retain=True)
    refused |= {
        ("publish", "p"),
        ("subscribe", "s/#"),
        ("receive", "r"),
        ("receive", "kept"),
        ("publish", "will/2"),
    }
    assert b.publish(2, "p", qos=1) == [ev.SendPuback(2, 9)]
    assert b.publish(2, "r") == []
    assert b.subscribe(1, "s/#") == [ev.SendSuback(1, 7, (ev.SUBSCRIBE_FAILED,))]
    assert b.subscribe(1, "kept") == [ev.SendSuback(1, 7, (1,))]
    assert b.feed(ev.ConnectionLost(2)) == []
    assert b.model.counts.denied == 5 and [p.topic for p in b.model.retained()] == ["kept"]


# -------------------------------------------------------------------- restart, quirks


def world_before_restart() -> Bench:
    b = Bench()
    b.connect(1, "kept", clean_session=False)
    b.subscribe(1, "t")
    b.connect(2, "clean", will=WILL)
    b.subscribe(2, "t")
    b.publish(2, "t", b"old", qos=1, retain=True)
    return b


@pytest.mark.parametrize(
    ("survival", "payloads", "present"),
    [
        (ev.Survival.KEPT, [b"new"], True),
        (ev.Survival.ROLLED_BACK, [b"old"], True),
        (ev.Survival.LOST, [], False),
    ],
)
def test_a_restart_keeps_rolls_back_or_loses(
    survival: ev.Survival, payloads: list[bytes], present: bool
) -> None:
    b = world_before_restart()
    b.model.snapshot()
    b.publish(2, "t", b"new", qos=1, retain=True)
    closed = b.model.restart(survival)
    assert [effect.connection for effect in closed if isinstance(effect, ev.CloseConnection)] == [1, 2]
    assert len(closed) == 2 and b.model.counts.wills == 0
    assert [p.payload for p in b.model.retained()] == payloads
    assert ev.SendConnack(3, "kept", ev.ConnackCode.ACCEPTED, present) in b.connect(
        3, "kept", clean_session=False
    )
    assert b.connect(4, "clean", clean_session=False)[0] == ev.SendConnack(
        4, "clean", ev.ConnackCode.ACCEPTED, False
    )


def test_a_roll_back_brings_back_what_was_acknowledged_meanwhile() -> None:
    b = world_before_restart()
    b.model.snapshot()
    b.feed(ev.PubackReceived(1, 1))
    b.model.restart(ev.Survival.ROLLED_BACK)
    b.connect(3, "kept", clean_session=False)
    assert [(p.payload, p.dup) for p in b.sent()] == [(b"old", True)]
    b.model.restart(ev.Survival.ROLLED_BACK)  # the copy is not used up
    assert [p.payload for p in b.model.retained()] == [b"old"]


def test_a_roll_back_without_a_copy_loses_everything() -> None:
    b = world_before_restart()
    b.model.restart(ev.Survival.ROLLED_BACK)
    assert list(b.model.retained()) == []


def test_quirk_no_retained_message_for_wildcards() -> None:
    b = Bench(quirks=ev.BrokerQuirks(no_retained_for_wildcards=True))
    b.connect(1)
    b.publish(1, "t", retain=True)
    b.subscribe(1, "+")
    assert b.sent() == []
    b.subscribe(1, "t")
    assert len(b.sent()) == 1


def test_quirk_redelivery_on_a_live_connection() -> None:
    b = Bench(quirks=ev.BrokerQuirks(redeliver_live_ms=1_000))
    b.connect(1)
    b.subscribe(1, "t")
    b.publish(1, "t", b"1", qos=1)
    b.now_ms = 600
    b.publish(1, "t", b"2", qos=1)
    assert b.model.next_due_ms() == 1_000
    b.to(1_000)
    assert [(p.payload, p.dup) for p in b.sent()] == [(b"1", True)]
    b.feed(ev.PubackReceived(1, 1))
    assert b.model.next_due_ms() == 1_600
    b.to(1_600)
    assert [(p.payload, p.dup) for p in b.sent()] == [(b"2", True)]
    b.feed(ev.PubackReceived(1, 2))
    assert b.to(2_600) == [] and b.model.next_due_ms() is None


def test_quirk_a_will_comes_late() -> None:
    b = Bench(quirks=ev.BrokerQuirks(will_late_ms=30_000))
    b.connect(1, "a", will=WILL)
    b.feed(ev.ConnectionLost(1))
    b.connect(2, "a")
    b.publish(2, "w/1", b"birth", retain=True)
    assert b.model.next_due_ms() == 30_000
    b.to(30_000)
    assert [p.payload for p in b.model.retained()] == [b"gone"]


def test_quirk_silence_is_not_noticed_until_the_quirk_ends() -> None:
    b = Bench(quirks=ev.BrokerQuirks(silence_unnoticed=True))
    b.connect(1, "a", keep_alive_ms=10_000, will=WILL)
    assert b.to(100_000) == [] and b.model.connected("a")
    b.model.quirks = replace(b.model.quirks, silence_unnoticed=False)
    b.to(115_000)
    assert b.closed() == [1]


def test_quirk_one_copy_for_each_overlapping_subscription() -> None:
    """3.3.5 allows further copies, each at its own QoS."""
    b = Bench(quirks=ev.BrokerQuirks(copies_for_overlaps=True))
    b.connect(1)
    b.subscribe(1, "a/+", 0)
    b.subscribe(1, "a/b", 1)
    b.publish(1, "a/b", qos=1)
    assert sorted(p.qos for p in b.sent()) == [0, 1]


def test_a_message_to_nobody_and_a_timer_with_nothing_due_do_nothing() -> None:
    b = Bench()
    b.connect(1)
    assert b.publish(1, "t") == [] and b.to(5) == []
