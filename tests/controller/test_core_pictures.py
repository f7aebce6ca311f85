"""Pictures: what people are told of the whole fleet beside its sums."""

from __future__ import annotations

from controller.core.rules import Rules


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
