"""A real agent process, a real guard, a real broker, and a hand-written controller that speaks JSON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cbor2
import paho.mqtt.client as paho
import pytest

from protocol.codec import decode
from protocol.errors import RemoteGarbage
from protocol.messages import Heartbeat, OutputChunk, Runs, Status
from protocol.tasks import RunState
from protocol.topics import parse

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
pytestmark = [
    pytest.mark.live,
    pytest.mark.needs_mosquitto,
    pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed"),
]
TASK = "demo.1"


def wait_for(condition, what, seconds=20.0):
    """The first true answer within the time; polling, since the other side is another process."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
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


class Controller:
    """The least that grants: answers every heartbeat that names the current document."""

    def __init__(self, port):
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "_controller-test")
        self.client.on_message = self.hear
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(
            [(f"fm/1/lab/+/{c}", 1) for c in ("status", "heartbeat", "runs", "output", "inventory")]
        )
        self.revision, self.granting = [1, 0], True
        self.statuses, self.beats, self.reports, self.chunks = [], [], [], []
        self.runs = {}
        self.client.loop_start()

    def hear(self, client, userdata, received):
        try:
            message = decode(parse(received.topic), received.payload)
        except RemoteGarbage:
            return
        if isinstance(message, Status):
            self.statuses.append(message)
        elif isinstance(message, Runs):
            self.reports.append(message)
            self.runs[message.session] = message.number
        elif isinstance(message, OutputChunk):
            self.chunks.append(message)
        elif isinstance(message, Heartbeat):
            self.beats.append(message)
            self.answer(message)

    def answer(self, beat):
        known = list(beat.held.assignments) == self.revision and beat.session in self.runs
        answer = {
            "epoch": 1,
            "session": beat.session,
            "seq": beat.seq,
            "runs": self.runs.get(beat.session, 0),
        }
        answer["inventory"] = beat.held.inventory
        if self.granting and known:
            answer["granted"] = self.revision
        if self.chunks:
            answer["outbox"], answer["stored"] = self.chunks[-1].outbox, self.chunks[-1].seq
        self.say("lease", answer)

    def say(self, channel, fields, retain=False, qos=1):
        self.client.publish(f"fm/1/lab/pi-1/{channel}", json.dumps(fields), qos, retain)

    def desire(self, *attempts):
        self.revision = [1, self.revision[1] + 1]
        self.say("assignments", {"revision": self.revision, "attempts": list(attempts)}, retain=True)

    def state(self, task=TASK):
        """The last reported state of a task's attempt."""
        if not self.reports:
            return None
        return {e.task: e.state for e in self.reports[-1].entries}.get(task)

    def output(self, stream=1):
        return b"".join(c.data for c in self.chunks if c.stream == stream)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def controller(broker):
    controller = Controller(broker)
    yield controller
    controller.close()


class AgentProcess:
    def __init__(self, folder, port):
        self.data = folder / "data"
        self.config = folder / "agent.toml"
        self.log = folder / "agent.log"
        self.config.write_text(
            f'[device]\nid = "pi-1"\nfleet = "lab"\ndata_dir = "{self.data}"\n'
            f'[mqtt]\nport = {port}\n[agent]\nheartbeat_ms = 2000\nlog_level = "debug"\n'
        )
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stderr=self.log.open("ab"))

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)

    def guard_pid(self):
        try:
            return int((self.data / "guard.pid").read_bytes().split()[0])
        except (OSError, IndexError, ValueError):
            return 0


@pytest.fixture
def agent(tmp_path, broker):
    agent = AgentProcess(tmp_path, broker)
    agent.start()
    yield agent
    agent.end(signal.SIGKILL)
    pid = agent.guard_pid()
    if pid:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), "the guard's end")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def task(attempt=1, command=("/bin/sh", "-c", "echo out; echo err >&2"), **more):
    return {"task": TASK, "attempt": attempt, "runtime": "process", "command": list(command), **more}


def pids_of(word):
    """Processes whose command line holds this unlikely word."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if word.encode() in (folder / "cmdline").read_bytes() and alive(int(folder.name)):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_a_document_becomes_a_run_a_result_and_its_output(agent, controller):
    wait_for(lambda: controller.beats, "a heartbeat")
    assert controller.statuses[-1].online
    controller.desire(task())
    wait_for(lambda: controller.state() is RunState.ENDED, "the end of the run")
    assert controller.reports[-1].entries[0].exit_code == 0
    wait_for(lambda: sum(c.last for c in controller.chunks) == 2, "all output")
    assert (controller.output(1), controller.output(2)) == (b"out\n", b"err\n")
    controller.desire()
    folder = agent.data / "runs" / f"{TASK}.1"
    wait_for(lambda: not folder.exists(), "the run's directory to be removed")


def test_nothing_runs_without_a_grant(agent, controller):
    controller.granting = False
    wait_for(lambda: controller.beats, "a heartbeat")
    controller.desire(task())
    wait_for(lambda: controller.beats[-1].held.number == 1, "a heartbeat with the document")
    seen = len(controller.beats)
    wait_for(lambda: len(controller.beats) >= seen + 2, "two more heartbeats")
    assert controller.state() is None
    controller.granting = True
    wait_for(lambda: controller.state() is RunState.ENDED, "the end of the run")


def test_a_killed_agent_comes_back_and_keeps_its_run(agent, controller):
    word = f"fm-word-{os.getpid()}-keep"
    controller.desire(task(command=("/bin/sh", "-c", f": {word}; sleep 300")))
    wait_for(lambda: controller.state() is RunState.RUNNING, "the run")
    before = pids_of(word)
    assert before
    session = controller.beats[-1].session
    agent.end(signal.SIGKILL)
    assert pids_of(word) == before, "the guard keeps it"
    agent.start()
    wait_for(lambda: controller.beats[-1].session > session, "a higher session")
    wait_for(lambda: controller.reports[-1].session > session, "its report")
    assert controller.state() is RunState.RUNNING
    assert pids_of(word) == before
    assert agent.end(signal.SIGTERM) == 0
    wait_for(lambda: not pids_of(word), "the end of the run")


def test_a_stopped_agent_leaves_nothing_behind_and_says_goodbye(agent, controller):
    word = f"fm-word-{os.getpid()}-stop"
    controller.desire(task(command=("/bin/sh", "-c", f": {word}; sleep 300")))
    wait_for(lambda: controller.state() is RunState.RUNNING, "the run")
    guard = agent.guard_pid()
    assert agent.end(signal.SIGTERM) == 0
    assert not pids_of(word) and not alive(guard)
    wait_for(lambda: not controller.statuses[-1].online, "the goodbye")
    assert controller.statuses[-1].reason == "stopped"
    assert controller.state() is RunState.STOPPED
    assert not (agent.data / "agent.pid").exists()


def test_a_document_without_the_run_stops_it(agent, controller):
    controller.desire(task(command=("/bin/sleep", "300")))
    wait_for(lambda: controller.state() is RunState.RUNNING, "the run")
    controller.desire()
    wait_for(lambda: controller.state() in (RunState.STOPPED, None), "its end")


def test_garbage_of_every_kind_stops_nothing(agent, controller):
    wait_for(lambda: controller.beats, "a heartbeat")
    publish = controller.client.publish
    for payload in (
        b"",
        b"\xff" * 50,
        b"{",
        b"[]",
        b"x" * 200_000,
        cbor2.dumps({1: "no"}),
        b'{"revision": [1]}',
    ):
        for channel in ("assignments", "lease", "settings", "command"):
            publish(f"fm/1/lab/pi-1/{channel}", payload, 1, True)
    seen = len(controller.beats)
    wait_for(lambda: len(controller.beats) > seen, "another heartbeat")
    controller.desire(task())
    wait_for(lambda: controller.state() is RunState.ENDED, "the end of the run")
    assert agent.process.poll() is None


def test_a_second_agent_on_the_same_data_is_refused_in_one_line(agent, controller):
    wait_for(lambda: controller.beats, "a heartbeat")
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(agent.config)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1 and "another agent" in second.stderr
    assert agent.process.poll() is None


def test_an_unusable_data_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    config = tmp_path / "agent.toml"
    config.write_text(f'[device]\nid = "pi-1"\ndata_dir = "{tmp_path}/file/data"\n')
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small filesystem")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_neither_the_agent_nor_its_restart(small_disk, broker, controller):
    agent = AgentProcess(small_disk, broker)
    agent.log = small_disk.parent / "agent.log"
    agent.start()
    try:
        wait_for(lambda: controller.reports, "a guard that has told")
        try:
            with (small_disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4_096)):
                    pass
        except OSError:
            pass
        controller.desire(task())
        ends = (RunState.ENDED, RunState.STOPPED)
        wait_for(
            lambda: controller.state() in ends,
            f"an end {controller.state()} {controller.reports[-3:]} {agent.log.read_text()}",
        )
        session = controller.beats[-1].session
        agent.end(signal.SIGKILL)
        agent.start()
        wait_for(lambda: controller.beats[-1].session > session, "a heartbeat of the next process")
        wait_for(lambda: controller.reports[-1].session > session, "its report")
        assert controller.state() in ends, "the tombstone was saved although the disk is full"
        assert agent.end(signal.SIGTERM) == 0
    finally:
        agent.end(signal.SIGKILL)
        pid = agent.guard_pid()
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)
