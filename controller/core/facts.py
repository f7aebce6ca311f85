"""Facts: what devices say of themselves, as columns of codes that conditions are asked of.

A condition is evaluated once per *value*, not once per device: the fleet's column is then
one look-up. When a device describes itself anew only its own codes are made again, so a
fleet of 200,000 that keeps sending inventories costs nothing per device and condition.
It judges nothing: meanings are `conditions`' and `taints`', counting is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from controller.core.conditions import Values, values_of, values_test
from controller.core.records import DeviceRow
from controller.core.taints import tolerated
from controller.scheduler.view import Flags, Floats, Ints

COLUMNS_MAX = 64
"""Attributes that are kept as columns; 1.6 MB each in a fleet of 200,000."""
TABLES_MAX = 256
"""Conditions that are kept per attribute."""
STALE_MAX = 1_024
"""Values beyond two per device that no device may have any more; then a column is made anew."""
_TAINTS = "taints"
"""Not an attribute that a condition may name."""

Table = npt.NDArray[np.float64]


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
        test = column.table((operator, value), lambda: _as_row(values_test(operator, value)))
        return test[:, 0].astype(np.bool_)[column.codes()]

    def codes(self, attribute: str) -> tuple[Ints, list[str]]:
        """Each device's value of an attribute that has one at most, as a number; -1 without.

        The names may hold some that no device has any more.
        """
        column = self._column(attribute)
        found, names = column.codes(), column.names
        known: dict[str, int] = {}
        again = [known.setdefault(values[0], len(known)) if values else -1 for values in names]
        return np.array(again, np.int64)[found], list(known)

    def bearings(self, tolerations: tuple[str, ...]) -> tuple[Flags, Floats, Flags]:
        """Columns: may be placed there; how much speaks against it, 0 to below 1; has to leave."""
        column = self._column(_TAINTS)
        rows = column.table(tolerations, lambda: lambda taints: tolerated(taints, tolerations))
        at = column.codes()
        return rows[:, 0].astype(np.bool_)[at], rows[:, 1][at], rows[:, 2].astype(np.bool_)[at]

    def _column(self, attribute: str) -> _Column:
        column = self._columns.get(attribute)
        if column is None or column.stale():
            if len(self._columns) >= COLUMNS_MAX:
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
        self._tables: dict[Hashable, tuple[Callable[[Values], tuple[float, ...]], Table]] = {}

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

    def table(self, key: Hashable, make: Callable[[], Callable[[Values], tuple[float, ...]]]) -> Table:
        """What a function of the values says of each code: a row of numbers."""
        self.codes()
        if key in self._tables:
            test, known = self._tables[key]
        else:
            if len(self._tables) >= TABLES_MAX:
                self._tables.clear()
            test, known = make(), np.zeros((0, 3))
        if len(known) < len(self.names):
            fresh = np.zeros((len(self.names) - len(known), 3))
            for at, values in enumerate(self.names[len(known) :]):
                row = test(values)
                fresh[at, : len(row)] = row
            known = np.concatenate([known, fresh])
        self._tables[key] = test, known
        return known


def _as_row(test: Callable[[Values], bool]) -> Callable[[Values], tuple[float, ...]]:
    return lambda values: (float(test(values)),)


def _reader(attribute: str) -> Callable[[DeviceRow], Values]:
    return lambda record: values_of(record, attribute)


def _taints(record: DeviceRow) -> Values:
    return record.taints
