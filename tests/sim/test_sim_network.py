"""The simulated network: what each kind of weather and cut does, and that a seed repeats it."""

from __future__ import annotations

import pytest
from bare_network import CONTROLLER, FLEET, Net, topic

from broker.events import BrokerQuirks, Publication, Survival
from protocol import topics
from sim.clockwork import START_MS
from sim.network import KEEPALIVE_MS, Weather

GIVEN_UP_MS = 2 * KEEPALIVE_MS


@pytest.fixture
def net() -> Net:
    return Net()


# ------------------------------------------------------------- a fair day


@pytest.mark.parametrize("latency_ms", [(1, 5), (1, 900)])
def test_whatever_the_latency_everything_comes_once_and_in_order(
    net: Net, latency_ms: tuple[int, int]
) -> None:
    device = net.device()
    net.network.weather = Weather(latency_ms)
    for number in range(50):
        device.say("runs", bytes([number]))
    net.pass_ms(2_000)
    assert device.news == ["up"] and net.controller.payloads() == [bytes([n]) for n in range(50)]


def test_an_idle_connection_lives_on_pings(net: Net) -> None:
    device = net.device()
    net.pass_ms(600_000)
    assert device.news == ["up"] and net.broker.connected("d0")


def test_a_connection_with_nobody_to_answer_is_refused(net: Net) -> None:
    net.network.restart_broker(5_000)
    device = net.end("d0").connect()
    net.pass_ms(1_000)
    assert device.news == ["refused"] and not net.network.lines


# ------------------------------------------------------------- weather


def test_loss_takes_qos_0_only(net: Net) -> None:
    device = net.device()
    net.network.weather = Weather(lost=0.3)
    for _ in range(400):
        device.say("heartbeat", b"0", qos=0)
        device.say("runs", b"1")
    net.pass_ms(1_000)
    payloads = net.controller.payloads()
    assert payloads.count(b"1") == 400 and 150 < payloads.count(b"0") < 250  # 0.7 of each way


def test_doubles_come_on_both_ways_and_of_qos_1_only(net: Net) -> None:
    device = net.device()
    net.network.weather = Weather(doubled=0.5)
    for _ in range(200):
        net.controller.tell(topic("d0", "assignments"), b"1")
        net.controller.tell(topic("d0", "lease"), b"0", qos=0)
    net.pass_ms(1_000)
    assert device.payloads().count(b"0") == 200 and 360 < device.payloads().count(b"1") < 540  # 1.5 * 1.5


def test_stragglers_come_minutes_late_and_out_of_order(net: Net) -> None:
    device = net.device()
    net.network.weather = Weather(straggling=0.5, straggle_ms=180_000)
    for number in range(100):
        device.say("runs", bytes([number]))
    net.pass_ms(1_000)
    early = len(net.controller.heard)
    net.pass_ms(370_000)
    assert 10 < early < 50 and sorted(net.controller.payloads()) == [bytes([n]) for n in range(100)]
    assert net.controller.payloads() != sorted(net.controller.payloads())


def test_a_straggler_outlives_its_connection_on_both_ways(net: Net) -> None:
    """A cluster's node passes on late what it took in time: words of a session that is over."""
    device = net.device()
    net.network.weather = Weather(straggling=1.0, straggle_ms=60_000)
    device.say("status", b"of the old session")
    net.controller.tell(topic("d0", "assignments"), b"to the old session")
    net.pass_ms(10)
    net.network.abandon(device.connection)
    net.network.weather = Weather()
    device.connect()
    net.pass_ms(130_000)
    assert b"of the old session" in net.controller.payloads()
    assert b"to the old session" in device.payloads()


def test_a_broker_that_dies_takes_its_stragglers_along(net: Net) -> None:
    device = net.device()
    net.network.weather = Weather(straggling=1.0, straggle_ms=60_000)
    device.say("status", b"late")
    net.pass_ms(10)
    net.network.restart_broker()
    net.network.weather = Weather()
    net.pass_ms(100)
    net.controller.connect(*topics.up_filters(FLEET))
    net.pass_ms(70_000)
    assert net.controller.payloads() == []


def test_lost_answers_are_lease_answers_only(net: Net) -> None:
    device = net.device()
    net.network.weather = Weather(lost_answers=0.5)
    for _ in range(200):
        net.controller.tell(topic("d0", "lease"), b"lease", qos=0)
        net.controller.tell(topic("d0", "settings"), b"settings", qos=0)
    net.pass_ms(1_000)
    assert device.payloads().count(b"settings") == 200 and 60 < device.payloads().count(b"lease") < 140


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_dropped_packet_costs_its_connection(net: Net, way: str) -> None:
    """Nothing behind it arrives, each end finds out by itself, and the will is due."""
    device = net.device(will=Publication(topic("d0", "status"), b"will", 1, True))
    net.network.weather = Weather(dropped=1.0)
    if way == "up":
        device.say("runs", b"dropped")
    else:
        net.controller.tell(topic("d0", "assignments"), b"dropped", qos=1)
    net.network.weather = Weather()
    device.say("runs", b"behind")
    net.pass_ms(6_000)
    if way == "up":
        assert device.news == ["up", "reset"] and net.controller.payloads() == [b"will"]
    else:
        assert device.news == ["up"] and net.controller.news == ["up", "reset"]
    assert len(net.network.lines) == 1


# ------------------------------------------------------------- cuts


def test_a_short_cut_only_delays(net: Net) -> None:
    device = net.device()
    net.network.cut("d0")
    device.say("runs", b"1")
    device.say("runs", b"2")
    net.pass_ms(4_000)
    assert net.controller.heard == []
    net.network.heal("d0")
    net.pass_ms(100)
    assert net.controller.payloads() == [b"1", b"2"] and device.news == ["up"]


def test_a_long_cut_ends_the_connection_at_both_ends(net: Net) -> None:
    device = net.device(will=Publication(topic("d0", "status"), b"will", 1, True))
    net.network.cut("d0")
    net.pass_ms(GIVEN_UP_MS)
    assert device.news == ["up", "keep-alive elapsed"] and net.controller.payloads() == [b"will"]
    net.network.heal("d0")
    net.pass_ms(1_000)
    assert "d0" not in [line.client for line in net.network.lines.values()]


def test_a_way_up_that_is_cut_still_brings_what_comes_down(net: Net) -> None:
    device = net.device()
    net.network.cut("d0", up=True, down=False)
    device.say("runs", b"up")
    net.controller.tell(topic("d0", "assignments"), b"down")
    net.pass_ms(3_000)
    assert device.payloads() == [b"down"] and net.controller.payloads() == []


def test_a_way_down_that_is_cut_still_brings_what_goes_up(net: Net) -> None:
    device = net.device()
    net.network.cut("d0", up=False, down=True)
    device.say("runs", b"up")
    net.controller.tell(topic("d0", "assignments"), b"down")
    net.pass_ms(3_000)
    assert device.payloads() == [] and net.controller.payloads() == [b"up"]
    net.pass_ms(GIVEN_UP_MS)
    assert "keep-alive elapsed" in device.news


def test_a_controller_may_be_cut_while_devices_and_another_controller_are_not(net: Net) -> None:
    device = net.device()
    other = net.end("_controller-c2").connect(*topics.up_filters(FLEET))
    net.pass_ms(100)
    net.network.cut(CONTROLLER)
    device.say("runs", b"1")
    net.pass_ms(GIVEN_UP_MS)
    assert other.payloads() == [b"1"] and net.controller.payloads() == [] and device.news == ["up"]
    assert "keep-alive elapsed" in net.controller.news


def test_clones_share_a_client_id_and_are_cut_apart(net: Net) -> None:
    first = net.device("d0")
    second = net.device("d0", place="d0 clone")
    assert first.news == ["up", "taken over"] and second.news == ["up"]
    net.network.cut("d0")
    second.say("runs", b"from the clone")
    net.pass_ms(1_000)
    assert net.controller.payloads() == [b"from the clone"]
    net.network.cut("d0 clone")
    second.say("runs", b"held")
    net.pass_ms(1_000)
    assert net.controller.payloads() == [b"from the clone"]


# ------------------------------------------------------------- standstill and death


@pytest.mark.parametrize("client", ["d0", "_controller-c2"])
def test_a_frozen_process_is_given_up_by_the_broker(net: Net, client: str) -> None:
    end = net.end(client).connect(topic("d0", "assignments") if client == "d0" else topic("+", "runs"))
    net.pass_ms(100)
    net.network.freeze(client)
    net.pass_ms(GIVEN_UP_MS)
    assert not net.broker.connected(client) and net.broker.connected(CONTROLLER)
    net.network.thaw(client)
    assert end.news == ["up", "keep-alive elapsed"]


def test_a_killed_process_sends_its_will_at_once_and_a_pulled_plug_when_the_broker_notices(net: Net) -> None:
    killed = net.device("d0", will=Publication(topic("d0", "status"), b"killed", 1))
    pulled = net.device("d1", will=Publication(topic("d1", "status"), b"pulled", 1))
    net.network.abandon(killed.connection)
    net.network.vanish(pulled.connection)
    net.pass_ms(100)
    assert net.controller.payloads() == [b"killed"]
    net.pass_ms(GIVEN_UP_MS)
    assert net.controller.payloads() == [b"killed", b"pulled"]


def test_an_orderly_goodbye_sends_none(net: Net) -> None:
    device = net.device(will=Publication(topic("d0", "status"), b"will", 1))
    net.network.disconnect(device.connection)
    net.pass_ms(GIVEN_UP_MS)
    assert net.controller.heard == [] and device.news == ["up", "closed"]


def test_a_machine_that_vanishes_while_it_connects_leaves_nothing_for_ever(net: Net) -> None:
    device = net.end("d0").connect()
    net.network.vanish(device.connection)
    net.pass_ms(GIVEN_UP_MS)
    assert len(net.network.lines) == 1 and not net.broker.connected("d0")


# ------------------------------------------------------------- the broker


def test_quirks_change_while_it_runs(net: Net) -> None:
    device = net.device(will=Publication(topic("d0", "status"), b"late", 1))
    net.network.quirks(BrokerQuirks(will_late_ms=30_000))
    net.network.abandon(device.connection)
    net.pass_ms(20_000)
    assert net.controller.heard == []
    net.pass_ms(15_000)
    assert net.controller.payloads() == [b"late"]
    net.network.quirks(BrokerQuirks(no_retained_for_wildcards=True))
    net.device("d1").say("runs", b"kept", retain=True)
    net.controller.heard.clear()
    other = net.end("_controller-c2").connect(topic("+", "runs"))
    net.pass_ms(100)
    assert other.heard == []
    net.network.quirks(BrokerQuirks())
    third = net.end("_controller-c3").connect(topic("+", "runs"))
    net.pass_ms(100)
    assert third.payloads() == [b"kept"]


def test_a_frozen_client_acknowledges_nothing_so_a_broker_may_send_again(net: Net) -> None:
    device = net.device()
    net.network.quirks(BrokerQuirks(redeliver_live_ms=2_000))
    net.network.freeze("d0")
    net.controller.tell(topic("d0", "assignments"), b"again")
    net.pass_ms(3_000)
    net.network.thaw("d0")
    net.pass_ms(10_000)
    assert 2 <= device.payloads().count(b"again") <= 3


def test_silence_may_go_unnoticed(net: Net) -> None:
    net.network.quirks(BrokerQuirks(silence_unnoticed=True))
    device = net.device(will=Publication(topic("d0", "status"), b"will", 1))
    net.network.vanish(device.connection)
    net.pass_ms(10 * GIVEN_UP_MS)
    assert net.controller.heard == [] and net.broker.connected("d0")


@pytest.mark.parametrize(
    ("survival", "kept"), [(Survival.KEPT, b"2"), (Survival.ROLLED_BACK, b"1"), (Survival.LOST, None)]
)
def test_a_broker_comes_back_with_what_it_kept(net: Net, survival: Survival, kept: bytes | None) -> None:
    device = net.device()
    device.say("runs", b"1", retain=True)
    net.pass_ms(100)
    net.broker.snapshot()
    device.say("runs", b"2", retain=True)
    net.pass_ms(100)
    net.network.restart_broker(1_000, survival)
    net.pass_ms(2_000)
    assert device.news == ["up", "broker restarted"] and not net.network.lines
    net.controller.heard.clear()
    net.controller.connect(*topics.up_filters(FLEET))
    net.pass_ms(100)
    assert net.controller.payloads() == ([kept] if kept else [])


# ------------------------------------------------------------- repetition


def a_storm(seed: int) -> str:
    """Everything at once; the trace of what everybody heard."""
    net = Net(seed)
    net.network.weather = Weather((1, 400), 0.3, 0.5, 0.3, 60_000, 0.5, 0.01)
    ends = [net.end(f"d{n}").connect() for n in range(4)]
    dice = net.clock.stream("test")
    for step in range(300):
        end = dice.choice(ends)
        if (end.news or [""])[-1] != "up":
            end.connect()
        end.say("runs", bytes([step % 256]))
        net.controller.tell(topic(end.client, "assignments"), b"a")
        if dice.random() < 0.1:
            dice.choice((net.network.cut, net.network.heal))(end.client)
        if dice.random() < 0.02:
            net.network.restart_broker(dice.randint(0, 2_000), dice.choice(list(Survival)))
            net.controller.connect(*topics.up_filters(FLEET))
        net.pass_ms(dice.randint(0, 2_000))
    net.clock.trace("test", repr([(end.heard, end.news) for end in (*ends, net.controller)]))
    return net.clock.digest()


def test_a_seed_is_one_storm() -> None:
    assert a_storm(3) == a_storm(3) != a_storm(4)


def test_a_long_storm_leaves_nothing_behind() -> None:
    """Lines, held packets and timers are those of the living connections (I14 of the simulator)."""
    net = Net(5)
    ends = [net.end(f"d{n}") for n in range(5)]
    dice = net.clock.stream("test")
    for _ in range(2_000):
        end = dice.choice(ends)
        (net.network.abandon if dice.random() < 0.5 else net.network.vanish)(end.connection)
        end.connect()
        if dice.random() < 0.2:
            net.network.cut(end.client)
        net.pass_ms(dice.randint(0, 3_000))
        net.network.heal(end.client)
    for end in ends:
        net.network.abandon(end.connection)
    net.pass_ms(4 * GIVEN_UP_MS)
    assert [line.client for line in net.network.lines.values()] == [CONTROLLER]
    assert net.clock.pending() < 10 and net.clock.now_ms > START_MS
