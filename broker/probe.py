"""Ask a broker one question: does it let this user in?

Rule of this file: one CONNECT (MQTT 3.1.1), one CONNACK, one DISCONNECT over a plain
socket, with a deadline. It is how a keeper knows that its broker is ready, and that a
reload of the credentials has happened.
Rejected: an MQTT library for fourteen bytes; watching the broker's log.
"""

from __future__ import annotations

import asyncio
import ssl

PROBE_TIMEOUT_MS = 2_000
_CLEAN_SESSION, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
ACCEPTED = 0


def connect_packet(client: str, username: str = "", password: str = "") -> bytes:
    """The bytes of a CONNECT with clean session and a keep-alive of ten seconds."""
    flags = _CLEAN_SESSION
    body = _string(client)
    if username:
        flags |= _USERNAME | _PASSWORD
        body += _string(username) + _string(password)
    rest = _string("MQTT") + bytes([4, flags, 0, 10]) + body
    return b"\x10" + _length(len(rest)) + rest


def _string(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _length(number: int) -> bytes:
    """The variable length of 2.2.3."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(out)


async def probe(
    host: str,
    port: int,
    client: str,
    username: str = "",
    password: str = "",
    tls: ssl.SSLContext | None = None,
    timeout_ms: int = PROBE_TIMEOUT_MS,
) -> int:
    """The return code of CONNACK (0: accepted, 4 and 5: refused).

    Raises `OSError` where nobody answers, answers something else, or in time (`TimeoutError`).
    """
    async with asyncio.timeout(timeout_ms / 1000):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            writer.write(connect_packet(client, username, password))
            answer = await reader.readexactly(4)
            if answer[:2] != b"\x20\x02":
                raise ConnectionError(f"{host}:{port} does not speak MQTT 3.1.1")
            if answer[3] == ACCEPTED:
                writer.write(b"\xe0\x00")
                await writer.drain()
            return answer[3]
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(f"{host}:{port} closed the connection unanswered") from error
        finally:
            writer.close()
