"""A small HTTP load generator: fixed bytes out, headers read just enough, nothing parsed twice.

The generator shares the machine with what it measures, so it must cost little: raw asyncio
protocols, one per client, each sending its next request when the answer is complete.
Latency is from the send of a request to the last byte of its answer (closed loop: with a
fixed number of clients there is no queue of intended sends to omit).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast


class Client(asyncio.Protocol):
    """One keep-alive connection that sends `count` requests one after another."""

    def __init__(
        self, make: Callable[[], bytes | None], latencies: list[float], statuses: dict[int, int]
    ) -> None:
        self.make, self.latencies, self.statuses = make, latencies, statuses
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.began = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._next()

    def _next(self) -> None:
        request = self.make()
        if request is None:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.buffer.lower().find(b"content-length:", 0, head)
        length = int(self.buffer[at + 15 : self.buffer.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self.buffer) < head + 4 + length:
            return
        status = int(self.buffer[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.append(time.perf_counter() - self.began)
        self.buffer = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def run_clients(
    host: str, port: int, clients: int, make: Callable[[], bytes | None]
) -> tuple[float, list[float], dict[int, int]]:
    """Seconds, latencies in seconds, answers by status. `make` returns None when enough was sent."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Client(make, latencies, statuses), host, port)
        for _ in range(clients)
    ]
    await asyncio.gather(*[client.done for _, client in made])
    return time.perf_counter() - began, latencies, statuses


def post(host: str, path: str, token: str, body: bytes, more: str = "") -> bytes:
    """The bytes of one POST with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body
