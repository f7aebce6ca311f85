"""Counterexamples that a review of the agent found, each as its story was told."""

from __future__ import annotations

from edge_agent.app import Device
from edge_agent.config import load_config
from edge_agent.core.effects import ExtendRun, StartRun
from edge_agent.core.memory import Memory
from edge_agent.journal import Journal
from protocol.limits import KILL_MS, LEASE_MS
from protocol.messages import NO_REVISION
from protocol.tasks import RunState


def test_an_extension_dropped_with_a_failed_save_is_said_again(bench, kit):
    """1 A grant of a new leader extends a run and changes memory (its epoch). 2 The save fails: the extension
    is dropped. 3 The next grant may come too late for the deadline that the guard knows."""
    bench.running(kit.attempt())
    bench.at(bench.now + 10_000)
    sent_ms = bench.now
    bench.saves_work = False
    effects = bench.answer(epoch=2)
    assert [e.deadline_ms for e in kit.of(effects, ExtendRun)] == [sent_ms + LEASE_MS - KILL_MS]


def test_an_end_is_remembered_until_a_grant_says_that_the_document_is_no_old_copy(bench, kit):
    """1 Journal lost, the guard holds a run. 2 A delayed copy of an older document, without it. 3 The run
    ends, its end is processed. 4 The present document names it: it may not start a second time."""
    lost = kit.Bench().ready(live=(("job.1", 1),))
    lost.document(4)
    lost.exit("job.1")
    lost.at(lost.now + 1_000)
    lost.answer(granted=NO_REVISION)
    effects = lost.document(5, kit.eager("job.1"))
    assert kit.of(effects, StartRun) == []
    assert lost.states() == {"job.1": RunState.ENDED}


def test_an_end_is_forgotten_once_the_document_without_it_is_granted(bench, kit):
    lost = kit.Bench().ready(live=(("job.1", 1),))
    lost.document(4)
    lost.exit("job.1")
    lost.at(lost.now + 1_000)
    lost.answer()
    assert lost.states() == {}


def test_a_device_is_weakly_contained_until_its_guard_has_told(tmp_path):
    """1 A weak device's agent restarts and connects before its guard answers. 2 It says strong. 3 The
    controller removes an attempt and waits 30 s too short for a guard that dies now."""
    file = tmp_path / "agent.toml"
    file.write_text(f'[device]\nid = "d1"\nfleet = "lab"\ndata_dir = "{tmp_path}"\n')
    journal = Journal.open(tmp_path)
    try:
        device = Device(load_config(file, {}, {}).value, tmp_path, journal, Memory("i1"))
    finally:
        journal.close()
    assert device.agent.equipment.containment == "weak"
