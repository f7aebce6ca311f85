"""The gate: which person or program is calling, from the bearer token.

Rule: only the SHA-256 of a token is looked up, kept or compared; the token itself lives
as long as its request. What the store said is believed for one second, so a revoked
token works at most that much longer, and a busy caller costs one read a second.
Rejected: a revision counter to notice revocation at once (a token may be revoked by
another process; a second is an honest promise for both).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable

from controller.api.problems import HttpProblem

BELIEF_MS = 1_000
TOKENS_MAX = 1_024
"""Answers remembered, wrong tokens included; guessing can't fill the memory."""
LOOKUPS_MAX = 4
"""At once: a flood of wrong tokens must not take every reader of the store."""
TOKEN_BYTES_MAX = 512

ActorOf = Callable[[str], Awaitable[str | None]]
RawHeaders = Iterable[tuple[bytes, bytes]]


def token_hash(token: str) -> str:
    """What is stored of a token: its SHA-256 in hex. Tokens are random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


class Gate:
    """Answers for a request's headers who is calling, or raises the 401."""

    def __init__(self, actor_of: ActorOf, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """`actor_of` maps a token's hash to the actor, None when there is no such token."""
        self._actor_of = actor_of
        self._now_s = monotonic_s
        self._known: dict[str, tuple[str | None, float]] = {}
        self._asking: dict[str, asyncio.Task[str | None]] = {}
        self._room = asyncio.Semaphore(LOOKUPS_MAX)

    async def actor(self, headers: RawHeaders) -> str:
        """The name for the audit. Raises `HttpProblem` (unauthorized)."""
        digest = hashlib.sha256(_bearer(headers)).hexdigest()
        known = self._known.get(digest)
        if known is not None and known[1] > self._now_s():
            actor = known[0]
        else:
            actor = await self._look_up(digest)
        if actor is None:
            raise _unauthorized("the token is not known, or was revoked", 'error="invalid_token"')
        return actor

    async def _look_up(self, digest: str) -> str | None:
        """One lookup per token at a time, shared by all who wait for it."""
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.ensure_future(self._ask(digest))
            self._asking[digest] = task
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        # Shielded: one caller that goes away must not fail the others.
        return await asyncio.shield(task)

    async def _ask(self, digest: str) -> str | None:
        async with self._room:
            # Believed from before the question: a revocation during it counts.
            until_s = self._now_s() + BELIEF_MS / 1000
            actor = await self._actor_of(digest)
        if len(self._known) >= TOKENS_MAX:
            self._known.clear()
        self._known[digest] = (actor, until_s)
        return actor


def _bearer(headers: RawHeaders) -> bytes:
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        raise _unauthorized("send `Authorization: Bearer TOKEN`")
    scheme, _, token = values[0].strip().partition(b" ")
    token = token.strip()
    if len(values) > 1 or scheme.lower() != b"bearer" or not token or len(token) > TOKEN_BYTES_MAX:
        raise _unauthorized("the Authorization header must be one `Bearer TOKEN`", 'error="invalid_request"')
    return token


def _unauthorized(detail: str, more: str = "") -> HttpProblem:
    challenge = 'Bearer realm="fleetmuster"' + (f", {more}" if more else "")
    return HttpProblem("unauthorized", detail, headers={"WWW-Authenticate": challenge})
