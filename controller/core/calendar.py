"""Calendars: when a cron schedule fires next, by the wall clock of a time zone.

Five fields, `minute hour day-of-month month day-of-week`, as Debian's cron reads them: names,
ranges, steps, lists; `L`, `LW` (last day, last weekday), `5L`, `mon#1`; `@hourly` and its kin.
If neither day field begins with `*`, a day that matches either will do; else it must match both.

When clocks change, as in Debian's cron: a schedule for fixed times (minute and hour don't begin
with `*`) runs once. What falls into the gap runs at the first minute after it, what falls into
the overlap the first time. Others follow the clock: nothing in the gap, twice in the overlap.

It does arithmetic on times that it is given and reads no clock; zone data come from the machine
or from the package `tzdata`. Rejected: a cron parser of our own (cronsim is tested against
Debian's); croniter (what has a fixed time it runs twice in an overlap).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

EXPRESSION_CHARS_MAX = 256
"""More is a list of every minute, or no schedule at all."""
ZONE_CHARS_MAX = 64
"""The longest name in the zone data has 32."""
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
DAYS = "sun mon tue wed thu fri sat".split()
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
FIELDS: tuple[tuple[str, str, int, int, list[str]], ...] = (
    ("minute", "0-59", 0, 59, []),
    ("hour", "0-23", 0, 23, []),
    ("day-of-month", "1-31, L or LW", 1, 31, []),
    ("month", "1-12 or jan-dec", 1, 12, MONTHS),
    ("day-of-week", "0-7 (0 and 7 are Sunday) or sun-sat", 0, 6, DAYS),
)
"""Name, what it takes, first and last value, and words for them."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANY_YEAR = datetime(2000, 1, 1)
"""Dates repeat within 40 years (29 February on a given weekday), so any start shows whether one comes."""
SEARCH = timedelta(days=366 * 50)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
MINUTE_MS = 60_000
MILLISECOND = timedelta(milliseconds=1)
FIRST_MS = (datetime(2, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
LAST_MS = (datetime(9_900, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
"""Between these no step of the search leaves what `datetime` can hold."""


class NoSchedule(ValueError):
    """`check_schedule` would have refused this, at least on this machine: zones are its own."""


def next_fire_ms(expression: str, zone: str, after_wall_ms: int) -> int | None:
    """The first fire strictly after `after_wall_ms`; None: none in 50 years, or none before year 9900.

    All in Unix milliseconds. Takes what `check_schedule` finds no fault with; raises `NoSchedule` else.
    """
    return next(_fires_ms(expression, zone, after_wall_ms), None)


def newest_fires_ms(
    expression: str, zone: str, after_wall_ms: int, until_wall_ms: int, most: int
) -> list[int]:
    """The last `most` fires after one time and up to another, in order; however many there are.

    Costs the logarithm of the time between, since a controller may have been away for years.
    """
    bound = 8 * most

    def some(after_ms: int) -> list[int]:
        fires = takewhile(lambda ms: ms <= until_wall_ms, _fires_ms(expression, zone, after_ms))
        return list(islice(fires, bound + 1))

    late, span_ms = until_wall_ms, most * MINUTE_MS
    early = max(after_wall_ms, late - span_ms)
    while len(found := some(early)) < most and early > after_wall_ms:
        span_ms *= 4
        early, late = max(after_wall_ms, until_wall_ms - span_ms), early
    while len(found) > bound:  # it was begun too early, and `late` is too late
        middle = (early + late) // 2
        if len(fewer := some(middle)) < most:
            late = middle
        else:
            early, found = middle, fewer
    return found[-most:]


def follows_clock(expression: str) -> bool:
    """Does it run at no fixed times of the day: every so many minutes, or in each hour?"""
    minute, hour = _plain(expression).split()[:2]
    return minute.startswith("*") or hour.startswith("*")


def local_text(wall_ms: int, zone: str) -> str:
    """A time for people: `2026-03-29T03:00+02:00`."""
    at = EPOCH + min(max(wall_ms, FIRST_MS), LAST_MS) * MILLISECOND
    return at.astimezone(_zone(zone) or UTC).isoformat(timespec="minutes")


def check_schedule(expression: str, zone: str) -> str:
    """Empty when fine; else what is wrong, where, and what to write instead."""
    return _check_expression(expression) or _check_zone(zone)


# ------------------------------------------------------------------ searching


def _fires_ms(expression: str, zone: str, after_ms: int) -> Iterator[int]:
    """Every fire after that time, as long as the next comes within 50 years."""
    if after_ms >= LAST_MS:
        return
    where, after = _zone(zone), EPOCH + max(after_ms, FIRST_MS) * MILLISECOND
    if where is None:
        raise NoSchedule(f"no time zone {zone!r}")
    try:
        for fire in _fires(_plain(expression), where, after):
            fire_ms = (fire - EPOCH) // MILLISECOND
            yield fire_ms
            if fire_ms >= LAST_MS:
                return
    except CronSimError as error:
        raise NoSchedule(f"no schedule: {expression!r}: {error}") from error


def _fires(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    if zone is UTC:
        yield from CronSim(expression, after)
    elif follows_clock(expression):
        at: datetime | None = after
        while at is not None and (at := _next_by_clock(expression, zone, at)) is not None:
            yield at
    else:
        for fire in CronSim(expression, after.astimezone(zone)):
            at = fire.astimezone(UTC)
            if at > after:  # from within an overlap it begins with times that were before
                yield at


def _next_by_clock(expression: str, zone: tzinfo, after: datetime) -> datetime | None:
    """The next minute whose local time matches.

    The calendar is asked for local times, without a zone: of those that match, the next is the
    one sought, unless clocks change close by. There every minute is looked at, because cronsim
    errs where clocks change at midnight (Cairo, Havana) or by half an hour (Lord Howe).
    """
    rule, at = CronSim(expression, ANY_YEAR), after
    while at < after + SEARCH:
        local = next(CronSim(expression, at.astimezone(zone).replace(tzinfo=None)), None)
        if local is None:
            return None
        fire, near = local.replace(tzinfo=zone).astimezone(UTC), _changes(zone, at)
        if not near and not _changes(zone, fire):
            return fire
        at = at if near else max(at, fire - DAY)
        for minute in _minutes(at, at + 2 * DAY):
            if _matches(rule, minute.astimezone(zone)):
                return minute
        at += 2 * DAY
    return None


def _changes(zone: tzinfo, at: datetime) -> bool:
    """Do clocks change within a day of it?"""
    return (at - DAY).astimezone(zone).utcoffset() != (at + DAY).astimezone(zone).utcoffset()


def _minutes(after: datetime, until: datetime) -> Iterator[datetime]:
    minute = after.replace(second=0, microsecond=0) + MINUTE
    while minute <= until:
        yield minute
        minute += MINUTE


def _matches(rule: CronSim, local: datetime) -> bool:
    return (
        local.minute in rule.minutes
        and local.hour in rule.hours
        and local.month in rule.months
        and rule.match_day(local.date())
    )


# ------------------------------------------------------------------ reading


def _plain(expression: str) -> str:
    """Five fields; nicknames are replaced."""
    fields = NICKNAMES.get(expression.strip().lower(), expression).split()
    if len(fields) != len(FIELDS):  # cronsim takes a sixth for seconds
        raise NoSchedule(f"no schedule: {expression!r} has not five fields")
    return " ".join(fields)


def _zone(name: str) -> tzinfo | None:
    if not 0 < len(name) <= ZONE_CHARS_MAX or name == "localtime":
        return None  # `localtime` would be another one on each machine
    try:
        return _known_zone(name)
    except (KeyError, ValueError, OSError):  # not there; no name of a zone; a folder such as `Europe`
        return None


@lru_cache(maxsize=1_000)
def _known_zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)  # UTC needs no zone data, and is quicker


# ------------------------------------------------------------------ what is wrong


def _check_expression(expression: str) -> str:
    if len(expression) > EXPRESSION_CHARS_MAX:
        return f"the schedule has {len(expression)} characters, at most {EXPRESSION_CHARS_MAX} are read"
    if not expression.isascii():
        return f"the schedule {expression!r} has other characters than ASCII"
    text = expression.strip().lower()
    if text.startswith("@") and text not in NICKNAMES:
        return _unknown_nickname(text)
    fields = NICKNAMES.get(text, text).split()
    if len(fields) != len(FIELDS):
        more = ": leave the seconds out" if len(fields) == 6 else ""
        return (
            f"the schedule {text!r} has {len(fields)} fields, not five{more}"
            f" ({' '.join(name for name, *_ in FIELDS)}; daily at 02:30 is '30 2 * * *')"
        )
    for index, field in enumerate(fields):
        for item in field.split(","):
            if not _reads(index, item) or _lone(index, item):
                return _bad_item(index, item)
    return _check_ever(fields)


def _reads(index: int, item: str) -> bool:
    fields = ["*"] * len(FIELDS)
    fields[index] = item
    try:
        CronSim(" ".join(fields), ANY_YEAR)
    except CronSimError:
        return False
    return True


def _lone(index: int, item: str) -> bool:
    """`3-3/2`, of which Debian's cron makes 3, and cronsim 3/2."""
    base, slash, _ = item.partition("/")
    start, dash, end = base.partition("-")
    words = FIELDS[index][-1]
    first, last = (str(words.index(x) + FIELDS[index][2]) if x in words else x for x in (start, end))
    return bool(slash and dash and first.lstrip("0") == last.lstrip("0"))


def _unknown_nickname(text: str) -> str:
    if text == "@reboot":
        return "@reboot is no time: for work that always runs use a job of kind service or daemon"
    near = get_close_matches(text, list(NICKNAMES), 1)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(NICKNAMES)}"
    return f"there is no {text}; {known}"


def _bad_item(index: int, item: str) -> str:
    name, takes, first, last, words = FIELDS[index]
    where = f"{name} (field {index + 1} of the schedule)"
    if not item:
        return f"{where}: a list has an empty item; write 1,15 without spaces or commas at its ends"
    base, _, step = item.partition("/")
    if "/" in item and not (step.isdigit() and int(step)):
        return f"{where}: {item!r}: after / stands a step of 1 or more, as in */15"
    start, dash, end = base.partition("-")
    if _lone(index, item):
        return f"{where}: {item!r} is a range of one with a step; write {start}"
    if dash and _reads(index, start) and _reads(index, end):
        top, bottom = (words[-1], words[0]) if words and start in words else (last, first)
        return f"{where}: {item!r} runs backwards; write {start}-{top},{bottom}-{end}"
    for word in (start, end) if dash else (base,):
        near = get_close_matches(word, words, 1)
        if word.isalpha() and near and near[0] != word:
            return f"{where}: {word!r}: did you mean {near[0]}?"
    return f"{where}: {item!r}: it takes {takes}, *, a range as 1-5, a step as */2, or a list as 1,3"


def _check_ever(fields: list[str]) -> str:
    try:
        if next(CronSim(" ".join(fields), ANY_YEAR), None) is not None:
            return ""
    except CronSimError:  # what is left, with every field right by itself: a month has no such day
        pass
    day, month, weekday = fields[2:]
    if "*" in (day, weekday):
        return (
            f"the schedule never fires: no month {month!r} has a day {day!r};"
            " L as day-of-month is the last day of each month"
        )
    return (
        f"the schedule never fires: no day of month {month!r} is both day-of-month {day!r}"
        f" and day-of-week {weekday!r}; when one of the two begins with * a day must match both,"
        " else either (1-31/2 instead of */2)"
    )


def _check_zone(zone: str) -> str:
    if _zone(zone) is not None:
        return ""
    near = _near_zone(zone[:ZONE_CHARS_MAX])
    return f"there is no time zone {zone[:ZONE_CHARS_MAX]!r}; " + (
        f"did you mean {near}?" if near else "names are as Europe/Berlin, America/New_York, UTC"
    )


def _near_zone(zone: str) -> str:
    """By the whole name, however it is written; then by the city alone."""
    names = {name.lower(): name for name in _zone_names()}
    cities = {name.rpartition("/")[2]: name for name in names}
    wish = zone.lower().replace(" ", "_")
    near = get_close_matches(wish, list(names), 1, 0.8)
    if near:
        return names[near[0]]
    city = get_close_matches(wish.rpartition("/")[2], list(cities), 1, 0.8)
    return names[cities[city[0]]] if city else ""


@lru_cache(maxsize=1)
def _zone_names() -> tuple[str, ...]:
    return tuple(sorted(available_timezones() - {"localtime"}))
