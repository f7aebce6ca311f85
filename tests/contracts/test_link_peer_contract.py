"""The contract of an MQTT link against a peer that misbehaves by script."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from live.link import LinkOptions, TlsSettings

pytestmark = pytest.mark.live
CONNACK_OK, SUBACK_ONE = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"


def test_a_refused_subscription_is_down_with_the_filter_named(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, b"\x90\x04\x00\x01\x01\x80") as (port, _):
            ear = link_bench.ear(port, subscriptions=(("mine", 1), ("theirs", 1)))
            ear.link.open()
            assert await ear.down() == "subscription refused: theirs"
            assert not ear.up

    link_bench.run(scenario)


def test_a_peer_that_accepts_and_never_answers_is_given_up(link_bench, link_peer):
    async def scenario():
        async with link_peer() as (port, _):
            ear = link_bench.ear(port, connect_timeout_ms=200)
            ear.link.open()
            assert await ear.down() == "no answer within 200 ms"
        async with link_peer(CONNACK_OK) as (port, _):
            ear = link_bench.ear(port, connect_timeout_ms=200, subscriptions=(("t", 1),))
            ear.link.open()
            assert await ear.down() == "no answer within 200 ms"
            assert ear.said == ["no answer within 200 ms"]

    link_bench.run(scenario)


def test_a_peer_that_falls_silent_later_is_given_up_after_pings(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, SUBACK_ONE) as (port, read):
            ear = await link_bench.ear(port, keepalive_s=1, subscriptions=(("t", 0),)).opened()
            assert await ear.down() == "silent for 1500 ms"
            assert b"\xc0\x00" in b"".join(read)

    link_bench.run(scenario)


def test_a_quiet_link_lives_on_by_its_pings(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, SUBACK_ONE, pong=True) as (port, read):
            ear = await link_bench.ear(port, keepalive_s=1, subscriptions=(("t", 0),)).opened()
            await ear.until(lambda: read.count(b"\xc0\x00") >= 4)
            assert ear.said == ["up"]

    link_bench.run(scenario)


def test_while_reading_is_paused_silence_is_not_the_peers(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, SUBACK_ONE + b"\x30\x04\x00\x01ty" * 3) as (port, read):
            ear = link_bench.ear(port, keepalive_s=1, subscriptions=(("t", 0),))
            ear.on_each = ear.link.pause_reading
            ear.link.open()
            await ear.until(lambda: b"".join(read).count(b"\xc0\x00") >= 4)
            assert ear.said == ["up"] and len(ear.messages) == 1
            ear.link.resume_reading()
            await ear.until(lambda: len(ear.messages) == 2)

    link_bench.run(scenario)


def test_a_peer_that_closes_is_told_once(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, SUBACK_ONE, then_close=True) as (port, _):
            ear = link_bench.ear(port, subscriptions=(("t", 0),))
            ear.link.open()
            assert await ear.down() == "closed by the broker"
            ear.link.close(True)
            ear.link.close(False)
        assert len(ear.downs) == 1

    link_bench.run(scenario)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" * 3,
        b"\x20\xff\xff\xff\xff\xff",
        b"\x20\x03\x00\x00\x00",
        b"\x20\x02\x00\x7f",
        b"\x20\x00",
        b"\x30\x02\x00\x00",
        b"\xf0\x00",
        b"\x00" * 64,
        CONNACK_OK + CONNACK_OK,
        CONNACK_OK + b"\x90\x02\x00\x01",
        CONNACK_OK + b"\x90\x03\x00\x01\x77",
        CONNACK_OK + SUBACK_ONE + b"\x30\x01\x00",
        CONNACK_OK + SUBACK_ONE + b"\x30\x04\xff\xff\x61\x62",
        CONNACK_OK + SUBACK_ONE + b"\x34\x06\x00\x01t\x00\x01x",
        CONNACK_OK + SUBACK_ONE + b"\x40\x01\x00",
        CONNACK_OK + SUBACK_ONE + b"\xf0\x00",
        CONNACK_OK + SUBACK_ONE + b"\xd0\x05aaaaa",
        CONNACK_OK + SUBACK_ONE + b"\x62\x00",
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(link_bench, link_peer, garbage):
    async def scenario():
        async with link_peer(garbage) as (port, _):
            ear = link_bench.ear(port, subscriptions=(("t", 0),), connect_timeout_ms=1_000)
            ear.link.open()
            reason = await ear.down()
            assert reason.startswith(("unreadable", "refused", "no answer"))
            assert ear.downs == [reason] and ear.messages == []

    link_bench.run(scenario)


def test_messages_that_overtake_the_suback_are_delivered_after_up(link_bench, link_peer):
    early = b"".join(b"\x31\x04\x00\x01t%d" % n for n in range(5))
    late = b"\x30\x04\x00\x01t9"

    async def scenario():
        async with link_peer(CONNACK_OK, early + SUBACK_ONE + late) as (port, _):
            ear = await link_bench.ear(port, subscriptions=(("t", 0),)).opened()
            await ear.until(lambda: len(ear.messages) == 6)
            assert [message[1] for message in ear.messages] == [b"0", b"1", b"2", b"3", b"4", b"9"]
            assert ear.messages[0] == ("t", b"0", 0, True)

    link_bench.run(scenario)


def test_an_unreadable_topic_and_an_oversized_payload_are_delivered_for_the_decoder_to_refuse(
    link_bench, link_peer
):
    huge = b"\x32\x80\x80\x80\x01" + b"\x00\x01t\x00\x07" + b"x" * (2**21 - 5)
    answers = CONNACK_OK, SUBACK_ONE + b"\x30\x05\x00\x02t\xffx" + huge + b"\x30\x04\x00\x01ty"

    async def scenario():
        async with link_peer(*answers) as (port, read):
            ear = await link_bench.ear(port, subscriptions=(("t", 0),)).opened()
            await ear.until(lambda: len(ear.messages) == 3)
            assert ear.messages[0] == ("t�", b"x", 0, False)
            assert 65_536 < len(ear.messages[1][1]) <= 131_072
            assert ear.messages[2] == ("t", b"y", 0, False)
            await ear.until(lambda: b"\x40\x02\x00\x07" in b"".join(read), "the huge one is acknowledged")
            assert ear.downs == []

    link_bench.run(scenario)


def test_the_queue_is_bounded_and_qos_0_does_not_wait_for_the_window(link_bench, link_peer):
    async def scenario():
        async with link_peer(CONNACK_OK, SUBACK_ONE) as (port, read):
            ear = await link_bench.ear(port, inflight_max=3, queue_max=5, subscriptions=(("t", 0),)).opened()
            taken = [ear.link.publish("q1", b"%d" % n, 1, False) for n in range(10)]
            assert taken == [True] * 8 + [False] * 2
            assert (ear.link.inflight, ear.link.queued) == (3, 5)
            assert ear.link.publish("q0", b"fresh", 0, False)
            await ear.until(lambda: b"fresh" in b"".join(read))
            assert ear.link.queued == 5
            with pytest.raises(ValueError):
                ear.link.publish("a/+", b"", 0, False)
            with pytest.raises(ValueError):
                ear.link.publish("a", b"", 2, False)

    link_bench.run(scenario)


def test_a_peer_that_stops_reading_fills_the_queue_and_no_more(link_bench, link_peer):
    async def scenario():
        held: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)
            await reader.read(1_000)
            writer.write(CONNACK_OK)
            writer.transport.pause_reading()  # type: ignore[attr-defined]

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1_024)
        ear = await link_bench.ear(server.sockets[0].getsockname()[1], queue_max=20).opened()
        accepted = 0
        while ear.link.publish("t", b"x" * 60_000, 0, False):
            accepted += 1
            assert accepted < 2_000, "nothing bounds it"
            if accepted % 10 == 0:
                await asyncio.sleep(0)
        assert ear.link.queued == 20
        ear.link.close(True)
        assert await ear.down() == "closed"
        server.close()
        held[0].transport.abort()

    link_bench.run(scenario)


def test_close_while_connecting_is_one_down(link_bench, link_peer):
    async def scenario():
        async with link_peer() as (port, read):
            for orderly in (True, False):
                ear = link_bench.ear(port)
                ear.link.open()
                ear.link.close(orderly)
                assert await ear.down() == "closed"
                read.clear()
                waiting = link_bench.ear(port)
                waiting.link.open()
                await waiting.until(lambda: read)
                read.clear()
                waiting.link.close(orderly)
                assert await waiting.down() == "closed"

    link_bench.run(scenario)


def test_a_host_that_does_not_exist_or_a_ca_file_that_is_missing_is_down(link_bench, link_peer):
    async def scenario():
        for options in (
            LinkOptions("no-such-host.invalid", 1883, "a"),
            LinkOptions("127.0.0.1", 1, "a"),
            LinkOptions("127.0.0.1", 1, "a", tls=TlsSettings(ca_file="/nowhere/ca.pem")),
        ):
            ear = link_bench.ear_with(options)
            ear.link.open()
            assert "cannot connect" in await ear.down() or "no answer" in ear.downs[0]

    link_bench.run(scenario)


def test_a_bug_in_a_handler_ends_the_link_and_reaches_the_event_loop(link_bench, link_peer):
    caught: list[object] = []

    async def scenario():
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: caught.append(context.get("exception")))
        async with link_peer(CONNACK_OK, SUBACK_ONE + b"\x30\x04\x00\x01ty") as (port, _):
            ear = link_bench.ear(port, subscriptions=(("t", 0),))

            def fail() -> None:
                raise KeyError("ours")

            ear.on_each = fail
            ear.link.open()
            await ear.down()
        loop.set_exception_handler(before)

    link_bench.run(scenario)
    assert [type(bug) for bug in caught] == [KeyError]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> TlsSettings:
    """A self-signed one for 127.0.0.1: authority and server in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT RUN, openssl isn't installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=60)
    return TlsSettings(str(folder / "cert.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))


def _server_context(certificate: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    context.load_verify_locations(certificate.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_carries_messages_and_shows_our_certificate(link_bench, link_peer, certificate):
    long = b"\x30\x80\x80\x04" + b"\x00\x01t" + b"x" * (65_536 - 3)

    async def scenario():
        answers = CONNACK_OK, SUBACK_ONE + long + b"\x30\x04\x00\x01ty"
        async with link_peer(*answers, tls=_server_context(certificate)) as (port, read):
            ear = await link_bench.ear(port, tls=certificate, subscriptions=(("t", 0),)).opened()
            await ear.until(lambda: len(ear.messages) == 2)
            assert len(ear.messages[0][1]) == 65_533 and ear.messages[1][1] == b"y"
            assert ear.link.publish("up", b"z" * 40_000, 0, False)
            await ear.until(lambda: len(b"".join(read)) > 40_000)
            ear.link.close(True)
            await ear.until(lambda: b"".join(read).endswith(b"\xe0\x00"))
            assert await ear.down() == "closed"

    link_bench.run(scenario)


def test_a_tls_peer_that_is_unknown_plain_or_silent_is_down(link_bench, link_peer, certificate):
    async def scenario():
        async with link_peer(tls=_server_context(certificate)) as (port, _):
            ear = link_bench.ear(port, tls=TlsSettings())
            ear.link.open()
            assert "cannot connect" in await ear.down()
        async with link_peer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (port, _):
            ear = link_bench.ear(port, tls=certificate)
            ear.link.open()
            assert "cannot connect" in await ear.down()
        async with link_peer() as (port, _):
            ear = link_bench.ear(port, tls=certificate, connect_timeout_ms=200)
            ear.link.open()
            assert await ear.down() == "no answer within 200 ms"

    link_bench.run(scenario)
