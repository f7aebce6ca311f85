"""The driver with a scripted core, a scripted saver and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from live.driver import Driver, SaveError
from protocol.core import Effect, Event, Save, SaveFailed, TimerElapsed
from protocol.errors import LocalMistake


@dataclass(slots=True)
class Asked(Event):
    name: str


@dataclass(slots=True)
class Say(Effect):
    text: str


@dataclass(slots=True)
class Unheard(Effect):
    pass


class ScriptedCore:
    """Answers by a function; remembers what it was fed."""

    def __init__(self, answer: Callable[[Event], list[Effect]] = lambda event: []) -> None:
        self.fed: list[Event] = []
        self.times: list[int] = []
        self.due_ms: int | None = None
        self.answer = answer

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        self.fed.append(event)
        self.times.append(now_ms)
        return self.answer(event)

    def next_due_ms(self) -> int | None:
        return self.due_ms

    def names(self) -> list[str]:
        return [event.name if isinstance(event, Asked) else type(event).__name__ for event in self.fed]


class ScriptedSaver:
    """Keeps what it was given; fails as often as told; can be held open."""

    def __init__(self, failures: int = 0) -> None:
        self.saved: list[list[object]] = []
        self.failures = failures
        self.gate = asyncio.Event()
        self.gate.set()

    async def save(self, rows: object) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise SaveError("disk full")
        self.saved.append(list(rows))  # type: ignore[call-overload]


class Fixture:
    def __init__(self, core: ScriptedCore, failures: int = 0, **more: object) -> None:
        self.core, self.said = core, []
        self.saver = ScriptedSaver(failures)
        self.now_ms = 1_000
        self.driver = Driver(
            core,
            self.saver,
            {Say: lambda effect: self.said.append(effect.text)},
            clock=lambda: self.now_ms,
            **more,
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)


def drive(fixture: Fixture, scenario: Callable[[], object]) -> None:
    async def main() -> None:
        running = asyncio.create_task(fixture.driver.run())
        try:
            await asyncio.wait_for(scenario(), 10)
        finally:
            fixture.driver.stop()
            await asyncio.wait_for(running, 5)

    asyncio.run(main())


def save_and_say(event: Event) -> list[Effect]:
    if not isinstance(event, Asked):
        return [Say(type(event).__name__)]
    return [Say(f"early {event.name}"), Save((event.name,)), Say(event.name)]


def test_what_was_dropped_while_a_save_failed_is_never_fed():
    """1 A save fails. 2 Who waits behind it is told so. 3 Then it must not happen after all."""
    core = ScriptedCore(save_and_say)

    async def on_save_failed(reason: str) -> None:
        fixture.driver.post(Asked("refused"))
        fixture.driver.post(Asked("kept"))
        assert fixture.driver.drop_queued(lambda event: event == Asked("refused")) == 1

    fixture = Fixture(core, 1, on_save_failed=on_save_failed)

    async def scenario():
        fixture.driver.post(Asked("a"))
        await fixture.until(lambda: "kept" in fixture.said)

    drive(fixture, scenario)
    assert [event.name for event in core.fed if isinstance(event, Asked)] == ["a", "kept"]


def test_a_batch_is_one_commit_and_its_effects_follow_in_order():
    fixture = Fixture(ScriptedCore(save_and_say))

    async def scenario():
        for name in "abc":
            assert fixture.driver.offer(Asked(name))
        await fixture.until(lambda: len(fixture.said) == 6)
        assert fixture.saver.saved == [["a", "b", "c"]]
        assert fixture.said == ["early a", "a", "early b", "b", "early c", "c"]
        assert (fixture.driver.events, fixture.driver.batches, fixture.driver.saves) == (3, 1, 1)

    drive(fixture, scenario)


def test_an_empty_save_is_still_a_barrier_and_no_save_asks_nobody():
    fixture = Fixture(ScriptedCore(lambda event: [Save(()), Say("x")] if event.name == "a" else [Say("y")]))

    async def scenario():
        fixture.driver.offer(Asked("a"))
        await fixture.until(lambda: fixture.said)
        fixture.driver.offer(Asked("b"))
        await fixture.until(lambda: len(fixture.said) == 2)
        assert fixture.saver.saved == [[]]

    drive(fixture, scenario)


def test_nothing_is_fed_or_said_while_a_commit_runs():
    fixture = Fixture(ScriptedCore(save_and_say))

    async def scenario():
        fixture.saver.gate.clear()
        fixture.driver.offer(Asked("a"))
        await fixture.until(lambda: fixture.core.fed)
        fixture.driver.offer(Asked("b"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert fixture.core.names() == ["a"] and fixture.said == []
        fixture.saver.gate.set()
        await fixture.until(lambda: len(fixture.said) == 4)
        assert fixture.saver.saved == [["a"], ["b"]]

    drive(fixture, scenario)


def test_a_failed_save_drops_the_batch_and_tells_the_core_before_anything_else():
    fixture = Fixture(ScriptedCore(save_and_say), failures=1)

    async def scenario():
        fixture.saver.gate.clear()
        fixture.driver.offer(Asked("a"))
        await fixture.until(lambda: fixture.core.fed)
        fixture.driver.offer(Asked("b"))
        fixture.saver.gate.set()
        await fixture.until(lambda: len(fixture.said) == 3)
        assert fixture.core.fed == [Asked("a"), SaveFailed("disk full"), Asked("b")]
        assert fixture.said == ["SaveFailed", "early b", "b"]
        assert fixture.driver.saves_failed == 1

    drive(fixture, scenario)


def test_saves_that_keep_failing_do_not_stop_the_event_loop():
    fixture = Fixture(ScriptedCore(lambda event: [Save((1,))]), failures=10**9)

    async def scenario():
        fixture.driver.offer(Asked("a"))
        await fixture.until(lambda: fixture.driver.saves_failed >= 3)
        assert fixture.core.names()[:3] == ["a", "SaveFailed", "SaveFailed"]

    drive(fixture, scenario)


def test_after_a_failed_save_the_core_may_be_replaced_by_one_from_the_store():
    rebuilt = ScriptedCore(save_and_say)
    reasons: list[str] = []

    async def rebuild(reason: str) -> None:
        await asyncio.sleep(0)
        reasons.append(reason)
        fixture.driver.replace_core(rebuilt)

    fixture = Fixture(ScriptedCore(save_and_say), failures=1, on_save_failed=rebuild)

    async def scenario():
        fixture.driver.offer(Asked("a"))
        await fixture.until(lambda: reasons)
        fixture.driver.offer(Asked("b"))
        await fixture.until(lambda: fixture.said)
        assert reasons == ["disk full"]
        assert fixture.core.names() == ["a"] and rebuilt.names() == ["b"]
        assert fixture.said == ["early b", "b"]

    drive(fixture, scenario)


@pytest.mark.parametrize("kind", ["handle", "performer", "unknown effect", "saver"])
def test_a_bug_ends_run_with_itself(kind):
    def answer(event: Event) -> list[Effect]:
        if kind == "handle":
            raise ZeroDivisionError
        return {"performer": [Say("x")], "unknown effect": [Unheard()], "saver": [Save(())]}[kind]

    fixture = Fixture(ScriptedCore(answer))
    wanted: type[Exception] = LocalMistake if kind == "unknown effect" else ZeroDivisionError

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        fixture.driver._performers[Say] = fail
        if kind == "saver":
            fixture.saver.save = fail  # type: ignore[method-assign]
        fixture.driver.offer(Asked("a"))
        with pytest.raises(wanted):
            await asyncio.wait_for(fixture.driver.run(), 5)
        assert not fixture.driver.offer(Asked("late"))

    asyncio.run(main())


def test_the_timer_is_fed_at_or_after_its_time_and_not_before():
    fixture = Fixture(ScriptedCore())
    fixture.core.due_ms = 1_020

    async def scenario():
        for _ in range(100):
            await asyncio.sleep(0)
        assert fixture.core.fed == []
        fixture.now_ms = 1_020
        await fixture.until(lambda: fixture.core.fed)
        assert fixture.core.fed[0] == TimerElapsed() and fixture.core.times[0] == 1_020
        fixture.core.due_ms = None

    drive(fixture, scenario)


def test_a_due_time_that_is_always_past_lets_others_run():
    fixture = Fixture(ScriptedCore())
    fixture.core.due_ms = 0

    async def scenario():
        await fixture.until(lambda: len(fixture.core.fed) >= 3)
        for number in range(3):
            fixture.driver.offer(Asked(str(number)))
            await fixture.until(lambda number=number: str(number) in fixture.core.names())

    drive(fixture, scenario)


def test_a_busy_inbox_does_not_starve_the_timer_nor_the_event_loop():
    fixture = Fixture(ScriptedCore(), batch_max=1)
    fixture.core.due_ms = 500

    for number in range(20):
        fixture.driver.offer(Asked(str(number)))

    async def scenario():
        turns = 0
        while fixture.driver.queued:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 10
        assert fixture.core.names()[:4] == ["TimerElapsed", "0", "TimerElapsed", "1"]

    drive(fixture, scenario)


def test_time_never_goes_back_for_the_core():
    fixture = Fixture(ScriptedCore())

    async def scenario():
        for now_ms in (1_000, 2_000, 1_500, 3_000):
            fixture.now_ms = now_ms
            fed = len(fixture.core.fed)
            fixture.driver.offer(Asked(""))
            await fixture.until(lambda fed=fed: len(fixture.core.fed) > fed)
        assert fixture.core.times == [1_000, 2_000, 2_000, 3_000]

    drive(fixture, scenario)


def test_a_full_inbox_refuses_offers_tells_once_and_tells_when_it_is_half_empty():
    told: list[str] = []
    fixture = Fixture(
        ScriptedCore(),
        inbox_max=4,
        batch_max=1,
        on_inbox_full=lambda: told.append("full"),
        on_inbox_drained=lambda: told.append("drained"),
    )
    assert [fixture.driver.offer(Asked(str(n))) for n in range(6)] == [True] * 4 + [False] * 2
    assert told == ["full"] and fixture.driver.refused == 2
    fixture.driver.post(Asked("answer"))  # never refused

    async def scenario():
        await fixture.until(lambda: "drained" in told)
        assert fixture.driver.queued == 2
        await fixture.until(lambda: fixture.driver.queued == 0)
        assert fixture.core.names() == ["0", "1", "2", "3", "answer"]
        assert told == ["full", "drained"]

    drive(fixture, scenario)


def test_the_lag_of_the_oldest_event_is_known():
    fixture = Fixture(ScriptedCore())
    fixture.driver.offer(Asked("a"))
    fixture.now_ms += 250

    async def scenario():
        await fixture.until(lambda: fixture.core.fed)
        assert (fixture.driver.lag_ms, fixture.driver.lag_ms_max) == (250, 250)

    drive(fixture, scenario)


def test_stop_ends_run_after_the_batch_and_leaves_the_rest():
    fixture = Fixture(ScriptedCore(), batch_max=2)
    fixture.core.answer = lambda event: fixture.driver.stop() or []  # type: ignore[func-returns-value]
    for name in "abcd":
        fixture.driver.offer(Asked(name))
    asyncio.run(asyncio.wait_for(fixture.driver.run(), 5))
    assert fixture.core.names() == ["a", "b"] and fixture.driver.queued == 2
