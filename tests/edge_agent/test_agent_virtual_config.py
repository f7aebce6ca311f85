"""The file of virtual devices: read strictly, wrong in one line."""

from __future__ import annotations

import json

import pytest

from edge_agent.cli import main
from edge_agent.virtual import VirtualDevice, VirtualStore
from edge_agent.virtual_config import load_virtual
from live.settings import SettingsError
from protocol.messages import HEALTH_KNOWN, METERED, NO_HEALTH, THROTTLED, Accelerator, Health
from protocol.resources import Resources


def test_toml_and_json_say_the_same(tmp_path):
    toml, other = tmp_path / "d.toml", tmp_path / "d.json"
    toml.write_text('[mqtt]\nport = 7\n[fleet]\nname = "lab"\n[[devices]]\nid = "v1"\nprofile = "pi-4b-4g"\n')
    other.write_text(
        json.dumps(
            {
                "mqtt": {"port": 7},
                "fleet": {"name": "lab"},
                "devices": [{"id": "v1", "profile": "pi-4b-4g"}],
            }
        )
    )
    assert load_virtual(toml) == load_virtual(other)
    assert load_virtual(toml).devices[0].capacity.cpu_milli == 4_000


def test_a_capacity_that_is_given_counts(tmp_path):
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"devices": [{"id": "v", "capacity": {"cpu_milli": 5, "memory_mib": 6}}]}))
    assert load_virtual(file).devices[0].capacity == Resources(5, 6, 0, 0)
    assert load_virtual(file).devices[0].health == NO_HEALTH


def one(tmp_path, **words):
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"devices": [{"id": "v", **words}]}))
    return load_virtual(file).devices[0]


def test_what_is_not_given_is_that_of_the_profile(tmp_path):
    device = one(tmp_path, profile="jetson-orin-nano-8g")
    assert device.accelerators == (Accelerator("gpu0", "orin-nano-8g", 1_000),)
    assert device.capacity[3:] == (1_000, 940_000, 940_000, 0)
    assert device.core_speed_milli > 1_000
    bare = one(tmp_path, profile="jetson-orin-nano-8g", capacity={"cpu_milli": 9, "slots": 3})
    assert (bare.accelerators, bare.capacity) == ((), Resources(9, slots=3))


def test_accelerators_extras_and_health_are_given_by_name(tmp_path):
    device = one(
        tmp_path,
        accelerators=["gpu0:a2", "gpu1:a2:250"],
        extras={"cameras": 2},
        health={"throttled": True, "metered": True, "temperature_c": 82, "latency_ms": 40},
    )
    assert device.accelerators == (Accelerator("gpu0", "a2"), Accelerator("gpu1", "a2", 250))
    assert (device.capacity.gpu_milli, device.extras) == (1_250, {"cameras": 2})
    assert device.health == Health(HEALTH_KNOWN | THROTTLED | METERED, 82, 0, 0, 40)
    assert one(tmp_path, health={}).health == Health(HEALTH_KNOWN)


def test_a_virtual_device_offers_and_feels_what_it_was_given(tmp_path):
    file = tmp_path / "d.json"
    words = {
        "id": "v",
        "accelerators": ["gpu0:a2"],
        "extras": {"cameras": 2},
        "health": {"temperature_c": 50},
    }
    file.write_text(json.dumps({"devices": [words]}))
    config = load_virtual(file)
    device = VirtualDevice(config, config.devices[0], VirtualStore(tmp_path / "v.db"), None)
    assert device.agent.equipment.accelerators == (Accelerator("gpu0", "a2"),)
    assert device.agent.equipment.extras == {"cameras": 2}
    read = []
    device.driver.post = read.append
    device.set_health(device.health._replace(flags=HEALTH_KNOWN | THROTTLED))
    assert [event.health for event in read] == [Health(HEALTH_KNOWN | THROTTLED, 50)]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"mqqt": {}}',
        '{"mqtt": {"port": "x"}}',
        '{"mqtt": {"port": 0}}',
        '{"fleet": {"name": "a b"}}',
        '{"fleet": {"heartbeat_ms": 1}}',
        '{"devices": {}}',
        '{"devices": [{}]}',
        '{"devices": [{"id": "a"}, {"id": "a"}]}',
        '{"devices": [{"id": "a", "labels": {"x": 1}}]}',
        '{"devices": [{"id": "a", "capacity": {"cpu": 1}}]}',
        '{"devices": [{"id": "a", "profile": "no-such-board"}]}',
        '{"devices": [{"id": "a", "accelerators": "gpu0"}]}',
        '{"devices": [{"id": "a", "accelerators": [1]}]}',
        '{"devices": [{"id": "a", "accelerators": ["g", "g"]}]}',
        '{"devices": [{"id": "a", "extras": ["cameras"]}]}',
        '{"devices": [{"id": "a", "extras": {"cameras": "2"}}]}',
        '{"devices": [{"id": "a", "extras": {"cpu_milli": 2}}]}',
        '{"devices": [{"id": "a", "health": {"warm": true}}]}',
        '{"devices": [{"id": "a", "health": {"throttled": 1}}]}',
        '{"devices": [{"id": "a", "health": {"temperature_c": -1}}]}',
        '{"devices": [{"id": "a", "health": 1}]}',
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, capsys, text):
    file = tmp_path / "d.json"
    file.write_text(text)
    with pytest.raises(SettingsError):
        load_virtual(file)
    assert main(["virtual", "--config", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
