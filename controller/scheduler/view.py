"""What the scheduler sees: the fleet's room and condition in columns, live or as a copy.

Rule of this file: it is the only writer of room. One array per fact, a device is a row.
`take` and `give` are each other's inverse; every row that changed is told in `log`, so
that who remembers scores looks again only there. It knows no task, no label and no time.
Rejected: a copy per round (at 10,000 devices it costs more than placing one task); a
matrix of facts (12 times slower to scan, untyped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.limits import ACCELERATORS_MAX
from protocol.resources import NAMES, Resources

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Rows = slice | Ints

CPU, GPU, SLOTS = NAMES.index("cpu_milli"), NAMES.index("gpu_milli"), NAMES.index("slots")
WHOLE_MILLI = 1_000
DOCUMENT_BYTES_LEAST = 1_024
"""A device whose document has less left counts as full: so most tasks need not ask."""
NO_MODEL = -1
MODELS_MAX = 4_096
EXTRAS_KINDS_MAX = 256
"""Names that devices bring, for the whole fleet: one that invents more with each inventory must not
fill the memory. An accelerator of a model beyond counts as of none, an extra beyond is not offered."""
LOG_ROWS_MAX = 100_000
"""Then who remembers looks at everything anew: a log must not grow for ever."""

_INTS = ("document_bytes_free", "core_speed_milli", "turn", "temperature_c", "battery_percent",
         "wear_percent", "latency_ms")  # fmt: skip
_FLAGS = ("online", "open", "fit", "throttled", "undervoltage", "on_battery", "metered", "told")
_FLOATS = ("flakiness", "busy")
_HEALTH = ("told", "throttled", "undervoltage", "on_battery", "metered", "temperature_c", "battery_percent",
           "wear_percent", "latency_ms")  # fmt: skip


class Share(NamedTuple):
    """What of one device an attempt reserves. `accelerators`: (its place on the device, milli)."""

    resources: Resources
    accelerators: tuple[tuple[int, int], ...] = ()
    extras: tuple[tuple[str, int], ...] = ()


NOTHING = Share(Resources())


@dataclass(slots=True)
class Demand:
    """What one task needs of a device.

    `eligible` maps each attribute demand, in words, to the column of devices that meet it;
    `entry_bytes` is its size in a document. `resources.gpu_milli` below 1,000 is a share of
    ONE accelerator, multiples of 1,000 are whole ones. `wish`: a column in 0…1 of how much
    the job likes each device, or None; it is added with `wish_weight`.
    """

    resources: Resources
    entry_bytes: int = 0
    eligible: dict[str, Flags] = field(default_factory=dict)
    extras: dict[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    reference_cpu: bool = False
    wish: Floats | None = None
    wish_weight: float = 0.0

    @property
    def accelerators(self) -> tuple[int, int]:
        """(how many, milli of each)."""
        milli = self.resources.gpu_milli
        return (milli // WHOLE_MILLI, WHOLE_MILLI) if milli >= WHOLE_MILLI else (int(milli > 0), milli)


class View:
    """Columns of `count` devices.

    `offered`: what may be reserved in all (capacity x overcommit - headroom), `free`: what of it
    is not; one array per resource, in the order of `NAMES`; `share_free` is free / offered, in
    float, so that a scan need not convert. `accel_free`: milli free on each
    accelerator (n, places), `accel_model` its model's index in `models` or -1. `online`:
    heard and ready; `open`: not cordoned, draining, quarantined or removed; `fit`: no hard
    guard (heat, voltage, battery, flakiness) speaks against new work. `turn`: when it was
    last given something, in placements; `busy`: measured share of its scarcest resource.
    """

    online: Flags
    open: Flags
    fit: Flags
    throttled: Flags
    undervoltage: Flags
    on_battery: Flags
    metered: Flags
    told: Flags
    document_bytes_free: Ints
    core_speed_milli: Ints
    turn: Ints
    temperature_c: Ints
    battery_percent: Ints
    wear_percent: Ints
    latency_ms: Ints
    flakiness: Floats
    busy: Floats

    def __init__(self, size: int = 64) -> None:
        self.count = 0
        self.models: dict[str, int] = {}
        self.log: list[int] = []
        self.era = 0
        """Rises when the log begins anew, or when much changed at once: then nothing remembered holds."""
        self.turns = 0
        self._size = size
        self._columns: dict[str, npt.NDArray[np.generic]] = {}
        for name in (*_INTS, *_FLAGS, *_FLOATS):
            self._columns[name] = np.zeros(size, _dtype(name))
        for i in range(len(NAMES)):
            self._columns[f"offered{i}"] = np.zeros(size, np.int64)
            self._columns[f"free{i}"] = np.zeros(size, np.int64)
            self._columns[f"scale{i}"] = np.ones(size, np.float64)
            self._columns[f"share{i}"] = np.zeros(size, np.float64)
        self._accel_free = np.zeros((size, 1), np.int64)
        self._accel_model = np.full((size, 1), NO_MODEL, np.int16)
        self._extras: dict[str, tuple[Ints, Ints]] = {}
        self._expose()

    # ------------------------------------------------------------- rows

    def add(self) -> int:
        """A new device without any room; returns its row."""
        if self.count == self._size:
            self._grow()
        self.count += 1
        self._expose()
        return self.count - 1

    def _grow(self) -> None:
        old, self._size = self._size, max(64, 2 * self._size)
        for name, column in self._columns.items():
            fresh = np.ones if name.startswith("scale") else np.zeros
            self._columns[name] = np.concatenate([column, fresh(self._size - old, column.dtype)])
        self._accel_free = _taller(self._accel_free, self._size, 0)
        self._accel_model = _taller(self._accel_model, self._size, NO_MODEL)
        self._extras = {
            n: (_taller(a, self._size, 0), _taller(b, self._size, 0)) for n, (a, b) in self._extras.items()
        }

    def _expose(self) -> None:
        n = self.count
        for name in (*_INTS, *_FLAGS, *_FLOATS):
            setattr(self, name, self._columns[name][:n])
        self.offered: list[Ints] = [self._columns[f"offered{i}"][:n] for i in range(len(NAMES))]  # type: ignore[misc]
        self.free: list[Ints] = [self._columns[f"free{i}"][:n] for i in range(len(NAMES))]  # type: ignore[misc]
        self.scale: list[Floats] = [self._columns[f"scale{i}"][:n] for i in range(len(NAMES))]  # type: ignore[misc]
        self.share_free: list[Floats] = [self._columns[f"share{i}"][:n] for i in range(len(NAMES))]  # type: ignore[misc]
        self.accel_free: Ints = self._accel_free[:n]
        self.accel_model = self._accel_model[:n]
        self.extras_free: dict[str, Ints] = {name: free[:n] for name, (_, free) in self._extras.items()}
        self.extras_offered: dict[str, Ints] = {name: all_[:n] for name, (all_, _) in self._extras.items()}

    @property
    def ready(self) -> Flags:
        """Devices that may be given something now."""
        return self.online & self.open & self.fit

    def takes(self, rows: Rows | int) -> Flags:
        """Ready, with a slot and some room in its document: what every task needs."""
        able: Flags = self.online[rows] & self.open[rows] & self.fit[rows] & (self.free[SLOTS][rows] > 0)
        return able & (self.document_bytes_free[rows] >= DOCUMENT_BYTES_LEAST)

    def copy(self) -> View:
        """A copy to try things on."""
        other = View(max(1, self.count))
        other.count, other.models, other.turns = self.count, dict(self.models), self.turns
        n = self.count
        for name, column in self._columns.items():
            other._columns[name][:n] = column[:n]
        other._accel_free = np.array(self._accel_free[: max(1, n)])
        other._accel_model = np.array(self._accel_model[: max(1, n)])
        other._extras = {
            k: (np.array(a[: max(1, n)]), np.array(b[: max(1, n)])) for k, (a, b) in self._extras.items()
        }
        other._expose()
        return other

    # ------------------------------------------------------------- what a device offers

    def offer(
        self, row: int, offered: Resources, reserved: Resources,
        accelerators: Sequence[tuple[str, int]] = (), extras: dict[str, int] | None = None,
        extras_reserved: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Describes a device anew; `accelerators`: (model, milli) in their order, nothing taken of them."""
        for i, (amount, taken) in enumerate(zip(offered, reserved, strict=True)):
            self.offered[i][row], self.free[i][row] = amount, amount - taken
            scale = self.scale[i][row] = 1.0 / amount if amount > 0 else 1.0
            self.share_free[i][row] = (amount - taken) * scale
        self._offer_accelerators(row, accelerators)
        extras, taken_of = extras or {}, extras_reserved or {}
        for name in (*extras, *taken_of):
            self._know_extra(name)
        for name, free in self.extras_free.items():
            self.extras_offered[name][row] = extras.get(name, 0)
            free[row] = extras.get(name, 0) - taken_of.get(name, 0)
        self.touch(row)

    def _know_extra(self, name: str) -> bool:
        """Whether a site-defined resource is counted; from the first time that anybody names it."""
        if name not in self._extras and len(self._extras) < EXTRAS_KINDS_MAX:
            self._extras[name] = (np.zeros(self._size, np.int64), np.zeros(self._size, np.int64))
            self._expose()
        return name in self._extras

    def _model(self, name: str) -> int:
        if name not in self.models and len(self.models) >= MODELS_MAX:
            return NO_MODEL
        return self.models.setdefault(name, len(self.models))

    def _offer_accelerators(self, row: int, accelerators: Sequence[tuple[str, int]]) -> None:
        wanted = min(len(accelerators), ACCELERATORS_MAX)
        width = self._accel_free.shape[1]
        if wanted > width:
            self._accel_free = np.pad(self._accel_free, ((0, 0), (0, wanted - width)))
            self._accel_model = np.pad(
                self._accel_model, ((0, 0), (0, wanted - width)), constant_values=NO_MODEL
            )
            self._expose()
        self.accel_free[row], self.accel_model[row] = 0, NO_MODEL
        for place, (model, milli) in enumerate(accelerators[:wanted]):
            self.accel_free[row, place] = milli
            self.accel_model[row, place] = self._model(model)

    def touch(self, row: int) -> None:
        """Something about this row changed."""
        self.log.append(row)
        if len(self.log) > LOG_ROWS_MAX:
            self.touch_all()

    def touch_all(self) -> None:
        """Much has changed at once."""
        self.log.clear()
        self.era += 1

    def forget_health(self, row: int) -> None:
        """What a device said of its health no longer counts; until it says something, all may be well."""
        for name in _HEALTH:
            self._columns[name][row] = 0

    # ------------------------------------------------------------- room

    def take(self, row: int, share: Share, entry_bytes: int) -> None:
        """Reserves; the caller has made sure that it fits, or knows that it must be so."""
        self.turns += 1
        self.turn[row] = self.turns
        self._move(row, share, entry_bytes, 1)

    def give(self, row: int, share: Share, entry_bytes: int) -> None:
        """Ends a reservation."""
        self._move(row, share, entry_bytes, -1)

    def set_aside(self, row: int, share: Share, entry_bytes: int, sign: int = 1) -> None:
        """Takes room that nobody reserves yet, be it free or not; -1 ends it."""
        self._move(row, share, entry_bytes, sign)

    def _move(self, row: int, share: Share, entry_bytes: int, sign: int) -> None:
        for i, amount in enumerate(share.resources):
            if amount:
                free = self.free[i]
                free[row] -= sign * amount
                self.share_free[i][row] = free[row] * self.scale[i][row]
        self.document_bytes_free[row] -= sign * entry_bytes
        self.take_accelerators(row, share, sign)
        for name, amount in share.extras:
            if self._know_extra(name):  # also one that nobody offers: what is given back was taken
                self.extras_free[name][row] -= sign * amount
        self.touch(row)

    def take_many(self, rows: Ints, demand: Demand) -> None:
        """Reserves the demand on each of these rows, as often as it is named."""
        if demand.accelerators[0] or demand.reference_cpu:
            for row in rows.tolist():
                self.take(row, self.share(row, demand), demand.entry_bytes)
            return
        once, counts = np.unique(rows, return_counts=True)
        for i, amount in enumerate(demand.resources):
            if amount:
                left = self.free[i][once] - counts * amount
                self.free[i][once], self.share_free[i][once] = left, left * self.scale[i][once]
        self.document_bytes_free[once] -= counts * demand.entry_bytes
        for name, amount in demand.extras.items():
            self.extras_free[name][once] -= counts * amount
        self.turn[rows] = np.arange(self.turns + 1, self.turns + len(rows) + 1)
        self.turns += len(rows)
        self.log += rows.tolist()
        if len(self.log) > LOG_ROWS_MAX:
            self.touch_all()

    def take_accelerators(self, row: int, share: Share, sign: int = 1) -> None:
        for place, milli in share.accelerators:
            if 0 <= place < self.accel_free.shape[1]:
                self.accel_free[row, place] -= sign * milli

    # ------------------------------------------------------------- what a demand is on a device

    def amount(self, demand: Demand, resource: int, rows: Rows) -> int | Ints:
        """How much of a resource the demand is on these devices: a faster core needs fewer thousandths."""
        amount = demand.resources[resource]
        if resource != CPU or not demand.reference_cpu:
            return amount
        return -(-amount * 1_000 // self.core_speed_milli[rows])

    def allowed_models(self, demand: Demand) -> tuple[int, ...]:
        """Indexes of the models that will do; a model that no device has is left out."""
        return tuple(self.models[m] for m in demand.models if m in self.models)

    def accelerators_free(self, demand: Demand, rows: Rows) -> Ints:
        """Milli free per accelerator (rows, places), 0 on models that won't do."""
        free = self.accel_free[rows]
        if not demand.models:
            return free
        return np.where(np.isin(self.accel_model[rows], self.allowed_models(demand)), free, 0)

    def share(self, row: int, demand: Demand) -> Share:
        """What the demand would reserve there: whole accelerators in their order, a share on the fullest."""
        resources = demand.resources
        if demand.reference_cpu:
            cpu = self.amount(demand, CPU, np.array([row]))
            resources = resources._replace(cpu_milli=int(cpu[0]))  # type: ignore[index]
        extras = tuple(demand.extras.items())
        count, milli = demand.accelerators
        if not count:
            return Share(resources, (), extras)
        free = self.accelerators_free(demand, slice(row, row + 1))[0]
        fitting = [(int(f), place) for place, f in enumerate(free) if f >= milli]
        fitting.sort()
        return Share(resources, tuple((place, milli) for _, place in fitting[:count]), extras)

    def copies(self, demand: Demand, rows: Rows) -> Ints:
        """How many of the demand still fit on each of these devices, room alone."""
        most: Ints = np.full(len(self.turn[rows]), np.iinfo(np.int64).max // 2, np.int64)
        for i, amount in enumerate(demand.resources):
            if amount:
                np.minimum(most, self.free[i][rows] // self.amount(demand, i, rows), out=most)
        np.minimum(most, self.free[SLOTS][rows], out=most)
        spare_bytes = self.document_bytes_free[rows] - max(0, DOCUMENT_BYTES_LEAST - demand.entry_bytes)
        if demand.entry_bytes:
            np.minimum(most, spare_bytes // demand.entry_bytes, out=most)
        for name, amount in demand.extras.items():
            free = self.extras_free.get(name)
            np.minimum(most, free[rows] // amount if free is not None else 0, out=most)
        count, milli = demand.accelerators
        if count:
            np.minimum(most, (self.accelerators_free(demand, rows) // milli).sum(axis=1) // count, out=most)
        return np.maximum(most, 0)


def _dtype(name: str) -> type[np.generic]:
    return np.bool_ if name in _FLAGS else np.float64 if name in _FLOATS else np.int64


def _taller(column: Any, size: int, value: int) -> Any:
    """The same column with rows of `value` below."""
    shape = (size - len(column), *column.shape[1:])
    return np.concatenate([column, np.full(shape, value, column.dtype)])
