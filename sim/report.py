"""The report: what a command found, as JSON and as one HTML file that needs nothing else.

Rule of this file: text in, text out. The page loads nothing from anywhere and says so to the
browser (a policy of content); all that it shows is data in a script that is no program, with
every `<` escaped, and reaches the page as text, never as markup: a job or a device may have
any name. It knows no files and no world.
Rejected: a plotting library (megabytes, for bars and arrows); images (nobody can zoom in).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.timeline import Timeline

Table = tuple[str, Sequence[tuple[str, str]]]
"""A title, and rows of a name and a value."""


@dataclass(slots=True)
class Report:
    """What both forms tell. `summary` is the object of `--json`."""

    summary: Mapping[str, Any]
    verdict: str
    title: str
    headline: str
    again: Sequence[str]
    """Commands that do it once more."""
    tables: Sequence[Table]
    timeline: Timeline | None = None
    detail: str = ""
    plan: str = ""
    scenario: str = ""
    failures: Sequence[str] = field(default_factory=tuple)
    """A line for each seed that failed."""


def as_json(report: Report) -> str:
    """`report.json`: the summary, and the timeline with names for its columns."""
    shown = {
        "summary": dict(report.summary),
        "verdict": report.verdict,
        "title": report.title,
        "detail": report.detail,
        "reproduce": list(report.again),
        "plan": report.plan,
        "scenario": report.scenario,
        "failures": list(report.failures),
        "timeline": _columns(report.timeline) if report.timeline is not None else None,
    }
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_page(report: Report, page: str) -> str:
    """`report.html`: `page` (the text of `report_page.html`) with this report in it."""
    story = {
        "verdict": report.verdict,
        "title": report.title,
        "headline": report.headline,
        "again": list(report.again),
        "detail": report.detail,
        "tables": [[title, [list(row) for row in rows]] for title, rows in report.tables],
        "texts": _texts(report),
        "foot": _foot(report.timeline),
        "timeline": _timeline(report.timeline) if report.timeline is not None else None,
    }
    before, rest = page.split("@TITLE@", 1)
    middle, after = rest.split("@STORY@", 1)
    return before + _escaped(report.title) + middle + _inert(story) + after


def _foot(line: Timeline | None) -> str:
    told = "Made by fm sim. Times count from the moment at which the fleet was ready"
    return f"{told}; in the trace that is {line.ready_ms}." if line is not None else f"{told}."


def _texts(report: Report) -> list[tuple[str, str, bool]]:
    """The folded parts: title, text, whether it begins open."""
    trace = "\n".join(report.timeline.last_lines) if report.timeline is not None else ""
    return [
        ("Seeds that failed", "\n".join(report.failures), True),
        ("The plan", report.plan, True),
        ("The plan as a scenario file", report.scenario, False),
        ("The last lines of the trace", trace, False),
    ]


def _timeline(line: Timeline) -> dict[str, object]:
    """In the order in which the page expects the columns; it reads them by place."""
    return {
        "from": line.begins_ms,
        "to": line.ends_ms,
        "quiet": line.quiet_ms,
        "lanes": line.lanes,
        "runs": line.runs,
        "states": line.spans,
        "faults": line.faults,
        "channels": line.channels,
        "messages": line.arrows,
        "messages_total": line.arrows_total,
        "texts": line.texts,
        "breaches": line.breaches,
    }


def _columns(line: Timeline) -> dict[str, object]:
    """For other programs: one object a row, but for messages, whose rows name their columns once."""
    return {
        "ready_ms": line.ready_ms,
        "begins_ms": line.begins_ms,
        "ends_ms": line.ends_ms,
        "faults_end_ms": line.quiet_ms,
        "lanes": [lane._asdict() for lane in line.lanes],
        "runs": [run._asdict() for run in line.runs],
        "states": [span._asdict() for span in line.spans],
        "faults": [fault._asdict() for fault in line.faults],
        "breaches": [
            {"at_ms": at_ms, "invariant": invariant, "text": text} for at_ms, invariant, text in line.breaches
        ],
        "channels": line.channels,
        "message_columns": ["sent_ms", "received_ms", "sender", "receiver", "channel", "text"],
        "messages": line.arrows,
        "messages_total": line.arrows_total,
        "texts": line.texts,
        "last_lines": line.last_lines,
    }


def _inert(value: object) -> str:
    """JSON that can't end the script it stands in, whatever the texts say."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
