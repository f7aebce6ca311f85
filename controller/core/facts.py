"""Facts: what devices say of themselves, as columns of codes that conditions are asked of.

A condition is evaluated once per *value*, not once per device: the fleet's column is then
one look-up. When a device describes itself anew only its own codes are made again, so a
fleet of 200,000 that keeps sending inventories costs nothing per device and condition.
It judges nothing: meanings are `conditions`' and `taints`', counting is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core.conditions import Values, flags_of, values_of
from controller.core.records import DeviceRow
from controller.core.taints import tolerated
from controller.scheduler.view import Flags, Floats, Ints

COLUMNS_MAX = 64
"""Attributes that are kept as columns; 1.6 MB each in a fleet of 200,000."""
NAMES_MAX = 2_000_000
"""Different values in all columns together, some 150 bytes each."""
ANSWERS_MAX = 4_000_000
"""Answers that a column keeps, a byte each: 20 conditions where every device has a value of its own."""
TABLES_MAX = 1_024
STALE_MAX = 1_024
"""Values beyond two per device that no device may have any more; then a column is made anew."""
_TAINTS = "taints"
"""Not an attribute that a condition may name."""

AnyTable = npt.NDArray[Any]
Ask = Callable[[Sequence[Values]], AnyTable]


class Facts:
    """Columns over the records of a fleet, which may grow; rows are as in the fleet."""

    def __init__(self, records: Sequence[DeviceRow]) -> None:
        self._records = records
        self._columns: dict[str, _Column] = {}

    def changed(self, row: int) -> None:
        """This device's record says something else now."""
        for column in self._columns.values():
            column.changed(row)

    def flags(self, attribute: str, operator: str, value: str) -> Flags:
        """The devices that meet a condition; of a group's, those that it can count."""
        # `distinct_device` names no attribute; every device has an id.
        column = self._column(attribute or "device")
        at = column.codes()
        return column.table((operator, value), partial(flags_of, operator, value)).take(at)

    def codes(self, attribute: str) -> tuple[Ints, list[str]]:
        """Each device's value of an attribute that has one at most, as a number; -1 without.

        The names may hold some that no device has any more.
        """
        column = self._column(attribute)
        found, names = column.codes(), column.names
        known: dict[str, int] = {}
        again = [known.setdefault(values[0], len(known)) if values else -1 for values in names]
        return np.array(again, np.int64)[found], list(known)

    def values(self, attribute: str, rows: Ints) -> list[str]:
        """Every value that one of these devices has, sorted."""
        column = self._column(attribute)
        had = np.flatnonzero(np.bincount(column.codes()[rows])).tolist()
        return sorted({value for code in had for value in column.names[code]})

    def bearings(self, tolerations: tuple[str, ...]) -> tuple[Flags, Floats, Flags]:
        """Columns: may be placed there; how much speaks against it, 0 to below 1; has to leave."""
        column = self._column(_TAINTS)
        at = column.codes()
        rows = column.table(tolerations, partial(_bearings, tolerations))[at]
        return rows[:, 0] > 0, rows[:, 1], rows[:, 2] > 0

    def _column(self, attribute: str) -> _Column:
        column = self._columns.get(attribute)
        if column is None or column.stale():
            known = sum(len(c.names) for c in self._columns.values())
            if len(self._columns) >= COLUMNS_MAX or known > NAMES_MAX:
                self._columns.clear()
            read = _taints if attribute == _TAINTS else _reader(attribute)
            column = self._columns[attribute] = _Column(self._records, read)
        return column


class _Column:
    """The values of one attribute: a code per device, and what each code stands for."""

    def __init__(self, records: Sequence[DeviceRow], read: Callable[[DeviceRow], Values]) -> None:
        self._records, self._read = records, read
        self.names: list[Values] = []
        self._known: dict[Values, int] = {}
        self._codes = np.zeros(0, np.int64)
        self._count = 0
        self._tables: dict[Hashable, tuple[AnyTable, int]] = {}
        """Per condition: its answers by code, and of how many codes it was asked."""

    def stale(self) -> bool:
        return len(self.names) > 2 * self._count + STALE_MAX

    def changed(self, row: int) -> None:
        if row < self._count:
            self._codes[row] = self._code(row)

    def _code(self, row: int) -> int:
        values = self._read(self._records[row])
        code = self._known.setdefault(values, len(self.names))
        if code == len(self.names):
            self.names.append(values)
        return code

    def codes(self) -> Ints:
        """One per device; devices that came since the last time are added."""
        count = len(self._records)
        if count > len(self._codes):
            spare = np.zeros(max(count, 2 * len(self._codes)) - len(self._codes), np.int64)
            self._codes = np.concatenate([self._codes, spare])
        if count > self._count:
            self._codes[self._count : count] = [self._code(row) for row in range(self._count, count)]
            self._count = count
        return self._codes[:count]

    def table(self, key: Hashable, ask: Ask) -> AnyTable:
        """What a function of values says of each code; asked once per code, room ahead for new ones."""
        names = self.names
        table, known = self._tables.pop(key, (ask(()), 0))
        if known < len(names):
            if len(table) < len(names):
                spare = np.zeros((len(names) * 5 // 4 + 16 - len(table), *table.shape[1:]), table.dtype)
                table = np.concatenate([table, spare])
            table[known : len(names)] = ask(names[known:])
            kept = sum(len(t) for t, _ in self._tables.values())
            if len(self._tables) >= TABLES_MAX or kept + len(table) > ANSWERS_MAX:
                self._tables.clear()
        self._tables[key] = table, len(names)
        return table


def _bearings(tolerations: tuple[str, ...], several: Sequence[Values]) -> AnyTable:
    return np.array([tolerated(taints, tolerations) for taints in several], np.float64).reshape(-1, 3)


def _reader(attribute: str) -> Callable[[DeviceRow], Values]:
    return lambda record: values_of(record, attribute)


def _taints(record: DeviceRow) -> Values:
    return record.taints
