"""The contract of an MQTT link on a private mosquitto, for every implementation in the table."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import Iterator

import pytest

from live.link import WillMessage

pytestmark = [pytest.mark.live, pytest.mark.needs_mosquitto]


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_published_arrives_once_in_order_with_its_qos(link_bench, mosquitto, qos):
    async def scenario():
        hears = await link_bench.ear(mosquitto.port, "hears", subscriptions=(("t/+", qos),)).opened()
        says = await link_bench.ear(mosquitto.port, "says").opened()
        wanted = [(f"t/{n}", b"%d" % n * 50, qos, False) for n in range(300)]
        for topic, payload, _, _ in wanted:
            assert says.link.publish(topic, payload, qos, False)
        await hears.until(lambda: len(hears.messages) >= len(wanted))
        assert hears.messages == wanted
        await says.until(lambda: says.link.inflight == 0 and says.link.queued == 0)

    link_bench.run(scenario)


def test_large_and_empty_payloads_arrive_whole(link_bench, mosquitto):
    async def scenario():
        both = await link_bench.ear(mosquitto.port, subscriptions=(("t", 1),)).opened()
        payloads = [b"", os.urandom(65_536), os.urandom(127), os.urandom(128), os.urandom(16_384)]
        for payload in payloads:
            assert both.link.publish("t", payload, 1, False)
        await both.until(lambda: len(both.messages) == len(payloads))
        assert [message[1] for message in both.messages] == payloads

    link_bench.run(scenario)


def test_a_retained_message_waits_for_who_comes_later(link_bench, mosquitto):
    async def scenario():
        says = await link_bench.ear(mosquitto.port, "says").opened()
        assert says.link.publish("kept", b"doc", 1, True)
        await says.until(lambda: says.link.inflight == 0)
        hears = await link_bench.ear(mosquitto.port, "hears", subscriptions=(("kept", 1),)).opened()
        await hears.until(lambda: hears.messages)
        assert hears.messages == [("kept", b"doc", 1, True)]

    link_bench.run(scenario)


def test_the_will_is_sent_when_the_socket_dies_and_not_after_an_orderly_close(link_bench, mosquitto):
    async def scenario():
        hears = await link_bench.ear(mosquitto.port, "hears", subscriptions=(("will/+", 1),)).opened()
        for name, orderly in (("good", True), ("bad", False)):
            will = WillMessage(f"will/{name}", name.encode())
            ends = await link_bench.ear(mosquitto.port, name, will=will).opened()
            ends.link.close(orderly)
            assert ends.downs == [], "no handler is called from within close"
            assert await ends.down() == "closed"
        await hears.until(lambda: hears.messages)
        assert hears.messages == [("will/bad", b"bad", 1, False)]

    link_bench.run(scenario)


def test_an_orderly_close_sends_what_is_queued_even_while_reading_is_paused(link_bench, mosquitto):
    async def scenario():
        hears = await link_bench.ear(
            mosquitto.port, "hears", subscriptions=(("t/#", 1), ("will", 1))
        ).opened()
        says = await link_bench.ear(
            mosquitto.port, "says", inflight_max=2, will=WillMessage("will", b""), subscriptions=(("t/#", 1),)
        ).opened()
        says.link.pause_reading()
        for number in range(50):
            assert says.link.publish(f"t/{number}", b"x", 1, False)
        assert says.link.queued >= 48
        says.link.close(True)
        assert await says.down() == "closed"
        await hears.until(lambda: len(hears.messages) == 50)
        assert "will" not in [message[0] for message in hears.messages]

    link_bench.run(scenario)


def test_a_killed_broker_is_told_once_and_a_new_link_finds_its_successor(link_bench, mosquitto):
    async def scenario():
        first = await link_bench.ear(mosquitto.port).opened()
        mosquitto.kill()
        await first.down()
        assert not first.link.publish("t", b"", 1, False)
        refused = link_bench.ear(mosquitto.port)
        refused.link.open()
        assert "cannot connect" in await refused.down()
        await asyncio.to_thread(mosquitto.start)
        second = await link_bench.ear(mosquitto.port).opened()
        second.link.close(True)
        await second.down()
        for ear in (first, refused, second):
            assert len(ear.downs) == 1

    link_bench.run(scenario)


def test_pause_reading_holds_messages_back_and_resume_loses_none(link_bench, mosquitto):
    async def scenario():
        hears = await link_bench.ear(mosquitto.port, "hears", subscriptions=(("t", 1),)).opened()
        says = await link_bench.ear(mosquitto.port, "says").opened()
        hears.on_each = lambda: hears.link.pause_reading() if len(hears.messages) % 10 == 0 else None
        for number in range(100):
            assert says.link.publish("t", b"%d" % number, 1, False)
        for tens in range(10, 110, 10):
            await hears.until(lambda tens=tens: len(hears.messages) >= tens)
            await says.until(lambda: says.link.inflight == 0)
            assert len(hears.messages) == tens
            hears.link.resume_reading()
            assert len(hears.messages) == tens, "no handler is called from within resume_reading"
        assert [int(message[1]) for message in hears.messages] == list(range(100))

    link_bench.run(scenario)


def test_a_message_published_from_within_a_handler_arrives(link_bench, mosquitto):
    async def scenario():
        both = await link_bench.ear(mosquitto.port, subscriptions=(("a", 1), ("b", 1))).opened()
        both.on_each = lambda: len(both.messages) != 1 or both.link.publish("b", b"again", 1, False)
        both.link.publish("a", b"once", 1, False)
        await both.until(lambda: len(both.messages) == 2)
        both.on_each = lambda: both.link.close(False)
        both.link.publish("a", b"", 1, False)
        both.link.publish("a", b"", 1, False)
        assert await both.down() == "closed"
        assert len(both.messages) == 3, "nothing is delivered after close"

    link_bench.run(scenario)


def test_descriptors_beyond_1024_work(link_bench, mosquitto):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    dummies = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]

    async def scenario():
        both = await link_bench.ear(mosquitto.port, subscriptions=(("t", 1),)).opened()
        assert both.link.publish("t", b"far", 1, False)
        await both.until(lambda: both.messages)

    try:
        assert max(dummies) >= 1_024
        link_bench.run(scenario)
    finally:
        for dummy in dummies:
            os.close(dummy)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def guarded(mosquitto) -> Iterator[int]:
    """The private broker restarted with one user, `known` / `secret`, who may only read `open/#`."""
    folder = mosquitto.folder
    mosquitto.kill()
    passwords, rules = folder / "passwords", folder / "acl"
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", str(passwords), "known", "secret"], check=True, timeout=10
    )
    rules.write_text("user known\ntopic readwrite open/#\n")
    config = folder / "guarded.conf"
    config.write_text(
        f"listener {mosquitto.port} 127.0.0.1\nallow_anonymous false\npersistence false\n"
        f"password_file {passwords}\nacl_file {rules}\n" + ("user root\n" if os.geteuid() == 0 else "")
    )
    with (folder / "log").open("ab") as log:
        mosquitto.process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(config)], cwd=folder, stdout=log, stderr=log
        )
    yield mosquitto.port


def test_refused_credentials_are_told_as_such(link_bench, guarded):
    async def scenario():
        reason = "cannot connect"
        while "cannot connect" in reason:  # it may still be starting
            wrong = link_bench.ear(guarded, username="known", password="guess")
            wrong.link.open()
            reason = await wrong.down()
        assert reason.startswith("refused: ")
        assert wrong.said == [reason]
        await link_bench.ear(
            guarded, username="known", password="secret", subscriptions=(("open/x", 1),)
        ).opened()

    link_bench.run(scenario)
