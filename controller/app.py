"""Assembly of a controller: store, core, driver, broker connection, REST API.

Walk: `run` opens the store, takes leadership, builds the core and drives it; the API's
questions and the broker's messages are offered to the driver, its effects performed by
`Wire` and `Asker`. When a save fails, or the database turns out to be older than the
fleet, the core is thrown away and built anew from what is saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import uvicorn

from controller.api.app import build
from controller.api.asking import Asker
from controller.api.gate import token_hash
from controller.api.port import Question
from controller.brokering import BrokerOwner, agent_toml
from controller.config import ControllerSettings, rules_of
from controller.core.controller import Controller
from controller.core.effects import ClearRetained, Confirm, PublishFleet, PublishLeases, Reply, TakeEpoch
from controller.core.events import WallClockRead
from controller.core.leadership import WATCH_MS, Finding, Led, Standby, beginning
from controller.core.records import LeaderRow
from controller.core.views import RefusalView
from controller.store.base import Fenced, StoreError
from controller.store.saver import SWITCH_INTERVAL_S, StoreSaver
from controller.store.sqlite import SqliteStore
from controller.wiring import Wire
from firmware_profiles import load_directory
from live.clock import boottime_ms, wall_ms
from live.driver import Driver, Performers, SaveError
from live.link import TlsSettings
from live.logs import log, note_to_log
from protocol.core import Connect, Core, Disconnect, Effect, Event, Note, Publish

P = ParamSpec("P")
T = TypeVar("T")

INBOX_MAX = 20_000
WALL_CLOCK_MS = 10_000
PRUNE_MS = 60_000
RETRY_MS = 1_000
DAY_MS = 86_400_000
UP_TOKEN = "up"
DATABASE = "controller.db"


class Saving:
    """The driver's saver: rows to the store, the leader row as a renewal."""

    def __init__(self, saver: StoreSaver) -> None:
        self.saver = saver
        self.finding = Finding()
        """One that is not empty lets the next save fail: the core is rebuilt under a later epoch (D1)."""

    async def save(self, rows: Sequence[object]) -> None:
        if self.finding.above:
            raise SaveError("the database is older than the fleet: a new epoch is taken")
        plain = [row for row in rows if type(row) is not LeaderRow]
        if plain:
            await self.saver.save(plain)
        if len(plain) < len(rows):
            try:
                await self.saver.renew(wall_ms())
            except (Fenced, StoreError) as error:
                raise SaveError(str(error)) from error


class App:
    """One running controller; also the API's port."""

    def __init__(self, settings: ControllerSettings) -> None:
        self.settings = settings
        own = settings.controller
        self.profiles = load_directory(own.profiles_dir)
        self.saver = StoreSaver(SqliteStore(own.data_dir / DATABASE))
        self.saving = Saving(self.saver)
        self.owner = BrokerOwner(settings.mqtt.control_fd)
        self.driver: Driver
        self.wire: Wire
        self.standby = Standby()
        self.asker = Asker(self._offer)
        self.stopping = asyncio.Event()
        self._static_hash = token_hash(settings.http.token) if settings.http.token else ""

    # ------------------------------------------------------------- life

    async def run(self, listener: socket.socket) -> None:
        """Until `stop`. Raises `StoreUnusable` when the database can't be used, and what the core raises."""
        await self.saver.open()
        try:
            await self.owner.open()
            await self._accept_token()
            self._assemble(await self._first())
            await self._serve(listener)
        finally:
            await self.saver.close()

    async def _accept_token(self) -> None:
        """The starter's token replaces the one of the start before."""
        if self._static_hash:
            store = self.saver.store
            await self.saver.write(store.revoke_tokens, UP_TOKEN)
            await self.saver.write(store.add_token, self._static_hash, UP_TOKEN, "admin", wall_ms())

    async def _first(self) -> Core:
        """Leads at once if nobody else does; else a place holder, until `_drive` leads."""
        try:
            return await self._lead()
        except Led as led:
            self._stand_by(led)
            return Nobody()

    async def _lead(self) -> Controller:
        """Raises `Led`, `StoreError`."""
        asked_ms = boottime_ms()
        own, finding = self.settings.controller, self.saving.finding
        unrenewed = self.standby.unrenewed(asked_ms)
        leader, found = await self.saver.lead(own.id, finding.above, wall_ms(), unrenewed)
        self.standby.forget()
        self.saving.finding = finding.under(leader.epoch, found)
        snapshot = await self.saver.load()
        now_ms = boottime_ms()
        begins = beginning(found, finding, bool(snapshot.devices), asked_ms, wall_ms() - now_ms)
        self.saving.finding = Finding()
        log(
            "info",
            "leading",
            epoch=leader.epoch,
            devices=len(snapshot.devices),
            open_tasks=len(snapshot.tasks),
        )
        return Controller(snapshot, begins, now_ms, random.Random(), rules_of(self.settings, self.profiles))

    def _stand_by(self, led: Led) -> None:
        """Another leads: its row is watched, and whoever asks is told so. The log hears it once."""
        if self.standby.note(led.row, boottime_ms()):
            log("info", "standby", leader=led.row.holder, epoch=led.row.epoch)
        self.asker.accept()  # `ask` refuses now, with a better reason
        self.asker.fail_all(str(led))

    def _assemble(self, core: Core) -> None:
        own = self.settings.controller
        self.wire = Wire(own.fleet, f"_controller-{own.id}", self._broker, self._offer, self._post)
        performers: Performers = {
            Publish: self.wire.publish,
            PublishLeases: self.wire.publish_leases,
            PublishFleet: self.wire.publish_fleet,
            ClearRetained: self.wire.clear_retained,
            Connect: self.wire.connect,
            Disconnect: self.wire.disconnect,
            Reply: self.asker.reply,
            Confirm: lambda e: self.driver.post(e.event),
            TakeEpoch: self._take_epoch,
            Note: note_to_log,
        }
        self.driver = Driver(
            core,
            self.saving,
            performers,
            on_save_failed=self._rebuild,
            inbox_max=INBOX_MAX,
            on_inbox_full=self.wire.pause,
            on_inbox_drained=self.wire.resume,
        )

    def _offer(self, event: Event) -> bool:
        return self.driver.offer(event)

    def _post(self, event: Event) -> None:
        self.driver.post(event)

    def _broker(self) -> tuple[str, int, str, str, TlsSettings | None]:
        mqtt = self.settings.mqtt
        username = mqtt.username or f"_controller-{self.settings.controller.id}"
        return mqtt.host, mqtt.port, username, mqtt.password, TlsSettings(mqtt.ca_file) if mqtt.tls else None

    async def _serve(self, listener: socket.socket) -> None:
        config = uvicorn.Config(
            build(self), log_config=None, access_log=False, lifespan="off", server_header=False, backlog=2_048
        )
        server = _Server(config)
        host, port = listener.getsockname()[:2]
        log("info", "serving", url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        tasks = [
            asyncio.create_task(self._drive()),
            asyncio.create_task(server.serve(sockets=[listener])),
            asyncio.create_task(self._tell_wall_clock()),
            asyncio.create_task(self._prune()),
        ]
        stop = asyncio.create_task(self.stopping.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            server.should_exit = True
            await self._end(tasks, stop)

    async def _end(self, tasks: list[asyncio.Task[None]], stop: asyncio.Task[bool]) -> None:
        """Good order: no new work, the broker told, the last batch saved, the clean mark set."""
        driving, serving, *helping = tasks
        for task in (*helping, stop):
            task.cancel()
        self.asker.fail_all("the controller is stopping")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(serving), 3)
        self.driver.stop()
        # A bug that ended the driver was raised by the caller already; here it must only be over.
        await asyncio.gather(driving, return_exceptions=True)
        self.wire.drop(orderly=True)
        if not driving.cancelled() and driving.exception() is None:
            with contextlib.suppress(Fenced, StoreError):
                await self.saver.mark_clean()
        await asyncio.gather(serving, *helping, stop, return_exceptions=True)

    def stop(self) -> None:
        self.stopping.set()

    # ------------------------------------------------------------- rebuilding

    async def _drive(self) -> None:
        """Runs the driver, once there is a core to drive."""
        if isinstance(self.driver.core, Nobody):
            await self._regain()
        await self.driver.run()

    def _take_epoch(self, effect: TakeEpoch) -> None:
        own = self.saver.epoch
        self.saving.finding = Finding(own, max(effect.above, own))

    async def _rebuild(self, reason: str) -> None:
        """A save failed: memory is ahead of the store, so it is thrown away."""
        log("error", "save failed, rebuilding from the store", reason=reason)
        self.asker.fail_all(reason)
        self._drop_questions()
        self.wire.drop()
        await self._regain()

    async def _regain(self) -> None:
        """Tries to lead until it does, or until the program stops."""
        while not self.stopping.is_set():
            try:
                core = await self._lead()
            except Led as led:
                self._stand_by(led)
                # What was heard before belongs to a leadership that is over.
                self.driver.drop_queued(lambda event: True)
                await self._pause(min(WATCH_MS, self.standby.left_ms(boottime_ms()) or WATCH_MS))
                continue
            except StoreError as error:
                log("error", "the store does not answer", reason=str(error))
                self.asker.refuse(str(error))
                self._drop_questions()
                await self._pause(RETRY_MS)
                continue
            self.asker.accept()
            if isinstance(self.driver.core, Controller):
                core.count_on(self.driver.core)
            self.driver.replace_core(core)
            return
        self.driver.stop()  # the core at hand knows what is not saved: it must say nothing more

    async def _pause(self, ms: int) -> None:
        """Until then, or until the program stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), ms / 1000)

    def _drop_questions(self) -> None:
        """Who asked was told that nothing was done, so it must not be done later."""
        self.driver.drop_queued(lambda event: isinstance(event, Question))

    async def _tell_wall_clock(self) -> None:
        while True:
            await asyncio.sleep(WALL_CLOCK_MS / 1000)
            if self.standby_of():
                continue
            self._offer(WallClockRead(wall_ms() - boottime_ms()))

    async def _prune(self) -> None:
        own = self.settings.controller
        while True:
            await asyncio.sleep(PRUNE_MS / 1000)
            if self.standby_of():
                continue
            before = wall_ms() - own.keep_days * DAY_MS
            try:
                while (await self.saver.prune(before, own.keep_tasks, own.keep_output_bytes)).more:
                    await asyncio.sleep(0.05)
            except (StoreError, Fenced) as error:
                log("warning", "old history was not deleted", reason=str(error))

    # ------------------------------------------------------------- the API's port

    @property
    def store(self) -> SqliteStore:
        store = self.saver.store
        assert isinstance(store, SqliteStore)
        return store

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.saver.read(fn, *args, **kwargs)

    def next_request(self) -> int:
        return self.asker.next_request()

    async def ask(self, question: Question) -> object:
        if leader := self.standby_of():
            return RefusalView("not_ready", f"standby: {leader} leads")
        return await self.asker.ask(question)

    def wall_ms(self) -> int:
        return wall_ms()

    async def add_device(self, device: str) -> str:
        """Raises `controller.brokering.BrokerRefused`."""
        given = await self.owner.ask("add", device)
        mqtt = self.settings.mqtt
        host, _, port = (mqtt.advertise or f"{mqtt.host}:{mqtt.port}").rpartition(":")
        return agent_toml(
            device,
            self.settings.controller.fleet,
            host.strip("[]"),
            int(port),
            given.get("username", device),
            given.get("password", ""),
            f"/var/lib/fleetmuster/{device}",
        )

    async def remove_device(self, device: str) -> None:
        await self.owner.ask("remove", device)

    def metrics(self) -> Mapping[str, int | float]:
        driver, wire = self.driver, self.wire
        return {
            "inbox_lag_ms": driver.lag_ms,
            "inbox_events": driver.queued,
            "events_total": driver.events,
            "saves_total": driver.saves,
            "saves_failed_total": driver.saves_failed,
            "requests_refused_total": driver.refused,
            "mqtt_received_total": wire.received,
            "mqtt_sent_total": wire.sent,
            "mqtt_dropped_total": wire.dropped,
        }

    def health(self) -> Mapping[str, bool]:
        core = self.driver.core
        leading = isinstance(core, Controller) and boottime_ms() < core.speak_until_ms
        standby = bool(self.standby_of())
        store = not self.asker.refusing and (standby or not self.saver.fenced)
        return {"store": store, "broker": self.wire.up, "leader": leading and not standby}

    def standby_of(self) -> str:
        row = self.standby.row
        return "" if row is None else row.holder


class Nobody:
    """Implements `protocol.core.Core` while another controller leads: it hears and says nothing."""

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        return []

    def next_due_ms(self) -> int | None:
        return None


class _Server(uvicorn.Server):
    """Signals are the app's; uvicorn must not take them."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


def listen(host: str, port: int, fd: int) -> socket.socket:
    """The API's listening socket: handed over, or made here. Raises `OSError`."""
    if fd >= 0:
        return socket.socket(fileno=fd)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2_048)
    except OSError:
        sock.close()
        raise
    return sock


async def run(settings: ControllerSettings, listener: socket.socket) -> None:
    """Runs a controller until SIGTERM or SIGINT."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run(listener)


def prepare(directory: Path) -> None:
    """Makes the data directory. Raises `OSError`."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
