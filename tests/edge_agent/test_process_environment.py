"""What a run finds in its environment."""

from __future__ import annotations

import pytest

from edge_agent.runtimes.host import RunSpec
from edge_agent.runtimes.process import ProcessRuntime, task_index
from edge_agent.translation import spec_of
from protocol.messages import AssignedAttempt


@pytest.mark.parametrize(
    ("task", "index"), [("j-1.0", "0"), ("j.2.17", "17"), ("j", "0"), ("j.x", "0"), ("j.", "0"), ("j.²", "0")]
)
def test_the_index_of_a_task_stands_behind_its_last_dot(task, index):
    assert task_index(task) == index


def test_a_run_is_told_what_it_is_and_what_is_its_own(tmp_path):
    runtime = ProcessRuntime(tmp_path, "pi-1")
    attempt = AssignedAttempt(
        "j-1.3", 7, "process", ("true",), {"COLOUR": "blue", "FM_INDEX": "99"}, accelerators=("gpu0", "gpu1")
    )
    found = runtime.environment(spec_of(attempt), tmp_path / "work")
    ours = {name: value for name, value in found.items() if name.startswith("FM_")}
    assert ours == {
        "FM_TASK": "j-1.3",
        "FM_INDEX": "3",
        "FM_ATTEMPT": "7",
        "FM_DEVICE": "pi-1",
        "FM_ACCELERATORS": "gpu0,gpu1",
    }
    assert found["COLOUR"] == "blue"
    none = runtime.environment(RunSpec("t.0", 1, "process", ("true",), {}), tmp_path)
    assert none["FM_ACCELERATORS"] == "", "there, for scripts that stop at unset names"
