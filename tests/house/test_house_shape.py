"""Sizes, dead modules, doubled names, docstrings, packaging, forbidden words."""

from __future__ import annotations

import tomllib

import pytest
from house_shape import (
    doubled_classes,
    forbidden_words,
    oversized,
    swallowed,
    undocumented,
    unimported,
    unpackaged,
)
from house_source import ROOT, house_of, none_of, the_house, tracked_files


def test_functions_and_files_keep_their_size() -> None:
    none_of(oversized(the_house()))


def test_a_long_function_and_a_long_file_are_found() -> None:
    house = house_of({"live/x.py": "def f():\n" + "    pass\n" * 70, "live/y.py": "\n" * 501})
    assert oversized(house) == [
        "live/x.py:1: f has 71 lines; 70 is the end",
        "live/y.py: 501 lines; 500 is the end",
    ]


def test_every_module_is_imported_by_something_shipped() -> None:
    none_of(unimported(the_house()))


def test_a_module_kept_alive_only_by_its_test_is_found() -> None:
    files = {
        "live/dead.py": "",
        "live/used.py": "",
        "live/late.py": "",
        "live/__init__.py": "from live import used\nLATE = 'live.late:main'",
        "tests/test_dead.py": "import live.dead",
    }
    assert unimported(house_of(files)) == ["live/dead.py: nothing imports it"]


def test_no_public_class_has_a_namesake_in_another_package() -> None:
    none_of(doubled_classes(the_house()))


def test_a_namesake_is_found() -> None:
    twins = {
        "live/x.py": "class Job: ...",
        "sim/x.py": "class Job: ...\nclass _Row: ...",
        "sim/y.py": "class _Row: ...",
    }
    assert doubled_classes(house_of(twins)) == ["class Job is in live/x.py and in sim/x.py"]


def test_what_others_build_on_is_documented() -> None:
    none_of(undocumented(the_house()))


def test_a_missing_docstring_is_found() -> None:
    house = house_of({"live/x.py": '"""X."""\ndef f(): ...\ndef _g(): ...', "sim/x.py": "def f(): ..."})
    assert undocumented(house) == ["sim/x.py:1: no module docstring", "live/x.py:2: f has no docstring"]


def test_no_trouble_is_swallowed() -> None:
    none_of(swallowed(the_house()))


def test_a_silent_except_is_found() -> None:
    house = house_of({"live/x.py": "try:\n    f()\nexcept Exception:\n    pass"})
    assert swallowed(house) == ["live/x.py:3: catches everything and does nothing"]
    assert swallowed(house_of({"live/x.py": "try:\n    f()\nexcept OSError:\n    pass"})) == []


def test_no_file_names_a_machine_a_registry_or_how_it_was_made() -> None:
    found: list[str] = []
    for path in tracked_files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data[:8000]:
            found += forbidden_words(path, data.decode("utf-8", "replace"))
    none_of(found)


@pytest.mark.parametrize(
    "pieces",
    [
        ("see /wo", "rk/main"),
        ("cd /ro", "ot/x"),
        ("https://py", "pi.org/simple"),
        ("--index-u", "rl x"),
        ("# TO", "DO later"),
        ("http://mirror.build.inter", "nal/x"),
        ("/home/", "somebody/x"),
    ],
)
def test_a_forbidden_word_is_found(pieces: tuple[str, str]) -> None:
    assert forbidden_words("x", "".join(pieces)) != []


@pytest.mark.parametrize(
    "text", ["runs/work/x", "${root}/work/", "a network/working set", "todo list", "/root"]
)
def test_an_innocent_line_is_not_blamed(text: str) -> None:
    assert forbidden_words("x", text) == []


DATA_SUFFIXES = (".toml", ".sql", ".js", ".css", ".html", ".svg")


def shipped_patterns() -> list[str]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    return [f"{name.replace('.', '/')}/{pattern}" for name, patterns in data.items() for pattern in patterns]


def test_the_wheel_holds_every_package_and_data_file() -> None:
    none_of(unpackaged(the_house(), tracked_files(), shipped_patterns(), DATA_SUFFIXES))


def test_a_file_that_the_wheel_would_lack_is_found() -> None:
    house = house_of({"live/__init__.py": "", "live/deep/x.py": ""})
    assert unpackaged(house, ["live/x.sql", "sim/a.toml"], ["sim/*.toml"], DATA_SUFFIXES) == [
        "live/deep/x.py: live/deep/__init__.py is missing",
        "live/x.sql: pyproject.toml doesn't ship it",
    ]


def test_the_lock_names_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    names = {item.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower() for item in wanted}
    assert names - locked == {"fleetmuster"}
