"""What devices say of their health: shown as told, guarding against new work, and forgotten by nobody."""

from __future__ import annotations

import numpy as np

from controller.core.condition import FAILED, FLAKY_MAX, HALF_MS, LOST, REFRESH_MS, Condition, health_of
from controller.core.fleet import Fleet
from controller.core.records import DeviceRow
from controller.core.sessions import new_device
from protocol.messages import METERED, NO_HEALTH, ON_BATTERY, THROTTLED, UNDERVOLTAGE, Health


def a_fleet(devices=3):
    fleet = Fleet()
    for n in range(devices):
        record: DeviceRow = new_device(f"d{n}", 0)
        fleet.admit(record, None)
    return fleet, Condition(fleet)


def tell(condition, row, health):
    condition.note_health(np.array([row]), np.array([health], np.int64))


def guarded(fleet):
    return [not fit for fit in fleet.view.fit]


def test_what_is_told_is_shown_and_silence_changes_nothing():
    fleet, condition = a_fleet()
    said = Health(1 | THROTTLED | ON_BATTERY | METERED, 71, 40, 12, 30)
    tell(condition, 1, said)
    tell(condition, 1, NO_HEALTH)
    assert [health_of(fleet, row) for row in range(3)] == [NO_HEALTH, said, NO_HEALTH]


def test_heat_low_voltage_and_an_empty_battery_keep_new_work_away_until_they_pass():
    fleet, condition = a_fleet()
    tell(condition, 0, Health(1, temperature_c=85))
    tell(condition, 1, Health(1 | UNDERVOLTAGE))
    tell(condition, 2, Health(1 | ON_BATTERY, battery_percent=14))
    condition.refresh(0)
    assert guarded(fleet) == [True, True, True]
    room = fleet.room_generation
    tell(condition, 0, Health(1, temperature_c=84))
    tell(condition, 1, Health(1))
    tell(condition, 2, Health(1, battery_percent=14))
    condition.refresh(REFRESH_MS)
    assert guarded(fleet) == [False, False, False]
    assert fleet.room_generation > room, "who waits must be told that a device opened"


def test_a_device_that_is_lost_again_and_again_earns_its_name_back():
    fleet, condition = a_fleet()
    for _ in range(int(FLAKY_MAX)):
        condition.blame(0, LOST, 0)
    condition.blame(1, FAILED, 0)
    condition.refresh(0)
    assert guarded(fleet) == [True, False, False]
    condition.refresh(HALF_MS)
    assert guarded(fleet) == [False, False, False]
    assert fleet.view.flakiness[0] == FLAKY_MAX / 2


def test_failed_attempts_make_a_device_worse_but_never_shut_it():
    """The fault may be the job's: a hundred of its tasks would else shut a small fleet to everybody."""
    fleet, condition = a_fleet()
    for _ in range(100):
        condition.blame(0, FAILED, 0)
    for _ in range(int(FLAKY_MAX) - 1):
        condition.blame(1, LOST, 0)
    condition.blame(1, FAILED, 0)
    condition.refresh(0)
    assert guarded(fleet) == [False, False, False]
    assert fleet.view.flakiness.tolist() == [FLAKY_MAX / 2, FLAKY_MAX - 1, 0]
    for _ in range(int(FLAKY_MAX / 2) + 1):
        condition.blame(0, LOST, 0)
    condition.refresh(REFRESH_MS)
    assert guarded(fleet) == [True, False, False]


def test_columns_are_looked_at_again_only_every_ten_seconds():
    fleet, condition = a_fleet()
    condition.refresh(0)
    era = fleet.view.era
    tell(condition, 0, Health(1, temperature_c=99))
    condition.refresh(REFRESH_MS - 1)
    assert fleet.view.era == era and not guarded(fleet)[0]
    condition.refresh(REFRESH_MS)
    assert fleet.view.era > era and guarded(fleet)[0]
