"""Runs one core: feed, save, perform, re-arm. Nothing clever lives here.

Rules of this file, in the order of the loop:
1. A batch of events is fed, each with a time that never goes back; a timer that is due first.
2. The effects are gathered in order and all `Save`s merged in front: one commit a batch.
   While it runs nothing is fed. What stood behind a failed one is dropped, and the core is
   told `SaveFailed`, or, if the constructor got `on_save_failed`, that decides (a controller
   rebuilds the core from its store and hands it to `replace_core`).
3. The other effects are performed in order, by exact type.
4. One timer is armed from `next_due_ms`; the event loop gets its turn after each batch.

A bug (any exception of the core or of a performer) ends `run` with it: the process stops
and its supervisor restarts it. It knows no effect but `Save`. Rejected: a task per event,
a timer per deadline; a lock (everything runs in one event loop, `offer` too).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from live.clock import Clock, boottime_ms
from protocol.core import Core, Effect, Event, Save, SaveFailed, TimerElapsed
from protocol.errors import LocalMistake

INBOX_MAX = 10_000
"""Events; a second of a controller's work. Beyond it callers are refused rather than delayed."""
BATCH_MAX = 256
"""Events; at 100 us each the event loop waits 25 ms, and a commit is shared by as many."""
TIMER_STEP_MS = 1
"""A core whose due time is always past is fed its timer this often, not in a closed circle."""
LOOK_MS = 1_000
"""The event loop's clock stands still while the machine sleeps; ours is looked at this often."""
SAVE_RETRY_MS = 100
"""Pause between saves that fail one after another: a full disk isn't asked a thousand times a second."""

Performers = Mapping[type[Any], Callable[[Any], None]]
"""By effect type; the value takes exactly that type, which a mapping's type can't express."""


class SaveError(Exception):
    """The rows were not saved, none of them. `reason` is one line for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Saver(Protocol):
    """Makes rows durable."""

    async def save(self, rows: Sequence[object]) -> None:
        """All or nothing, in order; returns when it is durable. Raises `SaveError`."""


class Driver:
    """One core in the live world. `core` is the present one; counters are plain attributes.

    `lag_ms` is how long the oldest event of the last batch had waited, `lag_ms_max` the worst.
    """

    def __init__(
        self,
        core: Core,
        saver: Saver,
        performers: Performers,
        *,
        on_save_failed: Callable[[str], Awaitable[None]] | None = None,
        clock: Clock = boottime_ms,
        inbox_max: int = INBOX_MAX,
        batch_max: int = BATCH_MAX,
        on_inbox_full: Callable[[], None] | None = None,
        on_inbox_drained: Callable[[], None] | None = None,
    ) -> None:
        self.core = core
        self.events = self.batches = self.saves = self.saves_failed = self.refused = 0
        self.lag_ms = self.lag_ms_max = 0
        self._saver = saver
        self._performers = dict(performers)
        self._on_save_failed = on_save_failed
        self._clock = clock
        self._inbox: deque[tuple[int, Event]] = deque()
        self._inbox_max = inbox_max
        self._batch_max = batch_max
        self._on_inbox_full = on_inbox_full
        self._on_inbox_drained = on_inbox_drained
        self._full = False
        self._now_ms = clock()
        self._wake: asyncio.Future[None] | None = None
        self._stopping = False
        self._failures = 0
        self._pending_failure = ""

    # ---------------------------------------------------------------- callers

    def offer(self, event: Event) -> bool:
        """Queue an event from outside. False if the inbox is full or the driver stopped.

        A caller that hears False answers 429 or pauses its link; `on_inbox_full` was called when
        it became so, `on_inbox_drained` will be when half of it is empty.
        """
        if self._stopping or len(self._inbox) >= self._inbox_max:
            self.refused += 1
            self._note_full()
            return False
        self.post(event)
        return True

    def post(self, event: Event) -> None:
        """Queue the answer of an effect, never refused: there is one per effect, so it is bounded."""
        self._inbox.append((self._clock(), event))
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def drop_queued(self, unwanted: Callable[[Event], bool]) -> int:
        """Forget queued events that must not be fed any more; answers how many."""
        kept = [(at_ms, event) for at_ms, event in self._inbox if not unwanted(event)]
        dropped = len(self._inbox) - len(kept)
        self._inbox = deque(kept)
        self._note_drained()
        return dropped

    def replace_core(self, core: Core) -> None:
        """Go on with another core, rebuilt from what is saved. For `on_save_failed`."""
        self.core = core

    def stop(self) -> None:
        """End `run` after the present batch; what is still queued isn't fed."""
        self._stopping = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def queued(self) -> int:
        """Events that wait to be fed."""
        return len(self._inbox)

    # ---------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Drive the core until `stop`. Raises what the core or a performer raised."""
        try:
            while not self._stopping:
                batch = self._take()
                if batch:
                    await self._round(batch)
                await self._wait(timer_fed=bool(batch) and type(batch[0]) is TimerElapsed)
        finally:
            self._stopping = True

    def _take(self) -> list[Event]:
        """What to feed now: a told failure, a due timer, then the inbox up to the bound."""
        batch: list[Event] = []
        now_ms = self._tell_time()
        if self._pending_failure:
            batch.append(SaveFailed(self._pending_failure))
            self._pending_failure = ""
            return batch
        due_ms = self.core.next_due_ms()
        if due_ms is not None and due_ms <= now_ms:
            batch.append(TimerElapsed())
        inbox = self._inbox
        if inbox:
            self.lag_ms = max(0, now_ms - inbox[0][0])
            self.lag_ms_max = max(self.lag_ms, self.lag_ms_max)
            for _ in range(min(len(inbox), self._batch_max)):
                batch.append(inbox.popleft()[1])
            self._note_drained()
        return batch

    async def _round(self, batch: list[Event]) -> None:
        rows: list[object] = []
        effects: list[Effect] = []
        saving = False
        handle, tell_time = self.core.handle, self._tell_time
        for event in batch:
            for effect in handle(event, tell_time()):
                if type(effect) is Save:
                    saving = True
                    rows.extend(effect.rows)
                else:
                    effects.append(effect)
        self.batches += 1
        self.events += len(batch)
        if saving and not await self._save(rows):
            return
        self._perform(effects)

    async def _save(self, rows: list[object]) -> bool:
        try:
            await self._saver.save(rows)
        except SaveError as error:
            self.saves_failed += 1
            self._failures += 1
            if self._failures > 1:
                await asyncio.sleep(SAVE_RETRY_MS / 1_000)
            if self._on_save_failed is None:
                self._pending_failure = error.reason or "unknown"
            else:
                await self._on_save_failed(error.reason)
            return False
        self._failures = 0
        self.saves += 1
        return True

    def _perform(self, effects: list[Effect]) -> None:
        performers = self._performers
        for effect in effects:
            performer = performers.get(type(effect))
            if performer is None:
                raise LocalMistake(f"nobody performs {type(effect).__name__}")
            performer(effect)

    async def _wait(self, timer_fed: bool) -> None:
        """Until there is something to feed; one turn of the event loop at least."""
        if self._inbox or self._pending_failure or self._stopping:
            await asyncio.sleep(0)
            return
        due_ms = self.core.next_due_ms()
        delay_ms = None if due_ms is None else due_ms - self._tell_time()
        if delay_ms is not None and delay_ms <= 0 and not timer_fed:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = None
        if delay_ms is not None:
            timer = loop.call_later(min(max(delay_ms, TIMER_STEP_MS), LOOK_MS) / 1_000, _set, self._wake)
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    # ---------------------------------------------------------------- small things

    def _tell_time(self) -> int:
        now_ms = self._clock()
        if now_ms > self._now_ms:
            self._now_ms = now_ms
        return self._now_ms

    def _note_full(self) -> None:
        if not self._full and not self._stopping:
            self._full = True
            if self._on_inbox_full is not None:
                self._on_inbox_full()

    def _note_drained(self) -> None:
        if self._full and len(self._inbox) <= self._inbox_max // 2:
            self._full = False
            if self._on_inbox_drained is not None:
                self._on_inbox_drained()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
