"""Leadership between two controllers: the watching, the voice, and what a take-over knows."""

from __future__ import annotations

import pytest

from controller.core.events import CanaryReturned
from controller.core.leadership import SPEAK_MS, Finding, Led, Standby, Takeover, beginning
from controller.core.records import LeaderRow
from protocol.limits import CLOCK_RATE_PPM, LEADER_MS

PPM = 1_000_000
ROW = LeaderRow(7, "c1", 1_700_000_000_000)


def test_the_voice_ends_before_the_watch_whatever_the_clocks_do():
    """The leader's clock is as slow, the watcher's as fast as the bound allows."""
    voice_ms = SPEAK_MS * PPM / (PPM - CLOCK_RATE_PPM)
    watch_ms = LEADER_MS * PPM / (PPM + CLOCK_RATE_PPM)
    assert voice_ms < watch_ms - 500, "with half a second for the way of a message to the socket"


def test_a_row_is_taken_over_only_after_a_full_silence():
    standby = Standby()
    assert standby.unrenewed(0) is None, "what was never seen was never watched"
    assert standby.note(ROW, 1_000)
    assert standby.left_ms(1_000) == LEADER_MS
    assert standby.unrenewed(1_000 + LEADER_MS - 1) is None
    assert standby.unrenewed(1_000 + LEADER_MS) == ROW


@pytest.mark.parametrize("jump_ms", [3_000, -3_600_000, 315_360_000_000])
def test_every_renewal_begins_the_watch_anew(jump_ms):
    """Also one that a jumping wall clock dates into the past or the future."""
    standby = Standby()
    standby.note(ROW, 0)
    renewed = LeaderRow(7, "c1", ROW.renewed_at + jump_ms)
    assert not standby.note(renewed, LEADER_MS - 1), "the same leadership: nothing new to tell"
    assert standby.unrenewed(2 * LEADER_MS - 2) is None
    assert standby.unrenewed(2 * LEADER_MS - 1) == renewed


def test_another_leadership_is_news():
    standby = Standby()
    assert standby.note(ROW, 0) and not standby.note(ROW, 1)
    assert standby.note(LeaderRow(8, "c3", ROW.renewed_at), 2)
    standby.forget()
    assert standby.unrenewed(10**9) is None


def test_a_refusal_says_who_leads():
    assert str(Led(ROW)) == "c1 leads under epoch 7"


def begins(found, finding=Finding(), devices=True):
    return beginning(found, finding, devices, 5, 9)


def test_a_plain_restart_waits_for_nothing():
    begun = begins(Takeover(False, False, False, before=7))
    assert (begun.wait, begun.restored, begun.asked_ms, begun.wall_offset_ms) == (False, False, 5, 9)


def test_a_stale_or_marked_database_lets_a_fleet_wait_and_an_empty_one_not():
    assert begins(Takeover(True, False, False, 7)).wait
    assert begins(Takeover(False, False, True, 7)).restored
    assert not begins(Takeover(True, False, True, 7), devices=False).wait


def test_a_later_revision_means_an_older_database_only_while_nobody_else_led():
    plain = Finding(own=7, above=7)
    assert begins(Takeover(False, False, False, before=7), plain).restored
    assert begins(Takeover(False, False, False, before=7), Finding(7, 9)).restored
    assert begins(Takeover(False, False, False, before=8), Finding(7, 9)).restored, "nobody here had epoch 9"
    assert begins(Takeover(False, False, False, before=5), plain).restored, "put back meanwhile"
    assert not begins(Takeover(False, False, False, before=9), Finding(7, 9)).restored, (
        "it was our successor's"
    )
    assert not begins(Takeover(False, False, False, before=9), plain).restored


def test_a_finding_outlives_a_take_over_whose_core_could_not_be_loaded():
    """1 The database is found to be old. 2 We lead anew, loading fails. 3 We lead again: we led between."""
    first = Takeover(False, False, False, before=7)
    kept = Finding(7, 9).under(10, first)
    assert begins(Takeover(False, False, False, before=10), kept).restored
    assert not begins(Takeover(False, False, False, before=11), kept).restored, "another led meanwhile"
    assert Finding(7, 9).under(12, Takeover(False, False, False, before=11)) == Finding()
    assert Finding().under(8, first) == Finding()


def test_a_canary_that_strays_from_another_leadership_is_not_ours(desk):
    """1 We are deaf. 2 A letter of our predecessor with the same number comes out of a broker's queue."""
    desk.broker_answers = False
    desk.after(15_000)
    assert desk.core.failover.deaf
    number, epoch = desk.core.link.canary, desk.core.ledger.epoch
    desk.feed(CanaryReturned(epoch - 1, number))
    assert desk.core.failover.deaf
    desk.feed(CanaryReturned(epoch, number))
    assert not desk.core.failover.deaf
