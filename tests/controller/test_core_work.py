"""What else the controller's core does: liveness, retries, output, replays, drains, its own voice."""

from __future__ import annotations

import pytest

from controller.core.events import DevicePinged, DevicesQueried, TaskExplained
from controller.core.fleet import DOCUMENT_BYTES_MAX
from controller.core.operators import MOVES_AT_ONCE
from protocol.core import GarbageArrived, LinkDown, LinkUp
from protocol.messages import Answer, Command, ControllerStatus, OutputChunk, Revision
from protocol.resources import Resources
from protocol.tasks import Guarantee, RunState, TaskState

RUNNING, ENDED = RunState.RUNNING, RunState.ENDED
ONE = 1 << 24


def state(desk, device="d1"):
    row = desk.core.ledger.fleet.index[device]
    return desk.core.pictures.device(row, desk.now).state


# ------------------------------------------------------------- liveness


def test_a_silent_device_is_suspect_after_two_and_a_half_beats_and_offline_after_four(desk):
    desk.join()
    began = desk.now
    seen = {}
    while desk.now < began + 45_000:
        desk.after(100)
        seen.setdefault(state(desk), desk.now - began)
    assert list(seen) == ["online", "suspect", "offline"]
    assert 25_000 < seen["suspect"] <= 25_200 and 40_000 < seen["offline"] <= 40_200


def test_a_suspect_device_gets_no_new_work_and_one_heartbeat_makes_it_online(desk):
    number = desk.join()
    desk.after(26_000)
    desk.placed()
    assert state(desk) == "suspect" and desk.task().state is TaskState.PENDING
    desk.heartbeat("d1", number, 2)
    desk.after(100)
    assert state(desk) == "online" and desk.task().state is TaskState.ASSIGNED


def test_a_device_that_flaps_is_given_double_the_patience_each_time(desk):
    patience = []
    for count in range(1, 5):
        number = desk.join(number=count << 24)
        desk.after(3_000)
        desk.status("d1", number, online=False)
        began = desk.now
        while state(desk) != "offline":
            desk.after(20)
        patience.append(round((desk.now - began) / 100) * 100)
    assert patience == [400, 800, 1_600, 3_200]


def test_nobody_is_blamed_for_silence_while_our_own_link_is_down(desk):
    number = desk.join()
    desk.feed(LinkDown(desk.core.link.session, "broker gone"))
    desk.after(90_000)
    assert state(desk) == "online"
    desk.feed(LinkUp(desk.core.link.session))
    desk.after(24_000)
    assert state(desk) == "online"
    desk.after(2_000)
    assert state(desk) == "suspect" and number


def test_the_controllers_own_status_is_no_device(desk):
    desk.message("_controller", ControllerStatus(True, "c1", desk.epoch))
    desk.feed(GarbageArrived("d9", "runs", "malformed"))
    assert not desk.core.ledger.fleet.count and desk.core.ledger.garbage == {"malformed": 1}


def test_a_removed_device_is_not_heard(desk, desk_kit):
    number = desk.running()
    desk.decide("d1", "remove")
    assert not desk_kit.answers(desk.heartbeat("d1", number, 20))
    desk.runs("d1", number, 9)
    assert desk.core.ledger.garbage["removed_device"] == 2
    assert desk_kit.reply(desk.feed(DevicesQueried(9, "d1"))).code == "not_found"


# ------------------------------------------------------------- placement


def test_a_retry_is_placed_when_its_pause_is_over_though_nothing_else_happens(desk):
    number = desk.running()
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 1))
    assert desk.core.ledger.deadlines.due_of("ready", "j1.0") == desk.now + 1_000
    assert "before attempt 2" in desk_summary(desk)
    desk.after(1_100)
    assert (desk.task().state, desk.task().attempt) == (TaskState.ASSIGNED, 2)


def desk_summary(desk, task="j1.0"):
    [reply] = [e.body for e in desk.feed(TaskExplained(7, task)) if hasattr(e, "body")]
    return reply.summary


def test_a_task_goes_elsewhere_after_a_loss_and_back_when_there_is_nowhere_else(desk):
    number = desk.running()
    desk.runs("d1", number, 3, ("j1.0", 1, RunState.INTERRUPTED))
    desk.after(100)
    assert desk.task().device == "d1"
    desk.join("d2")
    desk.heartbeat("d1", number, 20, runs=3)
    desk.runs("d1", number, 4, ("j1.0", 2, RunState.INTERRUPTED))
    desk.after(100)
    assert (desk.task().device, desk.task().attempt) == ("d2", 3)


def test_higher_priority_is_placed_first(desk):
    desk.submit(job="low", needs=Resources(4_000, 1), priority=1)
    desk.submit(job="high", needs=Resources(4_000, 1), priority=9)
    desk.join()
    desk.after(200)
    assert desk.task("high.0").state is TaskState.ASSIGNED and desk.task("low.0").state is TaskState.PENDING


def test_reservations_come_back_to_nothing(desk):
    number = desk.running(count=3)
    fleet = desk.core.ledger.fleet
    assert fleet.reserved_of(0) == Resources(3_000, 300, slots=3)
    desk.runs("d1", number, 3, *[(f"j1.{i}", 1, ENDED, 0) for i in range(3)])
    assert fleet.reserved_of(0) == Resources() and not fleet.held[0]
    assert fleet.view.document_bytes_free[0] == DOCUMENT_BYTES_MAX


def test_an_attempt_that_is_being_stopped_still_takes_its_room(desk):
    desk.running(needs=Resources(4_000, 100))
    desk.cancel()
    desk.placed(job="j2", needs=Resources(1_000, 100))
    assert desk.task("j2.0").state is TaskState.PENDING
    assert desk.core.ledger.fleet.reserved_of(0).cpu_milli == 4_000


def test_a_drain_moves_few_at_a_time(desk, desk_kit):
    number = desk.join(room=Resources(40_000, 9_000, 1, 0))
    desk.placed(count=30)
    desk.heartbeat("d1", number, 2)
    desk.runs("d1", number, 2, *[(f"j1.{i}", 1, RUNNING) for i in range(30)])
    documents = desk_kit.documents(desk.decide("d1", "drain"))
    assert len(documents[-1].attempts) == 30 - MOVES_AT_ONCE
    desk.after(5_000)
    assert sum(1 for a in desk.core.ledger.attempts.values() if a.row.state == "removed") == MOVES_AT_ONCE


# ------------------------------------------------------------- output


def chunk(seq, base=1, data=b"x", task="j1.0", offset=None):
    return OutputChunk(5, base, seq, task, 1, 1, seq - 1 if offset is None else offset, data)


def stored(desk, desk_kit, number, seq):
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, seq, runs=2))
    return answer.outbox, answer.stored


def test_output_of_a_task_that_ended_just_before_a_restart_is_kept(desk):
    """1 The result is saved. 2 The controller dies before its device is told. 3 The output comes after."""
    number = desk.running()
    desk.core.documents.pace.tat_ms = desk.now + 10**9  # nothing is told for now
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 0))
    assert desk.task().state is TaskState.SUCCEEDED
    desk.take_over()
    desk.status("d1", number)
    desk.message("d1", chunk(1))
    assert desk.core.ledger.counters["output_chunks"] == 1
    assert "output_of_unknown_attempt" not in desk.core.ledger.garbage


def test_output_is_acknowledged_as_far_as_it_is_stored_without_a_gap(desk, desk_kit):
    number = desk.running()
    for seq in (1, 2, 4, 2, 5):
        desk.message("d1", chunk(seq, data=b"abcde"[seq - 1 : seq]))
    assert stored(desk, desk_kit, number, 20) == (5, 2)
    for seq in (3, 4, 5):
        desk.message("d1", chunk(seq, data=b"abcde"[seq - 1 : seq]))
    assert stored(desk, desk_kit, number, 21) == (5, 5)
    assert desk.store.output("j1.0", 1, 1, 0, 100).data == b"abcde"


def test_a_controller_without_memory_takes_output_up_at_the_base(desk, desk_kit):
    number = desk.running()
    for seq in (1, 2):
        desk.message("d1", chunk(seq))
    desk.take_over()
    desk.runs("d1", number, 2, ("j1.0", 1, RUNNING))
    desk.message("d1", chunk(3, base=3))
    assert stored(desk, desk_kit, number, 30) == (5, 3)


def test_output_of_somebody_elses_attempt_is_not_stored(desk):
    desk.running()
    desk.join("d2")
    desk.message("d2", chunk(1, data=b"forged"))
    assert desk.store.output("j1.0", 1, 1, 0, 100).data == b""
    assert desk.core.ledger.garbage["output_of_unknown_attempt"] == 1


# ------------------------------------------------------------- people


def test_a_replayed_submit_answers_the_same_job_also_after_a_restart(desk, desk_kit):
    desk.submit(idempotency_key="k", fingerprint="f")
    for _ in range(2):
        assert desk_kit.reply(desk.submit(job="j2", idempotency_key="k", fingerprint="f")).job == "j1"
        assert desk_kit.reply(desk.submit(job="j3", idempotency_key="k", fingerprint="other")).code
        desk.take_over()
    assert desk.store.job("j2") is None


def test_a_ping_is_answered_once_and_only_by_its_device(desk, desk_kit):
    desk.join("d1")
    desk.join("d2")
    [command] = desk_kit.published(desk.feed(DevicePinged(8, "d1", 3)), Command)
    assert command.session == ONE and command.epoch == desk.epoch
    assert not replies(desk.message("d2", Answer(command.id, True, "forged")))
    [view] = replies(desk.message("d1", Answer(command.id, True, "pong")))
    assert (view.device, view.sent_us, view.detail) == ("d1", 3, "pong")
    assert not replies(desk.message("d1", Answer(command.id, True, "again")))


def replies(effects):
    return [e.body for e in effects if hasattr(e, "body")]


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_a_cancelled_task_ends_cancelled_also_when_it_waits_for_a_retry(desk, guarantee):
    number = desk.running(guarantee=guarantee)
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 1))
    desk.cancel()
    assert desk.task().state is TaskState.CANCELLED and desk.store.job("j1").row.state == "cancelled"
    assert not desk.core.ledger.jobs and desk.core.ledger.deadlines.due_of("ready", "j1.0") is None


def test_a_cancelled_task_that_ends_well_before_it_is_stopped_has_succeeded(desk):
    number = desk.running()
    desk.cancel()
    desk.runs("d1", number, 3, ("j1.0", 1, ENDED, 0), answers=Revision(0, 0))
    assert desk.task().state is TaskState.SUCCEEDED
