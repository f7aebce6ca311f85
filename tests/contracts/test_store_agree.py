"""Clever against dumb: random rows saved to both stores read back the same, before and after pruning."""

from __future__ import annotations

import copy
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.records import (
    AttemptRow,
    AttemptState,
    AuditRow,
    Constraint,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    JobState,
    OutputRow,
    Row,
    TaskRow,
    TaskSpec,
)
from controller.store.base import RECENT_MS, Store
from controller.store.memory import MemoryStore
from controller.store.output import assemble
from controller.store.sqlite import SqliteStore
from protocol.limits import INT_MAX, SESSION_MAX
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState

WALL_MS = 1_700_000_000_000

ints = st.integers(0, 6)
large = ints | st.integers(0, INT_MAX)
times = st.integers(WALL_MS - 3, WALL_MS + 3)
ends = times | st.just(0) | st.just(WALL_MS - RECENT_MS - 1)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
maps = st.dictionaries(texts, texts, max_size=2)
tuples = st.lists(texts, max_size=2).map(tuple)
codes = st.none() | st.integers(-3, 300)
flags = st.booleans()
jobs = st.sampled_from(["j1", "j2", "j10"])
tasks = st.builds("{}.{}".format, jobs, ints)
devices = st.sampled_from(["", "pi-1", "pi-2"])
objects = st.one_of(jobs, tasks, devices)
resources = st.builds(Resources, large, large, large, large)
constraints = st.lists(st.builds(Constraint, texts, texts, texts), max_size=2).map(tuple)
specs = st.builds(TaskSpec, texts, tuples, maps, resources, constraints, large, large)
desired = st.sampled_from(["run", "cancelled"])


def task_row(job: str, index: int, *rest: object) -> TaskRow:
    return TaskRow(f"{job}.{index}", job, index, *rest)  # type: ignore[arg-type]


job_head = (
    jobs,
    texts,
    st.sampled_from(JobKind),
    large,
    large,
    st.sampled_from(Guarantee),
    large,
    large,
    large,
)
device_head = (devices, st.integers(0, SESSION_MAX), texts, texts, texts, large, texts)
any_rows = st.one_of(
    st.builds(
        *(JobRow, *job_head, specs, st.sampled_from(JobState), desired),
        *(times, times, texts, texts, texts),
    ),
    st.builds(
        *(task_row, jobs, ints, st.sampled_from(TaskState), desired, devices),
        *(ints, codes, texts, large, times, times),
    ),
    st.builds(
        *(AttemptRow, tasks, ints, devices, st.sampled_from(AttemptState), large, large, ints),
        *(codes, ints, texts, times, times, ends),
    ),
    st.builds(
        *(DeviceRow, *device_head, resources, maps, tuples, texts, large, texts),
        *(flags, flags, flags, flags, large, large, times, texts),
    ),
    st.builds(DocumentRow, devices, large, ints),
    st.builds(AuditRow, times, texts, texts, objects, texts, texts, devices, ints, texts),
    st.builds(OutputRow, tasks, ints, st.integers(1, 2), ints, st.binary(max_size=6), flags),
    st.builds(FleetRow, texts, texts),
)
batches = st.lists(st.lists(any_rows, max_size=12), max_size=5)


def leading(store: Store) -> int:
    return store.lead("here", 0, WALL_MS)[0].epoch


def everything(store: Store) -> list[object]:
    """All that can be read."""
    seen: list[object] = [store.load(), store.counts(), store.jobs(), store.audit(), store.tasks()]
    for id in ("j1", "j2", "j10", "j1.0", "j2.3", "j10.6", "pi-1"):
        seen += [store.job(id), store.task(id), store.attempts(id), store.story(id)]
        seen += [store.jobs(after=id), store.tasks(after=id, limit=3), store.tasks(job=id, after="j10.2")]
        seen += [store.output(id, n, 1, 2, 9) for n in range(7)]
    for state in TaskState:
        seen += [store.tasks(state=state, after="j1.2"), store.tasks(job="j1", state=state)]
        seen += [store.tasks(device="pi-1", state=state, limit=2), store.jobs(state=state)]
    seen += [store.tasks(device=d, after=a) for d in ("pi-1", "pi-2") for a in ("", "j10.1", "j2")]
    seen += [store.tasks(job="j1", device="pi-1")]
    return seen


def prune_all(store: Store, before: int, tasks_max: int, output_bytes_max: int) -> list[int]:
    """How many rows of each kind went."""
    total = [0] * 5
    for _ in range(100):
        done = store.prune(before, tasks_max, output_bytes_max)
        here = (done.jobs, done.tasks, done.attempts, done.audit, done.output)
        total = [a + b for a, b in zip(total, here, strict=True)]
        if not done.more:
            return total
    raise AssertionError("pruning never ends")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches, st.integers(WALL_MS - 3, WALL_MS + 3), st.integers(0, 20), st.integers(0, 40))
def test_both_stores_agree(
    saves: list[list[Row]], before: int, tasks_max: int, output_bytes_max: int
) -> None:
    with TemporaryDirectory() as folder:
        clever, dumb = SqliteStore(Path(folder) / "fleet.db"), MemoryStore()
        clever.open()
        with closing(clever):
            for batch in saves:
                epochs = leading(clever), leading(dumb)
                clever.save(copy.deepcopy(batch), epochs[0])
                dumb.save(batch, epochs[1])
            leading(clever), leading(dumb)
            assert everything(clever) == everything(dumb)
            pruned = [prune_all(s, before, tasks_max, output_bytes_max) for s in (clever, dumb)]
            assert pruned[0] == pruned[1]
            assert everything(clever) == everything(dumb)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=8),
    st.integers(0, 40),
    st.integers(0, 40),
    st.booleans(),
)
def test_pieces_agree_with_a_map_of_bytes(
    cuts: list[tuple[int, int]], offset: int, limit: int, ended: bool
) -> None:
    whole = bytes(range(64))
    known = {at for begin, size in cuts for at in range(begin, begin + size)}
    end = max((begin + size for begin, size in cuts), default=0) if ended else None
    found = assemble(sorted((b, whole[b : b + n]) for b, n in cuts), end, offset, limit)
    assert len(found.data) <= limit and found.next_offset == offset + found.gap + len(found.data)
    assert found.data == whole[offset + found.gap : found.next_offset]
    assert known.issuperset(range(offset + found.gap, found.next_offset))
    assert known.isdisjoint(range(offset, offset + found.gap))
    at = found.next_offset
    if limit and at in known:
        assert len(found.data) == limit
    assert found.complete == (end is not None and at >= end)
