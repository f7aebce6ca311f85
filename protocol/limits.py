"""Every bound of the wire: a name with its unit last, a number, a reason.

Rule of this file: a number that both sides must agree on, or that protects one side
from the other, stands here once. Settings that only one program knows do not.
"""

from __future__ import annotations

PROTOCOL_VERSION = 1

# ------------------------------------------------------------------------- sizes

PAYLOAD_BYTES_MAX = 65_536
"""A broker's common packet limit is far above; a Pi Zero parses this in 20 ms."""
TOPIC_BYTES_MAX = 200
"""`fm/1/` + two ids of 64 + the longest channel is 148; brokers' ACL lines stay readable."""
DECODE_DEPTH_MAX = 6
"""Our deepest message is 4 maps deep; hostile nesting stops here, before it costs memory."""
DOCUMENT_ATTEMPTS_MAX = 512
"""Attempts one device may hold; the payload bound is usually met first."""
ARGV_ITEMS_MAX = 256
ARGV_ITEM_CHARS_MAX = 8_192
"""Half of Linux's 128 KiB per string would not fit one payload anyway."""
ENV_ITEMS_MAX = 128
LABELS_MAX = 64
LABEL_CHARS_MAX = 256
REASON_CHARS_MAX = 200
OUTPUT_CHUNK_BYTES_MAX = 16_384
"""One chunk takes 1.3 s of a 100 kbit/s link: fresh data never waits long behind it."""
OUTPUT_BYTES_MAX = 1_048_576
"""Default cap of one attempt's captured output per stream."""
OUTPUT_BYTES_CEILING = 16_777_216
OUTBOX_WINDOW = 32
"""Chunks in flight without an acknowledgement."""
INT_MAX = 2**63 - 1
SESSION_MAX = 2**64 - 1
SESSION_LEAP_MAX = 2**52
"""A session so far above all others was never reached by counting (2^28 connections): one false
message must not use up the numbers that a device has for its whole life."""
MILLI_MAX = 10_000_000
"""cpu_milli and gpu_milli of one device: 10,000 cores."""
MIB_MAX = 2**40
ACCELERATORS_MAX = 16
"""Of one device: what the largest servers hold; a board has one or two."""
EXTRAS_MAX = 32
"""Kinds of site-defined resources of one device, or of one task."""
HEALTH_MAX = 1_000_000
"""Any number of a health row: degrees, percent, milliseconds, flags."""

# ------------------------------------------------------------------------- time (ms)

CLOCK_RATE_PPM = 10_000
"""rho: clock rates of two machines differ by at most 1 %."""
KILL_MS = 2_000
"""K: what a guard needs to kill a task tree."""
HEARTBEAT_MS = 10_000
HEARTBEAT_MS_MIN = 1_000
HEARTBEAT_RETRY_MS = 2_000
"""An unanswered heartbeat is sent again: at 2 % loss per hop two renewals alone are not enough."""
HEARTBEAT_SPACING_MS = 1_000
"""A heartbeat that only repeats comes at most once a second."""
LEASE_MS = 30_000
LEASE_MS_MIN = 6_000
"""Below it lease - K leaves no room for three heartbeats a second apart."""
LEASE_MS_MAX = 7 * 86_400_000
HOLD_MARGIN_MS = 1_000
GUARD_RESTART_MS = 30_000
"""Weak containment: how long a dead guard's runs may outlive their deadline."""
KEEPALIVE_S = 10
SUSPECT_HEARTBEATS = 2.5
OFFLINE_HEARTBEATS = 4.0
WILL_GRACE_MS = 400
"""From a will to offline, doubled per recent flap: a reconnecting device is back by then."""
LEADER_MS = 12_000
LEADER_GAP_MS = 24_000
"""A leader row that was not renewed for this long: a restored copy is suspected."""
STOP_GRACE_MS = 5_000
STOP_GRACE_MS_MAX = 600_000
EXPIRY_GRACE_SHARE = 12
"""At a lease's end TERM comes before KILL by at most this share of the lease: 2.3 s of the default one, so
that a 5 s blip and an 8 s reconnect wait behind an old heartbeat still find the run alive."""
COMMAND_TTL_MS = 10_000
DURATION_MS_MAX = 366 * 86_400_000


def hold_ms(lease_ms: int, weak: bool = False) -> int:
    """How long the controller must wait after the last grant: lease x (1 + 3 rho) + margin.

    `weak` adds what a dead guard's successor may need to sweep (rule L4).
    """
    extra = GUARD_RESTART_MS if weak else 0
    return lease_ms + lease_ms * 3 * CLOCK_RATE_PPM // 1_000_000 + HOLD_MARGIN_MS + extra


def heartbeat_for(lease_ms: int, wanted_ms: int) -> int:
    """A device's period: at most a third of the shortest lease it holds."""
    return max(HEARTBEAT_MS_MIN, min(wanted_ms, lease_ms // 3))
