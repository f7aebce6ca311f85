"""`fm job`: what is sent, what is printed where, and how it ends."""

import json

import pytest

JOB = {
    "id": "j-1",
    "name": "true",
    "kind": "batch",
    "count": 2,
    "priority": 0,
    "guarantee": "at_most_one",
    "max_attempts": 3,
    "ttl_ms": 0,
    "lease_ms": 30000,
    "task": {"runtime": "process", "command": ["true"], "resources": {"cpu_milli": 500, "memory_mib": 64}},
    "state": "open",
    "created": "2026-01-02T03:04:05.678Z",
    "tasks": {"pending": 2, "assigned": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
}


def job(state="open", kind="batch", **counts):
    return {**JOB, "state": state, "kind": kind, "tasks": {**JOB["tasks"], "pending": 0, **counts}}


def test_run_prints_the_id_alone_and_says_what_next(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    ended = fm("job", "run", "--", "true")
    assert (ended.code, ended.out) == (0, "j-1\n")
    steps = ["next: fm job wait j-1", "fm task list --job j-1", "fm job cancel j-1"]
    assert [line.strip() for line in ended.err.splitlines()] == steps


def test_run_sends_only_what_was_said(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    assert fm("job", "run", "--", "/usr/bin/env", "--", "-x", "").code == 0
    assert api.bodies("POST", "/jobs") == [
        {
            "kind": "batch",
            "count": 1,
            "task": {"runtime": "process", "command": ["/usr/bin/env", "--", "-x", ""]},
        }
    ]


def test_run_sends_every_option_in_the_units_of_the_api(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    words = "--name n --kind service --count 3 --cpu 0.5 --memory 64MiB --disk 1GiB --gpu 250m"
    more = (
        "--env A=1 --env B=x=y --constraint label.zone=a --constraint memory_mib>=512 --timeout 30s --ttl 1h"
    )
    last = "--lease 1m --stop-grace 5s --max-attempts 0 --priority -5 --guarantee at_least_one"
    last += " --runtime simulated --idempotency-key k1 -q"
    ended = fm("job", "run", *words.split(), *more.split(), *last.split(), "--", "serve")
    assert (ended.code, ended.out, ended.err) == (0, "j-1\n", "")
    assert api.asked[0].headers["idempotency-key"] == "k1"
    assert api.asked[0].body == {
        "name": "n",
        "kind": "service",
        "count": 3,
        "priority": -5,
        "guarantee": "at_least_one",
        "max_attempts": 0,
        "ttl_ms": 3_600_000,
        "lease_ms": 60_000,
        "task": {
            "runtime": "simulated",
            "command": ["serve"],
            "env": {"A": "1", "B": "x=y"},
            "resources": {"cpu_milli": 500, "memory_mib": 64, "disk_mib": 1024, "gpu_milli": 250},
            "constraints": [
                {"attribute": "label.zone", "operator": "=", "value": "a"},
                {"attribute": "memory_mib", "operator": ">=", "value": "512"},
            ],
            "timeout_ms": 30_000,
            "stop_grace_ms": 5_000,
        },
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["echo", "hi"],
        ["--count", "0", "--", "x"],
        ["--count", "x", "--", "x"],
        ["--cpu", "much", "--", "x"],
        ["--memory", "64MB", "--", "x"],
        ["--timeout", "30", "--", "x"],
        ["--env", "A", "--", "x"],
        ["--env", "=2", "--", "x"],
        ["--constraint", "zone", "--", "x"],
        ["--guarantee", "exactly_once", "--", "x"],
        ["--kind", "cron", "--", "x"],
        ["--time", "30s", "--", "x"],
        ["--wait-timeout", "1s", "--", "x"],
    ],
)
def test_wrong_words_are_usage_errors_and_nothing_is_sent(api, fm, words):
    ended = fm("job", "run", *words)
    assert (ended.code, ended.out) == (2, "")
    assert (ended.err.startswith("fm: ") and "next: " in ended.err) or "--wait" in ended.err
    assert api.asked == []


def test_a_simulated_job_needs_no_command(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    assert fm("job", "run", "--runtime", "simulated").code == 0
    assert api.asked[0].body["task"] == {"runtime": "simulated", "command": []}


def test_a_replay_is_told(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 200, {"Idempotent-Replayed": "true"}))
    ended = fm("job", "run", "--idempotency-key", "k", "--", "true")
    assert (ended.code, ended.out) == (0, "j-1\n") and "earlier" in ended.err


def test_an_invalid_job_names_the_option_that_is_wrong(api, fm, refusal):
    api.on("POST", "/jobs", refusal(422, "must be at most 1000000", "/task/resources/memory_mib"))
    ended = fm("job", "run", "--memory", "9999999", "--", "true")
    assert ended.code == 2 and "must be at most" in ended.err and "change --memory" in ended.err


def test_run_as_json_is_the_job_with_all_its_fields(api, fm, says):
    api.on("POST", "/jobs", says({**JOB, "colour": "red"}, 201))
    ended = fm("-o", "json", "job", "run", "--", "true")
    assert json.loads(ended.out) == {**JOB, "colour": "red"}


def test_wait_tells_each_change_once_and_ends_with_success(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    api.on("GET", "/jobs/j-1", job(pending=2), job(pending=2), job(running=2), job("succeeded", succeeded=2))
    ended = fm("job", "run", "--wait", "--", "true")
    assert (ended.code, ended.out) == (0, "j-1\n")
    assert ended.err.splitlines() == [
        "j-1 open: 2 pending",
        "j-1 open: 2 running",
        "j-1 succeeded: 2 succeeded",
    ]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_waiting_for_a_job_that_ends_badly_is_a_failure(api, fm, state):
    api.on("GET", "/jobs/j-1", job(state, succeeded=1, failed=1))
    ended = fm("job", "wait", "j-1")
    assert (ended.code, ended.out) == (1, "") and "1 failed" in ended.err


def test_waiting_ends_in_time_with_its_own_code(api, fm):
    api.on("GET", "/jobs/j-1", job(running=2))
    ended = fm("job", "wait", "j-1", "--timeout", "100ms")
    assert ended.code == 7 and "fm job wait j-1" in ended.err


def test_a_wait_that_ends_in_time_still_gives_a_script_the_job(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    api.on("GET", "/jobs/j-1", job(running=2))
    ended = fm("job", "run", "--wait", "--wait-timeout", "50ms", "-o", "json", "--", "true")
    assert ended.code == 7 and json.loads(ended.out)["id"] == "j-1"


def test_a_service_is_waited_for_until_all_of_it_runs(api, fm):
    api.on("GET", "/jobs/j-1", job(kind="service", running=1, pending=1), job(kind="service", running=2))
    assert fm("job", "wait", "j-1").code == 0
    assert len(api.asked) == 2


def test_a_wait_survives_a_controller_that_is_away_for_a_moment(api, fm, says, refusal):
    html = says(b"<html>", 502, kind="text/html")
    answers = [job(running=2), refusal(503, "saving failed"), html, says(drop=True), says(drop=True)]
    api.on("GET", "/jobs/j-1", *answers, job("succeeded", succeeded=2))
    ended = fm("job", "wait", "j-1")
    assert ended.code == 0 and "answers again" in ended.err


def test_a_wait_for_an_unknown_job_ends_at_once(api, fm):
    assert fm("job", "wait", "nope").code == 3


def test_the_list_shows_jobs_and_an_empty_one_teaches(api, fm):
    api.on("GET", "/jobs", {"items": [job(running=1, pending=1)], "next": None})
    header, row = fm("job", "list").out.splitlines()
    assert header.split()[:5] == ["ID", "NAME", "KIND", "STATE", "TASKS"]
    assert row.split()[:9] == ["j-1", "true", "batch", "open", "2", "1", "1", "0", "0"]
    api.on("GET", "/jobs", {"items": [], "next": None})
    assert "fm job run" in fm("job", "list").err
    assert json.loads(fm("job", "list", "-o", "json").out) == []


def test_the_list_as_json_holds_every_page(api, fm):
    api.on("GET", "/jobs", {"items": [JOB], "next": "c"}, {"items": [{**JOB, "id": "j-2"}], "next": None})
    assert [each["id"] for each in json.loads(fm("job", "list", "-o", "json").out)] == ["j-1", "j-2"]


def test_show_is_for_people_or_for_scripts(api, fm):
    api.on("GET", "/jobs/j-1", JOB)
    out = fm("job", "show", "j-1").out
    assert "2 pending" in out and "64 MiB" in out and "2026-01-02T03:04:05.678Z" in out and "30s" in out
    assert json.loads(fm("job", "show", "j-1", "-o", "json").out) == JOB


def test_a_controller_that_says_little_is_still_shown(api, fm):
    api.on("GET", "/jobs/j-1", {"id": "j-1", "tasks": None, "task": None, "created": None})
    assert fm("job", "show", "j-1").code == 0
    api.on("GET", "/jobs", {"items": [{"id": "j-1"}]})
    assert fm("job", "list").code == 0


def test_cancelling_one_job_asks_nothing(api, fm, says):
    api.on("POST", "/jobs/j-1/cancel", says({}, 202))
    ended = fm("job", "cancel", "j-1")
    assert ended.code == 0 and [asked.path for asked in api.asked] == ["/api/v1/jobs/j-1/cancel"]


def test_cancelling_much_at_once_needs_yes_where_nobody_can_be_asked(api, fm, says):
    for name in ("j-1", "j-2"):
        api.on("GET", f"/jobs/{name}", {**job(pending=40, running=11), "id": name})
        api.on("POST", f"/jobs/{name}/cancel", says({}, 202))
    ended = fm("job", "cancel", "j-1", "j-2")
    assert ended.code == 2 and "102 unfinished" in ended.err and "--yes" in ended.err
    assert api.bodies("POST", "/jobs/j-1/cancel") == []
    assert fm("job", "cancel", "j-1", "j-2", "--yes").code == 0
    assert len(api.bodies("POST", "/jobs/j-2/cancel")) == 1


def test_cancelling_some_of_several_is_partial(api, fm, says):
    api.on("POST", "/jobs/j-1/cancel", says({}, 202))
    ended = fm("job", "cancel", "j-1", "gone", "--yes")
    assert ended.code == 8 and "j-1 will be cancelled" in ended.err and "no " in ended.err
    assert fm("job", "cancel", "gone", "gone2", "--yes").code == 3
