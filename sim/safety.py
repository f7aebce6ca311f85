"""Safety: one plan played to its end, and what came of it.

Rule of this file: three phases. Faults while people work; then calm, in which everything
runnable must run within the bound of I11; then peace, in which nothing may move, not even
when one component is restarted (I12). What throws is a verdict of its own, never a pass,
and so is a run in which nothing ever started. It draws nothing but the component.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace

import firmware_profiles
from broker.events import BrokerQuirks, Survival
from controller.core.rules import Rules
from controller.scheduler.policies import DEFAULT
from protocol.limits import HEARTBEAT_MS, LEASE_MS, hold_ms
from sim import faults, workload
from sim.clockwork import START_MS
from sim.controllers import Storage
from sim.fault_families.kinds import LATENESS, Scene
from sim.fault_families.of_facts import describe_as
from sim.faults import FAULTS
from sim.network import Weather
from sim.observations import RestartBegan, RestartOver
from sim.offers import OFFERS
from sim.plan import Outcome, Plan, PlannedDevice, Verdict
from sim.settling import accused, moved, steady, unsettled
from sim.world import World

RECONNECT_MS = 60_000
COOL_DOWN_MS = 90_000
"""Freezes, and take-overs that wait for a hold of their own."""
LOOK_MS = 500
QUIET_MS = 10_000
"""Settled for so long without a move before a component is restarted."""
STABLE_MS = 61_000
"""After so long a connection is forgiven its tries, and is back within 2 s (S3)."""
ONE_LOST_MS = 16_000
"""The shortest lease that surely outlives a restart of controller or agent and one lost message (protocol,
section 4): lease / 3 + 3 x HEARTBEAT_RETRY_MS + HEARTBEAT_SPACING_MS + 2 x latency
<= lease - lease / EXPIRY_GRACE_SHARE - KILL_MS. A heartbeat is due a third of the lease after the last grant;
two are lost while the controller connects, one by chance, and the fourth only teaches a new leader to want
`Runs`. With 120 ms of latency the lease is at least 15.84 s."""

MakeStorage = Callable[[], Storage]
Watch = Callable[[World], None]


def run_plan(plan: Plan, make_storage: MakeStorage, watch: Watch | None = None) -> Outcome:
    """Plays it. `watch` gets the world before anything happens in it."""
    world = build(plan, make_storage())
    scene = Scene(world, plan, fair_weather(plan))
    if watch is not None:
        watch(world)
    try:
        detail = _play(scene)
        world.checkers.finish()
        for leak in world.network.leaks():
            world.checkers.breach("I13", leak)
        verdict = Verdict.NOT_CONVERGED if detail else Verdict.HELD
        if not world.checkers.starts and plan.orders:
            verdict, detail = Verdict.CRASHED, "no task ever started, so nothing was shown"
        elif not world.checkers.starts:
            verdict, detail = Verdict.CRASHED, "the plan orders no work, so nothing was shown"
    except Exception:
        verdict, detail = Verdict.CRASHED, traceback.format_exc()
    return _outcome(scene, verdict, detail)


def _outcome(scene: Scene, verdict: Verdict, detail: str) -> Outcome:
    world, breaches = scene.world, list(scene.world.checkers.breaches)
    if breaches and verdict is not Verdict.CRASHED:
        verdict = Verdict.VIOLATED
    return Outcome(
        plan=scene.plan,
        verdict=verdict,
        detail=detail,
        breaches=breaches,
        virtual_ms=world.now_ms - START_MS,
        starts=sum(world.checkers.starts.values()),
        failovers=failovers(world),
        faults=dict(sorted(scene.counts.items())),
        trace_hash=world.clock.digest(),
    )


# ------------------------------------------------------------- the phases


def _play(scene: Scene) -> str:
    """What did not settle; empty when all went well."""
    world, plan = scene.world, scene.plan
    world.begin()
    faults.schedule(scene)
    workload.schedule(scene)
    world.advance(plan.faults_ms)
    faults.calm(scene)
    last_will_ms = world.now_ms + will_ms(plan)
    world.advance(landing_ms(plan))
    if late := _settles(scene, world.now_ms + settle_ms(plan)):
        return late
    world.advance(max(0, last_will_ms - world.now_ms))
    until_ms = world.now_ms + settle_ms(plan)
    return _settles(scene, until_ms) or _rests(scene, until_ms) or _stays(scene)


def _settles(scene: Scene, until_ms: int) -> str:
    """Looked at twice a second: a bound of minutes needs no finer eye."""
    world = scene.world
    while wrong := unsettled(world):
        if world.now_ms >= until_ms:
            return f"not settled {settle_ms(scene.plan)} ms after the last fault: {wrong}"
        world.advance(LOOK_MS)
        workload.reopen(scene)
    return ""


def _rests(scene: Scene, until_ms: int) -> str:
    """Moves stop: what is well stays well. A run that was dying already when all looked well may go first."""
    world = scene.world
    while True:
        before = steady(world)
        world.advance(STABLE_MS if restarted(scene.plan) == "broker" else QUIET_MS)
        wrong = moved(world, before)
        if not wrong:
            return ""
        if world.now_ms >= until_ms:
            world.checkers.breach("I11", f"moves don't stop: {wrong}")
            return ""
        if late := _settles(scene, until_ms):
            return late


def _stays(scene: Scene) -> str:
    """One component is restarted, and nothing moves (I12)."""
    world, component = scene.world, restarted(scene.plan)
    lease_ms_min = LEASE_MS if component == "broker" else ONE_LOST_MS
    tasks = tuple(steady(world, lease_ms_min, accused(world, scene.clones)))
    world.checkers.saw(RestartBegan(world.now_ms, component, tasks))
    restart(scene, component)
    world.advance(hold_ms(longest_lease_ms(scene.plan)) + HEARTBEAT_MS)
    world.checkers.saw(RestartOver(world.now_ms, component))
    return _settles(scene, world.now_ms + settle_ms(scene.plan))


def restarted(plan: Plan) -> str:
    """Which component is restarted in peace."""
    return ("controller", "agent", "broker")[plan.seed % 3]


def restart(scene: Scene, component: str) -> None:
    """As quickly as a supervisor does it."""
    world = scene.world
    world.clock.trace("peace", f"restart {component}")
    if component == "controller":
        leader = world.leader or world.controller
        leader.kill()
        leader.start()
    elif component == "broker":
        world.restart_broker(0, Survival.LOST)
    else:
        device = world.devices[scene.plan.devices[scene.plan.seed // 3 % len(scene.plan.devices)].name]
        device.kill_agent()
        device.start_agent()


def settle_ms(plan: Plan) -> int:
    """The bound of I11: reconnect maximum + hold + heartbeat + cool-down."""
    weak = any(device.containment == "weak" for device in plan.devices)
    return RECONNECT_MS + hold_ms(longest_lease_ms(plan), weak) + HEARTBEAT_MS + COOL_DOWN_MS


def landing_ms(plan: Plan) -> int:
    """Until the last straggler has arrived, counted from the last fault."""
    ends = [
        min(fault.at_ms + fault.for_ms, plan.faults_ms) + int(value) - plan.faults_ms
        for fault in plan.faults
        for name, value in fault.args
        if name in LATENESS
    ]
    return max((end for end in ends if end > 0), default=0)


def will_ms(plan: Plan) -> int:
    """Until the last will of a life before has come, counted from the last fault: a broker that doesn't
    notice silence owes it until the device is back, and one that is late sends it so much later."""
    late_ms = int(dict(plan.quirks).get("will_late_ms", 0))
    return RECONNECT_MS + late_ms if late_ms else 0


def longest_lease_ms(plan: Plan) -> int:
    leases = [int(dict(order.args)["lease_ms"]) for order in plan.orders if "lease_ms" in dict(order.args)]
    return max(leases, default=LEASE_MS)


# ------------------------------------------------------------- the world of a plan


def build(plan: Plan, storage: Storage) -> World:
    """Its devices, still switched off, on its network."""
    world = World(plan.seed, storage, (), plan.controllers)
    for device in plan.devices:
        _add(world, device)
    world.rule(rules_of(plan))
    world.network.weather = fair_weather(plan)
    quirks = BrokerQuirks(**{name: _quirk(name, value) for name, value in plan.quirks})  # type: ignore[arg-type]
    world.network.quirks(quirks)
    return world


def rules_of(plan: Plan) -> Rules:
    """What is decided for the whole fleet; who levels it does so at any load, with plans of any size."""
    rules = Rules(plan.policy or DEFAULT, OFFERS[plan.offer])
    if not plan.balance_ms:
        return rules
    return replace(
        rules,
        rebalance="auto",
        look_ms=plan.balance_ms,
        load_percent_least=0,
        auto_moves_max=rules.aims.moves_max,
    )


def _add(world: World, planned: PlannedDevice) -> None:
    profile = firmware_profiles.load(planned.profile)
    device = world.add_device(planned.name)
    device.profile, device.heartbeat_ms = profile.name, profile.presence.heartbeat_ms
    device.core_speed_milli = profile.capacity.core_speed_milli
    device.containment = planned.containment
    device.set_rate(planned.rate_ppm)
    describe_as(device, planned)


def _quirk(name: str, value: int | str) -> int | bool:
    return int(value) if name.endswith("_ms") else bool(value)


def fair_weather(plan: Plan) -> Weather:
    """What the links of these devices do on a good day: the worst of their classes."""
    links = [firmware_profiles.load(p).link for p in sorted({device.profile for device in plan.devices})]
    low = min((link.latency_p50_ms for link in links), default=1)
    high = max((link.latency_p99_ms for link in links), default=5)
    lost = max((link.loss_permille for link in links), default=0)
    return Weather((low, max(low, high)), lost / 1_000)


# ------------------------------------------------------------- what came of it


def failovers(world: World) -> int:
    """Attempts that were committed for a task which had one on another device before."""
    last: dict[str, str] = {}
    found = 0
    for (task, _), row in sorted(world.checkers.attempts.items()):
        found += last.get(task, row.device) != row.device
        last[task] = row.device
    return found


def describe(plan: Plan) -> str:
    """Everything that was drawn, in lines for people."""
    lines = [f"seed {plan.seed}: {len(plan.devices)} devices, {plan.controllers} controller(s), faults for "
             f"{plan.faults_ms / 1_000:g} s, families: {', '.join(plan.families) or 'none'}"]  # fmt: skip
    levels = f", levelled each {plan.balance_ms:,} ms" if plan.balance_ms else ""
    lines += [f"  policy {plan.policy or DEFAULT}, offer {plan.offer}{levels}"]
    lines += [f"  broker quirk {name} = {value}" for name, value in plan.quirks]
    lines += [
        f"  {d.name}: {d.profile}, site {d.site or '-'}, clock {d.rate_ppm:+} ppm, {d.containment}"
        + "".join(f", {word}" for word in (d.labels, d.accelerators, d.extras) if word)
        for d in plan.devices
    ]
    lines += [f"  {line}" for _, line in sorted(_told(plan), key=lambda item: item[0])]
    lines.append(f"  at the end a restart of the {restarted(plan)}")
    return "\n".join(lines)


def _told(plan: Plan) -> list[tuple[int, str]]:
    """One line for each order and fault, with its moment."""
    told = []
    for order in plan.orders:
        words = " ".join(f"{name}={value}" for name, value in order.args)
        told.append((order.at_ms, f"{order.at_ms:>7} ms  people  {order.kind} {words}"))
    for fault in plan.faults:
        words = " ".join(f"{name}={value}" for name, value in fault.args)
        lasts = f"for {fault.for_ms} ms" if fault.for_ms else ""
        outside = " (outside the assumptions)" if FAULTS[fault.kind].outside else ""
        parts = (fault.kind + outside, fault.device, lasts, words)
        told.append((fault.at_ms, f"{fault.at_ms:>7} ms  fault   {' '.join(filter(None, parts))}"))
    return told
