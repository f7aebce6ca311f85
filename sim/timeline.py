"""The timeline of one run: who ran what when, which messages went where, what was done to whom.

Rule of this file: it looks on. It hears the lines of the trace and the messages that arrived,
and touches nothing, so a run with it has the same trace as one without. What a report shows is
bounded: of too many messages those of busy channels go first, the farthest from the first breach
before the nearer. Times are ms since the fleet was ready, as in a plan.
It knows no HTML. Rejected: a recording of every run (ten thousand seeds, one of them is read).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from protocol import topics
from protocol.codec import decode
from protocol.errors import RemoteGarbage
from sim.plan import Fault, Outcome, Plan
from sim.world import World

MESSAGES_MAX = 12_000
"""In a report: about half a megabyte, and a browser still draws it at once."""
RECORDED_MAX = 500_000
"""While recording; a plan that says more is told apart by the count alone."""
TEXTS_MAX = 5_000
BREACHES_MAX = 200
TEXT_CHARS_MAX = 240
BUSY = ("heartbeat", "lease", "telemetry", "canary")
"""Channels that speak all the time and seldom tell a story."""
EVERYBODY, BROKER = "everybody", "broker"
BEGINNINGS = {
    "agent killed": "agent dead",
    "power off": "off",
    "agent frozen": "agent frozen",
    "suspended": "suspended",
    "killed": "dead",
    "paused": "paused",
    "restart": "down",
}
"""How a line of the trace begins after which somebody is not as usual, and what to call that."""
ENDINGS = ("agent starts", "agent thaws", "resume", "leads", "starts", "stands", "up")


class Lane(NamedTuple):
    """`kind`: fleet, broker, controller, device or other."""

    name: str
    kind: str
    note: str = ""


class RunBar(NamedTuple):
    """`ended_ms` None: it lives on; `dying_ms` None: nobody ordered its end."""

    lane: int
    task: str
    attempt: int
    began_ms: int
    ended_ms: int | None
    dying_ms: int | None
    how: str


class Span(NamedTuple):
    """Somebody was `word` for a while."""

    lane: int
    from_ms: int
    to_ms: int
    word: str


class FaultSpan(NamedTuple):
    """A fault of the plan; a moment where the two times are one."""

    lane: int
    from_ms: int
    to_ms: int
    kind: str
    text: str


class Arrow(NamedTuple):
    """A message that arrived; `text` is a place in `texts` or -1."""

    sent_ms: int
    received_ms: int
    sender: int
    receiver: int
    channel: int
    text: int


@dataclass(slots=True)
class Timeline:
    """All that a report draws."""

    begins_ms: int
    ends_ms: int
    quiet_ms: int
    ready_ms: int
    """On the clock of the trace: what all other times here count from."""
    lanes: list[Lane] = field(default_factory=list)
    runs: list[RunBar] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    faults: list[FaultSpan] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    arrows_total: int = 0
    texts: list[str] = field(default_factory=list)
    breaches: list[tuple[int, str, str]] = field(default_factory=list)
    last_lines: list[str] = field(default_factory=list)


class Travelled(NamedTuple):
    """One message, as the network told of it."""

    sent_ms: int
    received_ms: int
    sender: str
    receiver: str
    topic: str
    payload: bytes


class Recorder:
    """Looks on while one plan runs; `timeline` afterwards."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.travelled: list[Travelled] = []
        self.travels = 0
        self._lines: list[tuple[int, str, str]] = []

    def watch(self, world: World) -> None:
        """Begins to look on, before anything has happened."""
        self.world = world
        world.clock.on_line = self._on_line
        world.network.on_travel = self._on_travel

    def _on_line(self, line: str) -> None:
        at, who, what = line.split(" ", 2)
        self._lines.append((int(at), who, what))

    def _on_travel(
        self, sent_ms: int, received_ms: int, sender: str, receiver: str, topic: str, payload: bytes
    ) -> None:
        self.travels += 1
        if len(self.travelled) < RECORDED_MAX:
            self.travelled.append(Travelled(sent_ms, received_ms, sender, receiver, topic, payload))

    def timeline(self, outcome: Outcome) -> Timeline:
        """What was seen, with what the plan wanted and what was found broken."""
        return _Drawing(self, outcome).timeline


class _Drawing:
    """From lines and messages to lanes, bars and arrows."""

    def __init__(self, seen: Recorder, outcome: Outcome) -> None:
        self.seen = seen
        self.plan = outcome.plan
        self.zero_ms = _ready_ms(seen._lines, self.plan)
        first_ms = seen._lines[0][0] if seen._lines else self.zero_ms
        last_ms = seen.world.now_ms if seen.world is not None else self.zero_ms
        self.ends_ms = max(1, last_ms - self.zero_ms)
        self.timeline = Timeline(
            min(0, first_ms - self.zero_ms), self.ends_ms, self.plan.faults_ms, self.zero_ms
        )
        self._lanes: dict[str, int] = {}
        self._cast(self.plan)
        self._faults(self.plan.faults)
        self._spans()
        self._runs()
        self._breaches(outcome)
        self._arrows()

    # ------------------------------------------------------------- lanes

    def _cast(self, plan: Plan) -> None:
        self._lane(EVERYBODY, "fleet", "faults of all")
        for number in range(plan.controllers):
            self._lane(f"_controller-c{number + 1}", "controller", "controller")
        self._lane(BROKER, "broker")
        for device in plan.devices:
            facts = [device.profile, device.site, f"{device.rate_ppm:+} ppm" if device.rate_ppm else ""]
            facts.append(device.containment if device.containment != "strong" else "")
            self._lane(device.name, "device", " ".join(fact for fact in facts if fact))

    def _lane(self, name: str, kind: str = "other", note: str = "") -> int:
        if name not in self._lanes:
            self._lanes[name] = len(self.timeline.lanes)
            self.timeline.lanes.append(Lane(name.removeprefix("_controller-"), kind, note))
        return self._lanes[name]

    # ------------------------------------------------------------- what befell them

    def _faults(self, faults: tuple[Fault, ...]) -> None:
        for fault in faults:
            place = EVERYBODY if not fault.device else fault.device
            text = " ".join(f"{name}={value}" for name, value in fault.args)
            ends_ms = min(fault.at_ms + fault.for_ms, self.ends_ms)
            self.timeline.faults.append(
                FaultSpan(self._lane(place), fault.at_ms, max(ends_ms, fault.at_ms), fault.kind, text)
            )

    def _spans(self) -> None:
        """When somebody was dead, off or frozen: from one line of the trace to the next that ends it."""
        since: dict[str, tuple[int, str]] = {}
        for at_ms, who, what in self.seen._lines:
            if who not in self._lanes:
                continue
            word = next((word for start, word in BEGINNINGS.items() if what.startswith(start)), "")
            if (word or what.startswith(ENDINGS)) and who in since:
                self._span(who, *since.pop(who), at_ms - self.zero_ms)
            if word and not what.endswith(" 0"):
                since[who] = (at_ms - self.zero_ms, word)
        for who, (from_ms, word) in since.items():
            self._span(who, from_ms, word, self.ends_ms)

    def _span(self, who: str, from_ms: int, word: str, to_ms: int) -> None:
        self.timeline.spans.append(Span(self._lane(who), from_ms, to_ms, word))

    # ------------------------------------------------------------- runs

    def _runs(self) -> None:
        open_runs: dict[tuple[str, str, int], RunBar] = {}
        for at_ms, who, what in self.seen._lines:
            verb, _, rest = what.partition(" ")
            words = rest.split(" ")
            if verb not in ("START", "TERM", "KILL", "END") or len(words) < 2 or not words[1].isdecimal():
                continue
            key, now_ms = (who, words[0], int(words[1])), at_ms - self.zero_ms
            if verb == "START":
                open_runs[key] = RunBar(self._lane(who), words[0], int(words[1]), now_ms, None, None, "")
            elif key in open_runs and verb != "END":
                open_runs[key] = _dying(open_runs[key], now_ms, verb)
            elif key in open_runs:
                self.timeline.runs.append(open_runs.pop(key)._replace(ended_ms=now_ms))
        self.timeline.runs += open_runs.values()
        self.timeline.runs.sort(key=lambda run: (run.began_ms, run.lane, run.task))

    # ------------------------------------------------------------- breaches and arrows

    def _breaches(self, outcome: Outcome) -> None:
        self.timeline.breaches = [
            (breach.at_ms - self.zero_ms, breach.invariant, breach.text)
            for breach in outcome.breaches[:BREACHES_MAX]
        ]
        if self.seen.world is not None:
            self.timeline.last_lines = list(self.seen.world.clock.lines[-60:])

    def _arrows(self) -> None:
        breaches = self.timeline.breaches
        point_ms = self.zero_ms + (breaches[0][0] if breaches else 0)
        numbers: dict[str, int] = {}
        texts: dict[str, int] = {}
        self.timeline.arrows_total = self.seen.travels
        for message in _kept(self.seen.travelled, point_ms):
            channel = _channel(message.topic)
            text = _told(message) if channel not in BUSY or len(texts) < TEXTS_MAX // 2 else ""
            place = texts.setdefault(text, len(texts)) if text and len(texts) < TEXTS_MAX else -1
            self.timeline.arrows.append(
                Arrow(
                    message.sent_ms - self.zero_ms,
                    message.received_ms - self.zero_ms,
                    self._lane(message.sender or BROKER),
                    self._lane(message.receiver or BROKER),
                    numbers.setdefault(channel, len(numbers)),
                    place,
                )
            )
        self.timeline.channels, self.timeline.texts = list(numbers), list(texts)


def _ready_ms(lines: list[tuple[int, str, str]], plan: Plan) -> int:
    """When the fleet was ready, by what the plan says of the calm or of its first fault."""
    first = plan.faults[0] if plan.faults else None
    for at_ms, who, what in lines:
        if who == "faults" and what == "calm":
            return at_ms - plan.faults_ms
        if who == "faults" and first is not None and what.startswith(f"{first.kind} "):
            return at_ms - first.at_ms
    return lines[0][0] if lines else 0


def _dying(run: RunBar, now_ms: int, verb: str) -> RunBar:
    """The first order counts; both are told."""
    since_ms = now_ms if run.dying_ms is None else run.dying_ms
    return run._replace(dying_ms=since_ms, how=f"{run.how}, {verb}" if run.how else verb)


def _channel(topic: str) -> str:
    return topic.rpartition("/")[2] or topic


def _kept(travelled: list[Travelled], point_ms: int) -> list[Travelled]:
    """Not more than may be shown, in the order in which they were sent."""
    if len(travelled) > MESSAGES_MAX:
        travelled = sorted(
            travelled, key=lambda m: (_channel(m.topic) in BUSY, abs(m.received_ms - point_ms))
        )[:MESSAGES_MAX]
    return sorted(travelled, key=lambda m: (m.sent_ms, m.received_ms))


def _told(message: Travelled) -> str:
    """What a message says, for people; hostile bytes are only counted."""
    if not message.payload:
        return "empty: clears what was retained"
    try:
        text = str(decode(topics.parse(message.topic), message.payload))
    except RemoteGarbage as garbage:
        text = f"{len(message.payload)} bytes that nobody can read: {garbage.reason}"
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"
