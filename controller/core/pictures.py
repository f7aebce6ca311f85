"""Pictures: the views that people get of devices and of the fleet, made from the columns."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict

import numpy as np

from controller.core.balance_columns import figures
from controller.core.balance_plan import balance_view
from controller.core.condition import health_of
from controller.core.explaining import Explaining
from controller.core.failover import Failover
from controller.core.fleet import NEVER, STATE_WORDS
from controller.core.ledger import Ledger
from controller.core.placement import Placement
from controller.core.views import DevicesView, DeviceView, FleetView, RefusalView
from protocol.tasks import TaskState


class Pictures:
    """Reads everything, changes nothing."""

    def __init__(
        self, ledger: Ledger, placement: Placement, failover: Failover, explaining: Explaining, began_ms: int
    ) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.placement = placement
        self.failover = failover
        self.explaining = explaining
        self.began_ms = began_ms
        self._sorted: list[str] = []
        self._told_of = (-1, -1)
        self._told: list[str] = []

    def devices(self, device: str, after: str, limit: int, now_ms: int) -> DevicesView | RefusalView:
        """One device, or a page of them in the order of their ids."""
        if device:
            row = self.fleet.index.get(device)
            if row is None or self.fleet.removed[row]:
                return RefusalView("not_found", f"no device {device}")
            return DevicesView([self.device(row, now_ms)])
        names = self._names()
        start = bisect_right(names, after) if after else 0
        items: list[DeviceView] = []
        for at in range(start, len(names)):
            row = self.fleet.index[names[at]]
            if self.fleet.removed[row]:
                continue
            if len(items) == limit:
                return DevicesView(items, items[-1].id)
            items.append(self.device(row, now_ms))
        return DevicesView(items)

    def _names(self) -> list[str]:
        if len(self._sorted) != self.fleet.count:
            self._sorted = sorted(self.fleet.names)
        return self._sorted

    def device(self, row: int, now_ms: int) -> DeviceView:
        f = self.fleet
        record = f.records[row]
        capacity, reserved, free = f.capacity_of(row), f.reserved_of(row), f.free_of(row)
        heard = int(f.heard_ms[row])
        spoke = f.session[row] > 0 and heard > NEVER
        return DeviceView(
            record.device, STATE_WORDS[f.state[row]], record.cordoned, record.draining, record.quarantined,
            record.profile, record.labels, record.runtimes, record.containment, record.limits, record.version,
            capacity, reserved, free, f.used_of(row), int(f.session[row]),
            int(f.held[row]), now_ms - heard if spoke else None,
            (int(f.doc_epoch[row]), int(f.doc_number[row])), f.granted(row), record.heartbeat_ms,
            record.accelerators, record.extras, record.core_speed_milli, record.taints, record.doubt,
            health_of(f, row),
        )  # fmt: skip

    def fleet_view(self, now_ms: int) -> FleetView:
        """The overview; `tasks` counts open ones by state, the store knows the final ones."""
        f, n = self.fleet, self.fleet.count
        present = ~f.removed[:n]
        states = enumerate(STATE_WORDS)
        devices = {w: int(np.count_nonzero(present & (f.state[:n] == i))) for i, w in states}
        for word in ("cordoned", "draining", "quarantined"):
            devices[word] = int(np.count_nonzero(present & getattr(f, word)[:n]))
        devices["total"] = int(np.count_nonzero(present))
        tasks = dict.fromkeys((TaskState.PENDING.value, TaskState.ASSIGNED.value, TaskState.RUNNING.value), 0)
        for task in self.ledger.tasks.values():
            tasks[task.row.state.value] += 1
        offered, free = f.total(f.view.offered, present), f.total(f.view.free, present)
        for aside in f.aside.values():
            free = free.plus(aside)
        return FleetView(
            devices, tasks, len(self.ledger.jobs),
            offered, offered.minus(free), free, self._frozen(),
            max(0, self.placement.not_before_ms - now_ms),
            [*self.ledger.alarms.values(), *self._strangers()],
            dict(self.ledger.garbage), dict(self.ledger.counters), self.ledger.epoch, self.ledger.leader,
            now_ms - self.began_ms, self.explaining.pending(tasks[TaskState.PENDING.value], now_ms),
            asdict(balance_view(figures(f))),
        )  # fmt: skip

    def _strangers(self) -> list[str]:
        """Devices whose profile nobody here knows: what their class keeps back is promised, too."""
        f = self.fleet
        seen = (f.facts_generation, int(np.count_nonzero(f.removed[: f.count])))
        if self._told_of != seen:
            self._told_of, known = seen, dict.fromkeys(f.profiles)
            there = [r for r in f.records if r.profile and not r.removed] if known else []
            found = [r for r in there if r.profile not in known]
            self._told = [_stranger(found[0].device, found[0].profile, len(found))] if found else []
        return self._told

    def _frozen(self) -> str:
        if self.failover.deaf:
            return "the broker does not return the controller's own messages"
        if self.failover.frozen:
            names = [n or "default" for n, i in self.fleet.sites.items() if i in self.failover.frozen]
            return "silent at once: site " + ", ".join(names)
        return ""


def _stranger(device: str, profile: str, count: int) -> str:
    have = f"and {count - 1} more devices have" if count > 1 else "has"
    return (
        f"profile: {device} {have} a profile that this controller doesn't know ({profile}), so nothing is "
        f"kept back there; put {profile}.toml into controller.profiles_dir"
    )
