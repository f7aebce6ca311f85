"""A machine's own clock: CLOCK_BOOTTIME as a quartz of its own keeps it.

Rule of this file: it only goes forward. A rate that changes changes from now on, what was
counted stays; a boot begins anew. Suspend is counted, as the real one does.
It knows no wall time: agent and guard compare none, so a jump of it changes nothing here.
"""

from __future__ import annotations

from sim.clockwork import Clockwork

PPM = 1_000_000


class LocalClock:
    """Fast or slow by `rate_ppm` against the world."""

    def __init__(self, clock: Clockwork, rate_ppm: int) -> None:
        self.clock = clock
        self.rate_ppm = rate_ppm
        self._world_ms = self._local_ms = 0

    def begin(self, local_ms: int) -> None:
        """The clock of a machine that boots shows this now."""
        self._world_ms, self._local_ms = self.clock.now_ms, local_ms

    def anchor(self) -> tuple[int, int]:
        """(world, own time) from which both are counted at the present rate."""
        return self._world_ms, self._local_ms

    def local_ms(self) -> int:
        passed = self.clock.now_ms - self._world_ms
        return self._local_ms + passed * (PPM + self.rate_ppm) // PPM

    def world_ms(self, local_ms: int) -> int:
        """The first moment of the world at which this clock shows `local_ms`."""
        passed = max(0, local_ms - self._local_ms)
        return self._world_ms + -(-passed * PPM // (PPM + self.rate_ppm))

    def set_rate(self, rate_ppm: int) -> None:
        """From now on so fast or slow. Whoever waits for a moment must look anew when it comes."""
        self.begin(self.local_ms())
        self.rate_ppm = rate_ppm
