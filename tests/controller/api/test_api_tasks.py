"""Tasks over HTTP: lists, the story, output piece by piece, explanations."""

from __future__ import annotations

import pytest

from controller.core import events as ev
from controller.core import views as vw
from controller.core.records import AttemptRow, AttemptState, AuditRow, OutputRow, TaskRow
from protocol.tasks import TaskState

NOW_MS = 1_790_000_000_123


def task(job: str, index: int, state: TaskState = TaskState.PENDING, device: str = "", **changes) -> TaskRow:
    row = TaskRow(f"{job}.{index}", job, index, state, "run", device, 0, None, "", 0, NOW_MS, NOW_MS)
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_a_list_is_in_the_order_of_index_and_pages_join(api, port):
    port.save(*[task("j1", i) for i in range(12)], task("j2", 0))
    whole = ids(api.get("/api/v1/tasks"))
    assert whole == [f"j1.{i}" for i in range(12)] + ["j2.0"]
    seen, cursor = [], None
    while True:
        params = {"limit": 5, "cursor": cursor} if cursor else {"limit": 5}
        answer = api.get("/api/v1/tasks", params=params)
        seen += ids(answer)
        cursor = answer.json()["next"]
        if cursor is None:
            break
    assert seen == whole


def test_a_full_page_at_the_hard_cap_goes_on(api, port):
    port.save(*[task("j1", i) for i in range(1_001)])
    first = api.get("/api/v1/tasks?limit=1000").json()
    assert len(first["items"]) == 1_000
    assert [t["id"] for t in api.get("/api/v1/tasks", params={"cursor": first["next"]}).json()["items"]] == [
        "j1.1000"
    ]


def test_filters_join(api, port):
    port.save(task("j1", 0, TaskState.RUNNING, "a"), task("j1", 1, TaskState.RUNNING, "b"), task("j2", 0))
    assert ids(api.get("/api/v1/tasks?job=j1")) == ["j1.0", "j1.1"]
    assert ids(api.get("/api/v1/tasks?device=b&state=running")) == ["j1.1"]
    assert ids(api.get("/api/v1/tasks?state=pending")) == ["j2.0"]
    assert ids(api.get("/api/v1/tasks?job=none&device=&cursor=")) == []


def test_a_task_tells_its_story(api, port):
    port.save(
        task("j1", 0, TaskState.SUCCEEDED, "b", attempt=2, exit_code=0),
        AttemptRow("j1.0", 1, "a", AttemptState.FREE, 1, 7, 2, None, 9, "device lost", NOW_MS, 0, NOW_MS + 1),
        AttemptRow("j1.0", 2, "b", AttemptState.FREE, 1, 7, 2, 0, 0, "", NOW_MS + 2, NOW_MS + 3, NOW_MS + 4),
        AuditRow(NOW_MS, "tester", "task", "j1.0", "pending", "assigned", "a", 1, "why"),
    )
    shown = api.get("/api/v1/tasks/j1.0").json()
    first, second = shown["attempts"]
    assert (first["signal"], first["started"], first["reason"]) == (9, None, "device lost")
    assert (second["signal"], second["exit_code"], second["state"]) == (None, 0, "free")
    assert second["started"] == "2026-09-21T14:13:20.126Z"
    assert shown["story"] == [
        {
            "at": "2026-09-21T14:13:20.123Z",
            "actor": "tester",
            "what": "task",
            "from": "pending",
            "to": "assigned",
            "device": "a",
            "attempt": 1,
            "reason": "why",
        }
    ]
    assert (shown["state"], shown["attempt"], shown["exit_code"]) == ("succeeded", 2, 0)


def test_output_is_read_piece_by_piece_as_raw_bytes(api, port):
    port.save(
        task("j1", 0, attempt=2),
        OutputRow("j1.0", 2, 1, 0, b"ab\xff\0", False),
        OutputRow("j1.0", 2, 1, 4, b"cd", True),
        OutputRow("j1.0", 2, 2, 0, b"err", False),
        OutputRow("j1.0", 1, 1, 0, b"old", True),
    )
    part = api.get("/api/v1/tasks/j1.0/output?limit=4")
    assert part.content == b"ab\xff\0" and part.headers["x-next-offset"] == "4"
    assert part.headers["x-complete"] == "false" and "x-gap" not in part.headers
    assert part.headers["content-type"] == "text/plain; charset=utf-8"
    rest = api.get("/api/v1/tasks/j1.0/output?offset=4")
    assert rest.content == b"cd" and rest.headers["x-complete"] == "true"
    assert api.get("/api/v1/tasks/j1.0/output?stream=stderr").content == b"err"
    assert api.get("/api/v1/tasks/j1.0/output?attempt=1").content == b"old"
    assert api.get("/api/v1/tasks/j1.0/output?offset=6").headers["x-next-offset"] == "6"


def test_a_hole_in_the_output_is_shown_as_one(api, port):
    port.save(task("j1", 0, attempt=1), OutputRow("j1.0", 1, 1, 10, b"late", False))
    part = api.get("/api/v1/tasks/j1.0/output")
    assert (part.content, part.headers["x-gap"], part.headers["x-next-offset"]) == (b"late", "10", "14")


def test_a_task_that_never_ran_has_empty_output(api, port):
    port.save(task("j1", 0))
    part = api.get("/api/v1/tasks/j1.0/output")
    assert (part.status_code, part.content, part.headers["x-next-offset"]) == (200, b"", "0")


@pytest.mark.parametrize(
    "query", ["stream=both", "attempt=0", "offset=-1", "limit=0", "limit=2000000", "offset=x", "ofset=1"]
)
def test_output_checks_what_it_is_asked(api, port, query):
    port.save(task("j1", 0))
    answer = api.get(f"/api/v1/tasks/j1.0/output?{query}")
    assert answer.status_code == 400 and answer.json()["parameter"] == query.partition("=")[0]


def test_an_open_task_is_explained_by_the_core(api, port):
    port.save(task("j1", 0))
    assert api.get("/api/v1/tasks/j1.0/explain").json() == {
        "task": "j1.0",
        "state": "pending",
        "device": "",
        "placed": False,
        "summary": "needs 8,000 MiB",
        "filters": [{"filter": "online", "removed": 1, "reason": ""}],
        "scores": [{"device": "a", "score": 0.5, "parts": {}}],
        "reason": "",
        "policy": "",
        "remedies": [],
        "chosen": [],
    }


def test_an_ended_task_explains_itself_and_the_core_is_not_asked(api, port):
    port.save(task("j1", 0, TaskState.FAILED, "a", reason="exit 3"))
    shown = api.get("/api/v1/tasks/j1.0/explain").json()
    assert (shown["summary"], shown["placed"]) == ("failed on a: exit 3", True)
    assert port.asked == []


def test_a_task_that_ends_while_it_is_explained_is_still_explained(api, port):
    port.save(task("j1", 0, TaskState.RUNNING, "a"))

    def ends(question):
        port.save(task("j1", 0, TaskState.SUCCEEDED, "a"))
        return vw.RefusalView("not_open", "task j1.0 is not open")

    port.answers[ev.TaskExplained] = ends
    assert api.get("/api/v1/tasks/j1.0/explain").json()["summary"] == "succeeded on a"


@pytest.mark.parametrize("name", ["j1.0", "j1", "j1.00", "J.1", "%00", "j1.99999999999"])
@pytest.mark.parametrize("tail", ["", "/output", "/explain"])
def test_a_task_that_is_not_there_is_not_found(api, name, tail):
    answer = api.get(f"/api/v1/tasks/{name}{tail}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:fleetmuster:problem:not_found"
