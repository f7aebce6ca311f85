"""Sensors: what the device has, and what of it is in use.

Rule of this file: it answers at once and never fails; what cannot be read counts as 0.
On Linux it reads /proc itself (a microsecond's work, no memory); psutil is asked only where
there is no /proc. Rejected: psutil first (it costs 3 MB of an agent that may have 35).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from protocol.messages import Used
from protocol.resources import Resources

KIB_PER_MIB = 1_024
BYTES_PER_MIB = 1_048_576
NS_PER_S = 1_000_000_000


class Sensors:
    """Measures one device; `data_dir` names the disk that counts."""

    def __init__(self, data_dir: Path, proc: Path = Path("/proc")) -> None:
        self._data_dir = data_dir
        self._proc = proc
        self._busy_s = self._busy_seconds()
        self._asked_s = self._now_s()

    def capacity(self) -> Resources:
        """What there is: processors, memory, and the disk that is free now."""
        total_mib, _ = self._memory_mib()
        return Resources((os.cpu_count() or 1) * 1_000, total_mib, self._disk_mib()[1], 0)

    def used(self) -> Used:
        """What is in use: processor since the last question, memory, disk."""
        busy_s, now_s = self._busy_seconds(), self._now_s()
        span_s = now_s - self._asked_s
        cpu_milli = round(1_000 * (busy_s - self._busy_s) / span_s) if span_s > 0.01 else 0
        self._busy_s, self._asked_s = busy_s, now_s
        total_mib, available_mib = self._memory_mib()
        disk_total_mib, disk_free_mib = self._disk_mib()
        return Used(max(0, cpu_milli), max(0, total_mib - available_mib), disk_total_mib - disk_free_mib)

    def _busy_seconds(self) -> float:
        """Seconds that all processors together have worked since boot."""
        try:
            ticks = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:]
            numbers = [int(tick) for tick in ticks]
            idle = numbers[3] + numbers[4]
            return (sum(numbers[:8]) - idle) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return _psutil_busy_seconds()

    def _memory_mib(self) -> tuple[int, int]:
        """Total and available."""
        try:
            found: dict[str, int] = {}
            for line in (self._proc / "meminfo").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(rest.split()[0]) // KIB_PER_MIB
            return found["MemTotal"], found["MemAvailable"]
        except (OSError, ValueError, IndexError, KeyError):
            return _psutil_memory_mib()

    def _disk_mib(self) -> tuple[int, int]:
        """Total and free, of the disk that the data directory is on."""
        try:
            disk = os.statvfs(self._data_dir)
        except OSError:
            return 0, 0
        return (
            disk.f_blocks * disk.f_frsize // BYTES_PER_MIB,
            disk.f_bavail * disk.f_frsize // BYTES_PER_MIB,
        )

    @staticmethod
    def _now_s() -> float:
        return time.monotonic_ns() / NS_PER_S


def _psutil_busy_seconds() -> float:
    try:
        import psutil
    except ImportError:
        return 0.0
    times = psutil.cpu_times()
    return float(sum(times) - times.idle)


def _psutil_memory_mib() -> tuple[int, int]:
    try:
        import psutil
    except ImportError:
        return 0, 0
    memory = psutil.virtual_memory()
    return memory.total // BYTES_PER_MIB, memory.available // BYTES_PER_MIB
