"""The fleet on each broker that is not a mosquitto of ours, also when that broker loses all it knew."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet_harness import LiveFleet, live_fleet, wait_for

pytestmark = pytest.mark.live
SMALL = ("--agents", "2", "--devices", "2")


class Anonymous:
    """A mosquitto that lets everybody in and keeps nothing, as in many a house."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = folder / "anonymous.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") or "mosquitto"
        self.process = subprocess.Popen([binary, "-c", self.config], stderr=subprocess.DEVNULL)
        wait_for(self._listens, 10, "mosquitto listens")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(5)


@contextmanager
def anonymous(folder: Path) -> Iterator[Anonymous]:
    broker = Anonymous(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def works(fleet: LiveFleet) -> None:
    """Both kinds of device take work and bring it to its end."""
    virtual = fleet.submit("x", "--ms", "50", task={"runtime": "simulated"})
    real = fleet.submit("sh", "-c", "echo done")
    for task in (virtual, real):
        fleet.until(task, 40, state="succeeded")
    assert wait_for(lambda: fleet.output(real), 25, "output") == b"done\n"


@pytest.mark.needs_mosquitto
def test_on_somebody_else_s_broker_that_comes_back_empty(tmp_path):
    with (
        anonymous(tmp_path) as broker,
        live_fleet(tmp_path / "data", *SMALL, "--broker", f"mqtt://127.0.0.1:{broker.port}") as fleet,
    ):
        works(fleet)
        service = fleet.submit("sleep", "300", kind="service")
        before = fleet.until(service, 20, state="running")
        broker.kill()
        wait_for(lambda: "the broker is gone" in fleet.talk(), 10, "its owner notices")
        broker.start()
        works(fleet)
        after = fleet.task(service)
        assert (after["device"], after["attempt"]) == (before["device"], 1), "a blip stops no healthy run"
        told = (tmp_path / "up.log").read_text()
        wait_for(lambda: "the broker runs again" in fleet.talk(), 10, "its owner notices that too")
        assert told.count("the broker is gone") == 1, "an outage is told once"


def test_on_the_embedded_broker_that_comes_back_empty(tmp_path):
    fleet = LiveFleet(
        tmp_path / "data", *SMALL, "--broker", "amqtt", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"
    )
    fleet.start()
    try:
        assert "the embedded broker (amqtt) is for trials" in fleet.talk()
        works(fleet)
        assert fleet.process is not None
        os.kill(fleet.process.pid, signal.SIGKILL)  # it lives in there
        fleet.process.wait(5)
        wait_for(lambda: not children_left(tmp_path / "data"), 10, "all that it started is gone")
        fleet.start()
        fleet.until(fleet.submit("true"), 30, state="succeeded")
    finally:
        assert fleet.stop() == 0


def children_left(data: Path) -> str:
    return subprocess.run(["pgrep", "-fa", str(data)], capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="hides mosquitto by a mount of its own, which takes root")
def test_without_mosquitto_it_says_so_and_works(tmp_path):
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    hidden = tmp_path / "bin"
    hidden.mkdir()
    wrapper = hidden / "hide"
    wrapper.write_text(f'#!/bin/sh\nmount --bind /dev/null {found} || exit 77\nexec "$@"\n')
    wrapper.chmod(0o755)
    fleet = LiveFleet(tmp_path / "data", *SMALL, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
    if found is not None:
        fleet.before = ("unshare", "-m", str(wrapper))
        probe = subprocess.run([*fleet.before, "true"], capture_output=True, check=False)
        if probe.returncode:
            pytest.skip("NOT RUN, no mount of its own is allowed here")
    fleet.start()
    try:
        assert "mosquitto is not installed (apt install mosquitto)" in fleet.talk()
        works(fleet)
    finally:
        assert fleet.stop() == 0
