"""The store's door for an event loop: one thread writes, two read.

Rules: writing words run one after another in one thread, in the order asked for, and a
save that was begun is finished even if nobody waits any more. Reads have threads of their
own. A save that fails, fenced or not, is the driver's `SaveError`; `fenced` then tells the
assembly that it must stop speaking. Knows nothing of rows, SQL or HTTP.
Rejected: a thread per connection with a queue of its own (an executor is that);
asyncio.to_thread (its pool is shared with whoever else blocks).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar, cast

from controller.core.leadership import Takeover
from controller.core.records import LeaderRow, Row, Snapshot
from controller.store.base import Fenced, Pruned, Store, StoreError
from live.driver import SaveError

P = ParamSpec("P")
T = TypeVar("T")

SWITCH_INTERVAL_S = 0.000_5
"""For `sys.setswitchinterval`, by the assembly that owns the process: at the default of 5 ms a busy
event loop lets the writing thread wait that long after each of a save's dozen statements."""
READERS = 2
"""One slow list doesn't keep a quick look waiting; more would only share the same two cores."""


class StoreSaver:
    """`live.driver.Saver` over a `Store`. Use from one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.epoch = 0
        self.fenced = False
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    async def open(self) -> None:
        """Raises `StoreUnusable`."""
        await self._write(self.store.open)

    async def close(self) -> None:
        """Waits for what was begun; nothing may be asked afterwards."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, partial(self._readers.shutdown, cancel_futures=True))
        await self._write(self.store.close)
        self._writer.shutdown()

    async def lead(
        self, holder: str, above: int, wall_ms: int, unrenewed: LeaderRow | None = None
    ) -> tuple[LeaderRow, Takeover]:
        """Take leadership; later saves carry its epoch. Raises `Led`, `StoreError`."""
        row, takeover = await self._write(self.store.lead, holder, above, wall_ms, unrenewed)
        self.epoch, self.fenced = row.epoch, False
        return row, takeover

    async def save(self, rows: Sequence[object]) -> None:
        """Raises `SaveError`, after which nothing of `rows` is stored."""
        try:
            await self._fencing(self.store.save, cast(Sequence[Row], rows), self.epoch)
        except (StoreError, Fenced) as error:
            raise SaveError(str(error)) from error

    async def renew(self, wall_ms: int) -> None:
        """Raises `Fenced`, `StoreError`."""
        await self._fencing(self.store.renew, self.epoch, wall_ms)

    async def mark_clean(self) -> None:
        """After the last save. Raises `Fenced`, `StoreError`."""
        await self._fencing(self.store.mark_clean, self.epoch)

    async def load(self) -> Snapshot:
        """Raises `StoreError`."""
        return await self._write(self.store.load)

    async def prune(self, before_wall_ms: int, tasks_max: int, output_bytes_max: int) -> Pruned:
        """One piece. Raises `Fenced`, `StoreError`."""
        return await self._fencing(self.store.prune, before_wall_ms, tasks_max, output_bytes_max)

    async def write(self, word: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Any other writing word of the store: `await saver.write(store.revoke_tokens, "up")`."""
        return await self._write(word, *args, **kwargs)

    async def read(self, word: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A reading word of the store: `await saver.read(store.tasks, job=…)`. Raises `StoreError`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, partial(word, *args, **kwargs))

    async def _fencing(self, word: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._write(word, *args, **kwargs)
        except Fenced:
            self.fenced = True
            raise

    async def _write(self, word: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, partial(word, *args, **kwargs))
