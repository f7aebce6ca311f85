"""What the model and a real mosquitto refuse and forget alike: access, sizes, queues, restarts.

Each test holds one conversation in a broker of its own kind: with the fleet's access rules
as `broker.render` writes them, with small bounds, or one that dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker_worlds import MOSQUITTO, Got, ModelWorld, Mosquitto, MosquittoWorld, World

from broker.acl import FleetAcl
from broker.events import BrokerLimits, Survival
from broker.render import acl_text
from protocol.topics import build, up_filters

FLEET, CONTROLLER = "sim", "_controller-c1"
USERS = ("d0", "d1", CONTROLLER)
LIMITS = BrokerLimits(payload_bytes_max=100, packet_bytes_max=300, queued_max=3)
BOUNDS = (
    "message_size_limit 100",
    "max_packet_size 300",
    "max_queued_messages 3",
    "max_inflight_messages 20",
)

Make = Callable[[str], World]


@pytest.fixture(params=["model", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """`make("open" | "fleet" | "small")`: a world with that kind of broker."""
    children: list[Mosquitto] = []
    worlds: list[MosquittoWorld] = []

    def model(kind: str) -> World:
        return ModelWorld(LIMITS if kind == "small" else None, FleetAcl(FLEET) if kind == "fleet" else None)

    def real(kind: str) -> World:
        if MOSQUITTO is None:
            pytest.skip("MOSQUITTO IS MISSING: the model is not compared with a real broker")
        acl = tmp_path / "acl"
        acl.write_text(acl_text(FLEET, USERS))
        lines = {"open": (), "fleet": (f"acl_file {acl}",), "small": BOUNDS}[kind]
        children.append(Mosquitto(tmp_path, *lines))
        worlds.append(MosquittoWorld(children[-1]))
        return worlds[-1]

    yield model if request.param == "model" else real
    for world in worlds:
        world.close()
    for child in children:
        child.stop()


def topic(device: str, channel: str) -> str:
    return build(FLEET, device, channel)


# ------------------------------------------------------------- access


def fleet(make: Make, *devices: str) -> World:
    w = make("fleet")
    w.connect(CONTROLLER)
    for wanted in up_filters(FLEET):
        w.subscribe(CONTROLLER, wanted)
    for device in devices:
        w.connect(device)
    return w


def test_only_its_own_topics_are_published(make: Make) -> None:
    w = fleet(make, "d0")
    for device in ("d1", "d0"):
        for channel in ("runs", "status", "assignments", "lease"):
            w.publish("d0", topic(device, channel), "x", 1, retain=True)
    assert [g.topic for g in w.got(CONTROLLER, 2)] == [topic("d0", "runs"), topic("d0", "status")]
    w.connect("d1")
    w.subscribe("d1", topic("d1", "assignments"))
    assert w.got("d1") == []


@pytest.mark.parametrize("wanted", ["#", "fm/#", "fm/1/sim/+/assignments", "fm/1/sim/d1/assignments"])
def test_nothing_of_another_is_delivered_whatever_is_subscribed(make: Make, wanted: str) -> None:
    """Mosquitto grants any SUBSCRIBE and filters each delivery, the model answers 0x80."""
    w = fleet(make, "d0", "d1")
    w.publish(CONTROLLER, topic("d1", "assignments"), "retained", 1, retain=True)
    w.subscribe("d0", wanted)
    w.subscribe("d1", topic("d1", "assignments"))
    w.publish(CONTROLLER, topic("d1", "assignments"), "passing", 1)
    assert [(g.payload, g.retain) for g in w.got("d1", 2)] == [("retained", True), ("passing", False)]
    assert w.got("d0") == []


def test_a_will_on_anothers_topic_is_dropped_and_on_its_own_is_sent(make: Make) -> None:
    w = fleet(make)
    w.connect("d0", will=Got(topic("d1", "status"), "forged", 1, True))
    w.lose("d0")
    w.connect("again", "d0", will=Got(topic("d0", "status"), "own", 1, True))
    w.lose("again")
    assert [(g.topic, g.payload) for g in w.got(CONTROLLER, 1)] == [(topic("d0", "status"), "own")]
    w.subscribe(CONTROLLER, topic("+", "status"))
    assert [g.payload for g in w.got(CONTROLLER, 1)] == ["own"]


def test_who_has_no_line_may_do_nothing(make: Make) -> None:
    w = fleet(make, "d0")
    w.connect("_stranger")
    w.subscribe("_stranger", "#")
    w.publish("_stranger", topic("d0", "runs"), "x", 1)
    w.publish("d0", topic("d0", "runs"), "mine", 1, retain=True)
    assert [g.payload for g in w.got(CONTROLLER, 1)] == ["mine"] and w.got("_stranger") == []


# ------------------------------------------------------------- bounds


def test_a_payload_too_large_is_acknowledged_and_dropped(make: Make) -> None:
    w = make("small")
    w.connect("a")
    w.connect("b")
    w.subscribe("a", "t")
    w.publish("b", "t", "x" * 101, 1)
    w.publish("b", "t", "x" * 100, 1)
    assert [len(g.payload) for g in w.got("a", 1)] == [100]


def test_a_packet_too_large_costs_the_connection_and_sends_the_will(make: Make) -> None:
    w = make("small")
    w.connect("a")
    w.subscribe("a", "w")
    w.connect("b", will=Got("w", "gone", 1, False))
    w.violate_size("b", 400)
    assert [g.payload for g in w.got("a", 1)] == ["gone"] and not w.connected("b")


def test_a_full_queue_keeps_the_oldest_in_order(make: Make) -> None:
    w = make("small")
    w.connect("a", "keeper", clean=False)
    w.subscribe("a", "t")
    w.lose("a")
    w.connect("b")
    for number in range(40):
        w.publish("b", "t", str(number), 1)
    w.connect("c", "keeper", clean=False)
    kept = [g.payload for g in w.got("c", 3)]
    assert kept == [str(n) for n in range(len(kept))] and 3 <= len(kept) < 40


# ------------------------------------------------------------- restarts


@pytest.mark.parametrize(
    ("survival", "kept"), [(Survival.KEPT, "2"), (Survival.ROLLED_BACK, "1"), (Survival.LOST, "")]
)
def test_a_restart_keeps_rolls_back_or_loses(make: Make, survival: Survival, kept: str) -> None:
    """Retained messages and a kept session with what waits in it; a will of the dead is never sent."""
    w = make("open")
    w.connect("keeper", clean=False)
    w.subscribe("keeper", "q")
    w.lose("keeper")
    w.connect("pub", will=Got("will", "gone", 1, True))
    w.publish("pub", "ret", "1", 1, retain=True)
    w.publish("pub", "q", "1", 1)
    w.save()
    w.publish("pub", "ret", "2", 1, retain=True)
    w.publish("pub", "q", "2", 1)
    w.restart(survival)
    w.connect("sub")
    w.subscribe("sub", "ret")
    w.subscribe("sub", "will")
    assert [(g.topic, g.payload) for g in w.got("sub", 1 if kept else 0)] == ([("ret", kept)] if kept else [])
    assert w.connect("back", "keeper", clean=False) is bool(kept)
    waited = [g.payload for g in w.got("back", int(kept or 0))]
    assert waited == ["1", "2"][: int(kept or 0)]
