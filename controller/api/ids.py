"""Job ids: `j` + nine characters of time + six of chance; later ids sort after earlier ones.

Rule: lower case letters and digits only, since a job's id is part of its tasks' ids,
which name directories and stand on the wire (`[a-z0-9]+`). Within one process ids rise
strictly, so a list in the order of ids is a list in the order of submission.
Rejected: UUIDs (36 characters to read aloud, and no order); a counter in the database
(the id must be known before the commit).
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.run_ids import TIME_CHARS, base32

_CHANCE_CHARS = 6
_CHANCE_BITS = 5 * _CHANCE_CHARS


class JobIds:
    """Mints ids. `random_bits(n)` gives n random bits (`random.Random.getrandbits`)."""

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self._random_bits = random_bits
        self._last_ms = 0
        self._last_chance = 0

    def mint(self, wall_ms: int) -> str:
        """A fresh id; a clock that stands still or steps back doesn't repeat or reorder ids."""
        if wall_ms > self._last_ms:
            # One bit less than there is room for: the increments below never run out in practice.
            self._last_ms, self._last_chance = wall_ms, self._random_bits(_CHANCE_BITS - 1)
        else:
            self._last_chance += 1
            if self._last_chance >> _CHANCE_BITS:
                self._last_ms, self._last_chance = self._last_ms + 1, 0
        return f"j{base32(self._last_ms, TIME_CHARS)}{base32(self._last_chance, _CHANCE_CHARS)}"
