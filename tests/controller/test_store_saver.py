"""The store's door for an event loop: order, errors, fencing, reads beside a save."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from controller.core.leadership import Led
from controller.core.records import FleetRow, Row
from controller.store.base import Counts, Fenced, StoreError
from controller.store.memory import MemoryStore
from controller.store.saver import StoreSaver
from controller.store.sqlite import SqliteStore
from live.driver import SaveError

WALL_MS = 1_700_000_000_000


def with_saver(saver: StoreSaver, story: Callable[[StoreSaver], Awaitable[None]]) -> None:
    async def run() -> None:
        await saver.open()
        try:
            await asyncio.wait_for(story(saver), 30)
        finally:
            await saver.close()

    asyncio.run(run())


def test_what_is_saved_is_there_and_saves_keep_their_order(tmp_path: Path) -> None:
    async def story(saver: StoreSaver) -> None:
        row, _ = await saver.lead("here", 0, WALL_MS)
        assert saver.epoch == row.epoch
        await asyncio.gather(*(saver.save([FleetRow("n", str(n))]) for n in range(20)))
        assert (await saver.load()).fleet == {"n": "19"}
        assert (await saver.read(saver.store.counts)).tasks["pending"] == 0
        await saver.renew(WALL_MS + 1)
        await saver.mark_clean()
        assert (await saver.lead("here", 0, WALL_MS))[1].clean
        assert not (await saver.prune(WALL_MS, 10, 10)).more
        await saver.write(saver.store.add_token, "h", "up", "admin", WALL_MS)
        assert await saver.read(saver.store.token, "h") is not None

    with_saver(StoreSaver(SqliteStore(tmp_path / "fleet.db")), story)


def test_fenced_save_is_a_save_error_and_remembered() -> None:
    async def story(saver: StoreSaver) -> None:
        row, _ = await saver.lead("here", 0, WALL_MS)
        there, _ = saver.store.lead("there", 0, WALL_MS, row)
        with pytest.raises(SaveError):
            await saver.save([FleetRow("a", "b")])
        assert saver.fenced
        with pytest.raises(Fenced):
            await saver.renew(WALL_MS)
        with pytest.raises(Led, match="there leads"):
            await saver.lead("here", 0, WALL_MS)
        assert saver.fenced
        await saver.lead("here", 0, WALL_MS, there)
        assert not saver.fenced
        await saver.save([FleetRow("a", "b")])

    with_saver(StoreSaver(MemoryStore()), story)


class SlowStore(MemoryStore):
    """Saves wait for permission, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = threading.Event()
        self.trouble = ""

    def save(self, rows: Sequence[Row], epoch: int) -> None:
        self.begun.set()
        assert self.go.wait(30)
        if self.trouble:
            raise StoreError(self.trouble)
        super().save(rows, epoch)


def test_reads_go_on_while_a_save_runs() -> None:
    async def story(saver: StoreSaver) -> None:
        assert isinstance(saver.store, SlowStore)
        await saver.lead("here", 0, WALL_MS)
        saving = asyncio.ensure_future(saver.save([FleetRow("a", "b")]))
        await asyncio.to_thread(saver.store.begun.wait, 30)
        counts: Counts = await saver.read(saver.store.counts)
        assert counts.output_bytes == 0 and not saving.done()
        saver.store.go.set()
        await saving

    with_saver(StoreSaver(SlowStore()), story)


def test_world_trouble_is_a_save_error_and_not_a_fence() -> None:
    async def story(saver: StoreSaver) -> None:
        assert isinstance(saver.store, SlowStore)
        saver.store.trouble = "disk full"
        saver.store.go.set()
        await saver.lead("here", 0, WALL_MS)
        with pytest.raises(SaveError, match="disk full"):
            await saver.save([FleetRow("a", "b")])
        assert not saver.fenced
        saver.store.trouble = ""
        await saver.save([FleetRow("a", "b")])

    with_saver(StoreSaver(SlowStore()), story)


def test_save_that_nobody_waits_for_is_finished_before_the_next() -> None:
    async def story(saver: StoreSaver) -> None:
        assert isinstance(saver.store, SlowStore)
        await saver.lead("here", 0, WALL_MS)
        saving = asyncio.ensure_future(saver.save([FleetRow("a", "b")]))
        await asyncio.to_thread(saver.store.begun.wait, 30)
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        saver.store.go.set()
        assert (await saver.load()).fleet == {"a": "b"}

    with_saver(StoreSaver(SlowStore()), story)
