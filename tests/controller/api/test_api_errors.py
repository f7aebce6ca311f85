"""Every error is problem+json with a stable type, the right headers and the request's id."""

from __future__ import annotations

import json
import logging

import pytest

from controller.api.port import Busy, NoAnswer, SaveLost
from controller.api.problems import CODES
from controller.api.reading import BODY_BYTES_MAX
from controller.core import events as ev
from controller.core import views as vw
from controller.store.base import StoreError

SMALL = {"task": {"command": ["x"]}}
JSON = {"Content-Type": "application/json"}


def problem_of(answer):
    """Checks what all problems share."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    code = body["type"].removeprefix("urn:fleetmuster:problem:")
    assert CODES[code].title == body["title"] and CODES[code].status == body["status"]
    assert body["detail"] and len(body["detail"]) <= 500
    return code, body


ALL_ROUTES = [
    ("POST", "/jobs"),
    ("GET", "/jobs"),
    ("GET", "/jobs/j1"),
    ("POST", "/jobs/j1/cancel"),
    ("GET", "/tasks"),
    ("GET", "/tasks/j1.0"),
    ("GET", "/tasks/j1.0/output"),
    ("GET", "/tasks/j1.0/explain"),
    ("GET", "/devices"),
    ("POST", "/devices"),
    ("GET", "/devices/d"),
    ("DELETE", "/devices/d"),
    ("POST", "/devices/d/cordon"),
    ("POST", "/devices/d/uncordon"),
    ("POST", "/devices/d/drain"),
    ("POST", "/devices/d/taints"),
    ("DELETE", "/devices/d/taints/a:no_place"),
    ("POST", "/devices/d/ping"),
    ("GET", "/fleet"),
    ("POST", "/fleet/unfreeze"),
    ("POST", "/plan"),
    ("GET", "/rebalances"),
    ("POST", "/rebalances"),
    ("GET", "/rebalances/r7-1"),
    ("POST", "/rebalances/r7-1/approve"),
    ("POST", "/rebalances/r7-1/reject"),
    ("GET", "/nothing"),
    ("PUT", "/jobs"),
]


@pytest.mark.parametrize(("method", "path"), ALL_ROUTES)
@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer", "Basic a-token", "a-token", "Bearer " + "x" * 600, ""]
)
def test_without_a_token_nothing_is_done(serve, port, method, path, header):
    client = serve(token="")
    headers = {} if header is None else {"Authorization": header}
    answer = client.request(method, "/api/v1" + path, headers=headers)
    assert problem_of(answer)[0] == "unauthorized"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="fleetmuster"')
    assert port.asked == [] and port.credentials == []


def test_the_table_of_routes_is_the_api(api):
    paths = api.get("/api/v1/openapi.json").json()["paths"]
    declared = {(m.upper(), p) for p, operations in paths.items() for m in operations if "/api/" in p}
    examples = {"job": "j1", "task": "j1.0", "device": "d", "taint": "a:no_place", "plan": "r7-1"}
    filled = {(m, p.format_map(examples)) for m, p in declared}
    assert filled == {(m, "/api/v1" + p) for m, p in ALL_ROUTES[:-2]}


def test_the_scheme_is_written_in_any_case(serve):
    client = serve(token="")
    assert client.get("/api/v1/fleet", headers={"Authorization": "bearer  a-token"}).status_code == 200


def test_two_authorizations_are_none(serve):
    client = serve(token="")
    headers = [("Authorization", "Bearer a-token"), ("Authorization", "Bearer a-token")]
    assert client.get("/api/v1/fleet", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api/v1/jobs/", "/api/v2/jobs", "/api/v1/jobs/j/x", "/docs"]
)
def test_an_unknown_route_is_a_problem_too(api, path):
    answer = api.get(path)
    assert (answer.status_code, problem_of(answer)[0]) == (404, "unknown_route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/jobs", "GET, POST"),
        ("DELETE", "/api/v1/jobs", "GET, POST"),
        ("PATCH", "/api/v1/devices/d", "DELETE, GET"),
        ("GET", "/api/v1/devices/d/cordon", "POST"),
        ("POST", "/healthz", "GET"),
        ("OPTIONS", "/api/v1/jobs", "GET, POST"),
        ("BREW", "/api/v1/jobs", "GET, POST"),
    ],
)
def test_an_unknown_method_names_those_that_are_known(api, method, path, allowed):
    answer = api.request(method, path)
    assert (answer.status_code, problem_of(answer)[0]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("state=opn", "invalid_parameter"),
        ("limit=0", "invalid_parameter"),
        ("limit=1001", "invalid_parameter"),
        ("limit=x", "invalid_parameter"),
        ("stat=open", "unknown_parameter"),
        ("cursor=!", "invalid_cursor"),
        ("cursor=YQ==", "invalid_cursor"),
        ("cursor=YR", "invalid_cursor"),
        ("cursor=AAAA", "invalid_cursor"),
        ("cursor=" + "a" * 401, "invalid_parameter"),
        ("cursor=%ff", "invalid_cursor"),
    ],
)
def test_a_wrong_parameter_is_named(api, query, code):
    answer = api.get(f"/api/v1/jobs?{query}")
    found, body = problem_of(answer)
    assert (answer.status_code, found) == (400, code)
    assert body["parameter"] == query.partition("=")[0]


def test_a_misspelt_parameter_is_answered_with_what_was_meant(api):
    assert "did you mean 'state'?" in api.get("/api/v1/jobs?stat=open").json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/devices"])
@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "x" * 5_000]
)
def test_another_media_type_is_refused(api, path, media):
    answer = api.post(path, content=b"{}", headers={"Content-Type": media})
    assert (answer.status_code, problem_of(answer)[0]) == (415, "unsupported_media_type")


def test_a_charset_does_not_matter_and_compression_does(api):
    raw = json.dumps(SMALL)
    plain = {"Content-Type": "application/json; charset=utf-8"}
    assert api.post("/api/v1/jobs", content=raw, headers=plain).status_code == 201
    answer = api.post("/api/v1/jobs", content=raw, headers={**plain, "Content-Encoding": "gzip"})
    assert problem_of(answer)[0] == "unsupported_media_type"


def test_a_body_too_large_is_refused_by_its_announced_length(api):
    answer = api.post("/api/v1/jobs", content=b" " * (BODY_BYTES_MAX + 1), headers=JSON)
    assert (answer.status_code, problem_of(answer)[0]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_a_body_too_large_is_refused_although_it_announces_nothing(api):
    answer = api.post("/api/v1/jobs", content=iter([b" " * 65_536] * 17), headers=JSON)
    assert problem_of(answer)[0] == "body_too_large"


def test_a_body_of_just_the_bound_is_read(api):
    raw = json.dumps(SMALL).encode()
    answer = api.post("/api/v1/jobs", content=raw + b" " * (BODY_BYTES_MAX - len(raw)), headers=JSON)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (Busy("the inbox is full"), 429, "busy"),
        (SaveLost("disk full"), 503, "save_lost"),
        (NoAnswer("no answer within 10 s"), 503, "no_answer"),
        (vw.RefusalView("not_ready", "does not lead"), 503, "not_ready"),
        (vw.RefusalView("busy", "too many"), 429, "busy"),
        (vw.RefusalView("conflict", "no"), 409, "conflict"),
        (vw.RefusalView("not_found", "no"), 404, "not_found"),
        (vw.RefusalView("not_open", "no"), 409, "not_open"),
    ],
)
def test_trouble_of_the_core_has_its_status(api, port, trouble, status, code):
    port.answers[ev.JobSubmitted] = trouble
    answer = api.post("/api/v1/jobs", json=SMALL)
    assert (answer.status_code, problem_of(answer)[0]) == (status, code)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_a_code_that_is_new_is_still_a_no(api, port):
    port.answers[ev.JobSubmitted] = vw.RefusalView("too_purple", "no")
    answer = api.post("/api/v1/jobs", json=SMALL)
    assert answer.status_code == 409 and answer.json()["type"] == "urn:fleetmuster:problem:too_purple"


def test_a_store_that_does_not_answer_is_not_our_bug(api, port, monkeypatch):
    async def fail(fn, *args, **kwargs):
        if fn == port.store.token:
            return fn(*args)
        raise StoreError("disk I/O error")

    monkeypatch.setattr(port, "read", fail)
    answer = api.get("/api/v1/jobs")
    assert (answer.status_code, problem_of(answer)[0]) == (503, "not_ready")


def test_tokens_that_can_not_be_read_are_not_a_wrong_token(api, port, monkeypatch):
    async def fail(fn, *args, **kwargs):
        raise StoreError("disk I/O error")

    monkeypatch.setattr(port, "read", fail)
    answer = api.get("/api/v1/jobs")
    assert (answer.status_code, problem_of(answer)[0]) == (503, "not_ready")


@pytest.mark.parametrize("path", ["/api/v1/fleet", "/api/v1/jobs"])
def test_a_bug_answers_500_and_the_log_has_its_id(api, port, caplog, path, monkeypatch):
    async def broken(fn, *args, **kwargs):
        if fn == port.store.token:
            return fn(*args)
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(port, "read", broken)
    with caplog.at_level(logging.ERROR, "controller.api"):
        answer = api.get(path)
    code, body = problem_of(answer)
    assert (answer.status_code, code) == (500, "internal")
    assert "secret detail" not in answer.text
    assert body["request_id"] in caplog.text and "secret detail" in caplog.text


def test_a_wrong_view_is_a_bug(api, port):
    port.answers[ev.FleetQueried] = vw.DoneView("fleet")
    assert problem_of(api.get("/api/v1/fleet"))[0] == "internal"


def test_a_bug_on_the_hot_path_answers_500_too(api, port):
    port.answers[ev.JobSubmitted] = ZeroDivisionError("x")
    assert problem_of(api.post("/api/v1/jobs", json=SMALL))[0] == "internal"


@pytest.mark.parametrize(
    "path", ["/healthz", "/api/v1/fleet", "/nothing", "/metrics", "/api/v1/openapi.json"]
)
def test_every_answer_has_an_id_and_the_strict_headers(api, path):
    headers = api.get(path).headers
    assert headers["x-request-id"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_a_proxys_request_id_is_kept_and_a_strange_one_is_not(api):
    assert api.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for strange in ("a b", "x" * 65, "<script>", ""):
        answer = api.get("/healthz", headers={"X-Request-Id": strange})
        assert answer.headers["x-request-id"] != strange
    ids = {api.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_cors_is_off(api):
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = api.options("/api/v1/jobs", headers=headers)
    assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("raw", "pointer", "words"),
    [
        (b'{"count": "5", "task": {}}', "/count", "must be a whole number: 5, without quotes"),
        (b'{"count": 1.5, "task": {}}', "/count", "must be a whole number, not 1.5"),
        (b'{"count": null, "task": {}}', "/count", "must be a whole number, not null; leave it out"),
        (b'{"count": 1e2, "task": {}}', "/count", "must be a whole number: 100, without fraction"),
        (b'{"count": NaN, "task": {}}', "/count", "must be a whole number, not NaN"),
        (b'{"count": {"a": 1}, "task": {}}', "/count", "must be a whole number, not an object"),
        (b'{"policy": 7, "task": {}}', "/policy", 'must be text: "7", with quotes'),
        (b'{"gang": 1, "task": {}}', "/gang", "must be true or false, not 1"),
        (b'{"task": []}', "/task", "must be an object: { … }, not a list"),
        (b'{"task": {"command": "ls"}}', "/task/command", 'must be a list: [ … ], not "ls"'),
        (b'{"task": {"command": 5}}', "/task/command", "must be a list: [ … ], not 5"),
        (b'{"kind": "cronjob", "task": {}}', "/kind", "or 'cron'; did you mean 'cron'?"),
        (b"{}", "/task", "is required"),
    ],
)
def test_a_wrong_kind_of_value_is_answered_with_what_to_write(api, raw, pointer, words):
    _, body = problem_of(api.post("/api/v1/jobs", content=raw, headers=JSON))
    assert body["pointer"] == pointer and words in body["detail"], body


def test_too_much_of_something_is_counted(api):
    many = [{"attribute": "site", "operator": "=", "value": "a"}] * 10_000
    _, body = problem_of(api.post("/api/v1/jobs", json={"task": {"command": ["x"], "constraints": many}}))
    assert body["detail"] == "/task/constraints: must have at most 32 entries, not 10,000"
    _, body = problem_of(api.get("/api/v1/tasks?state=runing"))
    assert body["detail"].endswith("did you mean 'running'?")


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"name": "a", "task": {"command": ["x"]}, "name": "a"}', "/name"),
        (b'{"task": {"command": ["x"], "env": {"A": "1", "B": "2", "A": "1"}}}', "/task/env/A"),
        (b'{"task": {"command": ["x"], "constraints": [{"operator": "distinct_device"},'
         b'{"attribute": "site", "operator": "=", "value": "a", "operator": "="}]}}',
         "/task/constraints/1/operator"),
        (b'{"task": {"command": ["x"], "spreads": [{"attribute": "label.a",'
         b'"targets": {"x/~": 1, "x/~": 2}}]}}', "/task/spreads/0/targets/x~1~0"),
    ],
)  # fmt: skip
def test_a_name_that_is_there_twice_is_pointed_at(api, port, raw, pointer):
    code, body = problem_of(api.post("/api/v1/jobs", content=raw, headers=JSON))
    assert (code, body["pointer"]) == ("invalid_body", pointer) and "twice" in body["detail"]
    assert port.asked == []
