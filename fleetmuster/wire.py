"""One HTTP connection to a controller: requests out, answers or plain errors back.

Rule: whatever the network, a proxy or a foreign server does becomes one of four
`CommandError`s here: `ApiError` (the controller said no), `Unreachable`, `AnswerLate`,
`NotAController`. An answer is bounded in bytes and, body included, in time.
A request is sent a second time only if the caller says that it may be, and only when
the connection broke before an answer. Redirects are never followed: they would carry
the token elsewhere. It knows no routes. HTTP proxies of the environment are not used.
Rejected: urllib.request (a new connection for each call), httpx (not in the base install).
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from fleetmuster.exits import CommandError, Exit, usage
from fleetmuster.records import Json, NotAController

BODY_BYTES_MAX = 64 * 1024 * 1024  # a page of a list is far below; more is no answer of ours
_CODES = {
    400: Exit.USAGE,
    401: Exit.AUTH,
    403: Exit.AUTH,
    404: Exit.NOT_FOUND,
    408: Exit.TIMEOUT,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.USAGE,
    422: Exit.USAGE,
    428: Exit.CONFLICT,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.TIMEOUT,
}


class ApiError(CommandError):
    """The controller refused: the fields of its problem+json answer (RFC 9457).

    `status` is the HTTP status, `pointer` a JSON pointer to the bad field of the body or
    empty, `request_id` what to look for in the controller's log or empty.
    """

    def __init__(
        self, status: int, type: str, title: str, detail: str = "", pointer: str = "", request_id: str = ""
    ) -> None:
        at = f" (at {pointer})" if pointer and pointer not in detail else ""
        why = f"request {request_id}" if request_id and status >= 500 else ""
        super().__init__(_CODES.get(status, Exit.FAILED), (detail or title) + at, why)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.pointer = pointer
        self.request_id = request_id
        if status == 401:
            self.next_step = "check FM_TOKEN or the context: fm context show (each fm up mints a new token)"
        elif status in (429, 503):
            self.next_step = "try again in a moment"


class Unreachable(CommandError):
    """No answer: no such host, refused, reset, TLS failed."""

    def __init__(self, url: str, reason: str, why: str = "") -> None:
        super().__init__(Exit.UNREACHABLE, f"no controller answers at {url}: {reason}", why)


class AnswerLate(CommandError):
    """Connected, but no complete answer within the time allowed for one request."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        super().__init__(
            Exit.TIMEOUT,
            f"{url} did not answer within {timeout_ms} ms",
            "it is overloaded or stuck; what was asked for may still happen",
            "look with fm fleet, or allow more: --request-timeout 60s",
        )


class RawAnswer(NamedTuple):
    """A successful answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        """Raises `NotAController` if it is no JSON."""
        try:
            value: Json = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise NotAController("the answer is no JSON") from error
        return value


Trace = Callable[[str], None]


class HttpWire:
    """A kept-alive connection to one base URL with one token. Not for several threads."""

    def __init__(self, url: str, token: str, timeout_ms: int, trace: Trace | None = None) -> None:
        """Connects at the first request. Raises `CommandError` for a URL or token that can't be one."""
        self.url = url.rstrip("/")
        self._scheme, self._host, self._port, self._prefix = _split(self.url)
        if not token.isascii() or not token.isprintable():
            raise usage("the token has characters that no token has")
        self._token = token
        self._timeout_ms = timeout_ms
        self._trace = trace
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> RawAnswer:
        """One request. `again`: it is harmless to send it twice. Raises the four errors of this file."""
        sent = {"Accept": "application/json", "User-Agent": "fleetmuster-cli", **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        if not again:
            self.close()  # an idle connection may be dead, and this request can't be repeated
        try:
            return self._attempt(method, path, payload, sent)
        except ConnectionRefusedError as error:
            raise self._lost(error) from error
        except ConnectionError as error:
            if not again:
                raise self._lost(error, "it is not known whether the request was carried out") from error
        try:
            return self._attempt(method, path, payload, sent)
        except ConnectionError as error:
            raise self._lost(error) from error

    def _attempt(self, method: str, path: str, payload: bytes | None, sent: dict[str, str]) -> RawAnswer:
        begun = time.monotonic()
        try:
            connection = self._connected()
            try:
                connection.request(method, self._prefix + path, payload, sent)
            except BrokenPipeError:
                self._tell(method, path, 0, begun, {})  # the answer (413, say) may have come before the end
            response = connection.getresponse()
            content = self._read(response, begun)
        except TimeoutError as error:
            self.close()
            raise AnswerLate(self.url, self._timeout_ms) from error
        except ConnectionError:  # http.client.RemoteDisconnected is one, too
            self.close()
            raise
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise self._lost(error) from error
        except BaseException:  # Ctrl-C in the middle: the next request needs a fresh connection
            self.close()
            raise
        found = {key.lower(): value for key, value in response.getheaders()}
        if response.will_close:
            self.close()
        self._tell(method, path, response.status, begun, found)
        if 200 <= response.status < 300:
            return RawAnswer(response.status, found, content)
        raise _refused(response.status, found, content)

    def _connected(self) -> http.client.HTTPConnection:
        timeout_s = self._timeout_ms / 1000
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=timeout_s)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self._connection.sock.settimeout(timeout_s)
        return self._connection

    def _read(self, response: http.client.HTTPResponse, begun: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(1 << 20):
            parts.append(part)
            size += len(part)
            if size > BODY_BYTES_MAX:
                self.close()
                raise NotAController("the answer is larger than any of ours")
            if (time.monotonic() - begun) * 1000 > self._timeout_ms:
                raise TimeoutError
        if response.length:  # read1 doesn't complain about a body that ends early
            raise http.client.IncompleteRead(b"", response.length)
        response.close()  # nor does it free the connection for the next request
        return b"".join(parts)

    def _tell(self, method: str, path: str, status: int, begun: float, headers: dict[str, str]) -> None:
        if self._trace is not None:
            took_ms = (time.monotonic() - begun) * 1000
            request_id = headers.get("x-request-id", "")
            self._trace(f"{method} {path} -> {status} in {took_ms:.1f} ms {request_id}".rstrip())

    def _lost(self, error: Exception, why: str = "") -> CommandError:
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            return NotAController(f"{self.url} does not answer in HTTP", type(error).__name__)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(self.url, reason[:1].lower() + reason[1:], why)


def _split(url: str) -> tuple[str, str, int | None, str]:
    hint = "write it as http://127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise usage(f"{url!r} is no URL: {error}", hint) from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable():
        raise usage(f"{url!r} is no URL of a controller", hint)
    if parts.username is not None or parts.query or parts.fragment or " " in url:
        raise usage("the URL must be scheme, host, port and path only", hint)
    return parts.scheme, host, port, parts.path.rstrip("/")


def _refused(status: int, headers: dict[str, str], content: bytes) -> CommandError:
    if 300 <= status < 400:
        place = headers.get("location", "elsewhere")
        return NotAController(f"answered with a redirection to {place!r}", "redirections are not followed")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    request_id = headers.get("x-request-id", "")
    phrase = http.client.responses.get(status, "refused")
    if not isinstance(value, dict):
        if status in (401, 403):
            return ApiError(status, "about:blank", phrase, request_id=request_id)
        return NotAController(f"HTTP {status} {phrase}, and no problem+json with it")
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    pointer, detail = _first_error(value.get("errors"))
    if "parameter" in texts:
        texts["detail"] = f"{texts.get('detail', phrase)} (parameter {texts['parameter']})"
    return ApiError(
        status,
        texts.get("type", "about:blank"),
        texts.get("title", phrase),
        texts.get("detail", detail),
        texts.get("pointer", pointer),
        texts.get("request_id", request_id),
    )


def _first_error(errors: object) -> tuple[str, str]:
    """RFC 9457's own example: `errors: [{detail, pointer}]`."""
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    pointer, detail = first.get("pointer", ""), first.get("detail", "")
    return pointer if isinstance(pointer, str) else "", detail if isinstance(detail, str) else ""
