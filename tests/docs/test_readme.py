"""Every command block of the README is run, against one small fleet started for all of them.

The table `TRIALS` tells for each block, by its first line, how it is tried; a block that is
not in it fails a test. What needs a network or hours (an installation, the whole test
run) is tried as far as it goes without them, and says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from generated_blocks import ROOT

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

READY_S = 120
BLOCK_S = 120
STOP_S = 60
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
AGENTS, DEVICES = 3, 2


@dataclass(slots=True)
class Fleet:
    """A fleet that `fm up` started in a folder that looks like a clone."""

    folder: Path
    environment: dict[str, str]

    def run(self, script: str) -> str:
        """The block in a shell that stops at the first error; what it wrote to stdout."""
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """Devices and whether they are online."""
        return {d["id"]: d["state"] for d in json.loads(self.run("fm device list -o json"))}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Started once, stopped in good order; nothing of the user's home is touched."""
    folder = tmp_path_factory.mktemp("clone", numbered=True)
    environment = _environment(folder)
    words = ["up", "--agents", str(AGENTS), "--devices", str(DEVICES), "--json"]
    words += ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]
    with (folder / "up.log").open("wb") as log, (folder / "up.json").open("wb") as data:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetmuster", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=data,
            stderr=log,
        )
    try:
        assert _ready(process, folder / "up.json"), (
            f"not ready within {READY_S} s:\n{(folder / 'up.log').read_text()}"
        )
        yield Fleet(folder, environment)
    finally:
        code = _stop(process)
    assert code == 0, (folder / "up.log").read_text()


def _environment(folder: Path) -> dict[str, str]:
    """PATH finds this installation; HOME and the contexts are the test's own."""
    commands = folder / "commands"
    commands.mkdir()
    for name, module in (("fm", "fleetmuster"), ("edge-agent", "edge_agent.cli")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (commands / name).chmod(0o755)
    (folder / ".venv").symlink_to(sys.prefix)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FM_", "XDG_")) or k == "FM_TEST_RUN"}
    own = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "PYTHONPATH": str(ROOT)}
    return kept | own | {"PATH": f"{commands}:{os.environ['PATH']}"}


def _ready(process: subprocess.Popen[bytes], data: Path) -> bool:
    """Whether its one line came in time."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        if (text := data.read_text()).endswith("\n"):
            return set(json.loads(text)) >= {"http", "mqtt", "token", "data"}
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(10)


# ------------------------------------------------------------------ how each block is tried


def try_make(block: str) -> None:
    """Make hands each command to the script; what the script does is tried elsewhere."""
    if shutil.which("make") is None:
        pytest.skip("GNU make isn't installed")
    done = subprocess.run(
        ["make", "-n", *block.split()[1:]], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "./fm-dev"), done.stderr


def try_script(block: str) -> None:
    """The script knows the words; `up` and the tests themselves are run by this test run."""
    told = subprocess.run([ROOT / "fm-dev", "help"], capture_output=True, text=True, timeout=30).stdout
    for line in block.splitlines():
        assert f"{line} [ARGS]" in told


def try_first_steps(fleet: Fleet, block: str) -> None:
    output = fleet.run(block)
    assert re.search(r"^hello from agent-[1-3]$", output, re.M), output
    assert all(f"agent-{n} " in output for n in range(1, AGENTS + 1)) and "virtual-0001" in output


def try_taking_a_device_away(fleet: Fleet, block: str) -> None:
    output = fleet.run(block)
    before, after = re.split(r"^ID ", output, flags=re.M)[1:]
    assert "agent-1" in before, output
    assert "agent-1" not in after and after.count("running") == 3, output


def try_adding_a_device(fleet: Fleet, block: str) -> None:
    fleet.run(block)
    config = fleet.folder / "agent.toml"
    try:
        assert 'id = "pi-7"' in config.read_text()
        assert config.stat().st_mode & 0o077 == 0
    finally:
        config.unlink(missing_ok=True)
        fleet.run("fm device remove pi-7 --yes")


def try_a_board(fleet: Fleet, block: str) -> None:
    """The clone can be installed, and the agent joins the fleet with the file it was given."""
    install, run = block.splitlines()
    fleet.run("fm device add pi-7 -o agent.toml")
    agent = subprocess.Popen(["sh", "-c", f"exec {run}"], cwd=fleet.folder, env=fleet.environment)
    try:
        until = time.monotonic() + BLOCK_S
        while fleet.states().get("pi-7") != "online":
            assert agent.poll() is None and time.monotonic() < until, "the board did not come online"
            time.sleep(0.2)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(STOP_S) == 0
    finally:
        if agent.poll() is None:
            agent.kill()
            agent.wait(10)
        (fleet.folder / "agent.toml").unlink(missing_ok=True)
        fleet.run("fm device remove pi-7 --yes")
    _install(fleet, install)


def _install(fleet: Fleet, line: str) -> None:
    """Offline: what the line builds, not what it would fetch."""
    copy = fleet.folder / "board"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    wanted = names.stdout.split() if names.returncode == 0 else []
    if not wanted:
        pytest.skip("not a clone: what belongs to the project can't be told")
    for name in wanted:
        if (ROOT / name).exists() and not name.startswith(("tests/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    assert line == "pip install ."
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("NOT RUN, this setuptools is older than the build asks for; `./fm-dev test` brings it")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(fleet.folder / "site")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "."],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=BLOCK_S,
    )
    assert done.returncode == 0, done.stderr
    assert {"fm", "edge-agent"} <= {path.name for path in (fleet.folder / "site" / "bin").iterdir()}


def try_simulating(fleet: Fleet, block: str) -> None:
    """The table of the document is of such a run; its numbers change with the code, its rows don't."""
    output = fleet.run(block)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sample = text.split(block, 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    rows = [line[:18].rstrip() for line in sample.splitlines() if line[:1].isalpha()]
    assert rows and all(re.search(rf"^{re.escape(row)}", output, re.M) for row in rows), output
    assert re.search(r"^held +10$", output, re.M), output


def try_explaining(fleet: Fleet, block: str) -> None:
    output = fleet.run(block)
    assert re.search(r"^reason +memory$", output, re.M) and "\npolicy   binpack" in output, output
    assert "ANY ONE OF THESE WOULD PLACE IT" in output and "a smaller demand: memory_mib" in output, output


def try_planning(fleet: Fleet, block: str) -> None:
    """Nothing would break, so the device is drained, and opened again."""
    output = fleet.run(block)
    assert output.count("verdict      nothing breaks") == 3, output
    assert "would be placed:" in output and "BUSIEST/MEAN" in output, output
    assert fleet.run("fm device show agent-1").count("cordoned") == 0


TRIALS: dict[str, Callable[..., None]] = {
    "make up": try_make,
    "make test": try_make,
    "./fm-dev up": try_script,
    ". .venv/bin/activate": try_first_steps,
    "id=$(fm job run --name clock": try_taking_a_device_away,
    "fm device add pi-7": try_adding_a_device,
    "pip install .": try_a_board,
    "id=$(fm job run --name large": try_explaining,
    "fm plan submit": try_planning,
    "fm sim safety": try_simulating,
}


def _trial(block: str) -> Callable[..., None]:
    found = [trial for start, trial in TRIALS.items() if block.startswith(start)]
    return found[0] if found else try_script


def test_every_block_of_the_readme_has_a_trial_and_every_trial_a_block() -> None:
    for start in TRIALS:
        assert [block for block in BLOCKS if block.startswith(start)], f"no block begins with {start!r}"
    for block in BLOCKS:
        assert [start for start in TRIALS if block.startswith(start)], f"nobody tries:\n{block}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if _trial(b) in (try_make, try_script)])
def test_a_set_up_block_of_the_readme_is_understood(block: str) -> None:
    _trial(block)(block)


@pytest.mark.parametrize("block", [b for b in BLOCKS if _trial(b) not in (try_make, try_script)])
def test_a_block_of_the_readme_does_what_it_says(fleet: Fleet, block: str) -> None:
    _trial(block)(fleet, block)


def test_what_a_board_says_of_itself_is_a_configuration(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "agent.toml").write_text(f'[device]\nid = "pi-7"\n{block}')
    words = ["config", "show", "--config", str(tmp_path / "agent.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("attic", "npu0:hailo-8", "camera", "slots = 8")), done.stdout


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in re.findall(r"\]\(([^)#:]+)\)", text) if not (ROOT / name).exists()]
    assert not missing
