"""Declaring: jobs with all that can be said of them, as orders, drawn by swarm.

Rule of this file: each seed switches a random subset of features on (none, for some), and each
job takes some of those; all of them at once would hide what two of them do together. It draws
from streams of its own, so the plain jobs, the people and the faults of a seed stay as they
are. What is drawn is a job that the API would take. It knows no fault and plays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from controller.core.records import Constraint, JobRules
from controller.scheduler.policies import NAMES as POLICIES
from protocol.limits import LEASE_MS_MAX, LEASE_MS_MIN
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind
from sim import phrases
from sim.fault_families.kinds import Name, OneOf, Phrase, Whole, Word
from sim.plan import Args, Order, PlannedDevice
from sim.world import Wish

FEATURES = (
    "daemons", "crons", "gangs", "chains", "bounds", "ranks", "demands", "wishes", "apart", "marks",
    "extras", "accelerators", "reference", "policies", "owners", "returns", "crowds", "levelling",
    "balance", "rooms",
)  # fmt: skip
PLAIN_SHARE = 0.25
"""Of all seeds: nothing new at all, as before there was anything."""
GAP_MS, GAP_MS_MIN, FIRST_JOBS = 200_000, 5_000, 3
LEASES_MS = (6_000, 10_000, 20_000, 30_000, 30_000)
LASTS_MS = (300, 2_000, 8_000, 40_000, 90_000)
PRIORITIES = (0, 0, 5, 10, 30, 50, 90)
ZONES, TIERS, MODELS = ("a", "b", "c"), ("1", "2", "3"), ("t4", "a2")
TAINTS = ("role=camera:no_place", "slow:prefer_not", "night:evict")
TOLERATIONS = ("role=camera", "night:evict", "*")
OWNERS = ("ada", "bob", "cleo")
DEMANDS = (
    "label.zone = a", "label.zone != b", "label.zone in a,b", "label.tier >= 2", "label.zone exists",
    "site exists", "containment = strong", "profile regex pi", "label.zone = nowhere",
    "core_speed_milli > 900",
)  # fmt: skip
APART = ("distinct_device", "label.zone distinct", "label.zone distinct 2", "site distinct 3")
WISHES = ("50 label.zone = a", "-80 label.tier = 1", "100 site exists; -20 label.zone = b")
SPREADS = ("50 label.zone a:60 b:40", "50 label.tier", "80 label.zone; 20 site")
SCHEDULES = ("* * * * *", "*/2 * * * *")
RETURNS = ("newest", "keep_original", "longest_running", "best_score")

Features = tuple[str, ...]
Stream = Callable[[str], Random]

DECLARE: dict[str, Word] = {
    "job": Name("a job"),
    "count": Whole(0, 1_000),
    "runs_ms": Whole(0, 86_400_000),
    "exit_code": Whole(0, 255),
    "work": OneOf(tuple(map(str, JobKind))),
    "guarantee": OneOf(tuple(g.name.lower() for g in Guarantee)),
    "lease_ms": Whole(LEASE_MS_MIN, LEASE_MS_MAX),
    "cpu_milli": Whole(0, 1_000_000),
    "memory_mib": Whole(0, 1_000_000),
    "gpu_milli": Whole(0, 16_000),
    "models": Name("models, or nothing"),
    "extras": Phrase(phrases.amounts),
    "reference_cpu": Whole(0, 1),
    "priority": Whole(0, 100),
    "policy": OneOf(("", *POLICIES)),
    "owner": Name("an owner, or nothing"),
    "gang": Whole(0, 1),
    "parallel_max": Whole(0, 1_000),
    "depends_on": Phrase(phrases.dependencies),
    "constraints": Phrase(phrases.constraints),
    "affinities": Phrase(phrases.affinities),
    "spreads": Phrase(phrases.spreads),
    "tolerations": Phrase(phrases.tolerations),
    "on_return": OneOf(RETURNS),
    "schedule": Name("times of a cron job, or nothing"),
    "overlap": Whole(0, 1),
    "missed": OneOf(("skip", "once", "all")),
}
"""The words of a job that says everything, all of them required."""


def wish_of(words: dict[str, int | str]) -> Wish:
    """A job as its order says it; a plain `submit` says less."""

    def text(name: str) -> str:
        return str(words.get(name, ""))

    kind, site = JobKind(text("work")), text("site")
    demanded = phrases.constraints(text("constraints"))
    return Wish(
        count=int(words["count"]),
        runs_ms=int(words["runs_ms"]),
        exit_code=int(words["exit_code"]),
        kind=kind,
        guarantee=Guarantee[text("guarantee").upper()],
        needs=Resources(
            int(words["cpu_milli"]), int(words["memory_mib"]), gpu_milli=int(words.get("gpu_milli", 0))
        ),
        constraints=(*demanded, Constraint("site", "=", site)) if site else demanded,
        priority=int(words.get("priority", 0)),
        max_attempts=0 if kind in (JobKind.SERVICE, JobKind.DAEMON) else 3,
        lease_ms=int(words["lease_ms"]),
        key=text("job"),
        extras=phrases.amounts(text("extras")),
        models=phrases.names(text("models")),
        reference_cpu=bool(words.get("reference_cpu", 0)),
        affinities=phrases.affinities(text("affinities")),
        spreads=phrases.spreads(text("spreads")),
        tolerations=phrases.tolerations(text("tolerations")),
        rules=_rules_of(words),
    )


def _rules_of(words: dict[str, int | str]) -> JobRules:
    return JobRules(
        policy=str(words.get("policy", "")),
        owner=str(words.get("owner", "")),
        gang=bool(words.get("gang", 0)),
        parallel_max=int(words.get("parallel_max", 0)),
        depends_on=phrases.dependencies(str(words.get("depends_on", ""))),
        on_return=str(words.get("on_return", "newest")),
        schedule=str(words.get("schedule", "")),
        overlap=bool(words.get("overlap", 0)),
        missed=str(words.get("missed", "skip")),
    )


# ------------------------------------------------------------- drawing


def draw_features(stream: Stream) -> Features:
    """What this seed's jobs and devices have beside what they always had."""
    rng = stream("features")
    share = 0.0 if rng.random() < PLAIN_SHARE else rng.uniform(0.1, 0.7)
    return tuple(name for name in FEATURES if stream(f"feature {name}").random() < share)


def draw_declared(
    stream: Stream, features: Features, devices: tuple[PlannedDevice, ...], lasts_ms: int, plain_jobs: int
) -> list[Order]:
    """Jobs that say more, and the people who deal with them; nothing where no feature is on."""
    if not features:
        return []
    rng, gap_ms = stream("declared"), max(GAP_MS_MIN, GAP_MS // len(devices))
    moments, at_ms = [0] * FIRST_JOBS, 0.0
    while (at_ms := at_ms + rng.expovariate(1 / gap_ms)) < lasts_ms:
        moments.append(int(at_ms))
    jobs = [
        Order(at, "declare", _draw_job(stream(f"declared k{n}"), n, features, plain_jobs))
        for n, at in enumerate(moments, 1)
    ]
    return jobs + _draw_people(stream("declaring people"), features, devices, lasts_ms, jobs)


def _draw_job(rng: Random, number: int, features: Features, plain_jobs: int) -> Args:
    def takes(feature: str, chance: float = 0.5) -> bool:
        return rng.random() < chance and feature in features

    kind = rng.choice((JobKind.BATCH, JobKind.BATCH, JobKind.SERVICE))
    kind = JobKind.DAEMON if takes("daemons", 0.3) else JobKind.CRON if takes("crons", 0.3) else kind
    crowded = takes("crowds", 0.7) or takes("ranks", 0.6)  # who has room enough sends nobody away
    words = _plain_words(rng, kind, f"k{number}", crowded)
    alone = kind is JobKind.DAEMON
    if takes("gangs") and not alone:
        words |= {"gang": 1, "count": rng.randint(2, 5)}
    elif takes("bounds") and not alone:
        words |= {"parallel_max": rng.randint(1, 3), "count": rng.randint(1, 8)}
        if kind is JobKind.SERVICE:
            words["count"] = min(int(words["count"]), int(words["parallel_max"]))
    if takes("chains", 0.4):
        words["depends_on"] = _draw_dependency(rng, number, plain_jobs)
    _draw_place(rng, words, takes, alone)
    if takes("ranks", 0.8):
        words["priority"] = rng.choice(PRIORITIES)
    if takes("policies"):
        words["policy"] = rng.choice(POLICIES)
    if takes("owners"):
        words["owner"] = rng.choice(OWNERS)
    if takes("returns", 0.6):
        words |= {"on_return": rng.choice(RETURNS), "guarantee": "at_least_one"}
    return tuple(sorted(words.items()))


def _plain_words(rng: Random, kind: JobKind, job: str, crowded: bool) -> dict[str, int | str]:
    ends = kind in (JobKind.BATCH, JobKind.CRON) or rng.random() < 0.1
    cron = kind is JobKind.CRON
    return {
        "job": job,
        "count": 0 if kind is JobKind.DAEMON else rng.choice((1, 1, 2, 3, 5)),
        "runs_ms": rng.choice(LASTS_MS) if ends else 0,
        "exit_code": rng.choice((0, 0, 0, 1)) if ends else 0,
        "work": str(kind),
        "guarantee": rng.choice(("at_most_one", "at_most_one", "at_least_one")),
        "lease_ms": rng.choice(LEASES_MS),
        "cpu_milli": rng.choice((1_000, 2_000, 3_500) if crowded else (100, 250, 500)),
        "memory_mib": rng.choice((100, 500, 2_000) if crowded else (20, 50, 100)),
        "gpu_milli": 0, "models": "", "extras": "", "reference_cpu": 0, "priority": 0, "policy": "",
        "owner": "", "gang": 0, "parallel_max": 0, "depends_on": "", "constraints": "", "affinities": "",
        "spreads": "", "tolerations": "", "on_return": "newest",
        "schedule": rng.choice(SCHEDULES) if cron else "",
        "overlap": int(cron and rng.random() < 0.5),
        "missed": rng.choice(("skip", "once", "all")) if cron else "skip",
    }  # fmt: skip


def _draw_place(rng: Random, words: dict[str, int | str], takes: Callable[..., bool], daemon: bool) -> None:
    """Where it may run, where it would like to, and what it needs of a device."""
    demands = [rng.choice(DEMANDS)] if takes("demands", 0.6) else []
    if takes("apart") and not daemon:
        demands.append(rng.choice(APART))
    words["constraints"] = "; ".join(demands)
    if takes("wishes"):
        words |= {"affinities": rng.choice(("", *WISHES)), "spreads": rng.choice(("", *SPREADS))}
    if takes("marks"):
        words["tolerations"] = rng.choice(TOLERATIONS)
    if takes("extras"):
        words["extras"] = rng.choice(("camera=1", "licence=2", "camera=1 licence=1"))
    if takes("accelerators", 0.6):
        words["gpu_milli"] = rng.choice((250, 300, 500, 1_000, 1_000, 2_000))
        words["models"] = rng.choice(("", "", *MODELS))
    if takes("reference"):
        words["reference_cpu"] = 1


def _draw_dependency(rng: Random, number: int, plain_jobs: int) -> str:
    """Of one or two that come before; not all of them are there yet, or end, or succeed."""
    known = [f"k{n}" for n in range(1, number)] + [f"j{n}" for n in range(1, min(plain_jobs, 2 * number) + 1)]
    chosen = rng.sample(known, min(len(known), rng.randint(1, 2)))
    return " ".join(f"{job}:{rng.choice(('succeeded', 'ended'))}" for job in chosen)


def _draw_people(
    rng: Random, features: Features, devices: tuple[PlannedDevice, ...], lasts_ms: int, jobs: list[Order]
) -> list[Order]:
    """Cancels, taints put and taken, looks at how level the fleet is, and room made for who waits."""
    orders, at_ms = [], 0.0
    gap_ms = max(GAP_MS_MIN, 2 * GAP_MS // len(devices))
    while (at_ms := at_ms + rng.expovariate(1 / gap_ms)) < lasts_ms:
        at, device = int(at_ms), devices[rng.randrange(len(devices))].name
        taint, pause_ms, dice = rng.choice(TAINTS), rng.randint(500, 90_000), rng.random()
        if dice < 0.3:
            begun = [job for job in jobs if job.at_ms <= at]
            orders.append(Order(at, "cancel", (("job", f"k{rng.randint(1, len(begun))}"),)))
        elif dice < 0.7 and "marks" in features:
            words: Args = (("device", device), ("value", taint))
            orders.append(Order(at, "taint", words))
            if pause_ms % 3:
                orders.append(Order(at + pause_ms, "untaint", words))
        elif "rooms" in features and (pause_ms % 2 or "levelling" not in features):
            orders.append(Order(at, "make_room", (("nth", pause_ms % 100),)))
        elif "levelling" in features:
            orders.append(Order(at, "rebalance"))
    return [order for order in orders if order.at_ms < lasts_ms]


def equip(stream: Stream, features: Features, device: PlannedDevice) -> tuple[str, str, str]:
    """(labels, accelerators, extras) of one device, as phrases."""
    rng = stream(f"things {device.name}")
    zone, tier = rng.choice(("", *ZONES)), rng.choice(("", *TIERS))
    facts = [f"{name}={value}" for name, value in (("zone", zone), ("tier", tier)) if value]
    count, sizes = rng.randint(0, 3), (1_000, 1_000, 500)
    cards = [f"gpu{n}:{rng.choice(MODELS)}:{rng.choice(sizes)}" for n in range(count)]
    things = rng.choice(("", "camera=1", "camera=2 licence=3", "licence=5"))
    labelled = {"demands", "wishes", "apart", "daemons"} & frozenset(features)
    return (
        " ".join(facts) if labelled else "",
        " ".join(cards) if "accelerators" in features else "",
        things if "extras" in features else "",
    )
