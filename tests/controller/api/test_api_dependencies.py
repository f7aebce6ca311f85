"""The core knows open jobs only: of those that are over the API tells it, once it asks."""

from __future__ import annotations

import pytest

from controller.core import events as ev
from controller.core import views as vw
from controller.core.records import JobRow, JobState, TaskSpec
from protocol.tasks import Guarantee, JobKind


def stored(port, job, state):
    port.save(
        JobRow(
            job,
            job,
            JobKind.BATCH,
            1,
            0,
            Guarantee.AT_MOST_ONE,
            3,
            0,
            30_000,
            TaskSpec(),
            state,
            "run",
            1,
            1,
            "x",
        )
    )


def core_without_old(question):
    """Knows `open1` as open, and believes what it is told of the others."""
    for dependency in question.rules.depends_on:
        if dependency.job != "open1" and question.closed.get(dependency.job) != "succeeded":
            return vw.RefusalView("invalid", f"job {dependency.job} can't succeed, or is none")
    return vw.SubmittedView(question.job)


@pytest.mark.parametrize(
    ("needs", "status", "asks"),
    [(["open1"], 201, 1), (["old"], 201, 2), (["lost"], 422, 2), (["none"], 422, 1)],
)
def test_ends_are_looked_up_only_when_the_core_misses_them(api, port, needs, status, asks):
    stored(port, "old", JobState.SUCCEEDED)
    stored(port, "lost", JobState.FAILED)
    port.answers[ev.JobSubmitted] = core_without_old
    body = {"name": "x", "task": {"command": ["true"]}, "depends_on": needs}
    answer = api.post("/api/v1/jobs", json=body)
    assert (answer.status_code, len(port.asked)) == (status, asks), answer.text
    assert len({q.request for q in port.asked}) == asks
    if status == 422:
        assert answer.json()["pointer"] == "/depends_on/0"
