"""Starting, extending, stopping and reporting runs: rules D2-D6, L1, L4 and the holes behind them."""

from __future__ import annotations

import itertools

from edge_agent.core.effects import ExtendRun, StartRun, StopRun
from edge_agent.core.events import HostListed, RunExit, RunRefused, RunStarted
from protocol.codec import encode
from protocol.core import MessageArrived, Publish, Save, SaveFailed
from protocol.limits import KILL_MS, PAYLOAD_BYTES_MAX
from protocol.messages import Inventory, LeaseAnswer, Revision, Runs, Settings
from protocol.tasks import AttemptId, RunState

LEASE_MS = 30_000


def test_a_document_alone_starts_nothing(bench, kit):
    assert kit.of(bench.document(1, kit.attempt()), StartRun) == []


def test_a_grant_starts_with_the_intent_saved_first(bench, kit):
    bench.document(1, kit.attempt())
    sent = bench.now
    bench.now += 700
    effects = bench.answer()
    kinds = [type(e) for e in effects]
    assert kinds.index(Save) < kinds.index(StartRun)
    assert kit.of(effects, StartRun)[0].deadline_ms == sent + LEASE_MS - KILL_MS
    assert bench.restarted().states() == {"job.1": RunState.STARTING}


def test_a_grant_for_another_revision_starts_nothing(bench, kit):
    bench.document(1, kit.attempt())
    assert kit.of(bench.answer(granted=Revision(1, 2)), StartRun) == []
    bench.document(2, kit.attempt())
    assert kit.of(bench.answer(granted=Revision(1, 1)), StartRun) == []


def test_a_grant_for_another_session_starts_nothing(bench, kit):
    old = bench.agent.connection.session
    bench.document(1, kit.attempt())
    bench.down()
    bench.at(bench.now + 5_000)
    bench.up()
    assert kit.of(bench.answer(session=old, seq=1), StartRun) == []
    assert len(kit.of(bench.answer(), StartRun)) == 1


def test_a_grant_for_a_heartbeat_of_another_process_starts_nothing(bench, kit):
    bench.document(1, kit.attempt())
    assert kit.of(bench.answer(seq=77), StartRun) == []


def test_a_grant_counts_from_its_heartbeat_not_from_its_receipt(bench, kit):
    bench.document(1, kit.attempt())
    seq, sent = bench.agent.heartbeats._seq, bench.now
    bench.at(bench.now + 9_000)
    start = kit.of(bench.answer(seq=seq), StartRun)[0]
    assert start.deadline_ms == sent + LEASE_MS - KILL_MS


def test_a_grant_that_has_run_out_starts_nothing(bench, kit):
    bench.document(1, kit.attempt())
    seq = bench.agent.heartbeats._seq
    bench.now += LEASE_MS - KILL_MS
    assert kit.of(bench.answer(seq=seq), StartRun) == []
    assert bench.states() == {}


def test_late_doubled_and_reordered_grants_move_nothing_back(bench, kit):
    bench.running(kit.attempt())
    first = bench.agent.heartbeats._seq
    bench.at(bench.now + 10_000)
    second = bench.agent.heartbeats._seq
    assert len(kit.of(bench.answer(seq=second), ExtendRun)) == 1
    assert kit.of(bench.answer(seq=second), ExtendRun) == []
    assert kit.of(bench.answer(seq=first), ExtendRun) == []


def test_each_grant_extends_every_covered_run_by_its_own_lease(bench, kit):
    bench.running(kit.attempt("a", lease_ms=30_000), kit.attempt("b", lease_ms=60_000))
    bench.at(bench.now + 10_000)
    sent = bench.now
    extended = {e.task: e.deadline_ms for e in kit.of(bench.answer(), ExtendRun)}
    assert extended == {"a": sent + 28_000, "b": sent + 58_000}


def test_at_least_one_starts_without_a_grant_and_without_a_deadline(bench, kit):
    effects = bench.document(1, kit.eager())
    assert [s.deadline_ms for s in kit.of(effects, StartRun)] == [0]
    assert kit.of(bench.answer(), ExtendRun) == []


def test_quarantine_starts_nothing_and_its_end_does(bench, kit):
    bench.receive(Settings(Revision(1, 1), quarantined=True))
    bench.document(1, kit.attempt(), kit.eager("job.2"))
    assert kit.of(bench.answer(), StartRun) == []
    assert len(kit.of(bench.receive(Settings(Revision(1, 2))), StartRun)) == 2


def test_an_attempt_starts_once_however_often_it_is_granted(bench, kit):
    bench.document(1, kit.attempt())
    starts = kit.of(bench.answer(), StartRun)
    for _ in range(5):
        bench.at(bench.now + 10_000)
        starts += kit.of(bench.answer(), StartRun)
    assert len(starts) == 1


def test_a_newer_attempt_waits_until_the_older_is_dead(bench, kit):
    bench.running(kit.attempt())
    effects = bench.document(2, kit.attempt(number=2))
    effects += bench.answer()
    assert kit.of(effects, StopRun) == [StopRun("job.1", 1, 5_000)]
    assert kit.of(effects, StartRun) == []
    started = kit.of(bench.exit("job.1", reason="stopped"), StartRun)
    assert [s.attempt.attempt for s in started] == [2]


def test_a_stopped_run_stays_listed_until_the_host_confirms_its_death(bench, kit):
    bench.running(kit.attempt())
    report = kit.runs(bench.document(2))[-1]
    assert report.answers == Revision(1, 2)
    assert [e.state for e in report.entries] == [RunState.STOPPING]
    report = kit.runs(bench.exit("job.1", reason="stopped"))[-1]
    assert [e.state for e in report.entries] == [RunState.STOPPED]


def test_an_end_is_saved_before_it_is_reported(bench, kit):
    bench.running(kit.attempt())
    effects = bench.exit("job.1", code=3)
    kinds = [type(e) for e in effects]
    assert kinds.index(Save) < kinds.index(Publish)
    entry = kit.runs(effects)[-1].entries[0]
    assert (entry.state, entry.exit_code) == (RunState.ENDED, 3)
    assert bench.restarted().states() == {"job.1": RunState.ENDED}


def test_an_end_is_reported_although_it_cannot_be_saved(bench, kit):
    bench.running(kit.attempt())
    bench.saves_work = False
    effects = bench.exit("job.1", code=3)
    assert kit.runs(effects)[-1].entries[0].state is RunState.ENDED


def test_ends_by_cause(bench, kit):
    causes = {
        "exited": RunState.ENDED,
        "signalled": RunState.ENDED,
        "timeout": RunState.ENDED,
        "oom": RunState.ENDED,
        "deadline": RunState.STOPPED,
        "stopped": RunState.STOPPED,
        "guard_lost": RunState.INTERRUPTED,
    }
    bench.running(*[kit.attempt(f"job.{c.replace('_', '-')}") for c in causes])
    for cause in causes:
        bench.exit(f"job.{cause.replace('_', '-')}", reason=cause)
    assert bench.states() == {f"job.{c.replace('_', '-')}": s for c, s in causes.items()}


def test_a_refused_start_is_stopped_and_a_failed_one_has_ended(bench, kit):
    bench.document(1, kit.attempt("a"), kit.attempt("b"))
    bench.answer()
    bench.feed(RunRefused("a", 1, "past its deadline"))
    bench.feed(RunRefused("b", 1, "no such program", failed=True))
    assert bench.states() == {"a": RunState.STOPPED, "b": RunState.ENDED}
    assert bench.restarted().states() == bench.states()


def test_a_tombstone_outlives_everything_but_a_document_without_it(bench, kit):
    bench.running(kit.attempt())
    bench.exit("job.1")
    again = bench.restarted().ready()
    assert kit.runs(again.effects)[-1].entries[0].state is RunState.ENDED
    assert kit.of(again.answer(), StartRun) == []
    again.document(2)
    assert again.states() == {}
    assert again.restarted().states() == {}


def test_a_tombstoned_attempt_in_a_newer_document_is_listed_and_never_run(bench, kit):
    """H7: the device saw the attempt end; a later document names it again."""
    bench.running(kit.attempt())
    bench.exit("job.1", reason="stopped")
    bench.document(2, kit.attempt(), kit.attempt("job.2"))
    assert [s.attempt.task for s in kit.of(bench.answer(), StartRun)] == ["job.2"]
    bench.feed(RunStarted("job.2", 1))
    listed = {e.task: e.state for e in kit.runs(bench.effects)[-1].entries}
    assert listed == {"job.1": RunState.STOPPED, "job.2": RunState.RUNNING}


def test_an_end_that_is_processed_and_no_longer_asked_for_is_forgotten(bench, kit):
    bench.running(kit.attempt())
    bench.document(2)
    bench.exit("job.1", reason="stopped")
    assert bench.states() == {"job.1": RunState.STOPPED}
    bench.answer()
    assert bench.states() == {}


def test_an_end_stays_while_the_document_names_it(bench, kit):
    bench.running(kit.attempt())
    bench.exit("job.1")
    bench.answer()
    assert bench.states() == {"job.1": RunState.ENDED}


def test_unprocessed_runs_are_published_again_at_most_once_a_second(bench, kit):
    """H6: the reported document is level-triggered."""
    bench.running(kit.attempt())
    bench.exit("job.1")
    number = bench.agent.runs.number
    bench.at(bench.now + 10_000)
    again = kit.runs(bench.answer(runs=number - 1))
    assert [r.number for r in again] == [number]
    assert kit.runs(bench.answer(runs=number - 1)) == []


def test_an_unprocessed_inventory_is_published_again(bench, kit):
    bench.at(bench.now + 10_000)
    assert len(kit.published(bench.answer(inventory=0), Inventory)) == 1


def test_run_numbers_rise_in_a_session_and_begin_anew_in_the_next(bench, kit):
    bench.running(kit.attempt())
    bench.exit("job.1")
    assert bench.agent.runs.number > 1
    bench.down()
    bench.at(bench.now + 5_000)
    report = kit.runs(bench.up())[0]
    assert (report.session, report.number) == (bench.agent.connection.session, 1)


def test_a_restarted_agent_adopts_what_lives_and_keeps_its_deadline(bench, kit):
    bench.running(kit.attempt())
    again = bench.restarted().ready(live=(("job.1", 1),))
    assert again.states() == {"job.1": RunState.RUNNING}
    effects = again.answer()
    assert kit.of(effects, StartRun) == []
    assert len(kit.of(effects, ExtendRun)) == 1, "a grant of the new session extends it"


def test_interrupted_is_said_only_after_the_host_was_asked(bench, kit):
    bench.running(kit.attempt())
    again = bench.restarted()
    again.host_answers = False
    again.boot()
    again.up()
    assert again.states() == {"job.1": RunState.STARTING}
    effects = again.feed(HostListed(again.agent.runs._ask, (), ()))
    assert kit.runs(effects)[-1].entries[0].state is RunState.INTERRUPTED


def test_exits_that_happened_without_the_agent_are_read_first(bench, kit):
    """H12: the guard killed it at its deadline while buffered grants wait in the socket."""
    bench.running(kit.attempt())
    again = bench.restarted()
    again.boot(exits=(RunExit("job.1", 1, -1, 9, "deadline"),))
    again.up()
    assert again.states() == {"job.1": RunState.STOPPED}
    assert kit.of(again.answer(), StartRun) == []


def test_what_the_journal_calls_started_is_not_started_when_the_host_has_no_run(bench, kit):
    bench.document(1, kit.attempt())
    bench.answer()
    assert kit.of(bench.answer(), StartRun) == []
    again = bench.restarted().ready()
    assert kit.of(again.answer(), StartRun) == []
    assert again.states() == {"job.1": RunState.INTERRUPTED}


def test_an_adopted_run_without_a_journal_is_not_stopped_by_an_unconfirmed_document(bench, kit):
    """H7/D6: the document may be an old copy; the deadline bounds the run."""
    bench.running(kit.attempt())
    lost = kit.Bench(now=bench.now, seed=9)
    lost.boot(live=(("job.1", 1),))
    lost.up()
    assert kit.of(lost.document(1), StopRun) == []
    assert lost.states() == {"job.1": RunState.RUNNING}
    assert kit.of(lost.document(2, kit.attempt()), StopRun) == []
    lost.answer()
    assert kit.of(lost.document(3), StopRun) == [StopRun("job.1", 1, 5_000)]


def test_a_grant_confirms_a_document_that_leaves_an_adopted_run_out(bench, kit):
    lost = kit.Bench(seed=9)
    lost.boot(live=(("job.1", 1),))
    lost.up()
    lost.document(1)
    assert kit.of(lost.answer(), StopRun) == [StopRun("job.1", 1, 5_000)]


def test_an_adopted_run_counts_as_an_intent(bench, kit):
    lost = kit.Bench(seed=9)
    lost.boot(live=(("job.1", 1),))
    again = lost.restarted().ready()
    again.document(1, kit.attempt())
    assert kit.of(again.answer(), StartRun) == []


def test_intents_in_doubt_are_never_started_again(bench, kit):
    """A start behind a save that failed was dropped, or was it? The attempt is burnt."""
    bench.document(1, kit.attempt())
    agent = bench.agent
    message = LeaseAnswer(1, agent.connection.session, agent.heartbeats._seq, Revision(1, 1))
    agent.handle(MessageArrived("pi-1", message), bench.now)
    bench.feed(SaveFailed("disk"))
    assert bench.states() == {"job.1": RunState.INTERRUPTED}
    bench.at(bench.now + 10_000)
    assert kit.of(bench.answer(), StartRun) == []


def test_a_failing_journal_is_tried_again_and_work_resumes(bench, kit):
    bench.saves_work = False
    bench.document(1, kit.attempt())
    assert kit.of(bench.answer(), StartRun) == []
    assert kit.of(bench.at(bench.now + 9_000), StartRun) == []
    bench.saves_work = True
    effects = bench.at(bench.now + 9_000)
    assert not bench.agent.promises.failing
    assert len(kit.of(effects, StartRun)) == 1


def test_a_document_that_only_adds_costs_no_report(bench, kit):
    bench.running(kit.attempt())
    effects = bench.document(2, kit.attempt(), kit.attempt("job.2"))
    assert kit.runs(effects) == []
    assert len(kit.heartbeats(effects)) == 1


def test_a_document_that_skips_a_revision_is_always_reported(bench, kit):
    """Somebody may wait for an attempt that we never saw named (L3)."""
    bench.document(1)
    assert kit.runs(bench.document(2)) == []
    assert [r.answers for r in kit.runs(bench.document(4))] == [Revision(1, 4)]


def test_a_stop_is_ordered_again_when_the_host_still_lists_the_run(bench, kit):
    bench.running(kit.attempt())
    bench.document(2)
    assert StopRun("job.1", 1, 5_000) in bench.at(bench.now + 31_000)


def test_a_heartbeat_answered_without_a_grant_is_soon_repeated_then_ever_slower(bench, kit):
    bench.document(1, kit.attempt())
    sent = []
    end = bench.now + 60_000
    while bench.now < end:
        bench.answer(granted=Revision(0, 0))
        if kit.heartbeats(bench.at(bench.agent.next_due_ms())):
            sent.append(bench.now)
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert gaps[0] <= 2_000 and gaps == sorted(gaps) and gaps[-1] == 10_000


def test_weak_containment_is_advertised_when_the_host_tells(kit):
    bench = kit.Bench()
    bench.host_answers = False
    bench.boot()
    bench.up()
    effects = bench.feed(HostListed(bench.agent.runs._ask, (), (), "weak", "rlimit"))
    inventory = kit.published(effects, Inventory)[0]
    assert (inventory.containment, inventory.limits, inventory.number) == ("weak", "rlimit", 2)


def test_a_crowd_of_long_reasons_still_fits_one_payload(bench, kit):
    bench.document(1, *[kit.attempt(f"job-{n}.1") for n in range(512)])
    bench.answer()
    for n in range(512):
        bench.feed(RunRefused(f"job-{n}.1", 1, "x" * 200, failed=True))
    assert len(kit.published(bench.effects, Runs)) < 20, "many changes travel in one document"
    bench.at(bench.agent.next_due_ms())
    report = kit.published(bench.effects, Runs)[-1]
    assert len(report.entries) == 512
    assert len(encode(report)) <= PAYLOAD_BYTES_MAX
    assert AttemptId("job-7.1", 1) in bench.agent.memory.entries


def test_a_stop_has_the_grace_of_its_attempt(bench, kit):
    bench.running(kit.attempt(stop_grace_ms=777), kit.attempt("job.2", stop_grace_ms=888))
    kept = kit.attempt("job.2", stop_grace_ms=888)
    assert kit.of(bench.document(2, kept), StopRun) == [StopRun("job.1", 1, 777)]
    again = bench.restarted().ready(live=(("job.2", 1),))
    assert kit.of(again.document(3), StopRun) == [StopRun("job.2", 1, 888)]


def test_what_the_host_still_prepares_is_not_called_running(bench, kit):
    bench.document(1, kit.attempt())
    bench.answer()
    bench.host_answers = False
    bench.at(bench.now + 30_000)
    live = (("job.1", 1),)
    bench.feed(HostListed(bench.agent.runs._ask, live, (), preparing=live))
    assert bench.states() == {"job.1": RunState.STARTING}
    bench.feed(RunStarted("job.1", 1))
    assert bench.states() == {"job.1": RunState.RUNNING}


def test_a_restarted_agent_asks_again_after_what_is_prepared(bench, kit):
    bench.document(1, kit.attempt())
    bench.answer()
    again = bench.restarted()
    again.host_answers = False
    again.boot()
    live = (("job.1", 1),)
    again.feed(HostListed(again.agent.runs._ask, live, (), preparing=live))
    again.up()
    assert again.states() == {"job.1": RunState.STARTING}
    asked = again.agent.runs._ask
    again.at(again.now + 30_000)
    assert again.agent.runs._ask > asked, "the word that it started may be lost"
    again.feed(HostListed(again.agent.runs._ask, live, ()))
    assert again.states() == {"job.1": RunState.RUNNING}


def test_what_is_prepared_and_in_no_journal_is_adopted_as_starting(kit):
    bench = kit.Bench()
    bench.host_answers = False
    bench.boot()
    live = (("job.1", 1),)
    bench.feed(HostListed(bench.agent.runs._ask, live, (), preparing=live))
    reported = kit.runs(bench.up())[-1]
    assert [(e.task, e.state) for e in reported.entries] == [("job.1", RunState.STARTING)]
    bench.document(1)
    assert kit.of(bench.answer(), StopRun) == [StopRun("job.1", 1, 5_000)]


def test_a_run_that_lives_on_after_its_end_was_told_is_stopped(bench, kit):
    bench.running(kit.attempt())
    bench.exit("job.1")
    assert kit.of(bench.feed(RunStarted("job.1", 1)), StopRun) == [StopRun("job.1", 1, 5_000)]
