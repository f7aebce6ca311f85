"""A working fleet among vandals: garbage on every topic, false sessions, kills, clones, a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cbor2
import paho.mqtt.client as mqtt
import pytest
from fleet_harness import LiveFleet, live_fleet, wait_for

from fleetmuster.exits import CommandError
from protocol.codec import encode
from protocol.limits import SESSION_MAX
from protocol.messages import Heartbeat, Held, Inventory, LeaseAnswer, Revision, Runs, Settings, Status
from protocol.resources import Resources
from protocol.topics import DOWN, UP

pytestmark = pytest.mark.live
LEASE_MS = 6_000
ANY = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")


class Vandal:
    """Somebody who may publish whatever he likes, on a broker that lets everybody in."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        config = folder / "open.conf"
        words = ("allow_anonymous true", "persistence false", "max_queued_messages 0")
        config.write_text("\n".join((f"listener {self.port} 127.0.0.1", *words, "")))
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") or "mosquitto"
        self.broker = subprocess.Popen([binary, "-c", config], stderr=subprocess.DEVNULL)
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="vandal")
        wait_for(self._connected, 10, "the vandal is in")
        self.client.loop_start()

    def _connected(self) -> bool:
        try:
            return self.client.connect("127.0.0.1", self.port) == mqtt.MQTT_ERR_SUCCESS
        except OSError:
            return False

    def says(self, device: str, channel: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(f"fm/1/fleet/{device}/{channel}", payload, 1, retain)

    def leaves(self) -> None:
        self.client.loop_stop()
        self.broker.terminate()
        self.broker.wait(10)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveFleet, Vandal]]:
    folder = tmp_path_factory.mktemp("faults")
    vandal = Vandal(folder)
    try:
        words = ("--agents", "2", "--devices", "2", "--broker", f"mqtt://127.0.0.1:{vandal.port}")
        with live_fleet(folder / "data", *words) as running:
            yield running, vandal
    finally:
        vandal.leaves()


def works(fleet: LiveFleet, timeout_s: float = 30) -> None:
    fleet.until(fleet.submit("true"), timeout_s, state="succeeded")


def garbage(fleet: LiveFleet) -> dict[str, int]:
    """What the controller counted, by reason, as /metrics tells it."""
    asked = urllib.request.Request(
        fleet.ready["http"] + "/metrics", headers={"Authorization": f"Bearer {fleet.ready['token']}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    start = 'fleetmuster_garbage_total{reason="'
    pairs = [line.removeprefix(start).split('"} ') for line in lines if line.startswith(start)]
    return {reason: int(count) for reason, count in pairs}


def fm(fleet: LiveFleet, *words: str) -> str:
    environment = fleet.environment | {"FM_URL": fleet.ready["http"], "FM_TOKEN": fleet.ready["token"]}
    command = [sys.executable, "-m", "fleetmuster", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def no_crash(fleet: LiveFleet) -> None:
    assert "Traceback" not in fleet.talk() and "starting it again" not in fleet.talk()


GARBAGE = (
    random.Random(1).randbytes(50), b"\xa1", b"\xbf" * 1_000, b"x" * 70_000, b"[1,2]", b'{"a":', b"\xa0",
    b"\xf6", b'{"session":"x"}', cbor2.dumps({1: "x", 2: -5, 3: []}), cbor2.dumps({1: 2**64, 2: 2**70}),
    cbor2.dumps([1] * 10_000), b"\x9f" * 60_000, b'{"a":' * 2_000, cbor2.dumps({1: float("nan")}), b"",
)  # fmt: skip


@pytest.mark.needs_mosquitto
def test_garbage_on_every_topic_is_counted_and_the_work_goes_on(stage):
    fleet, vandal = stage
    service = fleet.submit("sleep", "300", kind="service")
    before = fleet.until(service, 20, state="running")
    for device in ("agent-1", "virtual-0001", "_controller", "bad id", "a" * 65):
        for channel in (*UP, *DOWN, "bogus", "canary"):
            for payload in GARBAGE:
                vandal.says(device, channel, payload)
    wanted = {"malformed", "oversize", "not_a_map", "wrong_type", "out_of_range", "missing_field", "empty"}
    wait_for(lambda: wanted | {"unknown_topic"} <= set(garbage(fleet)), 20, f"all reasons: {garbage(fleet)}")
    assert "malformed" in fm(fleet, "fleet")
    works(fleet)
    after = fleet.task(service)
    assert (after["device"], after["attempt"], after["state"]) == (before["device"], 1, "running")
    no_crash(fleet)


@pytest.mark.needs_mosquitto
def test_poisoned_and_deleted_retained_messages_stop_neither_a_restart_nor_the_work(stage):
    fleet, vandal = stage
    poisoned = ("agent-1", "virtual-0001")
    for device in poisoned:
        for channel in (*UP, *DOWN):
            vandal.says(device, channel, b"\xff poison", retain=True)
    os.kill(fleet.child_pid("controller.cli"), signal.SIGKILL)
    wait_for(lambda: _answers(fleet), 30, "the controller's return")
    for device in poisoned:
        for channel in (*UP, *DOWN):
            vandal.says(device, channel, b"", retain=True)
    works(fleet)
    for device in poisoned:
        wait_for(lambda d=device: fleet.state_of(d) == "online", 20, device)
    assert "Traceback" not in fleet.talk()


def _answers(fleet: LiveFleet) -> bool:
    try:
        return bool(fleet.state_of("agent-1"))
    except CommandError:
        return False


@pytest.mark.needs_mosquitto
def test_false_sessions_leases_floors_and_clocks_silence_no_device(stage):
    fleet, vandal = stage
    high, low = SESSION_MAX, 5
    for device in ("agent-1", "agent-2", "virtual-0001"):
        vandal.says(device, "status", encode(Status(False, high, "b", "i")))
        vandal.says(device, "heartbeat", encode(Heartbeat(high, 1, Held(0, 0, 0, 0, 0, 0))))
        vandal.says(device, "runs", encode(Runs(high, 1, Revision(0, 0), ())), retain=True)
        vandal.says(device, "runs", encode(Runs(low, 2**62, Revision(2**62, 2**62), ())))
        vandal.says(device, "lease", encode(LeaseAnswer(1, high, 1, Revision(2**62, 1))))
        vandal.says(device, "settings", encode(Settings(Revision(1, 1), high)), retain=True)
    wait_for(lambda: garbage(fleet).get("implausible_session", 0) >= 9, 10, "false sessions are counted")
    works(fleet)
    for device in ("agent-1", "agent-2", "virtual-0001"):
        with fleet.api as api:
            seen = api.device(device)["session"]
        assert seen < 2**50
        wait_for(lambda d=device: fleet.state_of(d) == "online", 25, f"{device} is heard")
    assert "Traceback" not in fleet.talk()


@pytest.mark.needs_mosquitto
def test_a_thousand_devices_that_nobody_knows_hinder_nobody(stage):
    fleet, vandal = stage
    for number in range(1_000):
        fake = f"fake-{number}"
        vandal.says(fake, "status", encode(Status(True, 5, "b", fake)))
        room = Inventory(1, 5, "fake", Resources(0, 0, 0, 0), {}, ("none",))
        vandal.says(fake, "inventory", encode(room))
    wait_for(lambda: "1,00" in fm(fleet, "fleet"), 20, "they are seen")
    works(fleet)
    assert "Traceback" not in fleet.talk()


@pytest.mark.needs_mosquitto
def test_a_run_of_a_frozen_agent_ends_at_its_deadline_and_moves(stage):
    fleet, _ = stage
    seconds = str(700_000 + os.getpid())
    resources = {"cpu_milli": 1_200, "memory_mib": 16}
    task = fleet.submit("sleep", seconds, kind="service", lease_ms=LEASE_MS, task={"resources": resources})
    device = fleet.until(task, 20, state="running")["device"]
    agent = fleet.pid_of(device, "agent")
    os.kill(agent, signal.SIGSTOP)
    try:
        wait_for(lambda: living(seconds) == 0, LEASE_MS / 1_000 + 3, "the guard ends it without the agent")
        assert fleet.task(task)["attempt"] == 1, "its successor may not have begun yet"
        second = fleet.until(task, 30, state="running", attempt=2)["device"]
        assert second != device
    finally:
        os.kill(agent, signal.SIGCONT)
    wait_for(lambda: fleet.state_of(device) == "online", 30, "the agent's return")
    works(fleet)
    assert living(seconds) == 1 and fleet.task(task)["attempt"] == 2
    with fleet.api as api:
        api.cancel_job(task.partition(".")[0])
    fleet.until(task, 20, state="cancelled")


def living(seconds: str) -> int:
    found = subprocess.run(["pgrep", "-fx", f"sleep {seconds}"], capture_output=True, text=True, check=False)
    return len(found.stdout.split())


@pytest.mark.needs_mosquitto
def test_a_guard_that_is_killed_takes_its_runs_along_and_the_work_goes_on(stage):
    fleet, _ = stage
    seconds = str(710_000 + os.getpid())
    task = fleet.submit("sh", "-c", f"setsid sleep {seconds} & sleep {seconds}", kind="service")
    device = fleet.until(task, 20, state="running")["device"]
    wait_for(lambda: living(seconds) == 2, 10, "its processes")
    os.kill(fleet.pid_of(device, "guard"), signal.SIGKILL)
    fleet.until(task, 30, state="running", attempt=2)
    wait_for(lambda: living(seconds) == 2, 10, "the second attempt alone")
    with fleet.api as api:
        api.cancel_job(task.partition(".")[0])
    fleet.until(task, 20, state="cancelled")


@pytest.mark.needs_mosquitto
def test_a_hundred_tasks_at_once_on_one_device_and_one_that_floods(stage):
    fleet, _ = stage
    here = [{"attribute": "device", "operator": "=", "value": "agent-2"}]
    needs = {"cpu_milli": 1, "memory_mib": 16}
    flood = fleet.submit("sh", "-c", "head -c 100000000 /dev/zero; echo end >&2", task={"constraints": here})
    many = {"runtime": "process", "command": ["true"], "resources": needs, "constraints": here}
    with fleet.api as api:
        job = api.submit_job({"kind": "batch", "count": 100, "task": many}).job["id"]
        wait_for(lambda: api.job(job)["state"] == "succeeded", 60, "a hundred ends")
    fleet.until(flood, 40, state="succeeded")
    wait_for(lambda: len(fleet.output(flood)) == 1_048_576, 20, "its output as far as it is kept")


@pytest.mark.needs_mosquitto
def test_what_was_accepted_is_neither_lost_nor_doubled_by_a_controller_that_dies(stage):
    fleet, _ = stage
    accepted: dict[str, set[str]] = {}
    stop = threading.Event()

    def submit(who: int) -> None:
        body = {
            "kind": "batch",
            "count": 1,
            "task": {"runtime": "simulated", "command": ["x", "--ms", "20"], "resources": {"cpu_milli": 10}},
        }
        for number in range(10_000):
            key = f"{who}-{number}"
            while key not in accepted:
                try:
                    with fleet.api as api:
                        accepted[key] = {
                            api.submit_job(body, key).job["id"],
                            api.submit_job(body, key).job["id"],
                        }
                except CommandError:
                    if stop.wait(0.1):
                        return
            if stop.wait(0.05):
                return

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(accepted) > 10, 30, "the first are accepted")
        os.kill(fleet.child_pid("controller.cli"), signal.SIGKILL)
        before = len(accepted)
        wait_for(lambda: len(accepted) > before + 10, 30, "more are accepted after its return")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(len(jobs) == 1 for jobs in accepted.values())
    waited = set().union(*accepted.values())

    def over() -> bool:
        with fleet.api as api:
            found = {job["id"]: job["state"] for job in api.jobs()}
        assert waited <= set(found)
        return all(found[job] == "succeeded" for job in waited)

    wait_for(over, 60, "every accepted job succeeds")


@pytest.mark.needs_mosquitto
def test_two_agents_on_one_directory_or_with_one_identity_are_told(stage, tmp_path):
    fleet, _ = stage
    config = fleet.data / "agents" / "agent-2" / "agent.toml"
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, env=fleet.environment)
    assert second.returncode == 1 and second.stderr.count("\n") == 1 and "another agent" in second.stderr
    with open(tmp_path / "clone.log", "wb") as log:
        clone = subprocess.Popen(
            [*command, "--set", f"device.data_dir={tmp_path / 'clone'}"],
            stdout=log,
            stderr=log,
            env=fleet.environment,
        )
    try:
        wait_for(lambda: "two machines speak as device 'agent-2'" in fm(fleet, "fleet"), 40, "the alarm")
    finally:
        clone.terminate()
        clone.wait(15)
    fm(fleet, "device", "uncordon", "agent-2")
    wait_for(lambda: fleet.state_of("agent-2") == "online" and "ALARM" not in fm(fleet, "fleet"), 40, "peace")


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which takes root")
def test_on_a_full_disk_nothing_is_promised_and_what_runs_runs_on(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(data)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN, mounting is not allowed here")
    fleet = LiveFleet(data, *ANY, "--agents", "1", "--devices", "0")
    try:
        fleet.start()
        service = fleet.submit("sleep", "300", kind="service")
        fleet.until(service, 20, state="running")
        _fill(data / "fill")
        with pytest.raises(CommandError, match="full"):
            for _ in range(50):
                fleet.submit("true")
        began = time.monotonic()
        with pytest.raises(CommandError, match="full"):
            fleet.submit("true")
        assert time.monotonic() - began < 5, "refused at once, not after the patience of a proxy"
        (data / "fill").unlink()
        wait_for(lambda: _answers(fleet), 20, "the controller")
        works(fleet)
        after = fleet.task(service)
        assert (after["state"], after["attempt"]) == ("running", 1)
    finally:
        fleet.stop()
        subprocess.run(["umount", str(data)], check=True)


def _fill(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, bytes(4_096))
    except OSError:
        return
    finally:
        os.close(handle)
