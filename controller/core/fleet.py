"""The fleet in columns: one numpy array per fact, a device is a row number.

Rule of this file: it is the only writer of these columns; every other machine reads
them and asks here for a change. Facts that no whole-fleet expression needs stay in the
device's record. It knows nothing of jobs, topics or timers.
Rejected: an object per device (a sweep of 10,000 costs milliseconds instead of
microseconds); one matrix of all facts (12 times slower to scan, and untyped).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from controller.core.facts import Facts
from controller.core.records import DeviceRow, DocumentRow, clone
from controller.scheduler.view import Share, View
from protocol import limits
from protocol.limits import ACCELERATORS_MAX, DOCUMENT_ATTEMPTS_MAX, PAYLOAD_BYTES_MAX
from protocol.messages import Inventory, Revision, Used
from protocol.resources import ZERO, Resources

OFFLINE, SUSPECT, ONLINE = 0, 1, 2
STATE_WORDS = ("offline", "suspect", "online")
SITES_MAX = 10_000
"""A device that invents a site with each inventory must not fill the memory."""
NEVER = -(2**62)
"""A time before every other one."""

DOCUMENT_BYTES_MAX = PAYLOAD_BYTES_MAX - 256

Offer = Callable[[str, Resources], Resources]
"""(profile, capacity) -> what of it may be reserved."""
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Sessions = npt.NDArray[np.uint64]

_INTS = (
    "heard_ms", "willed_ms", "heartbeat_ms", "flapped_ms", "flaps", "state_since_ms",
    "doc_epoch", "doc_number", "granted_number", "granted_ms", "published_ms", "floor_ms",
    "runs_number", "inventory", "settings_epoch", "settings_number", "settings_sent_ms",
    "held", "site", "stored", "lost_ms", "shortest_ms",
)  # fmt: skip
_SESSIONS = ("session", "runs_session", "granted_session", "outbox")
_FLAGS = ("cordoned", "draining", "quarantined", "removed", "weak", "known")
_NEVER_COLUMNS = (
    "heard_ms",
    "willed_ms",
    "flapped_ms",
    "granted_ms",
    "published_ms",
    "settings_sent_ms",
    "lost_ms",
)


def whole_capacity(profile: str, capacity: Resources) -> Resources:
    """A device offers what it has: no overcommit, nothing kept back."""
    return capacity


class Fleet:
    """Columns of every device that was ever admitted; rows are never reused."""

    heard_ms: Ints
    willed_ms: Ints
    heartbeat_ms: Ints
    flapped_ms: Ints
    flaps: Ints
    state_since_ms: Ints
    doc_epoch: Ints
    doc_number: Ints
    granted_number: Ints
    granted_ms: Ints
    published_ms: Ints
    floor_ms: Ints
    runs_number: Ints
    inventory: Ints
    settings_epoch: Ints
    settings_number: Ints
    settings_sent_ms: Ints
    held: Ints
    site: Ints
    stored: Ints
    lost_ms: Ints
    shortest_ms: Ints
    outbox: Sessions
    session: Sessions
    runs_session: Sessions
    granted_session: Sessions
    cordoned: Flags
    draining: Flags
    quarantined: Flags
    removed: Flags
    weak: Flags
    known: Flags
    state: npt.NDArray[np.int8]

    def __init__(self, offer: Offer = whole_capacity, profiles: tuple[str, ...] = ()) -> None:
        self.offer, self.profiles = offer, profiles
        self.count = 0
        self.names: list[str] = []
        self.index: dict[str, int] = {}
        self.records: list[DeviceRow] = []
        self.facts = Facts(self.records)
        self.sites: dict[str, int] = {}
        self.forgiven_ms = NEVER
        """Silence is counted from here on: before, we heard nobody."""
        self.room_generation = 0
        """Rises whenever a device may have become able to take a task."""
        self.retold: list[int] = []
        """Rows whose attributes, taints or place in the fleet changed; `daemons` empties it."""
        self.facts_generation = 0
        """Rises whenever an attribute that constraints look at has changed."""
        self._size = 0
        self.view = View()
        """Room and condition, as the scheduler sees them."""
        self.aside: dict[int, Resources] = {}
        """What of each row's free room is set aside in the view, and no reservation."""
        self.used: list[Ints] = [np.zeros(0, np.int64) for _ in Used._fields]
        for name in (*_INTS, *_SESSIONS, *_FLAGS, "state"):
            setattr(self, name, np.zeros(0, _dtype(name)))

    # ------------------------------------------------------------- admission

    def admit(self, record: DeviceRow, document: DocumentRow | None) -> int:
        """Gives a device its row number, for good."""
        if self.count == self._size:
            self._grow(max(64, self._size * 2))
        row = self.view.add()
        self.view.document_bytes_free[row], self.view.fit[row] = DOCUMENT_BYTES_MAX, True
        self.count += 1
        self.names.append(record.device)
        self.index[record.device] = row
        self.records.append(record)
        self.session[row] = record.session
        self.settings_epoch[row] = record.settings_epoch
        self.settings_number[row] = record.settings_number
        if document is not None:
            self.doc_epoch[row], self.doc_number[row] = document.epoch, document.number
        self._describe(row)
        self.decide(row)
        return row

    def _grow(self, size: int) -> None:
        for name in (*_INTS, *_SESSIONS, *_FLAGS, "state"):
            old = getattr(self, name)
            new = np.full(size, NEVER if name in _NEVER_COLUMNS else 0, _dtype(name))
            new[: len(old)] = old
            setattr(self, name, new)
        self.used[:] = [np.concatenate([c, np.zeros(size - len(c), np.int64)]) for c in self.used]
        self._size = size

    def describe(self, row: int, message: Inventory, shares: Iterable[Share] = ()) -> None:
        """Takes over what a device says it is; `shares` are reserved there and stay so."""
        record = self.records[row]
        before = clone(record)
        record.profile, record.capacity, record.labels = message.profile, message.capacity, message.labels
        record.runtimes, record.version, record.limits = message.runtimes, message.version, message.limits
        record.containment, record.heartbeat_ms = message.containment, message.heartbeat_ms
        record.accelerators = tuple((a.name, a.model, a.milli) for a in message.accelerators)
        record.extras, record.core_speed_milli = message.extras, message.core_speed_milli
        before.inventory = record.inventory = message.number
        if record == before:
            return  # as at the begin of most sessions: whoever waits need not be looked at for that
        self._describe(row, shares)
        self._retell(row)

    def _describe(self, row: int, shares: Iterable[Share] = ()) -> None:
        record = self.records[row]
        self._offer(row, list(shares))
        self.weak[row] = record.containment == "weak"
        self.heartbeat_ms[row] = record.heartbeat_ms or limits.HEARTBEAT_MS
        self.known[row] = bool(record.runtimes)
        site = record.labels.get("site", "")
        if site not in self.sites and len(self.sites) >= SITES_MAX:
            site = ""
        self.site[row] = self.sites.setdefault(site, len(self.sites))
        self._judge(row)

    def _offer(self, row: int, shares: list[Share]) -> None:
        """What may be reserved there, the capacity by its profile's rule, less what is."""
        record, view = self.records[row], self.view
        offered = self.offer(record.profile, record.capacity)
        if not offered.slots:
            offered = offered._replace(slots=DOCUMENT_ATTEMPTS_MAX)
        view.core_speed_milli[row] = record.core_speed_milli
        reserved, extras = ZERO, dict[str, int]()
        for share in shares:
            reserved = reserved.plus(share.resources)
            for name, amount in share.extras:
                extras[name] = extras.get(name, 0) + amount
        view.offer(row, offered, reserved, accelerators_of(record), record.extras, extras)
        for share in shares:
            view.take_accelerators(row, share)
        self.room_generation += 1

    def _judge(self, row: int) -> None:
        """Whether it may be given something, from all that is known of it."""
        view, before = self.view, bool(self.view.takes(row))
        view.online[row] = bool(
            self.state[row] == ONLINE and self.runs_session[row] == self.session[row] and self.known[row]
        )
        view.open[row] = not (
            self.cordoned[row] or self.draining[row] or self.quarantined[row] or self.removed[row]
        )
        if before != (now := bool(view.takes(row))):
            view.touch(row)
            if now:
                self.room_generation += 1

    def decide(self, row: int) -> None:
        """Takes over an operator's decisions from the record."""
        record = self.records[row]
        if record.removed != self.removed[row]:
            self.retold.append(row)
        self.cordoned[row], self.draining[row] = record.cordoned, record.draining
        self.quarantined[row], self.removed[row] = record.quarantined, record.removed
        self._judge(row)

    def taint(self, row: int, taints: tuple[str, ...]) -> None:
        """An operator's marks on a device; `decide` is not needed."""
        self.records[row].taints = taints
        self._retell(row)

    def _retell(self, row: int) -> None:
        """What conditions look at has changed."""
        self.facts.changed(row)
        self.retold.append(row)
        self.facts_generation += 1
        self.room_generation += 1

    def rows(self, devices: Sequence[str]) -> Ints:
        """Where these stand, for good; -1 for who is not known."""
        return np.fromiter(map(self.index.get, devices, repeat(-1)), np.int64, len(devices))

    # ------------------------------------------------------------- sessions and life

    def begin_session(self, row: int, session: int) -> None:
        """A higher session than known: nothing of the old one counts any more."""
        self.records[row].session = session
        self.session[row] = session
        self.willed_ms[row] = NEVER
        # Inventories are numbered per session: the last session's number would pass for this one's.
        self.inventory[row] = 0
        # Of health, too, nothing is told at its begin: what is no longer measured must not stand for ever.
        self.view.forget_health(row)
        self._judge(row)

    def forget_session(self, row: int) -> None:
        """As if this device had never spoken."""
        self.begin_session(row, 0)
        self.runs_session[row] = self.runs_number[row] = self.granted_session[row] = 0
        self._judge(row)

    def note_heartbeats(self, rows: Ints, used: Ints, now_ms: int) -> None:
        """Signs of life of many devices at once; `used` is (n, 3)."""
        self.heard_ms[rows] = now_ms
        for column, values in zip(self.used, used.T, strict=True):
            column[rows] = values

    def note_granted(self, rows: Ints, now_ms: int) -> None:
        """The present document of these devices is granted, in their present session."""
        self.granted_ms[rows] = now_ms
        self.granted_number[rows] = self.doc_number[rows]
        self.granted_session[rows] = self.session[rows]

    def note_will(self, row: int, now_ms: int) -> None:
        self.willed_ms[row] = now_ms

    def clear_will(self, row: int) -> None:
        self.willed_ms[row] = NEVER

    def note_state(self, row: int, state: int, now_ms: int) -> None:
        if self.state[row] == ONLINE:
            self.lost_ms[row] = now_ms
        self.state[row] = state
        self.state_since_ms[row] = now_ms
        self._judge(row)

    def note_flap(self, row: int, now_ms: int, forget_ms: int) -> None:
        """One more loss; the count halves for each `forget_ms` that passed in peace."""
        quiet = min(max(0, now_ms - int(self.flapped_ms[row])) // forget_ms, 62)
        self.flaps[row] = (int(self.flaps[row]) >> quiet) + 1
        self.flapped_ms[row] = now_ms

    def hear_all(self, now_ms: int) -> None:
        """After an outage of our own link nobody is blamed for having been silent."""
        np.maximum(self.heard_ms[: self.count], now_ms, out=self.heard_ms[: self.count])
        self.forgiven_ms = now_ms

    # ------------------------------------------------------------- documents

    def document(self, row: int) -> Revision:
        return Revision(int(self.doc_epoch[row]), int(self.doc_number[row]))

    def note_document(self, row: int, revision: Revision, shortest_ms: int) -> None:
        """A new revision; `shortest_ms` of the leases in it, 0 when it lists nothing."""
        self.doc_epoch[row], self.doc_number[row] = revision
        self.shortest_ms[row] = shortest_ms

    def periods_ms(self) -> Ints:
        """How often each device beats: as it said, or for the shortest lease that it was granted."""
        n = self.count
        own, shortest = self.heartbeat_ms[:n], self.shortest_ms[:n]
        granted = (self.granted_number[:n] == self.doc_number[:n]) & (
            self.granted_session[:n] == self.session[:n]
        )
        third = np.maximum(shortest // 3, limits.HEARTBEAT_MS_MIN)
        return np.where(granted & (shortest > 0), np.minimum(own, third), own)

    def note_published(self, row: int, now_ms: int) -> None:
        self.published_ms[row] = now_ms

    def note_runs(self, row: int, session: int, number: int) -> None:
        self.runs_session[row] = session
        self.runs_number[row] = number
        self._judge(row)

    def note_inventory(self, row: int, number: int) -> None:
        self.inventory[row] = number

    def note_settings(self, row: int, revision: Revision) -> None:
        self.settings_epoch[row], self.settings_number[row] = revision
        record = self.records[row]
        record.settings_epoch, record.settings_number = revision

    def note_settings_sent(self, row: int, now_ms: int) -> None:
        self.settings_sent_ms[row] = now_ms

    def note_stored(self, row: int, outbox: int, seq: int) -> None:
        """Output of this outbox is stored up to `seq`."""
        self.outbox[row], self.stored[row] = outbox, seq

    def mourn(self, rows: Flags, now_ms: int) -> None:
        """These devices count as lost just now, unless they speak."""
        self.lost_ms[: self.count][rows] = now_ms

    def forgive(self, rows: Flags) -> None:
        """These losses no longer count towards a storm."""
        self.lost_ms[: self.count][rows] = NEVER

    def granted(self, row: int) -> bool:
        """Whether the present document was granted in the present session."""
        return bool(
            self.granted_number[row] == self.doc_number[row]
            and self.granted_session[row] == self.session[row]
        )

    # ------------------------------------------------------------- room

    def reserve(self, row: int, share: Share, entry_bytes: int) -> None:
        self.view.take(row, share, entry_bytes)
        self.held[row] += 1

    def release(self, row: int, share: Share, entry_bytes: int) -> None:
        self.view.give(row, share, entry_bytes)
        self.held[row] -= 1
        self.room_generation += 1

    def set_aside(self, row: int, share: Share, entry_bytes: int) -> None:
        """Room that nobody else may take, though nobody has reserved it yet."""
        self.view.set_aside(row, share, entry_bytes)
        self.aside[row] = self.aside.get(row, ZERO).plus(share.resources)

    def give_back(self, row: int, share: Share, entry_bytes: int) -> None:
        """Ends that, if only for a moment."""
        self.view.set_aside(row, share, entry_bytes, -1)
        self.aside[row] = self.aside[row].minus(share.resources)
        if self.aside[row] == ZERO:
            del self.aside[row]

    def note_room(self) -> None:
        """Something that was kept from others may be had."""
        self.room_generation += 1

    def capacity_of(self, row: int) -> Resources:
        return self.records[row].capacity

    def offered_of(self, row: int) -> Resources:
        return Resources(*[int(c[row]) for c in self.view.offered])

    def free_of(self, row: int) -> Resources:
        """What may still be reserved there; negative where it shrank below what is."""
        free = Resources(*[int(c[row]) for c in self.view.free])
        return free.plus(self.aside[row]) if row in self.aside else free

    def reserved_of(self, row: int) -> Resources:
        return self.offered_of(row).minus(self.free_of(row))

    def used_of(self, row: int) -> Resources:
        return Resources(*[int(c[row]) for c in self.used])

    def hold_ms(self, row: int, lease_ms: int) -> int:
        """How long after a grant an attempt of this lease counts as held on this device."""
        return limits.hold_ms(lease_ms, bool(self.weak[row]))

    def total(self, columns: list[Ints], rows: Flags) -> Resources:
        return Resources(*[int(c[rows].sum()) for c in columns])


def accelerators_of(record: DeviceRow) -> list[tuple[str, int]]:
    """(model, milli) of each of a device's accelerators; unnamed ones are thousands of its `gpu_milli`."""
    if record.accelerators:
        return [(model, milli) for _, model, milli in record.accelerators]
    whole, rest = divmod(min(record.capacity.gpu_milli, 1_000 * ACCELERATORS_MAX), 1_000)
    return [("", 1_000)] * whole + ([("", rest)] if rest else [])


def _dtype(name: str) -> type[np.generic]:
    if name in _SESSIONS:
        return np.uint64
    if name in _FLAGS:
        return np.bool_
    return np.int8 if name == "state" else np.int64
