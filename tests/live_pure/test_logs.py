"""One line an event, whatever it holds."""

from __future__ import annotations

import io
import json
import logging

import pytest

from live.clock import boottime_ms, wall_ms
from live.logs import FOLD_MS, FOLDED_MAX, Log, capture_logging, log, note_to_log, setup_logs
from protocol.core import Note


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Sink:
    def __init__(self, stream: io.StringIO | None = None, **more: object) -> None:
        self.stream, self.now_ms = stream or io.StringIO(), 0
        self.log = Log(self.stream, clock=lambda: self.now_ms, wall=lambda: 1_000, **more)

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture(autouse=True)
def process_log_restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    setup_logs()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_words_that_need_no_quotes_or_have_them():
    sink = Sink()
    sink.log.write("info", "link up", {"device": "pi-1", "session": 7, "why": 'a "b"\nc', "none": None})
    assert sink.lines() == [
        r'1970-01-01T00:00:01.000Z level=info text="link up" device=pi-1 session=7 why="a \"b\"\nc" none=""'
    ]


def test_control_characters_never_make_a_second_line_or_reach_the_terminal():
    sink = Sink()
    sink.log.write("info", "a\r\nb\x1b[31m\u2028", {"x": "\n"})
    assert len(sink.stream.getvalue().splitlines()) == 1 and "\x1b" not in sink.stream.getvalue()


def test_json_on_request():
    sink = Sink(as_json=True)
    sink.log.write("error", "no", {"n": 1})
    assert json.loads(sink.lines()[0]) == {
        "time": "1970-01-01T00:00:01.000Z",
        "level": "error",
        "text": "no",
        "n": 1,
    }


def test_lower_levels_are_not_written():
    sink = Sink(level="warning")
    sink.log.write("info", "a")
    sink.log.write("warning", "b")
    assert len(sink.lines()) == 1
    with pytest.raises(ValueError):
        Log(level="loud")


def test_colours_only_on_a_terminal_and_without_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, environment, coloured in (
        (Terminal(), "", True),
        (io.StringIO(), "", False),
        (Terminal(), "1", False),
    ):
        monkeypatch.setenv("NO_COLOR", environment)
        sink = Sink(stream)
        sink.log.write("error", "x")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_repeated_errors_are_counted_and_told_with_the_next():
    sink = Sink()
    for _ in range(5):
        sink.log.write("error", "cannot connect", {"host": "h"})
        sink.log.write("info", "again")
    assert sum("cannot" in line for line in sink.lines()) == 1
    assert sum("again" in line for line in sink.lines()) == 5
    sink.now_ms += FOLD_MS
    sink.log.write("error", "cannot connect", {"host": "h"})
    assert sink.lines()[-1].endswith("host=h repeated=4")
    sink.log.write("error", "cannot connect", {"host": "h"})
    sink.log.flush()
    assert sink.lines()[-1].endswith("host=h repeated=1")
    written = len(sink.lines())
    sink.log.flush()
    assert len(sink.lines()) == written


def test_what_is_remembered_for_folding_is_bounded():
    sink = Sink()
    for number in range(FOLDED_MAX * 3):
        sink.log.write("error", f"e{number}")
    assert len(sink.log._seen) == FOLDED_MAX


def test_notes_and_library_lines_reach_the_log_of_the_process():
    stream = io.StringIO()
    setup_logs(stream=stream, level="debug")
    note_to_log(Note("warning", "stale", {"attempt": 2}))
    log("info", "hello", device="d")
    capture_logging()
    logging.getLogger("lib").error("broken %s", "pipe")
    logging.getLogger("lib").info("chatter")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("lib").exception("with trace")
    lines = stream.getvalue().splitlines()
    assert [line.split("Z ", 1)[1] for line in lines[:3]] == [
        "level=warning text=stale attempt=2",
        "level=info text=hello device=d",
        'level=error text="broken pipe" source=lib',
    ]
    assert len(lines) == 4 and "ValueError: inner" in lines[3]


def test_a_closed_stream_is_no_error():
    stream = io.StringIO()
    sink = Sink(stream)
    stream.close()
    sink.log.write("error", "x")


def test_clocks_are_whole_milliseconds_that_advance():
    first, wall = boottime_ms(), wall_ms()
    assert isinstance(first, int) and isinstance(wall, int)
    assert boottime_ms() >= first and wall > 1_600_000_000_000
