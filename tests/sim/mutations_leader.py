"""Clauses of leaders and their database, of results, storms and the faults of tasks. See `switches`."""

from __future__ import annotations

from switches import Mutation, Swap, does_nothing, instead

import controller.core.operators as operators_module
import controller.core.tasks as tasks_module
import controller.store.memory as memory_module
import sim.controllers as controllers_module
from broker.acl import FleetAcl
from controller.core.broker_link import BrokerLink
from controller.core.commands import Commands
from controller.core.controller import Controller
from controller.core.failover import Failover
from controller.core.holds import Holds
from controller.core.jobs import Jobs
from controller.core.ledger import Ledger
from controller.core.output import Output
from controller.core.records import LeaderRow
from controller.core.tasks import Tasks
from controller.store.memory import MemoryStore
from edge_agent.core.agent import Agent
from sim.controllers import ControllerProcess

# ------------------------------------------------------------- leadership and the database


def _never_waits(original):
    def begin(self, snapshot, beginning, restored, now_ms):
        beginning.wait = beginning.restored = False
        snapshot.fleet.pop("waiting", None)
        original(self, snapshot, beginning, restored, now_ms)

    return begin


def _believes_stale_rows(original):
    def beginning(found, *rest):
        found.stale = False
        return original(found, *rest)

    return beginning


def _hears_again_at_once(self, now_ms):
    self.deaf = False


def _wait_not_committed(original):
    return lambda self, name, value: None if name == "waiting" else original(self, name, value)


def _saves_anything(self, rows, epoch):
    for row in rows:
        memory_module._PUT[type(row)](self.tables, memory_module.clone(row))


def _renews_anything(self, epoch, wall_ms):
    leader = self.tables.leader
    if leader.epoch == epoch:
        self.tables.leader = LeaderRow(epoch, leader.holder, wall_ms)


def _says_before_it_saves(original):
    def save(self, save, behind):
        self._follow(behind)
        if self.core is not None:
            original(self, save, [])

    return save


def _hears_any_epoch(original):
    def epoch_holds(self, epoch):
        if epoch > self.memory.epoch:
            self.memory.epoch, self.memory.changed = epoch, True
        return True

    return epoch_holds


LEADERS = (
    Mutation(
        "L6 speaks for ever",
        "the end of a leader's voice",
        "two_leaders",
        "I1",
        (instead(Controller, "_leading", lambda self, now_ms: True),),
        "devices don't hear the new leader, or they would drop the old one's epoch",
    ),
    Mutation(
        "L6 devices take lower epochs",
        "the memory of the highest epoch",
        "two_leaders_heard",
        "I1",
        (
            instead(Controller, "_leading", lambda self, now_ms: True),
            Swap(Agent, "_epoch_holds", _hears_any_epoch),
        ),
        "the leader's own silence after its time; both are off",
    ),
    Mutation(
        "L6 commits not fenced",
        "the condition on the epoch row",
        "two_leaders_place",
        "I4",
        (
            instead(Controller, "_leading", lambda self, now_ms: True),
            instead(MemoryStore, "save", _saves_anything),
            instead(MemoryStore, "renew", _renews_anything),
        ),
        "the leader's own silence after its time; both are off",
    ),
    Mutation(
        "L6 no wait after a restore",
        "the hold without placements",
        "backup_marked",
        "I1",
        (Swap(Controller, "_begin", _never_waits),),
    ),
    Mutation(
        "L6 a stale row is believed",
        "the wait where the leader's row was not renewed for 24 s",
        "backup_with_a_stale_row",
        "L6",
        (Swap(controllers_module, "beginning", _believes_stale_rows),),
    ),
    Mutation(
        "L6 the wait is not committed",
        "that a take-over within it waits anew",
        "backup_marked_and_take_over",
        "I1",
        (Swap(Ledger, "fact", _wait_not_committed),),
    ),
    Mutation(
        "L6 epochs count from the row",
        "unix seconds in a new epoch",
        "epoch_used_twice",
        "I11",
        (instead(memory_module, "next_epoch", lambda stored, wall_ms, above: max(stored, above) + 1),),
    ),
    Mutation(
        "barrier effects before the save",
        "the barrier: what follows a save happens only after it",
        "refused_save",
        "I2",
        (Swap(ControllerProcess, "_save", _says_before_it_saves),),
    ),
)

# ------------------------------------------------------------- results, storms, faults of tasks


def _current_or_not(self, attempt):
    task = self.ledger.tasks.get(attempt.row.task)
    return task if task is not None and task.row.state in ("assigned", "running") else None


def _any_chunk(original):
    def on_chunk(self, row, chunk):
        same = int(self.fleet.outbox[row]) == chunk.outbox
        if not same or chunk.seq > int(self.fleet.stored[row]):
            self.fleet.note_stored(row, chunk.outbox, chunk.seq - 1)
        original(self, row, chunk)

    return on_chunk


def _rest_of(chunk):
    return (
        chunk.seq, chunk.task, chunk.attempt, chunk.stream, chunk.offset, chunk.data, chunk.last,
    )  # fmt: skip


def _counts_from_one(original):
    def on_chunk(self, row, chunk):
        original(self, row, type(chunk)(chunk.outbox, 1, *_rest_of(chunk)))

    return on_chunk


def _lost_is_failed(original):
    return lambda self, task, reason, now_ms: self.own_failure(task, None, reason, now_ms)


def _never_final(original):
    def own_failure(self, task, exit_code, reason, now_ms):
        most, task.job.row.max_attempts = task.job.row.max_attempts, 0
        original(self, task, exit_code, reason, now_ms)
        task.job.row.max_attempts = most

    return own_failure


def _cancels_wait_too(original):
    def on_due(self, key, now_ms):
        attempt = self.ledger.attempts.get(key)
        if attempt is not None and self._held_back(attempt.device, now_ms):
            self.ledger.deadlines.set("hold", key, now_ms + 500)
        else:
            original(self, key, now_ms)

    return on_due


OTHERS = (
    Mutation(
        "C1 the asker waits for ever",
        "that it gives up after `ttl_ms`",
        "ping_to_the_dead",
        "C1",
        (does_nothing(Commands, "on_due"),),
    ),
    Mutation(
        "C2 stale results count",
        "the comparison with the present attempt",
        "late_result",
        "I3",
        (instead(Holds, "_task_of", _current_or_not),),
    ),
    Mutation(
        "C3 gaps are acknowledged",
        "that only a contiguous prefix is named as stored",
        "output_chunk_lost",
        "I8",
        (Swap(Output, "on_chunk", _any_chunk),),
    ),
    Mutation(
        "C3 base not looked at",
        "that a controller without memory starts at `base`",
        "output_after_a_restart",
        "I8",
        (Swap(Output, "on_chunk", _counts_from_one),),
    ),
    Mutation(
        "C4 no freeze",
        "the freeze of failover when a site falls silent",
        "silent_site",
        "C4",
        (does_nothing(Failover, "_storm", False),),
    ),
    Mutation(
        "C4 the deaf move",
        "the canary",
        "deaf_controller",
        "C4",
        (does_nothing(BrokerLink, "send_canary"),),
    ),
    Mutation(
        "C4 silence counts as soon as the canary is back",
        "the 30 s in which devices may be heard again",
        "deaf_controller",
        "C4",
        (instead(Failover, "hear_again", _hears_again_at_once),),
    ),
    Mutation(
        "C4 a freeze never ends",
        "its end after two holds",
        "dead_site",
        "I11",
        (does_nothing(Failover, "on_freeze_due"),),
    ),
    Mutation(
        "C4 a restart ends a freeze",
        "that a freeze is committed",
        "silent_site_and_restart",
        "C4",
        (does_nothing(Failover, "recall"),),
    ),
    Mutation(
        "C4 cancels wait for the freeze",
        "that cancels free by hold all the same",
        "cancel_in_a_freeze",
        "I7",
        (Swap(Failover, "on_due", _cancels_wait_too),),
    ),
    Mutation(
        "C4 drains without a cap",
        "the budget of voluntary moves",
        "great_drain",
        "C4",
        (instead(operators_module, "MOVES_AT_ONCE", 1_000),),
    ),
    Mutation(
        "C5 a lost lease counts",
        "that only a task's own failures count",
        "unlucky_task",
        "C5",
        (Swap(Tasks, "lost", _lost_is_failed),),
    ),
    Mutation(
        "C5 no bound on attempts",
        "`max_attempts`",
        "failing_task",
        "C5",
        (Swap(Tasks, "own_failure", _never_final),),
    ),
    Mutation(
        "C5 no pause before a retry",
        "the wait that doubles",
        "failing_service",
        "C5",
        (does_nothing(tasks_module, "retry_ms", 0),),
    ),
    Mutation(
        "C5 no time to live",
        "`ttl_ms`",
        "expiring_task",
        "C5",
        (does_nothing(Jobs, "on_expired"),),
    ),
    Mutation(
        "I10 no audit",
        "the row of each state change",
        "audited",
        "I10",
        (does_nothing(Ledger, "audit"),),
    ),
    Mutation(
        "I13 no access rules",
        "the broker's access rules",
        "rogue",
        "I13",
        (does_nothing(FleetAcl, "__call__", True),),
    ),
)

LEADER = (*LEADERS, *OTHERS)
