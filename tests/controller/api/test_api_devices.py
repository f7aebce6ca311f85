"""Devices and the fleet over HTTP."""

from __future__ import annotations

import pytest

from controller.brokering import BrokerRefused
from controller.core import events as ev
from controller.core import views as vw

SHAPE = {
    "id", "state", "cordoned", "draining", "quarantined", "profile", "labels", "capacity", "reserved", "free",
    "used", "session", "runtimes", "containment", "limits", "version", "tasks", "last_heartbeat_ms_ago",
    "document", "granted",
}  # fmt: skip


@pytest.fixture
def devices(port, view_of_device):
    for i in range(6):
        port.devices[f"d{i}"] = view_of_device(
            f"d{i}",
            state="offline" if i == 5 else "online",
            labels={"zone": "a" if i % 2 else "b", **({"gpu": ""} if i == 3 else {})},
            profile="pi-5-8g" if i < 2 else "pi-4b-4g",
            runtimes=("process", "container") if i == 4 else ("process",),
        )


def listed(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_a_device_is_shown_in_full(api, devices):
    shown = api.get("/api/v1/devices/d0").json()
    assert set(shown) == SHAPE
    assert shown["capacity"] == {
        "cpu_milli": 4_000,
        "memory_mib": 3_790,
        "disk_mib": 16_000,
        "gpu_milli": 0,
    }
    assert shown["document"] == {"epoch": 7, "number": 3} and shown["runtimes"] == ["process"]


def test_pages_of_devices_join(api, devices):
    first = api.get("/api/v1/devices?limit=4")
    assert listed(first) == ["d0", "d1", "d2", "d3"]
    second = api.get("/api/v1/devices", params={"limit": 4, "cursor": first.json()["next"]})
    assert (listed(second), second.json()["next"]) == (["d4", "d5"], None)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("label.zone=a", ["d1", "d3", "d5"]),
        ("label.zone==a", ["d1", "d3", "d5"]),
        ("label.zone=a,profile!=pi-5-8g", ["d3", "d5"]),
        ("label.gpu", ["d3"]),
        ("!label.gpu , label.zone = a", ["d1", "d5"]),
        ("runtime=container", ["d4"]),
        ("device=d2", ["d2"]),
        ("site=x", []),
        ("!site", ["d0", "d1", "d2", "d3", "d4", "d5"]),
        ("containment=strong,version=0.1.0,device!=d0", ["d1", "d2", "d3", "d4", "d5"]),
    ],
)
def test_a_selector_chooses(api, devices, selector, names):
    assert listed(api.get("/api/v1/devices", params={"selector": selector})) == names


def test_filtered_pages_join_and_none_is_lost_at_their_edge(api, devices):
    seen, cursor = [], None
    while True:
        params = {"limit": 1, "selector": "label.zone=a", "state": "online"}
        answer = api.get("/api/v1/devices", params={**params, **({"cursor": cursor} if cursor else {})})
        seen += listed(answer)
        cursor = answer.json()["next"]
        if cursor is None:
            break
    assert seen == ["d1", "d3"]


def test_a_filter_looks_at_a_bounded_number_of_devices_and_then_goes_on(api, port, view_of_device):
    for i in range(10_050):
        port.devices[f"d{i:05}"] = view_of_device(f"d{i:05}", state="offline")
    port.devices["z"] = view_of_device("z")
    first = api.get("/api/v1/devices?state=online")
    assert listed(first) == [] and first.json()["next"] is not None
    assert listed(api.get("/api/v1/devices", params={"state": "online", "cursor": first.json()["next"]})) == [
        "z"
    ]


@pytest.mark.parametrize("selector", ["zone=a", "=a", "label.", "a=b=c", "!site=x", ",", "x" * 2_001])
def test_a_selector_that_can_not_be_read_is_refused(api, selector):
    answer = api.get("/api/v1/devices", params={"selector": selector})
    assert answer.status_code == 400 and answer.json()["parameter"] == "selector"


def test_a_device_is_registered_once(api, port):
    answer = api.post("/api/v1/devices", json={"id": "pi-7"})
    assert answer.status_code == 201 and answer.headers["location"] == "/api/v1/devices/pi-7"
    assert answer.json() == {"id": "pi-7", "agent_toml": '[device]\nid = "pi-7"\n'}
    assert [d.verb for d in port.asked if isinstance(d, ev.DeviceDecision)] == ["add"]
    again = api.post("/api/v1/devices", json={"id": "pi-7"})
    assert again.status_code == 409 and port.credentials == ["pi-7"]


@pytest.mark.parametrize("body", [{}, {"id": ""}, {"id": "_x"}, {"id": "a b"}, {"id": "a\n"}, {"id": 7}])
def test_an_id_that_no_device_can_have_is_refused(api, port, body):
    answer = api.post("/api/v1/devices", json=body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/id")
    assert port.asked == [] and port.credentials == []


def test_removing_takes_the_credential_too(api, port):
    api.post("/api/v1/devices", json={"id": "pi-7"})
    answer = api.delete("/api/v1/devices/pi-7")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert port.credentials == [] and port.devices == {}
    assert api.delete("/api/v1/devices/pi-7").status_code == 404


def test_a_broker_that_refuses_is_told_and_nothing_is_registered(api, port, monkeypatch):
    async def refuse(device):
        raise BrokerRefused("the broker is gone")

    monkeypatch.setattr(port, "add_device", refuse)
    answer = api.post("/api/v1/devices", json={"id": "pi-7"})
    assert answer.status_code == 502 and answer.json()["detail"] == "the broker is gone"
    assert port.devices == {}


def test_decisions_answer_with_the_device_as_it_is_then(api, port, devices):
    cordoned = api.post("/api/v1/devices/d0/cordon", json={})
    assert cordoned.status_code == 200 and cordoned.json()["cordoned"] is True
    drained = api.post("/api/v1/devices/d0/drain")
    assert drained.status_code == 202 and drained.json()["draining"] is True
    opened = api.post("/api/v1/devices/d0/uncordon")
    assert opened.json()["cordoned"] is False and opened.json()["draining"] is False
    decisions = [d for d in port.asked if isinstance(d, ev.DeviceDecision)]
    assert [(d.verb, d.device, d.actor) for d in decisions] == [
        ("cordon", "d0", "tester"),
        ("drain", "d0", "tester"),
        ("uncordon", "d0", "tester"),
    ]


def test_a_ping_tells_the_round_trip(api, devices):
    rtt_us = api.post("/api/v1/devices/d0/ping").json()["rtt_us"]
    assert isinstance(rtt_us, int) and rtt_us >= 0


def test_a_ping_without_answer_is_a_gateway_timeout(api, port):
    port.answers[ev.DevicePinged] = vw.RefusalView("unreachable", "no answer within 10000 ms")
    answer = api.post("/api/v1/devices/d0/ping")
    assert answer.status_code == 504 and answer.json()["type"].endswith(":unreachable")


@pytest.mark.parametrize("name", ["none", "_controller", "%00", "a" * 65, "%23", "+"])
@pytest.mark.parametrize("verb", ["", "/cordon", "/uncordon", "/drain"])
def test_a_device_that_is_not_there_is_not_found(api, name, verb):
    path = f"/api/v1/devices/{name}{verb}"
    assert (api.post(path) if verb else api.get(path)).status_code == 404


def test_the_fleet_at_a_glance(api):
    shown = api.get("/api/v1/fleet").json()
    assert set(shown) == {
        "devices", "tasks", "jobs", "capacity", "reserved", "free", "frozen", "waiting_ms", "alarms",
        "garbage", "epoch", "leader", "uptime_ms", "version",
    }  # fmt: skip
    assert shown["tasks"] == {
        "pending": 1, "assigned": 0, "running": 2, "succeeded": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert shown["jobs"] == {"open": 1, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert shown["garbage"] == {"oversize": 2}


def test_a_freeze_is_ended_by_its_route(api, port):
    assert api.post("/api/v1/fleet/unfreeze", json={}).status_code == 200
    assert port.asked[0] == ev.FleetUnfrozen(1, "tester")
