"""Two assembled controllers on one database: one leads, the other waits, says so, and takes over.

A lock on the file keeps a second process off, so here both live in one process without it;
all else is real: the file, the API, the driver. The silence before a take-over is shortened.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json

import pytest

import controller.app
import controller.core.leadership
from controller.app import App, listen
from controller.config import ControllerSection, ControllerSettings, HttpSection
from controller.store.base import StoreError
from controller.store.sqlite import SqliteStore

SILENCE_MS = 900
TOKEN = "secret"


class UnlockedStore(SqliteStore):
    """As on a database server: nothing but the leader row tells who may write. `broken` refuses."""

    broken = False

    def _take_lock(self):
        pass

    def _transaction(self, epoch=None):
        if self.broken:
            raise StoreError("out of reach")
        return super()._transaction(epoch)


@pytest.fixture
def shortened(monkeypatch):
    monkeypatch.setattr(controller.app, "SqliteStore", UnlockedStore)
    monkeypatch.setattr(controller.app, "WATCH_MS", 50)
    monkeypatch.setattr(controller.app, "RETRY_MS", 50)
    monkeypatch.setattr(controller.core.leadership, "LEADER_MS", SILENCE_MS)
    monkeypatch.setattr(controller.core.controller, "RENEW_MS", 200)
    monkeypatch.setattr(controller.core.controller, "SPEAK_MS", SILENCE_MS - 100)


class Running:
    """One controller that serves, and a little HTTP."""

    def __init__(self, folder, name):
        own = ControllerSection(id=name, data_dir=folder)
        self.app = App(ControllerSettings(own, http=HttpSection(token=TOKEN)))
        self.listener = listen("127.0.0.1", 0, -1)
        self.port = self.listener.getsockname()[1]
        self.task = asyncio.create_task(self.app.run(self.listener))

    async def get(self, path, method="GET", body=None):
        return await asyncio.to_thread(self._get, path, method, body)

    def _get(self, path, method, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    async def ready(self):
        try:
            return (await self.get("/readyz"))[1]
        except OSError:
            return {"checks": {}}

    async def leads(self, within_s=20):
        await self._until(lambda ready: ready["checks"].get("leader"), within_s)

    async def follows(self, leader, within_s=20):
        await self._until(lambda ready: ready.get("standby_of") == leader, within_s)

    async def _until(self, condition, within_s):
        async with asyncio.timeout(within_s):
            while not condition(await self.ready()):
                assert not self.task.done(), self.task.result()
                await asyncio.sleep(0.02)

    async def stop(self):
        self.app.stop()
        await asyncio.wait_for(self.task, 20)

    async def crash(self):
        """Nothing is marked as an orderly stop."""
        self.app.saver.store.broken = True
        await self.stop()


def story(tell):
    async def run(folder):
        first, second = Running(folder, "c1"), None
        try:
            await first.leads()
            second = Running(folder, "c2")
            await second.follows("c1")
            await tell(first, second)
        finally:
            for one in (first, second):
                if one is not None and not one.task.done():
                    await one.stop()

    def test(tmp_path, shortened):
        asyncio.run(run(tmp_path))

    return test


async def _refuses_and_shows(first, second):
    status, ready = await second.get("/readyz")
    assert status == 503 and ready["checks"] == {"store": True, "broker": False, "leader": False}
    status, problem = await second.get("/api/v1/jobs", "POST", {"task": {"command": ["true"]}})
    assert (status, problem["type"].rpartition(":")[2]) == (503, "not_ready") and "c1 leads" in problem[
        "detail"
    ]
    status, made = await first.get("/api/v1/jobs", "POST", {"task": {"command": ["true"]}})
    assert status == 201
    status, shown = await second.get("/api/v1/jobs")
    assert status == 200 and [job["id"] for job in shown["items"]] == [made["id"]]
    assert "standby_of" not in await first.ready()


test_a_standby_refuses_work_says_why_and_shows_what_is_stored = story(_refuses_and_shows)


async def _orderly(first, second):
    epoch = first.app.saver.epoch
    await first.stop()
    await second.leads()
    assert second.app.saver.epoch > epoch


test_after_an_orderly_stop_the_standby_leads = story(_orderly)


async def _crash(first, second):
    _, made = await first.get("/api/v1/jobs", "POST", {"task": {"command": ["true"]}})
    began_s = asyncio.get_running_loop().time()
    await first.crash()
    await second.leads()
    assert asyncio.get_running_loop().time() - began_s >= (SILENCE_MS - 300) / 1_000
    status, job = await second.get(f"/api/v1/jobs/{made['id']}")
    assert status == 200 and job["id"] == made["id"]
    status, _ = await second.get("/api/v1/fleet")
    assert status == 200


test_after_a_crash_the_standby_leads_when_the_row_has_been_silent = story(_crash)


async def _cut(first, second):
    first.app.saver.store.broken = True
    await second.leads()
    assert not (await first.ready())["checks"]["leader"], "two leaders"
    first.app.saver.store.broken = False
    await first.follows("c2")
    status, problem = await first.get("/api/v1/fleet")
    assert (status, problem["type"].rpartition(":")[2]) == (503, "not_ready")
    await second.stop()
    await first.leads()
    status, _ = await first.get("/api/v1/fleet")
    assert status == 200


test_a_leader_that_lost_its_database_finds_another_leading_and_follows = story(_cut)


async def _unreadable(first, second):
    """A standby that can't read its database says that too: what it shows is missing."""
    second.app.saver.store.broken = True
    async with asyncio.timeout(20):
        while (await second.ready())["checks"]["store"]:
            await asyncio.sleep(0.02)
    second.app.saver.store.broken = False
    await second.follows("c1")
    async with asyncio.timeout(20):
        while not (await second.ready())["checks"]["store"]:
            await asyncio.sleep(0.02)


test_a_standby_without_its_database_says_so = story(_unreadable)


def test_what_was_found_out_is_not_forgotten_when_the_core_can_not_be_loaded(tmp_path):
    """D1: attempt numbers start above the epoch also when the first try to begin anew fails halfway."""

    own = ControllerSection(id="c1", data_dir=tmp_path)

    async def run():
        app = App(ControllerSettings(own, http=HttpSection(token=TOKEN)))
        await app.saver.open()
        try:
            await app._lead()
            above = app.saver.epoch + 5
            app.saving.finding = controller.core.leadership.Finding(app.saver.epoch, above)
            load, app.saver.load = app.saver.load, _fails
            with pytest.raises(StoreError):
                await app._lead()
            app.saver.load = load
            core = await app._lead()
            assert app.saver.epoch > above
            assert core.tasks.attempt_floor == app.saver.epoch
            assert not app.saving.finding.above
        finally:
            await app.saver.close()

    asyncio.run(run())


async def _fails():
    raise StoreError("out of reach")
