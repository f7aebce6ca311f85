"""When a heartbeat tells the device's health: what is news, what is repeated, what it costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.events import SensorsRead
from edge_agent.core.vitals import REPEAT_MS, TRIPS, Vitals
from protocol.codec import decode, encode
from protocol.messages import (
    HEALTH_KNOWN,
    NO_HEALTH,
    ON_BATTERY,
    THROTTLED,
    UNDERVOLTAGE,
    Health,
    Heartbeat,
    Held,
    Used,
)
from protocol.topics import Topic

FINE = Health(HEALTH_KNOWN, 50, 0, 0, 0)
FULL = Health(HEALTH_KNOWN | THROTTLED | UNDERVOLTAGE | ON_BATTERY, 85, 40, 90, 1_200)


class Pulse:
    """Heartbeats one after another, each answered unless it is lost."""

    def __init__(self, measured: Health = FINE) -> None:
        self.vitals = Vitals()
        self.vitals.begin()
        self.vitals.read(measured)
        self.seq, self.now_ms = 0, 1_000_000

    def beat(self, measured: Health | None = None, lost: bool = False, trip_ms: int = 20) -> Health:
        if measured is not None:
            self.vitals.read(measured)
        self.seq, self.now_ms = self.seq + 1, self.now_ms + 1_000
        told = self.vitals.tell(self.seq, self.now_ms)
        if not lost:
            self.vitals.answered(self.seq, trip_ms)
        return told


def test_who_has_no_sensors_tells_nothing_ever():
    pulse = Pulse(NO_HEALTH)
    assert [pulse.beat() for _ in range(100)] == [NO_HEALTH] * 100
    assert not pulse.vitals.known


def test_it_is_told_first_then_with_the_first_round_trip_then_once_a_minute():
    pulse = Pulse()
    assert pulse.beat() == FINE
    assert pulse.beat() == FINE._replace(latency_ms=20)
    told = [pulse.beat() for _ in range(3 * REPEAT_MS // 1_000)]
    assert [n for n, health in enumerate(told) if health != NO_HEALTH] == [59, 119, 179]


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"temperature_c": 51}, False),
        ({"temperature_c": 52}, True),
        ({"temperature_c": 48}, True),
        ({"battery_percent": 94}, False),
        ({"battery_percent": 93}, True),
        ({"wear_percent": 11}, True),
        ({"flags": HEALTH_KNOWN | THROTTLED}, True),
        ({"latency_ms": 39}, False),
        ({"latency_ms": 40}, True),
        ({"latency_ms": 10}, True),
        ({"latency_ms": 11}, False),
    ],
)
def test_only_what_differs_enough_is_news(change, news):
    steady = Health(HEALTH_KNOWN, 50, 98, 10, 20)
    pulse = Pulse(steady)
    assert (pulse.beat(), pulse.beat()) == (steady, NO_HEALTH)
    assert (pulse.beat(steady._replace(**change)) != NO_HEALTH) is news


def test_small_steps_add_up_and_a_flicker_does_not():
    pulse = Pulse(FINE._replace(latency_ms=20))
    pulse.beat()
    assert [
        pulse.beat(FINE._replace(temperature_c=c, latency_ms=20)).temperature_c for c in (51, 52, 53, 52)
    ] == [
        0,
        52,
        0,
        0,
    ]


def test_a_millisecond_more_on_a_fast_link_is_no_news():
    pulse = Pulse(FINE._replace(latency_ms=1))
    pulse.beat()
    assert pulse.beat(FINE._replace(latency_ms=5)) == NO_HEALTH
    assert pulse.beat(FINE._replace(latency_ms=6)).latency_ms == 6


def test_what_was_told_in_a_lost_heartbeat_is_told_again():
    pulse = Pulse(FINE._replace(latency_ms=20))
    assert pulse.beat(lost=True) == pulse.beat(lost=True) == pulse.beat() != NO_HEALTH
    assert pulse.beat() == NO_HEALTH
    pulse.beat(FULL, lost=True)
    assert (pulse.beat(), pulse.beat()) == (FULL, NO_HEALTH)


def test_the_answer_of_a_later_heartbeat_proves_nothing_of_a_lost_one():
    vitals = Vitals()
    vitals.begin()
    vitals.read(FINE._replace(latency_ms=20))
    told = vitals.tell(1, 0)
    vitals.answered(2, 10)
    assert vitals.tell(3, 2_000) == told


def test_a_new_session_is_told_everything():
    pulse = Pulse()
    pulse.beat(), pulse.beat()
    pulse.vitals.begin()
    pulse.seq = 0
    assert pulse.beat() == FINE, "and the old link's round trips are forgotten"


def test_the_latency_is_the_median_of_the_last_round_trips():
    pulse = Pulse()
    for trip_ms in (10, 10, 60_000, 12, 11, 13, 9):
        pulse.beat(trip_ms=trip_ms)
    assert pulse.vitals.health.latency_ms == 11
    for _ in range(TRIPS):
        pulse.beat(trip_ms=300)
    assert pulse.vitals.health.latency_ms == 300
    pulse.vitals.answered(pulse.seq, 9_000_000)
    assert pulse.vitals.health.latency_ms == 300, "a second copy of an answer is no round trip"


def test_a_round_trip_of_hours_still_fits_the_wire():
    pulse = Pulse()
    for _ in range(TRIPS):
        pulse.beat(trip_ms=10 * 3_600_000)
    health = pulse.vitals.health
    message = Heartbeat(1, 1, Held(0, 0, 0, 0, 0, 0), health=health)
    assert decode(Topic("f", "d", "heartbeat"), encode(message)) == message


def test_an_agent_tells_it_in_its_first_heartbeat_and_then_leaves_it_out(bench, kit):
    fresh = kit.Bench()
    fresh.boot()
    fresh.feed(SensorsRead(Used(100, 200, 300), FINE))
    (first,) = kit.heartbeats(fresh.up())
    assert first.health == FINE
    fresh.now += 30
    fresh.answer()
    (second,) = kit.heartbeats(fresh.at(fresh.now + 10_000))
    assert second.health == FINE._replace(latency_ms=30)
    fresh.answer()
    (third,) = kit.heartbeats(fresh.at(fresh.now + 10_000))
    assert third.health == NO_HEALTH


def test_an_alarm_does_not_wait_for_the_next_heartbeat(kit):
    bench = kit.Bench()
    bench.boot()
    bench.feed(SensorsRead(Used(0, 0, 0), FINE))
    bench.up()
    bench.answer()
    bench.at(bench.now + 3_000)
    alarm = FINE._replace(flags=HEALTH_KNOWN | UNDERVOLTAGE)
    bench.feed(SensorsRead(Used(0, 0, 0), alarm._replace(temperature_c=51)))
    (said,) = kit.heartbeats(bench.at(bench.now + 1_000))
    assert said.health.flags == alarm.flags
    bench.answer()
    bench.feed(SensorsRead(Used(0, 0, 0), alarm._replace(temperature_c=90)))
    assert not kit.heartbeats(bench.at(bench.now + 1_000)), "heat alone waits"


def test_a_device_without_health_rests_and_one_with_it_does_not(bench):
    bench.answer()
    assert bench.agent.at_rest()
    bench.feed(SensorsRead(Used(0, 0, 0), FINE))
    assert not bench.agent.at_rest()


READINGS = st.builds(
    Health,
    flags=st.sampled_from((1, 3, 5, 9)),
    temperature_c=st.integers(45, 52),
    battery_percent=st.integers(80, 90),
    wear_percent=st.integers(0, 2),
    latency_ms=st.integers(1, 60),
)


@given(st.lists(st.tuples(READINGS, st.booleans(), st.booleans()), max_size=60))
def test_after_a_heartbeat_that_came_through_the_controller_is_right_within_the_steps(beats):
    """Whatever was lost before, in either direction: it is told, or what is known is near enough."""
    pulse = Pulse(NO_HEALTH)
    known = NO_HEALTH
    for measured, lost, answer_lost in beats:
        pulse.vitals.read(measured)
        pulse.seq, pulse.now_ms = pulse.seq + 1, pulse.now_ms + 1_000
        told = pulse.vitals.tell(pulse.seq, pulse.now_ms)
        if lost:
            continue
        known = told if told != NO_HEALTH else known
        if not answer_lost:
            pulse.vitals.answered(pulse.seq, 20)
        assert (known.flags, known.wear_percent) == (measured.flags, measured.wear_percent)
        assert abs(known.temperature_c - measured.temperature_c) < 2
        assert abs(known.battery_percent - measured.battery_percent) < 5
        low_ms, high_ms = sorted((known.latency_ms, measured.latency_ms))
        assert high_ms < 2 * low_ms or high_ms - low_ms < 5


def test_what_it_costs():
    """The largest usual heartbeat, without and with health."""
    plain = Heartbeat(
        (2**40 << 23) + 5, 4_000, Held(1_795_000_000, 200, 300, 2, 1_795_000_000, 9), Used(1500, 900, 40_000)
    )
    small = Heartbeat(plain.session, plain.seq, plain.held, plain.used, Health(1, 55, 0, 0, 20))
    large = Heartbeat(plain.session, plain.seq, plain.held, plain.used, FULL)
    assert len(encode(plain)) <= 48
    assert [len(encode(m)) - len(encode(plain)) for m in (small, large)] == [8, 12]
