"""A controller of cardboard behind the API's port: a real memory store, views laid out by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from starlette.testclient import TestClient

from controller.api.app import ApiOptions, build
from controller.api.gate import token_hash
from controller.core import events as ev
from controller.core import plan_views as pv
from controller.core import views as vw
from controller.core.records import JobRow, JobState, TaskRow
from controller.store.memory import MemoryStore
from firmware_profiles import Catalogue
from protocol.resources import ZERO, Resources
from protocol.tasks import JobKind, TaskState

TOKEN = "a-token"
NOW_MS = 1_790_000_000_123


def device_view(name: str, **changes: object) -> vw.DeviceView:
    view = vw.DeviceView(
        id=name,
        state="online",
        cordoned=False,
        draining=False,
        quarantined=False,
        profile="pi-4b-4g",
        labels={"zone": "a"},
        runtimes=("process",),
        containment="strong",
        limits="cgroup2",
        version="0.1.0",
        capacity=Resources(4_000, 3_790, 16_000, 0),
        reserved=Resources(100, 32, 0, 0),
        free=Resources(3_900, 3_758, 16_000, 0),
        used=Resources(20, 300, 900, 0),
        session=1 << 24,
        tasks=1,
        last_heartbeat_ms_ago=1_200,
        document=(7, 3),
        granted=True,
    )
    return replace(view, **changes)


def fleet_view() -> vw.FleetView:
    return vw.FleetView(
        devices={"online": 2, "suspect": 0, "offline": 1, "cordoned": 0, "draining": 0, "total": 3},
        tasks={"pending": 1, "assigned": 0, "running": 2},
        jobs_open=1,
        capacity=Resources(8_000, 7_000, 1, 0),
        reserved=Resources(200, 64, 0, 0),
        free=Resources(7_800, 6_936, 1, 0),
        frozen="",
        waiting_ms=0,
        alarms=["something"],
        garbage={"oversize": 2},
        counters={"stale_results": 1},
        epoch=7,
        leader="main",
        uptime_ms=5_000,
    )


@dataclass
class CardboardPort:
    """`answers` overrides what a kind of question gets: a view, an exception to raise, or a function."""

    store: MemoryStore = field(default_factory=MemoryStore)
    devices: dict[str, vw.DeviceView] = field(default_factory=dict)
    answers: dict[type, object] = field(default_factory=dict)
    asked: list[object] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    ready: dict[str, bool] = field(default_factory=lambda: {"store": True, "broker": True})
    leader: str = ""
    profiles: Catalogue = field(default_factory=Catalogue)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    reads: int = 0
    requests: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.store.open()
        leader, _ = self.store.lead("main", 0, NOW_MS)
        self.epoch = leader.epoch
        self.store.add_token(token_hash(TOKEN), "tester", "admin", NOW_MS)

    def save(self, *rows: object) -> None:
        self.store.save(rows, self.epoch)

    async def read(self, fn: Callable[..., object], *args: object, **kwargs: object) -> object:
        self.reads += 1
        return fn(*args, **kwargs)

    def next_request(self) -> int:
        self.requests += 1
        return self.requests

    async def ask(self, question: object) -> object:
        self.asked.append(question)
        answer = self.answers.get(type(question))
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return answer(question)
        return answer if answer is not None else _ANSWERS[type(question)](self, question)

    def wall_ms(self) -> int:
        return NOW_MS

    async def add_device(self, device: str) -> str:
        self.credentials.append(device)
        return f'[device]\nid = "{device}"\n'

    async def remove_device(self, device: str) -> None:
        self.credentials.remove(device)

    def metrics(self) -> dict[str, int | float]:
        return {"saves_total": 3, "inbox_lag_ms": 0.5}

    def health(self) -> dict[str, bool]:
        return self.ready

    def standby_of(self) -> str:
        return self.leader

    # ------------------------------------------------------------------ a very small core

    def submitted(self, q: ev.JobSubmitted) -> object:
        if q.idempotency_key in self.keys:
            job, fingerprint = self.keys[q.idempotency_key]
            if fingerprint != q.fingerprint:
                return vw.RefusalView("idempotency_key_reused", "used with another body")
            return vw.SubmittedView(job, True)
        if q.idempotency_key:
            self.keys[q.idempotency_key] = (q.job, q.fingerprint)
        tasks = [
            TaskRow(f"{q.job}.{i}", q.job, i, TaskState.PENDING, "run", "", 0, None, "", 0, NOW_MS, NOW_MS)
            for i in range(0 if q.kind is JobKind.CRON else min(q.count, 50))
        ]
        job = JobRow(
            q.job, q.name, q.kind, q.count, q.priority, q.guarantee, q.max_attempts, q.ttl_ms, q.lease_ms,
            q.spec, JobState.OPEN, "run", NOW_MS, NOW_MS, q.actor, q.idempotency_key, q.fingerprint, q.rules,
        )  # fmt: skip
        self.save(job, *tasks)
        return vw.SubmittedView(q.job)

    def cancelled(self, q: ev.JobCancelled) -> object:
        found = self.store.job(q.job)
        if found is None or found.row.state is not JobState.OPEN:
            return vw.RefusalView("not_open", f"job {q.job} is not open")
        self.save(replace(found.row, desired="cancelled"))
        return vw.DoneView(q.job)

    def decided(self, q: ev.DeviceDecision) -> object:
        if q.verb == "add":
            self.devices[q.device] = device_view(q.device, state="offline", reserved=ZERO)
        elif q.device not in self.devices:
            return vw.RefusalView("not_found", f"no device {q.device}")
        elif q.verb == "remove":
            del self.devices[q.device]
        elif q.verb in ("taint", "untaint"):
            return self.marked(q, self.devices[q.device])
        else:
            shut = q.verb != "uncordon"
            draining = q.verb == "drain"
            self.devices[q.device] = replace(self.devices[q.device], cordoned=shut, draining=draining)
        return vw.DoneView(q.device)

    def marked(self, q: ev.DeviceDecision, device: vw.DeviceView) -> object:
        others = tuple(taint for taint in device.taints if taint != q.value)
        if q.verb == "untaint" and others == device.taints:
            return vw.RefusalView("not_found", f"{q.device} has no taint {q.value}")
        taints = (*others, q.value) if q.verb == "taint" else others
        self.devices[q.device] = replace(device, taints=taints)
        return vw.DoneView(q.device)

    def queried(self, q: ev.DevicesQueried) -> object:
        if q.device:
            if q.device not in self.devices:
                return vw.RefusalView("not_found", f"no device {q.device}")
            return vw.DevicesView([self.devices[q.device]])
        names = [name for name in sorted(self.devices) if name > q.after]
        items = [self.devices[name] for name in names[: q.limit]]
        return vw.DevicesView(items, items[-1].id if len(names) > q.limit else "")


def plan_view() -> pv.PlanView:
    before = pv.RoomView(4, Resources(16_000, 8_192), Resources(4_000, 512), Resources(2_000, 256), 0.9)
    after = pv.RoomView(3, Resources(12_000, 6_144), Resources(1_000, 64), Resources(500, 64), 0.97)
    counts = {"moved": 1, "broken": 1, "placed": 0, "waiting": 0, "stayed": 0, "ended": 0, "left_out": 0}
    return pv.PlanView(
        counts, before, after,
        [pv.PlannedTask("j1.0", "j1", "pi-7", "pi-9")],
        [pv.PlannedTask("j1.1", "j1", "pi-7", "", "memory", "waits for room: needs 512 MiB")],
        reasons={"memory": 1}, losses=[pv.SiteLossView(("cellar",), 3, 2, 0, 0.5)], losses_looked_at=1,
    )  # fmt: skip


_ANSWERS: dict[type, Callable[[CardboardPort, object], object]] = {
    ev.JobSubmitted: CardboardPort.submitted,
    ev.JobCancelled: CardboardPort.cancelled,
    ev.DeviceDecision: CardboardPort.decided,
    ev.DevicesQueried: CardboardPort.queried,
    ev.DevicePinged: lambda port, q: vw.PingView(q.device, q.sent_us, ""),
    ev.FleetUnfrozen: lambda port, q: vw.DoneView("fleet"),
    ev.FleetQueried: lambda port, q: fleet_view(),
    ev.WaitsQueried: lambda port, q: vw.WaitsView({t: "no device is known yet" for t in q.tasks}),
    ev.PlanAsked: lambda port, q: plan_view(),
    ev.TaskExplained: lambda port, q: vw.ExplainView(
        q.task, "pending", "", "needs 8,000 MiB", [vw.FilterView("online", 1)], [vw.ScoreView("a", 0.5)]
    ),
}


@pytest.fixture
def port() -> CardboardPort:
    return CardboardPort()


@pytest.fixture
def serve(port: CardboardPort) -> Callable[..., TestClient]:
    """A client of the API with these options."""

    def make(token: str = TOKEN, **options: object) -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        app = build(port, ApiOptions(**options))
        return TestClient(app, raise_server_exceptions=False, headers=headers)

    return make


@pytest.fixture
def api(serve: Callable[..., TestClient]) -> Iterator[TestClient]:
    with serve() as client:  # one event loop for all requests of a test
        yield client


@pytest.fixture
def view_of_device() -> Callable[..., vw.DeviceView]:
    return device_view
