"""The simulation's checkers over what real processes did, while agents, guards and controller are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_harness import LiveFleet, live_fleet, wait_for
from recording import Recorder, find_database

from controller.core.records import TaskRow
from fleetmuster.exits import CommandError
from sim.histories import check_history, read_history, write_line
from sim.observations import Committed, Observation, RunBegan, RunEnded

pytestmark = pytest.mark.live
LEASE_MS = 6_000
SMALL = {"resources": {"cpu_milli": 100, "memory_mib": 16}}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Observation]]:
    """What happened while everything was killed once."""
    data = tmp_path_factory.mktemp("recorded") / "data"
    with live_fleet(data, "--agents", "3", "--devices", "0") as fleet:
        recorder = Recorder(find_database(data), lambda device: device.startswith("agent-")).start()
        try:
            disturb(fleet, recorder)
        finally:
            found = recorder.stop()
        rate = recorder.looks / max(0.1, (found[-1].at_ms - found[0].at_ms) / 1_000)
        assert rate >= 20, f"only {rate:.0f} looks a second: what was missed is not known"
        yield found


def submit(fleet: LiveFleet, recorder: Recorder, *command: str, **more: object) -> str:
    task = fleet.submit(*command, lease_ms=LEASE_MS, task=dict(SMALL), **more)
    recorder.accepted(task.partition(".")[0], 1)
    return task


def disturb(fleet: LiveFleet, recorder: Recorder) -> None:
    """Services and batch work, and a SIGKILL for an agent, a guard, the controller and a device."""
    services = [submit(fleet, recorder, "sleep", "600", kind="service") for _ in range(3)]
    for service in services:
        fleet.until(service, 30, state="running")
    batch = [submit(fleet, recorder, "sh", "-c", "sleep 1") for _ in range(4)]
    os.kill(fleet.pid_of("agent-1", "agent"), signal.SIGKILL)
    wait_for(lambda: fleet.task(batch[0])["state"] == "succeeded", 40, "work goes on beside a dead agent")
    fleet.start_agent("agent-1")
    os.kill(fleet.pid_of("agent-2", "guard"), signal.SIGKILL)
    batch += [submit(fleet, recorder, "sh", "-c", "sleep 2") for _ in range(3)]
    os.kill(fleet.child_pid("controller.cli"), signal.SIGKILL)
    wait_for(lambda: answers(fleet), 30, "the controller's return")
    fleet.kill_device("agent-3")
    fleet.start_agent("agent-3")
    for service in services:
        wait_for(lambda s=service: fleet.task(s)["state"] == "running", 60, "services run again")
    with fleet.api as api:
        api.cancel_job(services[0].partition(".")[0])
    fleet.until(services[0], 30, state="cancelled")
    for task in batch:
        wait_for(lambda t=task: fleet.task(t)["state"] == "succeeded", 60, "batch work ends")
    time.sleep(1)  # the recorder looks on for a while at a fleet to which nothing happens


def answers(fleet: LiveFleet) -> bool:
    try:
        return bool(fleet.state_of("agent-1"))
    except CommandError:
        return False


def test_real_processes_keep_the_invariants_while_everything_is_killed(history):
    began = [o for o in history if isinstance(o, RunBegan)]
    commits = [o for o in history if isinstance(o, Committed)]
    assert len(began) >= 10 and len(commits) >= 20, "something was recorded"
    assert len({(o.task, o.attempt) for o in began}) > len({o.task for o in began}), "something ran again"
    assert check_history(history).breaches == []


def test_the_recorded_history_survives_its_file(history, tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(write_line(o) + "\n" for o in history))
    assert read_history(path.read_text(), str(path)) == history


def test_an_overlap_that_is_written_into_the_history_is_found(history):
    longest = max((o for o in history if isinstance(o, RunEnded)), key=lambda o: o.at_ms)
    at = next(i for i, o in enumerate(history) if isinstance(o, RunBegan) and o.task == longest.task)
    began = history[at]
    assert isinstance(began, RunBegan)
    twin = replace(began, device="agent-9", attempt=began.attempt + 1_000)
    doctored = [*history[: at + 1], twin, *history[at + 1 :]]
    assert "I1" in {b.invariant for b in check_history(doctored).breaches}


def test_a_commit_that_is_taken_out_of_the_history_is_missed(history):
    """Each change of a task has to follow from what was stored before it."""
    at = next(i for i, o in enumerate(history) if isinstance(o, Committed) and moves(o))
    assert check_history([*history[:at], *history[at + 1 :]]).breaches


def moves(commit: Committed) -> bool:
    return any(isinstance(row, TaskRow) for row in commit.rows)
