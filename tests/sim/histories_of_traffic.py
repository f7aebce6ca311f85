"""Histories that hold and histories that break an invariant: I8 to I15, what travels, is shown, is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from history_book import CONTROLLER, attempt, audit, task

from controller.core.records import (
    AttemptState,
    DeviceRow,
    OutputRow,
)
from protocol.messages import (
    LeaseAnswer,
    OutputChunk,
    Revision,
    Status,
)
from protocol.tasks import TaskState
from sim import observations as seen

PASSES, BREAKS = [], []


def passes(invariant):
    return lambda tell: PASSES.append((invariant, tell)) or tell


def breaks(invariant):
    return lambda tell: BREAKS.append((invariant, tell)) or tell


# ------------------------------------------------------------- I8


def wrote(b, text=b"hello\n"):
    b.one_run(end=False)
    b.saw(seen.OutputWritten, "d0", "j1.0", 1, 1, 0, text)


def chunk(offset=0, data=b"hello\n", seq=1):
    return OutputChunk(5, 1, seq, "j1.0", 1, 1, offset, data)


def acknowledged(stored=1):
    return LeaseAnswer(7, 5, 9, outbox=5, stored=stored, granted=Revision(0, 0))


@passes("I8")
def stored_then_acknowledged_then_dropped(b):
    wrote(b)
    b.heard("d0", chunk())
    b.commit(OutputRow("j1.0", 1, 1, 0, b"hello\n", True))
    b.heard("d0", acknowledged(), client="d0")
    b.saw(seen.OutputDropped, "d0", "j1.0", 1)


@passes("I8")
def dropped_for_want_of_room(b):
    wrote(b)
    b.saw(seen.OutputDropped, "d0", "j1.0", 1, True)


@breaks("I8")
def acknowledged_and_not_stored(b):
    wrote(b)
    b.heard("d0", chunk())
    b.heard("d0", acknowledged(), client="d0")


@breaks("I8")
def dropped_and_not_stored(b):
    wrote(b)
    b.commit(OutputRow("j1.0", 1, 1, 0, b"hel", False))
    b.saw(seen.OutputDropped, "d0", "j1.0", 1)


@breaks("I8")
def stored_and_never_written(b):
    wrote(b)
    b.commit(OutputRow("j1.0", 1, 1, 0, b"other\n", False))


@breaks("I8")
def an_end_before_the_end(b):
    wrote(b)
    b.commit(OutputRow("j1.0", 1, 1, 0, b"hel", True))


# ------------------------------------------------------------- I9


def shown(b, session=5, hearing_ms=1, state="online"):
    b.saw(seen.Shown, "d0", state, session, 10_000, hearing_ms, CONTROLLER)


def born(b, session=5):
    b.heard("d0", Status(True, session, "b", "i"))
    b.beat(session=session)


@passes("I9")
def heard_lately(b):
    born(b)
    b.after(26_000)
    shown(b)


@breaks("I9")
def not_heard_for_long(b):
    born(b)
    b.after(26_001)
    shown(b)


@passes("I9")
def shown_offline(b):
    b.after(60_000)
    shown(b, state="offline")


@passes("I9")
def who_has_just_connected_judges_nobody(b):
    b.after(60_000)
    shown(b, hearing_ms=b.now - 1_000)
    shown(b, hearing_ms=0)


@breaks("I9")
def an_older_session(b):
    born(b)
    b.after(30_000)
    born(b, 6)
    shown(b)


@passes("I9")
def a_new_session_has_not_beaten_yet(b):
    born(b)
    b.after(26_000)
    b.heard("d0", Status(True, 6, "b", "i"))
    shown(b, 6)


@breaks("I9")
def a_session_below_the_committed_one(b):
    b.device(session=6)
    b.beat()
    b.after(26_500)
    b.beat()
    shown(b)


@passes("I9")
def a_later_session_that_an_earlier_leadership_heard(b):
    born(b, 6)
    b.after(1_000)
    hearing_ms = b.now
    born(b)
    b.after(26_001)
    b.beat()
    shown(b, hearing_ms=hearing_ms)


@passes("I9")
def a_later_session_that_a_restored_copy_does_not_know(b):
    born(b, 6)
    b.saw(seen.DatabaseRestored, ())
    b.after(26_001)
    b.beat()
    shown(b)


# ------------------------------------------------------------- I10


@breaks("I10")
def a_change_that_nobody_told(b):
    b.device()
    b.submit()
    b.commit(attempt("j1.0", "d0", 1), task("j1.0", TaskState.ASSIGNED, "d0", 1))


@breaks("I10")
def a_change_told_twice(b):
    b.device()
    b.submit()
    told = audit("task", "j1.0", "pending", "assigned")
    b.commit(attempt("j1.0", "d0", 1), task("j1.0", TaskState.ASSIGNED, "d0", 1), told, told)


@breaks("I10")
def a_tale_without_a_change(b):
    b.device()
    b.commit(audit("device", "d0", "open", "cordoned"))


@breaks("I10")
def a_decision_that_nobody_told(b):
    b.device()
    b.commit(replace(b.rows[DeviceRow, "d0"], removed=True))


@breaks("I10")
def nobody_did_it(b):
    b.commit(b.job(), audit("job", "j1", "", "open", actor=""), task("j1.0"))


@passes("I10")
def many_changes_in_one_commit(b):
    b.device()
    b.submit()
    moves = ("pending", "assigned", "running", "pending")
    told = [audit("task", "j1.0", old, new) for old, new in pairwise(moves)]
    b.commit(attempt("j1.0", "d0", 1, AttemptState.FREE), task("j1.0", TaskState.PENDING, "", 1), *told)


@passes("I10")
def being_online_is_told_and_not_stored(b):
    b.device()
    b.commit(audit("device", "d0", "offline", "online"))


# ------------------------------------------------------------- I12, I13, I14, I15


@passes("I12")
def a_restart_that_moves_nothing(b):
    b.one_run(end=False)
    b.saw(seen.RestartBegan, "controller", ("j1.0",))
    b.ended()
    b.succeed()
    b.saw(seen.RestartOver, "controller")


@breaks("I12")
def a_restart_that_moves_a_task(b):
    b.one_run(end=False)
    b.device("d1")
    b.saw(seen.RestartBegan, "controller", ("j1.0",))
    b.ended()
    b.pending(was="running")
    b.assign("j1.0", "d1", 2)
    b.saw(seen.RestartOver, "controller")


def carried(b, client, received, device, channel):
    b.saw(seen.Delivered, client, received, f"fm/1/fleet/{device}/{channel}", b"")


@passes("I13")
def everybody_in_his_own_room(b):
    carried(b, "d0", False, "d0", "heartbeat")
    carried(b, CONTROLLER, True, "d0", "heartbeat")
    carried(b, CONTROLLER, False, "d0", "lease")
    carried(b, "d0", True, "d0", "lease")
    carried(b, CONTROLLER, False, "d0", "runs")
    carried(b, CONTROLLER, True, "_controller", "canary")


@breaks("I13")
def another_device_is_read(b):
    carried(b, "d0", True, "d1", "assignments")


@breaks("I13")
def another_device_is_spoken_for(b):
    carried(b, "d0", False, "d1", "runs")


@breaks("I13")
def a_device_gives_orders_to_itself(b):
    carried(b, "d0", False, "d0", "settings")


@passes("I14")
def below_its_bound(b):
    b.saw(seen.Measured, "journal", 10, 10)


@breaks("I14")
def above_its_bound(b):
    b.saw(seen.Measured, "journal", 11, 10)


@breaks("I15")
def the_same_attempt_twice(b):
    b.began()
    b.ended()
    b.began()


@passes("I15")
def an_unbound_attempt_after_a_lost_journal(b):
    b.began(only_one=False)
    b.ended()
    b.saw(seen.JournalLost, "d0")
    b.began(only_one=False)
