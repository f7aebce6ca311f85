"""Who leads, in every store: the row, its epochs, and who is refused (rule L6)."""

from __future__ import annotations

import pytest

from controller.core.leadership import Led, Takeover
from controller.core.records import FleetRow
from controller.store.base import RESTORED, Fenced, Store
from protocol.limits import LEADER_GAP_MS

WALL_MS = 1_700_000_000_000


def leading(store: Store, wall_ms: int = WALL_MS) -> int:
    return store.lead("here", 0, wall_ms)[0].epoch


def test_first_leader_takes_unix_seconds_as_epoch(store: Store) -> None:
    row, takeover = store.lead("here", 0, WALL_MS)
    assert (row.epoch, row.holder, row.renewed_at) == (WALL_MS // 1000, "here", WALL_MS)
    assert takeover == Takeover(stale=False, clean=False, marked=False)


def test_epoch_rises_even_when_the_clock_does_not(store: Store) -> None:
    first = leading(store)
    assert leading(store) == first + 1
    assert leading(store, 0) == first + 2
    assert store.lead("here", first + 100, WALL_MS)[0].epoch == first + 101


def test_clean_stop_is_told_once(store: Store) -> None:
    store.mark_clean(leading(store))
    late = WALL_MS + 10 * LEADER_GAP_MS
    assert store.lead("here", 0, late)[1] == Takeover(stale=False, clean=True, marked=False)
    assert store.lead("here", 0, late)[1] == Takeover(stale=False, clean=False, marked=False)


def test_row_not_renewed_is_stale_and_stays_marked_until_the_wait_is_saved(store: Store) -> None:
    leading(store)
    late = WALL_MS + LEADER_GAP_MS + 1
    assert store.lead("here", 0, late)[1] == Takeover(stale=True, clean=False, marked=False)
    row, takeover = store.lead("here", 0, late)
    assert takeover == Takeover(stale=False, clean=False, marked=True)
    store.save([FleetRow("wait_until", "1"), FleetRow(RESTORED, "")], row.epoch)
    assert store.lead("here", 0, late)[1] == Takeover(stale=False, clean=False, marked=False)


def test_renewed_row_is_not_stale_and_one_from_the_future_is(store: Store) -> None:
    epoch = leading(store)
    store.renew(epoch, WALL_MS + LEADER_GAP_MS)
    assert not store.lead("here", 0, WALL_MS + 2 * LEADER_GAP_MS)[1].stale
    assert store.lead("here", 0, WALL_MS)[1].stale


def test_restored_copy_is_marked(store: Store) -> None:
    leading(store)
    store.mark_restored()
    assert store.lead("here", 0, WALL_MS)[1].marked
    assert store.load().fleet[RESTORED] == "restore"


def test_another_holder_is_refused_and_told_who_leads(store: Store) -> None:
    row, _ = store.lead("here", 0, WALL_MS)
    for wall_ms in (WALL_MS, WALL_MS - 3_600_000, WALL_MS + 10 * 365 * 86_400_000):
        with pytest.raises(Led) as refused:
            store.lead("there", 0, wall_ms)
        assert refused.value.row == row and "here leads" in str(refused.value)
    store.save([FleetRow("a", "b")], row.epoch)
    assert store.load().leader == row


def test_another_holder_takes_over_exactly_the_row_that_it_watched(store: Store) -> None:
    row, _ = store.lead("here", 0, WALL_MS)
    store.renew(row.epoch, WALL_MS + 3_000)
    with pytest.raises(Led) as refused:
        store.lead("there", 0, WALL_MS, row)
    theirs, found = store.lead("there", 0, WALL_MS + 15_000, refused.value.row)
    assert (theirs.holder, found.before, found.clean) == ("there", row.epoch, False)
    with pytest.raises(Fenced):
        store.save([FleetRow("a", "b")], row.epoch)
    with pytest.raises(Led):
        store.lead("here", 0, WALL_MS + 15_000, row)


def test_a_renewal_always_changes_the_row(store: Store) -> None:
    """Who watches knows a living leader by that, even while the wall clock stands or jumps to and fro."""
    row, _ = store.lead("here", 0, WALL_MS)
    for wall_ms in (WALL_MS, WALL_MS, WALL_MS - 5_000, WALL_MS - 5_000):
        store.renew(row.epoch, wall_ms)
        with pytest.raises(Led) as refused:
            store.lead("there", 0, wall_ms, row)
        assert refused.value.row != row
        row = refused.value.row


def test_the_same_holder_leads_again_at_once(store: Store) -> None:
    first, _ = store.lead("here", 0, WALL_MS)
    again, found = store.lead("here", 0, WALL_MS + 1)
    assert again.epoch == first.epoch + 1 and found.before == first.epoch


def test_after_an_orderly_stop_anybody_leads_at_once(store: Store) -> None:
    store.mark_clean(leading(store))
    assert store.lead("there", 0, WALL_MS + 1)[1].clean
    with pytest.raises(Led):
        store.lead("here", 0, WALL_MS + 1)


def test_former_leader_is_fenced_and_changes_nothing(store: Store) -> None:
    old = leading(store)
    new = leading(store)
    for word in (
        lambda: store.save([FleetRow("a", "b")], old),
        lambda: store.renew(old, WALL_MS),
        lambda: store.mark_clean(old),
    ):
        with pytest.raises(Fenced):
            word()
    assert store.load().fleet == {}
    store.save([FleetRow("a", "b")], new)
    assert store.load().fleet == {"a": "b"}
