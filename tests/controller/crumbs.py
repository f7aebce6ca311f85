"""A fleet in crumbs: each device has some room left, none has enough for one more task."""

from __future__ import annotations

from controller.core.events import TaskExplained
from protocol.resources import Resources
from tests.controller.yard import COOL_MS, ROOM


def fragmented(y, each=1_500, count=1, **more):
    """Every device holds tasks of so much CPU, past their cool-down; a task of 3,000 fits nowhere."""
    for name in y.session:
        for other in y.session:
            y.desk.decide(other, "uncordon" if other == name else "cordon")
        y.desk.submit(job=f"on-{name}", count=count, needs=Resources(each, 64), **more)
        y.live(2_000)
    for name in y.session:
        y.desk.decide(name, "uncordon")
    y.live(COOL_MS)
    y.desk.submit(job="big", needs=Resources(3_000, 64))
    y.live(1_000)
    assert y.core.ledger.tasks["big.0"].row.state == "pending"
    return y


def six_small(yard):
    """Six tasks of 500 on one device, room for three of them on the other; a task of 2,500 fits nowhere."""
    y = yard(devices=2, rooms={1: ROOM._replace(cpu_milli=1_500)})
    y.desk.decide("d1", "cordon")
    y.desk.submit(job="small", count=6, needs=Resources(500, 64))
    y.live(2_000)
    y.desk.decide("d1", "uncordon")
    y.live(COOL_MS)
    y.desk.submit(job="big", needs=Resources(2_500, 64))
    y.live(1_000)
    return y


def where(y, task):
    return y.core.ledger.tasks[task].row.device


def explained(y, task="big.0"):
    return y.kit.reply(y.desk.feed(TaskExplained(5, task)))
