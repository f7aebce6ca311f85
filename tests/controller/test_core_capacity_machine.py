"""Capacity under any interleaving: a state machine drives one core, and sums are made anew after each step.

What is checked after each step: real reservations never exceed what a device offered when they
were made (I5), the scheduler's columns are exactly offer - reservations - promised room, every
task is in one state, nothing that is promised outlives its task, a daemon is once per device.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.core.events import DeviceDecision
from controller.core.records import AttemptState, Constraint, Dependency, JobRules
from protocol.resources import NAMES, Resources
from protocol.tasks import FINAL_TASK, Guarantee, JobKind, RunState, TaskState
from tests.controller.stages import Stage

DEVICES = 4
ROOMS = [
    Resources(2_000, 2_048, 0, 0),
    Resources(4_000, 4_096, 0, 1_000),
    Resources(4_000, 1_024, 0, 2_000),
    Resources(1_000, 512, 0, 0, 0, 0, 3),
]
NEEDS = [
    Resources(500, 100),
    Resources(1_000, 200),
    Resources(2_000, 500),
    Resources(4_000, 100),
    Resources(500, 100, 0, 500),
    Resources(500, 100, 0, 1_000),
]
DECISIONS = ["cordon", "uncordon", "drain", "remove", "taint x:evict", "taint x:no_place"]
devices = st.integers(1, DEVICES).map(lambda n: f"d{n}")


class Machine(RuleBasedStateMachine):
    """One desk, four devices, everything that may happen to either."""

    make_desk = None
    counted: dict[str, int]

    def __init__(self):
        super().__init__()
        self.desk = type(self).make_desk()
        self.stage = Stage(self.desk)
        self.jobs, self.inventories, self.sessions = [], {"d1": 1}, {"d1": 1}
        self.fits = {}
        for i in range(2, DEVICES + 1):
            self._join(f"d{i}", ROOMS[i % len(ROOMS)])

    # ------------------------------------------------------------- people

    @rule(
        needs=st.sampled_from(NEEDS), count=st.integers(1, 4), priority=st.sampled_from([0, 0, 10, 25, 60]),
        kind=st.sampled_from([JobKind.BATCH, JobKind.BATCH, JobKind.SERVICE, JobKind.DAEMON]),
        guarantee=st.sampled_from(list(Guarantee)),
        shape=st.sampled_from(["", "", "gang", "distinct", "after", "two"]),
    )  # fmt: skip
    def submit(self, needs, count, priority, kind, guarantee, shape):
        job = f"j{len(self.jobs)}"
        more = {
            "count": 0 if kind is JobKind.DAEMON else count,
            "max_attempts": 0 if kind is JobKind.DAEMON else 3,
        }
        if shape == "distinct":
            more["constraints"] = (Constraint("", "distinct_device", ""),)
        elif shape == "after" and self.jobs:
            more["rules"] = JobRules(depends_on=(Dependency(self.jobs[-1], "ended"),))
            more["closed"] = {self.jobs[-1]: self.desk.store.job(self.jobs[-1]).row.state.value}
        elif kind is not JobKind.DAEMON and shape in ("gang", "two"):
            more["rules"] = JobRules(gang=True) if shape == "gang" else JobRules(parallel_max=2)
        self.desk.placed(job=job, needs=needs, priority=priority, kind=kind, guarantee=guarantee, **more)
        self.jobs.append(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data):
        self.desk.cancel(data.draw(st.sampled_from(self.jobs)))

    @rule(device=devices, verb=st.sampled_from(DECISIONS))
    def decide(self, device, verb):
        word, _, taint = verb.partition(" ")
        self.desk.feed(DeviceDecision(8, device, word, "tester", taint))
        if word == "remove":
            self.stage.numbers.pop(device, None)
        elif word in ("cordon", "taint"):  # most of the time devices are open
            self.desk.after(600)
            self.beats()
            undo = "uncordon" if word == "cordon" else "untaint"
            self.desk.feed(DeviceDecision(8, device, undo, "tester", taint))

    # ------------------------------------------------------------- devices

    @rule(device=devices, room=st.sampled_from(ROOMS))
    def join(self, device, room):
        """A device joins, or comes back after a reboot with nothing running and perhaps another size."""
        self._join(device, room)

    def _join(self, device, room):
        number = self.sessions[device] = self.sessions.get(device, 0) + 1
        self.desk.decide(device, "add")
        self.desk.decide(device, "uncordon")
        self.stage.join(device, number=number << 24, room=room)
        self.inventories[device] = 1

    @precondition(lambda self: self.stage.numbers)
    @rule(data=st.data(), room=st.sampled_from(ROOMS))
    def describe(self, data, room):
        device = data.draw(st.sampled_from(sorted(self.stage.numbers)))
        self.inventories[device] += 1
        self.desk.inventory(device, self.stage.numbers[device], self.inventories[device], room=room)

    @rule(which=st.sampled_from([(1, 2, 3, 4), (1, 2, 3, 4), (1,), (2, 3)]))
    def run(self, which):
        """Some devices stop what left their documents, and run the rest."""
        for device in sorted(self.stage.numbers):
            if int(device[1:]) in which:
                self.report(device)
        self.desk.after(50)

    @precondition(lambda self: self.stage.numbers)
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1]))
    def end_one(self, data, code):
        device = data.draw(st.sampled_from(sorted(self.stage.numbers)))
        listed = [a.row for a in self.stage.listed(device)]
        if listed:
            ended = data.draw(st.sampled_from(listed))
            self.report(device, ended, code)

    def report(self, device, ended=None, code=0):
        stage, desk = self.stage, self.desk
        stage.beat(device)
        stage.counts[device] += 1
        entries = [(a.row.task, a.row.attempt, RunState.RUNNING) for a in stage.listed(device)]
        if ended is not None:
            entries.remove((ended.task, ended.attempt, RunState.RUNNING))
            entries.append((ended.task, ended.attempt, RunState.ENDED, code))
        desk.runs(device, stage.numbers[device], stage.counts[device], *entries)
        stage.beat(device)

    # ------------------------------------------------------------- time and crashes

    @rule(ms=st.sampled_from([5, 1_000, 60_000, 310_000]), silent=st.sampled_from([(), (), (), ("d1", "d2")]))
    def wait(self, ms, silent):
        """Time passes; who is silent is lost."""
        until = self.desk.now + ms
        while self.desk.now < until:
            self.desk.after(min(9_000, until - self.desk.now))
            self.beats(silent)

    def beats(self, silent=()):
        for device in sorted(self.stage.numbers):
            if device not in silent:
                self.stage.beat(device)
        self.desk.after(20)

    @rule(speaks=st.booleans())
    def take_over(self, speaks):
        self._count()
        self.desk.take_over()
        if speaks:
            self.beats()
            self.run((1, 2, 3, 4))

    def _count(self):
        for name, number in self.desk.core.ledger.counters.items():
            type(self).counted[name] = type(self).counted.get(name, 0) + number

    # ------------------------------------------------------------- what must hold

    @invariant()
    def columns_are_the_sums(self):
        ledger = self.desk.core.ledger
        view, promises = ledger.fleet.view, self.desk.core.nominations.by_task.values()
        for row in range(ledger.fleet.count):
            shares = {id: a.share for id, a in ledger.by_device[row].items()}
            promised = [n.share for n in promises if n.row == row]
            for i in range(len(NAMES)):
                offered, real = int(view.offered[i][row]), sum(s.resources[i] for s in shares.values())
                aside = sum(s.resources[i] for s in promised)
                assert int(view.free[i][row]) == offered - real - aside, (row, NAMES[i])
            assert all(n.aside for n in promises)
            self._never_more_than_fits(row, shares, view)

    def _never_more_than_fits(self, row, shares, view):
        """Beyond its offer a device may only be because it shrank: then nothing is added."""
        for i in range(len(NAMES)):
            users = {id: s.resources[i] for id, s in shares.items() if s.resources[i]}
            ids = frozenset(users)
            if sum(users.values()) > int(view.offered[i][row]):
                known = self.fits.get((row, i), ids)
                assert ids <= known, f"added to row {row} beyond its {NAMES[i]}"
            self.fits[row, i] = ids

    @invariant()
    def accelerators_hold_no_more_than_they_have(self):
        ledger = self.desk.core.ledger
        for row, attempts in enumerate(ledger.by_device):
            record, given = ledger.fleet.records[row], {}
            for attempt in attempts.values():
                for place, milli in attempt.share.accelerators:
                    given[place] = given.get(place, 0) + milli
            if record.capacity.gpu_milli >= sum(a.share.resources.gpu_milli for a in attempts.values()):
                assert all(milli <= 1_000 for milli in given.values()), (row, given)

    @invariant()
    def counts_agree(self):
        core, ledger = self.desk.core, self.desk.core.ledger
        kept = [a for a in ledger.attempts.values() if not a.job.daemon]
        assert ledger.priorities == {
            p: sum(a.job.row.priority == p for a in kept) for p in sorted({a.job.row.priority for a in kept})
        }
        for job in ledger.jobs.values():
            tasks = ledger.tasks_of(job)
            assert job.left == len(tasks) and len(job.placed) == sum(
                a.job is job for a in ledger.attempts.values()
            )
            assert set(job.waits) <= set(ledger.jobs)
            live = [t for t in tasks if t.row.state in (TaskState.ASSIGNED, TaskState.RUNNING)]
            for task in live:
                attempt = core.tasks.attempt_of(task)
                assert attempt is not None and ledger.fleet.names[attempt.device] == task.row.device

    @invariant()
    def a_daemon_is_once_where_it_matches(self):
        ledger = self.desk.core.ledger
        for job in ledger.jobs.values():
            if job.daemon:
                pins = [t.row.pin for t in ledger.tasks_of(job)]
                assert len(pins) == len(set(pins))
                for task in ledger.tasks_of(job):
                    assert task.row.device in ("", task.row.pin)
                known = {
                    r.device for r in ledger.fleet.records
                    if not r.removed and "process" in r.runtimes and not r.taints
                }  # fmt: skip
                if job.standing:
                    assert known <= set(pins), "every device that matches has its task"

    @invariant()
    def no_daemon_is_preempted(self):
        for attempt in self.desk.core.ledger.attempts.values():
            if attempt.job.daemon and attempt.row.state is AttemptState.REMOVED:
                assert not attempt.row.reason.startswith("preempted")

    @invariant()
    def promises_are_of_pending_tasks_or_end_with_the_next_round(self):
        core = self.desk.core
        for id, nomination in core.nominations.by_task.items():
            assert core.ledger.deadlines.due_of("nomination", id) is not None
            assert nomination.task.row.id == id
        if not core.nominations.by_task:
            assert core.ledger.fleet.aside == {}

    def teardown(self):
        """I2: what was accepted is somewhere, in the store as in memory."""
        self._count()
        open_tasks = {
            t.id for j in self.jobs for t in self.desk.store.tasks(j, limit=1000) if t.state not in FINAL_TASK
        }
        assert open_tasks == set(self.desk.core.ledger.tasks)


def test_capacity_is_never_exceeded_whatever_happens_in_whatever_order(desk_kit):
    Machine.make_desk, Machine.counted = desk_kit.Desk, {}
    case = Machine.TestCase
    case.settings = settings(
        max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    names = ("placements", "preempted", "nominations")
    for _ in range(8):  # three in ten of these runs happen to preempt nobody
        case("runTest").runTest()
        if all(map(Machine.counted.get, names)):
            break
    for name in names:
        assert Machine.counted.get(name), f"no {name} in all of that: this shows nothing"
