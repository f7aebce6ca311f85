"""Settings of a controller: what is wrong is one line, exit code 2, and nothing is begun."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from controller.cli import main
from controller.config import load_config, rules_of
from controller.core.rules import REBALANCE_MODES
from controller.scheduler.balance import Aims
from firmware_profiles import Catalogue, load_directory
from protocol.resources import Resources


@pytest.mark.parametrize(
    "change",
    [
        "controller.id=_me",
        "controller.id=a/b",
        "controller.fleet=#",
        "controller.log_level=loud",
        "controller.policy=nearest",
        "rebalance.mode=sometimes",
        "rebalance.goal=0.9",
        "rebalance.trigger=1.05",
        "rebalance.load_percent=101",
        "rebalance.windows=mon 22:00",
        "rebalance.windows=mo-fri 22:00-06:00",
        "rebalance.windows=sat,sun 22:00-24:00",
        "rebalance.windows=daily 04:00-04:00",
        "controller.profiles_dir=/nowhere/at/all",
        "mqtt.host=",
        "mqtt.port=abc",
        "mqtt.hots=x",
        "nonsense",
    ],
)
def test_a_wrong_setting_is_one_line_and_nothing_is_begun(change, tmp_path, capsys):
    assert main(["run", "--set", f"controller.data_dir={tmp_path / 'data'}", "--set", change]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and change.partition("=")[0] in said.err
    assert not (tmp_path / "data").exists()


def test_a_policy_that_is_nearly_one_is_told(capsys):
    assert main(["run", "--set", "controller.policy=binpak"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean 'binpack'?\n")


@pytest.mark.parametrize("content", [None, "[controller", "[controller]\nfoo = 1\n"])
def test_a_file_that_cannot_be_used_is_named(content, tmp_path, capsys):
    file = tmp_path / "controller.toml"
    if content is not None:
        file.write_text(content)
    assert main(["run", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(file) in said


def test_what_is_said_of_rebalancing_reaches_the_core(tmp_path):
    file = tmp_path / "controller.toml"
    file.write_text(
        "[rebalance]\nmode = 'auto'\ngoal = 1.2\ntrigger = 1.5\nmoves_max = 7\nauto_moves_max = 3\n"
        "auto_moves_percent = 5\nload_percent = 60\nlook_ms = 30000\n"
        "windows = ['mon-fri 22:00-06:00', 'sun 00:00-24:00']\n"
    )
    rules = rules_of(load_config(file, {}, {}).value, Catalogue())
    assert (rules.policy, rules.rebalance, rules.aims) == ("balanced", "auto", Aims(1.2, 1.5, 7))
    assert (rules.auto_moves_max, rules.auto_moves_percent) == (3, 5)
    assert (rules.load_percent_least, rules.look_ms) == (60, 30_000)
    assert [str(window) for window in rules.windows] == [
        "mon+tue+wed+thu+fri 22:00-06:00",
        "sun 00:00-24:00",
    ]


def test_every_mode_goes_with_a_policy_that_packs(tmp_path):
    """It is not levelled then; what runs by itself makes room."""
    for mode in REBALANCE_MODES:
        file = tmp_path / "controller.toml"
        file.write_text(f"[controller]\npolicy = 'binpack'\n[rebalance]\nmode = '{mode}'\n")
        rules = rules_of(load_config(file, {}, {}).value, Catalogue())
        assert (rules.policy, rules.rebalance) == ("binpack", mode)


BUILT_IN = files("firmware_profiles").joinpath("pi-zero-2w.toml").read_text()


def own_class(directory, name, kept_mib):
    text = BUILT_IN.replace('name = "pi-zero-2w"', f'name = "{name}"', 1)
    text = re.sub(r"headroom_memory_mib = \d+", f"headroom_memory_mib = {kept_mib}", text)
    (directory / f"{name}.toml").write_text(text)


def test_classes_of_the_site_keep_back_what_they_say_and_take_the_place_of_built_in_ones(tmp_path):
    own_class(tmp_path, "barn-cam", 100)
    own_class(tmp_path, "pi-zero-2w", 50)
    own = load_config(None, {"controller.profiles_dir": str(tmp_path)}, {}).value
    rules = rules_of(own, load_directory(own.controller.profiles_dir))
    room = Resources(4_000, 400)
    offers = {name: rules.offer(name, room).memory_mib for name in ("barn-cam", "pi-zero-2w", "other")}
    assert offers == {"barn-cam": 300, "pi-zero-2w": 350, "other": 400}
    assert "barn-cam" in rules.profiles and "pi-5-8g" in rules.profiles


def test_a_class_that_can_not_be_read_is_told_with_its_file_and_key(tmp_path, capsys):
    own_class(tmp_path, "barn-cam", 100)
    (tmp_path / "barn-cam.toml").rename(tmp_path / "barn.toml")
    assert main(["run", "--set", f"controller.profiles_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "barn.toml" in said and "name" in said
