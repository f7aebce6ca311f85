"""The file of virtual devices: read strictly, wrong in one line."""

from __future__ import annotations

import json

import pytest

from edge_agent.cli import main
from edge_agent.virtual_config import load_virtual
from live.settings import SettingsError
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
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, capsys, text):
    file = tmp_path / "d.json"
    file.write_text(text)
    with pytest.raises(SettingsError):
        load_virtual(file)
    assert main(["virtual", "--config", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
