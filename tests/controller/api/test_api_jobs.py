"""Jobs over HTTP: what is accepted, with which defaults, what is refused and where it points."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.api.bodies import ConstraintBody, JobBody, TaskBody
from controller.core import events as ev
from controller.core import views as vw
from controller.core.conditions import GROUP_OPERATORS, OPERATORS
from controller.core.records import Constraint, JobState
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind

SMALL = {"task": {"command": ["sleep", "1"]}}


def job(**changes):
    task = {"command": ["sleep", "1"], **changes.pop("task", {})}
    return {"task": task, **changes}


def test_a_small_job_gets_every_default(api, port):
    answer = api.post("/api/v1/jobs", json=SMALL)
    assert answer.status_code == 201
    (asked,) = port.asked
    assert (asked.name, asked.kind, asked.count, asked.priority) == ("sleep", JobKind.BATCH, 1, 50)
    assert (asked.guarantee, asked.max_attempts) == (Guarantee.AT_MOST_ONE, 3)
    assert (asked.ttl_ms, asked.lease_ms, asked.actor) == (0, 30_000, "tester")
    assert (asked.idempotency_key, asked.fingerprint) == ("", "")
    spec = asked.spec
    assert (spec.runtime, spec.command, spec.env) == ("process", ("sleep", "1"), {})
    assert (spec.resources, spec.timeout_ms, spec.stop_grace_ms) == (Resources(100, 32, 0, 0), 0, 5_000)


def test_the_answer_is_the_job_in_full_and_names_its_place(api):
    answer = api.post("/api/v1/jobs", json=job(count=7))
    body = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{body['id']}"
    assert body["state"] == "open" and body["desired"] == "run" and body["actor"] == "tester"
    assert body["tasks"] == {
        "pending": 7, "assigned": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert body["created"] == "2026-09-21T14:13:20.123Z"
    assert set(body) == set(api.get(answer.headers["location"]).json())


def test_what_was_posted_is_what_is_read(api):
    posted = api.post("/api/v1/jobs", json=job(name="x", env={"B": "é", "A": ""}, task={"env": {"B": "é"}}))
    assert posted.status_code == 422
    posted = api.post("/api/v1/jobs", json=job(name="x", task={"env": {"B": "é", "A": ""}}))
    assert posted.json() == api.get(f"/api/v1/jobs/{posted.json()['id']}").json()


def test_every_field_reaches_the_core(api, port):
    sent = {
        "name": "Cam-1",
        "kind": "service",
        "count": 100_000,
        "priority": 0,
        "guarantee": "at_least_one",
        "max_attempts": 9,
        "ttl_ms": 5,
        "lease_ms": 6_000,
        "task": {
            "runtime": "simulated",
            "command": [],
            "env": {"Z": "1", "A": "2"},
            "resources": {"cpu_milli": 1, "memory_mib": 2, "disk_mib": 3, "gpu_milli": 4},
            "constraints": [
                {"attribute": "label.zone", "operator": "in", "value": ["a", "b"]},
                {"attribute": "label.gpu", "operator": "exists"},
                {"attribute": "label.ram", "operator": ">=", "value": "2.5"},
                {"attribute": "site", "operator": "not_in", "value": "x,y"},
            ],
            "timeout_ms": 6,
            "stop_grace_ms": 0,
        },
    }
    assert api.post("/api/v1/jobs", json=sent).status_code == 201
    (asked,) = port.asked
    assert (asked.kind, asked.guarantee, asked.max_attempts) == (
        JobKind.SERVICE,
        Guarantee.AT_LEAST_ONE,
        9,
    )
    assert asked.spec.resources == Resources(1, 2, 3, 4)
    assert asked.spec.constraints == (
        Constraint("label.zone", "in", "a,b"),
        Constraint("label.gpu", "exists", ""),
        Constraint("label.ram", ">=", "2.5"),
        Constraint("site", "not_in", "x,y"),
    )


def test_a_service_has_no_end_of_attempts(api, port):
    api.post("/api/v1/jobs", json=job(kind="service"))
    assert port.asked[0].max_attempts == 0


def test_the_operators_are_those_of_the_core():
    operator = ConstraintBody.model_json_schema()["properties"]["operator"]
    assert operator["enum"] == [*OPERATORS, *GROUP_OPERATORS]


@pytest.mark.parametrize(
    ("command", "name"),
    [(["/usr/bin/python3", "x"], "python3"), (["./a b"], "a-b"), (["/"], "process"), (["é"], "process")],
)
def test_a_job_is_called_after_its_command(api, port, command, name):
    assert api.post("/api/v1/jobs", json={"task": {"command": command}}).status_code == 201
    assert port.asked[0].name == name


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/task"),
        ([], ""),
        (1, ""),
        ({"task": None}, "/task"),
        ({"task": {}}, "/task/command"),
        ({"task": {"command": []}}, "/task/command"),
        ({"task": {"command": [""]}}, "/task/command"),
        ({"task": {"command": "sleep 1"}}, "/task/command"),
        ({"task": {"command": ["a\0b"]}}, "/task/command/0"),
        ({"task": {"command": ["a"] * 257}}, "/task/command"),
        ({"task": {"command": ["a" * 8_193]}}, "/task/command/0"),
        ({"task": {"command": ["a" * 8_000] * 5}}, "/task"),
        (job(count=0), "/count"),
        (job(count=100_001), "/count"),
        (job(count=True), "/count"),
        (job(count=1.0), "/count"),
        (job(count="1"), "/count"),
        (job(count=None), "/count"),
        (job(count=10**300), "/count"),
        (job(priority=101), "/priority"),
        (job(priority=-1), "/priority"),
        (job(kind="demon"), "/kind"),
        (job(guarantee="exactly_once"), "/guarantee"),
        (job(lease_ms=5_999), "/lease_ms"),
        (job(lease_ms=8 * 86_400_000), "/lease_ms"),
        (job(ttl_ms=-1), "/ttl_ms"),
        (job(max_attempts=-1), "/max_attempts"),
        (job(name=""), "/name"),
        (job(name="a b"), "/name"),
        (job(name="-a"), "/name"),
        (job(name="a\n"), "/name"),
        (job(name="a" * 65), "/name"),
        (job(nmae="x"), "/nmae"),
        (job(**{"a/b~c": 1}), "/a~1b~0c"),
        (job(task={"runtime": "Process"}), "/task/runtime"),
        (job(task={"timeout_ms": -1}), "/task/timeout_ms"),
        (job(task={"stop_grace_ms": 600_001}), "/task/stop_grace_ms"),
        (job(task={"resources": {"cpu_milli": -1}}), "/task/resources/cpu_milli"),
        (job(task={"resources": {"cpu": 1}}), "/task/resources/cpu"),
        (job(task={"resources": {"memory_mib": 2**41}}), "/task/resources/memory_mib"),
        (job(task={"env": {"A": 1}}), "/task/env/A"),
        (job(task={"env": {"A": "\0"}}), "/task/env/A"),
        (job(task={"env": {"A=B": ""}}), "/task/env/A=B"),
        (job(task={"env": {"FM_ATTEMPT": "9"}}), "/task/env/FM_ATTEMPT"),
        (job(task={"env": {str(i): "" for i in range(129)}}), "/task/env"),
        (job(task={"constraints": [{}]}), "/task/constraints/0/operator"),
        (job(task={"constraints": [{"operator": "="}]}), "/task/constraints/0/attribute"),
        (
            job(task={"constraints": [{"attribute": "zone", "operator": "=", "value": "a"}]}),
            "/task/constraints/0/attribute",
        ),
        (
            job(task={"constraints": [{"attribute": "site", "operator": "~", "value": "a"}]}),
            "/task/constraints/0/operator",
        ),
        (
            job(task={"constraints": [{"attribute": "site", "operator": "=", "value": ["a"]}]}),
            "/task/constraints/0/value",
        ),
        (
            job(task={"constraints": [{"attribute": "site", "operator": "=", "value": 1}]}),
            "/task/constraints/0/value",
        ),
        (
            job(task={"constraints": [{"attribute": "site", "operator": "in", "value": []}]}),
            "/task/constraints/0/value",
        ),
        (
            job(task={"constraints": [{"attribute": "site", "operator": "in", "value": ["a,b"]}]}),
            "/task/constraints/0/value",
        ),
        (
            job(task={"constraints": [{"attribute": "label.x", "operator": "<", "value": "b"}]}),
            "/task/constraints/0/value",
        ),
        (
            job(task={"constraints": [{"attribute": "version", "operator": "<", "value": "2"}]}),
            "/task/constraints/0/operator",
        ),
        (
            job(task={"constraints": [{"attribute": "label.x", "operator": "exists", "value": "b"}]}),
            "/task/constraints/0/value",
        ),
    ],
)
def test_an_invalid_job_is_refused_with_a_pointer_and_nothing_is_asked(api, port, body, pointer):
    answer = api.post("/api/v1/jobs", json=body)
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:fleetmuster:problem:invalid_body"
    assert problem["pointer"] == pointer
    assert port.asked == []


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (job(nmae="x"), "'name'"),
        (job(task={"comand": ["x"]}), "'command'"),
        (job(task={"resources": {"memory": 1}}), "'memory_mib'"),
        (job(kind="bach"), "'batch'"),
        (job(task={"constraints": [{"attribute": "zone", "operator": "=", "value": "a"}]}), "'label.zone'"),
        (job(task={"constraints": [{"attribute": "profil", "operator": "=", "value": "a"}]}), "'profile'"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_meant(api, body, hint):
    assert f"did you mean {hint}?" in api.post("/api/v1/jobs", json=body).json()["detail"]


def test_several_faults_are_told_at_once(api):
    problem = api.post("/api/v1/jobs", json=job(count=0, priority=-1)).json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["/count", "/priority"]
    assert problem["pointer"] == "/count"


def test_faults_without_end_are_cut(api):
    answer = api.post("/api/v1/jobs", json=job(**{f"x{i}": 0 for i in range(5_000)}))
    assert answer.status_code == 422 and len(answer.json()["errors"]) == 20
    assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"count": ' + b"9" * 5_000 + b"}",
        b'{"count": 1e999999}',
        b'{"count": NaN}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_refused_and_harmless(api, port, raw):
    answer = api.post("/api/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["type"].startswith("urn:fleetmuster:problem:")
    assert port.asked == []


def test_a_key_that_was_seen_gives_the_same_job(api, port):
    headers = {"Idempotency-Key": "k1"}
    first = api.post("/api/v1/jobs", json=job(task={"env": {"A": "1", "B": "2"}}), headers=headers)
    again = api.post("/api/v1/jobs", json=job(count=1, task={"env": {"B": "2", "A": "1"}}), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.json() == first.json()


def test_a_key_with_another_body_is_refused(api):
    headers = {"Idempotency-Key": "k1"}
    api.post("/api/v1/jobs", json=SMALL, headers=headers)
    answer = api.post("/api/v1/jobs", json=job(count=2), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:fleetmuster:problem:idempotency_key_reused"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é".encode()])
def test_a_key_that_is_none_is_refused(api, port, key):
    answer = api.post("/api/v1/jobs", json=SMALL, headers={"Idempotency-Key": key})
    assert answer.status_code == 400 and answer.json()["parameter"] == "Idempotency-Key"
    assert port.asked == []


def test_a_list_gives_every_job_once_over_all_pages(api):
    made = [api.post("/api/v1/jobs", json=SMALL).json()["id"] for _ in range(7)]
    seen, cursor = [], ""
    while True:
        page = api.get("/api/v1/jobs", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)


def test_a_list_filters_by_state_and_name(api, port):
    api.post("/api/v1/jobs", json=job(name="one"))
    two = api.post("/api/v1/jobs", json=job(name="two")).json()["id"]
    row = port.store.job(two).row
    row.state = JobState.FAILED
    port.save(row)
    assert [j["name"] for j in api.get("/api/v1/jobs?state=failed").json()["items"]] == ["two"]
    assert [j["name"] for j in api.get("/api/v1/jobs?state=open").json()["items"]] == ["one"]
    assert [j["name"] for j in api.get("/api/v1/jobs?name=two").json()["items"]] == ["two"]


def test_a_page_of_huge_jobs_ends_early_and_goes_on(api):
    big = job(task={"command": ["x" * 8_000] * 3})
    made = [api.post("/api/v1/jobs", json=big).json()["id"] for _ in range(200)]
    first = api.get("/api/v1/jobs?limit=1000").json()
    assert 100 < len(first["items"]) < 200
    rest = api.get("/api/v1/jobs", params={"limit": 1_000, "cursor": first["next"]}).json()
    assert sorted(j["id"] for j in first["items"] + rest["items"]) == sorted(made)


def test_a_cancel_is_accepted_and_shown_as_a_wish(api):
    made = api.post("/api/v1/jobs", json=SMALL).json()["id"]
    answer = api.post(f"/api/v1/jobs/{made}/cancel", json={})
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["desired"]) == ("open", "cancelled")


def test_what_has_ended_can_not_be_cancelled_but_cancelled_twice_is_fine(api, port):
    made = api.post("/api/v1/jobs", json=SMALL).json()["id"]
    row = port.store.job(made).row
    row.state = JobState.SUCCEEDED
    port.save(row)
    answer = api.post(f"/api/v1/jobs/{made}/cancel")
    assert answer.status_code == 409 and "succeeded" in answer.json()["detail"]
    row.state, row.desired = JobState.CANCELLED, "cancelled"
    port.save(row)
    assert api.post(f"/api/v1/jobs/{made}/cancel").status_code == 202


@pytest.mark.parametrize("name", ["nothing", "UPPER", "a.b", "%00", "a" * 100, "%C3%A9"])
def test_a_job_that_is_not_there_is_not_found(api, name):
    for answer in (api.get(f"/api/v1/jobs/{name}"), api.post(f"/api/v1/jobs/{name}/cancel")):
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:fleetmuster:problem:not_found"


def test_a_replay_of_a_job_that_was_pruned_says_so(api, port):
    port.answers[ev.JobSubmitted] = vw.SubmittedView("jgone", True)
    assert api.post("/api/v1/jobs", json=SMALL, headers={"Idempotency-Key": "k"}).status_code == 404


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from([*JobBody.model_fields, "x"])
task_names = st.sampled_from([*TaskBody.model_fields, "y"])
constraint = st.dictionaries(
    st.sampled_from(["attribute", "operator", "value", "weight", "targets", "job", "until", "z"]),
    any_json | st.sampled_from(["label.x", "regex", "semver", "distinct", ">=1", "*", "(a|b)+"]),
)
tasks = st.dictionaries(
    task_names,
    any_json | st.lists(st.text(), max_size=3) | st.dictionaries(st.text(), st.text()) | st.lists(constraint),
)
jobs = st.dictionaries(
    field_names, any_json | tasks | st.lists(constraint) | st.sampled_from(["cron", "daemon"])
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_json | jobs | tasks.map(lambda t: {"task": {"command": ["x"], **t}}))
def test_no_json_at_all_makes_an_error_of_ours(api, body):
    raw = json.dumps(body).encode()
    answer = api.post("/api/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 400, 422), answer.text
    if answer.status_code != 201:
        assert answer.headers["content-type"] == "application/problem+json"
