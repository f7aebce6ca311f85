"""Virtual devices on a real broker: many identities in one process, the same rules."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from protocol.codec import decode
from protocol.messages import Heartbeat, Inventory, Runs, Status
from protocol.tasks import RunState
from protocol.topics import parse

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
pytestmark = [
    pytest.mark.live,
    pytest.mark.needs_mosquitto,
    pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed"),
]
DEVICES = 30


def wait_for(condition, what, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s: {what}")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def broker(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL)
    wait_for(lambda: accepts(port), "the broker")
    yield port
    process.kill()
    process.wait()


class Ear:
    """Hears every device, grants whatever it named."""

    def __init__(self, port):
        self.said = defaultdict(dict)
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "_controller-test")
        self.client.on_message = self.hear
        self.client.connect("127.0.0.1", port)
        self.client.subscribe([(f"fm/1/lab/+/{c}", 1) for c in ("status", "heartbeat", "runs", "inventory")])
        self.client.loop_start()

    def hear(self, client, userdata, received):
        topic = parse(received.topic)
        message = decode(topic, received.payload)
        self.said[topic.device][type(message)] = message
        if isinstance(message, Heartbeat):
            answer = {"epoch": 1, "session": message.session, "seq": message.seq, "granted": message.held[:2]}
            answer |= {"runs": message.held.runs, "inventory": message.held.inventory}
            client.publish(f"fm/1/lab/{topic.device}/lease", json.dumps(answer))

    def desire(self, device, number, *commands):
        attempts = [
            {"task": f"t{n}", "attempt": 1, "runtime": "simulated", "command": list(command)}
            for n, command in enumerate(commands)
        ]
        payload = json.dumps({"revision": [1, number], "attempts": attempts})
        self.client.publish(f"fm/1/lab/{device}/assignments", payload, 1, True)

    def online(self):
        return sum(1 for s in self.said.values() if Status in s and s[Status].online and Runs in s)

    def states(self, device):
        return {e.task: e.state for e in self.said[device][Runs].entries}

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def ear(broker):
    ear = Ear(broker)
    yield ear
    ear.close()


@pytest.fixture
def start(tmp_path, broker):
    started = []
    config = tmp_path / "devices.json"
    devices = [{"id": f"v-{n}", "profile": "pi-4b-4g", "labels": {"n": str(n)}} for n in range(DEVICES)]
    fleet = {"name": "lab", "data_dir": str(tmp_path / "data"), "heartbeat_ms": 2_000, "connects_per_s": 100}
    config.write_text(json.dumps({"mqtt": {"port": broker}, "fleet": fleet, "devices": devices}))

    def begin():
        process = subprocess.Popen([sys.executable, "-m", "edge_agent", "virtual", "--config", str(config)])
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_each_virtual_device_is_a_device_of_its_own(ear, start):
    process = start()
    wait_for(lambda: ear.online() == DEVICES, "all online")
    inventory = ear.said["v-3"][Inventory]
    assert inventory.runtimes == ("simulated",) and inventory.labels == {"n": "3"}
    assert inventory.capacity.cpu_milli == 4_000
    for n in range(DEVICES):
        ear.desire(f"v-{n}", 1, ("work", "--ms", "50", "--exit", str(n)), ("serve",))
    finished = {"t0": RunState.ENDED, "t1": RunState.RUNNING}
    wait_for(lambda: all(ear.states(f"v-{n}") == finished for n in range(DEVICES)), "runs everywhere")
    codes = [ear.said[f"v-{n}"][Runs].entries[0].exit_code for n in range(DEVICES)]
    assert codes == list(range(DEVICES))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    wait_for(lambda: ear.online() == 0, "every goodbye")


def test_a_killed_process_comes_back_with_higher_sessions_and_runs_nothing_twice(ear, start):
    first = start()
    wait_for(lambda: ear.online() == DEVICES, "all online")
    ear.desire("v-0", 1, ("serve",))
    wait_for(lambda: ear.states("v-0") == {"t0": RunState.RUNNING}, "a run")
    sessions = {device: said[Status].session for device, said in ear.said.items()}
    first.kill()
    first.wait()
    start()
    wait_for(
        lambda: all(
            ear.said[d][Status].session > s and ear.said[d][Status].online for d, s in sessions.items()
        ),
        "every device in a higher session",
    )
    wait_for(lambda: ear.states("v-0") == {"t0": RunState.INTERRUPTED}, "the run's loss")
