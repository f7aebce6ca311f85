"""The report: one page that needs nothing else, and can't be made to do anything."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pytest

from sim import timeline as timelines
from sim.command.workers import play
from sim.plan import Breach, Fault, Order, Outcome, Plan, PlannedDevice, Verdict
from sim.report import Report, as_json, as_page
from sim.timeline import Recorder, Span, Timeline, Travelled

PAGE = resources.files("sim").joinpath("report_page.html").read_text(encoding="utf-8")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- \"' & \u2028 @STORY@"
PLAN = Plan(
    seed=5,
    faults_ms=40_000,
    devices=tuple(PlannedDevice(f"d{n}", "pi-5-8g", "a") for n in range(3)),
    orders=(
        Order(
            0,
            "submit",
            (
                ("count", 3), ("cpu_milli", 100), ("exit_code", 0), ("guarantee", "at_most_one"),
                ("job", "j1"),
                ("lease_ms", 10_000), ("memory_mib", 50), ("runs_ms", 0), ("site", ""), ("work", "service"),
            ),
        ),
    ),
    faults=(
        Fault(5_000, "agent_frozen", "d0", 9_000),
        Fault(8_000, "broker_killed", "", 3_000, (("survival", "lost"),)),
        Fault(20_000, "power_cut", "d1", 6_000),
    ),
)  # fmt: skip


class Parts(HTMLParser):
    """Tags with their attributes, and what stands in scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def parts_of(page):
    parts = Parts()
    parts.feed(page)
    parts.close()
    assert parts.open == []
    return parts


@pytest.fixture(scope="module")
def seen():
    """A short plan played with somebody looking on: (recorder, outcome)."""
    recorder = Recorder()
    return recorder, play(PLAN, recorder.watch).outcome


@pytest.fixture(scope="module")
def line(seen):
    recorder, outcome = seen
    return recorder.timeline(outcome)


def report(line=None, text="plain"):
    return Report(
        summary={"seeds": 1},
        verdict="violated",
        title=f"Seed 5 {text}",
        headline=text,
        again=[f"fm sim safety --seed 5 {text}"],
        tables=[("Numbers", [("a", text)])],
        timeline=line,
        detail=text,
        plan=text,
        scenario=text,
        failures=[text],
    )


# ---------------------------------------------------------------------- the page


def test_the_page_is_one_file_that_loads_nothing(line):
    parts = parts_of(as_page(report(line), PAGE))
    for tag, attributes in parts.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not {"src", "href", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for t, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    code = parts.scripts[-1]
    assert "innerHTML" not in code and "eval(" not in code and "fetch(" not in code
    assert PAGE.count("://") == 1 and "http://www.w3.org/2000/svg" in PAGE


def test_hostile_text_stays_text(line):
    hostile = replace(
        line,
        lanes=[*line.lanes, timelines.Lane(HOSTILE, "device", HOSTILE)],
        breaches=[(100, HOSTILE, HOSTILE)],
        texts=[HOSTILE],
    )
    page = as_page(report(hostile, HOSTILE), PAGE)
    parts = parts_of(page)
    assert len(parts.scripts) == 2 and page.count("</script>") == 2
    assert [tag for tag, _ in parts.tags if tag == "img"] == []
    story = json.loads(parts.scripts[0])
    assert story["timeline"]["breaches"] == [[100, HOSTILE, HOSTILE]]
    assert story["headline"] == HOSTILE and story["texts"][0][1] == HOSTILE


def test_a_report_without_a_timeline_is_well_formed():
    parts = parts_of(as_page(report(), PAGE))
    assert json.loads(parts.scripts[0])["timeline"] is None


def test_the_json_names_what_the_page_only_counts(line):
    told = json.loads(as_json(report(line)))
    assert told["summary"] == {"seeds": 1} and told["reproduce"] == ["fm sim safety --seed 5 plain"]
    assert {run["task"] for run in told["timeline"]["runs"]} == {"j1.0", "j1.1", "j1.2"}
    columns = told["timeline"]["message_columns"]
    assert all(len(row) == len(columns) for row in told["timeline"]["messages"])


# ---------------------------------------------------------------------- the timeline


def test_looking_on_changes_nothing(seen):
    _, outcome = seen
    assert outcome.trace_hash == play(PLAN).outcome.trace_hash
    assert outcome.verdict is Verdict.HELD, outcome.detail


def test_everybody_has_a_lane_and_everything_happens_on_one(line):
    names = [lane.name for lane in line.lanes]
    assert names == ["everybody", "c1", "broker", "d0", "d1", "d2"]
    kinds = {lane.name: lane.kind for lane in line.lanes}
    assert kinds["c1"] == "controller" and kinds["d0"] == "device"
    lanes = range(len(names))
    assert all(arrow.sender in lanes and arrow.receiver in lanes for arrow in line.arrows)


def test_times_count_from_the_ready_fleet(line):
    assert line.quiet_ms == 40_000 and line.begins_ms <= 0 < line.quiet_ms < line.ends_ms
    frozen = [span for span in line.spans if span.word == "agent frozen"]
    assert frozen == [Span(line.lanes.index(("d0", "device", "pi-5-8g a")), 5_000, 14_000, "agent frozen")]
    down = next(span for span in line.spans if span.word == "down")
    assert (line.lanes[down.lane].name, down.from_ms, down.to_ms) == ("broker", 8_000, 11_000)
    assert "off" in [span.word for span in line.spans if line.lanes[span.lane].name == "d1"]


def test_runs_are_bars_with_a_beginning_and_mostly_an_end(line):
    assert len(line.runs) >= 3
    for run in line.runs:
        assert line.lanes[run.lane].kind == "device"
        assert run.ended_ms is None or run.ended_ms >= run.began_ms
        assert run.dying_ms is None or run.dying_ms >= run.began_ms
    moved = [run for run in line.runs if run.attempt > 1]
    assert moved and all(run.began_ms > 5_000 for run in moved)


def test_messages_arrive_after_they_were_sent(line):
    assert line.arrows_total == len(line.arrows) > 50
    assert all(arrow.sent_ms <= arrow.received_ms for arrow in line.arrows)
    assert {"heartbeat", "lease", "assignments", "runs"} <= set(line.channels)
    assert any("Assignments" in text for text in line.texts)


def test_too_many_messages_are_cut_from_the_busy_ones_first(seen, monkeypatch):
    recorder, outcome = seen
    monkeypatch.setattr(timelines, "MESSAGES_MAX", 40)
    cut = recorder.timeline(replace(outcome, breaches=[Breach(1_000_000, "I1", "x")]))
    assert len(cut.arrows) == 40 < cut.arrows_total
    assert not {cut.channels[arrow.channel] for arrow in cut.arrows} & set(timelines.BUSY)


def test_bytes_that_nobody_can_read_are_counted():
    recorder = Recorder()
    recorder.travels = 2
    recorder.travelled = [
        Travelled(5, 6, "d0", "_controller-c1", "fm/1/sim/d0/runs", b"\xff\x00garbage"),
        Travelled(7, 9, "", "stranger", "foreign", b""),
    ]
    line: Timeline = recorder.timeline(Outcome(PLAN, Verdict.HELD, "", [], 1, 1, 0, {}, "h"))
    assert "9 bytes that nobody can read" in line.texts[0] and "empty" in line.texts[1]
    assert line.lanes[-1].name == "stranger" and line.lanes[line.arrows[1].sender].name == "broker"
