"""What the controller asks of the world, beside the words shared with the agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from protocol.core import Effect, Event
from protocol.messages import Revision


@dataclass(slots=True)
class Reply(Effect):
    """Answer to the request with this number: a view, or a `RefusalView`."""

    request: int
    body: object


@dataclass(slots=True)
class PublishLeases(Effect):
    """Grants for many devices at once: columns of the same length, each row one `LeaseAnswer`.

    `sessions`, `seqs`, `runs`, `inventories`: what the heartbeats named; the granted
    revision is the document each holds (`epochs`, `numbers`); 0.0 where it has none.
    """

    epoch: int
    devices: Sequence[str]
    sessions: npt.NDArray[np.uint64]
    seqs: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    runs: npt.NDArray[np.int64]
    inventories: npt.NDArray[np.int64]
    outboxes: npt.NDArray[np.uint64]
    stored: npt.NDArray[np.int64]

    def of(self, which: npt.NDArray[np.bool_]) -> PublishLeases:
        """Only those rows."""
        return PublishLeases(
            self.epoch, list(compress(self.devices, which)), self.sessions[which], self.seqs[which],
            self.epochs[which], self.numbers[which], self.runs[which], self.inventories[which],
            self.outboxes[which], self.stored[which],
        )  # fmt: skip


@dataclass(slots=True)
class PublishFleet(Effect):
    """Send a fleet-wide message (`ControllerStatus`, `Canary`) on the controller's own topic."""

    message: object


@dataclass(slots=True)
class ClearRetained(Effect):
    """Delete every retained message of a removed device."""

    device: str


@dataclass(slots=True)
class Confirm(Effect):
    """Feed `event` back: it stands behind the `Save`, so it arrives only if that succeeded."""

    event: Event


@dataclass(slots=True)
class TakeEpoch(Effect):
    """The database is older than the fleet: lead anew with an epoch above this one, then wait (D1, L6)."""

    above: int
    seen: Revision
