"""The two commands: what they say where something is missing, and that they hide nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from house_source import ROOT

TOOLS = "sh env dirname id cat cksum mktemp tail rm printf sed grep".split()


def run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "fm-dev"), *arguments],
        env={"PATH": path or os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the project's start files in a folder with a space, and a PATH with tools but no Python."""
    folder, tools = tmp_path / "a clone", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name in ("fm-dev", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for name in TOOLS:
        place = shutil.which(name)
        if place:
            (tools / name).symlink_to(place)
    return folder, tools


def test_the_script_is_plain_sh() -> None:
    shell = shutil.which("dash") or "sh"
    done = subprocess.run([shell, "-n", str(ROOT / "fm-dev")], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert (ROOT / "fm-dev").read_text().startswith("#!/bin/sh\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run(ROOT, "fly")
    assert done.returncode == 2 and done.stdout == "" and "./fm-dev test" in done.stderr


def test_without_python_it_says_what_to_install(bare: tuple[Path, Path]) -> None:
    folder, tools = bare
    done = run(folder, "up", path=str(tools))
    assert done.returncode == 1 and done.stdout == ""
    assert "no Python 3.11 or newer" in done.stderr and "apt-get install" in done.stderr


def test_without_ensurepip_it_prints_the_exact_line(bare: tuple[Path, Path]) -> None:
    folder, tools = bare
    fake = tools / "python3.12"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in *ensurepip*) exit 1 ;; *"%d.%d"*) echo 3.12 ;; esac\n'  # modern, yet without ensurepip
    )
    fake.chmod(0o755)
    done = run(folder, "test", path=str(tools))
    assert done.returncode == 1 and done.stdout == ""
    assert "sudo apt-get install -y --no-install-recommends python3.12-venv" in done.stderr


def test_the_build_server_runs_the_same_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[-1] == "exec ./fm-dev test" and len(code) == 3
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(
    ("words", "played"),
    [
        ([], "sim safety --seeds 1000"),
        (["--devices", "5", "--seeds", "20"], "sim safety --seeds 1000 --devices 5 --seeds 20"),
        (["--seed", "7"], "sim safety --seed 7"),
        (["--scenario=x.toml"], "sim safety --scenario=x.toml"),
    ],
)
def test_sim_plays_a_thousand_seeds_unless_one_is_named(
    bare: tuple[Path, Path], words: list[str], played: str
) -> None:
    folder, tools = bare
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, does in (("python", ":"), ("pip", ":"), ("fleetmuster", 'echo "$*"')):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    done = run(folder, "sim", *words, path=str(tools))
    assert (done.returncode, done.stdout) == (0, f"{played}\n"), done.stderr


def test_make_has_every_command_and_no_other() -> None:
    told = run(ROOT, "help").stdout
    commands = [line.split()[1] for line in told.splitlines() if line.startswith("./fm-dev ")]
    targets = (ROOT / "Makefile").read_text().split(".PHONY:")[1].splitlines()[0].split()
    assert sorted(targets) == sorted(["help", *commands])
