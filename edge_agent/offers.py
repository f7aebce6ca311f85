"""What a device offers beside what can be measured, as people write it: accelerators, extras, its class.

Rule of this file: an accelerator is `NAME[:MODEL[:MILLI]]`, an extra a name with a count; what is
wrong with one is a `ValueError` in words that follow the setting's name. It reads no setting:
the agent's file and the file of virtual devices both come here.
Rejected: looking for accelerators in /dev (a node says neither model nor whether its driver
works, and a device that offers what it can't use fails every task that asks for it).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from firmware_profiles import Profile, ProfileError, load, load_file, names
from firmware_profiles.schema import ACCELERATOR_NAME, is_accelerator_name
from protocol import limits as lim
from protocol.messages import Accelerator
from protocol.resources import NAMES

WHOLE_MILLI = 1_000
_EXTRA = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_accelerators(words: Sequence[str]) -> tuple[Accelerator, ...]:
    """The accelerators of a device. Raises ValueError."""
    if len(words) > lim.ACCELERATORS_MAX:
        raise ValueError(f"must be at most {lim.ACCELERATORS_MAX}, not {len(words)}")
    found = tuple(_accelerator(word) for word in words)
    seen: dict[str, None] = {}
    for one in found:
        if one.name in seen:
            raise ValueError(f"has two of the name {one.name!r}; runs are told names")
        seen[one.name] = None
    return found


def _accelerator(word: str) -> Accelerator:
    parts = word.split(":")
    name, model, milli = (*parts, "", "")[:3]
    if len(parts) > 3:
        raise ValueError(f"has {word!r}; write NAME, NAME:MODEL or NAME:MODEL:MILLI")
    if not is_accelerator_name(name):
        raise ValueError(f"has the name {name!r}; {ACCELERATOR_NAME}")
    if model and not _MODEL.fullmatch(model):
        raise ValueError(f"has the model {model!r}; expected letters, digits, dots, dashes, underscores")
    if milli and not (milli.isdecimal() and milli.isascii() and 1 <= int(milli) <= WHOLE_MILLI):
        raise ValueError(f"has {word!r}; MILLI is 1 to {WHOLE_MILLI}, thousandths of a whole one")
    return Accelerator(name, model, int(milli or WHOLE_MILLI))


def check_extras(extras: Mapping[str, int]) -> None:
    """Raises ValueError for what no task could ask for."""
    if len(extras) > lim.EXTRAS_MAX:
        raise ValueError(f"must be at most {lim.EXTRAS_MAX} kinds, not {len(extras)}")
    for name, amount in extras.items():
        if name in NAMES:
            raise ValueError(f"has {name!r}, which is a resource of its own: set capacity.{name}")
        if not _EXTRA.fullmatch(name):
            raise ValueError(f"has the name {name!r}; expected small letters, digits and _ . -")
        if not 0 <= amount <= lim.MIB_MAX:
            raise ValueError(f"has {name} = {amount}; an amount is 0 to {lim.MIB_MAX}")


def find_profile(name: str, file: Path | None = None) -> Profile:
    """The class of a device: a built-in one, or that of a file. Raises ValueError."""
    if file is None and name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names())}."
        raise ValueError(
            f"{name!r} is no class that is built in; {hint} A class of your own is a profile_file"
        )
    try:
        return load(name) if file is None else load_file(file)
    except ProfileError as error:
        raise ValueError(f"can't be used: {error}") from None
