"""The whole fleet with real processes: broker, controller, three agents, real tasks."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_harness import LiveFleet, live_fleet, wait_for

pytestmark = pytest.mark.live
LEASE_MS = 6_000
HOLD_S = 7.2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("fleet") / "data", "--agents", "3", "--devices", "0") as running:
        yield running


_SECONDS = itertools.count(100_000 + os.getpid() * 1_000)
"""Each long task sleeps a number of seconds of its own, by which its processes are found."""


def living(seconds: int) -> int:
    """How many processes sleep exactly that long now, seen from outside every namespace."""
    found = subprocess.run(["pgrep", "-fx", f"sleep {seconds}"], capture_output=True, text=True, check=False)
    return len(found.stdout.split())


def marked(folder: Path, name: str) -> list[str]:
    """What the attempts of a task wrote into a file of their own, one line each."""
    path = folder / name
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that tasks under another uid can write to, whatever pytest does to its own."""
    with tempfile.TemporaryDirectory(prefix="fm-story-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def long_job(
    fleet: LiveFleet,
    folder: Path,
    name: str,
    guarantee: str = "at_most_one",
    cpu: int = 100,
    seconds: int = 300,
    lease_ms: int = LEASE_MS,
) -> str:
    """A task that notes its attempt and device, then stays."""
    script = f"echo $FM_ATTEMPT:$FM_DEVICE >> {folder}/{name}; exec sleep {seconds}"
    resources = {"cpu_milli": cpu, "memory_mib": 16}
    return fleet.submit(
        "sh", "-c", script, kind="service", lease_ms=lease_ms, guarantee=guarantee,
        task={"resources": resources, "stop_grace_ms": 500},
    )  # fmt: skip


def cancel(fleet: LiveFleet, task: str) -> None:
    with fleet.api as api:
        api.cancel_job(task.partition(".")[0])
    fleet.until(task, 20, state="cancelled")


def test_a_job_runs_where_most_room_is_and_its_output_can_be_read(fleet: LiveFleet, folder: Path) -> None:
    blockers = [long_job(fleet, folder, f"b{i}", cpu=600) for i in range(2)]
    taken = {fleet.until(t, 20, state="running")["device"] for t in blockers}
    assert len(taken) == 2, "equal tasks spread over devices"
    task = fleet.submit("sh", "-c", "echo out; echo err >&2; exit 0")
    done = fleet.until(task, 20, state="succeeded")
    assert done["device"] not in taken and done["attempt"] == 1
    assert wait_for(lambda: fleet.output(task), 10, "output") == b"out\n"
    for blocker in blockers:
        cancel(fleet, blocker)


def test_a_killed_device_loses_its_work_to_another_once_and_does_not_run_it_again(
    fleet: LiveFleet, folder: Path
) -> None:
    seconds = next(_SECONDS)
    task = long_job(fleet, folder, "moved", seconds=seconds)
    first = fleet.until(task, 20, state="running")["device"]
    wait_for(lambda: living(seconds) == 1, 10, "the run")
    fleet.kill_device(first)
    wait_for(lambda: living(seconds) == 0, 3, "the end of the run with its guard")
    wait_for(lambda: fleet.state_of(first) == "offline", 10, "offline")
    second = fleet.until(task, HOLD_S + 15, state="running", attempt=2)["device"]
    assert second != first
    assert len(wait_for(lambda: marked(folder, "moved")[1:], 10, "the second run")) == 1
    fleet.start_agent(first)
    wait_for(lambda: fleet.state_of(first) == "online", 30, "the device's return")
    follow_up = fleet.submit(
        "true", task={"constraints": [{"attribute": "device", "operator": "=", "value": first}]}
    )
    fleet.until(follow_up, 20, state="succeeded", device=first)
    assert [line.split(":")[0] for line in marked(folder, "moved")] == ["1", "2"]
    assert living(seconds) == 1
    assert fleet.task(task)["attempt"] == 2
    cancel(fleet, task)


def test_at_least_one_moves_within_seconds_of_a_death(fleet: LiveFleet, folder: Path) -> None:
    task = long_job(fleet, folder, "quick", guarantee="at_least_one")
    first = fleet.until(task, 20, state="running")["device"]
    fleet.kill_device(first)
    second = fleet.until(task, HOLD_S - 1, state="running", attempt=2)["device"]
    assert second != first
    fleet.start_agent(first)
    wait_for(lambda: fleet.state_of(first) == "online", 30, "the device's return")
    cancel(fleet, task)


def test_a_killed_controller_changes_no_assignment_and_loses_no_answer(
    fleet: LiveFleet, folder: Path
) -> None:
    task = long_job(fleet, folder, "kept", lease_ms=20_000)  # a controller's start takes 2 s beside others
    before = fleet.until(task, 20, state="running")
    os.kill(fleet.child_pid("controller.cli"), signal.SIGKILL)
    accepted = wait_for(lambda: _try_submit(fleet), 30, "the controller's return")
    fleet.until(accepted, 30, state="succeeded")
    after = fleet.task(task)
    assert (after["device"], after["attempt"], after["state"]) == (before["device"], 1, "running")
    assert len(marked(folder, "kept")) == 1
    cancel(fleet, task)


def _try_submit(fleet: LiveFleet) -> str:
    from fleetmuster.exits import CommandError

    try:
        return fleet.submit("true")
    except CommandError:
        return ""


def test_a_broker_that_restarts_empty_stops_no_healthy_run(fleet: LiveFleet, folder: Path) -> None:
    script = f"echo $FM_ATTEMPT >> {folder}/steady; exec sleep 300"
    task = fleet.submit("sh", "-c", script, kind="service")
    before = fleet.until(task, 20, state="running")
    os.kill(fleet.child_pid("mosquitto"), signal.SIGKILL)
    follow_up = fleet.submit("true")
    fleet.until(follow_up, 40, state="succeeded")
    after = fleet.task(task)
    assert (after["device"], after["attempt"]) == (before["device"], 1)
    assert marked(folder, "steady") == ["1"]
    cancel(fleet, task)


def test_a_killed_agent_adopts_its_runs_when_it_returns(fleet: LiveFleet, folder: Path) -> None:
    script = f"echo $FM_ATTEMPT:$FM_DEVICE:$$ >> {folder}/adopted; exec sleep 300"
    task = fleet.submit("sh", "-c", script, kind="service")
    device = fleet.until(task, 20, state="running")["device"]
    os.kill(fleet.pid_of(device, "agent"), signal.SIGKILL)
    wait_for(lambda: fleet.state_of(device) != "online", 10, "the loss")
    fleet.start_agent(device)
    wait_for(lambda: fleet.state_of(device) == "online", 30, "the return")
    follow_up = fleet.submit(
        "true", task={"constraints": [{"attribute": "device", "operator": "=", "value": device}]}
    )
    fleet.until(follow_up, 20, state="succeeded")
    assert fleet.task(task)["attempt"] == 1 and fleet.task(task)["state"] == "running"
    assert len(marked(folder, "adopted")) == 1
    cancel(fleet, task)


def test_a_failing_task_is_tried_three_times_and_says_why(fleet: LiveFleet) -> None:
    task = fleet.submit("sh", "-c", "exit 7")
    failed = fleet.until(task, 40, state="failed")
    assert (failed["attempt"], failed["exit_code"]) == (3, 7)
    missing = fleet.submit("/no/such/program", max_attempts=1)
    assert "not found" in fleet.until(missing, 20, state="failed")["reason"]


def test_the_fleet_ends_without_leaving_a_process(tmp_path: Path) -> None:
    with live_fleet(tmp_path / "data", "--agents", "1", "--devices", "3") as running:
        assert running.process is not None
        task = running.submit("sleep", "300")
        running.until(task, 20, state="running")
        up = running.process.pid
        assert running.stop() == 0
        listed = subprocess.run(
            ["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False
        ).stdout
        assert not [p for p in listed.split() if int(p) not in (os.getpid(), up)], listed
        running.start()
        again = running.until(task, 60, state="running")
        assert again["attempt"] == 2, "a second `up` continues where the first was"
