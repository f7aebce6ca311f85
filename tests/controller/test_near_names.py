"""Names that no device has: a task that waits for one is told which was probably meant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.near_names import NAMES_MAX, closest
from controller.core.records import Constraint, TaskSpec
from protocol.resources import Resources

PLAIN = TaskSpec("process", ("true",), {}, Resources(1_000, 100))
GPU = Resources(1_000, 100, 0, 500)


@pytest.fixture
def fleet(desk):
    """A device with everything, and one without."""
    desk.join("pi-1", labels={"zone": "attic", "site": "home"})
    desk.join("pi-2")
    fleet = desk.core.ledger.fleet
    record = fleet.records[0]
    record.extras, record.accelerators = {"camera": 1}, (("g0", "T4", 1_000),)
    record.capacity = record.capacity._replace(gpu_milli=1_000)
    fleet._describe(0)
    fleet.facts.changed(0)
    return fleet


def summary(desk, desk_kit, spec):
    from controller.core.events import JobSubmitted, TaskExplained
    from protocol.tasks import Guarantee, JobKind

    rest = (Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec, "tester")
    desk.feed(JobSubmitted(1, "j1", "j1", JobKind.BATCH, 1, 0, *rest))
    desk.after(200)
    return desk_kit.reply(desk.feed(TaskExplained(9, "j1.0"))).summary


def where(attribute, operator, value=""):
    return {"constraints": (Constraint(attribute, operator, value),)}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"extras": {"camra": 1}}, "no device has extra 'camra'; did you mean 'camera'?"),
        ({"runtime": "simulatd"}, "no device has runtime 'simulatd'; did you mean 'simulated'?"),
        ({"models": ("t4",), "resources": GPU}, "no device has accelerator 't4'; did you mean 'T4'?"),
        (where("profile", "=", "generic-linx"), "has profile 'generic-linx'; did you mean 'generic-linux'?"),
        (where("label.zne", "=", "attic"), "no device has label 'zne'; did you mean 'zone'?"),
        (where("label.zne", "exists"), "no device has label 'zne'; did you mean 'zone'?"),
        (where("label.zone", "=", "atic"), "no device has label.zone 'atic'; did you mean 'attic'?"),
        (where("label.zone", "in", "loft, atic"), "no device has label.zone 'atic'; did you mean 'attic'?"),
        (where("extra.camra", ">=", "1"), "no device has extra 'camra'; did you mean 'camera'?"),
        (where("site", "=", "Home"), "no device has site 'Home'; did you mean 'home'?"),
        (where("device", "=", "pi-11"), "no device has device 'pi-11'; did you mean 'pi-1'?"),
    ],
)
def test_a_slip_of_the_finger_is_told_with_what_was_meant(desk, desk_kit, fleet, asked, told):
    assert summary(desk, desk_kit, replace(PLAIN, **asked)).endswith(told)


@pytest.mark.parametrize(
    "asked",
    [
        {"extras": {"camera": 2}},
        {"extras": {"lidar": 1}},
        {"runtime": "oci"},
        {"models": ("A100",), "resources": GPU},
        {"models": ("t4", "T4"), "resources": Resources(1_000, 100, 0, 2_000)},
        where("label.zone", "in", "attic, atik") | {"extras": {"camera": 2}},
        where("label.zone", "!=", "atic") | {"extras": {"camera": 2}},
        where("label.zne", "not_exists") | {"extras": {"camera": 2}},
        where("core_speed_milli", ">", "1001"),
    ],
)
def test_a_name_that_exists_or_has_none_near_is_left_alone(desk, desk_kit, fleet, asked):
    said = summary(desk, desk_kit, replace(PLAIN, **asked))
    assert "did you mean" not in said and "placed" not in said


def test_what_only_a_removed_device_has_is_no_suggestion(desk, desk_kit, fleet):
    desk.decide("pi-1", "remove")
    assert "did you mean" not in summary(desk, desk_kit, replace(PLAIN, extras={"camra": 1}))


def test_a_task_that_fits_is_not_corrected(desk, desk_kit, fleet):
    assert summary(desk, desk_kit, replace(PLAIN, **where("label.zone", "!=", "atic"))).startswith("placed")


def test_the_nearest_is_found_in_any_order_and_any_case():
    names = [f"sensor-{i:04}" for i in range(20 * NAMES_MAX)]
    assert closest("Camera", [*names, "camera"]) == closest("Camera", ["camera", *names]) == "camera"
    assert closest("sensor-0123x", names) == "sensor-0123"
    assert closest("senxor-0777", [*names, *(f"senx{i:07}" for i in range(999))]) == "sensor-0777"
    assert closest("x" * 65, ["x" * 64]) == closest("zz", names) == closest("a", []) == ""
