"""Devices and the fleet over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from controller.brokering import BrokerRefused
from controller.core import events as ev
from controller.core import views as vw
from protocol.messages import HEALTH_KNOWN, METERED, THROTTLED, Health

SHAPE = {
    "id", "state", "cordoned", "draining", "quarantined", "profile", "labels", "capacity", "reserved", "free",
    "used", "session", "runtimes", "containment", "limits", "version", "tasks", "last_heartbeat_ms_ago",
    "document", "granted", "heartbeat_ms", "accelerators", "extras", "core_speed_milli", "taints", "doubt",
    "health",
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
            accelerators=(("npu0", "hailo-8", 1_000),) if i == 2 else (),
            extras={"camera": 2} if i == 2 else {},
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
        "up_kbit_s": 0,
        "down_kbit_s": 0,
        "slots": 0,
    }
    assert (shown["accelerators"], shown["extras"], shown["taints"], shown["health"]) == ([], {}, [], None)
    assert shown["document"] == {"epoch": 7, "number": 3} and shown["runtimes"] == ["process"]


def test_what_a_device_has_beyond_amounts_is_shown(api, port, view_of_device):
    port.devices["d"] = view_of_device(
        "d",
        heartbeat_ms=5_000,
        accelerators=(("npu0", "hailo-8", 1_000), ("npu1", "", 500)),
        extras={"camera": 2},
        core_speed_milli=2_100,
        taints=("gpu=shared:no_place",),
        quarantined=True,
        doubt="advertises 9,999 cores",
        health=Health(HEALTH_KNOWN | THROTTLED | METERED, 81, 40, 7, 35),
    )
    shown = api.get("/api/v1/devices/d").json()
    assert shown["accelerators"] == [
        {"name": "npu0", "model": "hailo-8", "milli": 1_000},
        {"name": "npu1", "model": "", "milli": 500},
    ]
    assert (shown["extras"], shown["core_speed_milli"], shown["heartbeat_ms"]) == (
        {"camera": 2},
        2_100,
        5_000,
    )
    assert (shown["taints"], shown["doubt"]) == (["gpu=shared:no_place"], "advertises 9,999 cores")
    assert shown["health"] == {
        "throttled": True, "undervoltage": False, "on_battery": False, "metered": True,
        "temperature_c": 81, "battery_percent": 40, "wear_percent": 7, "latency_ms": 35,
    }  # fmt: skip


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
        ("accelerator=hailo-8", ["d2"]),
        ("extra.camera", ["d2"]),
        ("extra.camera=2,core_speed_milli=1000", ["d2"]),
        ("capacity.cpu_milli=4000,limits=cgroup2,heartbeat_ms!=0", []),
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


@pytest.mark.parametrize(
    "selector", ["zone=a", "=a", "label.", "capacity.cpu=1", "a=b=c", "!site=x", ",", "x" * 2_001]
)
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


def test_a_taint_is_set_and_taken_away_as_it_is_shown(api, port, devices):
    taint = "example.com/gpu=shared:no_place"
    for _ in range(2):
        set_ = api.post("/api/v1/devices/d0/taints", json={"taint": taint})
        assert (set_.status_code, set_.json()["taints"]) == (200, [taint])
    for written in (quote(taint, safe=""), taint):
        api.post("/api/v1/devices/d0/taints", json={"taint": taint})
        taken = api.delete(f"/api/v1/devices/d0/taints/{written}")
        assert (taken.status_code, taken.json()["taints"]) == (200, [])
    assert api.delete(f"/api/v1/devices/d0/taints/{taint}").status_code == 404
    decisions = [(d.verb, d.value, d.actor) for d in port.asked if isinstance(d, ev.DeviceDecision)]
    assert decisions[:2] == [("taint", taint, "tester")] * 2
    assert decisions[-1] == ("untaint", taint, "tester")


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({}, ""),
        ({"taint": 7}, ""),
        ({"taint": ""}, "no_place"),
        ({"taint": "gpu"}, "gpu:no_place"),
        ({"taint": "gpu=a b:no_place"}, "'a b' is no value"),
        ({"taint": "gpu:NoSchedule"}, "did you mean 'no_place'?"),
        ({"taint": "gpu:no_palce"}, "did you mean 'no_place'?"),
        ({"taint": "x" * 151}, "150"),
        ({"taint": "a\0:evict"}, "NUL"),
    ],
)
def test_what_is_no_taint_is_refused_with_what_would_be_one(api, port, devices, body, hint):
    answer = api.post("/api/v1/devices/d0/taints", json=body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/taint")
    assert hint in answer.json()["detail"] and port.asked == []


def test_a_taint_that_the_core_refuses_has_its_pointer_too(api, port, devices):
    port.answers[ev.DeviceDecision] = vw.RefusalView("invalid", "not here")
    answer = api.post("/api/v1/devices/d0/taints", json={"taint": "a:evict"})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/taint")
    port.answers[ev.DeviceDecision] = vw.RefusalView("conflict", "d0 has 16 taints already")
    assert api.post("/api/v1/devices/d0/taints", json={"taint": "a:evict"}).status_code == 409


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
