"""What docs/simulation.md shows of scenarios, histories and words is understood."""

from __future__ import annotations

import re

from generated_blocks import ROOT

from sim.cli import _parser
from sim.histories import check_history, read_history
from sim.scenarios import read_scenario

TEXT = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_scenario_is_one() -> None:
    (text,) = blocks("toml")
    plan = read_scenario(text, "docs/simulation.md")
    assert (len(plan.devices), len(plan.orders), len(plan.faults)) == (2, 1, 2)


def test_the_history_is_one() -> None:
    (text,) = blocks("json")
    checkers = check_history(read_history(text, "docs/simulation.md"))
    assert checkers.breaches == [] and len(checkers.starts) == 1


def test_every_command_parses_and_every_option_is_told() -> None:
    lines = [
        line.split()[2:] for text in blocks("(?:sh|text)") for line in text.splitlines() if "fm sim" in line
    ]
    for line in lines:
        _parser().parse_args(line)
    assert len(lines) == 3
    told = _parser().parse_args(["safety"])
    names = {"first": "from"}
    for name in set(vars(told)) - {"command", "quiet"}:
        assert (
            f"`--{names.get(name, name).replace('_', '-')}" in TEXT or f"--{names.get(name, name)} " in TEXT
        ), name


def test_links_lead_somewhere() -> None:
    assert not [n for n in re.findall(r"\]\(([^)#:]+)\)", TEXT) if not (ROOT / "docs" / n).exists()]
