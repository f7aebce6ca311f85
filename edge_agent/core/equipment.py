"""What an agent is and what its device offers: the parts of an inventory that no event changes.

Read once when the agent starts (`agent_config`, or whoever makes virtual devices); a device
that gets another disk or label says so after its agent's next start.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol import messages as wire
from protocol.resources import Resources


@dataclass(slots=True)
class Identity:
    """Who this agent is: the device, this boot of its kernel, the version of its software."""

    device: str
    boot_id: str
    version: str = ""


@dataclass(slots=True)
class Equipment:
    """What the device offers; the wire's `Inventory` without what a connection adds."""

    profile: str
    capacity: Resources
    labels: dict[str, str]
    runtimes: tuple[str, ...]
    heartbeat_ms: int
    containment: str = "strong"
    limits: str = ""
    accelerators: tuple[wire.Accelerator, ...] = ()
    extras: dict[str, int] = field(default_factory=dict)
    core_speed_milli: int = 1_000

    def inventory(self, identity: Identity, number: int, session: int) -> wire.Inventory:
        """The message of this number, in this session."""
        return wire.Inventory(
            number=number,
            session=session,
            profile=self.profile,
            capacity=self.capacity,
            labels=dict(self.labels),
            runtimes=self.runtimes,
            version=identity.version,
            boot_id=identity.boot_id,
            containment=self.containment,
            heartbeat_ms=self.heartbeat_ms,
            limits=self.limits,
            accelerators=self.accelerators,
            extras=dict(self.extras),
            core_speed_milli=self.core_speed_milli,
        )
