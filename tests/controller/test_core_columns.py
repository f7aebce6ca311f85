"""Heartbeats that change nothing go through as columns; they mean what each of them alone would mean."""

from __future__ import annotations

import pytest

from controller.core.effects import PublishLeases
from protocol.messages import NO_REVISION, Assignments, Inventory, LeaseAnswer
from protocol.resources import Resources

ROOM = Resources(4_000, 4_096, 10_000, 0)


def columns(effects):
    return [effect for effect in effects if isinstance(effect, PublishLeases)]


def test_devices_without_a_document_are_answered_in_columns_and_granted_nothing(desk, desk_kit):
    rows = [(f"d{n}", desk.join(f"d{n}"), 2, None, 1, 1, None) for n in range(5)]
    desk.after(10_000)
    effects = desk.heartbeats(*rows)
    [leases] = columns(effects)
    assert leases.devices == ["d0", "d1", "d2", "d3", "d4"] and not leases.numbers.any()
    assert [answer.granted for answer in desk_kit.published(effects, LeaseAnswer)] == [NO_REVISION] * 5
    assert not desk.core.ledger.counters.get("grants")


def test_a_mixed_batch_is_answered_row_by_row_where_it_must_be(desk, desk_kit):
    one, two = desk.join("d1"), desk.join("d2")
    desk.placed(count=2)
    desk.heartbeats(("d1", one, 2, None, 1, 1, None), ("d2", two, 2, None, 1, 1, None))
    stale = ("d2", two, 3, NO_REVISION, 1, 1, None)
    desk.after(2_000)
    effects = desk.heartbeats(("d1", one, 3, None, 1, 1, None), stale)
    [leases] = columns(effects)
    assert leases.devices == ["d1"] and leases.seqs.tolist() == [3]
    assert desk_kit.published(effects, Assignments, "d2"), "the other is told its document again"


def test_answers_without_a_document_are_no_first_grant_of_a_session(desk, desk_kit):
    """Else what was assigned before and is not listed would not be found out (L2)."""
    number = desk.join("d1")
    desk.after(1_000)
    desk.heartbeat("d1", number, 2)
    row = desk.core.ledger.fleet.index["d1"]
    assert columns(desk.heartbeat("d1", number, 3))
    assert desk.core.ledger.fleet.granted_session[row] != number
    desk.placed()
    assert desk_kit.granted(desk.heartbeat("d1", number, 4)) == desk.document("d1")


@pytest.mark.parametrize("lease_ms", [6_000, 30_000])
def test_silence_is_noticed_as_early_as_the_shortest_lease_makes_it_matter(desk, lease_ms):
    desk.running("d1", lease_ms=lease_ms)
    period_ms = min(10_000, lease_ms // 3)
    for passed in range(250, 4 * period_ms + 1_000, 250):
        desk.after(250)
        state = desk.core.pictures.device(0, desk.now).state
        if passed <= 2.5 * period_ms:
            assert state == "online", passed
        elif passed >= 2.5 * period_ms + 1_250:
            assert state != "online", passed


def test_one_that_joins_with_a_faster_pulse_than_all_others_is_watched_at_its_own_pace(desk):
    desk.join("d1")
    desk.after(3_000)
    number = desk.join("d2")
    quick = Inventory(2, number, "generic-linux", ROOM, {}, ("process",), heartbeat_ms=1_000)
    desk.message("d2", quick)
    desk.after(1_000)
    assert desk.core.pictures.device(1, desk.now).state == "online"
    desk.after(2_600)
    assert desk.core.pictures.device(1, desk.now).state != "online"
    assert desk.core.pictures.device(0, desk.now).state == "online"
