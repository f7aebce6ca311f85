"""Daemons over the API: what makes no sense is refused, and how many there are is the fleet's to say."""

from __future__ import annotations

import pytest

from controller.core import events as ev
from controller.core import views as vw
from controller.core.records import JobRow, JobState, TaskRow, TaskSpec
from protocol.tasks import Guarantee, JobKind, TaskState


def daemon(**more):
    return {"kind": "daemon", "task": {"command": ["true"]}, **more}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (daemon(max_attempts=3), "/max_attempts"),
        (daemon(ttl_ms=1_000), "/ttl_ms"),
        (daemon(count=3), "/count"),
        (
            daemon(
                task={
                    "command": ["x"],
                    "constraints": [{"attribute": "label.z", "operator": "distinct", "value": "1"}],
                }
            ),
            "/task/constraints/0/operator",
        ),
    ],
)
def test_what_a_daemon_cannot_have(api, port, body, pointer):
    answer = api.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, pointer)
    assert not port.asked


def test_the_answer_to_a_submit_tells_on_how_many_devices_it_is(api, port):
    port.answers[ev.JobSubmitted] = lambda q: vw.SubmittedView(q.job, tasks=7)
    said = api.post("/api/v1/jobs", json=daemon()).json()
    assert (said["count"], said["tasks"]["pending"]) == (7, 7)


def test_the_count_shown_leaves_out_devices_that_no_longer_match(api, port):
    row = JobRow(
        "mon", "mon", JobKind.DAEMON, 3, 0, Guarantee.AT_MOST_ONE, 0, 0, 30_000, TaskSpec(), JobState.OPEN,
        "run", 1, 1, "x",
    )  # fmt: skip
    states = (TaskState.RUNNING, TaskState.CANCELLED, TaskState.PENDING)
    tasks = [
        TaskRow(f"mon.{i}", "mon", i, s, "run", "", 1, None, "", 0, 1, 1, f"d{i}")
        for i, s in enumerate(states)
    ]
    port.save(row, *tasks)
    assert api.get("/api/v1/jobs/mon").json()["count"] == 2
