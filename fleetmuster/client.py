"""The remote client: one small typed method for each route of the REST API.

Rule: a method is a route, and returns records that were checked. Lists are iterators
over all pages. `POST /jobs` always carries an Idempotency-Key, so it may be sent again
when the connection breaks; adding and removing a device are never repeated.
It knows nothing of the command line, contexts or tables.
Rejected: code generated from the OpenAPI file (it would need a dependency at run time).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from fleetmuster.exits import usage
from fleetmuster.plan_records import PlanRequest, RemotePlan
from fleetmuster.rebalance_records import RebalanceRequest, RemoteRebalance, RemoteRebalances
from fleetmuster.records import (
    JobRequest,
    Json,
    NewDevice,
    NotAController,
    PingResult,
    RemoteDevice,
    RemoteExplanation,
    RemoteFleet,
    RemoteJob,
    RemoteTask,
    checked,
)
from fleetmuster.wire import ApiError, HttpWire, Trace, Unreachable

__all__ = ["ApiError", "OutputPart", "RemoteClient", "SubmittedJob", "Unreachable"]

PREFIX = "/api/v1"
PAGE_ITEMS = 500  # per request of a list; the controller may send fewer
R = TypeVar("R")


class SubmittedJob(NamedTuple):
    """The job as accepted. `replayed`: it was accepted earlier under the same key."""

    job: RemoteJob
    replayed: bool


class OutputPart(NamedTuple):
    """A piece of a task's output. `complete`: the attempt will write no more."""

    data: bytes
    next_offset: int
    complete: bool


class RemoteClient:
    """A controller behind `url`. Every method raises the errors of `fleetmuster.wire`."""

    def __init__(self, url: str, token: str, timeout_ms: int = 10_000, trace: Trace | None = None) -> None:
        self._wire = HttpWire(url, token, timeout_ms, trace)

    @property
    def url(self) -> str:
        return self._wire.url

    def __enter__(self) -> RemoteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    # ------------------------------------------------------------------ jobs

    def submit_job(self, request: JobRequest, key: str = "") -> SubmittedJob:
        """`key` is the Idempotency-Key; without one a fresh one is made."""
        headers = {"Idempotency-Key": key or os.urandom(16).hex()}
        answer = self._wire.call("POST", PREFIX + "/jobs", request, headers, again=True)
        replayed = answer.headers.get("idempotent-replayed", "").lower() == "true"
        return SubmittedJob(checked(answer.json(), RemoteJob, "job"), replayed)

    def jobs(self, limit: int | None = None) -> Iterator[RemoteJob]:
        return self._pages("/jobs", {}, RemoteJob, limit)

    def job(self, job_id: str) -> RemoteJob:
        return self._get(f"/jobs/{_safe(job_id)}", RemoteJob)

    def cancel_job(self, job_id: str) -> None:
        """Answered when the wish is stored; the tasks stop after that."""
        self._wire.call("POST", f"{PREFIX}/jobs/{_safe(job_id)}/cancel", {}, again=True)

    # ------------------------------------------------------------------ tasks

    def tasks(
        self, job: str = "", device: str = "", state: str = "", limit: int | None = None
    ) -> Iterator[RemoteTask]:
        """Empty means any."""
        return self._pages("/tasks", {"job": job, "device": device, "state": state}, RemoteTask, limit)

    def task(self, task_id: str) -> RemoteTask:
        """With its attempts and its story."""
        return self._get(f"/tasks/{_safe(task_id)}", RemoteTask)

    def explain(self, task_id: str) -> RemoteExplanation:
        return self._get(f"/tasks/{_safe(task_id)}/explain", RemoteExplanation)

    def output(
        self, task_id: str, stream: str = "stdout", attempt: int | None = None, offset: int = 0
    ) -> OutputPart:
        """Bytes from `offset`; none when there are no more for now. Without `attempt`: the latest."""
        query = {"stream": stream, "attempt": "" if attempt is None else str(attempt), "offset": str(offset)}
        path = f"{PREFIX}/tasks/{_safe(task_id)}/output{_query(query)}"
        answer = self._wire.call("GET", path, headers={"Accept": "text/plain, */*"}, again=True)
        after = answer.headers.get("x-next-offset", str(offset + len(answer.body)))
        if not (after.isascii() and after.isdigit() and len(after) < 20) or int(after) < offset:
            raise NotAController("the answer can't be read", f"X-Next-Offset is {after!r}")
        return OutputPart(answer.body, int(after), answer.headers.get("x-complete", "").lower() == "true")

    # ------------------------------------------------------------------ devices

    def devices(self, limit: int | None = None) -> Iterator[RemoteDevice]:
        return self._pages("/devices", {}, RemoteDevice, limit)

    def device(self, device_id: str) -> RemoteDevice:
        return self._get(f"/devices/{_safe(device_id)}", RemoteDevice)

    def add_device(self, device_id: str) -> NewDevice:
        """Its credential is in the answer and nowhere else, so this is never sent twice."""
        answer = self._wire.call("POST", PREFIX + "/devices", {"id": device_id})
        return checked(answer.json(), NewDevice, "device")

    def remove_device(self, device_id: str) -> None:
        self._wire.call("DELETE", f"{PREFIX}/devices/{_safe(device_id)}")

    def cordon(self, device_id: str) -> None:
        self._device_verb(device_id, "cordon")

    def uncordon(self, device_id: str) -> None:
        self._device_verb(device_id, "uncordon")

    def drain(self, device_id: str) -> None:
        self._device_verb(device_id, "drain")

    def taint(self, device_id: str, taint: str) -> None:
        path = f"{PREFIX}/devices/{_safe(device_id)}/taints"
        self._wire.call("POST", path, {"taint": taint}, again=True)

    def untaint(self, device_id: str, taint: str) -> None:
        self._wire.call("DELETE", f"{PREFIX}/devices/{_safe(device_id)}/taints/{_safe(taint)}")

    def ping(self, device_id: str) -> float:
        """Round trip controller - device - controller in microseconds."""
        path = f"{PREFIX}/devices/{_safe(device_id)}/ping"
        answer = self._wire.call("POST", path, {}, again=True)
        return checked(answer.json(), PingResult, "ping")["rtt_us"]

    # ------------------------------------------------------------------ fleet

    def fleet(self) -> RemoteFleet:
        return self._get("/fleet", RemoteFleet)

    def unfreeze(self) -> None:
        self._wire.call("POST", PREFIX + "/fleet/unfreeze", {}, again=True)

    def plan(self, request: PlanRequest) -> RemotePlan:
        """Changes nothing, so it may be asked again."""
        answer = self._wire.call("POST", PREFIX + "/plan", request, again=True)
        return checked(answer.json(), RemotePlan, "plan")

    # ------------------------------------------------------------------ rebalances

    def rebalances(self) -> RemoteRebalances:
        """Plans of voluntary moves, without their moves."""
        return self._get("/rebalances", RemoteRebalances)

    def rebalance(self, plan: str) -> RemoteRebalance:
        return self._get(f"/rebalances/{_safe(plan)}", RemoteRebalance)

    def ask_rebalance(self, request: RebalanceRequest) -> RemoteRebalance:
        """Never sent twice: a second plan would take the place of the first."""
        answer = self._wire.call("POST", PREFIX + "/rebalances", request)
        return checked(answer.json(), RemoteRebalance, "rebalance")

    def approve_rebalance(self, plan: str) -> None:
        self._wire.call("POST", f"{PREFIX}/rebalances/{_safe(plan)}/approve", {})

    def reject_rebalance(self, plan: str) -> None:
        self._wire.call("POST", f"{PREFIX}/rebalances/{_safe(plan)}/reject", {})

    # ------------------------------------------------------------------ inside

    def _get(self, path: str, kind: type[R]) -> R:
        answer = self._wire.call("GET", PREFIX + path, again=True)
        return checked(answer.json(), kind, path.split("/")[1])

    def _device_verb(self, device_id: str, verb: str) -> None:
        self._wire.call("POST", f"{PREFIX}/devices/{_safe(device_id)}/{verb}", {}, again=True)

    def _pages(self, path: str, query: dict[str, str], kind: type[R], limit: int | None) -> Iterator[R]:
        """Every record of a list, page after page; at most `limit` of them."""
        left = limit
        seen: set[str] = set()
        cursor = ""
        while left is None or left > 0:
            size = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            answer = self._wire.call(
                "GET", PREFIX + path + _query({**query, "limit": str(size), "cursor": cursor}), again=True
            )
            items, cursor = _page(answer.json())
            for item in items[:left]:
                yield checked(item, kind, path[1:])
            left = None if left is None else left - len(items)
            if not cursor:
                return
            if cursor in seen:
                raise NotAController("the list never ends", "the same cursor came twice")
            seen.add(cursor)


def _page(value: Json) -> tuple[list[Json], str]:
    items = value.get("items") if isinstance(value, dict) else None
    cursor = value.get("next") if isinstance(value, dict) else None
    if not isinstance(items, list) or not isinstance(cursor, str | None):
        raise NotAController("the answer can't be read", "a list needs items and next")
    return items, cursor or ""


def _query(values: dict[str, str]) -> str:
    given = {key: value for key, value in values.items() if value}
    return "?" + urlencode(given) if given else ""


def _safe(identity: str) -> str:
    """An id as one path segment: nothing typed can reach another route."""
    if not identity or identity in (".", ".."):
        raise usage(f"{identity!r} is no id")
    return quote(identity, safe="", errors="surrogateescape")
