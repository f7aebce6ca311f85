"""Configuration: layers, one-line errors, what a link is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.config import OnStop, capacity_of, link_options, load_config
from edge_agent.sensors import Sensors
from live.settings import SettingsError
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
    assert capacity_of(config, Resources(4000, 3790, 9999, 5)) == Resources(4000, 512, 9999, 0)


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
    ],
)
def test_what_is_wrong_is_one_line(file, change):
    with pytest.raises(SettingsError) as caught:
        load_config(file, change, {})
    assert "\n" not in str(caught.value)


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
