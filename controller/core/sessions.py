"""Sessions: which connection of a device speaks, and what is told to those that lag.

A session number never recurs (S1). Lower ones are dropped and answered with the floor;
a higher one is committed before anything is granted in it. Two identities alternating
under one device id quarantine it (S4). It knows no leases and no documents.
"""

from __future__ import annotations

from controller.core.fleet import NEVER
from controller.core.ledger import Ledger
from controller.core.records import DeviceRow
from protocol.limits import SESSION_LEAP_MAX
from protocol.messages import Revision, Settings, Status
from protocol.resources import ZERO

DEVICES_MAX = 200_000
"""Rows are for life; whoever may publish under arbitrary ids must not fill the memory."""
FLOOR_MS = 1_000
FLAP_FORGET_MS = 300_000


def new_device(device: str, wall_ms: int) -> DeviceRow:
    """A device of which nothing is known yet."""
    return DeviceRow(
        device, 0, "", "", "", 0, "", ZERO, {}, (), "strong", 0, "", False, False, False, False, 0, 0, wall_ms
    )


class Sessions:
    """Admission of devices and of their sessions; the only sender of `Settings`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.sent: dict[int, Settings] = {}

    def row_of(self, device: str, now_ms: int) -> int | None:
        """The device's row, admitting it if it is new; None if it was removed or the fleet is full."""
        row = self.fleet.index.get(device)
        if row is None:
            return self.admit(device, now_ms)
        if self.fleet.removed[row]:
            self.ledger.count_garbage("removed_device")
            return None
        return row

    def admit(self, device: str, now_ms: int) -> int | None:
        """Whoever the broker lets speak under a device's topic is a device."""
        if self.fleet.count >= DEVICES_MAX:
            self.ledger.count_garbage("too_many_devices")
            return None
        record = new_device(device, self.ledger.wall(now_ms))
        row = self.ledger.admit(record)
        self.ledger.save(record)
        self.ledger.audit(now_ms, "device", device, "", "known", actor=device)
        return row

    def accept(self, row: int, session: int, now_ms: int) -> bool:
        """Whether this session may speak; a new one is committed, a lower one told the floor."""
        known = int(self.fleet.session[row])
        if session < max(known, 1):  # 0 is the session of a row that has none
            self.ledger.count("old_session_dropped")
            self.tell_floor(row, now_ms)
            return False
        if session > known + SESSION_LEAP_MAX:
            self.ledger.count_garbage("implausible_session")
            return False
        if session > known:
            if known and self.fleet.willed_ms[row] > NEVER:
                self.fleet.note_flap(row, now_ms, FLAP_FORGET_MS)
            self.fleet.begin_session(row, session)
            self.ledger.save(self.fleet.records[row])
        return True

    def newer(self, row: int, session: int) -> bool:
        """Whether this session is above the highest that was accepted."""
        return session > int(self.fleet.session[row])

    def forget(self, row: int) -> None:
        """An operator lets a removed device join again: whatever number it comes with is its first.

        Old grants fit no heartbeat of a session drawn anew, and what was granted before ends by its hold.
        """
        self.fleet.forget_session(row)
        record = self.fleet.records[row]
        record.boot_id = record.instance_id = record.previous_identity = ""

    def identify(self, row: int, status: Status) -> bool:
        """Takes note of who speaks; True when two identities alternate: A, B, then A again."""
        record = self.fleet.records[row]
        if (record.boot_id, record.instance_id) == (status.boot_id, status.instance_id):
            return False
        present = f"{record.boot_id}/{record.instance_id}"
        alternates = record.previous_identity == f"{status.boot_id}/{status.instance_id}"
        record.previous_identity = present if record.instance_id else ""
        record.boot_id, record.instance_id = status.boot_id, status.instance_id
        self.ledger.save(record)
        return alternates

    # ------------------------------------------------------------- settings

    def tell_floor(self, row: int, now_ms: int) -> None:
        """Answers a dropped message with the highest session known, at most once a second."""
        if now_ms - int(self.fleet.settings_sent_ms[row]) >= FLOOR_MS:
            self.publish_settings(row, now_ms)

    def settings_differ(self, row: int, held: Revision, now_ms: int) -> None:
        """A heartbeat names other settings than ours: once more.

        Later ones of an earlier epoch were told by a database that is lost; ours go out under a new revision.
        """
        ours = Revision(int(self.fleet.settings_epoch[row]), int(self.fleet.settings_number[row]))
        if (
            held != ours
            and held.epoch <= self.ledger.epoch
            and now_ms - int(self.fleet.settings_sent_ms[row]) >= FLOOR_MS
        ):
            self.publish_settings(row, now_ms)

    def publish_settings(self, row: int, now_ms: int) -> None:
        """Publishes the present settings; a new revision only when they changed."""
        floor, quarantined = int(self.fleet.session[row]), bool(self.fleet.quarantined[row])
        last = self.sent.get(row)
        if last is None or (last.session_floor, last.quarantined) != (floor, quarantined):
            revision = Revision(self.ledger.epoch, int(self.fleet.settings_number[row]) + 1)
            last = self.sent[row] = Settings(revision, floor, 0, quarantined)
            self.fleet.note_settings(row, revision)
            self.ledger.save(self.fleet.records[row])
        self.fleet.note_settings_sent(row, now_ms)
        self.ledger.publish(row, last)
