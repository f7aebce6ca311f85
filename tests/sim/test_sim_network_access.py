"""Who may say and hear what on the simulated network, and who is told of it."""

from __future__ import annotations

import pytest
from bare_network import CONTROLLER, FLEET, Net, topic

from broker.events import BrokerQuirks, Publication
from sim.network import Weather
from sim.rogue import POISON, Rogue, forgeries


@pytest.fixture
def net() -> Net:
    return Net()


# ------------------------------------------------------------- strangers


def test_one_stolen_password_opens_nobody_elses_topics(net: Net) -> None:
    """I13: neither publications nor subscriptions nor the will of it come through."""
    victim = net.device("d1")
    net.controller.tell(topic("d1", "assignments"), b"secret", retain=True)
    net.pass_ms(100)
    will = Publication(topic("d1", "status"), POISON, 1, True)
    wants = ("#", "fm/#", topic("+", "assignments"), topic("d1", "runs"), topic("_controller", "status"))
    denied = net.broker.counts.denied
    says = forgeries(FLEET, "d1")
    net.network.rogue("d0", says, wants, will)
    net.pass_ms(5_000)
    net.controller.tell(topic("d1", "assignments"), b"more", retain=True)
    net.pass_ms(5_000)
    assert net.network.leaks() == [] and net.controller.heard == []
    assert net.broker.counts.denied == denied + len(says) + len(wants) + 1
    assert victim.payloads() == [b"secret", b"more"] and victim.news == ["up"]


def test_a_stolen_password_takes_its_own_device_over_once(net: Net) -> None:
    device = net.device("d0")
    net.network.rogue("d0", forgeries(FLEET, "d1"))
    net.pass_ms(100)
    assert device.news == ["up", "taken over"]
    net.device("d0")
    net.pass_ms(5_000)
    assert net.broker.connected("d0")


def test_a_broker_without_access_rules_is_found_out() -> None:
    """The rogue's eyes are open: it sees each kind of leak."""
    net = Net()
    net.broker._acl = None
    net.network.rogue("d0", (Publication(topic("d1", "runs"), b"forged", 1),))
    net.pass_ms(100)
    net.controller.tell(topic("d1", "assignments"), b"secret")
    net.pass_ms(100)
    words = " ".join(net.network.leaks())
    assert all(word in words for word in ("published", "subscribed #", "heard"))


# ------------------------------------------------------------- who listens


def test_what_travels_is_told_with_both_ends_and_both_times(net: Net) -> None:
    told: list[tuple[int, int, str, str, str, bytes]] = []
    net.network.on_travel = lambda *travel: told.append(travel)
    device = net.device()
    net.network.weather = Weather((10, 10))
    sent_ms = net.clock.now_ms
    device.say("runs", b"1", retain=True)
    net.pass_ms(100)
    assert told == [(sent_ms, sent_ms + 20, "d0", CONTROLLER, topic("d0", "runs"), b"1")]
    net.end("_controller-c2").connect(topic("+", "runs"))
    net.pass_ms(100)
    sender, receiver = told[-1][2:4]
    assert (sender, receiver) == ("", "_controller-c2")


def test_what_is_taken_and_handed_over_is_observed(net: Net) -> None:
    seen: list[tuple[str, bool, str, str]] = []
    net.network.on_delivered = lambda d: seen.append((d.client, d.received, d.topic, d.publisher))
    device = net.device()
    device.say("runs")
    device.tell(topic("d1", "runs"))  # denied
    net.pass_ms(100)
    own = topic("d0", "runs")
    assert seen == [("d0", False, own, "d0"), (CONTROLLER, True, own, "d0")]


def test_a_will_due_while_anothers_packet_is_handled_is_its_owners(net: Net) -> None:
    """I13: the broker first does what time made due, and then refuses what d1 forges."""
    seen: list[tuple[str, bool, str, str]] = []
    net.network.quirks(BrokerQuirks(will_late_ms=1_000))
    will = topic("d0", "status")
    device, other = net.device("d0", will=Publication(will, b"gone", 1, True)), net.device("d1")
    net.network.rogues.append(Rogue("d1", (), ()))
    net.network.on_delivered = lambda d: seen.append((d.client, d.received, d.topic, d.publisher))
    net.network._armed_ms = 0  # d1's packet comes in the same millisecond as the timer, and first
    net.network.abandon(device.connection)
    net.pass_ms(1_200)
    assert not seen
    other.tell(will)
    net.pass_ms(100)
    assert seen == [("d0", False, will, "d0"), (CONTROLLER, True, will, "")] and not net.network.leaks()


def test_a_foreign_will_that_is_let_in_is_a_leak() -> None:
    net = Net()
    net.broker._acl = None
    net.network.rogue("d0", (), (), Publication(topic("d1", "status"), b"forged", 1))
    net.pass_ms(5_000)
    assert net.network.leaks() == [f"d0's password published {topic('d1', 'status')}"]
