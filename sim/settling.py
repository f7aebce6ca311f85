"""Settling: whether a fleet is as it should be, and stays so, once nothing disturbs it.

Rule of this file: committed tasks are compared with live runs; whether a task may wait is found
out in `runnable`. A service that ends by itself, or a batch
that fails, goes on changing for ever and is no move; what ends well or never is `steady`.
"""

from __future__ import annotations

from collections.abc import Collection

from protocol import topics
from protocol.messages import Status
from protocol.tasks import JobKind, TaskState
from sim.checking.levelling import movable
from sim.checking.placement import DELTA
from sim.ears import understand
from sim.runnable import Waits, in_part, missing_daemons, threats
from sim.world import FLEET, World


def unsettled(world: World) -> str:
    """What is not as it should be now (I11); empty when all is well."""
    if world.leader is None:
        return "nobody leads"
    # A controller doesn't miss a device at once, and the wait before a reconnect may be longer.
    connected = {line.place for line in world.network.lines.values() if line.near_open and line.far_open}
    for name, device in world.devices.items():
        if name not in connected or not world.ready(name):
            return f"{name} is not back"
        if device.guard.orphans:
            return f"{name} has not swept what outlived its guard"
    if missing := missing_daemons(world.checkers.seen):
        return missing
    return world.checkers.settling.unsettled(Waits(world).rightly)


CANCELLED = "cancelled"
Assigned = dict[str, tuple[str, int]]
"""Task -> (device, attempt)."""


def accused(world: World, cloned: Collection[str]) -> tuple[str, ...]:
    """Those of the cloned that a clone, though it is gone, still speaks against.

    Their next birth brings a quarantine, as it must (S4): on record is the clone, before it this very
    machine. Its birth since then went while no controller was connected, the broker retains nothing for
    wildcards, and no heartbeat says who speaks. Or the clone's will is retained in a higher session: who
    was removed and added since began anew below it, and whoever leads next takes it for lost.
    """
    rows = world.checkers.devices
    past = {d for d in cloned if rows[d].previous_identity.startswith(f"{world.devices[d].boot_id}/")}
    said = {p.topic: p.payload for p in world.broker.retained() if p.topic.endswith(f"/{Status.channel}")}
    for device in cloned:
        payload = said.get(topics.build(FLEET, device, Status.channel))
        status = understand(topics.build(FLEET, device, Status.channel), payload) if payload else None
        if isinstance(status, Status) and status.session > rows[device].session:
            past.add(device)
    return tuple(sorted(past))


def steady(world: World, lease_ms_min: int = 0, but: Collection[str] = ()) -> Assigned:
    """Tasks that run and have no reason to change, but to end well: neither one of their own, nor a job of a
    higher priority that may need their room, nor the balance of a fleet that levels itself, nor a gang of
    theirs that is broken: its rest gives its room up.

    `lease_ms_min`: shorter leases are left out, because what comes may outlast them.
    `but`: nothing of these devices.
    """
    found: Assigned = {}
    threat, levelled = threats(world.checkers.seen), world.rules.rebalance == "auto"
    for task in world.checkers.tasks.values():
        job = world.checkers.jobs[task.job]
        forever = "--ms" not in job.spec.command
        ends_well = job.kind is JobKind.BATCH and job.spec.command[-1] == "0"
        stays = job.desired != CANCELLED and job.lease_ms >= lease_ms_min
        stays = stays and not (levelled and movable(job)) and not in_part(world.checkers.seen, job)
        stays = stays and (job.priority > threat - DELTA or job.kind is JobKind.DAEMON)
        if task.state is TaskState.RUNNING and (forever or ends_well) and stays and task.device not in but:
            found[task.id] = (task.device, task.attempt)
    return found


def moved(world: World, before: Assigned) -> str:
    """The first of these tasks that isn't where it was, and didn't end well; else empty."""
    for task, (device, attempt) in before.items():
        row = world.task(task)
        if row.state is TaskState.SUCCEEDED:
            continue
        if (row.state, row.device, row.attempt) != (TaskState.RUNNING, device, attempt):
            return f"{task} was {attempt} on {device} and is {row.attempt} on {row.device}, {row.state}"
    return ""
