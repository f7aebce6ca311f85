"""A book of one history: what happened, told in order, with the audit rows that belong to it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from controller.core.records import (
    AttemptRow,
    AttemptState,
    AuditRow,
    DeviceRow,
    JobRow,
    JobRules,
    JobState,
    TaskRow,
    TaskSpec,
)
from protocol import topics
from protocol.codec import encode
from protocol.limits import hold_ms
from protocol.messages import (
    Heartbeat,
    Held,
)
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind, TaskState
from sim import observations as seen

ROOM = Resources(4_000, 4_096, 10_000, 0)
NEEDS = Resources(1_000, 100, 0, 0)
LEASE_MS = 30_000
HOLD_MS = hold_ms(LEASE_MS)
CONTROLLER = "_controller-c1"


class Book:
    """Writes a history. Times are ms; a commit has its audit rows unless it is told bare."""

    def __init__(self):
        self.now = 1_000
        self.told = []
        self.rows = {}

    def saw(self, kind, *fields, **more):
        self.told.append(deepcopy(kind(self.now, *fields, **more)))

    def after(self, ms):
        self.now += ms

    # ------------------------------------------------------------- rows

    def commit(self, *rows, epoch=7):
        for row in rows:
            self.rows[type(row), getattr(row, "id", None) or getattr(row, "device", None)] = row
        self.saw(seen.Committed, epoch, tuple(rows))

    def device(self, name="d0", room=ROOM, **facts):
        row = DeviceRow(
            name, 1, "b", "i", "", 1, "generic-linux", room, {}, ("process",), "strong", 10_000, "1",
            False, False, False, False, 0, 0, 0,
        )  # fmt: skip
        self.commit(replace(row, **facts), audit("device", name, "", "known"))
        return row

    def job(
        self, name="j1", count=1, guarantee=Guarantee.AT_MOST_ONE, state=JobState.OPEN,
        kind=JobKind.BATCH, priority=0, rules=None, **spec,
    ):  # fmt: skip
        """`spec`: of its tasks, `rules`: of the job, where they are not the plain ones."""
        wanted = replace(TaskSpec("process", ("true",), {}, NEEDS), **spec)
        return JobRow(
            name, name, kind, count, priority, guarantee, 3, 0, LEASE_MS, wanted, state, "run", 0, 0,
            "alice", rules=rules or JobRules(),
        )  # fmt: skip

    def submit(self, name="j1", count=1, pins=(), **more):
        tasks = [task(f"{name}.{i}", pin=pins[i] if pins else "") for i in range(count)]
        self.commit(self.job(name, count, **more), audit("job", name, "", "open"), *tasks)
        self.saw(seen.JobAccepted, name, count)

    def assign(self, name="j1.0", device="d0", number=1, given="", pin=""):
        self.commit(*self.assigned(name, device, number, given, pin))

    @staticmethod
    def assigned(name="j1.0", device="d0", number=1, given="", pin=""):
        """The rows of one assignment, for commits of several."""
        return (
            replace(attempt(name, device, number), given=given),
            task(name, TaskState.ASSIGNED, device, number, pin=pin),
            audit("task", name, "pending", "assigned"),
        )

    def runs(self, name="j1.0", device="d0", number=1):
        self.commit(
            attempt(name, device, number, AttemptState.RUNNING),
            task(name, TaskState.RUNNING, device, number),
            audit("task", name, "assigned", "running", actor=device),
        )

    def succeed(self, name="j1.0", device="d0", number=1):
        job = name.partition(".")[0]
        self.commit(
            attempt(name, device, number, AttemptState.FREE, exit_code=0),
            task(name, TaskState.SUCCEEDED, device, number, exit_code=0),
            audit("task", name, "running", "succeeded", actor=device),
            self.job(job, state=JobState.SUCCEEDED),
            audit("job", job, "open", "succeeded"),
        )

    def pending(self, name="j1.0", device="d0", number=1, was="assigned"):
        self.commit(
            attempt(name, device, number, AttemptState.FREE),
            task(name, TaskState.PENDING, "", number),
            audit("task", name, was, "pending"),
        )

    # ------------------------------------------------------------- runs, messages

    def began(self, name="j1.0", device="d0", number=1, only_one=True, weak=False):
        self.saw(seen.RunBegan, device, name, number, only_one, LEASE_MS, weak)

    def ended(self, name="j1.0", device="d0", number=1):
        self.saw(seen.RunEnded, device, name, number)

    def heard(self, device, message, client=CONTROLLER, received=True):
        topic = topics.build("fleet", device, message.channel)
        self.saw(seen.Delivered, client, received, topic, encode(message))

    def beat(self, device="d0", session=5, number=0, epoch=0):
        self.heard(device, Heartbeat(session, 1, Held(epoch, number, 1, 1, 0, 0)))

    def one_run(self, end=True):
        """A job of one task that is placed, starts and perhaps succeeds."""
        self.device()
        self.submit()
        self.assign()
        self.began()
        self.runs()
        if end:
            self.after(1_000)
            self.ended()
            self.succeed()


def task(name, state=TaskState.PENDING, device="", number=0, **more):
    job, _, index = name.partition(".")
    desired, exit_code = more.pop("desired", "run"), more.pop("exit_code", None)
    pin = more.pop("pin", "")
    return TaskRow(name, job, int(index), state, desired, device, number, exit_code, "", 0, 0, 0, pin)


def attempt(name, device, number, state=AttemptState.ASSIGNED, exit_code=None):
    return AttemptRow(name, number, device, state, 1, 0, 0, exit_code, 0, "", 0, 0, 0)


def audit(what, of, old, new, actor="controller"):
    return AuditRow(0, actor, what, of, old, new)
