"""A rogue: an attacker who has one device's password, and with it tries everybody's topics.

Rule of this file: it counts as a leak what the broker lets through, not what a core makes of
it: a foreign publication that was taken, a foreign subscription that was granted, a foreign
message that was heard. The device's own topics are its own: who has its password may speak
for it. It knows no connection but by number.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.events import SUBSCRIBE_FAILED, Publication
from protocol import topics
from protocol.codec import encode
from protocol.messages import Assignments, Heartbeat, Held, LeaseAnswer, Message, Revision, Runs, Status
from protocol.messages import Settings as DeviceSettings

NUMBER = 2**40
"""A session and revision above all that a run ever reaches: believed, it would win."""
POISON = b"\xbf\xff{not a message"


class Rogue:
    """One stolen password in use; a client of the network."""

    def __init__(self, client: str, says: tuple[Publication, ...], wants: tuple[str, ...]) -> None:
        self.client = client
        self.says = says
        self.wants = wants
        self.leaks: list[str] = []
        self.publish: Callable[[int, str, bytes, int, bool], None] = lambda *_: None
        self.leave: Callable[[int], None] = lambda _: None

    def owns(self, topic: str) -> bool:
        """Whether a topic or filter lies below this device's own name."""
        levels = topic.split("/")
        return len(levels) == 5 and levels[3] == self.client

    def came_through(self, topic: str) -> None:
        """The broker took this publication."""
        if not self.owns(topic):
            self.leaks.append(f"{self.client}'s password published {topic}")

    def granted(self, codes: tuple[int, ...]) -> None:
        """The broker's answer to what it wanted to read."""
        for wanted, code in zip(self.wants, codes, strict=True):
            if code != SUBSCRIBE_FAILED and not self.owns(wanted):
                self.leaks.append(f"{self.client}'s password subscribed {wanted}")

    # ------------------------------------------------------------- the connection's news

    def on_link_up(self, connection: int) -> None:
        for word in self.says:
            self.publish(connection, word.topic, word.payload, word.qos, word.retain)
        self.leave(connection)

    def on_link_down(self, connection: int, reason: str) -> None:
        """It was taken over; one attempt is enough."""

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if not self.owns(topic):
            self.leaks.append(f"{self.client}'s password heard {topic}")


def forgeries(fleet: str, victim: str) -> tuple[Publication, ...]:
    """What would hurt `victim` if it came through: each document forged, and poison on each channel."""
    revision = Revision(NUMBER, NUMBER)
    forged: tuple[Message, ...] = (
        Runs(NUMBER, NUMBER, revision),
        Status(False, NUMBER, "forged", "forged"),
        Heartbeat(NUMBER, 1, Held(NUMBER, NUMBER, NUMBER, 1, 0, 0)),
        Assignments(revision),
        LeaseAnswer(NUMBER, NUMBER, 1, revision),
        DeviceSettings(revision, NUMBER, quarantined=True),
    )
    said = [Publication(_topic(fleet, victim, m.channel), encode(m), m.qos, m.retain) for m in forged]
    said += [Publication(_topic(fleet, victim, c), POISON, 1, True) for c in (*topics.UP, *topics.DOWN)]
    return (*said, Publication(_topic(fleet, topics.CONTROLLER, "status"), POISON, 1, True))


def _topic(fleet: str, device: str, channel: str) -> str:
    return topics.build(fleet, device, channel)
