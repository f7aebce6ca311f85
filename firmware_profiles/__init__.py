"""Device classes: what a board has, what it costs to run, how it behaves. One TOML each.

Rule of this package: pure data with a strict reader; a new class is a new file here and
nothing else. The agent takes its cadence from it, the simulator its behaviour, and a
figure that is 0 under `capacity` means "measure the machine". Every figure names its
source in the file: a datasheet, a published measurement, or "estimate" and why.
Rejected: inheritance between files (a reader must see one board in one place); YAML (a
dependency).
"""

from firmware_profiles.loader import Catalogue, load, load_directory, load_file, names
from firmware_profiles.schema import (
    Behaviour,
    Capacity,
    ClockQuality,
    Firmware,
    LinkQuality,
    Power,
    Presence,
    Profile,
    ProfileError,
    Room,
)

__all__ = [
    "Behaviour",
    "Capacity",
    "Catalogue",
    "ClockQuality",
    "Firmware",
    "LinkQuality",
    "Power",
    "Presence",
    "Profile",
    "ProfileError",
    "Room",
    "load",
    "load_directory",
    "load_file",
    "names",
]
