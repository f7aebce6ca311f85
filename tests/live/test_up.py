"""`fm up` as its users and its vandals meet it: what is wrong is one line, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fleet_harness import LiveFleet, live_fleet, wait_for

from fleetmuster.client import RemoteClient
from fleetmuster.exits import CommandError, Exit

pytestmark = pytest.mark.live
ANY = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
SMALL = ("--agents", "1", "--devices", "2")


def up(data: Path, *arguments: str) -> tuple[int, str]:
    """An `up` that is expected to end by itself: its exit code and what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "fleetmuster", "up", "--json", *SMALL, "--data", str(data), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"XDG_CONFIG_HOME": str(data.parent / "config")},
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def processes_of(data: Path) -> str:
    """Command lines that name the directory; those of agents, controller, broker and guards do."""
    return subprocess.run(["pgrep", "-fa", str(data)], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("what", ["--http", "--mqtt"])
def test_a_port_that_was_asked_for_and_is_taken_is_one_line(tmp_path, taken, what):
    code, said = up(tmp_path / "data", *ANY, what, taken)
    assert code == Exit.FAILED and said.count("\n") == 1 and taken in said
    assert not processes_of(tmp_path / "data")


def test_a_default_port_that_is_taken_gives_way(tmp_path):
    servers = []
    for port in (8080, 1883):
        try:
            servers.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue  # somebody else has it: just as taken
    fleet = LiveFleet(tmp_path / "data", *SMALL)
    try:
        fleet.start()
        assert not fleet.ready["http"].endswith(":8080") and not fleet.ready["mqtt"].endswith(":1883")
        assert "port 8080 is taken" in fleet.talk() and "port 1883 is taken" in fleet.talk()
    finally:
        fleet.stop()
        for server in servers:
            server.close()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--broker", "rabbit"), Exit.USAGE, "rabbit"),
        (("--policy", "nearest"), Exit.USAGE, "nearest"),
        (("--agents", "-1"), Exit.USAGE, "-1"),
        (("--http", "nonsense"), Exit.USAGE, "nonsense"),
        (("--mqtt", "0.0.0.0:0"), Exit.USAGE, "--insecure-lan"),
        (("--broker", "mqtt://127.0.0.1:1"), Exit.FAILED, "127.0.0.1:1"),
    ],
)
def test_what_it_is_told_wrongly_it_says_and_starts_nothing(tmp_path, arguments, code, word):
    ended, said = up(tmp_path / "data", *ANY, *arguments)
    assert ended == code and word in said
    assert "Traceback" not in said and not processes_of(tmp_path / "data")


def test_what_is_no_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not yours")
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        code, said = up(data, *ANY)
        assert code == Exit.FAILED and said.count("\n") == 1 and "is no directory" in said
    assert (tmp_path / "file").read_text() == "not yours"


@pytest.mark.parametrize("text", ["", "not JSON", "[]", '{"agent-1": 7}'])
def test_credentials_that_are_damaged_are_named(tmp_path, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "credentials.json").write_text(text)
    code, said = up(tmp_path / "data", *ANY)
    assert code == Exit.FAILED and said.count("\n") == 1 and "credentials.json is damaged" in said


def test_a_second_one_is_refused_and_a_later_one_goes_on_with_a_new_token(tmp_path):
    fleet = LiveFleet(tmp_path / "data", *ANY, *SMALL)
    fleet.start()
    try:
        code, said = up(tmp_path / "data", *ANY)
        assert code == Exit.CONFLICT and said.count("\n") == 1 and "another `fm up`" in said
        task = fleet.submit("sh", "-c", "echo kept")
        fleet.until(task, 20, state="succeeded")
        old = fleet.ready["token"]
        fleet.stop()
        fleet.start()
        assert fleet.task(task)["state"] == "succeeded"
        with pytest.raises(CommandError) as refused, RemoteClient(fleet.ready["http"], old) as client:
            list(client.jobs())
        assert refused.value.code is Exit.AUTH
    finally:
        assert fleet.stop() == 0


def test_killed_it_takes_everything_along_and_the_next_one_works(tmp_path):
    fleet = LiveFleet(tmp_path / "data", *ANY, *SMALL)
    fleet.start()
    seconds = 900_000 + os.getpid()
    task = fleet.submit("sh", "-c", f"sleep {seconds} & setsid sleep {seconds}", kind="service")
    fleet.until(task, 20, state="running")
    assert fleet.process is not None
    fleet.process.kill()
    fleet.process.wait(5)
    wait_for(lambda: not processes_of(tmp_path / "data"), 10, "the end of all of it")
    sleeping = ["pgrep", "-fx", f"sleep {seconds}"]
    wait_for(
        lambda: subprocess.run(sleeping, capture_output=True, check=False).returncode, 5, "no run is left"
    )
    fleet.start()
    try:
        fleet.until(fleet.submit("true"), 20, state="succeeded")
    finally:
        assert fleet.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_while_it_starts_it_leaves_nothing(tmp_path, number):
    data = tmp_path / "data"
    fleet = LiveFleet(data, *ANY, *SMALL)
    starting = subprocess.Popen(
        [sys.executable, "-m", "fleetmuster", "up", "--json", "--data", str(data), *ANY, *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=fleet.environment,
    )
    wait_for(lambda: (data / "logs" / "controller.log").exists(), 20, "its first child")
    starting.send_signal(number)
    said, _ = starting.communicate(timeout=30)
    assert starting.returncode == 0 and said == ""
    wait_for(lambda: not processes_of(data), 5, "nothing is left")


def test_any_path_serves(tmp_path):
    name = 'ö ä\'s "q" #1 ' + "long" * 45  # also longer than the path of a Unix socket may be
    with live_fleet(tmp_path / name, "--agents", "1", "--devices", "1") as fleet:
        task = fleet.submit("sh", "-c", "pwd")
        fleet.until(task, 20, state="succeeded")
        assert str(tmp_path / name) in wait_for(lambda: fleet.output(task), 10, "output").decode()


def test_a_board_joins_from_the_network_and_leaves_for_good(tmp_path):
    fleet = LiveFleet(
        tmp_path / "data", *SMALL, "--http", "127.0.0.1:0", "--mqtt", "0.0.0.0:0", "--insecure-lan"
    )
    fleet.start()
    try:
        with fleet.api as api:
            config = tmp_path / "agent.toml"
            config.write_text(api.add_device("board-1")["agent_toml"])
        arguments = ["run", "--config", str(config), "--set", f"device.data_dir={tmp_path / 'board'}"]
        log = open(tmp_path / "board.log", "wb")  # noqa: SIM115
        board = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.cli", *arguments],
            stdout=log,
            stderr=log,
            env=fleet.environment,
        )
        fleet.extra.append(board)
        wait_for(lambda: fleet.state_of("board-1") == "online", 20, "the board")
        with fleet.api as api:
            api.remove_device("board-1")
        wait_for(lambda: "link_down" in (tmp_path / "board.log").read_text(), 10, "its disconnection")
        with fleet.api as api, pytest.raises(CommandError) as gone:
            api.device("board-1")
        assert gone.value.code is Exit.NOT_FOUND
    finally:
        fleet.stop()
