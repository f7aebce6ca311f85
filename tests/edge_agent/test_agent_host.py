"""A run host that dies, is asked and answers: which of its words count (D4, D5)."""

from __future__ import annotations

from edge_agent.core.effects import ListRuns, StartRun
from edge_agent.core.events import HostListed, HostLost
from edge_agent.runtimes import host
from edge_agent.translation import event_of
from protocol.core import SaveFailed
from protocol.tasks import RunState


def test_a_lost_host_silences_runs_until_the_next_one_has_told(bench, kit):
    bench.running(kit.attempt())
    bench.host_answers = False
    effects = bench.feed(HostLost("killed"))
    assert kit.runs(effects) == []
    ask = kit.of(effects, ListRuns)[-1].ask
    bench.document(2, kit.attempt(), kit.attempt("job.2"))
    assert kit.runs(bench.effects) == []
    assert kit.of(bench.answer(), StartRun) == [], "nothing is started without a host"
    effects = bench.feed(HostListed(ask, (), ()))
    assert {e.task: e.state for e in kit.runs(effects)[-1].entries}["job.1"] is RunState.INTERRUPTED
    assert [s.attempt.task for s in kit.of(effects, StartRun)] == ["job.2"]


def test_an_answer_to_an_older_question_is_ignored(bench, kit):
    bench.running(kit.attempt())
    bench.host_answers = False
    first = bench.agent.runs._ask
    bench.feed(HostLost("killed"))
    bench.feed(HostListed(first, (), ()))
    assert bench.states() == {"job.1": RunState.RUNNING}


def test_a_lost_question_is_asked_again(bench, kit):
    bench.host_answers = False
    bench.feed(HostLost("killed"))
    assert len(kit.of(bench.at(bench.now + 30_000), ListRuns)) == 3


def test_nothing_starts_while_the_host_is_asked(bench, kit):
    bench.host_answers = False
    bench.feed(HostLost("killed"))
    bench.document(1, kit.eager())
    assert bench.states() == {}


def test_a_new_hosts_first_list_needs_no_question(bench, kit):
    bench.running(kit.attempt())
    bench.host_answers = False
    bench.feed(HostLost("killed"))
    bench.feed(HostListed(0, (("job.1", 1),), ()))
    assert bench.agent.runs.listed and bench.states() == {"job.1": RunState.RUNNING}
    bench.feed(HostListed(0, (), ()))
    assert bench.states() == {"job.1": RunState.RUNNING}, "only the first one counts"


def test_a_new_hosts_first_list_says_nothing_of_a_start_that_may_have_reached_it_since(bench, kit):
    """The order waited behind a slow save while one host died and the next one told what it held."""
    bench.document(1, kit.attempt())
    bench.host_answers = False
    bench.answer()
    bench.feed(HostLost("killed"))
    effects = bench.feed(HostListed(0, (), ()))
    assert bench.states() == {"job.1": RunState.STARTING} and kit.runs(effects) == []
    ask = kit.of(effects, ListRuns)[-1].ask
    bench.feed(HostListed(ask - 1, (), ()))
    assert bench.states() == {"job.1": RunState.STARTING}, "asked before the order, for all we know"
    bench.feed(HostListed(ask, (), ()))
    assert bench.states() == {"job.1": RunState.INTERRUPTED}


def test_an_answer_that_came_after_the_first_list_says_nothing_of_what_was_started_since(bench, kit):
    """The question was on its way before the order to start, so its answer lists no such run."""
    bench.document(1, kit.attempt())
    bench.host_answers = False
    ask = kit.of(bench.feed(HostLost("killed")), ListRuns)[-1].ask
    bench.feed(HostListed(0, (), ()))
    assert len(kit.of(bench.answer(), StartRun)) == 1
    bench.feed(HostListed(ask, (), ()))
    assert bench.states() == {"job.1": RunState.STARTING}


def test_a_host_lists_what_has_no_process_yet_as_prepared():
    held = (host.HeldRun("a", 1, 0, 0), host.HeldRun("b", 2, 0, 77))
    listed = event_of(host.HostListed(held, ()))
    assert isinstance(listed, HostListed)
    assert listed.live == (("a", 1), ("b", 2)) and listed.preparing == (("a", 1),)


def test_nothing_starts_between_a_question_and_its_answer(bench, kit):
    """The list would be older than the start, and call it interrupted."""
    bench.document(1, kit.attempt())
    bench.host_answers = False
    bench.feed(SaveFailed("disk"))
    bench.at(bench.now + 1_000)
    assert kit.of(bench.answer(), StartRun) == []
    effects = bench.feed(HostListed(bench.agent.runs._ask, (), ()))
    assert len(kit.of(effects, StartRun)) == 1
