"""Benches of contracts: every store; every link on both event loops, and a scripted peer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from controller.store.base import Store
from controller.store.memory import MemoryStore
from controller.store.sqlite import SqliteStore
from live.link import Link, LinkHandlers, LinkOptions
from live.links import LINKS

try:
    import uvloop
except ImportError:
    uvloop = None

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "fleet.db"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = STORES[request.param](tmp_path)
    made.open()
    with closing(made):
        yield made


LOOPS = ["asyncio", "uvloop"]
DEADLINE_S = 10.0


class Ear:
    """A link with everything it said."""

    def __init__(self, factory: Callable[[LinkOptions, LinkHandlers], Link], options: LinkOptions) -> None:
        self.said: list[str] = []
        self.messages: list[tuple[str, bytes, int, bool]] = []
        self.on_each: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self.link = factory(options, LinkHandlers(self._up, self._down, self._message))

    @property
    def up(self) -> bool:
        return "up" in self.said

    @property
    def downs(self) -> list[str]:
        return [word for word in self.said if word != "up"]

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        async def watch() -> None:
            while not condition():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue

        try:
            await asyncio.wait_for(watch(), DEADLINE_S)
        except TimeoutError:
            pytest.fail(f"not within {DEADLINE_S} s: {what}; said {self.said}, {len(self.messages)} messages")

    async def opened(self) -> Ear:
        self.link.open()
        assert self.said == [], "no handler is called from within open"
        await self.until(lambda: self.said)
        assert self.said == ["up"]
        return self

    async def down(self) -> str:
        await self.until(lambda: self.downs, "down")
        return self.downs[0]

    def _up(self) -> None:
        self.said.append("up")
        self._changed.set()

    def _down(self, reason: str) -> None:
        self.said.append(reason)
        self._changed.set()

    def _message(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        assert self.up and not self.downs, "messages come between up and down"
        self.messages.append((topic, payload, qos, retain))
        self._changed.set()
        self.on_each()


class Bench:
    """One implementation on one event loop."""

    def __init__(self, link: str, loop: str) -> None:
        self.factory, self._loop = LINKS[link], loop

    def ear(self, port: int, client_id: str = "a", **more: object) -> Ear:
        return Ear(self.factory, LinkOptions("127.0.0.1", port, client_id, **more))  # type: ignore[arg-type]

    def ear_with(self, options: LinkOptions) -> Ear:
        return Ear(self.factory, options)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        make = uvloop.new_event_loop if self._loop == "uvloop" else asyncio.new_event_loop
        bugs: list[dict[str, object]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
            await asyncio.wait_for(scenario(), 60)
            await asyncio.sleep(0)  # what is due to be called, is

        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(main())
        assert bugs == []


@pytest.fixture(params=[(link, loop) for link in LINKS for loop in LOOPS], ids="-".join)
def link_bench(request: pytest.FixtureRequest) -> Bench:
    link, loop = request.param
    if loop == "uvloop" and uvloop is None:
        pytest.skip("uvloop isn't installed")
    return Bench(link, loop)


@asynccontextmanager
async def _peer(
    *answers: bytes, then_close: bool = False, pong: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers the n-th chunk it reads with the n-th of `answers`: (port, what it read)."""
    read: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        todo = list(answers)
        while data := await reader.read(65_536):
            read.append(data)
            if pong and data == b"\xc0\x00":
                writer.write(b"\xd0\x00")
            elif todo:
                writer.write(todo.pop(0))
            if not todo and then_close:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], read
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.fixture
def link_peer() -> Callable[..., AbstractAsyncContextManager[tuple[int, list[bytes]]]]:
    """`link_peer(*answers, then_close, pong, tls)`: see `_peer`."""
    return _peer
