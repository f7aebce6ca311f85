"""What a clone leaves behind when it is gone: words that still speak against the machine."""

from __future__ import annotations

from broker.events import BrokerQuirks, Survival
from protocol.limits import LEASE_MS, hold_ms
from sim.settling import accused

HOLD = hold_ms(LEASE_MS)


def test_a_clone_may_be_found_out_at_the_next_birth_long_after_it_went(world):
    """The machine's own birth met no controller and a broker that retains nothing for wildcards."""
    device = world.devices["d0"]
    world.network.quirks(BrokerQuirks(no_retained_for_wildcards=True))
    clone = device.clone()
    world.network.cut(device.place)
    clone.boot()
    world.until(lambda: world.checkers.devices["d0"].boot_id == clone.boot_id, 60_000)
    clone_session = clone.agent.memory.session
    world.controller.kill()
    clone.power_off()
    world.network.heal(device.place)
    while device.agent.memory.session <= clone_session:  # else it is told the floor, and gives birth again
        device.kill_agent()
        device.start_agent()
        world.advance(20_000)
    world.controller.start()
    world.until(lambda: world.ready("d0"), 60_000)
    world.advance(HOLD)
    assert not world.checkers.devices["d0"].quarantined and accused(world, ["d0"]) == ("d0",)
    world.restart_broker(0, Survival.LOST)
    world.until(lambda: world.checkers.devices["d0"].quarantined, 10_000, "a quarantine")
    world.decide("d0", "uncordon")
    world.until(lambda: world.ready("d0"), 60_000)
    assert not accused(world, ["d0"])


def test_a_clones_late_will_may_outlive_a_removal_and_be_above_what_begins_anew(world):
    """The will is retained in a higher session; who was removed and added is known by its own, lower one."""
    device = world.devices["d0"]
    world.network.quirks(BrokerQuirks(will_late_ms=30_000))
    clone = device.clone()
    world.network.cut(device.place)
    clone.boot()
    while clone.agent is None or clone.agent.memory.session <= device.agent.memory.session + 5:
        clone.kill_agent()
        clone.start_agent()
        world.advance(20_000)
    world.decide("d0", "remove")
    clone.power_off()
    world.network.heal(device.place)
    world.advance(60_000)
    world.decide("d0", "add")
    world.until(lambda: world.ready("d0"), 60_000)
    assert accused(world, ["d0"]) == ("d0",) and accused(world, []) == ()
    told = world.checkers.devices["d0"].session
    world.controller.kill()
    world.controller.start()
    world.advance(60_000)
    assert world.checkers.devices["d0"].session > told and not accused(world, ["d0"])
