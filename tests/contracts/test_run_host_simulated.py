"""Simulated runs beyond the contract: their commands, their chance, their footprint."""

from __future__ import annotations

import random

import pytest

from edge_agent.runtimes.host import RunExited, RunRefused, RunSpec
from edge_agent.runtimes.simulated import SimulatedHost, read_command
from protocol.resources import Resources


@pytest.mark.parametrize(
    ("words", "duration_ms", "code"),
    [
        ("sleep 5", 5000, 0),
        ("sleep 0.25", 250, 0),
        ("run --ms 7 --exit 3", 7, 3),
        ("run", None, 0),
        ("", None, 0),
    ],
)
def test_simulated_commands_are_read(words: str, duration_ms: int | None, code: int) -> None:
    found = read_command(tuple(words.split()))
    assert (found.duration_ms, found.exit_code) == (duration_ms, code)


@pytest.mark.parametrize(
    "words", ["run --ms", "run --ms x", "run --exit 256", "run inf", "run nan", "run -1"]
)
def test_garbled_simulated_commands_are_refused(words: str) -> None:
    host = SimulatedHost(random.Random(0))
    host.start(RunSpec("t", 1, "simulated", tuple(words.split()), {}), 0, 10)
    (refused,) = host.advance(10)
    assert isinstance(refused, RunRefused) and refused.failed


def test_simulated_runs_use_what_they_were_promised_and_fail_by_chance() -> None:
    host = SimulatedHost(random.Random(3))
    command = ("run", "--ms", "10", "--fail-rate", "0.3")
    for number in range(200):
        host.start(RunSpec(f"t{number}", 1, "simulated", command, {}, 10, 2), 0, 0)
    assert host.used() == Resources(2000, 400, 0, 0)
    answers = host.advance(10)
    failed = sum(isinstance(answer, RunExited) and answer.exit_code == 1 for answer in answers)
    assert 30 < failed < 90
    assert (host.used(), host.due_ms()) == (Resources(), None)
