"""Observations: what happened, as kernel, broker and database saw it, never as a core says.

Rule of this file: plain data, in the order in which things happened. A simulated world
makes them as it goes; a recording of real processes is a file of the same, one JSON object
a line (`histories.py`). Checkers know nothing else, so they can't tell the two apart.
Times are ms of the observer's clock, which no device shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.records import Row


@dataclass(slots=True)
class Observation:
    """Something that happened at `at_ms`."""

    at_ms: int


@dataclass(slots=True)
class RunBegan(Observation):
    """A process of this attempt lives on the device from now on."""

    device: str
    task: str
    attempt: int
    at_most_one: bool
    lease_ms: int
    weak: bool = False
    """The device can't contain runs: its holds are longer (L4)."""


@dataclass(slots=True)
class RunEnded(Observation):
    """Nothing of that run lives any more."""

    device: str
    task: str
    attempt: int


@dataclass(slots=True)
class RunFrozen(Observation):
    """The machine was suspended: the run lives and executes nothing. It counts as live again
    only when it thaws; its end may come before that."""

    device: str
    task: str
    attempt: int


@dataclass(slots=True)
class RunThawed(Observation):
    """The run executes again."""

    device: str
    task: str
    attempt: int


@dataclass(slots=True)
class JournalLost(Observation):
    """The device forgot who it was and what it ran."""

    device: str


@dataclass(slots=True)
class Committed(Observation):
    """One transaction of the leader, with the epoch that it was conditional on.

    The rows are read at once and copied where they are kept: a core may go on changing them.
    """

    epoch: int
    rows: tuple[Row, ...]


@dataclass(slots=True)
class DatabaseRead(Observation):
    """What somebody found in the database who has no part in writing it: open jobs with their open tasks."""

    rows: tuple[Row, ...]


@dataclass(slots=True)
class JobAccepted(Observation):
    """Somebody was told that his job is accepted, with so many tasks."""

    job: str
    count: int


@dataclass(slots=True)
class DatabaseRestored(Observation):
    """An older copy was put back; from here its content is the truth (§11)."""

    rows: tuple[Row, ...]
    marked: bool = True
    """Whether the copy says that it is one; else the controllers must find out (D1)."""


@dataclass(slots=True)
class Delivered(Observation):
    """The broker handed a publication to a client (`received`), or took one from it."""

    client: str
    received: bool
    topic: str
    payload: bytes
    publisher: str = ""
    """Whose connection it came from, where that is known."""


@dataclass(slots=True)
class Shown(Observation):
    """What people were shown of a device: `online`, `suspect` or `offline`."""

    device: str
    state: str
    session: int = 0
    period_ms: int = 0
    """How often the device beats."""
    hearing_ms: int = 0
    """Since when the one who shows it hears and counts silence; 0: it does not, and claims nothing."""
    by: str = ""
    """Client id of the one who shows it."""


@dataclass(slots=True)
class OutputWritten(Observation):
    """A run wrote these bytes from `offset` on."""

    device: str
    task: str
    attempt: int
    stream: int
    offset: int
    data: bytes


@dataclass(slots=True)
class OutputDropped(Observation):
    """The device has no captured output of this attempt any more. `full`: for want of room."""

    device: str
    task: str
    attempt: int
    full: bool = False


@dataclass(slots=True)
class OutputLost(Observation):
    """The power failed before the end of this stream was on the card: `size` bytes are left."""

    device: str
    task: str
    attempt: int
    stream: int
    size: int


@dataclass(slots=True)
class RestartBegan(Observation):
    """One component is restarted while all else is well (I12). `tasks` run and have no reason of their
    own to change, but to end well."""

    what: str
    tasks: tuple[str, ...]


@dataclass(slots=True)
class RestartOver(Observation):
    """It is back, and so is everybody who had to reconnect."""

    what: str


@dataclass(slots=True)
class Measured(Observation):
    """A size that must stay below a bound under steady load (I14)."""

    name: str
    value: int
    bound: int


@dataclass(slots=True)
class OutOfBounds(Observation):
    """A fault outside the assumptions began: these invariants don't hold for `device` ("": for
    anybody) until `until_ms`; what is checked instead is the fault's own business. A later one of
    the same device and `why` takes its place: its end is told when it is known."""

    device: str
    invariants: tuple[str, ...]
    until_ms: int
    why: str
