"""Reading bodies: from bytes on a socket to a checked model, or a problem that says where.

Rule: every body of the API comes through here, so all obey the same limits and answer
the same way: 415 for another media type, 413 above the bound (before more is read), 400
for what is no JSON, 422 with JSON pointers for JSON that breaks the rules, also where an
object has a name twice: every parser keeps one of them, and not the same.
Rejected: FastAPI's own body parameters (json.loads builds any tree, and any integer,
before a bound is looked at; pydantic-core parses and validates in one bounded pass).
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from controller.api.bodies import CHOICE
from controller.api.problems import ERRORS_MAX, BodyFault, HttpProblem, invalid_body
from controller.api.wording import suggestion, worded

BODY_BYTES_MAX = 1_048_576
"""The largest job that fits one document is 32 KiB; JSON escapes make that 200 KiB at most."""

M = TypeVar("M", bound=BaseModel)
FEW = 12
"""So many fields are told where none is like the one that was said."""
_PLACE_CHARS_MAX = 100


async def read_json(request: Request, model: type[M]) -> tuple[M, int]:
    """The checked body and its length in bytes. Raises `HttpProblem`."""
    _check_headers(request)
    raw = await _read_bytes(request)
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        # Values aren't asked for: they are the sender's and may be large.
        found = error.errors(include_url=False, include_context=True, include_input=True)
    else:
        if (twice := said_twice(raw)) is not None:
            raise invalid_body([BodyFault(twice, "is there twice; leave one out")])
        return body, len(raw)
    if found[0]["type"] == "json_invalid":
        detail = found[0]["msg"].removeprefix("Invalid JSON: ")
        raise HttpProblem("malformed_body", f"not JSON in UTF-8: {detail}")
    raise invalid_body([_fault(item, model) for item in found[:ERRORS_MAX]])


def _check_headers(request: Request) -> None:
    headers = request.headers
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        told = f"not {media[:60]!r}" if media else "and none was named"
        raise HttpProblem("unsupported_media_type", f"Content-Type must be application/json, {told}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpProblem("unsupported_media_type", "a compressed body is not accepted")
    length = headers.get("content-length", "0")
    # Header values are checked by the server; one of absurd length is not worth parsing.
    if len(length) > 15 or (length.isdigit() and int(length) > BODY_BYTES_MAX):
        raise _too_large()


async def _read_bytes(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise _too_large()
    except ClientDisconnect:
        raise HttpProblem("malformed_body", "the connection ended within the body") from None
    return b"".join(parts)


def _too_large() -> HttpProblem:
    # The rest of the body is not read, so the connection can't be used again.
    return HttpProblem("body_too_large", f"more than {BODY_BYTES_MAX} bytes", headers={"Connection": "close"})


def _fault(item: ErrorDetails, model: type[BaseModel]) -> BodyFault:
    """One error of pydantic in our words."""
    path = [part for part in item["loc"] if part != "[key]" and not _is_choice_of_union(part)]
    detail = worded(item)
    if item["type"] == "extra_forbidden":
        known = _siblings(model, path)
        few = f"; there are {', '.join(known)}" if 0 < len(known) <= FEW else ""
        detail = "unknown field" + (suggestion(str(path[-1]), known) or few)
    return BodyFault("".join(f"/{_escaped(str(part))}" for part in path), detail)


def _is_choice_of_union(part: object) -> bool:
    """pydantic puts the tried member of a union into the path: no place of the document."""
    return isinstance(part, str) and part.startswith((CHOICE, "function-", "tuple[", "constrained-"))


def _escaped(part: str) -> str:
    return part[:_PLACE_CHARS_MAX].replace("~", "~0").replace("/", "~1")


def _siblings(model: type[BaseModel], path: list[int | str]) -> list[str]:
    """The fields that the object at the end of `path` may have."""
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = _model_within(annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_within(annotation: object) -> type[BaseModel] | None:
    """The model that a field holds, itself or as an item."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_within(inner)
        if found is not None:
            return found
    return None


# ------------------------------------------------------------------------- names that are said twice


class _Twice(Exception):
    """An object has a name twice; pydantic, like every parser, keeps the last."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Twice


class _Pairs(list[tuple[str, object]]):
    """An object as it was written; a list is a list of values."""


_LOOK = json.JSONDecoder(object_pairs_hook=_once)
_KEEP = json.JSONDecoder(object_pairs_hook=_Pairs)


def said_twice(raw: bytes) -> str | None:
    """The place of a name that its object has twice, in JSON that was found valid: 6 µs of a usual body."""
    text = raw.decode()
    try:
        _LOOK.decode(text)
    except _Twice:
        return _place_of_twice(_KEEP.decode(text))
    return None


def _place_of_twice(value: object) -> str | None:
    if isinstance(value, _Pairs):
        seen: dict[str, None] = {}
        for name, inner in value:
            place = "" if name in seen else _place_of_twice(inner)
            if place is not None:
                return f"/{_escaped(name)}{place}"
            seen[name] = None
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            if (place := _place_of_twice(inner)) is not None:
                return f"/{at}{place}"
    return None
