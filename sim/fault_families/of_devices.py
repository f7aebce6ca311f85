"""Faults of devices: processes die, machines stop, disks refuse, starts are slow.

Rule of this file: agent, guard and machine fail separately, because most holes of a protocol
lie between them. Ends give back whatever the device lacks, whoever took it.
"""

from __future__ import annotations

from random import Random

from firmware_profiles import load
from protocol.limits import CLOCK_RATE_PPM
from sim.devices import CLOCK_INVARIANTS, CLONE_INVARIANTS, SUSPEND_INVARIANTS, SimulatedDevice
from sim.fault_families.kinds import (
    Cast,
    Drawn,
    FaultKind,
    OneOf,
    Scene,
    Whole,
    Word,
    nothing,
    number,
    spread,
    text,
)
from sim.plan import Fault

GUARDS_RUNS = ("die", "survive")
IMAGES = ("lost", "kept")
SLOTS = ("all", "newest")
WITH = ("agent", "machine")
RATE_PPM_MAX = 5_000
"""A device may be fast by so much and a controller slow: 1 % between the two (section 11)."""
FAR_PPM_MAX = 100_000
BY: dict[str, Word] = {"by_ms": Whole(0, 600_000)}


def raise_device(device: SimulatedDevice) -> None:
    """Whatever it lacks: power, an end of its sleep, an agent, a thaw."""
    if not device.on:
        device.boot()
    device.resume()
    if device.process is not None:
        device.process.dies_after = None
    device.start_agent()
    device.thaw()


def _raise(scene: Scene, fault: Fault) -> None:
    raise_device(scene.device(fault))


# ------------------------------------------------------------- processes


def _agent_dies(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    lives = device.agent is not None
    device.kill_agent()
    return lives


def _agent_dies_after(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    device.agent_dies_after(number(fault, "steps"))
    return device.agent is not None


def _agent_freezes(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    device.freeze()
    return device.frozen


def _thaws(scene: Scene, fault: Fault) -> None:
    scene.device(fault).thaw()


def _guard_dies(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    device.kill_guard(survivors=text(fault, "runs") == "survive")
    return device.on


def _draw_agent(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 10, 30_000))


def _draw_freeze(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 500, 90_000))


def _draw_guard(rng: Random, cast: Cast) -> Drawn:
    """Runs survive only where containment is weak; elsewhere the word changes nothing."""
    return Drawn(cast.any_device(rng).name, 0, (("runs", rng.choice(GUARDS_RUNS)),))


def _draw_agent_dies_after(rng: Random, cast: Cast) -> Drawn:
    device = cast.any_device(rng).name
    return Drawn(device, rng.randint(2_000, 20_000), (("steps", rng.randint(0, 20)),))


# ------------------------------------------------------------- machines


def _processes_die(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    was_on = device.on
    device.kill()
    return was_on


def _power_fails(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    was_on = device.on
    device.power_off()
    return was_on


def _draw_killed(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 100, 60_000))


def _draw_power(rng: Random, cast: Cast) -> Drawn:
    """Off for a while, and as long as its class takes to boot on top."""
    device = cast.any_device(rng)
    return Drawn(device.name, spread(rng, 100, 60_000) + load(device.profile).behaviour.boot_ms)


# ------------------------------------------------------------- sleep and time


def _sleeps(scene: Scene, fault: Fault) -> bool:
    device = scene.device(fault)
    device.suspend(hook=fault.kind == "suspended")
    return device.on


def _wakes(scene: Scene, fault: Fault) -> None:
    scene.device(fault).resume()


def _clock_strays(scene: Scene, fault: Fault) -> None:
    scene.device(fault).set_rate(number(fault, "ppm"))


def _clock_returns(scene: Scene, fault: Fault) -> None:
    scene.device(fault).set_rate(scene.planned(fault.device).rate_ppm)


def _draw_sleep(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 1_000, 120_000))


def _draw_rate(rng: Random, cast: Cast) -> Drawn:
    ppm = rng.choice((-RATE_PPM_MAX, RATE_PPM_MAX, rng.randint(-RATE_PPM_MAX, RATE_PPM_MAX)))
    return Drawn(cast.any_device(rng).name, spread(rng, 10_000, 300_000), (("ppm", ppm),))


def _draw_far_rate(rng: Random, cast: Cast) -> Drawn:
    ppm = rng.choice((-1, 1)) * rng.randint(CLOCK_RATE_PPM + 1, FAR_PPM_MAX)
    return Drawn(cast.any_device(rng).name, spread(rng, 10_000, 300_000), (("ppm", ppm),))


# ------------------------------------------------------------- one identity twice


def _clone_boots(scene: Scene, fault: Fault) -> bool:
    """One clone of a device at most, and only of one that has a journal to copy."""
    device = scene.device(fault)
    if device.journal is None:
        return False
    clone = scene.clones.get(fault.device) or device.clone()
    scene.clones[fault.device] = clone
    was_on = clone.on
    if not was_on:
        clone.disk.copy_from(device.disk)
        clone.boot()
    return not was_on


def _clone_stops(scene: Scene, fault: Fault) -> None:
    clone = scene.clones.get(fault.device)
    if clone is not None and clone.on:
        clone.power_off()


def _draw_clone(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, rng.randint(20_000, 120_000))


# ------------------------------------------------------------- disks


def _save_tears(scene: Scene, fault: Fault) -> None:
    """The power fails inside the next save; later the machine has it again."""
    scene.device(fault).tear_next_save(lost=text(fault, "image") == "lost")


def _journal_rots(scene: Scene, fault: Fault) -> None:
    """Seen by the next process; the living one has all in memory."""
    device = scene.device(fault)
    (device.kill_agent if text(fault, "with") == "agent" else device.power_off)()
    device.corrupt_journal(only_newest=text(fault, "slots") == "newest")


def _disk_slows(scene: Scene, fault: Fault) -> None:
    scene.device(fault).disk.slow_ms = number(fault, "by_ms")


def _disk_hurries(scene: Scene, fault: Fault) -> None:
    scene.device(fault).disk.slow_ms = 0


def _draw_tear(rng: Random, cast: Cast) -> Drawn:
    device = cast.any_device(rng)
    off_ms = spread(rng, 1_000, 60_000) + load(device.profile).behaviour.boot_ms
    return Drawn(device.name, off_ms, (("image", rng.choice(IMAGES)),))


def _draw_rot(rng: Random, cast: Cast) -> Drawn:
    words = (("slots", rng.choice(SLOTS)), ("with", rng.choice(WITH)))
    return Drawn(cast.any_device(rng).name, spread(rng, 10, 40_000), words)


def _draw_slow_disk(rng: Random, cast: Cast) -> Drawn:
    by_ms = rng.choice((50, 500, 3_000, 40_000))
    return Drawn(cast.any_device(rng).name, spread(rng, 1_000, 60_000), (("by_ms", by_ms),))


def _journal_fails(scene: Scene, fault: Fault) -> None:
    """Nothing can be written: what runs say is lost with it."""
    device = scene.device(fault)
    device.journal_fails = device.guard.disk_full = True


def _journal_mends(scene: Scene, fault: Fault) -> None:
    device = scene.device(fault)
    device.journal_fails = device.guard.disk_full = False


def _draw_full(rng: Random, cast: Cast) -> Drawn:
    return Drawn(cast.any_device(rng).name, spread(rng, 100, 60_000))


def _journal_goes(scene: Scene, fault: Fault) -> None:
    """With the agent's process: a living one would write it anew."""
    device = scene.device(fault)
    (device.kill_agent if text(fault, "with") == "agent" else device.power_off)()
    device.wipe_journal()


def _draw_wipe(rng: Random, cast: Cast) -> Drawn:
    device, dies = cast.any_device(rng), rng.choice(WITH)
    return Drawn(device.name, spread(rng, 10, 40_000), (("with", dies),))


# ------------------------------------------------------------- slowness


def _starts_slow(scene: Scene, fault: Fault) -> None:
    """A busy machine: kills take almost all of K too."""
    guard = scene.device(fault).guard
    guard.slow_ms, guard.starved = number(fault, "by_ms"), True


def _starts_fast(scene: Scene, fault: Fault) -> None:
    guard = scene.device(fault).guard
    guard.slow_ms, guard.starved = 0, False


def _draw_slow(rng: Random, cast: Cast) -> Drawn:
    by_ms = rng.choice((500, 5_000, 27_000, 40_000, 70_000))
    return Drawn(cast.any_device(rng).name, spread(rng, 5_000, 90_000), (("by_ms", by_ms),))


KINDS = {
    "agent_killed": FaultKind("agents", _draw_agent, _agent_dies, _raise),
    "agent_dies_after": FaultKind(
        "agents", _draw_agent_dies_after, _agent_dies_after, _raise, {"steps": Whole(0, 10_000)}
    ),
    "agent_frozen": FaultKind("freezes", _draw_freeze, _agent_freezes, _thaws),
    "guard_killed": FaultKind("guards", _draw_guard, _guard_dies, nothing, {"runs": OneOf(GUARDS_RUNS)}),
    "processes_killed": FaultKind("machines", _draw_killed, _processes_die, _raise),
    "power_cut": FaultKind("machines", _draw_power, _power_fails, _raise),
    "suspended": FaultKind("sleep", _draw_sleep, _sleeps, _wakes),
    "suspended_unhooked": FaultKind(
        "pauses", _draw_sleep, _sleeps, _wakes, outside=SUSPEND_INVARIANTS,
        instead="once awake its guard has ended every run past its deadline within K",
    ),
    "clock_rate": FaultKind(
        "clocks", _draw_rate, _clock_strays, _clock_returns, {"ppm": Whole(-CLOCK_RATE_PPM, CLOCK_RATE_PPM)}
    ),
    "clock_far_off": FaultKind(
        "far_clocks", _draw_far_rate, _clock_strays, _clock_returns,
        {"ppm": Whole(-FAR_PPM_MAX, FAR_PPM_MAX)}, outside=CLOCK_INVARIANTS,
        instead="everybody else's work, and the device's own one hold after its clock is right again",
    ),
    "clone": FaultKind(
        "clones", _draw_clone, _clone_boots, _clone_stops, outside=CLONE_INVARIANTS,
        instead="X2 X3: the device is quarantined with an alarm, and nothing of it is freed by `Runs`",
    ),
    "journal_full": FaultKind("disks", _draw_full, _journal_fails, _journal_mends),
    "disk_slow": FaultKind("disks", _draw_slow_disk, _disk_slows, _disk_hurries, BY),
    "save_torn": FaultKind("journals", _draw_tear, _save_tears, _raise, {"image": OneOf(IMAGES)}),
    "journal_wiped": FaultKind("journals", _draw_wipe, _journal_goes, _raise, {"with": OneOf(WITH)}),
    "journal_corrupt": FaultKind(
        "journals", _draw_rot, _journal_rots, _raise, {"slots": OneOf(SLOTS), "with": OneOf(WITH)}
    ),
    "slow_starts": FaultKind("slow", _draw_slow, _starts_slow, _starts_fast, BY),
}  # fmt: skip
