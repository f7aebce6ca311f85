"""Tables of the simulator for the documents: exit codes, faults, invariants."""

from __future__ import annotations

from sim.checkers import INVARIANTS
from sim.command.refusals import ExitCode
from sim.fault_families.kinds import FaultKind, Word
from sim.faults import FAMILIES, FAULTS, QUIRKS_FAMILY
from sim.scenarios import QUIRKS

EXITS = {
    ExitCode.HELD: "all seeds held",
    ExitCode.VIOLATED: "an invariant was broken",
    ExitCode.USAGE: "wrong words, an unreadable file, a folder that can't be written; nothing was played",
    ExitCode.NOT_CONVERGED: "a fleet did not come to rest in time after the last fault",
    ExitCode.CRASHED: "a core, an observer, a worker or the simulator threw; or nothing was shown",
    ExitCode.INTERRUPTED: "Ctrl-C",
}


ABOUT = {
    "loss": "the network loses QoS 0, and what is under way when a connection breaks",
    "doubles": "QoS 1 arrives twice",
    "delay": "everything takes longer, up to minutes",
    "disorder": "single messages arrive long after their successors",
    "answers": "answers to heartbeats don't arrive",
    "breaks": "connections break",
    "strangers": "somebody uses a device's password on foreign topics",
    "cuts": "a device and the broker don't hear each other, one way or both",
    "sites": "all devices of a site are silent at once",
    "broker": "the broker is killed and forgets all, some or nothing",
    "agents": "the agent's process is killed, also between any two of its steps",
    "freezes": "the agent stands still; its guard and runs go on",
    "guards": "the guard is killed; where containment is weak, runs may survive it",
    "machines": "all processes are killed, or the power fails",
    "sleep": "the machine sleeps, and its hook looks first when it wakes",
    "pauses": "the machine is stopped from outside, and nobody is told",
    "clocks": "clocks are fast or slow within the bound",
    "far_clocks": "clocks are fast or slow beyond the bound",
    "clones": "two machines have one identity",
    "disks": "the disk is full or slow",
    "journals": "the journal loses its last write, is lost or corrupt",
    "slow": "runs take long to start",
    "controllers": "a controller is killed or restarted, also between any two of its steps",
    "standstills": "a controller stands still and goes on as if nothing had been",
    "partitions": "a controller loses the broker or the database, devices don't",
    "walls": "wall clocks jump, by an hour or by years",
    "database": "the database refuses or is slow",
    "backups": "the database is put back from an old copy",
    "descriptions": "a device describes itself anew: other labels, room, accelerators; or says nonsense",
    "health": "a device is hot, throttled, low on power, or on a link that is paid by volume",
    "quirks": "the broker does what some real ones do, for the whole run",
}


def exit_table() -> str:
    """With its head, because a comment would end the table."""
    return "\n".join(["| exit code | |", "|---|---|", *(f"| {int(c)} | {EXITS[c]} |" for c in ExitCode)])


def fault_table() -> str:
    """Families, and the kinds of each with their words."""
    rows = ["| family | what happens | kinds, and their words in a scenario |", "|---|---|---|"]
    for family in FAMILIES:
        kinds = [_kind(name, kind) for name, kind in FAULTS.items() if kind.family == family]
        rows.append(f"| `{family}` | {ABOUT[family]} | {'; '.join(kinds)} |")
    if QUIRKS_FAMILY not in FAMILIES:
        rows.append(f"| `{QUIRKS_FAMILY}` | {ABOUT[QUIRKS_FAMILY]} | {', '.join(map(_code, QUIRKS))} |")
    return "\n".join(rows)


def _kind(name: str, kind: FaultKind) -> str:
    words = [f"`{word}` {_bounds(what)}" for word, what in kind.words.items()]
    words = (["`device`"] if kind.of_device else []) + words
    return f"`{name}`" + (f" ({', '.join(words)})" if words else "")


def _bounds(word: Word) -> str:
    if hasattr(word, "low"):
        return f"{word.low:,}…{word.high:,}"
    if hasattr(word, "read"):  # its first line begins with an example
        return "as " + _code(str(word.read.__doc__).split("`")[1])
    return " ".join(map(_code, word.words)) if hasattr(word, "words") else word.what


def _code(text: str) -> str:
    return f"`{text}`"


def outside_table() -> str:
    """Kinds that lie outside the assumptions."""
    rows = ["| fault | suspends | checked instead |", "|---|---|---|"]
    rows += [f"| `{n}` | {' '.join(k.outside)} | {k.instead} |" for n, k in FAULTS.items() if k.outside]
    return "\n".join(rows)


def invariant_table() -> str:
    """As the observers name them."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in INVARIANTS.items())])
