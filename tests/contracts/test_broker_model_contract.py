"""Conversations that the model and a real mosquitto 2 must both understand the same way.

A conversation is a function of a `World`; every line of it is a packet or a look at what
came. Where a real broker is free to choose (3.3.5: copies for overlaps), or does not keep to
it, the conversation asks only what a fleet relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from broker_worlds import MOSQUITTO, Got, ModelWorld, Mosquitto, MosquittoWorld, World


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    if MOSQUITTO is None:
        pytest.skip(
            "MOSQUITTO IS MISSING: the model is not compared with a real broker (apt install mosquitto)"
        )
    found = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(params=["model", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "model":
        yield ModelWorld()
        return
    real = MosquittoWorld(request.getfixturevalue("mosquitto"))
    try:
        yield real
    finally:
        real.close()


# ------------------------------------------------------------------ the conversations

CONVERSATIONS: list[Callable[[World], None]] = []


def conversation(tell: Callable[[World], None]) -> Callable[[World], None]:
    CONVERSATIONS.append(tell)
    return tell


@conversation
def retained_set_replaced_deleted(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.publish("pub", "ret/a", "1", 1, retain=True)
    w.publish("pub", "ret/a", "2", 1, retain=True)
    w.publish("pub", "ret/b", "3", 0, retain=True)
    w.subscribe("sub", "ret/+")
    assert sorted(w.got("sub", 2)) == [Got("ret/a", "2", 1, True), Got("ret/b", "3", 0, True)]
    w.publish("pub", "ret/a", "", 1, retain=True)
    w.publish("pub", "ret/b", "4", 1, retain=True)
    assert w.got("sub", 2) == [Got("ret/a", "", 1, False), Got("ret/b", "4", 1, False)]
    w.subscribe("sub", "ret/+")
    assert w.got("sub", 1) == [Got("ret/b", "4", 1, True)]
    w.publish("pub", "ret/b", "", 1, retain=True)


@conversation
def qos_is_the_lower_of_the_two(w: World) -> None:
    w.connect("pub")
    w.connect("low")
    w.connect("high")
    w.subscribe("low", "q/t", 0)
    w.subscribe("high", "q/t", 1)
    w.publish("pub", "q/t", "0", 0)
    w.publish("pub", "q/t", "1", 1)
    assert [g.qos for g in w.got("low", 2)] == [0, 0]
    assert [g.qos for g in w.got("high", 2)] == [0, 1]


@conversation
def overlapping_subscriptions_bring_every_message(w: World) -> None:
    """Not its QoS: 3.3.5-1 asks for the highest, mosquitto 2.0.11 sends one copy at the first match's."""
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "over/+", 0)
    w.subscribe("sub", "over/#", 1)
    w.publish("pub", "over/x", "x", 1)
    copies = w.got("sub", 1)
    assert len(copies) in (1, 2) and {g.payload for g in copies} == {"x"}


@conversation
def wildcards_and_parents(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "wild/+/z")
    w.subscribe("sub", "tree/#")
    for topic in ("wild/a/z", "wild/a/b/z", "wild//z", "tree", "tree/x/y", "trees"):
        w.publish("pub", topic, "x", 1)
    assert [g.topic for g in w.got("sub", 4)] == ["wild/a/z", "wild//z", "tree", "tree/x/y"]


@conversation
def unsubscribed_is_silent(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "un/t")
    w.unsubscribe("sub", "un/t")
    w.publish("pub", "un/t", "x", 1)
    assert w.got("sub") == []


@conversation
def a_lost_connection_sends_its_will(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wl/#")
    w.connect("dev", will=Got("wl/lost", "gone", 1, True))
    w.lose("dev")
    assert w.got("sub", 1) == [Got("wl/lost", "gone", 1, False)]
    w.subscribe("sub", "wl/lost")
    assert w.got("sub", 1) == [Got("wl/lost", "gone", 1, True)]
    w.publish("sub", "wl/lost", "", 1, retain=True)


@conversation
def an_orderly_goodbye_sends_none(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wg/#")
    w.connect("dev", will=Got("wg/bye", "gone", 1, False))
    w.leave("dev")
    w.connect("dev", will=Got("wg/bye", "never", 1, False))
    w.publish("dev", "wg/mark", "x", 1)
    assert [g.topic for g in w.got("sub", 1)] == ["wg/mark"]
    w.leave("dev")


@conversation
def a_take_over_closes_the_old_and_sends_its_will_first(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wt/#")
    w.connect("old", "twin", will=Got("wt/s", "old gone", 1, True))
    assert w.connect("new", "twin") is False
    w.publish("new", "wt/s", "birth", 1, retain=True)
    assert [g.payload for g in w.got("sub", 2)] == ["old gone", "birth"]
    assert not w.connected("old")
    w.subscribe("sub", "wt/s")
    assert w.got("sub", 1) == [Got("wt/s", "birth", 1, True)]
    w.publish("sub", "wt/s", "", 1, retain=True)


@conversation
def silence_closes_and_sends_the_will(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "ws/#")
    w.connect("dev", will=Got("ws/silent", "gone", 1, False), keep_alive_s=1)
    w.silence("dev")
    assert w.got("sub", 1) == [Got("ws/silent", "gone", 1, False)]


@conversation
def a_protocol_error_closes_and_sends_the_will(w: World) -> None:
    w.connect("sub")
    w.subscribe("sub", "wp/#")
    w.connect("dev", will=Got("wp/error", "gone", 1, True))
    w.violate("dev")
    assert w.got("sub", 1) == [Got("wp/error", "gone", 1, False)]
    assert not w.connected("dev")
    w.subscribe("sub", "wp/error")
    assert w.got("sub", 1) == [Got("wp/error", "gone", 1, True)]
    w.publish("sub", "wp/error", "", 1, retain=True)


@conversation
def a_clean_session_leaves_nothing(w: World) -> None:
    w.connect("a", "short")
    w.subscribe("a", "clean/t")
    w.lose("a")
    w.connect("pub")
    w.publish("pub", "clean/t", "missed", 1)
    assert w.connect("b", "short") is False
    w.publish("pub", "clean/t", "nobody", 1)
    assert w.got("b") == []


@conversation
def a_subscription_made_again_changes_its_qos_and_brings_retained_again(w: World) -> None:
    w.connect("pub")
    w.publish("pub", "twice/t", "kept", 1, retain=True)
    w.connect("sub")
    w.subscribe("sub", "twice/t", 1)
    w.subscribe("sub", "twice/t", 0)
    assert w.got("sub", 2) == [Got("twice/t", "kept", 1, True), Got("twice/t", "kept", 0, True)]
    w.publish("pub", "twice/t", "", 1, retain=True)
    assert w.got("sub", 1) == [Got("twice/t", "", 0, False)]


@conversation
def a_kept_session_gets_what_it_missed_in_order(w: World) -> None:
    assert w.connect("a", "keeper", clean=False) is False
    w.subscribe("a", "kept/t")
    w.lose("a")
    w.connect("pub")
    for number in range(5):
        w.publish("pub", "kept/t", str(number), 1)
    w.publish("pub", "kept/t", "qos 0", 0)
    assert w.connect("b", "keeper", clean=False) is True
    assert [(g.payload, g.dup) for g in w.got("b", 5) if g.qos] == [(str(n), False) for n in range(5)]
    w.leave("b")
    assert w.connect("c", "keeper", clean=True) is False
    w.publish("pub", "kept/t", "nobody", 1)
    assert w.got("c") == []


@conversation
def the_unacknowledged_come_again_with_dup(w: World) -> None:
    w.connect("a", "slow", clean=False, acks=False)
    w.subscribe("a", "again/t")
    w.connect("pub")
    for number in range(3):
        w.publish("pub", "again/t", str(number), 1)
    assert [g.dup for g in w.got("a", 3)] == [False] * 3
    w.lose("a")
    w.connect("b", "slow", clean=False)
    assert [(g.payload, g.dup) for g in w.got("b", 3)] == [("0", True), ("1", True), ("2", True)]
    w.leave("b")
    w.connect("c", "slow", clean=True)


@conversation
def a_wildcard_hides_dollar_topics(w: World) -> None:
    w.connect("pub")
    w.connect("sub")
    w.subscribe("sub", "+/dollar")
    w.subscribe("sub", "$mine/#")
    w.publish("pub", "$mine/dollar", "x", 1)
    w.publish("pub", "its/dollar", "y", 1)
    assert [g.topic for g in w.got("sub", 1) if g.topic != "$mine/dollar"] == ["its/dollar"]


@pytest.mark.parametrize("tell", CONVERSATIONS, ids=lambda tell: tell.__name__)
def test_a_conversation_goes_the_same_way(tell: Callable[[World], None], world: World) -> None:
    tell(world)
