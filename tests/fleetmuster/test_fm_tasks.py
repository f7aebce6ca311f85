"""`fm task`: lists, stories, output byte for byte, explanations."""

import json

import pytest

TASK = {
    "id": "t-1",
    "job": "j-1",
    "state": "running",
    "desired": "run",
    "device": "pi-7",
    "attempt": 2,
    "exit_code": None,
    "reason": "",
    "created": "2026-01-02T03:04:05.678Z",
    "changed": 1_767_323_045_678,
    "attempts": [
        {"attempt": 1, "device": "pi-3", "state": "free", "exit_code": None, "reason": "device_offline"},
        {
            "attempt": 2,
            "device": "pi-7",
            "state": "running",
            "created": "2026-01-02T03:04:06Z",
            "ended": None,
        },
    ],
    "story": [
        {
            "at": "2026-01-02T03:04:05Z",
            "actor": "controller",
            "what": "task",
            "from": "pending",
            "to": "assigned",
            "device": "pi-3",
            "attempt": 1,
            "reason": "best_fit",
        }
    ],
}


def part(says, data, after, complete=False):
    return says(data, headers={"X-Next-Offset": str(after), "X-Complete": str(complete).lower()})


def test_list_filters_at_the_controller(api, fm):
    api.on("GET", "/tasks", {"items": [TASK, {**TASK, "id": "t-2", "desired": "cancelled"}], "next": None})
    ended = fm("task", "list", "--job", "j-1", "--device", "pi-7", "--state", "running")
    assert ended.code == 0 and "running -> cancelled" in ended.out
    query = api.asked[0].query
    assert (query["job"], query["device"], query["state"]) == ("j-1", "pi-7", "running")
    assert [each["id"] for each in json.loads(fm("task", "list", "-o", "json").out)] == ["t-1", "t-2"]
    assert fm("task", "list", "--state", "lost").code == 2


def test_show_tells_attempts_and_story(api, fm):
    api.on("GET", "/tasks/t-1", TASK)
    out = fm("task", "show", "t-1").out
    for word in (
        "pi-3",
        "device_offline",
        "best_fit",
        "controller",
        "2026-01-02T03:04:06.000Z",
        "2026-01-02T03:04:05",
    ):
        assert word in out
    assert json.loads(fm("-o", "json", "task", "show", "t-1").out) == TASK


def test_output_is_every_byte_of_the_latest_attempt(api, fm, says):
    api.on("GET", "/tasks/t-1", TASK)
    api.on("GET", "/tasks/t-1/output", part(says, b"one\ntw", 6), part(says, b"o\n", 8), part(says, b"", 8))
    ended = fm("task", "output", "t-1", "--stream", "stderr")
    assert (ended.code, ended.out, ended.err) == (0, "one\ntwo\n", "")
    asked = [each.query for each in api.asked if each.path.endswith("/output")]
    assert [(q["offset"], q["attempt"], q["stream"]) for q in asked] == [
        ("0", "2", "stderr"),
        ("6", "2", "stderr"),
        ("8", "2", "stderr"),
    ]


def test_output_of_a_named_attempt_asks_for_that_one_only(api, fm, says):
    api.on("GET", "/tasks/t-1/output", part(says, b"x", 1), part(says, b"", 1, True))
    assert fm("task", "output", "t-1", "--attempt", "1").out == "x"
    assert {each.query["attempt"] for each in api.asked} == {"1"}


def test_a_gap_in_the_output_is_told_apart_from_the_output(api, fm, says):
    api.on("GET", "/tasks/t-1", TASK)
    api.on("GET", "/tasks/t-1/output", part(says, b"end", 1003), part(says, b"", 1003, True))
    ended = fm("task", "output", "t-1")
    assert ended.out == "end" and "1000 bytes are missing" in ended.err


def test_follow_goes_on_until_the_attempt_has_ended(api, fm, says, refusal):
    api.on("GET", "/tasks/t-1", {**TASK, "attempt": 0, "state": "pending"}, TASK)
    answers = [part(says, b"", 0), part(says, b"a", 1), refusal(503, "busy"), part(says, b"", 1)]
    api.on("GET", "/tasks/t-1/output", *answers, part(says, b"b", 2, True), part(says, b"", 2, True))
    ended = fm("task", "output", "t-1", "--follow")
    assert (ended.code, ended.out) == (0, "ab")


def test_a_task_that_never_ran_has_no_output_and_says_where_to_look(api, fm):
    api.on("GET", "/tasks/t-1", {"id": "t-1", "state": "failed", "attempt": 0})
    ended = fm("task", "output", "t-1", "--follow")
    assert (ended.code, ended.out) == (0, "") and "fm task explain t-1" in ended.err


def test_explain_shows_what_was_best_when_it_was_placed(api, fm):
    found = {"task": "t-1", "state": "running", "device": "b", "placed": True, "summary": "placed on b"}
    chosen = [{"device": "b", "score": 0.75}, {"device": "a", "score": 0.5}]
    api.on("GET", "/tasks/t-1/explain", found | {"chosen": chosen})
    lines = [line.split() for line in fm("task", "explain", "t-1").out.splitlines()]
    at = lines.index(["WHEN", "IT", "WAS", "PLACED", "SCORE"])
    assert lines[at + 1 : at + 3] == [["b", "0.750"], ["a", "0.500"]]
    api.on("GET", "/tasks/t-1/explain", found | {"chosen": []})
    assert "WHEN IT WAS PLACED" not in fm("task", "explain", "t-1").out


def test_explain_shows_filters_scores_and_the_sum(api, fm):
    found = {
        "task": "t-1",
        "state": "pending",
        "placed": None,
        "summary": "needs 8,000 MiB; largest device has 3,790",
        "filters": [{"filter": "capacity", "removed": 3, "reason": "memory_mib"}],
        "scores": [{"device": f"pi-{n}", "score": 0.5, "parts": {"fit": 0.25}} for n in range(12)],
        "reason": "no_capacity",
    }
    api.on("GET", "/tasks/t-1/explain", found)
    ended = fm("task", "explain", "t-1")
    assert "largest device has 3,790" in ended.out and "capacity" in ended.out and "fit 0.250" in ended.out
    assert "2 more" in ended.err
    assert json.loads(fm("task", "explain", "t-1", "-o", "json").out) == found


def test_an_unknown_task_is_not_found(api, fm):
    for verb in ("show", "output", "explain"):
        assert fm("task", verb, "nope").code == 3


@pytest.mark.parametrize("option", ["--job", "--device"])
def test_no_tasks_of_what_does_not_exist_is_not_found(api, fm, option):
    api.on("GET", "/tasks", {"items": [], "next": None})
    ended = fm("task", "list", option, "nope")
    assert (ended.code, ended.out) == (3, "")
