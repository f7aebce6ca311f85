"""Sessions, birth, reconnects, floors, documents that are old: rules S1, S3, D1, L6, C1."""

from __future__ import annotations

from protocol.backoff import RECONNECT_FAST_CAP_MS
from protocol.core import Connect, Disconnect, GarbageArrived, LinkDown, Note, Save, SaveFailed
from protocol.limits import SESSION_LEAP_MAX, SESSION_MAX
from protocol.messages import (
    NO_REVISION,
    Answer,
    Assignments,
    Command,
    Heartbeat,
    Inventory,
    Revision,
    Runs,
    Settings,
    Status,
)


def test_a_session_is_saved_before_it_connects(kit):
    bench = kit.Bench()
    effects = bench.boot()
    kinds = [type(e) for e in effects]
    assert kinds.index(Save) < kinds.index(Connect)
    will = kit.connects(effects)[0].will
    assert isinstance(will, Status) and not will.online and will.session == bench.agent.connection.session
    assert bench.restarted().agent.memory.session == bench.agent.connection.session


def test_sessions_never_recur_not_even_when_the_journal_is_lost(kit):
    first = kit.Bench(seed=1)
    first.boot()
    again = kit.Bench(seed=2)
    again.boot()
    assert first.agent.connection.session >> 24 == again.agent.connection.session >> 24 == 1
    assert first.agent.connection.session != again.agent.connection.session


def test_each_connection_has_a_higher_session(bench):
    seen = [bench.agent.connection.session]
    for _ in range(20):
        bench.down()
        bench.at(bench.now + 60_000)
        seen.append(bench.agent.connection.session)
        bench.up()
    assert seen == sorted(set(seen))


def test_connecting_says_status_inventory_runs_in_that_order(kit):
    bench = kit.Bench()
    bench.boot()
    said = [type(e.message) for e in kit.of(bench.up(), kit.Publish)]
    assert said == [Status, Inventory, Runs, Heartbeat]


def test_runs_are_not_said_before_the_host_has_told(kit):
    bench = kit.Bench()
    bench.host_answers = False
    bench.feed(kit.Booted())
    assert kit.runs(bench.up()) == []
    assert kit.published(bench.effects, Status)
    ask = bench.agent.runs._ask
    assert len(kit.runs(bench.feed(kit.HostListed(ask, (), ())))) == 1


def test_an_unsaved_session_connects_but_starts_nothing(kit):
    bench = kit.Bench()
    bench.saves_work = False
    bench.boot()
    assert bench.agent.connection.session
    bench.up()
    bench.document(1, kit.attempt(), kit.eager("job.2"))
    effects = bench.answer()
    assert not bench.agent.memory.entries
    assert kit.heartbeats(bench.at(bench.now + 30_000)), "the heart goes on beating"
    bench.saves_work = True
    bench.answer()
    effects = bench.at(bench.now + 70_000)
    assert {s.attempt.task for s in kit.of(effects, kit.StartRun)} >= {"job.2"}


def test_a_failed_save_in_mid_connection_reconnects_with_a_fresh_session(kit):
    bench = kit.Bench()
    bench.agent.handle(kit.Booted(), bench.now)
    before = bench.agent.connection.session
    effects = bench.agent.handle(SaveFailed("full"), bench.now)
    assert [type(e) for e in effects if isinstance(e, Connect | Disconnect)] == [Disconnect, Connect]
    assert kit.connects(effects)[0].session > before


def test_an_answer_for_an_older_connection_is_ignored(bench):
    session = bench.agent.connection.session
    bench.down()
    bench.at(bench.now + 60_000)
    assert bench.feed(LinkDown(session, "late")) == []
    bench.up()
    assert bench.agent.connection.up
    bench.feed(LinkDown(session, "late"))
    assert bench.agent.connection.up


def test_the_first_reconnects_are_quick(bench, kit):
    for _ in range(8):
        bench.down()
        start = bench.now
        assert bench.agent.next_due_ms() - start <= RECONNECT_FAST_CAP_MS
        assert kit.connects(bench.at(start + RECONNECT_FAST_CAP_MS))


def test_only_a_stable_minute_resets_the_wait(bench):
    for _ in range(5):
        bench.down()
        bench.at(bench.now + 8_000)
        bench.up()
    assert bench.agent.connection._tries == 5
    bench.at(bench.now + 59_000)
    bench.down()
    assert bench.agent.connection._tries == 6
    bench.at(bench.now + 8_000)
    bench.up()
    bench.at(bench.now + 60_000)
    bench.down()
    assert bench.agent.connection._tries == 1


def test_settings_may_raise_the_wait(bench):
    bench.receive(Settings(Revision(1, 1), reconnect_base_ms=600_000))
    waits = []
    for _ in range(20):
        bench.down()
        waits.append(bench.agent.next_due_ms() - bench.now)
        bench.at(bench.now + 600_000)
        bench.up()
    assert max(waits) > 60_000


def test_strictly_below_the_floor_reconnects_above_it(bench, kit):
    session = bench.agent.connection.session
    floor = session + (5 << 24)
    effects = bench.receive(Settings(Revision(1, 1), session_floor=floor))
    assert kit.of(effects, Disconnect) == [Disconnect(session)]
    bench.down()
    bench.at(bench.now + 10_000)
    assert bench.agent.connection.session > floor


def test_a_floor_that_comes_before_the_link_is_up_is_obeyed_when_it_is(bench, kit):
    """A broker may send what it retains before it answers SUBSCRIBE; a revision is heard only once."""
    bench.down()
    bench.at(bench.now + 10_000)
    session = bench.agent.connection.session
    floor = Settings(Revision(1, 1), session_floor=session + (5 << 24))
    assert kit.of(bench.receive(floor), Disconnect) == []
    assert bench.up() == [Disconnect(session)], "nothing is said that would be dropped"
    assert bench.receive(floor) == []
    bench.down()
    bench.at(bench.now + 10_000)
    assert bench.agent.connection.session > floor.session_floor
    assert kit.published(bench.up(), Status)


def test_equal_to_the_floor_stays(bench, kit):
    floor = bench.agent.connection.session
    assert kit.of(bench.receive(Settings(Revision(1, 1), session_floor=floor)), Disconnect) == []
    assert bench.agent.connection.up


def test_a_floor_that_no_counting_can_have_reached_is_refused(bench, kit):
    """Above it nothing is left, or nothing that the controller believes."""
    session = bench.agent.connection.session
    for number, floor in enumerate((SESSION_MAX, session + SESSION_LEAP_MAX + 1), 1):
        effects = bench.receive(Settings(Revision(1, number), session_floor=floor))
        assert kit.of(effects, Disconnect) == []
        assert bench.agent.counts["impossible_floor"] == number
    assert bench.agent.connection.session == session


def test_an_old_document_is_ignored_and_a_restart_remembers_that(bench, kit):
    bench.document(5, kit.attempt())
    bench.document(4)
    again = bench.restarted().ready()
    again.document(4)
    assert again.agent.memory.assignments.revision == Revision(1, 5)
    assert again.agent.counts["old_revision"] == 1


def test_revisions_compare_as_pairs(bench, kit):
    bench.document(9, kit.attempt(), epoch=6)
    bench.document(2, epoch=7)
    assert bench.agent.memory.assignments.revision == Revision(7, 2)


def test_lower_epochs_are_dropped_in_every_message_down(bench, kit):
    bench.document(1, kit.attempt(), epoch=7)
    bench.document(99, epoch=6)
    bench.receive(Settings(Revision(6, 9), quarantined=True))
    bench.answer(epoch=6)
    bench.receive(Command("c1", bench.agent.connection.session, 6, 1, 1000, "ping"))
    assert bench.agent.counts["old_epoch"] == 4
    assert not bench.agent.memory.settings.quarantined
    assert bench.agent.memory.entries == {}
    assert bench.restarted().agent.memory.epoch == 7


def test_a_new_document_is_answered_by_a_heartbeat_at_once(bench, kit):
    effects = bench.document(1, kit.attempt())
    assert isinstance(effects[0], Save)
    assert kit.heartbeats(effects)[-1].held.assignments == Revision(1, 1)


def test_a_ping_is_answered_once(bench, kit):
    command = Command("c1", bench.agent.connection.session, 1, 1, 1000, "ping")
    assert kit.published(bench.receive(command), Answer) == [Answer("c1", True, "pong")]
    assert kit.published(bench.receive(command), Answer) == []


def test_a_command_of_another_session_is_dropped(bench, kit):
    command = Command("c1", bench.agent.connection.session - 1, 1, 1, 1000, "ping")
    assert kit.published(bench.receive(command), Answer) == []
    assert bench.agent.counts["command_old_session"] == 1


def test_an_unknown_verb_is_refused_by_name(bench, kit):
    command = Command("c1", bench.agent.connection.session, 1, 1, 1000, "dance")
    assert kit.published(bench.receive(command), Answer)[0].ok is False


def test_garbage_is_counted_and_noted_at_a_bounded_rate(bench, kit):
    notes = []
    for _ in range(1_000):
        notes += kit.of(bench.feed(GarbageArrived("pi-1", "assignments", "empty")), Note)
    assert len(notes) == 1
    assert bench.agent.counts["garbage_empty"] == 1_000
    assert bench.agent.memory.assignments == Assignments(Revision(0, 0))


def test_the_heartbeat_period_is_a_third_of_the_shortest_lease(bench, kit):
    bench.document(1, kit.attempt(lease_ms=6_000), kit.attempt("job.2"))
    bench.answer()
    sent = len(kit.heartbeats(_answered(bench, kit, 20_000)))
    assert 9 <= sent <= 11


def test_settings_raise_and_lower_the_period(bench):
    bench.receive(Settings(Revision(1, 1), heartbeat_ms=60_000))
    assert bench.agent.heartbeats.period_ms == 60_000
    bench.receive(Settings(Revision(1, 2), heartbeat_ms=1_500))
    assert bench.agent.heartbeats.period_ms == 1_500
    bench.receive(Settings(Revision(1, 3)))
    assert bench.agent.heartbeats.period_ms == 10_000


def test_an_unanswered_heartbeat_is_repeated_with_a_new_seq(bench, kit):
    bench.answer()
    first = kit.heartbeats(bench.at(bench.now + 10_000))
    assert len(first) == 1
    again = kit.heartbeats(bench.at(bench.now + 2_000))
    assert [h.seq for h in again] == [first[0].seq + 1]


def test_a_controller_that_is_away_for_long_is_not_asked_every_two_seconds(bench, kit):
    bench.at(bench.now + 60_000)
    assert len(kit.heartbeats(bench.at(bench.now + 100_000))) == 10


def test_heartbeats_remembered_are_bounded(bench):
    bench.at(bench.now + 10_000_000)
    assert len(bench.agent.heartbeats.sent) <= 256


def _answered(bench, kit, span_ms):
    """Time passes and every heartbeat is answered at once."""
    effects = []
    end = bench.now + span_ms
    while bench.now < end:
        step = bench.at(min(end, bench.agent.next_due_ms()))
        effects += step
        if kit.heartbeats(step):
            bench.answer()
    return effects


def test_a_renewal_without_a_grant_is_asked_for_again_in_a_second(bench, kit):
    """A new leader first wants `Runs`; a lease of 10 s does not outlast another period."""
    bench.running(kit.attempt(lease_ms=10_000))
    bench.answer()
    bench.at(bench.now + 10_000)
    beats = kit.published(bench.at(bench.now + 10_000), Heartbeat)
    assert beats, "a heartbeat of its period"
    bench.answer(granted=NO_REVISION, runs=0)
    assert kit.published(bench.at(bench.now + 1_000), Heartbeat)
