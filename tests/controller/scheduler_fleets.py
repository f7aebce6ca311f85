"""Random small fleets and demands, and the obvious way to place: one device, one question.

Shared by the property tests of the scheduler. The reference knows no columns: a device is
a dictionary, a fit is an `all(...)`, a score is a few lines of arithmetic.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from controller.scheduler.policies import POLICIES
from controller.scheduler.view import DOCUMENT_BYTES_LEAST, Demand, View
from protocol.resources import Resources

MODELS = ("A", "B")
_amounts = st.tuples(
    st.integers(0, 8), st.integers(0, 8), st.integers(0, 3), st.just(0), st.integers(0, 2), st.just(0),
    st.integers(0, 4),
)  # fmt: skip
_accelerator = st.tuples(st.sampled_from(MODELS), st.integers(0, 1_000))
devices = st.fixed_dictionaries(
    {
        "online": st.sampled_from([True, True, True, False]),
        "open": st.sampled_from([True, True, True, False]),
        "fit": st.sampled_from([True, True, True, False]),
        "able": st.sampled_from([True, True, False]),
        "offered": _amounts,
        "reserved": _amounts,
        "accelerators": st.lists(_accelerator, max_size=3),
        "cameras": st.integers(0, 2),
        "bytes": st.sampled_from([0, 500, 1_024, 3_000, 60_000]),
        "speed": st.sampled_from([500, 1_000, 3_000]),
        "heat": st.integers(30, 90),
        "flaky": st.sampled_from([0.0, 0.5, 2.0]),
        "turn": st.integers(0, 5),
    }
)
fleets = st.lists(devices, max_size=9)
demands = st.fixed_dictionaries(
    {
        "amounts": st.tuples(
            st.integers(0, 5), st.integers(0, 5), st.integers(0, 2),
            st.sampled_from([0, 0, 0, 300, 1_000, 2_000]),
            st.integers(0, 1), st.just(0), st.integers(0, 2),
        ),
        "bytes": st.sampled_from([0, 200, 2_000]),
        "cameras": st.integers(0, 1),
        "models": st.sampled_from([(), (), ("A",), ("B", "C")]),
        "reference": st.booleans(),
        "wish": st.booleans(),
    }
)  # fmt: skip
policies = st.sampled_from(sorted(POLICIES))


def view_of(fleet):
    """The fleet as the scheduler's columns; free may be negative, where a device has shrunk."""
    view = View(1)
    for device in fleet:
        row = view.add()
        describe(view, row, device)
    view.touch_all()
    return view


def describe(view, row, device):
    """Writes one device into its row."""
    total = sum(1_000 for _ in device["accelerators"])
    offered = Resources(*device["offered"])._replace(gpu_milli=total)
    used = sum(1_000 - free for _, free in device["accelerators"])
    reserved = Resources(*device["reserved"])._replace(gpu_milli=used)
    view.core_speed_milli[row] = device["speed"]
    accelerators = [(model, free) for model, free in device["accelerators"]]
    view.offer(row, offered, reserved, accelerators, {"camera": device["cameras"]})
    view.online[row], view.open[row], view.fit[row] = device["online"], device["open"], device["fit"]
    view.document_bytes_free[row] = device["bytes"]
    view.temperature_c[row], view.flakiness[row] = device["heat"], device["flaky"]
    view.turn[row] = device["turn"]


def demand_of(fleet, asked):
    able = np.array([d["able"] for d in fleet], np.bool_).reshape(len(fleet))
    wish = np.array([i % 3 / 2 for i in range(len(fleet))]).reshape(len(fleet)) if asked["wish"] else None
    return Demand(
        Resources(*asked["amounts"]), asked["bytes"], {"runtime process": able},
        {"camera": asked["cameras"]} if asked["cameras"] else {}, asked["models"], asked["reference"],
        wish, 0.5,
    )  # fmt: skip


def amount_on(device, asked, resource):
    """What the demand is on this device: a faster core needs fewer thousandths, rounded up."""
    amount = asked["amounts"][resource]
    return -(-amount * 1_000 // device["speed"]) if resource == 0 and asked["reference"] else amount


def free_of(device, resource):
    if resource == 3:
        return sum(free for _, free in device["accelerators"])
    return device["offered"][resource] - device["reserved"][resource]


def fits(device, asked):
    """The reference: one device, one question."""
    if not (device["online"] and device["open"] and device["fit"] and device["able"]):
        return False
    if device["bytes"] < max(asked["bytes"], DOCUMENT_BYTES_LEAST) or free_of(device, 6) < 1:
        return False
    if device["cameras"] < asked["cameras"]:
        return False
    if not _accelerators_fit(device, asked):
        return False
    return all(not asked["amounts"][r] or amount_on(device, asked, r) <= free_of(device, r) for r in range(7))


def _accelerators_fit(device, asked):
    milli = asked["amounts"][3]
    good = [free for model, free in device["accelerators"] if not asked["models"] or model in asked["models"]]
    if not milli:
        return not asked["models"] or not asked["amounts"][3]
    if milli < 1_000:
        return any(free >= milli for free in good)
    return sum(free >= 1_000 for free in good) >= milli // 1_000


def take(device, asked):
    """Reserves on the reference device; a share on the fullest accelerator, whole ones in their order."""
    reserved = list(device["reserved"])
    for r in range(7):
        reserved[r] += amount_on(device, asked, r)
    device["reserved"] = tuple(reserved)
    device["bytes"] -= asked["bytes"]
    device["cameras"] -= asked["cameras"]
    milli = asked["amounts"][3]
    each, count = (milli, 1) if milli < 1_000 else (1_000, milli // 1_000)
    if milli:
        able = [
            (free, at)
            for at, (model, free) in enumerate(device["accelerators"])
            if free >= each and (not asked["models"] or model in asked["models"])
        ]
        device["accelerators"] = list(device["accelerators"])
        for free, at in sorted(able)[:count]:
            device["accelerators"][at] = (device["accelerators"][at][0], free - each)
