"""Messages of the model: filters, retained, access, restarts, quirks; numbers are clauses of MQTT 3.1.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker import events as ev

Make = Callable[..., Any]

WILL = ev.Publication("w/1", b"gone", 1, True)


# --------------------------------------------------------------------------- subscribing


def test_wildcards_bring_what_they_match_and_hide_dollar_topics(make: Make) -> None:
    """4.7.1, 4.7.2-1."""
    b = make()
    b.connect(1)
    b.connect(2)
    b.subscribe(1, "#")
    b.subscribe(1, "+/x")
    assert b.publish(2, "$SYS/x") == []
    b.publish(2, "a/x")
    assert len(b.sent()) == 1


def test_overlapping_subscriptions_deliver_once_at_the_highest_qos(make: Make) -> None:
    """3.3.5-1."""
    b = make()
    b.connect(1)
    b.subscribe(1, "a/+", 0)
    b.subscribe(1, "a/b", 1)
    b.publish(1, "a/b", qos=1)
    assert [(p.qos, p.dup) for p in b.sent()] == [(1, False)]


@pytest.mark.parametrize(("published", "granted", "delivered"), [(0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 0)])
def test_a_message_comes_at_the_lower_qos(make: Make, published: int, granted: int, delivered: int) -> None:
    """3.8.4-6."""
    b = make()
    b.connect(1)
    b.subscribe(1, "t", granted)
    b.publish(1, "t", qos=published)
    assert [p.qos for p in b.sent()] == [delivered]


def test_each_filter_is_answered_and_qos_2_is_granted_as_1(make: Make) -> None:
    """3.8.4-1, 3.8.4-5, 3.8.4-6."""
    b = make(limits=ev.BrokerLimits(subscriptions_max=2))
    b.connect(1)
    wanted = (("a", 2), ("b", 0), ("c", 1))
    assert b.feed(ev.SubscribeReceived(1, wanted, 3)) == [ev.SendSuback(1, 3, (1, 0, ev.SUBSCRIBE_FAILED))]


@pytest.mark.parametrize("filters", [(), (("a/#/b", 0),), (("a", 3),)])
def test_a_malformed_subscribe_costs_the_connection(make: Make, filters: tuple[tuple[str, int], ...]) -> None:
    """3.8.3-3, 3.8.3-4, 4.7.1-2."""
    b = make()
    b.connect(1)
    b.feed(ev.SubscribeReceived(1, filters, 1))
    assert b.closed() == [1]


def test_unsubscribing_stops_delivery_and_is_always_answered(make: Make) -> None:
    """3.10.4-1, 3.10.4-4, 3.10.4-5."""
    b = make()
    b.connect(1)
    b.subscribe(1, "t")
    assert b.feed(ev.UnsubscribeReceived(1, ("t", "never"), 4)) == [ev.SendUnsuback(1, 4)]
    assert b.publish(1, "t") == []


# ------------------------------------------------------------------------------ retained


def test_a_retained_message_comes_with_the_flag_to_a_new_subscription_only(make: Make) -> None:
    """3.3.1-5, 3.3.1-6, 3.3.1-8, 3.3.1-9."""
    b = make()
    b.connect(1)
    b.connect(2)
    b.subscribe(1, "t")
    b.publish(2, "t", b"old", retain=True)
    assert [p.retain for p in b.sent()] == [False]
    b.publish(2, "t", b"new", qos=1, retain=True)
    b.subscribe(2, "+")
    assert [(p.payload, p.retain, p.qos) for p in b.sent()] == [(b"new", True, 1)]


def test_subscribing_again_brings_retained_messages_again(make: Make) -> None:
    """3.8.4-3."""
    b = make()
    b.connect(1)
    b.publish(1, "t", b"x", retain=True)
    b.subscribe(1, "t")
    b.subscribe(1, "t", 0)
    assert [(p.qos, p.retain) for p in b.sent()] == [(0, True)]
    b.publish(1, "t", b"y", qos=1)
    assert [p.qos for p in b.sent()] == [0]


def test_an_empty_retained_payload_deletes_and_is_still_delivered(make: Make) -> None:
    """3.3.1-10, 3.3.1-11."""
    b = make()
    b.connect(1)
    b.subscribe(1, "t")
    b.publish(1, "t", b"x", retain=True)
    b.publish(1, "t", b"", retain=True)
    assert [(p.payload, p.retain) for p in b.sent()] == [(b"", False)]
    b.connect(2)
    assert b.subscribe(2, "#") == [ev.SendSuback(2, 7, (1,))]


def test_an_unretained_message_leaves_the_retained_one(make: Make) -> None:
    """3.3.1-12."""
    b = make()
    b.connect(1)
    b.publish(1, "t", b"kept", retain=True)
    b.publish(1, "t", b"passing")
    assert [p.payload for p in b.model.retained()] == [b"kept"]


# ----------------------------------------------------------------------------------- ACL


def test_access_is_asked_on_every_way(make: Make) -> None:
    """3.3.5-2: a denied publish is acknowledged and dropped; wills and retained ones obey too."""
    refused: set[tuple[str, str]] = set()

    def acl(client: str, username: str, action: ev.AclAction, topic: str) -> bool:
        assert username == f"user-{client}"
        return (action.value, topic) not in refused

    b = make(acl=acl)
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


# ----------------------------------------------------------------------- restart, quirks


def world_before_restart(make: Make) -> Any:
    b = make()
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
    make: Make, survival: ev.Survival, payloads: list[bytes], present: bool
) -> None:
    b = world_before_restart(make)
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


def test_a_roll_back_brings_back_what_was_acknowledged_meanwhile(make: Make) -> None:
    b = world_before_restart(make)
    b.model.snapshot()
    b.feed(ev.PubackReceived(1, 1))
    b.model.restart(ev.Survival.ROLLED_BACK)
    b.connect(3, "kept", clean_session=False)
    assert [(p.payload, p.dup) for p in b.sent()] == [(b"old", True)]
    b.model.restart(ev.Survival.ROLLED_BACK)  # the copy is not used up
    assert [p.payload for p in b.model.retained()] == [b"old"]


def test_a_roll_back_without_a_copy_loses_everything(make: Make) -> None:
    b = world_before_restart(make)
    b.model.restart(ev.Survival.ROLLED_BACK)
    assert list(b.model.retained()) == []


def test_quirk_no_retained_message_for_wildcards(make: Make) -> None:
    b = make(quirks=ev.BrokerQuirks(no_retained_for_wildcards=True))
    b.connect(1)
    b.publish(1, "t", retain=True)
    b.subscribe(1, "+")
    assert b.sent() == []
    b.subscribe(1, "t")
    assert len(b.sent()) == 1


def test_quirk_redelivery_on_a_live_connection(make: Make) -> None:
    b = make(quirks=ev.BrokerQuirks(redeliver_live_ms=1_000))
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


def test_quirk_a_will_comes_late(make: Make) -> None:
    b = make(quirks=ev.BrokerQuirks(will_late_ms=30_000))
    b.connect(1, "a", will=WILL)
    b.feed(ev.ConnectionLost(1))
    b.connect(2, "a")
    b.publish(2, "w/1", b"birth", retain=True)
    assert b.model.next_due_ms() == 30_000
    b.to(30_000)
    assert [p.payload for p in b.model.retained()] == [b"gone"]


def test_quirk_silence_is_not_noticed_until_the_quirk_ends(make: Make) -> None:
    b = make(quirks=ev.BrokerQuirks(silence_unnoticed=True))
    b.connect(1, "a", keep_alive_ms=10_000, will=WILL)
    assert b.to(100_000) == [] and b.model.connected("a")
    b.model.quirks = replace(b.model.quirks, silence_unnoticed=False)
    b.to(115_000)
    assert b.closed() == [1]


def test_quirk_one_copy_for_each_overlapping_subscription(make: Make) -> None:
    """3.3.5 allows further copies, each at its own QoS."""
    b = make(quirks=ev.BrokerQuirks(copies_for_overlaps=True))
    b.connect(1)
    b.subscribe(1, "a/+", 0)
    b.subscribe(1, "a/b", 1)
    b.publish(1, "a/b", qos=1)
    assert sorted(p.qos for p in b.sent()) == [0, 1]


def test_a_message_to_nobody_and_a_timer_with_nothing_due_do_nothing(make: Make) -> None:
    b = make()
    b.connect(1)
    assert b.publish(1, "t") == [] and b.to(5) == []
