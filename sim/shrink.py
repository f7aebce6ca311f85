"""Shrinking: a failing plan becomes the smallest that still fails the same way.

Rule of this file: only by leaving out: faults, orders, devices, quirks, the second
controller, time. `fails` says whether a plan still shows what the first one showed, and is
asked at most `runs_max` times; each answer costs a whole run. It knows no world.
Delta debugging: large pieces first, then smaller, until no single one can go
(Zeller and Hildebrandt, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sim.plan import Fault, Order, Plan

RUNS_MAX = 300
TAIL_MS = 1_000
"""Faults end so long after the last one, where time itself is cut."""
Fails = Callable[[Plan], bool]
T = TypeVar("T")


class _Asked(Exception):
    """`runs_max` is used up."""


def shrink(plan: Plan, fails: Fails, runs_max: int = RUNS_MAX) -> Plan:
    """The smallest plan that was found to fail; `plan` itself, if nothing can go."""
    smaller = _Smaller(plan, fails, runs_max)
    try:
        while smaller.round():
            pass
    except _Asked:
        pass
    return smaller.best


class _Smaller:
    """The best plan so far."""

    def __init__(self, plan: Plan, fails: Fails, runs_max: int) -> None:
        self.best = plan
        self.fails = fails
        self.left = runs_max

    def round(self) -> bool:
        """Tries everything once, the cheap and telling first; whether anything went."""
        before = self.best
        self._try(replace(self.best, faults=()))
        self._without(self.best.faults, lambda plan, kept: replace(plan, faults=tuple(kept)))
        self._without(self.best.quirks, lambda plan, kept: replace(plan, quirks=tuple(kept)))
        if self.best.balance_ms:
            self._try(replace(self.best, balance_ms=0))
        if self.best.controllers > 1:
            self._try(replace(self.best, controllers=1))
        self._without(self.best.devices, lambda plan, kept: _with_devices(plan, [d.name for d in kept]))
        self._without(self.best.orders, lambda plan, kept: replace(plan, orders=tuple(kept)))
        self._shorter()
        return self.best != before

    def _try(self, plan: Plan) -> bool:
        if plan == self.best:
            return False
        if self.left <= 0:
            raise _Asked
        self.left -= 1
        if not self.fails(plan):
            return False
        self.best = plan
        return True

    def _without(self, items: Sequence[T], made: Callable[[Plan, Sequence[T]], Plan]) -> None:
        """Leaves out runs of items, half of them at once at first."""
        kept, size = list(items), max(1, len(items) // 2)
        while kept:
            start = 0
            while start < len(kept):
                fewer = kept[:start] + kept[start + size :]
                if self._try(made(self.best, fewer)):
                    kept = fewer
                else:
                    start += size
            if size == 1:
                return
            size //= 2

    def _shorter(self) -> None:
        """Ends after what is left, or a half earlier."""
        moments = [f.at_ms + f.for_ms for f in self.best.faults] + [o.at_ms for o in self.best.orders]
        end_ms = max(moments, default=0) + TAIL_MS
        if end_ms < self.best.faults_ms:
            self._try(_ending(self.best, end_ms))
        while self.best.faults_ms > 2 * TAIL_MS and self._try(_ending(self.best, self.best.faults_ms // 2)):
            pass


def _ending(plan: Plan, faults_ms: int) -> Plan:
    """Without what would come later."""
    faults = tuple(fault for fault in plan.faults if fault.at_ms < faults_ms)
    orders = tuple(order for order in plan.orders if order.at_ms < faults_ms)
    return replace(plan, faults_ms=faults_ms, faults=faults, orders=orders)


def _with_devices(plan: Plan, names: list[str]) -> Plan:
    """Only these, at least one; what concerned the others goes with them."""
    if not names:
        return plan
    return replace(
        plan,
        devices=tuple(device for device in plan.devices if device.name in names),
        faults=tuple(fault for fault in plan.faults if _concerns(fault, names)),
        orders=tuple(order for order in plan.orders if _concerns(order, names)),
    )


def _concerns(item: Fault | Order, names: list[str]) -> bool:
    device = item.device if isinstance(item, Fault) else str(dict(item.args).get("device", ""))
    return not device or device in names
