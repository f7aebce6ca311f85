"""Sensors of health on trees of files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.health import HealthSensors
from protocol.messages import HEALTH_KNOWN, METERED, ON_BATTERY, THROTTLED, UNDERVOLTAGE, Health

PI = {
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "48312",
    "class/thermal/cooling_device0/type": "cpufreq-cpu0",
    "class/thermal/cooling_device0/cur_state": "0",
    "class/hwmon/hwmon0/name": "cpu_thermal",
    "class/hwmon/hwmon1/name": "rpi_volt",
    "class/hwmon/hwmon1/in0_lcrit_alarm": "0",
    "devices/platform/soc/soc:firmware/get_throttled": "0",
    "block/mmcblk0/device/type": "SD",
}
BATTERY = {
    "class/power_supply/BAT0/type": "Battery",
    "class/power_supply/BAT0/capacity": "83",
    "class/power_supply/BAT0/status": "Discharging",
}


def seen(tmp_path: Path, *trees: dict[str, str], **told: bool | int) -> Health:
    """What is read of these files."""
    for path, text in {name: text for tree in trees for name, text in tree.items()}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    return HealthSensors(sys=tmp_path, **told).read()


def test_a_pi_that_is_well(tmp_path):
    assert seen(tmp_path, PI) == Health(HEALTH_KNOWN, 48, 0, 0, 0)


def test_a_machine_that_tells_nothing_is_known_to_tell_nothing(tmp_path):
    assert seen(tmp_path) == Health(HEALTH_KNOWN, 0, 0, 0, 0)
    assert HealthSensors(sys=Path("/nowhere")).read() == Health(HEALTH_KNOWN)
    assert HealthSensors().read().flags & HEALTH_KNOWN


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        ("1", UNDERVOLTAGE),
        ("2", THROTTLED),
        ("4", THROTTLED),
        ("8", THROTTLED),
        ("50005", THROTTLED | UNDERVOLTAGE),
        ("50000", 0),
        ("0xe0008", THROTTLED),
        ("nonsense", 0),
        ("", 0),
    ],
)
def test_flags_of_the_firmware_count_while_they_hold(tmp_path, word, flags):
    health = seen(tmp_path, PI, {"devices/platform/soc/soc:firmware/get_throttled": word})
    assert health.flags == HEALTH_KNOWN | flags


def test_the_voltage_alarm_counts_without_the_firmwares_file(tmp_path):
    alarm = {"class/hwmon/hwmon1/name": "rpi_volt", "class/hwmon/hwmon1/in0_lcrit_alarm": "1"}
    assert seen(tmp_path, alarm).flags == HEALTH_KNOWN | UNDERVOLTAGE
    other = {"class/hwmon/hwmon1/name": "another"}
    assert seen(tmp_path, alarm, other).flags == HEALTH_KNOWN


@pytest.mark.parametrize(
    ("kind", "state", "slowed"),
    [
        ("cpufreq-cpu0", "3", True),
        ("thermal-cpufreq-0", "1", True),
        ("Processor", "2", True),
        ("pwm-fan", "4", False),
        ("intel_powerclamp", "-1", False),
        ("Processor", "-1", False),
    ],
)
def test_a_processor_that_is_cooled_by_slowing_it_is_throttled(tmp_path, kind, state, slowed):
    device = {
        "class/thermal/cooling_device2/type": kind,
        "class/thermal/cooling_device2/cur_state": state,
    }
    assert bool(seen(tmp_path, device).flags & THROTTLED) is slowed


@pytest.mark.parametrize(
    ("zones", "temperature_c"),
    [
        (("48499",), 48),
        (("40000", "71600", "55000"), 72),
        (("0", "55000"), 55),
        (("255000",), 0),
        (("-20000",), 1),
        (("", "x"), 0),
    ],
)
def test_the_hottest_plausible_zone_counts(tmp_path, zones, temperature_c):
    tree = {f"class/thermal/thermal_zone{n}/temp": zone for n, zone in enumerate(zones)}
    assert seen(tmp_path, tree).temperature_c == temperature_c


@pytest.mark.parametrize(
    ("more", "percent", "flags"),
    [
        ({}, 83, ON_BATTERY),
        ({"class/power_supply/BAT0/status": "Charging"}, 83, 0),
        ({"class/power_supply/AC/type": "Mains", "class/power_supply/AC/online": "1"}, 83, 0),
        ({"class/power_supply/AC/type": "Mains", "class/power_supply/AC/online": "0"}, 83, ON_BATTERY),
        ({"class/power_supply/BAT0/capacity": "0"}, 1, ON_BATTERY),
        ({"class/power_supply/BAT0/capacity": "104"}, 100, ON_BATTERY),
        ({"class/power_supply/BAT0/scope": "Device"}, 0, 0),
        (
            {"class/power_supply/BAT1/type": "Battery", "class/power_supply/BAT1/capacity": "17"},
            50,
            ON_BATTERY,
        ),
    ],
)
def test_a_battery_and_whether_it_is_what_we_live_on(tmp_path, more, percent, flags):
    health = seen(tmp_path, BATTERY, more)
    assert (health.battery_percent, health.flags) == (percent, HEALTH_KNOWN | flags)


@pytest.mark.parametrize(
    ("life", "wear_percent"),
    [("0x01 0x02", 20), ("0x0A 0x01", 100), ("0x0b 0x0b", 100), ("0x00 0x00", 0), ("0xff x", 0), ("", 0)],
)
def test_the_worse_part_of_an_emmc_counts(tmp_path, life, wear_percent):
    assert seen(tmp_path, {"block/mmcblk0/device/life_time": life}).wear_percent == wear_percent


def test_what_no_file_tells_is_told(tmp_path):
    health = seen(
        tmp_path, PI, {"block/mmcblk1/device/life_time": "0x03 0x01"}, metered=True, wear_percent=55
    )
    assert (health.flags, health.wear_percent) == (HEALTH_KNOWN | METERED, 55)
    assert seen(tmp_path, wear_percent=5).wear_percent == 30
