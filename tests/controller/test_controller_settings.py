"""Settings of a controller: what is wrong is one line, exit code 2, and nothing is begun."""

from __future__ import annotations

import pytest

from controller.cli import main


@pytest.mark.parametrize(
    "change",
    [
        "controller.id=_me",
        "controller.id=a/b",
        "controller.fleet=#",
        "controller.log_level=loud",
        "controller.policy=nearest",
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


@pytest.mark.parametrize("content", [None, "[controller", "[controller]\nfoo = 1\n"])
def test_a_file_that_cannot_be_used_is_named(content, tmp_path, capsys):
    file = tmp_path / "controller.toml"
    if content is not None:
        file.write_text(content)
    assert main(["run", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(file) in said
