"""Remedy words: the scheduler's single changes, in names and sentences.

Rule of this file: it adds what only records know (whose taint, which guard, what an
operator decided) and decides nothing: which changes there are is the scheduler's.
"""

from __future__ import annotations

from controller.core.condition import FLAKY_MAX, GUARD_BATTERY_PERCENT, GUARD_C
from controller.core.fleet import Fleet
from controller.core.records import TaskSpec
from controller.core.taints import PREFER_NOT, read_taint, read_toleration
from controller.core.views import RemedyView
from controller.scheduler.explain import UNITS
from controller.scheduler.gangs import SPREAD, TASKS
from controller.scheduler.remedies import ACCELERATORS, ANY_DEVICE, DOCUMENT, Remedy
from controller.scheduler.view import CPU, Demand
from protocol.resources import NAMES

_UNITS = {**UNITS, ACCELERATORS: "mGPU on accelerators that will do", DOCUMENT: "bytes in the document"}


class RemedyWords:
    """Tells changes of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def view(self, remedy: Remedy, demand: Demand, spec: TaskSpec, count: int = 1) -> RemedyView:
        """The change as data and as a sentence; `count`: how many tasks are placed together."""
        one = remedy.kind == "toleration" and not remedy.together
        row = self._easiest(remedy, spec) if one else remedy.device
        device = self.fleet.names[row] if row != ANY_DEVICE else ""
        return RemedyView(
            remedy.kind, remedy.name, device, remedy.amount, round(remedy.cost, 4), remedy.devices,
            self._words(remedy, row, device, demand, spec, count),
        )  # fmt: skip

    def _words(
        self, remedy: Remedy, row: int, device: str, demand: Demand, spec: TaskSpec, count: int
    ) -> str:
        kind, name = remedy.kind, remedy.name
        if kind == "room":
            return f"{_amount(remedy, demand)} more free on {device}"
        if kind == "capacity":
            return f"{_amount(remedy, demand)} more on {device}, {self._small(remedy, demand)}"
        if kind == "demand":
            less = f"{remedy.amount} instead of {_asked(demand, name)}"
            return f"a smaller demand: {name} {less}{_reference(name, demand)}"
        if kind == "model":
            return f"take another accelerator than {name}"
        if kind == TASKS:
            return f"a gang of {remedy.amount} tasks instead of {count}"
        if kind in ("constraint", "distinct", SPREAD):
            return f"drop {name}"
        if kind == "runtime":
            return f"install {name} on {device}"
        if kind == "online":
            return f"{device} comes online"
        if kind == "healthy":
            return f"{device} {self._ailments(row)}"
        if kind == "open":
            return f"uncordon {device}{self._standing(row)}"
        rows = remedy.rows if remedy.together else (row,)
        taints = dict.fromkeys(text for r in rows for text in self._taints(r, spec))
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return f"tolerate {' and '.join(taints)}, as {device}{others} {'have' if others else 'has'} it"

    def _small(self, remedy: Remedy, demand: Demand) -> str:
        offered = self.fleet.view.extras_offered.get(remedy.name)
        none = remedy.name in demand.extras and (offered is None or not offered[remedy.device])
        return "which has none" if none else "which is too small"

    def _standing(self, row: int) -> str:
        record = self.fleet.records[row]
        if record.quarantined:
            return f", which is in quarantine ({record.doubt or 'two machines speak under its id'})"
        return ", which is draining" if record.draining else ""

    def _ailments(self, row: int) -> str:
        """What its guards say has to change."""
        view, said = self.fleet.view, []
        if view.temperature_c[row] >= GUARD_C:
            said.append(f"cools below {GUARD_C} °C (now {int(view.temperature_c[row])})")
        if view.undervoltage[row]:
            said.append("gets its full voltage")
        if view.on_battery[row] and view.battery_percent[row] < GUARD_BATTERY_PERCENT:
            said.append(f"charges above {GUARD_BATTERY_PERCENT} % (now {int(view.battery_percent[row])})")
        if view.flakiness[row] >= FLAKY_MAX:
            said.append("stays without a loss for a while")
        return " and ".join(said) or "is well when it is next looked at"

    def _easiest(self, remedy: Remedy, spec: TaskSpec) -> int:
        """Of those devices the one with the fewest taints to overlook."""
        return min(remedy.rows, key=lambda row: len(self._taints(row, spec)))

    def _taints(self, row: int, spec: TaskSpec) -> list[str]:
        """The device's taints that keep the task away."""
        overlooked = [read_toleration(text) for text in spec.tolerations]
        found = [(text, read_taint(text)) for text in self.fleet.records[row].taints]
        hard = [(text, taint) for text, taint in found if taint.effect != PREFER_NOT]
        return [text for text, taint in hard if not any(o.covers(taint) for o in overlooked)]


def _amount(remedy: Remedy, demand: Demand) -> str:
    unit = _UNITS.get(remedy.name, remedy.name)
    own = " of its own cores" if _reference(remedy.name, demand) else ""
    return f"{remedy.amount:,} {unit}{own}"


def _reference(name: str, demand: Demand) -> str:
    """What is asked of the CPU counts on the reference core, what a device has on its own."""
    return " of the reference core" if name == NAMES[CPU] and demand.reference_cpu else ""


def _asked(demand: Demand, name: str) -> int:
    return demand.extras[name] if name in demand.extras else demand.resources[NAMES.index(name)]
