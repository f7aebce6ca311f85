"""Questions on their way: matches each `Reply` to the request that waits for it.

Rule: every question ends, in one of four ways: answered, refused at once (`Busy`), lost
with its save (`SaveLost`), or given up after ten seconds (`NoAnswer`). How many may wait
is bounded, so a stuck core can't fill the memory.
It knows neither HTTP nor what a question means. All of it belongs to one event loop.
Rejected: a timer per question (all wait equally long, so the oldest is always the next
to expire, and one timer does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from controller.api.port import Busy, CorePort, NoAnswer, Question, SaveLost
from controller.api.problems import refused
from controller.core.effects import Reply
from controller.core.views import RefusalView
from protocol.errors import LocalMistake

ANSWER_MS_MAX = 10_000
"""Far above any commit; a proxy in front usually gives up after 30 s."""
WAITING_MAX = 10_000
"""Questions waiting at once: at 2 KiB each, 20 MiB."""


V = TypeVar("V")


class _Waiter(NamedTuple):
    answer: asyncio.Future[object]
    due_s: float


class Asker:
    """Offers questions to the core's inbox and holds who asked until the `Reply` comes."""

    def __init__(
        self,
        offer: Callable[[Question], bool],
        waiting_max: int = WAITING_MAX,
        answer_ms_max: int = ANSWER_MS_MAX,
    ) -> None:
        """`offer` puts an event into the inbox; false when it is full. It must not block."""
        self._offer = offer
        self._waiting_max = waiting_max
        self._patience_s = answer_ms_max / 1000
        self._waiting: dict[int, _Waiter] = {}
        """By request number, oldest first: the order of insertion is that of the deadlines."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_request = 0
        self.refusing = ""
        """Why no question is taken at the moment."""
        self.late = 0
        """Answers that nobody waited for any more."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def next_request(self) -> int:
        """A number that no other question of this process has."""
        self._last_request += 1
        return self._last_request

    async def ask(self, question: Question) -> object:
        """The body of the reply: a view or a `RefusalView`. Raises `Busy`, `SaveLost`, `NoAnswer`."""
        number = question.request
        if number in self._waiting:
            raise LocalMistake(f"request {number} was asked twice")
        if self.refusing:
            raise SaveLost(self.refusing)
        if len(self._waiting) >= self._waiting_max:
            raise Busy(f"{self._waiting_max} requests wait already")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), loop.time() + self._patience_s)
        self._waiting[number] = waiter  # before the offer: the reply may come from within it
        try:
            if not self._offer(question):
                raise Busy("the inbox is full")
            if self._timer is None:
                self._timer = loop.call_at(waiter.due_s, self._give_up_oldest)
            return await waiter.answer
        finally:
            self._waiting.pop(number, None)

    def reply(self, reply: Reply) -> None:
        """Hands the answer to who asked; one that comes late is counted."""
        waiter = self._waiting.pop(reply.request, None)
        if waiter is None or waiter.answer.done():
            self.late += 1
        else:
            waiter.answer.set_result(reply.body)

    def fail_all(self, reason: str) -> None:
        """Every waiting question ends with `SaveLost`: what stood behind the save was dropped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lost, self._waiting = self._waiting, {}
        for waiter in lost.values():
            if not waiter.answer.done():
                waiter.answer.set_exception(SaveLost(reason))

    def refuse(self, reason: str) -> None:
        """Every question, waiting or to come, ends with `SaveLost` until `accept`."""
        self.refusing = reason
        self.fail_all(reason)

    def accept(self) -> None:
        """Questions are taken again."""
        self.refusing = ""

    def _give_up_oldest(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for waiter in list(self._waiting.values()):
            if waiter.due_s > loop.time():
                self._timer = loop.call_at(waiter.due_s, self._give_up_oldest)
                return
            if not waiter.answer.done():
                waiter.answer.set_exception(NoAnswer(f"no answer within {self._patience_s:g} s"))


async def view_of(port: CorePort, question: Question, kind: type[V]) -> V:
    """The view that answers `question`. Raises `HttpProblem` for a refusal, and what `ask` raises."""
    body = await port.ask(question)
    if isinstance(body, RefusalView):
        raise refused(body)
    if not isinstance(body, kind):
        raise LocalMistake(f"{type(question).__name__} was answered by {type(body).__name__}")
    return body
