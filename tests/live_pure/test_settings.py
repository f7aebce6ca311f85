"""Layers, origins and one-line errors of settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from live.settings import SettingsError, load_settings, section, setting


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Mqtt:
    host: str = setting("127.0.0.1", "where the broker is")
    port: int = setting(1883, "its port", minimum=1, maximum=65_535)
    password: str = setting("", "from the credential file", secret=True)
    keepalive_s: float = setting(10.0, "silence", unit="s", minimum=1)


@dataclass(frozen=True, slots=True)
class Odd:
    on: bool = setting(False, "a switch")
    names: tuple[str, ...] = setting((), "a list")
    labels: dict[str, str] = setting({}, "a table")
    counts: dict[str, int] = setting({}, "a table of numbers")
    colour: Colour = setting(Colour.RED, "a choice")
    folder: Path = setting(Path("/var"), "a path")
    maybe: int | None = setting(None, "absent is an answer")


@dataclass(frozen=True, slots=True)
class Whole:
    mqtt: Mqtt = section(Mqtt)
    odd: Odd = section(Odd)


def test_without_anything_all_are_defaults():
    loaded = load_settings(Whole)
    assert loaded.value == Whole()
    assert {row.origin for row in loaded.rows()} == {"default"}


def test_a_later_layer_wins_and_each_value_knows_its_origin(tmp_path):
    file, conf = tmp_path / "a.toml", tmp_path / "conf.d"
    conf.mkdir()
    file.write_text('# ours\n[mqtt]\nhost = "file"\nport = 1\nkeepalive_s = 5\n\n[odd]\non = true\n')
    (conf / "20.toml").write_text('[mqtt]\nhost = "twenty"\n')
    (conf / "10.toml").write_text('[mqtt]\nhost = "ten"\nport = 2\n')
    (conf / "ignored.txt").write_text("not toml")
    loaded = load_settings(
        Whole,
        file=file,
        conf_dir=conf,
        env={"FM_MQTT_PORT": "3", "FM_TASK": "t", "FM_ODD_ON": "no", "HOME": "/"},
        flags={"mqtt.port": "4", "mqtt.password": None},
    )
    assert (loaded.value.mqtt.host, loaded.value.mqtt.port) == ("twenty", 4)
    assert loaded.value.mqtt.keepalive_s == 5.0 and loaded.value.odd.on is False
    assert loaded.origin("mqtt.host") == f"{conf / '20.toml'}:2"
    assert loaded.origin("mqtt.port") == "flag mqtt.port"
    assert loaded.origin("mqtt.keepalive_s") == f"{file}:5"
    assert loaded.origin("odd.on") == "FM_ODD_ON"
    assert loaded.origin("mqtt.password") == "default"


def test_every_type_is_read_from_a_file_and_from_text(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(
        '[odd]\non=true\nnames=["a","b"]\nlabels={x="1"}\ncolour="green"\nfolder="/srv"\nmaybe=3\n'
    )
    text = {
        "FM_ODD_ON": "yes",
        "FM_ODD_NAMES": "a, b",
        "FM_ODD_LABELS": "x=1",
        "FM_ODD_COLOUR": "green",
        "FM_ODD_FOLDER": "/srv",
        "FM_ODD_MAYBE": "3",
    }
    wanted = Odd(True, ("a", "b"), {"x": "1"}, {}, Colour.GREEN, Path("/srv"), 3)
    assert load_settings(Whole, file=file).value.odd == wanted
    assert load_settings(Whole, env=text).value.odd == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[mqtt]\nhots = "x"', ":2: unknown key mqtt.hots, did you mean mqtt.host?"),
        ("[mqttt]\nport = 1", ":1: unknown section [mqttt], did you mean mqtt?"),
        ("port = 1", "unknown section [port]"),
        ("mqtt = 1", "[mqtt] must be a table"),
        ('[mqtt]\n\nport = "1883"', ":3: mqtt.port must be a whole number, not '1883'"),
        ("[mqtt]\nport = true", "mqtt.port must be a whole number, not True"),
        ("[mqtt]\nport = 0", "mqtt.port must be at least 1, not 0"),
        ("[mqtt]\nkeepalive_s = 0.5", "mqtt.keepalive_s must be at least 1 s, not 0.5"),
        ("[mqtt]\nkeepalive_s = nan", "mqtt.keepalive_s must be"),
        ('[odd]\ncolour = "blue"', "odd.colour must be one of red, green, not 'blue'"),
        ("[odd]\nnames = [1]", "odd.names must be text, not 1"),
        ('[odd]\nnames = "a"', "odd.names must be a list, not 'a'"),
        ("[odd]\nlabels = {a = 1}", "odd.labels must be text, not 1"),
        ('[odd]\ncounts = {a = "1"}', "odd.counts must be a whole number, not '1'"),
        ("[odd]\ncounts = 1", "odd.counts must be a table of numbers, not 1"),
        ("[mqtt\n", "a.toml: Expected"),
    ],
)
def test_an_error_in_a_file_is_one_line_that_names_place_and_remedy(tmp_path, text, words):
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(Whole, file=file)
    assert words in str(caught.value) and str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_of_variables_flags_and_missing_files_are_told(tmp_path):
    for env, words in (
        ({"FM_MQTT_PROT": "1"}, "unknown variable FM_MQTT_PROT, did you mean FM_MQTT_PORT?"),
        ({"FM_MQTT_PORT": "many"}, "FM_MQTT_PORT: mqtt.port must be a whole number, not 'many'"),
        ({"FM_ODD_ON": "maybe"}, "must be true or false"),
    ):
        with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
            load_settings(Whole, env=env)
    with pytest.raises(SettingsError, match=r"flags: unknown key mqtt\.x"):
        load_settings(Whole, flags={"mqtt.x": "1"})
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(Whole, file=tmp_path / "none.toml")
    assert load_settings(Whole, conf_dir=tmp_path / "none").value == Whole()
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError):
        load_settings(Whole, file=tmp_path / "b.toml")


def test_a_listing_shows_everything_but_secrets():
    loaded = load_settings(Whole, env={"FM_MQTT_PASSWORD": "hush"})
    rows = {row.name: row for row in loaded.rows()}
    assert rows["mqtt.password"].value == "***" and rows["mqtt.password"].origin == "FM_MQTT_PASSWORD"
    assert (rows["mqtt.keepalive_s"].unit, rows["mqtt.keepalive_s"].reason) == ("s", "silence")
    assert list(rows)[:2] == ["mqtt.host", "mqtt.port"]
    assert "hush" not in repr(list(loaded.rows()))


def test_a_table_of_numbers_is_read_from_a_file_and_from_text(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[odd.counts]\ncameras = 2\n")
    assert load_settings(Whole, file=file).value.odd.counts == {"cameras": 2}
    assert load_settings(Whole, env={"FM_ODD_COUNTS": "cameras=3, relays = 4"}).value.odd.counts == {
        "cameras": 3,
        "relays": 4,
    }
    with pytest.raises(SettingsError, match="must be a whole number, not 'x'"):
        load_settings(Whole, flags={"odd.counts": "cameras=x"})
