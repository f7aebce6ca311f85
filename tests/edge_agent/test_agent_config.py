"""Configuration: layers, one-line errors, what a link is told."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path

import pytest

from edge_agent.app import equipment_of
from edge_agent.cli import main
from edge_agent.config import (
    OnStop,
    accelerators_of,
    capacity_of,
    link_options,
    load_config,
    metered_of,
    profile_of,
)
from edge_agent.core.agent import Agent
from edge_agent.core.equipment import Identity
from edge_agent.core.events import Booted
from edge_agent.core.memory import Memory
from edge_agent.sensors import Sensors
from live.settings import SettingsError
from protocol.core import LinkUp, Publish
from protocol.messages import Accelerator, Inventory
from protocol.resources import Resources

GOOD = """
[device]
id = "pi-7"
fleet = "lab"
profile = "pi-4b-4g"
data_dir = "/tmp/pi-7"
[device.labels]
site = "roof"
[capacity]
memory_mib = 512
[mqtt]
host = "broker.lan"
port = 8883
password = "s3cret"
ca_file = "/etc/ca.pem"
[agent]
heartbeat_ms = 5000
run_uid = 1234
on_stop = "leave"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    return path


def test_every_section_is_read(file):
    config = load_config(file, {}, {}).value
    assert (config.device.id, config.device.labels, config.agent.on_stop) == (
        "pi-7",
        {"site": "roof"},
        OnStop.LEAVE,
    )
    told = capacity_of(config, Resources(4000, 3790, 9999, 5), profile_of(config))
    assert told == Resources(4000, 512, 9999, 0, 940_000, 940_000, 0)


def test_a_link_speaks_as_the_device_and_only_to_it(file):
    options = link_options(load_config(file, {}, {}).value, None)
    assert (options.client_id, options.username, options.password) == ("pi-7", "pi-7", "s3cret")
    assert options.tls is not None and options.tls.ca_file == "/etc/ca.pem"
    assert all(topic.startswith("fm/1/lab/pi-7/") for topic, _ in options.subscriptions)


def test_flags_beat_environment_beats_conf_d_beats_file(file):
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "10.toml").write_text('[mqtt]\nhost = "conf-d"\nport = 1\n')
    env = {"FM_MQTT_PORT": "2", "FM_AGENT_HEARTBEAT_MS": "7000"}
    config = load_config(file, {"agent.heartbeat_ms": "8000"}, env).value
    assert (config.mqtt.host, config.mqtt.port, config.agent.heartbeat_ms) == ("conf-d", 2, 8000)


@pytest.mark.parametrize(
    "change",
    [
        {"device.id": "not an id!"},
        {"device.id": ""},
        {"device.fleet": "a/b"},
        {"agent.log_level": "loud"},
        {"agent.heartbeat_ms": "1"},
        {"mqtt.port": "70000"},
        {"mqtt.host": ""},
        {"agent.run_uid": "4294967295"},
        {"agent.on_stop": "maybe"},
        {"mqtt.hots": "x"},
        {"device.profile": "pi-4b"},
        {"device.profile_file": "/nowhere/pi-4b-4g.toml"},
        {"capacity.slots": "513"},
        {"capacity.accelerators": "gpu0,gpu0"},
        {"capacity.accelerators": "gpu0:model:1001"},
        {"capacity.accelerators": "gpu0:model:0"},
        {"capacity.accelerators": "gpu0:model:half"},
        {"capacity.accelerators": "gpu0:model:500:more"},
        {"capacity.accelerators": "gpu0:a model"},
        {"capacity.accelerators": "/dev/gpu0"},
        {"capacity.accelerators": ",".join(f"g{n}" for n in range(17))},
        {"capacity.accelerators": "gpu0:m:500", "capacity.gpu_milli": "1000"},
        {"capacity.extras": "cameras=-1"},
        {"capacity.extras": "cameras=many"},
        {"capacity.extras": "Camera=1"},
        {"capacity.extras": "slots=1"},
        {"capacity.extras": ",".join(f"e{n}=1" for n in range(33))},
        {"health.metered": "maybe"},
        {"health.wear_percent": "101"},
    ],
)
def test_what_is_wrong_is_one_line(file, change):
    with pytest.raises(SettingsError) as caught:
        load_config(file, change, {})
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_an_offer_says_where_and_what_to_write(file):
    file.write_text(GOOD.replace("memory_mib = 512", 'accelerators = ["a:b:c:d"]'))
    with pytest.raises(SettingsError, match=r"agent.toml:10: capacity.accelerators .* NAME:MODEL:MILLI"):
        load_config(file, {}, {})
    file.write_text(GOOD.replace("pi-4b-4g", "pi-4b-8g"))
    with pytest.raises(SettingsError, match=r"agent.toml:5: device.profile .* did you mean pi-4b-4g\?"):
        load_config(file, {}, {})


def test_what_is_told_of_accelerators_beats_the_profile(file):
    jetson = {"device.profile": "jetson-orin-nano-8g"}
    config = load_config(file, jetson, {}).value
    of_class = accelerators_of(config, profile_of(config))
    assert of_class == (Accelerator("gpu0", "orin-nano-8g", 1_000),)
    assert capacity_of(config, Resources(), profile_of(config)).gpu_milli == 1_000
    told = load_config(file, {**jetson, "capacity.accelerators": "tpu0:coral-usb, 1::500"}, {}).value
    assert accelerators_of(told, profile_of(told)) == (
        Accelerator("tpu0", "coral-usb", 1_000),
        Accelerator("1", "", 500),
    )
    assert capacity_of(told, Resources(), profile_of(told)).gpu_milli == 1_500
    sum_only = load_config(file, {**jetson, "capacity.gpu_milli": "2000"}, {}).value
    assert accelerators_of(sum_only, profile_of(sum_only)) == ()
    assert capacity_of(sum_only, Resources(), profile_of(sum_only)).gpu_milli == 2_000


def test_measured_memory_is_offered_less_what_the_system_needs(file):
    config = load_config(file, {"capacity.memory_mib": "0", "capacity.slots": "3"}, {}).value
    told = capacity_of(config, Resources(4000, 3790, 9999), profile_of(config))
    assert (told.memory_mib, told.slots) == (3490, 3)


def test_a_class_of_ones_own_comes_from_its_file(file):
    own = file.parent / "my-board.toml"
    text = files("firmware_profiles").joinpath("pi-4b-4g.toml").read_text()
    text = text.replace('"pi-4b-4g"', '"my-board"').replace(
        "cost_micro_per_mib = 0", "cost_micro_per_mib = 9"
    )
    own.write_text(text)
    file.write_text(GOOD.replace('profile = "pi-4b-4g"', f'profile_file = "{own}"'))
    config = load_config(file, {}, {}).value
    assert config.device.profile == "my-board"
    assert metered_of(config, profile_of(config)), "its link costs something"
    assert not metered_of(load_config(file, {"health.metered": "no"}, {}).value, profile_of(config))
    with pytest.raises(SettingsError, match="its file says 'my-board'"):
        load_config(file, {"device.profile": "pi-4b-4g"}, {})


def test_the_inventory_of_a_device_tells_what_it_offers(file):
    flags = {"capacity.accelerators": "gpu0:a2", "capacity.extras": "cameras=2", "capacity.slots": "4"}
    equipment = equipment_of(load_config(file, flags, {}).value, Resources(4000, 900, 50), ("process",))
    agent = Agent(Memory("i"), Identity("pi-7", "b"), equipment, random.Random(1))
    agent.handle(Booted(), 0)
    said = agent.handle(LinkUp(agent.connection.session), 1)
    (inventory,) = [e.message for e in said if isinstance(e, Publish) and isinstance(e.message, Inventory)]
    assert inventory.accelerators == (Accelerator("gpu0", "a2", 1_000),)
    assert (inventory.extras, inventory.core_speed_milli) == ({"cameras": 2}, 1_000)
    assert inventory.capacity == Resources(4000, 512, 50, 1_000, 940_000, 940_000, 4)


def test_the_command_says_it_in_one_line_and_exits_with_2(file, capsys):
    file.write_text(GOOD.replace("heartbeat_ms", "hartbeat_ms"))
    assert main(["config", "check", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "did you mean agent.heartbeat_ms?" in said
    assert main(["run", "--config", str(file.parent / "missing.toml")]) == 2


def test_config_show_tells_origins_and_hides_secrets(file, capsys):
    assert main(["config", "show", "--config", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "s3cret" not in shown and "mqtt.password = ***" in shown and "agent.toml:" in shown


def test_sensors_measure_and_never_fail(tmp_path):
    real = Sensors(tmp_path)
    assert real.capacity().cpu_milli >= 1000 and real.capacity().memory_mib > 0
    assert min(real.used()) >= 0
    blind = Sensors(tmp_path / "missing", proc=Path("/nowhere"))
    assert min(blind.used()) >= 0


def test_sensors_count_the_processor_since_the_last_question(tmp_path):
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text("cpu 0 0 0 1000 0 0 0 0 0 0\n")
    (proc / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
    sensors = Sensors(tmp_path, proc=proc)
    assert sensors.used().memory_mib == 1024
    sensors._asked_s -= 10
    (proc / "stat").write_text("cpu 500 0 0 1000 0 0 0 0 0 0\n")
    assert 400 <= sensors.used().cpu_milli <= 510
