"""The controller's half of the protocol: sessions, documents and grants, rule by rule."""

from __future__ import annotations

import pytest

from controller.core.effects import TakeEpoch
from controller.core.events import LeaderRenewed
from protocol.core import MessageArrived, Save
from protocol.limits import hold_ms
from protocol.messages import NO_REVISION, Revision, RunEntry, Runs
from protocol.tasks import Guarantee, RunState, TaskState

HOLD = hold_ms(30_000)
RUNNING, STOPPING, ENDED, STOPPED = RunState.RUNNING, RunState.STOPPING, RunState.ENDED, RunState.STOPPED


# ------------------------------------------------------------- S1 sessions, H1 H10


def test_h1_an_answer_names_the_session_and_the_heartbeat_it_answers(desk, desk_kit):
    number = desk.join()
    desk.placed()
    for seq in (3, 4, 4, 2):
        [answer] = desk_kit.answers(desk.heartbeat("d1", number, seq))
        assert (answer.session, answer.seq, answer.epoch) == (number, seq, desk.epoch)


def test_s1_a_new_session_is_committed_before_anything_is_granted_in_it(desk, desk_kit):
    desk.join()
    desk.placed()
    newer = desk_kit.session(2)
    effects = desk.heartbeat("d1", newer)
    assert isinstance(effects[0], Save) and effects[0].rows[0].session == newer
    assert desk_kit.granted(effects) == NO_REVISION, "and nothing before a `Runs` of it"


@pytest.mark.parametrize("what", ["status", "heartbeat", "runs", "inventory"])
def test_h10_each_dropped_message_is_answered_with_the_floor_at_most_once_a_second(desk, desk_kit, what):
    newer, older = desk.join(number=desk_kit.session(5)), desk_kit.session(4)
    say = {
        "status": lambda: desk.status("d1", older),
        "heartbeat": lambda: desk.heartbeat("d1", older),
        "runs": lambda: desk.runs("d1", older, 9),
        "inventory": lambda: desk.inventory("d1", older),
    }[what]
    desk.after(2_000)
    [first] = desk_kit.settings(say())
    assert first.session_floor == newer
    assert not desk_kit.settings(say()) and not desk_kit.answers(say())
    desk.after(1_000)
    [second] = desk_kit.settings(say())
    assert second == first, "the same floor is the same revision"


def test_s1_a_will_of_an_old_session_is_no_news(desk, desk_kit):
    number = desk.join(number=desk_kit.session(3))
    desk.status("d1", desk_kit.session(2), online=False)
    desk.after(5_000)
    assert desk.core.pictures.device(0, desk.now).state == "online"
    desk.status("d1", number, online=False)
    desk.after(5_000)
    assert desk.core.pictures.device(0, desk.now).state == "offline"


def test_s1_runs_of_an_old_session_free_but_never_overwrite(desk, desk_kit):
    """It was granted in the old session only, so the old session's word counts."""
    old = desk.running()
    desk.cancel()
    removed = desk.document("d1")
    desk.status("d1", desk_kit.session(7))
    desk.runs("d1", old, 3, answers=removed)
    assert desk.task().state is TaskState.CANCELLED
    assert int(desk.core.ledger.fleet.runs_session[0]) == old
    assert int(desk.core.ledger.fleet.session[0]) == desk_kit.session(7)


# ------------------------------------------------------------- S2 wills


def test_s2_a_will_frees_no_at_most_one_attempt(desk, desk_kit):
    number = desk.running()
    desk.join("d2")
    granted_ms = desk.now
    desk.status("d1", number, online=False)
    beat = 0
    while desk.now < granted_ms + HOLD - 1_500:
        desk.after(1_000)
        beat += 1
        desk.heartbeat("d2", desk_kit.session(1), 10 + beat)
        assert desk.task().device == "d1" and desk.task().attempt == 1
    desk.after(3_000)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


def test_s2_at_least_one_moves_soon_after_the_will(desk):
    number = desk.running(guarantee=Guarantee.AT_LEAST_ONE)
    desk.join("d2")
    desk.status("d1", number, online=False)
    desk.after(700)
    assert (desk.task().device, desk.task().attempt) == ("d2", 2)


# ------------------------------------------------------------- S4 clones


def test_s4_two_identities_alternating_quarantine_the_device(desk, desk_kit):
    desk.running()
    desk.status("d1", desk_kit.session(2), instance="other")
    assert not desk.core.ledger.fleet.quarantined[0], "a new identity may be a new card"
    effects = desk.status("d1", desk_kit.session(3))
    assert desk.core.ledger.fleet.quarantined[0]
    assert desk_kit.settings(effects)[-1].quarantined
    assert any("two machines" in text for text in desk.core.ledger.alarms.values())


def test_s4_in_quarantine_nothing_is_freed_by_a_report_only_by_hold(desk, desk_kit):
    number = desk.running()
    desk.core.operators.quarantine(0, desk.now)
    desk.cancel()
    desk.runs("d1", number, 3, ("j1.0", 1, STOPPED))
    desk.runs("d1", number, 4)
    assert desk.task().state is TaskState.RUNNING
    desk.after(HOLD + 100)
    assert desk.task().state is TaskState.CANCELLED


# ------------------------------------------------------------- D1 the database is older


def test_d1_a_revision_above_ours_silences_the_leader_and_takes_an_epoch_above_it(desk, desk_kit):
    number = desk.running()
    above = Revision(desk.epoch + 7, 3)
    effects = desk.heartbeat("d1", number, 20, held=above)
    [take] = [e for e in effects if isinstance(e, TakeEpoch)]
    assert take.above == desk.epoch + 7
    assert not desk_kit.answers(effects) and not desk_kit.documents(effects)
    assert not desk_kit.answers(desk.heartbeat("d1", number, 21)), "it says nothing more"
    desk.take_over(above=take.above)
    assert desk.epoch > above.epoch
    desk.submit(job="j2")
    desk.after(HOLD - 1_000)
    assert desk.task("j2.0").state is TaskState.PENDING


def test_d1_a_renewal_that_was_under_way_does_not_give_the_voice_back(desk, desk_kit):
    number = desk.running()
    desk.heartbeat("d1", number, 20, held=Revision(desk.epoch + 7, 3))
    desk.feed(LeaderRenewed(desk.now))
    assert not desk_kit.answers(desk.heartbeat("d1", number, 21))


def test_d1_a_number_above_the_stored_one_of_an_earlier_epoch_tells_the_same(desk, desk_kit):
    number = desk.running()
    held = desk.document("d1")
    desk.take_over()
    effects = desk.heartbeat("d1", number, 20, held=Revision(held.epoch, held.number + 1))
    assert [e for e in effects if isinstance(e, TakeEpoch)]


def test_d1_a_lower_revision_is_no_alarm(desk, desk_kit):
    number = desk.running()
    held = desk.document("d1")
    desk.take_over()
    effects = desk.heartbeat("d1", number, 20, held=Revision(held.epoch, held.number - 1))
    assert not [e for e in effects if isinstance(e, TakeEpoch)]


def test_d1_an_epoch_taken_for_that_is_not_outdone_again_and_again(desk, desk_kit):
    """A device that invents revisions could else make the whole fleet wait for ever."""
    number = desk.running()
    desk.heartbeat("d1", number, 20, held=Revision(desk.epoch + 7, 3))
    desk.take_over(above=desk.epoch + 7)
    effects = desk.heartbeat("d1", number, 21, held=Revision(desk.epoch + 7, 3))
    assert not [e for e in effects if isinstance(e, TakeEpoch)]
    assert desk.core.ledger.garbage["implausible_epoch"] == 1


# ------------------------------------------------------------- D3 documents, H5 H6


def test_d3_a_heartbeat_naming_another_revision_brings_the_document_again_unchanged(desk, desk_kit):
    number = desk.join()
    [document] = desk_kit.documents(desk.placed())
    desk.after(1_000)
    effects = desk.heartbeat("d1", number, 5, held=Revision(desk.epoch, document.revision.number - 1))
    assert desk_kit.documents(effects) == [document] and desk_kit.granted(effects) == NO_REVISION
    again = desk.heartbeat("d1", number, 6, held=NO_REVISION)
    assert not desk_kit.documents(again), "at most once a second"


def test_h5_after_a_take_over_the_document_is_restamped_and_numbers_go_on(desk, desk_kit):
    number = desk.running()
    before = desk.document("d1")
    desk.take_over()
    assert desk.document("d1") == before
    effects = desk.heartbeat("d1", number, 20, held=NO_REVISION, runs=2)
    [document] = desk_kit.documents(effects)
    assert document.revision == (desk.epoch, before.number) and desk_kit.listed(document) == [("j1.0", 1)]


def test_h5_an_old_epochs_number_frees_nothing(desk, desk_kit):
    """Removed at (new epoch, n): a report that answers (old epoch, higher) came before."""
    number = desk.running()
    old = desk.document("d1")
    desk.take_over()
    desk.cancel()
    desk.runs("d1", number, 3, answers=Revision(old.epoch, old.number + 50))
    assert desk.task().state is TaskState.RUNNING
    desk.runs("d1", number, 4, answers=desk.document("d1"))
    assert desk.task().state is TaskState.CANCELLED


def test_h6_an_answer_names_the_report_that_is_processed_and_saved(desk, desk_kit):
    number = desk.join()
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, 2, runs=4))
    assert answer.runs == 1
    desk.runs("d1", number, 4)
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, 3, runs=4))
    assert answer.runs == 4
    newer = desk_kit.session(2)
    [answer] = desk_kit.answers(desk.heartbeat("d1", newer, 1, runs=1))
    assert answer.runs == 0, "none of this session"


def test_h6_a_report_whose_save_failed_was_not_processed(desk, desk_kit):
    """The world throws the core away; the next one asks for it."""
    number = desk.running()
    desk.core.handle(MessageArrived("d1", _ended(number, 3)), desk.now)
    desk.take_over()
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, 20, runs=3))
    assert answer.runs == 0 and desk.task().state is TaskState.RUNNING
    desk.message("d1", _ended(number, 3))
    assert desk.task().state is TaskState.SUCCEEDED


def _ended(number, count, attempt=1, exit_code=0):
    return Runs(number, count, Revision(0, 0), (RunEntry("j1.0", attempt, ENDED, exit_code),))


def test_an_inventory_lost_in_a_new_session_is_asked_for(desk, desk_kit):
    number = desk.join()
    [answer] = desk_kit.answers(desk.heartbeat("d1", number, 2))
    assert answer.inventory == 1
    newer = desk_kit.session(2)
    desk.status("d1", newer)
    [answer] = desk_kit.answers(desk.heartbeat("d1", newer, 1))
    assert answer.inventory == 0
    desk.inventory("d1", newer, 2)
    desk.inventory("d1", newer, 1, labels={"late": "yes"})
    assert desk.core.ledger.fleet.records[0].labels == {}


def test_d3_additions_wait_until_the_present_revision_was_granted(desk, desk_kit):
    number = desk.join()
    [first] = desk_kit.documents(desk.placed())
    assert not desk_kit.documents(desk.placed(job="j2")), "the first was not granted yet"
    [second] = desk_kit.documents(desk.heartbeat("d1", number, 2))
    assert desk_kit.listed(second) == [("j1.0", 1), ("j2.0", 1)]
    assert second.revision.number == first.revision.number + 1


def test_d3_additions_wait_no_longer_than_a_third_of_a_lease(desk, desk_kit):
    desk.join()
    desk.placed()
    assert not desk_kit.documents([*desk.placed(job="j2"), *desk.after(9_000)])
    assert desk_kit.documents(desk.after(1_000))


def test_d3_a_removal_never_waits(desk, desk_kit):
    desk.join()
    desk.placed()
    [document] = desk_kit.documents(desk.cancel())
    assert document.attempts == ()


def test_an_empty_document_of_a_new_device_is_published_when_it_names_another(desk, desk_kit):
    desk.take_over(above=desk.epoch)
    number = desk.join()
    effects = desk.heartbeat("d1", number, 2, held=Revision(5, 5))
    [document] = desk_kit.documents(effects)
    assert document.attempts == () and document.revision > (5, 5)


# ------------------------------------------------------------- L2 grants, H4


def test_l2_only_the_present_revision_is_granted_and_only_to_who_named_it(desk, desk_kit):
    number = desk.join()
    [document] = desk_kit.documents(desk.placed())
    older = Revision(desk.epoch, document.revision.number - 1)
    assert desk_kit.granted(desk.heartbeat("d1", number, 2, held=older)) == NO_REVISION
    assert desk_kit.granted(desk.heartbeat("d1", number, 3)) == document.revision


def test_l2_nothing_is_granted_before_a_report_of_this_session(desk, desk_kit):
    desk.running()
    newer = desk_kit.session(2)
    desk.status("d1", newer)
    assert desk_kit.granted(desk.heartbeat("d1", newer, 1, runs=1)) == NO_REVISION
    desk.runs("d1", newer, 1, ("j1.0", 1, RUNNING))
    assert desk_kit.granted(desk.heartbeat("d1", newer, 2, runs=1)) == desk.document("d1")


def test_l2_the_first_grant_of_a_session_needs_the_report_that_the_heartbeat_names(desk, desk_kit):
    desk.running()
    newer = desk_kit.session(2)
    desk.runs("d1", newer, 1, ("j1.0", 1, RUNNING))
    assert desk_kit.granted(desk.heartbeat("d1", newer, 1, runs=2)) == NO_REVISION
    desk.runs("d1", newer, 2, ("j1.0", 1, RUNNING))
    assert desk_kit.granted(desk.heartbeat("d1", newer, 2, runs=2)) == desk.document("d1")


def test_l2_a_take_over_begins_with_a_report_too(desk, desk_kit):
    number = desk.running()
    desk.take_over()
    assert desk_kit.granted(desk.heartbeat("d1", number, 20, runs=2)) == NO_REVISION
    desk.runs("d1", number, 2, ("j1.0", 1, RUNNING))
    assert desk_kit.granted(desk.heartbeat("d1", number, 21, runs=2)) == desk.document("d1")


@pytest.mark.parametrize("taken_over", [False, True])
def test_h4_a_forgotten_attempt_is_removed_and_its_successor_has_a_new_number(desk, desk_kit, taken_over):
    desk.running()
    if taken_over:
        desk.take_over()
    newer = desk_kit.session(2)
    desk.status("d1", newer)
    desk.inventory("d1", newer)
    desk.runs("d1", newer, 1)
    effects = desk.heartbeat("d1", newer, 1)
    assert desk_kit.granted(effects) == NO_REVISION
    [document] = desk_kit.documents(effects)
    assert document.attempts == ()
    desk.runs("d1", newer, 2)
    desk.heartbeat("d1", newer, 2, runs=2)
    desk.after(300)
    assert desk.task().attempt == 2


@pytest.mark.parametrize("taken_over", [False, True])
def test_h4c_what_has_ended_is_not_granted_to_a_device_that_lost_its_tombstone(desk, desk_kit, taken_over):
    """1. The run ends, is reported and freed; its acknowledgement waits a second for company.
    2. The device loses its journal. 3. The retained document still names the attempt, and the new
    session reports nothing. 4. A grant of that document would start it again."""
    number = desk.running()
    desk.runs("d1", number, 9, ("j1.0", 1, STOPPED))
    assert desk.attempt().state == "free"
    if taken_over:
        desk.take_over()
    newer = desk_kit.session(2)
    desk.status("d1", newer)
    desk.inventory("d1", newer)
    desk.runs("d1", newer, 1)
    effects = desk.heartbeat("d1", newer, 1)
    assert desk_kit.granted(effects) == NO_REVISION
    [document] = desk_kit.documents(effects)
    assert ("j1.0", 1) not in desk_kit.listed(document)
    assert desk_kit.granted(desk.heartbeat("d1", newer, 2)) == desk.document("d1")


def test_h4b_the_session_of_the_last_grant_outlives_the_controller(desk, desk_kit):
    """A report of an earlier session, kept by the broker, is read after the restart: it frees nothing."""
    old = desk.join()
    newer = desk_kit.session(2)
    desk.join(number=newer)
    desk.running(number=newer, seq=5)
    desk.take_over()
    desk.runs("d1", old, 9, ("j1.0", 1, STOPPED))
    assert desk.task().state is TaskState.RUNNING and desk.attempt().state == "running"


def test_d1_what_still_gathers_at_a_take_over_waits_until_the_device_was_heard(desk, desk_kit):
    """What it names may prove that the database is an old copy; a new document would replace the proof."""
    number = desk.join()
    desk.placed(job="j1")
    desk.placed(job="j2")  # waits: the first document is not granted yet
    desk.said = []
    desk.take_over()
    desk.after(20_000)
    assert desk_kit.documents(desk.said) == []
    desk.status("d1", number)
    desk.inventory("d1", number)
    desk.runs("d1", number, 1)
    effects = [*desk.heartbeat("d1", number, 2), *desk.after(1_000)]
    assert ("j2.0", 1) in desk_kit.listed(desk_kit.documents(effects)[-1])
