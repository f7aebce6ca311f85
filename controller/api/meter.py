"""The meter: figures of this process in Prometheus' text format.

Rule: bounded. Labels are route templates, methods and statuses, never what a caller
sent, so no request can add a series. Names end with their unit, counters with `_total`;
seconds as Prometheus wants them are the one exception from integer milliseconds.
Rejected: prometheus_client (its registry, locks and collectors are for programs with
many threads and libraries; counting two facts and printing lines takes this page).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

PREFIX = "fleetmuster_"
BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000)
"""From a read in memory to the moment at which an answer is given up."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HELP = {
    "inbox_events": "Events that wait for the core.",
    "inbox_lag_ms": "How long the oldest waiting event has waited.",
    "saves_total": "Commits of the store.",
    "saves_failed_total": "Commits that failed.",
    "events_total": "Events that the core has handled.",
    "requests_refused_total": "Events refused because the inbox was full.",
    "mqtt_received_total": "MQTT messages received.",
    "mqtt_sent_total": "MQTT messages sent.",
    "mqtt_dropped_total": "MQTT messages not sent: no connection, or its queue was full.",
    "devices": "Devices by liveness, and by what operators decided.",
    "tasks": "Tasks by state.",
    "pending": "Tasks that wait, by what they wait for.",
    "balance": "How evenly devices are loaded: sqrt(mean((load - mean)²)) is `imbalance`.",
    "jobs": "Jobs by state.",
    "garbage_total": "Messages dropped, by reason.",
    "core_total": "What the core counts, by name.",
    "capacity": "Sum of the devices' resources.",
    "reserved": "Sum of what is promised to tasks.",
    "alarms": "Alarms that stand.",
    "epoch": "Number of this leadership.",
    "uptime_ms": "How long this core has run.",
    "ready": "Whether a condition of /readyz holds, by name.",
    "http_requests_total": "Requests by route, method and status.",
    "http_request_seconds": "Time from the request's head to the end of the answer, by route.",
    "http_waiting": "Requests being worked on.",
}


class Family(NamedTuple):
    """All samples of one name: `kind` is gauge or counter, `label` names the key of the samples."""

    name: str
    kind: str
    label: str
    samples: Mapping[str, int | float]


class _Histogram:
    __slots__ = ("buckets", "sum_ms")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0.0


class Meter:
    """Counts requests; prints them and whatever families it is given."""

    def __init__(self) -> None:
        self.waiting = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, _Histogram] = {}

    def note(self, route: str, method: str, status: int, took_ms: float) -> None:
        """One finished request. `route` is a template, `method` one that the route knows."""
        key = (route, method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = _Histogram()
        times.buckets[bisect_left(BOUNDS_MS, took_ms)] += 1
        times.sum_ms += took_ms

    def render(self, families: Iterable[Family]) -> str:
        lines: list[str] = []
        for family in families:
            lines += _family_lines(family)
        lines += self._request_lines()
        lines += self._time_lines()
        lines += _family_lines(Family("http_waiting", "gauge", "", {"": self.waiting}))
        return "\n".join(lines) + "\n"

    def _request_lines(self) -> Iterator[str]:
        name = "http_requests_total"
        yield from _head(name, "counter")
        for (route, method, status), count in sorted(self._requests.items()):
            labels = _labels(route=route, method=method, status=str(status))
            yield f"{PREFIX}{name}{labels} {count}"

    def _time_lines(self) -> Iterator[str]:
        name = "http_request_seconds"
        yield from _head(name, "histogram")
        for route, times in sorted(self._times.items()):
            below = 0
            for bound, count in zip((*BOUNDS_MS, None), times.buckets, strict=True):
                below += count
                at_most = "+Inf" if bound is None else f"{bound / 1000:g}"
                yield f"{PREFIX}{name}_bucket{_labels(route=route, le=at_most)} {below}"
            yield f"{PREFIX}{name}_sum{_labels(route=route)} {times.sum_ms / 1000:.6f}"
            yield f"{PREFIX}{name}_count{_labels(route=route)} {below}"


def _family_lines(family: Family) -> Iterator[str]:
    yield from _head(family.name, family.kind)
    for key, value in sorted(family.samples.items()):
        labels = _labels(**{family.label: key}) if family.label else ""
        yield f"{PREFIX}{family.name}{labels} {value}"


def _head(name: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {HELP.get(name, name.replace('_', ' '))}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _labels(**pairs: str) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs.items()) + "}"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
