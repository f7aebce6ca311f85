"""Decisions about devices in the audit: each change once, as it was; what changes nothing is not told."""

from __future__ import annotations

from controller.core.events import DeviceDecision
from controller.core.records import AuditRow
from protocol.core import TimerElapsed


def told(desk, *verbs):
    """(old, new, actor) of the audit rows that these decisions leave."""
    found = []
    for verb in verbs:
        desk.feed(DeviceDecision(7, "d0", verb, "alice"))
        found += [
            (r.old, r.new, r.actor) for r in desk.saved if isinstance(r, AuditRow) and r.what == "device"
        ]
        desk.saved = []
    return found


def test_a_decision_that_stands_already_is_not_told_again(desk):
    assert told(desk, "add") == [("", "known", "alice")]
    assert told(desk, "add", "uncordon") == []
    assert told(desk, "cordon", "cordon") == [("open", "cordoned", "alice")]
    assert told(desk, "uncordon", "uncordon") == [("cordoned", "open", "alice")]


def test_the_audit_tells_what_stood_before(desk):
    told(desk, "add", "cordon")
    assert told(desk, "drain") == [("cordoned", "draining", "alice"), ("draining", "cordoned", "controller")]
    assert told(desk, "remove") == [("cordoned", "removed", "alice")]
    assert told(desk, "add") == [("removed", "known", "alice")]


def test_what_people_decide_of_a_quarantined_device_is_told_too(desk):
    told(desk, "add")
    desk.core.operators.quarantine(desk.core.ledger.fleet.index["d0"], desk.now)
    desk.feed(TimerElapsed())
    assert told(desk, "cordon") == [("quarantined", "quarantined, cordoned", "alice")]
    assert told(desk, "drain") == [
        ("quarantined, cordoned", "quarantined, draining", "alice"),
        ("quarantined, draining", "quarantined, cordoned", "controller"),
    ]
    assert told(desk, "uncordon") == [("quarantined, cordoned", "open", "alice")]
