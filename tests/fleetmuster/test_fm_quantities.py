"""Amounts: exact both ways, and never a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmuster.exits import CommandError, Exit
from fleetmuster.quantities import (
    parse_cpu,
    parse_duration,
    parse_memory,
    parse_rate,
    show_cpu,
    show_duration,
    show_exact_duration,
    show_memory,
    show_rate,
)

amounts = st.integers(min_value=0, max_value=10**11)


@pytest.mark.parametrize(
    ("text", "milli"), [("0.5", 500), ("500m", 500), ("2", 2000), ("0.001", 1), ("0", 0)]
)
def test_cores_become_thousandths(text, milli):
    assert parse_cpu(text) == milli


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("64MiB", 64),
        ("64M", 64),
        ("64Mi", 64),
        ("64", 64),
        ("1GiB", 1024),
        ("0.5g", 512),
        ("1TiB", 1048576),
        ("1KiB", 1),
        ("1025k", 2),
        ("1.5MiB", 2),
        (" 2 GiB ", 2048),
        ("0", 0),
    ],
)
def test_memory_becomes_mib_rounded_up(text, mib):
    assert parse_memory(text) == mib


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("250ms", 250),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1.5s", 1500),
        ("0", 0),
        ("0s", 0),
        ("1m1ms", 60_001),
    ],
)
def test_durations_become_milliseconds(text, ms):
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "kbit_s"),
    [("500k", 500), ("2M", 2_000), ("1.5Mbit/s", 1_500), ("1g", 10**6), ("0.5 Mbps", 500), ("8kbit", 8)],
)
def test_rates_become_kilobits_a_second(text, kbit_s):
    assert parse_rate(text) == kbit_s


@given(st.integers(min_value=0, max_value=10**9))
def test_a_shown_rate_is_read_back_within_a_hundredth_of_its_unit(kbit_s):
    shown = parse_rate(show_rate(kbit_s))
    assert abs(shown - kbit_s) <= (0 if kbit_s < 1_000 else kbit_s * 0.005)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_cpu, text)
        for text in ("", "x", "-1", "1,5", "0.0001", "0.5m", "1e3", "m", "٣", "1.", "nan", "9" * 40)
    ]
    + [
        (parse_memory, text)
        for text in ("", "MiB", "-1", "64MB", "1GB", "1 2", "1.2.3", "64X", "1e3", "٣", "9" * 40)
    ]
    + [
        (parse_duration, text)
        for text in ("", "30", "s", "-1s", "1s1m", "1s1s", "0.5ms", "1 s", "1y", "1M", "9" * 40)
    ]
    + [(parse_rate, text) for text in ("", "2", "M", "-1M", "2MB/s", "0.5k", "1.2.3M", "٣M", "9" * 40)],
)
def test_nonsense_is_a_usage_error_that_shows_how_to_write_it(parse, text):
    with pytest.raises(CommandError) as caught:
        parse(text)
    assert caught.value.code is Exit.USAGE
    assert repr(text) in caught.value.what and "write" in caught.value.next_step


@given(amounts)
def test_shown_cores_are_read_back_as_the_same_number(milli):
    assert parse_cpu(show_cpu(milli)) == milli
    assert parse_cpu(f"{milli}m") == milli


@given(amounts)
def test_exact_durations_are_read_back_as_the_same_number(ms):
    assert parse_duration(show_exact_duration(ms)) == ms


@given(amounts)
def test_rough_durations_are_never_longer_and_lose_less_than_a_tenth(ms):
    shown = parse_duration(show_duration(ms))
    assert shown <= ms
    assert ms - shown <= max(999, ms / 10)


@given(amounts)
def test_memory_in_mib_is_itself_and_shown_within_a_tenth_of_its_unit(mib):
    assert parse_memory(f"{mib}MiB") == mib
    shown = parse_memory(show_memory(mib))
    assert abs(shown - mib) <= max(1, mib * 0.05 + 1)


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_a_usage_error(text):
    for parse in (parse_cpu, parse_memory, parse_duration, parse_rate):
        try:
            assert parse(text) >= 0
        except CommandError as error:
            assert error.code is Exit.USAGE


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (250, "250ms"), (3_725_000, "1h2m"), (61_500, "1m1s"), (1_500, "1s"), (-5_000, "-5s")],
)
def test_rough_durations_show_two_units(ms, text):
    assert show_duration(ms) == text


@pytest.mark.parametrize(
    ("mib", "text"), [(0, "0 MiB"), (512, "512 MiB"), (1536, "1.5 GiB"), (2**21, "2 TiB")]
)
def test_memory_is_shown_in_the_unit_that_fits(mib, text):
    assert show_memory(mib) == text
