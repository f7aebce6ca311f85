"""Calendars: like a minute-by-minute reference, around changes of clocks, far away, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.calendar import (
    EXPRESSION_CHARS_MAX,
    check_schedule,
    follows_clock,
    local_text,
    newest_fires_ms,
    next_fire_ms,
)

MINUTE_MS = 60_000
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
WORDS = {
    3: "jan feb mar apr may jun jul aug sep oct nov dec".split(),
    4: "sun mon tue wed thu fri sat".split(),
}


def ms(text, zone="UTC", fold=0):
    """A local time as Unix ms."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1_000)


def text(wall_ms, zone="UTC"):
    """Unix ms as a local time with its offset, to the minute."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wall_ms)
    return at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")


def fires(expression, zone, after, count):
    found = []
    for _ in range(count):
        after = next_fire_ms(expression, zone, after)
        found.append(text(after, zone))
    return found


# ------------------------------------------------------------------ the dumb reference


def value(word, field):
    words = WORDS.get(field, [])
    return words.index(word) + (field == 3) if word in words else int(word)


def values(spec, field):
    """All numbers that a field names; Sunday is 0."""
    low, high = RANGES[field]
    found = []
    for item in spec.split(","):
        base, slash, step = item.partition("/")
        start, dash, end = base.partition("-")
        if base == "*":
            first, last = low, high
        elif dash:
            first, last = value(start, field), value(end, field)
        else:
            first = value(base, field)
            last = high if slash else first
        found += range(first, last + 1, int(step or 1))
    return [v % 7 for v in found] if field == 4 else found


class Reference:
    """Does a local time match? As crontab(5) tells it."""

    def __init__(self, expression):
        fields = expression.split()
        self.minute, self.hour, self.day, self.month, self.weekday = map(values, fields, range(5))
        self.both = fields[2].startswith("*") or fields[4].startswith("*")
        self.by_clock = fields[0].startswith("*") or fields[1].startswith("*")

    def matches(self, local):
        return local.minute in self.minute and local.hour in self.hour and self.matches_day(local)

    def matches_day(self, local):
        day, weekday = local.day in self.day, local.isoweekday() % 7 in self.weekday
        return local.month in self.month and (day and weekday if self.both else day or weekday)

    def fires(self, zone, start_ms, minutes):
        """Every fire in that many minutes after `start_ms`, looking at each of them."""
        found, latest = [], None
        for n in range(1, minutes + 1):
            at = datetime.fromtimestamp(start_ms / 1_000 + 60 * n, ZoneInfo(zone))
            local = at.replace(tzinfo=None)
            if self.by_clock:
                hit = self.matches(local)
            else:  # each local time once, the skipped ones at the next minute that there is
                hit, latest = False, latest or local - timedelta(minutes=1)
                while latest < local:
                    latest += timedelta(minutes=1)
                    hit = hit or self.matches(latest)
            if hit:
                found.append(start_ms + MINUTE_MS * n)
        return found


@st.composite
def fields(draw, field, top=None):
    low, high = RANGES[field]
    high = high if top is None else top

    def one():
        word = draw(st.integers(low, high))
        return (
            WORDS[field][word % 7 if field == 4 else word - 1]
            if field in WORDS and draw(st.booleans())
            else word
        )

    kind = draw(st.sampled_from(["star", "star", "step", "value", "range", "from", "list"]))
    if kind == "star":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, high))}"
    if kind == "value":
        return str(one())
    if kind == "from":
        return f"{draw(st.integers(low, high))}/{draw(st.integers(1, high))}"
    if kind == "list":
        return ",".join(str(one()) for _ in range(draw(st.integers(1, 4))))
    first = draw(st.integers(low, high - 1))
    return f"{first}-{draw(st.integers(first + 1, high))}" + draw(st.sampled_from(["", "/2", "/3"]))


def expressions(hour_top=23):
    parts = [fields(0), fields(1, hour_top), fields(2), fields(3), fields(4)]
    return st.tuples(*parts).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(expressions(), st.integers(-(2**31), 2**32), st.integers(0, 59_999))
def test_the_next_fire_is_the_first_minute_that_matches(expression, second, rest):
    reference, after = Reference(expression), second // 60 * MINUTE_MS
    if refusal := check_schedule(expression, "UTC"):
        days = (datetime(2000, 1, 1) + timedelta(days=n) for n in range(366))
        assert "never fires" in refusal
        assert not any(reference.matches_day(day) for day in days)
        return
    fire = next_fire_ms(expression, "UTC", after + rest)
    assert fire is not None and fire > after + rest
    assert reference.matches(datetime(1970, 1, 1) + timedelta(milliseconds=fire))
    minutes = min((fire - after) // MINUTE_MS, 20_000)
    first = after // MINUTE_MS * MINUTE_MS
    begin = datetime(1970, 1, 1) + timedelta(milliseconds=first)
    between = (begin + timedelta(minutes=n) for n in range(1, minutes))
    assert not any(reference.matches(at) for at in between)


CHANGES = {
    "Europe/Berlin": ["2026-03-28", "2026-10-24"],
    "America/New_York": ["2026-03-07", "2026-10-31"],
    "Australia/Lord_Howe": ["2026-04-04", "2026-10-03"],
    "Africa/Cairo": ["2026-04-23", "2026-10-29"],
    "America/Havana": ["2026-03-07", "2026-10-31"],
    "Asia/Kolkata": ["2026-03-28"],
}
"""The day before clocks change: at two or one, by half an hour, at midnight, never."""


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_around_a_change_of_clocks_every_fire_is_that_of_the_reference(data):
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    day = data.draw(st.sampled_from(CHANGES[zone]))
    minute, hour = data.draw(fields(0)), data.draw(fields(1, data.draw(st.sampled_from([3, 23]))))
    expression = f"{minute} {hour} * * {data.draw(st.sampled_from(['*', '*', '0', '5-6', 'sun,fri']))}"
    start = ms(f"{day}T12:00", zone) + MINUTE_MS * data.draw(st.integers(0, 1_500))
    minutes = 1_500
    expected = Reference(expression).fires(zone, start, minutes)
    found, after = [], start
    while (
        after := next_fire_ms(expression, zone, after)
    ) is not None and after <= start + minutes * MINUTE_MS:
        found.append(after)
    local = datetime.fromtimestamp(start / 1_000, ZoneInfo(zone))
    if not Reference(expression).by_clock and local.fold:
        # The reference begins within the overlap and knows nothing of the times before it.
        expected = [at for at in expected if not datetime.fromtimestamp(at / 1_000, ZoneInfo(zone)).fold]
    assert [text(at, zone) for at in found] == [text(at, zone) for at in expected]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/7 9-17 * * 1-5", "30 2 * * *", "0 0 1 1 *", "* * * 1 *"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.integers(0, 4 * 86_400_000),
    st.integers(1, 20),
)
def test_the_newest_fires_are_the_last_of_all(expression, zone, span, most):
    until = ms("2026-10-26T12:00:01")
    every, after = [], until - span
    while (after := next_fire_ms(expression, zone, after)) is not None and after <= until:
        every.append(after)
    assert newest_fires_ms(expression, zone, until - span, until, most) == every[-most:]


def test_the_newest_fires_of_a_century_are_found_as_quickly():
    newest = newest_fires_ms("* * * 1 *", "Europe/Berlin", ms("1926-05-01"), ms("2026-05-01"), 3)
    assert [text(at) for at in newest] == [f"2026-01-31T22:{minute}+00:00" for minute in (57, 58, 59)]


# ------------------------------------------------------------------ changes of clocks, by hand


@pytest.mark.parametrize(
    ("zone", "before", "expected"),
    [
        ("Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("America/New_York", "2026-03-07T12:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        ("Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ],
)
def test_a_fixed_time_runs_once_after_the_gap_and_once_in_the_overlap(zone, before, expected):
    assert fires("30 2 * * *", zone, ms(before, zone), 2) == expected


def test_several_fixed_times_in_one_gap_run_once_together():
    assert fires("0,15,30 2,3 * * *", "Europe/Berlin", ms("2026-03-29T00:30", "Europe/Berlin"), 3) == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:15+02:00",
        "2026-03-29T03:30+02:00",
    ]


def test_a_fixed_time_is_not_found_again_from_within_the_second_pass_of_the_overlap():
    after = ms("2026-11-01T01:10", "America/New_York", fold=1)
    assert fires("30 1 * * *", "America/New_York", after, 1) == ["2026-11-02T01:30-05:00"]


def test_what_follows_the_clock_is_left_out_in_the_gap_and_runs_twice_in_the_overlap():
    assert fires("*/30 2 * * *", "Europe/Berlin", ms("2026-03-28T12:00", "Europe/Berlin"), 1) == [
        "2026-03-30T02:00+02:00"
    ]
    assert fires("*/30 2 * * *", "Europe/Berlin", ms("2026-10-24T12:00", "Europe/Berlin"), 5) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
        "2026-10-26T02:00+01:00",
    ]


def test_clocks_that_change_at_midnight_make_no_fire_in_an_hour_that_is_not_there():
    assert fires("*/30 0 * * 5", "Africa/Cairo", ms("2026-04-20T12:00", "Africa/Cairo"), 1) == [
        "2026-05-01T00:00+03:00"
    ]


def test_a_change_of_half_an_hour_moves_no_full_hour():
    zone = "Australia/Lord_Howe"
    assert fires("0 */15 5 10 *", zone, ms("2025-10-03T12:00", zone), 2) == [
        "2025-10-05T00:00+10:30",
        "2025-10-05T15:00+11:00",
    ]


# ------------------------------------------------------------------ rules of the calendar


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 13 * fri", "2026-01-30", ["2026-02-06", "2026-02-13", "2026-02-20"]),
        ("0 0 13 * */5", "2026-01-30", ["2026-02-13", "2026-03-13", "2026-09-13"]),
        ("0 0 L * *", "2028-02-01", ["2028-02-29", "2028-03-31", "2028-04-30"]),
        ("0 0 LW * *", "2026-05-01", ["2026-05-29", "2026-06-30", "2026-07-31"]),
        ("0 0 * * mon#2", "2026-01-01", ["2026-01-12", "2026-02-09", "2026-03-09"]),
        ("0 0 * * 5L", "2026-01-01", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 29 feb *", "2096-01-01", ["2096-02-29", "2104-02-29", "2108-02-29"]),
        ("@weekly", "2026-01-01", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@Monthly", "2026-01-01", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("@yearly", "2026-01-01", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        (" 0  0\t1 JAN sun-mon ", "2026-12-20", ["2027-01-01", "2027-01-03", "2027-01-04"]),
    ],
)
def test_days_are_those_of_the_calendar(expression, after, expected):
    assert check_schedule(expression, "UTC") == ""
    assert [at[:10] for at in fires(expression, "UTC", ms(after), 3)] == expected


def test_a_fire_is_strictly_after_the_time_given():
    noon = ms("2026-06-01T12:00")
    assert next_fire_ms("0 12 * * *", "UTC", noon - 1) == noon
    assert next_fire_ms("0 12 * * *", "UTC", noon) == noon + 86_400_000
    assert next_fire_ms("@hourly", "UTC", noon - 59_001) == noon


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"])
@pytest.mark.parametrize("expression", ["* * * * *", "30 2 * * *", "*/7 0 29 2 *", "0 0 * 2 MON#5"])
def test_clocks_that_are_far_off_break_nothing(zone, expression):
    far = [
        -(10**18),
        -62_135_596_800_000,
        -(10**13),
        -1,
        0,
        4_102_444_800_001,
        10**14,
        253_402_300_799_999,
        10**18,
    ]
    found = [next_fire_ms(expression, zone, at) for at in far]
    assert all(fire is None or fire > at for fire, at in zip(found, far, strict=True))
    assert None not in found[:7] and found[7:] == [None, None]


def test_far_dates_are_right():
    assert fires("0 0 1 1 *", "UTC", ms("1901-05-05"), 1) == ["1902-01-01T00:00+00:00"]
    assert fires("30 2 * * *", "Europe/Berlin", ms("2525-07-01T12:00"), 1) == ["2525-07-02T02:30+02:00"]
    assert fires("0 0 * 2 MON#5", "UTC", ms("2072-03-01"), 1) == ["2112-02-29T00:00+00:00"]


def test_what_never_comes_is_searched_for_fifty_years_and_no_longer():
    assert next_fire_ms("* * */20 * 1L", "UTC", ms("2026-01-01")) is None
    assert next_fire_ms("*/5 0 8-14 9 */7", "America/Santiago", ms("2026-01-01")) is not None


def test_a_schedule_follows_the_clock_when_its_minute_or_hour_begins_with_a_star():
    assert [follows_clock(e) for e in ("*/5 3 * * *", "0 */2 * * *", "@hourly")] == [True] * 3
    assert [follows_clock(e) for e in ("5 3 * * *", "0 0-23 * * *", "@daily")] == [False] * 3


def test_a_time_for_people_has_its_offset():
    assert local_text(ms("2026-07-01T00:30"), "Europe/Berlin") == "2026-07-01T02:30+02:00"
    assert local_text(ms("2026-07-01T00:30"), "Europe/Atlantis") == "2026-07-01T00:30+00:00"
    assert [local_text(at, "UTC")[:4] for at in (-(10**18), 10**18)] == ["0002", "9900"]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 * * * *", ["minute (field 1", "'61'", "0-59"]),
        ("* 5,24 * * *", ["hour (field 2", "'24'"]),
        ("* * 0 * *", ["day-of-month (field 3", "1-31"]),
        ("* * * 13 *", ["month (field 4", "jan-dec"]),
        ("* * * * 8", ["day-of-week (field 5", "0 and 7 are Sunday"]),
        ("* * * *", ["4 fields, not five"]),
        ("0 * * * * *", ["6 fields", "seconds"]),
        ("", ["0 fields"]),
        ("0 0 31 2 *", ["never fires", "'31'", "'2'", "L as day-of-month"]),
        ("0 0 30,31 feb *", ["never fires"]),
        ("0 0 */20 * 1L", ["never fires", "must match both", "1-31/2"]),
        ("0 0 * * mno", ["'mno'", "did you mean mon?"]),
        ("0 0 1 janu *", ["did you mean jan?"]),
        ("0 22-2 * * *", ["write 22-23,0-2"]),
        ("0 0 * * fri-mon", ["write fri-sat,sun-mon"]),
        ("*/0 * * * *", ["step of 1 or more"]),
        ("*/ * * * *", ["step of 1 or more"]),
        ("3-03/2 * * * *", ["write 3"]),
        ("0 0 * * 5-fri/2", ["write 5"]),
        ("1, * * * *", ["empty item"]),
        ("@dayly", ["did you mean @daily?"]),
        ("@noon", ["there are @hourly"]),
        ("@reboot", ["service or daemon"]),
        ("٣ * * * *", ["ASCII"]),
        ("1/² * * * *", ["ASCII"]),
        ("* " * EXPRESSION_CHARS_MAX, ["characters"]),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_place_and_a_suggestion(expression, words):
    told = check_schedule(expression, "UTC")
    assert [word for word in words if word not in told] == [], told


@pytest.mark.parametrize(
    ("zone", "suggestion"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("Europe", "names are as Europe/Berlin"),
        ("", "names are as Europe/Berlin"),
        ("../../etc/passwd", "there is no time zone"),
        ("/etc/localtime", "there is no time zone"),
        ("localtime", "there is no time zone"),
        ("Europe/\0", "there is no time zone"),
        ("x" * 10_000, "there is no time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_one_that_exists(zone, suggestion):
    told = check_schedule("@daily", zone)
    assert suggestion in told and len(told) < 200


@given(st.text(st.sampled_from("0123456789*/-,#Ll WwMmOonNjJaA@\t"), max_size=40))
def test_whatever_is_written_is_either_refused_or_has_a_next_fire(expression):
    if check_schedule(expression, "UTC") == "":
        assert next_fire_ms(expression, "UTC", 0) is not None
    else:
        try:
            fire = next_fire_ms(expression, "UTC", 0)
        except ValueError as error:
            assert str(error).startswith("no schedule")
        else:
            assert fire is None
