"""Devices' credentials: asked of whoever owns the broker, over one socket.

One JSON object per line each way, answered in order: `{"verb": "add", "device": …}` and
`{"verb": "remove", "device": …}`; the owner answers `{"password", "username"}`, `{}` or
`{"error"}`. A controller without an owner tells the operator to make the credential.
"""

from __future__ import annotations

import asyncio
import json
import socket

ANSWER_S = 15
LINE_BYTES_MAX = 65_536


class BrokerRefused(Exception):
    """The broker's owner could not do it; one line for people."""


class BrokerOwner:
    """Client side of the socket `fd`; none when `fd` is negative."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        if self._fd >= 0:
            sock = socket.socket(fileno=self._fd)
            self._streams = await asyncio.open_connection(sock=sock, limit=LINE_BYTES_MAX)

    async def ask(self, verb: str, device: str) -> dict[str, str]:
        """The owner's answer; empty without an owner. Raises `BrokerRefused`."""
        if self._streams is None:
            return {}
        reader, writer = self._streams
        async with self._turn:
            try:
                writer.write(json.dumps({"verb": verb, "device": device}).encode() + b"\n")
                await writer.drain()
                line = await asyncio.wait_for(reader.readline(), ANSWER_S)
                answer = json.loads(line)
            except (OSError, TimeoutError, ValueError) as error:
                raise BrokerRefused(f"the owner of the broker did not answer: {error}") from error
        if "error" in answer:
            raise BrokerRefused(str(answer["error"]))
        return {str(k): str(v) for k, v in answer.items()}


def agent_toml(
    device: str, fleet: str, host: str, port: int, username: str, password: str, data_dir: str, more: str = ""
) -> str:
    """The configuration of one agent, ready to be put on its machine. The password stands in it."""
    lines = [
        f"# Agent of device {device}. Holds its password: keep it readable by its owner only.",
        "[device]",
        f"id = {json.dumps(device)}",
        f"fleet = {json.dumps(fleet)}",
        f"data_dir = {json.dumps(data_dir)}",
        "",
        "[mqtt]",
        f"host = {json.dumps(host)}",
        f"port = {port}",
        f"username = {json.dumps(username)}",
        f"password = {json.dumps(password)}",
    ]
    return "\n".join(lines) + "\n" + more
