"""Weather: how bad the network is at a moment, and the dice thrown for each message.

Rule of this file: a die is thrown only for what the present weather has at all, so a fair
day costs nothing. Everything is per message and per way. It knows no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from protocol.messages import LeaseAnswer

_ANSWERS = f"/{LeaseAnswer.channel}"


@dataclass(slots=True)
class Weather:
    """Shares are 0…1, durations ms."""

    latency_ms: tuple[int, int] = (1, 5)
    lost: float = 0.0
    """Of QoS 0 messages."""
    doubled: float = 0.0
    """Of QoS 1 messages."""
    straggling: float = 0.0
    """Of all messages; they come up to `straggle_ms` late and out of order."""
    straggle_ms: int = 15_000
    lost_answers: float = 0.0
    """Of lease answers on their way down, on top of `lost`."""
    dropped: float = 0.0
    """Of QoS 1 messages; each costs its connection."""

    def latency(self, rng: Random) -> int:
        low, high = self.latency_ms
        return low + int(rng.random() * (high - low + 1))

    def lateness(self, rng: Random) -> int:
        """How much later than others a straggler comes."""
        return int(rng.random() * (self.straggle_ms + 1))

    def loses(self, rng: Random) -> bool:
        return self.lost > 0 and rng.random() < self.lost

    def loses_answer(self, rng: Random, topic: str) -> bool:
        share = self.lost_answers
        return share > 0 and topic.endswith(_ANSWERS) and rng.random() < share

    def drops(self, rng: Random) -> bool:
        return self.dropped > 0 and rng.random() < self.dropped

    def strays(self, rng: Random) -> bool:
        return self.straggling > 0 and rng.random() < self.straggling

    def copies(self, rng: Random) -> int:
        return 2 if self.doubled > 0 and rng.random() < self.doubled else 1
