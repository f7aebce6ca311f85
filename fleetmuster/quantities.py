"""Amounts as people write them: cores, memory, rates, durations; in both directions.

Rule: parsing is exact integer arithmetic and yields the API's units (cpu_milli,
memory_mib, kbit_s, ms); what can't be said in those units exactly is rounded up for memory (a
demand must be met) and refused elsewhere. Shown text is for people; only
`show_exact_duration` promises to be read back as the same number.
It knows no option names. Refused on purpose: `MB` (1000 or 1024?), bare durations and rates.
"""

from __future__ import annotations

import re

from fleetmuster.exits import CommandError, usage

_NUMBER = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)

# Amount of KiB in one unit. M means MiB, as for docker and systemd.
_MEMORY_KIB = {
    "": 1024,
    "k": 1,
    "ki": 1,
    "kib": 1,
    "m": 1024,
    "mi": 1024,
    "mib": 1024,
    "g": 1024**2,
    "gi": 1024**2,
    "gib": 1024**2,
    "t": 1024**3,
    "ti": 1024**3,
    "tib": 1024**3,
}
_RATE = re.compile(r"([0-9.]+)\s*([kKmMgG])(?:bit|bit/s|bps)?", re.ASCII)
_RATE_KBIT = {"k": 1, "m": 1_000, "g": 1_000_000}
_DURATION_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def parse_cpu(text: str) -> int:
    """`0.5`, `2` (cores) or `500m` (thousandths) to cpu_milli; also for gpu. Raises `CommandError`."""
    word = text.strip()
    scale = 1 if word.endswith("m") else 1000
    scaled = _scaled(word[:-1] if scale == 1 else word, scale)
    if scaled is None or scaled[1]:
        raise usage(f"{text!r} is not an amount of cores", "write 0.5 or 500m for half a core, 2 for two")
    return scaled[0]


def parse_memory(text: str) -> int:
    """`64MiB`, `1GiB`, `64M`, `64` (MiB) to memory_mib, rounded up. Raises `CommandError`."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    unit = match[2].lower() if match else ""
    if unit in ("kb", "mb", "gb", "tb"):
        raise usage(f"{text!r} may mean 1000 or 1024", f"write {text.strip()[:-1]}iB (powers of 1024)")
    scaled = _scaled(match[1], _MEMORY_KIB[unit]) if match and unit in _MEMORY_KIB else None
    if scaled is None:
        raise usage(f"{text!r} is not an amount of memory", "write 64MiB or 1.5GiB; a bare number is MiB")
    kib, more = scaled
    return -(-(kib + more) // 1024)


def parse_duration(text: str) -> int:
    """`250ms`, `30s`, `5m`, `1h30m`, `2d`, `0` to milliseconds. Raises `CommandError`."""
    word = text.strip()
    if word == "0":
        return 0
    parts = _PART.findall(word)
    sizes = [_DURATION_MS[unit] for _, unit in parts]
    whole = "".join(number + unit for number, unit in parts) == word
    if not parts or not whole or sizes != sorted(set(sizes), reverse=True):
        raise _bad_duration(text)
    total = 0
    for number, unit in parts:
        scaled = _scaled(number, _DURATION_MS[unit])
        if scaled is None or scaled[1]:
            raise _bad_duration(text)
        total += scaled[0]
    return total


def parse_rate(text: str) -> int:
    """`500k`, `2M`, `1.5Mbit/s` (bits a second, powers of 1000) to kbit_s. Raises `CommandError`."""
    match = _RATE.fullmatch(text.strip())
    scaled = _scaled(match[1], _RATE_KBIT[match[2].lower()]) if match else None
    if scaled is None or scaled[1]:
        raise usage(f"{text!r} is not a rate", "write 500k, 2M or 1G: bits a second, whole kilobits")
    return scaled[0]


def show_cpu(milli: float) -> str:
    """cpu_milli as cores: `500` -> `0.5`."""
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".")


def show_memory(mib: float) -> str:
    """memory_mib with one decimal at most: `1536` -> `1.5 GiB`."""
    amount, unit = float(mib), "MiB"
    for larger in ("GiB", "TiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f}".removesuffix(".0") + " " + unit


def show_rate(kbit_s: float) -> str:
    """kbit_s in the largest unit that it fills: `1500` -> `1.5 Mbit/s`."""
    amount, unit = float(kbit_s), "kbit/s"
    for larger in ("Mbit/s", "Gbit/s"):
        if abs(amount) < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.2f}".rstrip("0").rstrip(".") + " " + unit


def show_duration(ms: float) -> str:
    """The two largest units: `3_725_000` -> `1h2m`."""
    left = int(ms)
    if left < 0:
        return "-" + show_duration(-left)
    shown: list[str] = []
    for unit, size in _DURATION_MS.items():
        count, left = divmod(left, size)
        if count:
            shown.append(f"{count}{unit}")
        elif shown:
            break
        if len(shown) == 2 or (shown and unit == "s"):
            break
    return "".join(shown) or "0s"


def show_exact_duration(ms: int) -> str:
    """Every unit, so that `parse_duration` gives the same number back. `ms` is not negative."""
    left, shown = ms, ""
    for unit, size in _DURATION_MS.items():
        count, left = divmod(left, size)
        shown += f"{count}{unit}" if count else ""
    return shown or "0"


def _scaled(text: str, scale: int) -> tuple[int, int] | None:
    """`text` x `scale` as (whole, 1 if something is left over), or `None` if it is no number."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    fraction = match[2] or ""
    whole, rest = divmod(int(match[1] + fraction) * scale, 10 ** len(fraction))
    return whole, 1 if rest else 0


def _bad_duration(text: str) -> CommandError:
    return usage(f"{text!r} is not a duration", "write 250ms, 30s, 5m, 1h30m or 2d: always with a unit")
