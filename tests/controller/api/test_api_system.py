"""Health, readiness, version, figures, HEAD, the path prefix, and the OpenAPI file."""

from __future__ import annotations

import re

import pytest

from controller.api.meter import Family, Meter
from controller.api.port import NoAnswer
from controller.core import events as ev

LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? -?[0-9.e+-]+\Z')


@pytest.fixture
def anybody(serve):
    return serve(token="")


def test_health_needs_no_token(anybody):
    assert anybody.get("/healthz").json() == {"status": "ok"}
    body = anybody.get("/version").json()
    assert body["api"] == "v1" and body["protocol"] == 1 and body["version"]


def test_readiness_names_what_is_missing(anybody, port):
    assert anybody.get("/readyz").json() == {"ready": True, "checks": {"store": True, "broker": True}}
    port.ready["broker"] = False
    answer = anybody.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"store": True, "broker": False}}


def test_a_standby_is_not_ready_and_says_who_leads(anybody, port):
    port.ready, port.leader = {"store": True, "broker": False, "leader": False}, "c2"
    answer = anybody.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": port.ready, "standby_of": "c2"}


def test_metrics_are_prometheus_text(anybody, api):
    api.post("/api/v1/jobs", json={"task": {"command": ["x"]}})
    api.get("/nothing/at/all")
    answer = api.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or LINE.match(line), line
    assert 'fleetmuster_devices{state="online"} 2' in lines
    assert 'fleetmuster_tasks{state="running"} 2' in lines
    assert 'fleetmuster_garbage_total{reason="oversize"} 2' in lines
    assert "fleetmuster_saves_total 3" in lines and "fleetmuster_inbox_lag_ms 0.5" in lines
    assert 'fleetmuster_http_requests_total{route="/api/v1/jobs",method="POST",status="201"} 1' in lines
    assert 'fleetmuster_http_requests_total{route="unknown",method="GET",status="404"} 1' in lines
    assert 'fleetmuster_http_request_seconds_count{route="/api/v1/jobs"} 1' in lines
    assert "# TYPE fleetmuster_saves_total counter" in lines
    assert "# TYPE fleetmuster_http_request_seconds histogram" in lines
    assert anybody.get("/metrics").status_code == 200


def test_metrics_come_even_when_the_core_does_not_answer(api, port):
    port.answers[ev.FleetQueried] = NoAnswer("stuck")
    answer = api.get("/metrics")
    assert answer.status_code == 200 and "fleetmuster_saves_total 3" in answer.text
    assert "fleetmuster_devices" not in answer.text


def test_metrics_may_be_guarded(serve):
    assert serve(token="", metrics_open=False).get("/metrics").status_code == 401
    assert serve(metrics_open=False).get("/metrics").status_code == 200


def test_no_request_can_add_series_without_end(api):
    for i in range(30):
        api.request(f"M{i}", f"/path/{i}")
        api.get(f"/api/v1/jobs/j{i}")
    series = [line for line in api.get("/metrics").text.splitlines() if "http_requests_total{" in line]
    assert len(series) == 2


def test_a_histogram_counts_upward_and_labels_are_quoted():
    meter = Meter()
    for took_ms in (0.5, 1, 3, 20_000):
        meter.note("/x", "GET", 200, took_ms)
    text = meter.render([Family("core_total", "counter", "name", {'a"\\\n': 1})])
    assert 'fleetmuster_core_total{name="a\\"\\\\\\n"} 1' in text
    counts = [int(line.split()[-1]) for line in text.splitlines() if "_bucket" in line]
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (2, 4)
    assert 'le="+Inf"} 4' in text and 'le="0.0025"} 2' in text


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/fleet", "/api/v1/devices/none"])
def test_head_is_get_without_the_body(api, path):
    got, head = api.get(path), api.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("sent", ["/fm/api/v1", "/api/v1"])
def test_it_works_behind_a_prefix_whether_the_proxy_strips_it_or_not(serve, sent):
    client = serve(root_path="/fm/")
    made = client.post(f"{sent}/jobs", json={"task": {"command": ["x"]}})
    assert made.status_code == 201
    assert made.headers["location"] == f"/fm/api/v1/jobs/{made.json()['id']}"
    assert client.get(made.headers["location"]).status_code == 200
    assert serve(token="", root_path="/fm").get(f"{sent}/fleet").status_code == 401


def test_openapi_needs_no_token_and_every_reference_in_it_resolves(anybody):
    schema = anybody.get("/api/v1/openapi.json").json()
    known = schema["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
    assert references <= set(known) and "#/$defs" not in str(schema)
    assert {"JobBody", "JobShape", "ProblemShape", "DeviceBody"} <= set(known)
    submit = schema["paths"]["/api/v1/jobs"]["post"]
    assert set(submit["responses"]) == {"200", "201", "default"}
    assert submit["security"] == [{"token": []}]
    assert "security" not in schema["paths"]["/healthz"]["get"]
