"""Which broker is chosen, and one that somebody else runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker import serve_mosquitto
from broker.contract import BrokerError, BrokerSetup, free_port
from broker.serve import ExternalBroker, choose

pytestmark = pytest.mark.live

DEADLINE_S = 15.0


def test_without_mosquitto_the_embedded_broker_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_mosquitto.shutil, "which", lambda *args, **options: None)
    broker = choose(BrokerSetup(tmp_path, "f"))
    assert broker.kind == "amqtt" and broker.warning is not None
    assert "not installed" in broker.warning and "install mosquitto" in broker.warning
    with pytest.raises(BrokerError, match="not installed"):
        choose(BrokerSetup(tmp_path, "f"), "mosquitto")


def test_another_amqtt_than_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.serve_amqtt.version", lambda name: "0.13.0")
    with pytest.raises(BrokerError, match=r"0\.13\.0"):
        choose(BrokerSetup(tmp_path, "f"), "amqtt")


def test_an_external_broker_gives_every_client_its_own_login(tmp_path: Path) -> None:
    async def main() -> None:
        broker = choose(BrokerSetup(tmp_path, "f", {"dev-a": "pa"}), "amqtt")
        await broker.start()
        try:
            # the embedded broker wants client id = user name, which the probe's is not
            external = ExternalBroker(f"mqtt://dev-a:pa@127.0.0.1:{broker.port}")
            assert external.login("dev-b", "x") == ("dev-a", "pa") and not external.manages_credentials
            with pytest.raises(BrokerError, match="not authorised"):
                await external.start()
        finally:
            await broker.stop()

    asyncio.run(main())


def test_an_external_broker_without_login_leaves_each_client_its_own() -> None:
    assert ExternalBroker("mqtt://h").login("dev-a", "pa") == ("dev-a", "pa")
    assert ExternalBroker("mqtt://h:9").port == 9 and ExternalBroker("mqtts://h").port == 8883
    loud = ExternalBroker("mqtt://u:secret@192.0.2.1").warning
    assert loud is not None and "without TLS" in loud and "secret" not in loud


def test_an_external_broker_that_goes_away_is_noticed() -> None:
    async def main() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(64)
            writer.write(b"\x20\x02\x00\x00")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        external = ExternalBroker(f"mqtt://127.0.0.1:{port}")
        await external.start()
        watching = asyncio.create_task(external.exited())
        server.close()
        await server.wait_closed()
        assert "no broker at" in await asyncio.wait_for(watching, DEADLINE_S)

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["http://x", "mqtt://", "mqtt://h:99999", "mqtt://h/path", "amqp://u:secret@h"]
)
def test_a_bad_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BrokerError) as caught:
        ExternalBroker(url)
    assert "secret" not in str(caught.value)


def test_nobody_listening_is_one_line() -> None:
    async def start() -> None:
        await ExternalBroker(f"mqtt://127.0.0.1:{free_port('127.0.0.1')}").start()

    with pytest.raises(BrokerError, match="no broker at") as caught:
        asyncio.run(start())
    assert "\n" not in str(caught.value)
