"""Claims: whether what a device says of itself can be true at all.

A device that says nonsense is not placed on: it goes to quarantine with the reason, until
an operator has looked. Bounds are far beyond any machine that runs an agent today.
"""

from __future__ import annotations

from protocol.errors import GarbageReason
from protocol.messages import Inventory

CORES_MAX = 4_096
MEMORY_MIB_MAX = 64 * 1_048_576
KBIT_S_MAX = 1_000_000_000
NONSENSE = (GarbageReason.OUT_OF_RANGE, GarbageReason.WRONG_TYPE)
"""An inventory that is dropped for one of these came whole, and says what no machine is: -1 cores."""
NAME_BYTES_MAX = 100
"""Of an accelerator: what is told to a run must find room in its device's document."""


def doubt_of(message: Inventory) -> str:
    """What can't be true of it, in words; empty when all may be."""
    c = message.capacity
    if c.cpu_milli > CORES_MAX * 1_000:
        return f"says it has {c.cpu_milli / 1000:,.0f} cores; more than {CORES_MAX:,} are not believed"
    if c.memory_mib > MEMORY_MIB_MAX:
        return f"says it has {c.memory_mib:,} MiB of memory; more than {MEMORY_MIB_MAX:,} are not believed"
    if max(c.up_kbit_s, c.down_kbit_s) > KBIT_S_MAX:
        return f"says its link carries {max(c.up_kbit_s, c.down_kbit_s):,} kbit/s"
    if message.runtimes and not (c.cpu_milli and c.memory_mib):
        return "says it has no processor or no memory, and yet can run tasks"
    return _accelerators_doubt(message)


def _accelerators_doubt(message: Inventory) -> str:
    names = [a.name for a in message.accelerators]
    if len(names) != len(dict.fromkeys(names)):
        return "names two of its accelerators alike"
    for name in names:
        if not name or name == "cpu" or any(c == "=" or c.isspace() for c in name):
            return f"calls an accelerator {name!r:.40}: no spaces, no '='"
        if len(name.encode()) > NAME_BYTES_MAX:
            return f"calls an accelerator {name!r:.40}…: at most {NAME_BYTES_MAX} bytes"
    total = sum(a.milli for a in message.accelerators)
    if names and total != message.capacity.gpu_milli:
        return f"says gpu_milli {message.capacity.gpu_milli:,}, its accelerators add up to {total:,}"
    return ""
