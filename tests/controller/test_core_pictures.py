"""Pictures: what people are told of the whole fleet beside its sums."""

from __future__ import annotations

from controller.core.rules import Rules
from protocol.core import GarbageArrived
from protocol.errors import GarbageReason


def alarms(desk):
    return desk.core.pictures.fleet_view(desk.now).alarms


def test_a_profile_that_nobody_knows_is_told_as_long_as_a_device_has_it(desk_kit):
    desk = desk_kit.Desk(rules=Rules("spread", profiles=("generic-linux", "pi-5-8g")))
    desk.join("d1", profile="pi-5-8g")
    assert alarms(desk) == []
    desk.join("d2", profile="barn-cam")
    [told] = alarms(desk)
    assert "d2 has a profile" in told and "put barn-cam.toml into controller.profiles_dir" in told
    desk.take_over()
    assert alarms(desk) == [told]
    desk.join("d3", profile="attic")
    assert "d2 and 1 more devices have" in alarms(desk)[0]
    for device in ("d2", "d3"):
        desk.decide(device, "remove")
    assert alarms(desk) == []


def test_who_offers_all_there_is_needs_no_profiles(desk):
    desk.join("d1", profile="barn-cam")
    assert alarms(desk) == []


def nonsense(desk, reason=GarbageReason.OUT_OF_RANGE, channel="inventory", detail="capacity: not in 0..9"):
    desk.feed(GarbageArrived("d1", channel, reason, detail))


def test_a_device_whose_first_word_of_itself_is_nonsense_is_set_apart_with_the_reason(desk, desk_kit):
    number = desk_kit.session(1)
    desk.status("d1", number)
    row = desk.core.ledger.fleet.index["d1"]
    for reason in (GarbageReason.MALFORMED, GarbageReason.EMPTY):
        nonsense(desk, reason)
    nonsense(desk, channel="runs")
    assert not desk.core.ledger.fleet.quarantined[row], "what says nothing of the machine is only counted"
    nonsense(desk)
    [told] = alarms(desk)
    assert "d1' describes itself by what can't be: capacity: not in 0..9" in told
    assert desk.core.pictures.device(row, desk.now).doubt.endswith("capacity: not in 0..9")
    desk.decide("d1", "uncordon")
    desk.join("d1", number)
    desk.placed()
    assert alarms(desk) == [] and desk.task("j1.0").device == "d1"


def test_nonsense_in_the_name_of_a_device_that_is_known_is_told_and_costs_it_nothing(desk):
    number = desk.join("d1")
    row = desk.core.ledger.fleet.index["d1"]
    nonsense(desk)
    nonsense(desk, detail="another")
    [told] = alarms(desk)
    assert "capacity: not in 0..9; what it said before counts on" in told
    desk.placed()
    assert not desk.core.ledger.fleet.quarantined[row] and desk.task("j1.0").device == "d1"
    desk.inventory("d1", number, 2)
    assert alarms(desk) == []


def test_nonsense_of_who_is_not_there_is_only_counted(desk):
    desk.feed(GarbageArrived("nobody", "inventory", GarbageReason.OUT_OF_RANGE, ""))
    assert desk.core.ledger.fleet.count == 0 and desk.core.ledger.garbage == {"out_of_range": 1}
