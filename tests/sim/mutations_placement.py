"""Clauses of placement, each seen by a checker of its own. See `switches`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from switches import Mutation, Swap, does_nothing, instead

import controller.core.controller as controller_module
import controller.core.placement as placement_module
import controller.core.preemption as preemption_module
from controller.core.condition import Condition
from controller.core.cron import Cron
from controller.core.daemons import Daemons
from controller.core.dependencies import Dependencies
from controller.core.facts import Facts
from controller.core.fleet import Fleet
from controller.core.ledger import Job, Ledger
from controller.core.placement import Placement
from controller.core.preemption import Preemption
from controller.core.requests import Requests
from controller.scheduler.pick import NO_DEVICE
from controller.scheduler.view import View


def _in_part(self, job, tasks, picker, grouping, now_ms):
    placed = 0
    for task in tasks:
        row = self._pick(task, picker, grouping)
        if row == NO_DEVICE:
            self._put_back(tasks[placed:])
            break
        self.tasks.assign(task, row, picker.share(row), now_ms)
        placed += 1
    return placed


def _nothing_held(ledger, job):
    return job.row.rules.gang and not job.placed


def _without_pin(self, task, picker, grouping):
    return picker.pick((), NO_DEVICE, grouping)


def _with_rules(**changed):
    def make(original):
        def method(self, holder, *rest):
            row = getattr(holder, "row", holder)
            rules, row.rules = row.rules, replace(row.rules, **changed)
            try:
                return original(self, holder, *rest)
            finally:
                row.rules = rules

        return method

    return make


def _nothing_repels(original):
    def bearings(self, tolerations):
        allowed, penalty, evicts = original(self, tolerations)
        return np.ones_like(allowed), penalty, evicts

    return bearings


def _all_fit(self):
    return np.ones(self.fleet.view.count, np.bool_)


def _offered_once(original):
    def offer(self, row, shares):
        if not self.view.offered[0][row]:
            original(self, row, shares)

    return offer


def _all_endable(self, row):
    return list(self.ledger.by_device[row].values())


def _counts_daemons(original):
    def count_priority(self, attempt, by):
        daemon, Job.daemon = Job.daemon, property(lambda job: False)
        try:
            original(self, attempt, by)
        finally:
            Job.daemon = daemon

    return count_priority


PLACEMENT = (
    Mutation(
        "P1 a gang in part",
        "that a gang is placed whole or not at all",
        "gang_that_fits_in_part",
        "P1",
        (instead(Placement, "_place_gang", _in_part),),
    ),
    Mutation(
        "P1 a promise places one of a gang",
        "that a gang which holds nothing ends its promises",
        "gang_that_was_promised_room",
        "P1",
        (Swap(Placement, "_place_nominees", _with_rules(gang=False)),),
    ),
    Mutation(
        "P1 a part while the rest leaves",
        "that of a gang nothing stands that is on its way out",
        "room_for_a_part_while_the_rest_leaves",
        "P1",
        (instead(placement_module, "together", _nothing_held),),
    ),
    Mutation(
        "P2 groups are not looked at",
        "`distinct_device` and its like",
        "each_on_a_device_of_its_own",
        "P2",
        (instead(Requests, "grouping", lambda self, job, candidates=None: None),),
    ),
    Mutation(
        "P3 a daemon's task goes anywhere",
        "that a daemon's task has one device",
        "daemon_on_each",
        "P3",
        (
            instead(Job, "daemon", property(lambda self: False)),
            instead(Placement, "_pick", _without_pin),
        ),
    ),
    Mutation(
        "P3 only devices of today",
        "that a daemon follows devices that come",
        "daemon_on_each",
        "I11",
        (does_nothing(Daemons, "follow"),),
    ),
    Mutation(
        "P4 nobody waits for others",
        "`depends_on`",
        "one_after_the_other",
        "P4",
        (does_nothing(Dependencies, "enter"),),
    ),
    Mutation(
        "P5 as many as fit",
        "`parallel_max`",
        "two_at_a_time",
        "P5",
        (Swap(Placement, "_place", _with_rules(parallel_max=0)),),
    ),
    Mutation(
        "P6 any higher priority sends away",
        "the difference of ten",
        "nearly_as_urgent",
        "P6",
        (instead(preemption_module, "DELTA", 1),),
    ),
    Mutation(
        "P6 daemons give way",
        "that daemons are never preempted",
        "urgent_beside_a_daemon",
        "P6",
        (instead(Preemption, "_endable", _all_endable), Swap(Ledger, "_count_priority", _counts_daemons)),
    ),
    Mutation(
        "P6 nobody gives way",
        "preemption",
        "more_urgent",
        "I11",
        (instead(Preemption, "_may_preempt", lambda self, job: False),),
    ),
    Mutation(
        "P7 taints keep nobody away",
        "`no_place` and `evict` for what is new",
        "tainted_device",
        "P7",
        (Swap(Facts, "bearings", _nothing_repels),),
    ),
    Mutation(
        "P7 heat keeps nobody away",
        "the hard guards",
        "hot_device",
        "P7",
        (instead(Condition, "guarded", _all_fit),),
    ),
    Mutation(
        "P7 everything is believed",
        "that nonsense brings a quarantine",
        "device_of_nonsense",
        "P7",
        (instead(controller_module, "doubt_of", lambda message: ""),),
    ),
    Mutation(
        "P8 runs overlap",
        "that a cron job waits for its last run",
        "every_minute",
        "P8",
        (Swap(Cron, "_begin", _with_rules(overlap=True)),),
    ),
    Mutation(
        "I5 accelerators are only counted together",
        "what each accelerator has left",
        "accelerators_shared",
        "I5",
        (does_nothing(View, "take_accelerators"),),
    ),
    Mutation(
        "I5 a device is what it was at first",
        "that a new description counts",
        "device_that_shrinks",
        "I5",
        (Swap(Fleet, "_offer", _offered_once),),
    ),
    Mutation(
        "I11 nobody hears of room",
        "that what waits is looked at when something ends",
        "room_that_comes_back",
        "I11",
        (does_nothing(Placement, "notice_room"),),
    ),
)
