"""Questions end in one of four ways; tokens are believed for a second; ids rise; cursors return."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.asking import Asker
from controller.api.gate import BELIEF_MS, TOKENS_MAX, Gate, token_hash
from controller.api.ids import JobIds
from controller.api.paging import cursor_of, position_of
from controller.api.port import Busy, NoAnswer, SaveLost
from controller.api.problems import HttpProblem
from controller.core.effects import Reply
from controller.core.events import FleetQueried
from controller.core.views import DoneView
from protocol.errors import LocalMistake


def test_each_answer_finds_its_question():
    async def scene():
        offered = []
        asker = Asker(lambda q: offered.append(q) or True)
        waiting = [asyncio.ensure_future(asker.ask(FleetQueried(asker.next_request()))) for _ in range(3)]
        await asyncio.sleep(0)
        for question in reversed(offered):
            asker.reply(Reply(question.request, DoneView(str(question.request))))
        assert [view.object for view in await asyncio.gather(*waiting)] == ["1", "2", "3"]
        assert (asker.waiting, asker.late) == (0, 0)

    asyncio.run(scene())


def test_an_answer_may_come_from_within_the_offer():
    async def scene():
        def offer(question):
            asker.reply(Reply(question.request, 7))
            return True

        asker = Asker(offer)
        assert await asker.ask(FleetQueried(1)) == 7

    asyncio.run(scene())


def test_a_full_inbox_is_busy_and_leaves_nothing():
    async def scene():
        asker = Asker(lambda q: False)
        with pytest.raises(Busy):
            await asker.ask(FleetQueried(1))
        assert asker.waiting == 0

    asyncio.run(scene())


def test_too_many_waiting_are_busy():
    async def scene():
        asker = Asker(lambda q: True, waiting_max=2)
        waiting = [asyncio.ensure_future(asker.ask(FleetQueried(n))) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await asker.ask(FleetQueried(3))
        asker.fail_all("the end")
        for answer in waiting:
            with pytest.raises(SaveLost):
                await answer

    asyncio.run(scene())


def test_nobody_waits_for_ever_and_a_late_answer_is_counted():
    async def scene():
        asker = Asker(lambda q: True, answer_ms_max=1)
        for number in (1, 2):
            with pytest.raises(NoAnswer):
                await asker.ask(FleetQueried(number))
            asker.reply(Reply(number, None))
        assert (asker.waiting, asker.late) == (0, 2)

    asyncio.run(scene())


def test_who_goes_away_leaves_nothing_behind():
    async def scene():
        asker = Asker(lambda q: True)
        waiting = asyncio.ensure_future(asker.ask(FleetQueried(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asker.waiting == 0
        asker.fail_all("nobody is hurt")

    asyncio.run(scene())


def test_while_nothing_can_be_saved_nobody_waits_for_it():
    async def scene():
        offered = []
        asker = Asker(lambda q: offered.append(q) or True)
        waiting = asyncio.ensure_future(asker.ask(FleetQueried(1)))
        await asyncio.sleep(0)
        asker.refuse("disk full")
        for answer in (waiting, asker.ask(FleetQueried(2))):
            with pytest.raises(SaveLost, match="disk full"):
                await answer
        assert [q.request for q in offered] == [1]
        asker.accept()
        again = asyncio.ensure_future(asker.ask(FleetQueried(3)))
        await asyncio.sleep(0)
        asker.reply(Reply(3, 5))
        assert await again == 5

    asyncio.run(scene())


def test_a_lost_save_ends_every_question_and_the_next_is_asked_as_ever():
    async def scene():
        asker = Asker(lambda q: True)
        waiting = asyncio.ensure_future(asker.ask(FleetQueried(1)))
        await asyncio.sleep(0)
        asker.fail_all("disk full")
        with pytest.raises(SaveLost, match="disk full"):
            await waiting
        again = asyncio.ensure_future(asker.ask(FleetQueried(2)))
        await asyncio.sleep(0)
        asker.reply(Reply(2, 5))
        assert await again == 5

    asyncio.run(scene())


def test_one_number_is_asked_once():
    async def scene():
        asker = Asker(lambda q: True)
        waiting = asyncio.ensure_future(asker.ask(FleetQueried(1)))
        await asyncio.sleep(0)
        with pytest.raises(LocalMistake):
            await asker.ask(FleetQueried(1))
        assert asker.waiting == 1
        asker.reply(Reply(1, 1))
        assert await waiting == 1

    asyncio.run(scene())


# ------------------------------------------------------------------------- the gate


class Tokens:
    """A table of tokens, how often it was read, and a clock."""

    def __init__(self, **known: str) -> None:
        self.known = {token_hash(token): actor for token, actor in known.items()}
        self.reads = 0
        self.now_s = 0.0
        self.gate = Gate(self.read, lambda: self.now_s)

    async def read(self, digest: str) -> str | None:
        self.reads += 1
        await asyncio.sleep(0)
        return self.known.get(digest)

    async def actor(self, token: str) -> str | None:
        try:
            return await self.gate.actor([(b"authorization", b"Bearer " + token.encode())])
        except HttpProblem:
            return None


def test_a_token_is_believed_for_a_second_and_then_asked_for_again():
    async def scene():
        tokens = Tokens(abc="ann")
        assert [await tokens.actor("abc") for _ in range(3)] == ["ann"] * 3
        assert tokens.reads == 1
        tokens.known.clear()
        tokens.now_s += BELIEF_MS / 1000
        assert await tokens.actor("abc") is None

    asyncio.run(scene())


def test_a_token_that_is_made_later_is_accepted_within_a_second():
    async def scene():
        tokens = Tokens()
        assert await tokens.actor("abc") is None
        tokens.known[token_hash("abc")] = "ann"
        tokens.now_s += BELIEF_MS / 1000
        assert await tokens.actor("abc") == "ann"

    asyncio.run(scene())


def test_many_who_come_at_once_cost_one_read():
    async def scene():
        tokens = Tokens(abc="ann")
        assert await asyncio.gather(*[tokens.actor("abc") for _ in range(50)]) == ["ann"] * 50
        assert tokens.reads == 1

    asyncio.run(scene())


def test_guessing_does_not_fill_the_memory():
    async def scene():
        tokens = Tokens()
        for number in range(TOKENS_MAX + 50):
            assert await tokens.actor(str(number)) is None
        assert len(tokens.gate._known) <= TOKENS_MAX and not tokens.gate._asking

    asyncio.run(scene())


# ------------------------------------------------------------------------- ids and cursors


@given(
    st.lists(st.integers(min_value=1_600_000_000_000, max_value=1_900_000_000_000), min_size=2, max_size=50)
)
def test_ids_rise_strictly_whatever_the_clock_does(clock):
    ids = JobIds(random.Random(1).getrandbits)
    minted = [ids.mint(now) for now in clock]
    assert all(a < b for a, b in itertools.pairwise(minted))
    assert all(len(i) == 16 and i[0] == "j" and i.isalnum() and i.islower() for i in minted)


def test_ids_sort_by_time_across_processes():
    early, late = JobIds(random.Random(1).getrandbits), JobIds(random.Random(2).getrandbits)
    assert early.mint(1_790_000_000_000) < late.mint(1_790_000_000_001)


def test_ids_go_on_when_chance_runs_out():
    ids = JobIds(lambda bits: (1 << bits) - 1)
    first = ids.mint(5)
    ids._last_chance = (1 << 30) - 1
    assert first < ids.mint(5) < ids.mint(5)


@given(st.from_regex(r"[a-z0-9.-]{1,120}", fullmatch=True))
def test_a_cursor_leads_back_to_its_position(position):
    assert position_of(cursor_of(position)) == position


@given(st.text(max_size=60))
def test_any_other_cursor_is_refused(text):
    try:
        position = position_of(text)
    except HttpProblem as problem:
        assert problem.code == "invalid_cursor"
    else:
        assert not text or cursor_of(position) == text
