"""What conditions mean, asked of one device at a time; and what is said of those that mean nothing."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.condition_faults import affinity_fault, check_constraint, fault_of, spread_fault
from controller.core.conditions import (
    ATTRIBUTES,
    GROUP_OPERATORS,
    OPERATORS,
    compare,
    most_per_value,
    test_of,
    values_of,
)
from controller.core.facts import Facts
from controller.core.records import Constraint, DeviceRow
from controller.core.taints import tolerated
from protocol.resources import NAMES, Resources

test_of.__test__ = False


def device(name="pi-1", **facts):
    plain = {
        "session": 1, "boot_id": "", "instance_id": "", "previous_identity": "", "inventory": 1,
        "profile": "pi-4b-4g", "capacity": Resources(4_000, 3_790), "labels": {"site": "north", "zone": "a"},
        "runtimes": ("process", "python"), "containment": "strong", "heartbeat_ms": 10_000,
        "version": "1.4.2", "cordoned": False, "draining": False, "quarantined": False, "removed": False,
        "settings_epoch": 0, "settings_number": 0, "created_at": 0,
    }  # fmt: skip
    return DeviceRow(device=name, **{**plain, **facts})


ONE = device(
    labels={"site": "north", "zone": "a", "rack": "12", "empty": "", "image": "2.0.0-rc.1"},
    accelerators=(("gpu0", "a2", 1_000), ("gpu1", "t4", 1_000)),
    extras={"relays": 4},
    limits="cgroup2",
    core_speed_milli=1_500,
)


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("device", ("pi-1",)),
        ("profile", ("pi-4b-4g",)),
        ("runtime", ("process", "python")),
        ("site", ("north",)),
        ("version", ("1.4.2",)),
        ("containment", ("strong",)),
        ("limits", ("cgroup2",)),
        ("accelerator", ("a2", "t4")),
        ("heartbeat_ms", ("10000",)),
        ("core_speed_milli", ("1500",)),
        ("label.rack", ("12",)),
        ("label.empty", ("",)),
        ("label.none", ()),
        ("extra.relays", ("4",)),
        ("extra.none", ()),
        ("capacity.memory_mib", ("3790",)),
        ("capacity.gpu_milli", ("0",)),
    ],
)
def test_a_device_has_these_values(attribute, values):
    assert values_of(ONE, attribute) == values


def test_every_attribute_can_be_read_of_a_device_that_says_nothing():
    silent = device(profile="", version="", labels={}, runtimes=())
    empty = {a for a in ATTRIBUTES if not values_of(silent, a)}
    assert empty == {"profile", "version", "site", "runtime", "accelerator", "limits"}
    assert all(values_of(silent, f"capacity.{name}") for name in NAMES)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("label.zone = a", True),
        ("label.zone = A", False),
        ("label.rack = 12.0", False),
        ("label.empty = ", True),
        ("runtime = python", True),
        ("label.none = a", False),
        ("label.none != a", True),
        ("label.zone != a", False),
        ("accelerator != t4", False),
        ("accelerator != h100", True),
        ("label.zone in a, b", True),
        ("label.zone not_in b,c", True),
        ("accelerator in h100,t4", True),
        ("accelerator not_in h100,t4", False),
        ("label.none not_in a", True),
        ("label.empty exists ", True),
        ("label.none exists ", False),
        ("label.none not_exists ", True),
        ("accelerator not_exists ", False),
        ("label.rack < 100", True),
        ("label.rack > 9", True),
        ("label.rack <= 12.0", True),
        ("label.zone < 5", False),
        ("label.zone >= 5", False),
        ("label.none < 5", False),
        ("extra.relays >= 4", True),
        ("capacity.memory_mib >= 4000", False),
        ("heartbeat_ms <= 10000", True),
        ("profile regex ^pi-[45]", True),
        ("profile regex 4b", True),
        ("profile regex ^4b", False),
        ("accelerator regex ^t", True),
        ("label.none regex .*", False),
        ("version semver >= 1.4, < 2", True),
        ("version semver ~> 1.5", False),
        ("label.image semver < 2", True),
        ("label.zone semver >= 0", False),
    ],
)
def test_a_condition_holds_or_not(condition, holds):
    attribute, operator, value = condition.split(" ", 2)
    assert check_constraint(attribute, operator, value) == ""
    assert test_of(Constraint(attribute, operator, value))(ONE) is holds


# ----------------------------------------------------------------- columns against a loop

labels = st.dictionaries(
    st.sampled_from(("site", "zone", "n")), st.sampled_from(("", "a", "b", "7", "7.0", "-3", "1.2.3"))
)
devices = st.builds(
    lambda labels, runtimes, models, taints: device(
        labels=labels, runtimes=runtimes, accelerators=tuple(("g", m, 1) for m in models), taints=taints
    ),
    labels,
    st.sampled_from(((), ("process",), ("process", "python"))),
    st.lists(st.sampled_from(("a2", "t4")), max_size=2),
    st.lists(
        st.sampled_from(("gpu=yes:no_place", "old:prefer_not", "wet:evict", "gpu:prefer_not")), max_size=2
    ).map(tuple),
)
values = st.sampled_from(("a", "b", "7", "-3", "a,7", "1.2", ""))
attributes = st.sampled_from(("label.zone", "label.n", "site", "runtime", "accelerator"))
conditions = st.tuples(attributes, st.sampled_from((*OPERATORS, "distinct")), values)
tolerations = st.lists(st.sampled_from(("gpu", "gpu=yes", "old:prefer_not", "*", "wet:no_place")), max_size=2)


def dumb(record, attribute, operator, value):
    """The reference: said again from the documentation, value by value."""
    if attribute == "runtime":
        has = list(record.runtimes)
    elif attribute == "accelerator":
        has = [model for _, model, _ in record.accelerators]
    else:
        name = attribute.split(".")[-1]
        has = [record.labels[name]] if name in record.labels else []
        has = [v for v in has if v or attribute != "site"]
    if operator in ("exists", "distinct"):
        return len(has) > 0
    if operator == "not_exists":
        return len(has) == 0
    if operator == "=":
        return value in has
    if operator == "!=":
        return value not in has
    if operator in ("in", "not_in"):
        return any(v in value.split(",") for v in has) == (operator == "in")
    if operator == "regex":
        return any(re.search(value, v) is not None for v in has)
    if operator == "semver":  # the only conditions drawn are 7, 1.2 and -3, which is none
        return any((v, value) in (("7", "7"), ("7.0", "7")) for v in has)
    numbers = [Fraction(v) for v in has if re.fullmatch(r"-?\d+(\.\d+)?", v)]
    if not re.fullmatch(r"-?\d+(\.\d+)?", value):
        return False
    bound = Fraction(value)
    return any(
        {"<": n < bound, "<=": n <= bound, ">": n > bound, ">=": n >= bound}[operator] for n in numbers
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(devices, max_size=6), conditions, st.lists(st.tuples(st.integers(0, 7), devices), max_size=4))
def test_columns_say_what_a_loop_over_devices_says(fleet, condition, changes):
    attribute, operator, value = condition
    if fault_of(attribute, operator, value):
        value = {"regex": "a", "semver": "7", "distinct": ""}.get(operator, value)
    if operator in ("exists", "not_exists"):
        value = ""
    facts = Facts(fleet)
    test = test_of(Constraint(attribute, operator, value))
    for row, record in [(0, None), *changes]:
        if record is not None and row < len(fleet):
            fleet[row] = record
            facts.changed(row)
        elif record is not None:
            fleet.append(record)
        expected = [dumb(r, attribute, operator, value) for r in fleet]
        assert [test(r) for r in fleet] == expected
        assert facts.flags(attribute, operator, value).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(devices, max_size=6), tolerations.map(tuple), st.integers(0, 5), devices)
def test_columns_of_taints_and_codes_follow_the_records(fleet, said, row, record):
    facts = Facts(fleet)
    for _ in range(2):
        allowed, penalty, evicts = facts.bearings(said)
        each = [tolerated(r.taints, said) for r in fleet]
        assert list(zip(allowed.tolist(), penalty.tolist(), evicts.tolist(), strict=True)) == each
        codes, names = facts.codes("label.zone")
        assert [names[c] if c >= 0 else None for c in codes] == [r.labels.get("zone") for r in fleet]
        if row < len(fleet):
            fleet[row] = record
            facts.changed(row)


def test_values_that_nobody_has_any_more_are_forgotten():
    fleet = [device()]
    facts = Facts(fleet)
    for n in range(5_000):
        fleet[0].labels = {"zone": str(n)}
        facts.changed(0)
        assert facts.flags("label.zone", "=", str(n)).tolist() == [True]
    _, names = facts.codes("label.zone")
    assert len(names) < 2_000


@given(st.sampled_from(("<", "<=", ">", ">=")), st.integers(-(10**30), 10**30), st.integers(-3, 3))
def test_long_numbers_are_compared_exactly(operator, number, step):
    wanted = {"<": step > 0, "<=": step >= 0, ">": step < 0, ">=": step <= 0}[operator]
    assert compare(str(number), operator, str(number + step)) is wanted


@pytest.mark.parametrize("odd", ["nan", "inf", "1e3", "1_000", " 1", "1 ", "", "٣", "0x10", "--1", "1."])
def test_what_python_would_take_for_a_number_is_none(odd):
    assert not any(compare(odd, o, "5") or compare("5", o, odd) for o in ("<", "<=", ">", ">="))


# ----------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("constraint", "field", "words"),
    [
        (("lable.zone", "=", "a"), "attribute", "did you mean 'label.zone'?"),
        (("labels.zone", "=", "a"), "attribute", "did you mean 'label.zone'?"),
        (("profil", "=", "a"), "attribute", "did you mean 'profile'?"),
        (("zone", "=", "a"), "attribute", "did you mean 'label.zone'?"),
        (("memory_mib", ">", "1"), "attribute", "did you mean 'capacity.memory_mib'?"),
        (("memory", ">", "1"), "attribute", "did you mean 'capacity.memory_mib'?"),
        (("capacity.memory", ">", "1"), "attribute", "did you mean 'capacity.memory_mib'?"),
        (("capacity.zzz", ">", "1"), "attribute", "there are cpu_milli, memory_mib"),
        (("label.", "=", "a"), "attribute", "names behind label."),
        (("", "=", "a"), "attribute", "There are device, profile"),
        (("label." + "x" * 200, "=", "a"), "attribute", "longer than 128"),
        (("site", "==", "a"), "operator", "did you mean '='?"),
        (("site", "regexp", "a"), "operator", "did you mean 'regex'?"),
        (("site", "Not In", "a"), "operator", "did you mean 'not_in'?"),
        (("site", "is_set", ""), "operator", "did you mean 'exists'?"),
        (("site", "smever", "1"), "operator", "did you mean 'semver'?"),
        (("site", "€", "1"), "operator", "there are =, !=, in"),
        (("site", "exists", "a"), "value", "takes no value"),
        (("site", "in", ""), "value", "a,b,c"),
        (("site", "in", "a,,b"), "value", "a,b,c"),
        (("site", "in", ",".join("abc" * 30)), "value", "at most 64 values; this has 90"),
        (("site", "=", ""), "value", "did you mean 'not_exists'?"),
        (("profile", "<", "4"), "operator", "only numbers have an order: profile is text"),
        (("version", ">=", "1.4"), "operator", "use 'semver' with the value '>= 1.4'"),
        (("label.v", ">=", "1.4.2"), "value", "use 'semver' with the value '>= 1.4.2'"),
        (("label.n", "<", "many"), "value", "needs a number like 4 or -0.5"),
        (("label.n", "<", "nan"), "value", "needs a number"),
        (("label.n", "regex", "(a+"), "value", "at character 4: a group is not closed"),
        (("label.n", "regex", ""), "value", "did you mean 'exists'?"),
        (("label.n", "regex", "(a|b)*a(a|b){20}"), "value", "too complex"),
        (("version", "semver", "latest"), "value", "'latest' is no version"),
        (("profile", "semver", "1"), "operator", "goes with version and labels"),
        (("label.zone", "distinct_device", ""), "attribute", "use 'distinct'"),
        (("", "distinct", ""), "attribute", "as label.zone"),
        (("zone", "distinct", ""), "attribute", "did you mean 'label.zone'?"),
        (("runtime", "distinct", ""), "attribute", "may have several values"),
        (("label.zone", "distinct", "0"), "value", "how many tasks per value"),
        (("", "distinct_device", "many"), "value", "how many tasks per device"),
        (("", "distinct_device", "1" * 300), "value", "how many tasks per device"),
    ],
)
def test_a_fault_names_the_field_and_what_was_meant(constraint, field, words):
    found = fault_of(*constraint)
    assert found is not None
    assert found[0] == field
    assert words in found[1]
    assert check_constraint(*constraint) == f"{field}: {found[1]}"


def test_the_demands_on_groups_are_constraints_like_others():
    assert check_constraint("", "distinct_device", "") == ""
    assert check_constraint("", "distinct_device", "2") == ""
    assert check_constraint("label.zone", "distinct", "3") == ""
    assert check_constraint("site", "distinct", "") == ""
    assert most_per_value(Constraint("label.zone", "distinct", "3")) == 3
    assert most_per_value(Constraint("", "distinct_device", "")) == 1
    assert test_of(Constraint("", "distinct_device", ""))(ONE)
    assert test_of(Constraint("label.zone", "distinct", ""))(ONE)
    assert not test_of(Constraint("label.none", "distinct", ""))(ONE)


anything = st.text("ab.=<>~^*+{}()[]|\\d1290,- é\0", max_size=12)
words = st.sampled_from((*ATTRIBUTES, "label.a", "extra.b", "capacity.slots", "capacity.x", "label.", ""))


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(words, anything), st.one_of(st.sampled_from((*OPERATORS, *GROUP_OPERATORS)), anything), anything
)
def test_what_has_no_fault_can_be_asked_of_any_device(attribute, operator, value):
    if not check_constraint(attribute, operator, value):
        for record in (ONE, device(labels={}, runtimes=(), version="")):
            assert test_of(Constraint(attribute, operator, value))(record) in (True, False)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (("label.zone", "=", "a", 101), "weight"),
        (("label.zone", "=", "a", -101), "weight"),
        (("label.zone", "=", "a", 0), "weight"),
        (("lable.zone", "=", "a", 10), "attribute"),
        (("", "distinct_device", "", 10), "operator"),
        (("label.zone", "=", "a", -100), None),
    ],
)
def test_a_wish_is_a_condition_with_a_weight(wish, field):
    found = affinity_fault(*wish)
    assert (found[0] if found else None) == field


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (("label.zone", 50, ()), None),
        (("label.zone", 50, (("a", 70), ("b", 30))), None),
        (("label.zone", 50, (("a", 70), ("b", 0))), None),
        (("label.zone", 50, (("a", 70), ("b", 40))), "the percents add up to 110"),
        (("label.zone", 50, (("a", 70), ("a", 30))), "'a' is named twice"),
        (("label.zone", 50, (("", 70),)), "a target needs a value"),
        (("label.zone", 50, (("a", -1),)), "a percent is 0 to 100"),
        (("label.zone", 0, ()), "a spread's weight is 1 to 100"),
        (("label.zone", 50, tuple((str(n), 1) for n in range(65))), "at most 64 targets"),
        (("runtime", 50, ()), "may have several values"),
        (("zone", 50, ()), "did you mean 'label.zone'?"),
    ],
)
def test_a_spread_adds_up(spread, words):
    found = spread_fault(*spread)
    assert (words is None) == (found is None)
    assert words is None or words in found[1]


# ----------------------------------------------------------------- the page for users


def rows_of(heading):
    page = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")
    (part,) = (p for p in page.split("\n## ") if p.startswith(heading + "\n"))
    return [row.split("|")[1].strip().strip("`") for row in part.splitlines() if row.startswith("| `")]


def test_every_example_of_the_page_can_be_asked_and_every_operator_has_one():
    examples = rows_of("Operators") + rows_of("Tasks of a job together")
    told = set()
    for example in examples:
        words = example.split(" ", 2) if example != "distinct_device" else ["", example]
        attribute, operator, value = [*words, ""][:3]
        assert check_constraint(attribute, operator, value) == "", example
        told.add(operator)
    assert told | {"<", "<=", ">"} == {*OPERATORS, *GROUP_OPERATORS}


def test_the_page_names_every_attribute():
    named = re.findall(r"[a-z_]+(?:\.<)?", " ".join(rows_of("Attributes")))
    assert {n.rstrip("<") for n in named} >= {*ATTRIBUTES, "capacity.", "extra.", "label."}
