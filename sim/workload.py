"""The workload: what people ask of a fleet, drawn over the whole run and played on a world.

Rule of this file: an order goes to whoever leads at its moment. A submission that gets no
answer is repeated under the same key, as a client would; the rest is lost, and people shrug.
Jobs are named by their order (`j3`), so an order can be left out without renaming others.
It knows no fault.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from protocol.limits import LEASE_MS_MAX, LEASE_MS_MIN
from protocol.tasks import Guarantee, JobKind
from sim import phrases
from sim.declaring import DECLARE, Features, draw_declared, wish_of
from sim.fault_families.kinds import Name, OneOf, Phrase, Scene, Whole, Word
from sim.plan import Args, Order, PlannedDevice

AGAIN_MS = 2_500
TRIES = 20
FIRST_JOBS = 4
GAP_MS = 150_000
"""A fleet of n devices gets a job every `GAP_MS` / n, and something from an operator as often."""
GAP_MS_MIN = 4_000
LEASES_MS = (6_000, 10_000, 20_000, 30_000, 30_000, 30_000, 60_000)
LASTS_MS = (300, 2_000, 8_000, 40_000, 90_000)

DEVICE: dict[str, Word] = {"device": Name("a device")}
ORDERS: dict[str, dict[str, Word]] = {
    "submit": {
        "job": Name("a job"),
        "count": Whole(1, 1_000),
        "runs_ms": Whole(0, 86_400_000),
        "exit_code": Whole(0, 255),
        "work": OneOf((str(JobKind.BATCH), str(JobKind.SERVICE))),
        "guarantee": OneOf(tuple(g.name.lower() for g in Guarantee)),
        "lease_ms": Whole(LEASE_MS_MIN, LEASE_MS_MAX),
        "cpu_milli": Whole(0, 1_000_000),
        "memory_mib": Whole(0, 1_000_000),
        "site": Name("a site, or nothing"),
    },
    "cancel": {"job": Name("a job")},
    "cordon": DEVICE,
    "drain": DEVICE,
    "uncordon": DEVICE,
    "remove": DEVICE,
    "add": DEVICE,
    "ping": DEVICE,
    "unfreeze": {},
    "declare": DECLARE,
    "taint": {**DEVICE, "value": Phrase(phrases.taint)},
    "untaint": {**DEVICE, "value": Phrase(phrases.taint)},
    "rebalance": {},
    "make_room": {"nth": Whole(0, 1_000)},
}
"""Kind of order -> the words that it takes, all of them required."""


# ------------------------------------------------------------- playing


def schedule(scene: Scene) -> None:
    """All orders of the plan, counted from now."""
    clock = scene.world.clock
    for order in scene.plan.orders:
        clock.after(order.at_ms, lambda order=order: give(scene, order))  # type: ignore[misc]


def give(scene: Scene, order: Order, tries: int = TRIES) -> None:
    """Gives one order; a submission until somebody answers."""
    world, words = scene.world, dict(order.args)
    world.clock.trace("people", f"{order.kind} {words.get('job', words.get('device', ''))}")
    if order.kind in ("submit", "declare"):
        request = world.submit_named(str(words["job"]), wish_of(words))
        world.clock.after(AGAIN_MS, lambda: _submit_again(scene, order, request, tries - 1))
    elif order.kind == "cancel":
        world.request_cancel(str(words["job"]))
    elif order.kind == "ping":
        world.ping(str(words["device"]))
    elif order.kind == "unfreeze":
        world.request_unfreeze()
    elif order.kind == "rebalance":
        world.request_rebalance()
    elif order.kind == "make_room":
        world.request_room(int(words["nth"]))
    elif order.kind in ("taint", "untaint"):
        world.request_taint(str(words["device"]), order.kind, str(words["value"]))
    else:
        world.request_decision(str(words["device"]), order.kind)


def _submit_again(scene: Scene, order: Order, request: int, tries: int) -> None:
    """The same key finds out whether the first one arrived."""
    if request not in scene.world.replies and tries and not scene.over:
        give(scene, order, tries)


def reopen(scene: Scene) -> None:
    """After the faults an operator makes good what is decided against devices, until it is done.

    A quarantine only of a device that had a clone, whose last word it may follow, that said what can't
    be true, or that lost its journal: a late status of the life before, in a higher session, looks like
    one of two machines.
    """
    world = scene.world
    doubtful = (*scene.clones, *world.checkers.seen.forgetful, *scene.doubted)
    for name in world.devices:
        row = world.checkers.devices.get(name)
        if row is not None and row.removed:
            world.request_decision(name, "add")
        elif row is not None and (row.cordoned or (row.quarantined and name in doubtful)):
            world.request_decision(name, "uncordon")


# ------------------------------------------------------------- drawing


def draw_orders(
    stream: Callable[[str], Random],
    devices: tuple[PlannedDevice, ...],
    lasts_ms: int,
    features: Features = (),
) -> tuple[Order, ...]:
    """Jobs at the beginning and all along; operators as busy as they were drawn."""
    jobs = _draw_jobs(stream("jobs"), devices, lasts_ms)
    people = _draw_people(stream("people"), devices, lasts_ms, jobs)
    more = draw_declared(stream, features, devices, lasts_ms, len(jobs))
    return tuple(sorted(jobs + people + more, key=lambda order: order.at_ms))


def _moments(rng: Random, gap_ms: int, lasts_ms: int) -> list[int]:
    found, at_ms = [], 0.0
    while (at_ms := at_ms + rng.expovariate(1 / gap_ms)) < lasts_ms:
        found.append(int(at_ms))
    return found


def _draw_jobs(rng: Random, devices: tuple[PlannedDevice, ...], lasts_ms: int) -> list[Order]:
    gap_ms = max(GAP_MS_MIN, GAP_MS // len(devices))
    leases = rng.sample(LEASES_MS, rng.randint(1, 4))
    sites = tuple(dict.fromkeys(device.site for device in devices if device.site))
    services = rng.choice((0.1, 0.3, 0.5))
    moments = [0] * FIRST_JOBS + _moments(rng, gap_ms, lasts_ms)
    return [
        Order(at_ms, "submit", _draw_job(rng, f"j{index}", leases, sites, services))
        for index, at_ms in enumerate(moments, 1)
    ]


def _draw_job(rng: Random, job: str, leases: list[int], sites: tuple[str, ...], services: float) -> Args:
    service = rng.random() < services
    ends = not service or rng.random() < 0.1
    words: dict[str, int | str] = {
        "job": job,
        "count": rng.choice((1, 1, 2, 3, 5)),
        "runs_ms": rng.choice(LASTS_MS) if ends else 0,
        "exit_code": rng.choice((0, 0, 0, 1)) if ends else 0,
        "work": str(JobKind.SERVICE if service else JobKind.BATCH),
        "guarantee": rng.choice(("at_most_one", "at_most_one", "at_least_one")),
        "lease_ms": rng.choice(leases),
        "cpu_milli": rng.choice((100, 250, 500, 1_000)),
        "memory_mib": rng.choice((20, 50, 100, 200)),
        "site": rng.choice(sites) if sites and rng.random() < 0.15 else "",
    }
    return tuple(sorted(words.items()))


def _draw_people(
    rng: Random, devices: tuple[PlannedDevice, ...], lasts_ms: int, jobs: list[Order]
) -> list[Order]:
    gap_ms = int(max(GAP_MS_MIN, GAP_MS // len(devices)) * rng.choice((0.5, 1, 4)))
    kinds = rng.choices(
        ("cancel", "cordon", "drain", "remove", "ping", "unfreeze"), (30, 20, 20, 6, 10, 4), k=1_000
    )
    orders = []
    for at_ms, kind in zip(_moments(rng, gap_ms, lasts_ms), kinds, strict=False):
        device: Args = (("device", devices[rng.randrange(len(devices))].name),)
        pause_ms = rng.randint(500, 60_000)
        if kind == "cancel":
            begun = [job for job in jobs if job.at_ms <= at_ms]
            orders.append(Order(at_ms, kind, (("job", f"j{rng.randint(1, len(begun))}"),)))
        elif kind == "unfreeze":
            orders.append(Order(at_ms, kind))
        else:
            orders.append(Order(at_ms, kind, device))
        if kind in ("cordon", "drain"):
            orders.append(Order(at_ms + pause_ms, "uncordon", device))
        elif kind == "remove":
            orders.append(Order(at_ms + pause_ms, "add", device))
    return [order for order in orders if order.at_ms < lasts_ms]
