"""A tiny controller of cardboard: answers what a test laid out, records what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from fleetmuster.cli import main

TOKEN = "secret-token"


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: object


@dataclass
class Says:
    """One answer. `body` bytes go out as they are, anything else as JSON."""

    body: object = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    drop: bool = False
    """Close the connection instead of answering."""
    hang: bool = False
    """Say nothing until the test is over."""
    raw: bytes = b""
    """These bytes on the socket instead of an HTTP answer."""


class Cardboard:
    """`on(method, path, *answers)`: one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.routes: dict[tuple[str, str], deque[Says]] = {}
        self.over = threading.Event()
        self.token = TOKEN
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer.answer(self)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def on(self, method: str, path: str, *answers: object) -> None:
        """Anything that is no `Says` is a JSON body with status 200."""
        made = [each if isinstance(each, Says) else Says(each) for each in answers]
        self.routes[(method, "/api/v1" + path)] = deque(made)

    def bodies(self, method: str, path: str) -> list[object]:
        return [each.body for each in self.asked if (each.method, each.path) == (method, "/api/v1" + path)]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        data = handler.rfile.read(length)
        headers = {key.lower(): value for key, value in handler.headers.items()}
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append(
            Asked(handler.command, parts.path, query, headers, json.loads(data) if data else None)
        )
        says = self._next(handler.command, parts.path, headers)
        if says.hang:
            self.over.wait(30)
        if says.raw:
            handler.wfile.write(says.raw)
        if says.drop or says.hang or says.raw:
            handler.close_connection = True
            return
        body = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
        handler.send_response(says.status)
        problem = "application/problem+json" if says.status >= 400 else "application/json"
        handler.send_header("Content-Type", says.kind or problem)
        handler.send_header("Content-Length", str(len(body)))
        for key, value in says.headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _next(self, method: str, path: str, headers: dict[str, str]) -> Says:
        if headers.get("authorization") != f"Bearer {self.token}":
            return problem(401, "Wrong token")
        answers = self.routes.get((method, path))
        if not answers:
            return problem(404, f"there is no {path.rpartition('/')[2]}")
        return answers.popleft() if len(answers) > 1 else answers[0]

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def problem(status: int, detail: str, pointer: str = "", **more: str) -> Says:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail, **more}
    return Says({**body, "pointer": pointer} if pointer else body, status)


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def says() -> type[Says]:
    return Says


@pytest.fixture
def refusal() -> Callable[..., Says]:
    return problem


@pytest.fixture
def api() -> Iterator[Cardboard]:
    board = Cardboard()
    yield board
    board.close()


@pytest.fixture
def free_url() -> str:
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def clean_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No context, no FM_ variable, no terminal width of the machine that runs the test."""
    for name in ("FM_URL", "FM_TOKEN", "XDG_CONFIG_HOME", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def bare_fm(clean_home: None, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`fm` in this process, with nothing configured."""

    def run(*words: str) -> Ended:
        capfd.readouterr()
        code = main(list(words))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return run


@pytest.fixture
def fm(
    bare_fm: Callable[..., Ended], api: Cardboard, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """`fm` that talks to the cardboard controller."""
    monkeypatch.setenv("FM_URL", api.url)
    monkeypatch.setenv("FM_TOKEN", TOKEN)
    return bare_fm
