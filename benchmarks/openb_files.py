"""Files of the openb format: nodes and tasks of a GPU cluster, as CSV; and tasks resampled to a load.

Nodes: `sn, cpu_milli, memory_mib, gpu, model`. Tasks: `name, cpu_milli, memory_mib, num_gpu,
gpu_milli, gpu_spec`, further columns don't matter. `gpu_milli` below 1,000 is a share of one
accelerator; `gpu_spec` names the models that will do, joined by `|`, empty is any.
A file that is not so is refused with its line and what was expected there.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from protocol.limits import ACCELERATORS_MAX


class BadFile(Exception):
    """A file that can't be used: which, where, what was expected."""


class Node(NamedTuple):
    cpu_milli: int
    memory_mib: int
    accelerators: int
    model: str


class Task(NamedTuple):
    cpu_milli: int
    memory_mib: int
    accelerators: int
    milli: int
    """Of each accelerator."""
    models: tuple[str, ...]

    @property
    def total_milli(self) -> int:
        return self.accelerators * self.milli


NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
TASK_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")


def nodes_of(path: Path) -> list[Node]:
    """The nodes of a file, in its order."""
    nodes = []
    for row in _rows(path, NODE_COLUMNS):
        count = row.number("gpu", 0, ACCELERATORS_MAX)
        model = row.text("model")
        if count and not model:
            raise row.bad("model", "the name of its accelerators' model, because gpu is above 0")
        nodes.append(Node(row.number("cpu_milli", 1), row.number("memory_mib", 1), count, model))
    if not any(node.accelerators for node in nodes):
        raise BadFile(f"{path}: no node has an accelerator (column gpu); expected at least one")
    return nodes


def tasks_of(path: Path) -> list[Task]:
    """The tasks of a file, in its order."""
    tasks = []
    for row in _rows(path, TASK_COLUMNS):
        count = row.number("num_gpu", 0, ACCELERATORS_MAX)
        milli = row.number("gpu_milli", 0, 1_000)
        if count == 1 and not milli:
            raise row.bad("gpu_milli", "1 to 1000, because num_gpu is 1")
        models = tuple(m for m in row.text("gpu_spec").split("|") if m)
        each = 0 if not count else milli if count == 1 else 1_000
        cpu, memory = row.number("cpu_milli", 0), row.number("memory_mib", 0)
        tasks.append(Task(cpu, memory, count, each, models if count else ()))
    if not any(task.total_milli for task in tasks):
        raise BadFile(f"{path}: no task asks for an accelerator (column num_gpu); expected at least one")
    return tasks


def resampled(tasks: Sequence[Task], target_milli: int, seed: int) -> list[Task]:
    """All tasks, with more drawn from them (or some left out) until they ask for the target; shuffled."""
    dice = random.Random(seed)
    chosen = list(tasks)
    total = sum(task.total_milli for task in chosen)
    while total < target_milli:
        chosen.append(dice.choice(tasks))
        total += chosen[-1].total_milli
    dice.shuffle(chosen)
    while total - chosen[-1].total_milli >= target_milli:
        total -= chosen.pop().total_milli
    return chosen


# ----------------------------------------------------------------- reading


class _Row:
    """One line of a file, that knows where it is."""

    def __init__(self, path: Path, line: int, cells: dict[str, str]) -> None:
        self.path, self.line, self.cells = path, line, cells

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def number(self, column: str, least: int, most: int = 2**40) -> int:
        expected = f"a whole number from {least} to {most}"
        try:
            number = int(self.text(column))
        except ValueError:
            raise self.bad(column, expected) from None
        if not least <= number <= most:
            raise self.bad(column, expected)
        return number

    def bad(self, column: str, expected: str) -> BadFile:
        return BadFile(
            f"{self.path}, line {self.line}: {column} is {self.text(column)!r}; expected {expected}"
        )


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in wanted if name not in (reader.fieldnames or ())]
            if missing:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise BadFile(
                    f"{path}, line 1: no column {missing[0]!r}; "
                    f"expected a header with {', '.join(wanted)}, found {found[:200]}"
                )
            for cells in reader:
                if None in cells or None in cells.values():
                    raise BadFile(
                        f"{path}, line {reader.line_num}: {sum(v is not None for v in cells.values())} "
                        f"cells; expected {len(reader.fieldnames or ())}, as in the header"
                    )
                yield _Row(path, reader.line_num, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path}: can't be read ({error}); expected a CSV file in UTF-8") from error
