"""Leadership: when another's may be taken over, and how a taken one begins (L6, D1).

A leader speaks for at most `SPEAK_MS` of its clock after it asked for its last renewal.
Whoever waits in its stead looks at the leader's row again and again, and takes over what
it has seen unchanged for `LEADER_MS` of its *own* clock. With clock rates within 1 % that
is 11.88 s at least, and the voice is gone after 11.01 s at most: two never speak.
Rule of this file: no wall clock decides who leads. The row's wall time is compared for
equality only, so a clock that jumps an hour or ten years neither ends a leadership nor
locks anybody out, and no hold has to be longer after a take-over than after a restart.
Rejected: the age of the row by the server's clock (a jump forward puts a second leader
beside the first one's last grants); a wait before speaking after a take-over (every
failover would outlast a lease).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.core.records import LeaderRow
from protocol.limits import CLOCK_RATE_PPM, LEADER_MS

SPEAK_MS = LEADER_MS * (1_000_000 - 5 * CLOCK_RATE_PPM) // 1_000_000 - 500
"""How long a renewal lets us speak: shorter than the row lasts, whatever the clocks do."""
WATCH_MS = 1_000
"""How often who waits looks at the row: a second of the fleet's patience, and one small read."""


class Led(Exception):
    """Another holder leads, as far as its row tells; `row` is what to watch."""

    def __init__(self, row: LeaderRow) -> None:
        super().__init__(f"{row.holder} leads under epoch {row.epoch}")
        self.row = row


@dataclass(slots=True)
class Takeover:
    """What `lead` found. `clean`: the last leader stopped in good order.

    `stale`: the leader row was not renewed for LEADER_GAP_MS (or lies in the future) and there
    is no clean mark. `marked`: a `RESTORED` mark stands from before, by restore or by a stale
    take-over whose wait was never committed. After either the fleet waits one full hold.
    `before` is the epoch that was stored.
    """

    stale: bool
    clean: bool
    marked: bool
    before: int = field(default=0, compare=False)


class Standby:
    """Watches a leader's row on the own clock."""

    def __init__(self) -> None:
        self.row: LeaderRow | None = None
        self._since_ms = 0

    def note(self, row: LeaderRow, now_ms: int) -> bool:
        """The row as just read; whether that is another leadership than the one seen before."""
        known, self.row = self.row, row
        if known != row:
            self._since_ms = now_ms
        return known is None or known.epoch != row.epoch

    def left_ms(self, now_ms: int) -> int:
        """How long its silence must yet last."""
        return max(0, LEADER_MS - (now_ms - self._since_ms))

    def unrenewed(self, now_ms: int) -> LeaderRow | None:
        """The row that was silent for long enough: `lead` takes over exactly this one."""
        return self.row if self.row is not None and not self.left_ms(now_ms) else None

    def forget(self) -> None:
        """We lead: what was seen says nothing any more."""
        self.row = None


@dataclass(slots=True)
class Beginning:
    """How a leadership begins. `asked_ms`: core time before it was asked for.

    `wait`: nothing is placed for one hold, because the database may be older than the
    fleet (L6). `restored`: it surely is (D1): attempt numbers start above the epoch.
    """

    asked_ms: int
    wait: bool = False
    restored: bool = False
    wall_offset_ms: int = 0


@dataclass(slots=True)
class Finding:
    """What a leader found out (D1): under epoch `own` a revision of epoch `above` was named."""

    own: int = 0
    above: int = 0

    def counts(self, found: Takeover) -> bool:
        """Whether the database is older than the fleet. While nobody has led since; else the later
        revision was that leader's, and it is we who were old."""
        return bool(self.above) and (found.before == self.own or self.above > found.before)

    def under(self, epoch: int, found: Takeover) -> Finding:
        """What of it stands now that we lead under `epoch`: a core that can't be loaded is tried again."""
        return Finding(epoch, self.above) if self.counts(found) else Finding()


def beginning(
    found: Takeover, finding: Finding, devices: bool, asked_ms: int, wall_offset_ms: int
) -> Beginning:
    """Whether to wait, and whether the database is surely older than the fleet.

    `devices`: an empty fleet need not be waited for.
    """
    waits = (found.stale or found.marked) and devices
    return Beginning(asked_ms, waits, finding.counts(found) or found.marked, wall_offset_ms)
