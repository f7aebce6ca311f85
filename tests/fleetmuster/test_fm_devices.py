"""`fm device`, `fm fleet`, `fm context`."""

import io
import json
import stat
import sys

import pytest

from fleetmuster import contexts

DEVICE = {
    "id": "pi-7",
    "state": "online",
    "cordoned": True,
    "draining": False,
    "quarantined": False,
    "profile": "pi-4b-4g",
    "labels": {"zone": "a"},
    "capacity": {"cpu_milli": 4000, "memory_mib": 3790, "disk_mib": 0, "gpu_milli": 0},
    "reserved": {"cpu_milli": 500, "memory_mib": 64, "disk_mib": 0, "gpu_milli": 0},
    "free": {"cpu_milli": 3500, "memory_mib": 3726, "disk_mib": 0, "gpu_milli": 0},
    "used": {"cpu_milli": 120, "memory_mib": 300},
    "session": 1234,
    "runtimes": ["process"],
    "containment": "strong",
    "last_heartbeat_ms_ago": 2300,
}
FLEET = {
    "devices": {"online": 53, "suspect": 0, "offline": 1, "cordoned": 0},
    "tasks": {"running": 5, "pending": 0},
    "jobs": {"open": 2},
    "capacity": {"cpu_milli": 8000, "memory_mib": 8192},
    "reserved": {"cpu_milli": 500, "memory_mib": 64},
    "free": {"cpu_milli": 7500, "memory_mib": 8128},
    "frozen": True,
    "alarms": ["clone: pi-7", {"kind": "storm", "site": "a"}],
    "garbage": {"malformed": 3},
    "epoch": 1767323045,
    "leader": "c-1",
    "uptime_ms": 61000,
    "version": "0.1.0",
}


class Keyboard(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def typed(monkeypatch):
    """Puts a person with this answer in front of the program."""

    def sit(answer):
        monkeypatch.setattr(sys, "stdin", Keyboard(answer + "\n"))
        monkeypatch.setattr("fleetmuster.console._is_terminal", lambda stream: stream is not sys.stdout)

    return sit


def test_list_and_show(api, fm):
    api.on("GET", "/devices", {"items": [DEVICE, {"id": "new"}], "next": None})
    api.on("GET", "/devices/pi-7", DEVICE)
    out = fm("device", "list").out
    for word in ("cordoned", "pi-4b-4g", "3.5/4", "3.6 GiB / 3.7 GiB", "2s"):
        assert word in out
    shown = fm("device", "show", "pi-7").out
    assert "zone=a" in shown and "2s ago" in shown and "capacity" in shown
    assert json.loads(fm("device", "show", "pi-7", "-o", "json").out) == DEVICE


def test_an_empty_fleet_teaches_how_to_fill_it(api, fm):
    api.on("GET", "/devices", {"items": []})
    assert "fm device add" in fm("device", "list").err


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain"])
def test_verbs_on_several_devices_go_on_after_a_failure(api, fm, says, verb):
    for name in ("pi-1", "pi-3"):
        api.on("POST", f"/devices/{name}/{verb}", says({}, 202))
    assert fm("device", verb, "pi-1").code == 0
    ended = fm("device", verb, "pi-1", "pi-2", "pi-3")
    assert ended.code == 8 and "pi-3" in ended.err
    assert fm("device", verb, "pi-2").code == 3


RICH = {
    **DEVICE,
    "capacity": {**DEVICE["capacity"], "up_kbit_s": 2_000, "down_kbit_s": 1_500_000, "slots": 8},
    "accelerators": [
        {"name": "npu0", "model": "hailo-8", "milli": 1_000},
        {"name": "npu1", "model": "", "milli": 500},
    ],
    "extras": {"camera": 2},
    "core_speed_milli": 2_100,
    "taints": ["gpu=shared:no_place", "old:evict"],
    "doubt": "advertises 9,999 cores",
    "health": {
        "throttled": True, "undervoltage": False, "on_battery": True, "metered": False,
        "temperature_c": 81, "battery_percent": 40, "wear_percent": 0, "latency_ms": 35,
    },
}  # fmt: skip


def test_show_tells_what_a_device_has_beyond_amounts(api, fm):
    api.on("GET", "/devices/pi-7", RICH)
    out = fm("device", "show", "pi-7").out
    facts = {tuple(line.split("  ", 1)) for line in out.splitlines() if "  " in line}
    told = {name.strip(): text.strip() for name, text in facts}
    assert told["accelerators"] == "npu0 (hailo-8), npu1 (0.5)"
    assert told["extras"] == "2 camera" and told["core speed"] == "2.1 of the reference core"
    assert told["taints"] == "gpu=shared:no_place, old:evict" and told["doubt"] == "advertises 9,999 cores"
    assert told["health"] == "throttled, on battery, 81 °C, battery 40 %, 35 ms"
    assert "cordoned,tainted" in told["flags"]
    capacity = next(line for line in out.splitlines() if line.startswith("capacity"))
    assert capacity.split()[-5:] == ["2", "Mbit/s", "1.5", "Gbit/s", "8"]


def test_a_device_without_a_bound_on_tasks_says_so(api, fm):
    amounts = {"capacity": {"slots": 0}, "reserved": {"slots": 2}, "free": {"slots": 510}}
    api.on("GET", "/devices/pi-7", {**DEVICE, **amounts})
    rows = {line.split()[0]: line for line in fm("device", "show", "pi-7").out.splitlines() if line}
    assert rows["capacity"].endswith("  no bound")
    assert rows["reserved"].endswith(" 2") and rows["free"].endswith(" 510")


def test_a_healthy_device_and_a_silent_one_are_told_apart(api, fm):
    api.on("GET", "/devices/pi-7", {**DEVICE, "health": {"throttled": False}})
    assert "nothing to report" in fm("device", "show", "pi-7").out
    api.on("GET", "/devices/pi-7", {**DEVICE, "health": None})
    assert "health" not in fm("device", "show", "pi-7").out


def test_taints_are_set_and_taken_off_one_by_one(api, fm, refusal):
    api.on("POST", "/devices/pi-7/taints", DEVICE)
    ended = fm("device", "taint", "pi-7", "gpu=shared:no_place", "old:evict")
    assert ended.code == 0 and "old:evict set on pi-7" in ended.err
    assert api.bodies("POST", "/devices/pi-7/taints") == [
        {"taint": "gpu=shared:no_place"},
        {"taint": "old:evict"},
    ]
    api.on("DELETE", "/devices/pi-7/taints/a.b%2Fgpu%3Dshared%3Ano_place", DEVICE)
    ended = fm("device", "untaint", "pi-7", "a.b/gpu=shared:no_place")
    assert ended.code == 0 and "taken off pi-7" in ended.err
    assert fm("device", "untaint", "pi-7", "old:evict").code == 3
    api.on("POST", "/devices/pi-7/taints", refusal(422, "'x' is not an effect", "/taint"))
    ended = fm("device", "taint", "pi-7", "gpu:x")
    assert ended.code == 2 and "not an effect" in ended.err


def test_a_wrong_token_ends_a_series_at_once(api, fm, monkeypatch):
    monkeypatch.setenv("FM_TOKEN", "wrong")
    assert fm("device", "drain", "a", "b", "c").code == 4
    assert len(api.asked) == 1


def test_add_prints_the_configuration_once(api, fm, says):
    api.on("POST", "/devices", says({"id": "pi-9", "agent_toml": "device = 'pi-9'\n"}, 201))
    ended = fm("device", "add", "pi-9")
    assert (ended.code, ended.out) == (0, "device = 'pi-9'\n") and "once" in ended.err
    assert api.bodies("POST", "/devices") == [{"id": "pi-9"}]
    assert json.loads(fm("-o", "json", "device", "add", "pi-9").out)["id"] == "pi-9"


def test_add_writes_a_private_file(api, fm, says, tmp_path):
    api.on("POST", "/devices", says({"id": "pi-9", "agent_toml": "x = 1"}, 201))
    path = tmp_path / "agent.toml"
    ended = fm("device", "add", "pi-9", "-o", str(path))
    assert (ended.code, ended.out, path.read_text()) == (0, "", "x = 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_add_asks_for_no_credential_that_it_could_not_keep(api, fm, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text("another device's")
    assert fm("device", "add", "pi-9", "-o", str(path)).code == 5
    assert fm("device", "add", "pi-9", "-o", str(tmp_path / "no" / "where")).code == 2
    assert path.read_text() == "another device's" and api.asked == []


def test_what_nobody_measures_is_no_zero(api, fm):
    used = {"cpu_milli": 120, "memory_mib": 300, "disk_mib": None}
    api.on("GET", "/devices/pi-7", {**DEVICE, "capacity": {**DEVICE["capacity"], "slots": 0}, "used": used})
    lines = {line.split()[0]: line.split() for line in fm("device", "show", "pi-7").out.splitlines() if line}
    assert lines["used"] == ["used", "0.12", "300", "MiB", "-", "-", "-", "-", "-"]
    assert lines["capacity"][-2:] == ["no", "bound"]


def test_a_refused_add_leaves_no_empty_file(api, fm, refusal, tmp_path):
    api.on("POST", "/devices", refusal(409, "pi-9 is a device already"))
    assert fm("device", "add", "pi-9", "-o", str(tmp_path / "agent.toml")).code == 5
    assert list(tmp_path.iterdir()) == []


def test_remove_is_refused_where_nobody_can_be_asked(api, fm, says):
    api.on("DELETE", "/devices/pi-7", says(b"", 204))
    ended = fm("device", "remove", "pi-7")
    assert ended.code == 2 and "--yes" in ended.err and api.asked == []
    assert fm("device", "remove", "pi-7", "--yes").code == 0
    assert [each.method for each in api.asked] == ["DELETE"]


@pytest.mark.parametrize(("answer", "code", "requests"), [("2", 0, 2), ("y", 2, 0), ("", 2, 0)])
def test_a_person_confirms_by_typing_the_number(api, fm, says, typed, answer, code, requests):
    typed(answer)
    for name in ("pi-7", "pi-8"):
        api.on("DELETE", f"/devices/{name}", says(b"", 204))
    ended = fm("device", "remove", "pi-7", "pi-8")
    assert (ended.code, len(api.asked), ended.out) == (code, requests, "")
    assert "remove 2 devices (pi-7, pi-8)" in ended.err


def test_no_input_never_asks(api, fm, typed):
    typed("1")
    assert fm("device", "remove", "pi-7", "--no-input").code == 2
    assert api.asked == []


def test_ping_is_told_in_milliseconds_and_kept_in_microseconds(api, fm):
    api.on("POST", "/devices/pi-7/ping", {"rtt_us": 1234})
    assert fm("device", "ping", "pi-7").out == "1.23 ms\n"
    assert json.loads(fm("device", "ping", "pi-7", "-o", "json").out) == {"device": "pi-7", "rtt_us": 1234}


def test_the_fleet_on_one_screen(api, fm):
    api.on("GET", "/fleet", FLEET)
    ended = fm("fleet")
    for word in (
        "53 online",
        "1 offline",
        "5 running",
        "7.5 free of 8",
        "7.9 GiB free of 8 GiB",
        "3 malformed",
        "1m1s",
    ):
        assert word in ended.out
    assert "fm fleet unfreeze" in ended.out and "ALARM: clone: pi-7" in ended.out and "site a" in ended.out
    assert json.loads(fm("fleet", "-o", "json").out) == FLEET
    api.on("GET", "/fleet", {})
    assert fm("fleet").code == 0


def test_unfreeze(api, fm, says):
    api.on("POST", "/fleet/unfreeze", says(b"", 204))
    assert fm("fleet", "unfreeze").code == 0


def test_contexts_are_listed_chosen_shown_and_forgotten(bare_fm):
    contexts.register("a", "http://a", "hidden", "/d", pid=7)
    contexts.register("b", "http://b", "hidden", "")
    assert bare_fm("context", "use", "a").code == 0
    listed = json.loads(bare_fm("context", "list", "-o", "json").out)
    assert [(each["name"], each["current"]) for each in listed] == [("a", True), ("b", False)]
    assert "hidden" not in bare_fm("context", "list").out + bare_fm("context", "show").out
    assert "hidden" in bare_fm("context", "show", "a", "--show-token").out
    assert bare_fm("context", "remove", "a").code == 0
    assert bare_fm("context", "remove", "a").code == 3
    assert bare_fm("context", "use", "a").code == 3
    assert bare_fm("context", "show").code == 3
