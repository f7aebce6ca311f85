"""The client against a server of cardboard: every way an answer can come, or not."""

import socket
import threading

import pytest

from fleetmuster.client import ApiError, RemoteClient
from fleetmuster.exits import CommandError, Exit

JOB = {"id": "j-1", "state": "open", "kind": "batch", "count": 1}
REQUEST = {"name": "n", "task": {"runtime": "process", "command": ["true"]}}


@pytest.fixture
def client(api):
    with RemoteClient(api.url, api.token, timeout_ms=5_000) as made:
        yield made


def code_of(call):
    with pytest.raises(CommandError) as caught:
        call()
    return caught.value.code


def test_a_job_is_submitted_with_a_fresh_key_each_time(api, client, says):
    api.on("POST", "/jobs", says(JOB, 201))
    assert client.submit_job(REQUEST) == (JOB, False)
    client.submit_job(REQUEST)
    keys = [asked.headers["idempotency-key"] for asked in api.asked]
    assert len(set(keys)) == 2 and all(len(key) == 32 for key in keys)


def test_a_reset_during_submission_is_repeated_once_with_the_same_key(api, client, says):
    api.on("POST", "/jobs", says(drop=True), says(JOB, 200, {"Idempotent-Replayed": "true"}))
    assert client.submit_job(REQUEST).replayed
    keys = [asked.headers["idempotency-key"] for asked in api.asked]
    assert len(keys) == 2 and len(set(keys)) == 1


def test_a_second_reset_is_unreachable_and_not_a_third_try(api, client, says):
    api.on("POST", "/jobs", says(drop=True))
    assert code_of(lambda: client.submit_job(REQUEST)) is Exit.UNREACHABLE
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("POST", "/devices", lambda client: client.add_device("d")),
        ("DELETE", "/devices/d", lambda client: client.remove_device("d")),
    ],
)
def test_what_must_not_happen_twice_is_never_repeated(api, client, says, method, path, call):
    api.on(method, path, says(drop=True))
    with pytest.raises(CommandError) as caught:
        call(client)
    assert caught.value.code is Exit.UNREACHABLE and "not known" in caught.value.why
    assert len(api.asked) == 1


def test_connections_are_kept_and_an_idle_one_that_died_is_replaced(api, client, says):
    api.on(
        "GET",
        "/jobs/j-1",
        says(JOB),
        says(JOB, headers={"Connection": "close"}),
        says(JOB),
        says(drop=True),
        JOB,
    )
    for _ in range(4):
        assert client.job("j-1") == JOB
    assert len(api.asked) == 5


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Exit.USAGE),
        (401, Exit.AUTH),
        (403, Exit.AUTH),
        (404, Exit.NOT_FOUND),
        (409, Exit.CONFLICT),
        (412, Exit.CONFLICT),
        (422, Exit.USAGE),
        (429, Exit.FAILED),
        (500, Exit.FAILED),
        (503, Exit.UNREACHABLE),
        (504, Exit.TIMEOUT),
    ],
)
def test_a_problem_becomes_an_error_with_its_fields_and_its_code(api, client, refusal, status, code):
    api.on("GET", "/fleet", refusal(status, "because", "/task/env", type="urn:x", request_id="r-7"))
    with pytest.raises(ApiError) as caught:
        client.fleet()
    error = caught.value
    assert (error.status, error.type, error.title, error.detail) == (status, "urn:x", "No", "because")
    assert (error.pointer, error.request_id, error.code) == ("/task/env", "r-7", code)


def test_the_errors_member_of_the_rfc_is_understood(api, client, says):
    body = {"title": "Invalid", "errors": [{"detail": "too small", "pointer": "#/count"}]}
    api.on("POST", "/jobs", says(body, 422, {"X-Request-Id": "r-9"}))
    with pytest.raises(ApiError) as caught:
        client.submit_job(REQUEST)
    assert (caught.value.detail, caught.value.pointer, caught.value.request_id) == (
        "too small",
        "#/count",
        "r-9",
    )


@pytest.mark.parametrize("status", [200, 404, 500, 502])
def test_html_from_a_proxy_is_not_a_controller(api, client, says, status):
    api.on("GET", "/fleet", says(b"<html>Bad Gateway</html>", status, kind="text/html"))
    assert code_of(client.fleet) is Exit.UNREACHABLE


def test_html_with_401_is_still_about_the_token(api, client, says):
    api.on("GET", "/fleet", says(b"<html>", 401, kind="text/html"))
    assert code_of(client.fleet) is Exit.AUTH


def test_a_redirection_is_not_followed_with_the_token(api, client, says):
    api.on("GET", "/fleet", says(b"", 302, {"Location": "http://elsewhere.invalid/"}))
    with pytest.raises(CommandError) as caught:
        client.fleet()
    assert caught.value.code is Exit.UNREACHABLE and "elsewhere.invalid" in caught.value.what
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        3,
        None,
        {"items": {}},
        {"items": [3]},
        {"items": [{"no": "id"}]},
        {"items": [], "next": 3},
        {"items": [{"id": "j", "count": "many"}]},
        {"items": [{"id": "j", "tasks": {"running": True}}]},
        {"items": [{"id": "j", "task": {"command": "ls"}}]},
        {"items": [{"id": 3}]},
    ],
)
def test_an_answer_of_another_shape_is_named_not_crashed_on(api, client, body):
    api.on("GET", "/jobs", body)
    assert code_of(lambda: list(client.jobs())) is Exit.UNREACHABLE


@pytest.mark.parametrize(
    "raw", [b"220 smtp ready\r\n\r\n", b"\x00\xff" * 50 + b"\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
def test_a_server_that_speaks_no_http_is_not_a_controller(api, client, says, raw):
    api.on("GET", "/fleet", says(raw=raw))
    assert code_of(client.fleet) is Exit.UNREACHABLE


def test_a_body_that_ends_early_is_not_taken_for_the_answer(api, client, says):
    api.on("GET", "/fleet", says(raw=b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"a": 1}'))
    assert code_of(client.fleet) is Exit.UNREACHABLE


def test_a_server_that_never_answers_is_a_timeout(api, says):
    api.on("GET", "/fleet", says(hang=True))
    with RemoteClient(api.url, api.token, timeout_ms=100) as client:
        assert code_of(client.fleet) is Exit.TIMEOUT


def test_a_server_that_drips_is_a_timeout_too():
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                try:
                    while not over.wait(0.01):
                        connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with RemoteClient(f"http://127.0.0.1:{server.getsockname()[1]}", "t", timeout_ms=200) as client:
            assert code_of(client.fleet) is Exit.TIMEOUT
        over.set()
        thread.join(10)


def test_nobody_listening_is_unreachable_and_says_why(free_url):
    with RemoteClient(free_url, "t") as client, pytest.raises(CommandError, match="connection refused"):
        client.fleet()


def test_lists_come_page_by_page_in_order(api, client):
    pages = [
        {"items": [{"id": "a"}, {"id": "b"}], "next": "x&y=1"},
        {"items": [], "next": "z"},
        {"items": [{"id": "c"}], "next": None},
    ]
    api.on("GET", "/tasks", *pages)
    assert [task["id"] for task in client.tasks(job="j 1", state="running")] == ["a", "b", "c"]
    assert [asked.query.get("cursor") for asked in api.asked] == [None, "x&y=1", "z"]
    assert all(asked.query["job"] == "j 1" and asked.query["state"] == "running" for asked in api.asked)
    assert all("device" not in asked.query for asked in api.asked)


def test_a_limit_asks_for_no_more_than_it_needs(api, client):
    api.on("GET", "/devices", {"items": [{"id": "a"}, {"id": "b"}], "next": "x"})
    assert [device["id"] for device in client.devices(limit=1)] == ["a"]
    assert [asked.query["limit"] for asked in api.asked] == ["1"]


def test_a_cursor_that_comes_again_does_not_loop_for_ever(api, client):
    api.on("GET", "/jobs", {"items": [JOB], "next": "same"})
    assert code_of(lambda: list(client.jobs())) is Exit.UNREACHABLE
    assert len(api.asked) == 2


def test_unknown_fields_of_a_newer_controller_are_kept(api, client):
    api.on("GET", "/jobs/j-1", {**JOB, "colour": "red"})
    assert client.job("j-1")["colour"] == "red"


def test_an_id_can_not_reach_another_route(api, client):
    assert code_of(lambda: client.job("../devices/x?y#z")) is Exit.NOT_FOUND
    assert api.asked[0].path == "/api/v1/jobs/..%2Fdevices%2Fx%3Fy%23z"
    for identity in ("", ".", ".."):
        assert code_of(lambda identity=identity: client.job(identity)) is Exit.USAGE


def test_output_tells_where_to_go_on_and_whether_more_will_come(api, client, says):
    api.on("GET", "/tasks/t-1/output", says(b"ab\x00", headers={"X-Next-Offset": "13", "X-Complete": "true"}))
    assert client.output("t-1", "stderr", 2, 10) == (b"ab\x00", 13, True)
    assert api.asked[0].query == {"stream": "stderr", "attempt": "2", "offset": "10"}


@pytest.mark.parametrize("after", ["x", "-1", "3", "1e9", "9" * 30])
def test_an_offset_that_goes_back_or_is_none_is_refused(api, client, says, after):
    api.on("GET", "/tasks/t-1/output", says(b"", headers={"X-Next-Offset": after}))
    assert code_of(lambda: client.output("t-1", offset=5)) is Exit.UNREACHABLE


def test_a_path_prefix_is_kept(api):
    api.on("GET", "/fleet", {"version": "1"})
    api.routes[("GET", "/behind/proxy/api/v1/fleet")] = api.routes.pop(("GET", "/api/v1/fleet"))
    with RemoteClient(api.url + "/behind/proxy/", api.token) as client:
        assert client.fleet()["version"] == "1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "ftp://h",
        "http://",
        "http://h:x",
        "http://h:99999",
        "http://u:p@h",
        "http://h/?q",
        "http://h#f",
        "http://h/a b",
        "http://h\r\nX: y",
        "http://hä",
        "http://[::1",
    ],
)
def test_what_is_no_url_is_a_usage_error(url):
    assert code_of(lambda: RemoteClient(url, "t")) is Exit.USAGE


@pytest.mark.parametrize("token", ["a\r\nX: y", "tö", "\x00"])
def test_a_token_can_not_smuggle_a_header(token):
    assert code_of(lambda: RemoteClient("http://h", token)) is Exit.USAGE


def test_requests_are_traced_without_the_token(api, says):
    api.on("GET", "/fleet", says({}, headers={"X-Request-Id": "r-1"}))
    told = []
    with RemoteClient(api.url, api.token, trace=told.append) as client:
        client.fleet()
    assert told[0].startswith("GET /api/v1/fleet -> 200 in ") and told[0].endswith("r-1")
    assert api.token not in told[0]


def test_a_refusal_that_comes_before_the_whole_body_was_sent_is_read():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                body = b'{"title": "Too large", "detail": "more than enough"}'
                head = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
                    body
                )
                connection.sendall(head + body)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        with RemoteClient(f"http://127.0.0.1:{server.getsockname()[1]}", "t") as client:
            with pytest.raises(ApiError, match="more than enough") as caught:
                client.submit_job({"task": {"env": {"A": "x" * 3_000_000}}})
        thread.join(10)
    assert caught.value.status == 413 and caught.value.code is Exit.USAGE


def test_a_wrong_parameter_is_named(api, client, says):
    api.on("GET", "/jobs", says({"title": "t", "detail": "not ours", "parameter": "cursor"}, 400))
    with pytest.raises(ApiError, match=r"not ours \(parameter cursor\)"):
        list(client.jobs())
