"""Offers: what of a capacity may be reserved, by the names that a plan knows.

Rule of this file: the controller under test and the checker of room are given the same
function, so a rule that is broken is broken by the core. It knows no device.
"""

from __future__ import annotations

import firmware_profiles
from controller.core.fleet import Offer, whole_capacity
from protocol.resources import Resources


def _of_profiles(profile: str, capacity: Resources) -> Resources:
    """As in production: by the rules of the device's class."""
    return (
        firmware_profiles.load(profile).offered(capacity)
        if profile in firmware_profiles.names()
        else capacity
    )


def _overcommitted(profile: str, capacity: Resources) -> Resources:
    """Twice the processor and half as much memory again; twelve tasks at once."""
    return capacity._replace(
        cpu_milli=2 * capacity.cpu_milli, memory_mib=3 * capacity.memory_mib // 2, slots=12
    )


def _kept_back(profile: str, capacity: Resources) -> Resources:
    """Half a core and a fifth of the memory are kept back; five tasks at once."""
    return capacity._replace(
        cpu_milli=max(0, capacity.cpu_milli - 500), memory_mib=4 * capacity.memory_mib // 5, slots=5
    )


OFFERS: dict[str, Offer] = {
    "whole": whole_capacity,
    "profiles": _of_profiles,
    "overcommitted": _overcommitted,
    "kept_back": _kept_back,
}
