"""Health: heat, throttling, voltage, battery, and how worn the storage is, from files of the kernel.

Rule of this file: it answers at once and never fails; what can't be read says nothing. It reads
files only, a handful of them every few seconds: thermal zones and cooling devices, the firmware's
flags of a Raspberry Pi and its voltage alarm, power supplies, the life time of an eMMC. What no
file tells (a metered link, a worn SD card) is told to it.
Rejected: `vcgencmd` (a process every ten seconds for what one file says); asking NetworkManager
whether a link is metered (a bus connection, and most boards don't run it).
"""

from __future__ import annotations

from pathlib import Path

from protocol.messages import HEALTH_KNOWN, METERED, ON_BATTERY, THROTTLED, UNDERVOLTAGE, Health

GET_THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
"""Bits of the firmware, in hexadecimal: 0 voltage too low, 1 frequency capped, 2 throttled, 3 soft
limit of temperature; higher ones say that it was so since boot."""
PI_UNDERVOLTAGE, PI_SLOWED = 0b0001, 0b1110
PI_VOLTAGE = "rpi_volt"
SLOWING = ("cpufreq", "processor")
"""Kinds of cooling devices that cool by making a processor slower."""
MILLIDEGREES, PLAUSIBLE_C = 1_000, 150
"""A zone without a sensor behind it reads 0, or thousands."""
LIFE_STEP_PERCENT, LIFE_MAX = 10, 11
"""An eMMC tells its used life in tenths, from 1; 11 is beyond its end (JESD84-B51)."""


class HealthSensors:
    """What this machine's kernel says of its condition."""

    def __init__(self, metered: bool = False, wear_percent: int = 0, sys: Path = Path("/sys")) -> None:
        self._sys = sys
        self._metered = metered
        self._wear_percent = wear_percent

    def read(self) -> Health:
        """How the device fares now; latency is not measured here."""
        slowed, weak = self._slowed()
        battery_percent, on_battery = self._battery()
        flags = HEALTH_KNOWN
        for bit, is_set in (
            (THROTTLED, slowed),
            (UNDERVOLTAGE, weak),
            (ON_BATTERY, on_battery),
            (METERED, self._metered),
        ):
            flags |= bit if is_set else 0
        wear_percent = max(self._wear_percent, self._emmc_wear_percent())
        return Health(flags, self._temperature_c(), battery_percent, wear_percent)

    def _temperature_c(self) -> int:
        """Of the hottest zone: it is the one that slows the machine. 0: none; frost reads as 1."""
        zones = [_number(zone / "temp") for zone in self._entries("class/thermal", "thermal_zone")]
        degrees = [round(zone / MILLIDEGREES) for zone in zones if zone]
        plausible = [zone_c for zone_c in degrees if abs(zone_c) <= PLAUSIBLE_C]
        return max(1, *plausible) if plausible else 0

    def _slowed(self) -> tuple[bool, bool]:
        """Whether it runs slower than it could, and whether its voltage is too low."""
        firmware = _number(self._sys / GET_THROTTLED, 16) or 0
        weak = bool(firmware & PI_UNDERVOLTAGE)
        for monitor in self._entries("class/hwmon", "hwmon"):
            if _text(monitor / "name") == PI_VOLTAGE:
                weak |= _number(monitor / "in0_lcrit_alarm") == 1
        slowed = bool(firmware & PI_SLOWED)
        for device in self._entries("class/thermal", "cooling_device"):
            if any(kind in _text(device / "type").lower() for kind in SLOWING):
                slowed |= (_number(device / "cur_state") or 0) > 0
        return slowed, weak

    def _battery(self) -> tuple[int, bool]:
        """Charge in percent (0: no battery; an empty one reads as 1), and whether it lives on it."""
        charges: list[int] = []
        draining = supplied = False
        for supply in self._entries("class/power_supply", ""):
            if _text(supply / "scope").lower() == "device":
                continue  # of a mouse, a headset
            if _text(supply / "type").lower() != "battery":
                supplied |= (_number(supply / "online") or 0) > 0
                continue
            charge = _number(supply / "capacity")
            if charge is not None:
                charges.append(min(100, max(1, charge)))
            draining |= _text(supply / "status").lower() == "discharging"
        return sum(charges) // len(charges) if charges else 0, draining and not supplied

    def _emmc_wear_percent(self) -> int:
        """Of the most worn one, by the worse of its two kinds of memory. SD cards tell nothing."""
        worst = 0
        for disk in self._entries("block", "mmcblk"):
            for word in _text(disk / "device" / "life_time").split():
                life = _whole(word, 16)
                if life is not None and 0 < life <= LIFE_MAX:
                    worst = max(worst, min(100, life * LIFE_STEP_PERCENT))
        return worst

    def _entries(self, folder: str, prefix: str) -> list[Path]:
        try:
            return sorted(entry for entry in (self._sys / folder).iterdir() if entry.name.startswith(prefix))
        except OSError:
            return []


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(path: Path, base: int = 10) -> int | None:
    return _whole(_text(path), base)


def _whole(word: str, base: int) -> int | None:
    try:
        return int(word, base)
    except ValueError:
        return None
