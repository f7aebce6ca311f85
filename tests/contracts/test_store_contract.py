"""One suite over every store: what the contract says, and that the clever one agrees with the dumb one."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from controller.core.records import (
    AttemptRow,
    AttemptState,
    AuditRow,
    Constraint,
    DeviceRow,
    DocumentRow,
    FleetRow,
    JobRow,
    JobRules,
    JobState,
    OutputRow,
    Row,
    TaskRow,
    TaskSpec,
)
from controller.store.base import (
    RECENT_MS,
    OutputPiece,
    Pruned,
    Store,
    TokenRow,
)
from controller.store.memory import MemoryStore
from protocol.errors import LocalMistake
from protocol.limits import SESSION_MAX
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState

WALL_MS = 1_700_000_000_000
DECADE_MS = 315_360_000_000


def leading(store: Store, wall_ms: int = WALL_MS) -> int:
    return store.lead("here", 0, wall_ms)[0].epoch


def job(id: str, state: JobState = JobState.OPEN, **changes: object) -> JobRow:
    where = (Constraint("label.zone", "=", "a"),)
    spec = TaskSpec("process", ("sleep", "1"), {"A": "b"}, Resources(500, 64), where)
    row = JobRow(
        *(id, "name", JobKind.BATCH, 1, 0, Guarantee.AT_MOST_ONE, 3, 0, 30_000, spec),
        *(state, "run", WALL_MS, WALL_MS, "me"),
    )
    return dataclasses.replace(row, **changes)


def task(job: str, index: int = 0, state: TaskState = TaskState.PENDING, **changes: object) -> TaskRow:
    row = TaskRow(f"{job}.{index}", job, index, state, "run", "", 0, None, "", 0, WALL_MS, WALL_MS)
    return dataclasses.replace(row, **changes)


def attempt(
    task: str, number: int, state: AttemptState = AttemptState.RUNNING, **changes: object
) -> AttemptRow:
    row = AttemptRow(task, number, "pi-1", state, 1, 0, 0, None, 0, "", WALL_MS, 0, 0)
    return dataclasses.replace(row, **changes)


def device(name: str, **changes: object) -> DeviceRow:
    row = DeviceRow(
        *(name, 1 << 24, "boot", "instance", "", 1, "pi-4b-4g", Resources(4000, 3790), {"zone": "a"}),
        *(("process",), "strong", 10_000, "0.1", False, False, False, False, 0, 0, WALL_MS),
    )
    return dataclasses.replace(row, **changes)


def audit(object: str, new: str = "x", at: int = WALL_MS) -> AuditRow:
    return AuditRow(at, "me", "task", object, "", new)


# ------------------------------------------------------------------ saving


def test_every_row_comes_back_as_it_was(store: Store) -> None:
    epoch = leading(store)
    service = {"guarantee": Guarantee.AT_LEAST_ONE, "kind": JobKind.SERVICE}
    rows = (
        job("j1", idempotency_key="k", fingerprint="f", **service),
        task("j1", 7, TaskState.RUNNING, device="pi-1", exit_code=-9, reason="ünï\0 ☃"),
        attempt("j1.7", 3, exit_code=0, signal=9),
        device("pi-1", session=SESSION_MAX, cordoned=True, labels={"ü": "☃"}, limits="cgroup2"),
        DocumentRow("pi-1", epoch, 5),
        FleetRow("attempt_floor", "12"),
    )
    store.save(rows, epoch)
    found = store.load()
    lists = [found.jobs, found.tasks, found.attempts, found.devices, found.documents]
    assert lists == [[row] for row in rows[:5]]
    assert found.fleet == {"attempt_floor": "12"}
    assert found.keys == [("k", "j1", "f")]
    assert type(found.devices[0].cordoned) is bool and type(found.jobs[0].spec.resources) is Resources


def test_last_row_of_a_key_wins_within_a_batch_and_after(store: Store) -> None:
    epoch = leading(store)
    store.save([task("j1", state=TaskState.PENDING), task("j1", state=TaskState.RUNNING)], epoch)
    assert store.task("j1.0") == task("j1", state=TaskState.RUNNING)
    store.save([task("j1", state=TaskState.FAILED, reason="why")], epoch)
    assert store.task("j1.0") == task("j1", state=TaskState.FAILED, reason="why")
    assert store.counts().tasks["failed"] == 1 == sum(store.counts().tasks.values())


def test_a_cron_job_keeps_its_rules_and_how_far_it_is(store: Store) -> None:
    epoch = leading(store)
    rules = JobRules(schedule="30 2 * * *", zone="Europe/Berlin", overlap=True, missed="all")
    cron = job("j1", kind=JobKind.CRON, rules=rules, fired_at=WALL_MS + 1, runs=7)
    run = job("j2", rules=JobRules(parent="j1"))
    store.save([cron, run], epoch)
    assert store.load().jobs == [cron, run]


def test_saved_rows_are_not_shared_with_the_caller(store: Store) -> None:
    epoch = leading(store)
    mine = task("j1")
    store.save([mine], epoch)
    mine.state = TaskState.RUNNING
    given_out = store.task("j1.0")
    assert given_out is not None and given_out.state is TaskState.PENDING
    given_out.reason = "changed"
    assert store.task("j1.0") == task("j1")


@pytest.mark.parametrize(
    "row",
    [
        dataclasses.replace(task("j1"), id="j1.00"),
        dataclasses.replace(task("j1"), id="other.0"),
        job("j.1"),
        TokenRow("h", "n", "s", 0),
    ],
)
def test_row_that_breaks_the_keys_is_the_callers_mistake(store: Store, row: Row) -> None:
    epoch = leading(store)
    with pytest.raises(LocalMistake):
        store.save([FleetRow("a", "b"), row], epoch)
    assert store.load().fleet == {}


# ------------------------------------------------------------------ the snapshot


def test_snapshot_holds_open_work_only(store: Store) -> None:
    epoch = leading(store)
    store.save(
        [
            job("j1"),
            *(task("j1", 0), task("j1", 1, TaskState.SUCCEEDED), task("j1", 2, TaskState.RUNNING)),
            *(task("j1", 3, TaskState.FAILED), task("j1", 4, TaskState.SUCCEEDED)),
            job("j2", JobState.SUCCEEDED),
            task("j2", 0, TaskState.SUCCEEDED),
            job("j3"),
        ],
        epoch,
    )
    found = store.load()
    assert [j.id for j in found.jobs] == ["j1", "j3"]
    assert [t.id for t in found.tasks] == ["j1.0", "j1.2"]
    none = {"succeeded": 0, "failed": 0, "cancelled": 0}
    assert found.final_counts == {"j1": {"succeeded": 2, "failed": 1, "cancelled": 0}, "j3": none}


def test_snapshot_keeps_attempts_that_are_not_free_or_still_listed(store: Store) -> None:
    epoch = leading(store)
    free = AttemptState.FREE
    ended = {"ended_at": WALL_MS}
    store.save(
        [
            DocumentRow("pi-1", epoch, 5),
            attempt("j1.0", 1, AttemptState.REMOVED, until=3),
            attempt("j1.0", 2, free, until=0, **ended),
            attempt("j1.0", 3, free, until=5, **ended),
            attempt("j1.0", 4, free, until=6, **ended),
            attempt("j1.0", 5, free, until=1, device="pi-2", **ended),
            attempt("j1.0", 6, free, until=2, ended_at=WALL_MS - 1),
            attempt("j1.0", 7, free, until=2, ended_at=WALL_MS - RECENT_MS - 1),
            attempt("j1.0", 8, free, until=2, ended_at=0),
        ],
        epoch,
    )
    found = store.load()
    assert [a.attempt for a in found.attempts] == [1, 2, 4, 5]
    assert found.recent == [("j1.0", 6, "pi-1"), ("j1.0", 3, "pi-1")]


def test_idempotency_keys_are_loaded_oldest_first_whatever_the_clock_says(store: Store) -> None:
    """Clocks are set: what was stored a moment ago may seem to be of another decade."""
    epoch = leading(store)
    store.save(
        [
            job("j1", idempotency_key="new", created_at=WALL_MS),
            job("j2", JobState.FAILED, idempotency_key="older", created_at=WALL_MS - DECADE_MS),
            job("j3", idempotency_key="early", created_at=WALL_MS + DECADE_MS),
            job("j4", created_at=WALL_MS),
        ],
        epoch,
    )
    assert [k for k, _, _ in store.load().keys] == ["older", "new", "early"]


# ------------------------------------------------------------------ reading


def test_jobs_are_listed_newest_first_page_by_page(store: Store) -> None:
    epoch = leading(store)
    store.save([job(f"j{n:02d}", name="even" if n % 2 == 0 else "odd") for n in range(25)], epoch)
    seen: list[str] = []
    while page := store.jobs(after=seen[-1] if seen else "", limit=10):
        seen += [j.row.id for j in page]
    assert seen == [f"j{n:02d}" for n in reversed(range(25))]
    assert [j.row.id for j in store.jobs(name="odd", limit=2)] == ["j23", "j21"]
    assert store.jobs(state="failed") == []


def test_job_tells_how_many_tasks_are_in_each_state(store: Store) -> None:
    epoch = leading(store)
    store.save([job("j1"), task("j1", 0), task("j1", 1, TaskState.RUNNING), task("j1", 2)], epoch)
    found = store.job("j1")
    assert found is not None
    assert found.tasks == {**{s.value: 0 for s in TaskState}, "pending": 2, "running": 1}
    assert store.job("j2") is None


def test_tasks_are_listed_by_job_and_index_under_every_filter(store: Store) -> None:
    epoch = leading(store)
    states = list(TaskState)
    rows = [
        task(f"j{n // 40}", n % 40, states[n % 6], device=f"pi-{n % 3}" if n % 6 else "", reason=str(n))
        for n in range(120)
    ]
    store.save(rows, epoch)
    for wanted_job in ("", "j1", "j9"):
        for wanted_device in ("", "pi-2"):
            for state in ("", "pending", "running"):
                seen: list[TaskRow] = []
                while page := store.tasks(wanted_job, wanted_device, state, seen[-1].id if seen else "", 7):
                    seen += page
                assert seen == [
                    r
                    for r in rows
                    if (not wanted_job or r.job == wanted_job)
                    and (not wanted_device or r.device == wanted_device)
                    and (not state or r.state == state)
                ]


@pytest.mark.parametrize("id", ["", "j1", "j1.", "j1.x", "j1.-1", "j1.01", f"j1.{10**20}", "a.b.1", "."])
def test_unknown_or_odd_task_id_is_nothing(store: Store, id: str) -> None:
    store.save([task("j1")], leading(store))
    assert store.task(id) is None
    assert store.attempts(id) == [] and store.story(id) == []
    store.tasks(after=id)


def test_story_and_audit_tell_in_the_order_of_commits(store: Store) -> None:
    epoch = leading(store)
    store.save([audit("j1.0", "a"), audit("j1.1", "b")], epoch)
    store.save([audit("j1.0", "c", at=WALL_MS - 5)], epoch)
    assert [r.new for r in store.story("j1.0")] == ["a", "c"]
    first, *rest = store.audit(limit=2)
    assert [e.row.new for e in (first, *rest)] == ["a", "b"]
    assert [e.row.new for e in store.audit(after=rest[-1].number)] == ["c"]


def test_attempts_are_listed_by_number(store: Store) -> None:
    epoch = leading(store)
    store.save([attempt("j1.0", n) for n in (10, 2, 1)] + [attempt("j1.1", 1)], epoch)
    assert [a.attempt for a in store.attempts("j1.0")] == [1, 2, 10]


def test_reads_don_t_wait_for_the_writer_and_see_only_commits(store: Store) -> None:
    epoch = leading(store)
    store.save([task("j1")], epoch)
    found: list[TaskRow | None] = []
    reader = threading.Thread(target=lambda: found.append(store.task("j1.0")))
    reader.start()
    reader.join(10)
    assert found == [task("j1")]
    store.save([task("j1", state=TaskState.RUNNING)], epoch)
    assert store.tasks()[0].state is TaskState.RUNNING


def test_tokens_are_found_until_their_name_is_revoked(store: Store) -> None:
    store.add_token("h1", "up", "admin", WALL_MS)
    store.add_token("h2", "up", "admin", WALL_MS)
    store.add_token("h3", "ci", "read", WALL_MS)
    assert store.token("h1") == TokenRow("h1", "up", "admin", WALL_MS)
    assert store.revoke_tokens("up") == 2 and store.revoke_tokens("up") == 0
    assert store.token("h1") is None and store.token("h3") is not None


# ------------------------------------------------------------------ output


def piece(store: Store, offset: int = 0, limit: int = 1000) -> OutputPiece:
    return store.output("j1.0", 1, 1, offset, limit)


def chunk(offset: int, data: bytes, last: bool = False) -> OutputRow:
    return OutputRow("j1.0", 1, 1, offset, data, last)


def test_output_is_joined_and_read_on_from_where_it_ended(store: Store) -> None:
    epoch = leading(store)
    assert piece(store) == OutputPiece(b"", 0, False, 0)
    store.save([chunk(3, b"def"), chunk(0, b"abc"), chunk(6, b"", last=True)], epoch)
    assert piece(store, 0, 4) == OutputPiece(b"abcd", 4, False, 0)
    assert piece(store, 4) == OutputPiece(b"ef", 6, True, 0)
    assert piece(store, 6) == OutputPiece(b"", 6, True, 0)


def test_output_that_came_twice_or_under_other_cuts_is_read_once(store: Store) -> None:
    epoch = leading(store)
    store.save([chunk(0, b"abc"), chunk(3, b"de"), chunk(0, b"abc")], epoch)
    store.save([chunk(2, b"cdef"), chunk(0, b"a"), chunk(3, b"defg", last=True)], epoch)
    assert piece(store) == OutputPiece(b"abcdefg", 7, True, 0)
    assert store.counts().output_bytes == 3 + 4 + 4


def test_missing_output_is_shown_as_a_gap(store: Store) -> None:
    epoch = leading(store)
    store.save([chunk(0, b"abc"), chunk(10, b"xyz"), chunk(20, b"", last=True)], epoch)
    assert piece(store) == OutputPiece(b"abc", 3, False, 0)
    assert piece(store, 3) == OutputPiece(b"xyz", 13, False, 7)
    assert piece(store, 13) == OutputPiece(b"", 20, True, 7)


# ------------------------------------------------------------------ pruning


def prune_all(store: Store, before: int, tasks: int = 10**9, output_bytes: int = 10**12) -> Pruned:
    total = Pruned()
    for _ in range(1000):
        done = store.prune(before, tasks, output_bytes)
        for name in ("jobs", "tasks", "attempts", "audit", "output"):
            setattr(total, name, getattr(total, name) + getattr(done, name))
        if not done.more:
            return total
    raise AssertionError("pruning never ends")


def finished(id: str, end: int, tasks: int = 1) -> list[Row]:
    rows: list[Row] = [job(id, JobState.SUCCEEDED, changed_at=end), audit(id, at=end)]
    for n in range(tasks):
        rows += [task(id, n, TaskState.SUCCEEDED, attempt=1), audit(f"{id}.{n}", at=end)]
        rows += [attempt(f"{id}.{n}", 1, AttemptState.FREE, until=1, ended_at=end)]
        rows += [OutputRow(f"{id}.{n}", 1, 1, 0, b"12345", True)]
    return rows


def test_finished_jobs_go_with_all_that_is_theirs(store: Store) -> None:
    epoch = leading(store)
    store.save([*finished("j1", WALL_MS - 1, 2), *finished("j2", WALL_MS), job("j0"), task("j0")], epoch)
    assert prune_all(store, WALL_MS) == Pruned(1, 2, 2, 3, 2)
    assert [j.row.id for j in store.jobs()] == ["j2", "j0"]
    assert store.attempts("j1.0") == [] and store.story("j1.0") == [] == store.story("j1")
    assert [store.output(f"{j}.0", 1, 1, 0, 10).data for j in ("j1", "j2")] == [b"", b"12345"]
    counts = store.counts()
    assert (counts.tasks["succeeded"], counts.jobs["succeeded"], counts.output_bytes) == (1, 1, 5)


def test_oldest_finished_jobs_go_while_there_is_too_much(store: Store) -> None:
    epoch = leading(store)
    for n in range(6):
        store.save(finished(f"j{n}", WALL_MS + (n * 7) % 6), epoch)
    assert prune_all(store, 0, tasks=4).jobs == 2
    assert [j.row.id for j in store.jobs()] == ["j5", "j4", "j3", "j2"]
    assert prune_all(store, 0, output_bytes=5).jobs == 3
    assert [j.row.id for j in store.jobs()] == ["j5"]


def test_large_job_goes_in_pieces(store: Store) -> None:
    epoch = leading(store)
    store.save(finished("j1", WALL_MS - 1, 1300), epoch)
    assert prune_all(store, WALL_MS) == Pruned(1, 1300, 1300, 1301, 1300)
    assert sum(store.counts().tasks.values()) == 0 and store.job("j1") is None


def test_service_that_restarts_for_ever_keeps_only_what_is_recent_or_needed(store: Store) -> None:
    epoch = leading(store)
    old = {"ended_at": WALL_MS - 10, "until": 2}
    store.save(
        [
            *(job("j1"), task("j1", attempt=9), DocumentRow("pi-1", epoch, 5)),
            attempt("j1.0", 1, AttemptState.FREE, **old),
            attempt("j1.0", 2, AttemptState.FREE, ended_at=WALL_MS - 10, until=6),
            attempt("j1.0", 3, AttemptState.REMOVED, **old),
            attempt("j1.0", 4, AttemptState.FREE, ended_at=WALL_MS, until=2),
            attempt("j1.0", 9, AttemptState.FREE, **old),
            *(OutputRow("j1.0", n, 1, 0, b"x", False) for n in (1, 2, 9)),
            *(audit("j1.0", "old", WALL_MS - 10), audit("j1.0", "new")),
        ],
        epoch,
    )
    assert prune_all(store, WALL_MS) == Pruned(0, 0, 1, 1, 1)
    assert [a.attempt for a in store.attempts("j1.0")] == [2, 3, 4, 9]
    assert [r.new for r in store.story("j1.0")] == ["new"]


def test_audit_numbers_never_come_again(store: Store) -> None:
    epoch = leading(store)
    store.save([audit("a", at=WALL_MS - 1)], epoch)
    before = store.audit()[-1].number
    prune_all(store, WALL_MS)
    store.save([audit("b")], epoch)
    assert [e.row.object for e in store.audit(after=before)] == ["b"]


def test_memory_goes_back_to_a_snapshot() -> None:
    store = MemoryStore()
    epoch = leading(store)
    store.save([task("j1"), audit("j1.0")], epoch)
    then, seen = store.snapshot(), store.load()
    for _ in range(2):
        store.save([task("j1", state=TaskState.RUNNING), audit("j1.0"), chunk(0, b"x")], epoch)
        assert store.task("j1.0") != task("j1")
        store.restore(then)
        assert store.task("j1.0") == task("j1") and store.load() == seen and len(store.audit()) == 1
